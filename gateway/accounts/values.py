"""What the accounts room takes in and hands out. Plain values: no SQL row and no hash leaves the room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end of a login or a refresh."""

    address: str
    """The client's IP address as the gateway believes it; "unix" or "cli" where there is none."""
    user_agent: str
    """The User-Agent header, or "". Only its first 200 printable characters are stored."""


@dataclass(frozen=True, slots=True)
class User:
    """One account."""

    id: str
    """UUIDv7 text: ids sort in the order of creation."""
    email: str
    """The canonical e-mail address (see `emails`); the only spelling that is stored."""
    is_admin: bool
    """May pass `allow: admin`."""
    roles: tuple[str, ...]
    """Sorted, without duplicates."""
    disabled: bool
    """Can neither log in nor refresh."""
    created_at: float
    """Unix seconds, by the database's clock."""
    version: int
    """Raised by every change that must be felt at once; access tokens with a smaller one are dead."""
    service: bool = False
    """Has no password: for programs, which come with API tokens."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What to change about a user; None leaves a thing as it is. There is nothing else to change."""

    email: str | None = None
    """A new address, in any spelling."""
    password: str | None = None
    """A new password; ends every session of the user."""
    is_admin: bool | None = None
    """May pass `allow: admin`."""
    roles: tuple[str, ...] | None = None
    """The whole new set of roles."""
    disabled: bool | None = None
    """True ends every session of the user."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A pair of tokens for one session."""

    access_token: str
    """JWT for the `Authorization` header."""
    refresh_token: str
    """JWT for `refresh`, once."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The answer to a login."""

    access_token: str
    """JWT for the `Authorization` header."""
    refresh_token: str
    """JWT for `refresh`, once."""
    user: User
    """Who logged in."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """An API token to be made."""

    name: str
    """What it is for, in its maker's words."""
    scopes: tuple[str, ...] = ()
    """What rules may ask for."""
    methods: tuple[str, ...] | None = None
    """Methods it is good for; None for all."""
    paths: tuple[str, ...] | None = None
    """Paths it is good for, as patterns of routes; None for all."""
    expires_at: float | None = None
    """Unix seconds; None for as long as is allowed."""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token, without its text."""

    id: str
    """UUIDv7 text."""
    user_id: str
    """Whom it stands for."""
    name: str
    """What it is for."""
    scopes: tuple[str, ...]
    """Sorted."""
    methods: tuple[str, ...] | None
    """Methods it is good for; None for all."""
    paths: tuple[str, ...] | None
    """Paths it is good for; None for all."""
    created_at: float
    """Unix seconds, by the database's clock."""
    created_by: str
    """A user's id, or `cli:NAME`."""
    expires_at: int | None
    """Unix seconds; None for never."""
    last_used_at: float | None
    """Unix seconds, to about a minute; None if it was not used yet."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that is not over, as its owner and admins see it."""

    id: str
    """UUIDv7 text; `sid` in its tokens."""
    user_id: str
    """Whose it is."""
    email: str
    """Their address."""
    created_at: float
    """When they logged in, in Unix seconds by the database's clock."""
    last_used_at: float
    """Of the login or the latest refresh."""
    expires_at: int
    """When it is over, unless it is refreshed before."""
    address: str
    """Where it was last used from."""
    user_agent: str
    """What with; at most 200 characters, "" for what said nothing."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What limits on logins have to know of the account that an e-mail address names."""

    user_id: str | None
    """None if no account has the address."""
    epoch: int
    """How often its limits were cleared."""
    known: bool
    """It has logged in from this network lately."""


NOBODYS = Standing(None, 0, False)
"""Of an address that no account has."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of users or sessions."""

    items: tuple[T, ...]
    """At most `limit` of them."""
    next_cursor: str | None
    """Hand it in to get the next page; None on the last one."""
