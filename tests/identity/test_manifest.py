"""What becomes of keys, whoever asks for what and when: no honest token is ever refused before its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.identity.manifest import (
    MARGIN_S,
    MAX_KEYS,
    BadManifest,
    Entry,
    Manifest,
    Refused,
    read_manifest,
    write_manifest,
    written,
)

NOW = 1_800_000_000
LIFE = 910
AFTER = 600


def manifest(*entries: Entry) -> Manifest:
    return Manifest(entries)


ONE = Entry("one", "ES256", NOW - 5000, NOW - 5000)
TWO = Entry("two", "EdDSA", NOW - 3000, NOW - 2000)
NEXT = Entry("next", "RS256", NOW - 100)


def states(of: Manifest, now: float = NOW) -> dict[str, str]:
    return {entry.kid: of.state(entry, now) for entry in of.entries}


# -- one step at a time --------------------------------------------------------------------------------------


def test_of_several_to_come_the_nearest_is_next() -> None:
    soon, late = (Entry(kid, "ES256", NOW - 10, NOW + wait) for kid, wait in (("soon", 100), ("late", 200)))
    keys = manifest(ONE, late, soon)
    assert (keys.upcoming(NOW), keys.successor(ONE), keys.successor(soon)) == (soon, soon, late)
    assert manifest(ONE, TWO).successor(ONE) == TWO


def test_who_signs_does_so_since_its_own_beginning_whoever_comes_next() -> None:
    keys = manifest(ONE, Entry("soon", "ES256", NOW - 10, NOW + 100))
    assert keys.since(ONE, NOW) == ONE.signs_from
    assert keys.since(ONE, NOW + 100) == NOW + 100


def test_a_key_can_not_begin_beyond_the_year_9999() -> None:
    with pytest.raises(Refused, match="9999"):
        manifest(ONE, NEXT).rotated(NOW, 9_999_999 * 86_400)


def test_as_many_keys_as_may_be_are_read() -> None:
    most = manifest(*(Entry(f"key{n}", "ES256", NOW, NOW + n) for n in range(MAX_KEYS)))
    assert read_manifest(write_manifest(most)) == most
    one_more = manifest(*most.entries, Entry("more", "ES256", NOW, NOW + MAX_KEYS))
    with pytest.raises(BadManifest):
        read_manifest(write_manifest(one_more))


def test_the_latest_signs_and_what_signed_before_verifies() -> None:
    keys = manifest(ONE, TWO, NEXT)
    assert states(keys) == {"one": "verifies", "two": "signs", "next": "next"}
    assert [keys.since(entry, NOW) for entry in keys.entries] == [NOW - 2000, NOW - 2000, NOW - 100]


def test_a_rotation_is_known_before_it_happens() -> None:
    keys = manifest(ONE, NEXT).rotated(NOW, AFTER)
    begins = NOW - 100 + AFTER
    assert keys.find("next").signs_from == begins
    assert states(keys) == {"one": "signs", "next": "next"}
    assert states(keys, begins) == {"one": "verifies", "next": "signs"}


def test_who_has_been_known_for_long_signs_at_once() -> None:
    assert states(manifest(ONE, Entry("old", "ES256", NOW - AFTER)).rotated(NOW, AFTER))["old"] == "signs"


def test_a_rotation_can_be_hurried_and_not_put_off() -> None:
    planned = manifest(ONE, NEXT).rotated(NOW, AFTER)
    with pytest.raises(Refused, match="next will sign from 2027-01-15T08:08:20Z on"):
        planned.rotated(NOW + 1, AFTER)
    assert states(planned.rotated(NOW + 1, 0), NOW + 1) == {"one": "verifies", "next": "signs"}


def test_two_never_sign_from_the_same_moment() -> None:
    keys = manifest(ONE, Entry("a", "ES256", NOW, NOW), Entry("b", "ES256", NOW)).rotated(NOW, 0)
    assert keys.find("b").signs_from == NOW + 1


def test_the_first_of_all_signs_as_soon_as_it_may() -> None:
    assert manifest(NEXT).rotated(NOW, 0).find("next").signs_from == NOW
    assert manifest(NEXT).rotated(NOW, AFTER).find("next").signs_from == NOW - 100 + AFTER


def test_a_moment_belongs_to_what_begins_with_it() -> None:
    begins, ends = Entry("begins", "ES256", NOW - 9, NOW), Entry("ends", "ES256", NOW - 9, NOW - 9, NOW)
    keys = manifest(ends, begins)
    assert states(keys) == {"ends": "over", "begins": "signs"}
    assert [keys.since(entry, NOW) for entry in keys.entries] == [NOW, NOW]
    assert manifest(ends).signer(NOW) is None
    assert manifest(ends).signer(NOW - 1) == ends


def test_what_a_later_one_follows_is_replaced_until_it_is_retired() -> None:
    keys = manifest(ONE, TWO, NEXT)
    assert keys.replaced() == [ONE]
    assert keys.retired(ONE, NOW - 2000, LIFE).replaced() == []
    assert keys.rotated(NOW, AFTER).replaced() == [ONE, TWO]


def test_a_plan_that_was_dropped_does_not_come_back() -> None:
    dropped = replace(NEXT, verifies_until=NOW + 5)
    keys = manifest(ONE, dropped)
    assert (keys.upcoming(NOW), keys.waiting()) == (None, None)
    assert read_manifest(write_manifest(keys)) == keys


def test_a_retired_key_lasts_as_long_as_its_last_token() -> None:
    planned = manifest(ONE, NEXT).rotated(NOW, AFTER)
    begins = planned.find("next").signs_from
    keys = planned.retired(ONE, NOW, LIFE)
    assert keys.find("one").verifies_until == begins + LIFE + MARGIN_S
    assert states(keys) == {"one": "signs", "next": "next"}
    assert states(keys, begins) == {"one": "retired", "next": "signs"}
    assert states(keys, begins + LIFE + MARGIN_S) == {"one": "over", "next": "signs"}
    assert keys.pruned(begins + LIFE + MARGIN_S).entries == (keys.find("next"),)


def test_what_signed_long_ago_or_never_goes_at_once() -> None:
    assert states(manifest(ONE, TWO).retired(ONE, NOW, LIFE))["one"] == "over"
    assert states(manifest(ONE, NEXT).retired(NEXT, NOW, LIFE)) == {"one": "signs", "next": "over"}


def test_a_stolen_key_goes_at_once() -> None:
    keys = manifest(ONE, NEXT).rotated(NOW, 0)
    assert states(keys.retired(ONE, NOW, LIFE, at_once=True)) == {"one": "over", "next": "signs"}


@pytest.mark.parametrize(
    ("keys", "which", "at_once"),
    [
        (manifest(ONE), "one", False),
        (manifest(ONE, NEXT), "one", False),
        (manifest(ONE, TWO), "two", True),
        (manifest(ONE, NEXT).rotated(NOW, AFTER), "one", True),
        (manifest(ONE, NEXT).rotated(NOW, AFTER).retired(ONE, NOW, LIFE), "next", False),
        (manifest(Entry("begins", "ES256", NOW, NOW)), "begins", False),
    ],
)
def test_the_last_that_signs_stays(keys: Manifest, which: str, at_once: bool) -> None:
    with pytest.raises(Refused):
        keys.retired(keys.find(which), NOW, LIFE, at_once=at_once)


def test_a_plan_can_be_dropped_as_long_as_the_former_key_stays() -> None:
    planned = manifest(ONE, NEXT).rotated(NOW, AFTER)
    assert states(planned.retired(planned.find("next"), NOW, LIFE)) == {"one": "signs", "next": "over"}


def test_before_any_key_signs_a_plan_can_be_dropped_too() -> None:
    """A secret signs meanwhile."""
    planned = Entry("first", "ES256", NOW, NOW + AFTER)
    assert states(manifest(planned).retired(planned, NOW, LIFE)) == {"first": "over"}


def test_beside_a_signer_that_is_retired_others_can_still_go() -> None:
    planned = manifest(ONE, TWO, NEXT).rotated(NOW, AFTER)
    keys = planned.retired(TWO, NOW, LIFE).with_next(Entry("spare", "ES256", NOW))
    for kid in ("one", "spare"):
        assert states(keys.retired(keys.find(kid), NOW, LIFE))[kid] == "over"


def test_one_waits_at_a_time_and_the_folder_is_finite() -> None:
    with pytest.raises(Refused, match="next waits already"):
        manifest(ONE, NEXT).with_next(Entry("more", "ES256", NOW))
    full = manifest(*(Entry(f"k{index}", "ES256", NOW, NOW - index) for index in range(MAX_KEYS)))
    with pytest.raises(Refused, match="32 keys already"):
        full.with_next(Entry("more", "ES256", NOW))
    with pytest.raises(Refused, match="no key waits"):
        manifest(ONE).rotated(NOW, AFTER)
    with pytest.raises(Refused, match="there is no key three"):
        manifest(ONE).find("three")


# -- any steps, in any order ---------------------------------------------------------------------------------

LAG = 10
"""Seconds after which every replica has taken a change up."""


@dataclass
class Replica:
    """Sees changes late, each in its own time."""

    seen: Manifest
    wants: Manifest
    at: float = 0


class Rotations(RuleBasedStateMachine):
    """Three replicas that sign and verify while somebody rotates, retires and waits at random."""

    def __init__(self) -> None:
        super().__init__()
        self.now = float(NOW)
        self.keys = manifest(Entry("k0", "ES256", NOW, NOW))
        self.replicas = [Replica(self.keys, self.keys) for _ in range(3)]
        self.tokens: list[tuple[str, float]] = []
        self.made = 0

    @rule(lags=st.tuples(*[st.integers(0, LAG)] * 3))
    def generate(self, lags: tuple[int, ...]) -> None:
        self.made += 1
        entry = Entry(f"k{self.made}", "ES256", self.now)
        self.change(lags, lambda keys: keys.with_next(entry))

    @rule(lags=st.tuples(*[st.integers(0, LAG)] * 3), after=st.integers(AFTER, 3 * AFTER))
    def rotate(self, lags: tuple[int, ...], after: int) -> None:
        self.change(lags, lambda keys: keys.rotated(self.now, after))

    @rule(lags=st.tuples(*[st.integers(0, LAG)] * 3))
    def retire_what_was_replaced(self, lags: tuple[int, ...]) -> None:
        def retire(keys: Manifest) -> Manifest:
            for entry in keys.replaced():
                keys = keys.retired(entry, self.now, LIFE)
            return keys

        self.change(lags, retire)

    @rule(lags=st.tuples(*[st.integers(0, LAG)] * 3), which=st.integers(0, MAX_KEYS))
    def retire_one(self, lags: tuple[int, ...], which: int) -> None:
        entries = self.keys.entries
        self.change(lags, lambda keys: keys.retired(entries[which % len(entries)], self.now, LIFE))

    @rule(seconds=st.sampled_from([1, 5, 60, 300, 900, 2000]))
    def wait(self, seconds: int) -> None:
        for _ in range(seconds if seconds < 30 else 30):
            self.now += max(1, seconds // 30)
            self.look_around()
            self.sign()

    @rule(lags=st.tuples(*[st.integers(0, LAG)] * 3))
    def rotate_to_a_key_that_is_known_for_long(self, lags: tuple[int, ...]) -> None:
        """It signs at once, while some replica has not heard of that."""
        self.generate((0, 0, 0))
        self.now += AFTER
        self.rotate(lags, AFTER)
        for _ in range(LAG):
            self.sign()
            self.now += 1
            self.look_around()
        self.retire_what_was_replaced(lags)

    @rule()
    def sign(self) -> None:
        for replica in self.replicas:
            signer = replica.seen.signer(self.now)
            assert signer is not None
            self.tokens.append((signer.kid, self.now + LIFE))

    @precondition(lambda self: self.tokens)
    @invariant()
    def every_token_holds_everywhere_until_its_end(self) -> None:
        self.tokens = [token for token in dict.fromkeys(self.tokens) if token[1] > self.now]
        for replica in self.replicas:
            for known in (replica.seen, replica.wants):
                ends = {each.kid: each.verifies_until for each in known.entries}
                assert [kid for kid, end in self.tokens if ends.get(kid, 0) < end] == []

    @invariant()
    def what_is_written_is_read_back(self) -> None:
        assert read_manifest(write_manifest(self.keys)) == self.keys

    def change(self, lags: tuple[int, ...], how: Callable[[Manifest], Manifest]) -> None:
        """The next change comes when the last one is everywhere: nobody types faster than that."""
        self.now += LAG
        self.look_around()
        try:
            self.keys = how(self.keys.pruned(self.now)).pruned(self.now)
        except Refused:
            return
        for replica, lag in zip(self.replicas, lags, strict=True):
            replica.wants, replica.at = self.keys, self.now + lag
        self.look_around()

    def look_around(self) -> None:
        for replica in self.replicas:
            if replica.at <= self.now:
                replica.seen = replica.wants


TestRotations = Rotations.TestCase
TestRotations.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


# -- the file ------------------------------------------------------------------------------------------------


def test_times_are_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    text = write_manifest(manifest(ONE))
    assert f'"madeAt": "{written(ONE.made_at)}"'.encode() in text
    monkeypatch.setenv("TZ", "ELSEWHERE-9")
    try:
        time.tzset()
        assert write_manifest(manifest(ONE)) == text
        assert read_manifest(text) == manifest(ONE)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_several_that_wait_can_be_read() -> None:
    """With the command line only one does; somebody has written these."""
    keys = manifest(ONE, NEXT, Entry("spare", "ES256", NOW))
    assert read_manifest(write_manifest(keys)) == keys


def test_times_that_are_not_there_are_left_out() -> None:
    assert read_manifest(write_manifest(manifest(ONE, NEXT))) == manifest(ONE, NEXT)
    assert b"verifiesUntil" not in write_manifest(manifest(ONE, NEXT))
    assert read_manifest(b'{"keys": []}') == Manifest()
    assert NEXT.signs_from == inf


GOOD = '"kid": "a", "algorithm": "ES256", "madeAt": "2026-11-27T08:00:00Z"'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is no JSON"),
        ("{" * 5000, "is no JSON"),
        ('{"keys": [', "is no JSON"),
        ("\udcff", "is no JSON"),
        ("[]", 'must be {"keys": […]}'),
        ("{}", 'must be {"keys": […]}'),
        ('{"keys": {}}', 'must be {"keys": […]}'),
        ('{"keys": [], "more": 1}', 'must be {"keys": […]}'),
        ('{"keys": [1]}', "keys[0] must have kid, algorithm and madeAt"),
        ('{"keys": [{"kid": "a"}]}', "keys[0] must have kid, algorithm and madeAt"),
        (f'{{"keys": [{{{GOOD}, "more": 1}}]}}', "keys[0] must have kid, algorithm and madeAt"),
        (f'{{"keys": [{{{GOOD.replace("ES256", "HS256")}}}]}}', "keys[0].algorithm must be one of ES256"),
        (f'{{"keys": [{{{GOOD.replace("ES256", "none")}}}]}}', "keys[0].algorithm must be one of ES256"),
        (f'{{"keys": [{{{GOOD}}}, {{{GOOD}}}]}}', "has a kid twice"),
        (f'{{"keys": [{{{GOOD}, "signsFrom": 1}}]}}', "keys[0].signsFrom must be a time like"),
        (f'{{"keys": [{{{GOOD}, "signsFrom": "2026-13-01T00:00:00Z"}}]}}', "keys[0].signsFrom must be"),
        (f'{{"keys": [{{{GOOD}, "signsFrom": "2026-12-01T00:00:00+01:00"}}]}}', "signsFrom must be"),
        (f'{{"keys": [{", ".join([f"{{{GOOD}}}"] * 33)}]}}', "has more than 32 keys"),
    ],
)
def test_what_is_no_list_of_keys_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(BadManifest) as refusal:
        read_manifest(text.encode(errors="surrogateescape"))
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    "kid", ["", ".", "..", "-a", "a/b", "../a", "a\\u0000", "a\\n", "a b", "é", "x" * 65, 1]
)
def test_a_kid_is_a_plain_file_name(kid: str | int) -> None:
    written = str(kid) if isinstance(kid, int) else f'"{kid}"'
    with pytest.raises(BadManifest, match=r"keys\[0\].kid must be 1 to 64 of"):
        read_manifest(f'{{"keys": [{{{GOOD.replace(chr(34) + "a" + chr(34), written, 1)}}}]}}'.encode())


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            manifest(ONE, Entry("twin", "ES256", NOW, ONE.signs_from)),
            "two keys that sign from the same moment",
        ),
        (manifest(ONE, Entry("two", "ES256", NOW, NOW, NOW + 9)), "retires two, and no later key signs"),
    ],
)
def test_what_would_end_in_nothing_that_signs_is_refused(keys: Manifest, sentence: str) -> None:
    with pytest.raises(BadManifest, match=sentence):
        read_manifest(write_manifest(keys))
