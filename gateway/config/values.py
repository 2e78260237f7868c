"""The small notations of `gateway.yaml`: sizes, durations, rates, addresses.

Each parser takes what the YAML says (or what a variable held) and returns a
typed value, or raises ValueError with a sentence for the person who wrote it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .filled import show

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SIZE = re.compile(r"(\d{1,12})\s*(B|KiB|MiB|GiB|kB|MB|GB)")
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,6})?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"([1-9]\d{0,8})\s*/\s*([1-9]\d{0,3})?\s*(second|minute|hour|day|s|m|h|d)s?")
_STATUSES = re.compile(r"([2-5]\d\d)(?:\s*-\s*([2-5]\d\d))?")
_RATE_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.IGNORECASE)
_PORT = re.compile(r"\d{1,5}")
_SOCKET_PATH_BYTES = 107
"""`sun_path` on Linux holds 108 bytes with the closing NUL (unix(7))."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many events in so many seconds."""

    amount: int
    """Events."""
    seconds: int
    """The window's length."""

    def __str__(self) -> str:
        return f"{self.amount}/{self.seconds}s"


@dataclass(frozen=True, slots=True)
class Statuses:
    """A range of response statuses, both ends included."""

    first: int
    """200 to 599."""
    last: int
    """200 to 599, not below the first."""

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a server listens: a host and a port, or the path of a unix socket."""

    host: str
    """A name or an address without brackets; empty for a unix socket."""
    port: int
    """0 takes any free port, and for a unix socket."""
    path: str
    """The unix socket, or empty."""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class UpstreamUrl:
    """Where a backend listens."""

    scheme: str
    """`http`, `https` or `unix`."""
    host: str
    """A name or an address without brackets; empty for a unix socket."""
    port: int
    """0 for a unix socket."""
    path: str
    """The unix socket, or empty."""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.scheme}://{_bracketed(self.host)}:{self.port}"

    @property
    def authority(self) -> str:
        """What a Host header says of it: no default port, and `localhost` for a unix socket."""
        if self.path:
            return "localhost"
        usual = _DEFAULT_PORTS.get(self.scheme) == self.port
        return _bracketed(self.host) if usual else f"{_bracketed(self.host)}:{self.port}"


def parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {show(value)}" + ("" if _nested(value) else "; quote it"))
    return str(value)


def parse_integer(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d{1,18}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {show(value)}")
    return value


def parse_switch(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {show(value)}")
    return value


def parse_size(value: Any) -> int:
    """`10MiB` (or a plain number of bytes) in bytes."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(match[1]) * _SIZE_UNITS[match[2]]
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"must be a size like 8KiB or 10MiB, not {show(value)}")
    return value


def parse_duration(value: Any) -> float:
    """`15m`, `500ms`, `1h30m` in seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"needs a unit: write {value}s for seconds, {value}m for minutes")
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError(f"must be a duration like 500ms, 10s, 15m, 12h or 7d, not {show(value)}")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(value))


def parse_rate(value: Any) -> Rate:
    """`5/minute`, `100/10s`."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be a rate like 5/minute or 100/hour, not {show(value)}")
    return Rate(amount=int(match[1]), seconds=int(match[2] or 1) * _RATE_UNITS[match[3][0]])


def parse_statuses(value: Any) -> Statuses:
    """`204`, or `200-399`."""
    match = _STATUSES.fullmatch(str(value)) if isinstance(value, str | int) else None
    if match is None:
        raise ValueError(f"must be a status like 204 or a range like 200-399, not {show(value)}")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise ValueError(f"must begin with the smaller one: write {last}-{first}")
    return Statuses(first, last)


def parse_listen(value: Any) -> Listen:
    """`host:port`, `[::1]:port` or `unix:/path`."""
    if not isinstance(value, str):
        raise ValueError(f"must be host:port or unix:/path, not {show(value)}")
    if value.startswith("unix:"):
        return Listen(host="", port=0, path=_socket_path(value.removeprefix("unix:")))
    host, colon, port = value.rpartition(":")
    if not colon or "://" in value or not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"must be host:port or unix:/path, not {show(value)}")
    if not host:
        raise ValueError(f"needs a host: write 127.0.0.1:{port}, or 0.0.0.0:{port} for every interface")
    return Listen(host=_host(host, value), port=int(port), path="")


def parse_upstream_url(value: Any) -> UpstreamUrl:
    """`http://host:port`, `https://host` or `unix:/path`. Never a path: routes have those."""
    if not isinstance(value, str):
        raise ValueError(f"must be a URL like http://127.0.0.1:9000 or unix:/path, not {show(value)}")
    if value.startswith("unix:"):
        return UpstreamUrl(scheme="unix", host="", port=0, path=_socket_path(value.removeprefix("unix:")))
    parts = _split_url(value)
    if parts.path not in ("", "/"):
        raise ValueError("can't have a path; routes choose paths, and strip_prefix shortens them")
    host = _host(parts.netloc.rpartition(":")[0] if _has_port(parts.netloc) else parts.netloc, value)
    port = parts.port if parts.port is not None else _DEFAULT_PORTS[parts.scheme]
    if port == 0:
        raise ValueError("needs a real port, not 0")
    return UpstreamUrl(scheme=parts.scheme, host=host.lower(), port=port, path="")


def parse_public_url(value: Any) -> str:
    """An origin, `https://name[:port]`, without a closing slash."""
    if not isinstance(value, str):
        raise ValueError(f"must be a URL like https://app.example.com, not {show(value)}")
    parts = _split_url(value)
    if parts.path not in ("", "/"):
        raise ValueError("can't have a path; the gateway serves a whole origin")
    _host(parts.netloc.rpartition(":")[0] if _has_port(parts.netloc) else parts.netloc, value)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def parse_network(value: Any) -> Network:
    """A CIDR or a single address. Host bits are a mistake, for they hide a typing error."""
    if not isinstance(value, str):
        raise ValueError(f"must be a network like 10.0.0.0/8, not {show(value)}")
    try:
        network = ip_network(value)
    except ValueError:
        raise ValueError(_why_no_network(value)) from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError("is an IPv4 network in IPv6 clothes; write it as IPv4")
    return network


def parse_address(value: Any) -> Address:
    if not isinstance(value, str):
        raise ValueError(f"must be an IP address, not {show(value)}")
    try:
        return ip_address(value)
    except ValueError:
        raise ValueError(f"must be an IP address, not {show(value)}") from None


def parse_host_pattern(value: Any) -> str:
    """`api.example.com` or `*.example.com`, folded to small letters, without a closing dot."""
    if not isinstance(value, str):
        raise ValueError(f"must be a host like api.example.com or *.example.com, not {show(value)}")
    if value == "*":
        raise ValueError("leave hosts out to mean every host")
    bare = value.removesuffix(".").lower()
    if bare.startswith("[") or not _HOST_NAME.fullmatch(bare.removeprefix("*.")):
        return _odd_host(value)
    return bare


def parse_moment(value: Any) -> float:
    """`2027-01-31` (00:00 UTC) or `2027-01-31T18:00:00+01:00` (RFC 3339), in Unix seconds."""
    text = value if isinstance(value, str) else ""
    try:
        if _DAY.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text.upper()).timestamp()
    except ValueError as error:
        raise ValueError(f"there is no such time: {error}") from None
    raise ValueError(f"must be a day like 2027-01-31 or a time like 2027-01-31T18:00:00Z, not {show(value)}")


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9-]{10}[Tt][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def parse_origin(value: Any) -> str:
    """`https://app.example.com`, `https://*.example.com` or `*`, as browsers write it (RFC 6454 §6.2)."""
    if value == "*":
        return "*"
    if value == "null":
        raise ValueError(
            "null is said by pages that hide where they are from, so anyone could; name an origin"
        )
    match = _ORIGIN.fullmatch(value.lower()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be an origin like https://app.example.com, without a path, not {show(value)}")
    default = {"http": ":80", "https": ":443"}[match["scheme"]]
    return match[0].removesuffix(default)


_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(\*\.)?([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?"
)


def parse_header_name(value: Any) -> str:
    """A token of RFC 9110 §5.6.2, or `*`."""
    if not isinstance(value, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", value):
        raise ValueError(f"must be the name of a header, not {show(value)}")
    return value


def parse_email(value: Any) -> str:
    """An e-mail in its canonical form: trimmed, NFKC, case folded."""
    email = unicodedata.normalize("NFKC", value).strip().casefold() if isinstance(value, str) else ""
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        raise ValueError(f"must be an e-mail address, not {show(value)}")
    return email


def canonical_host(host: str) -> str:
    """One spelling for every way to write the same host."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")


def _nested(value: Any) -> bool:
    return value is None or isinstance(value, dict | tuple)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _socket_path(path: str) -> str:
    if path.startswith("//"):
        path = "/" + path.lstrip("/")
    if not path.startswith("/") or "\0" in path:
        raise ValueError("needs the socket's absolute path: write unix:/run/app.sock")
    if len(path.encode(errors="surrogatepass")) > _SOCKET_PATH_BYTES:
        raise ValueError(
            f"has a socket path longer than {_SOCKET_PATH_BYTES} bytes, which the system refuses"
        )
    return path


def _host(text: str, whole: str) -> str:
    """A host name, or an address without its brackets."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if bare != text:
        try:
            return str(IPv6Address(bare))
        except ValueError:
            raise ValueError(f"has a bad IPv6 address: {show(whole)}") from None
    if ":" in bare:
        raise ValueError("needs brackets around the IPv6 address: write [::1]:8080")
    if not _HOST_NAME.fullmatch(bare.removesuffix(".")) or _like_bad_ipv4(bare):
        raise ValueError(f"has a bad host name: {show(whole)}")
    return bare


def _like_bad_ipv4(host: str) -> bool:
    """`127.1` and `0177.0.0.1`: names to us, addresses to some resolvers (so refused)."""
    if not host.rpartition(".")[2].isdigit():
        return False
    try:
        IPv4Address(host)
    except ValueError:
        return True
    return False


def _has_port(netloc: str) -> bool:
    return (netloc.rpartition(":")[2].isdigit() and netloc.count(":") == 1) or "]:" in netloc


def _split_url(value: str) -> SplitResult:
    """The parts of an http(s) origin; messages quote nothing before credentials are ruled out."""
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in value):
        raise ValueError("can't hold blanks or control characters")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL; write http://127.0.0.1:9000") from None
    if "@" in parts.netloc:
        raise ValueError("can't hold a user name or password")
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        raise ValueError(f"must begin with http:// or https://, not {show(value)}")
    if "?" in value or "#" in value:
        raise ValueError("can't have a query or a fragment")
    if port is None and parts.netloc.endswith(":"):
        raise ValueError("has a colon and no port")
    return parts


def _why_no_network(value: str) -> str:
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        return f"must be a network like 10.0.0.0/8 or an address, not {show(value)}"
    return f"{show(value)} has bits set behind its prefix; write {network}"


def _odd_host(value: str) -> str:
    """An IPv6 address in brackets, or the reason why this is no host."""
    name, _, port = value.rpartition(":")
    if port.isdigit() and (_HOST_NAME.fullmatch(name.removeprefix("*.")) or name.endswith("]")):
        raise ValueError(f'hosts compare without a port; write "{name}"')
    if value.startswith("[") and value.endswith("]"):
        try:
            return f"[{IPv6Address(value[1:-1])}]"
        except ValueError:
            pass
    if not value.isascii():
        raise ValueError("write an international name in its xn-- form")
    raise ValueError(f"must be a host like api.example.com or *.example.com, not {show(value)}")
