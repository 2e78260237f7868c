"""How a server stands: in, out, or on its way back. Time is handed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.upstream.address import Address
from gateway.proxy.upstream.server import LEAST_WEIGHT, LONGEST_EJECTION, Server
from gateway.proxy.upstream.settings import Ejection, HealthCheck

CHECK = HealthCheck("/up", healthy=2, unhealthy=3)


def server(failures: int = 3, seconds: float = 10.0, slow_start: float = 10.0) -> Server:
    return Server(Address("a", 80), Ejection(failures, seconds, slow_start))


def fail(a: Server, now: float, times: int) -> list[str]:
    return [a.failed(now, "reset") for _ in range(times)]


# -- requests ----------------------------------------------------------------------


def test_so_many_failures_in_a_row_and_it_is_out_for_a_while() -> None:
    a = server()
    assert fail(a, 100, 4) == ["", "", "is out for 10 s after 3 failures in a row, the last: reset", ""]
    assert (a.out, a.changing) == (True, True)
    assert (a.tick(109.9), a.out) == ("", True)
    assert (a.tick(110), a.out) == ("is back: its time is over", False)


def test_an_answer_between_two_failures_makes_them_none_in_a_row() -> None:
    a = server()
    for _ in range(5):
        fail(a, 100, 2)
        assert a.answered(100, asked_while_out=False) == ""
    assert (a.out, a.failures) == (False, 0)


def test_none_is_ejected_if_nobody_wants_that() -> None:
    a = server(failures=0)
    fail(a, 100, 1000)
    assert not a.out


def test_back_without_an_answer_the_first_failure_ejects_it_for_twice_as_long() -> None:
    a, now, lengths = server(), 0.0, []
    fail(a, now, 3)
    for _ in range(7):
        began = now
        while a.out:
            now += 1.0
            a.tick(now)
        lengths.append(now - began)
        now += 100.0  # nobody asked it
        assert "is out for" in a.failed(now, "reset")
    assert lengths == [10, 20, 40, 80, 160, LONGEST_EJECTION, LONGEST_EJECTION]


@pytest.mark.parametrize(("well_for", "again"), [(9.0, 20), (11.0, 10)])
def test_who_was_well_for_as_long_as_it_was_out_begins_anew(well_for: float, again: int) -> None:
    a = server()
    fail(a, 0, 3)
    a.tick(10)
    a.answered(10, asked_while_out=False)
    assert f"is out for {again} s" in fail(a, 10 + well_for, 3)[-1]


def test_longer_than_the_cap_is_as_long_as_it_says() -> None:
    a = server(seconds=1000.0)
    fail(a, 0, 3)
    a.tick(1000)
    assert "is out for 1000 s" in a.failed(1001, "reset")


def test_it_comes_back_slowly() -> None:
    a = server()
    assert (a.weight, a.changing) == (1.0, False)
    fail(a, 100, 3)
    a.tick(110)
    weights = []
    for now in (110, 110.5, 112, 115, 119, 120, 121):
        a.tick(now)
        weights.append(a.weight)
    assert weights == [LEAST_WEIGHT, LEAST_WEIGHT, 0.2, 0.5, 0.9, 1.0, 1.0]
    assert not a.changing


def test_or_at_once_if_told_so() -> None:
    a = server(slow_start=0.0)
    fail(a, 100, 3)
    a.tick(110)
    assert (a.weight, a.changing) == (1.0, False)


def test_asked_because_no_other_was_left_its_answer_brings_it_back() -> None:
    a = server()
    fail(a, 100, 3)
    assert a.answered(101, asked_while_out=False) == "", "it was asked before"
    assert a.out
    assert a.answered(102, asked_while_out=True) == "is back: it answers"
    assert not a.out


# -- checks ------------------------------------------------------------------------


def checks(a: Server, outcomes: str, now: float = 100.0) -> list[bool]:
    """Runs checks (`+` passes, `-` fails) and returns after each whether it is in."""
    seen = []
    for outcome in outcomes:
        a.checked(now, CHECK, "" if outcome == "+" else "/up answered 500")
        seen.append(not a.out)
    return seen


def test_checks_count_in_a_row() -> None:
    a = server()
    assert checks(a, "+--+---") == [True] * 6 + [False]
    assert checks(a, "+-++") == [False] * 3 + [True]


def test_the_first_check_decides_alone() -> None:
    assert checks(server(), "-") == [False]
    a = server()
    assert (
        a.checked(100, CHECK, "/up answered 500")
        == "is out until its health checks pass again: /up answered 500"
    )
    assert checks(a, "+") == [False]
    assert a.checked(100, CHECK, "") == "is back: its health checks pass"
    assert (a.weight, a.changing) == (LEAST_WEIGHT, True)


def test_both_judges_must_agree() -> None:
    a = server()
    fail(a, 100, 3)
    checks(a, "-")
    assert (a.tick(110), a.out) == ("", True), "the checks still fail"
    assert checks(a, "++") == [False, True]
    fail(a, 120, 3)
    assert a.out
    assert checks(a, "-++") == [False] * 3, "its time is not over"
    a.tick(500)
    assert not a.out


Event = st.one_of(
    st.just("fail"), st.just("answer"), st.just("alone"), st.just("+"), st.just("-"), st.floats(0.1, 100.0)
)


@given(st.lists(Event, max_size=80))
def test_whatever_happens_it_is_told_once_per_change_and_time_heals(events: list[str | float]) -> None:
    a, now, told = server(), 0.0, False
    for event in events:
        if event == "fail":
            change = a.failed(now, "reset")
        elif event in ("answer", "alone"):
            change = a.answered(now, asked_while_out=event == "alone")
        elif event in ("+", "-"):
            change = a.checked(now, CHECK, "" if event == "+" else "500")
        else:
            now += float(event)
            change = a.tick(now)
        if change.startswith("is back"):
            assert told
            assert not a.out
            told = False
        elif change:
            assert a.out
            told = True
        assert a.out == told
        assert LEAST_WEIGHT <= a.weight <= 1.0
    for _ in range(CHECK.healthy):
        a.checked(now, CHECK, "")
    for later in (LONGEST_EJECTION, 2 * LONGEST_EJECTION):
        a.tick(now + later)
    assert (a.out, a.weight, a.changing) == (False, 1.0, False)


def test_how_it_looks_at_night() -> None:
    a = server()
    assert (str(a), repr(a)) == ("a:80", "<Server a:80 in: 0 open, 0 idle, 0 opening>")
    fail(a, 0, 3)
    assert "out" in repr(a)
    a.tick(10)
    a.tick(15)
    assert repr(a) == "<Server a:80 back at 50%: 0 open, 0 idle, 0 opening>"
