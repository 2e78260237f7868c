from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import MINIMAL, Command

pytestmark = pytest.mark.usefixtures("site")


def change(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / "gateway.db") as connection:
        connection.execute(statement)


def test_a_new_file_is_upgraded_once(gateway: Command) -> None:
    first = gateway("db", "upgrade")
    assert first.code == 0
    assert first.out.startswith("upgraded from schema none to 0")
    second = gateway("db", "upgrade")
    assert second.code == 0
    assert second.out.startswith("up to date at schema 0")


def test_check_before_and_after(gateway: Command) -> None:
    before = gateway("db", "check")
    assert before.code == 1
    assert before.out.startswith("at schema none, needs 0")
    assert before.out.endswith(": gateway db upgrade\n")
    gateway("db", "upgrade")
    after = gateway("db", "check")
    assert after.code == 0
    assert after.out.startswith("up to date at schema 0")


def test_a_newer_gateways_database(gateway: Command, site: Path) -> None:
    gateway("db", "upgrade")
    change(site, "UPDATE alembic_version SET version_num = '9999'")
    assert gateway("db", "check").out == (
        "at schema 9999, which is newer than this gateway; update the gateway\n"
    )
    result = gateway("db", "upgrade")
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error: the database is at schema 9999, which is newer than this gateway\n"


def test_a_table_that_somebody_changed(gateway: Command, site: Path) -> None:
    gateway("db", "upgrade")
    change(site, "ALTER TABLE users ADD COLUMN nickname TEXT")
    result = gateway("db", "check")
    assert result.code == 1
    assert "but the tables differ from it:\n" in result.out
    assert "nickname" in result.out


def test_a_server_that_is_not_there(gateway: Command, site: Path) -> None:
    (site / "gateway.yaml").write_text(
        MINIMAL + "accounts: {database: 'postgresql://u:hunter2@127.0.0.1:1/gateway'}\n"
    )
    result = gateway("db", "check")
    assert result.code == 1
    assert result.err.startswith("Error: the database failed: connection")
    assert result.err.count("\n") == 1
    assert "hunter2" not in result.err
