"""API tokens as text: `gwt_`, 43 random characters, 6 of checksum.

    gwt_ zR1Yx…(43)…Qm7 0aK3fZ

The prefix tells people and secret scanners what they have found, and tells the gate
apart an API token from an access token. 43 characters of base62 are 256 random bits.
The checksum is the CRC-32 of those, in base62 (GitHub's tokens have the same shape):
whoever mistypes one, cuts one off or makes one up without looking here is refused
before anything is looked for. It is no secret and proves nothing else.

What is stored, and what everything is keyed by, is the SHA-256 of the whole text. With
so many random bits there is nothing to guess, so nothing has to be slow.
"""

from __future__ import annotations

import re
import secrets
import string
from hashlib import sha256
from typing import Final
from zlib import crc32

PREFIX: Final = "gwt_"
PATTERN: Final = "gwt_[0-9A-Za-z]{49}"
"""What secret scanners look for."""

_RANDOM: Final = 43
"""62^43 is just above 2^256."""
_CHECK: Final = 6
"""62^6 is above 2^32."""
_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BYTES: Final = PREFIX.encode()
_SHAPE: Final = re.compile(PATTERN.encode())


def make_token() -> str:
    """A new one."""
    random = "".join(secrets.choice(_BASE62) for _ in range(_RANDOM))
    return PREFIX + random + _checksum(random.encode()).decode()


def digest_of(token: bytes | None) -> bytes | None:
    """Its key; None for what is no API token at all, empty for one that can't have been made here."""
    if token is None or not token.startswith(_BYTES):
        return None
    return sha256(token).digest() if is_sound(token) else b""


def is_sound(token: bytes) -> bool:
    """Whether it has the shape and the checksum of an API token."""
    if _SHAPE.fullmatch(token) is None:
        return False
    random, check = token[len(_BYTES) : -_CHECK], token[-_CHECK:]
    return _checksum(random) == check


def _checksum(random: bytes) -> bytes:
    number, digits = crc32(random), ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits.encode()
