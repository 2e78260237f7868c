"""`server.reload: auto` with the real command: a ConfigMap is swapped, files turn into anything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest

from tests.support import process
from tests.support.life import soon
from tests.support.process import Running, Site, looking_every

PACE = 0.05
"""Seconds between two looks, where it need not be the real one."""


class Map:
    """A ConfigMap as the kubelet mounts it: each version in a folder of its own, behind one link."""

    def __init__(self, site: Site) -> None:
        self.folder = site.folder / "etc"
        self.folder.mkdir()
        main = site.config.read_text().replace("server: {", "server: {reload: auto, ")
        head, _, rules = main.partition("routes:")
        self.files = {"gateway.yaml": f"{head}include: rules.yaml\n", "rules.yaml": f"routes:{rules}"}
        self.version = 0
        self.swap()
        for name in self.files:
            (self.folder / name).symlink_to(f"..data/{name}")
        site.config = self.folder / "gateway.yaml"

    def swap(self, **replaced: str) -> None:
        self.version += 1
        folder = self.folder / f"..2026_11_24_{self.version}"
        folder.mkdir()
        for name, text in (self.files | {name + ".yaml": text for name, text in replaced.items()}).items():
            (folder / name).write_text(text)
        (self.folder / "..data_tmp").symlink_to(folder.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")

    def opening(self, path: str) -> str:
        """The rules, with one more."""
        return self.files["rules.yaml"] + f"  - {{path: {path}, allow: public}}\n"


class Told:
    """What a gateway says of its reloads."""

    def __init__(self, gateway: Running) -> None:
        self.gateway = gateway

    def status(self, path: str) -> int:
        return self.gateway.request("GET", path).status

    def last(self) -> dict[str, Any]:
        return dict(self.gateway.request("GET", "/readyz", ops=True).json.get("reload", {}))

    def metric(self, name: str) -> float:
        lines = self.gateway.request("GET", "/metrics", ops=True).body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def lines(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.gateway.lines if str(line.get("message", "")).startswith(message)]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", looking_every(PACE))


def test_a_config_map_that_is_swapped(site: Site) -> None:
    """At the real pace: two looks, two seconds apart."""
    mounted = Map(site)
    with site.running() as gateway:
        told = Told(gateway)
        assert (told.status("/new"), told.last()) == (401, {})
        began = time.monotonic()
        mounted.swap(rules=mounted.opening("/new"))
        soon(lambda: told.status("/new") == 200)
        assert 1.5 < time.monotonic() - began < 5.5
        soon(lambda: told.last().get("outcome") == "applied")
        assert told.metric("gateway_reloads_total") == 1
        assert gateway.stop() == 0


@pytest.mark.usefixtures("hasty")
def test_a_swap_that_is_broken_is_told_once(site: Site) -> None:
    mounted = Map(site)
    with site.running() as gateway:
        told = Told(gateway)
        served = told.metric("gateway_configuration_timestamp_seconds")
        mounted.swap(rules=mounted.opening("/new") + "  - {pth: /x, allow: public}\n")
        soon(lambda: told.last().get("outcome") == "mistakes")
        assert told.last()["problems"][0].startswith(
            f"{mounted.folder}/rules.yaml:5:6  routes[3].pth: unknown"
        )
        assert told.metric("gateway_reload_successful") == 0
        assert told.metric("gateway_configuration_timestamp_seconds") == served
        time.sleep(10 * PACE)  # nothing is to happen, which nothing announces
        assert told.metric("gateway_reloads_total") == 1
        assert told.status("/new") == 401
        mounted.swap(rules=mounted.opening("/new"))
        soon(lambda: told.status("/new") == 200)
        soon(lambda: told.metric("gateway_reload_successful") == 1)
        assert told.metric("gateway_configuration_timestamp_seconds") > served
        (line,) = told.lines("reload refused")
        assert line["problem"] == 'unknown setting, did you mean "path"?'


HOSTILE: dict[str, Callable[[Path], object]] = {
    "gone": lambda file: None,
    "a directory": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda file: file.symlink_to("/dev/zero"),
    "a circle of links": lambda file: file.symlink_to(file),
    "huge": lambda file: file.write_bytes(b"#" * (50 << 20)),
    "binary": lambda file: file.write_bytes(os.urandom(4096)),
    "a bomb": lambda file: file.write_text(
        "a: &a [x]\n" + "".join(f"{b}: &{b} [{f'*{a}, ' * 9}]\n" for a, b in zip("abcdefgh", "bcdefghi"))  # noqa: B905
    ),
}


@pytest.mark.usefixtures("hasty")
def test_whatever_takes_the_files_place_the_old_rules_go_on(site: Site) -> None:
    text = site.config.read_text().replace("server: {", "server: {reload: auto, ")
    site.config.write_text(text)
    with site.running() as gateway:
        told = Told(gateway)
        before = memory(gateway)
        for number, what in enumerate(HOSTILE, 1):
            site.config.unlink()
            HOSTILE[what](site.config)
            soon(lambda number=number: told.metric("gateway_reloads_total") == 2 * number - 1)
            assert told.last()["outcome"] == "mistakes", what
            assert (told.status("/health"), told.status("/other")) == (200, 401)
            if site.config.is_dir():
                site.config.rmdir()
            site.config.unlink(missing_ok=True)
            site.config.write_text(text)
            soon(lambda number=number: told.metric("gateway_reloads_total") == 2 * number)
            assert told.last()["outcome"] == "applied"
        soon(lambda: len(told.lines("reloaded")) == len(HOSTILE))
        refused = told.lines("reload refused")
        assert len({line["problem"] for line in refused}) == len(HOSTILE) - 1  # pipes and devices are one
        assert len(refused) == len(HOSTILE)
        assert memory(gateway) - before < 20 << 20
        assert gateway.stop() == 0


def memory(gateway: Running) -> int:
    """Bytes resident."""
    return int(Path(f"/proc/{gateway.process.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.usefixtures("hasty")
def test_signals_and_looks_under_one_another(site: Site) -> None:
    """Files are swapped and signals sent as they come; what holds in the end is what was written last."""
    mounted = Map(site)
    with site.running() as gateway:
        told = Told(gateway)
        for number in range(30):
            mounted.swap(rules=mounted.opening(f"/new{number}"))
            gateway.process.send_signal(SIGHUP)
            time.sleep(PACE * (number % 4) / 2)
        soon(lambda: told.status("/new29") == 200)
        assert told.status("/new28") == 401
        assert told.lines("reload refused") == []
        assert told.lines("the reload failed") == []


@pytest.mark.usefixtures("hasty")
def test_watching_is_turned_on_by_a_signal(site: Site) -> None:
    with site.running() as gateway:
        told = Told(gateway)
        text = site.config.read_text()
        watched = text.replace("server: {", "server: {reload: auto, ")
        site.config.write_text(watched)
        gateway.process.send_signal(SIGHUP)
        soon(lambda: told.last().get("outcome") == "applied")
        site.config.write_text(watched + "  - {path: /new, allow: public}\n")
        soon(lambda: told.status("/new") == 200)
        site.config.write_text(text)
        soon(lambda: told.status("/new") == 401)
        soon(lambda: told.metric("gateway_reloads_total") == 3)
        site.config.write_text(watched + "  - {path: /new, allow: public}\n")
        time.sleep(10 * PACE)  # nothing is to happen
        assert told.status("/new") == 401
