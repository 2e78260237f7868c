"""`gateway sessions`: who is logged in, and ending it from a shell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.accounts.service import Accounts, Client
from gateway.cli.accounts import actor, with_accounts
from tests.cli.conftest import MINIMAL, Command

T = TypeVar("T")
PASSWORD = "correct horse battery"
ANA, BOB = "ana@example.com", "bob@example.com"


@pytest.fixture
def logged_in(site: Path) -> list[str]:
    """Ana is logged in twice, then Bob once: the ids of these sessions."""
    (site / "gateway.yaml").write_text(MINIMAL + "accounts: {bcrypt_cost: 4}\n")

    async def log_in(accounts: Accounts) -> None:
        for email in (ANA, BOB):
            await accounts.users.create(email, PASSWORD)
        for email, program in ((ANA, "Firefox"), (ANA, "curl\x1b[2J"), (BOB, "Safari")):
            await accounts.sessions.log_in(email, PASSWORD, Client("192.0.2.7", program))
            await asyncio.sleep(0.002)  # ids sort by the millisecond

    use(log_in)
    return [session["id"] for session in reversed(use(_listed))]


def use(work: Callable[[Accounts], Awaitable[T]]) -> T:
    return with_accounts(Path("gateway.yaml"), work)


async def _listed(accounts: Accounts) -> list[dict[str, str]]:
    return [{"id": session.id} for session in (await accounts.sessions.list()).items]


def listed(gateway: Command, *who: str) -> list[dict[str, object]]:
    items: list[dict[str, object]] = json.loads(gateway("sessions", "list", *who, "--format", "json").out)[
        "items"
    ]
    return items


class TestList:
    def test_of_one_account(self, gateway: Command, logged_in: list[str]) -> None:
        found = listed(gateway, "Ana@EXAMPLE.com")
        assert [session["id"] for session in found] == [logged_in[1], logged_in[0]]
        assert found[1].keys() == {
            "id", "createdAt", "lastUsedAt", "expiresAt", "address", "userAgent", "userId", "email",
        }  # fmt: skip
        assert (found[1]["email"], found[1]["address"], found[1]["userAgent"]) == (
            ANA,
            "192.0.2.7",
            "Firefox",
        )
        assert listed(gateway, str(found[0]["userId"])) == found

    def test_of_all_a_line_for_each(self, gateway: Command, logged_in: list[str]) -> None:
        result = gateway("sessions", "list")
        rows = [line.split("\t") for line in result.out.splitlines()]
        assert [(row[0], row[1]) for row in rows] == list(
            zip(reversed(logged_in), (BOB, ANA, ANA), strict=True)
        )
        assert rows[0][4:] == ["192.0.2.7", "Safari"]
        assert "\x1b" not in result.out

    def test_more_than_a_page(
        self, gateway: Command, logged_in: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.cli.sessions.PAGE", 1)
        assert [session["id"] for session in listed(gateway)] == logged_in[::-1]

    def test_of_nobody(self, gateway: Command, logged_in: list[str]) -> None:
        for who in ("nobody@example.com", "nobody", "\0"):
            result = gateway("sessions", "list", who)
            assert (result.code, result.out, result.err) == (1, "", "Error: There is no such user.\n")


class TestRevoke:
    def test_one(self, gateway: Command, logged_in: list[str]) -> None:
        result = gateway("sessions", "revoke", logged_in[0])
        assert (result.code, result.out) == (0, "ended 1 session\n")
        event = json.loads(result.err)
        assert (event["name"], event["session"], event["actor"]) == ("session_ended", logged_in[0], actor())
        assert [session["id"] for session in listed(gateway)] == [logged_in[2], logged_in[1]]
        again = gateway("sessions", "revoke", logged_in[0])
        assert (again.code, again.err) == (1, f"Error: There is no session {logged_in[0]}, or it is over.\n")

    def test_several_or_none(self, gateway: Command, logged_in: list[str]) -> None:
        result = gateway("sessions", "revoke", logged_in[0], "x\x1b[2J")
        assert (result.code, result.out) == (1, "")
        assert result.err == "Error: There is no session x\\x1b[2J, or it is over.\n"
        assert len(listed(gateway)) == 3
        result = gateway("sessions", "revoke", *logged_in, "--format", "json")
        assert (result.code, json.loads(result.out)) == (0, {"ended": 3})
        assert listed(gateway) == []

    def test_all_of_one_account(self, gateway: Command, logged_in: list[str]) -> None:
        result = gateway("sessions", "revoke", "--user", ANA)
        assert (result.code, result.out) == (0, f"ended 2 sessions of {ANA}\n")
        assert [session["email"] for session in listed(gateway)] == [BOB]
        assert gateway("sessions", "revoke", "--user", ANA).out == f"ended 0 sessions of {ANA}\n"

    @pytest.mark.parametrize("words", ["", "x --user ana@example.com"])
    def test_one_thing_or_the_other(self, gateway: Command, logged_in: list[str], words: str) -> None:
        result = gateway("sessions", "revoke", *words.split())
        assert result.code == 2
        assert "Name sessions by their ids, or one account by --user." in result.err
        assert len(listed(gateway)) == 3
