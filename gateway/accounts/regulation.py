"""What limits on logins have to know of accounts, and how an admin clears them.

The counters themselves are in memory or in Redis, under names that nobody can list. So an
account has a number, its *epoch*, that is part of the names of all its counters. Raising it
clears them, in every process and whatever they are kept in, from the next attempt on: each
attempt asks for it anyway, together with whether the account has logged in from that network
lately. That is one query, and the same one for names that no account has.
"""

from __future__ import annotations

from ipaddress import ip_address

from gateway.accounts.emails import canonical_or_empty
from gateway.accounts.ids import is_id
from gateway.accounts.ledger import Ledger, Ledgers
from gateway.accounts.store import NETWORK_KNOWN_S
from gateway.accounts.values import Standing, User
from gateway.errors import NotFound
from gateway.ratelimit import network_of
from gateway.telemetry.audit import LimitsCleared


class Regulation:
    """The use cases of limits on logins."""

    def __init__(self, ledgers: Ledgers) -> None:
        self._ledgers = ledgers

    async def standing(self, email: str, network: str) -> Standing:
        """Of the account with this address, in any spelling, as seen from `network`."""
        address = canonical_or_empty(email)
        return await self._ledgers.read_at(
            lambda store, now: store.standing(address, network, known_since=now - NETWORK_KNOWN_S)
        )

    async def clear(self, user_id: str, *, actor: str | None = None) -> User:
        """Forget all attempts on this account. Raises NotFound."""
        return await self._ledgers.write(lambda ledger: _clear(ledger, user_id, actor))


def network_named(address: str) -> str:
    """The network of a client's address as a session has it: what limits count by."""
    try:
        return network_of(ip_address(address))
    except ValueError:
        return address


def _clear(ledger: Ledger, user_id: str, actor: str | None) -> User:
    account = ledger.store.account(user_id, lock=True) if is_id(user_id) else None
    if account is None:
        raise NotFound("There is no such user.")
    ledger.store.clear_limits(user_id)
    ledger.note(LimitsCleared(user=user_id, email=account.user.email, actor=actor))
    return account.user
