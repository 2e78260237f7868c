"""Users: what admins do to accounts, and the rules for it, each inside one transaction.

Every change that must be felt at once raises the user's version and publishes a
cut-off, so access tokens that still say the old thing are dead within a second or
two: an e-mail, a right or a role less, a disabled or deleted user. A client that
is still welcome then refreshes and gets a token that says the new thing. What
takes away trust in the *logins* (a password set by an admin, disabling, deleting)
ends the sessions too.

There is always an admin who can log in: whoever would remove, demote or disable
the last one is refused. A service account, which has no password, never counts as one.
`lock_admins` lets one such decision happen at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from gateway.accounts.emails import canonical_email, canonical_or_empty, fold
from gateway.accounts.ids import is_id
from gateway.accounts.ledger import Ledger, Ledgers
from gateway.accounts.pages import check_page, page_of
from gateway.accounts.password_rules import PasswordRules, refuse_password_like_email
from gateway.accounts.passwords import Passwords
from gateway.accounts.rotation import NO_USER
from gateway.accounts.store import NO_PASSWORD
from gateway.accounts.values import Changes, Page, User
from gateway.errors import InvalidField, LastAdmin, NotFound
from gateway.telemetry.audit import PasswordChanged, UserCreated, UserDeleted, UserUpdated

MAX_ROLES: Final = 64
"""64 roles of 64 characters still fit into a token and a header of 8 KiB."""
_ROLE: Final = re.compile(r"[a-z0-9._:-]{1,64}")


class Users:
    """The use cases of users. `actor` is who does it, for the audit trail."""

    def __init__(self, ledgers: Ledgers, passwords: Passwords, rules: PasswordRules) -> None:
        self._ledgers = ledgers
        self._passwords = passwords
        self._rules = rules

    async def list(self, *, query: str = "", limit: int = 50, cursor: str | None = None) -> Page[User]:
        """One page of the users whose e-mail contains `query`, oldest first. Raises InvalidField."""
        check_page(limit, cursor)
        wanted = fold(query)
        if not wanted.isprintable() or (query and not wanted):  # no address is like that
            return Page((), None)
        # One more than asked for tells whether there is a next page.
        found = await self._ledgers.read(
            lambda store: store.list_users(query=wanted, limit=limit + 1, after=cursor or "")
        )
        return page_of(found, limit)

    async def create(
        self,
        email: str,
        password: str | None,
        *,
        is_admin: bool = False,
        roles: tuple[str, ...] = (),
        actor: str | None = None,
    ) -> User:
        """Without a password it is a service account. Raises InvalidField, EmailTaken."""
        email, roles = canonical_email(email), checked_roles(roles)
        password_hash = NO_PASSWORD
        if password is not None:
            self._rules.refuse_unfit(password, email)
            password_hash = await self._passwords.hash(password)
        return await self._ledgers.write(
            lambda ledger: create(
                ledger, email=email, password_hash=password_hash, is_admin=is_admin, roles=roles, actor=actor
            )
        )

    async def get(self, user_id: str) -> User:
        """Raises NotFound."""
        account = await self._ledgers.read(lambda store: store.account(user_id)) if is_id(user_id) else None
        if account is None:
            raise NotFound(NO_USER)
        return account.user

    async def find(self, email: str) -> User:
        """Raises NotFound."""
        address = canonical_or_empty(email)
        account = await self._ledgers.read(lambda store: store.account_by_email(address))
        if account is None:
            raise NotFound(NO_USER)
        return account.user

    async def update(self, user_id: str, changes: Changes, *, actor: str | None = None) -> User:
        """The user as changed. Raises NotFound, InvalidField, EmailTaken, LastAdmin."""
        wanted = Changes(
            email=None if changes.email is None else canonical_email(changes.email),
            password=changes.password,
            is_admin=changes.is_admin,
            roles=None if changes.roles is None else checked_roles(changes.roles),
            disabled=changes.disabled,
        )
        email = (await self.get(user_id)).email
        password_hash = None
        if wanted.password is not None:
            self._rules.refuse_unfit(wanted.password, wanted.email or email)
            password_hash = await self._passwords.hash(wanted.password)
        edit = Edit(wanted, password_hash)
        return await self._ledgers.write(lambda ledger: update(ledger, user_id, edit, actor=actor))

    async def delete(self, user_id: str, *, actor: str | None = None) -> None:
        """The user and all their sessions. Raises NotFound, LastAdmin."""
        await self.get(user_id)
        await self._ledgers.write(lambda ledger: delete(ledger, user_id, actor=actor))


@dataclass(frozen=True, slots=True)
class Edit:
    """Changes that were checked: the address canonical, the roles in order, the password hashed."""

    wanted: Changes
    """The changes; its password still as typed, to be compared with the address."""
    password_hash: str | None
    """The hash of the new password, if there is one."""


def create(
    ledger: Ledger,
    *,
    email: str,
    password_hash: str,
    is_admin: bool,
    roles: tuple[str, ...],
    actor: str | None,
) -> User:
    """A taken address is refused by the database's own constraint, so two at once can't both succeed."""
    user = ledger.store.add_user(
        email=email, password_hash=password_hash, is_admin=is_admin, roles=roles, now=ledger.now
    )
    ledger.note(UserCreated(user=user.id, email=email, admin=is_admin, roles=roles, actor=actor))
    return user


def update(ledger: Ledger, user_id: str, edit: Edit, *, actor: str | None) -> User:
    """Raises NotFound, LastAdmin, InvalidField."""
    before = _locked(ledger, user_id)
    after = _changed(before, edit.wanted)
    _keep_an_admin(ledger, before, after)
    new_password = edit.wanted.password
    if new_password is not None and edit.password_hash is not None:
        refuse_password_like_email(new_password, after.email)
        ledger.store.save_password(user_id, edit.password_hash, now=ledger.now)
    if after == before and new_password is None:
        return before
    after = replace(after, version=before.version + 1)
    ledger.store.save_user(after, now=ledger.now)
    ledger.cut_user(user_id, after.version)
    if new_password is not None or (after.disabled and not before.disabled):
        reason = "disabled" if new_password is None else "password_set"
        # Also one that is over: a refresh that is not committed yet may just have prolonged it.
        ledger.store.end_sessions(user_id, reason=reason, now=ledger.now, unexpired_since=ledger.oldest_token)
    _note_update(ledger, before, after, new_password=new_password is not None, actor=actor)
    return after


def delete(ledger: Ledger, user_id: str, *, actor: str | None) -> None:
    """Raises NotFound, LastAdmin."""
    user = _locked(ledger, user_id)
    _keep_an_admin(ledger, user, None)
    ledger.store.delete_user(user_id)
    ledger.cut_user(user_id, user.version + 1)
    ledger.note(UserDeleted(user=user_id, email=user.email, actor=actor))


def checked_roles(roles: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted, each once. Raises InvalidField."""
    unique = tuple(sorted(set(roles)))
    if len(unique) > MAX_ROLES:
        raise InvalidField(f"A user can have at most {MAX_ROLES} roles.")
    if not all(_ROLE.fullmatch(role) for role in unique):
        raise InvalidField("A role is 1 to 64 of the characters a-z 0-9 . _ : -")
    return unique


def _locked(ledger: Ledger, user_id: str) -> User:
    ledger.store.lock_admins()  # before the row's own lock, always in this order
    account = ledger.store.account(user_id, lock=True)
    if account is None:
        raise NotFound
    return account.user


def _changed(user: User, wanted: Changes) -> User:
    return replace(
        user,
        email=user.email if wanted.email is None else wanted.email,
        is_admin=user.is_admin if wanted.is_admin is None else wanted.is_admin,
        roles=user.roles if wanted.roles is None else wanted.roles,
        disabled=user.disabled if wanted.disabled is None else wanted.disabled,
        service=user.service and wanted.password is None,
    )


def _keep_an_admin(ledger: Ledger, before: User, after: User | None) -> None:
    stays = after is not None and _can_manage(after)
    if _can_manage(before) and not stays and not ledger.store.other_admin_exists(before.id):
        raise LastAdmin


def _can_manage(user: User) -> bool:
    """An admin who can log in."""
    return user.is_admin and not user.disabled and not user.service


def _note_update(ledger: Ledger, before: User, after: User, *, new_password: bool, actor: str | None) -> None:
    was, now = _told(before), _told(after)
    if changed := {name: now[name] for name in now if now[name] != was[name]}:
        ledger.note(UserUpdated(user=after.id, email=after.email, changed=changed, actor=actor))
    if new_password:
        ledger.note(PasswordChanged(user=after.id, actor=actor))


def _told(user: User) -> dict[str, object]:
    """What an event tells of a user."""
    return {"email": user.email, "isAdmin": user.is_admin, "roles": user.roles, "disabled": user.disabled}
