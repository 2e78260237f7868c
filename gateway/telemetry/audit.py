"""The audit trail: who did what to whom, from where. One typed event per act that matters.

Rooms that act make an event, one dataclass below; `Recorded` adds when it happened, in which
request and from where. Every event is a line of the log, a number in the metrics and a row of a
table. What belongs to a transaction is written in it, by `accounts.ledger`, and published here
after the commit. What belongs to none (a login that failed) is recorded here, and handed to
`keep`, which takes it to the table later. Where all that is, is handed in.

A new kind of event is a class below and a row in docs/reference/log.md; nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

from gateway.telemetry.logs import CLIENT, REQUEST_ID, json_line, timestamp

log = logging.getLogger(__name__)

_LONGEST_EMAIL = 254
"""RFC 5321 §4.5.3.1.3, as erratum 1690 counts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that was done or tried."""

    name: ClassVar[str]
    """The stable code under which it is logged and counted."""
    by_its_subject: ClassVar[bool] = False
    """Done by the very user it is about, proven by a credential."""

    actor: str | None = None
    """The id of who did it, or "cli". None is nobody in particular."""
    address: str | None = None
    """The client's address, or "unix"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSucceeded(Event):
    name = "login_succeeded"
    by_its_subject = True

    user: str
    """The user's id."""
    email: str
    """In canonical form."""
    session: str
    """The new session's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginFailed(Event):
    """A wrong password, an unknown name, a disabled account: nobody outside learns which."""

    name = "login_failed"

    email: str
    """As it was tried; "" for what is no address."""
    user: str | None = None
    """The id of the account that has this address, if one has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginLimited(Event):
    """Too many tries: refused before a password was compared. Told once in the limit's window."""

    name = "login_limited"

    email: str
    """As it was tried."""
    user: str | None = None
    """The id of the account that has this address, if one has and it was looked for."""
    limit: str
    """Which one: "per_account", "per_account_daily" or "per_address"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshLimited(Event):
    """Too many refreshes from one network. Told once in the limit's window."""

    name = "refresh_limited"

    limit: str
    """Which one: "per_address"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordLimited(Event):
    """Too many tries of a current password, by who holds an access token. Told likewise."""

    name = "password_limited"
    by_its_subject = True

    user: str
    """The user's id."""
    session: str
    """The session's id."""
    limit: str
    """Which one: "per_account", which counts by session here, or "per_address"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsCleared(Event):
    """All attempts on an account were forgotten."""

    name = "limits_cleared"

    user: str
    """The user's id."""
    email: str
    """The account's address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReused(Event):
    """A spent refresh token came back: one of its two holders is a thief, so the session was ended."""

    name = "refresh_reused"

    user: str
    """The user's id."""
    session: str
    """The session's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraceHit(Event):
    """The previous refresh token came within the grace, but from another address or program."""

    name = "grace_hit"

    user: str
    """The user's id."""
    session: str
    """The session's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOut(Event):
    name = "logged_out"
    by_its_subject = True

    user: str
    """The user's id."""
    session: str
    """The session's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(Event):
    """By somebody other than its own client."""

    name = "session_ended"

    user: str
    """The user's id."""
    session: str
    """The session's id."""
    reason: str
    """"ended" from a list of sessions, "too_many" by a login beyond the cap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsEnded(Event):
    """All of a user's at once."""

    name = "sessions_ended"

    user: str
    """The user's id."""
    count: int
    """How many there were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChanged(Event):
    name = "password_changed"

    user: str
    """The user's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCreated(Event):
    name = "user_created"

    user: str
    """The new user's id."""
    email: str
    """In canonical form."""
    admin: bool
    """May pass `allow: admin`, and manage accounts."""
    roles: tuple[str, ...]
    """Sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersImported(Event):
    """Many accounts at once, from a file; no `user_created` for each."""

    name = "users_imported"

    count: int
    """How many."""
    admins: int
    """How many of them are admins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashesExported(Event):
    """Somebody has the password hashes of all accounts in a file now."""

    name = "hashes_exported"

    count: int
    """How many accounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUpdated(Event):
    """Also disabling and enabling: `changed` says which."""

    name = "user_updated"

    user: str
    """The user's id."""
    email: str
    """The one that holds now."""
    changed: dict[str, object]
    """The fields that are different, named as in answers, with what they are now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDeleted(Event):
    name = "user_deleted"

    user: str
    """The former id."""
    email: str
    """The former address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCreated(Event):
    """An API token was made."""

    name = "token_created"

    user: str
    """The id of the user it stands for."""
    credential: str
    """The token's id."""
    label: str
    """Its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRevoked(Event):
    """An API token was ended."""

    name = "token_revoked"

    user: str
    """The id of the user it stood for."""
    credential: str
    """The token's id."""
    label: str
    """Its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGenerated(Event):
    """A key for access tokens is there; it verifies."""

    name = "key_generated"

    key: str
    """Its `kid`."""
    algorithm: str
    """ES256, EdDSA or RS256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotated(Event):
    """It was said since when a key signs."""

    name = "key_rotated"

    key: str
    """Its `kid`."""
    algorithm: str
    """As above."""
    begins: str
    """When, in RFC 3339; perhaps in a few minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRetired(Event):
    """It was said until when a key verifies."""

    name = "key_retired"

    key: str
    """Its `kid`."""
    algorithm: str
    """As above."""
    ends: str
    """When, in RFC 3339."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its circumstances: what sinks get."""

    event: Event
    """What happened."""
    time: float
    """Unix seconds."""
    request_id: str | None
    """The request that caused it, if one did."""
    address: str | None = None
    """The client of that request."""

    @classmethod
    def here(cls, event: Event, now: float) -> Recorded:
        """`event`, in the request that is being answered."""
        return cls(event, now, REQUEST_ID.get(), CLIENT.get())

    def told(self) -> dict[str, object]:
        """What happened: `{name, requestId, actor, address, user, …}`."""
        details = {field.name: getattr(self.event, field.name) for field in fields(self.event)}
        details["address"] = self.event.address or self.address
        if self.event.by_its_subject:
            details["actor"] = details["user"]
        if "email" in details:
            details["email"] = _only_an_address(details["email"])
        return {"name": self.event.name, "requestId": self.request_id, **details}

    def fields(self) -> dict[str, object]:
        """As a line of the log shows it."""
        return {"time": timestamp(self.time), "level": "info", "event": "audit", **self.told()}


Sink = Callable[[Recorded], object]


class AuditTrail:
    """Hands every event to every sink. A sink that fails is logged and does not undo what was done."""

    def __init__(
        self,
        sinks: Iterable[Sink],
        *,
        keep: Sink | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`keep` is a sink for what is in no table yet."""
        self._published = tuple(sinks)
        self._recorded = (*self._published, keep) if keep is not None else self._published
        self._clock = clock

    def record(self, event: Event) -> None:
        """Something that belongs to no transaction."""
        self._tell(self._recorded, Recorded.here(event, self._clock()))

    def publish(self, recorded: Recorded) -> None:
        """Something that was committed together with its row."""
        self._tell(self._published, recorded)

    def _tell(self, sinks: Iterable[Sink], recorded: Recorded) -> None:
        for sink in sinks:
            try:
                sink(recorded)
            except Exception:
                log.exception("an audit sink failed on %s", recorded.event.name)


def names() -> frozenset[str]:
    """Of every kind of event."""
    return frozenset(kind.name for kind in Event.__subclasses__())


def to_log(write: Callable[[bytes], object]) -> Sink:
    """A sink that writes JSON lines: give it `Outlet.write_at_once`."""
    return lambda recorded: write(json_line(recorded.fields()).encode("ascii"))


def _only_an_address(text: str) -> str:
    """People type their password where the name belongs: what is no address is not written down."""
    return text if "@" in text and len(text) <= _LONGEST_EMAIL else ""
