"""`gateway check`: every mistake with its place, then the tests that the file itself holds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.loading import Examined, examine, line
from gateway.cli.options import config_option
from gateway.cli.output import counted, printable, say, say_json

if TYPE_CHECKING:
    from gateway.policy.model import Route
    from gateway.policy.prove import Result


@click.command()
@config_option
@click.option("--allow-unset", is_flag=True, help="Accept missing secrets, certificates and keys, as in CI.")
@click.option(
    "--cover", is_flag=True, help="Name the routes that no test touches, and exit 1 if there are any."
)
@click.option(
    "--format", "output", type=click.Choice(["text", "json", "github"]), default="text", show_default=True,
    help="json is for scripts, github for annotations in a pull request.",
)  # fmt: skip
def check(config: Path, allow_unset: bool, cover: bool, output: str) -> int:
    """Report every mistake in gateway.yaml, then run its tests.

    Each line says where to look: file:line:column, the setting, what is wrong. Warnings don't
    make the file wrong. If there is no mistake, the tests under `tests:` are run against the
    rules. No server, secret or database is touched; a listener's certificate and the keys of
    tokens are looked at. A test touches the route that decides its request.

    Exit 0 if the file has no mistake and all its tests hold, else 1.

    \b
    Example:
      gateway check
      gateway check --cover
      gateway check --allow-unset -c deploy/gateway.yaml
    """
    examined = examine(config, allow_unset=allow_unset)
    results = _prove(examined)
    uncovered = _uncovered(examined, results) if cover else []
    fine = examined.policy is not None and all(result.passed for result in results) and not uncovered
    if output == "json":
        told = _as_json(examined, results, fine)
        say_json(told | {"uncovered": [_rule(route) for route in uncovered]} if cover else told)
    else:
        findings = list(_findings(examined, results, uncovered))
        _report(findings, github=output == "github")
        if examined.policy is not None:
            colour = "green" if fine else "red"
            say(printable(f"{config}: {_summary(examined, results, uncovered)}"), fg=colour, bold=True)
    return 0 if fine else 1


def _prove(examined: Examined) -> list[Result]:
    if examined.config is None or examined.policy is None:
        return []
    from gateway.policy.compile import compile_tests
    from gateway.policy.prove import prove

    return prove(examined.policy, compile_tests(examined.config, examined.places), time.time())


def _uncovered(examined: Examined, results: list[Result]) -> list[Route]:
    from gateway.policy.prove import untouched

    return [] if examined.policy is None else untouched(examined.policy, results)


# -- telling -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Finding:
    """One line for the owner."""

    file: str
    line: int
    column: int
    sentence: str
    """Without the place."""
    text: str
    """With it."""
    warning: bool = False


def _findings(examined: Examined, results: list[Result], uncovered: list[Route]) -> Iterator[_Finding]:
    for problem in examined.problems:
        place, path = problem.place, f"{problem.path}: " if problem.path else ""
        sentence = f"{path}{problem.sentence}"
        yield _Finding(place.file, place.line, place.column, sentence, line(problem), problem.warning)
    for result in results:
        if not result.passed:
            file, row, column = result.test.place.rsplit(":", 2)
            text = printable(f"{result.test.place}  {result.complaint}")
            yield _Finding(file, int(row), int(column), result.complaint or "", text)
    for route in uncovered:
        sentence = f"{route.name}: no test touches {route.label}"
        yield _Finding(
            route.file, route.line, 1, sentence, printable(f"{route.file}:{route.line}  {sentence}")
        )


def _report(findings: list[_Finding], *, github: bool) -> None:
    for finding in findings:
        if github:
            say(_annotation(finding))
        else:
            say(finding.text, fg="yellow" if finding.warning else "red")


def _annotation(finding: _Finding) -> str:
    """A workflow command, which GitHub shows at its line in the pull request.

    What means something in it is escaped as its toolkit does (actions/toolkit, packages/core/src/command.ts),
    so no name in a file can begin a command of its own.
    """
    kind = "warning" if finding.warning else "error"
    file = _escaped(_in_workspace(finding.file)).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} file={file},line={finding.line},col={finding.column}::{_escaped(finding.sentence)}"


def _in_workspace(file: str) -> str:
    """As GitHub looks for it: from the top of what was checked out, wherever the step runs."""
    top = os.environ.get("GITHUB_WORKSPACE")
    name = os.path.relpath(file, top) if top else file
    return file if Path(name).parts[0] == ".." else name


def _escaped(text: str) -> str:
    breaks = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return printable(breaks)


def _summary(examined: Examined, results: list[Result], uncovered: list[Route]) -> str:
    """`no mistakes, 1 warning, 2 routes without a test, 1 test failed, 5 tests passed`."""
    passed = sum(result.passed for result in results)
    failed = len(results) - passed
    parts = ["no mistakes"]
    parts += [counted(len(examined.problems), "warning")] if examined.problems else []
    parts += [f"{counted(len(uncovered), 'route')} without a test"] if uncovered else []
    parts += [f"{counted(failed, 'test')} failed"] if failed else []
    parts += [f"{counted(passed, 'test')} passed"] if passed or not failed else []
    return ", ".join(parts)


def _rule(route: Route) -> dict[str, Any]:
    return {"label": route.label, "file": route.file, "line": route.line}


def _as_json(examined: Examined, results: list[Result], fine: bool) -> dict[str, Any]:
    return {
        "ok": fine,
        "problems": [
            {
                "file": problem.place.file,
                "line": problem.place.line,
                "column": problem.place.column,
                "path": problem.path,
                "sentence": problem.sentence,
                "warning": problem.warning,
            }
            for problem in examined.problems
        ],
        "tests": [
            {
                "place": result.test.place,
                "request": f"{result.test.method} {result.test.target}",
                "as": result.test.caller,
                "expect": result.test.expect,
                "got": result.status,
                "passed": result.passed,
                "complaint": result.complaint,
            }
            for result in results
        ],
    }
