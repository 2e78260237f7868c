"""The story of one request, on one screen: who asks, may they, and what goes upstream.

`judge` calls down and gets a value back each time. It never waits: tokens, cut-offs
and rules are all in memory, and there is no database on this path.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.errors import BodyTooLarge, GatewayError, InvalidToken, MethodNotAllowed
from gateway.http.client_address import Client, ClientAddresses
from gateway.http.framing import CHUNKED, Framing, read_framing
from gateway.http.head import METHODS, REFUSED_METHODS, Head, Headers
from gateway.http.identity_headers import HeaderSieve, IdentityLines
from gateway.identity.credentials import find_bearer
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cutoffs
from gateway.identity.tokens import AccessTokens
from gateway.policy.decide import Decision, Verdict, decide
from gateway.policy.model import Policy
from gateway.proxy.upstream.pool import Pool
from gateway.proxy.verdict import Forward, Judgement, Refuse
from gateway.telemetry.logs import Decided


@dataclass(frozen=True, slots=True)
class Destination:
    """An upstream as the gate needs it."""

    pool: Pool
    """Whose connections carry the request."""
    sieve: HeaderSieve
    """Which of the client's headers go along."""
    host: bytes
    """The Host header to send."""
    preserve_host: bool = False
    """Send the client's own Host instead."""


class Gate:
    """Judges requests. One per configuration; holds no state of any connection."""

    def __init__(
        self,
        *,
        policy: Policy,
        access: AccessTokens,
        cutoffs: Cutoffs,
        clients: ClientAddresses,
        destinations: Mapping[str, Destination],
        identity: IdentityLines,
        body_limit: int,
    ) -> None:
        self._policy = policy
        self._access = access
        self._cutoffs = cutoffs
        self._clients = clients
        self._destinations = destinations
        self._identity = identity
        self._body_limit = body_limit

    def judge(self, head: Head) -> Judgement:
        """Forward, or Refuse with the reason. Never raises for anything a client can send."""
        client = self._clients.of(head)
        decided = _begin(head, client)
        try:
            return self._judge(head, client, decided)
        except GatewayError as error:
            decided.verdict, decided.reason = "deny", error.code
            return Refuse(error, token_sent=False, request_id=decided.request_id, decided=decided)

    def begin(self, head: Head) -> Decided:
        """The record of a request that the gateway answers itself, as `judge` would begin it."""
        return _begin(head, self._clients.of(head))

    def authenticate(self, headers: Headers) -> Principal | None:
        """The caller, or None without a credential. Raises InvalidToken, DuplicateCredential."""
        token = find_bearer(headers)
        if token is None:
            return None
        principal = self._access.verify(token)
        if self._cutoffs.cuts(principal):
            raise InvalidToken
        return principal

    def _judge(self, head: Head, client: Client, decided: Decided) -> Judgement:
        framing = read_framing(head.headers, http_version=head.http_version)
        if head.method in REFUSED_METHODS:
            raise MethodNotAllowed(allow=METHODS)
        principal, bad_token = self._caller(head.headers)
        decision = decide(
            self._policy,
            method=head.method,
            host=framing.host,
            path=decided.path,
            principal=principal,
            address=client.address,
        )
        decided.route, decided.reason = decision.route.label, decision.reason.value
        decided.user = principal.id if principal else None
        if decision.error is not None:
            decided.verdict = "deny"
            unproven = bad_token if decision.verdict is Verdict.UNAUTHENTICATED else None
            if unproven is not None:
                decided.reason = unproven.code
            token_sent = principal is not None or bad_token is not None
            return Refuse(unproven or decision.error, token_sent, decided.request_id, decided)
        if framing.body is not CHUNKED and framing.body > self._body_limit:
            raise BodyTooLarge(close=True)
        decided.verdict = "allow"
        return self._forward(head, framing, client, principal, decision, decided)

    def _caller(self, headers: Headers) -> tuple[Principal | None, InvalidToken | None]:
        """A token that does not hold is kept as a value: on a public route it counts as none."""
        try:
            return self.authenticate(headers), None
        except InvalidToken as error:
            return None, error

    def _forward(
        self,
        head: Head,
        framing: Framing,
        client: Client,
        principal: Principal | None,
        decision: Decision,
        decided: Decided,
    ) -> Forward:
        destination = self._destinations[decision.route.upstream]
        host, body = framing.host, framing.body
        query = head.target[len(decided.path) :]
        lines = [
            b"%b %b%b HTTP/1.1\r\n" % (head.method.encode(), decision.path, query),
            b"Host: %b\r\n" % (host if destination.preserve_host and host else destination.host),
            *destination.sieve.keep(head.headers, trusted=client.trusted),
            _forwarded_lines(host, client),
            _trace_lines(head, client, decided.request_id),
            self._identity(principal) if principal else b"",
            _framing_line(framing),
            b"\r\n",
        ]
        return Forward(
            request_id=decided.request_id,
            upstream=destination.pool,
            head=b"".join(lines),
            body=body,
            body_limit=self._body_limit,
            no_response_body=head.method == "HEAD",
            replayable=body == 0 and head.method in _IDEMPOTENT,
            decided=decided,
        )


def _begin(head: Head, client: Client) -> Decided:
    return Decided(
        request_id=_request_id(head, client),
        client=client.name,
        method=head.method,
        path=head.path,
    )


def _forwarded_lines(host: bytes, client: Client) -> bytes:
    lines = b"X-Forwarded-Proto: %b\r\n" % client.forwarded_proto
    if client.forwarded_for:
        lines += b"X-Forwarded-For: %b\r\n" % client.forwarded_for
    forwarded_host = client.forwarded_host or host
    if forwarded_host:
        lines += b"X-Forwarded-Host: %b\r\n" % forwarded_host
    return lines


def _framing_line(framing: Framing) -> bytes:
    """`Content-Length: 0` is sent on if the client said so: some backends insist on it for POST."""
    if framing.body is CHUNKED:
        return b"Transfer-Encoding: chunked\r\n"
    if framing.announced:
        return b"Content-Length: %d\r\n" % framing.body
    return b""


def _request_id(head: Head, client: Client) -> str:
    """A trusted proxy's own id, so that one id runs through all logs; else a fresh one."""
    if client.trusted:
        given = _only(head.headers, b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
    return f"{random.getrandbits(128):032x}"


def _trace_lines(head: Head, client: Client, request_id: str) -> bytes:
    """`X-Request-Id` and `traceparent` (W3C Trace Context); a trace begun outside is not continued.

    A new trace is marked sampled, which leaves the choice to the backend's own
    sampler, as if no proxy stood in front.
    """
    lines = b"X-Request-Id: %b\r\n" % request_id.encode()
    given = _only(head.headers, b"traceparent") if client.trusted else None
    if given is not None and _TRACEPARENT.fullmatch(given):
        state = b",".join(value for name, value in head.headers if name.lower() == b"tracestate")
        return lines + b"traceparent: %b\r\n" % given + (b"tracestate: %b\r\n" % state if state else b"")
    trace = random.getrandbits(192) | 1 | 1 << 64  # all-zero ids are invalid
    return lines + b"traceparent: 00-%032x-%016x-01\r\n" % (trace >> 64, trace & 0xFFFFFFFFFFFFFFFF)


def _only(headers: Headers, name: bytes) -> bytes | None:
    values = [value for line_name, value in headers if line_name.lower() == name]
    return values[0] if len(values) == 1 else None


_IDEMPOTENT = frozenset(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
"""RFC 9110 §9.2.2."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
