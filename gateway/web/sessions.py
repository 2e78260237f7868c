"""What /auth says over HTTP about sessions that are open: one's own, and to admins anybody's."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.accounts.service import Accounts
from gateway.web.answers import json_answer, no_content
from gateway.web.body import read_nothing
from gateway.web.fields import read_query, text, whole_number
from gateway.web.shapes import sessions_page
from gateway.web.visitors import Visitors

PAGE_SIZE = 50
"""Sessions on a page when the caller does not say."""
LARGEST_PAGE = 200


class Sessions:
    """Each endpoint first asks who is calling, before it reads anything else."""

    def __init__(self, accounts: Accounts, visitors: Visitors) -> None:
        self._sessions = accounts.sessions
        self._visitors = visitors

    async def list(self, request: Request) -> Response:
        user = await self._visitors.user(request)
        return await self._page(request, user.id)

    async def end(self, request: Request) -> Response:
        user = await self._visitors.user(request)
        read_query(request)
        await self._sessions.end(request.path_params["id"], user_id=user.id, actor=user.id)
        return no_content()

    async def end_all(self, request: Request) -> Response:
        user = await self._visitors.user(request)
        await read_nothing(request)
        await self._sessions.end_all(user.id, actor=user.id)
        return no_content()

    # for admins

    async def list_of(self, request: Request) -> Response:
        await self._visitors.admin(request)
        return await self._page(request, request.path_params["id"])

    async def end_of(self, request: Request) -> Response:
        admin = await self._visitors.admin(request)
        read_query(request)
        whose, which = request.path_params["id"], request.path_params["session"]
        await self._sessions.end(which, user_id=whose, actor=admin.id)
        return no_content()

    async def end_all_of(self, request: Request) -> Response:
        admin = await self._visitors.admin(request)
        read_query(request)
        await self._sessions.end_all(request.path_params["id"], actor=admin.id)
        return no_content()

    async def _page(self, request: Request, user_id: str) -> Response:
        asked = read_query(request, {"limit": whole_number(1, LARGEST_PAGE), "cursor": text})
        page = await self._sessions.list(user_id, **{"limit": PAGE_SIZE, **asked})
        return json_answer(sessions_page(page, current=(await self._visitors.principal(request)).session))
