"""What happens when the database is locked, full, read-only, away, slow, or asked for too much."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sqlite3
import stat
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, make_url, text

from gateway.accounts import schema
from gateway.accounts.database import Database, turned
from gateway.accounts.engines import parse_url
from gateway.accounts.feed import Feed
from gateway.accounts.line import Line
from gateway.errors import (
    GatewayTimeout,
    InternalError,
    InvalidRefreshToken,
    Overloaded,
    Unavailable,
)
from tests.accounts.world import HOME, TERMINATE_OTHERS, Clock, World, execute, opened
from tests.support.databases import Postgres, Server, migrate

pytestmark = pytest.mark.anyio


def count_users(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM users")).scalar_one())


def modes(directory: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}


def path_of(url: str) -> Path:
    return Path(str(make_url(url).database))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/file",
        "mysql://x/y",
        "oracle+x://y",
    ],
)
def test_a_url_of_no_use_is_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///gateway\.db"):
        parse_url(url)


def test_postgres_without_its_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=r"auth-gateway\[postgres\]"):
        Database("postgres://localhost/x")


def test_a_password_is_never_shown() -> None:
    database = Database("postgresql://ann:s3cret@localhost/x")
    assert repr(database) == "<Database postgresql+psycopg://ann:***@localhost/x>"


async def test_a_transaction_is_whole(world: World) -> None:
    ann = await world.ann()

    def half(connection: Connection) -> None:
        connection.execute(text("DELETE FROM users"))
        raise LookupError

    with pytest.raises(LookupError):
        await world.database.write(half)
    assert await world.accounts.users.get(ann.id) == ann


async def test_a_cursor_never_leaves_its_thread(url: str) -> None:
    async with opened(url) as database:
        with pytest.raises(TypeError, match="not a cursor"):
            await database.read(lambda connection: connection.execute(text("SELECT 1")))


async def test_the_clock_is_the_databases(url: str) -> None:
    async with opened(url) as database:
        assert abs(await database.read(database.now) - time.time()) < 5


async def test_an_unknown_refusal_is_a_defect_of_ours(world: World, caplog: pytest.LogCaptureFixture) -> None:
    orphan = (
        "INSERT INTO sessions (id, user_id, generation, issued_at, expires_at, rotated_at, created_at,"
        " ends_at, last_used_at, address, user_agent) VALUES ('s', 'nobody', 0, 0, 0, 0, 0, 0, 0, '', '')"
    )
    with pytest.raises(InternalError):
        await world.database.write(execute(orphan))
    assert "refused a row" in caplog.text


async def test_missing_tables_are_no_traceback(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/empty.db") as database:
        await database.ping()
        with pytest.raises(Unavailable):
            await database.read(count_users)


async def test_a_full_queue_says_so_at_once(url: str) -> None:
    async with opened(url, threads=1, queue=1) as database:
        gate = threading.Event()
        busy = [asyncio.ensure_future(database.read(lambda _: gate.wait())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await database.ping()
        gate.set()
        await asyncio.gather(*busy)
        await database.ping()


async def test_a_caller_out_of_time_is_told_and_the_transaction_ends_whole(url: str, clock: Clock) -> None:
    async with opened(url, deadline=0.05) as database:
        world = World(database, clock)
        gate = threading.Event()

        def slow(connection: Connection) -> None:
            gate.wait()
            connection.execute(text("DELETE FROM users"))

        world.database = Database(url, clock=clock)
        world.__post_init__()
        await world.ann()
        with pytest.raises(GatewayTimeout):
            await database.write(slow)
        gate.set()
        await database._writers.close()
        # On PostgreSQL whoever is out of time hangs up.
        assert await world.database.read(count_users) == (0 if database.is_sqlite else 1)
        await world.close()


async def test_a_cancelled_caller_leaves_a_whole_transaction_and_no_thread(url: str, clock: Clock) -> None:
    world = World(Database(url, clock=clock), clock)
    await world.ann()
    started, gate = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> None:
        connection.execute(text("UPDATE users SET version = 7"))
        loop.call_soon_threadsafe(started.set)
        gate.wait()

    task = asyncio.create_task(world.database.write(slow))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    version = await world.database.write(lambda c: c.execute(text("SELECT version FROM users")).scalar_one())
    while version != 7:
        version = await world.database.read(
            lambda c: c.execute(text("SELECT version FROM users")).scalar_one()
        )
    await world.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gateway-")]
    with pytest.raises(Unavailable):
        await world.database.ping()


# SQLite


async def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/new.db") as database:
        await schema.prepare(database)
        assert modes(tmp_path) == dict.fromkeys(["new.db", "new.db-wal", "new.db-shm"], 0o600)


async def test_the_file_is_kept_as_said(sqlite: str) -> None:
    async with opened(sqlite) as database:
        for name, value in [
            ("journal_mode", "wal"),
            ("synchronous", 2),
            ("foreign_keys", 1),
            ("busy_timeout", 5000),
        ]:
            assert (
                await database.write(lambda c, n=name: c.execute(text(f"PRAGMA {n}")).scalar_one()) == value
            )


async def test_a_locked_file_is_waited_for_then_504(sqlite: str, clock: Clock) -> None:
    async with opened(sqlite, clock=clock, busy_timeout_ms=20) as database:
        world = World(database, clock)
        await world.ann()
        session = await world.log_in()
        with closing(sqlite3.connect(path_of(sqlite), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(GatewayTimeout):
                await world.accounts.sessions.refresh(session.refresh_token, HOME)
            assert len((await world.accounts.users.list()).items) == 1  # readers don't wait
            other.execute("ROLLBACK")
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
        await world.passwords.close()


async def test_a_full_disk_loses_no_session(sqlite: str, clock: Clock) -> None:
    async with opened(sqlite, clock=clock) as database:
        world = World(database, clock)
        ann = await world.ann()
        session = await world.log_in()

        def full(connection: Connection) -> None:
            pages = connection.execute(text("PRAGMA page_count")).scalar_one()
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))

        # The one writer thread keeps its connection, and the limit with it.
        await database.write(full)
        outcomes = [await asyncio.gather(world.log_in(), return_exceptions=True) for _ in range(40)]
        assert isinstance(outcomes[-1][0], Unavailable)
        await database.write(execute("PRAGMA max_page_count = 1000000"))
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
        assert await world.accounts.users.get(ann.id) == ann
        await world.passwords.close()


async def test_a_file_that_can_not_be_written_is_503(sqlite: str, clock: Clock) -> None:
    async with opened(sqlite, clock=clock) as database:
        world = World(database, clock)
        await world.ann()
        session = await world.log_in()
        await database.write(execute("PRAGMA query_only = ON"))
        with pytest.raises(Unavailable):
            await world.accounts.sessions.refresh(session.refresh_token, HOME)
        await world.passwords.close()


@pytest.mark.parametrize("place", ["missing/gateway.db", "directory", "garbage.db"])
async def test_a_place_that_is_no_database_is_503(tmp_path: Path, place: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "garbage.db").write_bytes(b"not a database" * 1000)
    async with opened(f"sqlite:///{tmp_path}/{place}") as database:
        with pytest.raises(Unavailable):
            await database.ping()
        with pytest.raises(Unavailable):
            await schema.prepare(database)


async def test_two_processes_may_share_the_file(sqlite: str, clock: Clock) -> None:
    one, two = [World(Database(sqlite, clock=clock), clock) for _ in range(2)]
    feed = Feed(one.database, one.cutoffs.apply)
    await feed.load()
    ann = await one.ann()
    session = await one.log_in()
    await two.accounts.users.delete(ann.id)
    assert one.holds(session.access_token)
    await feed.poll()
    assert not one.holds(session.access_token)
    with pytest.raises(InvalidRefreshToken):
        await one.accounts.sessions.refresh(session.refresh_token, HOME)
    await one.close()
    await two.close()


@pytest.mark.parametrize("how", ["renamed", "deleted", "replaced"])
async def test_a_file_that_is_not_there_any_more_takes_no_writes(
    sqlite: str, clock: Clock, tmp_path: Path, how: str
) -> None:
    """What went into the old file, nobody would find after a restart."""
    file, away = path_of(sqlite), tmp_path / "away.db"
    async with opened(sqlite, clock=clock) as database:
        world = World(database, clock)
        await world.ann()
        session = await world.log_in()
        os.link(file, away)
        file.unlink()
        if how == "replaced":
            shutil.copy(away, file)
        feed = Feed(database, world.cutoffs.apply)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await world.accounts.sessions.refresh(session.refresh_token, HOME)
            with pytest.raises(Unavailable):
                await feed.load()
        assert file.exists() == (how == "replaced")  # no empty one was made in its place
        if how == "renamed":
            away.rename(file)
            await world.accounts.sessions.refresh(session.refresh_token, HOME)
        await world.passwords.close()


# PostgreSQL


async def test_postgres_gone_and_back_needs_no_restart(clock: Clock) -> None:
    server = Server(Path(tempfile.gettempdir()) / f"gateway-postgres-restart-{os.getpid()}")
    try:
        postgres = Postgres(server.url)
        world = World(Database(postgres.migrated(), clock=clock), clock)
        postgres.close()
        await world.ann()
        session = await world.log_in()
        feed = Feed(world.database, world.cutoffs.apply)
        await feed.load()
        server.stop()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await world.database.ping()
            with pytest.raises(Unavailable):
                await world.accounts.sessions.refresh(session.refresh_token, HOME)
            with pytest.raises(Unavailable):
                await world.log_in()
        await feed.poll()
        assert not feed.healthy
        server.start()
        await world.accounts.sessions.refresh(session.refresh_token, HOME)
        await feed.poll()
        assert feed.healthy
        await world.close()
    finally:
        server.remove()


async def test_connections_that_the_server_ended_are_replaced_unnoticed(postgres: Postgres) -> None:
    async with opened(postgres.clean()) as database:
        await asyncio.gather(*(database.read(execute("SELECT pg_sleep(0.05)")) for _ in range(4)))
        await database.write(execute(TERMINATE_OTHERS))
        for _ in range(8):
            await database.ping()


async def test_a_server_that_became_a_standby_is_left(postgres: Postgres) -> None:
    """After a failover the old connections still stand, and refuse every write."""
    async with opened(postgres.clean(), threads=1) as database:
        await database.write(execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
        delete = execute("DELETE FROM users")
        with pytest.raises(Unavailable):
            await database.write(delete)
        await database.write(delete)


async def test_a_frozen_server_holds_nobody_for_long_and_no_thread_for_ever(clock: Clock) -> None:
    server = Server(Path(tempfile.mkdtemp(prefix="gateway-postgres-")))
    try:
        migrate(server.url)
        async with opened(f"{server.url}&connect_timeout=2", clock=clock, deadline=0.5) as database:
            world = World(database, clock)
            await world.ann()
            session = await world.log_in()
            server.freeze()
            for _ in range(6):  # more than there are threads
                with pytest.raises((GatewayTimeout, Unavailable)):
                    await world.accounts.sessions.refresh(session.refresh_token, HOME)
            server.thaw()
            await until_it_answers(database)
            await world.accounts.sessions.refresh(session.refresh_token, HOME)
            server.freeze()
            await world.passwords.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("gateway-")]
    finally:
        server.thaw()
        server.remove()


async def until_it_answers(database: Database) -> None:
    """Threads that are still about to give up are waited for."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(GatewayTimeout, Unavailable):
                return await database.ping()


async def test_who_hangs_up_too_early_gets_no_connection() -> None:
    line = Line()
    line.hang_up()
    with pytest.raises(OSError, match="nobody waits"):
        line.hold(1)


async def test_a_slow_statement_is_504(postgres: Postgres) -> None:
    url = postgres.clean()
    hasty = f"{url}{'&' if '?' in url else '?'}options=-c%20statement_timeout%3D50"
    async with opened(hasty) as database:
        with pytest.raises(GatewayTimeout):
            await database.read(execute("SELECT pg_sleep(5)"))
        await database.ping()


async def test_a_server_that_says_nothing_is_504() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    async with opened(f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x", deadline=0.1) as database:
        with pytest.raises(GatewayTimeout):
            await database.ping()
        silent.close()


def test_an_error_never_tells_values() -> None:
    assert "secret" not in turned(sqlite3.OperationalError("near secret: syntax error")).detail
