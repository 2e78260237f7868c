"""The life of the process: listen, serve, drain, stop.

    bind ── ops listener up ── start() ── listeners up ── on_ready ─┐
                                                                    │ SIGTERM, SIGINT
      ┌── requests finish ── listeners down ── drain_delay ── on_draining
      └── the rest is cut ── stop() ── ops listener down ── exit 0

The ops listener answers before the start and to the very end, so that a
`/readyz` can say "starting" and "draining". A second SIGINT hurries everything.
SIGHUP calls `reload`, one at a time, between `on_ready` and the end; and every two
seconds there is a `look` at whether something should be reloaded without one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.server.listening import Listening
from gateway.server.sockets import CannotListen, Listen, Listeners, open_listeners, raise_open_files
from gateway.server.terms import Limits, Refusal, Terms, Timeouts, ignore

if TYPE_CHECKING:
    from gateway.server.certificates import Certificates
    from gateway.server.cycle import ASGIApp
    from gateway.server.passage import Lane

log = logging.getLogger("gateway.server")

LOOK_S = 2.0
"""Seconds between two looks at what may have changed."""
_OPS_DRAIN = 1.0
"""Seconds for a probe that is being answered when everything else is over."""
_COLLECT_AFTER = 20_000
"""Containers made and not freed before the youngest generation is collected; CPython says 700."""
_FILES_BESIDES = 1024
"""Open files that are no client's connection: some hundred to the backends, the database, the log."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What `on_ready` is told."""

    listen: list[str]
    """The real addresses, like `127.0.0.1:8080` or `unix:/run/gateway.sock`."""
    ops: list[str]
    """The ops listener's; empty without one."""


async def _nothing() -> None:
    return None


def serve(
    asgi: ASGIApp,
    *,
    lane: Lane | None = None,
    listen: Sequence[Listen],
    ops: ASGIApp | None = None,
    ops_listen: Sequence[Listen] = (),
    certificates: Certificates | None = None,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    start: Callable[[], Awaitable[None]] = _nothing,
    stop: Callable[[], Awaitable[None]] = _nothing,
    reload: Callable[[], Awaitable[object]] = _nothing,
    look: Callable[[], Awaitable[object]] = _nothing,
    on_ready: Callable[[Ready], None] = lambda _: None,
    on_draining: Callable[[], None] = lambda: None,
    on_refused: Callable[[Refusal], None] = ignore,
    complain: Callable[[str], None] = log.error,
) -> int:
    """Serve until a signal ends it. The exit code: 0, or 1 after one sentence to `complain`.

    `lane` takes the requests whose path `asgi` does not own; without it `asgi` answers them all.
    `start` runs once before the first request and `stop` after the last; an
    exception from `start` ends everything with its text as the sentence. With
    `certificates`, what listens on a host and port speaks TLS; unix sockets and
    `ops` never do. `look` says whether it reloaded.
    """
    terms = Terms(limits or Limits(), timeouts or Timeouts(), on_refused)
    try:
        public = open_listeners(listen)
        try:
            behind = open_listeners(ops_listen if ops is not None else ())
        except CannotListen:
            public.close()
            raise
    except CannotListen as error:
        complain(str(error))
        return 1
    _check_open_files(terms.limits)
    hooks = _Hooks(start, stop, reload, look, on_ready, on_draining, complain)
    process = _Process(asgi, lane, ops, public, behind, terms, certificates, hooks)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(process.run())
    finally:
        public.close()
        behind.close()


@dataclass(frozen=True, slots=True)
class _Hooks:
    """What `serve` was told to call."""

    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]
    reload: Callable[[], Awaitable[object]]
    look: Callable[[], Awaitable[object]]
    on_ready: Callable[[Ready], None]
    on_draining: Callable[[], None]
    complain: Callable[[str], None]


class _Process:
    """One run of the gateway, from bound sockets to the exit code."""

    def __init__(
        self,
        asgi: ASGIApp,
        lane: Lane | None,
        ops: ASGIApp | None,
        public: Listeners,
        behind: Listeners,
        terms: Terms,
        certificates: Certificates | None,
        hooks: _Hooks,
    ) -> None:
        self._terms, self._certificates, self._hooks = terms, certificates, hooks
        self._sockets = {"public": public, "ops": behind}
        self._public = Listening(
            asgi, terms, lane=lane, drain=terms.timeouts.drain, certificates=certificates
        )
        # Probes and scrapes are no clients: their refusals are nobody's decision lines.
        self._ops = Listening(ops or asgi, replace(terms, on_refused=ignore), drain=_OPS_DRAIN)
        self._leaving = asyncio.Event()
        self._hurry = asyncio.Event()
        self._hangup = asyncio.Event()

    async def run(self) -> int:
        self._obey_signals()
        await self._ops.startup(sockets=self._sockets["ops"].sockets)
        try:
            try:
                if not await self._before_leaving(self._hooks.start()):
                    log.info("stopped before it was ready")
                    return 0
            except Exception as error:
                log.debug("the start failed", exc_info=error)
                self._hooks.complain(f"The gateway cannot start: {error}")
                return 1
            await self._public.startup(sockets=self._sockets["public"].sockets)
            _settle_memory()
            self._hooks.on_ready(Ready(self._sockets["public"].addresses, self._sockets["ops"].addresses))
            await self._until_leaving()
            self._hooks.on_draining()
            await self._drain()
            await self._hooks.stop()
            log.info("stopped")
            return 0
        finally:
            await self._ops.end(self._sockets["ops"].sockets)

    async def _until_leaving(self) -> None:
        beside = [asyncio.create_task(each) for each in (self._reload_when_told(), self._look_around())]
        if self._certificates is not None:
            beside.append(asyncio.create_task(self._certificates.watch()))
        try:
            await self._leaving.wait()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _reload_when_told(self) -> None:
        """One at a time. However many signals come during one, one more follows it."""
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            if self._certificates is not None:
                self._certificates.look(patient=False)
            await self._try(self._hooks.reload)
            self._public.forget()

    async def _look_around(self) -> None:
        """Beside the signal, which is obeyed also while a file system lets a look wait."""
        while True:
            await asyncio.sleep(LOOK_S)
            if await self._try(self._hooks.look):
                self._public.forget()

    async def _try(self, hook: Callable[[], Awaitable[object]]) -> object:
        try:
            return await hook()
        except Exception as error:
            log.error("the reload failed; everything stays as it was", exc_info=error)
            return True

    async def _before_leaving(self, start: Awaitable[None]) -> bool:
        """Whether the start came to its end before a signal did."""
        starting = asyncio.ensure_future(start)
        leaving = asyncio.ensure_future(self._leaving.wait())
        await asyncio.wait({starting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        await asyncio.wait({starting})
        return False

    async def _drain(self) -> None:
        if self._terms.timeouts.drain_delay:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), self._terms.timeouts.drain_delay)
        log.info("draining", extra={"connections": len(self._public.server_state.connections)})
        cut = await self._public.end(self._sockets["public"].sockets)
        if cut:
            log.warning("the drain is over, and what was still open is cut", extra={"connections": cut})

    def _obey_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._leaving.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)

    def _interrupted(self) -> None:
        """Once is a request, twice is an order."""
        if self._leaving.is_set():
            self._hurry.set()
            self._public.force_exit = True
        self._leaving.set()


def _settle_memory() -> None:
    """What was built until now lives as long as the process: the collector need not look at it again.

    Requests leave hardly any cycles behind, so it may also look less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 10)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: about twice as fast."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _check_open_files(limits: Limits) -> None:
    wanted = limits.connections + _FILES_BESIDES
    available = raise_open_files(wanted)
    if available < wanted:
        log.warning(
            "the limit of open files is %d; %d connections need %d: raise it, or lower limits.connections",
            available,
            limits.connections,
            wanted,
        )
