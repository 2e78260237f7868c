"""The accounts room, opened for one command. It may run beside a gateway on the same database."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.cli.loading import settings
from gateway.cli.output import complain, printable
from gateway.errors import GatewayError, GatewayTimeout, Unavailable

if TYPE_CHECKING:
    from gateway.accounts.database import Database
    from gateway.accounts.service import Accounts, User
    from gateway.config.schema import Config
    from gateway.telemetry.audit import Event

T = TypeVar("T")


def with_accounts(config: Path, use: Callable[[Accounts], Awaitable[T]]) -> T:
    """The result of `use`, with the accounts of this configuration."""
    loaded = settings(config)

    async def work(database: Database) -> T:
        await prepare(database, loaded)
        async with accounts(loaded, database) as opened:
            return await use(opened)

    return with_database(loaded, work)


def with_database(loaded: Config, use: Callable[[Database], Awaitable[T]]) -> T:
    """The result of `use`, with the database of this configuration."""
    from gateway.accounts.database import Database
    from gateway.accounts.schema import SchemaMismatch

    async def work() -> T:
        database = Database(database_url(loaded))
        try:
            return await use(database)
        finally:
            await database.close()

    with listening(logging.getLogger("gateway.accounts")) as heard:
        try:
            return asyncio.run(work())
        except (SchemaMismatch, ValueError) as error:
            raise click.ClickException(str(error)) from None
        except (Unavailable, GatewayTimeout) as error:
            # The error is for clients and says little; what was logged for the operator says why.
            raise click.ClickException(printable(heard[-1] if heard else error.detail)) from None


def note(loaded: Config, events: Sequence[Event]) -> None:
    """Tell the audit trail what was done outside of the database. Without one, the log has to do."""
    from gateway.telemetry.audit import AuditTrail, to_log

    try:
        with_database(loaded, partial(_note, loaded, events))
    except (click.ClickException, GatewayError) as error:
        for event in events:
            AuditTrail([to_log(write_audit_line)]).record(event)
        why = error.message if isinstance(error, click.ClickException) else error.detail
        complain(f"not in the audit trail of the database: {why}", fg="yellow")


async def _note(loaded: Config, events: Sequence[Event], database: Database) -> None:
    from gateway.accounts import schema

    if database.is_sqlite and not sqlite_file(database_url(loaded)).exists():
        raise click.ClickException("there is none yet")
    found = await schema.state(database)
    if found.current != found.head:
        raise click.ClickException("its schema is not this version's; see `gateway db check`")
    async with accounts(loaded, database) as opened:
        await opened.note(events)


class Hearing(logging.Handler):
    """Keeps what is logged; a logger with a handler prints nothing by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


@contextmanager
def listening(logger: logging.Logger) -> Iterator[list[str]]:
    """What is logged while the body runs."""
    hearing = Hearing()
    logger.addHandler(hearing)
    try:
        yield hearing.heard
    finally:
        logger.removeHandler(hearing)


def database_url(loaded: Config) -> str:
    try:
        return loaded.accounts.database.get_secret_value()
    except LookupError:
        raise click.ClickException("accounts.database is not set; see `gateway check`") from None


async def prepare(database: Database, loaded: Config) -> None:
    """A new SQLite file gets its schema, as `run` would do; a schema in use is never changed in passing."""
    from gateway.accounts import schema

    found = await schema.state(database)
    if found.known and found.current not in (None, found.head):
        raise schema.SchemaMismatch(
            f"the database is at schema {found.current}, this gateway needs {found.head}; "
            "run `gateway db upgrade`"
        )
    await schema.prepare(database)
    if found.current is None:
        complain(f"made a new database: {sqlite_file(database_url(loaded))}")


def sqlite_file(url: str) -> Path:
    """Its whole path: a relative one starts at the working directory, which may be a surprise."""
    return Path(url.removeprefix("sqlite:///")).absolute()


@asynccontextmanager
async def accounts(loaded: Config, database: Database) -> AsyncIterator[Accounts]:
    from gateway.accounts.passwords import Passwords
    from gateway.accounts.service import Accounts, SessionRules, TokenRules
    from gateway.identity.keyset import KeySet
    from gateway.identity.tokens import AccessTokens, RefreshTokens
    from gateway.policy.reach import mistake
    from gateway.telemetry.audit import AuditTrail, to_log

    tokens = loaded.tokens
    passwords = Passwords(cost=loaded.accounts.bcrypt_cost)
    # Nobody logs in through the command line: these keys sign nothing, so the real ones are not needed.
    access = AccessTokens(
        keys=KeySet([secrets.token_bytes(48)]), issuer="", ttl=int(tokens.access.ttl), leeway=tokens.leeway
    )
    try:
        yield Accounts(
            database=database,
            passwords=passwords,
            access=access,
            refresh=RefreshTokens(keys=KeySet([secrets.token_bytes(48)]), issuer="", leeway=tokens.leeway),
            session_rules=SessionRules(
                refresh_ttl=tokens.refresh.ttl,
                session_max=tokens.session_max,
                reuse_grace=tokens.refresh.reuse_grace,
            ),
            access_life=tokens.access.ttl + tokens.leeway,
            password_min_length=loaded.accounts.password.min_length,
            token_rules=TokenRules(
                max_ttl=loaded.api_tokens.max_ttl,
                per_user=loaded.api_tokens.per_user,
                mistake=mistake,
            ),
            on_cut=lambda cut: None,  # a running gateway learns of it from the database
            audit=AuditTrail([to_log(write_audit_line)]),
        )
    finally:
        await passwords.close()


async def find_user(accounts: Accounts, who: str) -> User:
    """By e-mail or by id. Raises NotFound."""
    return await (accounts.users.find(who) if "@" in who else accounts.users.get(who))


def write_audit_line(line: bytes) -> None:
    """To stderr: whoever collects what this command says has the same lines as from `run`."""
    complain(line.decode().rstrip("\n"), dim=True)


def actor() -> str:
    """Who changes something, for the audit trail."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user need not have a name
        return f"cli:{os.getuid()}"
