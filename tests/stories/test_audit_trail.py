"""What happened is told twice, in the log and to an admin who asks, and both say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.house import PASSWORD, House, open_house

pytestmark = pytest.mark.anyio


async def test_a_break_in_can_be_read_afterwards(tmp_path: Path) -> None:
    """Guessing, then a way in, then a new admin: who, from where, in which request. After a restart, too."""
    async with open_house(tmp_path) as house:
        root_id = await house.add("root@example.com", is_admin=True)
        ann_id = await house.add("ann@example.com")
        for name, password in (("ann@example.com", "wrong"), ("no@example.com", "wrong"), ("hunter2", "x")):
            house.clock.advance(seconds=1)
            await house.try_log_in(name, password)
        house.clock.advance(seconds=1)
        root = await house.log_in("root@example.com")
        house.clock.advance(seconds=1)
        changed = await root.send("PATCH", f"/auth/users/{ann_id}", json={"isAdmin": True})
        assert changed.status_code == 200
        logged = [event for event in house.events() if event["event"] == "audit"]

    async with open_house(tmp_path) as house:
        told = await asked(house)
    assert [(event["name"], event["email"]) for event in told] == [
        ("user_created", "root@example.com"),
        ("user_created", "ann@example.com"),
        ("login_failed", "ann@example.com"),
        ("login_failed", "no@example.com"),
        ("login_failed", ""),
        ("login_succeeded", "root@example.com"),
        ("user_updated", "ann@example.com"),
    ]
    assert [event["user"] for event in told[2:5]] == [ann_id, None, None]
    promoted = told[-1]
    assert (promoted["actor"], promoted["actorEmail"]) == (root_id, "root@example.com")
    assert promoted["details"] == {"changed": {"isAdmin": True}}
    assert (promoted["address"], promoted["requestId"]) == ("192.0.2.7", changed.headers["x-request-id"])

    same = ("time", "name", "actor", "address", "requestId", "user")
    assert [[event[key] for key in same] for event in logged] == [
        [event[key] for key in same] for event in told
    ]


async def asked(house: House) -> list[dict[str, Any]]:
    """What an admin reads, without that admin's own login; oldest first."""
    root = await house.log_in("root@example.com")
    answer = await root.get("/auth/audit", params={"limit": "8"})
    assert answer.status_code == 200
    assert PASSWORD not in answer.text
    events: list[dict[str, Any]] = answer.json()["items"][1:]
    return sorted(events, key=lambda event: (event["time"], int(event["id"])))
