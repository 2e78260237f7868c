"""The one door to SQLite or PostgreSQL: transactions in threads of our own, and every error turned.

A piece of work is a plain function of a SQLAlchemy connection. It runs whole, in
one thread, inside one transaction: committed when it returns, rolled back when it
raises. It returns values, never a cursor. A caller that is cancelled or out of time stops waiting, and the
transaction still ends one way or the other in its thread.

SQLite: one writer thread, since SQLite has one writer anyway and waiting in our
queue is fairer than waiting in its busy handler; readers beside it, thanks to
WAL. `BEGIN IMMEDIATE` takes the write lock first, so a transaction that has read
can always write (a deferred one may find its snapshot stale and fail at once).
`synchronous = FULL`: with NORMAL, a power cut may undo commits that were already
answered. That would revive ended sessions, and make refresh tokens that clients
hold unknown. The command line may share the file with a running server.

PostgreSQL: READ COMMITTED, short statement and lock timeouts, and a pool that
pings a connection before use, so that a restarted server is found again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, Result, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from gateway.accounts.workers import Workers
from gateway.errors import EmailTaken, GatewayError, GatewayTimeout, InternalError, Unavailable

T = TypeVar("T")
Clock = Callable[[], float]

BUSY_TIMEOUT_MS: Final = 5000
"""How long one process waits for another's write lock on a SQLite file."""
STATEMENT_TIMEOUT_MS: Final = 5000
"""How long PostgreSQL may work on one statement, or wait for one lock."""
CONNECT_TIMEOUT_S: Final = 5
"""How long opening a connection to PostgreSQL may take."""
SILENCE_TIMEOUT_MS: Final = 10_000
"""How long PostgreSQL's host may leave our bytes unacknowledged (Linux TCP_USER_TIMEOUT)."""
DEADLINE_S: Final = 15.0
"""How long a caller waits for its transaction in all, the queue included."""
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
        self._readers = Workers("gateway-db", threads=threads, queue=queue)
        if self.is_sqlite:
            self._writers = Workers("gateway-db-write", threads=1, queue=queue)
            self._engine = _sqlite_engine(self._url, connections=threads + 1, busy_timeout_ms=busy_timeout_ms)
        else:
            self._writers = self._readers
            self._engine = _postgres_engine(self._url, connections=threads)

    def __repr__(self) -> str:
        return f"<Database {self._url.render_as_string(hide_password=True)}>"

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The result of `work` in a transaction that only reads."""
        return await self._run(self._readers, work, self._deadline, begin="BEGIN")

    async def write(self, work: Callable[[Connection], T], *, deadline: float | None = None) -> T:
        """The result of `work` in a transaction that may write.

        `work` may have been committed even if this raises GatewayTimeout or is cancelled.
        """
        return await self._run(self._writers, work, deadline or self._deadline, begin="BEGIN IMMEDIATE")

    def now(self, connection: Connection) -> float:
        """Unix seconds by the database's clock."""
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return time.time()
        # Not now(), which is when the transaction began.
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    async def ping(self) -> None:
        """Raises Unavailable or GatewayTimeout if the database can't answer now."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())

    async def close(self) -> None:
        """Let running transactions end, drop waiting ones, join the threads, close the connections."""
        await self._readers.close()
        await self._writers.close()
        self._engine.dispose()

    async def _run(
        self, workers: Workers, work: Callable[[Connection], T], deadline: float, *, begin: str
    ) -> T:
        try:
            async with asyncio.timeout(deadline):
                return await workers.run(lambda: self._transact(work, begin))
        except TimeoutError as error:
            raise GatewayTimeout(retry_after=1) from error

    def _transact(self, work: Callable[[Connection], T], begin: str) -> T:
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(gateway_begin=begin)
                with connection.begin():
                    return _detached(work(connection))
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error, OSError) as error:
            raise turned(error) from error


def _detached(result: T) -> T:
    """What may leave the thread. A cursor may not: freed by another thread, it resets the error code of
    a SQLite connection that this one is using again, and Python 3.11 then raises SystemError."""
    if isinstance(result, Result):
        raise TypeError("work must return values, not a cursor")
    return result


def parse_url(url: str) -> URL:
    """A SQLAlchemy URL with our drivers in it. Raises ValueError with a sentence for the operator."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError("not a database URL; write sqlite:///gateway.db or postgresql://…") from error
    match parsed.drivername:
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:" or parsed.host:
                raise ValueError("name a file: sqlite:///gateway.db, or sqlite:////var/lib/gateway.db")
            return parsed
        case "postgresql" | "postgres" | "postgresql+psycopg":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise ValueError(f"{other}:// is not supported; write sqlite:///gateway.db or postgresql://…")


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


def _sqlite_engine(url: URL, *, connections: int, busy_timeout_ms: int) -> Engine:
    engine = create_engine(url, poolclass=QueuePool, pool_size=connections, max_overflow=0)

    def connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        for pragma in (
            f"busy_timeout = {busy_timeout_ms}",  # first: the next one may have to wait
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def creating(_dialect: Any, _entry: ConnectionPoolEntry, _args: Any, _parameters: Any) -> None:
        _create_private(str(url.database))

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options()["gateway_begin"])

    event.listen(engine, "do_connect", creating)
    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


def _create_private(path: str) -> None:
    """Password hashes are the owner's business alone. SQLite gives the WAL the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return


def _postgres_engine(url: URL, *, connections: int) -> Engine:
    defaults = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": SILENCE_TIMEOUT_MS,
        "application_name": "gateway",
        "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={STATEMENT_TIMEOUT_MS}"
        f" -c idle_in_transaction_session_timeout={2 * STATEMENT_TIMEOUT_MS}",
    }
    try:
        return create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            connect_args={name: value for name, value in defaults.items() if name not in url.query},
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ValueError('PostgreSQL needs its driver: pip install "auth-gateway[postgres]"') from error
