"""Bring the database's schema to this version, or say why it does not fit.

The whole upgrade is one transaction on both databases: it is either done or
it never happened. Several processes that start at once wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from gateway.accounts.database import Database
from gateway.accounts.tables import metadata

UPGRADE_DEADLINE_S: Final = 3600.0
"""A later migration may have to rewrite a large table."""
_LOCK: Final = 0x67617465
"""The key of PostgreSQL's advisory lock for upgrades ("gate" in ASCII)."""


class SchemaMismatch(Exception):
    """The database is not at this version's schema. The text tells the operator what to do."""


@dataclass(frozen=True, slots=True)
class State:
    """Where the database stands."""

    current: str | None
    """The revision the database is at; None for an empty one."""
    head: str
    """The revision this version of the gateway needs."""
    known: bool
    """False if a newer gateway made the database: `current` is none of our revisions."""


async def prepare(database: Database) -> None:
    """What `run` does first: upgrade SQLite; on PostgreSQL only check. Raises SchemaMismatch."""
    found = await state(database)
    if not found.known:
        raise SchemaMismatch(
            f"the database is at schema {found.current}, which is newer than this gateway; update the gateway"
        )
    if found.current == found.head:
        return
    if not database.is_sqlite:
        raise SchemaMismatch(
            f"the database is at schema {found.current or 'none'}, this gateway needs {found.head}; "
            "run `gateway db upgrade`"
        )
    await upgrade(database)


async def state(database: Database) -> State:
    """Compare the database's revision with ours."""
    return await database.read(_state)


async def upgrade(database: Database) -> None:
    """Run the missing migrations. Raises SchemaMismatch if the database is newer than this gateway."""
    await database.write(_upgrade, deadline=UPGRADE_DEADLINE_S)


async def drift(database: Database) -> list[str]:
    """Every difference between the real schema and `tables`; empty when all is well."""
    return await database.read(_drift)


def _state(connection: Connection) -> State:
    scripts = ScriptDirectory.from_config(_config(connection))
    current = MigrationContext.configure(connection).get_current_revision()
    known = current is None or current in {script.revision for script in scripts.walk_revisions()}
    return State(current=current, head=str(scripts.get_current_head()), known=known)


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    found = _state(connection)
    if not found.known:
        raise SchemaMismatch(f"the database is at schema {found.current}, which is newer than this gateway")
    command.upgrade(_config(connection), "head")


def _drift(connection: Connection) -> list[str]:
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    return [repr(difference) for difference in compare_metadata(context, metadata)]


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "gateway:accounts/migrations")
    return config
