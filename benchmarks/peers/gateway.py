"""This gateway as its users run it: `gateway run`, decision log and metrics on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial

from benchmarks.peers.peer import ADMIN_PREFIX, Peer, Place, found

EMAIL, PASSWORD = "bench@example.com", "a long enough password"
"""An account that can log in."""
TOKEN_SECONDS = 12 * 3600
"""How long access tokens hold: longer than the longest run."""
_MOST = 1_000_000
_SHAPES = ("/api/v1/area{}/{{id}}", "/area{}/items/{{id}}/notes", "/files{}/**", "/api/v2/thing{}")
"""Routes of several shapes and depths, as an API has them."""


def gateway(
    *,
    routes: int = 1,
    name: str = "gateway",
    account: bool = False,
    database: str = "",
    fill: Callable[[str], None] | None = None,
) -> Peer:
    """`gateway run` with so many routes, the admin one among them, and with EMAIL's account if asked for.

    `database` is a URL in place of a SQLite file of its own; `fill` gets the URL once the tables are there.
    """
    return Peer(
        name=name,
        what="this gateway: `gateway run`, decision log and metrics on",
        start=partial(_start, routes=routes, account=account, database=database, fill=fill),
        program="gateway",
        install="make bench",
    )


def configure(place: Place, *, routes: int = 1, database: str = "") -> str:
    """Writes gateway.yaml; returns its path. JSON is YAML."""
    unlimited = f"{_MOST}/second"
    config = {
        "server": {
            "listen": f"127.0.0.1:{place.port}",
            "ops_listen": f"127.0.0.1:{place.helper}",
            "public_url": f"http://127.0.0.1:{place.port}",
            "limits": {"body": "1GiB", "connections": 15_000},
        },
        "tokens": {
            "access": {"secret": "${JWT_ACCESS_SECRET}", "ttl": f"{TOKEN_SECONDS}s"},
            "refresh": {"secret": "${JWT_REFRESH_SECRET}"},
        },
        "accounts": {"database": database or own_file(place)},
        "rate_limits": {
            "login": {"per_account": unlimited, "per_address": unlimited},
            "refresh": {"per_address": unlimited},
        },
        "upstream": f"http://127.0.0.1:{place.backend}",
        "routes": [{"path": f"{ADMIN_PREFIX}**", "allow": "admin"}, *_other_routes(routes - 1)],
    }
    return place.write("gateway.yaml", json.dumps(config))


def path_of(index: int, routes: int) -> str:
    """A path for the route number `index`; numbers begin again after the last one."""
    number = index % max(routes - 1, 1)
    pattern = _SHAPES[number % len(_SHAPES)].format(number)
    return pattern.replace("{id}", str(index)).replace("**", f"deep/{index}/below")


def _other_routes(count: int) -> list[dict[str, object]]:
    return [
        {"path": _SHAPES[index % len(_SHAPES)].format(index), "allow": "authenticated"}
        for index in range(count)
    ]


def own_file(place: Place) -> str:
    return f"sqlite:///{place.folder}/gateway.db"


def _start(
    place: Place, routes: int, account: bool, database: str, fill: Callable[[str], None] | None
) -> list[list[str]]:
    file = configure(place, routes=routes, database=database)
    if fill is not None:
        upgrade = [found("gateway"), "db", "upgrade", "-c", file]
        subprocess.run(upgrade, env=place.environ, check=True, capture_output=True)
        fill(database or own_file(place))
    if account:
        add = [found("gateway"), "users", "add", EMAIL, "--password-stdin", "-c", file]
        subprocess.run(add, input=PASSWORD.encode(), env=place.environ, check=True, capture_output=True)
    return [[found("gateway"), "run", "-c", file]]
