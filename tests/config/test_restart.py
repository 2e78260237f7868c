"""What a reload can't change is named; what it can is not."""

from __future__ import annotations

import pytest

from gateway.config.restart import restart_needed
from gateway.config.schema import Config

from .conftest import ACCESS, BASE, Write


def config(loaded: Write, text: str, base: str = BASE, **environ: str) -> Config:
    found = loaded(f"{text}\n", base=base, **environ)
    assert found.config is not None, found.problems
    return found.config


@pytest.mark.parametrize(
    "text",
    [
        "",
        "server: {limits: {body: 10MiB}, timeouts: {drain: 30s}}",
        "server: {reload: auto}",
        "default: nobody",
        "routes: [{path: /x, allow: public}]",
        "tests: [{request: GET /x, as: anonymous, expect: 401}]",
        "identity_headers: {preset: remote-user}",
        "rate_limits: {login: {per_account: 1/day}, refresh: {per_address: 1/day}}",
        "upstreams: {other: {url: 'http://127.0.0.1:9001', connections: 3}}",
    ],
)
def test_what_a_reload_takes_up(loaded: Write, text: str) -> None:
    assert restart_needed(config(loaded, ""), config(loaded, text)) == []


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("server: {listen: '127.0.0.1:1'}", ["server.listen"]),
        ("server: {ops_listen: off}", ["server.ops_listen"]),
        ("server: {trusted_proxies: [unix]}", ["server.trusted_proxies"]),
        (
            "server: {limits: {body: 1MiB}, timeouts: {drain: 1s}}",
            ["server.limits.body", "server.timeouts.drain"],
        ),
        (
            "server: {public_url: 'https://a', tls: {certificate: c, key: k}}",
            ["server.public_url", "server.tls"],
        ),
        ("auth: {prefix: /login}", ["auth.prefix"]),
        ("sessions: {idle_max: 1d, max_per_user: 3}", ["sessions.idle_max", "sessions.max_per_user"]),
        ("sessions: {max_staleness: 1m, on_stale: deny}", ["sessions.max_staleness", "sessions.on_stale"]),
        ("api_tokens: {max_ttl: 90d, per_user: 3}", ["api_tokens.max_ttl", "api_tokens.per_user"]),
        ("accounts: {password: {min_length: 12}}", ["accounts.password.min_length"]),
        ("accounts: {database: 'sqlite:////x.db'}", ["accounts.database"]),
        ("rate_limits: {storage: 'redis://h', login: {per_account: 1/day}}", ["rate_limits.storage"]),
    ],
)
def test_what_it_can_not(loaded: Write, text: str, keys: list[str]) -> None:
    assert restart_needed(config(loaded, ""), config(loaded, text)) == keys


def test_a_secret_that_changed_is_named_and_not_shown(loaded: Write) -> None:
    other = config(loaded, "", JWT_ACCESS_SECRET=ACCESS[::-1])
    assert restart_needed(config(loaded, ""), other) == ["tokens.access.secret"]


def test_a_place_within_tls(loaded: Write) -> None:
    first, second = (
        config(loaded, f"server: {{tls: {{certificate: {name}, key: k}}}}") for name in ("a", "b")
    )
    assert restart_needed(first, second) == ["server.tls.certificate"]


def test_every_section_is_either_fixed_or_taken_up() -> None:
    """A new top-level setting has to be thought about: add it here or to FIXED."""
    from gateway.config.restart import FIXED

    taken_up = {"rate_limits", "identity_headers", "upstream", "upstreams", "default", "routes", "tests"}
    taken_up |= {"defaults", "include", "tests_include"}
    fixed = {str(path[0]) for path in FIXED}
    assert set(Config.model_fields) == fixed | taken_up
