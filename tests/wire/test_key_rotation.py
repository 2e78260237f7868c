"""Keys that rotate, with the real commands: two replicas, clients at work, and not one refused request."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGHUP
from typing import Any

import jwt
import pytest

from tests.support import process
from tests.support.life import soon
from tests.support.process import PATIENCE, Running, Site, looking_every

PACE = 0.1
"""Seconds between two looks at the keys, instead of two."""
AFTER, STORED_S = "8s", 1.0
"""How long a key is known before it signs, and how long a backend keeps the JWKS: in earnest 10 and 5 min."""
CLIENTS = 3


class Keyed:
    """A site whose access tokens are signed by keys."""

    def __init__(self, site: Site, *, secret: bool = False) -> None:
        self.site, self.folder = site, site.folder / "keys"
        keyed = "access: {keys: keys" + (', secret: "${JWT_ACCESS_SECRET}"}' if secret else "}")
        text = site.config.read_text()
        site.config.write_text(text.replace('access: {secret: "${JWT_ACCESS_SECRET}"}', keyed))

    def keys(self, *words: str) -> str:
        done = self.site.command("keys", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pass_time(self, seconds: int) -> None:
        """As if everything so far had been written that much earlier."""
        manifest = json.loads((self.folder / "keys.json").read_text())
        for key in manifest["keys"]:
            for name in ("madeAt", "signsFrom", "verifiesUntil"):
                if name in key:
                    moment = jwt_time(key[name]) - seconds
                    key[name] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
        (self.folder / "earlier").write_text(json.dumps(manifest))
        (self.folder / "earlier").rename(self.folder / "keys.json")


def jwt_time(written: str) -> float:
    return time.mktime(time.strptime(written, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone


def kids(gateway: Running) -> list[str]:
    return [key["kid"] for key in gateway.request("GET", "/auth/jwks.json").json["keys"]]


def kid_of(token: str) -> str | None:
    header = token.split(".")[0]
    kid: str | None = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))).get("kid")
    return kid


class Client(threading.Thread):
    """Asks one replica after the other, and refreshes all the time; every answer has to be a good one."""

    def __init__(self, replicas: list[Running], email: str, backend: jwt.PyJWKClient) -> None:
        super().__init__(daemon=True)
        self.replicas, self.backend = replicas, backend
        self.tokens: dict[str, Any] = replicas[0].log_in(email)
        self.refreshed = time.monotonic()
        self.done = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.signed: Counter[str | None] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            turn = 0
            while not self.done.is_set():
                turn += 1
                replica = self.replicas[turn % len(self.replicas)]
                if time.monotonic() - self.refreshed > 0.5:
                    self.refresh(replica)
                answer = replica.request("GET", "/x", token=self.tokens["accessToken"])
                self.statuses[answer.status] += 1
        except BaseException as failure:
            self.failure = failure

    def refresh(self, replica: Running) -> None:
        answer = replica.refresh(self.tokens["refreshToken"])
        self.statuses[answer.status] += 1
        assert answer.status == 200, answer.body
        self.refreshed = time.monotonic()
        self.tokens = answer.json
        token = self.tokens["accessToken"]
        self.signed[kid_of(token)] += 1
        if kid_of(token) is not None:  # as a backend would that gets the token and trusts nobody
            key = self.backend.get_signing_key_from_jwt(token)
            jwt.decode(token, key, [key.algorithm_name], issuer="gateway", leeway=5)


@contextmanager
def at_work(replicas: list[Running], site: Site) -> Iterator[list[Client]]:
    """Clients that ask all the time; in the end none of them has met a refusal."""
    host, port = replicas[0].address
    # One that never asks again because of a key that it does not know.
    url = f"http://{host}:{port}/auth/jwks.json"
    backend = jwt.PyJWKClient(url, lifespan=STORED_S, cooldown_duration=600)
    site.add("ana@example.com")
    clients = [Client(replicas, "ana@example.com", backend) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        for client in clients:
            client.done.set()
        for client in clients:
            client.join(20)
    assert [client.failure for client in clients if client.failure] == []
    assert {status for client in clients for status in client.statuses} == {200}


def signed_by(clients: list[Client], kid: str | None) -> Callable[[], bool]:
    return lambda: all(client.signed[kid] or client.failure for client in clients)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", looking_every(PACE))


def test_rotating_and_retiring_under_load_costs_no_request(site: Site, hasty: None) -> None:
    keyed = Keyed(site)
    keyed.keys("generate", "--algorithm", "ES256")
    with site.running() as one, site.running() as two, at_work([one, two], site) as clients:
        (former,) = kids(one)
        soon(signed_by(clients, former), PATIENCE)
        keyed.keys("rotate", "--algorithm", "RS256", "--after", AFTER)
        keyed.keys("retire")
        soon(lambda: len(kids(one)) == len(kids(two)) == 2)
        newest = kids(one)[-1]
        soon(signed_by(clients, newest), PATIENCE)  # so nobody holds a token of the former one any more
        keyed.pass_time(3600)
        soon(lambda: kids(one) == kids(two) == [newest])
        keyed.keys("retire")
        assert [path.stem for path in keyed.folder.glob("*.pem")] == [newest]
        soon(signed_by(clients, newest), PATIENCE)
    assert {kid for client in clients for kid in client.signed} == {former, newest}


def test_from_a_secret_to_keys_costs_no_request(site: Site, hasty: None) -> None:
    """Known everywhere first, then signing; the secret's tokens hold until they end."""
    keyed = Keyed(site, secret=True)
    keyed.keys("generate")
    with site.running() as one, site.running() as two, at_work([one, two], site) as clients:
        soon(signed_by(clients, None), PATIENCE)
        keyed.keys("rotate", "--after", AFTER)
        (kid,) = kids(one)
        soon(signed_by(clients, kid), PATIENCE)


def test_a_stolen_key_is_out_within_two_looks(site: Site, hasty: None) -> None:
    keyed = Keyed(site)
    keyed.keys("generate")
    site.add("ana@example.com")
    with site.running() as gateway:
        (stolen,) = kids(gateway)
        tokens = gateway.log_in("ana@example.com")
        assert gateway.request("GET", "/x", token=tokens["accessToken"]).status == 200
        time.sleep(1)  # two keys never sign from the same second
        keyed.keys("rotate", "--after", "0s")
        keyed.keys("retire", stolen, "--now")
        soon(lambda: stolen not in kids(gateway))
        assert gateway.request("GET", "/x", token=tokens["accessToken"]).status == 401
        fresh = gateway.refresh(tokens["refreshToken"]).json
        assert gateway.request("GET", "/x", token=fresh["accessToken"]).status == 200


def test_what_is_no_good_changes_nothing_and_is_said(site: Site, hasty: None) -> None:
    keyed = Keyed(site)
    keyed.keys("generate")
    with site.running() as gateway:
        before = kids(gateway)
        good = (keyed.folder / "keys.json").read_text()
        (keyed.folder / "keys.json").write_text('{"keys": [')
        soon(lambda: degraded(gateway))
        assert "keys.json is no JSON" in degraded(gateway)
        assert kids(gateway) == before
        soon(lambda: any("keys.json is no JSON" in line.get("message", "") for line in gateway.lines))
        (keyed.folder / "keys.json").write_text(good)
        soon(lambda: not degraded(gateway))
        assert gateway.request("GET", "/readyz", ops=True).status == 200
        assert gateway.stop() == 0


def degraded(gateway: Running) -> str:
    """What /readyz says of the keys."""
    told = gateway.request("GET", "/readyz", ops=True).json["degraded"]
    return "".join(each["reason"] for each in told if each["name"] == "keys")


def test_sighup_takes_them_up_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", looking_every(600))
    keyed = Keyed(site)
    keyed.keys("generate")
    with site.running() as gateway:
        keyed.keys("rotate")
        assert len(kids(gateway)) == 1
        site.config.write_text(site.config.read_text() + "nonsense: 1\n")  # keys don't wait for a right file
        gateway.process.send_signal(SIGHUP)
        soon(lambda: len(kids(gateway)) == 2)


def test_a_secret_is_changed_without_logging_anybody_out(site: Site) -> None:
    site.add("ana@example.com")
    original = site.config.read_text()
    with site.running() as gateway:
        old = gateway.log_in("ana@example.com")
    for kind in ("ACCESS", "REFRESH"):
        site.environ[f"OLD_{kind}"] = site.environ[f"JWT_{kind}_SECRET"]
        site.environ[f"JWT_{kind}_SECRET"] = site.environ[f"JWT_{kind}_SECRET"][::-1]
        changed = f'{{secret: "${{JWT_{kind}_SECRET}}", previous_secrets: ["${{OLD_{kind}:-}}"]}}'
        original = original.replace(f'{{secret: "${{JWT_{kind}_SECRET}}"}}', changed)
    site.config.write_text(original)
    with site.running() as gateway:
        assert gateway.request("GET", "/x", token=old["accessToken"]).status == 200
        spent, again = gateway.refresh(old["refreshToken"]), gateway.refresh(old["refreshToken"])
        assert spent.json["refreshToken"] == again.json["refreshToken"]  # one successor, as ever
        new = spent.json
    del site.environ["OLD_ACCESS"], site.environ["OLD_REFRESH"]
    with site.running() as gateway:
        assert gateway.request("GET", "/x", token=old["accessToken"]).status == 401
        assert gateway.request("GET", "/x", token=new["accessToken"]).status == 200
        assert gateway.refresh(old["refreshToken"]).status == 401
        assert gateway.refresh(new["refreshToken"]).status == 200
