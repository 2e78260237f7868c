"""A lost phone: its owner ends its session from the laptop, and it is out of the backend at once."""

from __future__ import annotations

import pytest

from tests.support.house import House

pytestmark = pytest.mark.anyio


async def test_a_session_ended_from_the_list_is_out_at_once(house: House) -> None:
    await house.add("ann@example.com")
    phone = await house.log_in("ann@example.com")
    laptop = await house.log_in("ann@example.com")
    assert (await phone.get("/hello")).status_code == 200

    listed = (await laptop.get("/auth/sessions")).json()["items"]
    (lost,) = [session["id"] for session in listed if not session["current"]]
    assert (await laptop.send("DELETE", f"/auth/sessions/{lost}")).status_code == 204
    assert (await phone.get("/hello")).status_code == 401
    assert (await phone.renew()).status_code == 401
    assert (await laptop.get("/hello")).status_code == 200


async def test_everything_is_out_after_logout_all_and_a_new_login_is_in(house: House) -> None:
    await house.add("ann@example.com")
    phone, laptop = await house.log_in("ann@example.com"), await house.log_in("ann@example.com")
    assert (await laptop.send("POST", "/auth/logout-all")).status_code == 204
    for device in (phone, laptop):
        assert (await device.get("/hello")).status_code == 401
        assert (await device.renew()).status_code == 401
    assert (await (await house.log_in("ann@example.com")).get("/hello")).status_code == 200


async def test_a_session_that_nears_its_end_gives_no_token_that_outlives_it(house: House) -> None:
    await house.add("ann@example.com")
    ann = await house.log_in("ann@example.com")
    for _ in range(29):
        house.clock.advance(days=1)
        assert (await ann.renew()).status_code == 200
    house.clock.advance(days=1, minutes=-5)
    assert (await ann.renew()).status_code == 200  # a token of 15 minutes, five before the end
    house.clock.advance(minutes=5, seconds=-1)
    assert (await ann.get("/hello")).status_code == 200
    house.clock.advance(seconds=1 + 10)  # and the leeway
    assert (await ann.get("/hello")).status_code == 401
