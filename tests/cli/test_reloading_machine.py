"""Writing, replacing, breaking, looking and signalling in any order: what rests is served, halves never."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gateway.cli.reloading import Reloader
from tests.cli.test_reloading import BASE, House

FILES = st.sampled_from(["gateway.yaml", "rules.yaml"])
NUMBERS = st.integers(0, 5)
ENOUGH_LOOKS = 4
"""Two for a change, one more for a file that is named for the first time, one that finds nothing to do."""


class Files(RuleBasedStateMachine):
    """Two files, of which one names the other; each version of a file opens a path of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.house = House(self.folder)
        self.written: dict[str, int | None] = {"gateway.yaml": 0, "rules.yaml": 0}
        """The versions that are there in the end; None for none, or one that nobody could read."""
        self.includes = True
        self.halves = 0
        self.reloader: Reloader

    @initialize()
    def start(self) -> None:
        for name in self.written:
            self.house.write(name, self.text(name, 0))
        self.reloader = self.house.start()
        self.house.served.routes = self.expected() or []

    def text(self, name: str, number: int | str) -> str:
        rules = f"routes: [{{path: /{name}/{number}, allow: public}}]\n"
        if name == "rules.yaml":
            return rules
        return BASE + rules + ("include: rules.yaml\n" if self.includes else "")

    def expected(self) -> list[str] | None:
        """The routes that the files name; None if they can't be read."""
        taken = ["gateway.yaml", "rules.yaml"] if self.includes else ["gateway.yaml"]
        numbers = [self.written[name] for name in taken]
        if None in numbers:
            return None
        return [f"/{name}/{number}" for name, number in zip(taken, numbers, strict=True)]

    def run(self, what: Any) -> Any:
        return self.loop.run_until_complete(what)

    def remove(self, name: str) -> Path:
        path = self.folder / name
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        return path

    @rule(name=FILES, number=NUMBERS)
    def write(self, name: str, number: int) -> None:
        self.remove(name).write_text(self.text(name, number))
        self.written[name] = number

    @rule(name=FILES, number=NUMBERS)
    def replace(self, name: str, number: int) -> None:
        written = self.house.write("new", self.text(name, number))
        self.remove(name)
        written.replace(self.folder / name)
        self.written[name] = number

    @rule(name=FILES, number=NUMBERS, looks=st.integers(0, 1))
    def write_in_two_halves(self, name: str, number: int, looks: int) -> None:
        """The half is a right file too, and at most one look sees it."""
        path = self.remove(name)
        self.halves += 1
        path.write_text(self.text(name, f"half-{self.halves}"))
        for _ in range(looks):
            self.look()
        path.write_text(self.text(name, number))
        self.written[name] = number

    @rule(name=FILES, how=st.sampled_from(["gone", "directory", "circle", "mistake"]))
    def spoil(self, name: str, how: str) -> None:
        path = self.remove(name)
        if how == "directory":
            path.mkdir()
        elif how == "circle":
            path.symlink_to(name)
        elif how == "mistake":
            path.write_text(self.text(name, 0) + "tsets: []\n")
        self.written[name] = None

    @precondition(lambda self: self.written["gateway.yaml"] is not None)
    @rule()
    def include_or_not(self) -> None:
        self.includes = not self.includes
        number = self.written["gateway.yaml"]
        assert number is not None
        self.write("gateway.yaml", number)

    @rule()
    def look(self) -> None:
        self.run(self.reloader.look())
        assert not [route for route in self.house.served.routes if "/half-" in route]

    @rule()
    def signal(self) -> None:
        """Takes what is there at once."""
        self.run(self.reloader())
        self.check()

    @rule()
    def rest(self) -> None:
        """Nothing changes for a while: then nothing is left to do."""
        for _ in range(ENOUGH_LOOKS):
            self.look()
        attempts = len(self.house.served.outcomes)
        self.look()
        assert len(self.house.served.outcomes) == attempts
        self.check()

    def check(self) -> None:
        expected = self.expected()
        if expected is not None:
            assert self.house.served.routes == expected
            assert self.house.served.outcomes[-1:] in ([], ["applied"])
        else:
            assert self.house.served.outcomes[-1] == "mistakes"

    def teardown(self) -> None:
        self.loop.close()
        shutil.rmtree(self.folder)


class TestFiles(Files.TestCase):  # type: ignore[misc] # made by hypothesis
    settings = settings(max_examples=15, stateful_step_count=25, deadline=None)

    @pytest.fixture(autouse=True)
    def no_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET"):
            monkeypatch.delenv(name, raising=False)
