"""`gateway diff`: which requests a change of the rules touches, and for whom."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gateway.cli.options import config_option
from gateway.cli.output import complain, counted, say, say_json, say_table
from gateway.cli.wording import audience_json, methods_json, requests

if TYPE_CHECKING:
    from gateway.cli.revisions import Source
    from gateway.config.source import Place, Problem
    from gateway.policy.diff import Change, Said, Side
    from gateway.policy.model import Route


@click.command()
@click.argument("old")
@click.argument("new", required=False)
@config_option
@click.option(
    "--fail-on", type=click.Choice(["widen", "change"]),
    help="Exit 1 if anyone gained access, or if anything changed at all.",
)  # fmt: skip
@click.option(
    "--format", "output", type=click.Choice(["table", "json"]), default="table", show_default=True,
    help="json is for scripts.",
)  # fmt: skip
def diff(old: str, new: str | None, config: Path, fail_on: str | None, output: str) -> int:
    """Show which requests change between two files, and for whom.

    OLD and NEW are files or git revisions of them, as REVISION:PATH; NEW is the configuration
    file if left out. In a revision, the files that it includes are of that revision too.
    Secrets need not be set.

    Nothing is sampled: the rules of both are compared for all requests there can be. Each line
    is about the requests that no more specific rule takes. Widened ones come first.

    Exit 0, or 1 if a file is wrong or --fail-on applies.

    \b
    Example:
      gateway diff HEAD:gateway.yaml
      gateway diff main:gateway.yaml HEAD:gateway.yaml --fail-on widen
      gateway diff gateway.yaml new.yaml --format json
    """
    from gateway.cli.revisions import opened
    from gateway.config.haste import uncollected
    from gateway.policy.diff import diff as compare
    from gateway.policy.regions import TooManyClasses

    with ExitStack() as stack:
        sources = [stack.enter_context(opened(text)) for text in (old, new or str(config))]
        before, after = map(_side, sources)
        try:
            with uncollected():
                changes = compare(before, after)
        except TooManyClasses as error:
            raise click.ClickException(f"these files can't be compared: {error}") from None
        if output == "json":
            say_json(_as_json(changes, *sources))
        else:
            _report(changes, *sources)
    told = _told(changes)
    failed = any(change.kind.widens for change in told) if fail_on == "widen" else bool(told)
    return 1 if fail_on and failed else 0


def _told(changes: list[Change]) -> list[Change]:
    """Without what follows from the others: `/Admin` must satisfy the rules of `/admin` too."""
    return [change for change in changes if not change.respelled]


def _side(source: Source) -> Side:
    from gateway.config.load import load
    from gateway.policy.compile import compile_policy, mistaken_paths
    from gateway.policy.diff import Side

    loaded = load(source.path, environ=source.variables, allow_unset=True)
    while source.fetch(getattr(loaded, "files", ())):
        loaded = load(source.path, environ=source.variables, allow_unset=True)
    if loaded.config is None:
        _refuse(
            sorted([*loaded.problems, *mistaken_paths(loaded.paths, loaded.places)], key=_in_order), source
        )
    policy, problems = compile_policy(loaded.config, loaded.places)
    if policy is None:
        _refuse(problems, source)
    servers = {name: tuple(map(str, each.targets)) for name, each in loaded.config.upstreams.items()}
    return Side(policy, servers)


def _in_order(problem: Problem) -> Place:
    return problem.place


def _refuse(problems: Iterable[Problem], source: Source) -> NoReturn:
    from gateway.cli.loading import line

    for problem in problems:
        if not problem.warning:
            complain(source.shown(line(problem)), fg="red")
    raise click.exceptions.Exit(1)


def _report(changes: list[Change], old: Source, new: Source) -> None:
    told = _told(changes)
    if not told:
        say("nothing changes: every request gets what it got", fg="green")
        return
    rows = [
        (
            change.kind,
            requests(change.methods, change.path, change.hosts),
            _callers(change),
            _rules(change, old, new),
        )
        for change in told
    ]
    colours = ["red" if change.kind.widens else "" for change in told]
    say_table(("change", "requests", "who passes", "rules"), rows, colours)
    widened = sum(change.kind.widens for change in told)
    summary = f"{counted(len(told), 'change')}, {widened or 'none'} of which let anyone pass who did not"
    complain(summary, fg="red" if widened else "green", bold=True)


def _callers(change: Change) -> str:
    """`admin → authenticated`, and where they get to if that changes too."""
    before, after = change.before, change.after
    said = f"{before} → {after}" if str(before) != str(after) else str(after)
    moved = None not in (before.destination, after.destination) and before.destination != after.destination
    return f"{said}; {_place(before)} → {_place(after)}" if moved else said


def _place(said: Said) -> str:
    cut = b"/".join(said.cut).decode(errors="replace")
    servers = ", ".join(said.servers) or "no backend"
    return f"{servers} without /{cut}" if cut else servers


def _rules(change: Change, old: Source, new: Source) -> str:
    before, after = _rule(change.old, old), _rule(change.new, new)
    return after if before == after else f"{before} → {after}"


def _rule(route: Route, source: Source) -> str:
    """Where it is written."""
    return "default" if route.index < 0 else source.shown(f"{route.file}:{route.line}")


def _as_json(changes: list[Change], old: Source, new: Source) -> dict[str, Any]:
    return {
        "changed": bool(_told(changes)),
        "widened": any(change.kind.widens for change in _told(changes)),
        "changes": [_change(change, old, new) for change in changes],
    }


def _change(change: Change, old: Source, new: Source) -> dict[str, Any]:
    sample = change.regions[0].request
    return {
        "kind": change.kind.value,
        "respelled": change.respelled,
        "path": change.path,
        "hosts": list(change.hosts),
        "methods": methods_json(change.methods),
        "before": _said(change.before, change.old, old),
        "after": _said(change.after, change.new, new),
        "example": {
            "method": sample.method,
            "host": sample.host.decode(),
            "path": sample.path.decode(),
        },
    }


def _said(said: Said, route: Route, source: Source) -> dict[str, Any]:
    return {
        "text": str(said),
        "audience": audience_json(said.audience),
        "reportOnly": None if said.demanded == said.audience else audience_json(said.demanded),
        "servers": list(said.servers),
        "stripPrefix": "/" + b"/".join(said.cut).decode(errors="replace") if said.cut else None,
        "rule": None
        if route.index < 0
        else {"label": route.label, "file": source.shown(route.file), "line": route.line},
    }
