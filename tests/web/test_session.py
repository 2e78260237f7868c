"""Logging in, refreshing, being oneself, changing a password, logging out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import httpx
import pytest

from gateway.accounts.service import Changes
from tests.web.conftest import ADMIN, PASSWORD, USER, World, assert_problem

pytestmark = pytest.mark.anyio

CHALLENGE = 'Bearer realm="gateway"'
DEAD_TOKEN = (
    'Bearer realm="gateway", error="invalid_token", error_description='
    '"The access token is expired, revoked or not valid here. Refresh it or log in again."'
)

NO_REFRESH_TOKENS = ["", "x", "a.b.c", "é", "x" * 10_000, "."]

OTHER_SCHEMES = ["Basic YWRhOnB3", "Token x", "", "bearertoken"]

BAD_TOKENS = ["x", "", "a.b.c", "\xff", "a.b.c.d.e", "x" * 9000]


async def attempt(world: World, email: str = USER, password: str = "wrong") -> httpx.Response:
    return await world.http.post("/auth/login", json={"email": email, "password": password})


class TestLogin:
    async def test_it_answers_with_two_tokens_and_the_person(self, world: World) -> None:
        answer = await attempt(world, USER, PASSWORD)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        body = answer.json()
        assert body.keys() == {"accessToken", "refreshToken", "user"}
        assert body["user"] == {
            "id": world.user.id,
            "email": USER,
            "isAdmin": False,
            "roles": ["analyst", "auditor"],
        }
        principal = world.access.verify(body["accessToken"].encode())
        assert (principal.id, principal.email) == (world.user.id, USER)

    @pytest.mark.parametrize(
        "spelling", ["ADA@EXAMPLE.COM", "  ada@example.com\t", "ａｄａ@example.com", "Ada@Example.com"]
    )
    async def test_every_spelling_of_the_address_is_the_same_person(
        self, world: World, spelling: str
    ) -> None:
        assert (await world.log_in(spelling))["user"]["id"] == world.user.id

    async def test_nobody_learns_from_words_or_work_why_it_failed(
        self, world: World, bcrypt_rounds: list[int]
    ) -> None:
        await world.accounts.users.update(
            (await world.accounts.users.create("off@example.com", PASSWORD)).id, Changes(disabled=True)
        )
        answers, work = [], []
        for email, password in [
            (USER, "wrong"),
            ("nobody@example.com", PASSWORD),
            ("off@example.com", PASSWORD),
            ("no address at all", PASSWORD),
            ("", ""),
            (USER, ""),
            (USER, "x" * 5000),
            (USER, PASSWORD + "\0"),
            ("ada@example.com\0", PASSWORD),
            ("x" * 2000 + "@example.com", PASSWORD),
            ("a@b@c", PASSWORD),
        ]:
            bcrypt_rounds.clear()
            answer = await attempt(world, email, password)
            work.append(sum(bcrypt_rounds))
            problem = assert_problem(answer, 401, "invalid_credentials")
            answers.append((answer.headers["www-authenticate"], problem["title"], problem["detail"]))
        assert set(answers) == {(CHALLENGE, "Invalid credentials", "Invalid credentials")}
        assert set(work) == {2**4}

    async def test_the_password_counts_to_its_last_byte(self, world: World) -> None:
        long = "p" * 100 + "end"
        await world.accounts.users.create("long@example.com", long)
        assert_problem(
            await attempt(world, "long@example.com", "p" * 100 + "and"), 401, "invalid_credentials"
        )
        assert await world.log_in("long@example.com", long)

    async def test_a_token_sent_along_changes_nothing(self, world: World) -> None:
        answer = await world.http.post(
            "/auth/login",
            json={"email": USER, "password": PASSWORD},
            headers={"authorization": "Bearer garbage"},
        )
        assert answer.status_code == 200

    async def test_each_outcome_is_audited_once(self, world: World) -> None:
        await attempt(world)
        await world.log_in()
        assert [type(event).__name__ for event in world.events] == ["LoginFailed", "LoginSucceeded"]


class TestLoginLimits:
    async def test_the_sixth_guess_within_a_minute_is_refused_before_any_bcrypt(
        self, world: World, bcrypt_rounds: list[int]
    ) -> None:
        for _ in range(5):
            assert (await attempt(world)).status_code == 401
        bcrypt_rounds.clear()
        refused = await attempt(world, USER, PASSWORD)
        assert_problem(refused, 429, "too_many_requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert bcrypt_rounds == []

        world.clock.now += int(refused.headers["retry-after"])
        assert (await attempt(world, USER, PASSWORD)).status_code == 200

    async def test_every_spelling_counts_on_one_counter(self, world: World) -> None:
        for spelling in (
            "ada@example.com",
            "ADA@example.com",
            " ada@EXAMPLE.com ",
            "ａda@example.com",
            "Ada@example.com",
        ):
            assert (await attempt(world, spelling)).status_code == 401
        assert (await attempt(world, "adA@example.com")).status_code == 429

    @pytest.mark.parametrize("email", ["nobody@example.com", "no address", "", "x" * 3000])
    async def test_names_that_do_not_exist_are_counted_all_the_same(self, world: World, email: str) -> None:
        statuses = [(await attempt(world, email)).status_code for _ in range(6)]
        assert statuses == [401] * 5 + [429]

    async def test_one_network_gets_thirty_tries_however_many_names_it_tries(self, world: World) -> None:
        statuses = [(await attempt(world, f"n{i}@example.com")).status_code for i in range(31)]
        assert statuses == [401] * 30 + [429]

    async def test_a_stranger_cannot_lock_the_owner_out_of_another_network(self, world: World) -> None:
        for _ in range(7):
            await attempt(world)
        world.address = IPv4Address("198.51.100.7")
        assert (await attempt(world, USER, PASSWORD)).status_code == 200

    async def test_an_ipv6_customer_is_one_network_whatever_address_they_pick(self, world: World) -> None:
        statuses = []
        for host in range(6):
            world.address = IPv6Address(f"2001:db8::{host + 1:x}")
            statuses.append((await attempt(world)).status_code)
        assert statuses == [401] * 5 + [429]

    async def test_a_unix_socket_is_a_network_too(self, world: World) -> None:
        world.address = None
        assert [(await attempt(world)).status_code for _ in range(6)] == [401] * 5 + [429]

    async def test_who_knows_the_password_is_not_guessing(self, world: World) -> None:
        assert [(await attempt(world, USER, PASSWORD)).status_code for _ in range(8)] == [200] * 8
        mixed = [
            (await attempt(world, USER, password)).status_code
            for password in ["wrong"] * 4 + [PASSWORD] + ["wrong"] * 6
        ]
        assert mixed == [401] * 4 + [200] + [401] * 5 + [429]

    async def test_ones_own_successes_do_not_reset_the_count_of_ones_network(self, world: World) -> None:
        for i in range(15):
            await attempt(world, f"victim{i}@example.com")
            await attempt(world, USER, PASSWORD)
        assert (await attempt(world, "victim@example.com")).status_code == 429

    async def test_a_refused_login_is_audited_without_what_was_typed_into_the_wrong_field(
        self, world: World
    ) -> None:
        for _ in range(6):
            await attempt(world, PASSWORD)
        assert [type(event).__name__ for event in world.events] == ["LoginFailed"] * 5 + ["LoginLimited"]
        assert PASSWORD not in repr(world.events)


class TestRefresh:
    async def test_it_trades_one_token_for_two_new_ones(self, world: World) -> None:
        first = await world.log_in()
        world.clock.now += 60
        answer = await world.http.post("/auth/refresh", json={"refreshToken": first["refreshToken"]})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        second = answer.json()
        assert second.keys() == {"accessToken", "refreshToken"}
        assert second["accessToken"] != first["accessToken"]
        assert second["refreshToken"] != first["refreshToken"]

    async def test_the_user_is_read_again(self, world: World) -> None:
        first = await world.log_in()
        await world.accounts.users.update(world.user.id, Changes(is_admin=True, roles=("boss",)))
        answer = await world.http.post("/auth/refresh", json={"refreshToken": first["refreshToken"]})
        principal = world.access.verify(answer.json()["accessToken"].encode())
        assert (principal.is_admin, principal.roles) == (True, ("boss",))

    async def test_what_is_no_refresh_token_is_refused(self, world: World) -> None:
        for token in NO_REFRESH_TOKENS:
            answer = await world.http.post("/auth/refresh", json={"refreshToken": token})
            assert_problem(answer, 401, "invalid_refresh_token", token)
            assert answer.headers["www-authenticate"] == CHALLENGE

    async def test_an_access_token_is_no_refresh_token_and_the_other_way_round(self, world: World) -> None:
        tokens = await world.log_in()
        answer = await world.http.post("/auth/refresh", json={"refreshToken": tokens["accessToken"]})
        assert_problem(answer, 401, "invalid_refresh_token")
        answer = await world.http.get(
            "/auth/me", headers={"authorization": f"Bearer {tokens['refreshToken']}"}
        )
        assert_problem(answer, 401, "invalid_token")

    async def test_sixty_a_minute_from_one_network(self, world: World) -> None:
        statuses = [
            (await world.http.post("/auth/refresh", json={"refreshToken": "x"})).status_code
            for _ in range(61)
        ]
        assert statuses == [401] * 60 + [429]

    async def test_a_spent_token_ends_the_session_for_thief_and_victim(self, world: World) -> None:
        stolen = (await world.log_in())["refreshToken"]
        fresh = (await world.http.post("/auth/refresh", json={"refreshToken": stolen})).json()
        world.clock.now += 60
        for token in (stolen, fresh["refreshToken"]):
            answer = await world.http.post("/auth/refresh", json={"refreshToken": token})
            assert_problem(answer, 401, "invalid_refresh_token")
        assert len(world.named("RefreshReused")) == 1


class TestMe:
    async def test_it_says_who_one_is(self, world: World) -> None:
        answer = await world.http.get("/auth/me", headers=await world.bearer())
        assert answer.json() == {
            "id": world.user.id,
            "email": USER,
            "isAdmin": False,
            "roles": ["analyst", "auditor"],
        }
        assert answer.headers["cache-control"] == "no-store"

    async def test_anonymous_is_asked_to_log_in(self, world: World) -> None:
        answer = await world.http.get("/auth/me")
        assert_problem(answer, 401, "not_logged_in")
        assert answer.headers["www-authenticate"] == CHALLENGE

    async def test_another_scheme_is_no_credential(self, world: World) -> None:
        for header in OTHER_SCHEMES:
            answer = await world.http.get("/auth/me", headers={"authorization": header})
            assert_problem(answer, 401, "not_logged_in", header)

    async def test_a_bad_token_is_named_as_such(self, world: World) -> None:
        for token in BAD_TOKENS:
            answer = await world.http.get(
                "/auth/me", headers=[(b"authorization", b"Bearer " + token.encode("latin-1"))]
            )
            assert_problem(answer, 401, "invalid_token", token)
            assert answer.headers["www-authenticate"] == DEAD_TOKEN

    async def test_two_credentials_are_one_too_many(self, world: World) -> None:
        good = (await world.bearer())["authorization"]
        answer = await world.http.get("/auth/me", headers=[("authorization", good), ("authorization", good)])
        assert_problem(answer, 400, "duplicate_credential")

    async def test_a_token_in_the_url_is_no_credential(self, world: World) -> None:
        token = (await world.log_in())["accessToken"]
        answer = await world.http.get("/auth/me", params={"access_token": token})
        assert token not in assert_problem(answer, 400, "invalid_field")["detail"]

    async def test_it_is_the_database_that_answers(self, world: World) -> None:
        """Even in a process whose table of cut-offs has not heard of the change."""
        mine = await world.bearer()
        world.cutoffs.apply = lambda cut: None  # type: ignore[method-assign]
        await world.accounts.users.update(world.user.id, Changes(roles=("new",)))
        for table in (world.cutoffs._versions, world.cutoffs._sessions):
            table.clear()
        assert_problem(await world.http.get("/auth/me", headers=mine), 401, "invalid_token")

    @pytest.mark.parametrize("how", ["delete", "disable"])
    async def test_a_deleted_or_disabled_user_is_nobody_at_once(self, world: World, how: str) -> None:
        mine = await world.bearer()
        if how == "delete":
            await world.accounts.users.delete(world.user.id)
        else:
            await world.accounts.users.update(world.user.id, Changes(disabled=True))
        assert_problem(await world.http.get("/auth/me", headers=mine), 401, "invalid_token")
        world.cutoffs._versions.clear()
        world.cutoffs._sessions.clear()
        assert_problem(await world.http.get("/auth/me", headers=mine), 401, "invalid_token")


class TestLogout:
    async def test_the_session_is_over_and_its_access_tokens_too(self, world: World) -> None:
        tokens = await world.log_in()
        answer = await world.http.post("/auth/logout", json={"refreshToken": tokens["refreshToken"]})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["cache-control"] == "no-store"
        mine = {"authorization": f"Bearer {tokens['accessToken']}"}
        assert_problem(await world.http.get("/auth/me", headers=mine), 401, "invalid_token")
        again = await world.http.post("/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
        assert_problem(again, 401, "invalid_refresh_token")

    async def test_an_expired_or_spent_token_will_do_and_twice_is_fine(self, world: World) -> None:
        spent = (await world.log_in())["refreshToken"]
        fresh = (await world.http.post("/auth/refresh", json={"refreshToken": spent})).json()["refreshToken"]
        for _ in range(2):
            answer = await world.http.post("/auth/logout", json={"refreshToken": spent})
            assert answer.status_code == 204
        assert (await world.http.post("/auth/refresh", json={"refreshToken": fresh})).status_code == 401
        world.clock.now += 365 * 86400
        assert (await world.http.post("/auth/logout", json={"refreshToken": spent})).status_code == 204

    async def test_a_forged_one_will_not(self, world: World) -> None:
        token = (await world.log_in())["refreshToken"]
        answer = await world.http.post("/auth/logout", json={"refreshToken": token[:-4] + "AAAA"})
        assert_problem(answer, 401, "invalid_refresh_token")


class TestPassword:
    NEW = "a different passphrase"

    async def change(self, world: World, headers: dict[str, str], current: str, new: str = NEW) -> Any:
        return await world.http.post(
            "/auth/password", json={"currentPassword": current, "newPassword": new}, headers=headers
        )

    async def test_the_new_one_holds_and_every_other_session_ends(self, world: World) -> None:
        here, elsewhere = await world.bearer(), await world.bearer()
        answer = await self.change(world, here, PASSWORD)
        assert (answer.status_code, answer.content) == (204, b"")
        assert (await world.http.get("/auth/me", headers=here)).status_code == 200
        assert (await world.http.get("/auth/me", headers=elsewhere)).status_code == 401
        assert (await attempt(world, USER, PASSWORD)).status_code == 401
        assert (await attempt(world, USER, self.NEW)).status_code == 200

    async def test_a_wrong_current_password_is_a_mistake_in_a_field_and_no_logout(self, world: World) -> None:
        mine = await world.bearer()
        problem = assert_problem(await self.change(world, mine, "wrong"), 400, "invalid_field")
        assert problem["detail"] == "currentPassword: this is not your current password."
        assert (await world.http.get("/auth/me", headers=mine)).status_code == 200

    @pytest.mark.parametrize("new", ["", "short", USER, "x" * 1025])
    async def test_an_unfit_new_password_is_refused_with_a_reason(self, world: World, new: str) -> None:
        problem = assert_problem(
            await self.change(world, await world.bearer(), PASSWORD, new), 400, "invalid_field"
        )
        assert "password must" in problem["detail"]
        assert not new or new not in problem["detail"]

    async def test_a_stolen_token_gets_few_guesses_from_however_many_networks(
        self, world: World, bcrypt_rounds: list[int]
    ) -> None:
        stolen = await world.bearer()
        statuses = []
        for last in range(6):
            world.address = IPv4Address(f"203.0.113.{last + 1}")
            statuses.append((await self.change(world, stolen, f"guess {last}")).status_code)
        assert statuses == [400] * 5 + [429]
        bcrypt_rounds.clear()
        limited = await self.change(world, stolen, PASSWORD)
        assert_problem(limited, 429, "too_many_requests")
        assert bcrypt_rounds == []
        # The owner, who knows the password, is not locked out by that.
        assert (await self.change(world, await world.bearer(), PASSWORD)).status_code == 204

    async def test_bcrypt_cannot_be_kept_busy_by_changing_to_and_fro(self, world: World) -> None:
        mine = await world.bearer()
        statuses = []
        for i in range(31):
            old, new = (PASSWORD, self.NEW) if i % 2 == 0 else (self.NEW, PASSWORD)
            statuses.append((await self.change(world, mine, old, new)).status_code)
        assert statuses == [204] * 29 + [429] * 2  # the login counted as well

    async def test_anonymous_may_not_even_send_a_body(self, world: World) -> None:
        answer = await world.http.post("/auth/password", content=b"{")
        assert_problem(answer, 401, "not_logged_in")


class TestEmail:
    NEW = "Ada.New@Example.ORG"

    async def change(
        self, world: World, headers: dict[str, str], current: str = PASSWORD, new: str = NEW
    ) -> Any:
        return await world.http.patch(
            "/auth/me", json={"currentPassword": current, "email": new}, headers=headers
        )

    async def test_the_new_one_holds_in_its_canonical_form_and_is_felt_at_once(self, world: World) -> None:
        here, elsewhere = await world.log_in(), await world.log_in()
        mine = {"authorization": f"Bearer {here['accessToken']}"}
        answer = await self.change(world, mine)
        assert answer.status_code == 200
        assert answer.json() == {
            "id": world.user.id,
            "email": "ada.new@example.org",
            "isAdmin": False,
            "roles": ["analyst", "auditor"],
        }
        # Tokens that say the old address are dead, and each session goes on with a fresh one.
        for login in (here, elsewhere):
            old = {"authorization": f"Bearer {login['accessToken']}"}
            assert_problem(await world.http.get("/auth/me", headers=old), 401, "invalid_token")
            fresh = await world.http.post("/auth/refresh", json={"refreshToken": login["refreshToken"]})
            token = fresh.json()["accessToken"]
            assert world.access.verify(token.encode()).email == "ada.new@example.org"
        assert (await attempt(world, USER, PASSWORD)).status_code == 401
        assert (await attempt(world, "ADA.new@example.org", PASSWORD)).status_code == 200
        (event,) = world.named("UserUpdated")
        assert event.changed == {"email": "ada.new@example.org"}  # type: ignore[attr-defined]
        assert event.actor == world.user.id

    async def test_where_it_is_not_allowed_nothing_of_it_is_read(
        self, world: World, bcrypt_rounds: list[int]
    ) -> None:
        mine = await world.bearer()
        bcrypt_rounds.clear()
        problem = assert_problem(
            await world.strict.patch("/auth/me", content=b"{", headers=mine), 403, "forbidden"
        )
        assert problem["detail"] == "Ask an admin: here nobody changes their own address."
        assert bcrypt_rounds == []
        assert (await world.strict.get("/auth/me", headers=mine)).json()["email"] == USER

    async def test_a_wrong_current_password_changes_nothing(self, world: World) -> None:
        mine = await world.bearer()
        problem = assert_problem(await self.change(world, mine, "wrong"), 400, "invalid_field")
        assert problem["detail"] == "currentPassword: this is not your current password."
        assert (await world.http.get("/auth/me", headers=mine)).json()["email"] == USER

    @pytest.mark.parametrize(
        "new",
        ["", "x", "a b@example.com", "x@y\r\nX-User-Admin: true", f"{'x' * 300}@y", "a\u202e@y", PASSWORD],
    )
    async def test_what_is_no_address_is_refused(self, world: World, new: str) -> None:
        mine = await world.bearer()
        assert_problem(await self.change(world, mine, new=new), 400, "invalid_field")
        assert (await world.http.get("/auth/me", headers=mine)).json()["email"] == USER

    async def test_somebody_elses_address_in_any_spelling_is_taken(self, world: World) -> None:
        mine = await world.bearer()
        for spelling in (ADMIN, ADMIN.upper(), f" {ADMIN} ", ADMIN.replace("r", "ｒ", 1)):
            assert_problem(await self.change(world, mine, new=spelling), 409, "email_taken")
        assert (await world.http.get("/auth/me", headers=mine)).json()["email"] == USER

    async def test_another_spelling_of_ones_own_changes_nothing(self, world: World) -> None:
        mine = await world.bearer()
        assert (await self.change(world, mine, new=USER.upper())).json()["email"] == USER
        assert (await world.http.get("/auth/me", headers=mine)).status_code == 200
        assert world.named("UserUpdated") == []

    async def test_nothing_else_can_be_changed_on_the_way(self, world: World) -> None:
        mine = await world.bearer()
        for extra in ({"isAdmin": True}, {"roles": ["boss"]}, {"id": world.admin.id}, {"password": "x" * 12}):
            sent = {"email": self.NEW, "currentPassword": PASSWORD, **extra}
            assert_problem(await world.http.patch("/auth/me", json=sent, headers=mine), 400, "invalid_field")
        assert (await world.http.get("/auth/me", headers=mine)).json()["email"] == USER

    async def test_a_stolen_token_gets_few_guesses(self, world: World, bcrypt_rounds: list[int]) -> None:
        """And they are counted together with those at the password."""
        stolen = await world.bearer()
        for guess in range(5):
            answer = (
                await self.change(world, stolen, f"guess {guess}")
                if guess % 2
                else await TestPassword().change(world, stolen, f"guess {guess}")
            )
            assert answer.status_code == 400
        bcrypt_rounds.clear()
        assert_problem(await self.change(world, stolen), 429, "too_many_requests")
        assert bcrypt_rounds == []


async def test_admins_are_people_too(world: World) -> None:
    me = await world.http.get("/auth/me", headers=await world.bearer(ADMIN))
    assert me.json()["isAdmin"] is True
