"""`gateway tokens`, and accounts for programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.identity.api_tokens import is_sound
from tests.cli.conftest import Command, environment

pytestmark = pytest.mark.usefixtures("site")


@pytest.fixture
def ci(gateway: Command) -> str:
    """The id of a service account."""
    added = gateway("users", "add", "ci@example.com", "--service", "--format", "json")
    assert added.code == 0, added.err
    found = json.loads(added.out)
    assert found["service"] is True
    return str(found["id"])


def listed(gateway: Command, *words: str) -> list[dict[str, object]]:
    shown = gateway("tokens", "list", *words, "--format", "json")
    assert shown.code == 0, shown.err
    items: list[dict[str, object]] = json.loads(shown.out)["items"]
    return items


class TestAdd:
    def test_the_token_alone_goes_to_stdout(self, gateway: Command, ci: str) -> None:
        added = gateway("tokens", "add", "ci@example.com", "--name", "deploys", "--scope", "deploy")
        assert added.code == 0, added.err
        assert is_sound(added.out.strip().encode())
        assert added.out.count("\n") == 1
        assert "this is the only time it is shown" in added.err
        assert added.out.strip() not in added.err
        assert '"name": "token_created"' in added.err

    @pytest.mark.parametrize("output", ["text", "json"])
    def test_one_that_could_not_be_shown_is_revoked(self, gateway: Command, ci: str, output: str) -> None:
        words = ["tokens", "add", ci, "--name", "x", "--format", output]
        with Path("/dev/full").open("w") as full:
            failed = subprocess.run(
                [sys.executable, "-m", "gateway", *words],
                stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=environment(),
            )  # fmt: skip
        assert failed.returncode == 1
        assert "No space left on device" in failed.stderr
        assert '"name": "token_revoked"' in failed.stderr
        assert "Traceback" not in failed.stderr
        assert listed(gateway) == []

    def test_none_is_made_for_a_stdout_that_is_closed(self, gateway: Command, ci: str) -> None:
        script = f"{sys.executable} -m gateway tokens add {ci} --name x >&-"
        failed = subprocess.run(
            ["bash", "-c", script], stderr=subprocess.PIPE, text=True, timeout=60, env=environment()
        )
        assert failed.returncode == 1
        assert failed.stderr == (
            "Error: stdout is closed, and this would be shown only once; nothing was done\n"
        )
        assert listed(gateway) == []

    def test_everything_that_can_be_said_of_one(self, gateway: Command, ci: str) -> None:
        added = gateway(
            "tokens", "add", ci, "--name", "x", "--scope", "b", "--scope", "a", "--method", "GET",
            "--path", "/x/**", "--path", "/y", "--expires-in", "90d", "--format", "json",
        )  # fmt: skip
        assert added.code == 0, added.err
        made = json.loads(added.out)
        assert is_sound(made.pop("token").encode())
        assert (made["scopes"], made["methods"], made["paths"]) == (["a", "b"], ["GET"], ["/x/**", "/y"])
        assert str(made["createdBy"]).startswith("cli:")
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT.*Z", made["expiresAt"])
        assert listed(gateway) == [{**made, "user": ci}]

    @pytest.mark.parametrize(
        ("words", "code", "about"),
        [
            (["nobody@example.com", "--name", "x"], 1, "no such user"),
            (["ci@example.com"], 2, "--name"),
            (["ci@example.com", "--name", ""], 1, "name"),
            (["ci@example.com", "--name", "x", "--scope", "login"], 1, "log in"),
            (["ci@example.com", "--name", "x", "--path", "x"], 1, "must begin with /"),
            (["ci@example.com", "--name", "x", "--method", "get"], 1, "capitals"),
            (["ci@example.com", "--name", "x", "--expires-in", "90"], 2, "must be a duration"),
            (["ci@example.com", "--name", "x", "--expires-in", "10000000000d"], 2, "must be a duration"),
            (["ci@example.com", "--name", "x", "--expires-in", "999999999d"], 1, "beyond the year 9999"),
        ],
    )
    def test_what_is_wrong_is_said_in_a_sentence(
        self, gateway: Command, ci: str, words: list[str], code: int, about: str
    ) -> None:
        refused = gateway("tokens", "add", *words)
        assert (refused.code, refused.out) == (code, "")
        assert about in refused.err
        assert "Traceback" not in refused.err
        assert listed(gateway) == []

    def test_the_maximum_and_the_number_of_the_file_hold(self, gateway: Command, ci: str, site: Path) -> None:
        with (site / "gateway.yaml").open("a") as file:
            file.write("api_tokens: {max_ttl: 10d, per_user: 1}\n")
        long = gateway("tokens", "add", ci, "--name", "x", "--expires-in", "11d")
        assert (long.code, "10 days at most" in long.err) == (1, True)
        assert gateway("tokens", "add", ci, "--name", "x").code == 0
        assert listed(gateway)[0]["expiresAt"] is not None
        more = gateway("tokens", "add", ci, "--name", "y")
        assert (more.code, "as many API tokens as it may have" in more.err) == (1, True)


class TestListAndRevoke:
    def test_one_a_line_and_gone_once_revoked(self, gateway: Command, ci: str) -> None:
        for name in ("first", "second"):
            assert gateway("tokens", "add", ci, "--name", name, "--scope", "deploy").code == 0
        assert [each["name"] for each in listed(gateway, "ci@example.com")] == ["first", "second"]
        lines = gateway("tokens", "list").out.splitlines()
        assert lines[0].split("\t")[:6] == [
            "ci@example.com", "first", "deploy", "everything", "no end", "never",
        ]  # fmt: skip
        ended = gateway("tokens", "revoke", str(listed(gateway)[0]["id"]))
        assert (ended.code, ended.out[:13]) == (0, "revoked first")
        assert [each["name"] for each in listed(gateway)] == ["second"]

    @pytest.mark.parametrize("which", ["x", "", "019aa3c1-5d2e-7b7a-9a51-2f1c3d4e5f60"])
    def test_what_is_not_there_is_not_revoked(self, gateway: Command, ci: str, which: str) -> None:
        ended = gateway("tokens", "revoke", which)
        assert (ended.code, "There is no such token." in ended.err) == (1, True)

    def test_of_nobody_there_are_none(self, gateway: Command, ci: str) -> None:
        assert gateway("tokens", "list", "nobody@example.com").code == 1
        assert gateway("tokens", "list").out == ""

    def test_a_name_can_not_drive_the_terminal(self, gateway: Command, ci: str) -> None:
        assert gateway("tokens", "add", ci, "--name", "\x1b[2J").code == 1


class TestServiceAccounts:
    def test_is_shown_as_what_it_is(self, gateway: Command, ci: str) -> None:
        assert "service user" in gateway("users", "list").out

    def test_has_no_password(self, gateway: Command) -> None:
        refused = gateway("users", "add", "ci@example.com", "--service", "--password-stdin")
        assert (refused.code, "contradict each other" in refused.err) == (2, True)
