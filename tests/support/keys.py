"""A mint for tokens of key pairs, good ones and forged ones; it signs with `cryptography` alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from gateway.identity.keyset import Dated, KeySet
from gateway.identity.pem import ALGORITHMS, make_key, read_key
from tests.support.tokens import Mint, b64, unb64

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


@dataclass(frozen=True)
class KeyMint(Mint):
    """Signs whatever it is told to, by a key pair."""

    kid: str = "one"
    algorithm: str = "ES256"
    pem: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pem", self.pem or made(self.algorithm, self.kid))

    @property
    def private(self) -> Any:
        return load_pem_private_key(self.pem, None)

    @property
    def header(self) -> dict[str, object]:
        return {"alg": self.algorithm, "kid": self.kid, "typ": "JWT"}

    @property
    def publics(self) -> Iterator[bytes]:
        """The public key in every form that a careless verifier could have at hand."""
        public = self.private.public_key()
        for encoding in (Encoding.PEM, Encoding.DER):
            yield public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        yield public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip()
        yield public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        yield unb64(self.key.jwk[{"ES256": "x", "EdDSA": "x", "RS256": "n"}[self.algorithm]].encode())

    @property
    def key(self) -> Any:
        """As the gateway reads it."""
        return read_key(self.kid, self.algorithm, self.pem)

    def dated(self, signs_from: float = 0.0, **until: float) -> Dated:
        return Dated(self.key, signs_from, **until)

    def sign(self, payload: Any, *, header: Any = None, digest: str = "sha256") -> bytes:
        unsigned = Mint(b"").sign(payload, header=self.header if header is None else header)
        signed = unsigned.rpartition(b".")[0]
        return signed + b"." + b64(self.signature(signed))

    def signature(self, message: bytes) -> bytes:
        key = self.private
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(message)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.der(message))
            return r.to_bytes(32) + s.to_bytes(32)
        signed: bytes = key.sign(message, padding.PKCS1v15(), SHA256())
        return signed

    def der(self, message: bytes) -> bytes:
        """An ECDSA signature as ASN.1 has it, and JOSE has not."""
        signed: bytes = self.private.sign(message, ec.ECDSA(SHA256()))
        return signed


@cache
def made(algorithm: str, kid: str) -> bytes:
    """The same key for the same name: making RSA keys takes a while."""
    return make_key(algorithm)


def key_set(*mints: KeyMint, secrets: tuple[bytes, ...] = ()) -> KeySet:
    """All of them verify, the last one signs."""
    return KeySet(secrets, [mint.dated(float(index)) for index, mint in enumerate(mints)])


def forged_key_tokens(mint: KeyMint) -> Iterator[tuple[str, bytes]]:
    """(what is wrong with it, the token): none may hold for a verifier that knows `mint` and a `two`."""
    yield from _by_other_keys(mint)
    yield from _by_other_headers(mint)
    yield from _by_other_signatures(mint)


def _by_other_keys(mint: KeyMint) -> Iterator[tuple[str, bytes]]:
    """CVE-2022-29217, CVE-2026-48526: another algorithm, with the public key for a secret."""
    claims = mint.access_claims(isAdmin=True)
    stranger = KeyMint(kid=mint.kid, algorithm=mint.algorithm, pem=made(mint.algorithm, "a stranger"))
    yield "a stranger's key", stranger.access()
    for algorithm in ALGORITHMS:
        if algorithm != mint.algorithm:
            yield f"another key of {algorithm}", KeyMint(kid=mint.kid, algorithm=algorithm).access()
            yield f"alg {algorithm}", mint.sign(claims, header={**mint.header, "alg": algorithm})
    for index, public in enumerate(mint.publics):
        for header in ({**mint.header, "alg": "HS256"}, {"alg": "HS256", "typ": "JWT"}, mint.header):
            forged = Mint(public).sign(claims, header=header)
            yield f"the public key in form {index} as secret, {sorted(header)} {header['alg']}", forged
    yield "the empty secret", Mint(b"").sign(claims, header={**mint.header, "alg": "HS256"})
    for algorithm in ("none", "None", "NONE", "", "ES256K", "ES384", "PS256", "RS512", "Ed448", "Ed25519"):
        yield f"alg {algorithm!r}", mint.sign(claims, header={**mint.header, "alg": algorithm})
        yield (
            f"alg {algorithm!r} without signature",
            mint.sign(claims, header={**mint.header, "alg": algorithm}).rpartition(b".")[0] + b".",
        )


def _by_other_headers(mint: KeyMint) -> Iterator[tuple[str, bytes]]:
    claims, good = mint.access_claims(), mint.header
    swapped = {"one": "two", "two": "one"}[mint.kid]
    extras: dict[str, object] = {
        "jwk": mint.key.jwk,
        "jku": "https://evil.example/jwks.json",
        "x5u": "https://evil.example/cert.pem",
        "x5c": ["MIIB"],
        "x5t": "x",
        "x5t#S256": "x",
        "crit": ["exp"],
        "b64": False,
        "zip": "DEF",
        "cty": "JWT",
    }
    for name, value in extras.items():
        yield f"a header with {name}", mint.sign(claims, header={**good, name: value})
    yield "the other key's kid", mint.sign(claims, header={**good, "kid": swapped})
    yield "no kid", mint.sign(claims, header={"alg": mint.algorithm, "typ": "JWT"})
    for kid in (
        "",
        "three",
        "ONE",
        "one ",
        "one\0",
        "one.pem",
        "../keys/one",
        "/dev/null",
        "' OR 1=1 --",
        "é",
    ):
        yield f"kid {kid!r}", mint.sign(claims, header={**good, "kid": kid})
    for odd in (None, 1, True, ["one"], {"one": 1}, 1.5):
        yield f"kid {odd!r}", mint.sign(claims, header={**good, "kid": odd})
    twice = f'{{"alg":"{mint.algorithm}","kid":"{swapped}","kid":"{mint.kid}"}}'.encode()
    yield "two kids", mint.sign(claims, header=twice)
    yield "no typ of ours", mint.sign(claims, header={**good, "typ": "at+jwt"})
    yield "a deep header", mint.sign(claims, header=b'{"kid":' + b"[" * 2500 + b"]" * 2500 + b"}")
    yield "a header that is no JSON", mint.sign(claims, header=b"one")
    yield "a refresh token", mint.refresh()


def _by_other_signatures(mint: KeyMint) -> Iterator[tuple[str, bytes]]:
    good = mint.access()
    signed, _, written = good.rpartition(b".")
    signature = unb64(written)
    changed: dict[str, bytes] = {
        "no signature": b"",
        "one byte": b"\0",
        "zeros": bytes(len(signature)),
        "ones": b"\xff" * len(signature),
        "half": signature[: len(signature) // 2],
        "a byte less": signature[:-1],
        "a byte less in front": signature[1:],
        "a byte more": signature + b"\0",
        "a byte more in front": b"\0" + signature,
        "twice": signature * 2,
        "the hash": hashlib.sha256(signed).digest(),
        "an HMAC by the kid": hmac.digest(mint.kid.encode(), signed, "sha256"),
        "of another message": mint.signature(b"x" + signed),
    }
    if mint.algorithm == "ES256":
        r, s = signature[:32], signature[32:]
        order = P256_ORDER.to_bytes(32)
        changed |= {
            # CVE-2022-21449: Java took r = s = 0 for a signature of anything.
            "r = 0": bytes(32) + s,
            "s = 0": r + bytes(32),
            "r = n": order + s,
            "s = n": r + order,
            "r and s swapped": s + r,
            "r = s = 1": (b"\0" * 31 + b"\1") * 2,
            "DER": mint.der(signed),
        }
    if mint.algorithm == "EdDSA":
        high = int.from_bytes(signature[32:], "little") + ED25519_ORDER
        changed |= {
            "s + L": signature[:32] + high.to_bytes(32, "little"),
            "a point of small order": b"\1" + bytes(63),
        }
    if mint.algorithm == "RS256":
        modulus = mint.private.public_key().public_numbers().n
        plus = int.from_bytes(signature) + modulus
        changed |= {
            "s + n": plus.to_bytes(len(signature) + 1),
            "the padding alone": b"\0\1" + b"\xff" * (len(signature) - 3) + b"\0",
            "1": bytes(len(signature) - 1) + b"\1",
        }
    for what, forged in changed.items():
        yield f"the signature: {what}", signed + b"." + b64(forged)
    header = good.split(b".")[0]
    other = mint.access(isAdmin=True).split(b".")[1]
    yield "another payload", header + b"." + other + b"." + written
    yield "padded", good + b"="
    yield "with a line break", good + b"\n"
