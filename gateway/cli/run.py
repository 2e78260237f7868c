"""`gateway run`: read, refuse or serve."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.loading import line, refuse, softened
from gateway.cli.options import config_option
from gateway.cli.output import complain

if TYPE_CHECKING:
    from gateway.app import Gateway
    from gateway.cli.watching import Reading
    from gateway.config.schema import Config
    from gateway.policy.model import Policy
    from gateway.server.certificates import Certificates
    from gateway.server.passage import Lane
    from gateway.server.run import Ready


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
    `server.reload: auto` so does a change of its files.

    With --report-only, what a rule or the default would refuse with 401 or 403 passes, and the
    log says so. Everything else stays as it is: /auth, malformed requests, limits, and paths
    that another rule refuses in another reading. `gateway replay` sums the log up.

    \b
    Example:
      gateway run
      gateway run -c /etc/gateway/gateway.yaml
      gateway run --report-only
    """
    from gateway.cli.watching import read_now

    reading = read_now(config, [file.absolute() for file in (config, config.parent / ".env")])
    examined = reading.examined
    if examined.config is None or examined.policy is None:
        refuse(examined.problems)
    for warning in examined.problems:
        complain(f"warning: {line(warning)}", fg="yellow")
    if report_only:
        complain(f"warning: {NOT_ENFORCED}", fg="yellow", bold=True)
    policy = softened(examined) if report_only else examined.policy
    return serve_until_stopped(config, examined.config, policy, reading, report_only=report_only)


NOT_ENFORCED = "--report-only: no rule is enforced, what they would refuse passes"


def serve_until_stopped(
    path: Path, config: Config, policy: Policy, reading: Reading, *, report_only: bool = False
) -> int:
    """Serve what `path` said in `reading`, and return the exit code. With `report_only`, so is `policy`."""
    from gateway import app
    from gateway.cli.reloading import Reloader
    from gateway.server import run as server
    from gateway.server.terms import Limits, Timeouts
    from gateway.telemetry import logs

    settings = config.server
    outlet = logs.configure(sys.stdout)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells its life at every start
    try:
        gateway = app.build(config, policy, outlet=outlet)
        reloader = Reloader(path, gateway, reading, report_only=report_only)
        if report_only:
            gateway.announce_report_only()
            logging.getLogger("gateway").warning(NOT_ENFORCED)
        certificates = _certificates(config)
        if certificates is not None:
            gateway.watch_certificate(lambda: certificates.expires)
        return server.serve(
            gateway.asgi,
            lane=lane_of(gateway, settings.timeouts.body_idle),
            listen=settings.listen,
            ops=gateway.ops,
            ops_listen=[settings.ops_listen] if settings.ops_listen else [],
            certificates=certificates,
            limits=Limits(**settings.limits.model_dump()),
            timeouts=Timeouts(**settings.timeouts.model_dump()),
            start=gateway.start,
            stop=gateway.stop,
            reload=reloader,
            look=reloader.look,
            on_ready=say_where,
            on_draining=gateway.health.drain,
            on_refused=gateway.refused,
            complain=lambda reason: complain(f"Error: {reason}", fg="red"),
        )
    except ValueError as error:  # an address, a driver or a certificate that only now turns out wrong
        raise click.ClickException(str(error)) from None
    finally:
        outlet.close()


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


def say_where(ready: Ready) -> None:
    """The one log line that says where."""
    logging.getLogger("gateway").info("listening", extra={"listen": ready.listen, "ops": ready.ops})
