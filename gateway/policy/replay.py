"""What other rules would have said to the requests of a log, and how that differs from what was said.

A decision line tells who asked, so its request is judged again exactly, at the time when
it came. Two things a log may not say, and then nothing is claimed: who asked at all (an
access log), and an account's e-mail address, which decision lines don't hold and only
the audit events of the same log tell. So each request is judged twice: for the least
that the caller can be, and for the most. Rules only ever ask for more, hence whoever is
in between passes if the least does, and does not if the most does not.

Only rules are judged. A request that was refused by a limit, or failed, tells nothing
about them, whatever they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum, unique
from functools import lru_cache
from typing import NamedTuple

from gateway.http.client_address import parse_address
from gateway.http.head import METHODS
from gateway.identity.principal import LOGIN, Principal
from gateway.policy.audience import Audience
from gateway.policy.decide import claims_of, only_reports, settle
from gateway.policy.model import Claims, Decision, Policy, Reason, Route
from gateway.telemetry.logged import Account, Logged, Other

OTHER_METHOD = "(other)"
"""For methods that clients made up, so that they can't make groups without end."""
_REMEMBERED = 1 << 16
"""Lines that say the same but for the time; some 50 MB with the longest that are remembered."""
_LONGEST_REMEMBERED = 384
"""Characters of what clients choose; longer lines are judged each time."""
_LONGEST_EXAMPLE = 256
"""Of each field."""
_ACCOUNTS = 1 << 17
"""Whose e-mail addresses are remembered."""
_REFUSALS = (frozenset(Reason) | {"invalid_token"}) - {Reason.OUT_OF_REACH}
"""Codes with which rules refuse; others are limits and failures."""


_STATUSES = frozenset({"400", "401", "403", "404"})
"""With which rules refuse."""


@unique
class Change(StrEnum):
    """What would become of requests, the most surprising first."""

    REFUSED = "refused"
    """They passed, and would be refused."""
    ADMITTED = "admitted"
    """They were refused, and would pass."""
    UNKNOWN = "unknown"
    """It depends on what the log does not say."""
    REPORTED = "reported"
    """They pass as before, but only because a rule reports."""
    OTHERWISE = "otherwise"
    """They were refused, and would be refused with another status."""
    SAME = "same"
    """Nothing that rules decide would change."""


@unique
class Subject(Enum):
    """What is known of who asked."""

    ANONYMOUS = "anonymous"
    """Nobody was logged in."""
    USER = "user"
    """Logged in, without roles."""
    ROLES = "user with roles"
    """Logged in, with roles."""
    ADMIN = "admin"
    """Logged in as an admin."""
    SOMEBODY = "user, rights unknown"
    """Logged in, but the line does not say who may what: it is from an earlier version."""
    NAMED = "named in the log"
    """The log has a name, and does not say what for."""
    UNKNOWN = "not in the log"
    """The log names nobody, which does not mean that nobody was logged in."""


class Key(NamedTuple):
    """What requests of one group have in common."""

    change: Change
    """What would become of them."""
    route: Route
    """The rule that decides now."""
    method: str
    """Their method, or OTHER_METHOD."""
    subject: Subject
    """Who asked."""
    before: str
    """What was said: `allow`, `allow (reported)`, or a status."""
    now: str
    """What would be: `allow`, `allow (reported)`, `403 not_admin`, `needs role analyst`."""


@dataclass(slots=True)
class Group:
    """Requests that fare alike."""

    example: Logged
    """The first of them that was met."""
    count: int = 0
    """How many there are."""


class Replay:
    """Takes requests, and groups what would become of them. Its memory does not grow with their number."""

    def __init__(self, policy: Policy, auth_prefix: str, *, host: bytes | None = None) -> None:
        """`host`: whom requests were for whose line does not say."""
        self.groups: dict[Key, Group] = {}
        """So far, in no order."""
        self.passed_over = dict.fromkeys(Other, 0)
        """Lines that hold nothing to judge."""
        self.hostless = 0
        """Requests judged as for a host that no rule names, since nobody said which."""
        self._policy = policy
        self._prefix = auth_prefix.encode()
        self._host = host
        self._emails: dict[str, str] = {}
        self._asks_emails = any(route.allow.users is not None for route in policy.routes)
        self._preflights = policy.cors
        self._memory: dict[tuple[object, ...], Key] = {}

    @property
    def judged(self) -> int:
        """How many requests."""
        return sum(group.count for group in self.groups.values())

    def count(self, change: Change) -> int:
        """How many requests would fare so."""
        return sum(group.count for key, group in self.groups.items() if key.change is change)

    def ordered(self) -> list[tuple[Key, Group]]:
        """The groups, the most surprising and then the largest first."""
        rank = {change: index for index, change in enumerate(Change)}

        def place(item: tuple[Key, Group]) -> tuple[object, ...]:
            key, group = item
            return rank[key.change], -group.count, key.route.index, *key[2:3], *key[4:], key.subject.value

        return sorted(self.groups.items(), key=place)

    def take(self, line: Logged | Account | Other) -> None:
        """One line's worth."""
        if isinstance(line, Logged):
            self._take(line)
        elif isinstance(line, Account):
            self._learn(line)
            self.passed_over[Other.EVENT] += 1
        else:
            self.passed_over[line] += 1

    def _learn(self, account: Account) -> None:
        """What was unknown of this user is known from now on."""
        if self._asks_emails and self._emails.get(account.user) != account.email:
            if len(self._emails) >= _ACCOUNTS:
                self._emails.clear()
            self._emails[account.user] = account.email
            self._memory.clear()

    def _take(self, line: Logged) -> None:
        if line.host is None:
            self.hostless += self._host is None
            line = line._replace(host=self._host or b"")
        key = self._memory.get(line[1:])
        if key is None:
            if self._is_passed_over(line):
                return
            key = self._key(line)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(_shortened(line))
        group.count += 1

    def _is_passed_over(self, line: Logged) -> bool:
        other = None
        if line.path.startswith(self._prefix + b"/") or line.path == self._prefix:
            other = Other.OWN
        elif self._preflights and line.method == "OPTIONS" and not line.verdict:
            other = Other.RULELESS  # a preflight or not: an access log can't tell
        if other is not None:
            self.passed_over[other] += 1
        return other is not None

    def _key(self, line: Logged) -> Key:
        claims = claims_of(self._policy, line.method, line.host or b"", line.path)
        before, passed = _before(line)
        answer = _refusal(claims) if isinstance(claims, Decision) else self._judge(line, claims)
        method = line.method if line.method in METHODS else OTHER_METHOD
        key = Key(_change(before, passed, answer), answer.route, method, _subject(line), before, answer.text)
        timed = not isinstance(claims, Decision) and claims.timed
        if not timed and _is_short(line):
            if len(self._memory) >= _REMEMBERED:
                self._memory.clear()
            self._memory[line[1:]] = key
        return key

    def _judge(self, line: Logged, claims: Claims) -> _Answer:
        address = parse_address(line.client)
        least = self._least(line)
        decision = settle(claims, least, address, line.time)
        rules = (claims.route, *claims.others)
        if decision.error is None:
            return _Answer(True, self._how(line, claims, decision), decision.route)
        enforced = claims.others if only_reports(claims.route) else rules
        most = self._most(line, least, enforced)
        if most is not least and settle(claims, most, address, line.time).error is None:
            return _Answer(None, f"needs {_audience(enforced)}", decision.route)
        if address is None and not line.verdict and _audience(enforced).networks is not None:
            return _Answer(None, f"needs {_audience(enforced)}", decision.route)  # a name, or a socket
        return _refusal(decision)

    def _how(self, line: Logged, claims: Claims, decision: Decision) -> str:
        """In which way a request passes."""
        if decision.would is None:
            return "allow"
        rules, least = (claims.route, *claims.others), self._least(line)
        most = self._most(line, least, rules)
        sure = most is least or settle(claims, most, parse_address(line.client), line.time).would is not None
        return REPORTED if sure else f"{REPORTED} unless {_audience(rules)}"

    def _least(self, line: Logged) -> Principal | None:
        """The caller without anything that is not sure."""
        if not line.verdict or line.user is None:
            return None
        email = self._emails.get(line.user, "")
        scopes = (LOGIN,) if line.scopes is None else line.scopes
        return _principal(line.user, email, admin=line.admin is True, roles=line.roles or (), scopes=scopes)

    def _most(self, line: Logged, least: Principal | None, enforced: tuple[Route, ...]) -> Principal | None:
        """The caller with everything that could be and that these rules ask for."""
        subject = _subject(line)
        if subject is Subject.ANONYMOUS or not enforced:
            return least
        wanted = _audience(enforced)
        known = self._emails.get(line.user or "") if line.verdict else None
        email = known or min(wanted.users or [""])
        if least is not None and subject is not Subject.SOMEBODY:
            return replace(least, email=email) if email != least.email else least
        roles, scopes = (frozenset[str]().union(*named) for named in (wanted.roles, wanted.scopes))
        return _principal("somebody", email, admin=True, roles=tuple(roles), scopes=tuple(scopes))


REPORTED = "allow (reported)"
"""Passes only because a rule reports."""


class _Answer(NamedTuple):
    """What the rules would say."""

    passes: bool | None
    """None if that depends on what is not known."""
    text: str
    """Likewise, for people."""
    route: Route
    """Which rule says it."""


def _is_short(line: Logged) -> bool:
    named = (*(line.roles or ()), *(line.scopes or ()))
    chosen = (line.client, line.method, line.host or b"", line.path, line.user or "", *named)
    return sum(map(len, chosen)) <= _LONGEST_REMEMBERED


def _shortened(line: Logged) -> Logged:
    """An example that is kept, whatever a stranger wrote into it."""
    most = _LONGEST_EXAMPLE
    return line._replace(
        client=line.client[:most],
        method=line.method[:most],
        host=None if line.host is None else line.host[:most],
        path=line.path[:most],
        user=None if line.user is None else line.user[:most],
        roles=None if line.roles is None else tuple(role[:most] for role in line.roles[:32]),
        scopes=None if line.scopes is None else tuple(scope[:most] for scope in line.scopes[:32]),
    )


def _refusal(decision: Decision) -> _Answer:
    status = decision.error.status if decision.error else 0
    return _Answer(False, f"{status} {decision.reason.value}", decision.route)


def _before(line: Logged) -> tuple[str, bool | None]:
    """What was said, and whether it passed; None if that was not for rules to say."""
    status = str(line.status) if 100 <= line.status < 600 else "none"
    if line.verdict == "allow":
        return (REPORTED if line.would else "allow"), True
    if line.verdict:
        return status, False if line.reason in _REFUSALS else None
    if line.status in (401, 403):
        return status, False
    return status, True if 100 <= line.status < 400 else None


def _change(before: str, passed: bool | None, answer: _Answer) -> Change:
    if passed is None:
        return Change.SAME
    if answer.passes is None:
        return Change.UNKNOWN
    if passed is not answer.passes:
        return Change.REFUSED if passed else Change.ADMITTED
    if passed:
        return Change.REPORTED if answer.text.startswith(REPORTED) and before != REPORTED else Change.SAME
    # A client that left before its refusal has another status, or none.
    return Change.SAME if before not in _STATUSES or answer.text.startswith(before) else Change.OTHERWISE


def _subject(line: Logged) -> Subject:
    if not line.verdict:
        return Subject.UNKNOWN if line.user is None else Subject.NAMED
    if line.user is None:
        sure = line.verdict == "allow" or line.reason in _REFUSALS  # a limit may come before the token
        return Subject.ANONYMOUS if sure else Subject.UNKNOWN
    if line.roles is None or line.admin is None:
        return Subject.SOMEBODY
    return Subject.ADMIN if line.admin else Subject.ROLES if line.roles else Subject.USER


def _principal(
    user: str, email: str, *, admin: bool, roles: tuple[str, ...], scopes: tuple[str, ...]
) -> Principal:
    return Principal(user, email, admin, roles, session="", version=0, expires_at=0, scopes=scopes)


@lru_cache(4096)
def _audience(routes: tuple[Route, ...]) -> Audience:
    return Audience.of(*(route.allow for route in routes))
