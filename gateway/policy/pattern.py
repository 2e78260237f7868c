"""Route patterns: literal segments, `{name}` for exactly one, a final `/**` for all below.

A pattern is written decoded and compared as bytes. A trailing slash means
nothing, here and in paths, so that `/x` and `/x/` can't have different rules.
What a request's path can never hold as one plain segment (`%`, `;`, `..`, …) is
a mistake in a pattern: the rule would look stricter than it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_SEGMENTS = 64
"""Of one pattern: nobody's API is deeper, and matching recurses by pattern depth."""

Segment = bytes | None
"""A literal, or None for `{name}`."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which paths a route is about."""

    text: str
    """As the owner wrote it."""
    segments: tuple[Segment, ...]
    """Without the final `**`."""
    below: bool
    """Ends with `/**`: also everything below."""

    @property
    def shape(self) -> tuple[tuple[Segment, ...], bool]:
        """Equal for two patterns that match the very same paths, whatever the names in braces."""
        return self.segments, self.below

    @property
    def literal(self) -> bool:
        """Names one path and nothing else."""
        return not self.below and None not in self.segments

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Pattern:
    """The pattern that `text` says. Raises ValueError with a sentence for the owner."""
    _check_characters(text)
    parts = text.rstrip("/").split("/")[1:]
    below = bool(parts) and parts[-1] == "**"
    names = parts[:-1] if below else parts
    if len(names) > MAX_SEGMENTS:
        raise ValueError(f"has more than {MAX_SEGMENTS} segments")
    return Pattern(text=text, segments=tuple(_segment(part) for part in names), below=below)


def literal_prefix(text: str) -> tuple[bytes, ...]:
    """The segments of a pattern of literals only. Raises ValueError with a sentence."""
    pattern = parse(text)
    literals = tuple(part for part in pattern.segments if part is not None)
    if pattern.below or len(literals) != len(pattern.segments):
        raise ValueError("can hold literal segments only, no {name} and no **")
    return literals


def borrowed(pattern: Pattern) -> str | None:
    """A segment that is a pattern for other programs, and here only itself; or None."""
    return next((part for part in pattern.text.split("/") if _BORROWED(part)), None)


_BORROWED = re.compile(r"\A:[A-Za-z_]|[<>\[\]^|]").search
"""`:id` of Express and Rails, `<id>` of Flask, regular expressions; no client sends the signs as they are."""


def _check_characters(text: str) -> None:
    if not text.startswith("/"):
        raise ValueError("must begin with /")
    if any(character < " " or character == "\x7f" for character in text):
        raise ValueError("can't hold a control character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("can't hold half of a surrogate pair")
    for character in "%?#;\\":
        if character in text:
            raise ValueError(f"can't hold {character}: {_WHY[character]}")


_WHY = {
    "%": "write the path decoded, as people read it",
    "?": "the query never takes part in a rule",
    "#": "a fragment never reaches a server",
    ";": "backends drop what follows it, so no rule may build on it",
    "\\": "some backends read it as /",
}


def _segment(part: str) -> Segment:
    if not part:
        raise ValueError("has an empty segment; write single slashes")
    if "." in part and not part.strip(" ."):
        raise ValueError(f'has the segment "{part}", which no request may have')
    if _NAME.fullmatch(part):
        return None
    if "*" in part:
        raise ValueError("can hold ** only as its last segment, and no other *: write {name} for one segment")
    if "{" in part or "}" in part:
        raise ValueError(f'has the segment "{part}": braces stand around a whole segment, like {{id}}')
    return part.encode()


_NAME = re.compile(r"\{[A-Za-z_][A-Za-z0-9_-]*\}")
