"""A folder of keys: `keys.json`, and one PEM file for each key that it names.

Reading never waits for anything but the file system, never follows a file that could
be something else meanwhile, and takes what it read as a whole or says what is wrong
with each file. A PEM file that keys.json does not name is not there.

Writing goes so that no reader, and no power cut, ever sees a half: a new key is on the
disk before keys.json names it, keys.json is replaced in one step, and a key's file goes
when nothing names it any more. One writer at a time, by a lock on the folder itself.
The gateway only ever reads; `gateway keys` writes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.identity.keyset import Dated
from gateway.identity.manifest import BadManifest, Entry, Manifest, read_manifest, write_manifest
from gateway.identity.pem import BadKey, NoCryptography, need_cryptography, read_key

MANIFEST = "keys.json"
TRIES = 10
"""When somebody writes while we read."""
LARGEST = 64 << 10
"""Bytes of a file that are read; an RSA key of 4096 bits has 3,300."""


class BadKeys(ValueError):
    """The folder can't be used. Its text is the first sentence, each begins with a file's name."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__(sentences[0])
        self.sentences = tuple(sentences)


@dataclass(frozen=True, slots=True)
class Contents:
    """What was there at one look."""

    manifest: Manifest
    pems: tuple[tuple[Entry, bytes], ...]
    """Of the keys that are not over."""
    faults: tuple[str, ...]
    """What is wrong with single files."""

    def digest(self) -> bytes:
        """Equal for equal contents, so that nobody has to keep the keys to compare them."""
        told = [write_manifest(self.manifest), *(pem for _, pem in self.pems), *map(os.fsencode, self.faults)]
        digest = hashlib.sha256()
        for each in told:
            digest.update(len(each).to_bytes(8) + each)
        return digest.digest()


class KeyFolder:
    """One folder. Nothing of it is remembered between two calls."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # -- reading -------------------------------------------------------------------------------------------

    def look(self, now: float) -> Contents:
        """Read everything. Never raises."""
        contents = self._look(now)
        for _ in range(TRIES - 1):
            if not contents.faults:
                break
            # A key that is named no more may have gone between the two readings.
            before, contents = contents, self._look(now)
            if contents.manifest == before.manifest:
                break
        return contents

    def _look(self, now: float) -> Contents:
        manifest, pems, faults = Manifest(), [], list[str]()
        try:
            self._check_folder()
            manifest = self.manifest()
        except BadKeys as bad:
            return Contents(manifest, (), bad.sentences)
        for entry in manifest.entries:
            if not entry.is_over(now):
                try:
                    pems.append((entry, _read(self.pem(entry), forbidden=stat.S_IRWXO)))
                except BadKeys as bad:
                    faults += bad.sentences
        return Contents(manifest, tuple(pems), tuple(faults))

    def understand(self, contents: Contents, now: float, *, needed: bool) -> list[Dated]:
        """The keys. Raises BadKeys; also, if they are `needed`, where none signs now."""
        faults, keys = list(contents.faults), []
        try:
            need_cryptography()
        except NoCryptography as error:
            raise BadKeys([f"{self.path}: {error}"]) from None
        for entry, pem in contents.pems:
            try:
                key = read_key(entry.kid, entry.algorithm, pem)
                keys.append(Dated(key, entry.signs_from, entry.verifies_until))
            except BadKey as bad:
                faults.append(f"{self.pem(entry)} {bad}")
        if not faults and needed and contents.manifest.signer(now) is None:
            faults.append(f"{self.path} has no key that signs; `gateway keys generate` makes one")
        if faults:
            raise BadKeys(faults)
        return keys

    def manifest(self) -> Manifest:
        """What keys.json says. Raises BadKeys."""
        file = self.path / MANIFEST
        try:
            return read_manifest(_read(file, forbidden=stat.S_IWOTH))
        except BadManifest as bad:
            raise BadKeys([f"{file} {bad}"]) from None
        except BadKeys:
            if not os.path.lexists(file):
                sentence = f"{self.path} holds no {MANIFEST}; `gateway keys generate` makes a first key"
                raise BadKeys([sentence]) from None
            raise

    def pem(self, entry: Entry) -> Path:
        return self.path / f"{entry.kid}.pem"

    def _check_folder(self) -> None:
        try:
            mode = os.stat(self.path).st_mode
        except OSError as error:
            hint = "; `gateway keys generate` makes it" if isinstance(error, FileNotFoundError) else ""
            raise BadKeys([f"{self.path} can't be read: {_reason(error)}{hint}"]) from None
        if not stat.S_ISDIR(mode):
            raise BadKeys([f"{self.path} is no folder"])
        # In a sticky one (Kubernetes mounts secrets so) nobody can replace what is another's.
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise BadKeys(
                [f"{self.path} can be written to by everyone on this machine: chmod o-w {self.path}"]
            )

    # -- writing -------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For one writer: from reading to writing nobody else writes. Makes the folder, if need be."""
        import fcntl  # there is none on Windows, where only this can't be done

        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def write(self, before: Manifest, after: Manifest, pem: bytes | None = None) -> None:
        """Go from one state to the other; `pem` is of the key that is new. Only while `locked`."""
        old, new = ({entry.kid: entry for entry in each.entries} for each in (before, after))
        for kid in new.keys() - old.keys():
            assert pem is not None  # noqa: S101 (who adds a key has made it)
            self._write(f"{kid}.pem", pem, 0o600)
        self._write(MANIFEST, write_manifest(after), 0o644)
        for kid in old.keys() - new.keys():
            with suppress(FileNotFoundError):
                self.pem(old[kid]).unlink()
        self._settle()

    def _write(self, name: str, content: bytes, mode: int) -> None:
        """Whole or not at all; its owner is the folder's, also if root writes."""
        fresh = self.path / f".{name}.new"
        fresh.unlink(missing_ok=True)  # of somebody who was killed
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            folder = os.stat(self.path)
            if os.geteuid() == 0:
                os.fchown(descriptor, folder.st_uid, folder.st_gid)
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        fresh.rename(self.path / name)
        self._settle()

    def _settle(self) -> None:
        """What was renamed is so after a power cut, too."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(file: Path, *, forbidden: int) -> bytes:
    """A regular file that nobody may use in a `forbidden` way. Raises BadKeys."""
    try:
        # Who opens a pipe waits for its other end, and opening a device may do something.
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise BadKeys([f"{file} is no regular file"])
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as opened:
            found = os.fstat(descriptor)  # it may be another one by now
            content = opened.read(LARGEST + 1) if stat.S_ISREG(found.st_mode) else None
    except OSError as error:
        raise BadKeys([f"{file} can't be read: {_reason(error)}"]) from None
    if content is None:
        raise BadKeys([f"{file} is no regular file"])
    if len(content) > LARGEST:
        raise BadKeys([f"{file} is larger than {LARGEST >> 10} KiB"])
    if found.st_mode & forbidden:
        what, remedy = ("read", "rwx") if forbidden & stat.S_IROTH else ("written to", "w")
        raise BadKeys([f"{file} can be {what} by everyone on this machine: chmod o-{remedy} {file}"])
    return content


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
