"""Who is at the other end: the socket peer, or what a trusted proxy says of it.

`X-Forwarded-*` is believed only from `trusted_proxies`, and read from the
right: every hop appends the address it saw, so the rightmost entry that is not
one of our own proxies is the last thing a trusted hop vouches for. All that
stands left of it is the client's own writing.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from gateway.http.head import Head

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LONGEST = 100
"""Characters of an address with brackets, port, zone and blanks. Longer ones are none, and not remembered."""


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The peers whose `X-Forwarded-*` headers are believed."""

    networks: tuple[Network, ...] = ()
    """CIDRs of proxies."""
    unix: bool = False
    """Whoever connects over a unix socket is trusted too."""

    def __contains__(self, address: Address | None) -> bool:
        if address is None:
            return self.unix
        return any(address.version == network.version and address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Client:
    """The client as the gateway sees it, and what the backend is told about it."""

    address: Address | None
    """The client's address; None if nobody knows it: a unix socket, a trusted header that says `unknown`."""
    name: str
    """The address for logs; "unix" for a unix socket, else "unknown"."""
    forwarded_for: bytes
    """The value of `X-Forwarded-For`: the client first, then the trusted hops. Empty if unknown."""
    forwarded_proto: bytes
    """The value of `X-Forwarded-Proto`: `http` or `https`."""
    trusted: bool
    """The socket peer is a trusted proxy: its request id and trace are taken over too."""
    forwarded_host: bytes | None = None
    """The `X-Forwarded-Host` of a trusted proxy, if it sent one."""


@dataclass(frozen=True, slots=True)
class ClientAddresses:
    """Finds the client of a request."""

    trusted: TrustedProxies

    def of(self, head: Head) -> Client:
        """The client behind `head`. Never raises: what can't be parsed is not believed."""
        peer = parse_address(head.peer) if head.peer else None
        if peer not in self.trusted:
            return _direct(head.peer, head.scheme)
        return self._forwarded(head, peer)

    def _forwarded(self, head: Head, peer: Address | None) -> Client:
        chain, known = self._chain(_values(head, b"x-forwarded-for"), peer)
        proto = _last(_values(head, b"x-forwarded-proto")).lower()
        host = _last(_values(head, b"x-forwarded-host"))
        address = chain[0] if chain and known else None
        return Client(
            address=address,
            name=str(address or ("unknown" if head.peer else "unix")),
            forwarded_for=", ".join(map(str, chain)).encode(),
            forwarded_proto=proto if proto in (b"http", b"https") else head.scheme.encode(),
            trusted=True,
            forwarded_host=host if host.isascii() and host else None,
        )

    def _chain(self, values: list[bytes], peer: Address | None) -> tuple[list[Address], bool]:
        """From the client to the peer: the entries from the right, up to the first untrusted one.

        An entry that is no address (`unknown`, as Squid writes it) makes the
        client unknown: the proxy behind it must not be taken for the client,
        whose address a rule would then find to be one of ours.
        """
        chain = [peer] if peer is not None else []
        for entry in reversed(values):
            address = parse_address(entry.decode("latin-1"))
            if address is None:
                return chain, False
            chain.insert(0, address)
            if address not in self.trusted:
                break
        return chain, True


@lru_cache(maxsize=4096)
def _direct(peer: str | None, scheme: str) -> Client:
    address = parse_address(peer) if peer else None
    return Client(
        address, str(address or "unix"), str(address or "").encode(), scheme.encode(), trusted=False
    )


def parse_address(text: str) -> Address | None:
    """One address as proxies write it: bare, quoted, bracketed, with a port or a zone; else None.

    An IPv4-mapped IPv6 address is the IPv4 address (RFC 4291 §2.5.5.2), so one
    client can't be two.
    """
    return _parse(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> Address | None:
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _values(head: Head, name: bytes) -> list[bytes]:
    """Every entry of every line called `name`, in order. Empty ones are none (RFC 9110 §5.6.1)."""
    return [
        entry.strip()
        for line_name, value in head.headers
        if line_name.lower() == name
        for entry in value.split(b",")
        if entry.strip()
    ]


def _last(values: list[bytes]) -> bytes:
    return values[-1] if values else b""
