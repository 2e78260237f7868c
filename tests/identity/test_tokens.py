"""Tokens that hold, and the many that don't."""

from __future__ import annotations

import json
from dataclasses import dataclass

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRefreshToken, InvalidToken
from gateway.identity.keys import MAX_TOKEN_BYTES, SecretKey
from gateway.identity.keyset import KeySet
from gateway.identity.principal import Principal
from gateway.identity.tokens import AccessTokens, RefreshClaims, RefreshTokens
from tests.support.tokens import (
    ACCESS_SECRET,
    ISSUER,
    LEEWAY,
    NOW,
    REFRESH_SECRET,
    TTL,
    Mint,
    b64,
    forged_access_tokens,
    unb64,
)


@dataclass
class Watch:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


MINT = Mint()
REFRESH_MINT = Mint(REFRESH_SECRET)
ADA = Principal("user-1", "ada@example.com", False, ("analyst", "auditor"), "session-1", 3, NOW + TTL)


def access_tokens(clock: Watch | None = None, *, cache_size: int = 100, **changes: object) -> AccessTokens:
    keys = KeySet([changes.pop("secret", ACCESS_SECRET)])  # type: ignore[list-item]
    settings: dict[str, object] = {"keys": keys, "issuer": ISSUER, "ttl": TTL, "leeway": LEEWAY}
    return AccessTokens(**(settings | changes), clock=clock or Watch(), cache_size=cache_size)  # type: ignore[arg-type]


def refresh_tokens(clock: Watch | None = None) -> RefreshTokens:
    return RefreshTokens(keys=KeySet([REFRESH_SECRET]), issuer=ISSUER, leeway=LEEWAY, clock=clock or Watch())


def issue(tokens: AccessTokens, **changes: object) -> bytes:
    person: dict[str, object] = {
        "user_id": "user-1",
        "email": "ada@example.com",
        "is_admin": False,
        "roles": ("auditor", "analyst"),
        "session": "session-1",
        "session_ends": NOW + 30 * 86_400,
        "version": 3,
    }
    return tokens.issue(**(person | changes)).encode()  # type: ignore[arg-type]


# -- access tokens that hold ------------------------------------------------------------------------------


def test_an_issued_token_says_who_it_was_issued_to() -> None:
    tokens = access_tokens()
    assert tokens.verify(issue(tokens)) == ADA


def test_its_claims_are_those_that_are_documented() -> None:
    header, payload, _ = issue(access_tokens()).split(b".")
    assert json.loads(unb64(header)) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(unb64(payload)) == MINT.access_claims()
    assert b" " not in unb64(payload)  # it is sent with every request


def test_any_other_implementation_agrees() -> None:
    tokens = access_tokens()
    claims = jwt.decode(issue(tokens), ACCESS_SECRET, ["HS256"], issuer=ISSUER, options={"verify_iat": False})
    assert claims["sub"] == "user-1"
    assert tokens.verify(jwt.encode(MINT.access_claims(), ACCESS_SECRET, "HS256").encode()) == ADA
    assert tokens.verify(MINT.access()) == ADA


@pytest.mark.parametrize("header", [{"alg": "HS256"}, {"typ": "JWT", "alg": "HS256"}])
def test_the_header_may_be_shorter_and_in_any_order(header: dict[str, object]) -> None:
    assert access_tokens().verify(MINT.sign(MINT.access_claims(), header=header)) == ADA


def test_unknown_claims_are_ignored() -> None:
    assert access_tokens().verify(MINT.access(jti="x", scope="a b", floor=1.5, nbf=NOW)) == ADA


def test_roles_come_sorted_and_once() -> None:
    assert access_tokens().verify(MINT.access(roles=["b", "a", "b"])).roles == ("a", "b")
    assert access_tokens().verify(MINT.access(roles=[])).roles == ()


def test_an_admin_is_one_who_is_said_to_be() -> None:
    tokens = access_tokens()
    assert tokens.verify(issue(tokens, is_admin=True)).is_admin is True
    assert tokens.verify(issue(tokens, is_admin=False)).is_admin is False


@given(
    email=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    user_id=st.from_regex(r"[!-~]{1,40}", fullmatch=True),
    roles=st.sets(st.from_regex(r"[a-z0-9._:-]{1,64}", fullmatch=True), max_size=5),
    is_admin=st.booleans(),
    version=st.integers(0, 2**63 - 1),
)
def test_whatever_is_issued_is_read_back(
    email: str, user_id: str, roles: set[str], is_admin: bool, version: int
) -> None:
    tokens = access_tokens()
    token = issue(
        tokens,
        email=email,
        user_id=user_id,
        roles=tuple(roles),
        is_admin=is_admin,
        version=version,
    )
    expected = Principal(user_id, email, is_admin, tuple(sorted(roles)), "session-1", version, NOW + TTL)
    assert tokens.verify(token) == expected


# -- and when -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen_before", [True, False])
def test_it_holds_until_its_end_and_the_leeway(seen_before: bool) -> None:
    clock = Watch()
    tokens = access_tokens(clock)
    token = issue(tokens)
    if seen_before:
        tokens.verify(token)
    clock.now = NOW + TTL + LEEWAY - 0.001
    assert tokens.verify(token) == ADA
    clock.now = NOW + TTL + LEEWAY
    for _ in range(2):
        with pytest.raises(InvalidToken):
            tokens.verify(token)


def test_a_clock_ahead_of_ours_is_forgiven_by_the_leeway() -> None:
    assert access_tokens().verify(MINT.access(iat=NOW + 10, exp=NOW + 60)).expires_at == NOW + 60
    with pytest.raises(InvalidToken):
        access_tokens().verify(MINT.access(iat=NOW + 11, exp=NOW + 60))


def test_it_lives_no_longer_than_tokens_live_here_whatever_it_claims() -> None:
    clock = Watch()
    tokens = access_tokens(clock)
    token = MINT.access(exp=NOW + 86400)
    assert tokens.verify(token).expires_at == NOW + TTL
    clock.now = NOW + TTL + LEEWAY
    with pytest.raises(InvalidToken):
        tokens.verify(token)


# -- those that don't hold ----------------------------------------------------------------------------------

FORGED = list(forged_access_tokens())


@pytest.mark.parametrize("token", [token for _, token in FORGED], ids=[what for what, _ in FORGED])
def test_a_forged_token_is_refused_in_the_same_words(token: bytes) -> None:
    with pytest.raises(InvalidToken) as refusal:
        access_tokens().verify(token)
    assert refusal.value.detail == InvalidToken.sentence
    assert refusal.value.__cause__ is None


def test_a_token_may_be_as_long_as_a_header_line_and_no_longer() -> None:
    longest, too_long = MAX_TOKEN_BYTES, MAX_TOKEN_BYTES + 1
    assert access_tokens().verify(MINT.padded(MINT.access_claims(), longest)) == ADA
    with pytest.raises(InvalidToken):
        access_tokens().verify(MINT.padded(MINT.access_claims(), too_long))
    claims = REFRESH_MINT.refresh_claims()
    assert refresh_tokens().verify(REFRESH_MINT.padded(claims, longest).decode()).session == "session-1"
    with pytest.raises(InvalidRefreshToken):
        refresh_tokens().verify(REFRESH_MINT.padded(claims, too_long).decode())


def test_a_version_may_be_as_large_as_a_database_counts_and_no_larger() -> None:
    assert access_tokens().verify(MINT.access(ver=2**63 - 1)).version == 2**63 - 1
    with pytest.raises(InvalidToken):
        access_tokens().verify(MINT.access(ver=2**63))


def test_a_refused_token_is_not_remembered() -> None:
    clock = Watch(NOW - 100)
    tokens = access_tokens(clock)
    token = MINT.access()
    with pytest.raises(InvalidToken):
        tokens.verify(token)
    clock.now = NOW
    assert tokens.verify(token) == ADA


def test_no_byte_can_be_changed() -> None:
    tokens, good = access_tokens(), MINT.access()
    for index in range(len(good)):
        for changed in {good[index] ^ 1, good[index] ^ 0x20, 0x2E, 0x3D, 0x41, 0x00, 0xFF} - {good[index]}:
            forged = good[:index] + bytes([changed]) + good[index + 1 :]
            with pytest.raises(InvalidToken):
                tokens.verify(forged)


def test_no_byte_can_be_left_out_doubled_or_cut_off() -> None:
    tokens, good = access_tokens(), MINT.access()
    for index in range(len(good)):
        for forged in (
            good[:index] + good[index + 1 :],
            good[:index] + good[index : index + 1] + good[index:],
            good[:index],
            good[index + 1 :],
        ):
            with pytest.raises(InvalidToken):
                tokens.verify(forged)


@given(st.data())
def test_parts_of_different_tokens_do_not_mix(data: st.DataObject) -> None:
    parts = [MINT.access().split(b"."), MINT.access(isAdmin=True).split(b"."), MINT.refresh().split(b".")]
    pick = [data.draw(st.integers(0, 2)) for _ in range(3)]
    forged = b".".join(parts[choice][place] for place, choice in enumerate(pick))
    if forged in (MINT.access(), MINT.access(isAdmin=True)):
        return
    with pytest.raises(InvalidToken):
        access_tokens().verify(forged)


@given(st.one_of(st.binary(max_size=300), st.from_regex(rb"[A-Za-z0-9_-]{0,80}(\.[A-Za-z0-9_-]{0,80}){2}")))
def test_noise_is_refused_and_nothing_worse(noise: bytes) -> None:
    with pytest.raises(InvalidToken):
        access_tokens().verify(noise)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@given(name=st.sampled_from(list(MINT.access_claims())), value=JSON)
def test_any_value_in_any_claim_gives_a_sound_principal_or_a_refusal(name: str, value: object) -> None:
    try:
        principal = access_tokens().verify(MINT.access(**{name: value}))
    except InvalidToken:
        return
    assert type(principal.is_admin) is bool
    assert type(principal.version) is int
    assert NOW - LEEWAY < principal.expires_at <= NOW + LEEWAY + TTL
    assert principal.id.isascii()
    assert principal.session.isascii()
    principal.email.encode()


@given(payload=st.binary(max_size=200), header=st.binary(max_size=60))
def test_signed_noise_is_refused_too(payload: bytes, header: bytes) -> None:
    for token in (
        MINT.sign(payload),
        MINT.sign(MINT.access_claims(), header=header),
        MINT.sign(payload, header=header),
    ):
        with pytest.raises(InvalidToken):
            access_tokens().verify(token)


def test_a_public_key_is_no_hmac_secret() -> None:
    """CVE-2022-29217: a verifier that lets the token choose takes its own public key for a shared secret."""
    pem = b"-----BEGIN PUBLIC KEY-----\n" + b64(b"k" * 90) + b"\n-----END PUBLIC KEY-----\n"
    with pytest.raises(ValueError, match="asymmetric"):
        access_tokens(secret=pem)
    with pytest.raises(InvalidToken):
        access_tokens().verify(Mint(pem).sign(MINT.access_claims(), header={"alg": "RS256", "typ": "JWT"}))


# -- the memory of verified tokens --------------------------------------------------------------------------


def count_readings(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    read, seen = SecretKey.read, []

    def counting(self: SecretKey, token: bytes) -> dict[str, object]:
        seen.append(token)
        return read(self, token)

    monkeypatch.setattr(SecretKey, "read", counting)
    return seen


def test_a_token_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, readings = access_tokens(), count_readings(monkeypatch)
    token = MINT.access()
    assert {tokens.verify(bytes(bytearray(token))) for _ in range(5)} == {ADA}
    assert readings == [token]


def test_the_least_recently_used_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, readings = access_tokens(cache_size=2), count_readings(monkeypatch)
    first, second, third = (MINT.access(sid=f"session-{n}") for n in range(3))
    for token in (first, second, first, third, first, second):
        tokens.verify(token)
    assert readings == [first, second, third, second]


def test_an_expired_token_leaves_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Watch()
    tokens, readings = access_tokens(clock), count_readings(monkeypatch)
    token = MINT.access()
    tokens.verify(token)
    clock.now += TTL + LEEWAY
    for _ in range(3):
        with pytest.raises(InvalidToken):
            tokens.verify(token)
    assert len(readings) == 3


def test_other_keys_have_other_memories() -> None:
    token = MINT.access()
    access_tokens().verify(token)
    with pytest.raises(InvalidToken):
        access_tokens(secret=REFRESH_SECRET).verify(token)
    with pytest.raises(InvalidToken):
        access_tokens(issuer="somebody-else").verify(token)


# -- secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_short_secret_is_refused_at_once(length: int) -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        access_tokens(secret=b"k" * length)
    with pytest.raises(ValueError, match="at least 32 bytes"):
        KeySet([ACCESS_SECRET, b"k" * length])


@pytest.mark.parametrize("secret", [b"1" * 32, b"\xff\xfe" * 16, b'"' + b"x" * 30 + b'"', b"[" * 40])
def test_any_long_secret_will_do(secret: bytes) -> None:
    tokens = access_tokens(secret=secret)
    assert tokens.verify(issue(tokens)) == ADA


def test_a_key_does_not_show_its_secret() -> None:
    assert repr(SecretKey(b"k" * 32)) == "<SecretKey HS256, 32 bytes>"


# -- refresh tokens -----------------------------------------------------------------------------------------


def issue_refresh(**changes: object) -> str:
    session: dict[str, object] = {
        "user_id": "user-1",
        "session": "session-1",
        "generation": 0,
        "issued_at": NOW,
        "expires_at": NOW + 7 * 86400,
    }
    return refresh_tokens().issue(**(session | changes))  # type: ignore[arg-type]


def test_a_refresh_token_names_a_session_and_its_generation() -> None:
    expected = RefreshClaims("user-1", "session-1", 4, NOW, NOW + 7 * 86400)
    assert refresh_tokens().verify(issue_refresh(generation=4)) == expected


def test_it_says_nothing_about_a_person() -> None:
    payload = json.loads(unb64(issue_refresh().encode().split(b".")[1]))
    assert payload == REFRESH_MINT.refresh_claims()


def test_the_same_generation_is_the_same_token() -> None:
    assert issue_refresh() == issue_refresh()
    assert len({issue_refresh(generation=n) for n in range(5)}) == 5
    assert issue_refresh(session="session-2") != issue_refresh()


def test_each_token_is_refused_in_the_others_place() -> None:
    tokens = access_tokens()
    with pytest.raises(InvalidToken):
        tokens.verify(issue_refresh().encode())
    with pytest.raises(InvalidRefreshToken):
        refresh_tokens().verify(issue(tokens).decode())


def test_even_under_one_secret() -> None:
    shared = RefreshTokens(keys=KeySet([ACCESS_SECRET]), issuer=ISSUER, leeway=LEEWAY, clock=Watch())
    refresh = shared.issue(user_id="u", session="s", generation=0, issued_at=NOW, expires_at=NOW + 60)
    with pytest.raises(InvalidToken):
        access_tokens().verify(refresh.encode())
    with pytest.raises(InvalidRefreshToken):
        shared.verify(issue(access_tokens()).decode())


def test_an_expired_one_is_good_for_logout_only() -> None:
    old = issue_refresh(issued_at=NOW - 8 * 86400, expires_at=NOW - 86400)
    with pytest.raises(InvalidRefreshToken):
        refresh_tokens().verify(old)
    assert refresh_tokens().verify(old, allow_expired=True).session == "session-1"


def test_a_refresh_token_holds_until_its_end_and_the_leeway() -> None:
    clock = Watch(NOW + 7 * 86400 + LEEWAY - 0.001)
    assert refresh_tokens(clock).verify(issue_refresh()).generation == 0
    clock.now += 0.001
    with pytest.raises(InvalidRefreshToken):
        refresh_tokens(clock).verify(issue_refresh())


@pytest.mark.parametrize("allow_expired", [True, False])
def test_forged_access_tokens_are_no_refresh_tokens_either(allow_expired: bool) -> None:
    tokens = refresh_tokens()
    for what, token in FORGED:
        if what == "a refresh token":
            continue
        with pytest.raises(InvalidRefreshToken) as refusal:
            tokens.verify(token.decode("latin-1"), allow_expired=allow_expired)
        assert refusal.value.detail == InvalidRefreshToken.sentence, what


@pytest.mark.parametrize("name", list(REFRESH_MINT.refresh_claims()))
@pytest.mark.parametrize("value", [..., None, "", True, -1, 1.5, [], {}, "é", "\ud800", 10**400])
def test_every_claim_of_a_refresh_token_is_checked(name: str, value: object) -> None:
    with pytest.raises(InvalidRefreshToken):
        refresh_tokens().verify(REFRESH_MINT.refresh(**{name: value}).decode(), allow_expired=True)


@given(st.text(st.characters(), max_size=300))
def test_noise_for_a_refresh_token_is_refused(noise: str) -> None:
    with pytest.raises(InvalidRefreshToken):
        refresh_tokens().verify(noise)
