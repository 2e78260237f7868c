"""`gateway run`: read, refuse or serve."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.loading import line, refuse, softened
from gateway.cli.options import config_option
from gateway.cli.output import complain
from gateway.cli.version import version

if TYPE_CHECKING:
    from gateway.app import Gateway
    from gateway.cli.reloading import Reloader
    from gateway.cli.watching import Reading
    from gateway.config.schema import Config, Server
    from gateway.policy.model import Policy
    from gateway.server.certificates import Certificates
    from gateway.server.passage import Lane
    from gateway.server.run import Ready
    from gateway.telemetry.outlet import Outlet


@click.command()
@config_option
@click.option("--report-only", is_flag=True, help="Enforce no rule: only log what each would refuse.")
def run(config: Path, report_only: bool) -> int:
    """Start the gateway, and serve until it is stopped.

    Refuses to start if the configuration has any mistake, and says all of them, as
    `gateway check` does. A SQLite file is made or upgraded; PostgreSQL has to be upgraded
    before, by `gateway db upgrade`. Logs go to stdout, one JSON object per line.

    SIGTERM or Ctrl-C ends it: /readyz turns 503, requests in flight finish, exit 0. A second
    Ctrl-C doesn't wait for them. SIGHUP reads the configuration again, and with
    `server.reload: auto` so does a change of its files. Changed certificates and keys of tokens
    are taken up by themselves.

    With --report-only, what a rule or the default would refuse with 401 or 403 passes, and the
    log says so. Everything else stays as it is: /auth, malformed requests, limits, and paths
    that another rule refuses in another reading. `gateway replay` sums the log up.

    \b
    Example:
      gateway run
      gateway run -c /etc/gateway/gateway.yaml
      gateway run --report-only
    """
    return serve_until_stopped(_prepared(config, report_only))


NOT_ENFORCED = "--report-only: no rule is enforced, what they would refuse passes"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A gateway, and what it is served with. What it was read from is gone by now: rules can be many."""

    gateway: Gateway
    reloader: Reloader
    server: Server
    """The settings of that name."""
    file: Path
    """What it was read from."""
    certificates: Certificates | None
    outlet: Outlet
    """To be closed in the end."""

    async def reload(self) -> None:
        """What SIGHUP asks for. Keys don't wait for a file that may have a mistake."""
        await self.gateway.look_at_keys()
        await self.reloader()


def _prepared(path: Path, report_only: bool) -> Prepared:
    """Read, refuse or build."""
    from gateway.cli.watching import read_now
    from gateway.telemetry import logs

    reading = read_now(path, [file.absolute() for file in (path, path.parent / ".env")])
    examined = reading.examined
    if examined.config is None or examined.policy is None:
        refuse(examined.problems)
    for warning in examined.problems:
        complain(f"warning: {line(warning)}", fg="yellow")
    if report_only:
        complain(f"warning: {NOT_ENFORCED}", fg="yellow", bold=True)
    policy = softened(examined) if report_only else examined.policy
    outlet = logs.configure(sys.stdout)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells its life at every start
    try:
        return _built(path, examined.config, policy, reading, outlet, report_only)
    except BaseException as error:
        outlet.close()
        if isinstance(
            error, ValueError
        ):  # an address, a driver or a certificate that only now turns out wrong
            raise click.ClickException(str(error)) from None
        raise


def _built(
    path: Path, config: Config, policy: Policy, reading: Reading, outlet: Outlet, report_only: bool
) -> Prepared:
    from gateway import app
    from gateway.cli.reloading import Reloader

    gateway = app.build(config, policy, outlet=outlet)
    if report_only:
        gateway.announce_report_only()
        logging.getLogger("gateway").warning(NOT_ENFORCED)
    certificates = _certificates(config)
    if certificates is not None:
        gateway.watch_certificate(lambda: certificates.expires)
    reloader = Reloader(path, gateway, reading, report_only=report_only)
    return Prepared(gateway, reloader, config.server, path, certificates, outlet)


def serve_until_stopped(prepared: Prepared) -> int:
    """The exit code."""
    from gateway.server import run as server
    from gateway.server.terms import Limits, Timeouts

    gateway, settings = prepared.gateway, prepared.server
    try:
        return server.serve(
            gateway.asgi,
            lane=lane_of(gateway, settings.timeouts.body_idle),
            listen=settings.listen,
            ops=gateway.ops,
            ops_listen=[settings.ops_listen] if settings.ops_listen else [],
            certificates=prepared.certificates,
            limits=Limits(**settings.limits.model_dump()),
            timeouts=Timeouts(**settings.timeouts.model_dump()),
            start=gateway.start,
            stop=gateway.stop,
            reload=prepared.reload,
            look=prepared.reloader.look,
            on_ready=partial(say_where, prepared.file),
            on_draining=gateway.health.drain,
            on_refused=gateway.refused,
            complain=lambda reason: complain(f"Error: {reason}", fg="red"),
        )
    except ValueError as error:  # likewise
        raise click.ClickException(str(error)) from None
    finally:
        prepared.outlet.close()


def lane_of(gateway: Gateway, body_idle: float) -> Lane:
    """How the listener takes proxied requests to the gateway, past its application."""
    from gateway.server.passage import Lane

    return Lane(
        judge=gateway.gate.judge,
        owns=gateway.owns,
        began=gateway.began,
        on_done=gateway.finish,
        body_idle=body_idle,
    )


def _certificates(config: Config) -> Certificates | None:
    from gateway.server.certificates import Certificates

    tls = config.server.tls
    return Certificates(Path(tls.certificate), Path(tls.key)) if tls else None


def say_where(file: Path, ready: Ready) -> None:
    """The one log line that says what serves what, and where."""
    served = {"version": version(), "file": str(file)}
    logging.getLogger("gateway").info("listening", extra=served | {"listen": ready.listen, "ops": ready.ops})
