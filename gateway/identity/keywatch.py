"""Taking changed keys up while tokens are verified: whole or not at all, and without a restart.

Every two seconds the folder is read, in a thread: a file system that is away makes no
request wait. What has changed is told by contents, since a Kubernetes secret
changes by a symlink further up; and it is taken up when two looks agree on it, since a
copy that is under way is half done in between. What is no good is said once, in the log
and on /readyz, and the keys before stay in force.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.aside import aside
from gateway.identity.keyfolder import BadKeys, KeyFolder
from gateway.identity.keyset import Dated

LOOK_S = 2.0
"""Seconds between two looks."""
PATIENCE_S = 30.0
"""For a file system to answer."""

log = logging.getLogger("gateway.identity")


@dataclass(frozen=True, slots=True)
class _Seen:
    digest: bytes
    keys: Sequence[Dated] | None
    """None if nobody asked for them, or they are no good."""
    faults: tuple[str, ...] = ()


class KeyWatch:
    """The watch over one folder. `adopt` gets the keys, `tell` why they are not taken up (or "")."""

    def __init__(
        self,
        folder: KeyFolder,
        *,
        needed: bool,
        adopt: Callable[[Sequence[Dated]], None],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        patience: float = PATIENCE_S,
    ) -> None:
        """Reads the keys for the first time. Raises BadKeys."""
        self._folder, self._needed, self._clock, self._patience = folder, needed, clock, patience
        self._adopt, self._tell = adopt, tell
        contents = folder.look(clock())
        adopt(folder.understand(contents, clock(), needed=needed))
        self._tried = self._seen = contents.digest()
        self._fault = ""
        self._turn = asyncio.Lock()
        self._looking: asyncio.Future[_Seen] | None = None

    async def run(self) -> None:
        """Looks for as long as it is not cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception as error:
                log.error("the keys of tokens can't be looked at", exc_info=error)

    async def look(self, *, patient: bool = True) -> None:
        """One look. What has changed is taken up if it is good; if `patient`, not before the next look."""
        async with self._turn:
            before = self._seen
            seen = await self._look(before if patient else None)
            if seen is None:
                return
            self._seen = seen.digest
            if seen.keys is not None or seen.faults:
                self._tried = seen.digest
                self._conclude(seen)
            self._tell(self._fault)

    def _conclude(self, seen: _Seen) -> None:
        if seen.keys is None:
            for fault in seen.faults:
                log.error("the new keys of tokens are not taken up: %s", fault)
            self._fault = f"the keys on the disk are not taken up: {seen.faults[0]}"
            return
        self._adopt(seen.keys)
        self._fault = ""
        log.info("new keys of tokens are taken up", extra={"keys": [dated.key.kid for dated in seen.keys]})

    async def _look(self, expected: bytes | None) -> _Seen | None:
        """None as long as the file system does not answer. One look at a time: they must not pile up."""
        if self._looking is None:
            tried = self._tried
            self._looking = aside(lambda: self._read(tried, expected))
        elif not self._looking.done():
            return None
        done, _ = await asyncio.wait({self._looking}, timeout=self._patience)
        if not done:
            log.error("the keys of tokens can't be looked at: no answer")
            self._tell("the keys on the disk can't be looked at: no answer")
            return None
        looking, self._looking = self._looking, None
        return looking.result()

    def _read(self, tried: bytes, expected: bytes | None) -> _Seen:
        """In a thread: a large RSA key takes a while to be checked."""
        contents = self._folder.look(self._clock())
        digest = contents.digest()
        if digest == tried or (expected is not None and digest != expected):
            return _Seen(digest, None)
        try:
            return _Seen(digest, self._folder.understand(contents, self._clock(), needed=self._needed))
        except BadKeys as bad:
            return _Seen(digest, None, bad.sentences)
