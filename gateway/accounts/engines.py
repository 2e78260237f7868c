"""How a SQLite file and a PostgreSQL server are opened.

SQLite: readers beside one writer, thanks to WAL. `synchronous = FULL`: with NORMAL, a
power cut may undo commits that were already answered. That would revive ended sessions,
and make refresh tokens that clients hold unknown.

PostgreSQL: READ COMMITTED, and short limits on statements and locks. There may be a pooler in
between (PgBouncer), which lends a connection to the server for one transaction only, and may
refuse or drop what is asked for when a connection begins. So nothing of ours outlives a
transaction there: no prepared statement, no advisory lock, and where the limits did not arrive,
each transaction sets its own.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

BUSY_TIMEOUT_MS: Final = 5000
"""How long one process waits for another's write lock on a SQLite file."""
STATEMENT_TIMEOUT_MS: Final = 5000
"""How long PostgreSQL may work on one statement, or wait for one lock."""
CONNECT_TIMEOUT_S: Final = 5
"""How long opening a connection to PostgreSQL may take."""
SILENCE_TIMEOUT_MS: Final = 10_000
"""How long PostgreSQL's host may leave our bytes unacknowledged (Linux TCP_USER_TIMEOUT)."""
_LIMITS: Final = {
    "statement_timeout": STATEMENT_TIMEOUT_MS,
    "lock_timeout": STATEMENT_TIMEOUT_MS,
    "idle_in_transaction_session_timeout": 2 * STATEMENT_TIMEOUT_MS,
}
_OPTIONS: Final = " ".join(f"-c {name}={value}" for name, value in _LIMITS.items())
_PREPARED_AFTER: Final = 5
"""Runs of a statement. Prepared on the server each run costs us some 50 µs less."""
_SET_LIMITS: Final = "; ".join(f"SET LOCAL {name} = {value}" for name, value in _LIMITS.items())
_WHO: Final = "SELECT current_setting('statement_timeout'), pg_backend_pid()"
_REFUSED: Final = "unsupported startup parameter"
"""What PgBouncer says, of any version, to options that it is not told to ignore."""
_KEEPALIVE_S: Final = 5
"""When an idle connection is probed, and between two probes; the third unanswered one ends it."""


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


def sqlite_engine(url: URL, *, connections: int, busy_timeout_ms: int) -> Engine:
    """Transactions begin as the execution option `gateway_begin` says."""
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


class SqliteFile:
    """The file as it was when it was first opened.

    A connection keeps the file it has, also when that was renamed or deleted: what is
    written there, the next start never sees. SQLite itself looks for this before it
    writes (SQLITE_READONLY_DBMOVED), but not in WAL mode.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None

    def check(self) -> None:
        """Raises OSError if there is another file now, or none. Before the first `remember`, never."""
        if self._identity is None:
            return
        try:
            same = self._look() == self._identity
        except FileNotFoundError:
            same = False
        if not same:
            raise OSError("the database file was moved, deleted or replaced; put it back, or restart")

    def remember(self) -> None:
        """It is open now."""
        if self._identity is None:
            self._identity = self._look()

    def _look(self) -> tuple[int, int]:
        found = os.stat(self._path)
        return found.st_dev, found.st_ino


def postgres_engine(url: URL, *, connections: int) -> Engine:
    """Raises ValueError if its driver is not installed."""
    try:
        engine = create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            isolation_level="READ COMMITTED",
            connect_args=postgres_settings(url),
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ValueError('PostgreSQL needs its driver: pip install "auth-gateway[postgres]"') from error
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "connect", _drop_notices)
    event.listen(engine, "begin", _limit)
    event.listen(engine, "handle_error", _leave_a_standby)
    return engine


def postgres_settings(url: URL) -> dict[str, Any]:
    """What libpq is told besides the URL, which wins."""
    defaults = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": SILENCE_TIMEOUT_MS,
        "keepalives_idle": _KEEPALIVE_S,
        "keepalives_interval": _KEEPALIVE_S,
        "keepalives_count": 3,
        "application_name": "gateway",
        "options": _OPTIONS,
        "prepare_threshold": None,
    }
    return {name: value for name, value in defaults.items() if name not in url.query}


def _connect(dialect: Any, _entry: ConnectionPoolEntry, args: Any, parameters: dict[str, Any]) -> Any:
    try:
        return dialect.connect(*args, **parameters)
    except dialect.loaded_dbapi.OperationalError as error:
        if _REFUSED not in str(error) or parameters.get("options") != _OPTIONS:
            raise
    return dialect.connect(*args, **parameters | {"options": ""})


def _drop_notices(connection: Any, _entry: ConnectionPoolEntry) -> None:
    """A pooler may lend us a connection on which somebody listens; the driver would keep what it hears."""
    connection.add_notify_handler(lambda notice: None)


def _limit(connection: Connection) -> None:
    """Where the operator has set a limit for the role, that one holds."""
    if "limited" not in connection.info:
        connection.info["limited"] = _meet(connection)
    if not connection.info["limited"]:
        connection.exec_driver_sql(_SET_LIMITS)


def _meet(connection: Connection) -> bool:
    """Once for each: whether there is a limit. Statements may be prepared if nobody stands in between.

    A pooler tells a number of its own where the server would tell that of its process.
    """
    limit, process = connection.exec_driver_sql(_WHO).one()
    driver = connection.connection.driver_connection
    if driver is not None and driver.prepare_threshold is None and driver.info.backend_pid == process:
        driver.prepare_threshold = _PREPARED_AFTER
    return bool(limit != "0")


def _leave_a_standby(failure: ExceptionContext) -> None:
    """A server that takes no writes (read_only_sql_transaction) was demoted; a new connection may find
    the one that was promoted."""
    if getattr(failure.original_exception, "sqlstate", None) == "25006":
        failure.is_disconnect = True


def _create_private(path: str) -> None:
    """Password hashes are the owner's business alone. SQLite gives the WAL the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
