"""The public keys, for backends that verify access tokens themselves."""

from __future__ import annotations

from collections.abc import Iterator

import jsonschema
import jwt
import pytest

from gateway.web.openapi import describe
from tests.support.keys import KeyMint, key_set
from tests.web.conftest import World

pytestmark = pytest.mark.anyio

SCHEMA = describe("/auth")["components"]["schemas"]["Key"]


@pytest.fixture
def mints() -> list[KeyMint]:
    return [KeyMint(kid=f"key-{name}", algorithm=name) for name in ("ES256", "EdDSA", "RS256")]


def members(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for each in value.values():
            yield from members(each)
    elif isinstance(value, list):
        for each in value:
            yield from members(each)


async def test_secrets_have_no_public_half(world: World) -> None:
    answer = await world.http.get("/auth/jwks.json")
    assert (answer.status_code, answer.json()) == (200, {"keys": []})


async def test_every_key_is_there_and_only_its_public_half(world: World, mints: list[KeyMint]) -> None:
    world.access.adopt(key_set(*mints, secrets=(b"a secret that nobody may see, 0123456789",)))
    answer = await world.http.get("/auth/jwks.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert [key["kid"] for key in answer.json()["keys"]] == [mint.kid for mint in mints]
    for key in answer.json()["keys"]:
        jsonschema.Draft202012Validator(SCHEMA).validate(key)
    private = {"d", "p", "q", "dp", "dq", "qi", "oth", "k", "key_ops"}
    assert private.isdisjoint(members(answer.json()))


@pytest.mark.parametrize("signer", range(3))
async def test_a_backend_verifies_with_it_whichever_key_signs(
    world: World, mints: list[KeyMint], signer: int
) -> None:
    world.access.adopt(key_set(*mints[signer + 1 :], *mints[: signer + 1]))
    token = (await world.log_in())["accessToken"]
    keys = jwt.PyJWKSet.from_dict((await world.http.get("/auth/jwks.json")).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(
        token,
        key,
        [mints[signer].algorithm],
        issuer="gateway",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["email"] == "ada@example.com"
    answer = await world.http.get("/auth/me", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200


async def test_a_key_that_is_gone_takes_its_tokens_along(world: World, mints: list[KeyMint]) -> None:
    world.access.adopt(key_set(*mints[:2]))
    bearer = await world.bearer()
    assert (await world.http.get("/auth/me", headers=bearer)).status_code == 200
    world.access.adopt(key_set(mints[0]))
    assert (await world.http.get("/auth/me", headers=bearer)).status_code == 401
