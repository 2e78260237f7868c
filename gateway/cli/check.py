"""`gateway check`: every mistake with its place, then the tests that the file itself holds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.loading import Examined, examine, line
from gateway.cli.options import config_option, format_option
from gateway.cli.output import counted, printable, say, say_json

if TYPE_CHECKING:
    from gateway.policy.prove import Result


@click.command()
@config_option
@click.option("--allow-unset", is_flag=True, help="Accept missing secrets and certificates, as in CI.")
@format_option
def check(config: Path, allow_unset: bool, output: str) -> int:
    """Report every mistake in gateway.yaml, then run its tests.

    Each line says where to look: file:line:column, the setting, what is wrong. Warnings don't
    make the file wrong. If there is no mistake, the tests under `tests:` are run against the
    rules. No server, secret or database is touched; a listener's certificate is looked at.

    Exit 0 if the file has no mistake and all its tests hold, else 1.

    \b
    Example:
      gateway check
      gateway check --allow-unset -c deploy/gateway.yaml
    """
    examined = examine(config, allow_unset=allow_unset)
    results = _prove(examined)
    fine = examined.policy is not None and all(result.passed for result in results)
    if output == "json":
        say_json(_as_json(examined, results, fine))
    else:
        _report(config, examined, results)
    return 0 if fine else 1


def _prove(examined: Examined) -> list[Result]:
    if examined.config is None or examined.policy is None:
        return []
    from gateway.policy.compile import compile_tests
    from gateway.policy.prove import prove

    return prove(examined.policy, compile_tests(examined.config, examined.places), time.time())


def _report(config: Path, examined: Examined, results: list[Result]) -> None:
    for problem in examined.problems:
        say(line(problem), fg="yellow" if problem.warning else "red")
    if examined.policy is None:
        return
    failed = [result for result in results if not result.passed]
    for result in failed:
        say(printable(f"{result.test.place}  {result.complaint}"), fg="red")
    say(f"{config}: {_summary(examined, results, failed)}", fg="red" if failed else "green", bold=True)


def _summary(examined: Examined, results: list[Result], failed: list[Result]) -> str:
    """`no mistakes, 1 warning, 1 test failed, 5 tests passed`."""
    passed = len(results) - len(failed)
    parts = ["no mistakes"]
    parts += [counted(len(examined.problems), "warning")] if examined.problems else []
    parts += [f"{counted(len(failed), 'test')} failed"] if failed else []
    parts += [f"{counted(passed, 'test')} passed"] if passed or not failed else []
    return ", ".join(parts)


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
