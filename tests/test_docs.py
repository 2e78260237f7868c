"""The documentation says what is there: every command, link, code, metric, field, rule and named test."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import click
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import report
from docs.generate import cli
from examples import demo
from gateway.cli.commands import WORDS, gateway
from gateway.config.json_schema import json_schema
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.errors import GatewayError
from gateway.http.identity_headers import identity_lines
from gateway.identity.principal import Principal
from gateway.policy.compile import compile_policy, compile_tests
from gateway.policy.model import Reason
from gateway.policy.prove import prove
from gateway.telemetry.audit import Event, Recorded, UserDeleted
from gateway.telemetry.logs import Decided, DecisionLog
from gateway.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
REFERENCE = ROOT / "docs" / "reference"
BASE = {
    "tokens": {"access": {"secret": "${ACCESS}"}, "refresh": {"secret": "${REFRESH}"}},
    "upstream": "http://127.0.0.1:9000",
}
ENVIRON = {
    "ACCESS": "fFZ0lq4mW8sTn2vKc7RbYx1GdHj5PuEa",
    "REFRESH": "Qk3zXw9LtBn6MvCy0SgJhR8pDf2AeU7i",
    "JWT_ACCESS_SECRET": "fFZ0lq4mW8sTn2vKc7RbYx1GdHj5PuEa",
    "JWT_REFRESH_SECRET": "Qk3zXw9LtBn6MvCy0SgJhR8pDf2AeU7i",
    "DB_PASSWORD": "x",
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def rows(page: Path, heading: str) -> Iterator[list[str]]:
    """The cells of the first table below a heading."""
    below = re.split(rf"^#+ {re.escape(heading)}\n", page.read_text(), flags=re.MULTILINE)[1]
    table = re.search(r"^\|.*?(?=\n(?!\|)|\Z)", below, re.MULTILINE | re.DOTALL)
    assert table is not None, heading
    for line in table[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def kinds(base: type) -> Iterator[type]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


# -- links and lines -----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = unquote(target).partition("#")
        found = (page.parent / name) if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in ROOT.glob("docs/**/*.md"):
        if page.parent.name != "decisions" and page.name != "README.md":
            assert f"({page.relative_to(ROOT / 'docs')})" in index, page
    decisions = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for page in ROOT.glob("docs/decisions/0*.md"):
        assert f"({page.name})" in decisions, page


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "examples" not in page.parts],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_prose_is_at_most_120_wide(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []


# -- commands ------------------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[list[str]]:
    """Every call of `gateway` in the page's shell blocks, as words."""
    for block in blocks(page, "sh"):
        lines = block.replace("\\\n", " ").splitlines()
        for line in lines:
            try:
                words = shlex.split(line, comments=True)
            except ValueError:
                continue  # a quotation that goes on in the next line
            # `docker run … auth-gateway init` calls it as well
            for index, word in enumerate(words):
                is_image = (
                    word == "auth-gateway" and "docker" in words and "run" in words and "-t" not in words
                )
                if (
                    word == "gateway" and index + 1 < len(words) and words[:index] in ([], ["exec"])
                ) or is_image:
                    rest = words[index + 1 :]
                    stops = [i for i, each in enumerate(rest) if each in {"|", "||", "&&", ">", ";"}]
                    yield rest[: stops[0]] if stops else rest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_printed_command_exists(page: Path) -> None:
    for words in commands(page):
        command: click.Command = gateway
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            name, *words = words
            found = command.get_command(click.Context(command), name)
            assert found is not None, name
            command = found
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        for word in words:
            assert not word.startswith("-") or word in known | {"--help", "--version"}, (command.name, word)


def test_commands_are_found_at_all() -> None:
    found = {words[0] for page in PAGES for words in commands(page) if words}
    assert {"init", "check", "users", "run", "db", "--version"} <= found
    assert found - {"--version"} <= set(WORDS)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for word in re.findall(r"(?:^|`)make ([a-z]+)", "\n".join(blocks(page, "sh")), re.MULTILINE):
            assert word in targets, page
    assert "make test " in (ROOT / "README.md").read_text()


def test_the_command_reference_is_fresh() -> None:
    fresh = (REFERENCE / "cli.md").read_text() == cli()
    assert fresh, "python docs/generate.py > docs/reference/cli.md"


def test_the_readme_has_the_lines_that_make_run_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LISTEN", "127.0.0.1:8080")
    assert demo.curl_lines({}).strip() + "\n" in blocks(ROOT / "README.md", "sh")


def test_the_numbers_are_those_that_were_measured() -> None:
    made, told = report.blocks(), report.measured_parts()
    assert {file.stem for file in report.RESULTS.iterdir()} | {"targets"} == {*made} == {*told}
    fresh = {name: report.framed(name, block) for name, block in made.items()} == told
    assert fresh, "python -m benchmarks.report"


# -- configuration -------------------------------------------------------------------------------------------


def configurations() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for block in blocks(page, "yaml"):
            documents = [*yaml.safe_load_all(block)]
            if len(documents) == 1 and set(documents[0]) <= set(Config.model_fields):
                yield page, block


def routes_of(page: Path) -> list[object]:
    """The first rules of the page, for tests that stand apart from them."""
    written = (yaml.safe_load(block) for found, block in configurations() if found == page)
    return next(each["routes"] for each in written if "routes" in each)


def put_beside(page: Path, block: str, folder: Path) -> None:
    """The files that a configuration includes: as the page shows them (`# rules/staff.yaml`), else empty."""
    named = ((re.match(r"# (\S+\.yaml)\n", text), text) for text in blocks(page, "yaml"))
    shown = {name[1]: text for name, text in named if name is not None}
    written = yaml.safe_load(block)
    for setting in ("include", "tests_include"):
        names = written.get(setting, [])
        for name in [names] if isinstance(names, str) else names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(shown.get(name, "tests: []\n"))


def test_every_configuration_is_right_and_passes_its_own_tests(tmp_path: Path) -> None:
    """A fragment is completed by what it leaves out."""
    checked = 0
    for page, block in configurations():
        put_beside(page, block, tmp_path)
        written = yaml.safe_load(block)
        missing = {key: value for key, value in BASE.items() if key not in written}
        if "tests" in written and "routes" not in written:
            missing["routes"] = routes_of(page)
        if "upstreams" in written:
            missing.pop("upstream", None)
        file = tmp_path / "gateway.yaml"
        file.write_text(block + "".join(f"{key}: {json.dumps(value)}\n" for key, value in missing.items()))
        loaded = load(file, environ=ENVIRON)
        assert loaded.config is not None, (page, [str(problem) for problem in loaded.problems])
        policy, problems = compile_policy(loaded.config, loaded.places)
        assert policy is not None, (page, [str(problem) for problem in problems])
        if "tests" in written:
            results = prove(policy, compile_tests(loaded.config, loaded.places), now=0.0)
            assert [result.complaint for result in results if not result.passed] == [], page
            checked += len(results)
    assert checked


# -- the reference -------------------------------------------------------------------------------------------


def test_every_error_code_is_in_the_reference_and_in_the_guide() -> None:
    real = {error.code: error.status for error in (GatewayError, *kinds(GatewayError))}
    told = {codes(row[0])[0]: int(row[1]) for row in rows(REFERENCE / "http.md", "Refusals")}
    assert told == real
    guide = rows(ROOT / "docs" / "guides" / "operating.md", "What a refusal means, and what to do")
    seen: dict[str, int] = {}
    for row in guide:
        status = 0
        for number, code in re.findall(r"(\d{3})|`([a-z_]+)`", row[0]):
            status = int(number) if number else status
            if code:
                seen[code] = status
    assert seen == real


def test_every_field_of_the_decision_line_is_in_the_reference() -> None:
    lines: list[bytes] = []
    DecisionLog(lines.append).write(Decided("id", "127.0.0.1", "GET", b"/"))
    told = [codes(row[0])[0] for row in rows(REFERENCE / "log.md", "The decision line")]
    assert told == [*json.loads(lines[0])]


def test_every_reason_is_in_the_reference() -> None:
    allowed = {
        Reason.PUBLIC,
        Reason.LOGGED_IN,
        Reason.ADMIN,
        Reason.ROLES,
        Reason.USERS,
        Reason.SCOPES,
        Reason.NETWORKS,
        Reason.DEFAULT,
        Reason.REPORT_ONLY,
    }
    told = {codes(row[0])[0]: row[1] for row in rows(REFERENCE / "log.md", "Reasons of the rules")}
    assert told == {reason.value: "allow" if reason in allowed else "deny" for reason in Reason}
    others = (REFERENCE / "log.md").read_text()
    assert {error.code for error in kinds(GatewayError)} >= {
        codes(row[0])[0] for row in rows(REFERENCE / "log.md", "Reasons of the proxy")
    } - {"client_gone", "access_ended", "idle_timeout"}
    assert all(f"`{reason}`" in others for reason in ("served", "client_gone"))


def test_every_audit_event_and_its_fields_are_in_the_reference() -> None:
    common = {"time", "level", "event", "name", "requestId", "actor", "address"}
    assert common < set(Recorded(UserDeleted(user="u", email="e@x"), 0.0, None).fields())
    told = {codes(row[0])[0]: set(codes(row[1])) for row in rows(REFERENCE / "log.md", "Audit events")}
    assert told == {
        event.name: {field.name for field in fields(event)} - {"actor", "address"} for event in kinds(Event)
    }


def test_every_metric_is_in_the_reference() -> None:
    metrics = busy_metrics()
    real: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.name.startswith("gateway_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            real[name] = family.type, labels
    told = {
        codes(row[0])[0]: (row[1], set(codes(row[2]))) for row in rows(REFERENCE / "metrics.md", "Metrics")
    }
    assert told == real


def busy_metrics() -> Metrics:
    """Metrics in which every family has a sample, wired as the gateway wires them."""
    metrics = Metrics(version="1")
    for route in ("/x", "auth:login", "auth:refresh"):
        metrics.began()
        metrics.done(
            Decided(
                "id",
                "c",
                "GET",
                b"/",
                status=502,
                route=route,
                verdict="allow",
                reason="upstream_broken",
                would="not_admin",
            )
        )
    metrics.count(Recorded(UserDeleted(user="u", email="e@x"), 0.0, None))
    metrics.watch_pool("app", _Idle())
    metrics.watch_cutoffs((), float)
    metrics.watch_replicas(int)
    metrics.watch_limits({("login-account", "refused"): 1})
    metrics.watch_api_tokens(())
    metrics.watch_ready(lambda: True)
    metrics.watch_certificate(lambda: 0.0)
    metrics.reloaded("applied")
    return metrics


class _Idle:
    idle_count = busy_count = opening_count = waiting_count = 0
    standing = (("app:9000", True),)


def test_the_presets_are_those_of_the_reference() -> None:
    told: dict[str, list[str]] = {}
    for preset, header, _ in rows(REFERENCE / "identity-headers.md", "Presets"):
        told.setdefault(codes(preset)[0], []).append(codes(header)[0])
    ann = Principal(
        id="1", email="ann@example.com", is_admin=True, roles=(), session="s", version=1, expires_at=0
    )
    for preset, names in told.items():
        lines = identity_lines(preset)(ann).decode().splitlines()
        assert [line.partition(":")[0] for line in lines] == names
    assert [*told] == json_schema()["$defs"]["IdentityHeaders"]["properties"]["preset"]["anyOf"][0]["enum"]


# -- the threat model ----------------------------------------------------------------------------------------


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = [codes(row[2]) for row in rows(ROOT / "docs" / "threat-model.md", "Attacks")]
    assert named
    assert all(named)
    for file, _, name in (each.partition("::") for cell in named for each in cell):
        tree = ast.parse((ROOT / "tests" / file).read_text())
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert name in {function.name for function in functions}, f"{file}::{name}"
