"""How commands about rules call requests, callers and places, so that they all say it alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.policy.audience import Audience
    from gateway.policy.model import Route
    from gateway.policy.regions import Methods


def requests(methods: Methods, path: str, hosts: Iterable[str]) -> str:
    """`DELETE /projects/{id}, any host`; `/files/**, any method, any host`."""
    where = ", ".join(hosts) or "any host"
    return f"{path}, {methods}, {where}" if methods.all_but else f"{methods} {path}, {where}"


def place(route: Route) -> str:
    """Where a rule is written: `gateway.yaml:14`, or `default`."""
    return "default" if route.index < 0 else f"{route.file}:{route.line}"


def methods_json(methods: Methods) -> dict[str, Any]:
    """As a set, and in words."""
    return {"text": str(methods), "names": sorted(methods.names), "allBut": methods.all_but}


def rule_json(route: Route) -> dict[str, Any]:
    """Which rule. The default has no line of its own where none is written."""
    path = "default" if route.index < 0 else route.pattern.text
    return {"label": route.label, "path": path, "file": route.file, "line": route.line or None}


def audience_json(audience: Audience) -> dict[str, Any]:
    """A set of callers, factor by factor, and in words."""
    from math import isfinite

    from gateway.policy.audience import moment, networks_of

    return {
        "text": str(audience),
        "nobody": audience.nobody,
        "login": audience.login,
        "admin": audience.admin,
        "roles": sorted(sorted(clause) for clause in audience.roles),
        "users": None if audience.users is None else sorted(audience.users),
        "scopes": sorted(sorted(clause) for clause in audience.scopes),
        "networks": None
        if audience.networks is None
        else [str(each) for each in networks_of(audience.networks)],
        "from": moment(audience.begin) if isfinite(audience.begin) else None,
        "until": moment(audience.end) if isfinite(audience.end) else None,
    }
