"""The files that people copy, and the documents that are generated: all true, all fresh."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.config.json_schema import json_schema
from gateway.config.load import load
from gateway.config.reference import reference, settings

from .conftest import ACCESS, REFRESH, SECRETS

ROOT = Path(__file__).parents[2]
FILES = ("gateway.yaml", "config/minimal.yaml", "config/sidecar.yaml", "config/full.yaml")
ENVIRON = SECRETS | {"PUBLIC_URL": "https://app.example.com", "DATABASE_URL": "postgresql://u@h/d"}


class EditorLoader(yaml.SafeLoader):
    """Editors read YAML 1.2, where a date is text (its core schema, § 10.3.2, knows no times)."""


EditorLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_valid(name: str, tmp_path: Path) -> None:
    text = (ROOT / name).read_text().replace("/run/secrets/gateway", str(tmp_path))
    (tmp_path / "jwt_access").write_text(f"{ACCESS}\n")
    (tmp_path / "jwt_refresh").write_text(f"{REFRESH}\n")
    (tmp_path / "gateway.yaml").write_text(text)
    found = load(tmp_path / "gateway.yaml", environ=ENVIRON)
    assert found.problems == ()
    assert found.config is not None


@pytest.mark.parametrize("name", FILES)
def test_an_editor_finds_nothing_either(name: str) -> None:
    text = (ROOT / name).read_text()
    written = yaml.load(text, Loader=EditorLoader)
    jsonschema.validate(written, json_schema(), jsonschema.Draft202012Validator)
    schema = text.partition("$schema=")[2].split()[0]
    assert ((ROOT / name).parent / schema).resolve() == ROOT / "config" / "gateway.schema.json"


def test_the_smallest_file_listens_where_the_environment_says() -> None:
    found = load(ROOT / "gateway.yaml", environ=SECRETS | {"GATEWAY_LISTEN": "0.0.0.0:80"})
    assert found.config is not None
    assert str(found.config.server.listen[0]) == "0.0.0.0:80"


def test_the_full_file_has_every_setting() -> None:
    written = set(_paths(yaml.safe_load((ROOT / "config" / "full.yaml").read_text()), ""))
    assert {path for path, _ in settings()} - written == set()


def test_every_setting_is_described() -> None:
    for path, described in settings():
        assert described.get("description") or "$ref" in described, path


def test_the_schema_file_is_fresh() -> None:
    stored = json.loads((ROOT / "config" / "gateway.schema.json").read_text())
    assert stored == json_schema(), "run: gateway schema > config/gateway.schema.json"


def test_the_reference_is_fresh() -> None:
    stored = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    command = "python -m gateway.config.reference > docs/reference/configuration.md"
    assert stored == reference(), f"run: {command}"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"upstream": "http://a"},
        {"tokens": {}, "upstream": "http://a"},
        {"default": "public"},
        {"routes": [{"path": "/x"}]},
        {"routes": [{"path": "/x", "allow": "everyone"}]},
        {"routes": [{"path": "/x", "allow": {"role": []}}]},
        {"server": {"limits": {"header_count": "many"}}},
        {"server": {"timeouts": {"drain": 5}}},
        {"zzz": 1},
    ],
)
def test_an_editor_finds_simple_mistakes(wrong: dict[str, Any]) -> None:
    tokens = {"access": {"secret": "x"}, "refresh": {"secret": "y"}}
    valid = {"upstream": "http://a", "tokens": tokens}
    candidate = wrong if not wrong or "upstream" in wrong else valid | wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(candidate, json_schema(), jsonschema.Draft202012Validator)


def _paths(data: Any, path: str) -> Any:
    """Every path of a file in the reference's notation; names of upstreams are NAME."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            below = f"{path}.{'NAME' if path == 'upstreams' else key}".removeprefix(".")
            yield below
            yield from _paths(value, below)
    elif isinstance(data, list):
        for item in data:
            yield from _paths(item, f"{path}[]")
