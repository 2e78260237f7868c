"""Reading the file: what is refused as a whole, and where everything stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import source
from gateway.config.load import load
from gateway.config.source import Place, Places

from .conftest import BASE, SECRETS, TOKENS, Write


def _only(path: Path) -> str:
    (problem,) = load(path, environ={}).problems
    return str(problem)


def test_no_file(folder: Path) -> None:
    assert _only(Path("gateway.yaml")) == "gateway.yaml:1:1  there is no such file; `gateway init` writes one"


def test_a_directory(folder: Path) -> None:
    (folder / "gateway.yaml").mkdir()
    assert _only(Path("gateway.yaml")) == "gateway.yaml:1:1  this is a directory; name the file in it"


def test_a_name_the_system_refuses(folder: Path) -> None:
    assert _only(Path("x" * 300)).endswith("can't be read: file name too long")


def test_odd_paths_are_no_exception(folder: Path) -> None:
    for path in ("/", ".", "..", "x" * 300 + "/gateway.yaml", "/dev/null/gateway.yaml"):
        assert load(Path(path), environ={}).config is None


def test_a_message_is_one_printable_line(loaded: Write) -> None:
    (problem,) = loaded('"a\\nb\\e[31m": 1\n', base=BASE).problems
    assert str(problem).startswith(r"gateway.yaml:5:1  a\nb\x1b[31m: unknown setting")


def test_a_name_with_a_zero_byte(folder: Path) -> None:
    assert source._reason(ValueError("embedded null byte")) == "a bad file name"


def test_a_file_that_is_too_large(folder: Path) -> None:
    Path("gateway.yaml").write_bytes(b"#" * (source.MAX_BYTES + 1))
    assert _only(Path("gateway.yaml")) == "gateway.yaml:1:1  is larger than 1 MiB"


def test_an_empty_file(loaded: Write) -> None:
    for nothing in (b"", b"\n\n", b"---\n", b"# only words\n"):
        assert [str(problem) for problem in loaded(nothing).problems] == [
            "gateway.yaml:1:1  is empty; `gateway init` writes a first one"
        ]


def test_a_byte_order_mark_and_windows_lines_are_fine(loaded: Write) -> None:
    found = loaded(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert found.config is not None
    assert found.places.of("tokens", "refresh", "secret").line == 4


def test_utf_16_is_not_text(loaded: Write) -> None:
    (problem,) = loaded(BASE.encode("utf-16")).problems
    assert "is not text in UTF-8" in str(problem)


def test_every_duplicate_is_named_and_the_rest_of_the_file_too(loaded: Write) -> None:
    found = loaded("server: {listne: x}\nserver: {}\nroutes: []\nroutes: []\n", base=BASE)
    assert [problem.path for problem in found.problems] == ["server.listne", "server", "routes"]


def test_aliases_work(loaded: Write) -> None:
    routes = "routes:\n  - {path: /a, allow: &staff {users: [a@b.c]}}\n  - {path: /b, allow: *staff}\n"
    config = loaded(routes, base=BASE).config
    assert config is not None
    assert config.routes[0].allow == config.routes[1].allow


def test_only_what_aliases_add_is_counted(loaded: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_EXPANDED", 6)
    routes = "routes:\n  - {path: /a, allow: &staff {users: [a@b.c]}}\n"
    more = "".join(f"  - {{path: /{index}, allow: {{users: [a@b.c]}}}}\n" for index in range(20))
    assert loaded(f"{routes}{more}  - {{path: /b, allow: *staff}}\n", base=BASE).problems == ()
    twice = "".join(f"  - {{path: /{name}, allow: *staff}}\n" for name in ("b", "c", "d"))
    assert "expand to far too much" in str(loaded(routes + twice, base=BASE).problems[0])


def test_mistakes_below_an_alias_point_to_the_anchor(loaded: Write) -> None:
    routes = "routes:\n  - {path: /a, allow: &staff {userz: [a@b.c]}}\n  - {path: /b, allow: *staff}\n"
    first, second = loaded(routes, base=BASE).problems
    assert (first.path, second.path) == ("routes[0].allow.userz", "routes[1].allow.userz")
    assert first.place == second.place


def test_a_place_for_everything(loaded: Write) -> None:
    places = loaded("routes:\n  - path: /x\n    methods: [GET, POST]\n    allow: public\n", base=BASE).places
    assert places.of("routes", 0, "path") == Place("gateway.yaml", 6, 11)
    assert places.of("routes", 0, "methods", 1) == Place("gateway.yaml", 7, 20)
    assert places.of("routes", 0) == Place("gateway.yaml", 6, 5)
    assert places.key("routes", 0, "allow") == Place("gateway.yaml", 8, 5)
    assert places.key("routes", 0) == places.of("routes", 0)


def test_what_is_absent_stands_where_its_nearest_parent_does(loaded: Write) -> None:
    places = loaded("routes:\n  - path: /x\n    allow: public\n", base=BASE).places
    assert places.of("routes", 0, "upstream") == places.of("routes", 0)
    assert places.of("routes", 7, "path") == places.of("routes")
    assert places.of("routes", 0, "path", "deeper") == places.of("routes", 0, "path")
    assert places.key("routes", 0, "upstream") == places.of("routes", 0)
    assert places.of("accounts", "database") == places.of() == places.key() == Place("gateway.yaml", 1, 1)


def test_the_short_upstream_stands_where_it_was_written(loaded: Write) -> None:
    places = loaded("", base=f"{TOKENS}upstream: http://127.0.0.1:9000\n").places
    assert places.of("upstreams", "default") == Place("gateway.yaml", 5, 11)
    assert places.of("upstreams", "default", "url") == places.of("upstreams", "default", "timeouts")


def test_places_without_a_tree() -> None:
    assert Places("x.yaml", None).of("a", 1) == Place("x.yaml", 1, 1)


def test_columns_count_characters_not_bytes(loaded: Write) -> None:
    (problem,) = loaded("server: {listen: 'ü', äöü: 1}\n", base=BASE).problems[1:]
    assert problem.place == Place("gateway.yaml", 5, 23)


@pytest.mark.parametrize(
    ("written", "value"),
    [("12", 12), ("0x10", 16), ("+3", 3), ("1e3", "1e3 is a float"), ("${PORTS}", 7), ('"9"', 9)],
)
def test_numbers_as_yaml_1_2_reads_them(loaded: Write, written: str, value: object) -> None:
    found = loaded(f"server: {{limits: {{header_count: '{written}'}}}}\n".replace("'", ""), base=BASE)
    if "${" in written:
        found = loaded(f'server: {{limits: {{header_count: "{written}"}}}}\n', base=BASE, PORTS="7")
    if isinstance(value, str):
        assert "must be a whole number, not 1000.0" in str(found.problems[0])
    else:
        assert found.config is not None
        assert found.config.server.limits.header_count == value


@pytest.mark.parametrize("word", ["true", "True", "TRUE"])
def test_booleans_as_yaml_1_2_reads_them(loaded: Write, word: str) -> None:
    found = loaded(f"routes:\n  - {{path: /x, hosts: [a], allow: public, trust_host: {word}}}\n", base=BASE)
    assert found.config is not None
    assert found.config.routes[0].trust_host


def test_off_is_a_word_for_the_ops_listener_only(loaded: Write) -> None:
    for off in ("off", "Off", '"off"', "${OPS}"):
        config = loaded(f"server:\n  ops_listen: {off}\n", base=BASE, OPS="off").config
        assert config is not None
        assert config.server.ops_listen is None
    assert loaded("server:\n  public_url: off\n", base=BASE).config is None


def test_problems_come_in_the_order_of_the_file(loaded: Write) -> None:
    found = loaded("routes:\n  - {allow: x}\nserver: {a: 1}\nzzz: 1\n", base=BASE)
    assert [problem.place for problem in found.problems] == sorted(
        problem.place for problem in found.problems
    )


def test_the_process_environment_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    Path("gateway.yaml").write_text(BASE)
    assert load(Path("gateway.yaml")).config is not None
