"""The guide on several files: its example is right, passes its own tests, and gives what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import include, source
from gateway.config.load import Loaded, load
from gateway.config.schema import Defaults, Route
from gateway.policy.compile import compile_policy, compile_tests
from gateway.policy.model import Policy
from gateway.policy.prove import prove

from .conftest import SECRETS

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "splitting-rules.md").read_text()


@pytest.fixture
def example(folder: Path) -> Loaded:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    for part in block.split("---\n"):
        file = folder / part.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(part)
    return load(Path("gateway.yaml"), environ=SECRETS)


def compiled(found: Loaded) -> Policy:
    assert found.config is not None, found.problems
    assert found.problems == ()
    policy, problems = compile_policy(found.config, found.places)
    assert policy is not None, problems
    assert problems == []
    return policy


def test_the_example_passes_its_own_tests(example: Loaded) -> None:
    policy = compiled(example)
    assert example.config is not None
    results = prove(policy, compile_tests(example.config, example.places), now=0.0)
    assert len(results) == 4
    assert [result.complaint for result in results if not result.passed] == []


def test_the_export_takes_longer_and_keeps_its_limit(example: Loaded) -> None:
    policy = compiled(example)
    timeouts = {str(route.pattern): route.timeout for route in policy.routes}
    assert timeouts == {"/health": 30, "/shop/**": 30, "/shop/export/**": 300, "/admin/**": 30}
    assert policy.default.timeout == 30
    for route in (*policy.routes, policy.default):
        assert route.rate_limit is not None
        assert route.rate_limit.per_user is not None
        assert route.rate_limit.per_user.amount == 600


def test_the_bounds_are_the_real_ones() -> None:
    files, one, together = (include.MAX_FILES, source.MAX_BYTES >> 20, include.MAX_CHARACTERS >> 20)
    told = f"At most {files} files can be included, of {one} MiB each and {together} MiB together"
    assert told in " ".join(GUIDE.split())


def test_the_guide_names_every_setting_of_the_defaults() -> None:
    below = GUIDE.partition("## For all rules at once")[2]
    assert all(f"`{name}`" in below for name in Defaults.model_fields)
    own = {"path", "methods", "hosts", "allow", "strip_prefix", "valid", "trust_host", "report_only"}
    assert set(Route.model_fields) == own | set(Defaults.model_fields)
