"""Several keys that verify and one that signs: whose tokens hold, whose don't, and from when."""

from __future__ import annotations

import json
from math import inf

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRefreshToken, InvalidToken
from gateway.identity.keys import MAX_TOKEN_BYTES, Unreadable
from gateway.identity.keyset import KeySet
from gateway.identity.pem import ALGORITHMS
from gateway.identity.tokens import AccessTokens, RefreshTokens
from tests.support.keys import P256_ORDER, KeyMint, forged_key_tokens, key_set
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

ONES = [KeyMint(kid="one", algorithm=algorithm) for algorithm in ALGORITHMS]
TWO = KeyMint(kid="two", algorithm="ES256")


class Watch:
    """A clock that is moved by hand."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def access_tokens(keys: KeySet, clock: Watch | None = None) -> AccessTokens:
    return AccessTokens(keys=keys, issuer=ISSUER, ttl=TTL, leeway=LEEWAY, clock=clock or Watch())


def issue(tokens: AccessTokens) -> bytes:
    return tokens.issue(
        user_id="user-1",
        email="ada@example.com",
        is_admin=False,
        roles=("auditor", "analyst"),
        session="session-1",
        version=3,
        session_ends=NOW + 86400,
    ).encode()


def header_of(token: bytes) -> dict[str, object]:
    return dict(json.loads(unb64(token.split(b".")[0])))


def refused(tokens: AccessTokens, token: bytes) -> bool:
    """Always in the same words."""
    try:
        tokens.verify(token)
    except InvalidToken as error:
        return (error.detail, error.__cause__) == (InvalidToken.sentence, None)
    return False


# -- tokens of key pairs that hold ---------------------------------------------------------------------------


@pytest.mark.parametrize("one", ONES, ids=ALGORITHMS)
def test_an_issued_token_names_its_key_and_is_read_back(one: KeyMint) -> None:
    tokens = access_tokens(key_set(one))
    token = issue(tokens)
    assert header_of(token) == {"alg": one.algorithm, "kid": "one", "typ": "JWT"}
    assert json.loads(unb64(token.split(b".")[1])) == one.access_claims()
    assert tokens.verify(token) == tokens.verify(one.access())
    assert tokens.verify(token).email == "ada@example.com"


@pytest.mark.parametrize("one", ONES, ids=ALGORITHMS)
def test_any_other_implementation_agrees(one: KeyMint) -> None:
    tokens = access_tokens(key_set(one))
    published = jwt.PyJWKSet.from_dict({"keys": tokens.published()})
    options: dict[str, object] = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(issue(tokens), published["one"], [one.algorithm], issuer=ISSUER, options=options)  # type: ignore[arg-type]
    assert claims["sub"] == "user-1"
    signed = jwt.encode(one.access_claims(), one.private, one.algorithm, headers={"kid": "one"})
    assert tokens.verify(signed.encode()).id == "user-1"


@pytest.mark.parametrize("one", ONES, ids=ALGORITHMS)
def test_what_is_published_is_the_public_half_alone(one: KeyMint) -> None:
    (jwk,) = access_tokens(key_set(one, secrets=(ACCESS_SECRET,))).published()
    members = {"ES256": {"crv", "x", "y"}, "EdDSA": {"crv", "x"}, "RS256": {"n", "e"}}[one.algorithm]
    assert jwk.keys() == {"kid", "use", "alg", "kty"} | members
    assert (jwk["kid"], jwk["use"], jwk["alg"]) == ("one", "sig", one.algorithm)


def test_coordinates_are_written_in_full_length() -> None:
    """RFC 7518 §6.2.1.2: a leading zero byte stays; one key in 128 has one."""
    for number in range(2000):
        jwk = KeyMint(kid=f"short {number}", algorithm="ES256").key.jwk
        raw = [unb64(jwk[name].encode()) for name in ("x", "y")]
        assert [len(each) for each in raw] == [32, 32]
        if any(each[0] == 0 for each in raw):
            return
    raise AssertionError("no such key in 2000")


def test_high_and_low_signatures_are_the_same_token_to_us() -> None:
    """ECDSA has two signatures of everything, (r, s) and (r, n - s). The session counts, not the text."""
    one = ONES[0]
    tokens = access_tokens(key_set(one))
    token = one.access()
    signed, _, signature = token.rpartition(b".")
    r, s = unb64(signature)[:32], int.from_bytes(unb64(signature)[32:])
    other = signed + b"." + b64(r + (P256_ORDER - s).to_bytes(32))
    assert other != token
    assert tokens.verify(other) == tokens.verify(token)


def test_secrets_publish_nothing() -> None:
    assert access_tokens(KeySet([ACCESS_SECRET])).published() == []


@pytest.mark.parametrize("kid", ["k", "ke", "key", "key-", "key-5"])
def test_a_key_may_have_a_name_of_any_length(kid: str) -> None:
    named = KeyMint(kid=kid, algorithm="ES256")
    tokens = access_tokens(key_set(named, TWO))
    assert tokens.verify(named.access()) == tokens.verify(issue(access_tokens(key_set(named))))


def test_a_token_of_a_key_may_be_as_long_as_any_other() -> None:
    longest = TWO.padded(TWO.access_claims(), MAX_TOKEN_BYTES)
    assert access_tokens(key_set(TWO)).verify(longest).id == "user-1"


# -- and those that don't ------------------------------------------------------------------------------------

FORGED = [(one.algorithm, what, token) for one in ONES for what, token in forged_key_tokens(one)]


@pytest.mark.parametrize("secrets", [(), (ACCESS_SECRET,)], ids=["keys", "keys and a secret"])
@pytest.mark.parametrize("one", ONES, ids=ALGORITHMS)
def test_a_forged_token_is_refused_in_the_same_words(one: KeyMint, secrets: tuple[bytes, ...]) -> None:
    tokens = access_tokens(key_set(one, TWO, secrets=secrets))
    tokens.verify(one.access())
    held = [
        what for algorithm, what, token in FORGED if algorithm == one.algorithm and not refused(tokens, token)
    ]
    assert held == []


@pytest.mark.parametrize("one", ONES, ids=ALGORITHMS)
def test_no_token_of_a_secret_is_one_of_a_key(one: KeyMint) -> None:
    tokens = access_tokens(key_set(one))
    held = [what for what, token in forged_access_tokens() if not refused(tokens, token)]
    assert held == []
    assert refused(tokens, Mint().access())


def test_forged_tokens_of_the_secret_stay_refused_beside_keys() -> None:
    tokens = access_tokens(key_set(*ONES[:1], secrets=(ACCESS_SECRET,)))
    assert tokens.verify(Mint().access()).id == "user-1"
    assert [what for what, token in forged_access_tokens() if not refused(tokens, token)] == []


def test_one_key_under_two_names_reads_only_what_names_it() -> None:
    claims = TWO.access_claims()
    assert TWO.key.read(TWO.sign(claims))
    with pytest.raises(Unreadable):
        TWO.key.read(TWO.sign(claims, header={**TWO.header, "kid": "one"}))


@given(where=st.integers(0, 10_000), bit=st.integers(0, 7), which=st.sampled_from(range(3)))
def test_no_bit_can_be_changed(where: int, bit: int, which: int) -> None:
    one = ONES[which]
    tokens, good = access_tokens(key_set(one)), one.access()
    index = where % len(good)
    forged = good[:index] + bytes([good[index] ^ (1 << bit)]) + good[index + 1 :]
    assert refused(tokens, forged)


@given(signature=st.binary(max_size=600), which=st.sampled_from(range(3)))
def test_no_noise_is_a_signature(signature: bytes, which: int) -> None:
    one = ONES[which]
    signed = one.access().rpartition(b".")[0]
    assert refused(access_tokens(key_set(one)), signed + b"." + b64(signature))


@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "jwk"]), st.text(max_size=6) | st.none() | st.integers()
    )
)
def test_only_the_right_header_chooses_a_key(header: dict[str, object]) -> None:
    right = header.get("alg") == "ES256" and header.get("kid") == "one" and header.get("typ", "JWT") == "JWT"
    token = ONES[0].sign(ONES[0].access_claims(), header=header)
    assert refused(access_tokens(key_set(ONES[0])), token) != (right and "jwk" not in header)


# -- who signs, and until when a key is one ------------------------------------------------------------------


def test_the_latest_whose_time_has_come_signs() -> None:
    clock = Watch()
    one, two = ONES[0], TWO
    keys = KeySet([ACCESS_SECRET], [one.dated(NOW + 10), two.dated(NOW + 20)])
    tokens = access_tokens(keys, clock)
    signed: list[object] = []
    for clock.now in (NOW, NOW + 9.9, NOW + 10, NOW + 19.9, NOW + 20, NOW + 1000):
        token = issue(tokens)
        assert tokens.verify(token).id == "user-1"
        signed.append(header_of(token).get("kid"))
    assert signed == [None, None, "one", "one", "two", "two"]


def test_a_key_verifies_before_it_signs() -> None:
    tokens = access_tokens(KeySet([ACCESS_SECRET], [TWO.dated(inf)]))
    assert tokens.verify(TWO.access()).id == "user-1"
    assert "kid" not in header_of(issue(tokens))
    assert [jwk["kid"] for jwk in tokens.published()] == ["two"]


def test_a_retired_key_ends_to_the_second_whether_its_token_was_seen_before_or_not() -> None:
    for seen_before in (True, False):
        clock = Watch()
        tokens = access_tokens(KeySet(keys=[ONES[0].dated(0, verifies_until=NOW + 30), TWO.dated(1)]), clock)
        token = ONES[0].access()
        if seen_before:
            tokens.verify(token)
        clock.now = NOW + 29.9
        assert tokens.verify(token).id == "user-1"
        assert [jwk["kid"] for jwk in tokens.published()] == ["one", "two"]
        clock.now = NOW + 30
        assert refused(tokens, token)
        assert refused(tokens, token)
        assert [jwk["kid"] for jwk in tokens.published()] == ["two"]


def test_the_memory_of_verified_tokens_dies_with_its_keys() -> None:
    one, two = ONES[0], TWO
    tokens = access_tokens(key_set(one, two))
    token = one.access()
    tokens.verify(token)
    tokens.adopt(key_set(two))
    assert refused(tokens, token)
    assert tokens.verify(two.access()).id == "user-1"
    tokens.adopt(key_set(one, two))
    assert tokens.verify(token).id == "user-1"


def test_keys_change_beside_the_secrets_that_stay() -> None:
    former = KeySet([ACCESS_SECRET], [ONES[0].dated()])
    tokens = access_tokens(former.with_keys([TWO.dated()]))
    assert tokens.verify(Mint().access()) == tokens.verify(TWO.access())
    assert refused(tokens, ONES[0].access())
    assert access_tokens(former).verify(ONES[0].access()).id == "user-1"


def test_a_key_signs_nothing_that_it_could_not_verify() -> None:
    clock = Watch()
    tokens = access_tokens(KeySet([ACCESS_SECRET], [TWO.dated(0, verifies_until=NOW + 30)]), clock)
    signed: list[object] = []
    for clock.now in (NOW + 29, NOW + 30):
        signed.append(header_of(issue(tokens)).get("kid"))
    assert signed == ["two", None]


def test_where_no_key_signs_none_is_made_up() -> None:
    with pytest.raises(LookupError):
        issue(access_tokens(KeySet(keys=[TWO.dated(inf)])))


# -- several secrets -----------------------------------------------------------------------------------------

FORMER = b"a former secret of the tests-0123456789abcdef"


def test_former_secrets_verify_and_the_first_signs() -> None:
    tokens = access_tokens(KeySet([ACCESS_SECRET, FORMER]))
    assert tokens.verify(Mint(FORMER).access()) == tokens.verify(Mint(ACCESS_SECRET).access())
    assert access_tokens(KeySet([ACCESS_SECRET])).verify(issue(tokens)).id == "user-1"
    assert refused(access_tokens(KeySet([FORMER])), issue(tokens))
    assert refused(tokens, Mint(REFRESH_SECRET).access())


def test_a_refresh_token_outlives_the_change_of_its_secret() -> None:
    session: dict[str, object] = {"user_id": "u", "session": "s", "generation": 4, "issued_at": NOW}
    before, after, at_last = (
        RefreshTokens(keys=KeySet(secrets), issuer=ISSUER, leeway=LEEWAY, clock=Watch())
        for secrets in ([FORMER], [REFRESH_SECRET, FORMER], [REFRESH_SECRET])
    )
    old, new = (each.issue(**session, expires_at=NOW + 60) for each in (before, after))  # type: ignore[arg-type]
    assert old != new
    assert after.verify(old) == after.verify(new) == at_last.verify(new)
    with pytest.raises(InvalidRefreshToken):
        at_last.verify(old)


def test_a_set_shows_no_secret() -> None:
    shown = repr(KeySet([ACCESS_SECRET], [ONES[0].dated()]))
    assert shown == f"<KeySet [<SecretKey HS256, {len(ACCESS_SECRET)} bytes>, <PrivateKey ES256 one>]>"
