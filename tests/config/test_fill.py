"""Values from outside: variables, files, `.env`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config.dotenv import parse_dotenv
from gateway.config.fields import UnsetSecret
from gateway.config.load import load
from gateway.config.values import Listen

from .conftest import ACCESS, BASE, REFRESH, TOKENS, Write


def test_one_file_serves_laptop_and_container(loaded: Write) -> None:
    text = 'server: {listen: "${GATEWAY_LISTEN:-127.0.0.1:8080}"}\n'
    laptop, container = (
        loaded(text, base=BASE).config,
        loaded(text, base=BASE, GATEWAY_LISTEN="0.0.0.0:80").config,
    )
    assert laptop is not None
    assert container is not None
    assert laptop.server.listen == (Listen("127.0.0.1", 8080, ""),)
    assert container.server.listen == (Listen("0.0.0.0", 80, ""),)


def test_a_value_has_the_type_of_its_setting(loaded: Write) -> None:
    text = """
tokens: {issuer: "${N}", access: {secret: "${JWT_ACCESS_SECRET}"}, refresh: {secret: "${JWT_REFRESH_SECRET}"}}
upstream: http://127.0.0.1:${PORT}
server: {limits: {header_count: "${N}", body: "${N}"}, timeouts: {headers: "${N}s"}}
default: ${DEFAULT}
routes: [{path: "/${N}", hosts: ["${HOST}"], allow: "${ALLOW}", trust_host: "${YES}"}]
tests: [{request: GET /, as: anonymous, expect: "${STATUS}"}]
"""
    environ = {"N": "12", "PORT": "9000", "DEFAULT": "admin", "HOST": "a.example", "ALLOW": "public"}
    config = loaded(text, **environ, YES="True", STATUS="401").config
    assert config is not None
    assert config.tokens.issuer == "12"
    assert (
        config.server.limits.header_count == config.server.limits.body == config.server.timeouts.headers == 12
    )
    assert config.upstreams["default"].targets[0].port == 9000
    assert config.routes[0].path == "/12"
    assert config.routes[0].trust_host is True
    assert config.tests[0].expect == 401
    assert all(type(text) is str for text in (config.tokens.issuer, config.default, config.routes[0].allow))


@pytest.mark.parametrize(
    "value", ["x\nroutes: []", "a: b", "*x", "${OTHER}", "$${x}", "'", '"', "{}", "#", "null"]
)
def test_no_value_can_be_more_than_one_value(loaded: Write, value: str) -> None:
    text = TOKENS.replace("tokens:", "tokens:\n  issuer: ${V}") + "upstream: http://127.0.0.1:9000\n"
    config = loaded(text, V=value).config
    assert config is not None
    assert config.tokens.issuer == value
    assert config.routes == ()


@pytest.mark.parametrize("placeholder", ["${V}", "${V:-x}"])
def test_an_environment_that_is_not_text(loaded: Write, placeholder: str) -> None:
    (problem,) = loaded(f"server: {{public_url: '{placeholder}'}}\n", base=BASE, V="\udcff").problems
    assert problem.sentence == "the variable V is not text in UTF-8"


def test_an_escaped_placeholder_stays(loaded: Write) -> None:
    text = (
        TOKENS.replace("tokens:", "tokens:\n  issuer: a$${B}${C}$D$$") + "upstream: http://127.0.0.1:9000\n"
    )
    config = loaded(text, C="c").config
    assert config is not None
    assert config.tokens.issuer == "a${B}c$D$$"


def test_an_empty_variable_takes_the_default_and_without_one_is_empty(loaded: Write) -> None:
    text = 'server: {trusted_proxies: "${P}", ops_listen: "${OPS:-off}"}\n'
    config = loaded(text, base=BASE, P="", OPS="").config
    assert config is not None
    assert config.server.trusted_proxies == ()
    assert config.server.ops_listen is None


def test_one_variable_can_hold_a_list(loaded: Write) -> None:
    text = 'server: {trusted_proxies: "${P}", listen: "${L}"}\n'
    config = loaded(text, base=BASE, P="10.0.0.0/8, unix", L="127.0.0.1:1,127.0.0.1:2").config
    assert config is not None
    assert [str(network) for network in config.server.trusted_proxies] == ["10.0.0.0/8", "unix"]
    assert [listen.port for listen in config.server.listen] == [1, 2]
    assert "can't be empty" in str(loaded('server: {listen: "${L}"}\n', base=BASE, L=" , ").problems[0])


def test_a_literal_is_never_split(loaded: Write) -> None:
    assert loaded("server: {trusted_proxies: '10.0.0.0/8,unix'}\n", base=BASE).config is None


def test_secrets_from_files(loaded: Write, folder: Path) -> None:
    (folder / "access").write_text(f"{ACCESS}\n")
    (folder / "refresh").write_text(f"{REFRESH}\r\n")
    text = f"""upstream: http://127.0.0.1:9000
tokens: {{access: {{secret: "${{file:{folder}/access}}"}}, refresh: {{secret: "${{file:refresh}}"}}}}
"""
    config = loaded(text).config
    assert config is not None
    assert config.tokens.access.secret.get_secret_value() == ACCESS
    assert config.tokens.refresh.secret.get_secret_value() == REFRESH
    assert ACCESS not in repr(config)


def test_files_that_are_none(loaded: Write, folder: Path) -> None:
    (folder / "large").write_bytes(b"x" * 70_000)
    (folder / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(folder / "pipe")
    for name, words in {
        "large": "large is larger than 64 KiB",
        "binary": "binary is not text in UTF-8",
        "pipe": "pipe is not a regular file",
        "x" * 300: "File name too long".lower(),
        "none": "there is no file none",
    }.items():
        (problem,) = loaded(f"server: {{public_url: '${{file:{name}}}'}}\n", base=BASE).problems
        assert words in problem.sentence


def test_a_dotenv_beside_the_file_is_read_and_the_environment_wins(folder: Path) -> None:
    (folder / "conf").mkdir()
    (folder / "conf" / ".env").write_text(f"JWT_ACCESS_SECRET={ACCESS}\nJWT_REFRESH_SECRET={ACCESS}\n")
    (folder / "conf" / "gateway.yaml").write_text(BASE)
    config = load(Path("conf/gateway.yaml"), environ={"JWT_REFRESH_SECRET": REFRESH}).config
    assert config is not None
    assert config.tokens.refresh.secret.get_secret_value() == REFRESH


def test_mistakes_in_dotenv_have_places_too(loaded: Write, folder: Path) -> None:
    (folder / ".env").write_text("A=1\nthis is no assignment\n")
    assert [str(problem) for problem in loaded(BASE).problems] == [
        ".env:2:1  must be NAME=value; a name has letters, digits and _"
    ]


def test_a_dotenv_that_can_not_be_read(loaded: Write, folder: Path) -> None:
    (folder / ".env").mkdir()
    assert str(loaded(BASE).problems[0]) == ".env:1:1  this is a directory; name the file in it"


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("", {}),
        ("\n\n  # words\n", {}),
        ("A=1", {"A": "1"}),
        ("  A = 1 2  \r\nB=\r\n", {"A": "1 2", "B": ""}),
        ("export A=1\nexport\tB=2\n", {"A": "1", "B": "2"}),
        ("A=1 # words\nB=a#b\nC=#words\n", {"A": "1", "B": "a#b", "C": ""}),
        ("A='$x ${y} \\n # \"'  # words\n", {"A": '$x ${y} \\n # "'}),
        ('A="a\\nb\\t\\"\\\\\\$ # \'"\n', {"A": "a\nb\t\"\\$ # '"}),
        ("A='one\ntwo'\nB=\"three\nfour\"\nC=5", {"A": "one\ntwo", "B": "three\nfour", "C": "5"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=b=c==\n", {"A": "b=c=="}),
        ("A=p$q$$r\n", {"A": "p$q$$r"}),
        ("A=''", {"A": ""}),
    ],
)
def test_dotenv_as_its_users_know_it(text: str, variables: dict[str, str]) -> None:
    assert parse_dotenv(text, ".env") == (variables, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A", "must be NAME=value"),
        ("1A=1", "must be NAME=value"),
        ("A='x", "A: a quote is opened and never closed"),
        ('A="x\\"', "A: a quote is opened and never closed"),
        ("A='x' y", "A: something follows the closing quote"),
        ("A=${B}", "A: ${…} is not filled in here"),
        ('A="${B}"', "A: ${…} is not filled in here"),
    ],
)
def test_dotenv_mistakes_are_named_and_the_rest_is_read(text: str, words: str) -> None:
    variables, (problem,) = parse_dotenv(f"X=1\n{text}\nY=2\n", ".env")
    assert words in problem.sentence
    assert problem.place.line == 2
    assert variables["X"] == "1"


def test_unset_secrets_may_be_accepted_but_nothing_can_use_them(loaded: Write) -> None:
    text = """upstream: http://127.0.0.1:9000
tokens: {access: {secret: "${A}"}, refresh: {secret: "${file:/nowhere/b}"}}
accounts: {database: "postgresql://gateway:${C}@db/gateway"}
rate_limits: {storage: "${D}"}
"""
    assert len(loaded(text).problems) == 4
    config = loaded(text, unset=True).config
    assert config is not None
    secrets = (config.tokens.access.secret, config.tokens.refresh.secret, config.accounts.database)
    for secret in (*secrets, config.rate_limits.storage):
        assert isinstance(secret, UnsetSecret)
        assert str(secret) == "unset"
        assert len(secret) == 0
        assert len({secret}) == 1
        with pytest.raises(LookupError, match="unset"):
            secret.get_secret_value()
    assert secrets[0] != secrets[1]


def test_other_settings_must_be_set_even_then(loaded: Write) -> None:
    (problem,) = loaded("server: {public_url: '${URL}'}\n", base=BASE, unset=True).problems
    assert problem.path == "server.public_url"


def test_a_badly_written_secret_is_a_mistake_even_then(loaded: Write) -> None:
    assert loaded(BASE.replace("${JWT_ACCESS_SECRET}", "${JWT ACCESS}"), unset=True).config is None


def test_a_secret_in_the_file_itself_is_warned_about(loaded: Write) -> None:
    found = loaded(BASE.replace("${JWT_ACCESS_SECRET}", ACCESS))
    (problem,) = found.problems
    assert found.config is not None
    assert problem.warning
    assert ACCESS not in str(problem)
