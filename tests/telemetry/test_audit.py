"""What was done is recorded: when, in which request, by whom, to whom, from where."""

from __future__ import annotations

import json
import logging

import pytest

from gateway.telemetry import audit
from gateway.telemetry.audit import AuditTrail, Event, Recorded, to_log
from gateway.telemetry.logs import REQUEST_ID

NOW = 1_800_000_000.5
EVENTS: list[Event] = [
    audit.LoginSucceeded(user="u", email="ada@example.com", session="s", address="192.0.2.1"),
    audit.LoginFailed(email="ada@example.com", address="192.0.2.1"),
    audit.LoginLimited(email="ada@example.com", limit="per_account", address="192.0.2.1"),
    audit.RefreshLimited(limit="per_address", address="192.0.2.1"),
    audit.PasswordLimited(user="u", session="s", limit="per_account", address="192.0.2.1"),
    audit.LimitsCleared(user="u", email="ada@example.com", actor="admin"),
    audit.RefreshReused(user="u", session="s", address="192.0.2.1"),
    audit.GraceHit(user="u", session="s", address="192.0.2.1"),
    audit.LoggedOut(user="u", session="s", address="192.0.2.1"),
    audit.SessionEnded(user="u", session="s", reason="ended", actor="admin"),
    audit.SessionsEnded(user="u", count=2, actor="admin"),
    audit.PasswordChanged(user="u", actor="u"),
    audit.UserCreated(user="u", email="ada@example.com", admin=True, roles=("a",), actor="cli"),
    audit.UserUpdated(
        user="u", email="ada@example.com", changed={"isAdmin": True, "roles": ("a",)}, actor="admin"
    ),
    audit.UserDeleted(user="u", email="ada@example.com", actor="admin"),
    audit.UsersImported(count=2, admins=1, actor="cli"),
    audit.HashesExported(count=2, actor="cli"),
    audit.TokenCreated(user="u", credential="t", label="deploys", actor="admin"),
    audit.TokenRevoked(user="u", credential="t", label="deploys", actor="admin"),
    audit.KeyGenerated(key="k", algorithm="ES256", actor="cli"),
    audit.KeyRotated(key="k", algorithm="ES256", begins="2027-01-15T08:10:00Z", actor="cli"),
    audit.KeyRetired(key="k", algorithm="ES256", ends="2027-01-15T08:25:00Z", actor="cli"),
]


def line_of(event: Event) -> dict[str, object]:
    lines: list[bytes] = []
    AuditTrail([to_log(lines.append)], clock=lambda: NOW).record(event)
    (line,) = lines
    assert line.endswith(b"\n")
    fields: dict[str, object] = json.loads(line)
    return fields


def test_a_login_is_a_line() -> None:
    assert line_of(EVENTS[0]) == {
        "time": "2027-01-15T08:00:00.500Z",
        "level": "info",
        "event": "audit",
        "name": "login_succeeded",
        "requestId": None,
        "actor": "u",
        "address": "192.0.2.1",
        "user": "u",
        "email": "ada@example.com",
        "session": "s",
    }


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_event_has_its_name_and_circumstances(event: Event) -> None:
    line = line_of(event)
    assert line["event"] == "audit"
    assert line["name"] == event.name
    assert {"time", "requestId", "actor", "address"} <= line.keys()


def test_names_are_unique_and_all_are_tried_here() -> None:
    assert len({event.name for event in EVENTS}) == len(EVENTS)
    assert {event.name for event in EVENTS} == {kind.name for kind in Event.__subclasses__()}


def test_who_did_it() -> None:
    actors = {event.name: line_of(event)["actor"] for event in EVENTS}
    assert actors["logged_out"] == "u"
    assert actors["user_created"] == "cli"
    assert actors["user_deleted"] == "admin"
    assert actors["refresh_reused"] is None, "it may have been the thief"
    assert actors["login_failed"] is None


def test_what_was_changed() -> None:
    assert line_of(EVENTS[13])["changed"] == {"isAdmin": True, "roles": ["a"]}


def test_the_request_that_caused_it_is_named() -> None:
    token = REQUEST_ID.set("r-1")
    line = line_of(EVENTS[1])
    REQUEST_ID.reset(token)
    assert line["requestId"] == "r-1"


@pytest.mark.parametrize("typed", ["hunter2", "", "correct horse battery staple", "x@" + "y" * 300])
def test_a_password_typed_as_a_name_is_not_written_down(typed: str) -> None:
    assert line_of(audit.LoginFailed(email=typed))["email"] == ""
    assert line_of(audit.LoginLimited(email=typed, limit="per_account"))["email"] == ""


def test_every_sink_hears_and_one_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Recorded] = []

    def failing(_: Recorded) -> None:
        raise OSError("disk full")

    trail = AuditTrail([heard.append, failing, heard.append], clock=lambda: NOW)
    with caplog.at_level(logging.ERROR):
        trail.record(EVENTS[1])
    assert heard == [Recorded(EVENTS[1], NOW, None)] * 2
    assert "an audit sink failed on login_failed" in caplog.text


def test_without_sinks_nothing_happens() -> None:
    AuditTrail([]).record(EVENTS[0])
