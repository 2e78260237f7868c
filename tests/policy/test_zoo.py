"""Whatever a backend makes of a path, it serves nothing that its caller was not allowed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.identity.principal import Principal
from gateway.policy.decide import Decision, Verdict, decide
from gateway.policy.model import Allow, Policy, Route
from gateway.policy.pattern import parse
from gateway.policy.readings import fold
from tests.policy.rules import ADMIN, USER
from tests.policy.zoo import SPECIES, Backend, disguise, mongrel

ALLOWS = (
    Allow(everybody_without_login=True),
    Allow(logged_in=True),
    Allow(admin=True),
    Allow(),
)
WORDS = ("a", "admin", "public", "in", "x", "Ad", "{n}", "{m}")
CALLERS = (None, USER, ADMIN)


def random_policy(rng: random.Random) -> Policy:
    """A few routes, no two of which differ by case only."""
    shapes: dict[object, str] = {}
    for _ in range(rng.randrange(1, 8)):
        parts = [rng.choice(WORDS) for _ in range(rng.randrange(4))]
        text = "/" + "/".join(parts + ["**"] * (rng.random() < 0.4))
        shape = parse(text).shape
        shapes.setdefault((tuple(part and fold(part) for part in shape[0]), shape[1]), text)
    spellings: dict[str, str] = {}
    routes = []
    for index, text in enumerate(shapes.values()):
        text = "/".join(spellings.setdefault(part.lower(), part) for part in text.split("/"))
        strip = 1 if rng.random() < 0.15 and text.count("/") > 1 and text[1] not in "{*" else 0
        routes.append(route(index, text, rng.choice(ALLOWS), strip))
    return Policy.build(tuple(routes), route(-1, "/**", rng.choice(ALLOWS[1:])), "/auth")


def route(index: int, text: str, allow: Allow, strip: int = 0) -> Route:
    upstream = "stripped" if strip else "app"
    return Route(index, text, parse(text), None, (), allow, upstream, strip, "gateway.yaml", index + 1)


def random_path(rng: random.Random, policy: Policy) -> bytes:
    """A path that some route is about, more or less, and in disguise."""
    parts = []
    for word in (rng.choice(policy.routes).pattern.text + rng.choice(["", "/admin", "/x/a", "/in"])).split(
        "/"
    )[1:]:
        parts.append(rng.choice(WORDS[:6]) if word[:1] in "{*" else word)
    if rng.random() < 0.1:
        parts.insert(0, "auth")
    return disguise(rng, "/".join(parts).encode() or b"a")


def rule_of(policy: Policy, segments: list[bytes], upstream: str, caseless: bool) -> Allow | None:
    """What the owner wrote for a resource: the naive way, one route after the other."""
    fitting = []
    for each in policy.routes:
        if upstream != "app" and each.upstream != upstream:
            continue
        rank = rank_of(each, segments, caseless)
        if rank is not None:
            fitting.append((rank, each.index, each.allow))
    if not fitting:
        return policy.default.allow if upstream == "app" else None
    return min(fitting, key=lambda fit: fit[:2])[2]


def rank_of(each: Route, segments: list[bytes], caseless: bool) -> tuple[int, ...] | None:
    pattern = each.pattern
    if len(segments) < len(pattern.segments) or (len(segments) > len(pattern.segments) and not pattern.below):
        return None
    rank = []
    for wanted, part in zip(pattern.segments, segments, strict=False):
        same = wanted is not None and (fold(wanted) == fold(part) if caseless else wanted == part)
        if not same and (wanted is not None or not part):
            return None
        rank.append(0 if same else 1)
    return (*rank, 2) if pattern.below else tuple(rank)


def judge(policy: Policy, path: bytes, backends: list[Backend]) -> None:
    for caller in CALLERS:
        decision = decide(policy, method="GET", host=b"", path=path, principal=caller, address=None, now=0.0)
        if decision.verdict is Verdict.ALLOW:
            for backend in backends:
                check(policy, decision, caller, backend)


def check(policy: Policy, decision: Decision, caller: Principal | None, backend: Backend) -> None:
    segments = backend.segments(decision.path)
    rules = [str(each.pattern) for each in policy.routes]
    told = f"{decision.path!r} as {caller} reaches {segments} of {backend.name}; {rules}"
    assert not {b".", b".."} & set(segments), told
    assert not any(byte < 0x20 or byte == 0x7F for segment in segments for byte in segment), told
    stripped = decision.route.strip > 0
    assert stripped or not segments or fold(segments[0]) != b"auth", told
    rule = rule_of(policy, segments, "stripped" if stripped else "app", backend.knows_no_case)
    assert rule is None or rule.refusal(caller, None) is None, told


@pytest.mark.parametrize("seed", range(6))
def test_a_backend_never_serves_what_its_caller_was_not_allowed(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(15):
        policy = random_policy(rng)
        for _ in range(8):
            path = random_path(rng, policy)
            backends = [*SPECIES, *(mongrel(rng) for _ in range(20))]
            judge(policy, path, backends)


@settings(max_examples=80, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.lists(
        st.sampled_from(
            [
                b"/",
                b"//",
                b"a",
                b"admin",
                b"public",
                b";",
                b"%",
                b"25",
                b"2f",
                b"%2F",
                b"%5c",
                b"\\",
                b"%3b",
                b".",
                b"%2e",
                b"u0061",
                b"%u",
                b"%c0%af",
                b"\xc1\xa1",
                b"%EF%BD%81",
                b"%23",
                b"%3F",
                b"%20",
                b" ",
                b"61",
            ]
        ),
        max_size=12,
    ),
)
def test_however_the_path_is_put_together(rng: random.Random, pieces: list[bytes]) -> None:
    policy = random_policy(rng)
    path = b"/" + b"".join(pieces)
    judge(policy, path, [*SPECIES, *(mongrel(rng) for _ in range(10))])


def test_the_zoo_is_not_asleep() -> None:
    """A gateway that looked at the literal reading only would be caught."""
    open_, closed = route(0, "/public/**", ALLOWS[0]), route(1, "/public/admin", ALLOWS[3])
    policy = Policy.build((open_, closed), route(-1, "/**", ALLOWS[1]), "/auth")
    fooled = {
        backend.name
        for backend in SPECIES
        for path in SPELLINGS.split()
        if rule_of(policy, backend.segments(path), "app", backend.knows_no_case) is closed.allow
    }
    assert fooled >= {backend.name for backend in SPECIES} - {"Rails"}


SPELLINGS = rb"""
    /public%2Fadmin /public/admin;x /public//admin /public/%2561dmin /public\admin /public/ADMIN
    /public/admin. /public/%25u0061dmin //x/public/admin /public/%EF%BD%81dmin /public/%C1%A1dmin
    /public/admin%23
"""
