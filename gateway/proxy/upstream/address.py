"""Where a server of an upstream listens, how a connection to it is opened, and what TLS needs for it."""

from __future__ import annotations

import asyncio
import errno
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect to."""

    host: str
    """Name or IP address; empty for a unix socket."""
    port: int
    """TCP port; 0 for a unix socket."""
    path: str | None = None
    """The unix socket's path, or None."""
    tls: bool = False
    """Speak TLS, and verify the certificate."""
    server_name: str = ""
    """The name to ask for (SNI) and to verify the certificate against; empty for `host`."""

    @classmethod
    def from_url(cls, url: str) -> Address:
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
    ) -> asyncio.BaseTransport:
        """Connect; the protocol gets `connection_made`. `context` is for TLS and must be there then.

        Raises OSError (ssl.SSLError is one).
        """
        loop = asyncio.get_running_loop()
        if self.path is not None:
            transport, _ = await loop.create_unix_connection(protocol, self.path)
        elif self.tls:
            name = self.server_name or self.host
            transport, _ = await loop.create_connection(
                protocol, self.host, self.port, ssl=context, server_hostname=name
            )
        else:
            transport, _ = await loop.create_connection(protocol, self.host, self.port)
        return transport

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """The files for TLS with an upstream. Equal as long as the files are the same, inside too."""

    ca: str | None = None
    """PEM with the authorities to trust; None for the system's."""
    certificate: str | None = None
    """PEM with our own certificate and its chain, for a backend that asks for one."""
    key: str | None = None
    """PEM with its key."""
    versions: tuple[tuple[int, int, int], ...] = ()
    """What tells one content of these files from the next: see `read`."""

    @classmethod
    def read(cls, ca: str | None = None, certificate: str | None = None, key: str | None = None) -> Tls:
        """With the files' present versions. Raises OSError that names the file that can't be used."""
        files = [file for file in (ca, certificate, key) if file is not None]
        return cls(ca, certificate, key, tuple(_version(file) for file in files))

    def context(self) -> ssl.SSLContext:
        """Certificates and names are verified, TLS 1.2 at least, and HTTP/1.1 is the only protocol offered.

        Raises OSError that names the file that can't be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:  # OpenSSL's does not say which file
            raise OSError(error.errno, error.strerror or str(error), self.ca) from error
        if self.certificate is not None:
            try:
                # With a password, an encrypted key is an error instead of a question on the terminal.
                context.load_cert_chain(self.certificate, self.key, password="")
            except OSError as error:
                raise OSError(error.errno, error.strerror or str(error), self._pair()) from error
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _pair(self) -> str:
        return f"{self.certificate}, {self.key}" if self.key else f"{self.certificate}"


def _version(file: str) -> tuple[int, int, int]:
    """A file that is written anew or replaced has another one."""
    found = Path(file).stat()
    if not stat.S_ISREG(found.st_mode):  # OpenSSL would wait for the other end of a pipe
        raise OSError(errno.EINVAL, "not a regular file", file)
    return found.st_ino, found.st_size, found.st_ctime_ns
