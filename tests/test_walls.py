"""Every wall between the rooms holds, and would be noticed if it were broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BREACHES = {
    "layers": ("gateway/errors.py", "import gateway.http.head"),
    "circles": ("gateway/config/values.py", "import gateway.config.load"),
    "pure": ("gateway/policy/decide.py", "import sqlalchemy"),
    "hot-path": ("gateway/proxy/gate.py", "import starlette.requests"),
    "database": ("gateway/web/auth.py", "import bcrypt"),
    "config": ("gateway/proxy/gate.py", "import gateway.config.schema"),
    "store": ("gateway/web/auth.py", "import gateway.accounts.store"),
}


def lint(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [tool, "--no-cache", "--contract", contract], cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_wall_has_a_breach_here() -> None:
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == set(BREACHES)


@pytest.mark.parametrize("contract", BREACHES)
def test_a_breach_is_noticed(contract: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gateway", tmp_path / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file, breach = BREACHES[contract]
    with (tmp_path / file).open("a") as module:
        module.write(f"\n{breach}\n")
    found = lint(tmp_path, contract)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "BROKEN" in found.stdout
    assert breach.removeprefix("import ").split(".")[0] in found.stdout


def test_a_stray_module_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gateway", tmp_path / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "gateway" / "utils.py").write_text("")
    found = lint(tmp_path, "layers")
    assert found.returncode == 1
    assert "gateway.utils" in found.stdout
