"""`gateway audit`: what happened, asked from a shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import SECRETS, Command, environment
from tests.cli.test_users import ANA, PASSWORD, Piped, accounts, piped

__all__ = ["accounts", "piped"]
BOB = "bob@example.com"


@pytest.fixture
def history(accounts: Path, piped: Piped, gateway: Command) -> Path:
    """Ana was made, then Bob, and Bob was disabled."""
    for email in (ANA, BOB):
        assert piped(PASSWORD.encode(), f"users add {email} --password-stdin").code == 0
    assert gateway("users", "disable", BOB).code == 0
    return accounts


def test_what_the_command_line_did_is_there_oldest_first(history: Path, gateway: Command) -> None:
    result = gateway("audit")
    assert (result.code, result.err) == (0, "")
    rows = [line.split("\t") for line in result.out.splitlines()]
    assert [row[1:3] for row in rows] == [
        ["user_created", ANA], ["user_created", BOB], ["user_updated", BOB],
    ]  # fmt: skip
    assert all(row[3].startswith("cli:") for row in rows)
    assert rows[2][5] == 'changed={"disabled": true}'


def test_json_has_the_keys_of_the_endpoint(history: Path, gateway: Command) -> None:
    told = json.loads(gateway("audit", "--user", BOB.upper(), "--format", "json").out)
    assert [event["name"] for event in told["items"]] == ["user_created", "user_updated"]
    assert told["items"][0].keys() == {
        "id", "time", "name", "actor", "actorEmail", "address", "requestId", "user", "email", "details",
    }  # fmt: skip


def test_the_newest_are_chosen_and_it_is_said_that_there_are_more(history: Path, gateway: Command) -> None:
    result = gateway("audit", "--limit", "1")
    assert "user_updated" in result.out
    assert len(result.out.splitlines()) == 1
    assert "there are older ones" in result.err
    assert gateway("audit", "--limit", "3").err == ""


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--since", "1h"], 3),
        (["--since", "1h30m", "--until", "1h"], 0),
        (["--since", "2020-01-01"], 3),
        (["--until", "2020-01-01T00:00:00Z"], 0),
        (["--actor", "cli"], 3),
        (["--name", "user_updated", "--name", "user_deleted"], 1),
        (["--address", "192.0.2.1"], 0),
        (["--user", "nobody@example.com"], 0),
    ],
)
def test_filters(history: Path, gateway: Command, words: list[str], count: int) -> None:
    result = gateway("audit", *words)
    assert (result.code, len(result.out.splitlines())) == (0, count)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--name", "nonsense"], 1, "there is no such event; there are"),
        (["--user", "bob"], 1, "user: write an account's id or e-mail address."),
        (["--address", "x"], 1, "address: write an IP address, or unix."),
        (["--since", "yesterday"], 2, "--since: write a duration before now like 2d"),
        (["--limit", "0"], 2, "--limit"),
        (["--follow", "--until", "2d"], 2, "contradict"),
    ],
)
def test_what_can_not_be_asked_is_one_sentence(
    history: Path, gateway: Command, words: list[str], code: int, sentence: str
) -> None:
    result = gateway("audit", *words)
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err
    assert "Traceback" not in result.err


def test_a_deleted_account_is_still_told_of(history: Path, gateway: Command) -> None:
    gateway("users", "delete", BOB, "--yes")
    assert "user_deleted" in gateway("audit", "--user", BOB).out


def test_it_follows_until_it_is_stopped(history: Path, piped: Piped) -> None:
    following = subprocess.Popen(
        [sys.executable, "-m", "gateway", "audit", "--follow", "--limit", "1", "--format", "json"],
        stdout=subprocess.PIPE, text=True, env=environment() | SECRETS,
    )  # fmt: skip
    assert following.stdout is not None
    try:
        assert json.loads(following.stdout.readline())["name"] == "user_updated"
        piped(PASSWORD.encode(), "users add eve@example.com --password-stdin")
        assert json.loads(following.stdout.readline())["email"] == "eve@example.com"
    finally:
        following.terminate()
        rest = following.communicate()[0]
    assert rest == "", "each once"
