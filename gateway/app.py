"""The composition root: turns one configuration into one gateway. The only room that knows everyone.

Everything here lives as long as the process; what lives as long as a request is
made inside the rooms.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from typing import Any, Protocol

from gateway import configured
from gateway.accounts.database import Database
from gateway.accounts.feed import Feed
from gateway.accounts.passwords import Passwords
from gateway.accounts.service import Accounts
from gateway.accounts.token_keeper import TokenKeeper
from gateway.accounts.token_lookup import TokenLookup
from gateway.accounts.trail_writer import TrailWriter
from gateway.config.restart import restart_needed, without_rules
from gateway.config.schema import Config
from gateway.errors import GatewayError, InvalidToken, Unavailable
from gateway.http.client_address import Address, ClientAddresses
from gateway.http.head import Head
from gateway.identity.keyset import KeySet
from gateway.identity.known_tokens import KnownTokens
from gateway.identity.principal import Principal
from gateway.identity.revocation import Cut, Cutoffs
from gateway.identity.tokens import AccessTokens
from gateway.policy.compile import cors as compile_cors
from gateway.policy.model import Policy
from gateway.proxy.asgi import ProxyApp
from gateway.proxy.gate import Gate
from gateway.proxy.limits import RouteLimits
from gateway.proxy.upstream.pool import Pool
from gateway.proxy.upstream.pools import Pools
from gateway.proxy.upstream.settings import Settings
from gateway.proxy.verdict import Judgement
from gateway.ratelimit import RateLimiter
from gateway.telemetry.audit import AuditTrail, to_log
from gateway.telemetry.logs import Decided, DecisionLog, timestamp
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outlet import Outlet
from gateway.upkeep import Upkeep
from gateway.web.attempts import (
    Attempts,
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

    access, refresh = configured.tokens(config, now)
    keys = configured.key_watch(config, access, health, now)
    clients = ClientAddresses(configured.trusted(config))
    pools = Pools(configured.pool_settings(config))
    limiter = configured.limiter(config, now)
    database = Database(config.accounts.database.get_secret_value(), clock=clock)
    feed = configured.feed(database, cutoffs, cut_off, config, stopwatch)
    writer = TrailWriter(database)
    audit = AuditTrail([to_log(outlet.write_at_once), metrics.count], keep=writer.put, clock=now)
    passwords = Passwords(cost=config.accounts.bcrypt_cost)
    accounts = Accounts(
        database=database,
        passwords=passwords,
        access=access,
        refresh=refresh,
        session_rules=configured.session_rules(config),
        access_life=config.tokens.access.ttl + config.tokens.leeway,
        password_min_length=config.accounts.password.min_length,
        token_rules=configured.token_rules(config),
        on_cut=cut_off,
        audit=audit,
    )
    keeper = TokenKeeper(accounts.api_tokens, known, hears=lambda: feed.healthy, clock=now)
    lookup = TokenLookup(accounts.api_tokens.read, known)
    gate = Gate(
        configured.rules(config, policy, pools.by_name),
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

    attempts = Attempts(
        limiter, configured.limits(config), standing=accounts.regulation.standing, audit=audit.record
    )
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
        database=database,
        feed=feed,
        sessions=config.sessions,
        passwords=passwords,
        limiter=limiter,
        pools=pools,
        cutoffs=cutoffs,
        keys=keys,
        health=health,
        outlet=outlet,
        writer=writer,
        clock=now,
        keeper=keeper,
        lookup=lookup,
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
        replaceable=Replaceable(config, gate, proxy, pools, attempts, metrics, health),
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
        name: Pool(
            name=name, settings=Settings(tuple(configured.server(url, "") for url in upstream.targets))
        )
        for name, upstream in config.upstreams.items()
    }
    gate = Gate(
        configured.rules(config, policy, pools),
        access=_Introduced(principal),
        cutoffs=Cutoffs(),
        api_tokens=KnownTokens(Cutoffs()),
        learn=_nothing_to_learn,
        clients=ClientAddresses(configured.trusted(config)),
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
        self,
        config: Config,
        gate: Gate,
        proxy: ProxyApp,
        pools: Pools,
        attempts: Attempts,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self._built_with = without_rules(config)
        self._gate, self._proxy, self._pools, self._attempts = gate, proxy, pools, attempts
        self._metrics, self._health = metrics, health

    def fixed_in(self, config: Config) -> list[str]:
        """The settings that it changes and a running process can't."""
        return restart_needed(self._built_with, config)

    def replace(self, config: Config, policy: Policy) -> None:
        """All of it, in one step that no request can see the middle of. What can fail comes first."""
        if keys := self.fixed_in(config):
            raise RestartNeeded(keys)
        before, pools = self._pools.by_name, self._pools.prepare(configured.pool_settings(config))
        self._gate.adopt(configured.rules(config, policy, pools))
        self._proxy.forget()
        self._pools.adopt(pools)
        self._attempts.limits = configured.limits(config)
        for name in before.keys() - pools.keys():
            self._metrics.forget_pool(name)
            self._health.restore(f"upstreams.{name}")
        for name, pool in pools.items():
            self._metrics.watch_pool(name, pool)


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
