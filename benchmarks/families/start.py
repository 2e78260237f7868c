"""How soon it is there: from its start to the first 200, and `gateway --version`."""

from __future__ import annotations

import http.client
import statistics
import time

from benchmarks.families.rounds import say
from benchmarks.peers.gateway import gateway
from benchmarks.peers.peer import Place, found
from benchmarks.report import Cell, Effort, Found, Mark, Table
from benchmarks.stage import Stage, Unfit

_TIMES = 5
_MOST_START, _MOST_VERSION = 1.0, 0.15
_PATIENCE = 20.0
_AGAIN = 0.005


def measure(stage: Stage, effort: Effort) -> Found:
    times = max(_TIMES, effort.rounds)
    place = stage.place(gateway())
    _first_answer(stage, place)  # makes the database
    first = statistics.median(_first_answer(stage, place) for _ in range(times))
    version = statistics.median(_seconds(stage, [found("gateway"), "--version"]) for _ in range(times))
    python = statistics.median(_seconds(stage, [found("python"), "-c", ""]) for _ in range(times))
    say(f"first 200 after {first:.2f} s, --version {version:.3f} s")
    rows: list[list[Cell]] = [
        ["`gateway run`, to the first proxied 200 (the database is there)", f"{first:.2f} s"],
        ["`gateway --version`", f"{version:.3f} s"],
        ["(`python -c ''`, for comparison)", f"{python:.3f} s"],
    ]
    marks = [
        Mark("start to the first 200", _MOST_START, first, ".2f", " s", most=True),
        Mark("`gateway --version`", _MOST_VERSION, version, ".3f", " s", most=True),
    ]
    return Found(f"median of {times}", [Table({"from the start of the process": "", "": " "}, rows)], marks)


def _first_answer(stage: Stage, place: Place) -> float:
    [command] = gateway().start(place)
    begun = time.perf_counter()
    process = stage.popen(command, place.folder, place.environ, [stage.program_core])
    try:
        while not _answers(place.port, stage.token()):
            if time.perf_counter() - begun > _PATIENCE:
                raise Unfit("the gateway did not answer: " + (place.folder / "output").read_text()[-500:])
            time.sleep(_AGAIN)
        return time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()


def _answers(port: int, token: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/items", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _seconds(stage: Stage, command: list[str]) -> float:
    place = stage.place(gateway())
    begun = time.perf_counter()
    process = stage.popen(command, place.folder, place.environ, [stage.program_core])
    if process.wait():
        raise Unfit(f"{command} ended with {process.returncode}")
    return time.perf_counter() - begun
