"""/auth/audit: admins ask what happened."""

from __future__ import annotations

import pytest

from gateway.telemetry import audit
from gateway.web.trail import PAGE_SIZE
from tests.web.conftest import ADMIN, HOME, PASSWORD, USER, World, assert_problem

pytestmark = pytest.mark.anyio

BAD = [
    ("name=login", "name: there is no such event; there are grace_hit"),
    ("name=", "name: there is no such event"),
    ("name=login_failed,", "name: there is no such event"),
    ("user=ada", "user: write an account's id or e-mail address."),
    ("user=a@b@c", "The e-mail address is not valid."),
    ("actor=ada", "actor: write an account's id or e-mail address, cli, or cli:NAME."),
    ("address=here", "address: write an IP address, or unix."),
    ("since=yesterday", "since: write a day like 2027-01-31"),
    ("since=2027-02-30", "since: write a day"),
    ("since=2027-01-31T18:00:00", "since: write a day"),
    ("until=2d", "until: write a day"),
    ("until=0000-01-01T00:00:00%2B23:59", "until: write a day"),
    ("limit=0", "limit: write a whole number from 1 to 200."),
    ("limit=201", "limit: write a whole number"),
    ("limit=1&limit=2", "limit is in the query twice"),
    ("cursor=x", "cursor must be the nextCursor of an earlier page."),
    ("page=2", "page is unknown here"),
]


async def test_what_was_done_is_there_with_everything_one_asks_for(world: World) -> None:
    admin = await world.bearer(ADMIN)
    made = await world.http.post(
        "/auth/users", json={"email": "new@example.com", "password": PASSWORD}, headers=admin
    )
    answer = await world.http.get("/auth/audit", params={"name": "user_created", "limit": 1}, headers=admin)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["nextCursor"] is not None, "those of the beginning"
    (event,) = body["items"]
    assert event == {
        "id": event["id"],
        "time": "2027-01-15T08:00:01.000Z",
        "name": "user_created",
        "actor": world.admin.id,
        "actorEmail": ADMIN,
        "address": None,
        "requestId": None,
        "user": made.json()["id"],
        "email": "new@example.com",
        "details": {"admin": False, "roles": []},
    }


async def test_pages_follow_each_other(world: World) -> None:
    admin = await world.bearer(ADMIN)
    for _ in range(3):
        await world.log_in()
    seen, cursor = [], {}
    while True:
        page = (await world.http.get("/auth/audit", params={"limit": 2, **cursor}, headers=admin)).json()
        seen += [event["name"] for event in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert seen == ["login_succeeded"] * 4 + ["user_created"] * 2


async def test_filters(world: World) -> None:
    admin = await world.bearer(ADMIN)
    await world.log_in()
    world.clock.now += 600

    async def ask(**params: str) -> list[str]:
        answer = await world.http.get("/auth/audit", params=params, headers=admin)
        assert answer.status_code == 200, answer.text
        return [event["email"] for event in answer.json()["items"]]

    assert await ask(name="login_succeeded,login_failed") == [USER, ADMIN]
    assert await ask(name="login_succeeded", user=USER.upper()) == [USER]
    assert await ask(user=world.user.id, name="user_created") == [USER]
    assert await ask(actor=ADMIN) == [ADMIN]
    assert await ask(actor="cli") == []
    assert await ask(address=str(HOME)) == [USER, ADMIN]
    assert await ask(since="2027-01-15T09:00:00+01:00", until="2027-01-15T08:00:01Z") == [ADMIN]
    assert await ask(since="2027-01-16") == []
    assert len(await ask(until="2027-01-16")) == 4


@pytest.mark.parametrize(("query", "sentence"), BAD)
async def test_a_bad_filter_is_said(world: World, query: str, sentence: str) -> None:
    answer = await world.http.get(f"/auth/audit?{query}", headers=await world.bearer(ADMIN))
    assert assert_problem(answer, 400, "invalid_field")["detail"].startswith(sentence)


async def test_only_admins_ask_and_a_bad_filter_tells_others_nothing(world: World) -> None:
    for query in ("", "?limit=x"):
        assert_problem(await world.http.get(f"/auth/audit{query}"), 401, "not_logged_in")
        answer = await world.http.get(f"/auth/audit{query}", headers=await world.bearer(USER))
        assert_problem(answer, 403, "forbidden")


async def test_a_page_has_a_size_of_its_own(world: World) -> None:
    assert 0 < PAGE_SIZE <= 200
    assert "login_failed" in audit.names()
