"""`gateway users`: the accounts, from a shell beside the database; a running gateway feels each change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.accounts import actor, find_user, with_accounts
from gateway.cli.options import InOrder, config_option, format_option
from gateway.cli.output import printable, say, say_json, say_table
from gateway.cli.transfer import export, import_

if TYPE_CHECKING:
    from gateway.accounts.service import Accounts
    from gateway.accounts.values import Changes, User

LONGEST_STDIN = 4096
"""Bytes of --password-stdin; a longer password is refused with a sentence in any case."""
PAGE = 200
"""Users read at a time."""

user_argument = click.argument("who", metavar="EMAIL")
password_stdin_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from stdin instead of asking for it."
)


@click.group(cls=InOrder)
def users() -> None:
    """List, add and change accounts.

    Works beside a running gateway on the same database; it feels every change within a second
    or two, also in tokens that are in use. An EMAIL may also be an account's id.

    \b
    Example:
      gateway users add ana@example.com --admin
      gateway users list
    """


@users.command()
@user_argument
@click.option("--admin", is_flag=True, help="May pass `allow: admin`, and manage accounts.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="A role; repeatable.")
@click.option("--service", is_flag=True, help="For a program: no password, only API tokens.")
@password_stdin_option
@config_option
@format_option
def add(
    who: str,
    admin: bool,
    roles: tuple[str, ...],
    service: bool,
    password_stdin: bool,
    config: Path,
    output: str,
) -> None:
    """Add an account.

    Asks for its password twice, or reads it from stdin. It is never an argument: arguments
    are seen by everyone on the machine and stay in the shell's history.

    \b
    Example:
      gateway users add ana@example.com --role analyst --role auditor
      pass show gateway/ana | gateway users add ana@example.com --password-stdin
      gateway users add ci@example.com --service
    """
    if service and password_stdin:
        raise click.UsageError("--service and --password-stdin contradict each other.")
    password = None if service else _new_password(from_stdin=password_stdin)
    made = with_accounts(
        config,
        lambda accounts: accounts.users.create(who, password, is_admin=admin, roles=roles, actor=actor()),
    )
    _report("added", made, output)


@users.command("list")
@click.option("--query", default="", metavar="TEXT", help="Only those whose e-mail contains this.")
@config_option
@format_option
def list_(query: str, config: Path, output: str) -> None:
    """List the accounts, oldest first.

    \b
    Example:
      gateway users list --query @example.com
      gateway users list --format json | jq -r '.items[] | select(.isAdmin) | .email'
    """
    found = with_accounts(config, lambda accounts: _all(accounts, query))
    if output == "json":
        say_json({"items": [_as_json(user) for user in found]})
    else:
        say_table(("email", "state", "roles", "created", "id"), map(_row, found))


@users.command()
@user_argument
@config_option
@format_option
def show(who: str, config: Path, output: str) -> None:
    """Show one account.

    \b
    Example:
      gateway users show ana@example.com
    """
    user = with_accounts(config, lambda accounts: find_user(accounts, who))
    if output == "json":
        say_json(_as_json(user))
        return
    for name, value in zip(("email", "state", "roles", "created", "id"), _row(user), strict=True):
        say(f"{name + ':':<9}{printable(value)}")


@users.command("set")
@user_argument
@click.option("--email", metavar="NEW", help="A new address.")
@click.option(
    "--password", is_flag=True, help="Ask for a new password. Every session ends; API tokens don't."
)
@password_stdin_option
@click.option("--admin/--no-admin", default=None, help="Make or unmake an admin.")
@click.option(
    "--role", "roles", multiple=True, metavar="ROLE", help="A role, in place of all it has; repeatable."
)
@click.option("--no-roles", is_flag=True, help="Take every role away.")
@config_option
@format_option
def set_(
    who: str,
    email: str | None,
    password: bool,
    password_stdin: bool,
    admin: bool | None,
    roles: tuple[str, ...],
    no_roles: bool,
    config: Path,
    output: str,
) -> None:
    """Change an account: what is not named stays as it is.

    \b
    Example:
      gateway users set ana@example.com --password
      gateway users set ana@example.com --no-admin --role analyst
    """
    from gateway.accounts.values import Changes

    if roles and no_roles:
        raise click.UsageError("--role and --no-roles contradict each other.")
    changes = Changes(
        email=email,
        password=_new_password(from_stdin=password_stdin) if password or password_stdin else None,
        is_admin=admin,
        roles=roles if roles or no_roles else None,
    )
    if changes == Changes():
        raise click.UsageError("Nothing to change; see `gateway users set --help`.")
    _change(who, changes, "changed", config, output)


@users.command()
@user_argument
@config_option
@format_option
def disable(who: str, config: Path, output: str) -> None:
    """Shut an account out: no login, every session ends, no API token holds.

    \b
    Example:
      gateway users disable ana@example.com
    """
    from gateway.accounts.values import Changes

    _change(who, Changes(disabled=True), "disabled", config, output)


@users.command()
@user_argument
@config_option
@format_option
def enable(who: str, config: Path, output: str) -> None:
    """Let a disabled account log in again.

    Its old sessions stay ended; its API tokens hold again.

    \b
    Example:
      gateway users enable ana@example.com
    """
    from gateway.accounts.values import Changes

    _change(who, Changes(disabled=False), "enabled", config, output)


@users.command()
@user_argument
@config_option
@format_option
def unlock(who: str, config: Path, output: str) -> None:
    """Forget the failed logins of an account that has to wait.

    For somebody who was refused because of too many wrong passwords, their own or a stranger's.
    The account's limits begin anew at once, in every gateway. That of a whole network
    (`rate_limits.login.per_address`) is not cleared, and a disabled account stays disabled:
    that is `gateway users enable`.

    \b
    Example:
      gateway users unlock ana@example.com
    """

    async def clear(accounts: Accounts) -> User:
        user = await find_user(accounts, who)
        return await accounts.regulation.clear(user.id, actor=actor())

    _report("unlocked", with_accounts(config, clear), output)


@users.command()
@user_argument
@click.option("--yes", is_flag=True, help="Don't ask whether you are sure.")
@config_option
def delete(who: str, yes: bool, config: Path) -> None:
    """Delete an account, its sessions and API tokens, for good.

    `gateway users disable` can be undone, this can't.

    \b
    Example:
      gateway users delete ana@example.com
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on whether you are sure; add --yes.")
    if not yes:
        click.confirm(f"Delete {printable(who)} for good?", abort=True, err=True)

    async def remove(accounts: Accounts) -> User:
        user = await find_user(accounts, who)
        await accounts.users.delete(user.id, actor=actor())
        return user

    _report("deleted", with_accounts(config, remove), "text")


users.add_command(import_)
users.add_command(export)


def _change(who: str, changes: Changes, verb: str, config: Path, output: str) -> None:
    async def change(accounts: Accounts) -> User:
        user = await find_user(accounts, who)
        return await accounts.users.update(user.id, changes, actor=actor())

    _report(verb, with_accounts(config, change), output)


async def _all(accounts: Accounts, query: str) -> list[User]:
    page = await accounts.users.list(query=query, limit=PAGE)
    found = list(page.items)
    while page.next_cursor is not None:
        page = await accounts.users.list(query=query, limit=PAGE, cursor=page.next_cursor)
        found += page.items
    return found


def _new_password(*, from_stdin: bool) -> str:
    if from_stdin:
        return _password_from_stdin()
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for the password on; use --password-stdin.")
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt="The same again", err=True)
    return asked


def _password_from_stdin() -> str:
    """The one line on stdin, without its line break."""
    raw = sys.stdin.buffer.read(LONGEST_STDIN)
    try:
        text = raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.ClickException("The password on stdin is not text in UTF-8.") from None
    if not text or "\n" in text:
        raise click.ClickException("stdin must hold the password, on one line.")
    return text


def _report(verb: str, user: User, output: str) -> None:
    if output == "json":
        say_json(_as_json(user))
        return
    email, state, roles, _, id_ = _row(user)
    described = f"{state}, roles {roles}" if roles else state
    say(f"{verb} {printable(email)} ({described}), id {id_}", fg="green")


def _row(user: User) -> tuple[str, str, str, str, str]:
    kind = ("service " if user.service else "") + ("admin" if user.is_admin else "user")
    state = ("disabled " if user.disabled else "") + kind
    return (user.email, state, ",".join(user.roles), str(_as_json(user)["createdAt"]), user.id)


def _as_json(user: User) -> dict[str, object]:
    """The same keys as /auth/users."""
    from gateway.web.shapes import account

    return account(user)
