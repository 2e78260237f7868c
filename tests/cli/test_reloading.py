"""When changed files are taken up by themselves. A look happens when a test says so, so no time passes."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import reloading, watching
from gateway.cli.reloading import Reloader
from gateway.cli.watching import read_now
from gateway.config.restart import restart_needed
from tests.support.forwarding import PATIENCE

pytestmark = pytest.mark.anyio

SECRETS = """
JWT_ACCESS_SECRET=fFZ0lq4mW8sTn2vKc7RbYx1GdHj5PuEa
JWT_REFRESH_SECRET=Qk3zXw9LtBn6MvCy0SgJhR8pDf2AeU7i
"""
BASE = """
server: {reload: auto}
upstream: http://127.0.0.1:9000
tokens: {access: {secret: "${JWT_ACCESS_SECRET}"}, refresh: {secret: "${JWT_REFRESH_SECRET}"}}
"""


@dataclass
class Served:
    """What a gateway was told."""

    config: Any = None
    routes: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def restart_needed(self, config: Any) -> list[str]:
        return restart_needed(self.config, config)

    def reload(self, config: Any, policy: Any) -> None:
        self.config = config
        self.routes = [route.label for route in policy.routes]

    def reloaded(self, outcome: str, why: str = "", problems: Any = ()) -> None:
        self.outcomes.append(outcome)
        self.problems = list(problems)


class House:
    """A folder with a configuration, and what is served of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.served = folder, folder / "gateway.yaml", Served()
        self.write(".env", SECRETS)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def rules(self, text: str, *, base: str = BASE) -> None:
        self.write("gateway.yaml", base + text)

    def start(self, **settings: Any) -> Reloader:
        reading = read_now(self.file, [self.file, self.folder / ".env"])
        assert reading.examined.config is not None, reading.examined.problems
        self.served.config = reading.examined.config
        return Reloader(self.file, self.served, reading, **settings)  # type: ignore[arg-type] # a stand-in


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    for name in ("JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return House(tmp_path)


def rule(path: str) -> str:
    return f"routes: [{{path: {path}, allow: public}}]\n"


async def looks(reloader: Reloader, count: int) -> list[bool]:
    return [await reloader.look() for _ in range(count)]


# -- what is taken up, and when ------------------------------------------------------------------------------


async def test_a_change_is_taken_up_when_it_is_seen_twice_and_only_once(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    assert await looks(reloader, 3) == [False, False, False]
    house.rules(rule("/b"))
    assert await looks(reloader, 4) == [False, True, False, False]
    assert (house.served.routes, house.served.outcomes) == (["/b"], ["applied"])


async def test_what_never_rests_is_never_taken_up(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    for number in range(5):
        house.rules(rule(f"/{number}"))
        assert await looks(reloader, 1) == [False]
    assert await looks(reloader, 2) == [True, False]
    assert house.served.routes == ["/4"]


async def test_a_half_written_file_is_not_taken_up(house: House) -> None:
    """Though each half is a right configuration."""
    house.rules(rule("/a"))
    reloader = house.start()
    whole = BASE + "routes:\n- {path: /b, allow: public}\n- {path: /b/secret, allow: nobody}\n"
    with house.file.open("w") as file:
        for part in (whole[: whole.index("- {path: /b/secret")], whole[whole.index("- {path: /b/secret") :]):
            assert await looks(reloader, 1) == [False]
            file.write(part)
            file.flush()
        assert await looks(reloader, 1) == [False]
    assert await looks(reloader, 1) == [True]
    assert house.served.outcomes == ["applied"]
    assert len(house.served.routes) == 2


async def test_a_change_back_is_no_change(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    house.rules(rule("/b"))
    assert await looks(reloader, 1) == [False]
    house.rules(rule("/a"))
    assert await looks(reloader, 3) == [False] * 3


async def test_dates_and_sizes_prove_nothing(house: House) -> None:
    house.rules(rule("/a"))
    os.utime(house.file, ns=(1, 1))
    reloader = house.start()
    house.rules(rule("/b"))
    os.utime(house.file, ns=(1, 1))
    assert await looks(reloader, 2) == [False, True]
    assert house.served.routes == ["/b"]


async def test_a_touched_file_is_no_change(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    os.utime(house.file)
    house.file.chmod(0o600)
    house.rules(rule("/a"))
    assert await looks(reloader, 3) == [False] * 3


async def test_an_editor_that_renames_over_the_file(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    house.write(".gateway.yaml.swp", BASE + rule("/b")).replace(house.file)
    assert await looks(reloader, 2) == [False, True]
    assert house.served.routes == ["/b"]


def swap(folder: Path, version: str, files: dict[str, str]) -> None:
    """As the kubelet writes a ConfigMap: a folder with a date, a link to it, and links through that."""
    (folder / version).mkdir(parents=True)
    for name, text in files.items():
        (folder / version / name).write_text(text)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


async def test_a_config_map(house: House) -> None:
    files = {"gateway.yaml": f"{BASE}include: rules.yaml\n", ".env": SECRETS}
    swap(house.folder / "map", "..2026_1", files | {"rules.yaml": rule("/a")})
    house.file = house.folder / "map/gateway.yaml"
    reloader = house.start()
    assert await looks(reloader, 2) == [False, False]
    swap(house.folder / "map", "..2026_2", files | {"rules.yaml": rule("/b")})
    assert await looks(reloader, 3) == [False, True, False]
    assert house.served.routes == ["/b"]
    swap(house.folder / "map", "..2026_3", files | {"rules.yaml": rule("/b")})
    assert await looks(reloader, 2) == [False, False]


async def test_a_link_anywhere_on_the_way_may_turn(house: House) -> None:
    for name in "ab":
        house.write(f"{name}/deep/rules.yaml", rule(f"/{name}"))
    (house.folder / "current").symlink_to("a")
    house.rules("include: current/deep/rules.yaml\n")
    reloader = house.start()
    (house.folder / "next").symlink_to("b")
    (house.folder / "next").rename(house.folder / "current")
    assert await looks(reloader, 2) == [False, True]
    assert house.served.routes == ["/b"]


@pytest.mark.parametrize(
    ("name", "before", "after", "outcome"),
    [
        ("rules.yaml", rule("/a"), rule("/b"), "applied"),
        ("tests.yaml", "[]", "[{request: GET /x, as: anonymous, expect: allow}]", "tests_failed"),
        ("origin", "http://127.0.0.1:9001", "http://127.0.0.1:9002", "applied"),
        (".env", SECRETS, SECRETS.replace("PuEa", "PuEb"), "restart_needed"),
        (".env", SECRETS, SECRETS + "OTHER=x", "applied"),
    ],
)
async def test_every_file_counts(house: House, name: str, before: str, after: str, outcome: str) -> None:
    for file, text in (("rules.yaml", rule("/a")), ("tests.yaml", "[]"), ("origin", "http://127.0.0.1:9001")):
        house.write(file, text)
    house.write(name, before)
    base = BASE.replace("http://127.0.0.1:9000", '"${file:origin}"')
    house.rules("include: rules.yaml\ntests_include: tests.yaml\n", base=base)
    reloader = house.start()
    assert await looks(reloader, 2) == [False, False]
    house.write(name, after)
    assert await looks(reloader, 3) == [False, True, False]
    assert house.served.outcomes == [outcome]


async def test_so_do_the_pem_files_of_upstreams(house: House) -> None:
    house.write("ca.pem", "one")
    house.rules(
        rule("/a"),
        base=BASE.replace(
            "upstream: http://127.0.0.1:9000",
            "upstreams: {default: {url: 'https://127.0.0.1:9000', tls: {ca: ca.pem}}}",
        ),
    )
    reloader = house.start()
    house.write("ca.pem", "two")
    assert await looks(reloader, 3) == [False, True, False]
    assert house.served.outcomes == ["applied"]


async def test_a_file_that_is_named_anew_has_to_rest_too(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    house.write("rules.yaml", rule("/b"))
    house.rules("include: rules.yaml\n")
    assert await looks(reloader, 2) == [False, False]
    house.write("rules.yaml", rule("/c"))
    assert await looks(reloader, 1) == [False]
    assert await looks(reloader, 2) == [True, False]
    assert house.served.routes == ["/c"]


async def test_a_file_that_is_named_anew_and_old_needs_no_third_look(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    house.write("rules.yaml", rule("/b"))
    house.rules("include: rules.yaml\n")
    monkeypatch.setattr(reloading, "CALM_S", -3600.0)  # as if it had been written an hour ago
    assert await looks(reloader, 3) == [False, True, False]


# -- what is refused -----------------------------------------------------------------------------------------


async def test_a_missing_file_is_told_once_and_awaited(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    house.rules("include: rules.yaml\n")
    assert await looks(reloader, 5) == [False, True, False, False, False]
    (problem,) = house.served.problems
    assert problem.endswith("rules.yaml: there is no such file")
    house.write("rules.yaml", rule("/b"))
    assert await looks(reloader, 2) == [False, True]
    assert (house.served.routes, house.served.outcomes) == (["/b"], ["mistakes", "applied"])


async def test_mistakes_are_told_once_and_cleared_by_the_old_content(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    house.rules("routes: [{path: a}, {pth: b}]\n")
    assert await looks(reloader, 4) == [False, True, False, False]
    assert house.served.outcomes == ["mistakes"]
    assert len(house.served.problems) == 4
    house.rules(rule("/a"))
    assert await looks(reloader, 2) == [False, True]
    assert house.served.outcomes[-1] == "applied"


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _link(target: str) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return make


def _bomb(file: Path) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    file.write_text("\n".join(["l0: &l0 [a]", *levels]))


def _huge(file: Path) -> None:
    with file.open("w") as huge:
        huge.truncate(50 << 20)


HOSTILE: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "a directory": _directory,
    "a pipe": _pipe,
    "a device without end": _link("/dev/zero"),
    "a terminal": _link("/dev/tty"),
    "a link to itself": _link("gateway.yaml"),
    "a link to nothing": _link("nowhere"),
    "a bomb": _bomb,
    "huge": _huge,
    "empty": lambda file: file.write_text("") and None,
    "binary": lambda file: file.write_bytes(os.urandom(1000)) and None,
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_whatever_stands_there_is_one_sentence_and_the_old_rules_go_on(house: House, what: str) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    HOSTILE[what](house.file)
    async with asyncio.timeout(PATIENCE):
        assert await looks(reloader, 5) == [False, True, False, False, False]
    assert house.served.outcomes == ["mistakes"]
    assert len(house.served.problems) == 1 or what == "empty"
    if house.file.is_dir():
        house.file.rmdir()
    house.file.unlink(missing_ok=True)
    house.rules(rule("/b"))
    assert await looks(reloader, 2) == [False, True]
    assert (house.served.routes, house.served.outcomes) == (["/b"], ["mistakes", "applied"])


@pytest.mark.parametrize("what", [name for name in HOSTILE if name != "empty"])
async def test_likewise_for_an_included_one(house: House, what: str) -> None:
    included = house.write("rules.yaml", rule("/a"))
    house.rules("include: rules.yaml\n")
    reloader = house.start()
    HOSTILE[what](included)
    if what == "a link to itself":
        included.unlink()
        included.symlink_to("rules.yaml")
    async with asyncio.timeout(PATIENCE):
        assert await looks(reloader, 4) == [False, True, False, False]
    assert house.served.outcomes == ["mistakes"]
    assert len(house.served.problems) == 1
    if included.is_dir():
        included.rmdir()
    included.unlink(missing_ok=True)
    house.write("rules.yaml", rule("/b"))
    assert await looks(reloader, 2) == [False, True]
    assert house.served.routes == ["/b"]


@pytest.mark.parametrize("what", ["a directory", "a pipe", "a device without end", "a terminal", "huge"])
@pytest.mark.parametrize("name", [".env", "tests.yaml", "secret", "ca.pem"])
async def test_likewise_for_all_others(house: House, name: str, what: str) -> None:
    for other, text in (
        ("tests.yaml", "[]"),
        ("secret", "Qk3zXw9LtBn6MvCy0SgJhR8pDf2AeU7i\n"),
        ("ca.pem", "x"),
    ):
        house.write(other, text)
    base = BASE.replace("${JWT_REFRESH_SECRET}", "${file:secret}").replace(
        "upstream: http://127.0.0.1:9000",
        "upstreams: {default: {url: 'https://127.0.0.1:9000', tls: {ca: ca.pem}}}",
    )
    house.rules(rule("/a") + "tests_include: tests.yaml\n", base=base)
    reloader, file = house.start(), house.folder / name
    before = file.read_text()
    HOSTILE[what](file)
    async with asyncio.timeout(PATIENCE):
        assert await looks(reloader, 4) == [False, True, False, False]
    assert house.served.outcomes == (
        ["applied"] if name == "ca.pem" else ["mistakes"]
    )  # it is asked for later
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)
    file.write_text(before)
    assert True in await looks(reloader, 3)  # ca.pem, which no broken file names, is named anew
    assert house.served.outcomes[-1] == "applied"


async def test_a_defect_is_told_once_and_changes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    examine = watching.examine

    def fails(*_: Any, **__: Any) -> Any:
        raise RecursionError("too deep")

    monkeypatch.setattr(watching, "examine", fails)
    house.rules(rule("/b"))
    assert await looks(reloader, 1) == [False]
    with pytest.raises(RecursionError):
        await reloader.look()
    assert await looks(reloader, 3) == [False] * 3
    assert (house.served.routes, house.served.outcomes) == ([], ["failed"])
    with pytest.raises(RecursionError):
        await reloader()
    monkeypatch.setattr(watching, "examine", examine)
    await reloader()
    assert (house.served.routes, house.served.outcomes[-1]) == (["/b"], "applied")


async def test_a_file_that_may_not_be_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played, as root may read everything."""
    house.rules(rule("/a"))
    reloader = house.start()
    opened, forbidden = os.open, True

    def refuse(path: Any, *rest: Any, **named: Any) -> int:
        if forbidden and Path(path) == house.file:
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **named)

    monkeypatch.setattr(watching.os, "open", refuse)
    monkeypatch.setattr("gateway.config.source.os_open", refuse)
    assert await looks(reloader, 3) == [False, True, False]
    assert house.served.problems == [f"{house.file}:1:1  can't be read: permission denied"]
    forbidden = False
    assert await looks(reloader, 2) == [False, True]
    assert house.served.outcomes == ["mistakes", "applied"]


async def test_a_restart_is_asked_for_with_places(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    changed = BASE.replace(
        "{reload: auto}", "\n  reload: auto\n  listen: 127.0.0.1:1\n  limits: {body: 1MiB}"
    )
    house.rules(rule("/b"), base=changed)
    with caplog.at_level(logging.ERROR):
        assert await looks(reloader, 3) == [False, True, False]
    assert house.served.outcomes == ["restart_needed"]
    assert house.served.routes == []
    told = [(line.place, line.setting) for line in caplog.records]  # type: ignore[attr-defined] # extra fields
    assert told == [(f"{house.file}:4:11", "server.listen"), (f"{house.file}:5:18", "server.limits.body")]


async def test_a_link_in_a_circle_that_is_turned_elsewhere(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    (house.folder / "rules.yaml").symlink_to("gateway.yaml")
    house.rules("include: rules.yaml\n")
    assert await looks(reloader, 5) == [False, False, True, False, False]
    assert "is included within itself" in house.served.problems[0]
    house.write("b.yaml", rule("/b"))
    (house.folder / "next").symlink_to("b.yaml")
    (house.folder / "next").rename(house.folder / "rules.yaml")
    assert await looks(reloader, 2) == [False, True]
    assert house.served.routes == ["/b"]


# -- signals beside it ---------------------------------------------------------------------------------------


async def test_a_signal_does_not_wait_and_is_not_followed_by_a_look(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    house.rules(rule("/b"))
    await reloader()
    assert house.served.routes == ["/b"]
    assert await looks(reloader, 3) == [False] * 3
    await reloader()
    assert house.served.outcomes == ["applied", "applied"]


async def test_watching_can_be_turned_off_and_on(house: House) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    house.rules(rule("/b"), base=BASE.replace("auto", "signal"))
    assert await looks(reloader, 2) == [False, True]
    house.rules(rule("/c"))
    assert await looks(reloader, 4) == [False] * 4
    await reloader()
    house.rules(rule("/d"))
    assert await looks(reloader, 2) == [False, True]
    assert house.served.routes == ["/d"]


async def test_a_file_that_changes_while_it_is_read_is_read_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    examined: list[str] = []
    examine = watching.examine

    def disturbed(path: Path, **options: Any) -> Any:
        """Reads while somebody writes: only half of it, the first time."""
        whole = house.file.read_text()
        if not examined:
            house.file.write_text(whole[: whole.index("- {path: /b/c")])
        examined.append(house.file.read_text())
        found = examine(path, **options)
        house.file.write_text(whole)
        return found

    monkeypatch.setattr(watching, "examine", disturbed)
    house.rules("routes:\n- {path: /b, allow: public}\n- {path: /b/c, allow: nobody}\n")
    await reloader()
    assert house.served.outcomes == ["mistakes"]  # `disturbed` writes every time, so it never rests
    assert len(examined) == watching.TRIES
    monkeypatch.setattr(watching, "examine", examine)
    assert await looks(reloader, 2) == [True, False], "it is tried again, though the content is what it was"
    assert house.served.outcomes[-1] == "applied"
    assert len(house.served.routes) == 2


async def test_a_file_that_changes_under_a_look_waits_for_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.rules(rule("/a"))
    reloader = house.start()
    examine = watching.examine

    def disturbed(path: Path, **options: Any) -> Any:
        house.rules(rule("/c"))
        monkeypatch.setattr(watching, "examine", examine)
        return examine(path, **options)

    monkeypatch.setattr(watching, "examine", disturbed)
    house.rules(rule("/b"))
    assert await looks(reloader, 2) == [False, False]
    assert house.served.outcomes == []
    assert await looks(reloader, 2) == [True, False]
    assert house.served.routes == ["/c"]


async def test_files_that_never_answer_hang_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As those of a network's file system that is away."""
    house.rules(rule("/a"))
    reloader = house.start(patience=0.01)
    back, waiting = threading.Event(), threading.active_count()
    examine, look = watching.examine, reloading.look

    def hanging(how: Callable[..., Any]) -> Callable[..., Any]:
        def hang(*words: Any, **options: Any) -> Any:
            back.wait(30)
            return how(*words, **options)

        return hang

    monkeypatch.setattr(watching, "examine", hanging(examine))
    monkeypatch.setattr(reloading, "look", hanging(look))
    assert await looks(reloader, 5) == [False] * 5
    for _ in range(3):
        await reloader()
    assert threading.active_count() <= waiting + 2
    assert house.served.outcomes == ["mistakes"] * 3
    assert len([line for line in caplog.records if "looked at" in line.message]) == 1
    back.set()
    monkeypatch.setattr(watching, "examine", examine)
    monkeypatch.setattr(reloading, "look", look)
    async with asyncio.timeout(PATIENCE):
        while threading.active_count() > waiting:  # noqa: ASYNC110 (a thread sets no event)
            await asyncio.sleep(0.001)
    patient = house.start()
    assert await looks(patient, 2) == [False, False]
    house.rules(rule("/b"))
    await reloader()
    assert house.served.routes == ["/b"]
