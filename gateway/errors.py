"""Every way the gateway itself says no.

    GatewayError
    ├── BadRequest                 400  bad_request            the request is malformed
    │   ├── BadFraming             400  bad_framing            its length or lines can be read in two ways
    │   ├── BadHost                400  bad_host               no Host, two of them, or not one
    │   ├── BadTarget              400  bad_target             not origin-form, raw "#", control byte, odd "%"
    │   ├── DotSegment             400  dot_segment            "." or ".." in some reading of the path
    │   ├── AmbiguousPath          400  ambiguous_path         more readings than anyone can check
    │   ├── DuplicateCredential    400  duplicate_credential   two Authorization headers
    │   ├── BadJson                400  bad_json               a body that is not one JSON object
    │   └── InvalidField           400  invalid_field          a field is missing, unknown or wrong
    ├── Unauthorized               401  not_logged_in          no credential
    │   ├── InvalidToken           401  invalid_token          a credential that does not hold
    │   ├── InvalidCredentials     401  invalid_credentials    login failed, and nobody learns why
    │   └── InvalidRefreshToken    401  invalid_refresh_token  refresh failed, likewise
    ├── Forbidden                  403  forbidden              logged in, still not allowed
    ├── NotFound                   404  not_found
    ├── MethodNotAllowed           405  method_not_allowed
    ├── RequestTimeout             408  request_timeout        the head or the body came too slowly
    ├── Conflict                   409  conflict
    │   ├── EmailTaken             409  email_taken
    │   ├── LastAdmin              409  last_admin
    │   └── TooManyTokens          409  too_many_tokens        API tokens of one account
    ├── BodyTooLarge               413  body_too_large
    ├── TargetTooLong              414  target_too_long
    ├── UnsupportedMediaType       415  unsupported_media_type
    ├── ExpectationFailed          417  expectation_failed
    ├── TooManyRequests            429  too_many_requests
    ├── HeadersTooLarge            431  headers_too_large
    ├── InternalError              500  internal_error         a defect of ours
    ├── NotImplementedHere         501  not_implemented        an unknown method, an Upgrade
    ├── BadGateway                 502  upstream_broken        the backend's answer can't be passed on
    ├── Unavailable                503  unavailable            a dependency is away
    │   ├── CutoffsStale           503  cutoffs_stale          whether a token still holds can't be told
    │   ├── Overloaded             503  overloaded             a bounded queue is full
    │   └── UpstreamUnavailable    503  upstream_unavailable   no connection to the backend to be had
    └── GatewayTimeout             504  timeout                a dependency is too slow
        └── UpstreamTimeout        504  upstream_timeout       the backend is too slow

The codes are stable: clients, logs and the reference build on them. An error is
a value as much as an exception: the data plane returns it, the control plane
raises it, and `gateway.http.problem` turns either into RFC 9457 JSON. `detail`
is shown to the client, so it never holds a secret, a token, an address of the
inside, or which part of a credential was wrong.
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """One refusal. `detail` is the sentence for the client; `retry_after` is in seconds."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    sentence: ClassVar[str] = "The gateway failed to handle this request. Its log has the reason."

    def __init__(
        self,
        detail: str | None = None,
        *,
        retry_after: int | None = None,
        allow: tuple[str, ...] = (),
        close: bool = False,
    ) -> None:
        super().__init__(detail or self.sentence)
        self.detail = detail or self.sentence
        self.retry_after = retry_after
        """Seconds for a Retry-After header, or None."""
        self.allow = allow
        """Methods for an Allow header (405 only)."""
        self.close = close
        """The connection can't be used again after this answer."""


class BadRequest(GatewayError):
    status, code, title = 400, "bad_request", "Bad request"
    sentence = "The request is malformed."


class BadFraming(BadRequest):
    code, title = "bad_framing", "Bad framing"
    sentence = "The request's length or lines can be read in more than one way."


class BadHost(BadRequest):
    code, title = "bad_host", "Bad Host header"
    sentence = "Send exactly one Host header with a valid name."


class BadTarget(BadRequest):
    code, title = "bad_target", "Bad request target"
    sentence = (
        "Send a path that begins with / and holds no raw # or control byte; % goes before two hex digits."
    )


class DotSegment(BadRequest):
    code, title = "dot_segment", "Dot segment in the path"
    sentence = 'The path holds "." or ".." as a segment; resolve it before sending.'


class AmbiguousPath(BadRequest):
    code, title = "ambiguous_path", "Ambiguous path"
    sentence = "The path can be read in too many ways; encode it once, plainly."


class DuplicateCredential(BadRequest):
    code, title = "duplicate_credential", "More than one credential"
    sentence = "Send exactly one Authorization header."


class BadJson(BadRequest):
    code, title = "bad_json", "Bad JSON"
    sentence = "Send one JSON object with no duplicate keys, in UTF-8."


class InvalidField(BadRequest):
    code, title = "invalid_field", "Invalid field"
    sentence = "A field of the body or the query is missing, unknown or has a wrong value."


class Unauthorized(GatewayError):
    status, code, title = 401, "not_logged_in", "Not logged in"
    sentence = "Log in and send the access token as `Authorization: Bearer <token>`."


class InvalidToken(Unauthorized):
    code, title = "invalid_token", "Invalid token"
    sentence = "The access token is expired, revoked or not valid here. Refresh it or log in again."


class InvalidCredentials(Unauthorized):
    code, title = "invalid_credentials", "Invalid credentials"
    sentence = "Invalid credentials"


class InvalidRefreshToken(Unauthorized):
    code, title = "invalid_refresh_token", "Invalid refresh token"
    sentence = "The refresh token is expired, spent or not valid here. Log in again."


class Forbidden(GatewayError):
    status, code, title = 403, "forbidden", "Forbidden"
    sentence = "You are not allowed to do this."


class NotFound(GatewayError):
    status, code, title = 404, "not_found", "Not found"
    sentence = "There is nothing here."


class MethodNotAllowed(GatewayError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"
    sentence = "This method can't be used here."


class RequestTimeout(GatewayError):
    status, code, title = 408, "request_timeout", "Request timeout"
    sentence = "The request did not arrive in time."


class Conflict(GatewayError):
    status, code, title = 409, "conflict", "Conflict"
    sentence = "The change collides with the present state."


class EmailTaken(Conflict):
    code, title = "email_taken", "E-mail taken"
    sentence = "Another account has this e-mail."


class LastAdmin(Conflict):
    code, title = "last_admin", "Last admin"
    sentence = "This is the last admin who can log in; make another one first."


class TooManyTokens(Conflict):
    code, title = "too_many_tokens", "Too many API tokens"
    sentence = "This account has as many API tokens as it may have; revoke one first."


class BodyTooLarge(GatewayError):
    status, code, title = 413, "body_too_large", "Body too large"
    sentence = "The body is larger than allowed here."


class TargetTooLong(GatewayError):
    status, code, title = 414, "target_too_long", "Target too long"
    sentence = "The path and query are longer than allowed here."


class UnsupportedMediaType(GatewayError):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"
    sentence = "Send the body as `Content-Type: application/json`."


class ExpectationFailed(GatewayError):
    status, code, title = 417, "expectation_failed", "Expectation failed"
    sentence = "Nothing but `Expect: 100-continue` can be expected here."


class TooManyRequests(GatewayError):
    status, code, title = 429, "too_many_requests", "Too many requests"
    sentence = "Too many attempts. Wait, then try again."


class HeadersTooLarge(GatewayError):
    status, code, title = 431, "headers_too_large", "Headers too large"
    sentence = "The headers are larger or more than allowed here."


class InternalError(GatewayError):
    pass


class NotImplementedHere(GatewayError):
    status, code, title = 501, "not_implemented", "Not implemented"
    sentence = "The gateway does not support this."


class BadGateway(GatewayError):
    status, code, title = 502, "upstream_broken", "Bad gateway"
    sentence = "The backend closed the connection or sent an answer that can't be passed on."


class Unavailable(GatewayError):
    status, code, title = 503, "unavailable", "Unavailable"
    sentence = "A service that the gateway needs for this is away. Try again soon."


class CutoffsStale(Unavailable):
    code, title = "cutoffs_stale", "Revocations unknown"
    sentence = "Whether this login still holds can't be told at the moment. Try again soon."


class Overloaded(Unavailable):
    code, title = "overloaded", "Overloaded"
    sentence = "Too much is waiting already. Try again soon."


class UpstreamUnavailable(Unavailable):
    code, title = "upstream_unavailable", "Backend unavailable"
    sentence = "No connection to the backend could be had."


class GatewayTimeout(GatewayError):
    status, code, title = 504, "timeout", "Timeout"
    sentence = "A service that the gateway needs for this is too slow."


class UpstreamTimeout(GatewayTimeout):
    code, title = "upstream_timeout", "Backend timeout"
    sentence = "The backend did not answer in time."
