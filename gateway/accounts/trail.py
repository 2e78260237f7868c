"""The audit trail as a table: how events become rows, and how they are found again.

Rows are read newest first, a page at a time, by their number: what is written while
somebody turns the pages moves none of them. Who is asked about may be an id or an e-mail.
An e-mail finds what happened to the account that has it now, and what was tried under it
when no account had it, or another one.

Ids are shown with the e-mails that belong to them, as far as the accounts are still there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product
from typing import Any, Final

from sqlalchemy import Connection, Row, ScalarSelect, Select, delete, insert, or_, select
from sqlalchemy.sql.elements import ColumnElement

from gateway.accounts.database import Database
from gateway.accounts.emails import canonical_email
from gateway.accounts.ids import is_id
from gateway.accounts.store import PRUNED_AT_ONCE, clean
from gateway.accounts.tables import audit_events, users
from gateway.accounts.values import Page
from gateway.errors import InvalidField
from gateway.telemetry import audit
from gateway.telemetry.audit import Recorded

MAX_PAGE: Final = 200
"""Events in one page."""
_LONGEST: Final = 200
"""Characters of an actor, an address or a request's id that are stored."""
_LARGEST_SEQ: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events. What is None is not asked about."""

    names: tuple[str, ...] | None = None
    """Kinds of events; any of them."""
    user: str | None = None
    """Whom it is about: an id or an e-mail in any spelling."""
    actor: str | None = None
    """Who did it: an id, an e-mail, `cli` or `cli:NAME`."""
    address: str | None = None
    """Where from: an IP address or `unix`."""
    since: float | None = None
    """Unix seconds; this moment included."""
    until: float | None = None
    """Unix seconds; just before this moment."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, as it was written down."""

    seq: int
    """Its number."""
    time: float
    """Unix seconds."""
    name: str
    """What kind of event."""
    actor: str | None
    """Who did it: an id or `cli:NAME`; None for nobody in particular."""
    actor_email: str | None
    """The actor's e-mail, if an account with that id is there."""
    address: str | None
    """Where from."""
    request_id: str | None
    """In which request."""
    user: str | None
    """The id of whom it is about."""
    email: str | None
    """As the event says, else of the account with that id, if it is there."""
    details: dict[str, Any]
    """The event's other fields."""


class Trail:
    """Reads the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: Wanted, *, limit: int = 50, cursor: str | None = None) -> Page[Entry]:
        """Raises InvalidField for what can't be asked."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidField(f"limit must be from 1 to {MAX_PAGE}.")
        query = _everything().order_by(audit_events.c.seq.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(audit_events.c.seq < _number(cursor))
        queries = [query.where(*conditions) for conditions in product(*_alternatives(wanted))]
        found = await self._database.read(lambda connection: _entries(connection, queries))
        items = tuple(found[:limit])
        return Page(items, str(items[-1].seq) if len(found) > limit else None)


def add(connection: Connection, events: Iterable[Recorded]) -> None:
    """Write events down, in the transaction of `connection`."""
    rows = [_row(recorded) for recorded in events]
    if rows:
        connection.execute(insert(audit_events), rows)


def prune(connection: Connection, *, before: float) -> int:
    """Delete a batch of what was recorded earlier; how many rows."""
    old = select(audit_events.c.seq).where(audit_events.c.recorded_at < before).limit(PRUNED_AT_ONCE)
    return connection.execute(delete(audit_events).where(audit_events.c.seq.in_(old))).rowcount


def _row(recorded: Recorded) -> dict[str, Any]:
    told = recorded.told()
    return {
        "recorded_at": recorded.time,
        "name": told.pop("name"),
        "actor": _short(told.pop("actor")),
        "address": _short(told.pop("address")),
        "request_id": _short(told.pop("requestId")),
        "user_id": told.pop("user", None),
        "email": told.pop("email", None),
        "details": json.dumps(told),
    }


def _short(value: object) -> str | None:
    return None if value is None else clean(str(value), _LONGEST)


def _everything() -> Select[Any]:
    subject, doer = users.alias("subject"), users.alias("doer")
    return (
        select(audit_events, subject.c.email.label("subject_email"), doer.c.email.label("doer_email"))
        .outerjoin(subject, subject.c.id == audit_events.c.user_id)
        .outerjoin(doer, doer.c.id == audit_events.c.actor)
    )


def _alternatives(wanted: Wanted) -> Iterable[list[ColumnElement[bool]]]:
    """For each thing that is asked, the conditions of which one must hold. Raises InvalidField.

    Each becomes a query of its own, which has an index in the order of the answer; with OR
    databases look at every row, or sort very many.
    """
    columns = audit_events.c
    if wanted.names is not None:
        yield [columns.name == name for name in _known(wanted.names)]
    if wanted.user is not None:
        yield _is_about(wanted.user)
    if wanted.actor is not None:
        yield [_is_by(wanted.actor)]
    if wanted.address is not None:
        yield [columns.address == _address(wanted.address)]
    if wanted.since is not None:
        yield [columns.recorded_at >= wanted.since]
    if wanted.until is not None:
        yield [columns.recorded_at < wanted.until]


def _known(names: tuple[str, ...]) -> set[str]:
    if not set(names) <= audit.names():
        raise InvalidField(f"name: there is no such event; there are {', '.join(sorted(audit.names()))}.")
    return set(names)


def _is_about(user: str) -> list[ColumnElement[bool]]:
    if "@" in user:
        email = canonical_email(user)
        return [audit_events.c.email == email, audit_events.c.user_id == _id_of(email)]
    if not is_id(user):
        raise InvalidField("user: write an account's id or e-mail address.")
    return [audit_events.c.user_id == user]


def _is_by(actor: str) -> ColumnElement[bool]:
    if actor == "cli":
        return or_(audit_events.c.actor == "cli", audit_events.c.actor.startswith("cli:"))
    if actor.startswith("cli:"):
        return audit_events.c.actor == clean(actor, _LONGEST)
    if "@" in actor:
        return audit_events.c.actor == _id_of(canonical_email(actor))
    if not is_id(actor):
        raise InvalidField("actor: write an account's id or e-mail address, cli, or cli:NAME.")
    return audit_events.c.actor == actor


def _id_of(email: str) -> ScalarSelect[Any]:
    return select(users.c.id).where(users.c.email == email).scalar_subquery()


def _address(text: str) -> str:
    if text == "unix":
        return text
    try:
        return clean(str(ip_address(text)), _LONGEST)  # the zone of an IPv6 address may be any text
    except ValueError:
        raise InvalidField("address: write an IP address, or unix.") from None


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 19 and int(cursor) <= _LARGEST_SEQ):
        raise InvalidField("cursor must be the nextCursor of an earlier page.")
    return int(cursor)


def _entries(connection: Connection, queries: Iterable[Select[Any]]) -> list[Entry]:
    """What any of them finds, each once, newest first."""
    found = {row.seq: row for query in queries for row in connection.execute(query)}
    return [_entry(found[seq]) for seq in sorted(found, reverse=True)]


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        seq=row.seq,
        time=row.recorded_at,
        name=row.name,
        actor=row.actor,
        actor_email=row.doer_email,
        address=row.address,
        request_id=row.request_id,
        user=row.user_id,
        email=row.subject_email if row.email is None else row.email,
        details=json.loads(row.details),
    )
