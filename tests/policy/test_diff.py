"""What a change changes, against brute force: every caller at every request of a small world."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.identity.principal import Principal
from gateway.policy.audience import Audience
from gateway.policy.audience import passing as who
from gateway.policy.decide import Verdict, claims_of, claims_of_reading, decide
from gateway.policy.diff import Change, Kind, Side, diff, telling
from gateway.policy.model import Address, Allow, Claims, Policy, Route, Validity
from gateway.policy.readings import read
from gateway.policy.regions import Region, regions
from tests.policy.rules import person, policy
from tests.policy.worlds import ASKED_HOSTS, ASKED_METHODS, random_policy, region_of, universe

EXAMPLES = int(os.environ.get("GATEWAY_DIFF_EXAMPLES", "40"))
"""Twenty thousand have been run once."""
CALLERS: tuple[tuple[Principal | None, Address | None, float], ...] = tuple(
    product(
        (None, person(), person(admin=True), person(roles=("a",)), person(roles=("b",), email="ann@x.test")),
        (None, ip_address("10.0.0.1")),
        (1.0, 3.0),
    )
)
EXTRAS = (
    Allow(any_role=frozenset("b")),
    Allow(all_roles=frozenset("ab")),
    Allow(users=frozenset({"ann@x.test"})),
    Allow(networks=(ip_network("10.0.0.0/8"),)),
    Allow(logged_in=True, valid=Validity(begin=2.0)),
    Allow(everybody_without_login=True, valid=Validity(end=2.0)),
)
ODD = ("/a;x", "/A%2Fb", "//a/b", "/a//b", "/a/b.", "/a//", "/x//a/b", "/a%2fauth", "/b;/a", "/caf%C3%A9%2Fa")


def varied(rng: random.Random, one: Policy) -> Policy:
    """Another policy that has much in common with this one."""
    other = random_policy(rng) if rng.random() < 0.2 else one
    routes: dict[object, Route] = {}
    for index, route in enumerate((*other.routes, *random_policy(rng).routes[: rng.randrange(3)])):
        changed = replace(route, index=index, report_only=rng.random() < 0.1)
        if rng.random() < 0.2:
            changed = replace(changed, allow=rng.choice(EXTRAS))
        if rng.random() < 0.1:
            changed = replace(changed, upstream=rng.choice(("app", "behind")))
        if rng.random() < 0.85:
            routes.setdefault((route.pattern.shape, route.methods, route.hosts), changed)
    default = replace(other.default, report_only=rng.random() < 0.1)
    return Policy.build(tuple(routes.values()), default, other.auth_prefix.decode())


def passing(one: Policy, method: str, host: bytes, path: bytes) -> tuple[set[int], object]:
    """Which callers pass, and where to."""
    passed, destination = set(), None
    for number, (caller, address, now) in enumerate(CALLERS):
        decision = decide(
            one, method=method, host=host, path=path, principal=caller, address=address, now=now
        )
        if decision.verdict is Verdict.ALLOW:
            passed.add(number)
            destination = decision.route.upstream, decision.path
    return passed, destination


def admitted(audience: Audience) -> set[int]:
    return {number for number, caller in enumerate(CALLERS) if audience.admits(*caller)}


SERVERS = {"app": ("http://app:1",), "behind": ("http://behind:1",)}


def sides(rng: random.Random) -> tuple[Side, Side]:
    one = random_policy(rng)
    return Side(varied(rng, one), SERVERS), Side(varied(rng, one), SERVERS)


class Told:
    """What a diff says of any request, looked up by its class."""

    def __init__(self, old: Side, new: Side) -> None:
        self.regions = list(regions(old.policy, new.policy, told=telling(old, new)))
        self.changes = diff(old, new)
        self.plain = {key(region): change for change in self.changes for region in change.regions}
        self.echoes = {key(region): change for change in self.changes for region in change.echoes}
        assert not self.plain.keys() & self.echoes.keys()

    def of(self, method: str, host: bytes, segments: list[bytes]) -> tuple[Change | None, bool]:
        """The change of this reading, if any, and whether it is an echo."""
        region = key(region_of(self.regions, method, host, segments))
        return self.plain.get(region) or self.echoes.get(region), region in self.echoes


def key(region: Region) -> object:
    return region.host, region.parts, region.below, region.methods


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.randoms(use_true_random=False))
def test_it_says_exactly_what_changed_and_for_whom(rng: random.Random) -> None:
    old, new = sides(rng)
    told = Told(old, new)
    paths = [segments for segments in universe() if "" not in segments]
    for segments in rng.sample(paths, 40):
        host, method = rng.choice(ASKED_HOSTS), rng.choice(ASKED_METHODS)
        path = ("/" + "/".join(map(quote, segments))).encode()
        was, place = passing(old.policy, method, host, path)
        now, new_place = passing(new.policy, method, host, path)
        change, echo = told.of(method, host, [segment.encode() for segment in segments])
        where = (method, host, path, [str(route.label) for route in (*old.policy.routes, *new.policy.routes)])
        if change is None:
            assert was == now, where
            assert not was or place == new_place, where
            continue
        assert admitted(change.before.audience) == was, where
        assert admitted(change.after.audience) == now, where
        if change.kind is Kind.MOVED and not echo and was:
            assert place != new_place, where
        assert change.kind.widens or not now - was, where


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_path_with_many_readings_changes_only_where_one_of_them_does(rng: random.Random) -> None:
    """But for rules that only report: an odd spelling may open or close what is open to the same anyway."""
    old, new = sides(rng)
    told = Told(old, new)
    for path in ODD:
        host, method = rng.choice(ASKED_HOSTS), rng.choice(ASKED_METHODS)
        was, _ = passing(old.policy, method, host, path.encode())
        now, _ = passing(new.policy, method, host, path.encode())
        try:
            readings = read(path.encode())
        except BadRequest:
            continue
        if any(strips(side.policy, method, host, path.encode()) for side in (old, new)):
            continue  # what the backend sees of it has readings of its own
        changes = [told.of(method, host, reading.split(b"/")[1:])[0] for reading in readings]
        widened = any(change and change.kind.widens for change in changes)
        assert widened or now - was <= at_each(old.policy, method, host, readings), (path, method, host)
        assert any(changes) or was - now <= at_each(new.policy, method, host, readings), (path, method, host)


def strips(one: Policy, method: str, host: bytes, path: bytes) -> bool:
    claims = claims_of(one, method, host, path)
    return isinstance(claims, Claims) and claims.route.strip > 0


def at_each(one: Policy, method: str, host: bytes, readings: tuple[bytes, ...]) -> set[int]:
    """Who passes at each of these readings by itself."""
    found = set(range(len(CALLERS)))
    for reading in readings:
        path = b"/".join(quote(part.replace(b"\0", b"/"), safe="").encode() for part in reading.split(b"/"))
        found &= admitted(who(claims_of_reading(one, method, host, path or b"/")))
    return found


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.randoms(use_true_random=False))
def test_nothing_changes_between_a_policy_and_itself(rng: random.Random) -> None:
    one = random_policy(rng)
    again = Policy.build(one.routes[::-1], one.default, one.auth_prefix.decode())
    assert diff(Side(one, SERVERS), Side(again, SERVERS)) == []


BEHIND = """
upstreams: {app: {}, api: {}}
defaults: {upstream: app}
routes:
  - {path: /api/**, allow: authenticated, upstream: api, strip_prefix: /api}
  - {path: /orders, hosts: [in.example.com], allow: ALLOW, upstream: api}
"""


def test_a_rule_for_one_host_holds_behind_a_prefix_too() -> None:
    """The main rules say nothing of that host below /api; only what the backend sees of it does."""
    old, new = (Side(policy(BEHIND.replace("ALLOW", word)), SERVERS) for word in ("admin", "authenticated"))
    assert [(str(each.kind), each.path, each.hosts) for each in diff(old, new)] == [
        ("widened", "/api/orders", ("in.example.com",)),
        ("widened", "/orders", ("in.example.com",)),
    ]


def lines(before: str, after: str) -> list[str]:
    sides = (Side(policy(text), {"app": ("http://a",), "default": ("http://d",)}) for text in (before, after))
    return [
        f"{each.kind.value}: {each.methods} {','.join(each.hosts)}{each.path}: {each.before} -> {each.after}"
        f" in {len(each.regions)} and {len(each.echoes)} echoes"
        for each in diff(*sides)
    ]


SHOP = """
upstreams: [app, default]
routes:
  - {path: /api/**, strip_prefix: /api, upstream: app, allow: authenticated}
  - {path: /secret/**, upstream: app, allow: admin}
"""
HOSTS = """
routes:
  - {path: /x/**, hosts: ["*.a.test", z.test], allow: nobody}
  - {path: /x/**, hosts: [b.a.test], allow: nobody}
  - {path: /x/**, hosts: [y.b.a.test], allow: nobody}
"""
TWO_METHODS = """
routes:
  - {path: /x, methods: [GET], allow: nobody}
  - {path: /x, methods: [POST], allow: nobody}
  - {path: /y/**, hosts: ["*.a.test", b.a.test, c.test], allow: nobody}
"""
TWO_CASES = "routes: [{path: /a/**, allow: public}, {path: /A/**, methods: [GET], allow: admin}]"
ODD_LITERAL = "routes: [{path: /a., allow: public}, {path: /a, allow: public}]"
ODD_BRANCH = "routes: [{path: /a./x, allow: public}, {path: /a/x, allow: public}]"


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (
            ODD_LITERAL,
            ODD_LITERAL.replace("/a, allow: public", "/a, allow: admin"),
            [
                "narrowed: any method /a: anyone -> admin in 1 and 0 echoes",
                "narrowed: any method /a, /a. (in other spellings): authenticated -> admin in 2 and 0 echoes",
                "narrowed: any method /a.: anyone -> admin in 1 and 0 echoes",
            ],
        ),
        (
            ODD_BRANCH,
            ODD_BRANCH.replace("/a/x, allow: public", "/a/x, allow: admin"),
            [
                "narrowed: any method /a./x: anyone -> admin in 1 and 0 echoes",
                "narrowed: any method /a/x: anyone -> admin in 1 and 0 echoes",
                "narrowed: any method /a/x, /a./x (in other spellings):"
                " authenticated -> admin in 4 and 0 echoes",
            ],
        ),
        (
            SHOP,
            SHOP.replace("admin", "nobody"),
            [
                "narrowed: any method /api/secret/**: admin -> nobody in 1 and 0 echoes",
                "narrowed: any method /secret/**: admin -> nobody in 1 and 1 echoes",
            ],
        ),
        (
            SHOP,
            SHOP.replace("upstream: app, allow: admin", "allow: admin"),
            [
                "widened: any method /api/secret/**: admin -> authenticated in 1 and 0 echoes",
                "moved: any method /secret/**: admin -> admin in 1 and 0 echoes",
            ],
        ),
        (
            HOSTS,
            HOSTS.replace("nobody", "admin"),
            [
                "widened: any method *.a.test,z.test/x/**: nobody -> admin in 2 and 2 echoes",
                "widened: any method b.a.test/x/**: nobody -> admin in 1 and 1 echoes",
                "widened: any method y.b.a.test/x/**: nobody -> admin in 1 and 1 echoes",
            ],
        ),
        (
            SHOP,
            SHOP.replace("strip_prefix: /api, ", ""),
            [
                "widened: any method /api/secret/**: admin -> authenticated in 1 and 0 echoes",
                "moved: any method /api/**: authenticated -> authenticated in 1 and 0 echoes",
            ],
        ),
        (
            TWO_METHODS,
            TWO_METHODS.replace("nobody", "admin"),
            [
                "widened: GET /x: nobody -> admin in 1 and 1 echoes",
                "widened: POST /x: nobody -> admin in 1 and 1 echoes",
                "widened: any method *.a.test,c.test/y/**: nobody -> admin in 3 and 3 echoes",
            ],
        ),
        (
            f"default: nobody\n{TWO_METHODS}",
            f"default: authenticated\n{TWO_METHODS}",
            ["widened: any method any path that no route names: nobody -> authenticated in 3 and 0 echoes"],
        ),
        (
            "{default: nobody, routes: [{path: /a, allow: admin}]}",
            "{default: nobody, routes: [{path: /a, allow: admin}], auth: {prefix: /iam}}",
            [
                "moved: any method /auth/**: the gateway itself -> nobody in 1 and 0 echoes",
                "moved: any method /iam/**: nobody -> the gateway itself in 1 and 0 echoes",
            ],
        ),
        (
            "{default: nobody, routes: [{path: /x/**, allow: admin}]}",
            "{default: authenticated, routes: [{path: /x/**, allow: admin}]}",
            [
                "widened: any method /x/** (in other spellings): nobody -> admin in 1 and 0 echoes",
                "widened: any method any path that no route names: nobody -> authenticated in 1 and 0 echoes",
            ],
        ),
        (
            f"{{default: nobody, {TWO_CASES}}}",
            f"{{default: authenticated, {TWO_CASES}}}",
            [
                "widened: any method but GET /a/**: nobody -> authenticated in 1 and 0 echoes",
                "widened: any method any path that no route names: nobody -> authenticated in 2 and 0 echoes",
            ],
        ),
        (
            'routes: [{path: "/p/{id}/**", allow: admin}, {path: /q/, allow: admin}]',
            'routes: [{path: "/{any}/x/**", allow: public}, {path: /q, allow: public}]',
            [
                "widened: any method /p/x/**: admin -> anyone in 1 and 1 echoes",
                "widened: any method /p/{id}/**: admin -> authenticated in 2 and 2 echoes",
                "widened: any method /q: admin -> anyone in 1 and 0 echoes",
                "widened: any method /q (in other spellings): admin -> authenticated in 1 and 0 echoes",
                "widened: any method /{any}/x/**: authenticated -> anyone in 3 and 0 echoes",
            ],
        ),
        (
            'routes: [{path: "/p/{id}", allow: admin}]',
            "routes: [{path: /p/**, allow: public}]",
            [
                "widened: any method /p/**: authenticated -> anyone in 1 and 0 echoes",
                "widened: any method /p/{id}: admin -> anyone in 1 and 0 echoes",
                "widened: any method /p/{id} (in other spellings): admin -> authenticated in 1 and 0 echoes",
            ],
        ),
        *(
            (
                f"routes: [{{path: /ab{below}, allow: authenticated}}, {{path: /AB{below}, allow: admin}}]",
                f"routes: [{{path: /ab{below}, allow: authenticated}}, {{path: /AB{below}, allow: nobody}}]",
                [
                    f"narrowed: any method /AB{below}: admin -> nobody in 1 and 1 echoes",
                    f"narrowed: any method /ab{below}: admin -> nobody in 1 and 0 echoes",
                ],
            )
            for below in ("", "/**")
        ),
    ],
)
def test_it_is_said_in_few_lines(before: str, after: str, changes: list[str]) -> None:
    assert lines(before, after) == changes
    assert lines(before, before) == lines(after, after) == []


def test_it_names_the_rules_and_what_only_follows_for_other_spellings() -> None:
    before, after = policy(ODD_LITERAL), policy(ODD_LITERAL.replace("/a, allow: public", "/a, allow: admin"))
    plain, other, odd = diff(Side(before, SERVERS), Side(after, SERVERS))
    assert (plain.old, plain.new) == (before.routes[1], after.routes[1])
    assert (odd.old, odd.new) == (before.routes[0], after.routes[0])
    assert [each.respelled for each in (plain, other, odd)] == [False, True, False]
