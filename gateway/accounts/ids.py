"""Ids of users and sessions: UUIDv7 text (RFC 9562 §5.7), which sorts in the order of creation."""

from __future__ import annotations

import re
import secrets
import uuid
from typing import Final

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def new_id(now: float) -> str:
    """48 bits of milliseconds, then 74 random ones: not to be guessed, though nothing relies on that."""
    value = (int(now * 1000) & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76  # the version
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant
    return str(uuid.UUID(int=value))


def is_id(text: str) -> bool:
    """Whether this can be an id at all; if not, the database need not hear of it."""
    return _ID.fullmatch(text) is not None
