"""Every row of the table of decisions, against `decide`, through the runner of `tests:`."""

from __future__ import annotations

from functools import cache

import pytest

from gateway.policy.compile import compile_policy, compile_tests
from gateway.policy.prove import Result, prove
from tests.policy.rules import TOKENS, loaded
from tests.support.decisions import World, worlds

WORLDS = {world.name: world for world in worlds()}
ROWS = [(world.name, index) for world in WORLDS.values() for index in range(len(world.rows))]


@pytest.mark.parametrize(
    ("name", "index"), ROWS, ids=[f"{name}: {WORLDS[name].rows[index]}" for name, index in ROWS]
)
def test_row(name: str, index: int) -> None:
    row, result = WORLDS[name].rows[index], results(name)[index]
    assert result.complaint is None
    if row.reason is not None:
        assert result.decision.reason == row.reason
    if row.forward is not None:
        assert result.decision.path == row.forward.encode()
    elif result.status == "allow" and not result.decision.route.strip:
        assert result.decision.path == row.target.partition("?")[0].encode()


@cache
def results(name: str) -> list[Result]:
    world = WORLDS[name]
    settings = world.settings(TOKENS, lambda upstream: f"http://{upstream}.internal:9000")
    read = loaded(settings | {"tests": _written(world)})
    assert read.config is not None
    policy, problems = compile_policy(read.config, read.places)
    assert policy is not None, [str(problem) for problem in problems]
    return prove(policy, compile_tests(read.config, read.places), now=0.0)


def _written(world: World) -> list[dict[str, object]]:
    rows = (
        {
            "request": row.request,
            "as": row.caller,
            "expect": row.expect,
            "host": row.host,
            "from": row.address,
            "route": row.route,
            "upstream": row.upstream,
        }
        for row in world.rows
    )
    return [{key: value for key, value in row.items() if value is not None} for row in rows]
