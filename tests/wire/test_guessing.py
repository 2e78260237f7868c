"""The real command while somebody guesses: who has to wait, who is let in again, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.support.process import PASSWORD, Answer, Running, Site
from tests.support.redis import RedisServer

ANA = "ana@example.com"
GUESSED = "login: {per_account: 3/minute, per_address: 1000/minute}"


@pytest.fixture
def guarded(site: Site) -> Site:
    """Three tries a minute for each account."""
    written = site.config.read_text()
    plain = "login: {per_account: 1000/minute, per_address: 1000/minute}"
    assert plain in written
    site.config.write_text(written.replace(plain, GUESSED))
    site.add(ANA)
    return site


def attempt(gateway: Running, password: str = "wrong", email: str = ANA) -> Answer:
    return gateway.request("POST", "/auth/login", json_body={"email": email, "password": password})


def away(gateway: Running, token: str) -> list[str]:
    """What /readyz says is away, after a request that takes a moment."""
    assert gateway.request("GET", "/slow?seconds=0.1", token=token).status == 200
    ready = gateway.request("GET", "/readyz", ops=True)
    assert ready.status == 200
    return [each["name"] for each in ready.json["degraded"]]


def asked(site: Site, *words: str) -> list[dict[str, Any]]:
    done = site.command("audit", "--format", "json", *words)
    assert done.returncode == 0, done.stderr
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return items


def test_unlocking_reaches_counters_in_another_process_and_all_is_told_afterwards(guarded: Site) -> None:
    with guarded.running() as gateway:
        assert [attempt(gateway).status for _ in range(5)] == [401] * 3 + [429] * 2
        assert attempt(gateway, PASSWORD).status == 429
        assert guarded.command("users", "unlock", ANA).returncode == 0
        assert attempt(gateway, PASSWORD).status == 200
        assert gateway.stop() == 0

    told = asked(guarded, "--user", ANA)
    names = [event["name"] for event in told]
    assert sorted(names) == sorted(
        ["user_created", *["login_failed"] * 3, "login_limited", "limits_cleared", "login_succeeded"]
    )
    assert {event["address"] for event in told if event["name"].startswith("login_")} == {"127.0.0.1"}
    logged = [line for line in gateway.lines if line.get("event") == "audit"]
    ids = {event["requestId"] for event in told} - {None}
    assert ids == {line["requestId"] for line in logged}
    assert [event["name"] for event in asked(guarded, "--actor", "cli")] == ["user_created", "limits_cleared"]


@pytest.mark.parametrize(("on_error", "status"), [("deny", 503), ("allow", 200)])
def test_a_redis_that_hangs_holds_up_nobody_and_each_limit_says_what_holds(
    guarded: Site, on_error: str, status: int
) -> None:
    with TemporaryDirectory(prefix="redis-") as folder, RedisServer(Path(folder), tcp=True) as server:
        rates = f'storage: "{server.url}"\n  {GUESSED[:-1]}, on_error: {on_error}}}'
        guarded.config.write_text(guarded.config.read_text().replace(GUESSED, rates))
        with guarded.running() as gateway:
            token = gateway.log_in(ANA)["accessToken"]
            server.freeze()
            answers = [attempt(gateway, PASSWORD) for _ in range(20)]
            assert {answer.status for answer in answers} == {status}
            assert gateway.request("GET", "/health").status == 200
            metrics = gateway.request("GET", "/metrics", ops=True).body.decode()
            outcome = "refused" if on_error == "deny" else "counted"
            assert f'limit="login-address",outcome="{outcome}"' in metrics
            assert any("rate_limits" in away(gateway, token) for _ in range(100)), "looked at every second"
            server.thaw()
