"""All keys of one kind of token: several verify, one signs.

A token without a `kid` is one of the secrets; a `kid` is looked up in this table and
nowhere else. So neither kind of key is ever tried on the other kind's tokens, and
what a token says of itself chooses among keys that we hold, never an algorithm.

Which key signs is a matter of time and not of events: each has the moment from
which it signs, and the latest that has come decides. Replicas that know the same
keys change over together, with nothing to tell them. Until the first key signs,
the first secret does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from gateway.identity.keys import Key, SecretKey, Unreadable, named_key

if TYPE_CHECKING:
    from gateway.identity.keypair import PrivateKey


@dataclass(frozen=True, slots=True)
class Dated:
    """A key, and when it is one."""

    key: PrivateKey
    """It verifies from the moment it is known."""
    signs_from: float = inf
    """Unix seconds; never, if nobody said so yet."""
    verifies_until: float = inf
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Read:
    """What a token with a good signature says."""

    claims: dict[str, object]
    """Not judged yet."""
    until: float
    """When its key ends, in Unix seconds."""


class KeySet:
    """Never changes: whoever has other keys has another set. Raises ValueError for a short secret."""

    def __init__(self, secrets: Sequence[bytes] = (), keys: Sequence[Dated] = ()) -> None:
        """The first of `secrets` is the one that may sign."""
        self._secrets = [SecretKey(secret) for secret in secrets]
        self._keys = {dated.key.kid: dated for dated in keys}

    def __repr__(self) -> str:
        return f"<KeySet {[*self._secrets, *(dated.key for dated in self._keys.values())]}>"

    def with_keys(self, keys: Sequence[Dated]) -> KeySet:
        """The same secrets, other keys."""
        other = KeySet(keys=keys)
        other._secrets = self._secrets
        return other

    def signer(self, now: float) -> Key | None:
        """The key that signs at this moment."""
        signing = [dated for dated in self._keys.values() if dated.signs_from <= now < dated.verifies_until]
        if signing:
            return max(signing, key=lambda dated: dated.signs_from).key
        return self._secrets[0] if self._secrets else None

    def sign(self, claims: dict[str, object], now: float) -> str:
        """A token. Raises LookupError if no key signs at this moment."""
        signer = self.signer(now)
        if signer is None:
            raise LookupError("no key signs now")
        return signer.sign(claims)

    def read(self, token: bytes, now: float) -> Read:
        """Raises Unreadable unless the token is one of these keys."""
        kid = named_key(token) if self._keys else None
        if kid is None:
            return Read(self._read_by_secret(token), inf)
        dated = self._keys.get(kid)
        if dated is None or now >= dated.verifies_until:
            raise Unreadable
        return Read(dated.key.read(token), dated.verifies_until)

    def published(self, now: float) -> list[dict[str, str]]:
        """The public halves, as JSON Web Keys. A secret has none."""
        return [dated.key.jwk for dated in self._keys.values() if now < dated.verifies_until]

    def _read_by_secret(self, token: bytes) -> dict[str, object]:
        for secret in self._secrets:
            try:
                return secret.read(token)
            except Unreadable:
                continue
        raise Unreadable
