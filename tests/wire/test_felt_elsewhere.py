"""Whatever ends a right at one gateway is felt at another: by tokens, streams and tunnels, on every database.

How soon is promised and held in `test_replicas`, and measured in docs/performance.md. Here it is
every kind of end, on a SQLite file, on PostgreSQL, and on PostgreSQL whose notices don't arrive.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.databases import Postgres, shared_postgres
from tests.support.life import soon
from tests.support.process import PASSWORD, Answer, Running, Site
from tests.support.raw import RawClient, connect, request
from tests.support.tokens import unb64
from tests.support.tunnels import opened
from tests.support.websockets import handshake

pytestmark = pytest.mark.anyio

NEW_PASSWORD = "another long password"


@dataclass(frozen=True, slots=True)
class Person:
    """An admin with a role, two logins and an API token."""

    id: str
    access: str
    """Of the login that has a stream and a tunnel."""
    refresh: str
    other: str
    """An access token of the other login."""
    session: str
    """The id of the first login."""
    token: str
    """The API token; it has a stream as well."""
    token_id: str


@dataclass(frozen=True, slots=True)
class Held:
    """What goes on, of all that a person has at the other gateway."""

    login: bool = False
    """The first login: its access token, its stream and its tunnel."""
    other: bool = False
    """The other login's access token."""
    token: bool = True
    """The API token."""
    streaming: bool = True
    """The API token's stream. A change of its user ends it, too: it was begun for who that was."""


Act = Callable[[Running, str, Person], Answer]
"""What is done at the first gateway; the text is the access token of an admin."""


def call(method: str, path: str, body: Any = None, *, by: str = "") -> Act:
    """`path` and `by` name what belongs to the person; without `by` the admin does it."""

    def act(gateway: Running, admin: str, who: Person) -> Answer:
        words = {"id": who.id, "sid": who.session, "token": who.token_id}
        token = getattr(who, by) if by else admin
        return gateway.request(method, f"/auth{path.format(**words)}", token=token, json_body=body)

    return act


def log_out(gateway: Running, _: str, who: Person) -> Answer:
    return gateway.request("POST", "/auth/logout", json_body={"refreshToken": who.refresh})


OWN_PASSWORD = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
OWN_EMAIL = {"currentPassword": PASSWORD, "email": "moved@example.com"}
CHANGED = Held(streaming=False)
GONE = Held(token=False, streaming=False)
ENDS: dict[str, tuple[Act, Held]] = {
    "a logout": (log_out, Held(other=True)),
    "their own end of one login": (call("DELETE", "/sessions/{sid}", by="other"), Held(other=True)),
    "an admin's end of one login": (call("DELETE", "/users/{id}/sessions/{sid}"), Held(other=True)),
    "their own end of all logins": (call("POST", "/logout-all", by="other"), CHANGED),
    "an admin's end of all logins": (call("DELETE", "/users/{id}/sessions"), CHANGED),
    "a disabled account": (call("PATCH", "/users/{id}", {"disabled": True}), GONE),
    "a deleted account": (call("DELETE", "/users/{id}"), GONE),
    "a demotion": (call("PATCH", "/users/{id}", {"isAdmin": False}), CHANGED),
    "another role": (call("PATCH", "/users/{id}", {"roles": ["auditor"]}), CHANGED),
    "another address": (call("PATCH", "/users/{id}", {"email": "new@example.com"}), CHANGED),
    "a password that an admin set": (call("PATCH", "/users/{id}", {"password": NEW_PASSWORD}), CHANGED),
    "their own new password": (call("POST", "/password", OWN_PASSWORD, by="other"), Held(other=True)),
    "their own new address": (call("PATCH", "/me", OWN_EMAIL, by="other"), CHANGED),
    "a revoked API token": (
        call("DELETE", "/tokens/{token}", by="other"),
        Held(login=True, other=True, token=False, streaming=False),
    ),
    "nothing": (lambda gateway, admin, who: Answer(204, {}, b""), Held(login=True, other=True)),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = shared_postgres()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql", "postgresql, and no notices"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, backend: int) -> Iterator[tuple[Site, str]]:
    """A site, and its database if that has notices which must not arrive."""
    if request.param == "sqlite":
        yield _with_roles(Site(tmp_path, backend=backend)), ""
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.migrated()
    site = Site(tmp_path, backend=backend, database=url)
    yield _with_roles(site), url if "notices" in request.param else ""
    postgres.drop(url)


def _with_roles(site: Site) -> Site:
    written = site.config.read_text().replace("bcrypt_cost: 4", "bcrypt_cost: 4, own_email: true")
    site.config.write_text(written + "  - {path: /analysts/**, allow: {roles: {any: [analyst]}}}\n")
    return site


def hush(url: str) -> None:
    """Nobody listens any more, for the seconds until they connect again."""
    with psycopg.connect(url, autocommit=True) as connection:
        listening = "datname = current_database() AND query LIKE 'LISTEN %'"
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {listening}")


def enter(gateway: Running, admin: str, number: int) -> Person:
    email = f"person-{number}@example.com"
    body = {"email": email, "password": PASSWORD, "isAdmin": True, "roles": ["analyst"]}
    made = gateway.request("POST", "/auth/users", token=admin, json_body=body).json
    login, other = gateway.log_in(email), gateway.log_in(email)
    token = gateway.request("POST", "/auth/tokens", token=login["accessToken"], json_body={"name": "x"}).json
    return Person(
        id=made["id"],
        access=login["accessToken"],
        refresh=login["refreshToken"],
        other=other["accessToken"],
        session=json.loads(unb64(login["accessToken"].split(".")[1].encode()))["sid"],
        token=token["token"],
        token_id=token["id"],
    )


@asynccontextmanager
async def flowing(gateway: Running, token: str) -> AsyncIterator[RawClient]:
    """A stream of which something has come."""
    async with connect(gateway.address) as client:
        await client.send(request("/sse?events=10000&every=0.1", authorization=f"Bearer {token}"))
        assert (await client.until(b"data: ")).startswith(b"HTTP/1.1 200 ")
        yield client


@asynccontextmanager
async def tunnelled(gateway: Running, token: str) -> AsyncIterator[RawClient]:
    async with connect(gateway.address) as client:
        await opened(client, handshake("/ws", token=token))
        yield client


async def test_every_kind_of_end(shared: tuple[Site, str]) -> None:
    site, unheard = shared
    site.add("root@example.com", "--admin")
    with site.running() as here, site.running() as there:
        admin = here.log_in("root@example.com")["accessToken"]
        people = {end: enter(here, admin, number) for number, end in enumerate(ENDS)}

        def passes(token: str, path: str = "/orders") -> bool:
            status = there.request("GET", path, token=token).status
            assert status in (200, 401, 403)
            return status == 200

        async with AsyncExitStack() as stack:
            streams = {
                end: (
                    await stack.enter_async_context(flowing(there, who.access)),
                    await stack.enter_async_context(tunnelled(there, who.access)),
                    await stack.enter_async_context(flowing(there, who.token)),
                )
                for end, who in people.items()
            }
            for who in people.values():
                assert all(map(passes, (who.access, who.other, who.token)))
            if unheard:
                hush(unheard)
            for end, (act, _) in ENDS.items():
                assert act(here, admin, people[end]).status in (200, 204), end

            for end, (_, held) in ENDS.items():
                who, (stream, tunnel, programs) = people[end], streams[end]
                expected = [held.login, held.other, held.token]
                soon(lambda: list(map(passes, (who.access, who.other, who.token))) == expected)  # noqa: B023
                for client, stays in ((stream, held.login), (tunnel, held.login), (programs, held.streaming)):
                    if not stays:
                        await client.closed()
            # What stays has been there all the time: no other end has touched it.
            for end, (_, held) in ENDS.items():
                stream, tunnel, programs = streams[end]
                for client in (stream,) * held.login + (programs,) * held.streaming:
                    await client.some()
                    await client.some()  # which was not waiting there before
                if held.login:
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(tunnel.closed(), 0.05)

        # An API token goes on with the rights that its user has now.
        demoted, moved = people["a demotion"].token, people["another role"].token
        assert [passes(demoted, "/admin/x"), passes(demoted, "/analysts/x")] == [False, True]
        assert [passes(moved, "/admin/x"), passes(moved, "/analysts/x")] == [True, False]
