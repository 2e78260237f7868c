"""Accounts as JSON: exactly these keys, so that no hash or later column can slip out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.accounts.service import LoggedIn, Page, Tokens, User


def person(user: User) -> dict[str, Any]:
    """What users see of themselves."""
    return {"id": user.id, "email": user.email, "isAdmin": user.is_admin, "roles": list(user.roles)}


def account(user: User) -> dict[str, Any]:
    """What admins see of anyone."""
    return {**person(user), "disabled": user.disabled, "createdAt": moment(user.created_at)}


def accounts_page(page: Page) -> dict[str, Any]:
    return {"items": [account(user) for user in page.items], "nextCursor": page.next_cursor}


def tokens(pair: Tokens | LoggedIn) -> dict[str, Any]:
    return {"accessToken": pair.access_token, "refreshToken": pair.refresh_token}


def moment(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC: 2026-11-23T23:37:27.250Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
