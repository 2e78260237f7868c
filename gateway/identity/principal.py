"""Who is asking: the one value that tokens become and that rules, headers and logs read.

A login and an API token give the same value. A login may do whatever its user may,
and so has one scope, `login`, that no API token can have; an API token has the scopes
it was made with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LOGIN: Final = "login"
"""The scope of everyone who logged in. No API token can be given it."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which requests an API token is good for. Both must fit."""

    methods: tuple[str, ...] | None
    """Methods, in capitals; None for all."""
    paths: tuple[str, ...] | None
    """Patterns as routes have them; None for all."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A user, as the credential of the request describes them."""

    id: str
    """The user's id (`sub`)."""
    email: str
    """The canonical e-mail address."""
    is_admin: bool
    """May pass `allow: admin`. Stands for no role."""
    roles: tuple[str, ...]
    """Sorted role names, each `[a-z0-9._:-]{1,64}`."""
    session: str
    """The session's id (`sid`), or the API token's: everything about a credential is keyed by it."""
    version: int
    """The user's version (`ver`) when the access token was issued, or the user was read for the API token."""
    expires_at: int
    """Unix seconds (`exp`)."""
    scopes: tuple[str, ...] = (LOGIN,)
    """What rules may ask for besides the user's rights. Sorted."""
    reach: Reach | None = None
    """Of an API token: which requests it is good for; None for all."""
    token: str | None = None
    """The API token's id; None for a login."""
