"""`gateway db`: the schema of the database, changed only when asked (or, for SQLite, by `run`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.accounts import with_database
from gateway.cli.loading import settings
from gateway.cli.options import config_option
from gateway.cli.output import say

if TYPE_CHECKING:
    from gateway.accounts.database import Database
    from gateway.accounts.schema import State


@click.group()
def db() -> None:
    """Upgrade or check the database.

    A SQLite file is upgraded by `gateway run` as well. PostgreSQL is upgraded by this command
    only, once per release, before the new version starts.

    \b
    Example:
      gateway db check || gateway db upgrade
    """


@db.command()
@config_option
def upgrade(config: Path) -> None:
    """Bring the database to the schema of this version.

    Everything happens in one transaction: it is done, or nothing was changed. A database
    that is up to date is left alone; one of a newer gateway is refused.

    \b
    Example:
      gateway db upgrade -c /etc/gateway/gateway.yaml
    """
    before, after = with_database(settings(config), _upgrade)
    if before.current == after.current:
        say(f"up to date at schema {after.current}")
    else:
        say(f"upgraded from schema {before.current or 'none'} to {after.current}", fg="green")


@db.command()
@config_option
def check(config: Path) -> int:
    """Say whether the database fits this version; change nothing.

    Exit 0 if it does, else 1: a missing upgrade, a newer gateway's database, or a table that
    somebody changed by hand.

    \b
    Example:
      gateway db check
    """
    state, differences = with_database(settings(config), _check)
    if not state.known:
        say(f"at schema {state.current}, which is newer than this gateway; update the gateway", fg="red")
    elif state.current != state.head:
        say(f"at schema {state.current or 'none'}, needs {state.head}: gateway db upgrade", fg="red")
    elif differences:
        say(f"at schema {state.current}, but the tables differ from it:", fg="red")
        for difference in differences:
            say(f"  {difference}")
    else:
        say(f"up to date at schema {state.current}", fg="green")
        return 0
    return 1


async def _upgrade(database: Database) -> tuple[State, State]:
    from gateway.accounts import schema

    before = await schema.state(database)
    await schema.upgrade(database)
    return before, await schema.state(database)


async def _check(database: Database) -> tuple[State, list[str]]:
    from gateway.accounts import schema

    state = await schema.state(database)
    fits = state.known and state.current == state.head
    return state, await schema.drift(database) if fits else []
