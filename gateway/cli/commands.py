"""The words of the command line, and the file that each of them is loaded from."""

from __future__ import annotations

from importlib import import_module
from typing import cast

import click

WORDS = {
    "init": "Write gateway.yaml and .env where missing.",
    "run": "Start the gateway, and serve until it is stopped.",
    "check": "Report every mistake in gateway.yaml, then run its tests.",
    "routes": "Show who may do what, the most specific requests first.",
    "explain": "Show why a request gets its answer, and what goes upstream.",
    "diff": "Show which requests change between two files, and for whom.",
    "replay": "Show what the rules would have said to the requests of a log.",
    "users": "List, add and change accounts.",
    "sessions": "List and end sessions: logins that are not over.",
    "tokens": "List, add and revoke API tokens.",
    "audit": "Show who did what to whom.",
    "keys": "List, make, rotate and retire the keys that sign access tokens.",
    "db": "Upgrade or check the database.",
    "schema": "Print the JSON Schema of gateway.yaml.",
    "healthcheck": "Ask the running gateway whether it lives.",
}
"""Each word with its line in `gateway --help`; `gateway.cli.WORD.WORD` is the command."""


class LazyGroup(click.Group):
    """A group that imports a command's file only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(WORDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in WORDS:
            return None
        return cast(click.Command, getattr(import_module(f"gateway.cli.{cmd_name}"), cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(WORDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in WORDS and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=WORDS, ctx=ctx)
        return super().resolve_command(ctx, args)


def print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    from gateway.cli.version import version

    if asked and not ctx.resilient_parsing:
        click.echo(f"gateway {version()}")
        ctx.exit()


@click.group(cls=LazyGroup, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=print_version,
    help="Print the version and exit.",
)  # fmt: skip
def gateway() -> None:
    """Logins, tokens and rules in front of a backend that has none.

    \b
    Example:
      gateway init                     write gateway.yaml and .env
      gateway users add ana@example.com --admin
      gateway check                    is the file right, and does it do what its tests say?
      gateway run                      serve

    Every command has its own --help with an example. Exit codes: 0 fine, 1 no, 2 wrong usage.
    """
