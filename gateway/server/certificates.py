"""The certificate that clients see: whether its files are any good, and the newest one for every handshake.

A renewed certificate is taken up without a restart. The listener has one TLS
context for its whole life, and its server-name callback, which OpenSSL calls in
every full handshake, points each new connection to the context of the newest
pair. So a swap is one assignment, connections that are open keep what they
have, and a pair that is not good enough is simply never assigned.

The files are read every few seconds and compared by content: a Kubernetes
secret changes by a symlink two folders up, which no look at the file itself would
show. A change is taken up when two looks in a row agree on it, since a renewal
that writes one file after the other is half done in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

POLL_S = 2.0
"""Seconds between two looks at the files."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 §4.2), as TLS 1.3 has them."""
_LARGEST = 1 << 20
"""Bytes of a file that are read; a long chain has a tenth."""
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for."""

log = logging.getLogger("gateway.server")

Setting = Literal["certificate", "key"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the files."""

    setting: Setting
    """Which of the two."""
    sentence: str
    """Begins with the file's name."""
    warning: bool = False
    """It would be served all the same."""


class BadCertificate(ValueError):
    """The pair can't be served. Its text is the fault's sentence."""

    def __init__(self, setting: Setting, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = Fault(setting, sentence)


def faults(certificate: Path, key: Path, *, clock: Callable[[], float] = time.time) -> list[Fault]:
    """Everything that stands against serving the two files. Never raises."""
    try:
        pair = _load(certificate, key)
        _check_time(pair, certificate, clock())
    except BadCertificate as bad:
        return [bad.fault]
    if not pair.refusal:
        return []
    sentence = f"{certificate} is one that clients refuse: {pair.refusal}"
    return [Fault("certificate", sentence, warning=True)]


class Certificates:
    """The pair that is served, and the watch over its files. Raises BadCertificate to begin with."""

    def __init__(self, certificate: Path, key: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._files = (certificate, key)
        self._clock = clock
        self._tried = self._seen = _digest(*self._files)
        self._pair = _load(certificate, key)
        _check_time(self._pair, certificate, clock())
        self.context = self._pair.context
        """For listeners. Every handshake on it gets the newest pair."""
        self.context.sni_callback = self._choose

    @property
    def expires(self) -> float:
        """Unix seconds: when the served certificate does."""
        return self._pair.not_after

    async def watch(self) -> None:
        """Looks at the files for as long as it is not cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            self.look()

    def look(self, *, patient: bool = True) -> None:
        """One look. What has changed is taken up if it is good; if `patient`, not before the next look."""
        before, self._seen = self._seen, _digest(*self._files)
        if self._seen != self._tried and (self._seen == before or not patient):
            self._tried = self._seen
            self._take_up()

    def _take_up(self) -> None:
        try:
            pair = _load(*self._files)
            _check_time(pair, self._files[0], self._clock())
        except BadCertificate as bad:
            log.error("the new certificate is not taken up: %s", bad)
            return
        self._pair = pair
        log.info("a new certificate is served", extra={"expires": _written(pair.not_after)})

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._pair.context


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate with its key, ready to be served."""

    context: ssl.SSLContext
    not_before: float
    """Unix seconds."""
    not_after: float
    refusal: str
    """Why every client would refuse it, whoever signed it; usually empty."""


def _load(certificate: Path, key: Path) -> _Pair:
    chain, secret = _read("certificate", certificate), _read("key", key)
    if b"-----BEGIN CERTIFICATE-----" not in chain:
        raise BadCertificate("certificate", f"{certificate} holds no certificate in PEM")
    if b"PRIVATE KEY-----" not in secret:
        raise BadCertificate("key", f"{key} holds no private key in PEM")
    context = _context()
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _Encrypted:
        raise BadCertificate("key", f"{key} is encrypted, and nobody is there to be asked") from None
    except OSError as error:  # ssl.SSLError is one
        raise _refused(certificate, key, chain, error) from error
    return _Pair(context, *_shown(context, chain))


def _read(setting: Setting, path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_never_waiting) as file:
            return file.read(_LARGEST) or b""  # None if it has nothing just now
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        raise BadCertificate(setting, f"{path} can't be read: {reason}") from error


def _never_waiting(path: str, flags: int) -> int:
    """Who opens a pipe waits for its other end, and with him every client."""
    return os.open(path, flags | os.O_NONBLOCK)


def _context() -> ssl.SSLContext:
    """TLS 1.2 and 1.3; HTTP/1.1 is the only protocol offered."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client could make us work without end
    return context


class _Encrypted(Exception):
    pass


def _no_passphrase() -> str:
    """OpenSSL itself would ask on the terminal."""
    raise _Encrypted


def _refused(certificate: Path, key: Path, chain: bytes, error: OSError) -> BadCertificate:
    """OpenSSL does not say which file it means."""
    reason = getattr(error, "reason", None) or ""
    if "MISMATCH" in reason:
        return BadCertificate("key", f"{key} is not the key of {certificate}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=chain.decode("ascii", "ignore"))
    except ssl.SSLError:
        return BadCertificate("certificate", f"{certificate} holds a certificate that is damaged")
    if reason.startswith(("EE_", "CA_")):  # ee key too small, ca md too weak
        weakness = reason.lower().replace("_", " ")
        return BadCertificate("certificate", f"{certificate} is too weak to be served: {weakness}")
    return BadCertificate("key", f"{key} holds a private key that is damaged")


def _shown(context: ssl.SSLContext, chain: bytes) -> tuple[float, float, str]:
    """What a client that trusts exactly this certificate sees: its dates, or why it refuses all the same.

    A handshake in memory. Python shows a certificate's contents to the other side only.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags = ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    client.load_verify_locations(cadata=chain.decode("ascii", "ignore"))
    upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(downward, upward)
    serving = context.wrap_bio(upward, downward, server_side=True)
    try:
        for side in (asking, serving, asking):
            _step(side)
    except ssl.SSLCertVerificationError as error:
        return 0.0, float("inf"), error.verify_message
    seen = asking.getpeercert() or {}
    not_before, not_after = (ssl.cert_time_to_seconds(str(seen[name])) for name in ("notBefore", "notAfter"))
    return float(not_before), float(not_after), ""


def _step(side: ssl.SSLObject) -> None:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return  # it is the other one's turn


def _check_time(pair: _Pair, certificate: Path, now: float) -> None:
    if pair.not_after <= now:
        raise BadCertificate("certificate", f"{certificate} expired on {_written(pair.not_after)}")
    if pair.not_before > now:
        raise BadCertificate("certificate", f"{certificate} is not valid before {_written(pair.not_before)}")


def _written(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds < 1e11 else "never"


def _digest(*paths: Path) -> bytes:
    """Of the contents, so that no key is kept twice; what can't be read counts as empty."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb", opener=_never_waiting) as file:
                content = file.read(_LARGEST) or b""
        except OSError:
            content = b""
        digest.update(len(content).to_bytes(8) + content)
    return digest.digest()
