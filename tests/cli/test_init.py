from __future__ import annotations

import os
import re
import stat
from importlib.resources import files
from pathlib import Path

import pytest

from gateway.cli.init import SECRETS
from gateway.config.dotenv import read_dotenv
from gateway.config.load import load
from tests.cli.conftest import Command, Result

ROOT = Path(__file__).parent.parent.parent


def secrets_in(path: Path) -> dict[str, str]:
    variables, problems = read_dotenv(path)
    assert problems == []
    return variables


def test_a_first_start_is_two_files_that_pass_their_own_tests(gateway: Command, folder: Path) -> None:
    assert gateway("init").code == 0
    assert sorted(path.name for path in folder.iterdir()) == [".env", "gateway.yaml"]
    assert load(folder / "gateway.yaml").problems == ()
    checked = gateway("check")
    assert (checked.code, checked.err) == (0, "")
    assert "gateway.yaml: no mistakes, 8 tests passed" in checked.out


def test_secrets_are_long_different_private_and_shown_nowhere(gateway: Command, folder: Path) -> None:
    result = gateway("init")
    made = secrets_in(folder / ".env")
    assert set(made) == set(SECRETS)
    assert len(set(made.values())) == 2
    assert all(re.fullmatch(r"[\w-]{64}", value) for value in made.values())
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    for value in made.values():
        assert value not in result.out + result.err
        assert value not in (folder / "gateway.yaml").read_text()


def test_two_places_get_two_sets_of_secrets(gateway: Command, folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    gateway("init", "-c", "a/gateway.yaml")
    gateway("init", "-c", "b/gateway.yaml")
    assert not set(secrets_in(folder / "a/.env").values()) & set(secrets_in(folder / "b/.env").values())


def test_the_mode_does_not_depend_on_the_umask(gateway: Command, folder: Path) -> None:
    before = os.umask(0)
    try:
        gateway("init")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "gateway.yaml").stat().st_mode) == 0o644


def test_what_is_there_stays_to_the_byte(gateway: Command, folder: Path) -> None:
    (folder / "gateway.yaml").write_text("mine")
    gateway("init")
    before = (folder / ".env").read_bytes()
    result = gateway("init")
    assert result.code == 0
    assert "gateway.yaml is there already, left as it is" in result.out
    assert ".env is there already and has the secrets, left as it is" in result.out
    assert (folder / "gateway.yaml").read_text() == "mine"
    assert (folder / ".env").read_bytes() == before


class TestAnEnvThatIsThereAlready:
    @pytest.fixture
    def init_with(self, gateway: Command, folder: Path) -> Command:
        def command(text: str, mode: int = 0o600) -> Result:
            (folder / ".env").write_text(text)
            (folder / ".env").chmod(mode)
            return gateway("init")

        return command

    @pytest.mark.parametrize("before", ["", "OTHER=1\n", "OTHER=1", "# JWT_ACCESS_SECRET=no\nOTHER=1\n"])
    def test_gets_what_it_lacks_at_its_end(self, init_with: Command, folder: Path, before: str) -> None:
        result = init_with(before)
        assert "added to .env, now readable by you alone: JWT_ACCESS_SECRET, JWT_REFRESH_SECRET" in result.out
        assert (folder / ".env").read_text().startswith(before)
        assert set(SECRETS) <= set(secrets_in(folder / ".env"))

    @pytest.mark.parametrize("mine", ["JWT_ACCESS_SECRET=mine", "export JWT_ACCESS_SECRET='mine'"])
    def test_keeps_the_secret_it_has(self, init_with: Command, folder: Path, mine: str) -> None:
        result = init_with(mine + "\n")
        assert "now readable by you alone: JWT_REFRESH_SECRET\n" in result.out
        assert secrets_in(folder / ".env")["JWT_ACCESS_SECRET"] == "mine"

    def test_an_empty_secret_is_none(self, init_with: Command, folder: Path) -> None:
        init_with("JWT_ACCESS_SECRET=\n")
        assert len(secrets_in(folder / ".env")["JWT_ACCESS_SECRET"]) == 64

    def test_is_closed_to_others_before_a_secret_goes_in(self, init_with: Command, folder: Path) -> None:
        init_with("OTHER=1\n", 0o644)
        assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600

    def test_an_open_one_that_is_complete_gets_a_warning(self, init_with: Command, folder: Path) -> None:
        result = init_with("JWT_ACCESS_SECRET=a\nJWT_REFRESH_SECRET=b\n", 0o640)
        assert result.err == "warning: other users of this machine can read .env: chmod 600 .env\n"
        assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o640

    def test_one_that_cannot_be_read_is_not_added_to(self, init_with: Command, folder: Path) -> None:
        result = init_with("this is no assignment\n")
        assert result.code == 1
        assert ".env:1:1" in result.err
        assert (folder / ".env").read_text() == "this is no assignment\n"


def test_next_steps_name_the_file_that_was_written(gateway: Command, folder: Path) -> None:
    (folder / "deploy").mkdir()
    assert "gateway run -c deploy/site.yaml" in gateway("init", "-c", "deploy/site.yaml").out
    assert "gateway run\n" in gateway("init").out


def test_the_variable_names_the_file_too(
    gateway: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", "other.yaml")
    gateway("init")
    assert (folder / "other.yaml").exists()


def test_a_folder_that_is_not_there(gateway: Command) -> None:
    result = gateway("init", "-c", "nowhere/gateway.yaml")
    assert (result.code, result.err) == (1, "Error: nowhere/gateway.yaml: No such file or directory\n")


def test_a_full_disk_leaves_no_half_of_a_file(
    gateway: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    result = gateway("init")
    assert (result.code, result.err) == (1, "Error: No space left on device\n")
    assert list(folder.iterdir()) == []


def test_a_dangling_link_is_not_followed(gateway: Command, folder: Path) -> None:
    (folder / "gateway.yaml").symlink_to("elsewhere.yaml")
    assert "gateway.yaml is there already" in gateway("init").out
    assert not (folder / "elsewhere.yaml").exists()


def test_the_template_is_the_file_at_the_root_of_the_project() -> None:
    template = files("gateway.cli") / "templates" / "gateway.yaml"
    first, _, rest = (ROOT / "gateway.yaml").read_text().partition("\n")
    assert first.startswith("# yaml-language-server: ")  # of use only where the schema lies beside it
    assert rest == template.read_text()
