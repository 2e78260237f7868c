"""The audit trail: who did what to whom, from where. One typed event per act that matters.

Rooms that act make an event; `AuditTrail` adds when it happened and in which
request, and hands it to sinks. Where events are kept is handed in: as log lines by `to_log`,
counted by the metrics, in a table some day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

from gateway.telemetry.logs import REQUEST_ID, json_line, timestamp

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginLimited(Event):
    """Too many tries: refused before a password was compared."""

    name = "login_limited"

    email: str
    """As it was tried."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUpdated(Event):
    """Also disabling and enabling: `changed` holds "disabled" then."""

    name = "user_updated"

    user: str
    """The user's id."""
    email: str
    """The one that holds now."""
    changed: tuple[str, ...]
    """The names of the fields that are different now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDeleted(Event):
    name = "user_deleted"

    user: str
    """The former id."""
    email: str
    """The former address."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its circumstances: what sinks get."""

    event: Event
    """What happened."""
    time: float
    """Unix seconds."""
    request_id: str | None
    """The request that caused it, if one did."""

    def fields(self) -> dict[str, object]:
        """As it is shown: `{time, level, event, name, requestId, actor, address, user, …}`."""
        details = {field.name: getattr(self.event, field.name) for field in fields(self.event)}
        if self.event.by_its_subject:
            details["actor"] = details["user"]
        if "email" in details:
            details["email"] = _only_an_address(details["email"])
        return {
            "time": timestamp(self.time),
            "level": "info",
            "event": "audit",
            "name": self.event.name,
            "requestId": self.request_id,
            **details,
        }


Sink = Callable[[Recorded], object]


class AuditTrail:
    """Hands every event to every sink. A sink that fails is logged and does not undo what was done."""

    def __init__(self, sinks: Iterable[Sink], *, clock: Callable[[], float] = time.time) -> None:
        self._sinks = tuple(sinks)
        self._clock = clock

    def record(self, event: Event) -> None:
        recorded = Recorded(event, self._clock(), REQUEST_ID.get())
        for sink in self._sinks:
            try:
                sink(recorded)
            except Exception:
                log.exception("an audit sink failed on %s", event.name)


def to_log(write: Callable[[bytes], object]) -> Sink:
    """A sink that writes JSON lines: give it `Outlet.write_at_once`."""
    return lambda recorded: write(json_line(recorded.fields()).encode("ascii"))


def _only_an_address(text: str) -> str:
    """People type their password where the name belongs: what is no address is not written down."""
    return text if "@" in text and len(text) <= _LONGEST_EMAIL else ""
