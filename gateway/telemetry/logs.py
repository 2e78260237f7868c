"""Logs: one JSON object a line, all of them through one outlet.

Every line has `time` (RFC 3339, UTC), `level` and `event`. Three things write:

- `DecisionLog`, once per request (`"event": "request"`), built by hand since it is
  on the path of every request;
- the standard library's logging, so also uvicorn and asyncio, through `JsonFormatter`;
- the audit trail (`"event": "audit"`, see `audit.py`).

How lines reach the descriptor, and what happens when nobody takes them: `outlet.py`.

Values are untrusted, so everything is written as JSON in ASCII: a path with a newline, an
escape sequence or U+2028 in it stays one harmless line. Bytes are shown as
latin-1, which loses nothing. A query is never logged. As a last net, whatever
looks like a credential is masked; the first one is not to log credentials.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from json import dumps
from json.encoder import encode_basestring_ascii as quote
from typing import Any, TextIO

from gateway.telemetry.outlet import Outlet, target_of

REQUEST_ID: ContextVar[str | None] = ContextVar("gateway.request_id", default=None)
"""The request being answered, for records and audit events that come from below its handler."""
CLIENT: ContextVar[str | None] = ContextVar("gateway.client", default=None)
"""The address that it came from, likewise."""


def configure(stream: TextIO, *, level: int | str = logging.INFO) -> Outlet:
    """Send all logging of this process to `stream` as JSON lines. Close the outlet at the end."""
    outlet = Outlet(target_of(stream), report=_dropped_line)
    root = logging.getLogger()
    root.handlers = [JsonHandler(outlet)]
    root.setLevel(level.upper() if isinstance(level, str) else level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)  # it tells the story of each listener; ours is told once
    logging.getLogger("uvicorn.access").handlers = []
    logging.getLogger("uvicorn.access").propagate = False  # the decision line says it all
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    return outlet


# -- the decision line ---------------------------------------------------------------------------------------


@dataclass(init=False, slots=True)
class Decided:
    """What is known about one request, filled along its way and written at its end."""

    request_id: str
    """Sent to the backend and back to the client, so their logs meet ours."""
    client: str
    """The client's address, or "unix"."""
    method: str
    """As on the request line."""
    path: bytes
    """The raw path. A query is cut off."""
    status: int = 0
    """As the client saw it; 0 if it saw none."""
    host: bytes = b""
    """The Host header, once the head was read; empty under `/auth`."""
    user: str | None = None
    """The user's id, if a token held."""
    admin: bool | None = None
    """Whether that user is an admin, as the token says; None without one."""
    roles: tuple[str, ...] | None = None
    """That user's roles, likewise."""
    credential: str | None = None
    """The API token's id, if it was one."""
    scopes: tuple[str, ...] | None = None
    """What that token was given; None without one."""
    route: str | None = None
    """The label of the route that decided."""
    verdict: str = ""
    """"allow" or "deny"."""
    reason: str = ""
    """A stable code: why."""
    would: str = ""
    """Why a route that only reports would have refused; empty if it would not."""
    upstream: str | None = None
    """Where it went."""
    duration_ms: float | None = None
    """From the head's arrival to the answer's end; None is "until it is written to the log"."""
    upstream_ms: float | None = None
    """Of which spent with the backend."""
    bytes_in: int = 0
    """Of the request's body."""
    bytes_out: int = 0
    """Of the answer's body."""
    began: float = field(default=0.0, repr=False)
    """When it arrived, by the clock of durations."""

    def __init__(self, request_id: str, client: str, method: str, path: bytes, **known: Any) -> None:
        """`known`: any of the other fields."""
        self.began = time.perf_counter()
        self.request_id, self.client, self.method, self.path = request_id, client, method, path
        self.status, self.host, self.verdict, self.reason, self.would = 0, b"", "", "", ""
        self.user = self.admin = self.roles = self.route = self.upstream = None
        self.credential = self.scopes = None
        self.duration_ms = self.upstream_ms = None
        self.bytes_in = self.bytes_out = 0
        for name, value in known.items():
            setattr(self, name, value)

    def another(self, request_id: str) -> Decided:
        """The record of a request that comes now and differs in nothing that was known of this one."""
        it: Decided = object.__new__(Decided)
        it.began = time.perf_counter()
        it.request_id, it.client, it.method, it.path = request_id, self.client, self.method, self.path
        it.host, it.user, it.admin, it.roles = self.host, self.user, self.admin, self.roles
        it.route, it.verdict, it.reason, it.would = self.route, self.verdict, self.reason, self.would
        it.upstream = it.duration_ms = it.upstream_ms = None
        it.credential, it.scopes = self.credential, self.scopes
        it.status = it.bytes_in = it.bytes_out = 0
        return it


class DecisionLog:
    """Writes one line per request. `write` takes whole lines: `Outlet.write`."""

    def __init__(self, write: Callable[[bytes], object], *, clock: Callable[[], float] = time.time) -> None:
        self._write = write
        self._stamp = _Stamp(clock)
        self._pieces: dict[_Repeated, tuple[str, str]] = {}
        self._paths: dict[bytes, str] = {}

    def write(self, it: Decided) -> None:
        path = self._paths.get(it.path) or self._shown(it.path)
        if it.duration_ms is None:
            it.duration_ms = (time.perf_counter() - it.began) * 1000.0
        repeated = (
            it.client, it.method, it.host, it.status, it.user, it.admin, it.roles, it.route, it.verdict,
            it.reason, it.would, it.upstream, it.credential, it.scopes,
        )  # fmt: skip
        before, behind = self._pieces.get(repeated) or self._render(repeated)
        upstream_ms = "null" if it.upstream_ms is None else f"{it.upstream_ms:.3f}"
        line = (
            f'{{"time":"{self._stamp.now()}","level":"info","event":"request"'
            f',"requestId":{quote(it.request_id)}{before}{path}{behind}{it.duration_ms:.3f}'
            f',"upstreamMs":{upstream_ms},"bytesIn":{it.bytes_in},"bytesOut":{it.bytes_out}}}\n'
        )
        self._write(line.encode("ascii"))

    def _shown(self, raw: bytes) -> str:
        """The path as it stands in the line, quoted; short ones are remembered."""
        path = raw.partition(b"?")[0].decode("latin-1")
        if "eyJ" in path or "gwt_" in path:  # a token in a path, where none belongs
            path = masked(path)
        shown = quote(path)
        if len(raw) <= _LONGEST_PATH:
            if len(self._paths) >= _MOST_PIECES:
                self._paths.clear()
            self._paths[raw] = shown
        return shown

    def _render(self, repeated: _Repeated) -> tuple[str, str]:
        """What stands before and behind the path. Most of it is the same for many requests."""
        (
            client, method, host, status, user, admin, roles, route, verdict, reason, would, upstream,
            credential, scopes,
        ) = repeated  # fmt: skip
        named = _quoted(host.decode("latin-1") or None)
        by_token = ""
        if credential is not None:
            by_token = f',"credential":{quote(credential)},"scopes":{_listed(scopes)}'
        softened = f',"would":{quote(would)}' if would else ""
        pieces = (
            f',"client":{quote(client)},"method":{quote(method)},"host":{named},"path":',
            f',"status":{status},"user":{_quoted(user)},"admin":{_SAID[admin]},"roles":{_listed(roles)}{by_token}'
            f',"route":{_quoted(route)},"verdict":{quote(verdict)},"reason":{quote(reason)}{softened}'
            f',"upstream":{_quoted(upstream)},"durationMs":',
        )
        if len(host) <= _LONGEST_HOST:
            if len(self._pieces) >= _MOST_PIECES:
                self._pieces.clear()
            self._pieces[repeated] = pieces
        return pieces


_Repeated = tuple[
    str,
    str,
    bytes,
    int,
    str | None,
    bool | None,
    tuple[str, ...] | None,
    str | None,
    str,
    str,
    str,
    str | None,
    str | None,
    tuple[str, ...] | None,
]
_SAID = {True: "true", False: "false", None: "null"}
_MOST_PIECES = 4096
"""Remembered; some 3 MB."""
_LONGEST_HOST = 255
"""Bytes of a Host whose lines are remembered: a client could send 4096 others, each as long as a head."""
_LONGEST_PATH = 128
"""Bytes of a path that is remembered; there is no end of the others."""


def _quoted(text: str | None) -> str:
    return "null" if text is None else quote(text)


def _listed(names: tuple[str, ...] | None) -> str:
    return "null" if names is None else f"[{','.join(map(quote, names))}]"


class _Stamp:
    """The time as RFC 3339 with milliseconds; what changes less often is kept."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._milliseconds = self._second = -1
        self._date = self._text = ""

    def now(self) -> str:
        milliseconds = int(self._clock() * 1000.0)
        if milliseconds != self._milliseconds:
            self._milliseconds = milliseconds
            second, rest = divmod(milliseconds, 1000)
            if second != self._second:
                self._second, self._date = second, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._text = f"{self._date}{rest:03d}Z"
        return self._text


def timestamp(now: float) -> str:
    """Unix seconds as the `time` of every line."""
    return _Stamp(lambda: now).now()


# -- the standard library's logging --------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """A log record as one JSON line: message, extras and traceback are fields, all masked."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "event": _event_of(record.name),
            "logger": record.name,
            "message": _message(record),
        }
        request_id = REQUEST_ID.get()
        if request_id is not None:
            fields["requestId"] = request_id
        fields |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json_line(fields)


class JsonHandler(logging.Handler):
    """Records go out at once, behind the lines that wait."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._outlet.write_at_once(self.format(record).encode("ascii"))


_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that don't fit the message, or whose repr fails: still worth a line
        return str(record.msg)


def _event_of(logger: str) -> str:
    """`gateway.proxy.exchange` -> proxy, `uvicorn.error` -> server, others by their first name."""
    first, _, rest = logger.partition(".")
    if first == "gateway" and rest:
        return rest.partition(".")[0]
    return "server" if first == "uvicorn" else first


def _dropped_line(count: int) -> bytes:
    fields = {
        "time": timestamp(time.time()),
        "level": "warning",
        "event": "log_lines_dropped",
        "count": count,
    }
    return json_line(fields).encode("ascii")


def json_line(fields: dict[str, object]) -> str:
    """One line, ASCII, every text masked."""
    return dumps(_object(fields)) + "\n"


def _object(fields: dict[str, object]) -> dict[str, object]:
    return {name: _MASK if _SECRET_NAME.search(name) else _plain(value) for name, value in fields.items()}


def _plain(value: object) -> object:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return _object({str(name): item for name, item in value.items()})
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return masked(value.decode("latin-1"))
    return masked(str(value))


# -- the last net --------------------------------------------------------------------------------------------

_MASK = "***"
_CREDENTIALS = re.compile(
    r"""
      (?P<scheme> \b(?:bearer|basic)\s+ ) [\w.~+/=-]+        # Authorization
    | \beyJ[\w-]{8,}(?:\.[\w-]*)*                            # a JSON Web Token or a part of one
    | \bgwt_\w{8,}                                           # an API token or a part of one
    | \$2[abxy]\$\d\d\$[./\w]{53}                            # a bcrypt hash
    | (?P<url> ://[^/\s:@]* : ) [^/\s@]+ (?=@)               # https://user:password@host
    | (?P<name> (?:password|passwd|secret|token)["']? \s* [=:] \s* ["']? ) [^\s"',;&)}\]]+
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SECRET_NAME = re.compile("password|secret|token", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` without what looks like a credential."""
    return _CREDENTIALS.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    return (found["scheme"] or found["url"] or found["name"] or "") + _MASK
