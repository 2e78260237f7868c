"""A week with the gateway: login, request, refresh, and login again when the week is over."""

from __future__ import annotations

import pytest

from tests.support.house import House, seen_by_backend

pytestmark = pytest.mark.anyio


async def test_a_login_opens_the_backend_and_the_backend_knows_who_came(house: House) -> None:
    await house.add("ana@example.com", roles=("auditor", "analyst"))
    assert (await house.http.get("/orders")).status_code == 401

    ana = await house.log_in("ana@example.com")
    answer = await ana.get("/orders?page=2")

    assert answer.status_code == 200
    assert answer.json()["requestLine"] == "GET /orders?page=2 HTTP/1.1"
    seen = seen_by_backend(answer)
    assert seen["x-user-id"] == ana.user["id"]
    assert seen["x-user-email"] == "ana@example.com"
    assert seen["x-user-admin"] == "false"
    assert seen["x-user-roles"] == "analyst,auditor"
    assert seen["x-forwarded-for"] == "192.0.2.7"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-forwarded-host"] == "gateway.test"
    assert len(seen["x-request-id"]) == 32
    assert seen["traceparent"].startswith(f"00-{seen['x-request-id']}-")
    assert "authorization" not in seen


async def test_the_three_answers_of_an_admin_path(house: House) -> None:
    await house.add("root@example.com", is_admin=True)
    await house.add("ana@example.com")
    root, ana = await house.log_in("root@example.com"), await house.log_in("ana@example.com")

    nobody = await house.http.get("/admin/users")
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"] == 'Bearer realm="gateway"'
    assert nobody.json()["code"] == nobody.headers["x-gateway-error"] == "not_logged_in"

    user = await ana.get("/admin/users")
    assert user.status_code == 403
    assert 'error="insufficient_scope"' in user.headers["www-authenticate"]

    admin = await root.get("/admin/users")
    assert admin.status_code == 200
    assert seen_by_backend(admin)["x-user-admin"] == "true"


async def test_access_ends_after_fifteen_minutes_and_a_refresh_brings_it_back(house: House) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")

    house.clock.advance(minutes=15, seconds=11)  # ten of them are leeway
    expired = await ana.get("/orders")
    assert expired.status_code == 401
    assert 'error="invalid_token"' in expired.headers["www-authenticate"]

    before = (ana.access, ana.refresh)
    assert (await ana.renew()).status_code == 200
    assert ana.access != before[0]
    assert ana.refresh != before[1]
    assert (await ana.get("/orders")).status_code == 200


async def test_after_seven_idle_days_only_a_new_login_helps(house: House) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")

    house.clock.advance(days=7, seconds=11)
    refused = await ana.renew()
    assert refused.status_code == 401
    assert refused.json()["code"] == "invalid_refresh_token"

    ana = await house.log_in("ana@example.com")
    assert (await ana.get("/orders")).status_code == 200


async def test_a_session_ends_after_thirty_days_however_often_it_was_refreshed(house: House) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")
    for _ in range(5):
        house.clock.advance(days=5.9)
        assert (await ana.renew()).status_code == 200

    house.clock.advance(days=0.6)
    assert (await ana.renew()).status_code == 401


async def test_a_public_path_needs_nothing_and_a_bad_token_there_counts_as_none(house: House) -> None:
    answer = await house.http.get("/health", headers={"Authorization": "Bearer rubbish"})
    assert answer.status_code == 200
    assert not [name for name in seen_by_backend(answer) if name.startswith("x-user")]


async def test_a_public_path_still_says_who_came(house: House) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")
    assert seen_by_backend(await ana.get("/health"))["x-user-email"] == "ana@example.com"


@pytest.mark.parametrize("way", ["query", "cookie", "basic", "refresh"])
async def test_a_token_is_a_credential_in_one_place_only(house: House, way: str) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")
    attempts: dict[str, dict[str, object]] = {
        "query": {"params": {"access_token": ana.access}},
        "cookie": {"headers": {"Cookie": f"access_token={ana.access}"}},
        "basic": {"headers": {"Authorization": f"Basic {ana.access}"}},
        "refresh": {"headers": {"Authorization": f"Bearer {ana.refresh}"}},
    }
    answer = await house.http.request("GET", "/orders", **attempts[way])  # type: ignore[arg-type]
    assert answer.status_code == 401


async def test_nothing_secret_is_ever_written(house: House) -> None:
    await house.add("ana@example.com")
    ana = await house.log_in("ana@example.com")
    await ana.get(f"/orders?token={ana.access}")
    await ana.renew()
    await house.try_log_in("ana@example.com", "wrong but also secret")
    await ana.log_out()
    assert "/orders" in {event.get("path") for event in house.events()}
    written = house.log.getvalue()
    for secret in (ana.access, ana.refresh, "a long enough password", "wrong but also secret", "token="):
        assert secret not in written
