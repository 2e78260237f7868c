"""`gateway init`: the two files that a first start needs, and nothing that was there before is lost."""

from __future__ import annotations

import os
import secrets
import stat
from importlib.resources import files
from pathlib import Path

import click

from gateway.cli.options import config_option
from gateway.cli.output import complain, say
from gateway.config.dotenv import read_dotenv

SECRETS = ("JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")
SECRET_BYTES = 48
"""Random bytes per secret: 384 bits, 64 characters; HS256 asks for at least 256 bits (RFC 7518, 3.2)."""


@click.command()
@config_option
def init(config: Path) -> None:
    """Write gateway.yaml and .env where missing.

    The .env is written beside the configuration, readable by you alone, with fresh secrets
    in it. A file that exists is left as it is; only a secret that an existing .env lacks is
    added at its end. Says what to do next.

    \b
    Example:
      gateway init
      gateway init -c deploy/gateway.yaml
    """
    dotenv = config.with_name(".env")
    write_configuration(config)
    write_secrets(dotenv)
    say_what_next(config)


def write_configuration(path: Path) -> None:
    template = (files("gateway.cli") / "templates" / "gateway.yaml").read_bytes()
    try:
        _write_new(path, template, mode=0o644)
    except FileExistsError:
        say(f"{path} is there already, left as it is")
    else:
        say(f"wrote {path}", fg="green")


def write_secrets(path: Path) -> None:
    """Give `path` the secrets it lacks. Their values are shown nowhere."""
    fresh = {name: f"{name}={secrets.token_urlsafe(SECRET_BYTES)}\n" for name in SECRETS}
    try:
        _write_new(path, "".join(fresh.values()).encode(), mode=0o600)
    except FileExistsError:
        _add_missing(path, fresh)
    else:
        say(f"wrote {path}, readable by you alone, with fresh secrets: {', '.join(SECRETS)}", fg="green")


def say_what_next(config: Path) -> None:
    here = "" if str(config) == "gateway.yaml" else f" -c {config}"
    say()
    say("Next:")
    say(f"  1. edit {config}: set `upstream` to your backend, and say who may do what under `routes`")
    say(f"  2. gateway check{here}")
    say(f"  3. gateway users add you@example.com --admin{here}")
    say(f"  4. gateway run{here}")
    say()
    say("Keep .env out of version control: who has its secrets can be anyone.")


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Create the file with exactly this mode; FileExistsError if anything has the name already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError:  # a full disk: half a file would be "there already" next time
        path.unlink()
        raise


def _add_missing(path: Path, fresh: dict[str, str]) -> None:
    present, problems = read_dotenv(path)
    if problems:
        raise click.ClickException("\n".join(map(str, problems)))
    missing = [name for name in fresh if not present.get(name)]
    if not missing:
        say(f"{path} is there already and has the secrets, left as it is")
        _warn_if_readable_by_others(path)
        return
    path.chmod(0o600)
    written = path.read_bytes()
    separator = b"" if not written or written.endswith(b"\n") else b"\n"
    with path.open("ab") as file:
        file.write(separator + "".join(fresh[name] for name in missing).encode())
    say(f"added to {path}, now readable by you alone: {', '.join(missing)}", fg="green")


def _warn_if_readable_by_others(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        complain(f"warning: other users of this machine can read {path}: chmod 600 {path}", fg="yellow")
