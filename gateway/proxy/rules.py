"""What a reload replaces for forwarded requests: the rules, and the backends that they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.http.identity_headers import HeaderSieve, IdentityLines
from gateway.policy.model import Policy
from gateway.proxy.upstream.pool import Pool


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
    until_exp: bool = False
    """A tunnel or a stream ends with the token it was opened with, not only with the session."""


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """What a reload replaces, all at once. Whoever was judged by the old ones keeps them."""

    policy: Policy
    """Who may do what."""
    destinations: Mapping[str, Destination]
    """The upstreams, by name."""
    identity: IdentityLines
    """How a backend is told who asks."""
