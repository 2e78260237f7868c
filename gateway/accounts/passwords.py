"""Password hashes: bcrypt over a keyed digest, in threads of its own, with the same work for every answer.

    $gw1$2b$12$<22 characters of salt><31 characters of checksum>

is bcrypt, at cost 12, of base64(HMAC-SHA256(key = "$2b$12$<salt>", password)). The
digest first, because bcrypt sees only 72 bytes and so must never be shown a
password itself; base64, because older implementations stop at a NUL; keyed by
the salt, because a bare SHA-256 may stand in somebody's leak, and then bcrypt
would protect only that (password shucking; passlib's bcrypt_sha256 changed for
the same reason in its version 2). A hash without our prefix is plain bcrypt from
elsewhere: they verify as they did there, and are replaced at the next login.

Verifying costs 2^cost rounds whether the account exists or not, whatever its hash
looks like, and however long the password is. A wrong password for a hash of a
lower cost c would answer sooner than an unknown name, so it is made up for:
2^c + 2^c + 2^(c+1) + … + 2^(cost-1) = 2^cost. (A hash of a higher cost takes
longer; that passes as soon as its owner has logged in once.)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from typing import Final

import bcrypt

from gateway.accounts.workers import Workers
from gateway.errors import InvalidField

MAX_PASSWORD_BYTES: Final = 1024
"""In UTF-8. Generous for people (NIST SP 800-63B asks for at least 64 characters), and a limit for others."""
BCRYPT_BYTES: Final = 72
"""What bcrypt sees of a password."""
QUEUE_PER_THREAD: Final = 16
"""Passwords that may wait per thread: about four seconds at cost 12."""
TRIES: Final = 3
"""A password is compared outside the transaction; if its hash changed meanwhile, compare again."""
_DEAREST: Final = 20
"""A stored cost above this (a minute per login) is no hash anybody made on purpose."""
_DEAREST_FOREIGN: Final = 16
"""Of a hash that is brought from elsewhere: four seconds for whoever tries it, until its owner logs in."""
DEAR: Final = 14
"""Above it an import warns: from a second on, whoever tries the account keeps a thread from the others."""
_PREFIX: Final = "$gw1"
_BCRYPT: Final = re.compile(r"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{53}")
_CHEAPEST: Final = 4


@dataclass(frozen=True, slots=True)
class Verified:
    """What a comparison found."""

    right: bool
    """The password is the account's."""
    outdated: bool = False
    """Right, but hashed in another way or at another cost than today's: hash it again."""


class Passwords:
    """Hashes and verifies. `cost` is bcrypt's: each step doubles the work (12 is about 240 ms)."""

    def __init__(self, *, cost: int = 12, threads: int | None = None, queue: int | None = None) -> None:
        self._cost = cost
        threads = threads or spare_cores()
        queue = queue if queue is not None else QUEUE_PER_THREAD * threads
        self._workers = Workers("gateway-bcrypt", threads=threads, queue=queue)

    async def hash(self, password: str) -> str:
        """A new hash. Raises Overloaded if too many wait; check the password with `refuse_unfit` first."""
        return await self._workers.run(lambda: make_hash(password, self._cost))

    async def verify(self, password: str, stored: str | None) -> Verified:
        """Compare with a stored hash; None is "there is no such account". Raises Overloaded only."""
        return await self._workers.run(lambda: verify(password, stored, self._cost))

    async def close(self) -> None:
        await self._workers.close()


def spare_cores() -> int:
    """The cores that may hash while one proxies."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, mine - 1)


def refuse_unfit(password: str, *, min_length: int) -> None:
    """Raises InvalidField for a new password that is too short or too long."""
    if len(password) < min_length:
        raise InvalidField(f"The password must have at least {min_length} characters.")
    if len(_bytes(password)) > MAX_PASSWORD_BYTES:
        raise InvalidField(f"The password must have at most {MAX_PASSWORD_BYTES} bytes.")


def refuse_unreadable(stored: str) -> None:
    """Raises InvalidField for what is no hash that `verify` could ever find right, or that costs too much."""
    shape = _BCRYPT.fullmatch(stored.removeprefix(_PREFIX))
    if shape is None or not _CHEAPEST <= int(shape["cost"]) <= _DEAREST_FOREIGN:
        raise InvalidField(
            f"write a bcrypt hash: $2a$, $2b$ or $2y$, cost 04 to {_DEAREST_FOREIGN}, 53 characters"
        )
    # The last characters of salt and checksum carry fewer bits than they could.
    if stored[-32] not in ".Oeu" or stored[-1] not in ".CGKOSWaeimquy26":
        raise InvalidField("write the hash as bcrypt made it; this one was changed or cut")


def cost_of(stored: str) -> int:
    """bcrypt's cost of a hash that `refuse_unreadable` lets pass; 0 without one."""
    shape = _BCRYPT.fullmatch(stored.removeprefix(_PREFIX))
    return int(shape["cost"]) if shape else 0


def make_hash(password: str, cost: int) -> str:
    salt = bcrypt.gensalt(cost)
    return _PREFIX + bcrypt.hashpw(_digest(salt, _bytes(password)), salt).decode()


def verify(password: str, stored: str | None, cost: int) -> Verified:
    secret = _bytes(password)
    own = stored is not None and stored.startswith(_PREFIX)
    plain = (stored or "").removeprefix(_PREFIX)
    shape = _BCRYPT.fullmatch(plain)
    if shape is None or not _CHEAPEST <= int(shape["cost"]) <= _DEAREST or len(secret) > MAX_PASSWORD_BYTES:
        _work(cost)
        return Verified(False)
    # The salt as bcrypt itself writes it: "$2b$12$" and 22 characters.
    shown = _digest(plain[:29].encode(), secret) if own else secret[:BCRYPT_BYTES]
    try:
        right = bcrypt.checkpw(shown, plain.encode())
    except ValueError:  # a salt of the right letters that is no base64 all the same
        _work(cost)
        return Verified(False)
    if right:
        return Verified(True, outdated=not own or int(shape["cost"]) != cost)
    for missing in range(int(shape["cost"]), cost):
        _work(missing)
    return Verified(False)


def _digest(salt: bytes, secret: bytes) -> bytes:
    return base64.b64encode(hmac.digest(salt, secret, hashlib.sha256))


def _work(cost: int) -> None:
    """As much work as one comparison, for nothing."""
    bcrypt.hashpw(b"", bcrypt.gensalt(cost))


def _bytes(password: str) -> bytes:
    # JSON can spell lone surrogates; they are as good as any other character here.
    return password.encode("utf-8", "surrogatepass")
