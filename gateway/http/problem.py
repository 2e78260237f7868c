"""Turns a refusal into the one answer that clients see: RFC 9457 problem+json.

Every answer made here carries `X-Gateway-Error: <code>`. A backend's own
response never does (the engine removes it), so a client can always tell who
refused.
"""

from __future__ import annotations

import json

from gateway.errors import Forbidden, GatewayError, InvalidCredentials, InvalidRefreshToken, Unauthorized
from gateway.http.head import Headers

_BARE = b'Bearer realm="gateway"'
_TYPE = "https://www.rfc-editor.org/rfc/rfc9110#status."


def render(error: GatewayError, *, request_id: str, token_sent: bool = False) -> tuple[int, Headers, bytes]:
    """The status, the header lines (lower-case names, with content-length) and the body.

    `token_sent` says whether the request carried a bearer token: only then does
    the challenge name an error (RFC 6750 §3.1).
    """
    body = _body(error, request_id)
    headers: Headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-gateway-error", error.code.encode()),
        (b"x-request-id", request_id.encode()),
    ]
    challenge = _challenge(error, token_sent)
    if challenge:
        headers.append((b"www-authenticate", challenge))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(error.retry_after, 1)))
    if error.allow:
        headers.append((b"allow", ", ".join(error.allow).encode()))
    if error.close:
        headers.append((b"connection", b"close"))
    return error.status, headers, body


def _body(error: GatewayError, request_id: str) -> bytes:
    return json.dumps(
        {
            "type": f"{_TYPE}{error.status}",
            "title": error.title,
            "status": error.status,
            "detail": error.detail,
            "code": error.code,
            "requestId": request_id,
        }
    ).encode()


def _challenge(error: GatewayError, token_sent: bool) -> bytes | None:
    """RFC 6750 §3: a bare challenge without a token; with one, the error and a sentence.

    A failed login or refresh is no failed bearer request, but RFC 9110 §15.5.2
    wants a challenge on every 401: the bare one.
    """
    if isinstance(error, Forbidden):
        return _BARE + b', error="insufficient_scope"' if token_sent else None
    if not isinstance(error, Unauthorized):
        return None
    if token_sent and not isinstance(error, InvalidCredentials | InvalidRefreshToken):
        return b'%b, error="invalid_token", error_description="%b"' % (_BARE, _quotable(error.detail))
    return _BARE


def _quotable(text: str) -> bytes:
    """As error_description may be written (RFC 6750 §3): no quote, no backslash, ASCII."""
    return text.replace('"', "'").replace("\\", "/").encode("ascii", "replace")
