"""Several files read as one: what they may hold, where their mistakes are, and what can't be included."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import include
from gateway.config.load import Loaded, load
from gateway.policy.compile import compile_policy, compile_tests
from gateway.policy.model import Policy

from .conftest import BASE, SECRETS, Write

ADMIN = "routes:\n  - {path: /admin/**, allow: admin}\n"


def put(name: str, text: str | bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def compiled(loaded: Loaded) -> Policy:
    assert loaded.config is not None, loaded.problems
    policy, problems = compile_policy(loaded.config, loaded.places)
    assert policy is not None, problems
    return policy


def said(loaded: Loaded) -> list[str]:
    assert loaded.config is None
    return [str(problem) for problem in loaded.problems]


def test_routes_and_tests_of_other_files_count_as_if_they_stood_here(loaded: Write) -> None:
    put("rules/admin.yaml", f"include: more/shop.yaml\n{ADMIN}")
    put("rules/more/shop.yaml", "tests:\n  - {request: GET /shop, as: user, expect: allow}\nroutes: []\n")
    put("proofs.yaml", "- {request: GET /admin/x, as: user, expect: 403}\n")
    text = (
        "include: [rules/admin.yaml]\ntests_include: proofs.yaml\nroutes:\n  - {path: /shop, allow: public}\n"
    )
    found = loaded(text, base=BASE)
    routes = [str(route) for route in compiled(found).routes]
    assert routes == [
        "routes[0] on line 8 of gateway.yaml",
        "routes[0] on line 3 of rules/admin.yaml",
    ]
    assert found.config is not None
    assert [test.place for test in compile_tests(found.config, found.places)] == [
        "rules/more/shop.yaml:2:5",
        "proofs.yaml:1:3",
    ]


def test_every_file_that_counts_is_named(loaded: Write, folder: Path) -> None:
    put("rules/admin.yaml", f"include: gone.yaml\n{ADMIN}")
    found = loaded("include: rules/admin.yaml\nidentity_headers: {preset: '${file:preset}'}\n", base=BASE)
    names = ("gateway.yaml", ".env", "rules/admin.yaml", "rules/gone.yaml", "preset")
    assert found.files == tuple(folder / name for name in names)


def test_a_mistake_is_named_where_it_stands(loaded: Write) -> None:
    put("rules/a.yaml", "routes:\n  - {path: /a, allow: public}\n  - {path: /b, allow: al}\n")
    found = loaded("include: rules/a.yaml\nroutes:\n  - {path: /c, allow: public, x: 1}\n", base=BASE)
    first, second = said(found)
    assert first.startswith("gateway.yaml:7:31  routes[0].x: unknown setting")
    assert second.startswith("rules/a.yaml:3:23  routes[1].allow: must be public, authenticated")


def test_two_files_that_disagree_name_both_places(loaded: Write) -> None:
    put("rules/a.yaml", ADMIN)
    found = loaded("include: rules/a.yaml\nroutes:\n  - {path: /admin/**, allow: public}\n", base=BASE)
    assert found.config is not None
    _, problems = compile_policy(found.config, found.places)
    text = "\n".join(map(str, problems))
    assert "rules/a.yaml:2:" in text
    assert "routes[0] on line 7 of gateway.yaml" in text


def bomb() -> str:
    """Nine to the ninth, out of a few lines."""
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for old, new in pairwise("abcdefghi"):
        lines.append(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("include: gone.yaml\n", "gateway.yaml:5:10  include: gone.yaml: there is no such file"),
        ("include: [rules]\n", "gateway.yaml:5:11  include: rules: this is a directory; name the file in it"),
        ("include: pipe\n", "gateway.yaml:5:10  include: pipe: is not a regular file"),
        ("include: /dev/zero\n", "gateway.yaml:5:10  include: /dev/zero: is not a regular file"),
        ("include: large\n", "gateway.yaml:5:10  include: large: is larger than 1 MiB"),
        ("include: loop\n", "include: loop: can't be read: too many levels of symbolic links"),
        ("include: closed/x\n", "gateway.yaml:5:10  include: closed/x: can't be read: not a directory"),
        ("include: binary\n", "binary:1:2  is not text in UTF-8: it holds a zero byte"),
        ("include: empty\n", "empty:1:1  is empty"),
        ("include: word\n", "word:1:1  must be a mapping with `routes:`, `tests:` or `include:`"),
        ("include: rules/*.yaml\n", "rules/*.yaml looks like a pattern; name each file"),
        ("include: gateway.yaml\n", "gateway.yaml is included within itself: gateway.yaml → gateway.yaml"),
        ("include: a.yaml\n", "include: a.yaml is included within itself: a.yaml → b.yaml → a.yaml"),
        ("include: [ok.yaml, ok.yaml]\n", "is included twice; the first time on line 5 of gateway.yaml"),
        ("include: [ok.yaml, link.yaml]\n", "link.yaml is included twice; the first time on line 5"),
        ("include: [{x: y}]\n", "gateway.yaml:5:11  include[0]: must be text, not a mapping"),
        ("include: deep.yaml\n", "deep.yaml:1:11  include: must be the name of a file, or a list of names"),
        ("include: none.yaml\n", "none.yaml:1:9  include: must be the name of a file, or a list of names"),
        ("include: unset.yaml\n", "unset.yaml:1:10  include: the variable NOWHERE is not set"),
        ("include: nested.yaml\n", "is nested more than 32 levels deep"),
        ("include: '${NOWHERE}/a.yaml'\n", "the variable NOWHERE is not set"),
        ("include: greedy.yaml\n", "greedy.yaml:1:1  upstream: unknown setting here; an included file"),
        ("include: scalar.yaml\n", "scalar.yaml:1:1  routes: must be a list"),
        ("include: bomb.yaml\n", "the aliases of this file expand to far too much"),
        ("tests_include: ok.yaml\n", "ok.yaml:1:1  routes: unknown setting here; a file of tests_incl"),
        ("tests_include: word\n", "word:1:1  must be a list of tests, or a mapping with `tests:`"),
    ],
)  # fmt: skip
def test_what_can_not_be_included_is_one_sentence(loaded: Write, text: str, sentence: str) -> None:
    put("rules/x", "")
    os.mkfifo("pipe")
    put("large", b"#" * (51 << 20))
    os.symlink("loop", "loop")
    put("closed", "")
    put("binary", b"x\0y")
    put("empty", "# nothing\n")
    put("word", "hello")
    put("deep.yaml", "include: [[ok.yaml]]\n")
    put("none.yaml", "include:\n")
    put("unset.yaml", "include: '${NOWHERE}'\n")
    put("nested.yaml", "[" * 100_000)
    put("a.yaml", "include: b.yaml\n")
    put("b.yaml", "include: a.yaml\n")
    put("ok.yaml", ADMIN)
    os.symlink("ok.yaml", "link.yaml")
    put("greedy.yaml", "upstream: http://127.0.0.1:1\n")
    put("scalar.yaml", "routes: all\n")
    put("bomb.yaml", bomb())
    started = time.process_time()
    mistakes = [line for line in said(loaded(text, base=BASE)) if "unknown setting; known" not in line]
    assert any(sentence in line for line in mistakes)
    assert time.process_time() - started < 5


def test_many_files_with_a_bomb_each_share_one_allowance(loaded: Write) -> None:
    routes = ", ".join(["*staff"] * 1900)
    bomb = f"tests: []\nroutes:\n  - {{path: /a, allow: &staff {{users: [a@b.c]}}, x: [{routes}]}}\n"
    for index in range(90):
        put(f"{index}.yaml", bomb)
    found = loaded("include: [" + ", ".join(f"{index}.yaml" for index in range(90)) + "]\n", base=BASE)
    assert any("expand to far too much" in line for line in said(found))


def test_too_many_files(loaded: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(include, "MAX_FILES", 3)
    for index in range(4):
        put(f"{index}.yaml", f"routes: [{{path: /{index}, allow: public}}]\n")
    (line,) = said(loaded("include: [0.yaml, 1.yaml, 2.yaml, 3.yaml]\n", base=BASE))
    assert "at most 3 can be included" in line


def test_all_together_have_a_size(loaded: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(include, "MAX_CHARACTERS", 60)
    for name in ("a", "b"):
        put(f"{name}.yaml", f"routes: [{{path: /{name}, allow: public}}]\n")
    (line,) = said(loaded("include: [a.yaml, b.yaml]\n", base=BASE))
    assert line.startswith("gateway.yaml:5:19  include: all included files are larger than")


def test_a_variable_may_name_the_file(loaded: Write) -> None:
    put("rules/live.yaml", ADMIN)
    assert len(compiled(loaded("include: rules/${STAGE}.yaml\n", base=BASE, STAGE="live")).routes) == 1


def test_a_link_leads_where_it_leads(loaded: Write, folder: Path) -> None:
    """As Kubernetes mounts a ConfigMap: names beside the link, content behind it."""
    put("..data/gateway.yaml", f"{BASE}include: admin.yaml\n")
    put("..data/admin.yaml", ADMIN)
    for name in ("gateway.yaml", "admin.yaml"):
        os.symlink(f"..data/{name}", folder / name)
    found = load(Path("gateway.yaml"), environ=SECRETS)
    assert len(compiled(found).routes) == 1
    assert folder / "admin.yaml" in found.files


def test_what_a_route_does_not_say_it_takes_from_the_defaults(loaded: Write) -> None:
    put("rules/a.yaml", "routes:\n  - {path: /b, allow: public, timeout: 1s}\n")
    text = """\
include: rules/a.yaml
upstreams: {other: {url: "http://127.0.0.1:9001"}}
defaults:
  upstream: other
  timeout: 9s
  headers: {request: {add: {X-Team: shop}, remove: [X-Debug]}, response: {remove: [Server]}}
  rate_limit: {per_user: 5/minute, per_address: 9/second, on_error: allow}
routes:
  - path: /a
    allow: public
    upstream: default
    rate_limit: {per_user: 1/hour}
    headers: {request: {add: {x_team: b}}}
"""
    policy = compiled(loaded(text, base=BASE))
    a, b = policy.routes
    assert (a.upstream, a.timeout, b.upstream, b.timeout) == ("default", 9, "other", 1)
    assert (policy.default.upstream, policy.default.timeout) == ("other", 9)
    assert (a.request_headers.add, a.request_headers.remove) == (((b"x_team", b"b"),), (b"X-Debug",))
    assert b.request_headers.add == policy.default.request_headers.add == ((b"X-Team", b"shop"),)
    assert a.response_headers.remove == b.response_headers.remove == (b"Server",)
    assert a.rate_limit is not None
    assert b.rate_limit is not None
    assert a.rate_limit.per_user is not None
    assert (a.rate_limit.per_user.amount, a.rate_limit.per_user.seconds) == (1, 3600)
    assert a.rate_limit.per_user.open
    assert a.rate_limit.per_address == b.rate_limit.per_address


def test_a_mistake_in_the_defaults_is_said_once_and_there(loaded: Write) -> None:
    routes = "routes: [{path: /a, allow: public}, {path: /b, allow: public}]\n"
    (unknown,) = said(loaded(f"defaults: {{allow: public}}\n{routes}", base=BASE))
    assert unknown.startswith("gateway.yaml:5:12  defaults.allow: unknown setting here")
    (upstream,) = said(loaded(f"defaults: {{upstream: nowhere}}\n{routes}", base=BASE))
    assert upstream.startswith("gateway.yaml:5:22  defaults.upstream: ")


METHODS = ("GET", "POST", "DELETE")
ROUTES = st.lists(
    st.tuples(
        st.sampled_from(["/", "/a", "/a/{x}", "/a/b", "/a/**", "/b/**", "/{x}/c"]),
        st.sampled_from([None, *METHODS]),
        st.sampled_from(["public", "authenticated", "admin", "nobody"]),
    ),
    unique_by=lambda route: route[:2],
    max_size=9,
)


PARENTS = st.tuples(*(st.integers(0, child - 1) for child in range(1, 5)))
"""A tree of five files: by which file each but the first is included."""
PATHS = (b"/", b"/a", b"/a/", b"/a/b", b"/a/x", b"/a/b/c", b"/b", b"/b/c", b"/z/c", b"/z", b"/A")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(ROUTES, st.lists(st.integers(0, 4), min_size=9, max_size=9), PARENTS)
def test_it_does_not_matter_which_file_holds_a_rule(
    folder: Path, routes: list[tuple[str, str | None, str]], homes: list[int], parents: tuple[int, ...]
) -> None:
    """One file, or a tree of them: the same mistakes but for places, or the same rule for every request."""
    lines = [
        f"  - {{path: '{path}', allow: {allow}{f', methods: [{method}]' if method else ''}}}\n"
        for path, method, allow in routes
    ]
    put("one/gateway.yaml", BASE + rules(lines))
    for home in range(5):
        own = [line for line, at in zip(lines, homes, strict=False) if at == home]
        below = [f"{child}.yaml" for child, parent in enumerate(parents, 1) if parent == home]
        text = f"include: [{', '.join(below)}]\n{rules(own)}"
        put(f"many/{home}.yaml" if home else "many/gateway.yaml", text if home else BASE + text)
    one, many = (judged(load(Path(name, "gateway.yaml"), environ=SECRETS)) for name in ("one", "many"))
    assert one == many


def rules(lines: list[str]) -> str:
    return "routes:\n" + "".join(lines) if lines else ""


def judged(found: Loaded) -> list[str]:
    """Which rule decides each of some requests; of rules with a mistake, how many mistakes there are."""
    assert found.config is not None, found.problems
    policy, problems = compile_policy(found.config, found.places)
    if policy is None:
        return [str(sum(not problem.warning for problem in problems))]
    hits = (policy.matcher.find(method, b"", path) for method in (*METHODS, "HEAD") for path in PATHS)
    deciding = (hit or policy.default for hit in hits)
    return [f"{route.label} {route.allow} {route.upstream}" for route in deciding]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.binary(max_size=60) | st.text("abincludetsroue:{}[]-*&!'\"\n ./${}<0", max_size=60).map(str.encode))
def test_no_included_bytes_raise(folder: Path, raw: bytes) -> None:
    put("gateway.yaml", f"{BASE}include: wild.yaml\ntests_include: wilder.yaml\n")
    put("wild.yaml", raw)
    put("wilder.yaml", b"- " + raw)
    found = load(Path("gateway.yaml"), environ=SECRETS)
    assert all(problem.place.line > 0 and problem.place.column > 0 for problem in found.problems)
    assert {problem.place.file for problem in found.problems} <= {"gateway.yaml", "wild.yaml", "wilder.yaml"}


def test_ten_thousand_routes_in_twenty_files(loaded: Write) -> None:
    """Two seconds on an ordinary machine; the bound is generous, it notices growth."""
    for file in range(20):
        lines = (f"  - {{path: '/api/s{n}/{{id}}', allow: admin}}\n" for n in range(file, 10_000, 20))
        put(f"{file}.yaml", "routes:\n" + "".join(lines))
    started = time.process_time()
    found = loaded("include: [" + ", ".join(f"{n}.yaml" for n in range(20)) + "]\n", base=BASE)
    assert len(compiled(found).routes) == 10_000
    assert time.process_time() - started < 6
