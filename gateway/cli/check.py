"""`gateway check`: every mistake with its place, then the tests that the file itself holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.loading import Examined, examine, line
from gateway.cli.options import config_option, format_option
from gateway.cli.output import printable, say, say_json

if TYPE_CHECKING:
    from gateway.cli.proofs import Proof


@click.command()
@config_option
@click.option("--allow-unset", is_flag=True, help="Accept secrets whose variable is not set, as in CI.")
@format_option
def check(config: Path, allow_unset: bool, output: str) -> int:
    """Report every mistake in gateway.yaml, then run its tests.

    Each line says where to look: file:line:column, the setting, what is wrong. Warnings don't
    make the file wrong. If there is no mistake, the tests under `tests:` are run against the
    rules. No server, key or database is touched.

    Exit 0 if the file has no mistake and all its tests hold, else 1.

    \b
    Example:
      gateway check
      gateway check --allow-unset -c deploy/gateway.yaml
    """
    examined = examine(config, allow_unset=allow_unset)
    proofs = _proofs(examined)
    fine = examined.policy is not None and not any(proof.failures for proof in proofs)
    if output == "json":
        say_json(_as_json(examined, proofs, fine))
    else:
        _report(config, examined, proofs)
    return 0 if fine else 1


def _proofs(examined: Examined) -> list[Proof]:
    if examined.config is None or examined.policy is None:
        return []
    from gateway.cli.proofs import prove

    return prove(examined.config, examined.policy, examined.places)


def _report(config: Path, examined: Examined, proofs: list[Proof]) -> None:
    for problem in examined.problems:
        say(line(problem), fg="yellow" if problem.warning else "red")
    if examined.policy is None:
        return
    for proof in proofs:
        for failure in proof.failures:
            say(printable(f"{proof.place}  tests[{proof.number}]: {proof.request}: {failure}"), fg="red")
    say(f"{config}: {_summary(examined, proofs)}", fg="green" if _all_hold(proofs) else "red", bold=True)


def _summary(examined: Examined, proofs: list[Proof]) -> str:
    """`no mistakes, 1 warning, 1 test failed, 5 tests passed`."""
    warnings, failed = len(examined.problems), sum(bool(proof.failures) for proof in proofs)
    passed = len(proofs) - failed
    return ", ".join(
        ["no mistakes"]
        + ([f"{warnings} {'warning' if warnings == 1 else 'warnings'}"] if warnings else [])
        + ([f"{failed} {'test' if failed == 1 else 'tests'} failed"] if failed else [])
        + ([f"{passed} {'test' if passed == 1 else 'tests'} passed"] if passed or not failed else [])
    )


def _all_hold(proofs: list[Proof]) -> bool:
    return not any(proof.failures for proof in proofs)


def _as_json(examined: Examined, proofs: list[Proof], fine: bool) -> dict[str, Any]:
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
                "file": proof.place.file,
                "line": proof.place.line,
                "request": proof.request,
                "passed": not proof.failures,
                "failures": list(proof.failures),
            }
            for proof in proofs
        ],
    }
