"""Where a request's credential is: in one `Authorization: Bearer` header and nowhere else (RFC 6750 §2.1).

Not in the URL, not in the body. This module finds it and does not judge it.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import DuplicateCredential

_NAME = b"authorization"
_NAME_LENGTH = len(_NAME)


def find_bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The token as it was sent, or None when the client sent no bearer credential.

    A `Bearer` with an empty or odd token returns those bytes: they fail to
    verify, and the client hears `invalid_token` instead of "not logged in".
    Raises DuplicateCredential on a second Authorization header of any scheme,
    since two readers could each take another one for the caller.
    """
    found: bytes | None = None
    for name, value in headers:
        # The length comes first because it is cheaper than folding every name of every request.
        if len(name) == _NAME_LENGTH and name.lower() == _NAME:
            if found is not None:
                raise DuplicateCredential
            found = value
    return None if found is None else _bearer(found)


def _bearer(value: bytes) -> bytes | None:
    """`Bearer  abc ` -> b"abc"; `Bearer` -> b""; another scheme, or none -> None."""
    if value[:7].lower() == b"bearer ":
        return value[7:].strip()
    scheme, *token = value.split(None, 1) or [b""]
    if scheme.lower() != b"bearer":
        return None
    return token[0].strip() if token else b""
