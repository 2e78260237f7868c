"""Programs with API tokens: at the backend, under /auth, in a storm, without a database, until the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from gateway.accounts.service import Changes, NewToken
from gateway.accounts.tables import users
from gateway.identity.api_tokens import make_token
from tests.support.house import House, open_house, seen_by_backend

pytestmark = pytest.mark.anyio

ROUTES = """
routes:
  - {path: /health, allow: public}
  - {path: "/admin/**", allow: admin}
  - {path: "/deploy/**", allow: {scopes: {any: [deploy]}}}
  - {path: "/both/**", allow: {scopes: {any: [login, deploy]}}}
  - {path: "/few/**", allow: authenticated, rate_limit: {per_user: 2/minute}}
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, routes=ROUTES) as opened:
        yield opened


async def program(house: House, user: str, **wanted: Any) -> str:
    """A new API token of this user."""
    _, text = await house.gateway.accounts.api_tokens.create(
        user, NewToken("a program", **wanted), actor="cli:test"
    )
    return text


async def ask(house: House, path: str, token: str, method: str = "GET", **more: Any) -> httpx.Response:
    return await house.http.request(method, path, headers={"Authorization": f"Bearer {token}"}, **more)


@pytest.fixture
def reads(house: House, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Each question that the database gets, but for the feed's."""
    database = house.gateway.accounts.api_tokens._database
    found: list[Any] = []
    real = database.read

    async def counted(work: Callable[..., Any]) -> Any:
        found.append(work)
        return await real(work)

    monkeypatch.setattr(database, "read", counted)
    return found


def away(monkeypatch: pytest.MonkeyPatch, house: House) -> None:
    from gateway.errors import Unavailable

    async def run(*_: Any, **__: Any) -> Any:
        raise Unavailable(retry_after=1)

    monkeypatch.setattr(house.gateway.accounts.api_tokens._database, "_run", run)


async def test_a_service_account_deploys(house: House) -> None:
    ci = await house.gateway.accounts.users.create("ci@example.com", None, roles=("robots",))
    token = await program(house, ci.id, scopes=("deploy",))
    seen = seen_by_backend(await ask(house, "/deploy/app", token, "POST"))
    assert (seen["x-user-id"], seen["x-user-email"]) == (ci.id, "ci@example.com")
    assert (seen["x-user-admin"], seen["x-user-roles"]) == ("false", "robots")
    assert "authorization" not in seen
    line = house.events()[-1]
    (made,) = await house.gateway.accounts.api_tokens.of_user(ci.id)
    assert (line["user"], line["credential"], line["scopes"]) == (ci.id, made.id, ["deploy"])
    assert line["reason"] == "scopes"
    assert (await house.try_log_in("ci@example.com", "")).status_code == 401
    assert token not in house.log.getvalue()


async def test_scopes_tell_tokens_from_logins(house: House) -> None:
    ana = await house.add("ana@example.com")
    login, plain = await house.log_in("ana@example.com"), await program(house, ana)
    assert (await login.get("/deploy/app")).status_code == 403
    assert (await login.get("/both/x")).status_code == 200
    assert (await ask(house, "/both/x", plain)).status_code == 403
    assert house.events()[-1]["reason"] == "missing_scope"
    assert (await ask(house, "/orders", plain)).status_code == 200
    assert (await ask(house, "/admin/x", plain)).status_code == 403


async def test_its_own_limits_are_judged_in_every_reading(house: House) -> None:
    root = await house.add("root@example.com", is_admin=True)
    token = await program(house, root, methods=("GET",), paths=("/orders/**", "/admin/stats"))
    for path, status in [
        ("/orders/7", 200), ("/admin/stats", 200), ("/admin/users", 403), ("/orders;/%2fadmin", 403),
        ("/Orders/7", 403), ("/orders%2f..%2fadmin", 400), ("/else", 403), ("/health", 200),
    ]:  # fmt: skip
        assert (await ask(house, path, token)).status_code == status, path
    assert "x-user-id" not in seen_by_backend(await ask(house, "/health", token))
    refused = await ask(house, "/orders/7", token, "DELETE")
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert house.events()[-1]["reason"] == "out_of_reach"
    assert house.events()[-1]["user"] == root


async def test_under_auth_it_may_ask_who_it_is_and_nothing_else(house: House) -> None:
    root = await house.add("root@example.com", is_admin=True)
    token = await program(house, root, paths=("/orders",))
    me = await ask(house, "/auth/me", token)
    assert (me.status_code, me.json()["id"]) == (200, root)
    for method, path, body in [
        ("GET", "/auth/tokens", None), ("POST", "/auth/tokens", {"name": "x"}), ("GET", "/auth/users", None),
        ("GET", "/auth/sessions", None), ("DELETE", f"/auth/users/{root}", None),
        ("POST", "/auth/password", {"currentPassword": "x", "newPassword": "y"}),
    ]:  # fmt: skip
        answer = await ask(house, path, token, method, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    line = house.events()[-1]
    assert (line["route"], line["user"]) == ("auth:password", root)
    assert line["credential"] is not None
    for unknown in (make_token(), token[:-1] + ("x" if token[-1] != "x" else "y")):
        assert (await ask(house, "/auth/users", unknown)).status_code == 401


async def test_people_make_and_end_their_own_and_see_the_text_once(house: House) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")
    made = (await ana.send("POST", "/auth/tokens", json={"name": "laptop"})).json()
    assert (await ask(house, "/orders", made["token"])).status_code == 200
    listed = await ana.get("/auth/tokens")
    assert [each["id"] for each in listed.json()["items"]] == [made["id"]]
    assert made["token"] not in listed.text
    assert (
        await ana.send("POST", "/auth/tokens", json={"name": "x", "scopes": ["deploy"]})
    ).status_code == 400
    assert (await ana.send("DELETE", f"/auth/tokens/{made['id']}")).status_code == 204
    assert (await ask(house, "/orders", made["token"])).status_code == 401
    assert (await ana.send("DELETE", f"/auth/tokens/{made['id']}")).status_code == 404
    names = [each["name"] for each in house.events() if each["event"] == "audit"]
    assert names[-2:] == ["token_created", "token_revoked"]
    assert made["token"] not in house.log.getvalue()


async def test_it_is_read_once_and_forged_ones_never(house: House, reads: list[Any]) -> None:
    token = await program(house, await house.add("ana@example.com"))
    reads.clear()
    first = await asyncio.gather(*(ask(house, "/orders", token) for _ in range(20)))
    assert [answer.status_code for answer in first] == [200] * 20
    assert len(reads) == 1
    for _ in range(20):
        assert (await ask(house, "/orders", token)).status_code == 200
    forged = [token[:at] + ("x" if token[at] != "x" else "y") + token[at + 1 :] for at in range(4, 53)]
    answers = await asyncio.gather(*(ask(house, "/orders", each) for each in forged))
    assert {answer.status_code for answer in answers} == {401}
    assert all('error="invalid_token"' in answer.headers["www-authenticate"] for answer in answers)
    assert len(reads) == 1


async def test_a_database_older_than_the_cut_offs_is_not_asked_for_ever(
    house: House, reads: list[Any]
) -> None:
    """A backup was restored: it has the user as he was before the last change that everybody felt."""
    ana = await house.add("ana@example.com")
    token = await program(house, ana)
    accounts = house.gateway.accounts
    await accounts.users.update(ana, Changes(roles=("auditor",)))
    older = update(users).where(users.c.id == ana).values(version=1)
    await accounts.api_tokens._database.write(lambda connection: connection.execute(older).rowcount)
    reads.clear()
    assert (await ask(house, "/orders", token)).status_code == 503
    assert (await ask(house, "/auth/me", token)).status_code == 503
    assert len(reads) <= 6


@pytest.mark.parametrize("end", [None, 5, True, [], {}, "", "tomorrow", "2027-01-31T18:00:00"])
async def test_an_end_that_is_no_time_is_a_mistake_of_the_sender(house: House, end: object) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")
    refused = await ana.send("POST", "/auth/tokens", json={"name": "x", "expiresAt": end})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_field")


async def test_a_storm_of_made_up_ones_is_turned_away_and_nobody_else_feels_it(
    house: House, reads: list[Any]
) -> None:
    token = await program(house, await house.add("ana@example.com"))
    assert (await ask(house, "/orders", token)).status_code == 200
    reads.clear()
    storm = [asyncio.create_task(ask(house, "/orders", make_token())) for _ in range(600)]
    assert (await ask(house, "/orders", token)).status_code == 200
    answers = await asyncio.gather(*storm)
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {401, 503}
    assert len(reads) == statuses.count(401)
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    repeated = make_token()
    before = len(reads)
    assert {(await ask(house, "/x", repeated)).status_code for _ in range(10)} == {401}
    assert len(reads) == before + 1


async def test_without_a_database_who_is_known_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = await house.add("ana@example.com")
    known, unknown = await program(house, ana), await program(house, ana)
    assert (await ask(house, "/orders", known)).status_code == 200
    away(monkeypatch, house)
    assert (await ask(house, "/orders", known)).status_code == 200
    for path in ("/orders", "/auth/me"):
        answer = await ask(house, path, unknown)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path
    assert "x-user-id" not in seen_by_backend(await ask(house, "/health", unknown))
    assert (await ask(house, "/orders", unknown[:-3] + "xyz")).status_code == 401
    monkeypatch.undo()
    assert (await ask(house, "/orders", unknown)).status_code == 200


async def test_it_ends_to_the_second(house: House) -> None:
    ana = await house.add("ana@example.com")
    token = await program(house, ana, expires_at=house.clock.now + 3600)
    house.clock.advance(minutes=59.99)
    assert (await ask(house, "/orders", token)).status_code == 200
    house.clock.advance(minutes=0.01)
    assert (await ask(house, "/orders", token)).status_code == 401
    assert "x-user-id" not in seen_by_backend(await ask(house, "/health", token))


async def test_it_can_do_what_its_user_can_do_now(house: House) -> None:
    root = await house.add("root@example.com", is_admin=True)
    await house.add("other@example.com", is_admin=True)
    token, users = await program(house, root), house.gateway.accounts.users
    assert (await ask(house, "/admin/x", token)).status_code == 200
    await users.update(root, Changes(is_admin=False, roles=("dev",)))
    assert (await ask(house, "/admin/x", token)).status_code == 403
    assert seen_by_backend(await ask(house, "/orders", token))["x-user-roles"] == "dev"
    assert (await ask(house, "/auth/me", token)).json()["roles"] == ["dev"]
    await users.update(root, Changes(disabled=True))
    assert (await ask(house, "/orders", token)).status_code == 401
    await users.delete(root)
    assert (await ask(house, "/orders", token)).status_code == 401


async def test_all_tokens_of_a_user_count_as_that_user(house: House) -> None:
    ana = await house.add("ana@example.com")
    login, tokens = await house.log_in("ana@example.com"), [await program(house, ana) for _ in range(2)]
    assert (await ask(house, "/few/x", tokens[0])).status_code == 200
    assert (await ask(house, "/few/x", tokens[1])).status_code == 200
    assert (await login.get("/few/x")).status_code == 429


async def test_a_token_in_a_path_is_masked_in_the_log(house: House) -> None:
    token = make_token()
    await ask(house, f"/orders/{token}", token)
    assert token not in json.dumps(house.events())
    assert house.events()[-1]["path"] == "/orders/***"
