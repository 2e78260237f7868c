"""Which settings a running process can't change: what its sockets, keys, database and counters were made of.

All else is taken up by a reload. A file that changes one of these is not taken
up at all: half of a file would be a configuration that nobody wrote.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from .schema import Config
from .source import Steps, written_path

FIXED: tuple[Steps, ...] = (
    ("server",),
    ("auth",),
    ("tokens",),
    ("api_tokens",),
    ("sessions",),
    ("accounts",),
    ("audit",),
    ("rate_limits", "storage"),
)
"""With everything below them."""
FREE: tuple[Steps, ...] = (("server", "reload"),)
"""But these: whether files are watched is nothing that was built."""


def restart_needed(before: Config, after: Config) -> list[str]:
    """The settings that differ and need a restart, as the file names them: `server.limits.body`."""
    return [
        written_path(path)
        for fixed in FIXED
        for path in _differences(_below(before, fixed), _below(after, fixed), fixed)
    ]


def without_rules(config: Config) -> Config:
    """What a running gateway keeps of its configuration: rules can be many, and nobody needs them twice."""
    return config.model_copy(update={"routes": (), "tests": ()})


def _below(config: Config, path: Steps) -> object:
    value: object = config
    for step in path:
        value = getattr(value, str(step))
    return value


def _differences(before: object, after: object, path: Steps) -> Iterator[Steps]:
    if isinstance(before, BaseModel) and isinstance(after, BaseModel):
        for name in type(before).model_fields:
            yield from _differences(getattr(before, name), getattr(after, name), (*path, name))
    elif before != after and path not in FREE:
        yield path
