"""The story of one request: who asks, may they, and what goes upstream.

`judge` calls down and gets a value back each time. It never waits: tokens, cut-offs
and rules are all in memory, and there is no database on this path. Only a limit that
is counted in Redis, and an API token that this process has not met, make it say Wait,
to the one request that it is about.

Much of a judgement depends on the header lines alone, and a client that keeps its
connection sends the same ones again and again. So what they say is worked out once
(`study.Study`), and with it the lines that go upstream for the last route and caller.

Often the whole head comes again, byte for byte, from the same peer. If it was let
pass, and nothing but head, rules and caller had a say in that, it is let pass again
(`study.Grant`), as long as those are the same: who the caller is, whether the token still
holds and whether it was cut off is asked every time.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf, nan

from gateway.errors import (
    BadFraming,
    BodyTooLarge,
    CutoffsStale,
    DuplicateCredential,
    GatewayError,
    InvalidToken,
    MethodNotAllowed,
    NotImplementedHere,
    Unavailable,
)
from gateway.http.client_address import Client, ClientAddresses
from gateway.http.cors import CorsEdits, Lines, Page, read_page
from gateway.http.framing import CHUNKED, read_framing
from gateway.http.head import METHODS, REFUSED_METHODS, Head, Headers
from gateway.http.header_edits import HeaderEdits
from gateway.http.websocket import WEBSOCKET, check_handshake, lone_bearer, read_upgrade, take_bearer
from gateway.identity.api_tokens import digest_of
from gateway.identity.credentials import find_bearer
from gateway.identity.known_tokens import KnownTokens
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cutoffs
from gateway.identity.tokens import AccessTokens
from gateway.policy.decide import claims_of, settle, settle_out_of_reach
from gateway.policy.model import Claims, Decision, Route, Verdict
from gateway.policy.reach import reaches
from gateway.proxy.limits import Hit, RouteLimits, by_address, by_user
from gateway.proxy.rules import Rules
from gateway.proxy.study import Grant, Study, random_id, request_id_of, trace_lines
from gateway.proxy.verdict import Forward, Judgement, Preflight, Refuse, Wait
from gateway.telemetry.logs import Decided

_Judged = Forward | Refuse | Wait
"""What becomes of a request that is no preflight."""


class Gate:
    """Judges requests. Holds no state of any connection."""

    def __init__(
        self,
        rules: Rules,
        *,
        access: AccessTokens,
        cutoffs: Cutoffs,
        api_tokens: KnownTokens,
        learn: Callable[[bytes], Awaitable[None]],
        clients: ClientAddresses,
        limits: RouteLimits,
        body_limit: int,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._access = access
        self._cutoffs = cutoffs
        self._api_tokens = api_tokens
        self._learn = learn
        self._clients = clients
        self._limits = limits
        self._body_limit = body_limit
        self._clock = clock
        self._stopwatch = stopwatch

    def adopt(self, rules: Rules) -> None:
        """From the next request on; streams and tunnels are judged again by them."""
        self._rules = rules

    def judge(self, head: Head) -> Judgement:
        """Forward, Refuse with the reason, or Wait. Never raises for anything a client can send."""
        grant = head.granted
        if (
            grant is not None
            and grant.rules is self._rules
            and self._is_still(grant.principal, grant.token, grant.digest)
        ):
            forward: Forward = grant.another()
            return forward
        return self._judge_anew(head)

    def _judge_anew(self, head: Head) -> Judgement:
        study: Study | None = head.known.study
        if study is not None and not study.is_of(head, self._rules):
            study = None
        client = study.client if study is not None else self._clients.of(head)
        decided = _begin(head, client)
        try:
            if study is None:
                study = head.known.study = self._study(head, client)
            decided.host = study.framing.host
            return self._judge(head, study, decided)
        except GatewayError as error:
            return _refuse(error, decided, _cors_lines(head, study))

    def begin(self, head: Head) -> Decided:
        """The record of a request that the gateway answers itself, as `judge` would begin it."""
        return _begin(head, self._clients.of(head))

    async def authenticate(self, headers: Headers) -> Principal | None:
        """The caller, or None without a credential.

        Raises InvalidToken, DuplicateCredential, CutoffsStale; Unavailable for an API token that can't be
        looked up.
        """
        token = find_bearer(headers)
        digest = digest_of(token)
        try:
            return self._principal(token, digest)
        except _UnknownToken:
            await self._meet(digest or b"")
        return self._principal(token, digest)

    async def _meet(self, digest: bytes) -> None:
        """Afterwards it is known whom an API token stands for, or that it is nobody. Raises Unavailable.

        Also where database and cut-offs contradict each other, as after a backup was restored: the one
        says that the token holds, the others that what it says is over. Nobody asks for ever.
        """
        for _ in range(_TRIES):
            await self._learn(digest)
            try:
                if self._api_tokens.find(digest) is not None:
                    return
            except InvalidToken:
                return
        raise Unavailable(retry_after=1)

    def _principal(self, token: bytes | None, digest: bytes | None) -> Principal | None:
        if token is None:
            return None
        principal = self._access.verify(token) if digest is None else self._find(digest)
        believed_until = self._cutoffs.believed_until
        if believed_until != inf and self._stopwatch() > believed_until:
            raise CutoffsStale(retry_after=1)
        if self._cutoffs.cuts(principal):
            raise InvalidToken
        return principal

    def _find(self, digest: bytes) -> Principal:
        """Whom an API token stands for. Raises _UnknownToken if that has to be looked up."""
        principal = self._api_tokens.find(digest)
        if principal is None:
            raise _UnknownToken
        return principal

    def _is_still(self, principal: Principal | None, token: bytes | None, digest: bytes | None) -> bool:
        try:
            return self._principal(token, digest) is principal
        except (InvalidToken, CutoffsStale, _UnknownToken):
            return False

    def _study(self, head: Head, client: Client) -> Study:
        framing = read_framing(head.headers, http_version=head.http_version)
        offered, headers = take_bearer(head.headers)
        token = find_bearer(headers)
        asked = read_upgrade(headers) if framing.upgrade else None
        if framing.upgrade and framing.body != 0:
            raise BadFraming("Send no body with an Upgrade.", close=True)
        if asked == WEBSOCKET:
            if offered is not None and token is not None:
                raise DuplicateCredential
            token = token if offered is None else offered
        lone = lone_bearer(head.headers) or b""
        page = read_page(headers) if self._rules.policy.cors else None
        return Study(self._rules, head, headers, framing, client, token, asked, lone, page)

    def _judge(self, head: Head, study: Study, decided: Decided) -> Judgement:
        if head.method in REFUSED_METHODS:
            raise MethodNotAllowed(allow=METHODS)
        if study.page is not None and head.method == "OPTIONS":
            preflight = _preflight(study, study.page, decided)
            if preflight is not None:
                return preflight
        claims = claims_of(study.rules.policy, head.method, study.framing.host, decided.path)
        if isinstance(claims, Decision):
            return _denied(claims, None, None, decided, _cors_lines(head, study))
        if claims.limited:
            hits = by_address(claims.limited, study.client.address)
            if hits:
                decided.route = claims.route.label
                return self._within(
                    hits, head, study, decided, lambda: self._decide(head, study, claims, decided)
                )
        return self._decide(head, study, claims, decided)

    def _decide(
        self,
        head: Head,
        study: Study,
        claims: Claims,
        decided: Decided,
        away: Unavailable | None = None,
    ) -> _Judged:
        """`away`: why it can't be found out whom an API token stands for."""
        principal: Principal | None = None
        bad_token: InvalidToken | Unavailable | None = None
        try:
            principal = self._principal(study.token, study.digest)
        except (InvalidToken, CutoffsStale) as error:
            bad_token = error  # on a public route it counts as none
        except _UnknownToken:
            if away is None:
                decided.route = claims.route.label
                return self._look_up(head, study, claims, decided)
            bad_token = away
        if principal is None or _is_good_for(principal, head, claims.route):
            decision = settle(claims, principal, study.client.address, self._now(claims))
        else:
            decision = settle_out_of_reach(claims, study.client.address, self._now(claims))
            if decision.error is None:
                principal = None
        if decision.error is not None:
            return _denied(decision, principal, bad_token, decided, _cors_lines(head, study))
        route = decision.route
        decided.route, decided.reason, decided.verdict = route.label, decision.reason._value_, "allow"
        if principal is not None:
            decided.user, decided.admin, decided.roles = principal.id, principal.is_admin, principal.roles
            if principal.token is not None:
                decided.credential, decided.scopes = principal.token, principal.scopes
        if decision.would is not None:
            decided.would = _would(decision.would, bad_token)
        if claims.limited:
            hits = by_user(claims.limited, principal)
            if hits:
                return self._within(
                    hits,
                    head,
                    study,
                    decided,
                    lambda: self._forward(head, study, principal, claims, decision, decided, False),
                )
        # Nothing else had a say: no limit, no time, no ids of a trusted proxy, no handshake, no bad token.
        lasting = not (claims.limited or claims.timed or study.client.trusted or study.asked or bad_token)
        return self._forward(head, study, principal, claims, decision, decided, lasting)

    def _look_up(self, head: Head, study: Study, claims: Claims, decided: Decided) -> Wait:
        async def judgement() -> Forward | Refuse:
            away = None
            try:
                await self._meet(study.digest or b"")
            except Unavailable as error:
                away = error
            try:
                found = self._decide(head, study, claims, decided, away)
            except GatewayError as error:
                return _refuse(error, decided, _cors_lines(head, study))
            return await found.judgement() if isinstance(found, Wait) else found

        return Wait(judgement, decided)

    def _within(
        self, hits: list[Hit], head: Head, study: Study, decided: Decided, then: Callable[[], _Judged]
    ) -> _Judged:
        """`then`, if the limits allow. Raises TooManyRequests."""
        if self._limits.count(hits):
            return then()

        async def judgement() -> Forward | Refuse:
            try:
                await self._limits.wait_for(hits)
                found = then()
            except GatewayError as error:
                return _refuse(error, decided, _cors_lines(head, study))
            return await found.judgement() if isinstance(found, Wait) else found

        return Wait(judgement, decided)

    def _forward(
        self,
        head: Head,
        study: Study,
        principal: Principal | None,
        claims: Claims,
        decision: Decision,
        decided: Decided,
        lasting: bool,
    ) -> Forward:
        route, framing = decision.route, study.framing
        limit = self._body_limit if route.body is None else route.body
        if framing.body is not CHUNKED and framing.body > limit:
            raise BodyTooLarge(close=True)
        upgrade = _granted(head, study, route) if study.asked is not None else b""
        method, path, query = head.method, decision.path, head.target[len(decided.path) :]
        destination = study.rules.destinations[route.upstream]
        edits: HeaderEdits | CorsEdits = route.response_headers
        cors: Lines = ()
        if claims.cors is not None:
            edits = study.edits(route, claims.cors)
            cors = edits.lines
        start = b"%b %b%b%b" % (
            method.encode(),
            path,
            query,
            study.tail(destination, route, principal, upgrade),
        )
        forward = Forward(
            decided.request_id,
            destination.pool,
            b"%b%b\r\n" % (start, trace_lines(head, study.client, decided.request_id)),
            framing.body,
            limit,
            method == "HEAD",
            framing.body == 0 and method in _IDEMPOTENT and not upgrade,
            decided,
            partial(self._stands, method, head.path, study, principal),
            route.timeout,
            edits,
            upgrade,
            study.lone if upgrade == WEBSOCKET else b"",
            cors,
        )
        if lasting:
            head.granted = Grant(forward, start, study, principal)
        return forward

    def _stands(self, method: str, path: bytes, study: Study, principal: Principal | None) -> bool:
        """Whether what was allowed still is; asked several times a second while a stream or tunnel lasts."""
        if principal is not None and (
            self._is_cut_off(principal) or (principal.token is not None and self._is_over(principal))
        ):
            return False
        rules = self._rules
        claims = claims_of(rules.policy, method, study.framing.host, path)
        if isinstance(claims, Decision):
            return False
        destination = rules.destinations.get(claims.route.upstream)
        if destination is None or (destination.until_exp and self._is_over(principal)):
            return False
        if rules is study.rules and not claims.timed:
            return True
        return settle(claims, principal, study.client.address, self._now(claims)).error is None

    def _now(self, claims: Claims) -> float:
        """Unix seconds, for rules that hold for a time; the others never look at it."""
        return self._clock() if claims.timed else nan

    def _is_cut_off(self, principal: Principal) -> bool:
        """Also when nobody could tell."""
        return self._stopwatch() > self._cutoffs.believed_until or self._cutoffs.cuts(principal)

    def _is_over(self, principal: Principal | None) -> bool:
        return principal is not None and self._clock() >= principal.expires_at


def _is_good_for(principal: Principal, head: Head, route: Route) -> bool:
    """Logins are good for everything; API tokens may have limits of their own."""
    return principal.reach is None or reaches(principal.reach, head.method, head.path, route)


class _UnknownToken(Exception):
    """An API token that this process has not met; it has to be learnt before anything can be said."""


def _preflight(study: Study, page: Page, decided: Decided) -> Preflight | None:
    """The answer to a browser that asks for a page; None where the backend says, or nobody asks.

    The route is that of the method which the page wants to send. Whoever sends that is judged then: here
    nobody's token, address or rate is looked at, and nothing goes upstream.
    """
    claims = (
        claims_of(study.rules.policy, page.method, study.framing.host, decided.path) if page.method else None
    )
    if claims is None or isinstance(claims, Decision) or claims.cors is None:
        return None
    cors = claims.cors
    decided.route, decided.reason = claims.route.label, "preflight"
    decided.verdict = "allow" if cors.grants(page) else "deny"
    return Preflight(cors.preflight(page), decided.request_id, decided)


def _cors_lines(head: Head, study: Study | None) -> Lines:
    """What lets a page read an answer of ours."""
    if study is None or not study.rules.policy.cors:
        return ()
    claims = claims_of(study.rules.policy, head.method, study.framing.host, head.path)
    cors = claims.route.cors if isinstance(claims, Decision) else claims.cors
    return cors.lines(study.page) if cors is not None else ()


def _granted(head: Head, study: Study, route: Route) -> bytes:
    """The protocol that this request may switch to; one that isn't granted is passed over (RFC 9110 §7.8)."""
    asked = study.asked or b""
    if asked == WEBSOCKET and not head.can_switch:
        raise NotImplementedHere("WebSockets are served by `gateway run` only.", close=True)
    if head.method != "GET" or head.http_version != "1.1" or not head.can_switch:
        return b""
    if asked == WEBSOCKET:
        check_handshake(head.method, head.http_version, study.headers)
        return asked
    return asked if asked in route.upgrade and asked != b"h2c" else b""


def _would(refused: Decision, bad_token: InvalidToken | Unavailable | None) -> str:
    """Why a route that only reports would have refused."""
    if refused.verdict is Verdict.UNAUTHENTICATED and bad_token is not None:
        return bad_token.code
    return refused.reason.value


def _denied(
    decision: Decision,
    principal: Principal | None,
    bad_token: InvalidToken | Unavailable | None,
    decided: Decided,
    cors: Lines,
) -> Refuse:
    decided.route, decided.reason, decided.verdict = decision.route.label, decision.reason._value_, "deny"
    if principal is not None:
        decided.user, decided.admin, decided.roles = principal.id, principal.is_admin, principal.roles
        if principal.token is not None:
            decided.credential, decided.scopes = principal.token, principal.scopes
    unproven = bad_token if decision.verdict is Verdict.UNAUTHENTICATED else None
    if unproven is not None:
        decided.reason = unproven.code
    token_sent = principal is not None or bad_token is not None
    error = unproven or decision.error
    assert error is not None  # noqa: S101 - every decision but ALLOW has one
    return Refuse(error, token_sent, decided.request_id, decided, cors)


def _refuse(error: GatewayError, decided: Decided, cors: Lines) -> Refuse:
    decided.verdict, decided.reason = "deny", error.code
    return Refuse(error, False, decided.request_id, decided, cors)


def _begin(head: Head, client: Client) -> Decided:
    request_id = request_id_of(head) if client.trusted else random_id()
    return Decided(request_id, client.name, head.method, head.path)


_IDEMPOTENT = frozenset(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
"""RFC 9110 §9.2.2."""
_TRIES = 3
"""An API token may change while it is looked up; nothing changes so often."""
