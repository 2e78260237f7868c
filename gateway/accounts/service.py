"""Accounts, as the rest of the gateway sees them: one name for each family of use cases.

    sessions   logging in, refreshing, logging out; lists of them, and ending them
    own        what people change about their own account
    users      what admins do to accounts
    regulation what limits on logins have to know, and clearing them
    transfer   many accounts in and out, with their hashes
    api_tokens credentials for programs
    trail      what happened to all of them

Each family has a file of its own, with the rules that hold inside its transactions
below its use cases (those of sessions are in `rotation`). What they share is made
here once: ledgers over the database, the threads that hash, the rules for new passwords.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from gateway.accounts.api_tokens import ApiTokens, TokenRules
from gateway.accounts.database import Database
from gateway.accounts.emails import canonical_email
from gateway.accounts.ledger import Ledger, Ledgers
from gateway.accounts.own import Own
from gateway.accounts.password_rules import PasswordRules
from gateway.accounts.passwords import Passwords
from gateway.accounts.regulation import Regulation
from gateway.accounts.rotation import SessionRules
from gateway.accounts.sessions import Sessions
from gateway.accounts.trail import Trail
from gateway.accounts.transfer import Transfer
from gateway.accounts.users import Users
from gateway.accounts.values import (
    ApiToken,
    Changes,
    Client,
    LoggedIn,
    NewToken,
    OpenSession,
    Page,
    Tokens,
    User,
)
from gateway.identity.revocation import Cut
from gateway.identity.tokens import AccessTokens, RefreshTokens
from gateway.telemetry.audit import AuditTrail, Event

__all__ = [
    "Accounts",
    "ApiToken",
    "Changes",
    "Client",
    "LoggedIn",
    "NewToken",
    "OpenSession",
    "Page",
    "SessionRules",
    "TokenRules",
    "Tokens",
    "User",
    "canonical_email",
]


NOTE_DEADLINE_S: Final = 5.0
"""What is noted is done already, and somebody waits for the prompt."""


class Accounts:
    """Everything that can happen to users and sessions. Raises `gateway.errors` only.

    `access_life` is how many seconds an access token may be accepted at the most:
    its ttl and the leeway. `on_cut` and `audit` are told on the event loop after
    the commit.
    """

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        access: AccessTokens,
        refresh: RefreshTokens,
        session_rules: SessionRules,
        access_life: float,
        on_cut: Callable[[Cut], None],
        audit: AuditTrail,
        password_min_length: int = 10,
        token_rules: TokenRules | None = None,
    ) -> None:
        ledgers = Ledgers(database, access_life=access_life, on_cut=on_cut, publish=audit.publish)
        self._ledgers = ledgers
        rules = PasswordRules(min_length=password_min_length)
        self.sessions = Sessions(
            ledgers,
            passwords,
            access=access,
            refresh=refresh,
            session_rules=session_rules,
            audit=audit.record,
        )
        self.own = Own(ledgers, passwords, rules)
        self.users = Users(ledgers, passwords, rules)
        self.regulation = Regulation(ledgers)
        self.transfer = Transfer(ledgers)
        self.trail = Trail(database)
        self.api_tokens = ApiTokens(ledgers, database, token_rules or TokenRules())

    async def note(self, events: Iterable[Event]) -> None:
        """Into the trail with what was done outside of the database."""

        def note(ledger: Ledger) -> None:
            for event in events:
                ledger.note(event)

        await self._ledgers.write(note, deadline=NOTE_DEADLINE_S)
