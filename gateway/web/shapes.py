"""Accounts and sessions as JSON: exactly these keys, so that no hash or later column can slip out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.accounts.service import ApiToken, LoggedIn, OpenSession, Page, Tokens, User
from gateway.accounts.trail import Entry


def person(user: User) -> dict[str, Any]:
    """What users see of themselves."""
    return {"id": user.id, "email": user.email, "isAdmin": user.is_admin, "roles": list(user.roles)}


def account(user: User) -> dict[str, Any]:
    """What admins see of anyone."""
    return {
        **person(user),
        "disabled": user.disabled,
        "service": user.service,
        "createdAt": moment(user.created_at),
    }


def accounts_page(page: Page[User]) -> dict[str, Any]:
    return {"items": [account(user) for user in page.items], "nextCursor": page.next_cursor}


def session(found: OpenSession, *, current: str | None) -> dict[str, Any]:
    """What people see of their sessions, and admins of anybody's. `current` is the caller's own."""
    return {
        "id": found.id,
        "createdAt": moment(found.created_at),
        "lastUsedAt": moment(found.last_used_at),
        "expiresAt": moment(found.expires_at),
        "address": found.address,
        "userAgent": found.user_agent,
        "current": found.id == current,
    }


def sessions_page(page: Page[OpenSession], *, current: str | None) -> dict[str, Any]:
    items = [session(found, current=current) for found in page.items]
    return {"items": items, "nextCursor": page.next_cursor}


def audit_event(entry: Entry) -> dict[str, Any]:
    """What admins see of something that happened."""
    return {
        "id": str(entry.seq),
        "time": moment(entry.time),
        "name": entry.name,
        "actor": entry.actor,
        "actorEmail": entry.actor_email,
        "address": entry.address,
        "requestId": entry.request_id,
        "user": entry.user,
        "email": entry.email,
        "details": entry.details,
    }


def events_page(page: Page[Entry]) -> dict[str, Any]:
    return {"items": [audit_event(entry) for entry in page.items], "nextCursor": page.next_cursor}


def api_token(token: ApiToken) -> dict[str, Any]:
    """Without its text, which nobody has but who made it."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": list(token.scopes),
        "methods": None if token.methods is None else list(token.methods),
        "paths": None if token.paths is None else list(token.paths),
        "createdAt": moment(token.created_at),
        "createdBy": token.created_by,
        "expiresAt": None if token.expires_at is None else moment(token.expires_at),
        "lastUsedAt": None if token.last_used_at is None else moment(token.last_used_at),
    }


def tokens(pair: Tokens | LoggedIn) -> dict[str, Any]:
    return {"accessToken": pair.access_token, "refreshToken": pair.refresh_token}


def moment(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC: 2026-11-23T23:37:27.250Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
