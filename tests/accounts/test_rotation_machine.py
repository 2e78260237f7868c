"""Rotation as a state machine: whatever clients, thieves, admins and the clock do, the model agrees.

The model is the theory at the top of `gateway/accounts/rotation.py`, said once more
in a few lines that share no code with it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from gateway.accounts.database import Database
from gateway.accounts.service import Changes, User
from gateway.errors import InvalidCredentials, InvalidRefreshToken, NotFound
from tests.accounts.world import (
    ELSEWHERE,
    GRACE,
    HOME,
    PASSWORD,
    REFRESH_TTL,
    SESSION_MAX,
    Clock,
    World,
)

_numbers = itertools.count()


@dataclass
class Login:
    """What a session should be like."""

    ends: float
    expires: float
    tokens: list[str]
    access: list[tuple[str, int]] = field(default_factory=list)
    rotated: float = 0.0
    ended: bool = False


class Rotation(RuleBasedStateMachine):
    world: ClassVar[World]
    clock: ClassVar[Clock]
    loop: ClassVar[asyncio.AbstractEventLoop]

    logins = Bundle("logins")

    def __init__(self) -> None:
        super().__init__()
        self.email = f"user{next(_numbers)}@example.com"
        self.user: User = self.run(self.world.accounts.users.create(self.email, PASSWORD))
        self.known: list[Login] = []

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    def alive(self, login: Login) -> bool:
        return not login.ended and not self.user.disabled and self.clock.now < login.expires

    def expect_refused(self, token: str) -> None:
        with pytest.raises(InvalidRefreshToken):
            self.run(self.world.accounts.sessions.refresh(token, HOME))

    @initialize(target=logins)
    def a_session_of_some_age(self) -> Login:
        """So that there is something to spend again from the first step on."""
        login = self.log_in_now()
        for _ in range(2):
            self.refresh_now(login, HOME, tabs=1)
        return login

    @rule(target=logins)
    def log_in(self) -> Any:
        if self.user.disabled:
            with pytest.raises(InvalidCredentials):
                self.run(self.world.log_in(self.email))
            return multiple()
        return self.log_in_now()

    def log_in_now(self) -> Login:
        got = self.run(self.world.log_in(self.email))
        now = int(self.clock.now)
        login = Login(now + SESSION_MAX, now + REFRESH_TTL, [got.refresh_token], rotated=self.clock.now)
        login.access.append((got.access_token, self.user.version))
        self.known.append(login)
        return login

    @rule(login=logins, client=st.sampled_from([HOME, ELSEWHERE]), tabs=st.sampled_from([1, 1, 2, 5]))
    def refresh_the_newest(self, login: Login, client: Any, tabs: int) -> None:
        if not self.alive(login):
            self.expect_refused(login.tokens[-1])
        else:
            self.refresh_now(login, client, tabs)

    def refresh_now(self, login: Login, client: Any, tabs: int) -> None:
        spent = login.tokens[-1]
        all_got = self.run(
            asyncio.wait_for(
                _all(self.world.accounts.sessions.refresh(spent, client) for _ in range(tabs)), 30
            )
        )
        [successor] = {got.refresh_token for got in all_got}
        assert successor not in login.tokens
        login.tokens.append(successor)
        login.access += [(got.access_token, self.user.version) for got in all_got]
        login.rotated = self.clock.now
        login.expires = min(int(self.clock.now) + REFRESH_TTL, login.ends)

    @rule(login=logins, client=st.sampled_from([HOME, ELSEWHERE]))
    def refresh_the_one_before(self, login: Login, client: Any) -> None:
        if len(login.tokens) < 2:
            return
        before = login.tokens[-2]
        if self.alive(login) and self.clock.now - login.rotated <= GRACE:
            got = self.run(self.world.accounts.sessions.refresh(before, client))
            assert got.refresh_token == login.tokens[-1]
            login.access.append((got.access_token, self.user.version))
        else:
            login.ended = login.ended or self.alive(login)
            self.expect_refused(before)

    @rule(login=logins, data=st.data())
    def refresh_an_old_one(self, login: Login, data: st.DataObject) -> None:
        if len(login.tokens) < 3:
            return
        old = data.draw(st.sampled_from(login.tokens[:-2]))
        login.ended = login.ended or self.alive(login)
        self.expect_refused(old)

    @rule(login=logins, data=st.data())
    def log_out(self, login: Login, data: st.DataObject) -> None:
        self.run(self.world.accounts.sessions.log_out(data.draw(st.sampled_from(login.tokens))))
        login.ended = True

    @rule(login=logins)
    def end_it_from_the_list(self, login: Login) -> None:
        ending = self.world.accounts.sessions.end(self.session(login), user_id=self.user.id)
        if self.alive(login):
            self.run(ending)
            login.ended = True
        else:
            with pytest.raises(NotFound):
                self.run(ending)

    @rule()
    def end_all(self) -> None:
        """As every change to a user does that must be felt at once, it raises their version."""
        open_ = sum(map(self.alive, self.known))
        assert self.run(self.world.accounts.sessions.end_all(self.user.id)) >= open_
        self.user = self.run(self.world.accounts.users.get(self.user.id))
        for login in self.known:
            login.ended = login.ended or self.clock.now < login.expires

    def session(self, login: Login) -> str:
        return self.world.refresh_tokens.verify(login.tokens[-1], allow_expired=True).session

    @rule(login=consumes(logins))
    def lose_interest(self, login: Login) -> None:
        """The client never comes back."""

    @rule(seconds=st.sampled_from([0.5, GRACE - 1, GRACE, GRACE + 1, 3600, REFRESH_TTL - 5, REFRESH_TTL]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(disabled=st.sampled_from([False, False, False, True]))
    def disable_or_enable(self, disabled: bool) -> None:
        if disabled and not self.user.disabled:
            for login in self.known:
                login.ended = login.ended or self.clock.now < login.expires
        self.user = self.run(self.world.accounts.users.update(self.user.id, Changes(disabled=disabled)))

    @rule(roles=st.sampled_from([(), ("a",), ("a", "b")]))
    def change_roles(self, roles: tuple[str, ...]) -> None:
        self.user = self.run(self.world.accounts.users.update(self.user.id, Changes(roles=roles)))

    @rule(login=logins)
    def change_the_password(self, login: Login) -> None:
        if not self.alive(login):
            return
        got = self.run(self.world.accounts.sessions.refresh(login.tokens[-1], HOME))
        login.tokens.append(got.refresh_token)
        login.rotated = self.clock.now
        login.expires = min(int(self.clock.now) + REFRESH_TTL, login.ends)
        login.access.append((got.access_token, self.user.version))
        me = self.world.principal(got.access_token)
        self.run(self.world.accounts.own.change_password(me, PASSWORD, PASSWORD))
        for other in self.known:
            other.ended = other.ended or other is not login

    @invariant()
    def the_database_agrees(self) -> None:
        rows = self.run(self.world.rows(self.user.id))
        held = {row.id: row for row in rows}
        assert len(held) == len(self.known)
        for login in self.known:
            claims = self.world.refresh_tokens.verify(login.tokens[-1], allow_expired=True)
            row = held[claims.session]
            assert row.generation == claims.generation == len(login.tokens) - 1
            assert claims.expires_at == row.expires_at == login.expires
            if self.clock.now < login.expires:
                assert (row.revoked_at is not None) == login.ended

    @invariant()
    def the_list_shows_what_is_alive(self) -> None:
        page = self.run(self.world.accounts.sessions.list(self.user.id, limit=200))
        alive = {self.session(login) for login in self.known if self.alive(login)}
        assert {session.id for session in page.items} == alive

    @invariant()
    def no_access_token_outlives_its_reason(self) -> None:
        for login in self.known:
            for token, version in login.access:
                try:
                    principal = self.world.principal(token)
                except Exception:  # expired by itself
                    continue
                if self.clock.now < login.expires and (login.ended or version < self.user.version):
                    assert self.world.cutoffs.cuts(principal)
                elif not login.ended and version == self.user.version:
                    assert not self.world.cutoffs.cuts(principal)


async def _all(works: Any) -> list[Any]:
    return list(await asyncio.gather(*works))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_the_model_and_the_service_agree(url: str, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
    world = World(Database(url, clock=clock), clock)
    machine = type("Machine", (Rotation,), {"world": world, "clock": clock, "loop": loop})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    loop.run_until_complete(world.close())
