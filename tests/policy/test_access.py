"""The table of who may do what, against `decide`: each cell holds for every request of its row."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.access import Access, Requests, Row, Table, summed_up, table
from gateway.policy.decide import decide
from gateway.policy.model import Allow, Policy, Validity
from gateway.policy.pattern import parse
from gateway.policy.regions import Kind, Methods, Region, regions
from tests.policy.rules import person, policy
from tests.policy.worlds import ASKED_HOSTS, ASKED_METHODS, random_policy, region_of, universe

EXTRAS = (
    Allow(all_roles=frozenset("ab")),
    Allow(users=frozenset({"ann@x.test"})),
    Allow(networks=(ip_network("10.0.0.0/8"),)),
    Allow(logged_in=True, networks=(ip_network("10.0.0.0/8"),)),
    Allow(logged_in=True, valid=Validity(begin=2.0)),
    Allow(everybody_without_login=True, valid=Validity(end=2.0)),
)
CIRCUMSTANCES = tuple(product(("nobody@x.test", "ann@x.test"), (None, ip_address("10.0.0.1")), (1.0, 3.0)))
PEOPLE = {
    "anonymous": None,
    "user": person(),
    "role a": person(roles=("a",)),
    "role b": person(roles=("b",)),
    "admin": person(admin=True),
}


def varied(rng: random.Random) -> Policy:
    one = random_policy(rng)
    routes = tuple(
        replace(
            route,
            allow=rng.choice(EXTRAS) if rng.random() < 0.3 else route.allow,
            report_only=rng.random() < 0.1,
        )
        for route in one.routes
    )
    return Policy.build(routes, one.default, one.auth_prefix.decode())


def answers(one: Policy, method: str, host: bytes, path: bytes, name: str) -> set[str]:
    """What this caller gets, with one e-mail address or another, from here and there, early and late."""
    found = set()
    for email, address, now in CIRCUMSTANCES:
        caller = PEOPLE[name]
        principal = None if caller is None else replace(caller, email=email)
        decision = decide(
            one, method=method, host=host, path=path, principal=principal, address=address, now=now
        )
        found.add("allow" if decision.error is None else str(decision.error.status))
    return found


def holds(access: Access, found: set[str]) -> bool:
    if access is Access.ALLOW:
        return found == {"allow"}
    if access is Access.SOME:
        return "allow" in found and len(found) > 1
    if access is Access.OWN:
        return found == {"404"}
    return "allow" not in found and access.value in found


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_cell_holds(rng: random.Random) -> None:
    one = varied(rng)
    classes, rows = list(regions(one)), {row.region: row for row in table(one).rows}
    paths = [segments for segments in universe() if "" not in segments]
    for segments in rng.sample(paths, 40):
        host, method = rng.choice(ASKED_HOSTS), rng.choice(ASKED_METHODS)
        asked = [segment.encode() for segment in segments]
        if not as_spelled(region_of(classes, method, host, asked), asked):
            continue  # /Admin has no row of its own: the rules of /admin hold for it too
        row = rows[region_of(rows, method, host, asked)]
        path = ("/" + "/".join(map(quote, segments))).encode()
        for name in PEOPLE.keys() & row.access.keys():
            found = answers(one, method, host, path, name)
            assert holds(row.access[name], found), (method, host, path, name, row.access[name], found)
        assert row.public is (
            row.route is not None and "allow" in answers(one, method, host, path, "anonymous")
        )


def as_spelled(region: Region, segments: list[bytes]) -> bool:
    parts = zip(region.parts, segments, strict=False)
    return region.plain and all(part.kind is Kind.OTHER or part.text == segment for part, segment in parts)


RULES = """
upstreams: {app: {}, reports: {}}
defaults: {upstream: app}
routes:
  - {path: /admin/**, allow: admin}
  - {path: /health, methods: [GET], allow: public}
  - {path: "/projects/{id}", methods: [DELETE], allow: admin}
  - {path: /projects/new, allow: nobody}
  - {path: /reports/**, allow: {roles: {any: [analyst, auditor]}}, upstream: reports}
  - {path: /office, hosts: ["*.example.com"], allow: {networks: [10.0.0.0/8]}}
  - {path: /trial, report_only: true, allow: admin}
  - {path: /docs/**, allow: public}
  - {path: /ping, methods: [HEAD], allow: public}
"""


@pytest.fixture
def whole() -> Table:
    return table(policy(RULES))


def lines(whole: Table) -> list[str]:
    return [
        f"{row.methods} {row.host}{row.path}: {' '.join(row.access[name] for name in whole.callers)}"
        for row in whole.rows
    ]


def test_it_reads_like_the_file(whole: Table) -> None:
    assert whole.callers == ("anonymous", "user", "role analyst", "role auditor", "admin")
    assert lines(whole) == [
        "any method *.example.com/office: some some some some some",
        "any method /admin/**: 401 403 403 403 allow",
        "any method /auth/**: own own own own own",
        "any method /docs/**: allow allow allow allow allow",
        "GET /health: allow allow allow allow allow",
        "any method but GET /health: 401 allow allow allow allow",
        "HEAD /ping: allow allow allow allow allow",
        "any method but HEAD /ping: 401 allow allow allow allow",
        "any method /projects/new: 403 403 403 403 403",
        "any method /projects/new/**: 401 allow allow allow allow",
        "DELETE /projects/{id}: 401 403 403 403 allow",
        "any method but DELETE /projects/{id}: 401 allow allow allow allow",
        "any method /reports/**: 401 403 allow allow 403",
        "any method /trial: allow allow allow allow allow",
        "any method /**: 401 allow allow allow allow",
    ]


def test_hosts_stand_in_the_order_in_which_they_are_asked() -> None:
    hosts = ("*.example.com", "*.com", "b.api.example.com", "*.api.example.com", "a.test")
    rules = "".join(f'\n  - {{path: /x, hosts: ["{host}"], allow: admin}}' for host in hosts)
    assert [row.host for row in table(policy(f"routes:{rules}")).rows] == [
        "b.api.example.com", "a.test", "*.api.example.com", "*.example.com", "*.com", "", "",
    ]  # fmt: skip


def test_what_needs_no_login_is_public(whole: Table) -> None:
    assert [row.path for row in whole.rows if row.public] == [
        "/office",
        "/docs/**",
        "/health",
        "/ping",
        "/trial",
    ]


def test_what_depends_on_time_place_or_address_is_asked_where_it_may_pass() -> None:
    """Who has no login must read 401 there, and not that the time is wrong."""
    conditional = table(
        policy("""
        routes:
          - {path: /a, allow: authenticated, valid: {from: 2030-01-01}}
          - {path: /b, allow: authenticated, valid: {until: 2020-01-01}}
          - {path: /c, allow: authenticated, valid: {until: 1969-01-01}}
          - {path: /d, allow: {users: [ann@x.test]}}
          - {path: /e, allow: {roles: {any: [analyst]}, networks: ["2001:db8::/32"]}}
          - {path: /f, allow: {scopes: {any: [deploy]}}}
          - {path: /g, allow: {networks: [10.0.0.0/8]}, report_only: true}
          - {path: /h, allow: {roles: {all: [clerk]}}}
        """)
    )
    assert conditional.callers == ("anonymous", "user", "role analyst", "role clerk", "admin")
    assert lines(conditional) == [
        "any method /a: 401 some some some some",
        "any method /auth/**: own own own own own",
        "any method /b: 401 some some some some",
        "any method /c: 401 some some some some",
        "any method /d: 401 some some some some",
        "any method /e: 401 403 some 403 403",
        "any method /f: 401 403 403 403 403",
        "any method /g: allow allow allow allow allow",
        "any method /h: 401 403 403 allow 403",
        "any method /**: 401 allow allow allow allow",
    ]


def test_the_most_specific_come_first_and_hosts_stand_by_their_domains() -> None:
    text = """
        routes:
          - {path: /p/**, allow: admin}
          - {path: "/p/{id}", allow: nobody}
          - {path: /x, hosts: ["*.test"], allow: nobody}
          - {path: /x, hosts: [a.b.test], allow: nobody}
          - {path: /x, hosts: [b.a.test], allow: nobody}
          - {path: /x, hosts: [a.test], allow: nobody}
    """
    assert [f"{row.host}{row.path}" for row in table(policy(text)).rows] == [
        "a.test/x",
        "b.a.test/x",
        "a.b.test/x",
        "*.test/x",
        "/auth/**",
        "/p/{id}",
        "/p/**",
        "/**",
    ]


def test_what_another_line_of_the_same_rule_says_already_is_left_out() -> None:
    rows = table(
        policy("""
        routes:
          - {path: /shop/**, allow: public}
          - {path: "/shop/{id}", methods: [DELETE], allow: admin}
          - {path: /shop/blog/**, allow: public}
          - {path: /health, allow: public}
        """)
    ).rows
    public = [row for row in rows if row.public]
    assert [row.path for row in public] == ["/health", "/shop/blog/**", "/shop/{id}", "/shop/**"]
    assert [row.path for row in summed_up(public)] == ["/health", "/shop/blog/**", "/shop/**"]


ANY = Methods(frozenset(), all_but=True)


@pytest.mark.parametrize(
    ("written", "row", "covered"),
    [
        (("/health", Methods(frozenset({"GET"}), False), ""), "/health", True),
        (("/{page}", ANY, ""), "/health", True),
        (("/**", ANY, ""), "/health", True),
        (("/**", ANY, "www.example.com"), "/health", False),
        (("/health", Methods(frozenset({"POST"}), False), ""), "/health", False),
        (("/health", Methods(frozenset({"GET"}), True), ""), "/health", False),
        (("/health", Methods(frozenset({"POST"}), True), ""), "/health", True),
        (("/healthy", ANY, ""), "/health", False),
        (("/health/**", ANY, ""), "/health", True),
        (("/", ANY, ""), "/health", False),
        (("/health/live/**", ANY, ""), "/health", False),
        (("/health/live", ANY, ""), "/health", False),
        (("/office", ANY, "*.example.com"), "/office", True),
        (("/office", ANY, "*.com"), "/office", True),
        (("/office", ANY, ""), "/office", True),
        (("/office", ANY, "a.example.com"), "/office", False),
        (("/office", Methods(frozenset({"GET"}), False), ""), "/office", False),
        (("/office", ANY, "*.example.org"), "/office", False),
        (("/office", ANY, "*.ample.com"), "/office", False),
        (("/docs/**", ANY, ""), "/docs/**", True),
        (("/docs", ANY, ""), "/docs/**", False),
        (("/docs/{page}/**", ANY, ""), "/docs/**", False),
        (("/ping", Methods(frozenset({"HEAD"}), False), ""), "/ping", True),
        (("/ping", Methods(frozenset({"GET"}), False), ""), "/ping", True),
        (("/ping", Methods(frozenset({"POST"}), False), ""), "/ping", False),
        (("/ping", Methods(frozenset({"POST"}), True), ""), "/ping", True),
        (("/ping", Methods(frozenset({"GET"}), True), ""), "/ping", False),
    ],
)
def test_what_a_line_of_a_list_covers(
    whole: Table, written: tuple[str, Methods, str], row: str, covered: bool
) -> None:
    path, methods, host = written
    found = next(each for each in whole.rows if each.path == row and each.public)
    assert Requests(parse(path), methods, host).cover(found) is covered


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_list_of_every_public_row_covers_them_all(rng: random.Random) -> None:
    for row in table(varied(rng)).rows:
        if row.public:
            assert as_written(row).cover(row)


def as_written(row: Row) -> Requests:
    return Requests(parse(row.path), row.methods, row.host)


def test_a_rule_for_one_host_has_a_row_behind_a_prefix_too() -> None:
    found = lines(
        table(
            policy(
                """
                upstreams: {app: {}, api: {}}
                defaults: {upstream: app}
                routes:
                  - {path: /v1/api/**, allow: authenticated, upstream: api, strip_prefix: /v1/api}
                  - {path: /orders, hosts: [in.example.com], allow: admin, upstream: api}
                """
            )
        )
    )
    assert found == [
        "any method in.example.com/orders: 401 403 allow",
        "any method in.example.com/v1/api/orders: 401 403 allow",
        "any method /auth/**: own own own",
        "any method /v1/api/**: 401 allow allow",
        "any method /**: 401 allow allow",
    ]
