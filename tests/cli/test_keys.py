"""`gateway keys`: what it makes, says and refuses."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.identity.manifest import written
from tests.cli.conftest import MINIMAL, Command

KID = re.compile(r"\d{8}-(es256|eddsa|rs256)-[0-9a-f]{6}")
NOW = 1_800_000_000


class Clock:
    """What `time.time` says."""

    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def keys(site: Path) -> Path:
    """The folder that the configuration names; there is no secret beside it."""
    (site / "gateway.yaml").write_text(MINIMAL.replace('secret: "${JWT_ACCESS_SECRET}"', "keys: keys"))
    return site / "keys"


def listed(gateway: Command) -> list[dict[str, Any]]:
    return list(json.loads(gateway("keys", "list", "--format", "json").out)["items"])


def states(gateway: Command) -> list[tuple[str, str]]:
    return [(item["algorithm"], item["state"]) for item in listed(gateway)]


def files(keys: Path) -> list[str]:
    return sorted(path.stem for path in keys.glob("*.pem"))


def test_the_first_key_signs_at_once(gateway: Command, keys: Path, clock: Clock) -> None:
    made = gateway("keys", "generate")
    assert made.code == 0
    (item,) = listed(gateway)
    assert KID.fullmatch(item["kid"])
    assert made.out == f"{item['kid']} (ES256): signs\n"
    assert item == {
        "kid": item["kid"],
        "algorithm": "ES256",
        "madeAt": written(NOW),
        "signsFrom": written(NOW),
        "state": "signs",
        "since": written(NOW),
    }
    assert stat.S_IMODE((keys / f"{item['kid']}.pem").stat().st_mode) == 0o600
    assert gateway("check").code == 0


def test_beside_a_secret_it_signs_when_it_is_told_to(gateway: Command, keys: Path, clock: Clock) -> None:
    keyed = MINIMAL.replace(
        'access: {secret: "${JWT_ACCESS_SECRET}"}', 'access: {keys: keys, secret: "${JWT_ACCESS_SECRET}"}'
    )
    (keys.parent / "gateway.yaml").write_text(keyed)
    gateway("keys", "generate")
    assert states(gateway) == [("ES256", "next")]
    assert gateway("check").code == 0
    clock.now += 600
    gateway("keys", "rotate")
    assert states(gateway) == [("ES256", "signs")]


def test_a_whole_life(gateway: Command, keys: Path, clock: Clock) -> None:
    gateway("keys", "generate", "--algorithm", "RS256")
    (first,) = files(keys)
    rotated = gateway("keys", "rotate", "--algorithm", "EdDSA")
    second = next(name for name in files(keys) if name != first)
    assert rotated.out == f"{second} (EdDSA): signs from {written(NOW + 600)} on\n"
    retired = gateway("keys", "retire")
    assert retired.out == f"{first} (RS256): verifies until {written(NOW + 600 + 900 + 10 + 60)}\n"
    assert states(gateway) == [("RS256", "signs"), ("EdDSA", "next")]
    clock.now += 600
    assert states(gateway) == [("RS256", "retired"), ("EdDSA", "signs")]
    clock.now += 970
    assert states(gateway) == [("RS256", "over"), ("EdDSA", "signs")]
    assert files(keys) == sorted([first, second])
    assert gateway("keys", "retire").out == f"removed {first}\n"
    assert files(keys) == [second]
    assert gateway("keys", "retire").out == "nothing to do\n"


def test_a_key_can_wait_in_the_meantime(gateway: Command, keys: Path, clock: Clock) -> None:
    gateway("keys", "generate")
    made = gateway("keys", "generate", "--algorithm", "EdDSA")
    assert made.out.endswith(" (EdDSA): next\n")
    again = gateway("keys", "generate")
    assert (again.code, again.out) == (1, "")
    assert "waits already: `gateway keys rotate` makes it sign" in again.err
    other = gateway("keys", "rotate", "--algorithm", "RS256")
    assert (other.code, "is next already, for EdDSA" in other.err) == (1, True)
    assert len(files(keys)) == 2
    clock.now += 3600
    gateway("keys", "rotate")
    assert states(gateway) == [("ES256", "verifies"), ("EdDSA", "signs")]
    assert gateway("keys", "rotate").out.startswith(time.strftime("%Y%m%d-eddsa-", time.gmtime(clock.now)))


def test_a_stolen_key_goes_at_once(gateway: Command, keys: Path, clock: Clock) -> None:
    gateway("keys", "generate")
    (stolen,) = files(keys)
    refused = gateway("keys", "retire", stolen, "--now")
    assert (refused.code, refused.err) == (1, f"Error: {stolen} signs; `gateway keys rotate` first\n")
    clock.now += 5
    gateway("keys", "rotate", "--after", "0s")
    assert gateway("keys", "retire", stolen, "--now").out == f"removed {stolen}\n"
    assert stolen not in files(keys)
    assert states(gateway) == [("ES256", "signs")]


def test_what_is_done_to_keys_is_in_the_audit_trail(gateway: Command, keys: Path) -> None:
    assert gateway("users", "list").code == 0  # makes the database
    for words in (
        ("generate",),
        ("rotate", "--algorithm", "EdDSA", "--after", "0s"),
        ("retire",),
        ("retire",),
    ):
        assert gateway("keys", *words).code == 0
    shown = gateway("audit", "--format", "json")
    assert shown.code == 0, shown.err
    first, second = [str(item["kid"]) for item in listed(gateway)]
    items = [{**item, **item["details"]} for item in json.loads(shown.out)["items"]]
    told = [(item["name"], item["key"], item["algorithm"]) for item in items if "key" in item]
    assert told == [
        ("key_generated", first, "ES256"),
        ("key_rotated", first, "ES256"),
        ("key_generated", second, "EdDSA"),
        ("key_rotated", second, "EdDSA"),
        ("key_retired", first, "ES256"),
    ]
    assert items[-2]["begins"] == listed(gateway)[1]["signsFrom"]
    assert items[-1]["ends"] == listed(gateway)[0]["verifiesUntil"]
    assert all(str(item["actor"]).startswith("cli:") for item in items)


@pytest.mark.parametrize(
    ("database", "why"),
    [
        ("sqlite:///gateway.db", "there is none yet"),
        ("sqlite:///old.db", "its schema is not this version's; see `gateway db check`"),
        ("postgresql://127.0.0.1:1/gateway", "127.0.0.1"),
    ],
)
def test_keys_are_changed_without_a_database_too(
    gateway: Command, keys: Path, database: str, why: str
) -> None:
    """In an emergency above all. The log has the event, and nobody makes a database for it."""
    (keys.parent / "old.db").touch()
    with (keys.parent / "gateway.yaml").open("a") as file:
        file.write(f'accounts: {{database: "{database}"}}\n')
    made = gateway("keys", "generate")
    (kid,) = files(keys)
    assert (made.code, made.out) == (0, f"{kid} (ES256): signs\n")
    *events, last = made.err.splitlines()
    assert [json.loads(line)["name"] for line in events] == ["key_generated", "key_rotated"]
    assert last.startswith("not in the audit trail of the database: ")
    assert why in last
    assert not (keys.parent / "gateway.db").exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("retire", "--now"), 2, "--now needs a KID."),
        (("retire", "nobody"), 1, "there is no key nobody; see `gateway keys list`"),
        (("rotate", "--after", "soon"), 2, "--after "),
        (("rotate", "--after", "-1s"), 2, "--after "),
        (("rotate", "--after", "9999999d"), 1, "Error: that is beyond the year 9999"),
        (("generate", "--algorithm", "HS256"), 2, "'HS256' is not one of 'ES256', 'EdDSA', 'RS256'"),
        (("generate", "--algorithm", "none"), 2, "'none' is not one of"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    gateway: Command, keys: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    gateway("keys", "generate")
    before = (keys / "keys.json").read_bytes()
    result = gateway("keys", *words)
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err
    assert (keys / "keys.json").read_bytes() == before


def test_without_a_folder_in_the_configuration(gateway: Command, site: Path) -> None:
    result = gateway("keys", "generate")
    assert (result.code, result.out) == (1, "")
    assert "tokens.access.keys names no folder" in result.err


def test_what_is_no_list_of_keys_is_left_as_it_is(gateway: Command, keys: Path) -> None:
    keys.mkdir()
    (keys / "keys.json").write_text("{")
    for words in (("list",), ("generate",), ("rotate",), ("retire",)):
        result = gateway("keys", *words)
        assert (result.code, result.out) == (1, "")
        assert result.err.endswith("keys.json is no JSON\n")
    assert [path.name for path in keys.iterdir()] == ["keys.json"]


def test_a_file_in_the_place_of_the_folder(gateway: Command, keys: Path) -> None:
    keys.write_text("")
    for words in (("list",), ("generate",)):
        result = gateway("keys", *words)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("Error: ")
        assert "Traceback" not in result.err


def test_a_pipe_reads_plain_lines(process: Command, keys: Path) -> None:
    """The real command, as a cron job calls it."""
    assert process("keys", "generate").code == 0
    assert process("keys", "rotate").code == 0
    lines = process("keys", "list").out.splitlines()
    assert [line.split("\t")[1:3] for line in lines] == [["ES256", "signs"], ["ES256", "next"]]
    assert all(len(line.split("\t")) == 5 for line in lines)


def test_no_key_is_ever_shown(gateway: Command, keys: Path) -> None:
    said = ""
    for words in (("generate",), ("rotate",), ("list",), ("list", "--format", "json"), ("retire",)):
        result = gateway("keys", *words)
        said += result.out + result.err
    for pem in keys.glob("*.pem"):
        assert all(line not in said for line in pem.read_text().splitlines())
    assert "PRIVATE" not in said + (keys / "keys.json").read_text()
    assert os.environ["JWT_ACCESS_SECRET"] not in said
