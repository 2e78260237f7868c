"""Who passes, as an exact set: against the rules' own judgement of every kind of caller."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import combinations, product
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.identity.principal import LOGIN
from gateway.policy.audience import ANYONE, NOBODY, Audience, Step, demanded, passing, who_passes
from gateway.policy.decide import claims_of
from gateway.policy.model import Allow, Network, Validity
from tests.policy.rules import person, policy

NETWORKS: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/0", "10.0.0.0/30", "10.0.0.0/31", "10.0.0.2/31", "10.0.0.1/32",
        "::/0", "2001:db8::/126", "2001:db8::2/127", "::ffff:10.0.0.0/120",
    )
)  # fmt: skip
ADDRESSES = (
    None,
    *map(
        ip_address,
        ("10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1", "::ffff:10.0.0.1", "::ffff:c000:201",
         "2001:db8::", "2001:db8::1", "2001:db8::2", "2001:db8::3", "::1", "::fffe:ffff:ffff", "::1:0:0:0"),
    ),
)  # fmt: skip
ROLES = ("a", "b", "c")
EMAILS = ("ann@example.com", "bob@example.com", "user@example.com")
SCOPES = (LOGIN, "r", "w")
CREDENTIALS = ((LOGIN,), (), ("r",), ("w",), ("r", "w"))
PEOPLE = (
    None,
    *(
        person(admin=admin, roles=tuple(role for role in ROLES if role in roles), email=email, scopes=scopes)
        for admin in (False, True)
        for roles in ("", "a", "b", "c", "ab", "bc", "ac", "abc")
        for email in EMAILS
        for scopes in CREDENTIALS
    ),
)
TIMES = (0.0, 1.0, 2.0, 3.0)

some_roles = st.none() | st.frozensets(st.sampled_from(ROLES))
some_scopes = st.none() | st.none() | st.frozensets(st.sampled_from(SCOPES))
allows = st.builds(
    Allow,
    everybody_without_login=st.sampled_from((True, True, False)),
    logged_in=st.booleans(),
    admin=st.sampled_from((False, False, True)),
    any_role=some_roles,
    all_roles=some_roles,
    users=st.none() | st.none() | st.frozensets(st.sampled_from(EMAILS[:2])),
    any_scope=some_scopes,
    all_scopes=some_scopes,
    networks=st.none() | st.none() | st.lists(st.sampled_from(NETWORKS), max_size=3).map(tuple),
    valid=st.none() | st.none() | st.builds(
        Validity, st.sampled_from((-inf, 0.0, 1.0, 2.0)), st.sampled_from((1.0, 2.0, 3.0, inf))
    ),
)  # fmt: skip
several = st.lists(allows, max_size=3)


def let_in(rules: list[Allow]) -> set[tuple[int, int, int]]:
    """Everyone of this small world who passes all of them."""
    everyone = product(enumerate(PEOPLE), enumerate(ADDRESSES), enumerate(TIMES))
    return {
        (who, where, when)
        for (who, caller), (where, address), (when, now) in everyone
        if all(rule.refusal(caller, address, now) is None for rule in rules)
    }


@settings(max_examples=60, deadline=None)
@given(several)
def test_it_holds_those_whom_no_rule_refuses(rules: list[Allow]) -> None:
    audience = Audience.of(*rules)
    everyone = product(enumerate(PEOPLE), enumerate(ADDRESSES), enumerate(TIMES))
    admitted = {
        (who, where, when)
        for (who, caller), (where, address), (when, now) in everyone
        if audience.admits(caller, address, now)
    }
    assert admitted == let_in(rules)


@settings(max_examples=60, deadline=None)
@given(several, several)
def test_it_is_compared_exactly(old: list[Allow], new: list[Allow]) -> None:
    """The world holds someone for every difference: so equal sets are equal, and none but they."""
    before, after = Audience.of(*old), Audience.of(*new)
    was, now = let_in(old), let_in(new)
    assert (before <= after) == (was <= now)
    assert (before == after) == (was == now)
    step = before.step_to(after)
    assert (step is Step.SAME) == (was == now)
    assert step.widens == bool(now - was)
    assert (step in (Step.NARROWED, Step.SHIFTED)) == bool(was - now)


@settings(max_examples=100, deadline=None)
@given(several, several, several)
def test_being_inside_is_a_partial_order(one: list[Allow], two: list[Allow], three: list[Allow]) -> None:
    first, second, third = Audience.of(*one), Audience.of(*two), Audience.of(*three)
    assert first <= first
    assert NOBODY <= first <= ANYONE
    assert not (first <= second <= third) or first <= third
    assert not (first <= second <= first) or first == second
    assert first & second == second & first == Audience.of(*one, *two)
    assert first & second <= first


def nets(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ip_network, texts))


def roles(text: str) -> Allow:
    return Allow(any_role=frozenset(text))


def users(text: str) -> Allow:
    return Allow(users=frozenset(text))


def places(*texts: str) -> Allow:
    return Allow(everybody_without_login=True, networks=nets(*texts))


def times(begin: float = -inf, end: float = inf) -> Allow:
    return Allow(everybody_without_login=True, valid=Validity(begin, end))


BOTH = Allow(all_scopes=frozenset("rw"))
READERS = Allow(any_scope=frozenset("r"))


@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        (Allow(logged_in=True), Allow(everybody_without_login=True), Step.WIDENED),
        (Allow(admin=True), Allow(logged_in=True), Step.WIDENED),
        (roles("a"), roles("ab"), Step.WIDENED),
        (roles("a"), roles("b"), Step.SHIFTED),
        (roles("ab"), Allow(any_role=frozenset("ab"), all_roles=frozenset("a")), Step.NARROWED),
        (BOTH, READERS, Step.WIDENED),
        (READERS, Allow(any_scope=frozenset("w")), Step.SHIFTED),
        (users("a"), users("ab"), Step.WIDENED),
        (users("a"), users("b"), Step.SHIFTED),
        (users("a"), Allow(users=frozenset("a"), admin=True), Step.NARROWED),
        (users("a"), Allow(logged_in=True), Step.WIDENED),
        (places("10.0.0.0/8"), places("10.0.0.0/8", "192.0.2.0/24"), Step.WIDENED),
        (places("10.0.0.0/8"), places("::/0"), Step.SHIFTED),
        (places("10.0.0.0/8"), Allow(everybody_without_login=True), Step.WIDENED),
        (places("10.0.0.0/25", "10.0.0.128/25"), places("10.0.0.0/24"), Step.SAME),
        (places("10.0.0.0/25", "10.0.0.129/32"), places("10.0.0.0/25"), Step.NARROWED),
        (places("10.0.0.0/8", "10.1.0.0/16"), places("10.0.0.0/8"), Step.SAME),
        (times(begin=1), times(begin=0), Step.WIDENED),
        (times(end=1), times(end=2), Step.WIDENED),
        (times(0, 2), times(1, 3), Step.SHIFTED),
        (times(begin=1), Allow(everybody_without_login=True), Step.WIDENED),
        (Allow(), Allow(admin=True), Step.WIDENED),
        (Allow(), Allow(), Step.SAME),
    ],
)
def test_what_became_of_it(old: Allow, new: Allow, step: Step) -> None:
    backwards = {Step.WIDENED: Step.NARROWED, Step.NARROWED: Step.WIDENED}
    before, after = Audience.of(old), Audience.of(new)
    assert before.step_to(after) is step
    assert after.step_to(before) is backwards.get(step, step)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (places("10.0.0.0/9", "192.0.2.0/24"), places("10.64.0.0/10", "192.0.0.0/16"),
         places("10.64.0.0/10", "192.0.2.0/24")),
        (places("10.0.0.0/32", "10.0.0.4/30"), places("10.0.0.0/29"), places("10.0.0.0/32", "10.0.0.4/30")),
        (places("10.0.0.0/8", "::/0"), places("2001:db8::/32"), places("2001:db8::/32")),
        (places("10.0.0.0/8"), places("11.0.0.0/8"), Allow()),
        (places("10.0.0.0/8"), places("::a00:0/104"), Allow()),
        (places("10.0.0.0/31"), places("10.0.0.1/32"), places("10.0.0.1/32")),
        (times(0, 2), times(1, 3), times(1, 2)),
        (times(0, 1), times(1, 2), Allow()),
        (users("ab"), users("bc"), users("b")),
        (roles("ab"), roles("a"), roles("a")),
        (Allow(), Allow(admin=True), Allow()),
        (Allow(everybody_without_login=True), users("a"), users("a")),
    ],
)  # fmt: skip
def test_who_is_in_both(one: Allow, other: Allow, both: Allow) -> None:
    assert Audience.of(one, other) == Audience.of(other, one) == Audience.of(both)


SOMEBODY = person(roles=("a",), email="ann@x.test", scopes=("r",))


@pytest.mark.parametrize(
    ("rule", "address", "now", "admitted"),
    [
        (Allow(), None, 0.0, False),
        (Allow(logged_in=True), None, 0.0, True),
        (Allow(admin=True), None, 0.0, False),
        (roles("ab"), None, 0.0, True),
        (roles("b"), None, 0.0, False),
        (READERS, None, 0.0, True),
        (BOTH, None, 0.0, False),
        (Allow(users=frozenset({"ann@x.test"})), None, 0.0, True),
        (Allow(users=frozenset({"bob@x.test"})), None, 0.0, False),
        (places("10.0.0.0/31"), "10.0.0.0", 0.0, True),
        (places("10.0.0.0/31"), "10.0.0.1", 0.0, True),
        (places("10.0.0.0/32", "10.0.0.2/32"), "10.0.0.1", 0.0, False),
        (places("10.0.0.0/32", "10.0.0.4/30"), "10.0.0.2", 0.0, False),
        (places("2001:db8::1/128"), "2001:db8::1", 0.0, True),
        (places("10.0.0.0/31"), "10.0.0.2", 0.0, False),
        (places("10.0.0.0/31"), "::ffff:10.0.0.1", 0.0, True),
        (places("10.0.0.0/31"), "::a00:1", 0.0, False),
        (places("10.0.0.0/31"), None, 0.0, False),
        (times(1, 2), None, 1.0, True),
        (times(1, 2), None, 2.0, False),
        (times(1, 2), None, 0.5, False),
    ],
)
def test_whom_it_admits(rule: Allow, address: str | None, now: float, admitted: bool) -> None:
    where = ip_address(address) if address else None
    assert Audience.of(rule).admits(SOMEBODY, where, now) is admitted
    assert Audience.of(rule).admits(None, where, now) is (admitted and not rule.needs_login)


def test_what_follows_from_another_clause_is_left_out_in_whatever_order_they_come() -> None:
    letters = "abcdefgh"
    pairs = [roles(one + other) for one, other in combinations(letters, 2)]
    every = Allow(all_roles=frozenset(letters))
    assert Audience.of(*pairs, every) == Audience.of(every, *pairs) == Audience.of(every)


def test_an_admin_passes_what_asks_for_one() -> None:
    assert Audience.of(Allow(admin=True)).admits(person(admin=True), None, 0.0)


def test_nobody_has_one_form() -> None:
    impossible = [
        Allow(users=frozenset()),
        Allow(networks=()),
        Allow(any_role=frozenset()),
        Allow(everybody_without_login=True, valid=Validity(2, 2)),
        Allow(networks=(ip_network("::ffff:10.0.0.0/104"),)),
    ]
    assert {Audience.of(rule) for rule in impossible} == {NOBODY}
    apart = Allow(users=frozenset({"a@x.test"})), Allow(users=frozenset({"b@x.test"}))
    assert Audience.of(*apart) == NOBODY


def test_an_unknown_time_passes_only_what_always_holds() -> None:
    assert ANYONE.admits(None, None, nan)
    assert not Audience.of(Allow(everybody_without_login=True, valid=Validity(begin=1))).admits(
        None, None, nan
    )


def test_a_rule_on_trial_lets_everybody_pass_and_still_says_whom_it_would() -> None:
    rules = policy("""
        routes:
          - {path: /new, allow: {roles: {any: [staff]}}, report_only: true}
          - {path: /old, allow: {roles: {any: [staff]}}}
    """)
    staff, (new, old) = Audience.of(rules.routes[0].allow), rules.routes
    assert (who_passes(new), who_passes(old)) == (ANYONE, staff)
    asked = {path: claims_of(rules, "GET", b"", path) for path in (b"/new", b"/old", b"/auth/x")}
    assert [passing(claims) for claims in asked.values()] == [ANYONE, staff, NOBODY]
    assert [demanded(claims) for claims in asked.values()] == [staff, staff, NOBODY]


def test_what_is_open_needs_neither_login_nor_place() -> None:
    everybody = Allow(everybody_without_login=True)
    assert Audience.of(everybody).open
    assert Audience.of(Allow(everybody_without_login=True, valid=Validity(begin=1))).open
    assert not NOBODY.open
    assert not Audience.of(Allow(logged_in=True)).open
    assert not Audience.of(Allow(everybody_without_login=True, networks=NETWORKS[:1])).open


USERS = frozenset(f"u{n}@x.test" for n in range(6))


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ([], "anyone"),
        ([Allow()], "nobody"),
        ([Allow(logged_in=True)], "authenticated"),
        ([Allow(logged_in=True), Allow(admin=True)], "admin"),
        ([Allow(any_role=frozenset({"b", "a"}))], "role a or b"),
        ([Allow(any_role=frozenset({"b", "a"})), Allow(all_roles=frozenset({"a"}))], "role a"),
        ([Allow(all_roles=frozenset("ac"), any_role=frozenset("bd"))], "roles a and c and (b or d)"),
        ([Allow(admin=True), Allow(any_role=frozenset({"a"}))], "admin and role a"),
        ([Allow(users=frozenset({"a@x.test"}))], "user a@x.test"),
        ([Allow(any_scope=frozenset({"r", LOGIN}))], "scope login or r"),
        ([Allow(any_scope=frozenset({"r", LOGIN})), Allow(all_scopes=frozenset("rw"))], "scopes r and w"),
        ([Allow(any_scope=frozenset({LOGIN})), Allow(any_scope=frozenset("r"))], "nobody"),
        ([Allow(any_role=frozenset("a"), any_scope=frozenset("r"))], "role a and scope r"),
        (
            [Allow(users=USERS, networks=nets("10.0.0.0/9", "10.128.0.0/9"))],
            "users u0@x.test, u1@x.test, u2@x.test, u3@x.test and 2 more, from 10.0.0.0/8",
        ),
        (
            [Allow(users=frozenset(sorted(USERS)[:4]))],
            "users u0@x.test, u1@x.test, u2@x.test, u3@x.test",
        ),
        ([Allow(networks=nets("::/0", "0.0.0.0/0"))], "anyone, from 0.0.0.0/0, ::/0"),
        (
            [Allow(networks=nets("::/0", "10.0.0.0/8", "192.0.2.0/24"))],
            "anyone, from 10.0.0.0/8, 192.0.2.0/24, ::/0",
        ),
        (
            [Allow(logged_in=True, valid=Validity(1796083200.0, 1796083201.5))],
            "authenticated, since 2026-12-01, until 2026-12-01T00:00:01.500000Z",
        ),
    ],
)  # fmt: skip
def test_it_is_readable(rules: list[Allow], text: str) -> None:
    assert str(Audience.of(*rules)) == text
