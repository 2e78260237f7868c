"""What settings mean together, and whether secrets are worth the name.

Each check takes the sections it needs and yields findings. A section with a
mistake of its own is None here, so its mistake does not hide those of others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from time import time
from typing import Any
from urllib.parse import urlsplit

from gateway.http.header_edits import name_mistake, request_mistake, response_mistake
from gateway.identity.principal import LOGIN

from .fields import UPSTREAM_NAME, UnsetSecret, is_filled, similar
from .filled import Broken, Filled, Unset
from .schema import (
    Accounts,
    ApiTokens,
    Auth,
    Cors,
    Defaults,
    HeaderEdits,
    Listen,
    Person,
    RateLimits,
    Route,
    Rule,
    Server,
    Sessions,
    Test,
    Tokens,
    Upstream,
    UpstreamTls,
    UpstreamUrl,
    Valid,
)
from .source import Steps, written_path
from .values import canonical_host

SECRET_BYTES = 32
"""As long as the output of HMAC-SHA-256 (RFC 7518 § 3.2)."""
SECRET_VARIETY = 10
"""Different characters. 32 random hex digits have fewer once in a thousand times, 48 never."""
FORMER_MAX = 3
"""A change of a secret takes one."""
LEEWAY_MAX = 300.0
"""RFC 7519 § 4.1.4: "usually no more than a few minutes"."""
GRACE_MAX = 60.0
"""A thief who is quick shares the grace; a minute is plenty for a lost answer."""
BCRYPT_COST_SAFE = 10
"""OWASP Password Storage: a work factor of 10 or more."""

_EXAMPLES = re.compile(
    r"change.?(me|this|it)|replace.?(me|this|with)|your.?(\d+.?bit.?)?secret|secret.?(goes.?)?here|placeholder|example"
    r"|a.string.secret.at.least|super.?secret|my.?secret|not.?so.?secret|password|qwerty|lorem.?ipsum|insert",
    re.IGNORECASE,
)
_MAKE = "`openssl rand -hex 32` makes"
_BAD_NAME = "a name has 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
_DATABASES = ("sqlite", "postgresql", "postgresql+psycopg")
_STORAGES = ("memory", "redis", "rediss", "redis+unix")


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake, not yet placed."""

    path: Steps
    sentence: str
    warning: bool = False
    key: bool = False
    """The key is wrong, not its value."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The sections that are valid for themselves."""

    data: Mapping[str, Any]
    """The file's own values, to tell what was written from what is a default."""
    server: Server | None = None
    tokens: Tokens | None = None
    sessions: Sessions | None = None
    api_tokens: ApiTokens | None = None
    accounts: Accounts | None = None
    rate_limits: RateLimits | None = None
    upstream: UpstreamUrl | None = None
    upstreams: Mapping[str, Upstream | None] | None = None
    auth: Auth | None = None
    defaults: Defaults | None = None
    routes: Sequence[Route | None] | None = None
    tests: Sequence[Test | None] | None = None


CHECKED = tuple(each.name for each in fields(Parts) if each.name != "data")
"""The sections that a check looks at."""


def check(parts: Parts) -> Iterator[Finding]:
    """Everything that is wrong between settings."""
    yield from _secrets(parts.data.get("tokens"))
    if parts.tokens is not None:
        yield from _keys(parts.tokens)
        yield from _lifetimes(parts.tokens)
    if parts.tokens is not None and parts.sessions is not None:
        yield from _idle(parts.sessions, parts.tokens)
    if parts.api_tokens is not None and LOGIN in parts.api_tokens.own_scopes:
        sentence = f"{LOGIN} is for those who log in; no API token can have it"
        yield Finding(("api_tokens", "own_scopes"), sentence)
    if parts.accounts is not None:
        yield from _accounts(parts.accounts)
    if parts.rate_limits is not None:
        yield from _storage(parts.rate_limits)
    if parts.server is not None:
        yield from _listeners(parts.server)
        yield from _tls(parts.server)
        yield from _loops(parts.server, parts)
    yield from _upstreams(parts)
    if parts.auth is not None:
        yield from _cors(("auth", "cors"), parts.auth.cors)
    if parts.defaults is not None:
        yield from _settings(("defaults",), parts.defaults, parts)
    for index, route in enumerate(parts.routes or ()):
        if route is not None:
            yield from _route(("routes", index), route, parts)
    for index, test in enumerate(parts.tests or ()):
        if test is not None:
            yield from _known_upstream(("tests", index, "upstream"), test.upstream, parts)
            yield from _caller(("tests", index, "as"), test.as_)


def _secrets(tokens: Any) -> Iterator[Finding]:
    """Judged as the file has them, so that another mistake among the tokens does not hide a weak one."""
    seen: dict[str, str] = {}
    for name in ("access", "refresh"):
        section = tokens.get(name) if isinstance(tokens, Mapping) else None
        for path, secret in _written_secrets(section, ("tokens", name)):
            if weakness := _weakness(secret):
                yield Finding(path, weakness)
            elif not isinstance(secret, Filled):
                sentence = "stands in the file itself; keep it in the environment or in .env"
                yield Finding(path, sentence, warning=True)
            if secret in seen:
                yield Finding(path, f"is the same as {seen[secret]}; {_MAKE} another")
            seen.setdefault(secret, written_path(path))


def _written_secrets(section: Any, path: Steps) -> Iterator[tuple[Steps, str]]:
    """The secret, then the former ones."""
    if not isinstance(section, Mapping):
        return
    former = section.get("previous_secrets")
    named = [((*path, "secret"), section.get("secret"))]
    if isinstance(former, tuple):
        named += [((*path, "previous_secrets", index), each) for index, each in enumerate(former)]
    else:
        named.append(((*path, "previous_secrets"), former))
    for where, secret in named:
        if not isinstance(secret, str) or isinstance(secret, Unset | Broken):
            continue
        if secret or where[-1] == "secret" or not is_filled(secret):
            yield where, secret


def _weakness(secret: str) -> str:
    size = len(secret.encode(errors="surrogatepass"))
    if not secret:
        return f"is empty; {_MAKE} one"
    if _EXAMPLES.search(secret):
        return f"is an example, known to everyone; {_MAKE} a real one"
    if size < SECRET_BYTES:
        return f"has only {size} bytes of the {SECRET_BYTES} it needs; {_MAKE} one"
    if secret in (secret + secret)[1:-1] or len(set(secret)) < SECRET_VARIETY or _counts_up(secret):
        return f"is too regular to be secret; {_MAKE} a real one"
    return ""


def _counts_up(secret: str) -> bool:
    """`abcdef…`, `987654…`: mostly neighbours."""
    steps = [ord(after) - ord(before) for before, after in pairwise(secret)]
    return sum(abs(step) <= 1 for step in steps) > len(steps) // 2


def _keys(tokens: Tokens) -> Iterator[Finding]:
    """What the folder holds is looked at where it is used."""
    if tokens.access.secret is None and tokens.access.keys is None:
        sentence = 'needs a secret or keys; write `secret: "${JWT_ACCESS_SECRET}"`'
        yield Finding(("tokens", "access"), sentence)
    for name, token in (("access", tokens.access), ("refresh", tokens.refresh)):
        if len(token.previous_secrets) > FORMER_MAX:
            sentence = f"has more than {FORMER_MAX}; each is tried on every forged token"
            yield Finding(("tokens", name, "previous_secrets"), sentence)


def _lifetimes(tokens: Tokens) -> Iterator[Finding]:
    if tokens.access.ttl >= tokens.refresh.ttl:
        yield Finding(("tokens", "access", "ttl"), "must be shorter than tokens.refresh.ttl")
    if tokens.refresh.ttl > tokens.session_max:
        yield Finding(("tokens", "refresh", "ttl"), "can't be longer than tokens.session_max")
    if tokens.leeway > LEEWAY_MAX:
        yield Finding(("tokens", "leeway"), "can't be more than 5m; repair the clocks instead")
    if tokens.refresh.reuse_grace > GRACE_MAX:
        yield Finding(("tokens", "refresh", "reuse_grace"), "can't be more than 1m; a thief may use it too")


def _idle(sessions: Sessions, tokens: Tokens) -> Iterator[Finding]:
    if sessions.idle_max is None:
        return
    if sessions.idle_max <= tokens.access.ttl:
        sentence = "must be longer than tokens.access.ttl: clients refresh when that has passed"
        yield Finding(("sessions", "idle_max"), sentence)
    if sessions.idle_max > tokens.refresh.ttl:
        yield Finding(
            ("sessions", "idle_max"), "can't be longer than tokens.refresh.ttl, which ends it before"
        )


def _accounts(accounts: Accounts) -> Iterator[Finding]:
    if not isinstance(accounts.database, UnsetSecret):
        sentence = _database(accounts.database.get_secret_value())
        if sentence:
            yield Finding(("accounts", "database"), sentence)
    if accounts.bcrypt_cost < BCRYPT_COST_SAFE:
        sentence = f"below {BCRYPT_COST_SAFE} is for tests only; stolen hashes would be guessed quickly"
        yield Finding(("accounts", "bcrypt_cost"), sentence, warning=True)


def _database(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if scheme == "postgres":
        return "write postgresql:// instead of postgres://"
    if not separator or scheme not in _DATABASES:
        return "must begin with sqlite:/// or postgresql://"
    if scheme == "sqlite" and (
        not rest.startswith("/") or rest in ("/", "/:memory:") or "mode=memory" in rest
    ):
        return "needs a file: write sqlite:///gateway.db, or sqlite:////var/lib/gateway.db with a full path"
    if scheme != "sqlite" and not _database_name(url):
        return "needs a host and a database: write postgresql://user:password@host/name"
    return ""


def _database_name(url: str) -> str:
    try:
        return urlsplit(url).path.strip("/")
    except ValueError:
        return ""


def _storage(limits: RateLimits) -> Iterator[Finding]:
    if isinstance(limits.storage, UnsetSecret):
        return
    scheme, separator, rest = limits.storage.get_secret_value().partition("://")
    if not separator or scheme not in _STORAGES:
        yield Finding(
            ("rate_limits", "storage"),
            "must be memory://, or begin with redis://, rediss:// or redis+unix://",
        )
    elif scheme != "memory" and not rest:
        yield Finding(("rate_limits", "storage"), f"needs a host: write {scheme}://redis:6379/0")


def _listeners(server: Server) -> Iterator[Finding]:
    """No two listeners on one address. The ops listener counts too."""
    named = [(("server", "listen", index), listen) for index, listen in enumerate(server.listen)]
    if not named:
        yield Finding(("server", "listen"), "can't be empty")
    everyone: list[tuple[Steps, Listen]] = list(named)
    if server.ops_listen is not None:
        everyone.append((("server", "ops_listen"), server.ops_listen))
    for index, (path, listen) in enumerate(everyone):
        if any(_same_listener(listen, earlier) for _, earlier in everyone[:index]):
            yield Finding(path, f"{listen} is listened on twice")


def _tls(server: Server) -> Iterator[Finding]:
    """What the files hold is looked at where they are served."""
    if server.tls is None:
        return
    if all(listen.path for listen in server.listen):
        sentence = "is of no use without a host:port in server.listen; unix sockets stay plain"
        yield Finding(("server", "tls"), sentence)
    elif server.public_url.startswith("http:"):
        sentence = "begins with http://, and clients reach a TLS listener by https://"
        yield Finding(("server", "public_url"), sentence, warning=True)


def _same_listener(one: Listen, other: Listen) -> bool:
    if one.path or other.path:
        return one.path == other.path
    return one.port == other.port != 0 and _overlap(one.host, other.host)


def _overlap(one: str, other: str) -> bool:
    """Whether two hosts of listeners can't share a port."""
    hosts = {canonical_host(one), canonical_host(other)}
    families = {_version(host) for host in hosts}
    return len(hosts) == 1 or (_is_any(hosts) and (len(families) == 1 or None in families))


def _is_any(hosts: set[str]) -> bool:
    return bool(hosts & {"0.0.0.0", "::"})


def _version(host: str) -> int | None:
    try:
        return ip_address(host).version
    except ValueError:
        return None


def _loops(server: Server, parts: Parts) -> Iterator[Finding]:
    """A backend that is the gateway itself would call itself until nothing is left."""
    own = list(server.listen) + ([server.ops_listen] if server.ops_listen is not None else [])
    for path, url in _targets(parts):
        if any(_reaches(url, listen) for listen in own) or _is_public_url(url, server, parts):
            yield Finding(path, f"{url} is the gateway itself")


def _targets(parts: Parts) -> Iterator[tuple[Steps, UpstreamUrl]]:
    if parts.upstream is not None:
        yield ("upstream",), parts.upstream
    for name, upstream in (parts.upstreams or {}).items():
        if upstream is not None and upstream.url is not None:
            yield ("upstreams", name, "url"), upstream.url
        for index, url in enumerate(upstream.urls if upstream is not None else ()):
            yield ("upstreams", name, "urls", index), url


def _reaches(url: UpstreamUrl, listen: Listen) -> bool:
    if url.path or listen.path:
        return url.path == listen.path
    host, own = canonical_host(url.host), canonical_host(listen.host)
    return url.port == listen.port and (
        host == own or (_is_local(host) and (_is_any({own}) or _is_local(own)))
    )


def _is_local(host: str) -> bool:
    """Names of this machine that everybody knows; `0.0.0.0` as a target is one too (Linux)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or address in (ip_address("127.0.0.1"), ip_address("::1"))


def _is_public_url(url: UpstreamUrl, server: Server, parts: Parts) -> bool:
    written = parts.data.get("server")
    if url.path or not isinstance(written, Mapping) or "public_url" not in written:
        return False
    public = urlsplit(server.public_url)
    port = public.port or {"http": 80, "https": 443}[public.scheme]
    return (url.scheme, url.port) == (public.scheme, port) and canonical_host(url.host) == canonical_host(
        public.hostname or ""
    )


def _upstreams(parts: Parts) -> Iterator[Finding]:
    if "upstream" not in parts.data and not parts.data.get("upstreams"):
        yield Finding((), "names no backend; write `upstream: http://127.0.0.1:9000`")
    if "upstream" in parts.data and "default" in (parts.upstreams or {}):
        yield Finding(("upstreams", "default"), 'is given twice: "upstream" at the top is short for it')
    for name, upstream in (parts.upstreams or {}).items():
        if not UPSTREAM_NAME.fullmatch(name):
            yield Finding(
                ("upstreams", name),
                _BAD_NAME,
            )
        if upstream is not None:
            yield from _upstream(("upstreams", name), upstream)


def _upstream(path: Steps, upstream: Upstream) -> Iterator[Finding]:
    if upstream.url is not None and upstream.urls:
        yield Finding((*path, "urls"), 'is given besides "url"; keep one of them')
    if not upstream.targets:
        yield Finding(path, 'needs a "url"')
    seen: set[UpstreamUrl] = set()
    for index, url in enumerate(upstream.urls):
        if url in seen:
            yield Finding((*path, "urls", index), f"{url} is named twice")
        seen.add(url)
    schemes = {url.scheme for url in upstream.targets}
    if "https" in schemes and len(schemes) > 1:
        yield Finding((*path, "urls"), "mixes https:// with others; instances of one backend are equal")
    if upstream.connections < len(upstream.urls):
        sentence = f"are fewer than its {len(upstream.urls)} servers, so that some would never be asked"
        yield Finding((*path, "connections"), sentence)
    yield from _upstream_times(path, upstream)
    yield from _upstream_tls((*path, "tls"), upstream.tls, "https" in schemes)


def _upstream_times(path: Steps, upstream: Upstream) -> Iterator[Finding]:
    if upstream.health is not None and upstream.health.timeout > upstream.health.interval:
        yield Finding((*path, "health", "timeout"), "can't be longer than the interval between two checks")
    if upstream.timeouts.connect > upstream.queue.timeout:
        sentence = "is longer than queue.timeout, which ends the wait before"
        yield Finding((*path, "timeouts", "connect"), sentence, warning=True)


def _upstream_tls(path: Steps, tls: UpstreamTls, https: bool) -> Iterator[Finding]:
    if tls != UpstreamTls() and not https:
        yield Finding(path, "is of no use without an https:// URL")
    if tls.certificate is not None and tls.key is None:
        yield Finding((*path, "certificate"), "needs its key; add tls.key")
    if tls.key is not None and tls.certificate is None:
        yield Finding((*path, "key"), "needs its certificate; add tls.certificate")


def _settings(path: Steps, route: Route | Defaults, parts: Parts) -> Iterator[Finding]:
    """What `defaults` may say as well."""
    yield from _known_upstream((*path, "upstream"), route.upstream, parts)
    yield from _edits((*path, "headers", "request"), route.headers.request)
    yield from _edits((*path, "headers", "response"), route.headers.response)
    yield from _cors((*path, "cors"), route.cors)
    if route.cors is not None or _elsewhere_cors(route, parts):
        yield from _cors_edits((*path, "headers", "response"), route.headers.response)


def _elsewhere_cors(route: Route | Defaults, parts: Parts) -> bool:
    """Whether defaults and routes say one `cors`, and the other the headers it meets."""
    if isinstance(route, Defaults):
        return any(each is not None and each.cors is not None for each in parts.routes or ())
    return parts.defaults is not None and parts.defaults.cors is not None


def _route(path: Steps, route: Route, parts: Parts) -> Iterator[Finding]:
    yield from _settings(path, route, parts)
    if isinstance(route.allow, Rule):
        yield from _rule((*path, "allow"), route.allow)
        if route.allow.users and parts.accounts is not None and parts.accounts.own_email:
            sentence = (
                "with accounts.own_email people could give themselves such an address; allow a role instead"
            )
            yield Finding((*path, "allow", "users"), sentence)
    if route.trust_host and route.hosts is None:
        yield Finding((*path, "trust_host"), "is of no use on a route without hosts")
    if route.valid is not None:
        yield from _valid((*path, "valid"), route.valid)
    if route.report_only and route.allow == "public" and route.valid is None:
        yield Finding((*path, "report_only"), "softens nothing: a public route refuses nobody", warning=True)
    default = parts.defaults.rate_limit.per_address if parts.defaults is not None else None
    per_address = route.rate_limit.per_address or default
    if route.rate_limit.per_user is not None and route.allow == "public" and not per_address:
        sentence = "limits nobody who has no login, and a public route asks for none; add per_address"
        yield Finding((*path, "rate_limit", "per_user"), sentence, warning=True)


def _valid(path: Steps, valid: Valid) -> Iterator[Finding]:
    if valid.from_ is None and valid.until is None:
        yield Finding(path, "names no time; write from, until, or both")
    elif valid.until is not None and valid.from_ is not None and valid.until <= valid.from_:
        yield Finding((*path, "until"), "is not after from, so nobody could ever pass")
    elif valid.until is not None and valid.until <= time():
        sentence = "is over, so nobody passes any more (403); remove the route, or let it hold longer"
        yield Finding((*path, "until"), sentence, warning=True)


def _cors(path: Steps, cors: Cors | None) -> Iterator[Finding]:
    if cors is None:
        return
    if "*" in cors.origins and cors.credentials:
        sentence = "can't go with the origin *: any page could act as its visitor; name the origins"
        yield Finding((*path, "credentials"), sentence)
    if "*" in cors.headers and cors.credentials:
        sentence = "has *, which browsers take for a name when cookies are sent; name the headers"
        yield Finding((*path, "headers"), sentence)
    for index, origin in enumerate(cors.origins):
        if origin in cors.origins[:index]:
            yield Finding((*path, "origins", index), f"{origin} is named twice")
        elif origin == "*" and len(cors.origins) > 1:
            yield Finding((*path, "origins", index), "* is every origin; the others are of no use beside it")


def _cors_edits(path: Steps, edits: HeaderEdits) -> Iterator[Finding]:
    """Two who set the same headers, and one of them is `cors`."""
    for kind, names in (("add", edits.add), ("remove", edits.remove)):
        for index, name in enumerate(names):
            if name.lower().startswith("access-control-"):
                key = kind == "add"  # and so the path ends with the name
                sentence = f"{'' if key else f'{name} '}is set by cors; say it there"
                yield Finding((*path, kind, name if key else index), sentence, key=key)


def _edits(path: Steps, edits: HeaderEdits) -> Iterator[Finding]:
    """Names in `add` stand as keys, so a mistake there points to the key."""
    seen: set[str] = set()
    named: list[tuple[str, str, str | int]] = [(name, "add", name) for name in edits.add]
    named += [(name, "remove", index) for index, name in enumerate(edits.remove)]
    for name, kind, step in named:
        sentence = _edit(path[-1] == "request", kind, name)
        if not sentence and name.lower() in seen:
            sentence = "is named twice"
        seen.add(name.lower())
        if sentence:
            key = kind == "add"  # and so the path ends with the name
            yield Finding((*path, kind, step), sentence if key else f"{name} {sentence}", key=key)


def _edit(request: bool, kind: str, name: str) -> str:
    if mistake := name_mistake(name):
        return mistake
    return request_mistake(name) if request else response_mistake(name, add=kind == "add")


def _rule(path: Steps, rule: Rule) -> Iterator[Finding]:
    if rule.roles is None and rule.users is None and rule.scopes is None and rule.networks is None:
        yield Finding(path, "names nobody; write roles, users, scopes or networks, or one of the words")
    for kind, names in (("roles", rule.roles), ("scopes", rule.scopes)):
        if names is not None and (names.any is None) == (names.all is None):
            yield Finding((*path, kind), "must say either any or all: write {any: [...]} or {all: [...]}")
    asked = rule.scopes.all if rule.scopes is not None else None
    if asked is not None and LOGIN in asked and len(set(asked)) > 1:
        sentence = f"asks for {LOGIN}, which no API token has, and for what no login has; nobody passes"
        yield Finding((*path, "scopes", "all"), sentence)


def _caller(path: Steps, caller: str | Person) -> Iterator[Finding]:
    if isinstance(caller, Person) and LOGIN in (caller.scopes or ()):
        yield Finding((*path, "scopes"), f"no API token has {LOGIN}; leave scopes out for one who logged in")


def _known_upstream(path: Steps, name: str | None, parts: Parts) -> Iterator[Finding]:
    known = [*(parts.upstreams or {}), *(["default"] if "upstream" in parts.data else [])]
    if name is not None and name not in known and known:
        hint = similar(name, known) or f"; known: {', '.join(sorted(known))}"
        yield Finding(path, f'there is no upstream "{name}"{hint}')
