"""What several commands share, so that they read and behave the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class InOrder(click.Group):
    """A group whose help lists its commands as they are written, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def config_option(command: Command) -> Command:
    """`-c/--config FILE`, given to the function as `config: Path`."""
    return click.option(
        "-c", "--config", type=click.Path(path_type=Path, dir_okay=True), envvar="GATEWAY_CONFIG",
        default="gateway.yaml", show_default=True, show_envvar=True, metavar="FILE",
        help="The configuration file.",
    )(command)  # fmt: skip


def format_option(command: Command) -> Command:
    """`--format text|json`, given to the function as `output: str`."""
    return click.option(
        "--format", "output", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="json is for scripts.",
    )(command)  # fmt: skip
