"""One HTTP/1.1 connection to a backend.

It writes what it is given and parses what comes back, and tells its *owner*
(the exchange that holds it just now) what it saw. It knows nothing of clients.

The rule that everything here serves: **bytes of one answer never meet the next
request.** So an answer counts as cleanly ended only if the parser consumed the
whole read and nothing follows it, a connection without an owner is closed at
the first byte it receives, and after anything odd the connection is closed
rather than understood (Traefik CVE-2026-71324).

Memory is bounded by one counter: bytes received since the last byte of body.
It covers an endless head, a flood of interim answers, endless chunk extensions
and endless trailers alike.
"""

from __future__ import annotations

import asyncio
import select
from typing import Protocol, cast

import httptools

from gateway.http.head import Headers
from gateway.proxy.upstream.answer import LINE_OVERHEAD, MAX_HEAD, Answer, Broken, read_answer
from gateway.proxy.upstream.server import Server


class Owner(Protocol):
    """Who holds a connection: told what the backend does, in order, on the event loop."""

    def interim(self, status: int, headers: Headers) -> None:
        """A 1xx answer came. Others will follow."""

    def answer_begins(self, answer: Answer) -> None:
        """The response head is here."""

    def answer_data(self, data: bytes) -> None:
        """A piece of the response body."""

    def answer_ends(self, reusable: bool) -> None:
        """The response is complete. The connection is no longer the owner's."""

    def lost(self, why: str, *, stale: bool) -> None:
        """It broke. `stale`: the connection had been used before and not one byte came back."""

    def upload_paused(self) -> None:
        """The backend reads more slowly than we write: stop feeding it."""

    def upload_resumed(self) -> None:
        """Go on."""


class Home(Protocol):
    """Where connections live: the pool keeps count of them."""

    def opened(self, connection: Connection) -> None:
        """The socket is connected."""

    def gone(self, connection: Connection) -> None:
        """The socket is closed, or will be at once. Called exactly once for each `opened`."""


class Connection(asyncio.Protocol):
    """See the module. Its parser calls the `on_…` methods."""

    __slots__ = (
        "_answered",
        "_complete",
        "_home",
        "_lines",
        "_owner",
        "_parser",
        "_reading",
        "_to_head",
        "_transport",
        "_unsettled",
        "_until_eof",
        "address",
        "closed",
        "expires",
        "keep_alive",
        "server",
        "uses",
    )

    def __init__(self, home: Home, server: Server) -> None:
        self._home = home
        self._owner: Owner | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._lines: Headers = []
        self._unsettled = 0
        self._answered = self._complete = self._to_head = self._until_eof = False
        self._reading = True
        self.server = server
        self.address = str(server)
        """Where it leads to, for the log."""
        self.uses = 0
        """Requests begun on it."""
        self.keep_alive: float | None = None
        """Seconds the backend will wait for another request, after its last answer; None: it won't."""
        self.expires = 0.0
        """When the pool closes it for being idle. The pool's field."""
        self.closed = False
        """No more requests: closed, or closing."""

    # -- the owner's side ----------------------------------------------------------

    def begin(self, owner: Owner, *, to_head: bool) -> None:
        """A new request starts, of this owner. `to_head`: its answer has no body."""
        self._owner = owner
        self._to_head = to_head
        self._answered = self._complete = self._until_eof = False
        self._unsettled = 0
        self._lines = []
        self.uses += 1

    def write(self, data: bytes) -> None:
        if not self.closed and self._transport is not None:
            self._transport.write(data)

    def write_pieces(self, pieces: list[bytes]) -> None:
        """Several pieces as one write, without copying them together."""
        if not self.closed and self._transport is not None:
            self._transport.writelines(pieces)

    def pause(self) -> None:
        """Stop reading: whoever takes the answer is slower than the backend."""
        if self._reading and self._transport is not None and not self.closed:
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            if not self.closed:
                self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once, whatever was buffered. The owner hears nothing more."""
        self._owner = None
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    def is_stale(self) -> bool:
        """Ask the kernel whether an idle connection has something to read: an EOF or unasked-for bytes.

        The event loop learns of a close only in its next turn; this sees it now.
        """
        if self.closed or self._transport is None:
            return True
        poller = select.poll()
        poller.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poller.poll(0))

    # -- asyncio.Protocol ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._home.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._owner is None:
            self.abort()  # nobody asked for these bytes
            return
        self._unsettled += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(error)
            return
        if self._complete:
            self._settle()
        elif self._unsettled > MAX_HEAD:
            self._break("more than 64 KiB of head, chunk extensions or trailers")

    def eof_received(self) -> None:
        self._end("it closed the connection", clean=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc else "it closed the connection", clean=exc is None)
        # The parser holds our methods and we hold the parser: undo the circle.
        del self._parser

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.upload_paused()

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner.upload_resumed()

    # -- the parser's side ---------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            raise Broken("bytes after the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        lines, self._lines = self._lines, []  # what comes after the head are trailers: collected, and dropped
        status = self._parser.get_status_code()
        if self._unsettled > MAX_HEAD:
            self._weigh(lines)
        if 100 <= status < 200 and status != 101:
            self._asker().interim(status, lines)
            return
        answer = read_answer(status, self._parser.get_http_version(), lines, to_head=self._to_head)
        self._answered = True
        self._until_eof = answer.until_eof
        self.keep_alive = answer.keep_alive
        self._complete = self._to_head
        self._asker().answer_begins(answer)

    def on_chunk_header(self) -> None:
        if self._complete:
            raise Broken("a body after the answer to HEAD")

    def on_body(self, data: bytes) -> None:
        if self._complete:
            raise Broken("a body after the answer to HEAD")
        self._unsettled = 0
        self._asker().answer_data(data)

    def on_message_complete(self) -> None:
        self._complete = self._answered  # not after an interim answer

    # ------------------------------------------------------------------------------

    def _asker(self) -> Owner:
        """The owner; it may have left in the middle of a read."""
        if self._owner is None:
            raise Broken("the request was given up")
        return self._owner

    @staticmethod
    def _weigh(lines: Headers) -> None:
        """The read that ended the head was long: was the head, or is it the body behind it?"""
        if sum(len(name) + len(value) + LINE_OVERHEAD for name, value in lines) > MAX_HEAD:
            raise Broken("a response head of more than 64 KiB")

    def _settle(self) -> None:
        """The answer is complete and the parser took the whole read."""
        owner, self._owner = self._owner, None
        # Never used again after HEAD: some backends send a body all the same, a moment later, which would
        # answer somebody else's request (Traefik CVE-2026-71324).
        clean = self.keep_alive is not None and not self._to_head and self._has_said_everything()
        if owner is not None:
            owner.answer_ends(clean)

    def _has_said_everything(self) -> bool:
        """An answer can be complete while our request is still on its way out."""
        return not self.closed and self._transport is not None and not self._transport.get_write_buffer_size()

    def _refuse(self, error: Exception) -> None:
        """The parser, or one of our methods that it called, wants no more of this."""
        if self._complete:  # the answer itself was fine; only what follows it is not
            owner, self._owner = self._owner, None
            if owner is not None:
                owner.answer_ends(False)
            self.abort()
        elif isinstance(error.__context__, Broken):
            self._break(str(error.__context__))
        else:
            self._break(f"not HTTP/1.1: {error}")

    def _break(self, why: str) -> None:
        owner = self._owner
        self.abort()
        if owner is not None:
            owner.lost(why, stale=False)

    def _end(self, why: str, *, clean: bool) -> None:
        """The peer closed. A body without a length ends here, if it closed in good order."""
        owner, self._owner = self._owner, None
        self._leave()
        if owner is None:
            return
        if self._until_eof and clean:
            owner.answer_ends(False)
        else:
            stale = self.uses > 1 and not self._answered and self._unsettled == 0
            owner.lost(why, stale=stale)

    def _leave(self) -> None:
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._home.gone(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "busy" if self._owner else "idle"
        return f"<Connection to {self.address}, {state}, {self.uses} requests>"
