"""Keys that sign and read JSON Web Signatures in their compact form (RFC 7515), and the key that is a secret.

The algorithm belongs to the key and is never taken from the token (RFC 8725
§3.1), so a token can't choose `none`, or have a public key used as an HMAC secret.
A token names its key by `kid`, or is one of a secret and names none: each kind is
refused in the other's place.

A secret's signature is one HMAC, so it is made here, out of the standard library:
that takes less than half of the time that PyJWT takes, and a gateway without key
pairs loads neither PyJWT nor `cryptography` (decision 40). The signature is the
first thing that is looked at, in constant time and as text, so a token has one
spelling of it; header and claims are read only when somebody who holds the secret
has written them. All the same they are read strictly: three parts in the base64url
alphabet without padding and with no bits left over, UTF-8, one object, no member
twice, no `NaN`, a header of known members only, one exception for everything.
"""

from __future__ import annotations

import hmac
import json
import re
from abc import ABC, abstractmethod
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NoReturn

MAX_TOKEN_BYTES = 8 * 1024
"""Longer tokens are refused unread. Ours are about 400 bytes; header limits are of this order everywhere."""

MIN_SECRET_BYTES = 32
"""RFC 7518 §3.2: an HS256 key is at least as long as its hash."""

_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_ALWAYS = frozenset({"alg", "typ"})
_NO_SECRET = re.compile(rb"----[- ]BEGIN |\A(ssh|ecdsa-sha2|sk-ssh|sk-ecdsa)-")
"""Keys in PEM and of SSH have public halves, which everybody knows."""


class Unreadable(ValueError):
    """Not a token of this key. Says nothing more, so that nothing more can leak."""


class Key(ABC):
    """One key with its one algorithm."""

    algorithm: str
    """As RFC 7518 names it."""
    kid: str | None = None
    """What its tokens name it by; None if they don't."""

    @abstractmethod
    def sign(self, claims: dict[str, object]) -> str:
        """The compact form."""

    @abstractmethod
    def read(self, token: bytes) -> dict[str, object]:
        """The claims of a token with a good signature, not judged yet; else raises Unreadable."""

    def check_header(self, header: dict[str, object]) -> None:
        """`alg`, `typ` if it is there, `kid` if this key has one, and nothing else. Raises Unreadable.

        `jku`, `x5u`, `jwk` and `x5c` offer a key of the sender's choice, and `crit`
        asks for rules we don't have.
        """
        known = _ALWAYS if self.kid is None else _ALWAYS | {"kid"}
        if not header.keys() <= known or header.get("typ", "JWT") != "JWT" or header.get("kid") != self.kid:
            raise Unreadable
        if header.get("alg") != self.algorithm:
            raise Unreadable


class SecretKey(Key):
    """An HS256 key: the same claims in the same order are always the same text.

    Raises ValueError for a secret that is too short or is an asymmetric key.
    """

    algorithm = "HS256"

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"a token secret has at least {MIN_SECRET_BYTES} bytes, this one {len(secret)}")
        if _NO_SECRET.search(secret):
            raise ValueError("a token secret is random bytes, not an asymmetric key")
        self._secret = secret

    def __repr__(self) -> str:
        return f"<SecretKey {self.algorithm}, {len(self._secret)} bytes>"

    def sign(self, claims: dict[str, object]) -> str:
        signed = b"%b.%b" % (_HEADER, _encoded(compact(claims)))
        return (b"%b.%b" % (signed, self._signature(signed))).decode("ascii")

    def read(self, token: bytes) -> dict[str, object]:
        header, payload, signature = parts(token)
        if not hmac.compare_digest(self._signature(token[: -len(signature) - 1]), signature):
            raise Unreadable
        if header != _HEADER:
            self.check_header(one_object(decoded(header)))
        return one_object(decoded(payload))

    def _signature(self, signed: bytes) -> bytes:
        return _encoded(hmac.digest(self._secret, signed, "sha256"))


def parts(token: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, payload and signature, as they stand. Raises Unreadable."""
    shape = _COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN_BYTES else None
    if shape is None:
        raise Unreadable
    header, payload, signature = shape.groups()
    return header, payload, signature


def named_key(token: bytes) -> str | None:
    """The `kid` that a token claims, None if it claims none. Raises Unreadable. Nothing is verified yet."""
    header = parts(token)[0]
    if header == _HEADER:
        return None
    claimed = one_object(decoded(header))
    if "kid" not in claimed:
        return None
    kid = claimed["kid"]
    if not isinstance(kid, str):
        raise Unreadable
    return kid


def compact(claims: dict[str, object]) -> bytes:
    """JSON without a byte too many."""
    return json.dumps(claims, separators=(",", ":")).encode()


def decoded(part: bytes) -> bytes:
    """What base64url stands for (RFC 7515 §2), in its one spelling. Raises Unreadable."""
    try:
        found = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise Unreadable from None
    if _encoded(found) != part:
        raise Unreadable
    return found


def one_object(text: bytes) -> dict[str, object]:
    """Strict JSON: UTF-8, one object, no member twice (two readers could believe different ones), no NaN.

    Raises Unreadable.
    """
    try:
        read = _JSON.decode(text.decode())
    # RecursionError: deep JSON. ValueError: bad UTF-8, bad JSON, integers of thousands of digits.
    except (ValueError, RecursionError):
        raise Unreadable from None
    if not isinstance(read, dict):
        raise Unreadable
    return read


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unreadable
    return members


def _refuse(_: str) -> NoReturn:
    raise Unreadable


_JSON = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse)
_HEADER = _encoded(compact({"alg": "HS256", "typ": "JWT"}))
"""Of every token that a secret signs."""
