"""What stands around the package: the image, the make targets, the setup, the demo."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def module(path: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class TestDockerfile:
    """No image is built here; these are the promises that its lines make."""

    @pytest.fixture
    def lines(self) -> list[tuple[str, str]]:
        """`("FROM", "python:3.11-slim AS build")` for each instruction."""
        text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
        instructions = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
        return [(word, rest) for word, _, rest in (line.partition(" ") for line in instructions)]

    @pytest.fixture
    def final(self, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The instructions of the last stage: what runs."""
        return lines[max(index for index, (word, _) in enumerate(lines) if word == "FROM") :]

    def test_two_stages_on_one_small_base(self, lines: list[tuple[str, str]]) -> None:
        assert [rest for word, rest in lines if word == "FROM"] == [
            "python:3.11-slim AS build",
            "python:3.11-slim",
        ]

    def test_one_variable_of_ours_says_where_to_listen(self, lines: list[tuple[str, str]]) -> None:
        ours = [rest for word, rest in lines if word == "ENV" and "GATEWAY_" in rest]
        assert ours == ["GATEWAY_LISTEN=0.0.0.0:8080"]
        assert "${GATEWAY_LISTEN:-" in (ROOT / "gateway.yaml").read_text()
        assert [rest for word, rest in lines if word == "EXPOSE"] == ["8080"]

    def test_runs_as_nobody_special_and_writes_in_one_place(self, final: list[tuple[str, str]]) -> None:
        words = dict(final)
        assert words["USER"] == "10001:10001"  # by number, so that Kubernetes can tell it is not root
        assert words["VOLUME"] == words["WORKDIR"] == "/data"
        assert any("PYTHONDONTWRITEBYTECODE=1" in rest for word, rest in final if word == "ENV")
        order = [word for word, _ in final]
        assert max(i for i, word in enumerate(order) if word == "RUN") < order.index("USER")

    def test_signals_reach_the_gateway_itself(self, final: list[tuple[str, str]]) -> None:
        words = dict(final)
        assert json.loads(words["ENTRYPOINT"]) + json.loads(words["CMD"]) == ["gateway", "run"]
        assert words["STOPSIGNAL"] == "SIGTERM"

    def test_asks_itself_how_it_is(self, final: list[tuple[str, str]]) -> None:
        options, _, command = dict(final)["HEALTHCHECK"].partition(" CMD ")
        assert json.loads(command) == ["gateway", "healthcheck"]
        assert "--timeout=" in options

    def test_copies_only_what_the_context_lets_in(self, lines: list[tuple[str, str]]) -> None:
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        assert "*" in ignored
        let_in = {line[1:] for line in ignored if line.startswith("!")}
        copied = {
            source
            for word, rest in lines
            if word == "COPY" and "--from" not in rest
            for source in rest.split()[:-1]
        }
        assert copied == let_in
        assert all((ROOT / name).exists() for name in let_in)
        assert {"**/.env", "**/*.db*"} <= set(ignored)


class TestMakefile:
    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--directory", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=60
        )

    def test_help_is_the_default_and_names_every_target(self) -> None:
        told = self.make("--no-print-directory").stdout
        assert told == self.make("--no-print-directory", "help").stdout
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {"run", "test", "check", "cover", "bench", "clean"} <= set(targets)
        assert re.findall(r"make ([a-z]+)", told) == targets

    def test_clean_spares_what_is_yours(self) -> None:
        planned = self.make("--dry-run", "clean").stdout
        assert not re.search(r"gateway\.yaml|\.env\b(?!ironment)|gateway\.db", planned.replace(".venv", ""))

    def test_ci_calls_what_people_call(self) -> None:
        script = (ROOT / ".ci" / "run").read_text()
        assert "set -euo pipefail" in script
        assert re.search(r"^make check ", script, re.MULTILINE)
        assert re.search(r" make test ", script)
        assert os.access(ROOT / ".ci" / "run", os.X_OK)
        subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


class TestSetup:
    """`.ci/setup_venv.py` where Python came without pip."""

    WHEEL = "pip-26.3-py3-none-any.whl"

    @pytest.fixture
    def setup(self) -> ModuleType:
        return module(".ci/setup_venv.py")

    @pytest.fixture
    def index(self, tmp_path: Path) -> str:
        """A package index in a folder, with a file that says it is pip."""
        (tmp_path / "pip").mkdir()
        with zipfile.ZipFile(tmp_path / self.WHEEL, "w") as wheel:
            wheel.writestr("pip/__main__.py", "")
        page = f'<a href="pip-1.0.tar.gz">x</a><a href="../{self.WHEEL}#sha256=1">{self.WHEEL}</a>'
        (tmp_path / "pip" / "index.html").write_text(page)
        return tmp_path.as_uri()

    @pytest.fixture
    def served(self, tmp_path: Path, index: str) -> object:
        handler = partial(Quiet, directory=str(tmp_path))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            yield f"http://user:pass%40word@127.0.0.1:{server.server_address[1]}"
            server.shutdown()

    def test_takes_pip_from_the_index_that_is_configured(
        self, setup: ModuleType, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wheel = (tmp_path / self.WHEEL).read_bytes()
        monkeypatch.setattr(setup, "PIP_SHA256", hashlib.sha256(wheel).hexdigest())
        assert setup.download_pip(served) == wheel
        assert set(Quiet.logins) == {"Basic dXNlcjpwYXNzQHdvcmQ="}

    def test_runs_nothing_but_the_published_file(self, setup: ModuleType, served: str) -> None:
        with pytest.raises(ValueError, match="is not the published one"):
            setup.download_pip(served)

    def test_an_index_without_it(self, setup: ModuleType, served: str, tmp_path: Path) -> None:
        (tmp_path / "pip" / "index.html").write_text("<a href=pip-1.0.tar.gz>x</a>")
        with pytest.raises(ValueError, match="does not list pip") as caught:
            setup.download_pip(served)
        assert "pass" not in str(caught.value)

    def test_no_index_at_all_is_a_sentence_that_helps(
        self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
        with pytest.raises(SystemExit, match="apt-get install python3-venv"):
            setup.fetch_pip()

    def test_which_index_is_asked(
        self, setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        settings = tmp_path / "pip.conf"
        settings.write_text("[global]\nindex-url = https://mirror.example/simple\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
        assert setup.index_url() == "https://mirror.example/simple"
        monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
        assert setup.index_url() == "https://uv.example/simple"
        monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple")
        assert setup.index_url() == "https://pip.example/simple"


class Quiet(SimpleHTTPRequestHandler):
    """A file server that remembers how it was logged in to."""

    logins: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.logins.append(self.headers["Authorization"])
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


class TestDemo:
    @pytest.fixture
    def demo(self) -> ModuleType:
        return module("examples/demo.py")

    def test_its_curl_lines_hold_the_new_passwords(self, demo: ModuleType) -> None:
        said = demo.welcome({demo.ADMIN: "one", demo.USER: "two"})
        assert '"email": "admin@example.com", "password": "one"' in said
        assert '"email": "user@example.com", "password": "two"' in said
        assert "shown now and never again" in said

    def test_later_it_says_how_to_get_new_ones(self, demo: ModuleType) -> None:
        said = demo.welcome({})
        assert "made earlier" in said
        assert ".venv/bin/gateway users set user@example.com --password" in said

    def test_a_token_is_found_without_a_json_tool(self, demo: ModuleType) -> None:
        extract = re.search(r"\| (sed '[^']*')", demo.curl_lines({}))
        assert extract is not None
        for answer in ('{"accessToken": "a.b.c", "refreshToken": "x"}', '{"accessToken":"a.b.c"}'):
            found = subprocess.run(
                ["sh", "-c", extract[1]], input=answer, capture_output=True, text=True, check=True
            )
            assert found.stdout.strip() == "a.b.c"

    def test_a_taken_port_is_said_before_anything_starts(self, demo: ModuleType) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(SystemExit, match=f"GATEWAY_LISTEN=127.0.0.1:{port + 1} make run"):
                demo.refuse_taken_port(f"127.0.0.1:{port}", "GATEWAY_LISTEN")
            with pytest.raises(SystemExit, match=r"GATEWAY_UPSTREAM=http://127\.0\.0\.1:"):
                demo.refuse_taken_port(f"127.0.0.1:{port}", "GATEWAY_UPSTREAM")
        demo.refuse_taken_port(f"127.0.0.1:{port}", "GATEWAY_LISTEN")

    def test_an_odd_place_is_refused(self, demo: ModuleType) -> None:
        with pytest.raises(SystemExit, match="GATEWAY_LISTEN must be host:port for the demo"):
            demo.refuse_taken_port("unix:/x.sock", "GATEWAY_LISTEN")
