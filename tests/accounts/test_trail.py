"""Every event is a row: in the transaction of what it tells, and found again by whatever one knows of it."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, func, select

from gateway.accounts import feed, trail
from gateway.accounts.feed import Feed
from gateway.accounts.service import Changes
from gateway.accounts.tables import audit_events
from gateway.accounts.trail import MAX_PAGE, Entry, Wanted
from gateway.errors import InvalidField, InvalidRefreshToken, LastAdmin
from gateway.telemetry import audit
from gateway.telemetry.audit import Recorded
from gateway.telemetry.logs import CLIENT, REQUEST_ID
from tests.accounts.world import ELSEWHERE, GRACE, HOME, PASSWORD, Clock, World

pytestmark = pytest.mark.anyio

DAY = 86_400


async def found(world: World, limit: int = 50, **wanted: object) -> list[Entry]:
    page = await world.accounts.trail.page(Wanted(**wanted), limit=limit)  # type: ignore[arg-type]  # short
    return list(page.items)


async def names(world: World, **wanted: object) -> list[str]:
    """Oldest first, as they happened."""
    return [entry.name for entry in reversed(await found(world, **wanted))]


async def put(world: World, *events: audit.Event) -> None:
    rows = [Recorded.here(event, world.clock()) for event in events]
    await world.database.write(lambda connection: trail.add(connection, rows))


async def count(world: World) -> int:
    def read(connection: Connection) -> int:
        return connection.execute(select(func.count()).select_from(audit_events)).scalar_one()

    return await world.database.read(read)


class TestBothOrNeither:
    async def test_whatever_is_done_is_a_row_and_what_is_told_is_the_same(self, world: World) -> None:
        ann = await world.ann(is_admin=True)
        await world.accounts.users.update(ann.id, Changes(roles=("a",)), actor="cli:root")
        session = await world.log_in()
        await world.accounts.sessions.log_out(session.refresh_token, HOME)
        assert await names(world) == ["user_created", "user_updated", "login_succeeded", "logged_out"]
        assert await names(world) == [event.name for event in world.events]
        changed = (await found(world, names=("user_updated",)))[0]
        assert (changed.actor, changed.user, changed.email) == ("cli:root", ann.id, "ann@example.com")
        assert changed.details == {"changed": {"roles": ["a"]}}

    async def test_what_is_undone_leaves_no_row_and_is_not_told(self, world: World) -> None:
        ann = await world.ann(is_admin=True)
        before, told = await count(world), len(world.events)
        with pytest.raises(LastAdmin):
            await world.accounts.users.delete(ann.id, actor="cli")
        with pytest.raises(LastAdmin):
            await world.accounts.users.update(ann.id, Changes(disabled=True))
        assert (await count(world), len(world.events)) == (before, told)

    async def test_without_its_row_nothing_is_done(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann = await world.ann()

        def full(*_: object) -> None:
            raise OSError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("gateway.accounts.trail.add", full)
            with pytest.raises(Exception, match="away"):
                await world.accounts.users.update(ann.id, Changes(is_admin=True))
        assert not (await world.accounts.users.get(ann.id)).is_admin
        assert world.names() == ["UserCreated"]

    async def test_a_refusal_that_ends_a_session_keeps_its_event(self, world: World, clock: Clock) -> None:
        await world.ann()
        session = await world.log_in()
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
        await world.accounts.sessions.refresh(session.refresh_token, ELSEWHERE)
        clock.advance(GRACE + 1)
        with pytest.raises(InvalidRefreshToken):
            await world.accounts.sessions.refresh(session.refresh_token, ELSEWHERE)
        stolen = await found(world, address=ELSEWHERE.address)
        assert [entry.name for entry in stolen] == ["refresh_reused", "grace_hit"]

    async def test_request_and_address_are_those_of_whoever_asked(self, world: World) -> None:
        tokens = REQUEST_ID.set("r-1"), CLIENT.set("2001:db8::7")
        await world.ann()
        REQUEST_ID.reset(tokens[0])
        CLIENT.reset(tokens[1])
        await world.log_in()
        login, made = await found(world)
        assert (made.request_id, made.address, made.time) == ("r-1", "2001:db8::7", world.clock())
        assert (login.request_id, login.address) == (None, HOME.address)

    async def test_an_actor_with_an_odd_name_stops_nothing(self, world: World) -> None:
        await world.accounts.users.create("o@example.com", PASSWORD, actor="cli:\udcff\0\x1b[2J" + "x" * 500)
        entry = (await found(world, actor="cli"))[0]
        assert entry.actor is not None
        assert entry.actor.startswith("cli:[2J")
        assert len(entry.actor) <= 200


class TestFinding:
    async def test_newest_first_and_each_once_however_many_come_meanwhile(self, world: World) -> None:
        await put(world, *(audit.LoginFailed(email=f"{number}@example.com") for number in range(7)))
        seen: list[str | None] = []
        cursor = None
        while True:
            page = await world.accounts.trail.page(Wanted(), limit=3, cursor=cursor)
            seen += [entry.email for entry in page.items]
            await put(world, audit.LoginFailed(email="late@example.com"))
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == [f"{number}@example.com" for number in reversed(range(7))]

    async def test_an_account_is_found_by_any_spelling_or_its_id(self, world: World) -> None:
        ann = await world.ann()
        await world.accounts.users.create("bob@example.com", PASSWORD)
        session = await world.log_in()
        await world.accounts.sessions.log_out(session.refresh_token, HOME)
        expected = ["user_created", "login_succeeded", "logged_out"]
        for who in (ann.id, "ann@example.com", " ANN@Example.com"):
            assert await names(world, user=who) == expected
        assert [entry.email for entry in await found(world, user=ann.id)] == ["ann@example.com"] * 3

    async def test_who_was_deleted_renamed_or_never_there_is_found_as_well(self, world: World) -> None:
        ann = await world.ann()
        await world.accounts.users.update(ann.id, Changes(email="anna@example.com"))
        await put(world, audit.LoginFailed(email="ann@example.com"))
        assert await names(world, user="ann@example.com") == ["user_created", "login_failed"]
        assert await names(world, user="anna@example.com") == ["user_created", "user_updated"]
        await world.accounts.users.delete(ann.id)
        assert await names(world, user=ann.id) == ["user_created", "user_updated", "user_deleted"]
        assert await names(world, user="anna@example.com") == ["user_updated", "user_deleted"]

    async def test_who_did_it(self, world: World) -> None:
        root = await world.accounts.users.create("root@example.com", PASSWORD, actor="cli:ops")
        await world.accounts.users.create("a@example.com", PASSWORD, actor=root.id)
        await world.accounts.users.create("b@example.com", PASSWORD, actor="cli:ops2")
        for actor in (root.id, "ROOT@example.com"):
            (entry,) = await found(world, actor=actor)
            assert (entry.email, entry.actor_email) == ("a@example.com", "root@example.com")
        assert [entry.email for entry in await found(world, actor="cli")] == [
            "b@example.com",
            "root@example.com",
        ]
        assert [entry.email for entry in await found(world, actor="cli:ops")] == ["root@example.com"]

    async def test_when_and_where(self, world: World, clock: Clock) -> None:
        start = clock()
        for address in ("192.0.2.1", "2001:db8::1", "unix"):
            await put(world, audit.LoginFailed(email="a@example.com", address=address))
            clock.advance(10)
        assert len(await found(world, since=start, until=start + 20)) == 2
        assert [entry.address for entry in await found(world, since=start + 10, until=start + 20)] == [
            "2001:db8::1"
        ]
        assert len(await found(world, address="2001:0db8:0::1")) == 1
        assert len(await found(world, address="unix")) == 1
        assert await found(world, address="192.0.2.99") == []

    async def test_several_kinds_are_one_list(self, world: World) -> None:
        for number in range(6):
            email = f"{number}@example.com"
            limited = audit.LoginLimited(email=email, limit="per_account")
            await put(world, audit.LoginFailed(email=email) if number % 2 else limited)
        await put(world, audit.UserDeleted(user="u", email="x@example.com"))
        seen: list[str | None] = []
        cursor = None
        wanted = Wanted(names=("login_failed", "login_limited", "login_failed"))
        for _ in range(3):
            page = await world.accounts.trail.page(wanted, limit=2, cursor=cursor)
            seen += [entry.email for entry in page.items]
            cursor = page.next_cursor
        assert cursor is None
        assert seen == [f"{number}@example.com" for number in reversed(range(6))]

    async def test_filters_hold_together(self, world: World) -> None:
        await world.ann()
        await world.log_in()
        await world.log_in(client=ELSEWHERE)
        assert len(await found(world, names=("login_succeeded", "login_failed"))) == 2
        both = await found(
            world, names=("login_succeeded",), user="ann@example.com", address=ELSEWHERE.address
        )
        assert len(both) == 1

    @pytest.mark.parametrize(
        "wanted",
        [
            {"names": ("login_fail",)},
            {"names": ("",)},
            {"user": "ann"},
            {"user": "a@b@c"},
            {"user": ""},
            {"user": "x" * 36},
            {"actor": "root"},
            {"actor": "@"},
            {"address": "192.0.2"},
            {"address": "192.0.2.0/24"},
            {"address": "'; DROP TABLE users"},
        ],
    )
    async def test_what_can_not_be_asked_is_said(self, world: World, wanted: dict[str, object]) -> None:
        with pytest.raises(InvalidField) as refused:
            await found(world, **wanted)
        assert str(refused.value).endswith(".")

    @pytest.mark.parametrize("zone", ["\0", "\udcff", "\x1b[31m", "x" * 999])
    async def test_an_address_with_a_zone_of_any_text_is_just_not_found(
        self, world: World, zone: str
    ) -> None:
        await world.ann()
        assert await found(world, address=f"fe80::1%{zone}") == []

    @pytest.mark.parametrize(
        "cursor", ["", "x", "-1", "1.5", str(1 << 63), "9" * 19, "9" * 400, "9" * 5000, "²", "१"]
    )
    async def test_a_cursor_of_ones_own_making(self, world: World, cursor: str) -> None:
        with pytest.raises(InvalidField):
            await world.accounts.trail.page(Wanted(), cursor=cursor)

    async def test_the_smallest_and_the_largest_page(self, world: World) -> None:
        await put(world, *(audit.LoginFailed(email=f"{number}@example.com") for number in range(2)))
        for limit, items, more in ((1, 1, True), (2, 2, False), (MAX_PAGE, 2, False)):
            page = await world.accounts.trail.page(Wanted(), limit=limit, cursor=str((1 << 63) - 1))
            assert len(page.items) == items
            assert page.next_cursor == (str(page.items[-1].seq) if more else None)

    async def test_all_kinds_may_be_asked_for(self, world: World) -> None:
        await world.ann()
        assert await names(world, names=tuple(audit.names())) == ["user_created"]

    @pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1])
    async def test_pages_are_bounded(self, world: World, limit: int) -> None:
        with pytest.raises(InvalidField):
            await world.accounts.trail.page(Wanted(), limit=limit)


class TestRetention:
    async def test_what_is_older_goes_in_batches(
        self, world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (trail, feed):
            monkeypatch.setattr(module, "PRUNED_AT_ONCE", 2)
        await put(world, *(audit.LoginFailed(email=f"{number}@example.com") for number in range(5)))
        clock.advance(DAY)
        await put(world, audit.LoginFailed(email="young@example.com"))
        clock.advance(89 * DAY)
        await Feed(world.database, world.cutoffs.apply, audit_retention=90 * DAY).prune()
        assert await count(world) == 6, "just that old"
        clock.advance(1)
        await Feed(world.database, world.cutoffs.apply, audit_retention=90 * DAY).prune()
        assert [entry.email for entry in await found(world)] == ["young@example.com"]

    async def test_for_ever_is_for_ever(self, world: World, clock: Clock) -> None:
        await put(world, audit.LoginFailed(email="a@example.com"))
        clock.advance(10_000 * DAY)
        await Feed(world.database, world.cutoffs.apply, audit_retention=None).prune()
        assert await count(world) == 1
