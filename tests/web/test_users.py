"""Admins look after accounts; everyone else, and every attempt at more than that, is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.accounts.service import Changes
from tests.web.conftest import ADMIN, PASSWORD, USER, World, assert_problem

pytestmark = pytest.mark.anyio

NEW = {"email": "new@example.com", "password": PASSWORD}
ACCOUNT_KEYS = {"id", "email", "isAdmin", "roles", "disabled", "service", "createdAt"}
OPERATIONS = [
    ("GET", "/auth/users"),
    ("POST", "/auth/users"),
    ("GET", "/auth/users/{id}"),
    ("PATCH", "/auth/users/{id}"),
    ("DELETE", "/auth/users/{id}"),
]

WRONG_ACCOUNTS: list[dict[str, Any]] = [
    {},
    {"email": "new@example.com"},
    {"password": PASSWORD},
    {**NEW, "email": None},
    {**NEW, "email": ["new@example.com"]},
    {**NEW, "email": "not an address"},
    {**NEW, "email": "new@example.com\r\nX-User-Admin: true"},
    {**NEW, "email": "new\u0000@example.com"},
    {**NEW, "email": "x" * 300 + "@example.com"},
    {**NEW, "password": 1234567890123},
    {**NEW, "password": "short"},
    {**NEW, "password": "x" * 1025},
    {**NEW, "password": "new@example.com"},
    {**NEW, "isAdmin": 1},
    {**NEW, "isAdmin": "true"},
    {**NEW, "isAdmin": None},
    {**NEW, "roles": "admin"},
    {**NEW, "roles": ["Admin"]},
    {**NEW, "roles": ["a,b"]},
    {**NEW, "roles": [""]},
    {**NEW, "roles": ["x" * 65]},
    {**NEW, "roles": ["a\n"]},
    {**NEW, "roles": [["a"]]},
    {**NEW, "roles": [f"r{i}" for i in range(65)]},
]

WRONG_CHANGES: list[dict[str, Any]] = [
    {},
    {"id": "x"},
    {"createdAt": "2020-01-01T00:00:00Z"},
    {"version": 0},
    {"currentPassword": "x"},
    {"email": None},
    {"email": "x"},
    {"password": None},
    {"password": "short"},
    {"isAdmin": "yes"},
    {"roles": None},
    {"roles": {"0": "a"}},
    {"roles": ["A"]},
    {"disabled": 0},
    {"disabled": "false"},
    {"disabled": True, "typo": 1},
]

WRONG_QUERIES = [
    "limit=0",
    "limit=201",
    "limit=-1",
    "limit=ten",
    "limit=",
    "limit=1&limit=2",
    "cursor=nonsense",
    "cursor=",
    "offset=3",
    "Limit=3",
    "query=%ff",
    "query=%",
]

ODD_IDS = [
    "1",
    "-1",
    "me",
    "null",
    "undefined",
    "*",
    "'or'1'='1",
    "00000000-0000-0000-0000-000000000000",
    "x" * 2000,
    "a;b",
    "$where",
    "{}",
    "@",
]


class TestWhoMay:
    @pytest.mark.parametrize(("method", "path"), OPERATIONS)
    async def test_anonymous_is_401_and_everyone_else_403_before_anything_is_read(
        self, world: World, method: str, path: str
    ) -> None:
        path = path.format(id=world.user.id)
        anonymous = await world.http.request(method, path, content=b"{", params={"limit": "x"})
        assert_problem(anonymous, 401, "not_logged_in")
        user = await world.http.request(method, path, content=b"{", headers=await world.bearer())
        assert_problem(user, 403, "forbidden")
        assert user.headers["www-authenticate"] == 'Bearer realm="gateway", error="insufficient_scope"'

    async def test_nobody_makes_themselves_an_admin(self, world: World) -> None:
        mine = await world.bearer()
        path = f"/auth/users/{world.user.id}"
        assert (await world.http.patch(path, json={"isAdmin": True}, headers=mine)).status_code == 403
        assert (await world.accounts.users.get(world.user.id)).is_admin is False

    async def test_a_demoted_admin_is_refused_even_where_the_cut_off_is_not_known_yet(
        self, world: World
    ) -> None:
        boss = await world.accounts.users.create("boss@example.com", PASSWORD, is_admin=True)
        theirs = await world.bearer("boss@example.com")
        assert (await world.http.get("/auth/users", headers=theirs)).status_code == 200
        await world.accounts.users.update(boss.id, Changes(is_admin=False))
        assert_problem(await world.http.get("/auth/users", headers=theirs), 401, "invalid_token")
        world.cutoffs._versions.clear()  # another process, a second behind
        assert_problem(await world.http.get("/auth/users", headers=theirs), 401, "invalid_token")
        again = await world.bearer("boss@example.com")
        assert_problem(await world.http.get("/auth/users", headers=again), 403, "forbidden")


class TestCreate:
    async def test_a_new_account_can_log_in(self, world: World) -> None:
        body = {**NEW, "isAdmin": True, "roles": ["b", "a", "b"]}
        answer = await world.http.post("/auth/users", json=body, headers=await world.bearer(ADMIN))
        assert answer.status_code == 201
        user = answer.json()
        assert answer.headers["location"] == f"/auth/users/{user['id']}"
        assert user.keys() == ACCOUNT_KEYS
        assert (user["email"], user["isAdmin"], user["disabled"]) == ("new@example.com", True, False)
        assert user["roles"] == ["a", "b"]
        assert user["createdAt"] == "2027-01-15T08:00:01.000Z"
        assert (await world.log_in("new@example.com"))["user"]["id"] == user["id"]

    async def test_nothing_but_the_named_fields_can_be_set(self, world: World) -> None:
        admin = await world.bearer(ADMIN)
        for field in (
            "id",
            "disabled",
            "createdAt",
            "version",
            "passwordHash",
            "is_admin",
            "isadmin",
            "__proto__",
        ):
            answer = await world.http.post("/auth/users", json={**NEW, field: True}, headers=admin)
            problem = assert_problem(answer, 400, "invalid_field")
            assert (
                problem["detail"]
                == f"{field} is unknown here; send email, password, isAdmin, roles, service."
            )
        assert (await world.http.post("/auth/users", json=NEW, headers=admin)).status_code == 201

    async def test_a_wrong_value_is_refused_and_nothing_is_created(self, world: World) -> None:
        admin = await world.bearer(ADMIN)
        for body in WRONG_ACCOUNTS:
            answer = await world.http.post("/auth/users", json=body, headers=admin)
            assert len(assert_problem(answer, 400, "invalid_field", body)["detail"]) > 10
        assert len((await world.http.get("/auth/users", headers=admin)).json()["items"]) == 2

    async def test_one_address_is_one_account_in_whatever_spelling(self, world: World) -> None:
        admin = await world.bearer(ADMIN)
        for spelling in ("ada@example.com", "ADA@Example.com", " ａda@example.com "):
            answer = await world.http.post("/auth/users", json={**NEW, "email": spelling}, headers=admin)
            assert_problem(answer, 409, "email_taken")

    async def test_of_two_at_once_exactly_one_is_created(self, world: World) -> None:
        admin = await world.bearer(ADMIN)
        for i in range(5):
            answers = await asyncio.gather(
                *(
                    world.http.post("/auth/users", json={**NEW, "email": spelling}, headers=admin)
                    for spelling in (f"race{i}@example.com", f"RACE{i}@EXAMPLE.COM", f"Ｒace{i}@example.com")
                )
            )
            assert sorted(answer.status_code for answer in answers) == [201, 409, 409]


class TestList:
    async def test_pages_follow_one_another_without_gap_or_overlap(self, world: World) -> None:
        for i in range(5):
            world.clock.now += 1
            await world.accounts.users.create(f"n{i}@example.com", PASSWORD)
        admin, seen, cursor = await world.bearer(ADMIN), [], None
        while True:
            asked = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
            page = (await world.http.get("/auth/users", params=asked, headers=admin)).json()
            assert page.keys() == {"items", "nextCursor"}
            seen += [user["email"] for user in page["items"]]
            cursor = page["nextCursor"]
            if cursor is None:
                break
        assert seen == [ADMIN, USER, *(f"n{i}@example.com" for i in range(5))]

    async def test_what_is_shown_holds_no_hash(self, world: World) -> None:
        answer = await world.http.get("/auth/users", headers=await world.bearer(ADMIN))
        assert all(user.keys() == ACCOUNT_KEYS for user in answer.json()["items"])
        assert "$" not in answer.text

    @pytest.mark.parametrize(
        ("query", "found"), [("ADA", [USER]), ("%", []), ("_", []), ("nope", []), ("", None)]
    )
    async def test_a_search_is_for_text_and_not_a_pattern(
        self, world: World, query: str, found: list[str] | None
    ) -> None:
        answer = await world.http.get(
            "/auth/users", params={"query": query}, headers=await world.bearer(ADMIN)
        )
        emails = [user["email"] for user in answer.json()["items"]]
        assert emails == ([ADMIN, USER] if found is None else found)

    async def test_a_wrong_parameter_is_refused(self, world: World) -> None:
        admin = await world.bearer(ADMIN)
        for query in WRONG_QUERIES:
            answer = await world.http.get(f"/auth/users?{query}", headers=admin)
            assert_problem(answer, 400, "invalid_field", query)


class TestOne:
    async def test_it_is_shown_and_deleted(self, world: World) -> None:
        admin, theirs = await world.bearer(ADMIN), await world.bearer()
        path = f"/auth/users/{world.user.id}"
        assert (await world.http.get(path, headers=admin)).json()["email"] == USER
        gone = await world.http.delete(path, headers=admin)
        assert (gone.status_code, gone.content) == (204, b"")
        for method in ("GET", "DELETE"):
            assert_problem(await world.http.request(method, path, headers=admin), 404, "not_found")
        assert_problem(
            await world.http.patch(path, json={"disabled": False}, headers=admin), 404, "not_found"
        )
        assert (await world.http.get("/auth/me", headers=theirs)).status_code == 401

    @pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
    async def test_an_odd_id_is_simply_not_there(self, world: World, method: str) -> None:
        body = {"disabled": False} if method == "PATCH" else None
        admin = await world.bearer(ADMIN)
        for odd in ODD_IDS:
            answer = await world.http.request(method, f"/auth/users/{odd}", headers=admin, json=body)
            assert_problem(answer, 404, "not_found", odd)

    @pytest.mark.parametrize(
        ("change", "shown"),
        [
            ({"email": " NEW@Example.com"}, {"email": "new@example.com"}),
            ({"isAdmin": True}, {"isAdmin": True}),
            ({"roles": ["z", "a"]}, {"roles": ["a", "z"]}),
            ({"roles": []}, {"roles": []}),
            ({"disabled": True}, {"disabled": True}),
            ({"password": "a different passphrase"}, {}),
            ({"disabled": False, "isAdmin": False}, {"disabled": False, "isAdmin": False}),
        ],
    )
    async def test_only_what_is_sent_is_changed(
        self, world: World, change: dict[str, Any], shown: dict[str, Any]
    ) -> None:
        admin = await world.bearer(ADMIN)
        path = f"/auth/users/{world.user.id}"
        before = (await world.http.get(path, headers=admin)).json()
        answer = await world.http.patch(path, json=change, headers=admin)
        assert answer.status_code == 200
        assert answer.json() == {**before, **shown}

    async def test_a_wrong_change_changes_nothing(self, world: World) -> None:
        admin = await world.bearer(ADMIN)
        for body in WRONG_CHANGES:
            answer = await world.http.patch(f"/auth/users/{world.user.id}", json=body, headers=admin)
            assert_problem(answer, 400, "invalid_field", body)
        assert await world.accounts.users.get(world.user.id) == world.user

    async def test_an_address_cannot_be_taken_over(self, world: World) -> None:
        answer = await world.http.patch(
            f"/auth/users/{world.user.id}", json={"email": ADMIN.upper()}, headers=await world.bearer(ADMIN)
        )
        assert_problem(answer, 409, "email_taken")

    async def test_a_password_set_by_an_admin_ends_the_sessions(self, world: World) -> None:
        theirs = await world.bearer()
        await world.http.patch(
            f"/auth/users/{world.user.id}",
            json={"password": "set by an admin"},
            headers=await world.bearer(ADMIN),
        )
        assert (await world.http.get("/auth/me", headers=theirs)).status_code == 401
        assert await world.log_in(USER, "set by an admin")

    async def test_a_disabled_account_is_out_and_an_enabled_one_back_in(self, world: World) -> None:
        theirs, admin = await world.bearer(), await world.bearer(ADMIN)
        path = f"/auth/users/{world.user.id}"
        await world.http.patch(path, json={"disabled": True}, headers=admin)
        assert (await world.http.get("/auth/me", headers=theirs)).status_code == 401
        login = {"email": USER, "password": PASSWORD}
        assert_problem(await world.http.post("/auth/login", json=login), 401, "invalid_credentials")
        await world.http.patch(path, json={"disabled": False}, headers=admin)
        assert await world.log_in()


class TestLastAdmin:
    @pytest.mark.parametrize("change", [{"isAdmin": False}, {"disabled": True}, None])
    async def test_the_last_one_stays(self, world: World, change: dict[str, Any] | None) -> None:
        admin = await world.bearer(ADMIN)
        path = f"/auth/users/{world.admin.id}"
        answer = await (
            world.http.delete(path, headers=admin)
            if change is None
            else world.http.patch(path, json=change, headers=admin)
        )
        assert_problem(answer, 409, "last_admin")
        assert (await world.http.get("/auth/users", headers=admin)).status_code == 200

    async def test_two_who_remove_each_other_at_once_leave_one(self, world: World) -> None:
        other = await world.accounts.users.create("other@example.com", PASSWORD, is_admin=True)
        a, b = await world.bearer(ADMIN), await world.bearer("other@example.com")
        answers = await asyncio.gather(
            world.http.delete(f"/auth/users/{other.id}", headers=a),
            world.http.patch(f"/auth/users/{world.admin.id}", json={"isAdmin": False}, headers=b),
        )
        assert sum(answer.is_success for answer in answers) == 1
        admins = [user for user in (await world.accounts.users.list()).items if user.is_admin]
        assert len(admins) == 1

    async def test_with_a_second_one_the_first_may_go(self, world: World) -> None:
        await world.accounts.users.create("other@example.com", PASSWORD, is_admin=True)
        admin = await world.bearer(ADMIN)
        path = f"/auth/users/{world.admin.id}"
        assert (await world.http.patch(path, json={"isAdmin": False}, headers=admin)).status_code == 200
        assert_problem(await world.http.get("/auth/users", headers=admin), 401, "invalid_token")


async def test_every_change_is_audited_with_who_did_it_and_no_secret(world: World) -> None:
    admin = await world.bearer(ADMIN)
    user = (await world.http.post("/auth/users", json=NEW, headers=admin)).json()
    path = f"/auth/users/{user['id']}"
    await world.http.patch(path, json={"roles": ["x"], "password": "set by an admin"}, headers=admin)
    await world.http.delete(path, headers=admin)
    for name in ("UserCreated", "UserUpdated", "PasswordChanged", "UserDeleted"):
        (event,) = world.named(name)
        assert getattr(event, "actor", None) == world.admin.id
    shown = repr(world.events)
    assert PASSWORD not in shown
    assert "set by an admin" not in shown
