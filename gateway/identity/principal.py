"""Who is asking: the one value that tokens become and that rules, headers and logs read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """A logged-in person, as their access token describes them."""

    id: str
    """The user's id (`sub`)."""
    email: str
    """The canonical e-mail address."""
    is_admin: bool
    """May pass `allow: admin`. Stands for no role."""
    roles: tuple[str, ...]
    """Sorted role names, each `[a-z0-9._:-]{1,64}`."""
    session: str
    """The session's id (`sid`): everything about a login is keyed by it."""
    version: int
    """The user's version (`ver`) when the token was issued."""
    expires_at: int
    """Unix seconds (`exp`)."""
