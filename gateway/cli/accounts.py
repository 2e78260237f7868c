"""The accounts room, opened for one command. It may run beside a gateway on the same database."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.cli.loading import settings

if TYPE_CHECKING:
    from gateway.accounts.database import Database
    from gateway.accounts.service import Accounts
    from gateway.config.schema import Config

T = TypeVar("T")


def with_accounts(config: Path, use: Callable[[Accounts], Awaitable[T]]) -> T:
    """The result of `use`, with the accounts of this configuration."""
    loaded = settings(config)

    async def work(database: Database) -> T:
        await prepare(database)
        async with accounts(loaded, database) as opened:
            return await use(opened)

    return with_database(loaded, work)


def with_database(loaded: Config, use: Callable[[Database], Awaitable[T]]) -> T:
    """The result of `use`, with the database of this configuration."""
    from gateway.accounts.database import Database
    from gateway.accounts.schema import SchemaMismatch

    logging.basicConfig(format="gateway: %(message)s", stream=sys.stderr)

    async def work() -> T:
        database = Database(database_url(loaded))
        try:
            return await use(database)
        finally:
            await database.close()

    try:
        return asyncio.run(work())
    except (SchemaMismatch, ValueError) as error:
        raise click.ClickException(str(error)) from None


def database_url(loaded: Config) -> str:
    try:
        return loaded.accounts.database.get_secret_value()
    except LookupError:
        raise click.ClickException("accounts.database is not set; see `gateway check`") from None


async def prepare(database: Database) -> None:
    """A new SQLite file gets its schema, as `run` would do; a schema in use is never changed in passing."""
    from gateway.accounts import schema

    found = await schema.state(database)
    if found.known and found.current not in (None, found.head):
        raise schema.SchemaMismatch(
            f"the database is at schema {found.current}, this gateway needs {found.head}; "
            "run `gateway db upgrade`"
        )
    await schema.prepare(database)


@asynccontextmanager
async def accounts(loaded: Config, database: Database) -> AsyncIterator[Accounts]:
    from gateway.accounts.passwords import Passwords
    from gateway.accounts.service import Accounts
    from gateway.identity.tokens import AccessTokens, RefreshTokens
    from gateway.telemetry.audit import AuditTrail

    tokens = loaded.tokens
    passwords = Passwords(cost=loaded.accounts.bcrypt_cost)
    # Nobody logs in through the command line: these keys sign nothing, so the real ones are not needed.
    access = AccessTokens(
        secret=secrets.token_bytes(48), issuer="", ttl=int(tokens.access.ttl), leeway=tokens.leeway
    )
    try:
        yield Accounts(
            database=database,
            passwords=passwords,
            access=access,
            refresh=RefreshTokens(secret=secrets.token_bytes(48), issuer="", leeway=tokens.leeway),
            refresh_ttl=tokens.refresh.ttl,
            session_max=tokens.session_max,
            reuse_grace=tokens.refresh.reuse_grace,
            access_life=tokens.access.ttl + tokens.leeway,
            password_min_length=loaded.accounts.password.min_length,
            on_cut=lambda cut: None,  # a running gateway learns of it from the database
            audit=AuditTrail([]).record,
        )
    finally:
        await passwords.close()


def actor() -> str:
    """Who changes something, for the audit trail."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user need not have a name
        return f"cli:{os.getuid()}"
