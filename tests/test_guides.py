"""The guides do what they say: each block of their shells is run, and prints what stands below it."""

from __future__ import annotations

from pathlib import Path

from tests.support.notebook import Cell, cells, environment, play
from tests.support.process import free_port

ROOT = Path(__file__).parents[1]
TEN_MINUTES = ROOT / "docs" / "guides" / "no-auth-to-proven-rules.md"


def test_from_no_auth_to_proven_rules(tmp_path: Path) -> None:
    here = [on_free_ports(cell) for cell in cells(TEN_MINUTES)]
    for printed in play(here, tmp_path, environment(tmp_path, ROOT)):
        assert printed.as_told, (
            f"{printed.cell.commands}\nprints\n{printed.text}\nand not\n{printed.cell.told}"
        )


PORTS = {f":{port}": f":{free_port()}" for port in (8080, 9090, 5000)}


def on_free_ports(cell: Cell) -> Cell:
    """The same, where nobody else listens."""
    commands, told = cell.commands.replace("--port 5000", f"--port {PORTS[':5000'][1:]}"), cell.told
    for written, free in PORTS.items():
        commands, told = commands.replace(written, free), told and told.replace(written, free)
    return Cell(commands, told)
