"""One HTTP/1.1 connection to a backend.

It writes what it is given and reads what comes back, and tells its *owner*
(the exchange that holds it just now) what it saw. It knows nothing of clients.

    head ──> sized, chunked or until EOF ──> idle ──> head …
      └────> switched: raw bytes until one side ends

A head is cut out of the stream at its first blank line and read whole
(`answer.py`); where the body ends is counted here, so that the end of an answer
is never a parser's guess.

The rule that everything here serves: **bytes of one answer never meet the next
request.** So an answer counts as cleanly ended only if nothing follows it in
the same read, a connection without an owner is closed at the first byte it
receives, and after anything odd the connection is closed rather than understood
(Traefik CVE-2026-71324).
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from gateway.http.chunked import ChunkedBody
from gateway.http.head import Headers
from gateway.proxy.upstream.answer import MAX_HEAD, Answer, Broken, read_answer
from gateway.proxy.upstream.server import Server

LAST_WORDS = 5.0
"""Seconds in which a backend has to take what a tunnel still had for it when the client left."""


class Owner(Protocol):
    """Who holds a connection: told what the backend does, in order, on the event loop."""

    def interim(self, answer: Answer) -> None:
        """A 1xx answer came. Others will follow."""

    def answer_begins(self, answer: Answer, data: bytes) -> None:
        """The response head is here, and `data` of the body, if any came with it."""

    def answer_data(self, data: bytes) -> None:
        """A piece of the response body, or of a tunnel."""

    def answer_ends(self, reusable: bool, trailers: Headers) -> None:
        """The response is complete. The connection is no longer the owner's."""

    def switched(self, answer: Answer, data: bytes) -> None:
        """The backend agreed to the other protocol, and `data` are its first bytes."""

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
    """See the module."""

    __slots__ = (
        "_answered",
        "_asked",
        "_chunks",
        "_head",
        "_home",
        "_left",
        "_owner",
        "_poll",
        "_reading",
        "_received",
        "_switches",
        "_take",
        "_to_head",
        "_transport",
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
        self._take: Callable[[bytes], None] | None = None
        """What is done with the bytes of a body; None while a head is awaited."""
        self._head = b""
        """A head that is not whole yet."""
        self._left = 0
        """Bytes that a Content-Length still owes."""
        self._chunks: ChunkedBody | None = None
        self._received = 0
        """Bytes of heads since the request began."""
        self._asked = False
        """Something of the request was written."""
        self._answered = self._to_head = self._switches = self._until_eof = False
        self._reading = True
        self._poll: Callable[[int], object] | None = None
        """Asks the kernel for something to read, without waiting."""
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

    def begin(self, owner: Owner, to_head: bool, switches: bool = False, request: bytes = b"") -> None:
        """A new request starts, of this owner. `to_head`: its answer has no body. `switches`: it may
        be answered by 101. `request`: all of it, if there is no body to come."""
        self._owner = owner
        self._to_head, self._switches = to_head, switches
        self._asked = request != b""
        self._answered = self._until_eof = False
        self._received = 0
        self.uses += 1
        if request and not self.closed and self._transport is not None:
            self._transport.write(request)

    def write(self, data: bytes) -> None:
        self._asked = True
        if not self.closed and self._transport is not None:
            self._transport.write(data)

    def write_pieces(self, pieces: list[bytes]) -> None:
        """Several pieces as one write, without copying them together."""
        self._asked = True
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

    def end(self) -> None:
        """Close as soon as the backend has taken what was written. The owner hears nothing more."""
        self._owner = None
        self.resume()
        self._leave()
        if self._transport is None:
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()  # a close with something unread is a reset, and loses what we wrote
        else:
            self._transport.close()
        asyncio.get_running_loop().call_later(LAST_WORDS, self.abort)

    def is_stale(self) -> bool:
        """Ask the kernel whether an idle connection has something to read: an EOF or unasked-for bytes.

        The event loop learns of a close only in its next turn; this sees it now.
        """
        if self.closed or self._transport is None:
            return True
        if self._poll is None:
            poller = select.poll()
            poller.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
            self._poll = poller.poll
        return bool(self._poll(0))

    # -- asyncio.Protocol ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._home.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._owner is None:
            if not self.closed:  # else it is on its way out, and what it says goes nowhere
                self.abort()  # nobody asked for these bytes
            return
        try:
            if not self._asked:  # the owner still waits for its client: these belong to somebody before it
                raise Broken("it spoke before it was asked")
            if self._take is not None:
                self._take(data)
            else:
                self._take_heads(data)
        except Broken as error:
            self._break(str(error))

    def eof_received(self) -> None:
        good = self._is_a_good_end()
        self._end("it closed the connection" if good else _NO_ALERT, clean=good)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._end(f"the connection broke: {exc}", clean=False)
        else:
            # Without an EOF before it: so uvloop tells of TLS that ends without its alert, and what it had
            # not read by then is lost. For a tunnel that will do: its protocol says when it is over.
            self._end(_NO_ALERT if self._until_eof else "it closed the connection", clean=self._switches)
        self._take = None  # it may be our own method: undo the circle
        self._transport = None  # asyncio's own cannot be aborted once it is gone (agronholm/anyio#1250)

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.upload_paused()

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner.upload_resumed()

    # -- heads ---------------------------------------------------------------------

    def _take_heads(self, data: bytes) -> None:
        """Interim answers, then the final one. Raises Broken."""
        while data:
            if self._head:
                data, self._head = self._head + data, b""
            end = data.find(b"\r\n\r\n") + 4
            if end == 3:
                self._wait_for_more(data)
                return
            self._received += end
            if self._received > MAX_HEAD:
                raise Broken("more than 64 KiB of response head")
            answer = read_answer(data[:end])
            data = data[end:]
            if answer.status >= 200:
                self._begin(answer, data)
                return
            if answer.status == 101:
                self._switch(answer, data)
                return
            if self._owner is None:
                raise Broken("the request was given up")
            self._owner.interim(answer)

    def _wait_for_more(self, data: bytes) -> None:
        """What can't become a head any more is refused now, not when its time is up."""
        self._head = data
        if not _BEGINNING.match(data) or _BARE_LF.search(data):
            raise Broken("not HTTP/1.1: no response head")
        if self._received + len(data) > MAX_HEAD:
            raise Broken("more than 64 KiB of response head")

    def _begin(self, answer: Answer, data: bytes) -> None:
        owner = self._asker()
        self._answered = True
        self.keep_alive = answer.keep_alive
        if self._to_head or answer.bodiless:
            owner.answer_begins(answer, b"")
            self._settle(not data)
        elif answer.length is None:
            self._begin_unsized(owner, answer, data)
        elif len(data) < answer.length:
            self._left = answer.length - len(data)
            self._take = self._take_sized
            owner.answer_begins(answer, data)
        else:
            clean = len(data) == answer.length
            owner.answer_begins(answer, data if clean else data[: answer.length])
            self._settle(clean)

    def _begin_unsized(self, owner: Owner, answer: Answer, data: bytes) -> None:
        if answer.chunked:
            self._chunks = ChunkedBody()
            self._take = self._take_chunks
            owner.answer_begins(answer, b"")
            self._take_chunks(data)
        else:
            self._until_eof, self._switches = True, False
            self._take = self._pass_on
            owner.answer_begins(answer, data)

    def _switch(self, answer: Answer, data: bytes) -> None:
        owner = self._asker()
        if not self._switches:
            raise Broken("it switches protocols unasked")
        self._answered = self._until_eof = True
        self._take = self._pass_on
        owner.switched(answer, data)

    # -- bodies --------------------------------------------------------------------

    def _take_sized(self, data: bytes) -> None:
        left = self._left - len(data)
        self._left = left
        if left > 0:
            self._asker().answer_data(data)
        else:
            self._asker().answer_data(data if left == 0 else data[:left])
            self._settle(left == 0)

    def _take_chunks(self, data: bytes) -> None:
        chunks = self._chunks
        assert chunks is not None  # noqa: S101 - made with the head
        body, rest = chunks.feed(data)
        if len(data) > _MUCH and not chunks.done:
            self._take_turns()
        if body:
            self._asker().answer_data(body)
        if chunks.broken is not None:
            raise Broken(f"not HTTP/1.1: {chunks.broken}")
        if chunks.done:
            self._settle(not rest, trailers=chunks.trailers)

    def _take_turns(self) -> None:
        """Let everyone else have theirs: uvloop may read 32 times in one, and small chunks take time."""
        if self._reading and self._transport is not None:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._my_turn)

    def _my_turn(self) -> None:
        if self._reading and self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def _pass_on(self, data: bytes) -> None:
        self._asker().answer_data(data)

    # ------------------------------------------------------------------------------

    def _asker(self) -> Owner:
        """The owner; it may have left in the middle of a read."""
        if self._owner is None:
            raise Broken("the request was given up")
        return self._owner

    def _settle(self, clean: bool, trailers: Headers | None = None) -> None:
        """The answer is complete. `clean`: nothing came behind it."""
        owner, self._owner = self._owner, None
        self._take = self._chunks = None
        # Never used again after HEAD: some backends send a body all the same, a moment later, which would
        # answer somebody else's request (Traefik CVE-2026-71324).
        reusable = clean and self.keep_alive is not None and not self._to_head and self._has_said_everything()
        if owner is not None:
            owner.answer_ends(reusable, trailers or [])
        if not clean:
            self.abort()

    def _has_said_everything(self) -> bool:
        """An answer can be complete while our request is still on its way out."""
        return not self.closed and self._transport is not None and not self._transport.get_write_buffer_size()

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
            owner.answer_ends(False, [])
        else:
            stale = self.uses > 1 and not self._answered and not self._received and not self._head
            owner.lost(why, stale=stale)

    def _is_a_good_end(self) -> bool:
        """TLS is ended by an alert; without it anybody may have cut the connection (RFC 9112 §9.8)."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        if tls is None or self._switches:
            return True
        try:
            return bool(tls.read(1) == b"")
        except ssl.SSLError:
            return False

    def _leave(self) -> None:
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._home.gone(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "busy" if self._owner else "idle"
        return f"<Connection to {self.address}, {state}, {self.uses} requests>"


_NO_ALERT = "it closed the connection without TLS's closing alert"
_MUCH = 64 * 1024
"""Bytes of a chunked body that are read at once before others have their turn."""
_BEGINNING = re.compile(
    rb"HTTP/1\.[01] |" + rb"|".join(re.escape(b"HTTP/1.1 "[:n]) + rb"\Z" for n in range(9)) + rb"|HTTP/1\.0\Z"
)
_BARE_LF = re.compile(rb"(?<!\r)\n")
