"""Metrics, in the text format of Prometheus.

What is counted on every request is kept in plain lists, by (route, verdict, status),
and turned into samples when somebody asks: 0.5 µs a request, where a counter
and a histogram of the library cost five times that. Everything else is read at that moment
from the objects that know it. Labels come from the configuration and never from
a request, so nobody outside can make new series: routes by label, not by path.

All of it belongs to the loop's thread.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from gateway.telemetry.audit import Recorded
from gateway.telemetry.logs import Decided

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds. From a cached answer of a backend beside us to the default timeout of a response."""
_BUCKET_LABELS = (*map(str, BUCKETS), "+Inf")

_NO_ROUTE = "none"
"""The route label of requests that were refused before a route was looked for."""

_UPSTREAM_ERRORS = frozenset({"upstream_broken", "upstream_unavailable", "upstream_timeout"})


class Connections(Protocol):
    """What is asked of a connection pool."""

    @property
    def idle_count(self) -> int: ...
    @property
    def busy_count(self) -> int: ...
    @property
    def opening_count(self) -> int: ...
    @property
    def waiting_count(self) -> int: ...
    @property
    def standing(self) -> list[tuple[str, bool]]: ...


class Metrics:
    """All metrics of one gateway; also a sink for audit events (`count`)."""

    def __init__(self, registry: CollectorRegistry | None = None, *, version: str = "") -> None:
        self._registry = registry or CollectorRegistry()
        self._version = version
        self._series: dict[tuple[str | None, str, int], _Series] = {}
        self._routes: dict[str | None, _Route] = {}
        self._upstream_errors: Counter[tuple[str, str]] = Counter()
        self._softened: Counter[tuple[str, str]] = Counter()
        self._audited: Counter[str] = Counter()
        self._reloads: Counter[str] = Counter()
        self._pools: dict[str, Connections] = {}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._dropped: Callable[[], int] = int
        self._unkept: Callable[[], int] = int
        self._uncounted: Mapping[tuple[str, str], int] = {}
        self.in_flight = 0
        """Requests begun and not done: see `began`."""
        self.enforcing = True
        """False while every rule of the file only reports."""
        self.configured_at = time.time()
        """When what is served was read, in Unix seconds: at the start, and by each reload that succeeds."""
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    # -- on every request ----------------------------------------------------------

    def began(self) -> None:
        """A request's head has arrived."""
        self.in_flight += 1

    def done(self, decided: Decided) -> None:
        """Its answer has ended, and `decided.duration_ms` is known."""
        self.in_flight -= 1
        key = (decided.route, decided.verdict, decided.status)
        series = self._series.get(key)
        if series is None:
            series = self._new_series(key)
        series.count += 1
        seconds = (decided.duration_ms or 0.0) / 1000.0
        route = series.route
        route.buckets[bisect_left(BUCKETS, seconds)] += 1
        route.seconds += seconds
        route.bytes_in += decided.bytes_in
        route.bytes_out += decided.bytes_out
        if decided.reason in _UPSTREAM_ERRORS:
            self._upstream_errors[decided.upstream or "", decided.reason] += 1
        if decided.would:
            self._softened[decided.route or _NO_ROUTE, decided.would] += 1

    def _new_series(self, key: tuple[str | None, str, int]) -> _Series:
        route = self._routes.setdefault(key[0], _Route())
        return self._series.setdefault(key, _Series(route))

    # -- now and then --------------------------------------------------------------

    def count(self, recorded: Recorded) -> None:
        """A sink for the audit trail."""
        self._audited[recorded.event.name] += 1

    def reloaded(self, outcome: str) -> None:
        """The configuration was read again, and what came of it."""
        self._reloads[outcome] += 1
        if outcome == "applied":
            self.configured_at = time.time()
        self._gauges["gateway_reload_successful"] = (
            "0 while the file that was read last is not the one that is served.",
            lambda: outcome == "applied",
        )

    # -- what is read when somebody asks -------------------------------------------

    def watch_pool(self, name: str, pool: Connections) -> None:
        """Show an upstream's connections; a second pool of that name takes the first one's place."""
        self._pools[name] = pool

    def forget_pool(self, name: str) -> None:
        """That upstream is no longer configured."""
        self._pools.pop(name, None)

    def watch_certificate(self, expires: Callable[[], float]) -> None:
        self._gauges["gateway_certificate_expires_timestamp_seconds"] = (
            "When the listener's certificate expires, in Unix time.",
            expires,
        )

    def watch_cutoffs(self, cutoffs: Sized, age: Callable[[], float]) -> None:
        self._gauges["gateway_cutoffs"] = (
            "Sessions and users cut off before their tokens' end.",
            cutoffs.__len__,
        )
        self._gauges["gateway_cutoffs_age_seconds"] = (
            "How long ago the database was last asked for cut-offs with success.",
            age,
        )

    def watch_replicas(self, count: Callable[[], int]) -> None:
        self._gauges["gateway_replicas"] = ("Processes on this database, this one included.", count)

    def watch_api_tokens(self, known: Sized) -> None:
        self._gauges["gateway_api_tokens_known"] = (
            "API tokens that this process has in memory.",
            known.__len__,
        )

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        self._gauges["gateway_ready"] = ("1 while /readyz says 200.", ready)

    def watch_log(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped

    def watch_limits(self, failures: Mapping[tuple[str, str], int]) -> None:
        """`failures` is by limit and outcome, and grows."""
        self._uncounted = failures

    def watch_trail(self, dropped: Callable[[], int]) -> None:
        self._unkept = dropped

    def render(self) -> bytes:
        """Everything, in the text format 0.0.4."""
        return generate_latest(self._registry)

    # -- as prometheus_client wants it ---------------------------------------------

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("gateway_build", "The running version.", {"version": self._version})
        yield from self._collect_requests()
        yield from self._collect_routes()
        yield from self._collect_outcomes()
        yield from self._collect_upstreams()
        yield GaugeMetricFamily(
            "gateway_enforcing", "0 while every rule only reports what it would refuse.", self.enforcing
        )
        yield GaugeMetricFamily(
            "gateway_configuration_timestamp_seconds",
            "When the configuration that is served was read, in Unix time.",
            self.configured_at,
        )
        for name, (what, read) in self._gauges.items():
            yield GaugeMetricFamily(name, what, float(read()))
        yield CounterMetricFamily("gateway_log_lines_dropped", "Log lines nobody took.", self._dropped())
        uncounted = CounterMetricFamily(
            "gateway_rate_limit_errors", "Hits that Redis did not count.", labels=("limit", "outcome")
        )
        for labels, count in self._uncounted.items():
            uncounted.add_metric(labels, count)
        yield uncounted
        yield CounterMetricFamily(
            "gateway_audit_events_dropped", "Audit events that are only in the log.", self._unkept()
        )

    def _collect_requests(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("gateway_requests_in_flight", "Requests being answered.", self.in_flight)
        requests = CounterMetricFamily(
            "gateway_requests", "Answered requests.", labels=("route", "verdict", "status")
        )
        softened = CounterMetricFamily(
            "gateway_report_only",
            "Requests that passed only because the rule that would refuse them reports.",
            labels=("route", "reason"),
        )
        for (route, verdict, status), series in self._series.items():
            requests.add_metric((route or _NO_ROUTE, verdict, str(status)), series.count)
        for labels, count in self._softened.items():
            softened.add_metric(labels, count)
        yield from (requests, softened)

    def _collect_routes(self) -> Iterator[Metric]:
        duration = HistogramMetricFamily(
            "gateway_request_duration_seconds",
            "From a head's arrival to its answer's end.",
            labels=("route",),
        )
        received = CounterMetricFamily(
            "gateway_request_body_bytes", "Bytes of request bodies.", labels=("route",)
        )
        sent = CounterMetricFamily("gateway_response_body_bytes", "Bytes of answers.", labels=("route",))
        for label, route in self._routes.items():
            labels = (label or _NO_ROUTE,)
            duration.add_metric(labels, route.cumulated(), route.seconds)
            received.add_metric(labels, route.bytes_in)
            sent.add_metric(labels, route.bytes_out)
        yield from (duration, received, sent)

    def _collect_outcomes(self) -> Iterator[Metric]:
        for name, route in (("gateway_logins", "auth:login"), ("gateway_refreshes", "auth:refresh")):
            family = CounterMetricFamily(name, f"Answers of {route}.", labels=("outcome",))
            outcomes: Counter[str] = Counter()
            for (label, _, status), series in self._series.items():
                if label == route:
                    outcomes[_outcome(status)] += series.count
            for outcome, count in outcomes.items():
                family.add_metric((outcome,), count)
            yield family
        audited = CounterMetricFamily("gateway_audit_events", "Audit events.", labels=("name",))
        for event, count in self._audited.items():
            audited.add_metric((event,), count)
        yield audited
        reloads = CounterMetricFamily(
            "gateway_reloads", "Times the configuration was read again.", labels=("outcome",)
        )
        for outcome, count in self._reloads.items():
            reloads.add_metric((outcome,), count)
        yield reloads

    def _collect_upstreams(self) -> Iterator[Metric]:
        connections = GaugeMetricFamily(
            "gateway_upstream_connections", "Connections to backends.", labels=("upstream", "state")
        )
        waiting = GaugeMetricFamily(
            "gateway_upstream_waiting", "Requests that wait for a connection.", labels=("upstream",)
        )
        up = GaugeMetricFamily(
            "gateway_upstream_server_up",
            "1 while a server is in: neither ejected nor failing its health checks.",
            labels=("upstream", "server"),
        )
        for name, pool in self._pools.items():
            connections.add_metric((name, "idle"), pool.idle_count)
            connections.add_metric((name, "busy"), pool.busy_count)
            connections.add_metric((name, "opening"), pool.opening_count)
            waiting.add_metric((name,), pool.waiting_count)
            for server, is_in in pool.standing:
                up.add_metric((name, server), float(is_in))
        errors = CounterMetricFamily(
            "gateway_upstream_errors", "Requests that a backend failed.", labels=("upstream", "kind")
        )
        for (server, kind), count in self._upstream_errors.items():
            errors.add_metric((server, kind), count)
        yield from (connections, waiting, up, errors)


class _Route:
    """What is kept per route."""

    __slots__ = ("buckets", "bytes_in", "bytes_out", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0

    def cumulated(self) -> list[tuple[str, float]]:
        """As a histogram is shown: how many took at most so long."""
        total, shown = 0, []
        for label, count in zip(_BUCKET_LABELS, self.buckets, strict=True):
            total += count
            shown.append((label, float(total)))
        return shown


class _Series:
    """What is kept per (route, verdict, status)."""

    __slots__ = ("count", "route")

    def __init__(self, route: _Route) -> None:
        self.route = route
        self.count = 0


def _outcome(status: int) -> str:
    if status < 400:
        return "success"
    return {401: "refused", 429: "limited"}.get(status, "error")
