"""The use cases of accounts. (Signatures first; the theory of rotation follows with the code.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway.accounts.emails import canonical_email
from gateway.accounts.values import Changes, Client, LoggedIn, Page, Tokens, User
from gateway.identity.principal import Principal

__all__ = ["Accounts", "Changes", "Client", "LoggedIn", "Page", "Tokens", "User", "canonical_email"]


class Accounts:
    """Everything that can happen to users and sessions. Raises gateway.errors only."""

    def __init__(
        self,
        *,
        database: Any,             # gateway.accounts.database.Database(url, clock=None)
        passwords: Any,            # gateway.accounts.passwords.Passwords(cost=12)
        access: Any,
        refresh: Any,
        refresh_ttl: float,
        session_max: float,
        reuse_grace: float,
        access_life: float,
        password_min_length: int = 10,
        on_cut: Callable[[Any], None],
        audit: Callable[[Any], None],
    ) -> None: ...

    async def log_in(self, email: str, password: str, client: Client) -> LoggedIn: ...          # InvalidCredentials, Overloaded, Unavailable, GatewayTimeout
    async def refresh(self, refresh_token: str, client: Client) -> Tokens: ...                  # InvalidRefreshToken
    async def log_out(self, refresh_token: str, client: Client | None = None) -> None: ...      # InvalidRefreshToken
    async def change_password(self, principal: Principal, current: str, new: str) -> None: ...  # InvalidCredentials, InvalidField, InvalidToken
    async def list_users(self, *, query: str = "", limit: int = 50, cursor: str | None = None) -> Page: ...
    async def create_user(self, email: str, password: str, *, is_admin: bool = False, roles: tuple[str, ...] = (), actor: str = "") -> User: ...  # EmailTaken, InvalidField
    async def get_user(self, user_id: str) -> User: ...                                         # NotFound
    async def find_user(self, email: str) -> User: ...                                          # NotFound (for the command line)
    async def update_user(self, user_id: str, changes: Changes, *, actor: str = "") -> User: ...  # NotFound, EmailTaken, LastAdmin, InvalidField
    async def delete_user(self, user_id: str, *, actor: str = "") -> None: ...                  # NotFound, LastAdmin
