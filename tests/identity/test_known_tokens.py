"""The memory of API tokens: what it knows, for how long, and what makes it forget."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.errors import InvalidToken
from gateway.identity import known_tokens as room
from gateway.identity.known_tokens import UNKNOWN_FOR_S, KnownTokens
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cut, Cutoffs
from tests.accounts.world import Clock

NEVER = 253_402_300_799


def principal(token: str = "t", user: str = "u", version: int = 1, ends: int = NEVER) -> Principal:
    return Principal(user, f"{user}@example.com", False, (), token, version, ends, ("r",), None, token)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> KnownTokens:
    return KnownTokens(Cutoffs(), clock=clock)


def dead(known: KnownTokens, digest: bytes) -> bool:
    try:
        known.find(digest)
    except InvalidToken:
        return True
    return False


def test_it_has_to_be_told_first(known: KnownTokens) -> None:
    assert known.find(b"d") is None
    known.remember(b"d", principal())
    assert known.find(b"d") == principal()
    assert repr(known) == "<KnownTokens 1 known, 0 unknown>"


def test_one_that_can_not_exist_is_refused_at_once(known: KnownTokens) -> None:
    assert dead(known, b"")


def test_a_revoked_one_is_dead_for_good(known: KnownTokens, clock: Clock) -> None:
    known.remember(b"d", principal())
    known.apply(Cut("token", "t", 0, clock.now + 60))
    clock.advance(10 * 86_400)
    assert dead(known, b"d"), "the cut-off is forgotten, the token stays dead, and nobody is asked"


def test_a_change_of_the_user_makes_it_unknown_and_an_old_one_changes_nothing(
    known: KnownTokens, clock: Clock
) -> None:
    known.remember(b"d", principal(version=3))
    known.remember(b"e", principal("t2", "somebody else"))
    known.apply(Cut("user", "u", 3, clock.now + 60))
    assert known.find(b"d") is not None
    known.apply(Cut("user", "u", 4, clock.now + 60))
    assert known.find(b"d") is None
    assert known.find(b"e") is not None
    known.remember(b"d", principal(version=4))
    known.apply(Cut("user", "u", 4, clock.now + 60))  # the feed tells everything more than once
    assert known.find(b"d") == principal(version=4)


def test_sessions_are_another_matter(known: KnownTokens, clock: Clock) -> None:
    known.remember(b"d", principal())
    known.apply(Cut("session", "t", 0, clock.now + 60))
    assert known.find(b"d") is not None


def test_what_was_read_just_before_a_change_is_read_again(clock: Clock) -> None:
    cutoffs = Cutoffs()
    known = KnownTokens(cutoffs, clock=clock)
    for cut in (Cut("user", "u", 2, clock.now + 60), Cut("token", "t2", 0, clock.now + 60)):
        cutoffs.apply(cut)
        known.apply(cut)
    known.remember(b"d", principal(version=1))
    known.remember(b"e", principal("t2", "v"))
    assert known.find(b"d") is None
    assert known.find(b"e") is None
    assert len(known) == 0


def test_its_end_comes_to_the_second(known: KnownTokens, clock: Clock) -> None:
    known.remember(b"d", principal(ends=int(clock.now) + 10))
    clock.advance(9.999)
    assert known.find(b"d") is not None
    clock.advance(0.001)
    assert dead(known, b"d")
    assert dead(known, b"d"), "and stays known, so that nobody is asked again"


def test_an_unknown_one_is_remembered_for_a_while(known: KnownTokens, clock: Clock) -> None:
    known.remember_unknown(b"d")
    assert dead(known, b"d")
    clock.advance(UNKNOWN_FOR_S)
    assert known.find(b"d") is None
    known.remember_unknown(b"d")
    known.remember(b"d", principal())
    assert known.find(b"d") is not None
    known.apply(Cut("user", "u", 9, clock.now + 60))
    assert known.find(b"d") is None, "it is not taken for unknown once its user changed"


def test_two_that_read_it_at_once_leave_one(known: KnownTokens, clock: Clock) -> None:
    known.remember(b"d", principal(version=3))
    known.remember(b"d", principal(version=3))
    known.apply(Cut("user", "u", 4, clock.now + 60))
    assert known.find(b"d") is None
    assert len(known) == 0


def test_both_memories_are_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_UNKNOWN", 3)
    known = KnownTokens(Cutoffs(), clock=clock, size=3)
    for number in range(3):
        known.remember(b"%d" % number, principal(f"t{number}"))
    known.find(b"0")
    known.remember(b"3", principal("t3"))
    assert [known.find(b"%d" % number) is not None for number in range(4)] == [True, False, True, True]
    for number in range(10):
        known.remember_unknown(b"u%d" % number)
    assert repr(known) == "<KnownTokens 3 known, 3 unknown>"
    assert dead(known, b"u9")
    known.remember_unknown(b"u7")
    known.remember_unknown(b"u10")
    assert dead(known, b"u7")
    assert known.find(b"u8") is None


def test_forgetting_everything_keeps_what_was_used(known: KnownTokens) -> None:
    known.remember(b"d", principal())
    known.find(b"d")
    known.forget_all()
    assert known.find(b"d") is None
    assert known.take_used() == {"t"}
    known.put_back_used({"t"})
    assert known.take_used() == {"t"}
    assert known.take_used() == set()


class Memory(RuleBasedStateMachine):
    """Whatever happens in whatever order: nothing dead is found, and no index outlives its token."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cutoffs = Cutoffs()
        self.known = KnownTokens(self.cutoffs, clock=self.clock, size=4)
        self.revoked: set[str] = set()
        self.versions = dict.fromkeys("uvw", 1)

    @rule(number=st.integers(0, 7), user=st.sampled_from("uvw"), behind=st.integers(0, 1))
    def learn(self, number: int, user: str, behind: int) -> None:
        version = max(1, self.versions[user] - behind)  # read a moment before the last change
        self.known.remember(b"%d" % number, principal(f"t{number}", f"{user}{number % 2}", version))

    @rule(number=st.integers(0, 7))
    def revoke(self, number: int) -> None:
        self.cut(Cut("token", f"t{number}", 0, self.clock.now + 60))
        self.revoked.add(f"t{number}")

    @rule(user=st.sampled_from("uvw"), half=st.integers(0, 1))
    def change(self, user: str, half: int) -> None:
        self.versions[user] += 1
        for each in (half, 1 - half):
            self.cut(Cut("user", f"{user}{each}", self.versions[user], self.clock.now + 60))

    @rule()
    def forget(self) -> None:
        self.known.forget_all()

    def cut(self, cut: Cut) -> None:
        self.cutoffs.apply(cut)
        self.known.apply(cut)

    @invariant()
    def nothing_outdated_is_found(self) -> None:
        for number in range(8):
            try:
                found = self.known.find(b"%d" % number)
            except InvalidToken:
                continue
            if found is not None:
                assert found.session not in self.revoked
                assert found.version == self.versions[found.id[0]]

    @invariant()
    def the_indexes_fit(self) -> None:
        living = {digest: each for digest, each in self.known._known.items() if each is not None}
        assert self.known._by_id == {each.session: digest for digest, each in living.items()}
        by_user: dict[str, set[bytes]] = {}
        for digest, each in living.items():
            by_user.setdefault(each.id, set()).add(digest)
        assert {user: set(digests) for user, digests in self.known._by_user.items()} == by_user


TestMemory: Any = Memory.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_hundred_thousand_are_found_as_fast_as_ten(clock: Clock) -> None:
    """Counted, not timed: a look-up hashes its key once, however many there are."""

    def looks(many: int) -> int:
        known = KnownTokens(Cutoffs(), clock=clock)
        for number in range(many):
            known.remember(number.to_bytes(32), principal(f"t{number}", f"u{number // 2}"))
        counted = _Counted(secrets.randbelow(many).to_bytes(32))
        assert known.find(counted) is not None
        return counted.looks

    assert looks(100_000) <= looks(10) + 2


class _Counted(bytes):
    """A key that counts how often it is hashed or compared."""

    looks = 0

    def __hash__(self) -> int:
        self.looks += 1
        return bytes.__hash__(self)

    def __eq__(self, other: object) -> bool:
        self.looks += 1
        return bytes.__eq__(self, other) is True
