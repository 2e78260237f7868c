"""Every query, bound to one transaction. No rule lives here: what may happen is said by its callers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Row,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from gateway.accounts.ids import new_id
from gateway.accounts.tables import cutoffs, known_networks, sessions, users
from gateway.accounts.values import NOBODYS, Client, OpenSession, Standing, User
from gateway.identity.revocation import Cut

NO_PASSWORD: Final = ""
"""The stored hash of a service account: no password has it."""
USER_AGENT_LENGTH: Final = 200
ADDRESS_LENGTH: Final = 64
NETWORK_KNOWN_S: Final = 30 * 86_400.0
"""How long a network is known from which an account has logged in."""
PRUNED_AT_ONCE: Final = 1000
"""Rows deleted in one transaction, so that nobody waits for a clean-up."""
CUTOFFS_CHANNEL: Final = "gateway_cutoffs"
"""Where PostgreSQL tells of new cut-offs. Says only that there are some: anybody may NOTIFY."""
_ADMINS_LOCK: Final = 0x61646D69
"""The key of PostgreSQL's advisory lock for changes to users ("admi" in ASCII)."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user and the hash that proves them. Never leaves the room."""

    user: User
    """What others may see."""
    password_hash: str
    """See `passwords`."""


@dataclass(frozen=True, slots=True)
class Session:
    """One row of sessions: a login and the refreshes after it."""

    id: str
    """`sid`."""
    user_id: str
    """Whose it is."""
    generation: int
    """How often it was refreshed; the `gen` of its one valid refresh token."""
    issued_at: int
    """`iat` of that token."""
    expires_at: int
    """`exp` of that token: never later than the session's fixed end."""
    rotated_at: float
    """When that token replaced the one before."""
    address: str
    """Where it was last used from."""
    revoked_at: float | None
    """When it was ended early."""

    def used_from(self, client: Client) -> bool:
        """Whether this client has the address that it was last used from."""
        return clean(client.address, ADDRESS_LENGTH) == self.address


class Store:
    """The queries, on one connection, inside the transaction that its owner began."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # users

    def account_by_email(self, email: str, *, lock: bool = False) -> Account | None:
        return self._account(users.c.email == email, lock)

    def account(self, user_id: str, *, lock: bool = False) -> Account | None:
        return self._account(users.c.id == user_id, lock)

    def _account(self, condition: ColumnElement[bool], lock: bool) -> Account | None:
        query = select(users).where(condition)
        # SQLite has no FOR UPDATE and needs none: BEGIN IMMEDIATE locks the whole file.
        row = self._connection.execute(query.with_for_update() if lock else query).one_or_none()
        return None if row is None else Account(user_of(row), row.password_hash)

    def list_users(self, *, query: str, limit: int, after: str) -> list[User]:
        """Users with `query` (folded) in their address and an id beyond `after`, in the order of ids."""
        chosen = select(users).where(users.c.id > after).order_by(users.c.id).limit(limit)
        if query:
            chosen = chosen.where(users.c.email.contains(query, autoescape=True))
        return [user_of(row) for row in self._connection.execute(chosen)]

    def add_user(
        self, *, email: str, password_hash: str, is_admin: bool, roles: tuple[str, ...], now: float
    ) -> User:
        service = password_hash == NO_PASSWORD
        user = User(new_id(now), email, is_admin, roles, False, now, version=1, service=service)
        self._connection.execute(
            insert(users).values(**_columns(user), password_hash=password_hash, updated_at=now)
        )
        return user

    def add_accounts(self, accounts: Sequence[Account], *, now: float) -> None:
        """Many at once."""
        rows = [
            {**_columns(each.user), "password_hash": each.password_hash, "updated_at": now}
            for each in accounts
        ]
        if rows:
            self._connection.execute(insert(users), rows)

    def taken(self, *, emails: Sequence[str], ids: Sequence[str]) -> list[tuple[str, str]]:
        """The ids and addresses of users who have one of these."""
        query = select(users.c.id, users.c.email).where(users.c.email.in_(emails) | users.c.id.in_(ids))
        return [(row.id, row.email) for row in self._connection.execute(query)]

    def cut_versions(self, ids: Sequence[str]) -> dict[str, int]:
        """The highest versions below which tokens of these users, once deleted, are still cut off."""
        highest = (
            select(cutoffs.c.id, func.max(cutoffs.c.version).label("version"))
            .where(cutoffs.c.kind == "user", cutoffs.c.id.in_(ids))
            .group_by(cutoffs.c.id)
        )
        return {row.id: row.version for row in self._connection.execute(highest)}

    def list_accounts(self, *, limit: int, after: str) -> list[Account]:
        """Like `list_users`, with their hashes."""
        chosen = select(users).where(users.c.id > after).order_by(users.c.id).limit(limit)
        return [Account(user_of(row), row.password_hash) for row in self._connection.execute(chosen)]

    def save_user(self, user: User, *, now: float) -> None:
        self._connection.execute(
            update(users).where(users.c.id == user.id).values(**_columns(user), updated_at=now)
        )

    def save_password(self, user_id: str, password_hash: str, *, now: float) -> None:
        self._connection.execute(
            update(users).where(users.c.id == user_id).values(password_hash=password_hash, updated_at=now)
        )

    def delete_user(self, user_id: str) -> None:
        """The user and, by the foreign key, all their sessions."""
        self._connection.execute(delete(users).where(users.c.id == user_id))

    def lock_admins(self) -> None:
        """Let only one transaction at a time decide who is left as an admin.

        Locking the admins' rows would do too, but two changes that lock their own
        row first and the others after it would wait for each other in a circle.
        """
        if self._connection.dialect.name == "postgresql":
            self._connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADMINS_LOCK})

    def other_admin_exists(self, user_id: str) -> bool:
        """Whether someone else is an admin who can log in."""
        others = exists().where(
            users.c.is_admin,
            ~users.c.disabled,
            users.c.id != user_id,
            users.c.password_hash != NO_PASSWORD,
        )
        return bool(self._connection.execute(select(others)).scalar_one())

    # what limits on logins have to know

    def standing(self, email: str, network: str, *, known_since: float) -> Standing:
        """One query, the same for every name, whether or not there is such an account."""
        known = exists().where(
            known_networks.c.user_id == users.c.id,
            known_networks.c.network == network,
            known_networks.c.last_login_at >= known_since,
        )
        query = select(users.c.id, users.c.limits_epoch, known.label("known")).where(users.c.email == email)
        row = self._connection.execute(query).one_or_none()
        return NOBODYS if row is None else Standing(row.id, row.limits_epoch, bool(row.known))

    def remember_network(self, user_id: str, network: str, *, now: float) -> None:
        """Of a login. The account's row must be locked: two at once would both insert."""
        mine = known_networks.c.user_id == user_id, known_networks.c.network == network
        again = update(known_networks).where(*mine).values(last_login_at=now)
        if self._connection.execute(again).rowcount == 0:
            row = {"user_id": user_id, "network": network, "last_login_at": now}
            self._connection.execute(insert(known_networks).values(row))

    def clear_limits(self, user_id: str) -> None:
        self._connection.execute(
            update(users).where(users.c.id == user_id).values(limits_epoch=users.c.limits_epoch + 1)
        )

    # sessions

    def open_session(
        self, user_id: str, client: Client, *, ttl: float, longest: float, now: float
    ) -> Session:
        ends_at = int(now + longest)
        session = Session(
            id=new_id(now),
            user_id=user_id,
            generation=0,
            issued_at=int(now),
            expires_at=min(int(now + ttl), ends_at),
            rotated_at=now,
            address=clean(client.address, ADDRESS_LENGTH),
            revoked_at=None,
        )
        self._connection.execute(
            insert(sessions).values(
                **{name: getattr(session, name) for name in Session.__slots__},
                created_at=now,
                ends_at=ends_at,
                last_used_at=now,
                user_agent=clean(client.user_agent, USER_AGENT_LENGTH),
            )
        )
        return session

    def rotate(
        self, session_id: str, user_id: str, generation: int, client: Client, *, ttl: float, now: float
    ) -> Session | None:
        """The compare-and-swap: the session one generation further, or None if nothing was changed."""
        alive = exists().where(users.c.id == sessions.c.user_id, ~users.c.disabled)
        end = int(now + ttl)
        swapped = (
            update(sessions)
            .where(
                sessions.c.id == session_id,
                sessions.c.user_id == user_id,
                sessions.c.generation == generation,
                sessions.c.revoked_at.is_(None),
                sessions.c.expires_at > now,
                alive,
            )
            .values(
                generation=sessions.c.generation + 1,
                issued_at=int(now),
                expires_at=_earlier(sessions.c.ends_at, end),
                rotated_at=now,
                last_used_at=now,
                address=clean(client.address, ADDRESS_LENGTH),
                user_agent=clean(client.user_agent, USER_AGENT_LENGTH),
            )
            .returning(sessions)
        )
        return _session(self._connection.execute(swapped).one_or_none())

    def session(self, session_id: str) -> Session | None:
        query = select(sessions).where(sessions.c.id == session_id)
        return _session(self._connection.execute(query).one_or_none())

    def list_sessions(self, *, user_id: str | None, limit: int, before: str, now: float) -> list[OpenSession]:
        """Those that are not over, of one user or of all, latest login first: ids below `before`."""
        open_ = select(sessions, users.c.email).join(users, users.c.id == sessions.c.user_id)
        chosen = open_.where(*_is_open(now)).order_by(sessions.c.id.desc()).limit(limit)
        if user_id is not None:
            chosen = chosen.where(sessions.c.user_id == user_id)
        if before:
            chosen = chosen.where(sessions.c.id < before)
        return [_open_session(row) for row in self._connection.execute(chosen)]

    def run_out(self, *, since: float, until: float) -> list[str]:
        """The ids of sessions that nobody ended and whose time was up after `since` and by `until`."""
        over = sessions.c.expires_at > since, sessions.c.expires_at <= until, sessions.c.revoked_at.is_(None)
        return list(self._connection.execute(select(sessions.c.id).where(*over)).scalars())

    def least_used_sessions(self, user_id: str, *, but: str, beyond: int, now: float) -> list[str]:
        """The ids of a user's open sessions but one, without the `beyond` that were used most recently."""
        used = (
            select(sessions.c.id)
            .where(sessions.c.user_id == user_id, sessions.c.id != but, *_is_open(now))
            .order_by(sessions.c.last_used_at.desc(), sessions.c.id.desc())
            .offset(beyond)
        )
        return list(self._connection.execute(used).scalars())

    def end_session(self, session_id: str, user_id: str, *, reason: str, now: float) -> bool:
        """False if there was none that had not been ended before."""
        mine = sessions.c.id == session_id, sessions.c.user_id == user_id
        return bool(self._end(*mine, reason=reason, now=now))

    def end_sessions(
        self, user_id: str, *, reason: str, now: float, unexpired_since: float, but: str = ""
    ) -> list[str]:
        """End all sessions of a user but one; the ids of those whose access tokens may still live."""
        theirs = sessions.c.user_id == user_id, sessions.c.id != but, sessions.c.expires_at > unexpired_since
        return self._end(*theirs, reason=reason, now=now)

    def _end(self, *conditions: ColumnElement[bool], reason: str, now: float) -> list[str]:
        ended = (
            update(sessions)
            .where(*conditions, sessions.c.revoked_at.is_(None))
            .values(revoked_at=now, revoked_reason=reason)
            .returning(sessions.c.id)
        )
        return list(self._connection.execute(ended).scalars())

    # cut-offs

    def add_cut(self, cut: Cut, *, now: float) -> None:
        self._connection.execute(
            insert(cutoffs).values(
                kind=cut.kind, id=cut.id, version=cut.version, until=cut.until, recorded_at=now
            )
        )
        if self._connection.dialect.name == "postgresql":  # delivered by the commit, once for all of it
            self._connection.execute(text(f"NOTIFY {CUTOFFS_CHANNEL}"))

    def cuts(
        self, *, now: float, since: float | None = None, beyond: int | None = None
    ) -> list[tuple[int, Cut]]:
        """The cut-offs that still matter, with their rows' numbers: all of them, or those recorded
        after `since` or numbered above `beyond`."""
        lately = [] if since is None else [cutoffs.c.recorded_at >= since]
        newest = [] if beyond is None else [cutoffs.c.seq > beyond]
        wanted = or_(*lately, *newest) if lately or newest else true()
        query = select(cutoffs).where(cutoffs.c.until > now, wanted)
        return [
            (row.seq, Cut(row.kind, row.id, row.version, row.until))
            for row in self._connection.execute(query)
        ]

    def count_cuts(self, *, since: float, until: int) -> int:
        """How many were recorded after `since` and are numbered up to `until`."""
        counted = select(func.count()).where(cutoffs.c.recorded_at >= since, cutoffs.c.seq <= until)
        return int(self._connection.execute(counted).scalar_one())

    # cleaning

    def prune(self, *, now: float, expired_before: float) -> int:
        """Delete a batch of all that is over; how many rows.

        Cut-offs that no token can meet, sessions long expired, networks nobody logs in from any more.
        """
        cuts = select(cutoffs.c.seq).where(cutoffs.c.until < now).limit(PRUNED_AT_ONCE)
        dead = select(sessions.c.id).where(sessions.c.expires_at < expired_before).limit(PRUNED_AT_ONCE)
        known = known_networks.c
        left = (
            select(known.user_id, known.network)
            .where(known.last_login_at < now - NETWORK_KNOWN_S)
            .limit(PRUNED_AT_ONCE)
        )
        deletions = (
            delete(known_networks).where(tuple_(known.user_id, known.network).in_(left)),
            delete(cutoffs).where(cutoffs.c.seq.in_(cuts)),
            delete(sessions).where(sessions.c.id.in_(dead)),
        )
        return sum(self._connection.execute(deletion).rowcount for deletion in deletions)


def user_of(row: Row[Any]) -> User:
    """The user in a row of users, whatever else is in it."""
    return User(
        id=row.id,
        email=row.email,
        is_admin=row.is_admin,
        roles=tuple(json.loads(row.roles)),
        disabled=row.disabled,
        created_at=row.created_at,
        version=row.version,
        service=row.password_hash == NO_PASSWORD,
    )


def _columns(user: User) -> dict[str, Any]:
    columns = {name: getattr(user, name) for name in User.__slots__ if name != "service"}
    return columns | {"roles": json.dumps(user.roles)}


def _session(row: Row[Any] | None) -> Session | None:
    return None if row is None else Session(**{name: getattr(row, name) for name in Session.__slots__})


def _open_session(row: Row[Any]) -> OpenSession:
    return OpenSession(**{name: getattr(row, name) for name in OpenSession.__slots__})


def _is_open(now: float) -> tuple[ColumnElement[bool], ...]:
    return sessions.c.revoked_at.is_(None), sessions.c.expires_at > now


def _earlier(column: ColumnElement[int], moment: int) -> ColumnElement[int]:
    # least() is min() in SQLite; CASE is the same in both.
    return case((column < moment, column), else_=moment)


def clean(shown: str, length: int) -> str:
    """What a client says of itself, fit for any database and any terminal: printable, and short."""
    return "".join(character for character in shown[:length] if character.isprintable())
