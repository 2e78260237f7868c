"""Many accounts in and out, with their password hashes: moving in from another program, backup, moving house.

What comes in comes whole or not at all: one transaction, which first looks at every
account and then commits, or tells all that is in the way and leaves nothing behind.
The accounts are read from the caller a batch at a time, so their number does not
matter to the memory.

Hashes come from elsewhere as they are, and are replaced at each owner's next login
(see `passwords`). An account that comes without one can't be logged in to until an
admin sets a password.

An account may bring its id, so that backends go on knowing it. Should it have been
deleted here a moment ago, its old access tokens are cut off up to a version; it
starts beyond that, or its new ones would be dead as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from gateway.accounts.ids import new_id
from gateway.accounts.ledger import Ledger, Ledgers
from gateway.accounts.store import Account
from gateway.accounts.values import User
from gateway.telemetry.audit import HashesExported, UsersImported

T = TypeVar("T")

BATCH: Final = 500
"""Accounts in one statement; both databases take more parameters than that needs."""
DEADLINE_S: Final = 3600.0
"""A hundred thousand accounts take seconds. This is for millions."""
NO_HASH: Final = ""
"""What stands in the place of a hash that nothing matches."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One account to be added; each field already checked."""

    line: int
    """Where it begins in its file, to say what is wrong with it."""
    email: str
    """In canonical form."""
    password_hash: str = NO_HASH
    """bcrypt's, or ours."""
    is_admin: bool = False
    """May pass `allow: admin`."""
    roles: tuple[str, ...] = ()
    """Sorted, without duplicates."""
    disabled: bool = False
    """Can't log in."""
    id: str | None = None
    """To be kept; None for a new one."""
    created_at: float | None = None
    """Unix seconds; None for now."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of it."""

    added: int
    """How many accounts are new."""
    skipped: int
    """How many were left out because their addresses have accounts."""


class InTheWay(Exception):
    """Accounts that can't be added, each with its line. Nothing was."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        super().__init__(f"{len(problems)} accounts can't be added")
        self.problems = problems


class Transfer:
    """The use cases of moving accounts."""

    def __init__(self, ledgers: Ledgers) -> None:
        self._ledgers = ledgers

    async def add(
        self,
        incoming: Callable[[], Iterable[Incoming]],
        *,
        skip_existing: bool = False,
        only_try: bool = False,
        actor: str | None = None,
    ) -> Imported:
        """Add all of them, in one transaction. Raises InTheWay, EmailTaken.

        `incoming` is called in a thread of the database; what it raises undoes everything.
        """
        try:
            return await self._ledgers.write(
                lambda ledger: _add(
                    ledger, incoming(), skip_existing=skip_existing, only_try=only_try, actor=actor
                ),
                deadline=DEADLINE_S,
            )
        except _OnlyTried as tried:
            return tried.imported

    async def all(self) -> AsyncIterator[list[tuple[User, str]]]:
        """Every account and its hash, the oldest first, in batches: the one way a hash leaves the room."""
        batch = await self._batch("")
        while batch:
            yield [(each.user, each.password_hash) for each in batch]
            batch = await self._batch(batch[-1].user.id)

    async def _batch(self, after: str) -> list[Account]:
        return await self._ledgers.read(lambda store: store.list_accounts(limit=BATCH, after=after))

    async def note_export(self, count: int, *, actor: str | None = None) -> None:
        """Tell the audit trail that the hashes of so many accounts were handed out."""
        await self._ledgers.write(lambda ledger: ledger.note(HashesExported(count=count, actor=actor)))


class _OnlyTried(Exception):
    """Undoes a transaction that would have worked."""

    def __init__(self, imported: Imported) -> None:
        super().__init__()
        self.imported = imported


def _add(
    ledger: Ledger, incoming: Iterable[Incoming], *, skip_existing: bool, only_try: bool, actor: str | None
) -> Imported:
    problems: list[tuple[int, str]] = []
    added = admins = skipped = 0
    for batch in _batches(incoming, BATCH):
        free, taken, collisions = _sorted_out(ledger, batch)
        problems += collisions
        if skip_existing:
            skipped += len(taken)
        else:
            problems += [(each.line, f"{each.email} has an account already") for each in taken]
        if not problems:
            ledger.store.add_accounts(_accounts(ledger, free), now=ledger.now)
        added += len(free)
        admins += sum(each.is_admin for each in free)
    if problems:
        raise InTheWay(problems)
    imported = Imported(added, skipped)
    if only_try:
        raise _OnlyTried(imported)
    if added:
        ledger.note(UsersImported(count=added, admins=admins, actor=actor))
    return imported


def _sorted_out(
    ledger: Ledger, batch: list[Incoming]
) -> tuple[list[Incoming], list[Incoming], list[tuple[int, str]]]:
    """Those that can be added, those whose address has an account, and ids that somebody else has."""
    ids = [each.id for each in batch if each.id is not None]
    present = ledger.store.taken(emails=[each.email for each in batch], ids=ids)
    emails, owners = {email for _, email in present}, {id_ for id_, _ in present}
    free, taken, collisions = [], [], []
    for each in batch:
        if each.email in emails:
            taken.append(each)
        elif each.id in owners:
            collisions.append((each.line, f"another account has the id {each.id}"))
        else:
            free.append(each)
    return free, taken, collisions


def _accounts(ledger: Ledger, incoming: list[Incoming]) -> list[Account]:
    cut = ledger.store.cut_versions([each.id for each in incoming if each.id is not None])
    return [
        Account(
            User(
                id=each.id or new_id(_begun(each, ledger.now)),
                email=each.email,
                is_admin=each.is_admin,
                roles=each.roles,
                disabled=each.disabled,
                created_at=_begun(each, ledger.now),
                version=cut.get(each.id or "", 1),
            ),
            each.password_hash,
        )
        for each in incoming
    ]


def _begun(each: Incoming, now: float) -> float:
    return now if each.created_at is None else each.created_at


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
