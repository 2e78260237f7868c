"""What /auth/audit says over HTTP: admins read what happened."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.accounts.service import Accounts
from gateway.accounts.trail import MAX_PAGE, Wanted
from gateway.web.answers import json_answer
from gateway.web.fields import moment, read_query, text, whole_number, words
from gateway.web.shapes import events_page
from gateway.web.visitors import Visitors

PAGE_SIZE = 50
"""Events on a page when the caller does not say."""

_FILTERS = {
    "name": words,
    "user": text,
    "actor": text,
    "address": text,
    "since": moment,
    "until": moment,
    "limit": whole_number(1, MAX_PAGE),
    "cursor": text,
}


class Trail:
    """The one endpoint for admins. It first asks who is calling, before it reads anything else."""

    def __init__(self, accounts: Accounts, visitors: Visitors) -> None:
        self._accounts = accounts
        self._visitors = visitors

    async def list(self, request: Request) -> Response:
        await self._visitors.admin(request)
        asked = read_query(request, _FILTERS)
        limit, cursor = asked.pop("limit", PAGE_SIZE), asked.pop("cursor", None)
        names = asked.pop("name", None)
        page = await self._accounts.trail.page(Wanted(names=names, **asked), limit=limit, cursor=cursor)
        return json_answer(events_page(page))
