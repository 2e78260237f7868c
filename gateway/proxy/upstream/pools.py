"""The pools of every upstream in the configuration, by name, and what a reload keeps of them."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.proxy.upstream.pool import Pool
from gateway.proxy.upstream.settings import Settings
from gateway.proxy.upstream.timers import Ticker


class Pools:
    """One pool for each upstream; all on one clock."""

    def __init__(self, wanted: Mapping[str, Settings], *, ticker: Ticker | None = None) -> None:
        """Raises OSError that names a TLS file that can't be used."""
        self._ticker = ticker or Ticker()
        self._started = False
        self.by_name: Mapping[str, Pool] = {}
        """Those in use now."""
        self.by_name = self.prepare(wanted)

    def prepare(self, wanted: Mapping[str, Settings]) -> Mapping[str, Pool]:
        """Pools as `wanted`: those in use if their settings are equal, else new ones. Nothing changes yet.

        Raises OSError that names a TLS file that can't be used.
        """
        return {
            name: self._same(name, settings) or self._new(name, settings) for name, settings in wanted.items()
        }

    def adopt(self, prepared: Mapping[str, Pool]) -> None:
        """From now on these. The others serve who uses them or waits for them, and keep nothing."""
        before, self.by_name = self.by_name, prepared
        for name, pool in prepared.items():
            if self._started and pool is not before.get(name):
                pool.start()
        for name, pool in before.items():
            if pool is not prepared.get(name):
                pool.retire()

    def start(self) -> None:
        """Begin the health checks."""
        self._started = True
        for pool in self.by_name.values():
            pool.start()

    def close(self) -> None:
        """Close what is idle, refuse who waits; exchanges under way finish on their own."""
        for pool in self.by_name.values():
            pool.close()

    def _same(self, name: str, settings: Settings) -> Pool | None:
        pool = self.by_name.get(name)
        return pool if pool is not None and pool.settings == settings else None

    def _new(self, name: str, settings: Settings) -> Pool:
        return Pool(name=name, settings=settings, ticker=self._ticker)
