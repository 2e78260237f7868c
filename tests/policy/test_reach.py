"""What an API token is good for by itself: its own limits, written like routes."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Forbidden
from gateway.identity.principal import LOGIN, Reach
from gateway.policy.decide import Decision, Verdict, decide
from gateway.policy.model import Reason
from gateway.policy.reach import mistake
from tests.policy.rules import person, policy

RULES = """
    default: authenticated
    routes:
      - {path: /health, allow: public}
      - {path: /closed/**, allow: nobody}
      - {path: /v1/**, allow: authenticated, strip_prefix: /v1}
      - {path: /trial/**, allow: authenticated, report_only: true}
"""
READS = Reach(("GET",), ("/reports/**", "/Data/{id}"))


def ask(target: str, reach: Reach | None = READS, method: str = "GET") -> Decision:
    return decide(
        policy(RULES),
        method=method,
        host=b"",
        path=target.encode(),
        principal=person(admin=True, scopes=("r",), reach=reach),
        address=None,
        now=0.0,
    )


@pytest.mark.parametrize(
    "target",
    ["/reports", "/reports/", "/reports/q3", "/reports/Q3", "/reports/a%2Fb", "/reports//x", "/Data/7"],
)
def test_what_fits_passes_as_its_user_may(target: str) -> None:
    assert ask(target).verdict is Verdict.ALLOW
    assert ask(target, method="HEAD").verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    "target",
    ["/", "/orders", "/Reports/q3", "/data/7", "/Data/7/x", "/reports;/orders", "/reports%2F..x;/y/%2e%2ex",
     "/orders%2Freports", "//orders/reports", "/reports%3f/x", "/v1/reports/q3", "/reports%5cx/%ef%bc%8fy;"],
)  # fmt: skip
def test_what_fits_in_one_reading_and_not_in_all_is_refused(target: str) -> None:
    reached = ask(target)
    assert (reached.verdict, reached.reason) == (Verdict.FORBIDDEN, Reason.OUT_OF_REACH)
    assert isinstance(reached.error, Forbidden)
    assert "API token" in reached.error.detail


def test_methods_alone_and_paths_alone() -> None:
    assert ask("/orders", Reach(("GET", "POST"), None), method="POST").verdict is Verdict.ALLOW
    assert ask("/orders", Reach(("GET",), None), method="POST").reason is Reason.OUT_OF_REACH
    assert ask("/orders/1", Reach(None, ("/orders/{id}",)), method="DELETE").verdict is Verdict.ALLOW
    assert ask("/orders", None).verdict is Verdict.ALLOW


@pytest.mark.parametrize("paths", [(), ("orders",), ("/a%2Fb",), ("/a/**/b", "")])
def test_a_limit_that_says_nothing_that_can_be_understood_fits_nothing(paths: tuple[str, ...]) -> None:
    for target in ("/", "/orders", "/a/b", "/a%2Fb"):
        assert ask(target, Reach(None, paths)).reason is Reason.OUT_OF_REACH
    assert ask("/orders", Reach((), None)).reason is Reason.OUT_OF_REACH


def test_behind_a_stripped_prefix_every_reading_of_what_is_left_must_fit_too() -> None:
    reach = Reach(None, ("/v1/reports/**",))
    assert ask("/v1/reports/q3", reach).verdict is Verdict.ALLOW
    assert (
        ask("/v1//reports/q3", reach).reason is Reason.OUT_OF_REACH
    )  # the backend may see //reports/q3: /q3
    assert ask("/v1/reports/q3;/x", reach).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    ("prefix", "target", "paths"),
    [("/a.", "/a./x.", ("/a./x.", "/a/x")), ("/ﬁ", "/%EF%AC%81/%EF%AC%81", ("/ﬁ/ﬁ", "/fi/fi"))],
)
def test_what_is_left_is_read_without_the_prefix(prefix: str, target: str, paths: tuple[str, ...]) -> None:
    """A backend that tidies up `/x.` never had the prefix to tidy up with it: that is `/a./x`, not `/a/x`."""
    rules = policy(f"""
        default: authenticated
        routes:
          - {{path: "{prefix}/**", allow: authenticated, strip_prefix: "{prefix}"}}
    """)
    caller = {"host": b"", "address": None, "now": 0.0}
    verdicts = []
    for limits in (paths, (*paths, f"{prefix}/**")):
        principal = person(scopes=("r",), reach=Reach(None, limits))
        verdicts.append(
            decide(rules, method="GET", path=target.encode(), principal=principal, **caller).verdict
        )
    assert verdicts == [Verdict.FORBIDDEN, Verdict.ALLOW]


def test_where_limits_differ_in_case_what_all_of_them_take_fits() -> None:
    """A backend that is blind to case may look for `/a/x` below `/A`, which goes no further than `/A/a`."""
    assert ask("/a/x", Reach(None, ("/a/x",))).verdict is Verdict.ALLOW
    assert ask("/a/x", Reach(None, ("/a/x", "/A/a"))).reason is Reason.OUT_OF_REACH


def test_out_of_its_reach_a_token_counts_as_none() -> None:
    assert ask("/health").reason is Reason.PUBLIC
    assert ask("/closed/x").reason is Reason.NOBODY
    tried = ask("/trial/x")
    assert (tried.reason, tried.would and tried.would.reason) == (Reason.REPORT_ONLY, Reason.NO_CREDENTIAL)


def test_mistakes_are_said() -> None:
    assert mistake(READS) is None
    assert mistake(Reach(("GET",), None)) is None
    assert mistake(Reach(None, ("/a", "b"))) == "b must begin with /"


@given(st.text(max_size=20), st.sampled_from(["", "/", "//", ";", "%2f", "%252f", "\\", "/../", "/x/"]))
def test_no_path_of_another_application_is_reached(tail: str, between: str) -> None:
    """Whatever follows: a path that begins elsewhere never fits a limit below /reports."""
    target = "/orders" + between + quote(tail, safe="/%;\\.~")
    assert ask(target).verdict is not Verdict.ALLOW


SCOPES = """
    default: authenticated
    routes:
      - {path: /machines/**, allow: {scopes: {any: [deploy, ci]}}}
      - {path: /both/**, allow: {scopes: {any: [login, deploy]}}}
      - {path: /people/**, allow: {scopes: {all: [login]}}}
      - {path: /every/**, allow: {scopes: {all: [ci, deploy]}, roles: {any: [ops]}}}
"""


@pytest.mark.parametrize(
    ("target", "scopes", "reason"),
    [
        ("/machines/x", ("deploy",), Reason.SCOPES),
        ("/machines/x", ("other",), Reason.MISSING_SCOPE),
        ("/machines/x", (), Reason.MISSING_SCOPE),
        ("/machines/x", (LOGIN,), Reason.MISSING_SCOPE),
        ("/both/x", (LOGIN,), Reason.SCOPES),
        ("/both/x", ("deploy",), Reason.SCOPES),
        ("/people/x", (LOGIN,), Reason.SCOPES),
        ("/people/x", ("deploy",), Reason.MISSING_SCOPE),
        ("/every/x", ("ci", "deploy"), Reason.ROLES),
        ("/every/x", ("ci",), Reason.MISSING_SCOPE),
        ("/else", (), Reason.DEFAULT),
    ],
)
def test_scopes_are_asked_for_beside_the_users_rights(
    target: str, scopes: tuple[str, ...], reason: Reason
) -> None:
    def asked(*roles: str) -> Decision:
        return decide(
            policy(SCOPES),
            method="GET",
            host=b"",
            path=target.encode(),
            principal=person(roles=roles, scopes=scopes),
            address=None,
            now=0.0,
        )

    decision = asked("ops")
    assert decision.reason is reason
    assert (decision.verdict is Verdict.ALLOW) is (reason is not Reason.MISSING_SCOPE)
    if target.startswith("/every"):
        assert asked().reason is Reason.MISSING_ROLE
