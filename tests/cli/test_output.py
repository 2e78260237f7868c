from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import output

ROWS = [("ana@example.com", "admin"), ("b@x", "user")]


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output says that it is a terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)


def test_a_pipe_gets_plain_lines_apart_by_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_table(("email", "state"), ROWS)
    output.say("done", fg="green")
    assert capsys.readouterr().out == "ana@example.com\tadmin\nb@x\tuser\ndone\n"


def test_a_pipe_gets_json_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_json({"a": ["ä"]})
    assert capsys.readouterr().out == '{"a": ["ä"]}\n'


@pytest.mark.usefixtures("terminal")
def test_a_terminal_gets_columns_under_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_table(("email", "state"), ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert "EMAIL            STATE" in lines[0]
    assert lines[0].startswith("\x1b[1m")
    assert lines[1:] == ["ana@example.com  admin", "b@x              user"]


@pytest.mark.usefixtures("terminal")
def test_a_row_may_have_a_colour(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_table(("email", "state"), ROWS, ["red", ""])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["\x1b[31mana@example.com  admin\x1b[0m", "b@x              user"]


@pytest.mark.usefixtures("terminal")
def test_a_terminal_gets_colours_unless_it_says_no(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output.say("done", fg="green")
    assert capsys.readouterr().out == "\x1b[32mdone\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    output.say("done", fg="green")
    assert capsys.readouterr().out == "done\n"


@pytest.mark.usefixtures("terminal")
def test_a_terminal_gets_json_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_json({"a": [1]})
    printed = capsys.readouterr().out
    assert printed.count("\n") > 1
    assert json.loads(printed) == {"a": [1]}


@given(st.text())
def test_nothing_that_is_printed_moves_the_cursor_or_hides(text: str) -> None:
    printed = output.printable(text)
    assert printed.isprintable() or not printed.isascii()
    assert not set(printed) & set("\x1b\r\n\t\x07\x9b\u202e\u200b\u2028")


def test_ordinary_text_stays_as_it_is() -> None:
    assert output.printable("Zoë, 東京: ok") == "Zoë, 東京: ok"
    assert output.printable("a\x1b[2J\u202eb") == "a\\x1b[2J\\u202eb"
