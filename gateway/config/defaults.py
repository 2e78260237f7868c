"""`defaults:` for all routes: what a route doesn't say itself, it takes from there.

Lists and values are replaced whole. Of headers and rate limits each one counts for itself,
so that a route which adds a header does not lose what is removed everywhere.
"""

from __future__ import annotations

from typing import Any

from gateway.http.identity_headers import fold

from .schema import Defaults, HeaderEdits, Route, RouteHeaders, RouteRateLimit

_WHOLE = ("upstream", "upgrade", "timeout", "body", "cors")


def with_defaults(route: Route, defaults: Defaults) -> Route:
    """The route as it holds. Its own settings win; a default can be replaced, not taken away."""
    given = defaults.model_fields_set
    taken: dict[str, Any] = {
        name: getattr(defaults, name) for name in _WHOLE if name in given - route.model_fields_set
    }
    if "headers" in given:
        taken["headers"] = RouteHeaders.model_construct(
            request=_edits(route.headers.request, defaults.headers.request),
            response=_edits(route.headers.response, defaults.headers.response),
        )
    if "rate_limit" in given:
        taken["rate_limit"] = _limits(route.rate_limit, defaults.rate_limit)
    return route.model_copy(update=taken) if taken else route


def _edits(own: HeaderEdits, default: HeaderEdits) -> HeaderEdits:
    """A name that the route adds or removes is its own business; `X_Api` is the same name as `X-Api`."""
    if not own.add and not own.remove:
        return default
    named = {fold(name.encode()) for name in (*own.add, *own.remove)}
    add = {name: value for name, value in default.add.items() if fold(name.encode()) not in named}
    remove = tuple(name for name in default.remove if fold(name.encode()) not in named)
    return HeaderEdits.model_construct(add={**add, **own.add}, remove=(*remove, *own.remove))


def _limits(own: RouteRateLimit, default: RouteRateLimit) -> RouteRateLimit:
    return RouteRateLimit.model_construct(
        per_user=default.per_user if own.per_user is None else own.per_user,
        per_address=default.per_address if own.per_address is None else own.per_address,
        on_error=default.on_error if own.on_error is None else own.on_error,
    )
