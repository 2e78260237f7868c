"""Refusals as clients see them."""

from __future__ import annotations

import json

import pytest

from gateway import errors
from gateway.errors import GatewayError
from gateway.http.problem import render


def every_error(kind: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [kind] + [error for child in kind.__subclasses__() for error in every_error(child)]


def show(
    error: GatewayError, *, token_sent: bool = False
) -> tuple[int, dict[bytes, bytes], dict[str, object]]:
    status, headers, body = render(error, request_id="r-1", token_sent=token_sent)
    assert len(dict(headers)) == len(headers)
    return status, dict(headers), json.loads(body)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_refusal_is_a_problem_document(kind: type[GatewayError]) -> None:
    status, headers, body = show(kind())
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-gateway-error"].decode() == body["code"] == kind.code
    assert status == body["status"] == kind.status
    assert body["detail"]
    assert body["title"]
    assert body["requestId"] == "r-1"


def test_codes_are_unique_and_drawn_in_the_tree() -> None:
    kinds = [kind for kind in every_error() if kind is not GatewayError and kind is not errors.InternalError]
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))
    for kind in kinds:
        assert f"{kind.status}  {kind.code}" in (errors.__doc__ or "")


def test_without_a_token_the_challenge_is_bare() -> None:
    assert show(errors.Unauthorized())[1][b"www-authenticate"] == b'Bearer realm="gateway"'


def test_with_a_token_the_challenge_names_the_error() -> None:
    challenge = show(errors.InvalidToken('say "x" \\ é'), token_sent=True)[1][b"www-authenticate"]
    assert challenge == (b'Bearer realm="gateway", error="invalid_token", error_description="say \'x\' / ?"')


@pytest.mark.parametrize("kind", [errors.InvalidCredentials, errors.InvalidRefreshToken])
def test_a_failed_login_is_no_failed_bearer_request(kind: type[GatewayError]) -> None:
    assert show(kind(), token_sent=True)[1][b"www-authenticate"] == b'Bearer realm="gateway"'


def test_403_says_the_scope_was_too_small_only_to_those_who_sent_a_token() -> None:
    assert b"insufficient_scope" in show(errors.Forbidden(), token_sent=True)[1][b"www-authenticate"]
    assert b"www-authenticate" not in show(errors.Forbidden())[1]


def test_retry_allow_and_close_become_headers() -> None:
    headers = show(errors.TooManyRequests(retry_after=0, allow=("GET", "HEAD"), close=True))[1]
    assert (headers[b"retry-after"], headers[b"allow"], headers[b"connection"]) == (
        b"1",
        b"GET, HEAD",
        b"close",
    )
