"""The JSON Schema of `gateway.yaml`, for editors: what `gateway schema` prints."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from .fields import FILLED_PATTERN
from .schema import Config

_NOTES = ("title", "description", "default", "examples")
"""Keys that say something about a value and restrict nothing."""
FILLED = {"type": "string", "pattern": FILLED_PATTERN}
"""A value that comes from a variable or a file."""


def json_schema() -> dict[str, Any]:
    """The whole schema. A `${…}` is valid wherever a value is, as it is in the file."""
    schema = Config.model_json_schema(schema_generator=_Generator)
    opened: dict[str, Any] = _opened(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **opened,
        "title": "gateway.yaml",
        "anyOf": [{"required": ["upstream"]}, {"required": ["upstreams"]}],
    }


class _Generator(GenerateJsonSchema):
    """Without titles made up from names: ours say what kind of value it is."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        """None means "not given"; the file never says so."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        described = super().default_schema(schema)
        if described.get("default") in (None, {}, []):
            described.pop("default", None)
        return described


def _opened(schema: Any) -> Any:
    """The schema with `${…}` allowed for every value that it would refuse."""
    if isinstance(schema, list):
        return [_opened(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if _is_strict_value(schema):
        notes = {key: value for key, value in schema.items() if key in _NOTES}
        rest = {key: value for key, value in schema.items() if key not in _NOTES}
        return {**notes, "anyOf": [*rest.pop("anyOf", [rest]), FILLED]}
    return {key: value if key in _NOTES else _opened(value) for key, value in schema.items()}


def _is_strict_value(schema: dict[str, Any]) -> bool:
    """A scalar that not every text is."""
    if "anyOf" in schema:
        return all("pattern" in each or each.get("type") == "integer" for each in schema["anyOf"])
    kind = schema.get("type")
    return "enum" in schema or kind in ("integer", "boolean") or (kind == "string" and "pattern" in schema)
