"""`gateway sessions`: who is logged in, from where, and ending it; a running gateway feels it at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.accounts import actor, find_user, with_accounts
from gateway.cli.options import InOrder, config_option, format_option
from gateway.cli.output import counted, printable, say, say_json, say_table

if TYPE_CHECKING:
    from gateway.accounts.service import Accounts
    from gateway.accounts.values import OpenSession

PAGE = 200
"""Sessions read at a time."""


@click.group(cls=InOrder)
def sessions() -> None:
    """List and end sessions: logins that are not over.

    Works beside a running gateway on the same database; it feels an end within a second or two,
    also in tokens that are in use.

    \b
    Example:
      gateway sessions list ana@example.com
      gateway sessions revoke --user ana@example.com
    """


@sessions.command("list")
@click.argument("who", metavar="[EMAIL]", required=False)
@config_option
@format_option
def list_(who: str | None, config: Path, output: str) -> None:
    """List open sessions, the latest login first.

    EMAIL, or an account's id, chooses those of one account; without it they are everybody's.

    \b
    Example:
      gateway sessions list ana@example.com
      gateway sessions list --format json | jq -r '.items[] | select(.address == "192.0.2.7") | .id'
    """
    found = with_accounts(config, lambda accounts: _all(accounts, who))
    if output == "json":
        say_json({"items": [_as_json(session) for session in found]})
    else:
        say_table(("id", "email", "login", "last used", "address", "program"), map(_row, found))


@sessions.command()
@click.argument("ids", metavar="[SESSION]...", nargs=-1)
@click.option("--user", "who", metavar="EMAIL", help="All sessions of this account, instead of single ones.")
@config_option
@format_option
def revoke(ids: tuple[str, ...], who: str | None, config: Path, output: str) -> None:
    """End sessions, and their access tokens with them.

    SESSION is an id that `list` shows. API tokens go on: see `gateway tokens revoke`.

    Of several ids all are ended, or none if one is unknown or over already. The account may log
    in again at once; `gateway users disable` keeps it out.

    \b
    Example:
      gateway sessions revoke 01a3185c-5000-7294-b42a-34bc5fe48901
      gateway sessions revoke --user ana@example.com
    """
    if bool(ids) == bool(who):
        raise click.UsageError("Name sessions by their ids, or one account by --user.")
    ended = with_accounts(config, lambda accounts: _end(accounts, ids, who))
    if output == "json":
        say_json({"ended": ended})
    else:
        whose = f" of {printable(who)}" if who else ""
        say(f"ended {counted(ended, 'session')}{whose}", fg="green")


async def _all(accounts: Accounts, who: str | None) -> list[OpenSession]:
    user_id = None if who is None else (await find_user(accounts, who)).id
    page = await accounts.sessions.list(user_id, limit=PAGE)
    found = list(page.items)
    while page.next_cursor is not None:
        page = await accounts.sessions.list(user_id, limit=PAGE, cursor=page.next_cursor)
        found += page.items
    return found


async def _end(accounts: Accounts, ids: tuple[str, ...], who: str | None) -> int:
    if who is not None:
        user = await find_user(accounts, who)
        return await accounts.sessions.end_all(user.id, actor=actor())
    await accounts.sessions.end_these(ids, actor=actor())
    return len(set(ids))


def _row(session: OpenSession) -> tuple[str, ...]:
    shown = _as_json(session)
    moments = str(shown["createdAt"]), str(shown["lastUsedAt"])
    return (session.id, session.email, *moments, session.address, session.user_agent)


def _as_json(session: OpenSession) -> dict[str, object]:
    """The keys of /auth/sessions but `current`, and whose it is."""
    from gateway.web.shapes import session as shape

    shown = shape(session, current=None)
    del shown["current"]
    return {**shown, "userId": session.user_id, "email": session.email}
