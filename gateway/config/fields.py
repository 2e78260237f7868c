"""The types of single settings: how each is read from the file and described in the JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, SecretStr, WithJsonSchema
from pydantic_core import core_schema

from gateway.http.header_edits import value_mistake

from . import values
from .filled import Broken, Filled, Unset, show

ROLE = re.compile(r"[a-z0-9._:-]{1,64}")
UPSTREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
METHODS = frozenset({
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PROPPATCH", "MKCOL",
    "COPY", "MOVE", "LOCK", "UNLOCK", "SEARCH", "BIND", "UNBIND", "REBIND", "ACL", "REPORT",
    "MKACTIVITY", "CHECKOUT", "MERGE", "M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PURGE",
    "MKCALENDAR", "LINK", "UNLINK", "SOURCE", "QUERY",
})  # fmt: skip
"""What the HTTP parser (llhttp) knows, without CONNECT and TRACE, which are always refused."""

_CARRIERS_OF_HTTP = frozenset({"h2c", "h2", "http", "tls"})
"""h2c smuggling (Bishop Fox 2020); TLS inside HTTP (RFC 2817) hides requests just as well."""

FILLED_PATTERN = r"\$\{"
"""In the JSON Schema: a value that a variable or file fills in may stand anywhere."""
_SIZE_PATTERN = r"^[0-9]+ *(B|KiB|MiB|GiB|kB|MB|GB)$"
_DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
_RETENTION_PATTERN = r"^(([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+|forever)$"
_RATE_PATTERN = r"^[1-9][0-9]* */ *([1-9][0-9]*)? *(second|minute|hour|day|s|m|h|d)s?$"


class Section(BaseModel):
    """A group of settings: strict, frozen, and no unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", validate_default=True)


class UnsetSecret(SecretStr):
    """A secret that is not there (`check --allow-unset`). Nothing can sign or connect with it."""

    def __init__(self) -> None:
        super().__init__("")

    def get_secret_value(self) -> str:
        raise LookupError("this secret is unset; only checks may run without it")

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __len__(self) -> int:
        return 0

    def _display(self) -> str:
        return "unset"


def setting(default: Any, description: str, *examples: Any, alias: str | None = None) -> Any:
    """A setting with a default, written as the file would write it; `alias` if Python has taken its name."""
    if default == {}:
        # Made anew it is much quicker than as pydantic's deep copy of a default that could change.
        return Field(
            default_factory=dict, description=description, examples=list(examples) or None, alias=alias
        )
    return Field(default, description=description, examples=list(examples) or None, alias=alias)


def required(description: str, *examples: Any) -> Any:
    return Field(description=description, examples=list(examples) or None)


def written(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`parse`, but silent about a value whose mistake is reported already."""

    def read(value: Any) -> Any:
        if isinstance(value, Broken | Unset):
            raise ValueError("")
        return parse(value)

    return read


def whole(minimum: int, maximum: int) -> Callable[[Any], int]:
    """A whole number between two bounds, both included."""

    def parse(value: Any) -> int:
        number = values.parse_integer(value)
        if not minimum <= number <= maximum:
            raise ValueError(f"must be between {minimum} and {maximum}, not {show(value)}")
        return number

    return written(parse)


class OneOf:
    """A word out of a few. `hints` has sentences for other words that people will try."""

    def __init__(self, *words: str, hints: dict[str, str] | None = None) -> None:
        self._words = words
        self._hints = hints or {}

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(written(self._parse))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"enum": list(self._words)}

    def _parse(self, value: Any) -> str:
        if isinstance(value, str) and value in self._words:
            return str(value)
        if isinstance(value, str) and value in self._hints:
            raise ValueError(self._hints[value])
        raise ValueError(f"must be {choice(self._words)}, not {show(value)}{similar(value, self._words)}")


def choice(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def similar(value: Any, words: Iterable[str]) -> str:
    """`; did you mean "x"?`, or nothing."""
    close = closest(value, words) if isinstance(value, str) else ""
    return f'; did you mean "{close}"?' if close else ""


def closest(word: str, words: Iterable[str]) -> str:
    """The most similar of `words`, or nothing."""
    return next(iter(get_close_matches(word[:80], list(words), n=1)), "")


def _non_empty(value: Any) -> str:
    text = values.parse_text(value)
    if not text.strip():
        raise ValueError("can't be empty")
    return text


def _size(value: Any) -> int:
    size: int = values.parse_size(value)
    if size == 0:
        raise ValueError("must be more than 0")
    return size


def _positive_duration(value: Any) -> float:
    seconds: float = values.parse_duration(value)
    if seconds == 0:
        raise ValueError("must be more than 0s")
    return seconds


_MIN_STALENESS_S = 5


def _staleness(value: Any) -> float:
    seconds = _positive_duration(value)
    if seconds < _MIN_STALENESS_S:
        raise ValueError(f"must be at least {_MIN_STALENESS_S}s; one slow answer is no outage")
    return seconds


def _lifetime(value: Any) -> float:
    seconds = _positive_duration(value)
    if seconds != int(seconds):
        raise ValueError("must be whole seconds, as tokens count them")
    return seconds


def _role(value: Any) -> str:
    name = values.parse_text(value)
    if not ROLE.fullmatch(name):
        raise ValueError(f"must be a role: 1 to 64 of a-z 0-9 . _ : -, not {show(value)}")
    return name


def _scope(value: Any) -> str:
    name = values.parse_text(value)
    if not ROLE.fullmatch(name):
        raise ValueError(f"must be a scope: 1 to 64 of a-z 0-9 . _ : -, not {show(value)}")
    return name


def _method(value: Any) -> str:
    name = values.parse_text(value)
    if name in METHODS:
        return name
    if name in ("TRACE", "CONNECT"):
        raise ValueError(f"{name} is always refused; no route can allow it")
    if name == "*":
        raise ValueError("leave methods out to mean every method")
    if name.upper() in METHODS:
        raise ValueError(f"methods are written in capitals: {name.upper()}")
    raise ValueError(f"{show(value)} is no HTTP method{similar(name.upper(), METHODS)}")


def _upgrade(value: Any) -> str:
    """A protocol of RFC 9110 §7.8 in small letters, unless it would carry requests that nobody judges."""
    token = values.parse_text(value).lower()
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]{1,64}(/[!#$%&'*+.^_`|~0-9a-z-]{1,64})?", token):
        raise ValueError(f"must be a protocol as an Upgrade header names it, not {show(value)}")
    if token.partition("/")[0] in _CARRIERS_OF_HTTP:
        raise ValueError(f"{token} can't be switched to: nobody would judge the requests inside it")
    return token


def _header_value(value: Any) -> str:
    text = values.parse_text(value)
    if mistake := value_mistake(text):
        raise ValueError(mistake)
    return text


def _trusted(value: Any) -> values.Network | str:
    if value == "unix":
        return "unix"
    network = values.parse_network(value)
    if network.prefixlen < (8 if network.version == 4 else 7):
        raise ValueError(f"{network} is most of the internet: whoever is in it chooses their own address")
    return network


def _ops_listen(value: Any) -> values.Listen | None:
    if isinstance(value, str) and value.lower() == "off":
        return None
    if value is False or value is None:
        raise ValueError("write off to have no ops listener")
    return values.parse_listen(value)


def _retention(value: Any) -> float | None:
    """None is for ever."""
    if isinstance(value, str) and value.lower() == "forever":
        return None
    if value in (0, "0", "0s", "0d", "off", False, None):
        raise ValueError("write a time like 90d, or forever")
    return _positive_duration(value)


def _prefix(value: Any) -> str:
    prefix = values.parse_text(value)
    if prefix == "/":
        raise ValueError("can't be /, which would leave nothing to forward")
    if prefix.endswith("/"):
        raise ValueError(f"must not end with a slash; write {prefix.rstrip('/') or '/auth'}")
    if not re.fullmatch(r"(/[a-z0-9_~-][a-z0-9._~-]*)+", prefix):
        raise ValueError(f"must be a plain path in small letters like /auth, not {show(value)}")
    return prefix


def _path(value: Any) -> str:
    path = _non_empty(value)
    if path.startswith("/"):
        return path
    if "://" in path:
        raise ValueError("must be a path without a scheme and a host; routes name those in hosts")
    if path.startswith("^"):
        raise ValueError("must begin with /; there are no regular expressions")
    raise ValueError(f"must begin with /: write {show('/' + path)}")


def _target(value: Any) -> str:
    """What a request line can carry as it stands."""
    target = _path(value)
    if not re.fullmatch(r"[!-~]+", target) or "#" in target:
        raise ValueError(f"can't hold blanks, # or bytes beyond ASCII: {show(value)}; percent-encode them")
    return target


def _server_name(value: Any) -> str:
    name = values.parse_host_pattern(value)
    if name.startswith(("*", "[")):
        raise ValueError(f"must be one host name, not {show(value)}")
    return name


def _secret(value: Any) -> SecretStr:
    if isinstance(value, Unset):
        return UnsetSecret()
    if isinstance(value, Broken):
        raise ValueError("")
    if not isinstance(value, str):
        raise ValueError("must be text; quote it")
    return SecretStr(str(value))


def _former(value: Any) -> Any:
    """One stands for a list of one. A variable that is empty most of the time holds no secret."""
    items = (value,) if isinstance(value, str) else value
    return (
        tuple(each for each in items if each != "" or not is_filled(each))
        if isinstance(items, tuple)
        else items
    )


def is_filled(value: Any) -> bool:
    """Whether it came from outside the file, all of it."""
    return isinstance(value, Filled) and not isinstance(value, Broken | Unset)


def _as_list(value: Any) -> Any:
    """A single item stands for a list of one; a variable may hold several between commas."""
    if is_filled(value):
        parts = (part.strip() for part in value.split(","))
        return tuple(Filled(part, value.template) for part in parts if part)
    return (value,) if isinstance(value, str) else value


def _filled_list(value: Any) -> Any:
    """Only a variable may stand for a list, with its items between commas."""
    return _as_list(value) if isinstance(value, Filled) else value


def filled(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """A list that says nothing would be taken for one that says everything."""
    if not items:
        raise ValueError("can't be empty; leave it out, or name something")
    return items


def no_repetition(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise ValueError("can't be empty")
    seen: set[Any] = set()
    for item in items:
        if item in seen:
            raise ValueError(f"names {item} twice")
        seen.add(item)
    return items


def _text(kind: str, pattern: str = "") -> WithJsonSchema:
    """How the JSON Schema describes a notation. Its title is what the reference calls the type."""
    return WithJsonSchema({"title": kind, "type": "string"} | ({"pattern": pattern} if pattern else {}))


def _bounded(minimum: int, maximum: int) -> WithJsonSchema:
    kind = f"whole number, {minimum} to {maximum}"
    return WithJsonSchema({"title": kind, "type": "integer", "minimum": minimum, "maximum": maximum})


_SIZES = WithJsonSchema(
    {
        "title": "size",
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _SIZE_PATTERN}],
    }
)
_RATES = _text("rate", _RATE_PATTERN)
_LISTEN = _text("host:port or unix:/path")
_OPS = _text("host:port, unix:/path or off")
_SWITCH = WithJsonSchema({"title": "true or false", "type": "boolean"})
_DURATION = _text("duration", _DURATION_PATTERN)
_RETENTION = _text("duration or forever", _RETENTION_PATTERN)
_STATUSES = WithJsonSchema(
    {
        "title": "status or range of statuses",
        "anyOf": [
            {"type": "integer", "minimum": 200, "maximum": 599},
            {"type": "string", "pattern": "^[2-5][0-9][0-9]( *- *[2-5][0-9][0-9])?$"},
        ],
    }
)

Text = Annotated[str, PlainValidator(written(_non_empty)), _text("text")]
Path = Annotated[str, PlainValidator(written(_path)), _text("path", "^/")]
Target = Annotated[str, PlainValidator(written(_target)), _text("path", "^/")]
ServerName = Annotated[str, PlainValidator(written(_server_name)), _text("host")]
Statuses = Annotated[values.Statuses, PlainValidator(written(values.parse_statuses)), _STATUSES]
Switch = Annotated[
    bool,
    PlainValidator(written(values.parse_switch)),
    WithJsonSchema({"title": "true or false", "type": "boolean"}),
]
Size = Annotated[int, PlainValidator(written(_size)), _SIZES]
SizeOrNone = Annotated[int, PlainValidator(written(values.parse_size)), _SIZES]
Duration = Annotated[float, PlainValidator(written(_positive_duration)), _DURATION]
DurationOrZero = Annotated[float, PlainValidator(written(values.parse_duration)), _DURATION]
Staleness = Annotated[float, PlainValidator(written(_staleness)), _DURATION]
Lifetime = Annotated[float, PlainValidator(written(_lifetime)), _DURATION]
Retention = Annotated[float | None, PlainValidator(written(_retention)), _RETENTION]
OnError = Annotated[str, OneOf("deny", "allow")]
RateLimit = Annotated[values.Rate, PlainValidator(written(values.parse_rate)), _RATES]
Secret = Annotated[SecretStr, PlainValidator(_secret), _text("text, secret")]
FormerSecrets = Annotated[
    tuple[Secret, ...], BeforeValidator(_former, json_schema_input_type=str | tuple[str, ...])
]
Role = Annotated[str, PlainValidator(written(_role)), _text("role", "^[a-z0-9._:-]{1,64}$")]
Scope = Annotated[str, PlainValidator(written(_scope)), _text("scope", "^[a-z0-9._:-]{1,64}$")]
Method = Annotated[str, PlainValidator(written(_method)), WithJsonSchema({"enum": sorted(METHODS)})]
UpgradeToken = Annotated[str, PlainValidator(written(_upgrade)), _text("protocol")]
HeaderValue = Annotated[str, PlainValidator(written(_header_value)), _text("text")]
Email = Annotated[str, PlainValidator(written(values.parse_email)), _text("e-mail", "@")]
Host = Annotated[str, PlainValidator(written(values.parse_host_pattern)), _text("host")]
Moment = Annotated[float, PlainValidator(written(values.parse_moment)), _text("day or time", "^[0-9]{4}-")]
Origin = Annotated[str, PlainValidator(written(values.parse_origin)), _text("origin", r"^(\*|https?://)")]
CorsHeader = Annotated[str, PlainValidator(written(values.parse_header_name)), _text("header name")]
Network = Annotated[values.Network, PlainValidator(written(values.parse_network)), _text("network")]
Address = Annotated[values.Address, PlainValidator(written(values.parse_address)), _text("IP address")]
Trusted = Annotated[values.Network | str, PlainValidator(written(_trusted)), _text("network or unix")]
Listen = Annotated[values.Listen, PlainValidator(written(values.parse_listen)), _LISTEN]
OpsListen = Annotated[values.Listen | None, PlainValidator(written(_ops_listen)), _OPS]
PublicUrl = Annotated[str, PlainValidator(written(values.parse_public_url)), _text("URL", "^https?://")]
UpstreamUrl = Annotated[
    values.UpstreamUrl,
    PlainValidator(written(values.parse_upstream_url)),
    _text("URL or unix:/path", "^(https?://|unix:/)"),
]
Prefix = Annotated[str, PlainValidator(written(_prefix)), _text("path", "^/")]
HeaderCount = Annotated[int, PlainValidator(whole(1, 10_000)), _bounded(1, 10_000)]
Connections = Annotated[int, PlainValidator(whole(1, 1_000_000)), _bounded(1, 1_000_000)]
QueueSize = Annotated[int, PlainValidator(whole(0, 1_000_000)), _bounded(0, 1_000_000)]
Threshold = Annotated[int, PlainValidator(whole(1, 100)), _bounded(1, 100)]
Failures = Annotated[int, PlainValidator(whole(0, 1000)), _bounded(0, 1000)]
SessionCount = Annotated[int, PlainValidator(whole(0, 10_000)), _bounded(0, 10_000)]
TokenCount = Annotated[int, PlainValidator(whole(0, 10_000)), _bounded(0, 10_000)]
BcryptCost = Annotated[int, PlainValidator(whole(4, 18)), _bounded(4, 18)]
PasswordLength = Annotated[int, PlainValidator(whole(8, 128)), _bounded(8, 128)]

one_or_many = BeforeValidator(_as_list, json_schema_input_type=str | tuple[str, ...])
filled_list = BeforeValidator(
    _filled_list, json_schema_input_type=Annotated[str, Field(pattern=FILLED_PATTERN)] | tuple[str, ...]
)
