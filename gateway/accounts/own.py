"""What people change about their own account, by proving that they know its password.

Changing one's own password ends every *other* session: each is cut off by its own
id. The user's version stays, as raising it would kill the caller's own access
token too, and nothing that a token says has changed.

Changing one's own address leaves the sessions and does raise the version: the access
tokens that say the old address are dead, the caller's too, and a refresh gives one that
says the new. No mail is sent, so nobody has proved that the new address is theirs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from gateway.accounts.emails import canonical_email
from gateway.accounts.ledger import Ledger, Ledgers
from gateway.accounts.password_rules import PasswordRules, refuse_password_like_email
from gateway.accounts.passwords import TRIES, Passwords
from gateway.accounts.rotation import is_alive
from gateway.accounts.store import Account
from gateway.accounts.values import User
from gateway.errors import InvalidCredentials, InvalidToken, Unavailable
from gateway.identity.principal import Principal
from gateway.telemetry.audit import PasswordChanged, UserUpdated


class Own:
    """The use cases of one's own account."""

    def __init__(self, ledgers: Ledgers, passwords: Passwords, rules: PasswordRules) -> None:
        self._ledgers = ledgers
        self._passwords = passwords
        self._rules = rules

    async def change_password(self, principal: Principal, current: str, new: str) -> None:
        """Raises InvalidCredentials (`current` is wrong), InvalidField (`new` is unfit), InvalidToken."""
        for _ in range(TRIES):
            account = await self._proved(principal, current)
            self._rules.refuse_unfit(new, account.user.email)
            fresh = await self._passwords.hash(new)
            if await self._ledgers.write(partial(_replace, proved=account, fresh=fresh, principal=principal)):
                return
        raise Unavailable(retry_after=1)

    async def change_email(self, principal: Principal, current: str, email: str) -> User:
        """Who they are now. Raises InvalidCredentials, InvalidField, EmailTaken, InvalidToken."""
        email = canonical_email(email)
        for _ in range(TRIES):
            account = await self._proved(principal, current)
            refuse_password_like_email(current, email)
            moving = partial(_move, proved=account, email=email, principal=principal)
            if moved := await self._ledgers.write(moving):
                return moved
        raise Unavailable(retry_after=1)

    async def _proved(self, principal: Principal, password: str) -> Account:
        """The account, if that is its password. Raises InvalidCredentials."""
        account = await self._ledgers.read(lambda store: store.account(principal.id))
        found = await self._passwords.verify(password, account.password_hash if account else None)
        if account is None or not found.right:
            raise InvalidCredentials
        return account


def _replace(ledger: Ledger, *, proved: Account, fresh: str, principal: Principal) -> bool:
    """False if the password was replaced since it was proved."""
    if _present(ledger, principal).password_hash != proved.password_hash:
        return False
    ledger.store.save_password(principal.id, fresh, now=ledger.now)
    for ended in ledger.store.end_sessions(
        principal.id,
        reason="password_changed",
        now=ledger.now,
        unexpired_since=ledger.oldest_token,
        but=principal.session,
    ):
        ledger.cut_session(ended)
    ledger.note(PasswordChanged(user=principal.id, actor=principal.id))
    return True


def _move(ledger: Ledger, *, proved: Account, email: str, principal: Principal) -> User | None:
    """None if the password was replaced since it was proved."""
    account = _present(ledger, principal)
    if account.password_hash != proved.password_hash:
        return None
    if account.user.email == email:
        return account.user
    moved = replace(account.user, email=email, version=account.user.version + 1)
    ledger.store.save_user(moved, now=ledger.now)
    ledger.cut_user(moved.id, moved.version)
    ledger.note(UserUpdated(user=moved.id, email=email, changed={"email": email}, actor=moved.id))
    return moved


def _present(ledger: Ledger, principal: Principal) -> Account:
    """The account as it is now, locked. Raises InvalidToken if it or the session is over meanwhile."""
    account = ledger.store.account(principal.id, lock=True)
    session = ledger.store.session(principal.session)
    if account is None or session is None or not is_alive(session, account.user, ledger.now):
        raise InvalidToken
    return account
