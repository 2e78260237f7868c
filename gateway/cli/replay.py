"""`gateway replay`: what the rules as they are now would have said to the requests of a log."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase, BufferedReader
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from gateway.cli.loading import examine, refuse
from gateway.cli.options import config_option
from gateway.cli.output import complain, counted, printable, say_json, say_table

if TYPE_CHECKING:
    from gateway.policy.model import Route
    from gateway.policy.replay import Group, Key, Replay
    from gateway.telemetry.logged import Logged

CHUNK = 1 << 20
"""Bytes read at once."""
_GZIP = b"\x1f\x8b"
_PEEKED = 50
"""Lines in which a file's first moment is looked for."""
_SHOWN = 100
"""Characters of an example's path."""


@click.command()
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@config_option
@click.option("--host", metavar="HOST", help="The host of requests whose line names none.")
@click.option(
    "--fail-on", type=click.Choice(["refused", "admitted", "any"]),
    help="Exit 1 if anything that passed would be refused, if anything that was refused would pass, or for "
    "either and for what the log does not tell.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Show also what would not change.")
@click.option(
    "--format", "output", type=click.Choice(["table", "json"]), default="table", show_default=True,
    help="json is for scripts.",
)  # fmt: skip
def replay(
    logs: tuple[str, ...], config: Path, host: str | None, fail_on: str | None, everything: bool, output: str
) -> int:
    """Show what the rules would have said to the requests of a log.

    LOG is a log of `gateway run`, or an access log of nginx or Apache in the common or the
    combined format; also compressed by gzip, and - for stdin. Several are read in the order of
    their times. Nothing is sent anywhere, and nothing but the rules is judged: no limits.

    Requests are grouped by rule, method, caller, and what was and would be said. Those that
    passed and would be refused come first. An access log does not tell who asked: then a rule
    that asks for a login is shown as `unknown`, with what it needs.

    Exit 0, or 1 if the file is wrong, a log can't be read or holds no request, or --fail-on
    applies.

    \b
    Example:
      gateway replay gateway.log
      gateway replay /var/log/nginx/access.log* --host app.example.com
      kubectl logs deploy/app | gateway replay - --fail-on refused
    """
    examined = examine(config, allow_unset=True, certificate=False)
    if examined.config is None or examined.policy is None:
        refuse(examined.problems)
    from gateway.policy.replay import Replay

    named = None if host is None else host.encode("utf-8", "surrogateescape")
    judge = Replay(examined.policy, examined.config.auth.prefix, host=named)
    sources = _in_order([_Source(name) for name in logs])
    for source in sources:
        source.feed(judge)
    if output == "json":
        say_json(_as_json(judge, sources))
    else:
        _report(judge, everything)
    _account(judge, sources, examined.policy.matcher.hosts)
    if not judge.judged and any(source.lines for source in sources):
        complain("no request was found that rules judge", fg="red")
        return 1
    return 1 if any(source.broken for source in sources) or _fails(judge, fail_on) else 0


def _fails(judge: Replay, fail_on: str | None) -> bool:
    from gateway.policy.replay import Change

    kinds = {
        "refused": [Change.REFUSED],
        "admitted": [Change.ADMITTED],
        "any": [Change.REFUSED, Change.ADMITTED, Change.UNKNOWN],
    }
    return any(judge.count(change) for change in kinds.get(fail_on or "", []))


# -- reading -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Source:
    """One log, and how reading it went."""

    name: str
    """A file, or - for stdin."""
    lines: int = 0
    """Read so far."""
    unreadable: list[int] = field(default_factory=list)
    """Numbers of the first lines that made no sense."""
    lost: int = 0
    """How many those were in all."""
    broken: str = ""
    """Why it could not be read to its end."""

    def feed(self, judge: Replay) -> None:
        """Line by line; a compressed file that is cut off gives what it has."""
        from gateway.telemetry.logged import read

        try:
            for line in self._each():
                self.lines += 1
                said = read(line) if line else None
                if said is not None:
                    judge.take(said)
                elif line is None or line.strip(b"\0 \r\t"):
                    self._lose()
        except (OSError, EOFError, zlib.error) as error:
            self.broken = getattr(error, "strerror", None) or str(error) or type(error).__name__

    @property
    def begins(self) -> float:
        """The time of the first request near its beginning; a pipe can't be looked at beforehand."""
        from gateway.telemetry.logged import Logged, read

        if self.name == "-" or not Path(self.name).is_file():
            return inf
        try:
            for _, line in zip(range(_PEEKED), self._each(), strict=False):
                said = read(line or b"")
                if isinstance(said, Logged):
                    return said.time
        except (OSError, EOFError, zlib.error):
            return inf
        return inf

    def _lose(self) -> None:
        self.lost += 1
        if len(self.unreadable) < 3:
            self.unreadable.append(self.lines)

    def _each(self) -> Iterator[bytes | None]:
        from gateway.telemetry.logged import LONGEST

        if self.name == "-":
            yield from lines_of(_unpacked(cast(BufferedReader, sys.stdin.buffer)), LONGEST)
            return
        with Path(self.name).open("rb") as file:
            yield from lines_of(_unpacked(file), LONGEST)


def _in_order(sources: list[_Source]) -> list[_Source]:
    """By time, so that an account's address is known before its requests come, however logs were rotated."""
    return sorted(sources, key=lambda source: source.begins) if len(sources) > 1 else sources


def _unpacked(stream: BufferedReader) -> BufferedIOBase:
    """What is in it, compressed or not, whatever it is called."""
    return gzip.GzipFile(fileobj=stream) if stream.peek(2)[:2] == _GZIP else stream


def lines_of(stream: BufferedIOBase, longest: int) -> Iterator[bytes | None]:
    """Line by line without their ends; None for each that is too long to be kept in memory."""
    rest, skipping = b"", False
    # Not `read`, which gives nothing of a compressed file that is cut off.
    while chunk := stream.read1(CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        if skipping and whole:
            whole, skipping = whole[1:], False
        yield from whole
        if skipping or len(rest) > longest:
            if not skipping:
                yield None
            rest, skipping = b"", True
    if rest:
        yield rest


# -- telling -------------------------------------------------------------------------------------------------


def _report(judge: Replay, everything: bool) -> None:
    from gateway.policy.replay import Change

    shown = [each for each in judge.ordered() if everything or each[0].change is not Change.SAME]
    if shown:
        heads = ("change", "requests", "method", "route", "rule", "caller", "before", "now", "example")
        say_table(heads, (_row(key, group) for key, group in shown))


def _row(key: Key, group: Group) -> tuple[str, ...]:
    return (
        key.change.value, str(group.count), key.method, key.route.label, _place(key.route), key.subject.value,
        key.before, key.now, _example(group.example),
    )  # fmt: skip


def _place(route: Route) -> str:
    return "default" if route.index < 0 else f"{route.file}:{route.line}"


def _example(line: Logged) -> str:
    """`GET app.example.com/reports/q3, 0192f4c1, analyst, 2026-11-24T10:00:00.000Z`."""
    host = (line.host or b"").decode("latin-1")
    parts = [f"{line.method[:_SHOWN]} {host[:_SHOWN]}{_path(line)}"]
    parts += [line.user[:_SHOWN]] if line.user is not None else []
    parts += [" ".join(line.roles)[:_SHOWN]] if line.roles else []
    return ", ".join([*parts, _time(line)])


def _path(line: Logged) -> str:
    """An access log masks no token that stood in a path."""
    from gateway.telemetry.logs import masked

    path = masked(line.path.decode("latin-1"))
    return path if len(path) <= _SHOWN else path[: _SHOWN - 1] + "…"


def _time(line: Logged) -> str:
    from gateway.telemetry.logs import timestamp

    try:
        return timestamp(line.time)
    except (ValueError, OverflowError, OSError):
        return "at no time"


def _account(judge: Replay, sources: Iterable[_Source], hosts: list[str]) -> None:
    """What was read and what was not, to stderr."""
    for sentence, colour in (*_losses(judge, sources, hosts), (_summary(judge), "")):
        complain(printable(sentence), **({"fg": colour} if colour else {"bold": True}))


def _losses(judge: Replay, sources: Iterable[_Source], hosts: list[str]) -> Iterator[tuple[str, str]]:
    for source in sources:
        name = "stdin" if source.name == "-" else source.name
        if source.broken:
            yield f"{name}: {source.broken}" + (f", after line {source.lines}" if source.lines else ""), "red"
        if source.lost:
            first = ", ".join(map(str, source.unreadable))
            yield f"{name}: {counted(source.lost, 'line')} made no sense, first {first}", "yellow"
    if judge.hostless and hosts:
        told = "does not say for which host, and some rules are for hosts: see --host"
        yield f"{counted(judge.hostless, 'request')} judged by rules for every host: the log {told}", "yellow"


def _summary(judge: Replay) -> str:
    """`1,204 requests: 3 refused, 1,201 same; passed over: 12 for /auth, …`."""
    from gateway.policy.replay import Change
    from gateway.telemetry.logged import Other

    counts = [f"{judge.count(change)} {change}" for change in Change if judge.count(change)]
    words = {
        Other.OWN: "that the gateway answers itself",
        Other.RULELESS: "that no rule is looked for",
        Other.EVENT: "that are no request",
    }
    over = [f"{judge.passed_over[kind]} {what}" for kind, what in words.items() if judge.passed_over[kind]]
    told = f"{counted(judge.judged, 'request')}" + (f": {', '.join(counts)}" if counts else "")
    return told + (f"; lines passed over: {', '.join(over)}" if over else "")


def _as_json(judge: Replay, sources: Iterable[_Source]) -> dict[str, Any]:
    from gateway.policy.replay import Change

    return {
        "judged": judge.judged,
        "changes": {change.value: judge.count(change) for change in Change},
        "passedOver": {kind.value: number for kind, number in judge.passed_over.items()},
        "withoutHost": judge.hostless,
        "logs": [
            {"name": printable(each.name), "lines": each.lines, "unreadable": each.lost, "error": each.broken}
            for each in sources
        ],
        "groups": [_group(key, group) for key, group in judge.ordered()],
    }


def _group(key: Key, group: Group) -> dict[str, Any]:
    line, route = group.example, key.route
    return {
        "change": key.change.value,
        "count": group.count,
        "method": key.method,
        "route": route.label,
        "rule": None if route.index < 0 else {"file": route.file, "line": route.line},
        "caller": key.subject.value,
        "before": key.before,
        "now": key.now,
        "example": {
            "time": _time(line),
            "method": printable(line.method[:_SHOWN]),
            "host": printable((line.host or b"").decode("latin-1")[:_SHOWN]),
            "path": printable(_path(line)),
            "status": line.status,
            "user": None if line.user is None else printable(line.user[:_SHOWN]),
            "roles": None if line.roles is None else [printable(role[:_SHOWN]) for role in line.roles[:20]],
        },
    }
