"""The composition root: turns one configuration into one gateway. The only room that knows everyone.

Everything here lives as long as the process; what lives as long as a request is
made inside the rooms.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any, Protocol

from gateway.accounts import schema
from gateway.accounts.database import Database
from gateway.accounts.feed import POLL_S, Feed
from gateway.accounts.listen import Listener
from gateway.accounts.passwords import Passwords
from gateway.accounts.presence import Presence
from gateway.accounts.service import Accounts, SessionRules, TokenRules
from gateway.accounts.token_keeper import TokenKeeper
from gateway.accounts.token_lookup import TokenLookup
from gateway.accounts.trail_writer import TrailWriter
from gateway.config.restart import restart_needed, without_rules
from gateway.config.schema import AccessToken, Config, Rate, RefreshToken, Sessions, Upstream, UpstreamUrl
from gateway.errors import GatewayError, GatewayTimeout, InvalidToken, Unavailable
from gateway.http.client_address import Address, ClientAddresses, TrustedProxies
from gateway.http.head import Head
from gateway.http.identity_headers import HeaderSieve, identity_lines
from gateway.identity.keyfolder import KeyFolder
from gateway.identity.keyset import KeySet
from gateway.identity.keywatch import KeyWatch
from gateway.identity.known_tokens import KnownTokens
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cut, Cutoffs
from gateway.identity.tokens import AccessTokens, RefreshTokens
from gateway.policy import reach
from gateway.policy.compile import cors as compile_cors
from gateway.policy.model import Policy
from gateway.proxy.asgi import ProxyApp
from gateway.proxy.gate import Destination, Gate, Rules
from gateway.proxy.limits import RouteLimits
from gateway.proxy.upstream.address import Address as ServerAddress
from gateway.proxy.upstream.address import Tls
from gateway.proxy.upstream.pool import Pool
from gateway.proxy.upstream.pools import Pools
from gateway.proxy.upstream.settings import Ejection, HealthCheck, Settings
from gateway.proxy.verdict import Judgement
from gateway.ratelimit import RateLimiter, Rule
from gateway.telemetry.audit import AuditTrail, to_log
from gateway.telemetry.logs import Decided, DecisionLog, timestamp
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outlet import Outlet
from gateway.web.attempts import (
    LOGIN_DAILY,
    LOGIN_PER_ACCOUNT,
    LOGIN_PER_ADDRESS,
    REFRESH_PER_ADDRESS,
    Attempts,
    Limits,
)
from gateway.web.auth import build_auth
from gateway.web.observer import Observer
from gateway.web.ops import Health, Reload, build_ops

_log = logging.getLogger(__name__)

Clock = Callable[[], float]
Scope = Any
"""An ASGI scope, looked at for its path and its client only."""
ASGIApp = Callable[[Scope, Any, Any], Awaitable[None]]


class Gateway:
    """One gateway, wired and not yet started."""

    def __init__(
        self,
        *,
        gate: Gate,
        accounts: Accounts,
        public: _Front,
        ops: ASGIApp,
        health: Health,
        metrics: Metrics,
        upkeep: Upkeep,
        replaceable: Replaceable,
        finish: Callable[[Decided], None],
    ) -> None:
        self.gate = gate
        """Judges proxied requests."""
        self.accounts = accounts
        """Users and sessions."""
        self.asgi: ASGIApp = public
        """The public application: `/auth`, and everything else forwarded."""
        self.owns = public.owns
        """Whether a raw path is the gateway's own, below the auth prefix, and not forwarded."""
        self.began = metrics.began
        """To be told of every request that a lane takes past the public application."""
        self.finish = finish
        """To be told of every such request when it is over."""
        self.ops = ops
        """The application of the ops listener."""
        self.health = health
        """Starting, ready, draining, and what is away."""
        self._metrics = metrics
        self._upkeep = upkeep
        self._replaceable = replaceable

    async def start(self) -> None:
        """Open the database, read the cut-offs, be ready. Raises GatewayError, SchemaMismatch."""
        await self._upkeep.start()
        self.health.start()

    async def stop(self) -> None:
        """Close what `start` and the requests have opened. Call it after the last request."""
        await self._upkeep.stop()

    def restart_needed(self, config: Config) -> list[str]:
        """The settings that keep this configuration from being served without a restart. From any thread."""
        return self._replaceable.fixed_in(config)

    def reload(self, config: Config, policy: Policy) -> None:
        """Serve by another configuration from the next request on.

        Raises RestartNeeded, or OSError for a file that can't be used; then nothing has changed.
        """
        self._replaceable.replace(config, policy)

    async def look_at_keys(self) -> None:
        """Take changed keys of tokens up now, and not at the next look at them. Never raises."""
        await self._upkeep.look_at_keys()

    def reloaded(self, outcome: str, why: str = "", problems: Iterable[str] = ()) -> None:
        """Remember for operators what came of an attempt to reload, whoever refused it."""
        self._metrics.reloaded(outcome)
        self.health.last_reload = Reload(outcome, timestamp(time.time()), why, tuple(problems))

    def announce_report_only(self) -> None:
        """Let nobody overlook, on /readyz and in the metrics, that no rule is enforced."""
        self.health.enforcing = self._metrics.enforcing = False

    def watch_certificate(self, expires: Callable[[], float]) -> None:
        """Show in the metrics when (Unix seconds) the listener's certificate expires."""
        self._metrics.watch_certificate(expires)

    def refused(self, refusal: Refused) -> None:
        """Account for a request that the listener refused before it was one."""
        decided = Decided(
            request_id=refusal.request_id,
            client=refusal.peer or "unix",
            method=refusal.method or "",
            path=refusal.target or b"",
            status=refusal.error.status,
            verdict="deny",
            reason=refusal.error.code,
        )
        self._metrics.began()
        self.finish(decided)


class CannotStart(Exception):
    """Something the process needs to begin with is away. The text is for the operator."""


class RestartNeeded(Exception):
    """The new configuration changes what a running process can't."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(f"restart needed for {', '.join(keys)}")
        self.keys = keys
        """The settings, as the file names them."""


class Refused(Protocol):
    """What the listener tells about a request it refused."""

    @property
    def error(self) -> GatewayError: ...
    @property
    def request_id(self) -> str: ...
    @property
    def peer(self) -> str | None: ...
    @property
    def method(self) -> str | None: ...
    @property
    def target(self) -> bytes | None: ...


def build(
    config: Config,
    policy: Policy,
    *,
    outlet: Outlet,
    clock: Clock | None = None,
) -> Gateway:
    """A gateway for `config` and its compiled `policy`.

    `outlet` takes the decision lines and audit events. `clock` (Unix seconds)
    replaces the machine's and the database's own, for tests. Raises OSError or
    ValueError for a file or URL that can't be used.
    """
    now, stopwatch = clock or time.time, clock or time.monotonic
    metrics, health = Metrics(version=version("auth-gateway")), Health()
    log = DecisionLog(outlet.write, clock=now)
    cutoffs = Cutoffs()
    known = KnownTokens(cutoffs, clock=now)

    def cut_off(cut: Cut) -> None:
        cutoffs.apply(cut)
        known.apply(cut)

    access, refresh = _tokens(config, now)
    keys = _key_watch(config, access, health, now)
    clients = ClientAddresses(_trusted(config))
    pools = Pools(_settings(config))
    limiter = _limiter(config, now)
    database = Database(config.accounts.database.get_secret_value(), clock=clock)
    feed = _feed(database, cutoffs, cut_off, config, stopwatch)
    writer = TrailWriter(database)
    audit = AuditTrail([to_log(outlet.write_at_once), metrics.count], keep=writer.put, clock=now)
    passwords = Passwords(cost=config.accounts.bcrypt_cost)
    accounts = Accounts(
        database=database,
        passwords=passwords,
        access=access,
        refresh=refresh,
        session_rules=SessionRules(
            refresh_ttl=config.tokens.refresh.ttl,
            session_max=config.tokens.session_max,
            reuse_grace=config.tokens.refresh.reuse_grace,
            idle_max=config.sessions.idle_max,
            max_per_user=config.sessions.max_per_user,
        ),
        access_life=config.tokens.access.ttl + config.tokens.leeway,
        password_min_length=config.accounts.password.min_length,
        token_rules=_token_rules(config),
        on_cut=cut_off,
        audit=audit,
    )
    keeper = TokenKeeper(accounts.api_tokens, known, hears=lambda: feed.healthy, clock=now)
    lookup = TokenLookup(accounts.api_tokens.read, known)
    gate = Gate(
        _rules(config, policy, pools.by_name),
        access=access,
        cutoffs=cutoffs,
        api_tokens=known,
        learn=lookup.learn,
        clients=clients,
        limits=RouteLimits(limiter),
        body_limit=config.server.limits.body,
        clock=now,
        stopwatch=stopwatch,
    )

    def finish(decided: Decided) -> None:
        log.write(decided)
        metrics.done(decided)

    attempts = Attempts(limiter, _limits(config), standing=accounts.regulation.standing, audit=audit.record)
    auth = build_auth(
        accounts=accounts,
        authenticate=gate.authenticate,
        address_of=_address_of(clients),
        attempts=attempts,
        published=access.published,
        prefix=config.auth.prefix,
        cors=compile_cors(config.auth.cors),
        own_email=config.accounts.own_email,
    )
    upkeep = Upkeep(
        database,
        feed,
        config.sessions,
        passwords,
        limiter,
        pools,
        cutoffs,
        keys,
        health,
        outlet,
        writer,
        now,
        keeper,
        lookup,
    )
    _watch(metrics, pools, cutoffs, feed, health, outlet, writer, limiter)
    metrics.watch_replicas(lambda: upkeep.replicas)
    metrics.watch_api_tokens(known)
    own = Observer(auth, begin=lambda scope: gate.begin(_head(scope)), on_done=finish)
    body_idle = config.server.timeouts.body_idle
    proxy = ProxyApp(gate, on_done=finish, body_idle=body_idle)
    return Gateway(
        gate=gate,
        accounts=accounts,
        public=_Front(config.auth.prefix, own, proxy, metrics),
        ops=build_ops(health, metrics),
        health=health,
        metrics=metrics,
        upkeep=upkeep,
        replaceable=Replaceable(config, gate, pools, attempts, metrics, health),
        finish=finish,
    )


def rehearse(
    config: Config, policy: Policy, head: Head, principal: Principal | None, now: float
) -> Judgement | None:
    """What the gate would say to one request; None if it is for the gateway's own endpoints.

    It is the real gate, asked about a caller who is taken for `principal` whatever token comes,
    and no limit is used up. No connection is opened and no file is read.
    """
    if _owns(config.auth.prefix.encode(), head.path):
        return None
    pools = {
        name: Pool(name=name, settings=Settings(tuple(_server(url, "") for url in upstream.targets)))
        for name, upstream in config.upstreams.items()
    }
    gate = Gate(
        _rules(config, policy, pools),
        access=_Introduced(principal),
        cutoffs=Cutoffs(),
        api_tokens=KnownTokens(Cutoffs()),
        learn=_nothing_to_learn,
        clients=ClientAddresses(_trusted(config)),
        limits=RouteLimits(RateLimiter(clock=lambda: now)),
        body_limit=config.server.limits.body,
        clock=lambda: now,
    )
    return gate.judge(head)


async def _nothing_to_learn(_: bytes) -> None:
    """Who is introduced needs no API token."""
    raise Unavailable


class _Introduced(AccessTokens):
    """Takes every token for that of the one caller it was told of."""

    def __init__(self, principal: Principal | None) -> None:
        super().__init__(keys=KeySet(), issuer="", ttl=1, leeway=0)
        self._principal = principal

    def verify(self, token: bytes) -> Principal:
        if self._principal is None:
            raise InvalidToken
        return self._principal


class Replaceable:
    """What a reload changes: rules, backends, the limits on logins. All else is as it was at the start."""

    def __init__(
        self, config: Config, gate: Gate, pools: Pools, attempts: Attempts, metrics: Metrics, health: Health
    ) -> None:
        self._built_with, self._gate, self._pools, self._attempts = (
            without_rules(config),
            gate,
            pools,
            attempts,
        )
        self._metrics, self._health = metrics, health

    def fixed_in(self, config: Config) -> list[str]:
        """The settings that it changes and a running process can't."""
        return restart_needed(self._built_with, config)

    def replace(self, config: Config, policy: Policy) -> None:
        """All of it, in one step that no request can see the middle of. What can fail comes first."""
        if keys := self.fixed_in(config):
            raise RestartNeeded(keys)
        before, pools = self._pools.by_name, self._pools.prepare(_settings(config))
        self._gate.adopt(_rules(config, policy, pools))
        self._pools.adopt(pools)
        self._attempts.limits = _limits(config)
        for name in before.keys() - pools.keys():
            self._metrics.forget_pool(name)
            self._health.restore(f"upstreams.{name}")
        for name, pool in pools.items():
            self._metrics.watch_pool(name, pool)


class Upkeep:
    """What runs beside the requests: opening, the feed of cut-offs, the watch over dependencies, closing."""

    def __init__(
        self,
        database: Database,
        feed: Feed,
        sessions: Sessions,
        passwords: Passwords,
        limiter: RateLimiter,
        pools: Pools,
        cutoffs: Cutoffs,
        keys: KeyWatch | None,
        health: Health,
        outlet: Outlet,
        writer: TrailWriter,
        clock: Clock,
        keeper: TokenKeeper,
        lookup: TokenLookup,
    ) -> None:
        self._database, self._feed, self._sessions = database, feed, sessions
        self._passwords, self._limiter, self._pools = passwords, limiter, pools
        self._cutoffs, self._keys, self._health = cutoffs, keys, health
        self._outlet, self._clock = outlet, clock
        self._writer, self._keeper, self._lookup = writer, keeper, lookup
        self._presence = Presence(database)
        self._warned = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """No request is answered before every cut-off is known: a logged-out token must not revive."""
        self._outlet.attach(asyncio.get_running_loop().call_later)
        try:
            await schema.prepare(self._database)
            await self._feed.load()
        except (Unavailable, GatewayTimeout) as error:
            why = _first_line(error.__cause__ or error) or str(error)  # a time-out says nothing
            raise CannotStart(f"the database can't be used: {why}") from error
        self._pools.start()
        self._writer.start()
        running = [self._feed.run(), self._presence.run(), self._run(), self._keeper.run()]
        if not self._database.is_sqlite:
            running.append(Listener(self._database, self._feed.catch_up).run())
        if self._keys is not None:
            running.append(self._keys.run())
        self._tasks = [asyncio.create_task(each) for each in running]

    async def stop(self) -> None:
        await end(self._tasks)
        self._pools.close()
        await self._limiter.close()
        await self._passwords.close()
        await self._lookup.close()
        with suppress(GatewayError):
            await self._keeper.note_used()
        await self._writer.close()
        await self._presence.leave()
        await self._database.close()
        self._outlet.attach(None)
        self._outlet.flush()

    async def look_at_keys(self) -> None:
        """Take changed keys up now."""
        if self._keys is not None:
            await self._keys.look(patient=False)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._look_around()

    async def _look_around(self) -> None:
        """One round; about once a second."""
        readable, writable = self._feed.healthy, self._presence.healthy
        what = "can't be written; most of /auth" if readable else "can't be read; /auth"
        self._note("database", readable and writable, f"{what} answers 503")
        age = self._feed.age
        self._note("cutoffs", age <= self._sessions.max_staleness, _stale(age, self._sessions.on_stale))
        for name, pool in self._pools.by_name.items():
            self._note(f"upstreams.{name}", pool.up, "all its servers are out; they are tried all the same")
        self._note("rate_limits", await self._limiter.ping(), _LIMITS_AWAY)
        self._cutoffs.forget(self._clock())
        self._warn_of_others()

    def _warn_of_others(self) -> None:
        """Once, as long as it holds: N processes that count for themselves allow N times as much."""
        apart = self._presence.others > 0 and not self._limiter.shared
        if apart and not self._warned:
            _log.warning(
                "rate limits are counted by each process for itself: rate_limits.storage is memory://",
                extra={"count": self._presence.others + 1},
            )
        self._warned = apart

    @property
    def replicas(self) -> int:
        """Processes on this database, as far as they have shown themselves."""
        return self._presence.others + 1

    def _note(self, name: str, healthy: bool, why: str) -> None:
        if healthy:
            self._health.restore(name)
        else:
            self._health.degrade(name, why)


def _stale(age: float, on_stale: str) -> str:
    then = "go on" if on_stale == "allow" else "answer 503"
    return f"not read for {age:.0f} s; requests with a login {then}"


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel them until they are over.

    Once is not enough: a client library may take a cancellation that comes just as its own time is
    up for that time-out, and a loop around it goes on for ever.
    """
    alive = {task for task in tasks if not task.done()}
    while alive:
        for task in alive:
            task.cancel()
        _, alive = await asyncio.wait(alive, timeout=_CANCEL_AGAIN_S)


_CANCEL_AGAIN_S = 0.5
_LIMITS_AWAY = "can't be reached; limited calls answer 503, or with on_error: allow each process counts alone"


class _Front:
    """Who answers: the endpoints below the auth prefix, or the proxy for everything else.

    Compared as raw bytes. Other spellings of the prefix go to the proxy, whose
    policy knows them and refuses them (404).
    """

    def __init__(self, prefix: str, auth: ASGIApp, proxy: ASGIApp, metrics: Metrics) -> None:
        self._prefix = prefix.encode()
        self._auth, self._proxy, self._metrics = auth, proxy, metrics

    def owns(self, path: bytes) -> bool:
        return _owns(self._prefix, path)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self._metrics.began()
            if self.owns(scope.get("raw_path") or b""):
                await self._auth(scope, receive, send)
                return
        await self._proxy(scope, receive, send)


def _owns(prefix: bytes, path: bytes) -> bool:
    """Whether a raw path is that of the gateway's own endpoints."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/")


def _first_line(error: BaseException) -> str:
    """What a database driver says of itself first: hosts and files, never a value."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]


def _tokens(config: Config, clock: Clock) -> tuple[AccessTokens, RefreshTokens]:
    """Without the keys that stand in files: see `_key_watch`."""
    tokens = config.tokens
    access = AccessTokens(
        keys=_secrets(tokens.access),
        issuer=tokens.issuer,
        ttl=int(tokens.access.ttl),
        leeway=tokens.leeway,
        clock=clock,
    )
    refresh = RefreshTokens(
        keys=_secrets(tokens.refresh), issuer=tokens.issuer, leeway=tokens.leeway, clock=clock
    )
    return access, refresh


def _feed(
    database: Database, cutoffs: Cutoffs, apply: Callable[[Cut], None], config: Config, stopwatch: Clock
) -> Feed:
    """With `on_stale: deny`, nobody is believed beyond what was read."""

    def read(begun: float) -> None:
        if config.sessions.on_stale == "deny":
            cutoffs.believed_until = begun + config.sessions.max_staleness

    read(-inf)
    return Feed(
        database,
        apply,
        on_read=read,
        stopwatch=stopwatch,
        audit_retention=config.audit.retention,
    )


def _secrets(token: AccessToken | RefreshToken) -> KeySet:
    """The one that signs comes first."""
    given = ([token.secret] if token.secret is not None else []) + [*token.previous_secrets]
    return KeySet([secret.get_secret_value().encode() for secret in given])


def _key_watch(config: Config, access: AccessTokens, health: Health, clock: Clock) -> KeyWatch | None:
    """Gives `access` the keys of the folder, now and whenever they change. Raises BadKeys."""
    settings = config.tokens.access
    if settings.keys is None:
        return None
    secrets = _secrets(settings)

    def tell(fault: str) -> None:
        if fault:
            health.degrade("keys", fault)
        else:
            health.restore("keys")

    return KeyWatch(
        KeyFolder(Path(settings.keys)),
        needed=settings.secret is None,
        adopt=lambda keys: access.adopt(secrets.with_keys(keys)),
        tell=tell,
        clock=clock,
    )


def _token_rules(config: Config) -> TokenRules:
    tokens = config.api_tokens
    return TokenRules(
        own_scopes=frozenset(tokens.own_scopes),
        max_ttl=tokens.max_ttl,
        per_user=tokens.per_user,
        mistake=reach.mistake,
    )


def _trusted(config: Config) -> TrustedProxies:
    proxies = config.server.trusted_proxies
    networks = tuple(proxy for proxy in proxies if not isinstance(proxy, str))
    return TrustedProxies(networks, unix="unix" in proxies)


def _settings(config: Config) -> dict[str, Settings]:
    """Of each upstream's pool; raises OSError for a TLS file that isn't there."""
    return {name: _pool_settings(upstream) for name, upstream in config.upstreams.items()}


def _pool_settings(upstream: Upstream) -> Settings:
    timeouts, queue, tls = upstream.timeouts, upstream.queue, upstream.tls
    return Settings(
        servers=tuple(_server(url, tls.server_name or "") for url in upstream.targets),
        connections=upstream.connections,
        queue=queue.size,
        queue_timeout=queue.timeout,
        connect=timeouts.connect,
        response=timeouts.response,
        idle=timeouts.idle,
        tunnel_idle=timeouts.tunnel_idle,
        ejection=_ejection(upstream),
        health=_health_check(upstream),
        tls=Tls.read(tls.ca, tls.certificate, tls.key),
    )


def _server(url: UpstreamUrl, server_name: str) -> ServerAddress:
    return ServerAddress(url.host, url.port, url.path or None, url.scheme == "https", server_name)


def _ejection(upstream: Upstream) -> Ejection:
    ejection = upstream.ejection
    return Ejection(ejection.failures, ejection.for_, ejection.slow_start)


def _health_check(upstream: Upstream) -> HealthCheck | None:
    health = upstream.health
    if health is None:
        return None
    return HealthCheck(
        path=health.path,
        host=upstream.targets[0].authority,
        interval=health.interval,
        timeout=health.timeout,
        healthy=health.healthy,
        unhealthy=health.unhealthy,
        expect=(health.expect.first, health.expect.last),
    )


def _rules(config: Config, policy: Policy, pools: Mapping[str, Pool]) -> Rules:
    """`pools` are those of the configuration's upstreams."""
    destinations = {name: _destination(pools[name], upstream) for name, upstream in config.upstreams.items()}
    return Rules(policy, destinations, identity_lines(config.identity_headers.preset))


def _destination(pool: Pool, upstream: Upstream) -> Destination:
    sieve = HeaderSieve(
        forward_authorization=upstream.forward_authorization,
        keep_override_headers=upstream.keep_override_headers,
    )
    return Destination(
        pool=pool,
        sieve=sieve,
        host=upstream.targets[0].authority.encode(),
        preserve_host=upstream.preserve_host,
        until_exp=upstream.tunnels == "until_exp",
    )


def _limiter(config: Config, clock: Clock) -> RateLimiter:
    """Keyed by a secret, so that who reads the storage can't test guesses of an e-mail."""
    storage = config.rate_limits.storage.get_secret_value()
    return RateLimiter(storage, secret=config.tokens.refresh.secret.get_secret_value().encode(), clock=clock)


def _limits(config: Config) -> Limits:
    login, refresh = config.rate_limits.login, config.rate_limits.refresh
    return Limits(
        login_per_account=_rule(LOGIN_PER_ACCOUNT, login.per_account, login.on_error),
        login_per_account_daily=_rule(LOGIN_DAILY, login.per_account_daily, login.on_error),
        login_per_address=_rule(LOGIN_PER_ADDRESS, login.per_address, login.on_error),
        refresh_per_address=_rule(REFRESH_PER_ADDRESS, refresh.per_address, refresh.on_error),
    )


def _rule(name: str, rate: Rate, on_error: str) -> Rule:
    return Rule(rate.amount, rate.seconds, name, open=on_error == "allow")


def _address_of(clients: ClientAddresses) -> Callable[[Scope], Address | None]:
    return lambda scope: clients.of(_head(scope)).address


def _head(scope: Scope) -> Head:
    """As much of a request's head as tells who sent it."""
    peer = scope["client"][0] if scope.get("client") else None
    return Head(scope["method"], scope["raw_path"], scope["headers"], "1.1", scope["scheme"], peer)


def _watch(
    metrics: Metrics,
    pools: Pools,
    cutoffs: Cutoffs,
    feed: Feed,
    health: Health,
    outlet: Outlet,
    writer: TrailWriter,
    limiter: RateLimiter,
) -> None:
    for name, pool in pools.by_name.items():
        metrics.watch_pool(name, pool)
    metrics.watch_cutoffs(cutoffs, lambda: feed.age)
    metrics.watch_ready(lambda: health.ready)
    metrics.watch_log(lambda: outlet.dropped)
    metrics.watch_limits(limiter.failures)
    metrics.watch_trail(lambda: writer.dropped)
