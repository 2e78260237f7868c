"""A mint for access and refresh tokens, good ones and forged ones.

It signs with the standard library alone, so that it can write what no honest
library would, and so that the tokens it calls good are good by the RFCs and not
by the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass

NOW = 1_800_000_000
"""The time at which minted tokens are fresh."""

ACCESS_SECRET = b"access-secret-of-the-tests-0123456789abcdef"
REFRESH_SECRET = b"refresh-secret-of-the-tests-0123456789abcdef"
ISSUER = "gateway"
TTL = 900
LEEWAY = 10.0

HEADER: dict[str, object] = {"alg": "HS256", "typ": "JWT"}


def b64(data: bytes) -> bytes:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def unb64(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


@dataclass(frozen=True)
class Mint:
    """Signs whatever it is told to."""

    secret: bytes = ACCESS_SECRET
    now: int = NOW

    def access_claims(self, **changes: object) -> dict[str, object]:
        """The claims of a good access token; a change to `...` leaves the claim out."""
        claims: dict[str, object] = {
            "iss": ISSUER,
            "typ": "access",
            "sub": "user-1",
            "email": "ada@example.com",
            "isAdmin": False,
            "roles": ["analyst", "auditor"],
            "sid": "session-1",
            "ver": 3,
            "iat": self.now,
            "exp": self.now + TTL,
        }
        return _changed(claims, changes)

    def refresh_claims(self, **changes: object) -> dict[str, object]:
        claims: dict[str, object] = {
            "iss": ISSUER,
            "typ": "refresh",
            "sub": "user-1",
            "sid": "session-1",
            "gen": 0,
            "iat": self.now,
            "exp": self.now + 7 * 86400,
        }
        return _changed(claims, changes)

    def access(self, **changes: object) -> bytes:
        return self.sign(self.access_claims(**changes))

    def refresh(self, **changes: object) -> bytes:
        return self.sign(self.refresh_claims(**changes))

    def sign(
        self,
        payload: dict[str, object] | bytes,
        *,
        header: dict[str, object] | bytes = HEADER,
        digest: str = "sha256",
    ) -> bytes:
        """A compact JWS over exactly this header and payload, with a right signature."""
        text = _bytes(header), _bytes(payload)
        signing_input = b".".join(b64(part) for part in text)
        return signing_input + b"." + b64(hmac.digest(self.secret, signing_input, digest))

    def padded(self, claims: dict[str, object], length: int) -> bytes:
        """A token of this length, by a claim that says nothing."""
        pads = range(length // 2, length)
        return next(token for pad in pads if len(token := self._with_pad(claims, pad)) == length)

    def _with_pad(self, claims: dict[str, object], pad: int) -> bytes:
        return self.sign({**claims, "pad": "x" * pad})


def forged_access_tokens(now: int = NOW) -> Iterator[tuple[str, bytes]]:
    """(what is wrong with it, the token): each must be refused by an honest verifier of access tokens."""
    mint = Mint(now=now)
    yield from _forged_signatures(mint)
    yield from _forged_headers(mint)
    yield from _forged_shapes(mint)
    yield from _forged_payloads(mint)
    yield from _forged_claims(mint)


def _forged_signatures(mint: Mint) -> Iterator[tuple[str, bytes]]:
    good = mint.access()
    header, payload, signature = good.split(b".")
    other_payload = mint.access(isAdmin=True).split(b".")[1]
    none = b64(b'{"alg":"none","typ":"JWT"}')
    yield "a refresh token", Mint(REFRESH_SECRET, mint.now).refresh()
    yield "a refresh token under the access secret", mint.refresh()
    yield "an access token under the refresh secret", Mint(REFRESH_SECRET, mint.now).access()
    yield "the empty secret", Mint(b"", mint.now).access()
    yield "no signature", header + b"." + payload + b"."
    yield "alg none without signature", none + b"." + payload + b"."
    yield "alg none with a signature", none + b"." + payload + b"." + signature
    yield "alg nOnE", b64(b'{"alg":"nOnE","typ":"JWT"}') + b"." + payload + b"."
    yield "another payload under the old signature", header + b"." + other_payload + b"." + signature
    yield "half a signature", good[:-21]
    yield "the signature in hex", header + b"." + payload + b"." + unb64(signature).hex().encode()
    yield (
        "the hash without a key",
        header + b"." + payload + b"." + b64(hashlib.sha256(header + b"." + payload).digest()),
    )


def _forged_headers(mint: Mint) -> Iterator[tuple[str, bytes]]:
    claims = mint.access_claims()
    jwk = {"kty": "oct", "k": b64(ACCESS_SECRET).decode()}
    extras: dict[str, object] = {
        "jku": "https://evil.example/jwks.json",
        "x5u": "https://evil.example/cert.pem",
        "jwk": jwk,
        "x5c": ["MIIB"],
        "kid": "1",
        "crit": ["exp"],
        "b64": True,
        "zip": "DEF",
        "cty": "JWT",
    }
    for name, value in extras.items():
        yield f"a header with {name}", mint.sign(claims, header={**HEADER, name: value})
    yield "a header with crit b64", mint.sign(b"", header={**HEADER, "b64": False, "crit": ["b64"]})
    yield "a kid that is a path", mint.sign(claims, header={**HEADER, "kid": "../../dev/null"})
    yield "a kid that is a number", mint.sign(claims, header={**HEADER, "kid": 1})
    for algorithm, digest in {"HS384": "sha384", "HS512": "sha512"}.items():
        yield f"alg {algorithm}", mint.sign(claims, header={**HEADER, "alg": algorithm}, digest=digest)
    for wrong in ("RS256", "ES256", "EdDSA", "hs256", "", None, 256, ["HS256"], {"HS256": 1}, True):
        yield f"alg {wrong!r}", mint.sign(claims, header={**HEADER, "alg": wrong})
    for wrong in ("JWE", "jose", "", None, 1, ["JWT"]):
        yield f"header typ {wrong!r}", mint.sign(claims, header={**HEADER, "typ": wrong})
    yield "no alg", mint.sign(claims, header={"typ": "JWT"})
    for raw in (b"", b"null", b"[]", b'"HS256"', b"{", b'{"alg":"HS256"', b"\xff", b"[" * 3000, b"1" * 5000):
        yield f"the header {raw[:12]!r}", mint.sign(claims, header=raw)


def _forged_shapes(mint: Mint) -> Iterator[tuple[str, bytes]]:
    good = mint.access()
    yield "nothing", b""
    for text in (b".", b"..", b"...", b"....", b"a", b"a.b", b"a.b.c", b"null", b"{}"):
        yield f"the text {text!r}", text
    yield "two parts", good.rpartition(b".")[0]
    yield "four parts", good + b".AA"
    yield "five parts, like a JWE", b".".join([good, b"AA", b"AA"])
    yield "padded", good + b"="
    yield "padded twice", good + b"=="
    yield "padded inside", good.replace(b".", b"=.", 1)
    for odd in (b" ", b"\t", b"\n", b"\r\n", b"\0", b"+", b"/", b"%20", b"\xc3\xa9", b"\xff", b",", b'"'):
        yield f"{odd!r} at the end", good + odd
        yield f"{odd!r} at the beginning", odd + good
        yield f"{odd!r} in the middle", good[:60] + odd + good[60:]
    yield "unused bits in the last character", good[:-1] + _next_in_alphabet(good[-1:])
    yield "longer than 8 KiB", mint.access(filler="x" * 8192)
    yield "a megabyte", b"A" * 500_000 + b"." + b"A" * 500_000 + b".AAAA"


def _forged_payloads(mint: Mint) -> Iterator[tuple[str, bytes]]:
    good = json.dumps(mint.access_claims(), separators=(",", ":")).encode()
    wrong: dict[str, bytes] = {
        "empty": b"",
        "null": b"null",
        "a list": b"[" + good + b"]",
        "a string": b'"x"',
        "a number": b"1",
        "two objects": good + good,
        "cut short": good[:-1],
        "deep lists": b"[" * 5000,
        "deep objects": b'{"a":' * 1000 + b"1" + b"}" * 1000,
        "a deep claim": good[:-1] + b',"x":' + b"[" * 2500 + b"]" * 2500 + b"}",
        "an integer of 5,000 digits": good[:-1] + b',"x":' + b"9" * 5000 + b"}",
        "NaN": good[:-1] + b',"x":NaN}',
        "Infinity": good[:-1] + b',"x":-Infinity}',
        "UTF-16": good.decode().encode("utf-16"),
        "UTF-8 with a BOM": b"\xef\xbb\xbf" + good,
        "not UTF-8": good.replace(b"ada@", b"\xff@"),
        "overlong UTF-8": good.replace(b"ada@", b"\xc0\xaf@"),
        "a claim twice": good[:-1] + b',"isAdmin":true}',
        "a claim twice, spelled in two ways": good[:-1] + b',"is\\u0041dmin":true}',
        "a claim twice, deep inside": good[:-1] + b',"x":{"a":1,"a":2}}',
    }
    for what, payload in wrong.items():
        yield f"a payload that is {what}", mint.sign(payload)


def _forged_claims(mint: Mint) -> Iterator[tuple[str, bytes]]:
    now = mint.now
    value: object
    text: object
    for name in ("exp", "iat", "nbf", "ver"):
        for value in (None, "", "1", True, False, 1.5, float(now + 60), [], {}, [now], -1, 10**400, 2**63):
            yield f"{name} = {str(value)[:20]!r} ({type(value).__name__})", mint.access(**{name: value})
        for number in (b"1e400", b"Infinity", b"NaN", b"1e9"):
            yield f"{name} = {number.decode()}", _raw(mint, name, number)
    for name in ("exp", "iat", "iss", "typ", "sub", "sid", "email", "isAdmin", "roles", "ver"):
        yield f"no {name}", mint.access(**{name: ...})
    for value in (None, 0, 1, "true", "false", "", [], [True], {}, 1.0):
        yield f"isAdmin = {value!r}", mint.access(isAdmin=value)
    for text in (
        "",
        "a b",
        "a\n",
        "a\r\nX: y",
        "\0",
        "é",
        "\ud800",
        "x" * 256,
        None,
        1,
        True,
        ["user-1"],
        {},
    ):
        yield f"sub = {str(text)[:12]!a}", mint.access(sub=text)
        yield f"sid = {str(text)[:12]!a}", mint.access(sid=text)
    for value in (None, "", 1, True, ["a@b"], {}, "\ud800@example.com", "a\udfff"):
        yield f"email = {value!a}", mint.access(email=value)
    for value in (None, "analyst", {"analyst": 1}, 1):
        yield f"roles = {value!r}", mint.access(roles=value)
    for role in (1, None, ["a"], "", "A", "a,b", "a\n", "x" * 65, "é"):
        yield f"a role = {str(role)[:20]!a}", mint.access(roles=["analyst", role])
    for value in (None, "refresh", "ACCESS", "access ", "", 1, True, ["access"]):
        yield f"typ = {value!r}", mint.access(typ=value)
    for value in (None, "", "Gateway", "gateway ", "evil", 1, ["gateway"], {"gateway": 1}):
        yield f"iss = {value!r}", mint.access(iss=value)
    for value in ("someone-else", ["gateway"], "", None, []):
        yield f"aud = {value!r}", mint.access(aud=value)
    yield "expired", mint.access(iat=now - TTL - 60, exp=now - 60)
    yield "expired by the second", mint.access(iat=now - TTL - 10, exp=now - 10)
    yield "issued in the future", mint.access(iat=now + 11, exp=now + 60)
    yield "not to be used yet", mint.access(nbf=now + 11)
    yield "ended before it began", mint.access(exp=now - 3600)
    yield "living longer than tokens live here", mint.access(iat=now - TTL - 10, exp=now + 86400)


def _raw(mint: Mint, name: str, number: bytes) -> bytes:
    """A token whose claim is this very JSON text, which Python's encoder would not write."""
    claims = json.dumps(mint.access_claims(**{name: "@"}), separators=(",", ":")).encode()
    return mint.sign(claims.replace(b'"@"', number))


def _next_in_alphabet(last: bytes) -> bytes:
    """A character that differs only in the two bits that a 32-byte signature leaves unused."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    index = alphabet.index(last) ^ 1
    return alphabet[index : index + 1]


def _changed(claims: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    claims |= changes
    return {name: value for name, value in claims.items() if value is not ...}


def _bytes(part: dict[str, object] | bytes) -> bytes:
    return part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
