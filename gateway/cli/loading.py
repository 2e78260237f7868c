"""Reading `gateway.yaml` for a command: the same two calls everywhere, so `check` and `run` agree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gateway.cli.output import complain, printable

if TYPE_CHECKING:
    from gateway.config.load import Loaded
    from gateway.config.schema import Config
    from gateway.config.source import Place, Places, Problem
    from gateway.policy.model import Policy


@dataclass(frozen=True, slots=True)
class Examined:
    """What a configuration file says, and everything that is wrong with it."""

    config: Config | None
    """None if there are mistakes."""
    policy: Policy | None
    """Its rules, compiled; None if there are mistakes."""
    places: Places
    """Where its settings stand."""
    problems: tuple[Problem, ...]
    """Mistakes and warnings, in the order of the file."""
    files: tuple[Path, ...] = ()
    """Every file that was read for it, or would have been were it there; absolute, links not followed."""

    @property
    def mistakes(self) -> int:
        return sum(not problem.warning for problem in self.problems)


def examine(path: Path, *, allow_unset: bool = False, certificate: bool = True) -> Examined:
    """Load, compile, and look at the listener's `certificate` and the keys of tokens. Touches no server.

    With `allow_unset`, as in CI, neither need be there.
    """
    from gateway.config.load import load
    from gateway.policy.compile import compile_policy, mistaken_paths

    loaded = load(path, allow_unset=allow_unset)
    if loaded.config is None:
        mistakes = [*loaded.problems, *mistaken_paths(loaded.paths, loaded.places)]
        return Examined(None, None, loaded.places, tuple(sorted(mistakes, key=_order)), loaded.files)
    policy, problems = compile_policy(loaded.config, loaded.places)
    files = [*_certificate(loaded, allow_unset), *_keys(loaded, allow_unset)] if certificate else []
    found = sorted([*loaded.problems, *problems, *files], key=_order)
    taken = (*loaded.files, *_towards_backends(loaded.config))
    if policy is None or any(not problem.warning for problem in files):
        return Examined(None, None, loaded.places, tuple(found), taken)
    return Examined(loaded.config, policy, loaded.places, tuple(found), taken)


def _towards_backends(config: Config) -> Iterator[Path]:
    """The PEM files of upstreams. Those of the listener are taken up by themselves."""
    for upstream in config.upstreams.values():
        tls = upstream.tls
        yield from (Path(file) for file in (tls.ca, tls.certificate, tls.key) if file is not None)


def softened(examined: Examined) -> Policy:
    """The same rules, all of which only report. Mistakes were looked for when they were enforced."""
    from gateway.policy.compile import compile_policy

    assert examined.config is not None  # noqa: S101 (only a right file has rules)
    policy, _ = compile_policy(examined.config, examined.places, report_only=True)
    assert policy is not None  # noqa: S101 (that rules only report is no mistake in them)
    return policy


def _certificate(loaded: Loaded, allow_unset: bool) -> list[Problem]:
    tls = loaded.config.server.tls if loaded.config else None
    if tls is None:
        return []
    from gateway.config.source import Problem
    from gateway.server.certificates import faults

    certificate, key = Path(tls.certificate), Path(tls.key)
    if allow_unset and not (certificate.exists() and key.exists()):
        return []
    return [
        Problem(
            loaded.places.of("server", "tls", fault.setting),
            f"server.tls.{fault.setting}",
            fault.sentence,
            fault.warning,
        )
        for fault in faults(certificate, key)
    ]


def _keys(loaded: Loaded, allow_unset: bool) -> list[Problem]:
    access = loaded.config.tokens.access if loaded.config else None
    if access is None or access.keys is None:
        return []
    from gateway.config.source import Problem
    from gateway.identity.keyfolder import BadKeys, KeyFolder

    folder, now = KeyFolder(Path(access.keys)), time.time()
    if allow_unset and not folder.path.exists():
        return []
    place = loaded.places.of("tokens", "access", "keys")
    try:
        folder.understand(folder.look(now), now, needed=access.secret is None)
    except BadKeys as bad:
        return [Problem(place, "tokens.access.keys", sentence) for sentence in bad.sentences]
    return []


def settings(path: Path) -> Config:
    """The settings alone, for commands that serve nothing. Any mistake in the file ends the command."""
    from gateway.config.load import load

    loaded = load(path, allow_unset=True)
    if loaded.config is None:
        refuse(loaded.problems)
    return loaded.config


def refuse(problems: tuple[Problem, ...]) -> NoReturn:
    """Print every problem to stderr and end the command."""
    for problem in sorted(problems, key=_order):
        complain(line(problem), fg="yellow" if problem.warning else "red")
    raise click.exceptions.Exit(1)


def line(problem: Problem) -> str:
    """One problem as one line: `gateway.yaml:14:5  routes[2].reqire: unknown setting, …`."""
    return printable(str(problem))


def _order(problem: Problem) -> tuple[Place, str]:
    return (problem.place, problem.path)
