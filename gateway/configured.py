"""What the rooms take, made from one configuration: plain values, and pieces that need nothing but it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path

from gateway.accounts.database import Database
from gateway.accounts.feed import Feed
from gateway.accounts.service import SessionRules, TokenRules
from gateway.config.schema import AccessToken, Config, Rate, RefreshToken, Upstream, UpstreamUrl
from gateway.http.client_address import TrustedProxies
from gateway.http.identity_headers import HeaderSieve, identity_lines
from gateway.identity.keyfolder import KeyFolder
from gateway.identity.keyset import KeySet
from gateway.identity.keywatch import KeyWatch
from gateway.identity.revocation import Cut, Cutoffs
from gateway.identity.tokens import AccessTokens, RefreshTokens
from gateway.policy import reach
from gateway.policy.model import Policy
from gateway.proxy.rules import Destination, Rules
from gateway.proxy.upstream.address import Address, Tls
from gateway.proxy.upstream.pool import Pool
from gateway.proxy.upstream.settings import Ejection, HealthCheck, Settings
from gateway.ratelimit import RateLimiter, Rule
from gateway.web.attempts import (
    LOGIN_DAILY,
    LOGIN_PER_ACCOUNT,
    LOGIN_PER_ADDRESS,
    REFRESH_PER_ADDRESS,
    Limits,
)
from gateway.web.ops import Health

Clock = Callable[[], float]
"""Unix seconds, or seconds that only go forward."""


def tokens(config: Config, clock: Clock) -> tuple[AccessTokens, RefreshTokens]:
    """Without the keys that stand in files: see `key_watch`."""
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


def feed(
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


def key_watch(config: Config, access: AccessTokens, health: Health, clock: Clock) -> KeyWatch | None:
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


def session_rules(config: Config) -> SessionRules:
    return SessionRules(
        refresh_ttl=config.tokens.refresh.ttl,
        session_max=config.tokens.session_max,
        reuse_grace=config.tokens.refresh.reuse_grace,
        idle_max=config.sessions.idle_max,
        max_per_user=config.sessions.max_per_user,
    )


def token_rules(config: Config) -> TokenRules:
    tokens = config.api_tokens
    return TokenRules(
        own_scopes=frozenset(tokens.own_scopes),
        max_ttl=tokens.max_ttl,
        per_user=tokens.per_user,
        mistake=reach.mistake,
    )


def trusted(config: Config) -> TrustedProxies:
    proxies = config.server.trusted_proxies
    networks = tuple(proxy for proxy in proxies if not isinstance(proxy, str))
    return TrustedProxies(networks, unix="unix" in proxies)


def pool_settings(config: Config) -> dict[str, Settings]:
    """Of each upstream's pool; raises OSError for a TLS file that isn't there."""
    return {name: _of_upstream(upstream) for name, upstream in config.upstreams.items()}


def _of_upstream(upstream: Upstream) -> Settings:
    timeouts, queue, tls = upstream.timeouts, upstream.queue, upstream.tls
    return Settings(
        servers=tuple(server(url, tls.server_name or "") for url in upstream.targets),
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


def server(url: UpstreamUrl, server_name: str = "") -> Address:
    return Address(url.host, url.port, url.path or None, url.scheme == "https", server_name)


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


def rules(config: Config, policy: Policy, pools: Mapping[str, Pool]) -> Rules:
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


def limiter(config: Config, clock: Clock) -> RateLimiter:
    """Keyed by a secret, so that who reads the storage can't test guesses of an e-mail."""
    storage = config.rate_limits.storage.get_secret_value()
    return RateLimiter(storage, secret=config.tokens.refresh.secret.get_secret_value().encode(), clock=clock)


def limits(config: Config) -> Limits:
    login, refresh = config.rate_limits.login, config.rate_limits.refresh
    return Limits(
        login_per_account=_rule(LOGIN_PER_ACCOUNT, login.per_account, login.on_error),
        login_per_account_daily=_rule(LOGIN_DAILY, login.per_account_daily, login.on_error),
        login_per_address=_rule(LOGIN_PER_ADDRESS, login.per_address, login.on_error),
        refresh_per_address=_rule(REFRESH_PER_ADDRESS, refresh.per_address, refresh.on_error),
    )


def _rule(name: str, rate: Rate, on_error: str) -> Rule:
    return Rule(rate.amount, rate.seconds, name, open=on_error == "allow")
