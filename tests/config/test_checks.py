"""What settings mean together, and the values that are refused for what they are."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from gateway.config.reference import reference

from .conftest import ACCESS, BASE, TOKENS, Write


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("auth: {prefix: /}", "auth.prefix: can't be /"),
        ("auth: {prefix: /Auth}", "auth.prefix: must be a plain path in small letters"),
        ("auth: {prefix: /a%2fb}", "auth.prefix: must be a plain path"),
        ("auth: {prefix: /a/../b}", "auth.prefix: must be a plain path"),
        ("auth: {prefix: //}", "auth.prefix: must not end with a slash"),
        ("sessions: {idle_max: 15m}", "sessions.idle_max: must be longer than tokens.access.ttl"),
        ("sessions: {idle_max: 8d}", "sessions.idle_max: can't be longer than tokens.refresh.ttl"),
        ("sessions: {idle_max: 0s}", "sessions.idle_max: must be more than 0s"),
        ("sessions: {idle_max: 999.5s}", "sessions.idle_max: must be whole seconds"),
        ("sessions: {max_per_user: -1}", "sessions.max_per_user: must be between 0 and 10000"),
        (
            "accounts: {own_email: true}\nroutes: [{path: /a, allow: {users: [a@b]}}]",
            "routes[0].allow.users: with accounts.own_email people could give themselves such an address",
        ),
        ("accounts: {database: [x]}", "accounts.database: must be text"),
        ("accounts: {database: 'postgresql://[x/y'}", "accounts.database: needs a host and a database"),
        ("accounts: {database: 'sqlite:///:memory:'}", "accounts.database: needs a file"),
        ("accounts: {database: 'sqlite:///file:x?mode=memory'}", "accounts.database: needs a file"),
        ("accounts: {database: 12}", "accounts.database: must begin with"),
        ("rate_limits: {storage: memory}", "rate_limits.storage: must be memory://"),
        ("routes: [{path: /a, allow: {}}]", "routes[0].allow: names nobody"),
        ("upstreams: {a: {url: 'http://0.0.0.0:8080'}}", "is the gateway itself"),
        (
            "upstreams: {a: {urls: ['http://a', 'http://[::1]:9090']}, }\nserver: {ops_listen: '[::]:9090'}",
            "urls[1]",
        ),
        ("server: {listen: ['[::]:80', '0.0.0.0:80', 'a:80']}", "a:80 is listened on twice"),
        ("server: {trusted_proxies: [12.0.0.0/7]}", "is most of the internet"),
        ("server: {trusted_proxies: ['f000::/4']}", "is most of the internet"),
    ],
)
def test_a_mistake(loaded: Write, text: str, words: str) -> None:
    found = loaded(f"{text}\n", base=BASE)
    assert found.config is None
    assert any(words in str(problem) for problem in found.problems)


@pytest.mark.parametrize(
    "text",
    [
        "server: {listen: ['127.0.0.1:0', '127.0.0.1:0'], ops_listen: '127.0.0.1:0'}",
        "server: {listen: ['0.0.0.0:80', '[::]:80']}",
        "server: {listen: ['127.0.0.1:80', '127.0.0.2:80']}",
        "server: {trusted_proxies: [127.0.0.1, 10.0.0.0/8, 'fc00::/7', 'unix']}",
        "upstreams: {a: {url: 'http://10.0.0.1:8080'}, b: {url: 'http://app:8080'}}",
        "accounts: {database: 'sqlite:////var/lib/x.db'}\nrate_limits: {storage: 'rediss://h'}",
        "accounts: {database: 'postgresql+psycopg://u@h/d?sslmode=require'}",
        "auth: {prefix: /_gateway/auth}",
        "accounts: {own_email: true}\nroutes: [{path: /a, allow: {roles: {any: [a]}}}]",
        "accounts: {own_email: false}\nroutes: [{path: /a, allow: {users: [a@b]}}]",
        "sessions: {idle_max: 16m, max_per_user: 1}",
        "sessions: {idle_max: 7d, max_per_user: 0}",
        "server: {public_url: 'http://127.0.0.1:9001'}",
    ],
)
def test_no_mistake(loaded: Write, text: str) -> None:
    assert loaded(f"{text}\n", base=BASE).problems == ()


def test_a_low_bcrypt_cost_is_warned_about(loaded: Write) -> None:
    found = loaded("accounts: {bcrypt_cost: 4}\n", base=BASE)
    assert found.config is not None
    assert [(problem.path, problem.warning) for problem in found.problems] == [("accounts.bcrypt_cost", True)]


@pytest.mark.parametrize(
    ("public_url", "warned"),
    [("", True), ("public_url: http://a.test, ", True), ("public_url: https://a.test, ", False)],
)
def test_a_public_url_that_contradicts_the_listener_is_warned_about(
    loaded: Write, public_url: str, warned: bool
) -> None:
    found = loaded(f"server: {{{public_url}tls: {{certificate: a, key: b}}}}\n", base=BASE)
    assert found.config is not None
    assert found.config.server.tls is not None
    assert Path(found.config.server.tls.key) == Path.cwd() / "b"
    assert [problem.path for problem in found.problems] == ["server.public_url"] * warned


@pytest.mark.parametrize(
    "secret",
    [
        "your-256-bit-secret-your-256-bit-secret",
        "a-string-secret-at-least-256-bits-long",
        "Replace-Me-With-Something-Long-0123456789",
        "correct-horse-example-battery-staple-9",
        "00000000000000000000000000000000",
        "0123456789abcdef0123456789abcdef",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "abababababababababababababababababab",
        "x" * 31,
    ],
)
def test_secrets_that_are_none(loaded: Write, secret: str) -> None:
    (problem,) = loaded(BASE, JWT_ACCESS_SECRET=secret).problems
    assert problem.path == "tokens.access.secret"
    assert secret not in problem.sentence


@pytest.mark.parametrize(
    "secret", [ACCESS[:30] + "é", "pWq7-Zk_m2V9xT4bR8sYc1NfHd6Lg0Ja", "ключ-от-шлюза-7xyzuvw"]
)
def test_secrets_that_are_fine(loaded: Write, secret: str) -> None:
    """Bytes count, not characters."""
    assert loaded(BASE, JWT_ACCESS_SECRET=secret).problems == ()


def test_equal_secrets(loaded: Write) -> None:
    (problem,) = loaded(BASE, JWT_REFRESH_SECRET=ACCESS).problems
    assert str(problem).startswith(
        "gateway.yaml:4:21  tokens.refresh.secret: is the same as tokens.access.secret"
    )


KEYED = (
    'upstream: http://127.0.0.1:9000\ntokens: {access: {%s}, refresh: {secret: "${JWT_REFRESH_SECRET}"}}\n'
)


def test_keys_stand_for_a_secret_and_beside_one(loaded: Write, folder: Path) -> None:
    for access, secret in (("keys: k", None), ("keys: k, secret: '${JWT_ACCESS_SECRET}'", ACCESS)):
        found = loaded(KEYED % access)
        assert found.problems == ()
        assert found.config is not None
        settings = found.config.tokens.access
        assert settings.keys == str(folder / "k")
        assert (settings.secret.get_secret_value() if settings.secret else None) == secret


@pytest.mark.parametrize(
    ("former", "count"),
    [
        ('["${OLD}"]', 1),
        ("'${OLD}'", 1),
        ("'${NEW:-}'", 0),
        ('["${NEW:-}", "${OLD:-}"]', 1),
        ("[]", 0),
    ],
)
def test_former_secrets_that_are_empty_are_none(loaded: Write, former: str, count: int) -> None:
    access = f"secret: '${{JWT_ACCESS_SECRET}}', previous_secrets: {former}"
    found = loaded(KEYED % access, OLD="aSf82,hJk19,Zxc73,Qwe50,Rty64,Uio")  # commas separate nothing here
    assert found.problems == ()
    assert found.config is not None
    assert len(found.config.tokens.access.previous_secrets) == count


def test_former_secrets_may_be_unset_where_that_is_fine(loaded: Write) -> None:
    access = "secret: '${JWT_ACCESS_SECRET}', previous_secrets: ['${NOWHERE}', '${file:nowhere}']"
    assert loaded(KEYED % access, unset=True).problems == ()
    assert len(loaded(KEYED % access).problems) == 2


def test_a_mistake_in_one_section_does_not_hide_those_between_others(loaded: Write) -> None:
    text = """
accounts: {zzz: 1}
upstreams: {app: {url: http://a, zzz: 1}}
routes:
  - {path: /x, allow: admin, zzz: 1}
  - {path: /y, allow: admin, upstream: nope}
tests:
  - {request: GET /, as: admin, expect: allow, upstream: nope}
"""
    paths = [problem.path for problem in loaded(text, base=BASE).problems]
    assert paths == [
        "accounts.zzz",
        "upstreams.app.zzz",
        "routes[0].zzz",
        "routes[1].upstream",
        "tests[0].upstream",
    ]


def test_an_unknown_upstream_is_not_also_blamed_when_there_is_none_at_all(loaded: Write) -> None:
    found = loaded(f"{TOKENS}routes: [{{path: /x, allow: admin, upstream: a}}]\n")
    assert ["names no backend" in str(problem) for problem in found.problems] == [True]


def test_the_reference_is_printed_by_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(RuntimeWarning, match="found in sys.modules"):
        runpy.run_module("gateway.config.reference", run_name="__main__")
    assert capsys.readouterr().out == reference()
