"""`gateway schema`: what an editor needs to complete and check gateway.yaml while it is written."""

from __future__ import annotations

import json

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of gateway.yaml.

    Editors complete and check the file with it. It knows single settings; what they mean
    together is what `gateway check` knows.

    \b
    Example:
      gateway schema > gateway.schema.json
      # and in the first line of gateway.yaml:
      # yaml-language-server: $schema=gateway.schema.json
    """
    from gateway.config.json_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
