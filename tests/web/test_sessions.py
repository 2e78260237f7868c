"""People see where they are logged in and end what is not theirs any more; admins do it for anybody."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.conftest import ADMIN, USER, World, assert_problem

pytestmark = pytest.mark.anyio

KEYS = {"id", "createdAt", "lastUsedAt", "expiresAt", "address", "userAgent", "current"}


def bearer(login: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {login['accessToken']}"}


def sid(world: World, login: dict[str, Any]) -> str:
    return world.access.verify(login["accessToken"].encode()).session


async def log_in_with(world: World, program: str, email: str = USER) -> dict[str, Any]:
    world.http.headers["user-agent"] = program
    return await world.log_in(email)


class TestOwn:
    async def test_the_list_says_where_and_when_and_which_is_this_one(self, world: World) -> None:
        laptop = await log_in_with(world, "Firefox on a laptop")
        world.clock.now += 60
        phone = await log_in_with(world, "Safari on a phone")
        await world.log_in(ADMIN)
        answer = await world.http.get("/auth/sessions", headers=bearer(laptop))
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert body["nextCursor"] is None
        assert [item.keys() for item in body["items"]] == [KEYS, KEYS]
        assert body["items"] == [
            {
                "id": sid(world, phone),
                "createdAt": "2027-01-15T08:01:01.000Z",
                "lastUsedAt": "2027-01-15T08:01:01.000Z",
                "expiresAt": "2027-01-22T08:01:01.000Z",
                "address": "192.0.2.1",
                "userAgent": "Safari on a phone",
                "current": False,
            },
            {
                "id": sid(world, laptop),
                "createdAt": "2027-01-15T08:00:01.000Z",
                "lastUsedAt": "2027-01-15T08:00:01.000Z",
                "expiresAt": "2027-01-22T08:00:01.000Z",
                "address": "192.0.2.1",
                "userAgent": "Firefox on a laptop",
                "current": True,
            },
        ]

    async def test_it_comes_in_pages(self, world: World) -> None:
        logins = [await world.log_in() for _ in range(5)]
        seen: list[str] = []
        cursor = ""
        while True:
            answer = await world.http.get(f"/auth/sessions?limit=2{cursor}", headers=bearer(logins[0]))
            seen += [item["id"] for item in answer.json()["items"]]
            if answer.json()["nextCursor"] is None:
                break
            cursor = f"&cursor={answer.json()['nextCursor']}"
        assert sorted(seen) == sorted(sid(world, login) for login in logins)

    async def test_ending_one_is_felt_by_its_tokens_at_once_and_by_no_other(self, world: World) -> None:
        mine, lost = await world.log_in(), await world.log_in()
        gone = f"/auth/sessions/{sid(world, lost)}"
        answer = await world.http.delete(gone, headers=bearer(mine))
        assert (answer.status_code, answer.content) == (204, b"")
        assert_problem(await world.http.get("/auth/me", headers=bearer(lost)), 401, "invalid_token")
        assert_problem(
            await world.http.post("/auth/refresh", json={"refreshToken": lost["refreshToken"]}),
            401,
            "invalid_refresh_token",
        )
        assert (await world.http.get("/auth/me", headers=bearer(mine))).status_code == 200
        assert_problem(await world.http.delete(gone, headers=bearer(mine)), 404, "not_found")
        (event,) = world.named("SessionEnded")
        assert (event.actor, event.reason) == (world.user.id, "ended")  # type: ignore[attr-defined]

    async def test_one_may_end_the_session_one_is_in(self, world: World) -> None:
        mine = await world.log_in()
        answer = await world.http.delete(f"/auth/sessions/{sid(world, mine)}", headers=bearer(mine))
        assert answer.status_code == 204
        assert_problem(await world.http.get("/auth/me", headers=bearer(mine)), 401, "invalid_token")

    @pytest.mark.parametrize("of", [USER, ADMIN])
    async def test_somebody_elses_is_not_found_not_even_by_an_admin(self, world: World, of: str) -> None:
        """An admin ends other people's below /auth/users, where it is meant."""
        theirs, mine = await world.log_in(of), await world.log_in(ADMIN if of == USER else USER)
        answer = await world.http.delete(f"/auth/sessions/{sid(world, theirs)}", headers=bearer(mine))
        assert_problem(answer, 404, "not_found")
        assert (await world.http.get("/auth/me", headers=bearer(theirs))).status_code == 200

    @pytest.mark.parametrize(
        "odd",
        [
            "x",
            "0",
            "null",
            "*",
            "%2e%2e",
            "a" * 500,
            "0190A0A0-0000-7000-8000-000000000000",
            "x%00",
            "all'--",
        ],
    )
    async def test_odd_ids_are_not_found(self, world: World, odd: str) -> None:
        headers = await world.bearer(ADMIN)
        for path in (
            f"/auth/sessions/{odd}",
            f"/auth/users/{odd}/sessions",
            f"/auth/users/{world.user.id}/sessions/{odd}",
        ):
            assert_problem(await world.http.delete(path, headers=headers), 404, "not_found", path)

    async def test_logout_all_ends_every_session_this_one_too(self, world: World) -> None:
        logins = [await world.log_in() for _ in range(4)]
        admin = await world.log_in(ADMIN)
        answer = await world.http.post("/auth/logout-all", headers=bearer(logins[0]))
        assert (answer.status_code, answer.content) == (204, b"")
        for login in logins:
            assert_problem(await world.http.get("/auth/me", headers=bearer(login)), 401, "invalid_token")
            refused = await world.http.post("/auth/refresh", json={"refreshToken": login["refreshToken"]})
            assert_problem(refused, 401, "invalid_refresh_token")
        assert (await world.http.get("/auth/me", headers=bearer(admin))).status_code == 200
        assert (await world.http.get("/auth/me", headers=await world.bearer())).status_code == 200

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            ({"json": {}}, 204),
            ({"json": {"all": True}}, 400),
            ({"json": []}, 400),
            ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
            ({"content": b"hello"}, 415),
            ({"content": b"x" * 20_000}, 413),
        ],
    )
    async def test_logout_all_needs_no_body_and_takes_no_other(
        self, world: World, sent: dict[str, Any], status: int
    ) -> None:
        headers = {**await world.bearer(), **sent.pop("headers", {})}
        answer = await world.http.post("/auth/logout-all", headers=headers, **sent)
        assert answer.status_code == status
        still = await world.http.get("/auth/me", headers={"authorization": headers["authorization"]})
        assert still.status_code == (401 if status == 204 else 200)


class TestAdmins:
    async def test_they_list_and_end_the_sessions_of_anybody(self, world: World) -> None:
        first, second, admin = await world.log_in(), await world.log_in(), await world.log_in(ADMIN)
        theirs = f"/auth/users/{world.user.id}/sessions"
        listed = (await world.http.get(theirs, headers=bearer(admin))).json()
        assert {item["id"] for item in listed["items"]} == {sid(world, first), sid(world, second)}
        assert not any(item["current"] for item in listed["items"])

        answer = await world.http.delete(f"{theirs}/{sid(world, first)}", headers=bearer(admin))
        assert answer.status_code == 204
        assert_problem(await world.http.get("/auth/me", headers=bearer(first)), 401, "invalid_token")
        assert (await world.http.get("/auth/me", headers=bearer(second))).status_code == 200

        assert (await world.http.delete(theirs, headers=bearer(admin))).status_code == 204
        assert_problem(await world.http.get("/auth/me", headers=bearer(second)), 401, "invalid_token")
        assert (await world.http.get(theirs, headers=bearer(admin))).json()["items"] == []
        assert (await world.http.get("/auth/me", headers=bearer(admin))).status_code == 200
        assert [event.actor for event in (*world.named("SessionEnded"), *world.named("SessionsEnded"))] == [
            world.admin.id,
            world.admin.id,
        ]

    async def test_their_own_session_is_marked_in_their_own_list(self, world: World) -> None:
        admin = await world.log_in(ADMIN)
        listed = await world.http.get(f"/auth/users/{world.admin.id}/sessions", headers=bearer(admin))
        assert [item["current"] for item in listed.json()["items"]] == [True]

    async def test_a_session_is_looked_for_under_its_own_user_only(self, world: World) -> None:
        theirs, admin = await world.log_in(), await world.log_in(ADMIN)
        path = f"/auth/users/{world.admin.id}/sessions/{sid(world, theirs)}"
        assert_problem(await world.http.delete(path, headers=bearer(admin)), 404, "not_found")
        assert (await world.http.get("/auth/me", headers=bearer(theirs))).status_code == 200

    async def test_nobody_else_may(self, world: World) -> None:
        """Not even for themselves: whoever asks there says that they are an admin."""
        mine, admin = await world.log_in(), await world.log_in(ADMIN)
        for of in (world.user.id, world.admin.id, "x"):
            for method, path in (
                ("GET", f"/auth/users/{of}/sessions"),
                ("DELETE", f"/auth/users/{of}/sessions"),
                ("DELETE", f"/auth/users/{of}/sessions/{sid(world, admin)}"),
            ):
                assert_problem(await world.http.request(method, path, headers=bearer(mine)), 403, "forbidden")
                assert_problem(await world.http.request(method, path), 401, "not_logged_in")
        assert (await world.http.get("/auth/me", headers=bearer(admin))).status_code == 200
