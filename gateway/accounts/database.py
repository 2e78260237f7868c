"""The one door to SQLite or PostgreSQL: transactions in threads of our own, and every error turned.

A piece of work is a plain function of a SQLAlchemy connection. It runs whole, in
one thread, inside one transaction: committed when it returns, rolled back when it
raises. It returns values, never a cursor. A caller that is cancelled stops waiting,
and the transaction ends one way or the other in its thread. One that is out of time
stops waiting too; on PostgreSQL it hangs up as well (see `line`), so that no thread waits
for ever for a server that says nothing.

SQLite: one writer thread, since SQLite has one writer anyway and waiting in our
queue is fairer than waiting in its busy handler; readers beside it. `BEGIN IMMEDIATE`
takes the write lock first, so a transaction that has read can always write (a
deferred one may find its snapshot stale and fail at once). The command line and other
processes may share the file.

PostgreSQL: a connection is asked whether it still answers before it is used, so a
restarted server is found again.

The feed of cut-offs has a thread and a connection of its own (`watch`): however many
logins wait, a logout is heard of.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, Result, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from gateway.accounts.engines import (
    BUSY_TIMEOUT_MS,
    SqliteFile,
    parse_url,
    postgres_engine,
    postgres_settings,
    sqlite_engine,
)
from gateway.accounts.line import Line
from gateway.accounts.workers import Workers
from gateway.errors import EmailTaken, GatewayError, GatewayTimeout, InternalError, Unavailable

T = TypeVar("T")
Clock = Callable[[], float]

DEADLINE_S: Final = 15.0
"""How long a caller waits for its transaction in all, the queue included."""
WATCH_DEADLINE_S: Final = 5.0
"""Likewise, in `watch`, unless it says otherwise."""
CLOSING_S: Final = 5.0
"""How long running transactions may take to end when the process does."""
QUEUE: Final = 256
"""Transactions that may wait for a thread."""

_log = logging.getLogger(__name__)


class Database:
    """`sqlite:///file` or `postgresql://…`. Raises ValueError for anything else.

    `clock` is the database's clock. Left out, it *is* the database's: PostgreSQL's
    own, shared by every replica; for SQLite that of the machine that holds the file.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        threads: int = 4,
        queue: int = QUEUE,
        deadline: float = DEADLINE_S,
        busy_timeout_ms: int = BUSY_TIMEOUT_MS,
    ) -> None:
        self._url = parse_url(url)
        self.is_sqlite: Final = self._url.get_backend_name() == "sqlite"
        self._clock = clock
        self._deadline = deadline
        self._busy_timeout_ms = busy_timeout_ms
        self._file = SqliteFile(str(self._url.database)) if self.is_sqlite else None
        self._held: set[Line] = set()
        self._readers = Workers("gateway-db", threads=threads, queue=queue)
        self._writers = self._readers
        if self.is_sqlite:
            self._writers = Workers("gateway-db-write", threads=1, queue=queue)
        self._watcher = Workers("gateway-db-watch", threads=1, queue=1)
        self._engine = self._open(connections=threads + (1 if self.is_sqlite else 0))
        self._watch_engine = self._open(connections=1)

    def __repr__(self) -> str:
        return f"<Database {self._url.render_as_string(hide_password=True)}>"

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The result of `work` in a transaction that only reads."""
        return await self._run(self._readers, self._engine, work, self._deadline, "BEGIN")

    async def write(self, work: Callable[[Connection], T], *, deadline: float | None = None) -> T:
        """The result of `work` in a transaction that may write.

        `work` may have been committed even if this raises GatewayTimeout or is cancelled.
        """
        deadline = deadline or self._deadline
        return await self._run(self._writers, self._engine, work, deadline, "BEGIN IMMEDIATE")

    async def watch(self, work: Callable[[Connection], T], *, deadline: float = WATCH_DEADLINE_S) -> T:
        """As `read`, one at a time, beside everything else, and always on the same connection."""
        return await self._run(self._watcher, self._watch_engine, work, deadline, "BEGIN")

    def now(self, connection: Connection) -> float:
        """Unix seconds by the database's clock."""
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return time.time()
        # Not now(), which is when the transaction began.
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def changed(self, connection: Connection) -> bool:
        """Whether anything may have been committed since this was last asked; only within `watch`.

        SQLite tells it from one number in memory. PostgreSQL can't: True.
        """
        if not self.is_sqlite:
            return True
        before = connection.info.get("data_version")
        connection.info["data_version"] = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        return bool(connection.info["data_version"] != before)

    def dial(self) -> dict[str, Any]:
        """How psycopg connects to the same PostgreSQL, for something else than transactions."""
        _, settings = self._engine.dialect.create_connect_args(self._url)
        ours = postgres_settings(self._url)
        ours.pop("options", None)  # limits of transactions; a pooler may refuse them
        return {**ours, **settings}

    async def ping(self) -> None:
        """Raises Unavailable or GatewayTimeout if the database can't answer now."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())

    async def close(self) -> None:
        """Let running transactions end, drop waiting ones, join the threads, close the connections."""
        impatient = asyncio.get_running_loop().call_later(CLOSING_S, self._hang_up)
        for workers in (self._watcher, self._readers, self._writers):
            await workers.close()
        impatient.cancel()
        self._watch_engine.dispose()
        self._engine.dispose()

    def _open(self, *, connections: int) -> Engine:
        if self.is_sqlite:
            return sqlite_engine(self._url, connections=connections, busy_timeout_ms=self._busy_timeout_ms)
        return postgres_engine(self._url, connections=connections)

    def _hang_up(self) -> None:
        for line in list(self._held):
            line.hang_up()

    async def _run(
        self, workers: Workers, engine: Engine, work: Callable[[Connection], T], deadline: float, begin: str
    ) -> T:
        line = Line()
        try:
            async with asyncio.timeout(deadline):
                return await workers.run(lambda: self._transact(engine, work, begin, line))
        except TimeoutError as error:
            line.hang_up()
            raise GatewayTimeout(retry_after=1) from error

    def _transact(self, engine: Engine, work: Callable[[Connection], T], begin: str, line: Line) -> T:
        try:
            with self._connected(engine, line) as connection:
                connection = connection.execution_options(gateway_begin=begin)
                with connection.begin():
                    return _detached(work(connection))
        except (SQLAlchemyError, engine.dialect.loaded_dbapi.Error, OSError) as error:
            raise turned(error) from error

    @contextmanager
    def _connected(self, engine: Engine, line: Line) -> Iterator[Connection]:
        if self._file is not None:
            self._file.check()
        self._held.add(line)
        try:
            connection = self._answering(engine, line)
            try:
                yield connection
            finally:
                line.release()
                connection.close()
        finally:
            self._held.discard(line)

    def _answering(self, engine: Engine, line: Line) -> Connection:
        connection = engine.connect()
        if self._file is not None:
            self._file.remember()
            return connection
        try:
            return _pinged(connection, line)
        except engine.dialect.loaded_dbapi.Error:
            engine.dispose()  # what died while it lay in the pool did not die alone
            return _pinged(engine.connect(), line)


def _pinged(connection: Connection, line: Line) -> Connection:
    """A connection to PostgreSQL that answers. Raises the driver's error, or OSError if nobody waits."""
    try:
        driver: Any = connection.connection.dbapi_connection
        line.hold(driver.fileno())
        connection.dialect.do_ping(driver)
    except BaseException:
        line.release()
        connection.invalidate()
        connection.close()
        raise
    return connection


def _detached(result: T) -> T:
    """What may leave the thread. A cursor may not: freed by another thread, it resets the error code of
    a SQLite connection that this one is using again, and Python 3.11 then raises SystemError."""
    if isinstance(result, Result):
        raise TypeError("work must return values, not a cursor")
    return result


def turned(error: Exception) -> GatewayError:
    """The one door where the database's errors become ours. What is not the client's doing is logged."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(error, IntegrityError):
        if _is_email_taken(original):
            return EmailTaken()
        _log.error("the database refused a row", exc_info=error)
        return InternalError()
    # The driver's first line names hosts and files, never a value.
    _log.error("the database failed: %s", str(original).partition("\n")[0])
    return (GatewayTimeout if _is_too_slow(original) else Unavailable)(retry_after=1)


def _is_email_taken(original: BaseException) -> bool:
    if isinstance(original, sqlite3.Error):
        return "users.email" in str(original)
    return getattr(getattr(original, "diag", None), "constraint_name", None) == "uq_users_email"


def _is_too_slow(original: BaseException) -> bool:
    """Someone else's lock, or a limit on time, not an absence."""
    if isinstance(original, sqlite3.Error):
        # The low byte of an extended code (SQLITE_BUSY_SNAPSHOT, …) is its family.
        return getattr(original, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    # query_canceled (statement_timeout), lock_not_available (lock_timeout)
    return getattr(original, "sqlstate", None) in {"57014", "55P03"}
