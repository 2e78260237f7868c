"""The table of cut-offs: which sessions and API tokens, and which versions of which users, no longer hold.

An access token can't be taken back, so what has ended is remembered until the last
token issued before could have expired on its own. A cut-off is a value, and
applying it is idempotent and in any order gives the same table: the feed may
deliver one twice, late, or together with the direct call of this process.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from math import inf
from typing import Literal

from gateway.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut-off."""

    kind: Literal["session", "user", "token"]
    """A session or an API token that is over, or a user whose older tokens are."""
    id: str
    """The session's, the user's or the API token's id."""
    version: int
    """Tokens with a smaller `ver` are dead. 0 for sessions and API tokens."""
    until: float
    """Unix seconds: when the last token concerned has expired, and this may be forgotten."""


class Cutoffs:
    """What has been cut off. A check is two look-ups, however many there are."""

    def __init__(self) -> None:
        self._sessions: dict[str, float] = {}
        """Id of a session or an API token -> until. Ids are random, so they share a table."""
        self._versions: dict[str, tuple[int, float]] = {}
        """User id -> (the smallest version that still holds, until)."""
        self.believed_until = inf
        """By `time.monotonic`: a token that is not here may be cut off all the same after that."""
        self._due: list[tuple[float, str, str]] = []
        """A heap of (until, kind, id). An entry is stale once its cut-off got a later `until`."""

    def __len__(self) -> int:
        return len(self._sessions) + len(self._versions)

    def __repr__(self) -> str:
        return f"<Cutoffs {len(self._sessions)} sessions, {len(self._versions)} users>"

    def cuts(self, principal: Principal) -> bool:
        """Is this token dead before its time?"""
        if principal.session in self._sessions:
            return True
        raised = self._versions.get(principal.id)
        return raised is not None and principal.version < raised[0]

    def apply(self, cut: Cut) -> None:
        if cut.kind == "user":
            self.raise_version(cut.id, cut.version, until=cut.until)
        else:
            self.end_session(cut.id, until=cut.until)

    def end_session(self, session_id: str, *, until: float) -> None:
        """Every token with this `sid` is dead, or the API token with this id."""
        known = self._sessions.get(session_id)
        if known is None or until > known:
            self._sessions[session_id] = until
            heapq.heappush(self._due, (until, "session", session_id))

    def raise_version(self, user_id: str, version: int, *, until: float) -> None:
        """Every token of this user with a smaller `ver` is dead. A version never falls."""
        known = self._versions.get(user_id)
        if known is None or until > known[1]:
            heapq.heappush(self._due, (until, "user", user_id))
        if known is not None:
            version, until = max(version, known[0]), max(until, known[1])
        self._versions[user_id] = (version, until)

    def forget(self, now: float) -> None:
        """Drop what no living token can meet any more. Costs only what is dropped."""
        while self._due and self._due[0][0] <= now:
            until, kind, id = heapq.heappop(self._due)
            if kind == "session":
                if self._sessions[id] == until:
                    del self._sessions[id]
            elif self._versions[id][1] == until:
                del self._versions[id]
