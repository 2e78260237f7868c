from __future__ import annotations

import json

from gateway.config.json_schema import json_schema
from tests.cli.conftest import Command


def test_it_is_the_schema_of_the_loader(gateway: Command) -> None:
    result = gateway("schema")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == json_schema()
