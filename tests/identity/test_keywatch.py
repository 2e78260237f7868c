"""The watch over a folder of keys: what is taken up, when, and what is said where it can't be."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from gateway.identity import keywatch
from gateway.identity.keyfolder import BadKeys, Contents, KeyFolder
from gateway.identity.keyset import Dated
from gateway.identity.keywatch import KeyWatch
from gateway.identity.manifest import Entry, Manifest
from tests.support.keys import made
from tests.support.serving import until
from tests.support.tokens import NOW

pytestmark = pytest.mark.anyio

ONE = Entry("one", "ES256", NOW, NOW)
TWO = Entry("two", "EdDSA", NOW)


class Watched:
    """A folder with one key, and what its watch hands on."""

    def __init__(self, path: Path, *, needed: bool = True, patience: float = 30.0) -> None:
        self.now = float(NOW)
        self.folder = KeyFolder(path)
        self.taken: list[list[str]] = []
        self.told = [""]
        self.write(ONE)
        self.watch = KeyWatch(
            self.folder,
            needed=needed,
            adopt=self.adopt,
            tell=self.tell,
            clock=lambda: self.now,
            patience=patience,
        )

    def adopt(self, keys: Sequence[Dated]) -> None:
        self.taken.append([dated.key.kid for dated in keys])

    def tell(self, fault: str) -> None:
        if fault != self.told[-1]:
            self.told.append(fault)

    def write(self, *entries: Entry) -> None:
        for entry in entries:
            (self.folder.path / f"{entry.kid}.pem").write_bytes(made(entry.algorithm, entry.kid))
            (self.folder.path / f"{entry.kid}.pem").chmod(0o600)
        with self.folder.locked():
            self.folder.write(Manifest(entries), Manifest(entries))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


async def test_a_change_is_taken_up_when_two_looks_agree(watched: Watched) -> None:
    assert watched.taken == [["one"]]
    await watched.watch.look()
    watched.write(ONE, TWO)
    await watched.watch.look()
    assert watched.taken == [["one"]]
    await watched.watch.look()
    await watched.watch.look()
    assert watched.taken == [["one"], ["one", "two"]]
    assert watched.told == [""]


async def test_who_can_not_wait_has_it_at_once(watched: Watched) -> None:
    watched.write(ONE, TWO)
    await watched.watch.look(patient=False)
    assert watched.taken[-1] == ["one", "two"]


async def test_what_is_half_written_is_never_taken_up(watched: Watched) -> None:
    """A copy that brings keys.json first and then, piece by piece, the key that it names."""
    pem = watched.folder.path / "two.pem"
    watched.write(ONE, TWO)
    whole = pem.read_bytes()
    for size in range(0, len(whole), 20):
        pem.write_bytes(whole[:size])
        await watched.watch.look()
    pem.write_bytes(whole)
    await watched.watch.look()
    assert (watched.taken, watched.told) == ([["one"]], [""])
    await watched.watch.look()
    assert watched.taken == [["one"], ["one", "two"]]


async def test_what_is_no_good_is_said_once_and_the_keys_before_stay(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.write(ONE, TWO)
    (watched.folder.path / "two.pem").write_text("x")
    for _ in range(5):
        await watched.watch.look()
    assert watched.taken == [["one"]]
    assert watched.told[-1].startswith("the keys on the disk are not taken up: ")
    assert watched.told[-1].endswith("two.pem holds no private key in PEM")
    (line,) = caplog.messages
    assert line.startswith("the new keys of tokens are not taken up: ")
    watched.write(ONE, TWO)
    for _ in range(2):
        await watched.watch.look()
    assert watched.taken == [["one"], ["one", "two"]]
    assert watched.told[-1] == ""


async def test_the_former_contents_are_as_good_as_before(watched: Watched) -> None:
    before = (watched.folder.path / "keys.json").read_bytes()
    (watched.folder.path / "keys.json").write_text("{")
    await watched.watch.look(patient=False)
    assert watched.told[-1]
    (watched.folder.path / "keys.json").write_bytes(before)
    await watched.watch.look(patient=False)
    assert watched.told[-1] == ""
    assert watched.taken[-1] == ["one"]


async def test_a_key_that_is_over_leaves_without_a_change_on_the_disk(watched: Watched) -> None:
    watched.write(Entry("old", "RS256", NOW - 9, NOW - 9, NOW + 60), ONE)
    await watched.watch.look(patient=False)
    assert watched.taken[-1] == ["old", "one"]
    watched.now += 60
    for _ in range(2):
        await watched.watch.look()
    assert watched.taken[-1] == ["one"]


async def test_the_last_key_that_signs_can_not_be_taken_away(watched: Watched) -> None:
    for spoiled in ('{"keys": []}', "", '{"keys": [{"kid": "one"}]}'):
        (watched.folder.path / "keys.json").write_text(spoiled)
        await watched.watch.look(patient=False)
        assert watched.told[-1]
    assert watched.taken == [["one"]]


def test_the_first_keys_have_to_be_good(tmp_path: Path) -> None:
    watch = partial(KeyWatch, KeyFolder(tmp_path), adopt=lambda keys: None, tell=lambda fault: None)
    with pytest.raises(BadKeys, match=r"keys.json"):
        watch(needed=True)
    (tmp_path / "keys.json").write_text('{"keys": []}')
    watch(needed=False)
    with pytest.raises(BadKeys, match=r"has no key that signs"):
        watch(needed=True)


async def test_it_waits_between_two_looks(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[object] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        steps.append(seconds)
        if len(steps) == 5:
            enough.set()
            await asyncio.Event().wait()

    async def look() -> None:
        steps.append("look")

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(watched.watch, "look", look)
    running = asyncio.create_task(watched.watch.run())
    await asyncio.wait_for(enough.wait(), 30)
    assert steps == [keywatch.LOOK_S, "look", keywatch.LOOK_S, "look", keywatch.LOOK_S]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_file_system_that_never_answers_hangs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched, answers, threads = Watched(tmp_path, patience=0.01), threading.Event(), threading.active_count()
    look = KeyFolder.look

    def waiting(self: KeyFolder, now: float) -> Contents:
        answers.wait()
        return look(self, now)

    monkeypatch.setattr(KeyFolder, "look", waiting)
    for _ in range(5):
        await watched.watch.look(patient=False)
    assert threading.active_count() == threads + 1  # they don't pile up
    assert watched.told[-1] == "the keys on the disk can't be looked at: no answer"
    assert caplog.messages == ["the keys of tokens can't be looked at: no answer"]
    answers.set()
    watched.write(ONE, TWO)
    while watched.taken == [["one"]]:
        await watched.watch.look()
        await asyncio.sleep(0.001)
    assert watched.told[-1] == ""


async def test_it_looks_by_itself_and_a_defect_does_not_stop_it(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keywatch, "LOOK_S", 0.001)
    caplog.set_level(logging.INFO)
    adopt, failures = watched.watch._adopt, iter([True])

    def failing_once(keys: Sequence[Dated]) -> None:
        if next(failures, False):
            raise RuntimeError("a defect")
        adopt(keys)

    monkeypatch.setattr(watched.watch, "_adopt", failing_once)
    running = asyncio.create_task(watched.watch.run())
    watched.write(ONE, TWO)
    await until(lambda: "the keys of tokens can't be looked at" in caplog.messages)
    watched.write(ONE)
    await until(lambda: watched.taken != [["one"]])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    (failed,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert failed.exc_info is not None
    assert str(failed.exc_info[1]) == "a defect"
    taken = [record for record in caplog.records if record.message == "new keys of tokens are taken up"]
    assert vars(taken[-1])["keys"] == watched.taken[-1]
