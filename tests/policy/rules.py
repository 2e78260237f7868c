"""Policies for tests, out of a few lines of YAML as an owner would write them."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gateway.config.load import Loaded, load
from gateway.config.source import Problem
from gateway.identity.principal import LOGIN, Principal, Reach
from gateway.policy.compile import compile_policy
from gateway.policy.model import Policy

TOKENS = {
    "access": {"secret": "k3Jx9vQ2mZ7pL0sT4wY8bN1cR5dF6gH-aE"},
    "refresh": {"secret": "Zq8Wx1Ec5Rv3Tb7Yn2Um9Ik4Ol6Pp0As-dG"},
}


def loaded(settings: dict[str, Any]) -> Loaded:
    """The configuration with these settings, which must be valid."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "gateway.yaml")
        file.write_text(yaml.safe_dump({"tokens": TOKENS, **settings}, sort_keys=False, allow_unicode=True))
        result = load(file, environ={})
    assert result.config is not None, [str(problem) for problem in result.problems]
    return result


def compiled(settings: dict[str, Any]) -> tuple[Policy | None, list[Problem]]:
    result = loaded(settings)
    assert result.config is not None
    return compile_policy(result.config, result.places)


@cache
def policy(text: str) -> Policy:
    """The policy of `routes:` and whatever else is in `text`."""
    settings = {"upstream": "http://127.0.0.1:9000", **yaml.safe_load(text)}
    if "upstreams" in settings:
        del settings["upstream"]
        settings["upstreams"] = {
            name: {"url": f"http://127.0.0.1:{9100 + index}"}
            for index, name in enumerate(settings["upstreams"])
        }
    built, problems = compiled(settings)
    assert built is not None, [str(problem) for problem in problems]
    return built


def person(
    *,
    admin: bool = False,
    roles: tuple[str, ...] = (),
    email: str = "user@example.com",
    scopes: tuple[str, ...] = (LOGIN,),
    reach: Reach | None = None,
) -> Principal:
    return Principal("7", email, admin, roles, "s", 1, 2**40, scopes, reach)


USER = person()
ADMIN = person(admin=True, email="admin@example.com")
