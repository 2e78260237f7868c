"""What SIGHUP does: gateway.yaml is read again, and taken up whole or not at all.

The same reading as at the start, in a thread, while requests go on. A file with
a mistake, one whose own tests fail and one that would need a restart change
nothing. Why is said in the log, on /readyz and in the metrics.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.app import Gateway, RestartNeeded
from gateway.cli.loading import Examined, examine, softened
from gateway.cli.output import counted
from gateway.config.source import Problem
from gateway.policy.compile import compile_tests
from gateway.policy.prove import Result, prove

MOST_LINES = 50
"""Of one file's mistakes in the log; `gateway check` says all of them."""

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a file is not taken up."""

    outcome: str
    """`mistakes`, `tests_failed` or `restart_needed`."""
    message: str
    """For the log and /readyz."""
    lines: list[dict[str, Any]]
    """Fields of one log line each."""


class Reloader:
    """Reads one file, for one gateway, as often as it is called; never twice at once.

    With `report_only` its rules only report, as those of the start do; its tests are about the rules as written.
    """

    def __init__(self, path: Path, gateway: Gateway, *, report_only: bool = False) -> None:
        self._path = path
        self._gateway = gateway
        self._report_only = report_only

    async def __call__(self) -> None:
        examined = await asyncio.to_thread(examine, self._path, certificate=False)
        refused = await asyncio.to_thread(_objection, examined)
        if refused is None:
            served = await asyncio.to_thread(self._served, examined)
            refused = self._hand_over(served)
        if refused is None:
            self._gateway.reloaded("applied")
            for warning in examined.problems:
                log.warning("the configuration has a warning", extra=_fields(warning))
            log.info("reloaded", extra={"file": str(self._path)})
            return
        self._gateway.reloaded(refused.outcome, refused.message)
        for line in refused.lines[:MOST_LINES]:
            log.error("reload refused: %s", refused.message, extra=line)

    def _served(self, examined: Examined) -> Examined:
        return replace(examined, policy=softened(examined)) if self._report_only else examined

    def _hand_over(self, examined: Examined) -> Refused | None:
        assert examined.config is not None  # noqa: S101 (there was no objection)
        assert examined.policy is not None  # noqa: S101
        try:
            self._gateway.reload(examined.config, examined.policy)
        except RestartNeeded as needed:
            message = f"restart needed for {', '.join(needed.keys)}"
            return Refused("restart_needed", message, [{"settings": needed.keys}])
        except (OSError, ValueError) as error:  # a backend's certificate that only now turns out wrong
            return Refused("mistakes", "a file can't be used", [{"problem": str(error)}])
        return None


def _objection(examined: Examined) -> Refused | None:
    if examined.config is None or examined.policy is None:
        mistakes = [problem for problem in examined.problems if not problem.warning]
        return Refused(
            "mistakes", counted(len(mistakes), "mistake"), [_fields(problem) for problem in mistakes]
        )
    results = prove(examined.policy, compile_tests(examined.config, examined.places), time.time())
    failed = [result for result in results if not result.passed]
    if failed:
        return Refused(
            "tests_failed", f"{counted(len(failed), 'test')} failed", [_shown(one) for one in failed]
        )
    return None


def _fields(problem: Problem) -> dict[str, Any]:
    return {"place": str(problem.place), "setting": problem.path, "problem": problem.sentence}


def _shown(result: Result) -> dict[str, Any]:
    return {"place": result.test.place, "problem": result.complaint}
