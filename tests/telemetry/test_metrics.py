"""Numbers an operator can build on: right, and labelled only by what the configuration names."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.audit import AuditTrail, GraceHit, LoginFailed
from gateway.telemetry.logs import Decided
from gateway.telemetry.metrics import BUCKETS, Metrics


def decided(**changes: object) -> Decided:
    known: dict[str, object] = {
        "request_id": "r",
        "client": "192.0.2.1",
        "method": "GET",
        "path": b"/secret-path",
        "route": "GET /a",
        "verdict": "allow",
        "reason": "ok",
        "status": 200,
        "duration_ms": 3.0,
    }
    return Decided(**(known | changes))  # type: ignore[arg-type]


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus reads: (name, labels in order) -> value."""
    text = metrics.render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


def test_requests_are_counted_by_route_verdict_and_status() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.done(decided())
    metrics.done(decided(verdict="deny", status=403))
    metrics.done(decided(route=None, verdict="deny", status=400))
    name = "gateway_requests_total"
    assert value(metrics, name, route="GET /a", verdict="allow", status="200") == 3
    assert value(metrics, name, route="GET /a", verdict="deny", status="403") == 1
    assert value(metrics, name, route="none", verdict="deny", status="400") == 1


def test_what_only_passed_because_a_rule_reports_is_counted_by_its_reason() -> None:
    metrics = Metrics()
    for would in ("", "not_admin", "not_admin", "no_credential"):
        metrics.done(decided(would=would))
    name = "gateway_report_only_total"
    assert value(metrics, name, route="GET /a", reason="not_admin") == 2
    assert value(metrics, name, route="GET /a", reason="no_credential") == 1
    assert len([key for key in samples(metrics) if key[0] == name]) == 2
    assert value(metrics, "gateway_enforcing") == 1
    metrics.enforcing = False
    assert value(metrics, "gateway_enforcing") == 0


def test_paths_users_and_addresses_are_no_labels() -> None:
    metrics = Metrics()
    metrics.done(decided(user="user-1"))
    text = metrics.render().decode()
    assert "secret-path" not in text
    assert "user-1" not in text
    assert "192.0.2.1" not in text


def test_durations_fall_into_buckets() -> None:
    metrics = Metrics()
    for milliseconds in (0.5, 1.0, 3.0, 70_000.0):
        metrics.done(decided(duration_ms=milliseconds))
    metrics.done(decided(duration_ms=None, route="other"))
    name = "gateway_request_duration_seconds"
    assert value(metrics, f"{name}_bucket", route="GET /a", le="0.001") == 2
    assert value(metrics, f"{name}_bucket", route="GET /a", le="0.0025") == 2
    assert value(metrics, f"{name}_bucket", route="GET /a", le="0.005") == 3
    assert value(metrics, f"{name}_bucket", route="GET /a", le="60.0") == 3
    assert value(metrics, f"{name}_bucket", route="GET /a", le="+Inf") == 4
    assert value(metrics, f"{name}_count", route="GET /a") == 4
    assert value(metrics, f"{name}_sum", route="GET /a") == pytest.approx(70.0045)
    assert value(metrics, f"{name}_count", route="other") == 1


@settings(max_examples=20, deadline=None)  # each reads /proc
@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_a_histogram_agrees_with_the_definition(durations: list[float]) -> None:
    metrics = Metrics(CollectorRegistry())
    for milliseconds in durations:
        metrics.done(decided(duration_ms=milliseconds))
    shown = samples(metrics)
    for bound in BUCKETS if durations else ():
        at_most = sum(milliseconds / 1000.0 <= bound for milliseconds in durations)
        labels = (("le", str(bound)), ("route", "GET /a"))
        assert shown["gateway_request_duration_seconds_bucket", labels] == at_most


def test_bytes_are_summed_by_route() -> None:
    metrics = Metrics()
    metrics.done(decided(bytes_in=10, bytes_out=1000))
    metrics.done(decided(bytes_in=5, bytes_out=500, status=404))
    assert value(metrics, "gateway_request_body_bytes_total", route="GET /a") == 15
    assert value(metrics, "gateway_response_body_bytes_total", route="GET /a") == 1500


def test_requests_in_flight() -> None:
    metrics = Metrics()
    metrics.began()
    metrics.began()
    metrics.done(decided())
    assert value(metrics, "gateway_requests_in_flight") == 1


def test_failures_of_backends_are_counted_by_kind() -> None:
    metrics = Metrics()
    metrics.done(decided(status=504, reason="upstream_timeout", upstream="http://10.0.0.1:80"))
    metrics.done(decided(status=503, reason="upstream_unavailable"))
    metrics.done(decided(status=502))
    assert (
        value(
            metrics, "gateway_upstream_errors_total", upstream="http://10.0.0.1:80", kind="upstream_timeout"
        )
        == 1
    )
    assert value(metrics, "gateway_upstream_errors_total", upstream="", kind="upstream_unavailable") == 1


def test_outcomes_of_logins_and_refreshes() -> None:
    metrics = Metrics()
    for status in (200, 200, 401, 429, 503, 400):
        metrics.done(decided(route="auth:login", status=status))
    metrics.done(decided(route="auth:refresh", status=401, verdict="deny"))
    logins = {
        o: value(metrics, "gateway_logins_total", outcome=o)
        for o in ("success", "refused", "limited", "error")
    }
    assert logins == {"success": 2, "refused": 1, "limited": 1, "error": 2}
    assert value(metrics, "gateway_refreshes_total", outcome="refused") == 1
    assert value(metrics, "gateway_refreshes_total", outcome="success") is None


def test_audit_events_are_counted_by_name() -> None:
    metrics = Metrics()
    trail = AuditTrail([metrics.count])
    trail.record(LoginFailed(email="a@b"))
    trail.record(LoginFailed(email="a@b"))
    trail.record(GraceHit(user="u", session="s"))
    assert value(metrics, "gateway_audit_events_total", name="login_failed") == 2
    assert value(metrics, "gateway_audit_events_total", name="grace_hit") == 1


@dataclass
class Pool:
    idle_count: int = 3
    busy_count: int = 2
    opening_count: int = 1
    waiting_count: int = 7
    standing: list[tuple[str, bool]] = field(default_factory=lambda: [("a:80", True), ("b:80", False)])


def test_what_others_know_is_read_when_somebody_asks() -> None:
    metrics = Metrics(version="1.2.3")
    pool, cutoffs, state = Pool(), {"a"}, {"ready": False, "dropped": 0}
    metrics.watch_pool("app", pool)
    metrics.watch_cutoffs(cutoffs, lambda: 0.25)
    metrics.watch_ready(lambda: bool(state["ready"]))
    metrics.watch_log(lambda: state["dropped"])
    assert value(metrics, "gateway_ready") == 0
    pool.idle_count = 4
    cutoffs.add("b")
    state.update(ready=True, dropped=5)
    assert value(metrics, "gateway_upstream_connections", upstream="app", state="idle") == 4
    assert value(metrics, "gateway_upstream_connections", upstream="app", state="busy") == 2
    assert value(metrics, "gateway_upstream_connections", upstream="app", state="opening") == 1
    assert value(metrics, "gateway_upstream_waiting", upstream="app") == 7
    assert value(metrics, "gateway_upstream_server_up", upstream="app", server="a:80") == 1
    assert value(metrics, "gateway_upstream_server_up", upstream="app", server="b:80") == 0
    assert value(metrics, "gateway_cutoffs") == 2
    assert value(metrics, "gateway_ready") == 1
    assert value(metrics, "gateway_log_lines_dropped_total") == 5
    assert value(metrics, "gateway_build_info", version="1.2.3") == 1


def test_a_pool_that_was_replaced_is_forgotten() -> None:
    metrics = Metrics()
    metrics.watch_pool("app", Pool(idle_count=1))
    metrics.watch_pool("app", Pool(idle_count=2))
    assert value(metrics, "gateway_upstream_connections", upstream="app", state="idle") == 2


def test_the_process_is_shown_and_two_gateways_do_not_share() -> None:
    one, two = Metrics(), Metrics()
    one.done(decided())
    assert samples(two).get(("process_open_fds", ())) is not None
    assert value(two, "gateway_requests_total", route="GET /a", verdict="allow", status="200") is None


def test_odd_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.done(decided(route='GET /"\\\n'))
    assert value(metrics, "gateway_requests_total", route='GET /"\\\n', verdict="allow", status="200") == 1


def test_reloads_are_counted_and_the_last_one_is_told() -> None:
    metrics = Metrics()
    assert value(metrics, "gateway_reload_successful") is None
    started = value(metrics, "gateway_configuration_timestamp_seconds")
    metrics.reloaded("mistakes")
    assert value(metrics, "gateway_configuration_timestamp_seconds") == started
    for outcome, good in (("applied", 1), ("mistakes", 0), ("applied", 1)):
        metrics.reloaded(outcome)
        assert value(metrics, "gateway_reload_successful") == good
    assert value(metrics, "gateway_reloads_total", outcome="applied") == 2
    assert value(metrics, "gateway_reloads_total", outcome="mistakes") == 2
    assert value(metrics, "gateway_configuration_timestamp_seconds") > started
