"""`gateway tokens`: API tokens, from a shell beside the database; a running gateway feels each change."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.accounts import actor, find_user, with_accounts
from gateway.cli.options import InOrder, config_option, format_option
from gateway.cli.output import complain, printable, refuse_if_unheard, say, say_json, say_table
from gateway.cli.users import user_argument

if TYPE_CHECKING:
    from gateway.accounts.service import Accounts
    from gateway.accounts.values import ApiToken, NewToken


@click.group(cls=InOrder)
def tokens() -> None:
    """List, add and revoke API tokens.

    An API token stands for its user, whatever that user may do, on every path that is forwarded.
    Works beside a running gateway on the same database; it feels every change within a second
    or two. An EMAIL may also be an account's id.

    \b
    Example:
      gateway users add ci@example.com --service
      gateway tokens add ci@example.com --name deploys --scope deploy --expires-in 90d
    """


@tokens.command()
@user_argument
@click.option("--name", required=True, metavar="TEXT", help="What it is for.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="A scope; repeatable.")
@click.option(
    "--method", "methods", multiple=True, metavar="METHOD", help="Good for this method only; repeatable."
)
@click.option(
    "--path", "paths", multiple=True, metavar="PATTERN", help="Good for such paths only; repeatable."
)
@click.option("--expires-in", metavar="DURATION", help="How long it lasts: 90d, 12h.")
@config_option
@format_option
def add(
    who: str,
    name: str,
    scopes: tuple[str, ...],
    methods: tuple[str, ...],
    paths: tuple[str, ...],
    expires_in: str | None,
    config: Path,
    output: str,
) -> None:
    """Make a token and print it: now, and never again.

    The token goes to stdout, everything else to stderr. One that can't be shown, as on a full
    disk, is revoked at once. Without --expires-in it lasts as long as `api_tokens.max_ttl`
    allows, or for ever. Patterns are written as in routes.

    \b
    Example:
      TOKEN=$(gateway tokens add ci@example.com --name deploys --scope deploy --expires-in 90d)
      gateway tokens add ana@example.com --name dashboard --method GET --path '/reports/**'
    """
    from gateway.accounts.values import NewToken

    refuse_if_unheard()
    end = None if expires_in is None else time.time() + _duration(expires_in)
    wanted = NewToken(name, scopes, methods or None, paths or None, end)
    made, secret = with_accounts(config, lambda accounts: _create(accounts, who, wanted))
    try:
        _show(made, secret, output)
    except BaseException:  # a full disk, a reader that is gone: nobody has it, so it must not be good
        with_accounts(config, lambda accounts: accounts.api_tokens.revoke(made.id, actor=actor()))
        raise


@tokens.command("list")
@click.argument("who", metavar="[EMAIL]", required=False)
@config_option
@format_option
def list_(who: str | None, config: Path, output: str) -> None:
    """List the tokens of an account, or everybody's, oldest first.

    \b
    Example:
      gateway tokens list
      gateway tokens list ci@example.com --format json
    """
    found = with_accounts(config, lambda accounts: _list(accounts, who))
    if output == "json":
        say_json({"items": [{**_as_json(token), "user": token.user_id} for token, _ in found]})
    else:
        heads = ("user", "name", "scopes", "good for", "expires", "last used", "id")
        say_table(heads, [_row(token, email) for token, email in found])


@tokens.command()
@click.argument("token_id", metavar="ID")
@config_option
def revoke(token_id: str, config: Path) -> None:
    """End a token, everywhere within a second or two. ID is what `list` shows.

    \b
    Example:
      gateway tokens revoke 019aa3c1-5d2e-7b7a-9a51-2f1c3d4e5f60
    """
    ended = with_accounts(config, lambda accounts: accounts.api_tokens.revoke(token_id, actor=actor()))
    say(f"revoked {printable(ended.name)}, id {ended.id}", fg="green")


async def _create(accounts: Accounts, who: str, wanted: NewToken) -> tuple[ApiToken, str]:
    user = await find_user(accounts, who)
    return await accounts.api_tokens.create(user.id, wanted, actor=actor())


async def _list(accounts: Accounts, who: str | None) -> list[tuple[ApiToken, str]]:
    """Each with its user's address."""
    if who is not None:
        user = await find_user(accounts, who)
        return [(token, user.email) for token in await accounts.api_tokens.of_user(user.id)]
    return await accounts.api_tokens.all()


def _show(made: ApiToken, secret: str, output: str) -> None:
    if output == "json":
        say_json({**_as_json(made), "token": secret})
    else:
        described = f"{printable(made.name)}, id {made.id}, {_end(made)}"
        complain(f"made {described}; this is the only time it is shown:")
        say(secret)
    sys.stdout.flush()


def _duration(written: str) -> float:
    from gateway.config.values import parse_duration

    try:
        return parse_duration(written)
    except ValueError as mistake:
        raise click.BadParameter(str(mistake), param_hint="'--expires-in'") from None


def _row(token: ApiToken, email: str) -> tuple[str, ...]:
    used = "never" if token.last_used_at is None else str(_as_json(token)["lastUsedAt"])
    limits = " ".join(filter(None, (",".join(token.methods or ()), ",".join(token.paths or ()))))
    return (email, token.name, ",".join(token.scopes), limits or "everything", _end(token), used, token.id)


def _end(token: ApiToken) -> str:
    if token.expires_at is None:
        return "no end"
    over = token.expires_at <= time.time()
    return f"{'expired' if over else 'until'} {_as_json(token)['expiresAt']}"


def _as_json(token: ApiToken) -> dict[str, object]:
    """The same keys as /auth/tokens."""
    from gateway.web.shapes import api_token

    return api_token(token)
