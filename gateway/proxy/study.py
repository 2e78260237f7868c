"""What the gate remembers of a head: what its lines say, what goes upstream for them, that it may pass.

Nothing here decides anything. A study belongs to one peer and one set of rules, a grant to
one head and one caller besides; the gate asks whether they still are the same.
"""

from __future__ import annotations

import random
import re

from gateway.http.client_address import Client
from gateway.http.cors import Cors, CorsEdits, Page
from gateway.http.framing import CHUNKED, Framing
from gateway.http.head import Head, Headers
from gateway.http.header_edits import NO_EDITS
from gateway.identity.api_tokens import digest_of
from gateway.identity.principal import Principal
from gateway.policy.model import Route
from gateway.proxy.rules import Destination, Rules
from gateway.proxy.verdict import Forward


class Grant:
    """What lets the same head pass again. Whoever asks has made sure that rules and caller are the same."""

    __slots__ = ("_decided", "_forward", "_start", "digest", "principal", "rules", "token")

    def __init__(self, forward: Forward, start: bytes, study: Study, principal: Principal | None) -> None:
        self.rules, self.principal = study.rules, principal
        self.token, self.digest = study.token, study.digest
        self._forward, self._start = forward, start
        self._decided = forward.decided.another("")  # as it is now: what comes of this request is its own

    def another(self) -> Forward:
        """The same with ids of its own."""
        drawn = f"{random.getrandbits(192) | 1:048x}"
        request_id, ids, same = drawn[:32], drawn.encode(), self._forward
        return Forward(
            request_id,
            same.upstream,
            b"%bX-Request-Id: %b\r\ntraceparent: 00-%b-%b-01\r\n\r\n"
            % (self._start, ids[:32], ids[:32], ids[32:]),
            same.body,
            same.body_limit,
            same.no_response_body,
            same.replayable,
            self._decided.another(request_id),
            same.standing,
            same.timeout,
            same.edits,
            same.upgrade,
            same.lone_offer,
            same.cors,
        )


class Study:
    """What header lines say, for one peer and one set of rules; and what was last sent on for them."""

    __slots__ = (
        "_edits",
        "_edits_for",
        "_for",
        "_tail",
        "asked",
        "client",
        "digest",
        "framing",
        "headers",
        "http_version",
        "lone",
        "page",
        "peer",
        "rules",
        "scheme",
        "token",
    )

    def __init__(
        self,
        rules: Rules,
        head: Head,
        headers: Headers,
        framing: Framing,
        client: Client,
        token: bytes | None,
        asked: bytes | None,
        lone: bytes,
        page: Page | None,
    ) -> None:
        self.rules = rules
        self.http_version, self.peer, self.scheme = head.http_version, head.peer, head.scheme
        self.headers = headers
        """Without a token among the subprotocols."""
        self.framing = framing
        self.client = client
        self.token = token
        self.digest = digest_of(token)
        """Of an API token; None for any other credential."""
        self.asked = asked
        """The protocol to switch to."""
        self.lone = lone
        """The token's subprotocol, if it was the only one."""
        self.page = page
        """Of a browser, if some rule minds."""
        self._edits_for: tuple[Route, Cors] | None = None
        self._edits = _NO_CORS_EDITS
        self._for: tuple[Route, Principal | None, bytes] | None = None
        self._tail = b""

    def is_of(self, head: Head, rules: Rules) -> bool:
        return (
            self.rules is rules
            and self.peer == head.peer
            and self.http_version == head.http_version
            and self.scheme == head.scheme
        )

    def tail(
        self, destination: Destination, route: Route, principal: Principal | None, upgrade: bytes
    ) -> bytes:
        """The head behind the target, but for what is new with every request."""
        last = self._for
        if last is None or last[0] is not route or last[1] is not principal or last[2] != upgrade:
            self._tail = self._render(destination, route, principal, upgrade)
            self._for = (route, principal, upgrade)
        return self._tail

    def edits(self, route: Route, cors: Cors) -> CorsEdits:
        """What becomes of the response's headers, and how a page may read it."""
        last = self._edits_for
        if last is None or last[0] is not route or last[1] is not cors:
            self._edits = CorsEdits(route.response_headers, cors.lines(self.page))
            self._edits_for = (route, cors)
        return self._edits

    def _render(
        self, destination: Destination, route: Route, principal: Principal | None, upgrade: bytes
    ) -> bytes:
        host = self.framing.host
        lines = destination.sieve.keep(self.headers, trusted=self.client.trusted)
        if route.request_headers:
            lines = route.request_headers.apply_to_request(lines)
        return b"".join(
            (
                b" HTTP/1.1\r\nHost: %b\r\n"
                % (host if destination.preserve_host and host else destination.host),
                *lines,
                _forwarded_lines(host, self.client),
                self.rules.identity(principal) if principal else b"",
                b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade if upgrade else b"",
                _framing_line(self.framing),
            )
        )


def request_id_of(head: Head) -> str:
    """A trusted proxy's own id, so that one id runs through all logs; a fresh one where it sent none."""
    given = _only(head.headers, b"x-request-id")
    return given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else random_id()


def trace_lines(head: Head, client: Client, request_id: str) -> bytes:
    """`X-Request-Id` and `traceparent` (W3C Trace Context); a trace begun outside is not continued.

    A new trace is marked sampled, which leaves the choice to the backend's own
    sampler, as if no proxy stood in front.
    """
    lines = b"X-Request-Id: %b\r\n" % request_id.encode()
    given = _only(head.headers, b"traceparent") if client.trusted else None
    if given is not None and _TRACEPARENT.fullmatch(given):
        state = b",".join(value for name, value in head.headers if name.lower() == b"tracestate")
        return lines + b"traceparent: %b\r\n" % given + (b"tracestate: %b\r\n" % state if state else b"")
    # Our own id is 128 random bits: the trace bears the same, so a backend's spans meet our log.
    trace = request_id if not client.trusted or _TRACE_ID.fullmatch(request_id) else random_id()
    return b"%btraceparent: 00-%b-%016x-01\r\n" % (lines, trace.encode(), random.getrandbits(64) | 1)


def random_id() -> str:
    """128 random bits, in hex."""
    return f"{random.getrandbits(128):032x}"


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


def _only(headers: Headers, name: bytes) -> bytes | None:
    values = [value for line_name, value in headers if line_name.lower() == name]
    return values[0] if len(values) == 1 else None


_NO_CORS_EDITS = CorsEdits(NO_EDITS, ())
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
_TRACE_ID = re.compile("(?!0{32})[0-9a-f]{32}")
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
