"""Keys that sign and read JSON Web Signatures. The only file that knows PyJWT.

The algorithm belongs to the key and is never taken from the token (RFC 8725
§3.1), so a token can't choose `none`, or have a public key used as an HMAC secret.
A token names its key by `kid`, or is one of a secret and names none: each kind is
refused in the other's place.

What PyJWT does by itself and we rely on: the allow-list of algorithms, the
comparison of signatures in constant time, canonical base64url, and that an ECDSA
signature is two numbers of 32 bytes and nothing else. What it does not
do and is done here: a length cap before anything is read (80 KB took it 4.7 ms,
signature or not), exactly three parts in the base64url alphabet (it tolerates
`=` padding, so one token would have several spellings), a header of known
members only, duplicate members, `NaN`, and one exception for everything.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from typing import Any, NoReturn, cast

from jwt import PyJWS, PyJWTError
from jwt.algorithms import Algorithm, HMACAlgorithm, get_default_algorithms

MAX_TOKEN_BYTES = 8 * 1024
"""Longer tokens are refused unread. Ours are about 400 bytes; header limits are of this order everywhere."""

MIN_SECRET_BYTES = 32
"""RFC 7518 §3.2: an HS256 key is at least as long as its hash."""

_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_ALWAYS = frozenset({"alg", "typ"})
_PUBLIC = ("kty", "crv", "x", "y", "n", "e")
"""Of all members that a JSON Web Key may have, those of the public halves (RFC 7518 §6, RFC 8037 §2)."""


class Unreadable(ValueError):
    """Not a token of this key. Says nothing more, so that nothing more can leak."""


class Key:
    """One key with its one algorithm: a SecretKey or a PrivateKey."""

    kid: str | None = None
    """What its tokens name it by; None if they don't."""

    def __init__(self, name: str, algorithm: Algorithm, signs: Any, verifies: Any) -> None:
        self.algorithm = name
        self._signs, self._verifies = signs, verifies
        self._jws = PyJWS(algorithms=[])
        self._jws.register_algorithm(name, algorithm)

    def sign(self, claims: dict[str, object]) -> str:
        """The compact form."""
        payload = json.dumps(claims, separators=(",", ":")).encode()
        headers = {"kid": self.kid} if self.kid is not None else None
        return self._jws.encode(payload, self._signs, algorithm=self.algorithm, headers=headers)

    def read(self, token: bytes) -> dict[str, object]:
        """The claims of a token with a good signature, not judged yet; else raises Unreadable."""
        if len(token) > MAX_TOKEN_BYTES or not _COMPACT.fullmatch(token):
            raise Unreadable
        try:
            signed = self._jws.decode_complete(token, self._verifies, algorithms=[self.algorithm])
            self._check_header(signed["header"])
            return _one_object(signed["payload"])
        # RecursionError: deep JSON. ValueError: bad UTF-8, bad JSON, integers of thousands of digits.
        except (PyJWTError, ValueError, RecursionError):
            raise Unreadable from None

    def _check_header(self, header: dict[str, object]) -> None:
        """`alg`, `typ` if it is there, `kid` if this key has one, and nothing else.

        `jku`, `x5u`, `jwk` and `x5c` offer a key of the sender's choice, and `crit`
        asks for rules we don't have.
        """
        known = _ALWAYS if self.kid is None else _ALWAYS | {"kid"}
        if not header.keys() <= known or header.get("typ", "JWT") != "JWT" or header.get("kid") != self.kid:
            raise Unreadable


class SecretKey(Key):
    """An HS256 key: the same claims in the same order are always the same text.

    Raises ValueError for a secret that is too short or is an asymmetric key.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"a token secret has at least {MIN_SECRET_BYTES} bytes, this one {len(secret)}")
        try:
            prepared = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
        except PyJWTError as error:
            raise ValueError(str(error)) from None
        super().__init__("HS256", _PreparedHmac(HMACAlgorithm.SHA256), prepared, prepared)
        self._size = len(secret)

    def __repr__(self) -> str:
        return f"<SecretKey {self.algorithm}, {self._size} bytes>"


class PrivateKey(Key):
    """A key of two halves, which tokens name by its `kid`. What `pem` reads goes in here."""

    def __init__(self, kid: str, name: str, private: Any) -> None:
        """`private` is cryptography's, and fit for the algorithm of that name."""
        algorithm = get_default_algorithms()[name]
        super().__init__(name, algorithm, private, private.public_key())
        self.kid: str = kid
        self.jwk: dict[str, str] = _described(algorithm, self._verifies, kid, name)
        """The public half, as a JSON Web Key (RFC 7517)."""

    def __repr__(self) -> str:
        return f"<PrivateKey {self.algorithm} {self.kid}>"


def named_key(token: bytes) -> str | None:
    """The `kid` that a token claims, None if it claims none. Raises Unreadable. Nothing is verified yet."""
    shape = _COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN_BYTES else None
    if shape is None:
        raise Unreadable
    try:
        header = _one_object(urlsafe_b64decode(shape[1] + b"=" * (-len(shape[1]) % 4)))
    except (ValueError, RecursionError):
        raise Unreadable from None
    if "kid" not in header:
        return None
    kid = header["kid"]
    if not isinstance(kid, str):
        raise Unreadable
    return kid


class _PreparedHmac(HMACAlgorithm):
    """HMAC over a secret that `SecretKey` has prepared.

    PyJWT prepares the key for every token: it tries to parse the secret as DER,
    PEM, SSH and JWK, which takes as long as the rest of the verification.
    """

    def prepare_key(self, key: str | bytes) -> bytes:
        return cast(bytes, key)


def _described(algorithm: Algorithm, public: Any, kid: str, name: str) -> dict[str, str]:
    """What RFC 7517 §4 asks for and what kind of key it is. `key_ops` beside `use` SHOULD NOT be (§4.3)."""
    members = algorithm.to_jwk(public, as_dict=True)
    kept = {member: str(members[member]) for member in _PUBLIC if member in members}
    return {"kid": kid, "use": "sig", "alg": name, **kept}


def _one_object(text: bytes) -> dict[str, object]:
    """Strict JSON: UTF-8, one object, no member twice (two readers could believe different ones), no NaN."""
    read = json.loads(text.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse)
    if not isinstance(read, dict):
        raise Unreadable
    return read


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unreadable
    return members


def _refuse(_: str) -> NoReturn:
    raise Unreadable
