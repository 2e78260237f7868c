"""One address of a backend, and how a connection to it is opened."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """Where to connect to. Two are never the same: one URL listed twice counts twice."""

    host: str
    """Name or IP address; empty for a unix socket."""
    port: int
    """TCP port; 0 for a unix socket."""
    path: str | None = None
    """The unix socket's path, or None."""
    tls: bool = False
    """Speak TLS, verify the certificate against `host`."""

    @classmethod
    def from_url(cls, url: str) -> Server:
        """`http://host[:port]`, `https://host[:port]` or `unix:/path`; ValueError for anything else."""
        if url.startswith("unix:") and url[5:6] == "/":
            return cls(host="", port=0, path=url.removeprefix("unix:"))
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"not an upstream URL: {url!r}; use http://, https:// or unix:/path")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"an upstream URL has a scheme, a host and a port, nothing else: {url!r}")
        return cls(parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme], tls=parts.scheme == "https")

    async def open(
        self, protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None
    ) -> None:
        """Connect; the protocol gets `connection_made`. `context` is for TLS and must be there then.

        Raises OSError (ssl.SSLError is one).
        """
        loop = asyncio.get_running_loop()
        if self.path is not None:
            await loop.create_unix_connection(protocol, self.path)
        elif self.tls:
            name = self.host
            await loop.create_connection(protocol, name, self.port, ssl=context, server_hostname=name)
        else:
            await loop.create_connection(protocol, self.host, self.port)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def tls_context(cafile: str | None = None) -> ssl.SSLContext:
    """Certificates and names are verified, TLS 1.2 at least, and HTTP/1.1 is the only protocol offered.

    Raises OSError that names `cafile` if it can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=cafile)
    except OSError as error:  # OpenSSL's does not say which file
        raise OSError(error.errno, error.strerror or str(error), cafile) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
