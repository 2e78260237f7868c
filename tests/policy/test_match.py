"""The trie against the rule book: the most specific route, found the slow way."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.match import Matcher, normal_host
from gateway.policy.pattern import Pattern, parse
from gateway.policy.readings import fold


@dataclass(frozen=True)
class Rule:
    pattern: Pattern
    methods: frozenset[str] | None = None
    hosts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"{','.join(sorted(self.methods or '*'))} {','.join(self.hosts)}{self.pattern}"


def rule(text: str, *methods: str, hosts: tuple[str, ...] = ()) -> Rule:
    return Rule(parse(text), frozenset(methods) or None, hosts)


PARTS = st.lists(st.sampled_from(["a", "b", "A", "{x}"]), max_size=3)
PATTERNS = st.builds(lambda parts, below: "/" + "/".join(parts + ["**"] * below), PARTS, st.booleans())
METHODS = st.sets(st.sampled_from(["GET", "HEAD", "POST"]), max_size=2)
HOSTS = st.sets(st.sampled_from(["h.x", "*.x", "*.h.x"]), max_size=1)
RULES = st.lists(st.builds(lambda p, m, h: rule(p, *m, hosts=tuple(h)), PATTERNS, METHODS, HOSTS), max_size=8)
ASKED = st.lists(st.sampled_from(["a", "b", "A", "c", ""]), max_size=4).map(
    lambda parts: "".join(f"/{p}" for p in parts)
)


def without_clashes(rules: list[Rule]) -> list[Rule]:
    seen: set[object] = set()
    kept = []
    for each in rules:
        keys = {(host, each.pattern.shape, m) for host in each.hosts or ("",) for m in each.methods or ("*",)}
        if not keys & seen:
            kept.append(each)
            seen |= keys
    return kept


def rank(each: Rule, method: str, host: str, path: str) -> tuple[object, ...] | None:
    """How specific the rule is for this request; smaller is more so. None: it does not fit."""
    parts = [part.encode() for part in path.rstrip("/").split("/")[1:]]
    wanted = each.pattern.segments
    if len(parts) < len(wanted) or (len(parts) > len(wanted) and not each.pattern.below):
        return None
    kinds: list[int] = []
    for segment, part in zip(wanted, parts, strict=False):
        if segment != part and (segment is not None or not part):
            return None
        kinds.append(1 if segment is None else 0)
    kinds += [2] if each.pattern.below else []
    for_method = {None: 2, True: 0}.get(None if each.methods is None else method in each.methods)
    if for_method is None and method == "HEAD" and "GET" in (each.methods or ()):
        for_method = 1
    names = [name for name in each.hosts if name == host or (name[0] == "*" and host.endswith(name[1:]))]
    if for_method is None or (each.hosts and not names):
        return None
    for_host = (0 if host in names else 1, -max(map(len, names))) if names else (2, 0)
    return (*for_host, tuple(kinds), for_method)


@settings(max_examples=80, deadline=None)
@given(
    RULES,
    st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    st.sampled_from(["h.x", "g.x", "g.h.x", "x", ""]),
    ASKED,
)
def test_the_most_specific_rule_wins(rules: list[Rule], method: str, host: str, path: str) -> None:
    rules = without_clashes(rules)
    ranks = [(found, each) for each in rules if (found := rank(each, method, host, path)) is not None]
    best = min(ranks, key=lambda pair: pair[0])[1] if ranks else None
    assert Matcher(rules).find(method, host.encode(), path.rstrip("/").encode()) == best
    assert Matcher(reversed(rules)).find(method, host.encode(), path.rstrip("/").encode()) == best


@settings(max_examples=80, deadline=None)
@given(RULES, st.sampled_from(["GET", "POST", "PUT"]), st.sampled_from(["h.x", ""]), ASKED)
def test_without_case_no_spelling_that_rules_know_is_forgotten(
    rules: list[Rule], method: str, host: str, path: str
) -> None:
    """Each way to write the path in letters that some pattern has chooses a rule; all of them are there."""
    matcher = Matcher(without_clashes(rules))
    path = path.rstrip("/")
    found = matcher.find_folded(method, host.encode(), fold(path.encode()))
    known = {part for each in rules for part in each.pattern.segments if part is not None}
    ways = [
        [word for word in known if fold(word) == fold(part.encode())] or [fold(part.encode())]
        for part in path.split("/")[1:]
    ]
    chosen = {
        matcher.find(method, host.encode(), b"".join(b"/" + word for word in way)) for way in product(*ways)
    }
    assert found
    if not matcher.cased:
        assert found == chosen
    strict = {
        each
        for each in chosen
        if each is not None and None not in each.pattern.segments and not each.pattern.below
    }
    assert strict <= found


def test_a_method_does_not_hide_the_stricter_spelling() -> None:
    closed, open_, rest = rule("/Admin"), rule("/admin", "GET"), rule("/**")
    matcher = Matcher([closed, open_, rest])
    assert matcher.find_folded("GET", b"", b"/admin") == {closed, open_}
    assert matcher.find_folded("PUT", b"", b"/admin") == {closed, rest}
    assert matcher.find_folded("PUT", b"", b"/other") == {rest}
    assert Matcher([closed, open_]).find_folded("PUT", b"", b"/admin") == {closed, None}
    assert Matcher([closed, rest]).find_folded("GET", b"", b"/admin") == {closed}


def test_each_spelling_goes_its_own_way_below() -> None:
    users, one, host = rule("/Admin/users"), rule("/admin/{x}"), rule("/ADMIN/**", hosts=("h.x",))
    matcher = Matcher([users, one, host])
    assert matcher.find_folded("GET", b"", b"/admin/users") == {users, one}
    assert matcher.find_folded("GET", b"h.x", b"/admin/users") == {host}
    assert matcher.find_folded("GET", b"g.x", b"/admin") == {None}


def test_without_case_a_name_in_braces_stands_for_what_no_literal_takes() -> None:
    users, one, deep, rest = rule("/Admin/users", "PUT"), rule("/admin/{x}"), rule("/a/{x}/b"), rule("/**")
    matcher = Matcher([users, one, deep, rest])
    assert matcher.find_folded("GET", b"", b"/admin/bob") == {one, rest}
    assert matcher.find_folded("GET", b"", b"/a/x/b") == {deep}
    assert matcher.find_folded("GET", b"", b"/a//b") == {rest}  # never for nothing
    assert matcher.find("GET", b"", b"/a//b") is rest
    slow = rule("/a/B", "PUT")
    spelled = Matcher([slow, rule("/a/{x}"), rest])
    assert spelled.find_folded("PUT", b"", b"/a/b") == {slow}
    assert {each and str(each.pattern) for each in spelled.find_folded("GET", b"", b"/a/b")} == {"/a/{x}"}


def test_get_includes_head_unless_head_has_a_rule() -> None:
    get, head = rule("/a", "GET"), rule("/a", "HEAD")
    assert Matcher([get]).find("HEAD", b"", b"/a") is get
    for order in ([get, head], [head, get]):
        assert Matcher(order).find("HEAD", b"", b"/a") is head


@pytest.mark.parametrize(
    ("header", "host"),
    [
        (b"", b""),
        (b"Example.COM", b"example.com"),
        (b"example.com:8080", b"example.com"),
        (b"example.com.:80", b"example.com"),
        (b"example.com:", b"example.com"),
        (b"[::1]:80", b"[::1]"),
        (b"[0:0:0:0:0:0:0:1]", b"[::1]"),
        (b"[2001:DB8::1]", b"[2001:db8::1]"),
        (b"[nonsense]", b""),
        (b"[\xff]", b""),
        (b"::1", b""),
        (b"a:b", b""),
        (b"a" * 261, b"a" * 261),
        (b"a" * 262, b""),
    ],
)
def test_hosts_compare_without_case_port_and_trailing_dot(header: bytes, host: bytes) -> None:
    assert normal_host(header) == host


def test_hosts() -> None:
    exact, wild, any_ = rule("/**", hosts=("a.x.org",)), rule("/**", hosts=("*.x.org",)), rule("/**")
    matcher = Matcher([exact, wild, any_])
    for header, expected in [
        (b"A.X.org:443", exact), (b"a.x.org.", exact), (b"b.x.org", wild), (b"c.b.x.org", wild),
        (b"x.org", any_), (b"ax.org", any_), (b"", any_), (b"[::1]", any_),
    ]:  # fmt: skip
        assert matcher.find("GET", header, b"/p") is expected
    assert matcher.hosts == ["*.x.org", "a.x.org"]


@settings(max_examples=40, deadline=None)
@given(RULES, PATTERNS)
def test_overlapping_finds_every_rule_that_shares_a_path(rules: list[Rule], text: str) -> None:
    rules = without_clashes([each for each in rules if not each.hosts])
    pattern = parse(text)
    found = set(Matcher(rules).overlapping(pattern))
    paths = [
        "".join(f"/{part}" for part in parts) for size in range(5) for parts in product("abAc", repeat=size)
    ]
    mine = [path for path in paths if rank(Rule(pattern), "GET", "", path) is not None]
    for each in rules:
        shared = any(rank(Rule(each.pattern), "GET", "", path) is not None for path in mine)
        assert (each in found) == shared
