"""Patterns as owners write them, and how they match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.pattern import MAX_SEGMENTS, literal_prefix, parse


def test_shapes() -> None:
    assert parse("/").shape == parse("//").shape == ((), False)
    assert parse("/**").shape == parse("/**/").shape == ((), True)
    assert parse("/a/{id}/**").shape == ((b"a", None), True)
    assert parse("/a/").shape == parse("/a").shape
    assert parse("/{id}").shape == parse("/{other_name}").shape
    assert parse("/Café/x y").shape == (("Café".encode(), b"x y"), False)
    assert str(parse("/a/")) == "/a/"
    assert parse("/a").literal
    assert not parse("/a/**").literal
    assert not parse("/{a}").literal


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "begin with /"),
        ("a", "begin with /"),
        ("/a\n", "control character"),
        ("/a\x7f", "control character"),
        ("/\ud800", "surrogate"),
        ("/a%20b", "decoded"),
        ("/a?b", "query"),
        ("/a#b", "fragment"),
        ("/a;b", "drop"),
        ("/a\\b", "read it as /"),
        ("/a//b", "empty segment"),
        ("//a", "empty segment"),
        ("/a/../b", '".."'),
        ("/.", '"."'),
        ("/...", '"..."'),
        ("/.. ", '".. "'),
        ("/**/a", "last segment"),
        ("/a*", "last segment"),
        ("/*", "{name}"),
        ("/a{b}", "braces"),
        ("/{}", "braces"),
        ("/{1}", "braces"),
        ("/{a b}", "braces"),
        ("/a}", "braces"),
        ("/a" * (MAX_SEGMENTS + 1), "64 segments"),
    ],
)
def test_mistakes(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as mistake:
        parse(text)
    assert word in str(mistake.value)


def test_the_longest_pattern() -> None:
    assert len(parse("/a" * MAX_SEGMENTS + "/**").segments) == MAX_SEGMENTS


def test_literal_prefixes() -> None:
    assert literal_prefix("/a/b/") == (b"a", b"b")
    assert literal_prefix("/") == ()
    for text in ("/{a}", "/a/**"):
        with pytest.raises(ValueError, match="literal segments only"):
            literal_prefix(text)


@given(st.text(max_size=20))
def test_any_text_is_a_pattern_or_a_sentence(text: str) -> None:
    try:
        pattern = parse(text)
    except ValueError:
        return
    assert all(part is None or (part and b"/" not in part) for part in pattern.segments)
