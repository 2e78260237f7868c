"""`python -m tests.wire.fuzz MINUTES [LANE]`: storms until the time is over or one shows a defect.

With `tunnels` for the lane, tunnels through that of `gateway run`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.support.lanes import RUN
from tests.wire.fuzz.run import Weather

TUNNELS = "tunnels"


def main() -> None:
    minutes, lane = float(sys.argv[1]), (sys.argv[2:] or [RUN])[0]
    end = time.monotonic() + minutes * 60
    through = RUN if lane == TUNNELS else lane
    with tempfile.TemporaryDirectory() as folder, Weather(Path(folder), through) as weather:
        try:
            while time.monotonic() < end:
                (weather.tunnels if lane == TUNNELS else weather.storms)(1000)
        finally:
            print(f"{weather.played}, {lane}")


if __name__ == "__main__":
    main()
