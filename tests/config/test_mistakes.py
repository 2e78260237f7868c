"""Every kind of mistake, and the exact words for it: one small file each in `tests/data/mistakes`.

The names that begin with `policy-` are of mistakes that only the rules know.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.config.load import load

from .conftest import SECRETS

MISTAKES = Path(__file__).parent.parent / "data" / "mistakes"
OURS = sorted(path.stem for path in MISTAKES.glob("*.yaml") if not path.name.startswith("policy-"))
ENVIRON = SECRETS | {"NOT_AN_ADDRESS": "hunter2", "NOT_A_NUMBER": "hunter2"}


@pytest.mark.parametrize("name", OURS)
def test_each_mistake_is_named_with_its_place(name: str, folder: Path) -> None:
    shutil.copy(MISTAKES / f"{name}.yaml", "gateway.yaml")
    found = load(Path("gateway.yaml"), environ=ENVIRON)
    assert found.config is None
    assert [str(problem) for problem in found.problems] == _expected(name)


@pytest.mark.parametrize("name", OURS)
def test_no_message_holds_a_secret(name: str) -> None:
    text = (MISTAKES / f"{name}.txt").read_text()
    assert "hunter2" not in text
    assert "tooshort7" not in text


def test_every_mistake_has_its_words_and_all_words_their_mistake() -> None:
    assert {path.stem for path in MISTAKES.glob("*.yaml")} == {path.stem for path in MISTAKES.glob("*.txt")}


@pytest.mark.parametrize("name", OURS)
def test_no_word_of_the_machinery_reaches_the_person(name: str) -> None:
    text = (MISTAKES / f"{name}.txt").read_text().lower()
    for jargon in (
        "pydantic",
        "input should",
        "extra inputs",
        "valid string",
        "value error",
        "tuple",
        "<word>",
    ):
        assert jargon not in text


def _expected(name: str) -> list[str]:
    return (MISTAKES / f"{name}.txt").read_text().splitlines()
