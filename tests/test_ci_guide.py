"""The pipelines of docs/guides/ci.md, step by step as written, in a repository with an origin."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.notebook import environment

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "guides" / "ci.md"
RULES = """\
tokens:
  access: {secret: "${JWT_ACCESS_SECRET}"}
  refresh: {secret: "${JWT_REFRESH_SECRET}"}
upstream: http://127.0.0.1:9000
routes:
  - {path: /health, methods: [GET], allow: public}
  - {path: /admin/**, allow: admin}
tests:
  - {request: GET /health, as: anonymous, expect: allow}
  - {request: GET /admin, as: user, expect: 403}
"""
CLOSED = RULES.replace("path: /admin/**, allow: admin", "path: /admin/**, allow: nobody")
WIDER = RULES.replace("allow: admin", "allow: authenticated").replace("as: user", "as: anonymous")
WIDER = WIDER.replace("expect: 403", "expect: 401")
PUBLIC = RULES.replace("tests:\n", "  - {path: /status, allow: public}\ntests:\n")
PUBLIC += "  - {request: GET /status, as: user, expect: allow}\n"
UNPROVEN = RULES.replace("  - {request: GET /admin, as: user, expect: 403}\n", "")
BROKEN = RULES.replace("allow: admin", "allow: admins")


def pipelines() -> dict[str, dict[Any, Any]]:
    """By what they run on."""
    texts = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    github, gitlab = (yaml.safe_load(text) for text in texts)
    return {"github": github, "gitlab": gitlab}


def steps(where: str) -> list[str]:
    """The commands, with what the two services fill in; `pip install` aside."""
    made = pipelines()[where]
    if where == "gitlab":
        script = made["gateway-rules"]["script"]
    else:
        script = [step["run"] for step in made["jobs"]["rules"]["steps"] if "run" in step]
    first, *rest = script
    assert first.startswith("pip install ")
    return [step.replace("${{ github.base_ref }}", "main") for step in rest]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


class Runner:
    """A clone with a branch that is to be merged into `main` of its origin."""

    def __init__(self, folder: Path) -> None:
        self.environ = environment(folder, ROOT) | {
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
            "HOME": str(folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        self.origin, self.clone = folder / "origin.git", folder / "clone"
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.origin), at=folder)
        self.git("clone", "--quiet", str(self.origin), str(self.clone), at=folder)
        self.git("checkout", "--quiet", "-b", "main")
        (self.clone / "gateway.yaml").write_text(RULES)
        listed = self.run("gateway routes --public > public.txt")
        assert listed.returncode == 0, listed.stderr
        self.commit("The rules")
        self.git("push", "--quiet", "origin", "main")
        self.git("checkout", "--quiet", "-b", "change")

    def proposes(self, text: str) -> None:
        (self.clone / "gateway.yaml").write_text(text)
        self.commit("A change")

    def commit(self, why: str) -> None:
        self.git("add", ".")
        name = ("-c", "user.name=me", "-c", "user.email=me@example.com")
        self.git(*name, "commit", "--quiet", "--allow-empty", "-m", why)

    def git(self, *words: str, at: Path | None = None) -> None:
        subprocess.run(
            ["git", *words], cwd=at or self.clone, env=self.environ, check=True, capture_output=True
        )

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """As both services do: bash, which stops at the first failure."""
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            cwd=self.clone, env=self.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def failed(self, where: str) -> Iterator[tuple[str, str]]:
        """The steps that stop the pipeline, each by its command's word, with what it prints."""
        for step in steps(where):
            done = self.run(step)
            assert done.returncode in (0, 1), (step, done.stdout, done.stderr)
            if done.returncode:
                yield step.split()[1], done.stdout


@pytest.mark.parametrize("where", ["github", "gitlab"])
@pytest.mark.parametrize(
    ("change", "stopped_by"),
    [
        (RULES, []),
        (CLOSED, []),
        (WIDER, ["diff"]),
        (PUBLIC, ["routes", "diff"]),
        (UNPROVEN, ["check"]),
        (BROKEN, ["check", "routes", "diff"]),
    ],
    ids=["nothing", "closed", "wider", "public", "unproven", "broken"],
)
def test_a_change_is_stopped_by_what_is_wrong_with_it(
    runner: Runner, where: str, change: str, stopped_by: list[str]
) -> None:
    runner.proposes(change)
    assert [word for word, _ in runner.failed(where)] == stopped_by


def test_github_shows_a_mistake_at_its_line(runner: Runner) -> None:
    runner.proposes(BROKEN)
    _, told = next(runner.failed("github"))
    line = next(number for number, text in enumerate(BROKEN.splitlines(), 1) if "admins" in text)
    assert f"file=gateway.yaml,line={line}," in told
    assert told.startswith("::error ")


def test_both_pipelines_ask_the_three_questions() -> None:
    for where in ("github", "gitlab"):
        words = [step.split()[1] for step in steps(where) if step.startswith("gateway ")]
        assert words == ["check", "routes", "diff"]


def test_they_run_when_the_rules_change() -> None:
    github, gitlab = pipelines()["github"], pipelines()["gitlab"]
    (on,) = (value for key, value in github.items() if key is True)  # YAML 1.1 takes `on` for a truth
    changes = gitlab["gateway-rules"]["rules"][0]["changes"]
    assert on["pull_request"]["paths"] == [path.replace("/**/*", "/**") for path in changes]
