"""What is wrong between rules when they hold for a time, or only report."""

from __future__ import annotations

import pytest

from tests.policy.rules import compiled

HOSTLESS = {"path": "/admin/**", "allow": "admin"}
LAXER_HOST = "is laxer than routes[0]"
BELOW = "is stricter than what lies below it"


def remarks(*routes: dict[str, object]) -> list[str]:
    _, problems = compiled({"upstream": "http://a", "routes": list(routes)})
    return [problem.sentence for problem in problems]


def said(text: str, *routes: dict[str, object]) -> bool:
    return any(text in sentence for sentence in remarks(*routes))


@pytest.mark.parametrize(
    ("changed", "laxer"),
    [
        ({"allow": "admin"}, False),
        ({"allow": "authenticated"}, True),
        ({"allow": "admin", "report_only": True}, True),
        ({"allow": "nobody", "report_only": True}, True),
        ({"allow": "admin", "valid": {"until": "2027-01-31"}}, False),
        ({"allow": {"networks": ["10.0.0.0/8"]}}, True),
    ],
)
def test_a_host_route_is_laxer_if_it_lets_anyone_more_pass(changed: dict[str, object], laxer: bool) -> None:
    route = {"path": "/admin/**", "hosts": ["a.example.com"], **changed}
    assert said(LAXER_HOST, HOSTLESS, route) is laxer


def test_a_rule_that_ends_is_narrower_than_one_that_does_not() -> None:
    for_a_time = {**HOSTLESS, "valid": {"until": "2027-01-31"}}
    always = {**HOSTLESS, "hosts": ["a.example.com"]}
    assert said(LAXER_HOST, for_a_time, always)
    assert not said(LAXER_HOST, HOSTLESS, {**always, "valid": {"from": "2027-01-31"}})


def test_what_only_reports_is_open() -> None:
    everything = {"path": "/**", "allow": "admin", "report_only": True}
    assert said("opens every path", everything)
    assert said("which is public", everything, {"path": "/x/{n}", "methods": ["PUT"], "allow": "admin"})
    assert said(BELOW, {"path": "/a.php", "allow": "admin"}, {**everything, "path": "/a.php/**"})
    assert not said(BELOW, {"path": "/a.php", "allow": "admin", "report_only": True})
