"""May this request pass, where does it go, and why: the whole decision, as a value.

The literal reading of the path chooses the route. The caller must satisfy the rule of
every other reading too, and with `strip_prefix` that of every reading of the path which
the backend gets to see. Which routes those are depends on method, host and path alone,
so it is worked out once per request line and remembered for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import AmbiguousPath, BadRequest, BadTarget, DotSegment, Forbidden, NotFound, Unauthorized
from gateway.http.cors import NO_PAGES, Cors
from gateway.identity.principal import Principal
from gateway.policy.match import Matcher
from gateway.policy.model import FINAL, Address, Claims, Policy, Reason, Route
from gateway.policy.model import Decision as Decision
from gateway.policy.model import Verdict as Verdict
from gateway.policy.reach import reaches
from gateway.policy.readings import Reading, fold, read, strip

_REMEMBERED = 4096
"""Request lines. With the longest of each part that is about 2 MB."""
_LONGEST_REMEMBERED = 256
"""Bytes of path and host together; longer ones are worked out again each time."""


def decide(
    policy: Policy,
    *,
    method: str,
    host: bytes,
    path: bytes,
    principal: Principal | None,
    address: Address | None,
    now: float,
) -> Decision:
    """Judge one request. `path` is the raw path without its query; `host` is empty if there is none.

    `now` is in Unix seconds.
    """
    claims = claims_of(policy, method, host, path)
    if isinstance(claims, Decision):
        return claims
    reach = principal.reach if principal is not None else None
    if reach is not None and not reaches(reach, method, path, claims.route):
        return settle_out_of_reach(claims, address, now)
    return settle(claims, principal, address, now)


def claims_of(policy: Policy, method: str, host: bytes, path: bytes) -> Claims | Decision:
    """What this request line asks of its caller, whoever that is; or the refusal of everyone."""
    claims = policy.memory.get((method, host, path))
    if claims is None:
        try:
            claims = _claims(policy, method, host, path)
        except (BadRequest, NotFound) as error:
            return Decision(Verdict.REFUSED, _CODES[type(error)], policy.default, path, error)
        _remember(policy, (method, host, path), claims)
    return claims


def claims_of_reading(policy: Policy, method: str, host: bytes, path: bytes) -> Claims | Decision:
    """What one reading asks of a caller, with any capitals. `path` is it, in escapes where there must be."""
    try:
        return _claims(policy, method, host, path, _as_spelled)
    except (BadRequest, NotFound) as error:
        return Decision(Verdict.REFUSED, _CODES[type(error)], policy.default, path, error)


def _as_spelled(path: bytes) -> tuple[Reading, ...]:
    return read(path)[:1]


def settle(claims: Claims, principal: Principal | None, address: Address | None, now: float) -> Decision:
    """Whether this caller satisfies every rule now."""
    route = claims.route
    reason = route.allow.refusal(principal, address, now)
    if reason is not None:
        refused = _refuse(claims.granted, reason, reason)
        return _report(claims, refused, principal, address, now) if only_reports(route) else refused
    if claims.others:
        return _decide_others(claims, principal, address, now)
    return claims.granted


def settle_out_of_reach(claims: Claims, address: Address | None, now: float) -> Decision:
    """What a token is worth that is not good for this request: nothing, and no 401 as it is one."""
    decision = settle(claims, None, address, now)
    if decision.verdict is not Verdict.UNAUTHENTICATED:
        return decision
    route, forward = claims.route, claims.granted.path
    return Decision(Verdict.FORBIDDEN, Reason.OUT_OF_REACH, route, forward, Forbidden(_OUT_OF_REACH))


_OUT_OF_REACH = "This API token is not good for this method or path."


def only_reports(route: Route) -> bool:
    """A route without a backend has nowhere to send what it would let pass."""
    return route.report_only and bool(route.upstream)


def _report(
    claims: Claims, refused: Decision, principal: Principal | None, address: Address | None, now: float
) -> Decision:
    """Let pass what only the route's own rule refuses. What other readings ask for is asked for still."""
    decision = _decide_others(claims, principal, address, now)
    return decision if decision.error else decision._replace(reason=Reason.REPORT_ONLY, would=refused)


_CODES: dict[type[Exception], Reason] = {
    BadTarget: Reason.BAD_TARGET,
    AmbiguousPath: Reason.AMBIGUOUS_PATH,
    DotSegment: Reason.DOT_SEGMENT,
    NotFound: Reason.AUTH_PREFIX,
}


def _decide_others(
    claims: Claims, principal: Principal | None, address: Address | None, now: float
) -> Decision:
    """401 only if a login could help in every reading."""
    refusals = [route.allow.refusal(principal, address, now) for route in claims.others]
    reasons = [reason for reason in refusals if reason is not None]
    if not reasons:
        return claims.granted
    final = [reason for reason in reasons if reason in FINAL]
    return _refuse(claims.granted, Reason.OTHER_READING, (final or reasons)[0])


def _refuse(granted: Decision, reason: Reason, cause: Reason) -> Decision:
    if cause is Reason.NO_CREDENTIAL:
        return Decision(Verdict.UNAUTHENTICATED, reason, granted.route, granted.path, Unauthorized())
    return Decision(Verdict.FORBIDDEN, reason, granted.route, granted.path, Forbidden())


def _claims(
    policy: Policy,
    method: str,
    host: bytes,
    path: bytes,
    readings_of: Callable[[bytes], tuple[Reading, ...]] = read,
) -> Claims:
    """Raises BadTarget, DotSegment, AmbiguousPath; NotFound for what reads like the auth prefix."""
    readings = _with_folds(readings_of(path))
    for _, folded in readings:
        if folded.startswith(policy.auth_prefix) and (folded + b"/").startswith(policy.auth_prefix + b"/"):
            raise NotFound
    found = [route or policy.default for route in _routes(policy.matcher, method, host, readings)]
    route, forward, cors = found[0], path, _shared(found)
    if route.strip:
        forward = strip(path, route.strip)
        behind = _routes(policy.behind[route.upstream], method, host, _with_folds(readings_of(forward)))
        found += [other for other in behind if other is not None]
    others = tuple(sorted({*found} - {route}, key=_file_order)) if len(found) > 1 else ()
    reason = Reason.DEFAULT if route is policy.default else route.allow.reason
    limited = tuple(each for each in (route, *others) if each.rate_limit is not None)
    timed = any(each.allow.valid is not None for each in (route, *others))
    return Claims(route, others, Decision(Verdict.ALLOW, reason, route, forward, None), limited, timed, cors)


def _shared(found: list[Route]) -> Cors | None:
    """No page may use a path that could be several routes', unless all of them say the same of pages."""
    first = found[0].cors
    return first if all(route.cors == first for route in found) else NO_PAGES


def _with_folds(readings: tuple[Reading, ...]) -> list[tuple[Reading, Reading]]:
    return [(reading, fold(reading)) for reading in readings]


def _routes(
    matcher: Matcher[Route], method: str, host: bytes, readings: list[tuple[Reading, Reading]]
) -> list[Route | None]:
    """The routes of all readings, each as it is spelled and without case; that of the literal one first."""
    found: list[Route | None] = []
    for reading, folded in readings:
        found.append(matcher.find(method, host, reading))
        if matcher.cased or folded != reading:
            found += matcher.find_folded(method, host, folded)
    return found


def _file_order(route: Route) -> int:
    return route.index


def _remember(policy: Policy, key: tuple[str, bytes, bytes], claims: Claims) -> None:
    if sum(map(len, key)) <= _LONGEST_REMEMBERED:
        if len(policy.memory) >= _REMEMBERED:
            policy.memory.clear()
        policy.memory[key] = claims
