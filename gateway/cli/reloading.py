"""Reading gateway.yaml again while it is served, and taking it up whole or not at all.

When SIGHUP comes, and with `server.reload: auto` when the content of a file has changed
(`watching`). The same reading as at the start, in a thread, while requests go on. A file with
a mistake, one whose own tests fail and one that would need a restart change nothing. Why is
said in the log, on /readyz and in the metrics; once, until the content changes again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.app import Gateway
from gateway.aside import aside
from gateway.cli.loading import Examined, softened
from gateway.cli.output import counted
from gateway.cli.watching import Reading, Sights, Watch, look, read, read_now, same
from gateway.config.haste import uncollected
from gateway.config.restart import without_rules
from gateway.config.schema import Config
from gateway.config.source import Problem
from gateway.policy.compile import compile_tests
from gateway.policy.model import Policy
from gateway.policy.prove import Result, prove

MOST_LINES = 50
"""Of one file's mistakes in the log; `gateway check` says all of them."""
MOST_SHOWN = 10
"""Of them on /readyz."""
CALM_S = 2.0
"""How long a file that nobody has looked at yet must be unchanged."""
PATIENCE_S = 60.0
"""For the files to be read. A network's file system that is away may never answer."""
BREATH_S = 0.02
"""Seconds for requests between two things that stop them all."""
STEP_S = 0.0005
"""Seconds of a turn while a file is read; a shorter one costs more than it gives."""

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a file is not taken up."""

    outcome: str
    """`mistakes`, `tests_failed` or `restart_needed`."""
    message: str
    """For the log and /readyz."""
    lines: list[dict[str, str]] = field(default_factory=lambda: [{}])
    """Fields of one log line each: place, setting, problem."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What came of reading the files. Small: what was read itself is let go in the thread that read it."""

    before: Sights
    after: Sights
    """Of the files that it took."""
    whole: bool
    """As in a Reading."""
    settings: Config | None
    """All but the rules."""
    policy: Policy | None
    """The rules, to be served."""
    refused: Refused | None
    """Why not."""
    warnings: list[dict[str, str]]
    """Fields of one log line each."""


class Reloader:
    """Reads one file, for one gateway, as often as it is called; never twice at once.

    With `report_only` its rules only report, as those of the start do; its tests are about the rules as
    written.
    """

    def __init__(
        self,
        path: Path,
        gateway: Gateway,
        served: Reading,
        *,
        report_only: bool = False,
        patience: float = PATIENCE_S,
    ) -> None:
        """`served` is what `gateway` was built of."""
        self._path = path
        self._gateway = gateway
        self._report_only = report_only
        self._patience = patience
        self._watches = _is_watched(served.examined.config)
        self._watch = Watch(served.after, sure=served.whole)
        self._turn = asyncio.Lock()
        self._looking: asyncio.Future[Sights] | None = None
        self._reading: asyncio.Future[_Attempt] | None = None

    async def __call__(self) -> None:
        """Read the file now, as it is."""
        async with self._turn:
            await self._reload(None)

    async def look(self) -> bool:
        """One look at the files, if they are watched. Whether something that two looks agree on was tried."""
        if not self._watches:
            return False
        sights = await self._look()
        if sights is None or not self._watch.is_due(sights):
            return False
        async with self._turn:
            return await self._reload(sights)

    async def _look(self) -> Sights | None:
        """None as long as the file system does not answer. One look at a time: they must not pile up."""
        if self._looking is None:
            files = self._watch.files
            self._looking = aside(lambda: look(files))
        elif not self._looking.done():
            return None
        done, _ = await asyncio.wait({self._looking}, timeout=self._patience)
        if not done:
            log.error("the files of the configuration can't be looked at: no answer")
            return None
        looking, self._looking = self._looking, None
        return looking.result()

    async def _reload(self, expected: Sights | None) -> bool:
        """Whether the file was tried: at once, or only if its files still are as `expected`."""
        # While the collector looks at what was made, everything stands still: 0.3 seconds for the half
        # million objects of ten thousand rules, several times. Now once, at what is left in the end.
        with uncollected():
            try:
                tried = self._conclude(await self._answered(expected), expected)
            except Exception as error:
                self._gateway.reloaded("failed", f"a defect, told in the log: {type(error).__name__}")
                raise
            if tried:
                await asyncio.sleep(BREATH_S)
                gc.collect()
        return tried

    def _conclude(self, attempt: _Attempt | None, expected: Sights | None) -> bool:
        if attempt is None:
            reason = f"the files can't be read: no answer within {self._patience:g} seconds"
            self._refuse(Refused("mistakes", reason))
            return True
        if expected is not None and not same(attempt.before, expected):
            return False
        if expected is not None and not attempt.whole:
            self._watch.widen(attempt.after)
            return False
        self._watch.settle(attempt.after, sure=attempt.whole)
        refused = attempt.refused or self._hand_over(attempt)
        if refused is not None:
            self._refuse(refused)
        return True

    async def _answered(self, expected: Sights | None) -> _Attempt | None:
        """None if the files are not read in time. A reading that still waits then must not get company."""
        if self._reading is not None and not self._reading.done():
            return None
        known = self._watch.files
        reading = self._reading = aside(lambda: self._attempt(known, expected))
        done, _ = await asyncio.wait({reading}, timeout=self._patience)
        if expected is not None and (not done or reading.exception() is not None):
            self._watch.settle(expected)  # not every two seconds the same
        if done:
            self._reading = None
            return reading.result()
        reading.add_done_callback(lambda _: self._watch.doubt())
        return None

    def _attempt(self, known: Iterable[Path], expected: Sights | None) -> _Attempt:
        with _in_small_steps():
            if expected is not None:
                return self._judged(read(self._path, known, calm=CALM_S, certificate=False))
            return self._judged(read_now(self._path, known, certificate=False))

    def _judged(self, reading: Reading) -> _Attempt:
        examined = reading.examined
        refused = _objection(reading) or self._restart(examined)
        policy = softened(examined) if self._report_only and refused is None else examined.policy
        settings = without_rules(examined.config) if examined.config is not None else None
        warnings = [_fields(problem) for problem in examined.problems if problem.warning]
        return _Attempt(reading.before, reading.after, reading.whole, settings, policy, refused, warnings)

    def _restart(self, examined: Examined) -> Refused | None:
        assert examined.config is not None  # noqa: S101 (there was no objection)
        keys = self._gateway.restart_needed(examined.config)
        lines = [_changed(examined, key) for key in keys]
        return Refused("restart_needed", f"restart needed for {', '.join(keys)}", lines) if keys else None

    def _hand_over(self, attempt: _Attempt) -> Refused | None:
        assert attempt.settings is not None  # noqa: S101 (nothing was refused)
        assert attempt.policy is not None  # noqa: S101
        try:
            self._gateway.reload(attempt.settings, attempt.policy)
        except (OSError, ValueError) as error:  # a backend's certificate that only now turns out wrong
            return Refused("mistakes", "a file can't be used", [{"problem": str(error)}])
        self._watches = _is_watched(attempt.settings)
        self._gateway.reloaded("applied")
        for warning in attempt.warnings:
            log.warning("the configuration has a warning", extra=warning)
        log.info("reloaded", extra={"file": str(self._path)})
        return None

    def _refuse(self, refused: Refused) -> None:
        shown = [_as_printed(line) for line in refused.lines[:MOST_SHOWN] if line]
        self._gateway.reloaded(refused.outcome, refused.message, shown)
        for line in refused.lines[:MOST_LINES]:
            log.error("reload refused: %s", refused.message, extra=line)


def _is_watched(settings: Config | None) -> bool:
    return settings is not None and settings.server.reload == "auto"


@contextmanager
def _in_small_steps() -> Iterator[None]:
    """Whoever serves requests gets a turn sooner: threads take turns, of 5 ms if nobody says else."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(STEP_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def _objection(reading: Reading) -> Refused | None:
    examined = reading.examined
    if not reading.whole:
        return Refused("mistakes", "the files change while they are read")
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


def _as_printed(line: dict[str, str]) -> str:
    """As `gateway check` prints a problem."""
    place = f"{line['place']}  " if line.get("place") else ""
    setting = f"{line['setting']}: " if line.get("setting") else ""
    return place + setting + line["problem"]


def _fields(problem: Problem) -> dict[str, str]:
    return {"place": str(problem.place), "setting": problem.path, "problem": problem.sentence}


def _changed(examined: Examined, key: str) -> dict[str, str]:
    place = examined.places.of(*key.split("."))  # none of these settings has an index or a dot in its name
    return {
        "place": str(place),
        "setting": key,
        "problem": "is not what runs; only a restart changes it",
    }


def _shown(result: Result) -> dict[str, str]:
    return {"place": result.test.place, "problem": result.complaint or ""}
