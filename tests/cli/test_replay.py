"""`gateway replay` as people use it: files of any shape and order, pipes, exit codes, hostile bytes."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.replay import lines_of
from gateway.telemetry.logs import Decided, DecisionLog
from tests.cli.conftest import MINIMAL, Command, environment

RULES = """\
routes:
  - {path: /open/**, allow: public}
  - {path: /admin/**, allow: admin}
  - {path: /mine, allow: {users: [ann@example.com]}}
  - {path: /site/**, hosts: [a.test], allow: public}
"""


@pytest.fixture
def rules(site: Path) -> Path:
    (site / "gateway.yaml").write_text(MINIMAL + RULES)
    return site


def ours(path: str, *, when: float = 1_800_000_000.0, user: str | None = None, **more: object) -> bytes:
    lines: list[bytes] = []
    known: dict[str, object] = {"status": 200, "route": "default", "verdict": "allow", "reason": "default"}
    known |= {"user": user, "admin": False, "roles": ()} if user else {}
    decided = Decided("id", "192.0.2.1", "GET", path.encode("latin-1"), duration_ms=0.0, **(known | more))
    DecisionLog(lines.append, clock=lambda: when).write(decided)
    return lines[0]


def theirs(path: str, status: int = 200, user: str = "-") -> bytes:
    line = f'192.0.2.9 - {user} [24/Nov/2026:10:00:00 +0000] "GET {path} HTTP/1.1" {status} 5 "-" "curl"\n'
    return line.encode("latin-1")


LOGIN = {
    "time": "2027-01-15T07:00:00.000Z", "level": "info", "event": "audit", "name": "login_succeeded",
    "requestId": "r", "actor": "u1", "address": None, "session": "s",
    "user": "u1", "email": "ann@example.com",
}  # fmt: skip


def test_what_is_printed(rules: Path, gateway: Command) -> None:
    (rules / "gateway.log").write_bytes(
        ours("/open/a") + ours("/open/b") + ours("/admin/x?secret=1", user="u2") + ours("/admin/y", user="u3")
        + ours("/open/c", verdict="deny", reason="no_credential", status=401) + b"nonsense\n"
        + ours("/auth/login", route="auth:login", reason="served")
    )  # fmt: skip
    result = gateway("replay", "gateway.log")
    assert result.code == 0
    assert result.out.splitlines() == [
        "refused\t2\tGET\t/admin/**\tgateway.yaml:7\tuser\tallow\t403 not_admin\t"
        "GET /admin/x, u2, 2027-01-15T08:00:00.000Z",
        "admitted\t1\tGET\t/open/**\tgateway.yaml:6\tanonymous\t401\tallow\t"
        "GET /open/c, 2027-01-15T08:00:00.000Z",
    ]
    assert result.err.splitlines() == [
        "gateway.log: 1 line made no sense, first 6",
        "5 requests: 2 refused, 1 admitted, 2 same; lines passed over: 1 that the gateway answers itself",
    ]
    assert gateway("replay", "gateway.log", "--all").out.splitlines()[-1].startswith("same\t2\t")


def test_an_access_log_tells_less_and_less_is_said(rules: Path, gateway: Command) -> None:
    (rules / "access.log").write_bytes(
        theirs("/open/a") + theirs("/admin/a") + theirs("/x?q=hidden", user="frank") + theirs("/old", 404)
        + theirs("/site/x") + theirs("/a%2f../b")
    )  # fmt: skip
    result = gateway("replay", "access.log", "--format", "json")
    told = json.loads(result.out)
    shown = [(each["change"], each["caller"], each["before"], each["now"]) for each in told["groups"]]
    assert shown == [
        ("refused", "not in the log", "200", "400 dot_segment"),
        ("unknown", "named in the log", "200", "needs authenticated"),
        ("unknown", "not in the log", "200", "needs authenticated"),
        ("unknown", "not in the log", "200", "needs admin"),
        ("same", "not in the log", "404", "needs authenticated"),
        ("same", "not in the log", "200", "allow"),
    ]
    assert "hidden" not in result.out
    assert "6 requests judged by rules for every host" in result.err
    there = gateway("replay", "access.log", "--host", "a.test", "--format", "json")
    assert json.loads(there.out)["changes"]["same"] == 3
    assert "--host" not in there.err


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        (ours("/admin/x"), {"refused": 1, "admitted": 0, "any": 1}),
        (
            ours("/open/x", verdict="deny", reason="nobody", status=403),
            {"refused": 0, "admitted": 1, "any": 1},
        ),
        (theirs("/admin/x"), {"refused": 0, "admitted": 0, "any": 1}),
        (ours("/open/x"), {"refused": 0, "admitted": 0, "any": 0}),
    ],
    ids=["refused", "admitted", "unknown", "same"],
)  # fmt: skip
def test_exit_codes_for_pipelines(rules: Path, gateway: Command, line: bytes, codes: dict[str, int]) -> None:
    (rules / "a.log").write_bytes(line)
    assert gateway("replay", "a.log").code == 0
    assert {kind: gateway("replay", "a.log", "--fail-on", kind).code for kind in codes} == codes


def test_rotated_logs_in_any_order_know_addresses_from_the_oldest(rules: Path, gateway: Command) -> None:
    (rules / "g.log.2.gz").write_bytes(
        gzip.compress(json.dumps(LOGIN).encode() + b"\n" + ours("/open/a", when=1e9))
    )
    (rules / "g.log.1").write_bytes(ours("/mine", user="u1", when=1.1e9))
    (rules / "g.log").write_bytes(ours("/mine", user="u1", when=1.2e9))
    for order in (
        ("g.log", "g.log.1", "g.log.2.gz"),
        ("g.log.2.gz", "g.log.1", "g.log"),
        ("g.log.1", "g.log.2.gz", "g.log"),
    ):
        told = json.loads(gateway("replay", *order, "--format", "json").out)
        assert told["changes"]["same"] == 3
        assert [each["name"] for each in told["logs"]] == ["g.log.2.gz", "g.log.1", "g.log"]
    assert json.loads(gateway("replay", "g.log", "--format", "json").out)["changes"]["unknown"] == 1


def test_a_pipe_compressed_or_not(rules: Path) -> None:
    for data in (
        ours("/admin/x"),
        gzip.compress(ours("/admin/x")),
        gzip.compress(b"") + gzip.compress(ours("/admin/x")),
    ):
        command = [sys.executable, "-m", "gateway", "replay", "-"]
        done = subprocess.run(command, input=data, env=environment(), capture_output=True, timeout=60)
        assert (done.returncode, done.stdout[:10]) == (0, b"refused\t1\t")


def test_a_named_pipe_is_read_once(rules: Path, gateway: Command) -> None:
    os.mkfifo(rules / "pipe")
    (rules / "a.log").write_bytes(ours("/open/x"))
    writer = Thread(target=lambda: (rules / "pipe").write_bytes(ours("/admin/x")), daemon=True)
    writer.start()
    assert "2 requests: 1 refused, 1 same" in gateway("replay", "a.log", "pipe").err
    writer.join(10)


def test_what_can_not_be_read_is_a_sentence(rules: Path, gateway: Command) -> None:
    packed = gzip.compress(b"".join(ours(f"/admin/{number}") for number in range(2000)))
    (rules / "cut.gz").write_bytes(packed[: len(packed) // 2])
    (rules / "bad.gz").write_bytes(packed[:200] + b"\xff" * 400)
    (rules / "good.log").write_bytes(ours("/open/a"))
    result = gateway("replay", "missing.log", ".", "cut.gz", "bad.gz", "good.log")
    assert result.code == 1
    assert "Traceback" not in result.err
    lines = result.err.splitlines()
    assert "missing.log: No such file or directory" in lines
    assert ".: Is a directory" in lines
    assert any(line.startswith("cut.gz: Compressed file ended") and ", after line " in line for line in lines)
    assert any(line.startswith("bad.gz: ") for line in lines)
    assert "refused" in lines[-1]


def test_nothing_to_judge(rules: Path, gateway: Command) -> None:
    (rules / "empty.log").write_bytes(b"")
    assert gateway("replay", "empty.log").code == 0
    (rules / "other.log").write_bytes(b"hello\n" * 5)
    result = gateway("replay", "other.log")
    assert (result.code, result.out) == (1, "")
    assert "no request was found that rules judge" in result.err
    assert gateway("replay").code == 2
    assert gateway("replay", "empty.log", "--fail-on", "sometimes").code == 2


def test_a_wrong_file_is_refused_as_by_check(rules: Path, gateway: Command) -> None:
    (rules / "a.log").write_bytes(ours("/open/a"))
    (rules / "gateway.yaml").write_text(MINIMAL + "rotes: []\n")
    result = gateway("replay", "a.log")
    assert (result.code, result.out) == (1, "")
    assert result.err == gateway("check").out


def test_secrets_need_not_be_set(rules: Path, gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JWT_ACCESS_SECRET")
    (rules / "a.log").write_bytes(ours("/open/a"))
    assert gateway("replay", "a.log").code == 0


HOSTILE = "\x1b[31m\u202e\x7f\x9b\r"


@pytest.mark.parametrize("how", ["table", "json"])
def test_nothing_hostile_reaches_the_terminal(rules: Path, gateway: Command, how: str) -> None:
    path = "/admin/\x1b]0;x\x07\x9b31m\r"
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
    line = ours(path, user=HOSTILE, host=b"\x1b[2J\x9b", roles=(HOSTILE,))
    (rules / "a.log").write_bytes(
        line + ours("/x", user="\ud800") + theirs(r"/admin/\x1b[31m", user="\x1b[1m")
        + theirs(f"/open/{token}") + b"\x1b[2J\n"
    )  # fmt: skip
    (rules / HOSTILE).write_bytes(b"?\n")
    result = gateway("replay", "a.log", HOSTILE, "--all", "--format", how)
    for text in (result.out, result.err):
        assert not {char for char in text if not char.isprintable()} - {"\n", "\t"}
    assert token.rpartition(".")[2] not in result.out


def test_lines_without_end_take_no_memory(rules: Path, gateway: Command) -> None:
    """A gzip bomb: 200 MB in one line, between two good ones."""
    packer = io.BytesIO()
    with gzip.GzipFile(fileobj=packer, mode="wb", compresslevel=1) as bomb:
        bomb.write(ours("/admin/x"))
        for _ in range(200):
            bomb.write(b"x" * 1_000_000)
        bomb.write(b"\n" + ours("/admin/y"))
    (rules / "bomb.gz").write_bytes(packer.getvalue())
    tracemalloc.start()
    result = gateway("replay", "bomb.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "2 requests: 2 refused" in result.err
    assert "bomb.gz: 1 line made no sense, first 2" in result.err
    assert peak < 40e6


@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=12),
    st.integers(1, 40),
)
def test_lines_are_split_wherever_chunks_end(lines: list[bytes], step: int) -> None:
    class Slow(io.BytesIO):
        def read1(self, _: int | None = -1, /) -> bytes:
            return super().read1(step)

    text = b"\n".join(lines)
    whole = text.split(b"\n")
    assert [*lines_of(Slow(text), 1000)] == (whole if whole[-1] else whole[:-1])
    assert [line for line in lines_of(Slow(text), 1) if line is not None and len(line) < 2] == [
        line for line in (whole if whole[-1] else whole[:-1]) if len(line) < 2
    ]


ANY = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([ours("/admin/x", user="u1"), theirs("/admin/x"), json.dumps(LOGIN).encode()]),
)


@given(st.lists(ANY, max_size=20))
def test_any_file_ends_in_a_sentence(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    from click.testing import CliRunner

    from gateway.cli.commands import gateway

    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / "gateway.yaml").write_text(MINIMAL + RULES)
    (folder / "log").write_bytes(b"\n".join(lines))
    words = ["replay", str(folder / "log"), "-c", str(folder / "gateway.yaml")]
    done = CliRunner().invoke(gateway, words, standalone_mode=False)
    assert done.exception is None, done.output
    assert done.return_value in (0, 1)
