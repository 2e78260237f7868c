"""A key of two halves: one signs and stays here, the other verifies and may be published. Alone knows PyJWT.

What PyJWT does by itself and we rely on: the allow-list of algorithms, and that an ECDSA
signature is two numbers of 32 bytes and nothing else. What it does not do is done here and
in `keys`: a length cap before anything is read (80 KB took it 4.7 ms, signature or not),
exactly three parts in the base64url alphabet (it tolerates `=` padding, so one token would
have several spellings), a header of known members only, strict JSON, and one exception for
everything.
"""

from __future__ import annotations

from typing import Any

from jwt import PyJWS, PyJWTError
from jwt.algorithms import Algorithm, get_default_algorithms

from gateway.identity.keys import Key, Unreadable, compact, decoded, one_object, parts

_PUBLIC = ("kty", "crv", "x", "y", "n", "e")
"""Of all members that a JSON Web Key may have, those of the public halves (RFC 7518 §6, RFC 8037 §2)."""


class PrivateKey(Key):
    """Tokens name it by its `kid`. What `pem` reads goes in here."""

    def __init__(self, kid: str, name: str, private: Any) -> None:
        """`private` is cryptography's, and fit for the algorithm of that name."""
        algorithm = get_default_algorithms()[name]
        self.algorithm = name
        self.kid: str = kid
        self._private, self._public = private, private.public_key()
        self._jws = PyJWS(algorithms=[])
        self._jws.register_algorithm(name, algorithm)
        self.jwk: dict[str, str] = _described(algorithm, self._public, kid, name)
        """The public half, as a JSON Web Key (RFC 7517)."""

    def __repr__(self) -> str:
        return f"<PrivateKey {self.algorithm} {self.kid}>"

    def sign(self, claims: dict[str, object]) -> str:
        return self._jws.encode(
            compact(claims), self._private, algorithm=self.algorithm, headers={"kid": self.kid}
        )

    def read(self, token: bytes) -> dict[str, object]:
        header, _, _ = parts(token)
        try:
            signed = self._jws.decode_complete(token, self._public, algorithms=[self.algorithm])
        except (PyJWTError, ValueError, RecursionError):
            raise Unreadable from None
        self.check_header(one_object(decoded(header)))
        return one_object(signed["payload"])


def _described(algorithm: Algorithm, public: Any, kid: str, name: str) -> dict[str, str]:
    """What RFC 7517 §4 asks for and what kind of key it is. `key_ops` beside `use` SHOULD NOT be (§4.3)."""
    members = algorithm.to_jwk(public, as_dict=True)
    kept = {member: str(members[member]) for member in _PUBLIC if member in members}
    return {"kid": kid, "use": "sig", "alg": name, **kept}
