"""`gateway explain`: why one request gets its answer, and what would go upstream."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.loading import examine, refuse
from gateway.cli.options import config_option
from gateway.cli.output import printable, say, say_json, say_table
from gateway.cli.wording import audience_json, place, rule_json

if TYPE_CHECKING:
    from gateway.config.schema import Config
    from gateway.identity.principal import Principal
    from gateway.policy.explain import Asked, Explanation
    from gateway.policy.model import Address, Policy
    from gateway.proxy.verdict import Judgement

SOMEWHERE = "192.0.2.1"
"""The client's address unless told otherwise: one that is nobody's (RFC 5737), and so in no network."""
TOKEN = b"the-callers-token"
"""Stands where the caller's own would."""
_URL = re.compile(r"(?P<scheme>https?)://(?P<host>[^/?#]*)(?P<target>.*)", re.DOTALL | re.IGNORECASE)
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_ROLE = re.compile(r"[a-z0-9._:-]{1,64}")
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f]")
"""What no request line can hold within its target."""


@click.command()
@click.argument("method")
@click.argument("url")
@click.option(
    "--as", "callers", multiple=True, required=True, metavar="WHO",
    help="anonymous, user, admin, role:NAME, scope:NAME (comes with an API token) or an e-mail address; "
    "given several times, all of it together.",
)  # fmt: skip
@click.option(
    "--host", metavar="HOST", help="The Host header; else that of the URL, or of server.public_url."
)
@click.option(
    "--from", "address", metavar="IP", default=SOMEWHERE, show_default=True, help="The client's address."
)
@click.option("--at", metavar="TIME", help="When: a day or a time, 2027-01-31T18:00:00Z; else now.")
@config_option
@click.option(
    "--format", "output", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="json is for scripts.",
)  # fmt: skip
def explain(
    method: str, url: str, callers: tuple[str, ...], host: str | None, address: str, at: str | None,
    config: Path, output: str,
) -> int:  # fmt: skip
    """Show why a request gets its answer, and what goes upstream.

    URL is a path as it goes over the wire, or a whole URL. WHO is made up for the question: no
    account, token or database is looked at, no limit is counted, nothing is sent.

    Shown are the verdict and the rule behind it, every reading of the path with what it asks for,
    the routes that came close and why they did not match, and the head of the request to the
    backend: the gate itself writes it, with the values of all headers that the route sets. The
    client's own headers would come on top.

    Exit 0 whatever the verdict is, 1 if the file is wrong.

    \b
    Example:
      gateway explain DELETE /projects/7 --as user
      gateway explain GET https://app.example.com/reports/q3 --as ann@example.com --as role:analyst
      gateway explain GET /office --as anonymous --from 10.1.2.3 --at 2027-01-31 --format json
    """
    request = _Request.of(method, url, callers, host, address, at)
    examined = examine(config, allow_unset=True, certificate=False)
    if examined.config is None or examined.policy is None:
        refuse(examined.problems)
    told = answer(examined.config, examined.policy, request.on(examined.config))
    if output == "json":
        say_json(_as_json(told))
    else:
        _report(told)
    return 0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked about."""

    method: str
    target: bytes
    """The path and the query."""
    host: bytes
    scheme: str
    principal: Principal | None
    address: Address
    now: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Told:
    """The answer."""

    request: Request
    config: Config
    explanation: Explanation
    """What the rules say."""
    judgement: Judgement | None
    """What the gate says; None for the gateway's own endpoints."""

    @property
    def allowed(self) -> bool:
        from gateway.proxy.verdict import Refuse

        return not isinstance(self.judgement, Refuse)

    @property
    def status(self) -> int | None:
        """Of the refusal; None if the backend, or an endpoint of the gateway, will say."""
        from gateway.proxy.verdict import Refuse

        return self.judgement.error.status if isinstance(self.judgement, Refuse) else None

    @property
    def reason(self) -> str:
        """The code in the decision log."""
        return "served" if self.judgement is None else self.judgement.decided.reason or ""

    @property
    def head(self) -> bytes:
        """What goes upstream; nothing if nothing does."""
        from gateway.proxy.verdict import Forward

        return self.judgement.head if isinstance(self.judgement, Forward) else b""


def answer(config: Config, policy: Policy, request: Request) -> Told:
    """Ask the rules and the gate itself."""
    from gateway.app import rehearse
    from gateway.http.head import Head
    from gateway.policy.explain import explain as explained

    headers = [(b"Host", request.host)]
    headers += [(b"Authorization", b"Bearer " + TOKEN)] if request.principal is not None else []
    head = Head(request.method, request.target, headers, "1.1", request.scheme, str(request.address))
    judgement = rehearse(config, policy, head, request.principal, request.now)
    explanation = explained(
        policy, method=request.method, host=request.host, path=head.path,
        principal=request.principal, address=request.address, now=request.now,
    )  # fmt: skip
    return Told(request, config, explanation, judgement)


# -- reading the command line --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Request:
    """The same, as far as it is known without the file."""

    method: str
    target: bytes
    host: str | None
    scheme: str | None
    principal: Principal | None
    address: Address
    now: float

    @classmethod
    def of(
        cls, method: str, url: str, callers: tuple[str, ...], host: str | None, address: str, at: str | None
    ) -> _Request:
        if not _METHOD.fullmatch(method):
            raise click.UsageError(f"METHOD: {printable(method)} is no method")
        match = _URL.fullmatch(url)
        target = (match["target"] if match else url) or "/"
        if target.startswith("?"):
            target = f"/{target}"
        if not target.startswith("/") or _UNSENDABLE.search(target):
            raise click.UsageError("URL: write a path as it is sent, like /a%20b, or a whole URL")
        return cls(
            method.upper(),
            target.encode("utf-8", "surrogateescape"),
            host or (match["host"] if match else None),
            match["scheme"].lower() if match else None,
            _caller(callers),
            _address(address),
            time.time() if at is None else _moment(at),
        )

    def on(self, config: Config) -> Request:
        scheme, _, public = config.server.public_url.partition("://")
        host = public if self.host is None else self.host
        return Request(
            self.method,
            self.target,
            host.encode("utf-8", "surrogateescape"),
            self.scheme or scheme,
            self.principal,
            self.address,
            self.now,
        )


def _caller(words: tuple[str, ...]) -> Principal | None:
    from gateway.identity.principal import LOGIN, Principal
    from gateway.policy.compile import canonical_email

    if words == ("anonymous",):
        return None
    roles, scopes, email, admin = set[str](), set[str](), "", False
    for word in words:
        if word.startswith("role:") and _ROLE.fullmatch(word[5:]):
            roles.add(word[5:])
        elif word.startswith("scope:") and _ROLE.fullmatch(word[6:]) and word[6:] != LOGIN:
            scopes.add(word[6:])
        elif word == "admin":
            admin = True
        elif "@" in word.strip("@") and not email:
            email = canonical_email(word)
        elif word != "user":
            known = "anonymous, user, admin, role:NAME, scope:NAME or one e-mail address"
            raise click.UsageError(f"--as {printable(word)}: {known}")
    email = email or ("admin@example.com" if admin else "user@example.com")
    caller = Principal("the-callers-id", email, admin, tuple(sorted(roles)), "", 0, 0)
    return replace(caller, scopes=tuple(sorted(scopes)), token=caller.id) if scopes else caller


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise click.UsageError(f"--from {printable(text)}: an address like 10.1.2.3") from None


def _moment(text: str) -> float:
    from gateway.config.values import parse_moment

    try:
        return parse_moment(text)
    except ValueError:
        raise click.UsageError(
            f"--at {printable(text)}: a day or a time, like 2027-01-31T18:00:00Z"
        ) from None


# -- telling -------------------------------------------------------------------------------------------------


def _report(told: Told) -> None:
    from gateway.policy.explain import why

    verdict = "allow" if told.allowed else f"deny {told.status}"
    sentence = why(told.reason) or _other_reason(told)
    say(printable(f"{verdict} {told.reason}: {sentence}"), fg="green" if told.allowed else "red", bold=True)
    say(printable(", ".join(_question(told.request))))
    would = told.explanation.decision.would
    if would is not None and told.head:
        say(f"would be refused if the route were enforced: {would.reason}: {why(would.reason)}", fg="yellow")
    if told.judgement is not None and told.explanation.asked:
        heads = ("", "reading", "how it is read", "needs", "rule", "caller")
        say()
        rows = [("reading", *_row(each)) for each in told.explanation.asked]
        say_table(heads, rows, ["red" if each.refusal else "" for each in told.explanation.asked])
    if told.judgement is not None and told.explanation.near:
        say()
        near = [("close", each.route.label, place(each.route), each.why) for each in told.explanation.near]
        say_table(("", "route", "rule", "why not"), near)
    if told.head:
        _report_forward(told)


def _other_reason(told: Told) -> str:
    from gateway.proxy.verdict import Refuse

    if isinstance(told.judgement, Refuse):
        return told.judgement.error.detail
    return "the gateway answers this itself, and no rule is asked"


def _question(request: Request) -> Iterator[str]:
    from gateway.telemetry.logs import timestamp

    yield f"{request.method} {request.target.decode('utf-8', 'surrogateescape')}"
    yield f"host {request.host.decode('utf-8', 'surrogateescape')}"
    yield f"from {request.address}"
    yield f"as {_named(request.principal)}"
    yield f"at {timestamp(request.now)}"


def _named(principal: Principal | None) -> str:
    if principal is None:
        return "anonymous"
    kinds = [*(["admin"] if principal.is_admin else []), *(f"role {role}" for role in principal.roles)]
    kinds += [f"scope {scope}" for scope in principal.scopes] if principal.token is not None else []
    return f"{principal.email} ({', '.join(kinds)})" if kinds else principal.email


def _row(asked: Asked) -> tuple[str, ...]:
    from gateway.policy.audience import Audience

    needs = str(Audience.of(asked.route.allow))
    caller = "may" if asked.refusal is None else asked.refusal.value
    caller += "" if asked.enforced else " (only reported)" if asked.refusal else ""
    rule = asked.route.label if asked.route.index < 0 else f"{asked.route.label} ({place(asked.route)})"
    return asked.path, _how(asked), needs, rule, caller


def _how(asked: Asked) -> str:
    if asked.literal:
        return "as it stands"
    how = "with other capitals" if asked.caseless else "as some backends read it"
    return f"{how}, by {asked.behind} without the prefix" if asked.behind else how


def _report_forward(told: Told) -> None:
    upstream, servers = _destination(told)
    say()
    say(printable(f"to {upstream}: {', '.join(servers)}"), bold=True)
    ours = _identity(told)
    for line in told.head.decode("utf-8", "surrogateescape").split("\r\n")[:-2]:
        say(f"  {printable(line)}", **({"fg": "cyan"} if line in ours else {}))


def _destination(told: Told) -> tuple[str, list[str]]:
    name = told.explanation.decision.route.upstream
    return name, [str(url) for url in told.config.upstreams[name].targets]


def _identity(told: Told) -> list[str]:
    """The lines that tell the backend who asks."""
    from gateway.http.identity_headers import identity_lines

    if told.request.principal is None or not told.head:
        return []
    lines = identity_lines(told.config.identity_headers.preset)(told.request.principal)
    return lines.decode().split("\r\n")[:-1]


def _as_json(told: Told) -> dict[str, Any]:
    from gateway.policy.explain import why

    request, explanation, rules = told.request, told.explanation, told.judgement is not None
    decision = explanation.decision
    return {
        "verdict": "allow" if told.allowed else "deny",
        "status": told.status,
        "reason": told.reason,
        "why": why(told.reason) or _other_reason(told),
        "would": decision.would.reason.value if decision.would is not None and told.head else None,
        "route": rule_json(decision.route) if rules and explanation.asked else None,
        "readings": [_reading_json(each) for each in explanation.asked] if rules else [],
        "near": [{"route": rule_json(e.route), "why": e.why} for e in explanation.near] if rules else [],
        "request": {
            "method": request.method,
            "target": request.target.decode("latin-1"),
            "host": request.host.decode("latin-1"),
            "from": str(request.address),
            "as": _named(request.principal),
        },
        "forward": _forward_json(told) if told.head else None,
    }


def _reading_json(asked: Asked) -> dict[str, Any]:
    from gateway.policy.audience import Audience

    return {
        "path": printable(asked.path),
        "literal": asked.literal,
        "otherCapitals": asked.caseless,
        "behind": asked.behind or None,
        "needs": audience_json(Audience.of(asked.route.allow)),
        "route": rule_json(asked.route),
        "refusal": asked.refusal.value if asked.refusal is not None else None,
        "enforced": asked.enforced,
    }


def _forward_json(told: Told) -> dict[str, Any]:
    """`head` has one character per byte."""
    upstream, servers = _destination(told)
    return {
        "upstream": upstream,
        "servers": servers,
        "head": told.head.decode("latin-1"),
        "identityHeaders": dict(line.split(": ", 1) for line in _identity(told)),
    }
