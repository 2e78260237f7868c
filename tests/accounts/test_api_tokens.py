"""API tokens in the database: who may make which, whom they stand for, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, select

from gateway.accounts.api_tokens import KEEP_ENDED_S, MADE_A_DAY, ApiTokens
from gateway.accounts.database import Database
from gateway.accounts.feed import Feed
from gateway.accounts.ids import new_id
from gateway.accounts.service import ApiToken, Changes, NewToken, TokenRules, User
from gateway.accounts.tables import api_tokens
from gateway.accounts.token_keeper import LOOK_EVERY_S, MISSED_AFTER_S, PRUNE_EVERY_S, TokenKeeper
from gateway.accounts.token_lookup import TokenLookup
from gateway.errors import InvalidCredentials, InvalidField, InvalidToken, LastAdmin, NotFound, TooManyTokens
from gateway.identity.api_tokens import digest_of
from gateway.identity.known_tokens import KnownTokens
from gateway.identity.principal import LOGIN, Principal, Reach
from gateway.policy.reach import mistake
from gateway.telemetry.audit import TokenCreated, TokenRevoked
from tests.accounts.world import PASSWORD, Clock, World

pytestmark = pytest.mark.anyio

DAY = 86_400
RULES = TokenRules(own_scopes=frozenset({"read"}), per_user=3, mistake=mistake)
WRONG = [
    ({"name": ""}, "name"),
    ({"name": " \t "}, "name"),
    ({"name": "x" * 65}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"scopes": ("Deploy",)}, "scopes"),
    ({"scopes": ("",)}, "scopes"),
    ({"scopes": tuple(f"s{n}" for n in range(65))}, "scopes"),
    ({"scopes": (LOGIN,)}, "login"),
    ({"methods": ()}, "methods"),
    ({"methods": ("get",)}, "methods"),
    ({"methods": ("TRACE",)}, "methods"),
    ({"methods": ("GET, POST",)}, "methods"),
    ({"paths": ()}, "paths"),
    ({"paths": ("reports",)}, "paths"),
    ({"paths": ("/a%2Fb",)}, "paths"),
    ({"paths": ("/*",)}, "paths"),
    ({"paths": ("/" + "x" * 256,)}, "paths"),
    ({"paths": tuple(f"/{n}" for n in range(33))}, "paths"),
    ({"expires_at": 1_800_000_000.0}, "over"),
    ({"expires_at": 253_402_300_800.0}, "9999"),
]


class Desk:
    """One process with its memory of API tokens, on the database of a world."""

    def __init__(self, world: World, rules: TokenRules = RULES) -> None:
        self.world = world
        self.reads = 0
        self.tokens: ApiTokens = ApiTokens(world.accounts.users._ledgers, world.database, rules)
        self.known = KnownTokens(world.cutoffs, clock=world.clock)
        self.lookup = TokenLookup(self._counted, self.known)
        self.feed = Feed(world.database, self.apply)

    def apply(self, cut: Any) -> None:
        self.world.cutoffs.apply(cut)
        self.known.apply(cut)

    async def _counted(self, digest: bytes) -> Principal | None:
        self.reads += 1
        return await self.tokens.read(digest)

    async def make(self, user: User, name: str = "deploys", **wanted: Any) -> tuple[ApiToken, str]:
        return await self.tokens.create(user.id, NewToken(name, **wanted), actor="cli:test")

    async def find(self, text: str) -> Principal:
        """As the gate does it. Raises InvalidToken."""
        digest = digest_of(text.encode()) or b""
        found = self.known.find(digest)
        if found is None:
            await self.lookup.learn(digest)
            found = self.known.find(digest)
        assert found is not None
        return found

    async def holds(self, text: str) -> bool:
        try:
            await self.find(text)
        except InvalidToken:
            return False
        return True


@pytest.fixture
async def desk(world: World) -> AsyncIterator[Desk]:
    desk = Desk(world)
    await desk.feed.load()
    yield desk
    await desk.lookup.close()


@pytest.fixture
async def elsewhere(url: str, clock: Clock, desk: Desk) -> AsyncIterator[Desk]:
    """Another process on the same database."""
    world = World(Database(url, clock=clock), clock)
    desk = Desk(world)
    await desk.feed.load()
    yield desk
    await desk.lookup.close()
    await world.close()


async def test_it_stands_for_its_user_and_says_what_it_is(world: World, desk: Desk) -> None:
    ann = await world.ann(is_admin=True, roles=("b", "a"))
    made, text = await desk.make(ann, scopes=("w", "r", "r"), methods=("GET",), paths=("/x/**",))
    assert await desk.find(text) == Principal(
        id=ann.id,
        email="ann@example.com",
        is_admin=True,
        roles=("a", "b"),
        session=made.id,
        version=ann.version,
        expires_at=253_402_300_799,
        scopes=("r", "w"),
        reach=Reach(("GET",), ("/x/**",)),
        token=made.id,
    )
    assert [await desk.tokens.of_user(ann.id)] == [[made]]
    assert world.names()[-1] == "TokenCreated"
    assert text not in str(world.events)


async def test_it_is_audited_and_everybodys_can_be_listed(world: World, desk: Desk) -> None:
    ann, bob = await world.ann(), await world.accounts.users.create("bob@example.com", PASSWORD)
    strict = Desk(world, TokenRules(max_ttl=10 * DAY))
    made, _ = await desk.tokens.create(ann.id, NewToken("  deploys "), actor=bob.id)
    assert made.name == "deploys"
    assert world.events[-1] == TokenCreated(user=ann.id, credential=made.id, label="deploys", actor=bob.id)
    assert await desk.tokens.all() == [(made, "ann@example.com")]
    assert await desk.tokens.of_user(bob.id) == []
    capped = int(made.created_at + 10 * DAY)
    assert await strict.tokens.all() == [(replace(made, expires_at=capped), "ann@example.com")]
    assert await desk.tokens.revoke(made.id, actor=ann.id) == made
    assert world.events[-1] == TokenRevoked(user=ann.id, credential=made.id, label="deploys", actor=ann.id)
    assert await desk.tokens.all() == []


@pytest.mark.parametrize(
    ("limits", "reach"),
    [
        ({}, None),
        ({"methods": ("POST", "GET")}, Reach(("GET", "POST"), None)),
        ({"paths": ("/x/**",)}, Reach(None, ("/x/**",))),
    ],
)
async def test_only_what_is_limited_has_a_reach(
    world: World, desk: Desk, limits: dict[str, Any], reach: Reach | None
) -> None:
    made, text = await desk.make(await world.ann(), **limits)
    assert (made.methods, made.paths) == (reach and reach.methods, reach and reach.paths)
    assert (await desk.find(text)).reach == reach


async def test_as_much_as_may_be_asked_for_is_given(world: World, desk: Desk) -> None:
    ann = await world.ann()
    most = {
        "name": "x" * 64,
        "scopes": (*sorted(f"s{n}" for n in range(63)), "z" * 64),
        "methods": tuple(sorted({f"X-{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(32)})),
        "paths": ("/" + "x" * 255, *(f"/{n}" for n in range(31))),
        "expires_at": 253_402_300_799,
    }
    made, _ = await desk.tokens.create(ann.id, NewToken(**most), actor="cli:test")
    assert {name: getattr(made, name) for name in most} == most


async def test_nobody_has_a_token_who_is_not_there(world: World, desk: Desk) -> None:
    for unknown in (new_id(world.clock()), "", "x", "ann@example.com"):
        with pytest.raises(NotFound, match="no such user"):
            await desk.tokens.create(unknown, NewToken("x"), actor="cli:test")
        with pytest.raises(NotFound, match="no such user"):
            await desk.tokens.of_user(unknown)


async def test_what_admins_gave_themselves_goes_with_their_being_one(world: World, desk: Desk) -> None:
    await world.accounts.users.create("root@example.com", PASSWORD, is_admin=True)
    ann = await world.ann(is_admin=True)
    wanted = NewToken("deploys", scopes=("deploy", "read"))
    _, own = await desk.tokens.create(ann.id, wanted, actor=ann.id)
    _, given = await desk.make(ann, scopes=("deploy",))
    assert (await desk.find(own)).scopes == ("deploy", "read")
    await world.accounts.users.update(ann.id, Changes(is_admin=False))
    await desk.feed.load()
    assert (await desk.find(own)).scopes == ("read",)
    assert (await desk.find(given)).scopes == ("deploy",)
    await world.accounts.users.update(ann.id, Changes(is_admin=True))
    await desk.feed.load()
    assert (await desk.find(own)).scopes == ("deploy", "read")


async def test_making_and_revoking_in_a_loop_has_an_end(world: World, desk: Desk, clock: Clock) -> None:
    ann = await world.ann()

    bob = await world.accounts.users.create("bob@example.com", PASSWORD)

    async def make_own(user: User) -> None:
        made, _ = await desk.tokens.create(user.id, NewToken("x"), actor=user.id, own=True)
        await desk.tokens.revoke(made.id, user_id=user.id, actor=user.id)

    for _ in range(MADE_A_DAY * RULES.per_user):
        await make_own(ann)
    with pytest.raises(TooManyTokens, match="tomorrow"):
        await make_own(ann)
    await make_own(bob)
    await desk.make(ann)  # an admin may go on
    clock.advance(DAY)
    await make_own(ann)


async def test_only_the_digest_is_stored(world: World, desk: Desk) -> None:
    _, text = await desk.make(await world.ann())

    def rows(connection: Connection) -> str:
        return str(connection.execute(select(api_tokens)).all())

    stored = await world.database.read(rows)
    assert text not in stored
    assert text[4:] not in stored
    assert (digest_of(text.encode()) or b"").hex() in stored


@pytest.mark.parametrize(("wanted", "about"), WRONG, ids=lambda value: str(value)[:40])
async def test_what_makes_no_sense_is_refused(
    sqlite: str, clock: Clock, wanted: dict[str, Any], about: str
) -> None:
    world = World(Database(sqlite, clock=clock), clock)
    desk, ann = Desk(world), await world.ann()
    with pytest.raises(InvalidField) as refused:
        await desk.tokens.create(ann.id, NewToken(**{"name": "x", **wanted}), actor="cli:test")
    assert about in refused.value.detail
    assert await desk.tokens.of_user(ann.id) == []
    await world.close()


async def test_people_give_their_own_tokens_only_the_scopes_that_are_for_it(world: World, desk: Desk) -> None:
    ann = await world.ann()
    wanted = NewToken("x", ("deploy", "c", "read", "a", "b"))
    with pytest.raises(InvalidField, match="only an admin can give a, b, c, deploy to"):
        await desk.tokens.create(ann.id, wanted, actor=ann.id, own=True)
    made, _ = await desk.tokens.create(ann.id, NewToken("x", ("read",)), actor=ann.id, own=True)
    assert (made.scopes, made.created_by) == (("read",), ann.id)


async def test_nobody_has_more_than_so_many_that_hold(world: World, desk: Desk, clock: Clock) -> None:
    ann = await world.ann()
    first, _ = await desk.make(ann)
    await desk.make(ann, expires_at=clock.now + 60)
    racing = await asyncio.gather(*(desk.make(ann) for _ in range(4)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in racing) == ["TooManyTokens"] * 3 + ["tuple"]
    clock.advance(60)
    await desk.make(ann)  # instead of the one that has expired
    with pytest.raises(TooManyTokens):
        await desk.make(ann)
    await desk.make(await world.accounts.users.create("bob@example.com", PASSWORD))
    await desk.tokens.revoke(first.id, actor="cli:test")
    await desk.make(ann)


async def test_a_known_one_is_read_once_and_never_again(world: World, desk: Desk, clock: Clock) -> None:
    _, text = await desk.make(await world.ann())
    assert all(await asyncio.gather(*(desk.holds(text) for _ in range(50))))
    clock.advance(30 * DAY)
    assert await desk.holds(text)
    assert desk.reads == 1


async def test_a_forged_one_is_not_looked_for(world: World, desk: Desk) -> None:
    _, text = await desk.make(await world.ann())
    mistyped = [text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :] for at in range(4, 53)]
    assert not any([await desk.holds(each) for each in mistyped])
    assert desk.reads == 0


async def test_it_ends_when_it_was_said(world: World, desk: Desk, clock: Clock) -> None:
    ann = await world.ann()
    _, text = await desk.make(ann, expires_at=clock.now + 60)
    _, unused = await desk.make(ann, expires_at=clock.now + 60)
    assert await desk.holds(text)
    clock.advance(60)
    assert not await desk.holds(text)
    assert desk.reads == 1
    assert not await desk.holds(unused), "nor does one that nobody knew"
    assert await desk.tokens.read(digest_of(unused.encode()) or b"") is None


async def test_a_maximum_holds_for_those_that_exist_too(world: World, desk: Desk, clock: Clock) -> None:
    ann = await world.ann()
    _, endless = await desk.make(ann)
    strict = Desk(world, TokenRules(max_ttl=10 * DAY))
    with pytest.raises(InvalidField, match="10 days at most"):
        await strict.make(ann, expires_at=clock.now + 11 * DAY)
    made, _ = await strict.make(ann)
    assert made.expires_at == int(clock.now + 10 * DAY)
    ends = [clock.now + 10 * DAY, clock.now + 5 * DAY]
    assert [(await strict.make(ann, expires_at=end))[0].expires_at for end in ends] == ends
    assert sorted(each.expires_at or 0 for each in await strict.tokens.of_user(ann.id)) == [
        clock.now + 5 * DAY,
        *[made.expires_at] * 3,
    ]
    assert await strict.holds(endless)
    clock.advance(10 * DAY)
    assert not await strict.holds(endless)
    assert await desk.holds(endless), "without the maximum it would go on"


async def test_a_revoked_one_is_dead_here_at_once_and_elsewhere_with_the_next_poll(
    world: World, desk: Desk, elsewhere: Desk, clock: Clock
) -> None:
    ann = await world.ann()
    made, text = await desk.make(ann)
    _, other = await desk.make(ann, "another")
    assert await elsewhere.holds(text)
    await elsewhere.tokens.revoke(made.id, user_id=ann.id, actor=ann.id)
    await desk.feed.poll()
    assert not await desk.holds(text)
    await elsewhere.feed.poll()
    assert not await elsewhere.holds(text)
    clock.advance(DAY)
    elsewhere.world.cutoffs.forget(clock.now)
    assert not await elsewhere.holds(text), "also when the cut-off itself is forgotten"
    assert await elsewhere.holds(other)
    with pytest.raises(NotFound):
        await desk.tokens.revoke(made.id, actor="cli:test")


async def test_nobody_revokes_what_is_not_theirs(world: World, desk: Desk) -> None:
    ann = await world.ann()
    bob = await world.accounts.users.create("bob@example.com", PASSWORD)
    made, text = await desk.make(ann)
    for wrong in (made.id, "x", "", "0" * 36):
        with pytest.raises(NotFound):
            await desk.tokens.revoke(wrong, user_id=bob.id, actor=bob.id)
    assert await desk.holds(text)


async def test_its_rights_are_those_of_its_user_now(world: World, desk: Desk, elsewhere: Desk) -> None:
    ann = await world.ann(is_admin=True, roles=("ops",))
    await world.accounts.users.create("root@example.com", PASSWORD, is_admin=True)
    _, text = await desk.make(ann)
    assert (await elsewhere.find(text)).is_admin
    await world.accounts.users.update(ann.id, Changes(is_admin=False, roles=("dev",)))
    await elsewhere.feed.poll()
    demoted = await elsewhere.find(text)
    assert (demoted.is_admin, demoted.roles) == (False, ("dev",))
    assert elsewhere.reads == 2
    await world.accounts.users.update(ann.id, Changes(disabled=True))
    await elsewhere.feed.poll()
    assert not await elsewhere.holds(text)
    await world.accounts.users.update(ann.id, Changes(disabled=False))
    world.clock.advance(10)  # type: ignore[attr-defined]
    assert await elsewhere.holds(text)
    await world.accounts.users.delete(ann.id)
    await elsewhere.feed.poll()
    assert not await elsewhere.holds(text)


async def test_a_change_while_it_is_looked_up_wins(world: World, desk: Desk) -> None:
    """The reading saw the old rights; the cut-off came before what was read was remembered."""
    ann = await world.ann(roles=("ops",))
    _, text = await desk.make(ann)
    digest = digest_of(text.encode()) or b""
    old = await desk.tokens.read(digest)
    assert old is not None
    await world.accounts.users.update(ann.id, Changes(roles=("dev",)))
    desk.known.remember(digest, old)
    assert (await desk.find(text)).roles == ("dev",)


async def test_after_too_long_without_the_feed_everything_is_read_again(
    world: World, desk: Desk, clock: Clock
) -> None:
    hears = True
    keeper = TokenKeeper(desk.tokens, desk.known, hears=lambda: hears, clock=clock)
    _, text = await desk.make(await world.ann())
    assert await desk.holds(text)
    for seconds, deaf, reads in ((1, False, 1), (1, True, 1), (MISSED_AFTER_S - 1, False, 1)):
        hears = not deaf
        clock.advance(seconds)
        await keeper.look()
        assert await desk.holds(text)
        assert desk.reads == reads
    hears = False
    clock.advance(MISSED_AFTER_S + 1)
    await keeper.look()
    assert await desk.holds(text)
    assert desk.reads == 1, "while nothing is heard, who is known goes on"
    hears = True
    await keeper.look()
    assert await desk.holds(text)
    assert desk.reads == 2


async def test_its_use_is_noted_once_a_minute(world: World, desk: Desk, clock: Clock) -> None:
    ann = await world.ann()
    _, text = await desk.make(ann)
    clock.advance(1)  # so that they are listed in this order
    await desk.make(ann, "never used")
    keeper = TokenKeeper(desk.tokens, desk.known, hears=lambda: True, clock=clock)

    async def noted() -> list[float | None]:
        await keeper.look()
        return [each.last_used_at for each in await desk.tokens.of_user(ann.id)]

    began = clock.now
    for _ in range(100):
        await desk.holds(text)
    assert await noted() == [None, None]
    clock.advance(60)
    assert await noted() == [began + 60, None]
    clock.advance(60)
    assert await noted() == [began + 60, None]
    await desk.holds(text)
    clock.advance(59)
    assert await noted() == [began + 60, None]
    clock.advance(1)
    assert await noted() == [began + 180, None]


async def test_of_several_processes_the_first_notes_it(world: World, desk: Desk, clock: Clock) -> None:
    """So that a token that all of them meet is not written down by each."""
    ann = await world.ann()
    made, _ = await desk.make(ann)
    noted = []
    for _ in range(4):
        await desk.tokens.note_used([made.id])
        noted += [each.last_used_at for each in await desk.tokens.of_user(ann.id)]
        clock.advance(15)
    began = clock.now - 60
    assert noted == [began, began, began, began + 45]


async def test_a_use_that_can_not_be_written_is_written_later(world: World, desk: Desk, clock: Clock) -> None:
    ann = await world.ann()
    made, text = await desk.make(ann)
    await desk.holds(text)
    keeper = TokenKeeper(desk.tokens, desk.known, hears=lambda: True, clock=clock)
    broken = Desk(world)
    broken.tokens._database = Database("sqlite:////nowhere/at/all.db")
    keeper._tokens = broken.tokens
    clock.advance(60)
    await keeper.look()
    assert desk.known.take_used() == {made.id}
    await broken.tokens._database.close()


async def test_once_an_hour_what_ended_is_looked_for_and_a_defect_stops_nothing(
    world: World, desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pruned: list[float] = []

    async def prune() -> None:
        pruned.append(clock.now)
        if len(pruned) == 1:
            raise RuntimeError("a defect")

    monkeypatch.setattr(desk.tokens, "prune", prune)
    keeper = TokenKeeper(desk.tokens, desk.known, hears=lambda: True, clock=clock)
    began, looks = clock.now, 0

    async def sleep(seconds: float) -> None:
        nonlocal looks
        assert seconds == LOOK_EVERY_S
        looks += 1
        clock.advance(PRUNE_EVERY_S / 4)
        if looks == 9:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await keeper.run(sleep=sleep)
    assert pruned == [began + PRUNE_EVERY_S, began + 2 * PRUNE_EVERY_S]
    assert caplog.messages == ["API tokens could not be looked after"]


async def test_what_ended_long_ago_is_deleted(world: World, desk: Desk, clock: Clock) -> None:
    ann = await world.ann()
    made, _ = await desk.make(ann)
    await desk.make(ann, expires_at=clock.now + 60)
    await desk.make(ann, "lives on")
    await desk.tokens.revoke(made.id, actor="cli:test")

    def rows(connection: Connection) -> list[str]:
        return list(connection.execute(select(api_tokens.c.name).order_by(api_tokens.c.id)).scalars())

    clock.advance(KEEP_ENDED_S)
    await desk.tokens.prune()
    assert len(await world.database.read(rows)) == 3
    for seconds, left in ((60, 2), (1, 1)):
        clock.advance(seconds)
        await desk.tokens.prune()
        assert len(await world.database.read(rows)) == left
    assert await world.database.read(rows) == ["lives on"]


class TestServiceAccounts:
    """Users without a password."""

    async def test_it_has_tokens_and_no_way_to_log_in(self, world: World, desk: Desk) -> None:
        ci = await world.accounts.users.create("ci@example.com", None, roles=("deployer",))
        assert ci.service
        assert (await world.accounts.users.get(ci.id)).service
        _, text = await desk.make(ci)
        assert (await desk.find(text)).roles == ("deployer",)
        for password in ("", "x", "$gw1", PASSWORD):
            with pytest.raises(InvalidCredentials):
                await world.log_in("ci@example.com", password)

    async def test_it_is_not_the_admin_who_is_left(self, world: World) -> None:
        ann = await world.ann(is_admin=True)
        ci = await world.accounts.users.create("ci@example.com", None, is_admin=True)
        for change in (Changes(is_admin=False), Changes(disabled=True)):
            with pytest.raises(LastAdmin):
                await world.accounts.users.update(ann.id, change)
        with pytest.raises(LastAdmin):
            await world.accounts.users.delete(ann.id)
        await world.accounts.users.update(ci.id, Changes(is_admin=False))
        await world.accounts.users.delete(ci.id)

    async def test_it_may_go_though_no_person_is_an_admin(self, world: World) -> None:
        """Nobody loses an admin who could log in."""
        ci = await world.accounts.users.create("ci@example.com", None, is_admin=True)
        await world.accounts.users.update(ci.id, Changes(is_admin=False))
        await world.accounts.users.update(ci.id, Changes(is_admin=True))
        await world.accounts.users.delete(ci.id)

    async def test_a_password_makes_it_a_persons_account(self, world: World) -> None:
        ann = await world.ann(is_admin=True)
        ci = await world.accounts.users.create("ci@example.com", None, is_admin=True)
        changed = await world.accounts.users.update(ci.id, Changes(password=PASSWORD))
        assert not changed.service
        assert (await world.log_in("ci@example.com")).user == changed
        await world.accounts.users.delete(ann.id)
