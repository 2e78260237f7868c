"""`gateway routes`: who may do what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.loading import examine, refuse
from gateway.cli.options import config_option
from gateway.cli.output import complain, counted, printable, say, say_json, say_table
from gateway.cli.wording import audience_json, methods_json, place, requests, rule_json

if TYPE_CHECKING:
    from gateway.policy.access import Requests, Row, Table

MOST_BYTES = 1 << 20
"""Of a list of what may be public; ten thousand lines fit."""
_METHODS = "[A-Z-]+(?:, ?[A-Z-]+)*"
_LISTED = re.compile(
    rf"(?:(?P<methods>{_METHODS}) )?(?P<path>/.*?)(?P<any>, any method(?: but (?P<but>{_METHODS}))?)?"
    r"(?:, (?P<host>any host|[^/\s,]+))?"
)


@click.command()
@config_option
@click.option("--public", is_flag=True, help="Only what can be reached without a login.")
@click.option(
    "--allow-public", "listed", type=click.Path(path_type=Path), metavar="FILE",
    help="Exit 1 if something can be reached without a login that FILE does not list.",
)  # fmt: skip
@click.option(
    "--format", "output", type=click.Choice(["table", "json"]), default="table", show_default=True,
    help="json is for scripts.",
)  # fmt: skip
def routes(config: Path, public: bool, listed: Path | None, output: str) -> int:
    """Show who may do what, the most specific requests first.

    Each row is about the requests that no row with a more specific one takes. Methods that a route
    leaves to a wider one have rows of their own. A cell says what a caller with this and no other
    right gets: allow, 401, 403, `some` if it depends on the address, the time or the e-mail
    address (the column "who passes" says on what), or `own` for the endpoints of the gateway.

    FILE has lines as --public prints them: `GET /health`, `/static/**, any method`,
    `/{page}, any method but POST, www.example.com`. A line also covers what is more specific.
    What follows a tab, and lines that begin with #, count for nothing.

    Exit 0, or 1 if the file is wrong or --allow-public applies.

    \b
    Example:
      gateway routes
      gateway routes --public > public.txt
      gateway routes --allow-public public.txt
    """
    examined = examine(config, allow_unset=True, certificate=False)
    if examined.config is None or examined.policy is None:
        refuse(examined.problems)
    from gateway.config.haste import uncollected
    from gateway.policy.access import table
    from gateway.policy.regions import TooManyClasses

    signed = None if listed is None else _read(listed)
    try:
        with uncollected():
            whole = table(examined.policy)
    except TooManyClasses as error:
        raise click.ClickException(str(error)) from None
    unsigned = [] if signed is None else _unsigned(whole, signed)
    if output == "json":
        told = _as_json(whole, public)
        say_json(told | {"unlisted": [_requests(row) for row in unsigned]} if listed else told)
    elif listed is None or public:
        _report(whole, public)
    if listed is not None and output != "json":
        _report_unsigned(unsigned, listed)
    return 1 if unsigned else 0


# -- the list of what may be public --------------------------------------------------------------------------


def _read(file: Path) -> list[Requests]:
    """Raises OSError and ClickException, both of which name the file."""
    with file.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise click.ClickException(printable(f"{file}: is larger than 1 MiB"))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise click.ClickException(printable(f"{file}: is not text in UTF-8")) from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        wanted = line.partition("\t")[0].strip()
        if wanted and not wanted.startswith("#"):
            try:
                found.append(_parse(wanted))
            except ValueError as error:
                raise click.ClickException(printable(f"{file}:{number}: {error}")) from None
    return found


def _parse(text: str) -> Requests:
    """Raises ValueError with a sentence."""
    from gateway.policy.access import Requests
    from gateway.policy.pattern import parse
    from gateway.policy.regions import Methods

    match = _LISTED.fullmatch(text)
    if match is None or (match["methods"] and match["any"]):
        raise ValueError("write it like GET /health, or /static/**, any method, any host")
    named = match["methods"] or match["but"] or ""
    names = frozenset(re.findall(r"[A-Z-]+", named))
    host = match["host"] or "any host"
    return Requests(
        parse(match["path"]),
        Methods(names, all_but=not match["methods"]),
        "" if host == "any host" else host.lower(),
    )


def _unsigned(whole: Table, signed: list[Requests]) -> list[Row]:
    from gateway.policy.access import summed_up

    public = (row for row in whole.rows if row.public)
    return summed_up(row for row in public if not any(each.cover(row) for each in signed))


def _report_unsigned(unsigned: list[Row], listed: Path) -> None:
    for row in unsigned:
        where = place(row.route) if row.route is not None else ""
        sentence = f"{where}  {_requests(row)}: {row.audience} may use it without a login"
        say(printable(f"{sentence}, and {listed} does not list it"), fg="red")
    if unsigned:
        complain(printable(f"{counted(len(unsigned), 'request')} public and not in {listed}"), fg="red")
    else:
        complain(printable(f"nothing is public that {listed} does not list"), fg="green")


# -- telling -------------------------------------------------------------------------------------------------


def _report(whole: Table, public: bool) -> None:
    rows = [row for row in whole.rows if row.public or not public]
    colours = ["yellow" if row.public else "" for row in rows]
    callers = () if public else whole.callers
    lines = [
        (_requests(row), *(row.access[caller].value for caller in callers), _passes(row), _rule(row))
        for row in rows
    ]
    say_table(("requests", *callers, "who passes", "rule"), lines, colours)


def _requests(row: Row) -> str:
    return requests(row.methods, row.path, [row.host] if row.host else [])


def _passes(row: Row) -> str:
    if row.route is None:
        return "the gateway itself"
    trial = row.demanded != row.audience
    return f"{row.audience} (reports only: {row.demanded})" if trial else str(row.audience)


def _rule(row: Row) -> str:
    return "" if row.route is None else place(row.route)


def _as_json(whole: Table, public: bool) -> dict[str, Any]:
    rows = [row for row in whole.rows if row.public or not public]
    return {"callers": list(whole.callers), "rows": [_row(row) for row in rows]}


def _row(row: Row) -> dict[str, Any]:
    trial = row.demanded != row.audience
    return {
        "requests": _requests(row),
        "path": row.path,
        "host": row.host or None,
        "methods": methods_json(row.methods),
        "access": {caller: access.value for caller, access in row.access.items()},
        "public": row.public,
        "audience": None if row.route is None else audience_json(row.audience),
        "reportOnly": audience_json(row.demanded) if trial else None,
        "upstream": None if row.route is None else row.route.upstream,
        "route": None if row.route is None else rule_json(row.route),
    }
