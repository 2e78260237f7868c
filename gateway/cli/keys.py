"""`gateway keys`: the folder of keys that sign access tokens. A running gateway takes each change up."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.accounts import actor, note
from gateway.cli.loading import settings
from gateway.cli.options import InOrder, config_option, format_option
from gateway.cli.output import printable, say, say_json, say_table

if TYPE_CHECKING:
    from gateway.config.schema import Config
    from gateway.identity.keyfolder import KeyFolder
    from gateway.identity.manifest import Entry, Manifest
    from gateway.telemetry.audit import Event

AFTER = "10m"
"""Twice as long as the JWKS may be stored (`web.auth.JWKS_MAX_AGE`)."""
ALGORITHMS = ("ES256", "EdDSA", "RS256")
"""`identity.pem` has them too, and costs more to import than `--help` should."""

algorithm_option = click.option(
    "--algorithm",
    type=click.Choice(ALGORITHMS),
    help="Of the new key.  [default: as the one before, or ES256]",
)
Change = Callable[["Manifest"], "tuple[Manifest, bytes | None]"]
"""What becomes of the keys, and the PEM text of one that is new."""


@click.group(cls=InOrder)
def keys() -> None:
    """List, make, rotate and retire the keys that sign access tokens.

    They are in the folder that `tokens.access.keys` names: a PEM file for each, and keys.json,
    which says when each signs. A running gateway takes a change up within four seconds, or on
    SIGHUP at once. Needs the extra `keys`: pip install 'auth-gateway[keys]'.

    \b
    Example:
      gateway keys generate                  a first key
      gateway keys rotate                    monthly: a new key, which signs in ten minutes,
      gateway keys retire                    and the former one goes when its tokens have ended
    """


@keys.command("list")
@config_option
@format_option
def list_(config: Path, output: str) -> None:
    """List the keys, oldest first.

    States: `next` only verifies, `signs` signs new tokens, `verifies` signed before, `retired`
    still verifies until the time that is shown, `over` verifies nothing any more.

    \b
    Example:
      gateway keys list
      gateway keys list --format json | jq -r '.items[] | select(.state == "signs") | .kid'
    """
    manifest, now = _read(_folder(settings(config))), time.time()
    if output == "json":
        say_json({"items": [_as_json(manifest, entry, now) for entry in manifest.entries]})
    else:
        say_table(
            ("kid", "algorithm", "state", "since", ""),
            (_row(manifest, entry, now) for entry in manifest.entries),
        )


@keys.command()
@algorithm_option
@config_option
@format_option
def generate(algorithm: str | None, config: Path, output: str) -> None:
    """Make a key. It verifies at once, and signs after `gateway keys rotate`.

    Only the first key of a gateway without `tokens.access.secret` signs at once, as nothing
    else could. The folder is made if it is not there; files are readable by its owner alone.

    \b
    Example:
      gateway keys generate
      gateway keys generate --algorithm RS256
    """
    loaded = settings(config)
    first_signs = loaded.tokens.access.secret is None
    _change(loaded, lambda manifest: _generated(manifest, algorithm, first_signs), output)


@keys.command()
@algorithm_option
@click.option(
    "--after", default=AFTER, show_default=True, metavar="DURATION",
    help="How long the key must have been there before it signs.",
)  # fmt: skip
@config_option
@format_option
def rotate(algorithm: str | None, after: str, config: Path, output: str) -> None:
    """Let another key sign: the one that is next, or else a new one.

    It signs when it has been there for --after: by then every replica has it, and everybody who
    stores the JWKS (for five minutes). Until then the former one signs. --after 0s is for
    emergencies: for some seconds, replicas may refuse each other's tokens.

    \b
    Example:
      gateway keys rotate
      gateway keys rotate --algorithm EdDSA
    """
    from gateway.config.values import parse_duration

    try:
        seconds = parse_duration(after)
    except ValueError as error:
        raise click.UsageError(f"--after {error}") from None
    _change(settings(config), lambda manifest: _rotated(manifest, algorithm, seconds), output)


@keys.command()
@click.argument("kid", required=False)
@click.option("--now", "at_once", is_flag=True, help="Refuse its tokens from now on: the key was stolen.")
@config_option
@format_option
def retire(kid: str | None, at_once: bool, config: Path, output: str) -> None:
    """Let a key go when the last token that it signed has ended.

    It verifies until then. KID is what `list` shows; without it every key goes that was rotated
    out. Its file is removed by the first `gateway keys` command after that, or
    at once if it has signed nothing that still holds. A key that signs can't be retired.

    \b
    Example:
      gateway keys retire
      gateway keys rotate --after 0s && gateway keys retire 20261127-es256-9f31c2 --now
    """
    if at_once and kid is None:
        raise click.UsageError("--now needs a KID.")
    loaded = settings(config)
    tokens = loaded.tokens
    life = tokens.access.ttl + tokens.leeway
    _change(loaded, lambda manifest: _retired(manifest, kid, life, at_once), output)


def _generated(manifest: Manifest, algorithm: str | None, first_signs: bool) -> tuple[Manifest, bytes]:
    from gateway.identity.manifest import Entry
    from gateway.identity.pem import make_key

    now = int(time.time())
    last = manifest.entries[-1].algorithm if manifest.entries else ALGORITHMS[0]
    chosen = algorithm or last
    kid = f"{time.strftime('%Y%m%d', time.gmtime(now))}-{chosen.lower()}-{secrets.token_hex(3)}"
    entry = Entry(kid, chosen, now)
    if first_signs and not manifest.entries:
        entry = Entry(kid, chosen, now, signs_from=now)
    return manifest.with_next(entry), make_key(chosen)


def _rotated(manifest: Manifest, algorithm: str | None, after: float) -> tuple[Manifest, bytes | None]:
    now = int(time.time())
    upcoming, pem = manifest.upcoming(now), None
    if upcoming is not None and algorithm not in (None, upcoming.algorithm):
        raise click.ClickException(f"{upcoming.kid} is next already, for {upcoming.algorithm}")
    if upcoming is None:
        manifest, pem = _generated(manifest, algorithm, first_signs=False)
    return manifest.rotated(now, after), pem


def _retired(
    manifest: Manifest, kid: str | None, life: float, at_once: bool
) -> tuple[Manifest, bytes | None]:
    now = int(time.time())
    chosen = [manifest.find(kid)] if kid is not None else manifest.replaced()
    for entry in chosen:
        manifest = manifest.retired(entry, now, life, at_once=at_once)
    return manifest, None


def _change(loaded: Config, change: Change, output: str) -> None:
    """From reading to writing nobody else writes. Keys that are over go on the way."""
    from gateway.identity.manifest import Refused
    from gateway.identity.pem import NoCryptography, need_cryptography

    folder = _folder(loaded)
    try:
        need_cryptography()
        with folder.locked():
            before = _read_if_there(folder)
            changed, pem = change(before.pruned(time.time()))
            folder.write(before, changed.pruned(time.time()), pem)
    except (Refused, NoCryptography) as error:
        raise click.ClickException(str(error)) from None
    _report(before, changed, output)
    if events := _events(before, changed):
        note(loaded, events)


def _folder(loaded: Config) -> KeyFolder:
    from gateway.identity.keyfolder import KeyFolder

    if loaded.tokens.access.keys is None:
        raise click.ClickException(
            "tokens.access.keys names no folder; write `keys: keys` below tokens.access"
        )
    return KeyFolder(Path(loaded.tokens.access.keys))


def _read(folder: KeyFolder) -> Manifest:
    from gateway.identity.keyfolder import BadKeys

    try:
        return folder.manifest()
    except BadKeys as bad:
        raise click.ClickException(printable(str(bad))) from None


def _read_if_there(folder: KeyFolder) -> Manifest:
    from gateway.identity.keyfolder import MANIFEST
    from gateway.identity.manifest import Manifest

    return _read(folder) if (folder.path / MANIFEST).exists() else Manifest()


def _events(before: Manifest, after: Manifest) -> list[Event]:
    """What was done, for the audit trail. A file that goes when its key is over is no news."""
    from math import inf

    from gateway.identity.manifest import written
    from gateway.telemetry.audit import KeyGenerated, KeyRetired, KeyRotated

    events: list[Event] = []
    known = {entry.kid: entry for entry in before.entries}
    for entry in after.entries:
        old, who = known.get(entry.kid), actor()
        key, algorithm, begins, ends = entry.kid, entry.algorithm, entry.signs_from, entry.verifies_until
        if old is None:
            events.append(KeyGenerated(key=key, algorithm=algorithm, actor=who))
        if begins != (old.signs_from if old else inf):
            events.append(KeyRotated(key=key, algorithm=algorithm, begins=written(begins), actor=who))
        if ends != (old.verifies_until if old else inf):
            events.append(KeyRetired(key=key, algorithm=algorithm, ends=written(ends), actor=who))
    return events


def _report(before: Manifest, after: Manifest, output: str) -> None:
    """What is not as it was."""
    now = time.time()
    touched = [entry for entry in before.entries if entry.is_over(now)]
    touched += [entry for entry in after.entries if entry not in before.entries]
    if output == "json":
        say_json({"items": [_as_json(after, entry, now) for entry in touched]})
        return
    for entry in touched:
        kid, algorithm, state, _, note = _row(after, entry, now)
        say(f"{kid} ({algorithm}): {note or state}" if state != "over" else f"removed {kid}", fg="green")
    if not touched:
        say("nothing to do")


def _row(manifest: Manifest, entry: Entry, now: float) -> tuple[str, str, str, str, str]:
    from math import inf

    from gateway.identity.manifest import written

    state = manifest.state(entry, now)
    note = ""
    if state != "over" and entry.verifies_until < inf:
        note = f"verifies until {written(entry.verifies_until)}"
    elif now < entry.signs_from < inf:
        note = f"signs from {written(entry.signs_from)} on"
    return entry.kid, entry.algorithm, state, written(manifest.since(entry, now)), note


def _as_json(manifest: Manifest, entry: Entry, now: float) -> dict[str, str]:
    from gateway.identity.manifest import as_json, written

    return {
        **as_json(entry),
        "state": manifest.state(entry, now),
        "since": written(manifest.since(entry, now)),
    }
