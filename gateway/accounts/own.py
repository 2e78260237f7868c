"""What people change about their own account, by proving that they know its password.

Changing one's own password ends every *other* session: each is cut off by its own
id. The user's version stays, as raising it would kill the caller's own access
token too, and nothing that a token says has changed.
"""

from __future__ import annotations

from functools import partial

from gateway.accounts.ledger import Ledger, Ledgers
from gateway.accounts.password_rules import PasswordRules
from gateway.accounts.passwords import TRIES, Passwords
from gateway.accounts.rotation import is_alive
from gateway.accounts.store import Account
from gateway.errors import InvalidCredentials, InvalidToken, Unavailable
from gateway.identity.principal import Principal
from gateway.telemetry.audit import PasswordChanged


class Own:
    """The use cases of one's own account."""

    def __init__(self, ledgers: Ledgers, passwords: Passwords, rules: PasswordRules) -> None:
        self._ledgers = ledgers
        self._passwords = passwords
        self._rules = rules

    async def change_password(self, principal: Principal, current: str, new: str) -> None:
        """Raises InvalidCredentials (`current` is wrong), InvalidField (`new` is unfit), InvalidToken."""
        for _ in range(TRIES):
            account = await self._ledgers.read(lambda store: store.account(principal.id))
            found = await self._passwords.verify(current, account.password_hash if account else None)
            if account is None or not found.right:
                raise InvalidCredentials
            self._rules.refuse_unfit(new, account.user.email)
            fresh = await self._passwords.hash(new)
            if await self._ledgers.write(partial(_replace, proved=account, fresh=fresh, principal=principal)):
                return
        raise Unavailable(retry_after=1)


def _replace(ledger: Ledger, *, proved: Account, fresh: str, principal: Principal) -> bool:
    """False if the password was replaced since it was proved."""
    account = ledger.store.account(principal.id, lock=True)
    session = ledger.store.session(principal.session)
    if account is None or session is None or not is_alive(session, account.user, ledger.now):
        raise InvalidToken
    if account.password_hash != proved.password_hash:
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
