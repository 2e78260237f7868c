"""Whatever the file holds, the loader answers with problems and never with an exception."""

from __future__ import annotations

import atexit
import random
import shutil
import string
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.config.dotenv import parse_dotenv
from gateway.config.load import Loaded, load
from gateway.config.scalars import resolve, surprise
from gateway.config.source import compose

from .conftest import BASE, SECRETS

FOLDER = Path(tempfile.mkdtemp())
"""Of this process alone; each example writes its file again."""
atexit.register(shutil.rmtree, FOLDER)
WORDS = st.sampled_from([
    "server", "listen", "routes", "path", "allow", "tokens", "access", "secret", "upstream", "upstreams",
    "url", "tests", "as", "expect", "default", "public", "admin", "off", "no", "012", "10s", "8KiB",
    "5/minute", "${A}", "${A:-b}", "<<", "/x",
])  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)
patient = settings(deadline=None)
"""A busy machine is no mistake."""
SEGMENTS = st.text(string.ascii_letters + string.digits + "-._~", min_size=1, max_size=8)


def _load(raw: bytes) -> Loaded:
    path = FOLDER / "gateway.yaml"
    path.write_bytes(raw)
    return load(path, environ=SECRETS | {"A": "a: b\n"})


@patient
@given(st.binary(max_size=300))
@example(b"\xff")
@example(b"a: \x7f")
@example("a: \ufffe".encode())
@example("\U0001f389: \x85".encode())
@example(b"? a\n: b\n? [x]\n")
@example(b"- - - - a\n")
@example(b"%TAG ! !\n--- !x\n")
def test_any_bytes(raw: bytes) -> None:
    _sound(_load(raw), raw)


@patient
@given(st.text(alphabet="ab:-[]{}\"'&*!|>#%@`,? \n\t${}~0<", max_size=80))
def test_any_punctuation(text: str) -> None:
    _sound(_load(text.encode()), text.encode())


@patient
@given(TREES)
def test_any_tree(tree: Any) -> None:
    raw = yaml.safe_dump(tree, allow_unicode=True).encode(errors="replace")
    _sound(_load(raw), raw)


@patient
@given(st.dictionaries(WORDS, TREES, max_size=6))
def test_any_settings_below_a_valid_base(tree: dict[str, Any]) -> None:
    raw = BASE.encode() + yaml.safe_dump(tree, allow_unicode=True).encode(errors="replace")
    _sound(_load(raw), raw)


@patient
@given(st.data())
def test_any_damage_to_the_full_file(data: st.DataObject) -> None:
    """Cut, swap or insert anywhere in a valid file."""
    text = (Path(__file__).parents[2] / "config" / "full.yaml").read_text()
    at, until = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    damage = data.draw(st.text(max_size=6) | WORDS)
    raw = (text[:at] + damage + text[min(until, at + 12) :]).encode(errors="replace")
    _sound(_load(raw), raw)


@patient
@given(st.text(max_size=200))
def test_any_dotenv(text: str) -> None:
    variables, problems = parse_dotenv(text, ".env")
    assert all(isinstance(value, str) for value in variables.values())
    assert all(1 <= problem.place.line <= text.count("\n") + 1 for problem in problems)


@patient
@given(
    st.dictionaries(
        SEGMENTS.filter(lambda name: name[0].isalpha() and name.isidentifier()), st.text(max_size=30)
    )
)
def test_what_single_quotes_hold_is_read_back(variables: dict[str, str]) -> None:
    readable = {name: value.replace("'", "").replace("\r", "") for name, value in variables.items()}
    text = "".join(f"export {name}='{value}' # words\n" for name, value in readable.items())
    assert parse_dotenv(text, ".env") == (readable, [])


@patient
@given(st.text(max_size=24))
def test_scalars_agree_with_yaml_1_1_unless_they_are_named(text: str) -> None:
    """PyYAML reads 1.1. Where it finds a value of another type, we said so, or the types are ours."""
    try:
        other = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return
    root, problems = compose(text, "x")
    if root is None or problems or not hasattr(root, "plain") or not root.plain or surprise(root.text):
        return
    ours = resolve(root.text)
    if isinstance(other, bool | int) and len(root.text) <= 18:
        assert (type(ours), ours) == (type(other), other)


@patient
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "path": st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)),
                "allow": st.sampled_from(["public", "authenticated", "admin", "nobody"])
                | st.fixed_dictionaries(
                    {"roles": st.fixed_dictionaries({"any": st.lists(st.just("a"), min_size=1, max_size=3)})}
                ),
            },
            optional={
                "methods": st.lists(st.sampled_from(["GET", "POST", "PUT"]), min_size=1, unique=True),
                "hosts": st.just(["a.example"]),
                "strip_prefix": st.just("/x"),
            },
        ),
        min_size=1,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_any_valid_configuration_loads_and_places_point_at_their_text(
    routes: list[dict[str, Any]], chance: random.Random
) -> None:
    lines = [*BASE.strip("\n").split("\n"), "routes:"]
    for route in routes:
        items = list(route.items())
        chance.shuffle(items)
        block = yaml.safe_dump(
            [dict(items)], sort_keys=False, default_flow_style=chance.choice([None, False])
        )
        lines += ["  " + line for line in block.rstrip("\n").split("\n")]
    found = _load("\n".join(lines).encode())
    assert found.problems == ()
    assert found.config is not None
    assert [route.path for route in found.config.routes] == [route["path"] for route in routes]
    for index, route in enumerate(routes):
        place, key = found.places.of("routes", index, "path"), found.places.key("routes", index, "path")
        assert lines[place.line - 1][place.column - 1 :].lstrip("'\"").startswith(route["path"])
        assert lines[key.line - 1][key.column - 1 :].startswith("path:")


def _sound(found: Loaded, raw: bytes) -> None:
    """Either a configuration, or sentences with places that exist."""
    assert (found.config is None) == any(not problem.warning for problem in found.problems)
    lines = raw.decode("utf-8", errors="replace").splitlines() or [""]
    for problem in found.problems:
        assert problem.sentence
        assert str(problem).isprintable()
        assert 1 <= problem.place.line <= len(lines) + 1
        assert problem.place.column >= 1
