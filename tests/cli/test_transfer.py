"""`gateway users import` and `export`: files as people have them, with every mistake that can be in one."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.accounts.transfer import Incoming
from gateway.accounts.values import User
from gateway.cli.account_files import CsvWriter, JsonWriter, Mistake, as_fields, read_accounts
from gateway.cli.accounts import actor
from tests.cli.conftest import MINIMAL, Command

PHP = "$2y$10$.vGA1O9wmRjrwAVXD98HNOgsNpDczlqm3Jq7KnEd1rVAGv3Fykk1a"
"""Of "rasmuslerdorf", from PHP's manual."""
UUID = "0190a0a0-0000-7000-8000-000000000001"
PEOPLE = f"""\
email,passwordHash,isAdmin,roles
Ann@Example.com,{PHP},yes,"analyst auditor"
bob@example.com,,,
"""


@pytest.fixture
def accounts(site: Path) -> Path:
    (site / "gateway.yaml").write_text(MINIMAL + "accounts: {bcrypt_cost: 4}\n")
    return site


def listed(gateway: Command) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(gateway("users", "list", "--format", "json").out)["items"]
    return items


def mistakes(path: Path, written: str | bytes) -> list[tuple[int, str]]:
    path.write_bytes(written if isinstance(written, bytes) else written.encode())
    found = read_accounts(path, path.suffix[1:])
    return [(each.line, each.sentence) for each in found if isinstance(each, Mistake)]


class TestImport:
    def test_a_csv_file(self, accounts: Path, gateway: Command) -> None:
        (accounts / "people.csv").write_text(PEOPLE)
        result = gateway("users", "import", "people.csv")
        assert (result.code, result.out) == (0, "imported 2 accounts\n")
        event = json.loads(result.err.splitlines()[-1])
        assert (event["name"], event["count"], event["admins"]) == ("users_imported", 2, 1)
        assert event["actor"] == actor()
        ann, bob = sorted(listed(gateway), key=lambda user: str(user["email"]))
        assert (ann["email"], ann["isAdmin"], ann["roles"]) == (
            "ann@example.com",
            True,
            ["analyst", "auditor"],
        )
        assert (bob["email"], bob["isAdmin"], bob["roles"]) == ("bob@example.com", False, [])
        assert PHP not in result.out + result.err

    def test_hashes_that_hold_up_others_are_named(self, accounts: Path, gateway: Command) -> None:
        costs = [15, 14, 10, 16]
        rows = [f"u{cost}@x.org,{PHP.replace('$10$', f'${cost}$')}" for cost in costs]
        (accounts / "people.csv").write_text("\n".join(["email,passwordHash", *rows]))
        for words in (["--dry-run"], []):
            result = gateway("users", "import", "people.csv", *words)
            assert result.code == 0
            assert result.err.splitlines()[-5:][:3] == [
                "people.csv:2  its hash has cost 15, 8 times the work of 12",
                "people.csv:5  its hash has cost 16, 16 times the work of 12",
                "2 slow accounts: each try to log in holds up others for seconds, until its owner has logged"
                " in once",
            ]

    def test_a_json_file_whatever_its_name(self, accounts: Path, gateway: Command) -> None:
        (accounts / "people").write_text(json.dumps([{"email": "ann@example.com", "disabled": True}]))
        assert "say which by --format" in gateway("users", "import", "people").err
        assert gateway("users", "import", "people", "--format", "json").code == 0
        assert [(user["email"], user["disabled"]) for user in listed(gateway)] == [("ann@example.com", True)]

    def test_what_excel_saves(self, accounts: Path, gateway: Command) -> None:
        (accounts / "people.csv").write_bytes(b"\xef\xbb\xbf" + PEOPLE.replace("\n", "\r\n").encode())
        assert gateway("users", "import", "people.csv").out == "imported 2 accounts\n"

    def test_a_rehearsal_finds_what_the_performance_would_and_changes_nothing(
        self, accounts: Path, gateway: Command
    ) -> None:
        (accounts / "people.csv").write_text(PEOPLE)
        result = gateway("users", "import", "people.csv", "--dry-run")
        assert (result.code, result.out) == (0, "would import 2 accounts\n")
        assert "users_imported" not in result.err
        assert listed(gateway) == []
        gateway("users", "import", "people.csv")
        result = gateway("users", "import", "people.csv", "--dry-run")
        assert (result.code, result.out) == (1, "")

    def test_accounts_that_exist_stop_it_or_are_left_as_they_are(
        self, accounts: Path, gateway: Command
    ) -> None:
        (accounts / "people.csv").write_text(PEOPLE)
        gateway("users", "import", "people.csv")
        before = listed(gateway)
        (accounts / "more.csv").write_text("email,isAdmin\ncleo@example.com,\nBOB@example.com,true\n")
        result = gateway("users", "import", "more.csv")
        assert (result.code, result.out) == (1, "")
        assert result.err == (
            "more.csv:3  bob@example.com has an account already\nError: 1 mistake; nothing was imported\n"
        )
        assert listed(gateway) == before
        result = gateway("users", "import", "more.csv", "--existing", "skip")
        assert (result.code, result.out) == (0, "imported 1 account, skipped 1 that exist\n")
        assert before == [user for user in listed(gateway) if user["email"] != "cleo@example.com"]

    def test_every_mistake_is_told_at_once_and_nothing_is_imported(
        self, accounts: Path, gateway: Command
    ) -> None:
        (accounts / "bad.csv").write_text(
            "email,passwordHash,isAdmin,roles\n"
            "ann,$2y$10$cut,perhaps,A b\n"
            "good@example.com,,,\n"
            '"Good@example.com\x1b[2J",,,\n'
            '"GOOD@example.com",,,\n'
            "\n"
            "short@example.com,\n"
        )
        result = gateway("users", "import", "bad.csv")
        assert (result.code, result.out) == (1, "")
        assert result.err.splitlines() == [
            "bad.csv:2  email: The e-mail address is not valid.",
            "bad.csv:2  isAdmin: write true or false.",
            "bad.csv:2  passwordHash: write a bcrypt hash: $2a$, $2b$ or $2y$, cost 04 to 16, 53 characters",
            "bad.csv:2  roles: A role is 1 to 64 of the characters a-z 0-9 . _ : -",
            "bad.csv:4  email: The e-mail address is not valid.",
            "bad.csv:5  email: the same as on line 3",
            "bad.csv:7  has 2 values for 4 columns",
            "Error: 7 mistakes; nothing was imported",
        ]
        assert not (accounts / "gateway.db").exists()

    def test_very_many_mistakes_are_counted_and_not_all_printed(
        self, accounts: Path, gateway: Command
    ) -> None:
        (accounts / "bad.csv").write_text("email\n" + "x\n" * 250)
        lines = gateway("users", "import", "bad.csv").err.splitlines()
        assert len(lines) == 101
        assert lines[-1] == "Error: 250 mistakes, of which 100 are shown; nothing was imported"

    def test_a_file_that_changes_in_between(
        self, accounts: Path, gateway: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (accounts / "people.csv").write_text(PEOPLE)

        def nothing_wrong(file: Path, kind: str) -> tuple[list[Mistake], list[Mistake]]:
            file.write_text(PEOPLE + "x,,,\n")
            return [], []

        monkeypatch.setattr("gateway.cli.transfer._looked_at", nothing_wrong)
        result = gateway("users", "import", "people.csv")
        assert (result.code, listed(gateway)) == (1, [])
        assert "people.csv changed while it was read; nothing was imported" in result.err

    @pytest.mark.parametrize("what", ["nowhere.csv", "."])
    def test_no_file(self, accounts: Path, gateway: Command, what: str) -> None:
        result = gateway("users", "import", what)
        assert result.code == 2
        assert "Traceback" not in result.err

    def test_a_pipe_is_refused_and_holds_nobody(self, accounts: Path, gateway: Command) -> None:
        os.mkfifo(accounts / "people.csv")
        result = gateway("users", "import", "people.csv")
        assert result.code == 2
        assert "FILE is read twice, so it can't be a pipe" in result.err


class TestCsv:
    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("", (1, "the column email is missing; the columns are")),
            ("roles\na\n", (1, "the column email is missing")),
            ("email;roles\n", (1, 'unknown column "email;roles"; the columns are email, isAdmin')),
            ("email,password\n", (1, 'unknown column "password"')),
            ("email,email\n", (1, "the column email is there twice")),
            ("email\n\n\nx\n", (4, "email: The e-mail")),
            ('email\n"a\nb"\nx\n', (2, "email: The e-mail")),
            ('email\na@b\n"c@d\n', (3, "can't be read as CSV from here on")),
            ('email\na@b\n"c"@d\n', (3, "can't be read as CSV from here on")),
            (b"email\na@b\n\xe9@b\n", (3, "is not UTF-8")),
            ("email\na@b\0\n", (2, "email: The e-mail")),
            ("email\n" + "x" * 200_000 + "\n", (2, "can't be read as CSV")),
            ("email,createdAt\na@b,2026-01-01\n", (2, "createdAt: write a time from 1970 to 9999")),
            ("email,createdAt\na@b,9999-12-31T23:59:59-12:00\n", (2, "createdAt: write a time from 1970")),
            ("email,createdAt\na@b,9999-12-31T23:59:59.999999Z\n", (2, "createdAt: write a time from 1970")),
            ("email,createdAt\na@b,1969-01-01T00:00:00Z\n", (2, "createdAt: write a time")),
            ("email,createdAt\na@b,x\n", (2, "createdAt: write a time")),
            (f"email,id\na@b,{UUID.upper().replace('0', 'A')}\n", (2, "id: write a UUID in small letters.")),
            (f"email,id\na@b,{UUID}\nc@d,{UUID}\n", (3, "id: the same as on line 2")),
        ],
    )
    def test_a_mistake_is_one_sentence_with_its_line(
        self, tmp_path: Path, written: str | bytes, expected: tuple[int, str]
    ) -> None:
        (line, sentence), *_ = mistakes(tmp_path / "x.csv", written)
        assert line == expected[0]
        assert sentence.startswith(expected[1]), sentence

    def test_words_for_yes_and_no(self, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text(
            "email,isAdmin\na@b,TRUE\nb@b,yes\nc@b,1\nd@b,False\ne@b,no\nf@b,0\ng@b,\n"
        )
        found = [each for each in read_accounts(tmp_path / "x.csv", "csv") if isinstance(each, Incoming)]
        assert [each.is_admin for each in found] == [True] * 3 + [False] * 4


class TestJson:
    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("", (1, "write a list of accounts")),
            ('{"items": []}', (1, "write a list of accounts")),
            ('[{"email": "a@b"},\n 7]', (2, "must be an object with an email")),
            ('[{"email": "a@b"}, "x"]', (1, "must be an object with an email")),
            ('[{"email": "a@b"},\n{"email": "c@d",}]', (2, "can't be read as JSON from here on")),
            (
                '[{"email": "a@b"}\n{"email": "c@d"}]',
                (2, "can't be read as JSON from here on: Expecting ','"),
            ),
            ('[{"email": "a@b"},\n]', (1, "can't be read as JSON from here on: A comma too many")),
            ('[{"email": "a@b"}', (1, "can't be read as JSON from here on")),
            ('[{"email": "a@b"}]\n[]', (1, "something follows the end of the list")),
            ('[\n\n{"roles": []}]', (3, "email is missing")),
            ('[{"email": "a@b", "email": "c@d"}]', (1, "has the same name twice")),
            ('[{"email": null}]', (1, "email: write a string.")),
            ('[{"email": "a@b", "isAdmin": "true"}]', (1, "isAdmin: write true or false.")),
            ('[{"email": "a@b", "isAdmin": NaN}]', (1, "isAdmin: write true or false.")),
            ('[{"email": "a@b", "roles": "a"}]', (1, "roles: write a list of strings.")),
            ('[{"email": "a@b", "roles": [7]}]', (1, "roles[0]: write a string.")),
            ('[{"email": "a@b", "version": 7}]', (1, 'unknown field "version"')),
            ('[{"email": "a@b", "password": "x"}]', (1, 'unknown field "password"')),
            ('[{"email": "\\ud800@b"}]', (1, "email: half a character")),
            (b'[{"email": "a@b"},\n{"email": "\xe9@b"}]', (2, "is not UTF-8")),
            ("[" * 100_000, (1, "is nested too deeply")),
            (f'[{{"email": "a@b"}},\n{"1" * 5_000}]', (2, "holds a number that is too long")),
        ],
    )
    def test_a_mistake_is_one_sentence_with_its_line(
        self, tmp_path: Path, written: str | bytes, expected: tuple[int, str]
    ) -> None:
        (line, sentence), *_ = mistakes(tmp_path / "x.json", written)
        assert line == expected[0]
        assert sentence.startswith(expected[1]), sentence

    def test_an_empty_list_is_fine(self, accounts: Path, gateway: Command) -> None:
        (accounts / "none.json").write_text(" [ ]\n")
        assert gateway("users", "import", "none.json").out == "imported 0 accounts\n"


class TestExport:
    @pytest.mark.parametrize("kind", ["csv", "json"])
    def test_what_goes_out_with_hashes_comes_in_again_the_same(
        self, accounts: Path, gateway: Command, kind: str
    ) -> None:
        (accounts / "people.csv").write_text(PEOPLE)
        gateway("users", "import", "people.csv")
        out = f"out.{kind}"
        result = gateway("users", "export", "--format", kind, "--with-hashes", "-o", out)
        assert (result.code, result.out) == (0, "")
        assert result.err.endswith("exported 2 accounts\n")
        event = json.loads(result.err.splitlines()[0])
        assert (event["name"], event["count"], event["actor"]) == ("hashes_exported", 2, actor())
        assert stat.S_IMODE((accounts / out).stat().st_mode) == 0o600
        everyone = listed(gateway)

        (accounts / "gateway.db").unlink()
        assert gateway("users", "import", out).out == "imported 2 accounts\n"
        assert listed(gateway) == everyone
        again = gateway("users", "export", "--format", kind, "--with-hashes")
        assert again.out == (accounts / out).read_text()

    def test_hashes_only_go_out_if_asked_for(self, accounts: Path, gateway: Command) -> None:
        (accounts / "people.csv").write_text(PEOPLE)
        gateway("users", "import", "people.csv")
        for kind in ("csv", "json"):
            result = gateway("users", "export", "--format", kind)
            assert result.code == 0
            assert "$2" not in result.out + result.err
            assert "ash" not in result.out
            assert "audit" not in result.err
        rows = list(csv.DictReader(io.StringIO(gateway("users", "export").out)))
        assert {row["email"]: row["roles"] for row in rows} == {
            "ann@example.com": "analyst auditor",
            "bob@example.com": "",
        }

    def test_no_file_is_written_over(self, accounts: Path, gateway: Command) -> None:
        (accounts / "out.csv").write_text("precious")
        result = gateway("users", "export", "-o", "out.csv")
        assert (result.code, result.err) == (1, "Error: out.csv is there already; name a new file\n")
        assert (accounts / "out.csv").read_text() == "precious"

    def test_a_file_that_could_not_be_finished_is_gone(self, accounts: Path, gateway: Command) -> None:
        (accounts / "gateway.db").write_text("this is a text file, not a database, and long enough\n" * 99)
        assert gateway("users", "export", "-o", "out.csv").code == 1
        assert not (accounts / "out.csv").exists()

    def test_of_nobody(self, accounts: Path, gateway: Command) -> None:
        assert gateway("users", "export", "--format", "json").out == "[]\n"
        assert gateway("users", "export").out == "email,isAdmin,roles,disabled,id,createdAt\n"

    def test_a_spreadsheet_takes_nothing_for_a_formula(self, tmp_path: Path) -> None:
        for email in ("=1+1@x", "+a@x", "-a@x", "'=a@x", "''@@x"):
            user = User(UUID, email, False, (), False, 0.0, 1)
            out = io.StringIO()
            CsvWriter(out, with_hashes=False).write(as_fields(user, ""))
            cell = out.getvalue().splitlines()[1].split(",")[0].strip('"')
            assert cell == f"'{email}"


def _users() -> st.SearchStrategy[User]:
    names = st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0x2FF, exclude_characters="@"), min_size=1
    )
    emails = st.builds("{}@{}".format, names, names).filter(_is_canonical)
    return st.builds(
        User,
        id=st.uuids().map(str),
        email=emails,
        is_admin=st.booleans(),
        roles=st.lists(st.from_regex(r"[a-z0-9._:-]{1,9}", fullmatch=True), unique=True)
        .map(sorted)
        .map(tuple),
        disabled=st.booleans(),
        created_at=st.integers(0, 2**33 * 1000).map(lambda ms: ms / 1000),
        version=st.just(1),
    )


def _is_canonical(email: str) -> bool:
    from gateway.accounts.emails import canonical_or_empty

    return canonical_or_empty(email) == email


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(
    everyone=st.lists(_users(), max_size=5, unique_by=(lambda user: user.email, lambda user: user.id)),
    kind=st.sampled_from(["csv", "json"]),
    hashed=st.booleans(),
)
def test_whatever_is_written_is_read_as_the_same(
    tmp_path: Path, everyone: list[User], kind: str, hashed: bool
) -> None:
    path = tmp_path / "x"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = (CsvWriter if kind == "csv" else JsonWriter)(file, with_hashes=hashed)
        for user in everyone:
            writer.write(as_fields(user, PHP if hashed else ""))
        writer.end()
    found = list(read_accounts(path, kind))
    assert all(isinstance(each, Incoming) for each in found), found
    assert [
        (each.email, each.is_admin, each.roles, each.disabled, each.id, each.password_hash)
        for each in found
        if isinstance(each, Incoming)
    ] == [
        (user.email, user.is_admin, user.roles, user.disabled, user.id, PHP if hashed else "")
        for user in everyone
    ]
    moments = [each.created_at for each in found if isinstance(each, Incoming)]
    assert moments == pytest.approx([user.created_at for user in everyone], abs=0.001)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(written=st.binary(max_size=80) | st.text(max_size=80).map(lambda text: f"email\n{text}".encode()))
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_no_file_whatever_is_in_it_ends_in_an_error_of_ours(
    tmp_path: Path, written: bytes, kind: str
) -> None:
    (tmp_path / "x").write_bytes(written)
    for found in read_accounts(tmp_path / "x", kind):
        assert isinstance(found, Mistake | Incoming)
        assert found.line >= 1
