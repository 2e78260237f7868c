"""`python -m benchmarks [FAMILY…]`: this gateway beside other programs, on this machine.

The machine may be shared and noisy, so a number alone says little: programs take
turns within every round, and what counts is the ratio inside one run. Each
program has one core for itself; the load and the backend share another.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable

from benchmarks import load, report
from benchmarks.families import (
    accounts,
    bodies,
    growth,
    lane,
    latency,
    memory,
    start,
    storm,
    throughput,
    websocket,
)
from benchmarks.families.rounds import say
from benchmarks.report import Effort, Found
from benchmarks.stage import Stage, Unfit, stage

FAMILIES: dict[str, Callable[[Stage, Effort], Found]] = {
    "throughput": throughput.measure,
    "lane": lane.measure,
    "latency": latency.measure,
    "growth": growth.measure,
    "bodies": bodies.measure,
    "websocket": websocket.measure,
    "storm": storm.measure,
    "accounts": accounts.measure,
    "memory": memory.measure,
    "start": start.measure,
}


def main() -> None:
    options = _options()
    load.wrk()
    # As Ctrl-C: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    effort = Effort(options.rounds, options.seconds, options.requests, options.full)
    failed: list[str] = []
    with stage() as ready:
        for name in options.families or FAMILIES:
            say(name)
            begun = time.monotonic()
            try:
                found = FAMILIES[name](ready, effort)
            except (Unfit, OSError) as error:
                say(f"{name} could not be measured: {error}")
                failed.append(name)
                continue
            say(f"{name}: {time.monotonic() - begun:.0f} s")
            print(f"\n## {name}\n\n{report.text(found)}\n", flush=True)
            if options.save:
                report.save(name, found, effort)
                report.write_page()
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    families = ", ".join(FAMILIES)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of: {families}; all without")
    parser.add_argument("--full", action="store_true", help="everything, and longer: about twenty minutes")
    parser.add_argument("--rounds", type=int, help="turns of every program (3, full 7)")
    parser.add_argument(
        "--seconds",
        type=int,
        help="length of one turn, elsewhere than in the main table half of it (2, full 4)",
    )
    parser.add_argument("--requests", type=int, help="before memory is compared (50000, full 1000000)")
    parser.add_argument("--save", action="store_true", help="write results/*.json and docs/performance.md")
    options = parser.parse_args()
    if unknown := set(options.families) - set(FAMILIES):
        parser.error(f"no such family: {', '.join(sorted(unknown))}")
    options.rounds = options.rounds or (7 if options.full else 3)
    options.seconds = options.seconds or (4 if options.full else 2)
    options.requests = options.requests or (1_000_000 if options.full else 50_000)
    return options


if __name__ == "__main__":
    main()
