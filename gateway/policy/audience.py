"""Who passes: the exact set of callers that rules let in together, comparable and readable.

A request must satisfy the rule of every reading of its path, so what matters is a
conjunction of `Allow`s. Each asks independent things: of the person (a login, admin,
roles, an e-mail address), of the credential (scopes), of the client's address and of the
time. So the callers who pass are a product of such sets, and one product lies in another
exactly if each factor does, unless it is empty.

Roles and scopes are the only factors with structure: `any` is a clause, `all` is one clause
per name, and a conjunction of clauses without negation has one smallest form, in which no
clause holds another. Networks become ranges of numbers, so `10.0.0.0/9` and `10.128.0.0/9`
together equal `10.0.0.0/8`. Whatever is written differently and means the same is equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, unique
from functools import lru_cache, reduce
from ipaddress import IPv4Address, IPv6Address, IPv6Network, summarize_address_range
from math import inf
from operator import and_

from gateway.identity.principal import LOGIN, Principal
from gateway.policy.decide import only_reports
from gateway.policy.model import Address, Allow, Claims, Decision, Network, Route

Range = tuple[int, int, int]
"""IP version, first and last address."""

_MAPPED = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses inside IPv6: judged as what they stand for, so no IPv6 network ever holds them."""
_SHOWN = 4
"""Of users and networks in a sentence; the rest is counted."""


@unique
class Step(StrEnum):
    """How one audience became another."""

    SAME = "same"
    """Exactly the same callers."""
    WIDENED = "widened"
    """Everyone as before, and more."""
    NARROWED = "narrowed"
    """Fewer, and nobody new."""
    SHIFTED = "shifted"
    """Some are new, and some have gone."""

    @property
    def widens(self) -> bool:
        """Someone passes who did not."""
        return self in (Step.WIDENED, Step.SHIFTED)


@dataclass(frozen=True, slots=True)
class Audience:
    """A set of callers, in the one form that equal sets have. Make it with `Audience.of`."""

    nobody: bool = False
    """The empty set; then nothing else is set."""
    login: bool = False
    """Only those who are logged in."""
    admin: bool = False
    """Only admins."""
    roles: frozenset[frozenset[str]] = frozenset()
    """Of each of these sets at least one role. No set holds another."""
    users: frozenset[str] | None = None
    """Only these e-mail addresses; None for any."""
    scopes: frozenset[frozenset[str]] = frozenset()
    """Likewise, of what the credential was given. Logins have `login` and nothing else."""
    networks: tuple[Range, ...] | None = None
    """Only from these addresses, in order and apart; None also for those who have none (a unix socket)."""
    begin: float = -inf
    """Only from this moment on, in Unix seconds."""
    end: float = inf
    """Only until just before this one."""

    @classmethod
    def of(cls, *allows: Allow) -> Audience:
        """Those who satisfy all of these; everyone if there are none."""
        return reduce(and_, map(_audience, allows), ANYONE)

    def __and__(self, other: Audience) -> Audience:
        """Those who are in both."""
        if self.nobody or other.nobody:
            return NOBODY
        if self is ANYONE:
            return other
        return _settled(
            Audience(
                login=self.login or other.login,
                admin=self.admin or other.admin,
                roles=_smallest(self.roles | other.roles),
                users=_both(self.users, other.users),
                scopes=_of_one_kind(self.scopes | other.scopes),
                networks=_common_ranges(self.networks, other.networks),
                begin=max(self.begin, other.begin),
                end=min(self.end, other.end),
            )
        )

    def __le__(self, other: Audience) -> bool:
        """Whoever is in this one is in the other."""
        if self.nobody or other.nobody:
            return self.nobody
        return (
            self.login >= other.login
            and self.admin >= other.admin
            and _within(self.roles, other.roles)
            and _within(self.scopes, other.scopes)
            and (other.users is None or (self.users is not None and self.users <= other.users))
            and _common_ranges(self.networks, other.networks) == self.networks
            and other.begin <= self.begin
            and self.end <= other.end
        )

    def step_to(self, new: Audience) -> Step:
        """What became of this one."""
        if self == new:
            return Step.SAME
        if self <= new:
            return Step.WIDENED
        return Step.NARROWED if new <= self else Step.SHIFTED

    @property
    def open(self) -> bool:
        """Everyone is in it from everywhere, at some time at least."""
        return not (self.nobody or self.login) and self.networks is None

    def admits(self, principal: Principal | None, address: Address | None, now: float) -> bool:
        """Whether this caller is in it."""
        timed = (self.begin, self.end) != (-inf, inf)
        if self.nobody or (timed and not self.begin <= now < self.end):
            return False
        if self.networks is not None and not _in_ranges(address, self.networks):
            return False
        return not self.login or (principal is not None and self._fits(principal))

    def _fits(self, principal: Principal) -> bool:
        return (
            (not self.admin or principal.is_admin is True)
            and (self.users is None or principal.email in self.users)
            and not any(clause.isdisjoint(principal.roles) for clause in self.roles)
            and not any(clause.isdisjoint(principal.scopes) for clause in self.scopes)
        )

    def __str__(self) -> str:
        """`anyone`, `role analyst or auditor, from 10.0.0.0/8, until 2027-01-31`."""
        return self._told(_SHOWN)

    @property
    def full(self) -> str:
        """The same, with every user and every network."""
        return self._told(None)

    def _told(self, most: int | None) -> str:
        if self.nobody:
            return "nobody"
        parts = [_people(self, most)]
        if self.networks is not None:
            parts.append(f"from {_listed([str(network) for network in networks_of(self.networks)], most)}")
        parts += [f"since {moment(self.begin)}"] if self.begin != -inf else []
        parts += [f"until {moment(self.end)}"] if self.end != inf else []
        return ", ".join(parts)


ANYONE = Audience()
"""Open to the whole world."""
NOBODY = Audience(nobody=True)
"""Closed."""


def passing(claims: Claims | Decision) -> Audience:
    """Who passes a request line: everyone whom no rule of any reading refuses and makes it felt."""
    if isinstance(claims, Decision):
        return NOBODY
    enforced = claims.others if only_reports(claims.route) else (claims.route, *claims.others)
    return Audience.of(*(route.allow for route in enforced))


def demanded(claims: Claims | Decision) -> Audience:
    """Who would pass if no route only reported."""
    if isinstance(claims, Decision):
        return NOBODY
    return Audience.of(*(route.allow for route in (claims.route, *claims.others)))


def who_passes(route: Route) -> Audience:
    """Whom the rule of one route lets pass: everyone, if it only reports."""
    return ANYONE if only_reports(route) else Audience.of(route.allow)


def networks_of(ranges: Iterable[Range]) -> list[Network]:
    """The fewest networks that are these ranges."""
    found: list[Network] = []
    for version, first, last in _with_mapped(ranges):
        if version == 4:
            found += summarize_address_range(IPv4Address(first), IPv4Address(last))
        else:
            found += summarize_address_range(IPv6Address(first), IPv6Address(last))
    return found


def _with_mapped(ranges: Iterable[Range]) -> list[Range]:
    """Without the hole that IPv4 leaves in IPv6, which nobody writes down."""
    found: list[Range] = []
    for version, first, last in ranges:
        if found and version == 6 and (found[-1][2], first) == (_FIRST_MAPPED - 1, _LAST_MAPPED + 1):
            found[-1] = (6, found[-1][1], last)
        else:
            found.append((version, first, last))
    return found


def moment(seconds: float) -> str:
    """`2027-01-31`, or with the time of day if that is not midnight UTC."""
    time = datetime.fromtimestamp(seconds, UTC)
    if seconds % 86400 == 0:
        return time.date().isoformat()
    return time.isoformat().replace("+00:00", "Z")


@lru_cache(4096)
def _audience(allow: Allow) -> Audience:
    if allow.closed:
        return NOBODY
    return _settled(
        Audience(
            login=allow.needs_login,
            admin=allow.admin,
            roles=_smallest(_clauses(allow.any_role, allow.all_roles)),
            users=allow.users,
            scopes=_of_one_kind(_clauses(allow.any_scope, allow.all_scopes)),
            networks=None if allow.networks is None else _ranges(allow.networks),
            begin=allow.valid.begin if allow.valid else -inf,
            end=allow.valid.end if allow.valid else inf,
        )
    )


def _settled(audience: Audience) -> Audience:
    """All empty sets are one."""
    impossible = (
        audience.users == frozenset()
        or audience.networks == ()
        or frozenset() in audience.roles | audience.scopes
        or not audience.begin < audience.end
    )
    return NOBODY if impossible else audience


def _within(narrow: frozenset[frozenset[str]], wide: frozenset[frozenset[str]]) -> bool:
    """Whoever satisfies the one satisfies the other."""
    return all(any(mine <= theirs for mine in narrow) for theirs in wide)


def _clauses(any_of: frozenset[str] | None, all_of: frozenset[str] | None) -> frozenset[frozenset[str]]:
    either = () if any_of is None else (any_of,)
    return frozenset((*either, *(frozenset({name}) for name in all_of or ())))


def _of_one_kind(clauses: frozenset[frozenset[str]]) -> frozenset[frozenset[str]]:
    """The smallest form. A login has no scope but `login`, so where one clause shuts logins out, all do."""
    if any(LOGIN not in clause for clause in clauses):
        clauses = frozenset(clause - {LOGIN} for clause in clauses)
    return _smallest(clauses)


def _smallest(clauses: Iterable[frozenset[str]]) -> frozenset[frozenset[str]]:
    """Without the clauses that follow from another one."""
    kept: list[frozenset[str]] = []
    for clause in sorted(set(clauses), key=len):
        if not any(other <= clause for other in kept):
            kept.append(clause)
    return frozenset(kept)


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _ranges(networks: Iterable[Network]) -> tuple[Range, ...]:
    """In order and apart."""
    found: list[Range] = []
    for version, first, last in sorted(piece for network in networks for piece in _pieces(network)):
        if found and found[-1][0] == version and first <= found[-1][2] + 1:
            found[-1] = (version, found[-1][1], max(last, found[-1][2]))
        else:
            found.append((version, first, last))
    return tuple(found)


def _pieces(network: Network) -> list[Range]:
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 4:
        return [(4, first, last)]
    before, after = (first, min(last, _FIRST_MAPPED - 1)), (max(first, _LAST_MAPPED + 1), last)
    return [(6, low, high) for low, high in (before, after) if low <= high]


_FIRST_MAPPED, _LAST_MAPPED = int(_MAPPED.network_address), int(_MAPPED.broadcast_address)


def _common_ranges(
    one: tuple[Range, ...] | None, other: tuple[Range, ...] | None
) -> tuple[Range, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    found: list[Range] = []
    mine = theirs = 0
    while mine < len(one) and theirs < len(other):
        (version, first, last), (version2, first2, last2) = one[mine], other[theirs]
        if version == version2 and max(first, first2) <= min(last, last2):
            found.append((version, max(first, first2), min(last, last2)))
        if (version, last) < (version2, last2):
            mine += 1
        else:
            theirs += 1
    return tuple(found)


def _in_ranges(address: Address | None, ranges: tuple[Range, ...]) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address is None:
        return False
    number = int(address)
    return any(version == address.version and first <= number <= last for version, first, last in ranges)


def _people(audience: Audience, most: int | None) -> str:
    if not audience.login:
        return "anyone"
    parts = ["admin"] if audience.admin else []
    parts += [_named("role", audience.roles)] if audience.roles else []
    if audience.users is not None:
        users = sorted(audience.users)
        parts.append(("user " if len(users) == 1 else "users ") + _listed(users, most))
    parts += [_named("scope", audience.scopes)] if audience.scopes else []
    return " and ".join(parts) or "authenticated"


def _named(kind: str, clauses: frozenset[frozenset[str]]) -> str:
    """`role a or b`, `roles a and b`, `roles a and (b or c)`."""
    ordered = sorted((sorted(clause) for clause in clauses), key=lambda clause: (len(clause), clause))
    if len(ordered) == 1:
        return f"{kind} " + " or ".join(ordered[0])
    texts = [each[0] if len(each) == 1 else f"({' or '.join(each)})" for each in ordered]
    return f"{kind}s " + " and ".join(texts)


def _listed(items: list[str], most: int | None) -> str:
    more = 0 if most is None else len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")
