"""From the configuration to a `Policy`, or to every mistake in the rules at once.

The only file of this room that reads `gateway.config`: it turns each setting into a
plain value and says where a mistake stands. What is wrong *between* rules is `review`'s
business.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

from gateway.config.haste import uncollected
from gateway.config.schema import Config, Person, Rate, Rule, Valid
from gateway.config.schema import Cors as WrittenCors
from gateway.config.schema import HeaderEdits as WrittenEdits
from gateway.config.schema import Route as Written
from gateway.config.schema import RouteRateLimit as WrittenLimit
from gateway.config.schema import Test as WrittenTest
from gateway.config.source import Places, Problem, Step
from gateway.http.cors import Cors
from gateway.http.header_edits import NO_EDITS, HeaderEdits
from gateway.identity.principal import LOGIN, Principal
from gateway.policy.model import Allow, Policy, RateLimit, Route, Validity
from gateway.policy.pattern import Pattern, borrowed, literal_prefix, parse
from gateway.policy.prove import Test
from gateway.policy.review import review
from gateway.ratelimit import Rule as Limit

_WORDS = {
    "public": Allow(everybody_without_login=True),
    "authenticated": Allow(logged_in=True),
    "admin": Allow(admin=True),
    "nobody": Allow(),
}


def compile_policy(
    config: Config, places: Places, *, report_only: bool = False
) -> tuple[Policy | None, list[Problem]]:
    """The policy, or None if there is any mistake; and all mistakes and warnings.

    `report_only`: no rule refuses, all only report (`gateway run --report-only`).
    """
    with uncollected():
        return _compile(_Compiler(config, places, report_only))


def _compile(compiler: _Compiler) -> tuple[Policy | None, list[Problem]]:
    config = compiler.config
    routes = [compiler.route(index, written) for index, written in enumerate(config.routes)]
    policy = Policy.build(
        tuple(route for route in routes if route is not None), compiler.default(), config.auth.prefix
    )
    trusting = {index for index, written in enumerate(config.routes) if written.trust_host}
    for remark in review(policy, trusting):
        compiler.say(remark.sentence, "routes", remark.route.index, at="path", warning=remark.warning)
    mistakes = any(not problem.warning for problem in compiler.problems)
    return None if mistakes else policy, sorted(compiler.problems, key=lambda problem: problem.place)


def mistaken_paths(paths: Mapping[int, str], places: Places) -> list[Problem]:
    """What is wrong with the paths of routes, by their index, where there are other mistakes too."""
    return [
        Problem(places.of("routes", index, "path"), places.name("routes", index, "path"), mistake)
        for index, path in paths.items()
        if (mistake := _mistake(path))
    ]


def _mistake(path: str) -> str:
    try:
        parse(path)
    except ValueError as mistake:
        return str(mistake)
    return ""


def compile_tests(config: Config, places: Places) -> tuple[Test, ...]:
    """The file's own `tests:`, ready for `prove`."""
    return tuple(_test(test, str(places.of("tests", index))) for index, test in enumerate(config.tests))


class _Compiler:
    """Compiles rule by rule and collects what is wrong with each."""

    def __init__(self, config: Config, places: Places, report_only: bool) -> None:
        self.problems: list[Problem] = []
        self._report_only = report_only
        self.config = config
        self._places = places

    def say(self, sentence: str, *path: Step, at: str | None = None, warning: bool = False) -> None:
        """Note a problem; `at` names the setting inside `path` to point to."""
        place = self._places.of(*path, at) if at else self._places.of(*path)
        self.problems.append(Problem(place, self._places.name(*path), sentence, warning))

    def route(self, index: int, written: Written) -> Route | None:
        """One compiled route, or None if it is too wrong to be compared with others."""
        try:
            pattern = parse(written.path)
        except ValueError as mistake:
            self.say(str(mistake), "routes", index, "path")
            return None
        place = self._places.of("routes", index, "path")
        literal = borrowed(pattern)
        if literal is not None:
            sentence = f'takes the segment "{literal}" as it stands; write {{name}} for any one segment'
            self.say(sentence, "routes", index, "path", warning=True)
        return Route(
            index=index,
            label=_label(written, pattern),
            pattern=pattern,
            methods=None if written.methods is None else frozenset(written.methods),
            hosts=written.hosts or (),
            allow=_held(self._allow(index, written.allow), written.valid),
            upstream=self._upstream(index, written),
            strip=self._strip(index, written, pattern),
            file=place.file,
            line=place.line,
            upgrade=frozenset(token.encode() for token in written.upgrade),
            timeout=written.timeout,
            body=written.body,
            request_headers=_edits(written.headers.request),
            response_headers=_edits(written.headers.response),
            rate_limit=_rate_limit(written.rate_limit),
            cors=cors(written.cors),
            report_only=written.report_only or self._report_only,
            name=self._places.name("routes", index),
            included=self._places.several,
        )

    def default(self) -> Route:
        """The route for everything that no route names."""
        allow = _WORDS[self.config.default]
        taken = self.config.defaults
        upstream = taken.upstream or self._only_upstream()
        if upstream is None and not allow.closed:
            self.say(
                'has no backend: name one of the upstreams "default", or write default: nobody', "default"
            )
        place = self._places.of("default")
        return Route(
            index=-1,
            label="default",
            pattern=parse("/**"),
            methods=None,
            hosts=(),
            allow=allow,
            upstream=upstream or "",
            strip=0,
            file=place.file,
            line=place.line,
            upgrade=frozenset(token.encode() for token in taken.upgrade),
            timeout=taken.timeout,
            body=taken.body,
            request_headers=_edits(taken.headers.request),
            response_headers=_edits(taken.headers.response),
            rate_limit=_rate_limit(taken.rate_limit),
            cors=cors(taken.cors),
            report_only=self._report_only,
        )

    def _upstream(self, index: int, written: Written) -> str:
        upstream = written.upstream or self._only_upstream()
        if upstream is None:
            names = ", ".join(self.config.upstreams)
            self.say(f'needs an upstream ({names}), since none is named "default"', "routes", index)
        return upstream or ""

    def _only_upstream(self) -> str | None:
        names = list(self.config.upstreams)
        return names[0] if len(names) == 1 else "default" if "default" in names else None

    def _strip(self, index: int, written: Written, pattern: Pattern) -> int:
        if written.strip_prefix is None:
            return 0
        path: tuple[Step, ...] = ("routes", index, "strip_prefix")
        try:
            prefix = literal_prefix(written.strip_prefix)
        except ValueError as mistake:
            self.say(str(mistake), *path)
            return 0
        if not prefix or pattern.segments[: len(prefix)] != prefix:
            self.say(f"must be the beginning of the route's path {written.path}", *path)
        return len(prefix)

    def _allow(self, index: int, written: str | Rule) -> Allow:
        if isinstance(written, str):
            return _WORDS[written]
        path: tuple[Step, ...] = ("routes", index, "allow")
        any_role = written.roles.any if written.roles else None
        all_roles = written.roles.all if written.roles else None
        self._check_repetition(any_role, *path, "roles", "any")
        self._check_repetition(all_roles, *path, "roles", "all")
        any_scope = written.scopes.any if written.scopes else None
        all_scopes = written.scopes.all if written.scopes else None
        self._check_repetition(any_scope, *path, "scopes", "any")
        self._check_repetition(all_scopes, *path, "scopes", "all")
        self._check_repetition(written.users, *path, "users")
        self._check_repetition(written.networks, *path, "networks")
        return Allow(
            any_role=_set(any_role),
            all_roles=_set(all_roles),
            users=_set(written.users and [canonical_email(email) for email in written.users]),
            any_scope=_set(any_scope),
            all_scopes=_set(all_scopes),
            networks=written.networks,
        )

    def _check_repetition(self, items: Sequence[object] | None, *path: Step) -> None:
        named = items or ()
        for index, item in enumerate(named):
            if item in named[:index]:
                self.say(f"{item} is named twice", *path, index)


def canonical_email(text: str) -> str:
    """Trim, NFKC and casefold until nothing changes: the form in which tokens carry e-mails."""
    folded = ""
    while folded != text:
        folded, text = text, unicodedata.normalize("NFKC", text.strip()).casefold()
    return folded


def _set(items: Sequence[str] | None) -> frozenset[str] | None:
    """None, "not named", must stay different from empty, "named, and nobody fits"."""
    return None if items is None else frozenset(items)


def _edits(written: WrittenEdits) -> HeaderEdits:
    return HeaderEdits.of(written.add, written.remove) if written.add or written.remove else NO_EDITS


def _rate_limit(written: WrittenLimit) -> RateLimit | None:
    opens = written.on_error == "allow"
    limit = RateLimit(
        _limit("route-user", written.per_user, opens=opens),
        _limit("route-address", written.per_address, opens=opens),
    )
    return None if limit == RateLimit() else limit


def _held(allow: Allow, written: Valid | None) -> Allow:
    """As it holds: for a time, or always."""
    if written is None:
        return allow
    begin = -inf if written.from_ is None else written.from_
    end = inf if written.until is None else written.until
    return replace(allow, valid=Validity(begin, end))


def cors(written: WrittenCors | None) -> Cors | None:
    """Of a route, or of the gateway's own endpoints."""
    if written is None:
        return None
    exact = [origin for origin in written.origins if "*." not in origin]
    below = [origin.partition("*") for origin in written.origins if "*." in origin]
    return Cors(
        origins=frozenset(origin.encode() for origin in exact),
        origin_suffixes=tuple((scheme.encode(), domain.encode()) for scheme, _, domain in below),
        headers=frozenset(name.lower().encode() for name in written.headers),
        expose=tuple(name.encode() for name in written.expose),
        credentials=written.credentials,
        max_age=int(written.max_age),
    )


def _limit(name: str, rate: Rate | None, *, opens: bool) -> Limit | None:
    return None if rate is None else Limit(rate.amount, rate.seconds, name, opens)


def _label(written: Written, pattern: Pattern) -> str:
    methods = ",".join(sorted(written.methods or ()))
    return f"{methods} {','.join(written.hosts or ())}{pattern}".lstrip()


def _test(written: WrittenTest, place: str) -> Test:
    return Test(
        place=place,
        method=written.request.method,
        target=written.request.target,
        host=written.host or "",
        principal=_caller(written.as_),
        caller=written.as_ if isinstance(written.as_, str) else _describe(written.as_),
        address=written.from_,
        at=written.at,
        expect=written.expect,
        route=written.route,
        upstream=written.upstream,
    )


def _caller(written: str | Person) -> Principal | None:
    if written == "anonymous":
        return None
    if isinstance(written, str):
        written = Person(email=f"{written}@example.com", admin=written == "admin")
    return Principal(
        id="test",
        email=canonical_email(written.email),
        is_admin=written.admin,
        roles=tuple(sorted(written.roles)),
        session="test",
        version=0,
        expires_at=0,
        scopes=(LOGIN,) if written.scopes is None else tuple(sorted(written.scopes)),
        token=None if written.scopes is None else "test",
    )


def _describe(person: Person) -> str:
    name = person.email if "email" in person.model_fields_set else "user"
    kinds = ["admin"] if person.admin else []
    kinds += [f"roles {', '.join(person.roles)}"] if person.roles else []
    if person.scopes is not None:
        kinds.append(f"API token with {', '.join(person.scopes) or 'no scope'}")
    return f"{name} ({'; '.join(kinds)})" if kinds else name
