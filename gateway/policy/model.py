"""The compiled rules: what every decision is made from.

A `Policy` is built once from the configuration and never changes. The live gateway,
`check`, `explain` and `routes` all ask the same one, so they can't disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, unique
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from math import inf, nan
from typing import NamedTuple

from gateway.errors import GatewayError
from gateway.http.cors import Cors
from gateway.http.header_edits import NO_EDITS, HeaderEdits
from gateway.identity.principal import Principal
from gateway.policy.match import Matcher
from gateway.policy.pattern import Pattern
from gateway.ratelimit import Rule

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@unique
class Reason(StrEnum):
    """Why a decision is as it is. The codes are stable: logs and the reference build on them."""

    PUBLIC = "public"
    """Allowed: the route is open to everyone."""
    LOGGED_IN = "logged_in"
    """Allowed: the route asks for a login, and the caller has one."""
    ADMIN = "admin"
    """Allowed: the caller is an admin."""
    ROLES = "roles"
    """Allowed: the caller has the roles that the route asks for."""
    USERS = "users"
    """Allowed: the caller is on the route's list of users."""
    SCOPES = "scopes"
    """Allowed: the caller's credential has the scopes that the route asks for."""
    NETWORKS = "networks"
    """Allowed: the route asks for a network only, and the client's address is in it."""
    DEFAULT = "default"
    """Allowed: no route names the path, and the caller is what `default` asks for."""
    REPORT_ONLY = "report_only"
    """Allowed, though the route's own rule refuses it: the route only reports."""
    NO_CREDENTIAL = "no_credential"
    """Refused: the route asks for a login, and the caller has none."""
    NOT_ADMIN = "not_admin"
    """Refused: the caller is no admin."""
    MISSING_ROLE = "missing_role"
    """Refused: the caller lacks a role that the route asks for."""
    NOT_LISTED_USER = "not_listed_user"
    """Refused: the caller is not on the route's list of users."""
    MISSING_SCOPE = "missing_scope"
    """Refused: the caller's credential lacks a scope that the route asks for."""
    OUT_OF_REACH = "out_of_reach"
    """Refused: the API token is not good for this method or path, whoever its user is."""
    NETWORK = "network"
    """Refused: the client's address is in none of the route's networks."""
    NOT_YET_VALID = "not_yet_valid"
    """Refused: the route's `valid` time has not begun."""
    EXPIRED = "expired"
    """Refused: the route's `valid` time is over."""
    NOBODY = "nobody"
    """Refused: the route is closed to everyone."""
    OTHER_READING = "other_reading"
    """Refused: a backend may read the path as another one, and the caller is not allowed that."""
    AUTH_PREFIX = "auth_prefix"
    """Refused: the path reads like the gateway's own endpoints without being one."""
    BAD_TARGET = "bad_target"
    """Refused: the path is malformed or holds a control byte."""
    DOT_SEGMENT = "dot_segment"
    """Refused: some reading of the path has a segment of dots."""
    AMBIGUOUS_PATH = "ambiguous_path"
    """Refused: the path has more readings than anyone can check."""


FINAL = frozenset({Reason.NETWORK, Reason.NOBODY, Reason.NOT_YET_VALID, Reason.EXPIRED})
"""Refusals that no login would change: 403 for the anonymous too."""


@dataclass(frozen=True, slots=True)
class Validity:
    """When a rule lets anyone in at all, in Unix seconds. Outside of it the rule still decides: nobody."""

    begin: float = -inf
    """From this moment on."""
    end: float = inf
    """Until just before this one."""

    def refusal(self, now: float) -> Reason | None:
        """Why not now, or None. An unknown time (NaN) is refused."""
        if self.begin <= now < self.end:
            return None
        return Reason.EXPIRED if now >= self.end else Reason.NOT_YET_VALID


@dataclass(frozen=True, slots=True)
class Allow:
    """Who may pass: every kind that is named must hold. One that names no kind lets nobody in."""

    everybody_without_login: bool = False
    """Open to the whole world."""
    logged_in: bool = False
    """Any valid credential."""
    admin: bool = False
    """`isAdmin`; it stands for no role, and no role for it."""
    any_role: frozenset[str] | None = None
    """At least one of these; None if not named."""
    all_roles: frozenset[str] | None = None
    """Each of these; None if not named."""
    users: frozenset[str] | None = None
    """One of these canonical e-mail addresses; None if not named."""
    any_scope: frozenset[str] | None = None
    """The credential has at least one of these scopes; None if not named."""
    all_scopes: frozenset[str] | None = None
    """Each of these; None if not named."""
    networks: tuple[Network, ...] | None = None
    """The client's address is in one of these; None if not named."""
    valid: Validity | None = None
    """The time is within this; None for always."""

    needs_login: bool = field(init=False)
    """Asks something of the person, not only of the address."""
    closed: bool = field(init=False)
    """Lets nobody in."""

    def __post_init__(self) -> None:
        people = (self.any_role, self.all_roles, self.users, self.any_scope, self.all_scopes)
        needs_login = self.logged_in or self.admin or any(kind is not None for kind in people)
        object.__setattr__(self, "needs_login", needs_login)
        open_to_some = self.everybody_without_login or needs_login or self.networks is not None
        object.__setattr__(self, "closed", not open_to_some)

    @property
    def public(self) -> bool:
        """Lets everybody in from everywhere, at some time at least."""
        return self.everybody_without_login and not self.needs_login and self.networks is None

    @property
    def reason(self) -> Reason:
        """Why someone who passes did: the strongest kind that is named."""
        if self.admin:
            return Reason.ADMIN
        if self.any_role is not None or self.all_roles is not None:
            return Reason.ROLES
        if self.users is not None:
            return Reason.USERS
        if self.any_scope is not None or self.all_scopes is not None:
            return Reason.SCOPES
        if self.logged_in:
            return Reason.LOGGED_IN
        return Reason.NETWORKS if self.networks is not None else Reason.PUBLIC

    def refusal(
        self, principal: Principal | None, address: Address | None, now: float = nan
    ) -> Reason | None:
        """Why this caller may not pass, or None. `now` (Unix seconds) matters to rules with `valid`."""
        if self.closed:
            return Reason.NOBODY
        if self.valid is not None:
            untimely = self.valid.refusal(now)
            if untimely is not None:
                return untimely
        if self.networks is not None and not _within(address, self.networks):
            return Reason.NETWORK
        if not self.needs_login:
            return None
        return Reason.NO_CREDENTIAL if principal is None else self._unfit(principal)

    def _unfit(self, principal: Principal) -> Reason | None:
        if self.admin and principal.is_admin is not True:
            return Reason.NOT_ADMIN
        if self.any_role is not None and self.any_role.isdisjoint(principal.roles):
            return Reason.MISSING_ROLE
        if self.all_roles is not None and not self.all_roles.issubset(principal.roles):
            return Reason.MISSING_ROLE
        if self.users is not None and principal.email not in self.users:
            return Reason.NOT_LISTED_USER
        if self.any_scope is not None and self.any_scope.isdisjoint(principal.scopes):
            return Reason.MISSING_SCOPE
        if self.all_scopes is not None and not self.all_scopes.issubset(principal.scopes):
            return Reason.MISSING_SCOPE
        return None


def _within(address: Address | None, networks: tuple[Network, ...]) -> bool:
    """A unix socket's peer has no address and is in no network."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and any(address in network for network in networks)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How often a route may be asked. Each of the two counts for itself."""

    per_user: Rule | None = None
    """By one logged-in caller; None for any number. Those without a login are not counted."""
    per_address: Rule | None = None
    """From one address (IPv6: one /64), whoever asks; None for any number."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One rule, compiled. Compared by identity."""

    index: int
    """Its place in `routes`; -1 for the default."""
    label: str
    """`DELETE /projects/{id}`: stable, for logs and metrics."""
    pattern: Pattern
    """Which paths."""
    methods: frozenset[str] | None
    """Which methods; None for all. GET includes HEAD."""
    hosts: tuple[str, ...]
    """Which hosts, `*.` in front for all below; empty for every host."""
    allow: Allow
    """Who may pass."""
    upstream: str
    """The backend's name; empty only where nobody may pass."""
    strip: int
    """How many leading segments are cut off before forwarding."""
    file: str
    """Where the rule is written."""
    line: int
    """Likewise, counted from 1; 0 if it is written nowhere."""
    upgrade: frozenset[bytes] = frozenset()
    """Protocols besides `websocket` that a request may switch to, in small letters. Never `h2c`."""
    timeout: float | None = None
    """Seconds for the head of the response; None: as the upstream says."""
    body: int | None = None
    """Bytes of the largest request body; None: as the server says."""
    request_headers: HeaderEdits = NO_EDITS
    """What is changed on the way to the backend."""
    response_headers: HeaderEdits = NO_EDITS
    """What is changed on the way back."""
    rate_limit: RateLimit | None = None
    """How often it may be asked; None for any number of times."""
    cors: Cors | None = None
    """Which pages of other origins may use it from a browser; None: the backend says."""
    report_only: bool = False
    """Its own refusals are only reported. Never those of another reading of the path."""
    name: str = "the default"
    """`routes[2]`, as its own file counts them."""
    included: bool = False
    """Some rules are written in an included file, so that a line alone says too little."""

    def __str__(self) -> str:
        """As people find it: `routes[2] on line 14`."""
        if self.index < 0:
            return self.name
        return f"{self.name} on line {self.line}" + (f" of {self.file}" if self.included else "")


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """All rules of one configuration."""

    routes: tuple[Route, ...]
    """In the order of the file, without the default."""
    default: Route
    """For paths that no route names. Never public."""
    auth_prefix: bytes
    """What the gateway serves itself, folded, without a trailing slash."""
    matcher: Matcher[Route]
    """All routes."""
    behind: Mapping[str, Matcher[Route]]
    """The routes of each upstream that gets stripped paths."""
    cors: bool = False
    """Some route has a `cors`."""
    memory: dict[tuple[str, bytes, bytes], Claims] = field(default_factory=dict, repr=False)
    """Belongs to `decide`, which bounds it: what it worked out for recent requests."""

    @classmethod
    def build(cls, routes: tuple[Route, ...], default: Route, auth_prefix: str) -> Policy:
        """The policy of these rules."""
        stripped = {route.upstream for route in routes if route.strip}
        return cls(
            routes=routes,
            default=default,
            auth_prefix=auth_prefix.rstrip("/").lower().encode(),
            matcher=Matcher(routes),
            behind={name: Matcher(route for route in routes if route.upstream == name) for name in stripped},
            cors=any(route.cors is not None for route in (*routes, default)),
        )


class Verdict(Enum):
    """What to do with a request."""

    ALLOW = "allow"
    """Forward it."""
    UNAUTHENTICATED = "unauthenticated"
    """401: a login might help."""
    FORBIDDEN = "forbidden"
    """403: this caller may not."""
    REFUSED = "refused"
    """400 or 404: nobody may send this path."""


class Decision(NamedTuple):
    """What was decided, and everything needed to act on it and to explain it."""

    verdict: Verdict
    """What to do."""
    reason: Reason
    """Why."""
    route: Route
    """The route of the literal reading; the default if the path has no readings."""
    path: bytes
    """The raw path to forward: as received, or without the stripped prefix."""
    error: GatewayError | None
    """What to answer; None if allowed."""
    would: Decision | None = None
    """What a route that only reports would have decided; None if the same."""


class Claims(NamedTuple):
    """The routes whose rules a request line must satisfy, whoever sends it."""

    route: Route
    """Of the literal reading."""
    others: tuple[Route, ...]
    """Of all other readings, each once."""
    granted: Decision
    """The answer to those who satisfy them all."""
    limited: tuple[Route, ...] = ()
    """Those of them all with a rate limit. A request counts in each."""
    timed: bool = False
    """Some of them holds only for a time."""
    cors: Cors | None = None
    """What every reading of the path says of pages; None: the backend says."""
