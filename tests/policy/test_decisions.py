"""Every row of the table of decisions, against `decide`, through the runner of `tests:`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.policy.compile import compile_policy, compile_tests
from gateway.policy.diff import Side, diff
from gateway.policy.model import Policy, Reason
from gateway.policy.prove import Result, Test, prove
from tests.policy.rules import TOKENS
from tests.support.decisions import NOW, Row, World, worlds
from tests.support.slips import slips

WORLDS = {world.name: world for world in worlds()}


def asked(world: World) -> list[Row]:
    """Its rows without the preflights, which are no requests that a rule decides."""
    return [row for row in world.rows if not row.preflight]


ROWS = [(world.name, index) for world in WORLDS.values() for index in range(len(asked(world)))]


@pytest.mark.parametrize(
    ("name", "index"), ROWS, ids=[f"{name}: {asked(WORLDS[name])[index]}" for name, index in ROWS]
)
def test_row(name: str, index: int) -> None:
    row, result = asked(WORLDS[name])[index], answered(name)[index]
    assert result.complaint is None
    decision = result.decision
    if row.reason is not None:
        assert decision.reason == row.reason
    assert row.reports(decision.would and decision.would.reason.value)
    if row.forward is not None:
        assert decision.path == row.forward.encode()
    elif result.status == "allow" and not decision.route.strip:
        assert decision.path == row.target.partition("?")[0].encode()


@cache
def answered(name: str) -> list[Result]:
    policy, tests = compiled(name)
    return prove(policy, tests, now=NOW)


@cache
def compiled(name: str) -> tuple[Policy, list[Test]]:
    """A world's rules, and its rows as tests."""
    world = WORLDS[name]
    with tempfile.TemporaryDirectory() as folder:
        file = world.write(
            Path(folder),
            TOKENS,
            lambda upstream: f"http://{upstream}.internal:9000",
            tests=[as_test(row) for row in asked(world)],
        )
        read = load(file, environ={})
    assert read.config is not None, [str(problem) for problem in read.problems]
    policy, problems = compile_policy(read.config, read.places)
    assert policy is not None, [str(problem) for problem in problems]
    tests = compile_tests(read.config, read.places)
    # with the port and the dot that a client may send and a file may not say
    sent = [replace(test, host=row.host or "") for test, row in zip(tests, asked(world), strict=True)]
    return policy, sent


def as_test(row: Row) -> dict[str, object]:
    """As a test in gateway.yaml."""
    words = {
        "request": row.request,
        "as": row.caller,
        "expect": row.expect,
        "host": row.host and _name(row.host),
        "from": row.address,
        "at": row.at,
        "route": row.route,
        "upstream": row.upstream,
    }
    return {key: value for key, value in words.items() if value is not None}


def _name(host: str) -> str:
    return host if host.startswith("[") else host.partition(":")[0].rstrip(".")


@pytest.mark.parametrize("name", WORLDS)
def test_a_slip_in_the_rules_is_noticed_exactly_if_it_changes_anything(name: str) -> None:
    """Noticed by a row; `diff` says, without any row, whether there is anything to notice."""
    policy, tests = compiled(name)
    servers = {upstream: (upstream,) for upstream in WORLDS[name].upstreams}
    right = [outcome(result) for result in answered(name)]
    for slip, wrong in slips(policy):
        noticed = [outcome(result) for result in prove(wrong, tests, now=NOW)] != right
        assert noticed is bool(diff(Side(policy, servers), Side(wrong, servers))), slip


def outcome(result: Result) -> tuple[object, ...]:
    """What client and backend see of it, and whether a rule on trial speaks up."""
    decision = result.decision
    sent = (decision.route.upstream, decision.path) if result.status == "allow" else None
    return result.status, sent, decision.would is not None


def test_the_table_says_every_word_of_the_rules() -> None:
    """Each setting that decides, and each reason there is, stands in some world."""
    routes = [route for world in WORLDS.values() for route in world.gateway.get("routes", [])]
    assert {key for route in routes for key in route} >= {
        "path", "methods", "hosts", "allow", "upstream", "strip_prefix", "valid", "report_only", "trust_host",
    }  # fmt: skip
    assert {world.gateway.get("default", "authenticated") for world in WORLDS.values()} == {
        "authenticated", "admin", "nobody",
    }  # fmt: skip
    rows = [row for world in WORLDS.values() for row in asked(world)]
    assert {row.at is None for row in rows} == {row.would is None for row in rows} == {True, False}
    # The limits of a single API token are in test_reach and in stories/test_programs.
    assert {row.reason for row in rows} >= {reason.value for reason in Reason} - {Reason.OUT_OF_REACH.value}
