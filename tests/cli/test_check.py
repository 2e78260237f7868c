from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import trustme

from tests.cli.conftest import MINIMAL, Command

MISTAKES = Path(__file__).parent.parent / "data" / "mistakes"
ROUTES = """\
routes:
  - {path: /admin/**, allow: admin}
tests:
  - {request: GET /admin/users, as: admin, expect: allow}
  - {request: GET /admin/users, as: user, expect: 403, route: /admin/**}
"""


@pytest.mark.parametrize("name", sorted(path.stem for path in MISTAKES.glob("*.yaml")))
def test_every_known_mistake_is_printed_to_the_letter(
    gateway: Command, site: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOT_AN_ADDRESS", "nowhere in particular")
    monkeypatch.setenv("NOT_A_NUMBER", "many")
    shutil.copy(MISTAKES / f"{name}.yaml", site / "gateway.yaml")
    result = gateway("check")
    assert result.out == (MISTAKES / f"{name}.txt").read_text()
    assert (result.code, result.err) == (1, "")


class TestARightFile:
    def test_says_so_and_how_many_tests_hold(self, gateway: Command, site: Path) -> None:
        (site / "gateway.yaml").write_text(MINIMAL + ROUTES)
        result = gateway("check")
        assert (result.code, result.err) == (0, "")
        assert result.out == "gateway.yaml: no mistakes, 2 tests passed\n"

    def test_without_tests(self, gateway: Command, site: Path) -> None:
        assert gateway("check").out == "gateway.yaml: no mistakes, 0 tests passed\n"

    def test_a_failing_test_is_shown_with_its_place_and_the_rule(self, gateway: Command, site: Path) -> None:
        wrong = "  - {request: GET /admin/x, as: anonymous, expect: allow}\n"
        (site / "gateway.yaml").write_text(MINIMAL + ROUTES + wrong)
        result = gateway("check")
        assert result.code == 1
        assert result.out == (
            "gateway.yaml:10:5  GET /admin/x as anonymous: expected allow, got 401 "
            "(no_credential, routes[0] on line 6)\n"
            "gateway.yaml: no mistakes, 1 test failed, 2 tests passed\n"
        )

    def test_a_warning_has_its_place_and_is_no_mistake(self, gateway: Command, site: Path) -> None:
        (site / "gateway.yaml").write_text(MINIMAL + "routes: [{path: /**, allow: public}]\n")
        result = gateway("check")
        assert result.code == 0
        assert result.out.startswith("gateway.yaml:5:")
        assert result.out.endswith("gateway.yaml: no mistakes, 1 warning, 0 tests passed\n")


def test_json_of_a_wrong_file(gateway: Command, site: Path) -> None:
    (site / "gateway.yaml").write_text(MINIMAL + "rotes: []\n")
    result = gateway("check", "--format", "json")
    assert result.code == 1
    told = json.loads(result.out)
    assert (told["ok"], told["tests"]) == (False, [])
    (problem,) = told["problems"]
    assert problem.pop("sentence").startswith("unknown setting")
    assert problem == {"file": "gateway.yaml", "line": 5, "column": 1, "path": "rotes", "warning": False}


def test_json_of_a_right_file(gateway: Command, site: Path) -> None:
    (site / "gateway.yaml").write_text(MINIMAL + ROUTES)
    told = json.loads(gateway("check", "--format", "json").out)
    assert (told["ok"], told["problems"]) == (True, [])
    assert told["tests"][1] == {
        "place": "gateway.yaml:9:5",
        "request": "GET /admin/users",
        "as": "user",
        "expect": 403,
        "got": 403,
        "passed": True,
        "complaint": None,
    }


def test_mistakes_in_the_rules_are_mistakes_of_the_file(gateway: Command, site: Path) -> None:
    (site / "gateway.yaml").write_text(
        MINIMAL + "routes:\n  - {path: /x, allow: admin}\n  - {path: /x, allow: public}\n"
    )
    result = gateway("check")
    assert result.code == 1
    assert "gateway.yaml:7:12  routes[1]: the same requests as routes[0] on line 6" in result.out


def test_unset_secrets_where_that_is_fine(
    gateway: Command, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JWT_ACCESS_SECRET")
    assert gateway("check").code == 1
    assert gateway("check", "--allow-unset").out == "gateway.yaml: no mistakes, 0 tests passed\n"


class TestACertificate:
    @pytest.fixture
    def files(self, site: Path) -> Path:
        """A configuration with TLS in a folder below the current one; its files are issued."""
        folder = site / "below"
        folder.mkdir()
        tls = "server: {public_url: https://a.test, tls: {certificate: tls.crt, key: tls.key}}\n"
        (folder / "gateway.yaml").write_text(MINIMAL + tls)
        issued = trustme.CA().issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
        issued.private_key_pem.write_to_path(folder / "tls.key")
        return folder

    def test_stands_beside_the_file(self, gateway: Command, files: Path) -> None:
        assert gateway("check", "-c", "below/gateway.yaml").code == 0

    def test_that_is_missing_has_its_place_for_check_and_run(self, gateway: Command, files: Path) -> None:
        (files / "tls.key").unlink()
        reason = f"server.tls.key: {files}/tls.key can't be read: no such file or directory"
        line = f"below/gateway.yaml:5:71  {reason}\n"
        checked, ran = (gateway(word, "-c", "below/gateway.yaml") for word in ("check", "run"))
        assert (checked.code, checked.out) == (1, line)
        assert (ran.code, ran.err) == (1, line)

    def test_need_not_be_there_where_secrets_need_not(self, gateway: Command, files: Path) -> None:
        (files / "tls.crt").unlink()
        assert gateway("check", "--allow-unset", "-c", "below/gateway.yaml").code == 0
        (files / "tls.crt").write_text("nonsense")
        assert gateway("check", "--allow-unset", "-c", "below/gateway.yaml").code == 1

    def test_without_tests_of_rules_that_can_not_be_served(self, gateway: Command, files: Path) -> None:
        (files / "tls.key").unlink()
        with (files / "gateway.yaml").open("a") as file:
            file.write("tests: [{request: GET /x, as: anonymous, expect: allow}]\n")
        assert "expected allow" not in gateway("check", "-c", "below/gateway.yaml").out


class TestKeysOfTokens:
    @pytest.fixture
    def keys(self, site: Path) -> Path:
        """A folder of keys, not made yet, that a configuration in another folder names."""
        folder = site / "below"
        folder.mkdir()
        keyed = MINIMAL.replace('secret: "${JWT_ACCESS_SECRET}"', "keys: keys")
        (folder / "gateway.yaml").write_text(keyed)
        return folder / "keys"

    def test_have_their_place_for_check_and_run(self, gateway: Command, keys: Path) -> None:
        checked, ran = (gateway(word, "-c", "below/gateway.yaml") for word in ("check", "run"))
        reason = f"{keys} can't be read: no such file or directory; `gateway keys generate` makes it"
        line = f"below/gateway.yaml:2:18  tokens.access.keys: {reason}\n"
        assert (checked.code, checked.out) == (1, line)
        assert (ran.code, ran.err) == (1, line)

    def test_are_looked_at_each(self, gateway: Command, keys: Path) -> None:
        assert gateway("keys", "generate", "-c", "below/gateway.yaml").code == 0
        assert gateway("check", "-c", "below/gateway.yaml").code == 0
        for pem in keys.glob("*.pem"):
            pem.chmod(0o644)
        checked = gateway("check", "--allow-unset", "-c", "below/gateway.yaml")
        assert checked.code == 1
        assert "can be read by everyone on this machine" in checked.out

    def test_need_not_be_there_where_secrets_need_not(self, gateway: Command, keys: Path) -> None:
        assert gateway("check", "--allow-unset", "-c", "below/gateway.yaml").code == 0
        assert not keys.exists()

    def test_ask_for_the_extra(self, gateway: Command, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gateway("keys", "generate", "-c", "below/gateway.yaml")
        monkeypatch.setitem(sys.modules, "cryptography", None)
        checked = gateway("check", "-c", "below/gateway.yaml")
        assert checked.code == 1
        assert "is not installed: pip install 'auth-gateway[keys]'" in checked.out
        made = gateway("keys", "rotate", "-c", "below/gateway.yaml")
        assert (made.code, made.out) == (1, "")
        assert "pip install 'auth-gateway[keys]'" in made.err


@pytest.mark.parametrize(
    "words", [("check",), ("run",), ("users", "list"), ("db", "check"), ("healthcheck",)]
)
def test_a_file_that_is_not_there(gateway: Command, folder: Path, words: tuple[str, ...]) -> None:
    result = gateway(*words, "-c", "nowhere.yaml")
    assert result.code == 1
    assert "nowhere.yaml:1:1  there is no such file; `gateway init` writes one" in result.out + result.err
    assert result.out + result.err == (result.out or result.err)
    assert list(folder.iterdir()) == []


def test_an_escape_sequence_in_the_file_cannot_drive_the_terminal(gateway: Command, site: Path) -> None:
    (site / "gateway.yaml").write_text(MINIMAL + r'"\e[2J\u202e": 1' + "\n")
    result = gateway("check")
    assert "\\x1b[2J\\u202e" in result.out
    assert "\x1b" not in result.out
    assert "‮" not in result.out


def test_it_touches_nothing(gateway: Command, site: Path) -> None:
    gateway("check")
    assert [path.name for path in site.iterdir()] == ["gateway.yaml"]


def test_patterns_are_looked_at_whatever_else_is_wrong(gateway: Command, site: Path) -> None:
    (site / "gateway.yaml").write_text(
        MINIMAL
        + """\
routes:
  - {path: /a/*, allow: admin}
  - {path: /b//c, alow: admin}
  - {path: d, allow: admin}
  - {path: "${NOWHERE}", allow: admin}
  - [/e/*]
default: public
"""
    )
    checked = gateway("check")
    assert checked.code == 1
    assert [line.split(": ")[0] for line in checked.out.splitlines()] == [
        "gateway.yaml:6:12  routes[0].path",
        "gateway.yaml:7:12  routes[1].path",
        "gateway.yaml:7:19  routes[1].alow",
        "gateway.yaml:8:12  routes[2].path",
        "gateway.yaml:9:12  routes[3].path",
        "gateway.yaml:10:5  routes[4]",
        "gateway.yaml:11:10  default",
    ]
    assert gateway("diff", "gateway.yaml").err == checked.out
    (site / "gateway.yaml").write_text(MINIMAL + "routes: 5\n")
    assert gateway("check").out.startswith("gateway.yaml:5:9  routes: must be a list")


class TestCover:
    def test_names_the_routes_that_no_test_touches(self, gateway: Command, site: Path) -> None:
        more = ROUTES.replace("routes:\n", "routes:\n  - {path: /x, methods: [GET], allow: public}\n")
        (site / "gateway.yaml").write_text(MINIMAL + more)
        assert gateway("check").code == 0
        result = gateway("check", "--cover")
        assert (result.code, result.err) == (1, "")
        assert result.out == (
            "gateway.yaml:6  routes[0]: no test touches GET /x\n"
            "gateway.yaml: no mistakes, 1 route without a test, 2 tests passed\n"
        )
        told = json.loads(gateway("check", "--cover", "--format", "json").out)
        assert (told["ok"], told["uncovered"]) == (
            False, [{"label": "GET /x", "file": "gateway.yaml", "line": 6}],
        )  # fmt: skip

    def test_is_content_when_every_route_decides_some_test(self, gateway: Command, site: Path) -> None:
        (site / "gateway.yaml").write_text(MINIMAL + ROUTES)
        assert gateway("check", "--cover").code == 0

    def test_of_an_included_file(self, gateway: Command, site: Path) -> None:
        (site / "more.yaml").write_text("routes:\n  - {path: /x/**, allow: admin}\n")
        (site / "gateway.yaml").write_text(MINIMAL + "include: more.yaml\n" + ROUTES)
        assert gateway("check", "--cover").out.startswith("more.yaml:2  routes[0]: no test touches /x/**\n")


class TestGithub:
    def test_each_finding_is_an_annotation_at_its_place(self, gateway: Command, site: Path) -> None:
        wrong = "  - {request: GET /admin/x, as: anonymous, expect: allow}\n"
        more = ROUTES.replace("routes:\n", "routes:\n  - {path: /**, allow: public}\n")
        (site / "gateway.yaml").write_text(MINIMAL + more + wrong)
        result = gateway("check", "--cover", "--format", "github")
        assert result.code == 1
        assert result.out.splitlines() == [
            "::warning file=gateway.yaml,line=6,col=12::routes[0]: opens every path that no other route names"
            " to everyone",
            "::error file=gateway.yaml,line=11,col=5::GET /admin/x as anonymous: expected allow, got 401"
            " (no_credential, routes[1] on line 7)",
            "::error file=gateway.yaml,line=6,col=1::routes[0]: no test touches /**",
            "gateway.yaml: no mistakes, 1 warning, 1 route without a test, 1 test failed, 2 tests passed",
        ]

    def test_names_files_from_the_top_of_the_repository(
        self, gateway: Command, site: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """GitHub looks for them there, wherever the step runs; what lies elsewhere keeps its name."""
        (site / "deploy" / "rules").mkdir(parents=True)
        (site / "deploy" / "gateway.yaml").write_text(MINIMAL + "include: [rules/../a.yaml, ../b.yaml]\n")
        (site / "deploy" / "a.yaml").write_text("alow: admin\n")
        (site / "b.yaml").write_text("alow: admin\n")
        monkeypatch.chdir(site / "deploy")

        def files() -> list[str]:
            out = gateway("check", "--format", "github").out
            return [line.partition("=")[2].partition(",")[0] for line in out.splitlines()]

        assert files() == ["../b.yaml", "rules/../a.yaml"]
        monkeypatch.setenv("GITHUB_WORKSPACE", str(site))
        assert files() == ["b.yaml", "deploy/a.yaml"]
        monkeypatch.setenv("GITHUB_WORKSPACE", str(site / "deploy"))
        assert files() == ["../b.yaml", "a.yaml"]

    def test_nothing_in_a_file_begins_a_command_of_its_own(self, gateway: Command, site: Path) -> None:
        """GitHub obeys lines that begin with ::, so breaks, % and the file's own : and , are escaped."""
        name = "a,b:c%d.yaml"
        (site / name).write_text(MINIMAL + '"x\\n::set-output name=y::50%": 1\n')
        result = gateway("check", "--format", "github", "-c", name)
        assert result.code == 1
        (line,) = result.out.splitlines()
        assert line.startswith("::error file=a%2Cb%3Ac%25d.yaml,line=5,col=1::")
        assert "50%25" in line

    def test_a_right_file_has_none(self, gateway: Command, site: Path) -> None:
        (site / "gateway.yaml").write_text(MINIMAL + ROUTES)
        result = gateway("check", "--format", "github")
        assert (result.code, result.out) == (0, "gateway.yaml: no mistakes, 2 tests passed\n")
