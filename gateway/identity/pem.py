"""Private keys as PEM: which ones are fit to sign tokens, and making new ones. Alone knows `cryptography`.

That package is an extra (`auth-gateway[keys]`), as a secret needs none of it: it is
imported when a first key is read or made.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.identity.keypair import PrivateKey

ALGORITHMS = ("ES256", "EdDSA", "RS256")
"""What a key may sign with (RFC 7518 §3.1, RFC 8037), the recommended one first."""
RSA_BITS = 3072
"""Of a new RSA key: 128 bits of security (NIST SP 800-57 part 1, table 2), as the other two have."""
SMALLEST_RSA, LARGEST_RSA = 2048, 4096
"""RFC 7518 §3.3 asks for 2048. A signature by 4096 bits takes 5 ms, in which nobody else is served."""
_EXPONENT = 65537
"""Small ones have a history of forgeries (Bleichenbacher 2006), large ones cost time."""
_MISSING = "the package cryptography, which keys need, is not installed: pip install 'auth-gateway[keys]'"


class BadKey(ValueError):
    """Not fit to sign tokens. The text goes on after the file's name."""


class NoCryptography(Exception):
    """The package is not installed. The text is for the operator."""

    def __init__(self) -> None:
        super().__init__(_MISSING)


def need_cryptography() -> None:
    """Raises NoCryptography."""
    if find_spec("cryptography") is None:
        raise NoCryptography


def read_key(kid: str, algorithm: str, pem: bytes) -> PrivateKey:
    """The key in a PEM file. Raises BadKey, NoCryptography."""
    need_cryptography()
    found, private = _fit(_loaded(pem))
    if found != algorithm:
        raise BadKey(f"holds a key for {found}, and keys.json says {algorithm}")
    from gateway.identity.keypair import PrivateKey

    return PrivateKey(kid, algorithm, private)


def make_key(algorithm: str) -> bytes:
    """A new private key, PKCS#8 in PEM. Raises NoCryptography."""
    need_cryptography()
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    if algorithm == "ES256":
        key = ec.generate_private_key(ec.SECP256R1())
    elif algorithm == "EdDSA":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = rsa.generate_private_key(_EXPONENT, RSA_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _loaded(pem: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"PRIVATE KEY-----" not in pem:
        raise BadKey("holds no private key in PEM")
    try:
        return load_pem_private_key(pem, None)
    except TypeError:
        raise BadKey("is encrypted, and nobody is there to be asked") from None
    except UnsupportedAlgorithm:
        raise BadKey("holds a key of a kind that signs no tokens") from None
    except ValueError:
        raise BadKey("holds a private key that is damaged") from None


def _fit(key: Any) -> tuple[str, Any]:
    """The one algorithm of this key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "EdDSA", key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise BadKey(f"holds a key on the curve {key.curve.name}; ES256 has P-256 (prime256v1)")
        return "ES256", key
    if isinstance(key, rsa.RSAPrivateKey):
        if not SMALLEST_RSA <= key.key_size <= LARGEST_RSA:
            sentence = (
                f"holds an RSA key of {key.key_size} bits; it must have {SMALLEST_RSA} to {LARGEST_RSA}"
            )
            raise BadKey(sentence)
        if key.public_key().public_numbers().e != _EXPONENT:
            raise BadKey(f"holds an RSA key with an odd exponent; it must be {_EXPONENT}")
        return "RS256", key
    raise BadKey("holds a key of a kind that signs no tokens")
