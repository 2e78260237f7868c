"""A head that comes again, byte for byte, is let pass again without a second look at the rules: never for
longer than the token, the session and the rules themselves would let it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.accounts.service import Changes, NewToken
from gateway.http.head import Head
from gateway.identity.revocation import Cut
from gateway.proxy.verdict import Forward, Judgement, Refuse, Wait
from tests.support.house import House, Person, open_house

pytestmark = pytest.mark.anyio
ROUTES = """
routes:
  - {path: "/admin/**", allow: admin}
  - {path: "/open/**", allow: public}
  - {path: "/often", allow: authenticated, rate_limit: {per_user: 2/minute}}
  - {path: "/soon", allow: authenticated, valid: {until: 2027-01-15T08:05:00Z}}
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, routes=ROUTES) as house:
        yield house


async def visitor(house: House) -> Person:
    await house.add("ada@example.com")
    return await house.log_in("ada@example.com")


def head_of(token: str, target: bytes = b"/things?page=1") -> Head:
    lines = [(b"Host", b"gateway.test"), (b"Authorization", b"Bearer " + token.encode())]
    return Head("GET", target, lines, "1.1", "http", "198.51.100.7", True)


def passed(judgement: Judgement) -> Forward:
    assert isinstance(judgement, Forward), judgement
    return judgement


def refused(judgement: Judgement) -> str:
    assert isinstance(judgement, Refuse), judgement
    return judgement.decided.reason


async def test_only_the_ids_are_new(house: House) -> None:
    gate, head = house.gateway.gate, head_of((await visitor(house)).access)
    first, *others = [passed(gate.judge(head)) for _ in range(50)]
    told = re.compile(
        rb"X-Request-Id: ([0-9a-f]{32})\r\ntraceparent: 00-\1-(?!0{16})[0-9a-f]{16}-01\r\n\r\n\Z"
    )
    assert len({each.request_id for each in (first, *others)}) == 50
    for each in others:
        found = told.search(each.head)
        assert found is not None
        assert found[1].decode() == each.request_id == each.decided.request_id
        assert each.head[: found.start()] == first.head[: found.start()]
        ids = first.request_id, first.head, first.decided
        assert replace(each, request_id=ids[0], head=ids[1], decided=ids[2]) == first
        assert each.standing is not None
        assert each.standing()


async def test_what_came_of_one_says_nothing_of_the_next(house: House) -> None:
    gate, head = house.gateway.gate, head_of((await visitor(house)).access)
    fresh = passed(gate.judge(head)).decided
    before = (fresh.reason, fresh.status, fresh.upstream, fresh.user, fresh.route, fresh.verdict)
    fresh.reason, fresh.status, fresh.upstream = "upstream_timeout", 504, "127.0.0.1:1"
    again = passed(gate.judge(head)).decided
    assert (again.reason, again.status, again.upstream, again.user, again.route, again.verdict) == before
    assert (again.path, again.host, again.client) == (b"/things", b"gateway.test", "198.51.100.7")


async def test_it_ends_with_its_token(house: House) -> None:
    gate, head = house.gateway.gate, head_of((await visitor(house)).access)
    for _ in range(3):
        passed(gate.judge(head))
    house.clock.advance(minutes=15, seconds=11)
    assert [refused(gate.judge(head)) for _ in range(2)] == ["invalid_token"] * 2


@pytest.mark.parametrize("cut", ["session", "user"])
async def test_it_ends_with_its_session_and_with_a_new_version_of_its_user(house: House, cut: str) -> None:
    gate, ada = house.gateway.gate, await visitor(house)
    head = head_of(ada.access)
    for _ in range(3):
        passed(gate.judge(head))
    if cut == "session":
        await ada.log_out()
    else:
        gate._cutoffs.apply(Cut("user", ada.user["id"], 2**31, house.clock.now + 900))
    assert refused(gate.judge(head)) == "invalid_token"


@pytest.mark.parametrize("end", ["revoked", "expired", "another role", "disabled"])
async def test_it_ends_with_its_api_token(house: House, end: str) -> None:
    gate, tokens = house.gateway.gate, house.gateway.accounts.api_tokens
    user = await house.add("ci@example.com")
    wanted = NewToken("x", expires_at=house.clock.now + 600)
    made, text = await tokens.create(user, wanted, actor="cli:test")
    head = head_of(text)
    waited = gate.judge(head)
    assert isinstance(waited, Wait), "it was never met before"
    first = passed(await waited.judgement())
    assert first.standing is not None
    assert first.standing(), "a stream or a tunnel that it opened"
    for _ in range(3):
        assert passed(gate.judge(head)).decided.credential == made.id
    if end == "revoked":
        await tokens.revoke(made.id, actor="cli:test")
    elif end == "expired":
        house.clock.advance(minutes=10)
    elif end == "disabled":
        await house.gateway.accounts.users.update(user, Changes(disabled=True))
    else:
        await house.gateway.accounts.users.update(user, Changes(roles=("dev",)))
    assert not first.standing()
    after = gate.judge(head)
    after = await after.judgement() if isinstance(after, Wait) else after
    if end == "another role":
        assert passed(after).decided.roles == ("dev",)
        assert passed(gate.judge(head)).decided.roles == ("dev",)
    else:
        assert refused(after) == "invalid_token"
        assert refused(gate.judge(head)) == "invalid_token"


async def test_it_ends_with_its_rules(house: House) -> None:
    gate, head = house.gateway.gate, head_of((await visitor(house)).access)
    forward = passed(gate.judge(head))
    passed(gate.judge(head))
    nobody = replace(gate._rules.policy.default, allow=replace(gate._rules.policy.default.allow, admin=True))
    policy = replace(gate._rules.policy, default=nobody, memory={})
    gate.adopt(replace(gate._rules, policy=policy))
    assert refused(gate.judge(head)) == "not_admin"
    assert forward.standing is not None
    assert not forward.standing()


async def test_a_public_route_forgives_a_bad_token_every_time(house: House) -> None:
    """As without one: it says nothing of who asks, and nothing is kept of it."""
    gate, ada = house.gateway.gate, await visitor(house)
    bad, good = head_of("nonsense", b"/open/1"), head_of(ada.access, b"/open/1")
    for _ in range(3):
        assert passed(gate.judge(bad)).decided.user is None
        assert passed(gate.judge(good)).decided.user == ada.user["id"]
    house.clock.advance(minutes=16)
    assert [passed(gate.judge(head)).decided.user for head in (bad, good, good)] == [None] * 3


async def test_what_counts_or_passes_is_asked_every_time(house: House) -> None:
    gate, ada = house.gateway.gate, await visitor(house)
    often, soon = head_of(ada.access, b"/often"), head_of(ada.access, b"/soon")
    for _ in range(2):
        passed(gate.judge(often))
        passed(gate.judge(soon))
    assert refused(gate.judge(often)) == "too_many_requests"
    house.clock.advance(minutes=6)
    assert refused(gate.judge(soon)) == "expired"
    passed(gate.judge(often))
