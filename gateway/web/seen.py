"""What is learnt about one /auth request while it is answered: for its log line, metrics and error body."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

_KEY = "gateway.seen"


@dataclass(slots=True)
class Seen:
    """Filled from the outside in: the observer begins it, routing and handlers add what they find."""

    request_id: str = field(default_factory=lambda: uuid4().hex)
    """Shown in the response's `X-Request-Id`, in error bodies and in the log."""
    route: str = "auth:unknown"
    """The endpoint's label, "auth:login" and so on: never a path that a client made up."""
    user: str | None = None
    """The id of whoever is logged in, or has just logged in."""
    credential: str | None = None
    """The API token's id, if they came with one."""
    token_sent: bool = False
    """A bearer token came with the request: chooses the words of `WWW-Authenticate`."""
    refusal: str | None = None
    """The code of the error that answered."""


def seen(scope: MutableMapping[str, Any]) -> Seen:
    """The record of the request in `scope`; begun here if nobody observes."""
    if _KEY not in scope:
        scope[_KEY] = Seen()
    record: Seen = scope[_KEY]
    return record
