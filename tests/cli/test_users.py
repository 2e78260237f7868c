from __future__ import annotations

import json
import os
import pty
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.accounts.database import Database
from gateway.accounts.passwords import verify
from gateway.cli.accounts import actor
from tests.cli.conftest import MINIMAL, Command, Result, environment

PASSWORD = "correct horse battery"
ANA = "ana@example.com"


@pytest.fixture
def accounts(site: Path) -> Path:
    """A folder whose accounts have cheap passwords."""
    (site / "gateway.yaml").write_text(MINIMAL + "accounts: {bcrypt_cost: 4}\n")
    return site


@pytest.fixture
def piped(
    accounts: Path, gateway: Command, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bytes, str], Result]:
    """Run a command line with these bytes on its standard input."""

    def command(stdin: bytes, words: str) -> Result:
        reader, writer = os.pipe()
        os.write(writer, stdin)
        os.close(writer)
        with os.fdopen(reader) as file:
            monkeypatch.setattr(sys, "stdin", file)
            return gateway(*words.split())

    return command


Piped = Callable[[bytes, str], Result]


@pytest.fixture
def ana(piped: Piped) -> str:
    """The id of an admin who is there already."""
    added = piped(f"{PASSWORD}\n".encode(), f"users add {ANA} --admin --password-stdin --format json")
    return str(json.loads(added.out)["id"])


def shown(gateway: Command, who: str = ANA) -> dict[str, object]:
    told: dict[str, object] = json.loads(gateway("users", "show", who, "--format", "json").out)
    return told


def stored_hash(folder: Path) -> str:
    with sqlite3.connect(folder / "gateway.db") as connection:
        return str(connection.execute("SELECT password_hash FROM users").fetchone()[0])


class TestAdd:
    def test_says_whom(self, piped: Piped) -> None:
        result = piped(b"correct horse", "users add Ana@Example.COM --role b --role a --password-stdin")
        assert result.code == 0
        assert result.out.startswith("added ana@example.com (user, roles a,b), id ")

    def test_stores_a_hash_of_exactly_that_line(self, accounts: Path, piped: Piped) -> None:
        piped(b"  spaces count  \r\n", f"users add {ANA} --password-stdin")
        assert verify("  spaces count  ", stored_hash(accounts), 4).right

    def test_is_audited_under_the_name_of_who_did_it(self, piped: Piped) -> None:
        result = piped(PASSWORD.encode(), f"users add {ANA} --password-stdin")
        event = json.loads(result.err.splitlines()[-1])
        assert (event["event"], event["name"], event["email"]) == ("audit", "user_created", ANA)
        assert event["actor"] == actor()
        assert PASSWORD not in result.out + result.err

    def test_says_that_a_new_database_was_made(self, accounts: Path, piped: Piped, ana: str) -> None:
        again = piped(PASSWORD.encode(), "users add b@example.com --password-stdin")
        assert "made a new database" not in again.err
        (accounts / "gateway.db").unlink()
        result = piped(PASSWORD.encode(), f"users add {ANA} --password-stdin")
        assert f"made a new database: {accounts / 'gateway.db'}\n" in result.err

    @pytest.mark.usefixtures("ana")
    @pytest.mark.parametrize(
        ("stdin", "words", "said"),
        [
            (b"correct horse", f"users add {ANA} --password-stdin", "Another account has this e-mail."),
            (b"correct horse", "users add nobody --password-stdin", "The e-mail address is not valid."),
            (b"correct horse", "users add b@x --role A --password-stdin", "role"),
            (b"short", "users add b@x --password-stdin", "The password must have at least 10 characters."),
            (b"b@example.com", "users add b@example.com --password-stdin", "password"),
            (b"x" * 5000, "users add b@x --password-stdin", "The password must have at most 1024 bytes."),
            (b"", "users add b@x --password-stdin", "stdin must hold the password, on one line."),
            (
                b"two lines\nof words",
                "users add b@x --password-stdin",
                "stdin must hold the password, on one",
            ),
            (
                b"\xff\xfe--------",
                "users add b@x --password-stdin",
                "The password on stdin is not text in UTF-8.",
            ),
        ],
    )
    def test_what_is_refused(self, piped: Piped, stdin: bytes, words: str, said: str) -> None:
        result = piped(stdin, words)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("Error: ")
        assert said in result.err
        assert result.err.count("\n") == 1

    def test_never_waits_for_a_password_where_nobody_can_type_it(self, piped: Piped) -> None:
        result = piped(b"", f"users add {ANA}")
        assert result.code == 2
        assert "There is no terminal to ask for the password on; use --password-stdin." in result.err

    def test_takes_no_password_as_an_argument(self, gateway: Command, accounts: Path) -> None:
        assert gateway("users", "add", ANA, "--password", PASSWORD).code == 2
        assert gateway("users", "add", ANA, PASSWORD).code == 2
        assert gateway("users", "set", ANA, "--password", PASSWORD).code == 2


class TestList:
    def test_of_nobody(self, gateway: Command, accounts: Path) -> None:
        assert gateway("users", "list").out == ""
        assert json.loads(gateway("users", "list", "--format", "json").out) == {"items": []}

    def test_one_line_each_for_a_pipe(self, gateway: Command, ana: str) -> None:
        email, state, roles, created, id_ = gateway("users", "list").out.rstrip("\n").split("\t")
        assert (email, state, roles, id_) == (ANA, "admin", "", ana)
        assert created.endswith("Z")

    def test_the_same_keys_as_the_interface_has(self, gateway: Command, ana: str) -> None:
        (item,) = json.loads(gateway("users", "list", "--format", "json").out)["items"]
        assert set(item) == {"id", "email", "isAdmin", "roles", "disabled", "service", "createdAt"}
        assert item == shown(gateway)

    def test_of_some(self, gateway: Command, piped: Piped, ana: str) -> None:
        piped(PASSWORD.encode(), "users add zoe@example.org --password-stdin")
        assert gateway("users", "list", "--query", "EXAMPLE.org").out.startswith("zoe@example.org\t")

    def test_of_more_than_a_page(
        self, gateway: Command, piped: Piped, ana: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.cli.users.PAGE", 2)
        for number in range(4):
            piped(PASSWORD.encode(), f"users add user{number}@x --password-stdin")
        names = [line.split("\t")[0] for line in gateway("users", "list").out.splitlines()]
        assert names == [ANA, "user0@x", "user1@x", "user2@x", "user3@x"]


class TestShow:
    def test_by_address_in_any_spelling_or_by_id(self, gateway: Command, ana: str) -> None:
        assert shown(gateway, " ANA@example.com") == shown(gateway, ana)

    def test_for_people(self, gateway: Command, ana: str) -> None:
        lines = gateway("users", "show", ANA).out.splitlines()
        assert lines[:3] == [f"email:   {ANA}", "state:   admin", "roles:   "]
        assert lines[4] == f"id:      {ana}"

    @pytest.mark.parametrize("who", ["nobody@example.com", "no-id", "@"])
    def test_of_nobody(self, gateway: Command, ana: str, who: str) -> None:
        result = gateway("users", "show", who)
        assert (result.code, result.err) == (1, "Error: There is no such user.\n")


class TestSet:
    def test_changes_what_is_named_and_nothing_else(self, gateway: Command, piped: Piped, ana: str) -> None:
        piped(PASSWORD.encode(), "users add bob@example.com --admin --password-stdin")
        before = shown(gateway)
        assert gateway("users", "set", ANA, "--role", "b", "--role", "a").out.startswith(
            f"changed {ANA} (admin, "
        )
        assert shown(gateway) == before | {"roles": ["a", "b"]}
        gateway("users", "set", ANA, "--no-admin", "--no-roles", "--email", "New@example.com")
        assert shown(gateway, ana) == before | {"email": "new@example.com", "isAdmin": False}

    def test_a_password_from_a_pipe(self, accounts: Path, piped: Piped, ana: str) -> None:
        assert piped(b"another one, longer\n", f"users set {ANA} --password-stdin").code == 0
        assert verify("another one, longer", stored_hash(accounts), 4).right

    @pytest.mark.parametrize(
        ("words", "said"),
        [("", "Nothing to change"), ("--role a --no-roles", "--role and --no-roles contradict each other.")],
    )
    def test_wrong_usage(self, gateway: Command, ana: str, words: str, said: str) -> None:
        result = gateway("users", "set", ANA, *words.split())
        assert result.code == 2
        assert said in result.err

    def test_json(self, gateway: Command, ana: str) -> None:
        told = json.loads(gateway("users", "set", ANA, "--role", "a", "--format", "json").out)
        assert told == shown(gateway)


def test_the_last_admin_stays(gateway: Command, ana: str) -> None:
    for words in (f"disable {ANA}", f"set {ANA} --no-admin", f"delete {ANA} --yes"):
        result = gateway("users", *words.split())
        assert result.code == 1
        assert result.err == "Error: This is the last admin who can log in; make another one first.\n"


def test_locking_and_unlocking(gateway: Command, piped: Piped, ana: str) -> None:
    piped(PASSWORD.encode(), "users add bob@x --password-stdin")
    assert gateway("users", "disable", "bob@x").out.startswith("disabled bob@x (disabled user), id ")
    assert shown(gateway, "bob@x")["disabled"] is True
    assert gateway("users", "enable", "bob@x").out.startswith("enabled bob@x (user), id ")
    assert shown(gateway, "bob@x")["disabled"] is False


class TestDelete:
    @pytest.fixture(autouse=True)
    def bob(self, piped: Piped, ana: str) -> None:
        piped(PASSWORD.encode(), "users add bob@x --password-stdin")

    def test_when_one_is_sure(self, gateway: Command) -> None:
        assert gateway("users", "delete", "bob@x", "--yes").out.startswith("deleted bob@x (user), id ")
        assert gateway("users", "show", "bob@x").code == 1

    def test_not_where_nobody_can_be_asked(self, gateway: Command, piped: Piped) -> None:
        result = piped(b"y\n", "users delete bob@x")
        assert result.code == 2
        assert "add --yes" in result.err
        assert gateway("users", "show", "bob@x").code == 0


class TestOnATerminal:
    """A person at a real terminal."""

    @pytest.fixture
    def typed(self, accounts: Path) -> Callable[..., tuple[int, str]]:
        def command(words: str, *answers: str) -> tuple[int, str]:
            master, slave = pty.openpty()
            running = subprocess.Popen(
                [sys.executable, "-m", "gateway", *words.split()],
                stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                preexec_fn=take_terminal, env={**environment(), "TERM": "xterm"},
            )  # fmt: skip
            os.close(slave)
            said = b""
            for answer in answers:
                said += read_until(master, b": ")
                os.write(master, answer.encode() + b"\n")
            said += read_until(master, None)
            os.close(master)
            return running.wait(30), said.decode()

        return command

    def test_is_asked_for_the_password_twice_and_never_sees_it(
        self, typed: Callable[..., tuple[int, str]], accounts: Path
    ) -> None:
        code, said = typed(f"users add {ANA} --admin", PASSWORD, "something else", PASSWORD, PASSWORD)
        assert code == 0
        assert "The two entered values do not match." in said
        assert PASSWORD not in said
        assert f"\x1b[32madded {ANA} (admin), id " in said
        assert verify(PASSWORD, stored_hash(accounts), 4).right

    def test_is_asked_before_an_account_is_gone(
        self, typed: Callable[..., tuple[int, str]], gateway: Command, piped: Piped, ana: str
    ) -> None:
        piped(PASSWORD.encode(), "users add bob@x --password-stdin")
        code, said = typed("users delete bob@x", "n")
        assert code == 1
        assert "Delete bob@x for good? [y/N]: " in said
        assert "Stopped." in said
        assert typed("users delete bob@x", "y")[0] == 0
        assert gateway("users", "show", "bob@x").code == 1

    def test_sees_a_table(self, typed: Callable[..., tuple[int, str]], ana: str) -> None:
        _, said = typed("users list")
        assert said.splitlines()[0].startswith("\x1b[1mEMAIL            STATE  ROLES  CREATED")

    def test_may_change_their_mind(self, typed: Callable[..., tuple[int, str]]) -> None:
        code, said = typed(f"users add {ANA}", "\x03")
        assert code == 1
        assert "Traceback" not in said
        assert "Stopped." in said


def take_terminal() -> None:
    """Make standard input the controlling terminal, so that Ctrl-C works and getpass finds it."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_until(descriptor: int, end: bytes | None) -> bytes:
    """What the terminal shows up to `end`, or all of it."""
    said, deadline = b"", time.monotonic() + 30
    while (end is None or not said.endswith(end)) and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                piece = os.read(descriptor, 4096)
            except OSError:  # Linux: the other end is closed
                break
            if not piece:
                break
            said += piece
    return said


class TestTheDatabase:
    def test_that_is_of_a_newer_gateway(self, accounts: Path, gateway: Command, ana: str) -> None:
        with sqlite3.connect(accounts / "gateway.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        result = gateway("users", "list")
        assert result.code == 1
        assert "newer than this gateway" in result.err

    def test_that_waits_for_its_upgrade_is_not_upgraded_in_passing(
        self, gateway: Command, ana: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from gateway.accounts import schema

        async def behind(_: Database) -> schema.State:
            return schema.State(current="0001", head="0003", known=True)

        monkeypatch.setattr(schema, "state", behind)
        result = gateway("users", "list")
        assert (result.code, result.out) == (1, "")
        assert result.err == (
            "Error: the database is at schema 0001, this gateway needs 0003; run `gateway db upgrade`\n"
        )

    def test_that_is_locked_by_another_process(
        self, accounts: Path, gateway: Command, ana: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.accounts.database.BUSY_TIMEOUT_MS", 10)
        monkeypatch.setattr(Database.__init__, "__kwdefaults__", {**DEFAULTS, "busy_timeout_ms": 10})
        with sqlite3.connect(accounts / "gateway.db", isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            result = gateway("users", "disable", ANA)
            other.execute("ROLLBACK")
        assert result.code == 1
        assert "Traceback" not in result.err
        assert result.err == "Error: the database failed: database is locked\n"

    def test_in_a_folder_that_is_not_there(self, site: Path, gateway: Command) -> None:
        (site / "gateway.yaml").write_text(MINIMAL + "accounts: {database: sqlite:///nowhere/x.db}\n")
        result = gateway("users", "list")
        assert result.code == 1
        assert result.err.startswith("Error: the database failed: ")
        assert "nowhere/x.db" in result.err
        assert result.err.count("\n") == 1

    def test_that_is_no_database(self, accounts: Path, gateway: Command) -> None:
        (accounts / "gateway.db").write_text("this is a text file, not a database, and long enough\n" * 99)
        result = gateway("users", "list")
        assert result.code == 1
        assert result.err == "Error: the database failed: file is not a database\n"

    def test_that_is_not_set(self, site: Path, gateway: Command) -> None:
        (site / "gateway.yaml").write_text(MINIMAL + 'accounts: {database: "${NOT_SET}"}\n')
        result = gateway("users", "list")
        assert (result.code, result.err) == (1, "Error: accounts.database is not set; see `gateway check`\n")

    def test_needs_no_secrets(self, gateway: Command, ana: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("JWT_ACCESS_SECRET")
        monkeypatch.delenv("JWT_REFRESH_SECRET")
        assert gateway("users", "list").code == 0


DEFAULTS = dict(Database.__init__.__kwdefaults__ or {})


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert actor() == f"cli:{os.getuid()}"


class TestUnlock:
    def test_an_account_is_unlocked_and_that_is_audited(self, gateway: Command, ana: str) -> None:
        result = gateway("users", "unlock", ANA.upper())
        assert result.code == 0
        assert result.out.startswith(f"unlocked {ANA} (admin), id {ana}")
        assert json.loads(result.err)["name"] == "limits_cleared"
        assert json.loads(gateway("users", "unlock", ana, "--format", "json").out)["id"] == ana

    def test_nobody_is_no_account(self, gateway: Command, ana: str) -> None:
        assert gateway("users", "unlock", "eve@example.com").code == 1
