"""The API tokens that this process has met: who they stand for, in memory, so that requests wait for nothing.

A token is read from the database once (see `accounts.token_lookup`) and then known until
something that matters changes. What changes is told by cut-offs, like for access tokens:

    token revoked           it is known to be dead, for good
    user changed or gone    it is unknown again: the next request reads it anew, with the
                            rights that its user has now, or learns that there is none
    its own end has come    dead, by the clock

A cut-off is applied here at once and not only looked up: cut-offs are forgotten when the
last access token has expired, and API tokens live longer. For the same reason a process
that has been without its feed for so long that it may have missed one forgets
everything (`forget_all`).

What nobody knows is remembered too, for a few seconds and up to a number, so that a script
with a token that was deleted does not ask the database at each of its requests.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.errors import InvalidToken
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cut, Cutoffs

MOST_KNOWN: Final = 100_000
"""Tokens in use by one process: 0.6 KB each. The longest unused goes first."""
MOST_UNKNOWN: Final = 10_000
"""Made-up tokens remembered as such. An attacker makes new ones anyway; this is for the others."""
UNKNOWN_FOR_S: Final = 10.0
"""So long after an account is enabled again its tokens hold again."""


class KnownTokens:
    """Keyed by a token's digest (see `api_tokens`). `find` asks nobody and never waits."""

    def __init__(
        self,
        cutoffs: Cutoffs,
        *,
        clock: Callable[[], float] = time.time,
        size: int = MOST_KNOWN,
    ) -> None:
        self._cutoffs = cutoffs
        self._clock = clock
        self._size = size
        self._known: OrderedDict[bytes, Principal | None] = OrderedDict()
        """None for a token that was revoked. The least recently used first."""
        self._by_id: dict[str, bytes] = {}
        """Of each living token, by its id."""
        self._by_user: dict[str, tuple[bytes, ...]] = {}
        """Of each living token, by its user's id."""
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        """Until when a digest need not be looked for. The oldest first."""
        self._used: set[str] = set()
        """Ids of tokens since somebody last asked."""

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<KnownTokens {len(self._known)} known, {len(self._unknown)} unknown>"

    def find(self, digest: bytes) -> Principal | None:
        """Whom it stands for; None if that has to be read first. Raises InvalidToken."""
        try:
            principal = self._known[digest]
        except KeyError:
            self._refuse_unknown(digest)
            return None
        if principal is None or self._clock() >= principal.expires_at:
            raise InvalidToken
        if self._cutoffs.cuts(principal):  # read just before the change, and remembered just after
            self._drop(digest, principal)
            return None
        self._known.move_to_end(digest)
        self._used.add(principal.session)
        return principal

    def remember(self, digest: bytes, principal: Principal) -> None:
        """What the database says of it now."""
        self._unknown.pop(digest, None)
        before = self._known.get(digest)
        if before is not None:
            self._drop(digest, before)
        self._known[digest] = principal
        self._by_id[principal.session] = digest
        self._by_user[principal.id] = (*self._by_user.get(principal.id, ()), digest)
        if len(self._known) > self._size:
            oldest = next(iter(self._known))
            self._drop(oldest, self._known[oldest])

    def remember_unknown(self, digest: bytes) -> None:
        """The database has none that holds."""
        self._unknown[digest] = self._clock() + UNKNOWN_FOR_S
        self._unknown.move_to_end(digest)
        if len(self._unknown) > MOST_UNKNOWN:
            self._unknown.popitem(last=False)

    def apply(self, cut: Cut) -> None:
        """Any cut-off. Those of sessions say nothing about API tokens."""
        if cut.kind == "token":
            digest = self._by_id.get(cut.id)
            if digest is not None:
                self._drop(digest, self._known[digest])
                self._known[digest] = None
        elif cut.kind == "user":
            for digest in self._by_user.get(cut.id, ()):
                principal = self._known[digest]
                if principal is not None and principal.version < cut.version:
                    self._drop(digest, principal)

    def forget_all(self) -> None:
        """Each will be read again. What was used stays to be written."""
        for memory in (self._known, self._by_id, self._by_user, self._unknown):
            memory.clear()

    def take_used(self) -> set[str]:
        """Ids of the tokens that were used since the last call."""
        used, self._used = self._used, set()
        return used

    def put_back_used(self, ids: set[str]) -> None:
        """They could not be written down; the next call has them again."""
        self._used |= ids

    def _refuse_unknown(self, digest: bytes) -> None:
        until = self._unknown.get(digest, 0.0)
        if not digest or self._clock() < until:
            raise InvalidToken

    def _drop(self, digest: bytes, principal: Principal | None) -> None:
        del self._known[digest]
        if principal is None:
            return
        del self._by_id[principal.session]
        others = tuple(each for each in self._by_user[principal.id] if each != digest)
        if others:
            self._by_user[principal.id] = others
        else:
            del self._by_user[principal.id]
