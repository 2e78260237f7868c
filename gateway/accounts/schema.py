"""Bring the database's schema to this version, or say why it does not fit.

The whole upgrade is one transaction on both databases: it is either done or
it never happened. Several processes that start at once wait for each other.

Alembic is imported only where there is something to migrate or to compare: it
costs a quarter of a second, and at nearly every start the database is at HEAD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from gateway.accounts.database import Database
from gateway.accounts.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

HEAD: Final = "0003"
"""The revision this version needs: that of the last file in `migrations/versions`."""
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
    current = _current(connection)
    return State(
        current=current, head=HEAD, known=current in (None, HEAD) or current in _revisions(connection)
    )


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _revisions(connection: Connection) -> set[str]:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config(connection))
    return {script.revision for script in scripts.walk_revisions()}


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    found = _state(connection)
    if not found.known:
        raise SchemaMismatch(f"the database is at schema {found.current}, which is newer than this gateway")
    from alembic import command

    command.upgrade(_config(connection), "head")


def _drift(connection: Connection) -> list[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    return [repr(difference) for difference in compare_metadata(context, metadata)]


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "gateway:accounts/migrations")
    return config
