"""A gateway process for tunnels: `gateway run` in front of backends that each test plays itself.

The backends' sockets listen as long as the gateway runs, so its ports never
change hands; a test accepts on one of them for as long as it wants to be the backend.
"""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from tests.support.backend import Peer, Script
from tests.support.process import PASSWORD, PATIENCE, Answer, Running, Site
from tests.support.raw import Answer as Head
from tests.support.raw import RawClient
from tests.support.tokens import Mint
from tests.support.websockets import ACCEPTED, Door

TUNNELS = 1000
"""How many one test opens at once."""
IDLE = 1.0
"""Seconds without a byte after which a tunnel below /brief is ended."""
_YAML = """
server: {{listen: "127.0.0.1:0", ops_listen: "127.0.0.1:0", timeouts: {{drain: {drain}}}{server_tls}}}
tokens:
  leeway: 0s
  access: {{secret: "${{JWT_ACCESS_SECRET}}"}}
  refresh: {{secret: "${{JWT_REFRESH_SECRET}}"}}
accounts: {{database: "sqlite:///{folder}/gateway.db", bcrypt_cost: 4}}
rate_limits:
  login: {{per_account: 1000/minute, per_address: 1000/minute}}
  refresh: {{per_address: 100000/minute}}
upstreams:
  default: {{url: "{scheme}://127.0.0.1:{talk}", connections: {connections}{upstream_tls}}}
  brief: {{url: "http://127.0.0.1:{talk}", timeouts: {{tunnel_idle: {idle}s}}}}
  expiring: {{url: "http://127.0.0.1:{talk}", tunnels: until_exp}}
  raw: {{url: "http://127.0.0.1:{raw}", ejection: {{failures: 0}}}}
  app: {{url: "http://127.0.0.1:{app}"}}
  app_expiring: {{url: "http://127.0.0.1:{app}", tunnels: until_exp}}
routes:
  - {{path: /public/**, allow: public}}
  - {{path: /admin/**, allow: admin}}
  - {{path: /analysts/**, allow: {{roles: {{any: [analyst]}}}}}}
  - {{path: /brief/**, allow: authenticated, upstream: brief}}
  - {{path: /expiring/**, allow: authenticated, upstream: expiring}}
  - {{path: /raw/**, allow: authenticated, upstream: raw}}
  - {{path: /raw/public/**, allow: public, upstream: raw}}
  - {{path: /raw/admin/**, allow: admin, upstream: raw}}
  - {{path: /raw/custom/**, allow: authenticated, upstream: raw, upgrade: [x-counter, other]}}
  - {{path: /app/**, allow: authenticated, upstream: app, strip_prefix: /app}}
  - {{path: /app/public/**, allow: public, upstream: app, strip_prefix: /app/public}}
  - {{path: /app/expiring/**, allow: authenticated, upstream: app_expiring, strip_prefix: /app/expiring}}
"""


@dataclass(frozen=True, slots=True)
class Person:
    """A user who is logged in."""

    id: str
    email: str
    access: str
    refresh: str


class Tls:
    """One certificate for the gateway and its backends, and what it takes to believe it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issued.configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        issued.private_key_pem.write_to_path(folder / "tls.key")
        for pem in issued.cert_chain_pems:
            pem.write_to_path(folder / "tls.crt", append=True)
        self.words = {
            "scheme": "https",
            "server_tls": f', tls: {{certificate: "{folder}/tls.crt", key: "{folder}/tls.key"}}',
            "upstream_tls": f', tls: {{ca: "{folder}/ca.pem"}}',
        }
        """For the configuration."""


class TunnelSite(Site):
    """A running gateway, and the sockets on which its backends are."""

    gateway: Running
    root: Person
    """An admin."""

    def __init__(self, folder: Path, *, drain: str = "10s", tls: Tls | None = None) -> None:
        self.talk, self.raw, self.app = (listening() for _ in range(3))
        ports = {name: getattr(self, name).getsockname()[1] for name in ("talk", "raw", "app")}
        super().__init__(folder, backend=ports["app"])
        words = tls.words if tls else {"scheme": "http", "server_tls": "", "upstream_tls": ""}
        limits = {"drain": drain, "connections": TUNNELS + 100, "idle": IDLE}
        self.config.write_text(_YAML.format(folder=folder, **limits, **ports, **words))
        self._people = 0

    def door(self, person: Person | str | None) -> Door:
        """The gateway's, for somebody, or for a token."""
        token = person.access if isinstance(person, Person) else person
        return Door(self.gateway.address, token, self.gateway.tls)

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """A request like any other. In a thread: this loop is the backend."""
        return await asyncio.to_thread(self.gateway.request, method, path, **options)

    async def person(self, **rights: Any) -> Person:
        """Somebody new, logged in."""
        self._people += 1
        email = f"person{self._people}@example.com"
        made = await self.ask(
            "POST",
            "/auth/users",
            token=self.root.access,
            json_body={"email": email, "password": PASSWORD} | rights,
        )
        assert made.status == 201, made.body
        return await asyncio.to_thread(self.log_in, email)

    def log_in(self, email: str) -> Person:
        told = self.gateway.log_in(email)
        return Person(told["user"]["id"], email, told["accessToken"], told["refreshToken"])

    def short(self, person: Person, *, seconds: int) -> str:
        """The person's access token, but it expires so soon."""
        payload = person.access.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        claims["exp"] = int(time.time()) + seconds
        return Mint(self.environ["JWT_ACCESS_SECRET"].encode()).sign(claims).decode()

    def lines(self, path: str) -> list[dict[str, Any]]:
        """The decision lines of that path so far."""
        return [line for line in self.gateway.lines if line.get("path") == path]

    async def line(self, path: str) -> dict[str, Any]:
        """The one decision line of that path, once it is written."""
        await until(lambda: self.lines(path))
        (line,) = self.lines(path)
        return line

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        text = (await self.ask("GET", "/metrics", ops=True)).body.decode()
        samples = (line.rpartition(" ") for line in text.splitlines() if line.startswith(name))
        return sum(float(value) for key, _, value in samples if key.partition("{")[0] == name)

    async def quiet(self) -> None:
        """Returns when the gateway has nothing under way."""
        async with asyncio.timeout(PATIENCE):
            while await self.metric("gateway_requests_in_flight"):  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.01)


@contextmanager
def tunnel_site(folder: Path, *, drain: str = "10s", tls: Tls | None = None) -> Iterator[TunnelSite]:
    """A site whose gateway runs, with an admin."""
    with ExitStack() as stack:
        site = TunnelSite(folder, drain=drain, tls=tls)
        for each in (site.talk, site.raw, site.app):
            stack.enter_context(each)
        site.add("root@example.com", "--admin")
        site.gateway = stack.enter_context(site.running())
        site.gateway.tls = tls.client if tls else None
        site.root = site.log_in("root@example.com")
        yield site


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sock.setblocking(False)
    return sock


async def until(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Wait for something that happens in the other process."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (what is awaited sets no event)
            await asyncio.sleep(0.005)


@contextmanager
def many_open_files(count: int) -> Iterator[None]:
    """A test that is every client and every backend needs more than the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- raw ends ------------------------------------------------------------------------------------------------


def accepting(after: Script) -> Script:
    """Accept the handshake, then go on like that."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ACCEPTED)
        await after(peer)

    return script


async def echo_bytes(peer: Peer) -> None:
    while data := await peer.read():
        await peer.send(data)


async def opened(client: RawClient, sent: bytes) -> Head:
    """The 101."""
    await client.send(sent)
    answer = await client.answer(informational=True)
    assert answer.status == 101
    return answer
