"""A secret that signs and reads JSON Web Signatures. The only file that knows PyJWT.

The algorithm belongs to the key and is never taken from the token (RFC 8725
§3.1), so a token can't choose `none`, or have a public key used as an HMAC secret.

What PyJWT does by itself and we rely on: the allow-list of algorithms, the
comparison of signatures in constant time, canonical base64url. What it does not
do and is done here: a length cap before anything is read (80 KB took it 4.7 ms,
signature or not), exactly three parts in the base64url alphabet (it tolerates
`=` padding, so one token would have several spellings), a header of known
members only, duplicate members, `NaN`, and one exception for everything.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn, cast

from jwt import PyJWS, PyJWTError
from jwt.algorithms import HMACAlgorithm

MAX_TOKEN_BYTES = 8 * 1024
"""Longer tokens are refused unread. Ours are about 400 bytes; header limits are of this order everywhere."""

MIN_SECRET_BYTES = 32
"""RFC 7518 §3.2: an HS256 key is at least as long as its hash."""

_ALGORITHM = "HS256"
_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEADER_MEMBERS = frozenset({"alg", "typ"})


class Unreadable(ValueError):
    """Not a token of this key. Says nothing more, so that nothing more can leak."""


class SecretKey:
    """An HS256 key. Raises ValueError for a secret that is too short or is an asymmetric key."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"a token secret has at least {MIN_SECRET_BYTES} bytes, this one {len(secret)}")
        try:
            self._secret = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
        except PyJWTError as error:
            raise ValueError(str(error)) from None
        self._jws = PyJWS(algorithms=[])
        self._jws.register_algorithm(_ALGORITHM, _PreparedHmac(HMACAlgorithm.SHA256))

    def __repr__(self) -> str:
        return f"<SecretKey {_ALGORITHM}, {len(self._secret)} bytes>"

    def sign(self, claims: dict[str, object]) -> str:
        """The compact form. The same claims in the same order are always the same text."""
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return self._jws.encode(payload, self._secret, algorithm=_ALGORITHM)

    def read(self, token: bytes) -> dict[str, object]:
        """The claims of a token with a good signature, not judged yet; else raises Unreadable."""
        if len(token) > MAX_TOKEN_BYTES or not _COMPACT.fullmatch(token):
            raise Unreadable
        try:
            signed = self._jws.decode_complete(token, self._secret, algorithms=[_ALGORITHM])
            _check_header(signed["header"])
            return _one_object(signed["payload"])
        # RecursionError: deep JSON. ValueError: bad UTF-8, bad JSON, integers of thousands of digits.
        except (PyJWTError, ValueError, RecursionError):
            raise Unreadable from None


class _PreparedHmac(HMACAlgorithm):
    """HMAC over a secret that `SecretKey` has prepared.

    PyJWT prepares the key for every token: it tries to parse the secret as DER,
    PEM, SSH and JWK, which takes as long as the rest of the verification.
    """

    def prepare_key(self, key: str | bytes) -> bytes:
        return cast(bytes, key)


def _check_header(header: dict[str, object]) -> None:
    """`alg`, and `typ` if it is there, and nothing else.

    `jku`, `x5u`, `jwk` and `x5c` offer a key of the sender's choice, `crit` asks
    for rules we don't have, and there is no table of keys for a `kid` to name.
    """
    if not header.keys() <= _HEADER_MEMBERS or header.get("typ", "JWT") != "JWT":
        raise Unreadable


def _one_object(payload: bytes) -> dict[str, object]:
    """Strict JSON: UTF-8, one object, no member twice (two readers could believe different ones), no NaN."""
    claims = json.loads(payload.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse)
    if not isinstance(claims, dict):
        raise Unreadable
    return claims


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unreadable
    return members


def _refuse(_: str) -> NoReturn:
    raise Unreadable
