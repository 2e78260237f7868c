"""Replaying is deciding again: exactly where the log tells who asked, and claiming no more where not."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import load
from gateway.identity.principal import Principal
from gateway.policy.compile import compile_policy, compile_tests
from gateway.policy.decide import Decision, decide
from gateway.policy.model import Policy, Reason
from gateway.policy.prove import Test
from gateway.policy.replay import OTHER_METHOD, REPORTED, Change, Key, Replay, Subject
from gateway.telemetry.logged import Account, Logged, Other, read
from gateway.telemetry.logs import Decided, DecisionLog
from tests.policy.rules import ADMIN, TOKENS, USER, person, policy
from tests.policy.test_decisions import as_test, asked
from tests.policy.worlds import ASKED_HOSTS, ASKED_METHODS, SEGMENTS, random_policy
from tests.support.decisions import NOW, worlds

WORLDS = {world.name: world for world in worlds()}
ANALYST = person(roles=("analyst",), email="ann@example.com")


def logged(**changes: Any) -> Logged:
    known: dict[str, Any] = {
        "time": NOW, "client": "192.0.2.1", "method": "GET", "host": b"", "path": b"/", "status": 200,
        "user": None, "admin": None, "roles": None, "verdict": "allow", "reason": "public", "would": "",
    }  # fmt: skip
    return Logged(**(known | changes))


def as_person(principal: Principal | None, **changes: Any) -> Logged:
    if principal is None:
        return logged(**changes)
    return logged(user=principal.id, admin=principal.is_admin, roles=principal.roles, **changes)


def access(**changes: Any) -> Logged:
    return logged(verdict="", reason="", **changes)


def only(policy: Policy, *lines: Logged | Account | Other, **how: Any) -> Key:
    """What becomes of the one request."""
    replay = Replay(policy, "/auth", **how)
    for line in lines:
        replay.take(line)
    (key,) = replay.groups
    return key


# -- the table of decisions ----------------------------------------------------------------------------------


@cache
def table(name: str, report_only: bool = False) -> tuple[Policy, tuple[Test, ...]]:
    """A world's rules and rows."""
    world = WORLDS[name]
    rows = [as_test(row) for row in asked(world)]
    with tempfile.TemporaryDirectory() as folder:
        file = world.write(Path(folder), TOKENS, lambda upstream: f"http://{upstream}.test:9000", tests=rows)
        loaded = load(file, environ={})
    assert loaded.config is not None
    built, _ = compile_policy(loaded.config, loaded.places, report_only=report_only)
    assert built is not None
    tests = compile_tests(loaded.config, loaded.places)
    return built, tuple(test for test in tests if not f"{test.target}/".startswith("/auth/"))


def answer(rules: Policy, test: Test) -> Decision:
    return decide(
        rules,
        method=test.method,
        host=test.host.encode(),
        path=test.target.partition("?")[0].encode(),
        principal=test.principal,
        address=test.address,
        now=NOW if test.at is None else test.at,
    )


def line_of(test: Test, decision: Decision) -> Logged:
    """As the gateway would have logged it, and as it is read back."""
    lines: list[bytes] = []
    principal = test.principal
    known = {} if principal is None else {"admin": principal.is_admin, "roles": principal.roles}
    if principal is not None and principal.token is not None:
        known |= {"credential": principal.token, "scopes": principal.scopes}
    decided = Decided(
        "id",
        "unix" if test.address is None else str(test.address),
        test.method,
        test.target.encode(),
        host=test.host.encode(),
        status=200 if decision.error is None else decision.error.status,
        user=None if principal is None else principal.email,
        route=decision.route.label,
        verdict="allow" if decision.error is None else "deny",
        reason=decision.reason.value,
        would=decision.would.reason.value if decision.would else "",
        duration_ms=0.0,
        **known,
    )
    DecisionLog(lines.append, clock=lambda: NOW if test.at is None else test.at).write(decided)
    found = read(lines[0].rstrip())
    assert isinstance(found, Logged)
    return found


def told(test: Test) -> list[Account]:
    return [] if test.principal is None else [Account(test.principal.email, test.principal.email)]


@pytest.mark.parametrize("name", WORLDS)
def test_the_same_rules_say_the_same_of_every_row(name: str) -> None:
    rules, rows = table(name)
    for test in rows:
        decision = answer(rules, test)
        key = only(rules, *told(test), line_of(test, decision))
        assert key.change is Change.SAME, test
        assert key.now == said(decision), test
        assert key.route is decision.route


def said(decision: Decision) -> str:
    if decision.error is not None:
        return f"{decision.error.status} {decision.reason.value}"
    return REPORTED if decision.would else "allow"


@pytest.mark.parametrize("name", WORLDS)
def test_other_rules_say_of_every_row_what_they_would_decide(name: str) -> None:
    rules, rows = table(name)
    for other in WORLDS:
        new, _ = table(other)
        for test in rows:
            before, now = answer(rules, test), answer(new, test)
            key = only(new, *told(test), line_of(test, before))
            assert key.now == said(now), (other, test)
            assert (key.change is Change.REFUSED) is (before.error is None and now.error is not None)
            assert (key.change is Change.ADMITTED) is (before.error is not None and now.error is None)


@pytest.mark.parametrize("name", WORLDS)
def test_a_whole_file_on_trial_softens_its_own_refusals_and_nothing_else(name: str) -> None:
    """And a replay of what came during the trial says what enforcing it will refuse."""
    enforced, rows = table(name)
    trial, _ = table(name, report_only=True)
    for test in rows:
        was, now = answer(enforced, test), answer(trial, test)
        assert now.route.label == was.route.label
        if was.error is None or was.reason in UNSOFTENED:
            assert said(now) == said(was)
        elif now.error is not None:  # another reading asks for more, or there is no backend
            assert now.reason is Reason.OTHER_READING or not now.route.upstream
        else:
            assert now.would is not None
            assert said(now.would) == said(was)
        key = only(enforced, *told(test), line_of(test, now))
        assert (key.change is Change.REFUSED) is (now.error is None and was.error is not None), test


UNSOFTENED = {
    Reason.OTHER_READING, Reason.AUTH_PREFIX, Reason.BAD_TARGET, Reason.DOT_SEGMENT, Reason.AMBIGUOUS_PATH
}  # fmt: skip


@pytest.mark.parametrize("name", WORLDS)
def test_of_an_access_log_no_more_is_claimed_than_is_so(name: str) -> None:
    """Whatever is said for certain of an unknown caller holds for the one of the row."""
    rules, rows = table(name)
    for test in rows:
        truth = answer(rules, test)
        line = line_of(test, truth)._replace(
            user=None, admin=None, roles=None, verdict="", reason="", would="", status=200
        )
        claims_certain(only(rules, line), truth)


def claims_certain(key: Key, truth: Decision) -> None:
    if key.now.startswith("allow"):
        assert truth.error is None
        if key.now == REPORTED:
            assert truth.would is not None
    elif not key.now.startswith("needs "):
        assert truth.error is not None
        assert key.change is Change.REFUSED


@given(st.integers(), st.data())
def test_of_any_rules_no_more_is_claimed_than_is_so(seed: int, data: st.DataObject) -> None:
    rules = random_policy(random.Random(seed))
    path = "/" + "/".join(data.draw(st.lists(st.sampled_from(SEGMENTS), max_size=3)))
    method, host = data.draw(st.sampled_from(ASKED_METHODS)), data.draw(st.sampled_from(ASKED_HOSTS))
    caller = data.draw(st.sampled_from([None, USER, ADMIN, person(roles=("a",)), person(roles=("z",))]))
    asked_for = {"method": method, "host": host, "path": path.encode()}
    truth = decide(rules, **asked_for, principal=caller, address=None, now=NOW)  # type: ignore[arg-type]
    replay = Replay(rules, "/none", host=b"")
    replay.take(access(**asked_for))
    (key,) = replay.groups
    claims_certain(key, truth)
    (exact,) = replayed(rules, as_person(caller, **asked_for))
    assert exact.now == said(truth)
    if caller is not None:
        older = as_person(caller, **asked_for)._replace(roles=None, admin=None)
        (key,) = replayed(rules, older)
        claims_certain(key, truth)


def replayed(rules: Policy, line: Logged) -> list[Key]:
    replay = Replay(rules, "/none")
    replay.take(line)
    return [*replay.groups]


# -- what is not in a log ------------------------------------------------------------------------------------

RULES = """
routes:
  - {path: /open, allow: public}
  - {path: /mine, allow: {users: [ann@example.com]}}
  - {path: /reports/**, allow: {roles: {any: [analyst]}}}
  - {path: /trial, allow: admin, report_only: true}
  - {path: /office, allow: {networks: [10.0.0.0/8]}}
  - {path: /old, allow: authenticated, valid: {until: "2027-02-01"}}
  - {path: /site, hosts: [a.test], allow: public}
"""


def test_an_address_is_known_once_an_audit_event_has_told_it() -> None:
    ann = as_person(USER, path=b"/mine")
    assert only(policy(RULES), ann)[4:] == ("allow", "needs user ann@example.com")
    assert only(policy(RULES), ann).change is Change.UNKNOWN
    assert only(policy(RULES), Account("7", "ann@example.com"), ann).now == "allow"
    assert only(policy(RULES), Account("7", "bob@example.com"), ann).now == "403 not_listed_user"
    assert only(policy(RULES), as_person(USER, path=b"/open")).now == "allow"
    replay = Replay(policy(RULES), "/auth")
    for line in (ann, Account("7", "ann@example.com"), ann, Account("7", "bob@example.com"), ann):
        replay.take(line)
    assert {key.now for key in replay.groups} == {
        "needs user ann@example.com", "allow", "403 not_listed_user"
    }  # fmt: skip


def test_a_name_in_an_access_log_is_no_account() -> None:
    line = access(path=b"/mine", user="7")
    key = only(policy(RULES), Account("7", "bob@example.com"), line)
    assert (key.now, key.subject) == ("needs user ann@example.com", Subject.NAMED)


def test_who_was_refused_by_a_limit_may_have_been_anybody() -> None:
    line = logged(path=b"/reports/x", verdict="deny", reason="too_many_requests", status=429)
    key = only(policy(RULES), line)
    assert (key.change, key.subject, key.now) == (Change.SAME, Subject.UNKNOWN, "needs role analyst")


@pytest.mark.parametrize("reason", ["no_credential", "invalid_token"])
def test_a_bad_token_counts_as_none(reason: str) -> None:
    refused = logged(path=b"/open", verdict="deny", reason=reason, status=401)
    key = only(policy(RULES), refused)
    assert (key.change, key.subject, key.before, key.now) == (
        Change.ADMITTED, Subject.ANONYMOUS, "401", "allow"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "change", "now"),
    [
        (as_person(USER, path=b"/trial"), Change.REPORTED, REPORTED),
        (as_person(USER, path=b"/trial", would="not_admin"), Change.SAME, REPORTED),
        (as_person(ADMIN, path=b"/trial"), Change.SAME, "allow"),
        (access(path=b"/trial"), Change.REPORTED, f"{REPORTED} unless admin"),
        (as_person(USER, path=b"/reports/q", would="missing_role"), Change.REFUSED, "403 missing_role"),
        (as_person(ANALYST, path=b"/reports/q"), Change.SAME, "allow"),
        (as_person(ADMIN, path=b"/reports/q"), Change.REFUSED, "403 missing_role"),
        (logged(path=b"/reports/q"), Change.REFUSED, "401 no_credential"),
        (logged(path=b"/reports/q", verdict="deny", reason="network", status=403), Change.OTHERWISE,
         "401 no_credential"),
        (logged(path=b"/reports/q", verdict="deny", reason="network", status=499), Change.SAME,
         "401 no_credential"),
        (access(path=b"/office"), Change.REFUSED, "403 network"),
        (access(path=b"/office", client="10.1.2.3"), Change.SAME, "allow"),
        (access(path=b"/office", client="gw.example.com"), Change.UNKNOWN, "needs anyone, from 10.0.0.0/8"),
        (logged(path=b"/office", client="unix"), Change.REFUSED, "403 network"),
        (access(path=b"/x", status=401), Change.UNKNOWN, "needs authenticated"),
        (access(path=b"/x", status=404), Change.SAME, "needs authenticated"),
        (access(path=b"/open", status=403), Change.ADMITTED, "allow"),
        (access(path=b"/a%2f..", status=200), Change.REFUSED, "400 dot_segment"),
        (as_person(USER, path=b"/old"), Change.SAME, "allow"),
        (as_person(USER, path=b"/old", time=NOW + 40 * 86_400), Change.REFUSED, "403 expired"),
        (access(path=b"/old", time=NOW + 40 * 86_400), Change.REFUSED, "403 expired"),
    ],
)  # fmt: skip
def test_what_becomes_of(line: Logged, change: Change, now: str) -> None:
    key = only(policy(RULES), line)
    assert (key.change, key.now) == (change, now)


def test_the_time_is_that_of_each_line() -> None:
    replay = Replay(policy(RULES), "/auth")
    for days in (0, 40, 0, 40, 40):
        replay.take(as_person(USER, path=b"/old", time=NOW + days * 86_400))
    assert (replay.count(Change.SAME), replay.count(Change.REFUSED)) == (2, 3)


def test_a_host_that_no_line_says_can_be_said() -> None:
    line = access(path=b"/site", host=None)
    assert only(policy(RULES), line).now == "needs authenticated"
    assert only(policy(RULES), line, host=b"a.test").now == "allow"
    replay = Replay(policy(RULES), "/auth")
    replay.take(line)
    replay.take(line._replace(host=b"a.test:80"))
    assert (replay.hostless, replay.judged) == (1, 2)


# -- what is no request for rules ----------------------------------------------------------------------------


def test_the_gateways_own_endpoints_are_passed_over() -> None:
    replay = Replay(policy(RULES), "/auth")
    for path in (b"/auth", b"/auth/login", b"/auth/x/y"):
        replay.take(access(path=path))
    replay.take(Other.RULELESS)
    replay.take(Account("7", "x@y"))
    assert replay.groups == {}
    assert replay.passed_over == {Other.OWN: 3, Other.RULELESS: 1, Other.EVENT: 1}
    assert only(policy(RULES), access(path=b"/Auth/login")).now == "404 auth_prefix"


def test_a_preflight_can_not_be_told_from_another_options() -> None:
    cors = "routes: [{path: /a, allow: admin, cors: {origins: https://a.test}}]"
    replay = Replay(policy(cors), "/auth")
    replay.take(access(method="OPTIONS", path=b"/a"))
    assert replay.passed_over[Other.RULELESS] == 1
    assert only(policy(cors), logged(method="OPTIONS", path=b"/a")).now == "401 no_credential"


# -- grouping ------------------------------------------------------------------------------------------------


def test_surprises_come_first_and_large_ones_before_small_ones() -> None:
    replay = Replay(policy(RULES), "/auth")
    lines = [
        *[logged(path=b"/open")] * 9,
        *[logged(path=b"/reports/%d" % number) for number in range(3)],
        *[logged(path=b"/x/%d" % number) for number in range(5)],
        *[access(path=b"/x")] * 2,
        as_person(USER, path=b"/open", verdict="deny", reason="not_admin", status=403),
    ]
    random.Random(1).shuffle(lines)
    for line in lines:
        replay.take(line)
    shown = [(key.change, key.route.label, group.count) for key, group in replay.ordered()]
    assert shown == [
        (Change.REFUSED, "default", 5),
        (Change.REFUSED, "/reports/**", 3),
        (Change.ADMITTED, "/open", 1),
        (Change.UNKNOWN, "default", 2),
        (Change.SAME, "/open", 9),
    ]


def test_strangers_make_no_groups() -> None:
    replay = Replay(policy(RULES), "/auth")
    for number in range(3000):
        replay.take(
            access(method=f"M{number}", path=b"/p/%d" % number, client=f"h{number}", user=f"u{number}")
        )
        replay.take(logged(method=f"M{number}", path=b"/p", status=number * 10**6, host=b"%d" % number))
    assert len(replay.groups) <= 4
    assert {key.method for key in replay.groups} == {OTHER_METHOD}
    assert replay.judged == 6000


def test_nothing_long_is_kept() -> None:
    replay = Replay(policy(RULES), "/auth")
    for number in range(200):
        replay.take(
            logged(
                path=b"/x" * 5000 + b"%d" % number, host=b"h" * 90_000, client="c" * 90_000,
                method="M" * 90_000, user="u" * 90_000, roles=("r" * 90_000,) * 50, admin=False,
            )
        )  # fmt: skip
    assert not replay._memory
    (group,) = replay.groups.values()
    assert group.count == 200
    assert len(repr(group.example)) < 15_000
