"""Writes docs/reference/cli.md from the commands' own help.

    python docs/generate.py > docs/reference/cli.md

A test keeps the file fresh, so the reference and `--help` can't disagree.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

WIDTH = 100
INTRODUCTION = """\
# Command line

<!-- Generated: python docs/generate.py > docs/reference/cli.md -->

`gateway` and `python -m gateway` are the same. Exit codes: 0 fine, 1 no (a mistake, a refusal, something that
is away), 2 wrong usage. On a terminal there are colours and tables; in a pipe plain lines with tabs between
columns. `NO_COLOR` switches colours off. What is said about the work goes to stderr, results go to stdout.

Every command reads `gateway.yaml` of the working directory, or what `-c` or `GATEWAY_CONFIG` names, and the
`.env` beside it. A relative file that it names stands beside it too. Commands that change
accounts or keys also write the audit event to stderr, as the JSON line that a running gateway would log.

`GATEWAY_TRACEBACK=1` shows where a defect of the gateway happened.
"""


def cli() -> str:
    """The whole file."""
    from gateway.cli.commands import gateway

    return INTRODUCTION + "".join(_sections(gateway, "gateway", None))


def _sections(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    settings = {"info_name": name, "parent": parent, "terminal_width": WIDTH, **command.context_settings}
    context = click.Context(command, **settings)
    level = "##" if parent is None or parent.parent is None else "###"
    yield f"\n{level} {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            found = command.get_command(context, word)
            if found is not None:
                yield from _sections(found, word, context)


if __name__ == "__main__":
    sys.stdout.write(cli())
