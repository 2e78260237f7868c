"""A folder of keys: what is taken out of it, what is refused and why, and how it is written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.identity import pem
from gateway.identity.keyfolder import LARGEST, TRIES, BadKeys, Contents, KeyFolder
from gateway.identity.keyset import Dated
from gateway.identity.manifest import Entry, Manifest
from gateway.identity.pem import ALGORITHMS, NoCryptography, make_key, need_cryptography, read_key
from tests.support.keys import made

NOW = 1_800_000_000
ONE, TWO = Entry("one", "ES256", NOW - 9, NOW - 9), Entry("two", "EdDSA", NOW - 5)


P256 = bytes.fromhex("2a8648ce3d030107")
"""Its object identifier, 1.2.840.10045.3.1.7."""


class Keys:
    """A folder with two keys, and ways to spoil it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = KeyFolder(path)
        self.pem = path / "one.pem"
        self.manifest = path / "keys.json"
        with self.folder.locked():
            self.folder.write(Manifest(), Manifest((ONE,)), made("ES256", "one"))
            self.folder.write(Manifest((ONE,)), Manifest((ONE, TWO)), made("EdDSA", "two"))

    def read(self, *, needed: bool = True, now: float = NOW) -> list[Dated]:
        return self.folder.understand(self.folder.look(now), now, needed=needed)

    def faults(self, *, needed: bool = True) -> list[str]:
        try:
            self.read(needed=needed)
        except BadKeys as bad:
            return [sentence.replace(str(self.path), "KEYS") for sentence in bad.sentences]
        return []

    def put(self, key: object, **how: object) -> None:
        self.pem.write_bytes(pem_of(key, **how))


def pem_of(
    key: object, form: PrivateFormat = PrivateFormat.PKCS8, passphrase: bytes = b"", curve: bytes = b""
) -> bytes:
    """`curve`: instead of the last byte of P-256's identifier, for one that nobody has heard of."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem = bytes(key.private_bytes(Encoding.PEM, form, encryption))  # type: ignore[attr-defined]
    if not curve:
        return pem
    first, *body, last = pem.splitlines()
    other = b64decode(b"".join(body)).replace(P256[:-1] + b"\x07", P256[:-1] + curve)
    return b"\n".join((first, b64encode(other), last, b""))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


# -- reading -------------------------------------------------------------------------------------------------


def test_its_keys_are_read_with_their_times(keys: Keys) -> None:
    one, two = keys.read()
    assert (one.key.kid, one.key.algorithm, one.signs_from) == ("one", "ES256", NOW - 9)
    assert (two.key.kid, two.key.algorithm) == ("two", "EdDSA")


def test_a_key_that_is_over_need_not_be_there(keys: Keys) -> None:
    over = Entry("old", "RS256", NOW - 99, NOW - 99, NOW)
    with keys.folder.locked():
        keys.folder.write(Manifest((ONE, TWO)), Manifest((over, ONE, TWO)), b"no key at all")
    (keys.path / "old.pem").unlink()
    assert [dated.key.kid for dated in keys.read()] == ["one", "two"]
    with pytest.raises(BadKeys, match=r"old.pem can't be read: no such file"):
        keys.read(now=NOW - 1)


def test_other_forms_of_pem_will_do(keys: Keys) -> None:
    keys.put(ec.generate_private_key(ec.SECP256R1()), form=PrivateFormat.TraditionalOpenSSL)
    assert keys.faults() == []


def test_what_keys_json_does_not_name_is_not_there(keys: Keys) -> None:
    (keys.path / "three.pem").write_text("nonsense")
    (keys.path / ".one.pem.new").write_text("half a")
    assert keys.faults() == []


def test_a_mounted_secret_of_kubernetes_is_read(keys: Keys, tmp_path: Path) -> None:
    """Links to links, files that the group may read, a folder where all may write and none replace."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    mounted.chmod(0o1777)
    keys.path.rename(mounted / "..2026_11_27")
    (mounted / "..data").symlink_to("..2026_11_27")
    for name in ("keys.json", "one.pem", "two.pem"):
        (mounted / "..data" / name).chmod(0o440)
        (mounted / name).symlink_to(f"..data/{name}")
    folder = KeyFolder(mounted)
    assert len(folder.understand(folder.look(NOW), NOW, needed=True)) == 2


def small_exponent() -> object:
    while True:
        try:
            return rsa.generate_private_key(3, 2048)
        except ValueError:
            continue


PUBLIC = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
    Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
)  # fmt: skip
SPOILED: list[tuple[Callable[[Keys], object], str]] = [
    (lambda keys: keys.pem.unlink(), "one.pem can't be read: no such file or directory"),
    (lambda keys: (keys.pem.unlink(), keys.pem.mkdir()), "one.pem is no regular file"),
    (lambda keys: (keys.pem.unlink(), os.mkfifo(keys.pem)), "one.pem is no regular file"),
    (lambda keys: (keys.pem.unlink(), keys.pem.symlink_to("/dev/zero")), "one.pem is no regular file"),
    (
        lambda keys: (os.mkfifo(keys.path / "pipe"), keys.pem.unlink(), keys.pem.symlink_to("pipe")),
        "one.pem is no regular file",
    ),
    (
        lambda keys: (keys.pem.unlink(), keys.pem.symlink_to("one.pem")),
        "one.pem can't be read: too many levels of symbolic links",
    ),
    (
        lambda keys: keys.pem.chmod(0o644),
        "one.pem can be read by everyone on this machine: chmod o-rwx KEYS/one.pem",
    ),
    (lambda keys: keys.pem.write_bytes(b"x" * (LARGEST + 1)), "one.pem is larger than 64 KiB"),
    (lambda keys: keys.pem.write_bytes(b"x" * LARGEST), "one.pem holds no private key in PEM"),
    (lambda keys: keys.pem.write_bytes(b""), "one.pem holds no private key in PEM"),
    (lambda keys: keys.pem.write_bytes(PUBLIC), "one.pem holds no private key in PEM"),
    (lambda keys: keys.pem.write_bytes(b"\xff" * 99), "one.pem holds no private key in PEM"),
    (
        lambda keys: keys.pem.write_bytes(keys.pem.read_bytes()[:80] + b"\n-----END PRIVATE KEY-----\n"),
        "one.pem holds a private key that is damaged",
    ),
    (
        lambda keys: keys.put(load_pem_private_key(keys.pem.read_bytes(), None), passphrase=b"x"),
        "one.pem is encrypted, and nobody is there to be asked",
    ),
    (
        lambda keys: keys.put(ec.generate_private_key(ec.SECP384R1())),
        "one.pem holds a key on the curve secp384r1; ES256 has P-256 (prime256v1)",
    ),
    (
        lambda keys: keys.put(ec.generate_private_key(ec.SECP256K1())),
        "one.pem holds a key on the curve secp256k1; ES256 has P-256 (prime256v1)",
    ),
    (
        lambda keys: keys.put(ec.generate_private_key(ec.SECP256R1()), curve=b"\x05"),
        "one.pem holds a key of a kind that signs no tokens",
    ),
    (
        lambda keys: keys.put(rsa.generate_private_key(65537, 1024)),
        "one.pem holds an RSA key of 1024 bits; it must have 2048 to 4096",
    ),
    (
        lambda keys: keys.put(small_exponent()),
        "one.pem holds an RSA key with an odd exponent; it must be 65537",
    ),
    (
        lambda keys: keys.put(ed25519.Ed25519PrivateKey.generate()),
        "one.pem holds a key for EdDSA, and keys.json says ES256",
    ),
    (
        lambda keys: keys.put(ed448.Ed448PrivateKey.generate()),
        "one.pem holds a key of a kind that signs no tokens",
    ),
    (
        lambda keys: keys.put(x25519.X25519PrivateKey.generate()),
        "one.pem holds a key of a kind that signs no tokens",
    ),
    (
        lambda keys: keys.put(dsa.generate_private_key(2048)),
        "one.pem holds a key of a kind that signs no tokens",
    ),
    (
        lambda keys: keys.manifest.unlink(),
        "KEYS holds no keys.json; `gateway keys generate` makes a first key",
    ),
    (lambda keys: keys.manifest.write_text("{"), "keys.json is no JSON"),
    (lambda keys: keys.manifest.write_bytes(b" " * (LARGEST + 1)), "keys.json is larger than 64 KiB"),
    (
        lambda keys: keys.manifest.chmod(0o666),
        "keys.json can be written to by everyone on this machine: chmod o-w",
    ),
    (lambda keys: (keys.manifest.unlink(), os.mkfifo(keys.manifest)), "keys.json is no regular file"),
    (
        lambda keys: keys.path.chmod(0o777),
        "KEYS can be written to by everyone on this machine: chmod o-w KEYS",
    ),
    (
        lambda keys: keys.path.rename(keys.path.with_name("gone")),
        "KEYS can't be read: no such file or directory; `gateway keys generate` makes it",
    ),
    (
        lambda keys: (keys.path.rename(keys.path.with_name("gone")), keys.path.write_text("")),
        "KEYS is no folder",
    ),
    (
        lambda keys: keys.manifest.write_text('{"keys": []}'),
        "KEYS has no key that signs; `gateway keys generate` makes one",
    ),
]


@pytest.mark.parametrize(("spoil", "sentence"), SPOILED, ids=[str(n) for n, _ in enumerate(SPOILED)])
def test_what_can_not_be_used_is_one_sentence(
    keys: Keys, spoil: Callable[[Keys], object], sentence: str
) -> None:
    spoil(keys)
    (said,) = keys.faults()
    assert sentence in said
    assert "PRIVATE" not in said


def test_every_bad_file_is_named_at_once(keys: Keys) -> None:
    keys.pem.chmod(0o604)
    (keys.path / "two.pem").write_text("x")
    assert [fault.partition(" ")[0] for fault in keys.faults()] == ["KEYS/one.pem", "KEYS/two.pem"]


def test_a_file_that_becomes_a_pipe_between_two_looks_at_it_hangs_nobody(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat_of = os.stat

    def stat_and_swap(path: Path, **how: bool) -> os.stat_result:
        found = stat_of(path, **how)
        if path == keys.pem and stat.S_ISREG(found.st_mode):
            keys.pem.unlink()
            os.mkfifo(keys.pem)
        return found

    monkeypatch.setattr(os, "stat", stat_and_swap)
    assert keys.faults() == ["KEYS/one.pem is no regular file"]


@pytest.mark.parametrize(
    ("manifests", "looks"),
    [("abc!", 4), ("abb!", 3), ("aa!", 2), ("!", 1), ("".join(map(chr, range(97, 97 + TRIES))), TRIES)],
)
def test_it_looks_again_as_long_as_somebody_writes(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, manifests: str, looks: int
) -> None:
    """A letter is what keys.json says while a key that it names is missing; `!` that all is well."""
    seen = 0

    def look(folder: KeyFolder, now: float) -> Contents:
        nonlocal seen
        said, seen = manifests[seen], seen + 1
        entry = Entry(said.replace("!", "z"), "ES256", NOW)
        return Contents(Manifest((entry,)), (), () if said == "!" else (f"{said}.pem is gone",))

    monkeypatch.setattr(KeyFolder, "_look", look)
    assert (keys.folder.look(NOW).faults == ()) is manifests.endswith("!", 0, looks)
    assert seen == looks


def test_the_smallest_and_the_largest_rsa_key_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one size here, as larger ones take long to make."""
    smallest = pem_of(rsa.generate_private_key(65537, pem.SMALLEST_RSA))
    monkeypatch.setattr(pem, "LARGEST_RSA", pem.SMALLEST_RSA)
    assert read_key("a", "RS256", smallest).algorithm == "RS256"


def test_beside_a_secret_no_key_need_sign(keys: Keys) -> None:
    keys.manifest.write_text('{"keys": []}')
    assert keys.faults(needed=False) == []


def test_without_cryptography_the_extra_is_named(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for needing in (need_cryptography, partial(make_key, "ES256"), partial(read_key, "a", "ES256", b"")):
        with pytest.raises(NoCryptography, match=r"pip install 'auth-gateway\[keys\]'"):
            needing()
    assert keys.faults() == [
        "KEYS: the package cryptography, which keys need, is not installed: pip install 'auth-gateway[keys]'"
    ]


# -- writing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o027, 0o077])
def test_keys_are_readable_by_their_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        keys = Keys(tmp_path / "new" / "keys")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [keys.path, *keys.path.iterdir()]}
    assert modes == {"keys": 0o700, "keys.json": 0o644, "one.pem": 0o600, "two.pem": 0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_belongs_to_the_folders_owner(keys: Keys) -> None:
    os.chown(keys.path, 10001, 10001)
    three = Entry("three", "ES256", NOW)
    with keys.folder.locked():
        keys.folder.write(Manifest((ONE, TWO)), Manifest((TWO, three)), make_key("ES256"))
    owners = {path.name: path.stat().st_uid for path in keys.path.iterdir()}
    assert owners == {"two.pem": 0, "three.pem": 10001, "keys.json": 10001}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_key_is_one_that_is_taken(tmp_path: Path, algorithm: str) -> None:
    folder = KeyFolder(tmp_path)
    entry = Entry("new", algorithm, NOW, NOW)
    with folder.locked():
        folder.write(Manifest(), Manifest((entry,)), make_key(algorithm))
    (dated,) = folder.understand(folder.look(NOW), NOW, needed=True)
    assert dated.key.algorithm == algorithm
    assert (tmp_path / "new.pem").read_text().startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize("step", range(12))
def test_whoever_is_killed_at_any_moment_leaves_keys_that_can_be_used(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Every step that changes the disk, one after the other, is the last one."""
    done = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            nonlocal done
            done += 1
            if done > step:
                raise KeyboardInterrupt
            return real(*given, **named)

        return call

    three = Entry("three", "ES256", NOW, NOW)
    for name in ("open", "fsync", "fchmod"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    for name in ("rename", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    with suppress(KeyboardInterrupt):
        keys.folder.write(Manifest((ONE, TWO)), Manifest((TWO, three)), make_key("ES256"))
    monkeypatch.undo()
    assert [dated.key.kid for dated in keys.read()] in (["one", "two"], ["two", "three"])
    with keys.folder.locked():  # and the next one is not in anybody's way
        before = keys.folder.manifest()
        keys.folder.write(before, Manifest((TWO, Entry("four", "ES256", NOW, NOW))), make_key("ES256"))
    assert [dated.key.kid for dated in keys.read()] == ["two", "four"]


def test_two_writers_wait_for_each_other(keys: Keys) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        waits.set()
        with keys.folder.locked():
            order.append("second")

    with keys.folder.locked():
        thread = threading.Thread(target=second)
        thread.start()
        waits.wait()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_reader_never_sees_a_half_while_somebody_writes_all_the_time(keys: Keys) -> None:
    """In a process of its own, as a reader in the middle of a write would otherwise have to be lucky."""
    writer = (
        "import sys; from pathlib import Path; from gateway.identity.keyfolder import KeyFolder\n"
        "from gateway.identity.manifest import Entry, Manifest\n"
        "folder, pem = KeyFolder(Path(sys.argv[1])), Path(sys.argv[1], 'one.pem').read_bytes()\n"
        f"before = Manifest((Entry('one', 'ES256', {NOW}, {NOW - 9}), Entry('two', 'EdDSA', {NOW})))\n"
        "for n in range(150):\n"
        f"    after = Manifest((Entry(f'k{{n}}', 'ES256', {NOW}, {NOW - 9}),))\n"
        "    with folder.locked(): folder.write(before, after, pem)\n"
        "    before = after\n"
    )
    with subprocess.Popen([sys.executable, "-c", writer, str(keys.path)]) as process:
        looks = 0
        while process.poll() is None:
            assert keys.faults() == []
            looks += 1
    assert process.returncode == 0
    assert looks > 3
