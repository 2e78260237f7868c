"""Pages of a long list: as many items as asked for, and a cursor if there are more.

A cursor is the id of a page's last item. Ids sort in the order of creation, so a
list may grow and shrink between two pages, and nothing is shown twice or left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from gateway.accounts.ids import is_id
from gateway.accounts.values import Page
from gateway.errors import InvalidField

MAX_PAGE: Final = 200
"""Items in one page."""


class Identified(Protocol):
    """What can be listed."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


def check_page(limit: int, cursor: str | None) -> None:
    """Raises InvalidField."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidField(f"limit must be from 1 to {MAX_PAGE}.")
    if cursor is not None and not is_id(cursor):
        raise InvalidField("cursor must be the nextCursor of an earlier page.")


def page_of(found: Sequence[T], limit: int) -> Page[T]:
    """`found` holds one more than `limit` if there is a next page."""
    items = tuple(found[:limit])
    return Page(items, items[-1].id if len(found) > limit else None)
