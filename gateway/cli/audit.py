"""`gateway audit`: who did what to whom, out of the database that a gateway writes it to."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.accounts import with_accounts
from gateway.cli.options import config_option, format_option
from gateway.cli.output import complain, printable, say_json, say_table

if TYPE_CHECKING:
    from gateway.accounts.service import Accounts
    from gateway.accounts.trail import Entry, Wanted

LIMIT = 100
"""Events that are shown when nobody says how many."""
FOLLOW_S = 1.0
"""Between two looks for new ones."""
OVERLAP_S = 30.0
"""What is looked at again: rows become visible when their transaction ends, not when it began."""


@click.command()
@click.option("--name", "names", multiple=True, metavar="NAME", help="Only this kind of event; repeatable.")
@click.option("--user", metavar="WHO", help="Whom it is about: an e-mail or an id.")
@click.option("--actor", metavar="WHO", help="Who did it: an e-mail, an id, cli or cli:NAME.")
@click.option("--address", metavar="IP", help="Where from: an IP address, or unix.")
@click.option("--since", metavar="TIME", help="From then on: 2d (ago), a day or a time.")
@click.option("--until", metavar="TIME", help="Before that, likewise.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, metavar="N",
    help="The newest N.",
)  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@config_option
@format_option
def audit(
    names: tuple[str, ...],
    user: str | None,
    actor: str | None,
    address: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    follow: bool,
    config: Path,
    output: str,
) -> None:
    """Show who did what to whom.

    Logins, failures, limits, changes to accounts. The oldest of the chosen ones comes first, the
    newest last. A TIME is a duration before now (90m, 2d), a day (2027-01-31, from 00:00 UTC) or a
    time (2027-01-31T18:00:00Z). With --follow, json is one object per line.

    \b
    Example:
      gateway audit --user ana@example.com --since 2d
      gateway audit --name login_failed --name login_limited --follow
      gateway audit --actor cli --format json | jq -r '.items[] | [.time, .name, .email] | @tsv'
    """
    from gateway.accounts.trail import Wanted

    if follow and until is not None:
        raise click.UsageError("--follow and --until contradict each other.")
    wanted = Wanted(
        names=names or None,
        user=user,
        actor=actor,
        address=address,
        since=_moment("--since", since),
        until=_moment("--until", until),
    )
    with_accounts(config, lambda accounts: _show(accounts, wanted, limit, follow=follow, output=output))


def _moment(option: str, text: str | None) -> float | None:
    from gateway.config.values import parse_duration, parse_moment

    if text is None:
        return None
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        return parse_moment(text)
    except ValueError:
        sentence = "write a duration before now like 2d, a day like 2027-01-31, or a time like"
        raise click.UsageError(f"{option}: {sentence} 2027-01-31T18:00:00Z.") from None


async def _show(accounts: Accounts, wanted: Wanted, limit: int, *, follow: bool, output: str) -> None:
    found, more = await _newest(accounts, wanted, limit)
    if more:
        complain(f"there are older ones; --limit shows more than {limit}", dim=True)
    if not follow:
        _print(found, output)
        return
    _print_each(found, output)
    await _follow(accounts, wanted, found, output)


async def _newest(accounts: Accounts, wanted: Wanted, limit: int) -> tuple[list[Entry], bool]:
    """The newest `limit`, oldest of them first; and whether there are more."""
    from gateway.accounts.trail import MAX_PAGE

    found: list[Entry] = []
    cursor = None
    while len(found) < limit:
        size = min(MAX_PAGE, limit - len(found))
        page = await accounts.trail.page(wanted, limit=size, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    return sorted(found, key=lambda entry: (entry.time, entry.seq)), cursor is not None


async def _follow(accounts: Accounts, wanted: Wanted, shown: list[Entry], output: str) -> None:
    """Every event once; those of the last seconds are asked for again and again."""
    oldest = min((entry.seq for entry in shown), default=0)
    latest = max((entry.time for entry in shown), default=time.time())
    known = {entry.seq: entry.time for entry in shown}
    while True:
        await asyncio.sleep(FOLLOW_S)
        since = max(latest - OVERLAP_S, wanted.since or 0.0)
        found, _ = await _newest(accounts, replace(wanted, since=since), sys.maxsize)
        fresh = [entry for entry in found if entry.seq > oldest and entry.seq not in known]
        _print_each(fresh, output)
        latest = max([latest, *(entry.time for entry in fresh)])
        known |= {entry.seq: entry.time for entry in fresh}
        known = {seq: at for seq, at in known.items() if at >= latest - 2 * OVERLAP_S}


def _print(entries: list[Entry], output: str) -> None:
    if output == "json":
        say_json({"items": [_as_json(entry) for entry in entries]})
    else:
        say_table(("time", "name", "about", "by", "address", "details"), map(_row, entries))


def _print_each(entries: Iterable[Entry], output: str) -> None:
    for entry in entries:
        shown = json.dumps(_as_json(entry)) if output == "json" else "\t".join(map(printable, _row(entry)))
        click.echo(shown)
    sys.stdout.flush()


def _row(entry: Entry) -> tuple[str, ...]:
    from gateway.web.shapes import moment

    by_themselves = entry.actor is not None and entry.actor == entry.user
    return (
        moment(entry.time),
        entry.name,
        entry.email or entry.user or "-",
        "themselves" if by_themselves else entry.actor_email or entry.actor or "-",
        entry.address or "-",
        " ".join(f"{name}={_text(value)}" for name, value in entry.details.items() if value is not None),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _as_json(entry: Entry) -> dict[str, Any]:
    """The same keys as /auth/audit."""
    from gateway.web.shapes import audit_event

    return audit_event(entry)
