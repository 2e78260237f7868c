from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from gateway.cli.commands import WORDS
from gateway.cli.commands import gateway as root
from gateway.cli.version import version
from gateway.errors import LastAdmin
from tests.cli.conftest import Command, Result, environment

Failing = Callable[[BaseException], Result]


def every_command() -> list[tuple[str, click.Command]]:
    """`("users add", command)` for every command there is, groups too."""
    found: list[tuple[str, click.Command]] = [("", root)]
    for name, command in found:  # grows while it is walked
        if isinstance(command, click.Group):
            context = click.Context(command)
            for word in command.list_commands(context):
                below = command.get_command(context, word)
                assert below is not None
                found.append((f"{name} {word}".strip(), below))
    return found


HEAVY = {"yaml", "pydantic", "sqlalchemy", "starlette", "uvicorn", "bcrypt", "jwt", "asyncio"}


def loaded_by(words: str) -> set[str]:
    """The modules that a command line needs."""
    run = f"from gateway.cli.main import run; run({words!r}.split())"
    script = f"import sys; {run}; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    return set(done.stderr.split())


def test_version_loads_nothing_but_its_own_door(process: Command) -> None:
    assert process("--version").out == f"gateway {version()}\n"
    assert not (HEAVY | {"click"}) & loaded_by("--version")


def test_help_loads_no_command() -> None:
    assert not (HEAVY | {f"gateway.cli.{word}" for word in WORDS}) & loaded_by("--help")


def test_the_list_of_commands_says_what_each_says_of_itself(gateway: Command) -> None:
    listed = gateway("--help").out
    for word, line in WORDS.items():
        command = root.get_command(click.Context(root), word)
        assert command is not None
        assert command.help is not None
        assert line in listed
        assert command.help.splitlines()[0] == line


@pytest.mark.parametrize("words", [words for words, _ in every_command()])
def test_every_help_has_an_example_of_its_own_command(gateway: Command, words: str) -> None:
    result = gateway(*words.split(), "--help")
    assert result.code == 0
    assert "  Example:\n    " in result.out
    assert f"gateway {words}".strip() in result.out.partition("Example:")[2]
    assert max(map(len, result.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("chek",), "No such command 'chek'. (Did you mean one of: 'check', 'schema'?)"),
        (("users", "lst"), "No such command 'lst'"),
        (("check", "--formt", "json"), "No such option '--formt'"),
        (("check", "--format", "xml"), "'xml' is not one of 'text', 'json'"),
        (("-c", "x.yaml", "run"), "No such option '-c'"),
        (("check", "extra"), "unexpected extra argument"),
        (("users", "show"), "Missing argument 'EMAIL'"),
        (("",), "No such command ''"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_wrong(gateway: Command, words: tuple[str, ...], said: str) -> None:
    result = gateway(*words)
    assert result.code == 2
    assert said in result.err
    assert result.out == ""


def test_no_words_at_all_shows_the_help(gateway: Command) -> None:
    result = gateway()
    assert result.code == 2
    assert "Commands:" in result.err


def test_version_among_other_words(gateway: Command) -> None:
    assert gateway("--version", "--help").out == f"gateway {version()}\n"


class TestErrors:
    """Whatever a command raises, the user gets one sentence and a code."""

    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch, gateway: Command) -> Failing:
        def command(error: BaseException) -> Result:
            def fail(*_: object, **__: object) -> None:
                raise error

            monkeypatch.setattr("gateway.cli.schema.schema.callback", fail)
            return gateway("schema")

        return command

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (LastAdmin(), "Error: This is the last admin who can log in; make another one first.\n"),
            (PermissionError(13, "Permission denied", "x.db"), "Error: x.db: Permission denied\n"),
            (OSError("odd"), "Error: odd\n"),
            (click.ClickException("no, because"), "Error: no, because\n"),
            (KeyboardInterrupt(), "Stopped.\n"),
            (EOFError(), "Stopped.\n"),
        ],
    )
    def test_one_sentence(self, failing: Failing, error: BaseException, said: str) -> None:
        result = failing(error)
        assert (result.code, result.out) == (1, "")
        assert result.err.lstrip("\n") == said

    def test_a_defect_says_that_it_is_one(self, failing: Failing) -> None:
        result = failing(ZeroDivisionError("division by zero"))
        assert result.code == 1
        assert result.err.count("\n") == 1
        assert "a defect of the gateway" in result.err
        assert "ZeroDivisionError: division by zero" in result.err

    def test_a_developer_may_see_where(self, failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GATEWAY_TRACEBACK", "1")
        assert "Traceback (most recent call last)" in failing(ZeroDivisionError()).err


def test_a_reader_who_leaves_early_is_no_error() -> None:
    script = f"{sys.executable} -m gateway schema | head -c 1"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert done.stderr == ""
    assert done.stdout == "{"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["schema", "--version", "users export"])
def test_a_full_disk_is_a_sentence(site: Path, gateway: Command, words: str, unbuffered: str) -> None:
    """Also where the last of it is written only when the command is done: a backup that is not there."""
    gateway("users", "list")  # makes the database
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words.split()],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
            env=environment() | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: No space left on device"
    assert "Traceback" not in done.stderr


def test_ctrl_c_says_so_and_shows_no_traceback(folder: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 1
    assert err.strip() == "Stopped."


# It doesn't wait in a read: Python would not see a signal that comes just before one until that returns.
WAITING = """
import sys, time
from gateway.cli.main import main
import gateway.cli.schema
def wait():
    print("waiting", flush=True)
    while True:
        time.sleep(0.01)
gateway.cli.schema.schema.callback = wait
sys.argv[1:] = ["schema"]
main()
"""


def test_a_tree_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version() == "(not installed)"
