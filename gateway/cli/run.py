"""`gateway run`: read, refuse or serve."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.loading import examine, line, refuse
from gateway.cli.options import config_option
from gateway.cli.output import complain

if TYPE_CHECKING:
    from gateway.config.schema import Config
    from gateway.policy.model import Policy
    from gateway.server.run import Ready


@click.command()
@config_option
def run(config: Path) -> int:
    """Start the gateway, and serve until it is stopped.

    Refuses to start if the configuration has any mistake, and says all of them, as
    `gateway check` does. A SQLite file is made or upgraded; PostgreSQL has to be upgraded
    before, by `gateway db upgrade`. Logs go to stdout, one JSON object per line.

    SIGTERM or Ctrl-C ends it: /readyz turns 503, requests in flight finish, exit 0. A second
    Ctrl-C doesn't wait for them.

    \b
    Example:
      gateway run
      gateway run -c /etc/gateway/gateway.yaml
    """
    examined = examine(config)
    if examined.config is None or examined.policy is None:
        refuse(examined.problems)
    for warning in examined.problems:
        complain(f"warning: {line(warning)}", fg="yellow")
    return serve_until_stopped(examined.config, examined.policy)


def serve_until_stopped(config: Config, policy: Policy) -> int:
    """Serve, and return the exit code."""
    from gateway import app
    from gateway.server import run as server
    from gateway.server.certificates import Certificates
    from gateway.server.terms import Limits, Timeouts
    from gateway.telemetry import logs

    settings = config.server
    outlet = logs.configure(sys.stdout)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells its life at every start
    try:
        gateway = app.build(config, policy, outlet=outlet)
        tls = settings.tls
        return server.serve(
            gateway.asgi,
            listen=settings.listen,
            ops=gateway.ops,
            ops_listen=[settings.ops_listen] if settings.ops_listen else [],
            certificates=Certificates(Path(tls.certificate), Path(tls.key)) if tls else None,
            limits=Limits(**settings.limits.model_dump()),
            timeouts=Timeouts(**settings.timeouts.model_dump()),
            start=gateway.start,
            stop=gateway.stop,
            on_ready=say_where,
            on_draining=gateway.health.drain,
            on_refused=gateway.refused,
            complain=lambda reason: complain(f"Error: {reason}", fg="red"),
        )
    except ValueError as error:  # an address, a driver or a certificate that only now turns out wrong
        raise click.ClickException(str(error)) from None
    finally:
        outlet.close()


def say_where(ready: Ready) -> None:
    """The one log line that says where."""
    logging.getLogger("gateway").info("listening", extra={"listen": ready.listen, "ops": ready.ops})
