"""Who may do what: the rules as a table of requests and callers, the most specific requests first.

The rows are the classes of `regions`, so that what a route leaves over has rows of its
own: the methods that it does not name, the paths that nobody names. What stands in a cell
is worked out as a set of callers (`audience`), and so holds for every request of its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from ipaddress import IPv4Address, IPv6Address
from math import inf

from gateway.identity.principal import Principal
from gateway.policy.audience import NOBODY, Audience, demanded, passing
from gateway.policy.decide import settle
from gateway.policy.model import Address, Claims, Decision, Policy, Reason, Route
from gateway.policy.pattern import Pattern, parse
from gateway.policy.regions import Kind, Methods, Part, Region, regions

CALLERS = ("anonymous", "user", "admin")
"""Those of every table; between the last two stand the roles."""


@unique
class Access(StrEnum):
    """What a caller gets."""

    ALLOW = "allow"
    """Always."""
    SOME = "some"
    """From some addresses, at some times, or with some e-mail addresses."""
    LOGIN = "401"
    """Not without a login."""
    DENY = "403"
    """Not with this login, or nobody."""
    OWN = "own"
    """The gateway answers itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One class of requests."""

    host: str
    """`*.` in front for all below; empty for any."""
    path: str
    """As a route would have it."""
    methods: Methods
    """Which methods."""
    audience: Audience
    """Who passes."""
    demanded: Audience
    """Who would pass if no rule only reported."""
    access: Mapping[str, Access]
    """What each caller of the table gets."""
    route: Route | None
    """The rule of the requests as they stand; None for the gateway's own endpoints."""
    region: Region
    """Just which requests these are."""

    @property
    def public(self) -> bool:
        """Someone may use it without a login. The gateway's own endpoints are not meant."""
        return self.route is not None and not (self.audience.nobody or self.audience.login)


@dataclass(frozen=True, slots=True)
class Table:
    """All requests there can be."""

    callers: tuple[str, ...]
    """anonymous, user, each role that some rule asks for, admin."""
    rows: tuple[Row, ...]
    """The most specific requests first."""


def table(policy: Policy) -> Table:
    """The whole table. Raises TooManyClasses."""
    roles = sorted(_roles(policy))
    people = {
        "anonymous": None,
        "user": _person(),
        **{f"role {role}": _person(role) for role in roles},
        "admin": _person(admin=True),
    }
    known: dict[object, Mapping[str, Access]] = {}
    rows = [_row(region, people, known) for region in regions(policy, plain=True)]
    return Table(tuple(people), tuple(sorted(rows, key=_specific_first)))


@dataclass(frozen=True, slots=True)
class Requests:
    """A set of requests as one can write it down."""

    pattern: Pattern
    """Which paths."""
    methods: Methods
    """Which methods."""
    host: str
    """`*.` in front for all below; empty for any."""

    def cover(self, row: Row) -> bool:
        """Every request of the row is among them."""
        return (
            self.host in ("", row.host) or (self.host[:2] == "*." and row.host.endswith(self.host[1:]))
        ) and (_within(row.methods, self.methods) and _covers(self.pattern, row.region))


def summed_up(rows: Iterable[Row]) -> list[Row]:
    """Without those about part of what another one with the same rule is about."""
    groups: dict[Route | None, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.route, []).append(row)
    return [row for group in groups.values() for row in group if not _is_part(row, group)]


def _is_part(row: Row, group: Iterable[Row]) -> bool:
    others = (Requests(parse(each.path), each.methods, each.host) for each in group if each is not row)
    return any(each.cover(row) for each in others)


def _roles(policy: Policy) -> set[str]:
    found: set[str] = set()
    for route in (*policy.routes, policy.default):
        found |= (route.allow.any_role or frozenset()) | (route.allow.all_roles or frozenset())
    return found


def _person(*roles: str, admin: bool = False) -> Principal:
    return Principal("", "", admin, roles, session="", version=0, expires_at=0)


def _row(
    region: Region, people: Mapping[str, Principal | None], known: dict[object, Mapping[str, Access]]
) -> Row:
    (claims,) = region.claims
    audience = passing(claims)
    if isinstance(claims, Decision):
        own = Access.OWN if claims.reason is Reason.AUTH_PREFIX else Access.DENY
        access: Mapping[str, Access] = dict.fromkeys(people, own)
    else:
        key = claims.route, claims.others
        if key not in known:
            known[key] = {name: _access(claims, audience, person) for name, person in people.items()}
        access = known[key]
    route = None if isinstance(claims, Decision) else claims.route
    return Row(region.host, region.path, region.methods, audience, demanded(claims), access, route, region)


def _access(claims: Claims, audience: Audience, person: Principal | None) -> Access:
    address, now = _somewhere(audience), audience.begin
    if audience != NOBODY and _fits(audience, person):
        conditional = audience.networks is not None or (audience.begin, audience.end) != (-inf, inf)
        return Access.SOME if conditional or audience.users is not None else Access.ALLOW
    decision = settle(claims, person, address, now)
    return Access.LOGIN if decision.error is not None and decision.error.status == 401 else Access.DENY


def _fits(audience: Audience, person: Principal | None) -> bool:
    """With the right e-mail address, from the right place, at the right time."""
    if not audience.login:
        return True
    if person is None:
        return False
    email = next(iter(sorted(audience.users or ())), "")
    somebody = Principal(
        "", email, person.is_admin, person.roles, session="", version=0, expires_at=0, scopes=person.scopes
    )
    return audience.admits(somebody, _somewhere(audience), audience.begin)


def _somewhere(audience: Audience) -> Address | None:
    """An address from which callers pass, if it matters."""
    if not audience.networks:
        return None
    version, first, _ = audience.networks[0]
    return IPv4Address(first) if version == 4 else IPv6Address(first)


def _specific_first(row: Row) -> tuple[object, ...]:
    """As routes win: a host before any, segment by segment, methods that are named before the others."""
    region = row.region
    ends = (3, b"") if region.below else (0, b"")
    path = (*map(_rank, region.parts), ends)
    return _host_rank(row.host), path, row.methods.all_but, sorted(row.methods.names)


def _host_rank(host: str) -> tuple[int, int, list[str]]:
    """A name, then what is below the longest name, then any."""
    labels = host.split(".")[::-1]
    if not host:
        return 2, 0, labels
    return (1, -len(labels), labels) if host.startswith("*.") else (0, 0, labels)


def _rank(part: Part) -> tuple[int, bytes]:
    return (2, b"") if part.kind is Kind.OTHER else (1, part.text)


def _covers(pattern: Pattern, region: Region) -> bool:
    if len(region.parts) < len(pattern.segments) or (
        not pattern.below and (region.below or len(region.parts) > len(pattern.segments))
    ):
        return False
    pairs: Iterable[tuple[bytes | None, Part]] = zip(pattern.segments, region.parts, strict=False)
    return all(segment is None or part.text == segment for segment, part in pairs)


def _within(inner: Methods, outer: Methods) -> bool:
    """GET includes HEAD, also where a list says `any method but GET`."""
    names = outer.names | ({"HEAD"} if "GET" in outer.names else set())
    if not outer.all_but:
        return not inner.all_but and inner.names <= names
    return names <= inner.names if inner.all_but else inner.names.isdisjoint(names)
