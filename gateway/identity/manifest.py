"""keys.json: which keys a folder holds, when each signs, and until when it verifies. Values only, no files.

A key goes one way:

    next ──────▶ signs ──────▶ verifies ──────▶ retired ──────▶ over
    verifies     signs new     a later key      its end is      verifies nothing;
    only         tokens        signs now        known           its file goes

All of it is told by two times and a clock, so that a rotation can be written down
before it happens. A new key has to be known to every replica, and to whoever keeps a
copy of the JWKS, before it signs: `rotate` says *from when* it does. A former key has
to stay until the last token that it signed has ended: `retire` says *until when*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import Any

from gateway.identity.pem import ALGORITHMS

MAX_KEYS = 32
"""In one folder. Three are plenty; each is in the JWKS, which everybody reads."""
MARGIN_S = 60
"""Seconds that a retired key lasts longer: a replica may take its successor up late, and clocks differ."""

_KID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TIMES = ("madeAt", "signsFrom", "verifiesUntil")
_MEMBERS = {"kid", "algorithm", *_TIMES}
_LATEST = 253_402_300_799
"""9999-12-31T23:59:59Z."""


class BadManifest(ValueError):
    """Not what `gateway keys` writes. The text goes on after the file's name."""


class Refused(Exception):
    """What was asked for would leave nothing that signs, or makes no sense. The text is for the operator."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key. Times are Unix seconds, infinite where there is none."""

    kid: str
    """Also the name of its file, without `.pem`."""
    algorithm: str
    """One of ALGORITHMS."""
    made_at: float
    """Since when it may be known."""
    signs_from: float = inf
    """Since when it signs."""
    verifies_until: float = inf
    """When it is over."""

    def is_over(self, now: float) -> bool:
        return self.verifies_until <= now


@dataclass(frozen=True, slots=True)
class Manifest:
    """The keys of a folder, the oldest first."""

    entries: tuple[Entry, ...] = ()

    def find(self, kid: str) -> Entry:
        """Raises Refused."""
        for entry in self.entries:
            if entry.kid == kid:
                return entry
        raise Refused(f"there is no key {kid}; see `gateway keys list`")

    def signer(self, now: float) -> Entry | None:
        """The key that signs at this moment; None if none does."""
        signing = [each for each in self.entries if each.signs_from <= now < each.verifies_until]
        return max(signing, key=lambda each: each.signs_from, default=None)

    def successor(self, entry: Entry) -> Entry | None:
        """The key that signs after this one, or will."""
        later = [each for each in self.entries if entry.signs_from < each.signs_from < inf]
        return min(later, key=lambda each: each.signs_from, default=None)

    def state(self, entry: Entry, now: float) -> str:
        """`next`, `signs`, `verifies`, `retired` or `over`."""
        if entry.is_over(now):
            return "over"
        if entry == self.signer(now):
            return "signs"
        if entry.verifies_until < inf:
            return "retired"
        return "next" if entry.signs_from > now else "verifies"

    def since(self, entry: Entry, now: float) -> float:
        """Since when it is in its state; of a retired key, since when it no longer signs."""
        if entry.is_over(now):
            return entry.verifies_until
        if entry.signs_from > now:
            return entry.made_at
        follower = self.successor(entry)
        return follower.signs_from if follower and follower.signs_from <= now else entry.signs_from

    # -- what is done to it --------------------------------------------------------------------------------

    def with_next(self, entry: Entry) -> Manifest:
        """One key more. Raises Refused if one waits already."""
        waiting = self.waiting()
        if waiting is not None:
            raise Refused(f"{waiting.kid} waits already: `gateway keys rotate` makes it sign")
        if len(self.entries) >= MAX_KEYS:
            raise Refused(f"there are {MAX_KEYS} keys already; `gateway keys retire` those that don't sign")
        return Manifest((*self.entries, entry))

    def waiting(self) -> Entry | None:
        """The key of which nobody has said when it signs."""
        return next((each for each in self.entries if each.signs_from == inf == each.verifies_until), None)

    def upcoming(self, now: float) -> Entry | None:
        """The key that signs next, or will when somebody says so."""
        later = [each for each in self.entries if each.signs_from > now and each.verifies_until == inf]
        return min(later, key=lambda each: each.signs_from, default=None)

    def rotated(self, now: float, after: float) -> Manifest:
        """The upcoming key signs once it has been known for `after` seconds. Raises Refused."""
        chosen = self.upcoming(now)
        if chosen is None:
            raise Refused("no key waits; `gateway keys generate` makes one")
        past = [each.signs_from for each in self.entries if each.signs_from <= now]
        begins = max(now, chosen.made_at + after, max(past, default=-1) + 1)  # never two at one moment
        if begins > _LATEST:
            raise Refused("that is beyond the year 9999")
        if begins >= chosen.signs_from:
            raise Refused(f"{chosen.kid} will sign from {written(chosen.signs_from)} on")
        return self._changed(chosen, replace(chosen, signs_from=begins))

    def retired(self, entry: Entry, now: float, token_life: float, *, at_once: bool = False) -> Manifest:
        """A key that ends when the last token that it signed has ended: `token_life` seconds after it signed.

        Raises Refused if nothing would sign any more.
        """
        follower = self.successor(entry)
        if entry.signs_from <= now and (follower is None or (at_once and follower.signs_from > now)):
            raise Refused(f"{entry.kid} signs; `gateway keys rotate` first")
        signer = self.signer(now)
        if now < entry.signs_from < inf and signer is not None and signer.verifies_until < inf:
            raise Refused(f"{entry.kid} is about to take over from a key that is retired already")
        until = now
        if follower is not None and not at_once:
            until = follower.signs_from + token_life + MARGIN_S
        return self._changed(entry, replace(entry, verifies_until=min(entry.verifies_until, until)))

    def replaced(self) -> list[Entry]:
        """The keys that a later one follows, and that nobody has retired yet."""
        return [each for each in self.entries if self.successor(each) and each.verifies_until == inf]

    def pruned(self, now: float) -> Manifest:
        """Without the keys that are over."""
        return Manifest(tuple(each for each in self.entries if not each.is_over(now)))

    def _changed(self, old: Entry, new: Entry) -> Manifest:
        return Manifest(tuple(new if each is old else each for each in self.entries))


def read_manifest(text: bytes) -> Manifest:
    """Raises BadManifest."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        raise BadManifest("is no JSON") from None
    listed = read.get("keys") if isinstance(read, dict) else None
    if not isinstance(listed, list) or set(read) != {"keys"}:
        raise BadManifest('must be {"keys": […]}')
    if len(listed) > MAX_KEYS:
        raise BadManifest(f"has more than {MAX_KEYS} keys")
    entries = tuple(_entry(index, each) for index, each in enumerate(listed))
    _check(entries)
    return Manifest(entries)


def write_manifest(manifest: Manifest) -> bytes:
    """The same text for the same keys."""
    keys = [as_json(entry) for entry in manifest.entries]
    return json.dumps({"keys": keys}, indent=2).encode() + b"\n"


def as_json(entry: Entry) -> dict[str, str]:
    """Without the times that it has not."""
    times = zip(_TIMES, (entry.made_at, entry.signs_from, entry.verifies_until), strict=True)
    known = {name: written(time) for name, time in times if time < inf}
    return {"kid": entry.kid, "algorithm": entry.algorithm, **known}


def written(seconds: float) -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _entry(index: int, value: Any) -> Entry:
    where = f"keys[{index}]"
    if not isinstance(value, dict) or not {"kid", "algorithm", "madeAt"} <= set(value) <= _MEMBERS:
        raise BadManifest(f"{where} must have kid, algorithm and madeAt, perhaps signsFrom and verifiesUntil")
    kid, algorithm = value["kid"], value["algorithm"]
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise BadManifest(
            f"{where}.kid must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit"
        )
    if algorithm not in ALGORITHMS:
        raise BadManifest(f"{where}.algorithm must be one of {', '.join(ALGORITHMS)}")
    return Entry(kid, algorithm, *(_time(where, name, value.get(name)) for name in _TIMES))


def _check(entries: Sequence[Entry]) -> None:
    """What somebody who edits the file by hand may get wrong."""
    if len({entry.kid for entry in entries}) < len(entries):
        raise BadManifest("has a kid twice")
    signing = sorted((each for each in entries if each.signs_from < inf), key=lambda each: each.signs_from)
    if len({each.signs_from for each in signing}) < len(signing):
        raise BadManifest("has two keys that sign from the same moment on")
    if signing and signing[-1].verifies_until < inf:
        raise BadManifest(f"retires {signing[-1].kid}, and no later key signs")


def _time(where: str, name: str, value: Any) -> float:
    if value is None:
        return inf
    try:
        moment = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except (TypeError, ValueError):
        raise BadManifest(f"{where}.{name} must be a time like 2026-11-27T08:00:00Z") from None
    return min(moment, _LATEST)
