"""`gateway healthcheck`: asks /healthz of the gateway that this configuration describes.

It reads one setting and not the whole file. That is fast, since a container runs this every few
seconds, and it stays green while somebody edits the file: a running gateway keeps its old
configuration then, and restarting it would be the worst answer.
"""

from __future__ import annotations

import http.client
import os
import socket
from pathlib import Path

import click

from gateway.cli.options import config_option
from gateway.cli.output import printable, say
from gateway.config.dotenv import read_dotenv
from gateway.config.fill import Outside, fill
from gateway.config.source import Node, Refused, Scalar, Table, compose, read
from gateway.config.values import Listen, parse_listen

DEFAULT = "127.0.0.1:9090"
"""`server.ops_listen` where the file does not say (a test holds it equal to the schema's)."""
EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a listener on every interface can be reached from the same machine."""


@click.command()
@config_option
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=3.0, metavar="SECONDS",
    help="How long to wait for the answer: 3 seconds if left out.",
)  # fmt: skip
def healthcheck(config: Path, timeout: float) -> None:
    """Ask the running gateway whether it lives.

    Asks /healthz at `server.ops_listen` of the configuration. Exit 0 if the answer is 200,
    else 1 with the reason. Made for a container's health check; it needs no secrets.

    \b
    Example:
      gateway healthcheck
      HEALTHCHECK CMD ["gateway", "healthcheck"]
    """
    listen = ops_listen(config)
    try:
        status = ask(listen, timeout)
    except (OSError, http.client.HTTPException) as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
        raise click.ClickException(printable(f"no answer from {listen}: {reason}")) from None
    if status != 200:
        raise click.ClickException(f"{listen} answered {status}")
    say("alive")


def ops_listen(config: Path) -> Listen:
    """Where the ops listener is. Raises ClickException with the reason if nobody can know."""
    try:
        root, _ = compose(read(config), str(config))
    except Refused as refused:
        raise click.ClickException(str(refused)) from None
    node = _below(_below(root, "server"), "ops_listen")
    text = DEFAULT if node is None else _filled(node, config)
    if text == "off":
        raise click.ClickException("server.ops_listen is off, so nobody answers /healthz.")
    try:
        return parse_listen(text)
    except ValueError as error:
        raise click.ClickException(f"server.ops_listen: {error}") from None


def _below(node: Node | None, key: str) -> Node | None:
    entry = node.entries.get(key) if isinstance(node, Table) else None
    return entry.value if entry is not None else None


def _filled(node: Node, config: Path) -> str:
    if not isinstance(node, Scalar):
        raise click.ClickException("server.ops_listen must be host:port or unix:/path.")
    dotenv, _ = read_dotenv(config.with_name(".env"))
    reasons: list[str] = []
    text = fill(
        node.text,
        Outside({**dotenv, **os.environ}, config.parent),
        lambda reason, missing: reasons.append(reason),
    )
    if reasons:
        raise click.ClickException(f"server.ops_listen: {reasons[0]}")
    return str(text)


def ask(listen: Listen, timeout: float) -> int:
    """The status of GET /healthz."""
    connection = http.client.HTTPConnection("localhost", timeout=timeout)
    connection.sock = connect(listen, timeout)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


def connect(listen: Listen, timeout: float) -> socket.socket:
    if not listen.path:
        host = EVERY_INTERFACE.get(listen.host, listen.host)
        return socket.create_connection((host, listen.port), timeout)
    unix = socket.socket(socket.AF_UNIX)
    unix.settimeout(timeout)
    try:
        unix.connect(listen.path)
    except OSError:
        unix.close()
        raise
    return unix
