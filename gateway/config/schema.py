"""What a right `gateway.yaml` says: every setting, its default and its description.

Values arrive normalised: sizes in bytes, durations in seconds, rates, addresses
and networks as values, secrets as `SecretStr`. The descriptions feed the JSON
Schema and the reference, so they are written for the person who edits the file.
What two settings mean together is checked in `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema
from pydantic import SecretStr as SecretStr

from . import fields, values
from .fields import OneOf, Section, required, setting
from .filled import show
from .values import Listen as Listen
from .values import Rate as Rate
from .values import UpstreamUrl as UpstreamUrl

LEVELS = ("public", "authenticated", "admin", "nobody")
EXPECTATIONS = (400, 401, 403, 404)
PLAIN_WORDS = frozenset({("server", "ops_listen")})
"""Where `off` is a word and no surprise."""
MOMENTS = frozenset({("routes", "valid", "from"), ("routes", "valid", "until"), ("tests", "at")})
"""Where a day is meant as it is written. Items of lists are left out."""
SECRETS = frozenset(
    {
        ("tokens", "access", "secret"),
        ("tokens", "access", "previous_secrets"),
        ("tokens", "refresh", "secret"),
        ("tokens", "refresh", "previous_secrets"),
        ("accounts", "database"),
        ("rate_limits", "storage"),
    }
)
"""Settings, and items of them, that may stay unset when only rules are looked at; no message quotes them."""


class Limits(Section):
    """How much of a request is read before it is refused."""

    target: fields.Size = setting("8KiB", "Longest path and query; longer is 414.")
    headers: fields.Size = setting("32KiB", "All header lines of a request together; more is 431.")
    header_count: fields.HeaderCount = setting(100, "Most header lines of a request; more is 431.")
    body: fields.SizeOrNone = setting("10MiB", "Largest request body; larger is 413.", "100MiB")
    connections: fields.Connections = setting(10000, "Client connections open at once; more are refused.")


class ServerTimeouts(Section):
    """How long the gateway waits for its clients."""

    headers: fields.Duration = setting("10s", "For the whole head of a request; then 408.")
    body_idle: fields.Duration = setting("30s", "For the next piece of a request's body; then 408.")
    keep_alive: fields.Duration = setting("75s", "For the next request on an idle connection.")
    drain_delay: fields.DurationOrZero = setting(
        "0s", "After SIGTERM, how long to go on accepting while /readyz already says 503.", "5s"
    )
    drain: fields.DurationOrZero = setting(
        "30s", "After that, how long requests in flight may take to finish."
    )


class Tls(Section):
    """The certificate that clients see. Both files are read again when they change."""

    certificate: fields.Text = required(
        "PEM file: the certificate, then those between it and its authority. A relative one stands beside "
        "this file.",
        "/etc/gateway/tls/tls.crt",
    )
    key: fields.Text = required(
        "PEM file: the certificate's private key, not encrypted. Likewise.", "/etc/gateway/tls/tls.key"
    )


class Server(Section):
    """Where the gateway listens and what it takes from clients."""

    listen: Annotated[tuple[fields.Listen, ...], fields.one_or_many] = setting(
        ("127.0.0.1:8080",),
        "host:port or unix:/path, or a list of them. Port 0 takes any free port. "
        "A variable may hold several between commas.",
        "127.0.0.1:8080",
        "unix:/run/gateway.sock",
        ["127.0.0.1:8080", "[::1]:8080"],
    )
    ops_listen: fields.OpsListen = setting(
        "127.0.0.1:9090",
        "Where /healthz, /readyz and /metrics are served; `off` for nowhere. Never the public listener.",
        "off",
    )
    public_url: fields.PublicUrl = setting(
        "http://127.0.0.1:8080",
        "The origin that clients use to reach the gateway.",
        "https://app.example.com",
    )
    tls: Tls | None = setting(
        None,
        "Speak TLS on every host:port of `listen`. Unix sockets and the ops listener stay plain.",
        {"certificate": "/etc/gateway/tls/tls.crt", "key": "/etc/gateway/tls/tls.key"},
    )
    trusted_proxies: Annotated[tuple[fields.Trusted, ...], fields.filled_list] = setting(
        (),
        "Networks (and `unix`) whose X-Forwarded-* headers are believed; everyone else's are dropped. "
        "A variable may hold several between commas.",
        ["10.0.0.0/8", "unix"],
    )
    reload: Annotated[str, OneOf("signal", "auto")] = setting(
        "signal",
        "When this file is read again: on SIGHUP, or with `auto` also when its content, or that of a file it "
        "takes in, has changed. That is looked at every 2 s.",
    )
    limits: Limits = setting({}, "How much of a request is read before it is refused.")
    timeouts: ServerTimeouts = setting({}, "How long the gateway waits for its clients.")


class Cors(Section):
    """Which pages of other origins may call from a browser.

    The gateway answers preflights itself, sets these headers on every answer, and drops the backend's own.
    """

    origins: Annotated[tuple[fields.Origin, ...], fields.one_or_many, AfterValidator(fields.filled)] = (
        required(
            "Origins of the pages: exact ones, `https://*.example.com` for all below, or `*` for every page.",
            ["https://app.example.com"],
        )
    )
    headers: tuple[fields.CorsHeader, ...] = setting(
        ("Authorization", "Content-Type"),
        "Request headers that a page may set; `*` for all.",
        ["Authorization", "Content-Type", "X-Requested-With"],
    )
    expose: tuple[fields.CorsHeader, ...] = setting(
        (), "Response headers that a page may read.", ["X-Total-Count"]
    )
    credentials: fields.Switch = setting(
        False, "Let the browser send cookies along. Not together with the origin `*`."
    )
    max_age: fields.DurationOrZero = setting(
        "10m", "How long a browser may remember the answer to a preflight."
    )


class Auth(Section):
    """The endpoints that the gateway serves itself."""

    prefix: fields.Prefix = setting("/auth", "The path below which they are; it is never forwarded.")
    cors: Cors | None = setting(
        None,
        "Which pages of other origins may call them from a browser; left out: none.",
        {"origins": ["https://app.example.com"]},
    )


class AccessToken(Section):
    """The short-lived token that every request carries. It needs `secret`, `keys`, or both."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["secret"]}, {"required": ["keys"]}]})

    secret: fields.Secret | None = setting(
        None,
        "Signs access tokens (HS256); at least 32 random bytes, from the environment or a file. Beside "
        "`keys` it verifies, and signs until the first of them does.",
        "${JWT_ACCESS_SECRET}",
        "${file:/run/secrets/jwt_access}",
    )
    previous_secrets: fields.FormerSecrets = setting(
        (),
        "Other secrets that verify, while the secret is changed: former ones, and one to come. Empty ones "
        "don't count.",
        ["${JWT_ACCESS_SECRET_BEFORE}"],
    )
    keys: fields.Text | None = setting(
        None,
        "A folder of private keys that `gateway keys` looks after: ES256, EdDSA or RS256. One signs, all "
        "verify, their public halves are at /auth/jwks.json. Read again when they change. A relative one "
        "stands beside this file.",
        "keys",
        "/etc/gateway/keys",
    )
    ttl: fields.Lifetime = setting("15m", "How long an access token is valid.")


class RefreshToken(Section):
    """The long-lived token that only /auth/refresh and /auth/logout take."""

    secret: fields.Secret = required(
        "Signs refresh tokens; at least 32 random bytes, another one than the access secret.",
        "${JWT_REFRESH_SECRET}",
        "${file:/run/secrets/jwt_refresh}",
    )
    previous_secrets: fields.FormerSecrets = setting(
        (),
        "Other secrets that verify, while the secret is changed: former ones, and one to come. Empty ones "
        "don't count.",
        ["${JWT_REFRESH_SECRET_BEFORE}"],
    )
    ttl: fields.Lifetime = setting("7d", "How long a refresh token is valid.")
    reuse_grace: fields.DurationOrZero = setting(
        "10s",
        "How long a spent refresh token still gives its successor, for tabs that refresh at once "
        "and answers that were lost. Later use ends the session.",
    )


class Tokens(Section):
    """The tokens that logins give out."""

    issuer: fields.Text = setting("gateway", "The `iss` of every token.")
    leeway: fields.DurationOrZero = setting("10s", "Clock skew that is forgiven.")
    session_max: fields.Lifetime = setting("30d", "A session ends then, however often it was refreshed.")
    access: AccessToken = required("The short-lived token that every request carries.")
    refresh: RefreshToken = required("The long-lived token that only /auth/refresh and /auth/logout take.")


class Sessions(Section):
    """How long a login lasts, how many of them a user may have, and how their ends become known."""

    idle_max: fields.Lifetime | None = setting(
        None, "A session that was not refreshed for so long ends; left out: `tokens.refresh.ttl`.", "2h"
    )
    max_per_user: fields.SessionCount = setting(
        0, "A login beyond so many ends the user's session that was used least recently; 0 for no cap.", 10
    )
    max_staleness: fields.Staleness = setting(
        "30s",
        "How long the database may be silent before what is known of ended sessions counts as stale. "
        "Normally it is read every second.",
    )
    on_stale: Annotated[str, OneOf("allow", "deny")] = setting(
        "allow",
        "What happens then to requests that carry a login: they go on (allow), or they get 503 and streams "
        "and tunnels are cut (deny). /readyz says so in either case.",
    )


class ApiTokens(Section):
    """Credentials for programs, which people make for themselves and admins for anyone."""

    own_scopes: Annotated[tuple[fields.Scope, ...], fields.filled_list] = setting(
        (),
        "Scopes that people may give to API tokens of their own; all others are an admin's to give. A rule "
        "may ask for a scope and nothing else, so name only those that anybody with an account may have. "
        "A variable may hold several between commas.",
        ["reports:read"],
    )
    max_ttl: fields.Lifetime | None = setting(
        None,
        "How long an API token may last, those that exist too; left out: as long as its maker says, which "
        "may be for ever.",
        "90d",
    )
    per_user: fields.TokenCount = setting(50, "API tokens of one account that hold at once.")


class Password(Section):
    """What a new password must be."""

    min_length: fields.PasswordLength = setting(10, "Fewest characters of a new password.")


class Accounts(Section):
    """The people who can log in."""

    database: fields.Secret = setting(
        "sqlite:///gateway.db",
        "Where users and sessions are kept: sqlite:///file (a relative one stands beside this file) or "
        "postgresql://user:password@host/name.",
        "sqlite:////var/lib/gateway/gateway.db",
        "postgresql://gateway:${DB_PASSWORD}@db/gateway",
    )
    bcrypt_cost: fields.BcryptCost = setting(
        12, "Work per password hash, as a power of two; 12 is about a quarter of a second."
    )
    own_email: fields.Switch = setting(
        False,
        "Let people change their own address, by their password. Nobody proves that it is theirs: leave it "
        "off where the backend or a rule tells people apart by it.",
    )
    password: Password = setting({}, "What a new password must be.")


class Audit(Section):
    """Who did what to whom: in the log, and in the database to be asked for later."""

    retention: fields.Retention = setting(
        "90d",
        "How long events are kept in the database; `forever` for ever. The log is not touched.",
        "365d",
        "forever",
    )


_ON_ERROR = (
    "While the Redis that counts is away or slow: `deny` is 503; with `allow` each process counts for itself."
)


class LoginLimits(Section):
    """How often a login may be tried."""

    per_account: fields.RateLimit = setting(
        "5/minute", "Attempts for one account from one network, also for unknown names."
    )
    per_account_daily: fields.RateLimit = setting(
        "100/day",
        "Attempts for one account from all networks together, also for unknown names. Networks from which "
        "the account has logged in within 30 days are not counted and not refused; nor is a login that "
        "succeeds counted.",
    )
    per_address: fields.RateLimit = setting("30/minute", "Attempts from one address (IPv6: one /64).")
    on_error: fields.OnError = setting("deny", _ON_ERROR)


class RefreshLimits(Section):
    """How often tokens may be refreshed."""

    per_address: fields.RateLimit = setting("60/minute", "Refreshes from one address (IPv6: one /64).")
    on_error: fields.OnError = setting("deny", _ON_ERROR)


class RateLimits(Section):
    """How often the endpoints that guessers love may be asked."""

    storage: fields.Secret = setting(
        "memory://",
        "Where the counters are: memory:// for one process, redis://host:6379/0 for several.",
        "redis://redis:6379/0",
    )
    login: LoginLimits = setting({}, "How often a login may be tried.")
    refresh: RefreshLimits = setting({}, "How often tokens may be refreshed.")


class IdentityHeaders(Section):
    """The headers that tell the backend who is asking."""

    preset: Annotated[str, OneOf("x-user", "remote-user", "x-forwarded", "x-auth-request")] = setting(
        "x-user",
        "Their names: X-User-* (x-user), Remote-* (remote-user, as Authelia), X-Forwarded-User and others "
        "(x-forwarded) or X-Auth-Request-* (x-auth-request, as oauth2-proxy).",
    )


class UpstreamTimeouts(Section):
    """How long the gateway waits for this backend."""

    connect: fields.Duration = setting(
        "5s", "For opening a connection; then 504. A refused one is 503 at once."
    )
    response: fields.Duration = setting("60s", "For the head of the response; then 504.")
    idle: fields.Duration = setting("60s", "For the next piece of the response's body.")
    tunnel_idle: fields.Duration = setting(
        "5m", "For the next bytes, in either direction, of a tunnel (a WebSocket, say)."
    )


class UpstreamQueue(Section):
    """Who waits when all connections are taken. First come, first served."""

    size: fields.QueueSize = setting(1000, "Most requests that wait; one more is 503 at once.")
    timeout: fields.Duration = setting("10s", "For a connection, a free one or a new one; then 503.")


class UpstreamHealth(Section):
    """A GET that each server is asked now and then, apart from all requests."""

    path: fields.Target = required("What to ask for: a path, perhaps with a query.", "/healthz")
    interval: fields.Duration = setting("5s", "Between two checks of one server.")
    timeout: fields.Duration = setting("2s", "For the whole check; then it has failed.")
    healthy: fields.Threshold = setting(2, "Checks passed in a row that bring a server back.")
    unhealthy: fields.Threshold = setting(
        3, "Checks failed in a row that take a server out. The first check of all decides alone."
    )
    expect: fields.Statuses = setting("200-399", "The statuses that pass: one, or a range.", 204)


class UpstreamEjection(Section):
    """How a server that fails requests is taken out: it can't be connected to, breaks off or is too slow.

    A server's own answers never count, whatever their status.
    """

    failures: fields.Failures = setting(5, "Failures in a row that take a server out; 0 for never.")
    for_: fields.Duration = setting(
        "10s", "How long it stays out the first time. Each relapse doubles it, up to 5m.", alias="for"
    )
    slow_start: fields.DurationOrZero = setting(
        "10s", "How long a server that comes back gets less than its share, growing from a tenth to all."
    )


class UpstreamTls(Section):
    """How an https backend is verified, and how the gateway shows itself to it."""

    ca: fields.Text | None = setting(
        None,
        "A PEM file with the authorities that may sign the backend's certificate, instead of the system's. "
        "A relative one stands beside this file, as all files here do.",
        "/etc/ssl/backend-ca.pem",
    )
    server_name: fields.ServerName | None = setting(
        None,
        "The name that is asked for (SNI) and that the certificate must have, instead of the URL's host.",
        "app.internal",
    )
    certificate: fields.Text | None = setting(
        None, "A PEM file with the gateway's own certificate and its chain.", "/etc/ssl/gateway.pem"
    )
    key: fields.Text | None = setting(
        None, "A PEM file with that certificate's key, without a passphrase.", "/etc/ssl/gateway.key"
    )


class Upstream(Section):
    """A backend."""

    url: fields.UpstreamUrl | None = setting(
        None,
        "Where it listens: http://host:port, https://host or unix:/path. No path, query or password. "
        "Either this or `urls`.",
        "http://127.0.0.1:9000",
        "unix:/run/app.sock",
    )
    urls: Annotated[tuple[fields.UpstreamUrl, ...], fields.one_or_many] = setting(
        (),
        "Several equal servers. The next request goes to the one with the fewest under way, in turn among "
        "equals.",
        ["http://app-1:9000", "http://app-2:9000"],
    )
    timeouts: UpstreamTimeouts = setting({}, "How long the gateway waits for this backend.")
    connections: fields.Connections = setting(
        200, "Connections open to it at once, to all its servers together; more requests wait in `queue`."
    )
    queue: UpstreamQueue = setting({}, "Who waits when all connections are taken. First come, first served.")
    health: UpstreamHealth | None = setting(
        None, "A GET that each server is asked now and then; left out: none."
    )
    ejection: UpstreamEjection = setting({}, "How a server that fails requests is taken out.")
    tunnels: Annotated[str, OneOf("until_revoked", "until_exp")] = setting(
        "until_revoked",
        "When a tunnel (a WebSocket, say) is ended from here: when the caller's session, account or access "
        "ends (until_revoked), or at the access token's `exp` as well (until_exp).",
    )
    preserve_host: fields.Switch = setting(
        False, "Send the client's Host header instead of the backend's own name."
    )
    forward_authorization: fields.Switch = setting(
        False, "Pass the client's Authorization header on. The gateway's token is not the backend's business."
    )
    keep_override_headers: fields.Switch = setting(
        False,
        "Let X-HTTP-Method-Override, X-Original-URL and their like through. Dangerous: a backend that obeys "
        "them sees another request than the one that was judged.",
    )
    tls: UpstreamTls = setting(
        {}, "How an https backend is verified, and how the gateway shows itself to it."
    )

    @property
    def targets(self) -> tuple[values.UpstreamUrl, ...]:
        """`url` and `urls` as one."""
        return (self.url,) if self.url is not None else self.urls


class Roles(Section):
    """Roles that a person needs: `any` of a list, or `all` of it."""

    any: Annotated[tuple[fields.Role, ...], AfterValidator(fields.filled)] | None = setting(
        None, "One of these is enough.", ["analyst", "auditor"]
    )
    all: Annotated[tuple[fields.Role, ...], AfterValidator(fields.filled)] | None = setting(
        None, "Every one of these is needed.", ["analyst", "emea"]
    )


class Scopes(Section):
    """Scopes that a credential needs: `any` of a list, or `all` of it. A login has the one scope `login`."""

    any: Annotated[tuple[fields.Scope, ...], AfterValidator(fields.filled)] | None = setting(
        None, "One of these is enough.", ["login", "reports:read"]
    )
    all: Annotated[tuple[fields.Scope, ...], AfterValidator(fields.filled)] | None = setting(
        None, "Every one of these is needed.", ["reports:read", "reports:export"]
    )


class Rule(Section):
    """What a caller must be. All named kinds must hold."""

    roles: Roles | None = setting(None, "Roles, as `{any: [...]}` or `{all: [...]}`.")
    users: Annotated[tuple[fields.Email, ...], AfterValidator(fields.filled)] | None = setting(
        None, "E-mail addresses.", ["ann@example.com"]
    )
    scopes: Scopes | None = setting(
        None,
        "Scopes of the API token, as `{any: [...]}` or `{all: [...]}`. A login has none but `login`, which "
        "no API token can have: without it, the rule is for API tokens alone.",
    )
    networks: Annotated[tuple[fields.Network, ...], AfterValidator(fields.filled)] | None = setting(
        None, "Networks that the client's address must be in; everyone else gets 403.", ["10.0.0.0/8"]
    )


Allow = Annotated[
    Annotated[str, OneOf(*LEVELS), Tag("<word>")] | Annotated[Rule, Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, Mapping | Section) else "<word>"),
]


class HeaderEdits(Section):
    """Headers that are set, and headers that are removed."""

    add: dict[fields.Text, fields.HeaderValue] = setting(
        {}, "Names and values to set. A header of the same name is replaced.", {"X-Api-Version": "2"}
    )
    remove: tuple[fields.Text, ...] = setting((), "Names to remove.", ["Server", "X-Powered-By"])


class RouteHeaders(Section):
    """What is changed in the headers on the way."""

    request: HeaderEdits = setting(
        {},
        "In the request, before the backend gets it. Names are compared by their letters and digits, so that "
        "no other spelling of them gets through.",
    )
    response: HeaderEdits = setting({}, "In the backend's answer. The gateway's own errors stay as they are.")


class RouteRateLimit(Section):
    """How often these requests may be made; then 429. Refused ones don't count."""

    per_user: fields.RateLimit | None = setting(
        None, "By one logged-in caller. Those without a login are not counted.", "100/minute"
    )
    per_address: fields.RateLimit | None = setting(
        None, "From one address (IPv6: one /64), whoever asks.", "20/second"
    )
    on_error: fields.OnError | None = setting(None, f"{_ON_ERROR} Left out: `deny`.", "allow")


class Valid(Section):
    """A time, from `from` until just before `until`. At least one of the two."""

    from_: fields.Moment | None = setting(
        None,
        "The first moment, a day or a time with its offset. A day begins at 00:00 UTC.",
        "2026-12-01",
        "2026-12-01T08:00:00+01:00",
        alias="from",
    )
    until: fields.Moment | None = setting(
        None, "The moment when it is over. Likewise.", "2027-01-31", "2027-01-31T18:00:00Z"
    )


class Route(Section):
    """A rule for some requests. The most specific one wins, whatever the order."""

    path: fields.Path = required(
        "Literal segments, `{name}` for exactly one segment, a final `/**` for the path and all below.",
        "/health",
        "/projects/{id}",
        "/admin/**",
    )
    methods: Annotated[tuple[fields.Method, ...], AfterValidator(fields.no_repetition)] | None = setting(
        None, "HTTP methods; left out: all. GET includes HEAD.", ["GET", "POST"]
    )
    hosts: Annotated[tuple[fields.Host, ...], AfterValidator(fields.no_repetition)] | None = setting(
        None,
        "Names as the client sends them, without a port; left out: all.",
        ["api.example.com", "*.example.com"],
    )
    allow: Allow = required(
        "Who may pass: public, authenticated, admin, nobody, or a mapping of roles, users, scopes and "
        "networks. `admin` stands for no role.",
        "authenticated",
        {"roles": {"any": ["analyst", "auditor"]}},
    )
    upstream: fields.Text | None = setting(
        None, "The backend's name; left out: the only one, else the one named default.", "reports"
    )
    strip_prefix: fields.Path | None = setting(
        None, "Cut these leading segments off before forwarding.", "/reports"
    )
    trust_host: fields.Switch = setting(
        False,
        "Say that the Host header can be relied on: allows a route with hosts to be laxer than the one "
        "without for the same paths. Any client can send any Host.",
    )
    upgrade: tuple[fields.UpgradeToken, ...] = setting(
        (),
        "Protocols that a request may switch to with `Upgrade`, besides websocket, which may be switched to "
        "everywhere. Whatever follows is tunnelled unread.",
        ["spdy/3.1"],
    )
    headers: RouteHeaders = setting({}, "What is changed in the headers on the way.")
    timeout: fields.Duration | None = setting(
        None, "For the head of the response, instead of the upstream's `timeouts.response`.", "5m"
    )
    body: fields.SizeOrNone | None = setting(
        None, "Largest request body, instead of `server.limits.body`; may be larger than that.", "1GiB"
    )
    rate_limit: RouteRateLimit = setting({}, "How often these requests may be made.")
    cors: Cors | None = setting(
        None,
        "Which pages of other origins may make these requests from a browser; left out: the backend says.",
        {"origins": ["https://app.example.com"]},
    )
    valid: Valid | None = setting(
        None,
        "When the rule lets anyone in. Outside of it nobody passes (403); no other route takes over.",
        {"until": "2027-01-31"},
    )
    report_only: fields.Switch = setting(
        False,
        "Let pass what this rule refuses, and say so in the log: for trying a rule on live traffic. A "
        "would-be 401 passes without identity headers, a would-be 403 with them.",
    )


class Defaults(Section):
    """What routes take that don't say it themselves; `default` takes it too."""

    upstream: fields.Text | None = setting(None, "The backend's name.", "app")
    upgrade: tuple[fields.UpgradeToken, ...] = setting(
        (), "Protocols that a request may switch to, besides websocket.", ["spdy/3.1"]
    )
    headers: RouteHeaders = setting(
        {}, "What is changed in the headers on the way. A route's own changes come on top, name by name."
    )
    timeout: fields.Duration | None = setting(None, "For the head of the response.", "5m")
    body: fields.SizeOrNone | None = setting(None, "Largest request body.", "1GiB")
    rate_limit: RouteRateLimit = setting(
        {},
        "How often requests may be made; each route counts for itself, `per_user` and `per_address` too.",
    )
    cors: Cors | None = setting(
        None,
        "Which pages of other origins may call from a browser.",
        {"origins": ["https://app.example.com"]},
    )


class Request(Section):
    """A method and a target, written as `GET /path`."""

    method: str
    target: str


def _request(value: Any) -> Request:
    method, _, target = value.partition(" ") if isinstance(value, str) else ("", "", "")
    target = target.strip()
    if not method or not method.isascii() or not target.startswith("/") or " " in target:
        raise ValueError(f"must be a method and a path like GET /admin, not {show(value)}")
    if not method.isupper():
        raise ValueError(f"methods are written in capitals: {method.upper()} {target}")
    return Request(method=method, target=target)


def _expect(value: Any) -> int | Literal["allow"]:
    if value == "allow":
        return "allow"
    if isinstance(value, int | str) and not isinstance(value, bool) and str(value) in map(str, EXPECTATIONS):
        return int(value)
    if value in (200, "200"):
        raise ValueError("write allow; what the backend answers then is its own affair")
    raise ValueError(f"must be allow, 401, 403, 400 or 404, not {show(value)}")


class Person(Section):
    """A logged-in caller of a test."""

    email: fields.Email = setting("user@example.com", "Their e-mail address.")
    admin: fields.Switch = setting(False, "Whether they are an admin.")
    roles: tuple[fields.Role, ...] = setting((), "Their roles.", ["analyst"])
    scopes: tuple[fields.Scope, ...] | None = setting(
        None,
        "They come with an API token that has these scopes; left out: they logged in.",
        ["reports:read"],
    )


Caller = Annotated[
    Annotated[str, OneOf("anonymous", "user", "admin"), Tag("<word>")] | Annotated[Person, Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, Mapping | Section) else "<word>"),
]


class Test(Section):
    """A proof that lives beside the rules; `gateway check` runs it."""

    request: Annotated[
        Request,
        PlainValidator(fields.written(_request)),
        WithJsonSchema({"type": "string", "pattern": "^[A-Z-]+ +/"}),
    ] = required("A method and a path, as a client would send it.", "GET /admin/users")
    as_: Caller = Field(
        alias="as",
        description="Who asks: anonymous, user, admin, or a mapping of email, admin, roles and scopes.",
        examples=["anonymous", {"roles": ["analyst"]}],
    )
    expect: Annotated[
        int | Literal["allow"],
        PlainValidator(fields.written(_expect)),
        WithJsonSchema({"enum": ["allow", *EXPECTATIONS]}),
    ] = required("`allow`, or the status that the gateway answers: 401, 403, 400 or 404.")
    host: fields.Host | None = setting(None, "The Host header of the request.", "api.example.com")
    from_: fields.Address | None = Field(
        None, alias="from", description="The client's address.", examples=["10.1.2.3"]
    )
    at: fields.Moment | None = setting(
        None, "When it is asked, for rules with `valid`; left out: now.", "2027-02-01T12:00:00Z"
    )
    route: fields.Text | None = setting(None, "The path of the route that must be the one.", "/admin/**")
    upstream: fields.Text | None = setting(None, "The backend that must be the one.", "reports")


_DEFAULTS = OneOf(*LEVELS[1:], hints={"public": "can't be public; name the public paths in routes"})


class Config(Section):
    """A whole `gateway.yaml`."""

    server: Server = setting({}, "Where the gateway listens and what it takes from clients.")
    auth: Auth = setting({}, "The endpoints that the gateway serves itself.")
    tokens: Tokens = required("The tokens that logins give out.")
    sessions: Sessions = setting(
        {}, "How long a login lasts, how many there may be, and how their ends become known."
    )
    api_tokens: ApiTokens = setting(
        {}, "Credentials for programs, which people make for themselves and admins for anyone."
    )
    accounts: Accounts = setting({}, "The people who can log in.")
    audit: Audit = setting({}, "Who did what to whom: in the log, and in the database to be asked for later.")
    rate_limits: RateLimits = setting({}, "How often the endpoints that guessers love may be asked.")
    identity_headers: IdentityHeaders = setting({}, "The headers that tell the backend who is asking.")
    upstream: fields.UpstreamUrl | None = setting(
        None, "Short for `upstreams: {default: {url: …}}`.", "http://127.0.0.1:9000"
    )
    upstreams: dict[str, Upstream] = setting(
        {}, "The backends, by name.", {"app": {"url": "http://127.0.0.1:9000"}}
    )
    default: Annotated[str, _DEFAULTS] = setting(
        "authenticated", "What a path needs that no route names. Never public."
    )
    defaults: Defaults = setting({}, "What routes take that don't say it themselves; `default` takes it too.")
    include: Annotated[tuple[fields.Text, ...], fields.one_or_many] = setting(
        (),
        "Files whose `routes` and `tests` count as if they stood here. A relative name starts beside the "
        "file that includes; those may include more. At most 100 files, of 1 MiB each and 8 MiB together.",
        ["rules/admin.yaml", "rules/shop.yaml"],
    )
    tests_include: Annotated[tuple[fields.Text, ...], fields.one_or_many] = setting(
        (), "Files with more tests, and nothing else.", ["tests/rules.yaml"]
    )
    routes: tuple[Route, ...] = setting((), "The rules. The most specific one wins, whatever the order.")
    tests: tuple[Test, ...] = setting((), "Proofs that live beside the rules; `gateway check` runs them.")
