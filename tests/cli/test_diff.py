"""`gateway diff` on files and on a real repository."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import MINIMAL, Command, Result

RULES = """\
upstreams:
  default: {url: "http://127.0.0.1:9000"}
  reports: {url: "http://127.0.0.1:9001"}
routes:
  - {path: /health, methods: [GET], allow: public}
  - {path: /admin/**, allow: admin}
  - {path: "/projects/{id}", methods: [DELETE], allow: admin}
  - {path: /files/**, allow: authenticated}
"""
SECRETLESS = MINIMAL.replace("upstream: http://127.0.0.1:9000\n", "")


def git(*words: str) -> None:
    who = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *words], check=True, capture_output=True, env={**os.environ, **who, **nothing})


def write(folder: Path, text: str = RULES, name: str = "gateway.yaml") -> None:
    (folder / name).write_text(SECRETLESS + text)


@pytest.fixture
def repository(folder: Path) -> Path:
    """Rules that were committed; no secret is set, as in CI."""
    git("init", "-q", "-b", "main")
    write(folder)
    git("add", ".")
    git("commit", "-q", "-m", "rules")
    return folder


def rows(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


class TestTwoFiles:
    @pytest.fixture
    def compare(self, gateway: Command, folder: Path) -> Command:
        """Compare the rules with the same after some replacements."""

        def compared(*changes: tuple[str, str], words: tuple[str, ...] = ()) -> Result:
            write(folder, name="old.yaml")
            text = RULES
            for before, after in changes:
                assert before in text
                text = text.replace(before, after)
            write(folder, text, "new.yaml")
            return gateway("diff", "old.yaml", "new.yaml", *words)

        return compared

    def test_that_say_the_same(self, compare: Command) -> None:
        result = compare(("{id}", "{number}"), ("/files/**, allow", "/files/**,   allow"))
        assert (result.code, result.out, result.err) == (
            0,
            "nothing changes: every request gets what it got\n",
            "",
        )

    def test_one_rule_widened(self, compare: Command) -> None:
        result = compare(("[DELETE], allow: admin", "[DELETE], allow: authenticated"))
        assert rows(result.out) == [
            [
                "widened",
                "DELETE /projects/{id}, any host",
                "admin → authenticated",
                "old.yaml:10 → new.yaml:10",
            ]
        ]
        assert result.err == "1 change, 1 of which let anyone pass who did not\n"
        assert result.code == 0

    def test_widened_ones_come_first(self, compare: Command) -> None:
        result = compare(
            ("/health, methods: [GET], allow: public", "/health, methods: [GET], allow: nobody"),
            ("[DELETE], allow: admin", "[DELETE], allow: authenticated"),
            (
                "/files/**, allow: authenticated",
                '/files/**, allow: {roles: {any: [a]}, networks: ["10.0.0.0/8"]}',
            ),
        )
        assert [row[:3] for row in rows(result.out)] == [
            ["widened", "DELETE /projects/{id}, any host", "admin → authenticated"],
            ["narrowed", "/files/**, any method, any host", "authenticated → role a, from 10.0.0.0/8"],
            ["narrowed", "GET /health, any host", "anyone → nobody"],
        ]

    def test_a_change_of_the_default_is_one_line(self, compare: Command) -> None:
        result = compare(("routes:", "default: admin\nroutes:"))
        assert [row[:3] for row in rows(result.out)] == [
            ["narrowed", "any path that no route names, any method, any host", "authenticated → admin"]
        ]

    def test_a_new_rule_takes_from_the_one_above(self, compare: Command) -> None:
        new = "routes:\n  - {path: /files/public/**, allow: public}\n"
        assert [row[:3] for row in rows(compare(("routes:\n", new)).out)] == [
            ["widened", "/files/public/**, any method, any host", "authenticated → anyone"]
        ]

    def test_a_rule_that_is_gone_leaves_its_requests_to_the_default(self, compare: Command) -> None:
        result = compare(("  - {path: /admin/**, allow: admin}\n", ""))
        assert rows(result.out) == [
            ["widened", "/admin/**, any method, any host", "admin → authenticated", "old.yaml:9 → default"]
        ]

    def test_a_rule_that_holds_longer_is_widened(self, compare: Command) -> None:
        files = "/files/**, allow: authenticated"
        result = compare((files, files + ', valid: {until: "2027-01-31"}'))
        assert rows(result.out)[0][0] == "narrowed"
        assert rows(result.out)[0][2] == "authenticated → authenticated, until 2027-01-31"

    def test_the_one_who_is_added_is_named_however_many_there_are(self, compare: Command) -> None:
        def users(count: int) -> str:
            return "{users: [" + ", ".join(f"u{number}@x.test" for number in range(count)) + "]}"

        files = "/files/**, allow: "
        (row,) = rows(compare((files + "authenticated", files + users(6))).out)
        assert row[2].endswith("→ users u0@x.test, u1@x.test, u2@x.test, u3@x.test, u4@x.test, u5@x.test")

    def test_another_backend(self, compare: Command) -> None:
        files = "/files/**, allow: authenticated"
        result = compare((files, files + ", upstream: reports, strip_prefix: /files"))
        assert [row[:3] for row in rows(result.out)] == [
            [
                "moved",
                "/files/**, any method, any host",
                "authenticated; http://127.0.0.1:9000 → http://127.0.0.1:9001 without /files",
            ]
        ]

    def test_a_backend_that_is_only_called_otherwise(self, compare: Command) -> None:
        assert compare(("  reports:", "  statements:")).out.startswith("nothing changes")

    def test_a_server_that_is_another_one(self, compare: Command) -> None:
        result = compare(("http://127.0.0.1:9000", "http://127.0.0.1:9002"))
        assert {row[0] for row in rows(result.out)} == {"moved"}

    def test_what_only_reports_is_open_meanwhile(self, compare: Command) -> None:
        result = compare(("/admin/**, allow: admin", "/admin/**, allow: admin, report_only: true"))
        assert [row[:3] for row in rows(result.out)] == [
            ["widened", "/admin/**, any method, any host", "admin → anyone (reports only: admin)"]
        ]

    def test_what_a_rule_on_trial_asks_opens_nothing(self, gateway: Command, folder: Path) -> None:
        trial = "/admin/**, report_only: true, allow: admin"
        write(folder, RULES.replace("/admin/**, allow: admin", trial), "old.yaml")
        write(
            folder, RULES.replace("/admin/**, allow: admin", trial.replace("allow: admin", "allow: public"))
        )
        result = gateway("diff", "old.yaml", "--fail-on", "widen")
        assert rows(result.out)[0][:3] == [
            "reported", "/admin/**, any method, any host", "anyone (reports only: admin) → anyone",
        ]  # fmt: skip
        assert (result.code, result.err) == (0, "1 change, none of which let anyone pass who did not\n")

    def test_hosts_are_named(self, compare: Command) -> None:
        new = 'routes:\n  - {path: /files/**, hosts: ["*.example.com", api.test], allow: admin}\n'
        assert [row[:3] for row in rows(compare(("routes:\n", new)).out)] == [
            ["narrowed", "/files/**, any method, *.example.com, api.test", "authenticated → admin"]
        ]

    def test_the_gateways_own_paths_may_move(self, compare: Command) -> None:
        result = compare(("routes:", "auth: {prefix: /login}\nroutes:"))
        assert [row[:3] for row in rows(result.out)] == [
            ["widened", "/auth/**, any method, any host", "the gateway itself → authenticated"],
            ["narrowed", "/login/**, any method, any host", "authenticated → the gateway itself"],
        ]

    @pytest.mark.parametrize(
        ("changes", "word", "code"),
        [
            ([("[DELETE], allow: admin", "[DELETE], allow: authenticated")], "widen", 1),
            ([("[DELETE], allow: admin", "[DELETE], allow: nobody")], "widen", 0),
            ([("[DELETE], allow: admin", "[DELETE], allow: nobody")], "change", 1),
            ([("[DELETE], allow: admin", "[DELETE], allow: {roles: {any: [a]}}")], "widen", 1),
            ([], "change", 0),
        ],
    )
    def test_may_fail_a_build(
        self, compare: Command, changes: list[tuple[str, str]], word: str, code: int
    ) -> None:
        assert compare(*changes, words=("--fail-on", word)).code == code

    def test_json(self, compare: Command) -> None:
        change = ("[DELETE], allow: admin", "[DELETE], allow: {users: [ann@x.test], networks: [10.0.0.0/8]}")
        told = json.loads(compare(change, words=("--format", "json")).out)
        assert (told["changed"], told["widened"]) == (True, True)
        (found,) = told["changes"]
        after = found.pop("after")
        before = found.pop("before")
        assert found == {
            "kind": "shifted",
            "respelled": False,
            "path": "/projects/{id}",
            "hosts": [],
            "methods": {"text": "DELETE", "names": ["DELETE"], "allBut": False},
            "example": {"method": "DELETE", "host": "", "path": "/projects/="},
        }
        assert before["rule"] == {"label": "DELETE /projects/{id}", "file": "old.yaml", "line": 10}
        assert after["audience"] == {
            "text": "user ann@x.test, from 10.0.0.0/8",
            "nobody": False,
            "login": True,
            "admin": False,
            "roles": [],
            "users": ["ann@x.test"],
            "scopes": [],
            "networks": ["10.0.0.0/8"],
            "from": None,
            "until": None,
        }
        assert (after["servers"], after["stripPrefix"], after["reportOnly"]) == (
            ["http://127.0.0.1:9000"],
            None,
            None,
        )

    def test_json_of_nothing(self, compare: Command) -> None:
        told = json.loads(compare(words=("--format", "json")).out)
        assert told == {"changed": False, "widened": False, "changes": []}

    def test_a_file_with_mistakes(self, gateway: Command, folder: Path) -> None:
        write(folder, name="old.yaml")
        write(folder, RULES.replace("allow: public", "allow: pubic"), "new.yaml")
        result = gateway("diff", "old.yaml", "new.yaml")
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("new.yaml:8:44  routes[0].allow: ")


class TestARevision:
    def test_against_the_file_of_the_working_tree(self, gateway: Command, repository: Path) -> None:
        write(repository, RULES.replace("/admin/**, allow: admin", "/admin/**, allow: authenticated"))
        for words in (["HEAD:gateway.yaml"], ["HEAD:./gateway.yaml", "gateway.yaml"], ["main:gateway.yaml"]):
            (row,) = rows(gateway("diff", *words).out)
            assert row[:3] == ["widened", "/admin/**, any method, any host", "admin → authenticated"]
        assert row[3] == "main:gateway.yaml:9 → gateway.yaml:9"

    def test_against_what_is_staged_and_two_of_them(self, gateway: Command, repository: Path) -> None:
        write(repository, RULES.replace("/admin/**", "/admins/**"))
        assert gateway("diff", "HEAD:gateway.yaml", ":gateway.yaml").out.startswith("nothing changes")
        git("add", ".")
        assert "/admins/**" in gateway("diff", "HEAD:gateway.yaml", ":gateway.yaml", "--format", "json").out
        git("commit", "-q", "-m", "more")
        assert gateway("diff", "HEAD:gateway.yaml", "--fail-on", "change").code == 0
        assert gateway("diff", "HEAD~1:gateway.yaml", "HEAD:gateway.yaml", "--fail-on", "change").code == 1

    def test_from_a_folder_below(
        self, gateway: Command, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (repository / "below").mkdir()
        monkeypatch.chdir(repository / "below")
        assert gateway("diff", "HEAD:gateway.yaml", "HEAD:../gateway.yaml").out.startswith("nothing changes")

    def test_fills_in_from_the_env_file_beside_it(self, gateway: Command, repository: Path) -> None:
        write(repository, RULES.replace('"http://127.0.0.1:9000"', '"${BACKEND}"'))
        git("commit", "-q", "-a", "-m", "backend")
        (repository / ".env").write_text("BACKEND=http://127.0.0.1:9000\n")
        assert gateway("diff", "HEAD~1:gateway.yaml", "HEAD:gateway.yaml").out.startswith("nothing changes")

    def test_takes_the_included_files_of_the_same_revision(self, gateway: Command, repository: Path) -> None:
        (repository / "rules" / "more").mkdir(parents=True)
        write(repository, "include: rules/staff.yaml\n" + RULES)
        (repository / "rules" / "staff.yaml").write_text("include: more/chiefs.yaml\nroutes: []\n")
        chiefs = repository / "rules" / "more" / "chiefs.yaml"
        chiefs.write_text("routes: [{path: /chiefs/**, allow: nobody}]\n")
        git("add", ".")
        git("commit", "-q", "-m", "more files")
        assert gateway("diff", "HEAD:gateway.yaml").out.startswith("nothing changes")
        chiefs.write_text("routes: [{path: /chiefs/**, allow: admin}]\n")
        (row,) = rows(gateway("diff", "HEAD:gateway.yaml").out)
        assert row == [
            "widened", "/chiefs/**, any method, any host", "nobody → admin",
            "HEAD:rules/more/chiefs.yaml:1 → rules/more/chiefs.yaml:1",
        ]  # fmt: skip
        (row,) = rows(gateway("diff", "HEAD:gateway.yaml", "HEAD~1:gateway.yaml").out)
        assert row[:3] == ["widened", "/chiefs/**, any method, any host", "nobody → authenticated"]

    def test_an_include_that_leaves_the_repository_is_not_followed(
        self, gateway: Command, repository: Path
    ) -> None:
        write(repository, "include: ../outside.yaml\n" + RULES)
        git("commit", "-q", "-a", "-m", "outside")
        result = gateway("diff", "HEAD:gateway.yaml")
        assert (result.code, result.out) == (1, "")
        assert "outside.yaml" in result.err

    def test_an_include_may_go_down_and_up_again(self, gateway: Command, repository: Path) -> None:
        """The folder on the way holds nothing that is taken, and has to be there all the same."""
        (repository / "rules").mkdir()
        (repository / "rules" / "README").write_text("none yet\n")
        write(repository, "include: rules/../more.yaml\n" + RULES)
        (repository / "more.yaml").write_text("routes: [{path: /more, allow: nobody}]\n")
        git("add", ".")
        git("commit", "-q", "-m", "more")
        assert gateway("diff", "HEAD:gateway.yaml").out.startswith("nothing changes")
        (repository / "more.yaml").write_text("routes: [{path: /more, allow: admin}]\n")
        (row,) = rows(gateway("diff", "HEAD:gateway.yaml").out)
        assert row[:3] == ["widened", "/more, any method, any host", "nobody → admin"]

    def test_in_a_bare_repository(
        self, gateway: Command, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(repository, RULES.replace("/admin/**, allow: admin", "/admin/**, allow: nobody"))
        git("commit", "-q", "-a", "-m", "closed")
        git("clone", "-q", "--bare", ".", "bare.git")
        monkeypatch.chdir(repository / "bare.git")
        (row,) = rows(gateway("diff", "HEAD:gateway.yaml", "HEAD~1:gateway.yaml").out)
        assert row[:3] == ["widened", "/admin/**, any method, any host", "nobody → admin"]

    def test_through_a_symbolic_link(self, gateway: Command, repository: Path) -> None:
        (repository / "link.yaml").symlink_to("gateway.yaml")
        git("add", ".")
        git("commit", "-q", "-m", "link")
        assert gateway("diff", "HEAD:link.yaml").out.startswith("nothing changes")

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("HEAD:other.yaml", "HEAD:other.yaml: HEAD has no file other.yaml"),
            ("HEAD:.", "HEAD:.: name a file in the repository"),
            ("HEAD:../gateway.yaml", "HEAD:../gateway.yaml: name a file in the repository"),
            ("HEAD:/etc/passwd", "HEAD:/etc/passwd: name a file in the repository"),
            ("HEAD:other\n.yaml", "HEAD:other\\n.yaml: HEAD has no file other\\n.yaml"),
            ("nothing:gateway.yaml", "nothing: git knows no such revision here"),
            ("HEAD~1:gateway.yaml", "HEAD~1: git knows no such revision here"),
            ("HEAD..main:gateway.yaml", "HEAD..main: git knows no such revision here"),
            ("--output=x:gateway.yaml", "--output=x: no revision begins with -"),
            (":other.yaml", ":other.yaml: what is staged has no file other.yaml"),
        ],
    )
    def test_that_can_not_be_had(self, gateway: Command, repository: Path, name: str, sentence: str) -> None:
        result = gateway("diff", "--", name)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith(f"Error: {sentence}")
        assert result.err.count("\n") == 1
        assert sorted(path.name for path in repository.iterdir()) == [".git", "gateway.yaml"]

    def test_outside_of_a_repository(
        self, gateway: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
        write(folder)
        result = gateway("diff", "HEAD:gateway.yaml")
        assert (result.code, result.err) == (1, "Error: this folder is in no git repository\n")

    def test_without_git(self, gateway: Command, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(repository))
        result = gateway("diff", "HEAD:gateway.yaml")
        assert (result.code, result.err) == (
            1,
            "Error: git is not installed; name files instead of revisions\n",
        )

    def test_mistakes_in_it_have_their_place(self, gateway: Command, repository: Path) -> None:
        write(repository, RULES.replace("allow: public", "allow: pubic"))
        git("commit", "-q", "-a", "-m", "mistake")
        write(repository)
        assert gateway("diff", "HEAD:gateway.yaml").err.startswith(
            "HEAD:gateway.yaml:8:44  routes[0].allow: "
        )

    def test_a_file_with_a_colon_in_its_name_is_a_file(self, gateway: Command, repository: Path) -> None:
        write(repository, name="HEAD:gateway.yaml")
        (repository / "gateway.yaml").unlink()
        assert gateway("diff", "HEAD:gateway.yaml", "HEAD:gateway.yaml").out.startswith("nothing changes")

    def test_as_a_process(self, process: Command, repository: Path) -> None:
        write(repository, RULES.replace("/admin/**, allow: admin", "/admin/**, allow: public"))
        result = process("diff", "HEAD:gateway.yaml", "--fail-on", "widen")
        assert result.code == 1
        assert "admin → anyone" in result.out
