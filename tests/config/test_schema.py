"""What a right file means: defaults, and values in their normal form."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from gateway.config.load import load
from gateway.config.schema import PLAIN_WORDS, SECRETS, Config, Person, Rule
from gateway.config.sentences import models_in
from gateway.config.values import Listen, Rate, Statuses, UpstreamUrl

from .conftest import ACCESS, BASE, REFRESH, TOKENS, Write

DAY = 86400.0


def _config(loaded: Write, text: str = "", base: str = BASE, **environ: str) -> Config:
    found = loaded(text, base=base, **environ)
    assert found.problems == ()
    assert found.config is not None
    return found.config


def test_the_defaults_are_those_of_the_reference(loaded: Write) -> None:
    config = _config(loaded)
    assert config.server.listen == (Listen("127.0.0.1", 8080, ""),)
    assert config.server.ops_listen == Listen("127.0.0.1", 9090, "")
    assert config.server.public_url == "http://127.0.0.1:8080"
    assert config.server.trusted_proxies == ()
    assert _values(config.server.limits) == (8192, 32768, 100, 10 << 20, 10_000)
    assert _values(config.server.timeouts) == (10.0, 30.0, 75.0, 0.0, 30.0)
    assert config.auth.prefix == "/auth"
    assert (config.tokens.issuer, config.tokens.leeway, config.tokens.session_max) == (
        "gateway",
        10.0,
        30 * DAY,
    )
    assert config.tokens.access.ttl == 900.0
    assert (config.tokens.refresh.ttl, config.tokens.refresh.reuse_grace) == (7 * DAY, 10.0)
    assert config.accounts.database.get_secret_value().endswith("/gateway.db")
    assert (config.accounts.bcrypt_cost, config.accounts.password.min_length) == (12, 10)
    assert config.rate_limits.storage.get_secret_value() == "memory://"
    assert config.rate_limits.login.per_account == Rate(5, 60)
    assert config.rate_limits.login.per_address == Rate(30, 60)
    assert config.rate_limits.refresh.per_address == Rate(60, 60)
    assert config.identity_headers.preset == "x-user"
    assert (config.default, config.routes, config.tests) == ("authenticated", (), ())


def test_the_defaults_of_an_upstream(loaded: Write) -> None:
    upstream = _config(loaded).upstreams["default"]
    assert upstream.targets == (UpstreamUrl("http", "127.0.0.1", 9000, ""),)
    assert _values(upstream.timeouts) == (5.0, 60.0, 60.0, 300.0)
    assert upstream.connections == 200
    assert (_values(upstream.queue), upstream.health) == ((1000, 10.0), None)
    assert _values(upstream.ejection) == (5, 10.0, 10.0)
    assert upstream.tunnels == "until_revoked"
    assert {upstream.preserve_host, upstream.forward_authorization, upstream.keep_override_headers} == {False}
    assert _values(upstream.tls) == (None, None, None, None)


def test_health_checks(loaded: Write) -> None:
    text = """
upstreams:
  a: {url: http://a, health: {path: "/up?deep=%20", expect: 204}}
  b: {url: http://b, health: {path: /}}
"""
    upstreams = _config(loaded, text, base=TOKENS).upstreams
    assert upstreams["a"].health is not None
    assert upstreams["b"].health is not None
    assert _values(upstreams["a"].health) == ("/up?deep=%20", 5.0, 2.0, 2, 3, Statuses(204, 204))
    assert str(upstreams["a"].health.expect) == "204"
    assert str(upstreams["b"].health.expect) == "200-399"


def test_upstreams_by_name_and_in_short(loaded: Write) -> None:
    text = "upstreams:\n  b: {urls: [http://b, unix:/run/b.sock]}\n  c: {urls: http://c}\n"
    config = _config(loaded, text)
    assert list(config.upstreams) == ["default", "b", "c"]
    assert [str(url) for url in config.upstreams["b"].targets] == ["http://b:80", "unix:/run/b.sock"]
    assert len(config.upstreams["c"].targets) == 1


def test_a_secure_upstream_with_its_own_authority(loaded: Write) -> None:
    config = _config(loaded, "upstreams:\n  a: {url: https://a, tls: {ca: /etc/ca.pem}}\n", base=TOKENS)
    assert config.upstreams["a"].tls.ca == "/etc/ca.pem"
    assert str(config.upstreams["a"].url) == "https://a:443"


def test_the_files_of_an_upstream_stand_beside_the_configuration(loaded: Write, folder: Path) -> None:
    tls = "{ca: ca.pem, certificate: tls/own.pem, key: /etc/own.key, server_name: A.internal.}"
    config = _config(loaded, f"upstreams:\n  a: {{url: https://a, tls: {tls}}}\n", base=TOKENS)
    assert _values(config.upstreams["a"].tls) == (
        f"{folder}/ca.pem", "a.internal", f"{folder}/tls/own.pem", "/etc/own.key",
    )  # fmt: skip


def test_two_equal_upstreams_are_equal(loaded: Write) -> None:
    """A reload keeps the connections of those that did not change."""
    text = "upstreams:\n  a: {url: http://a, health: {path: /}}\n"
    one, two = (_config(loaded, text, base=TOKENS).upstreams["a"] for _ in range(2))
    other = _config(loaded, text.replace("path: /", "path: /x"), base=TOKENS).upstreams["a"]
    assert one == two != other


def test_routes(loaded: Write) -> None:
    text = """
routes:
  - {path: /a, allow: public}
  - path: /b/{id}
    methods: [GET, POST]
    hosts: [API.example.com., "*.Example.com", "[::0:1]", 127.0.0.1]
    allow: {roles: {any: [a]}, users: [" Ann@Example.COM"], networks: [10.0.0.0/8, "::1"]}
    strip_prefix: /b
"""
    plain, full = _config(loaded, text).routes
    assert plain.allow == "public"
    assert full.methods == ("GET", "POST")
    assert full.hosts == ("api.example.com", "*.example.com", "[::1]", "127.0.0.1")
    assert isinstance(full.allow, Rule)
    assert full.allow.roles is not None
    assert (full.allow.roles.any, full.allow.roles.all) == (("a",), None)
    assert full.allow.users == ("ann@example.com",)
    assert full.allow.networks == (ip_network("10.0.0.0/8"), ip_network("::1/128"))


def test_tests(loaded: Write) -> None:
    text = """
tests:
  - {request: GET /a?b=%20, as: admin, expect: allow, from: 10.0.0.1, host: A.example, route: /a}
  - {request: "POST  /a", as: {roles: [a]}, expect: 403}
"""
    one, two = _config(loaded, text).tests
    assert (one.request.method, one.request.target) == ("GET", "/a?b=%20")
    assert (one.as_, one.expect, str(one.from_), one.host) == ("admin", "allow", "10.0.0.1", "a.example")
    assert (two.request.method, two.request.target) == ("POST", "/a")
    assert two.as_ == Person(roles=("a",))
    assert two.expect == 403


def test_a_configuration_can_not_be_changed(loaded: Write) -> None:
    config = _config(loaded)
    with pytest.raises(ValidationError, match="frozen"):
        config.server.limits.body = 1  # type: ignore[misc]  # the point of the test


def test_no_secret_shows(loaded: Write) -> None:
    text = 'accounts: {database: "postgresql://u:${PW}@h/d"}\nrate_limits: {storage: "redis://:${PW}@h"}\n'
    config = _config(loaded, text, PW="hunter2")
    assert config.accounts.database.get_secret_value() == "postgresql://u:hunter2@h/d"
    assert "hunter2" not in repr(config) + str(config)


def test_the_lists_of_special_settings_fit_the_schema() -> None:
    assert {path for path, annotation in _leaves(Config) if _is_secret(annotation)} == SECRETS
    assert {path for path, _ in _leaves(Config)} >= PLAIN_WORDS


def _values(section: BaseModel) -> tuple[Any, ...]:
    return tuple(value for _, value in section)


def _is_secret(annotation: Any) -> bool:
    """A secret, none perhaps, or a list of them."""
    return annotation is SecretStr or any(_is_secret(each) for each in get_args(annotation))


def _leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Any:
    for name, field in model.model_fields.items():
        yield (*path, name), field.annotation
        for inner, _ in models_in(field.annotation):
            yield from _leaves(inner, (*path, name))


def test_a_relative_database_stands_beside_the_file_wherever_the_command_runs(
    loaded: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded("accounts: {database: 'sqlite:///data/users.db'}", base=BASE)
    (folder / "elsewhere").mkdir()
    environ = {"JWT_ACCESS_SECRET": ACCESS, "JWT_REFRESH_SECRET": REFRESH}
    monkeypatch.chdir(folder / "elsewhere")
    config = load(Path("../gateway.yaml"), environ=environ).config
    assert config is not None
    url = config.accounts.database.get_secret_value()
    assert Path(url.removeprefix("sqlite:///")).resolve() == folder.resolve() / "data/users.db"
