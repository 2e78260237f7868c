"""From a file to a `Config`, or to every mistake in it at once.

    read → compose → fill and resolve → sections → checks → Config

Each stage goes as far as it can, so that the person sees all mistakes in one
run: a broken value stands as `Broken` and stays silent later on, and sections
are validated one by one so that a mistake in one does not hide another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError, create_model

from .checks import CHECKED, Finding, Parts, check
from .defaults import with_defaults
from .dotenv import read_dotenv
from .fields import Section, UnsetSecret
from .fill import Outside, fill
from .filled import Broken
from .haste import uncollected
from .include import Gathered, Read, gather
from .json_schema import json_schema as json_schema
from .scalars import resolve, surprise
from .schema import MOMENTS, PLAIN_WORDS, SECRETS, Config, Route, Server, Test, Tokens, Upstream
from .sentences import path_in_file, sentence, sentences
from .source import (
    Node,
    Places,
    Problem,
    Refused,
    Scalar,
    Sequence,
    Steps,
    Table,
    compose,
    read,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of reading a configuration."""

    config: Config | None
    """None if there is any mistake; warnings are none."""
    places: Places
    """Where each setting stands, for those who find more mistakes."""
    problems: tuple[Problem, ...]
    """Mistakes and warnings, in the order of the file."""
    files: tuple[Path, ...] = ()
    """Every file that was read, or would have been were it there; absolute, links not followed."""
    paths: Mapping[int, str] = field(default_factory=dict)
    """Where there is a mistake: what each route says of its path, for those who find more of them."""


def load(
    path: Path,
    *,
    environ: Mapping[str, str] | None = None,
    allow_unset: bool = False,
    read: Read = read,
) -> Loaded:
    """Read `path`, what it includes, and `.env` beside it; `environ` (the process's own by default) wins.

    With `allow_unset`, secrets whose variable is missing become `UnsetSecret`. `read` gives the text of
    `path` and of what it includes: an older version of them, say. Never raises.
    """
    dotenv, problems = read_dotenv(path.parent / ".env")
    variables = {**dotenv, **(os.environ if environ is None else environ)}
    outside = Outside(variables, path.parent, [path, path.parent / ".env"])
    with uncollected():
        loaded = _load(path, outside, problems, allow_unset, read)
    files = tuple(dict.fromkeys(file.absolute() for file in outside.files))
    return Loaded(loaded.config, loaded.places, loaded.problems, files, loaded.paths)


def _load(path: Path, outside: Outside, problems: list[Problem], allow_unset: bool, read: Read) -> Loaded:
    try:
        root, mistakes = compose(read(path), str(path))
    except Refused as refused:
        return Loaded(None, Places(str(path), None), (refused.problem,))
    problems += mistakes
    typist = _Typist(outside, allow_unset)
    gathered = _gathered(root, path, read, typist)
    root = gathered.root if gathered is not None else root
    origins = gathered.origins if gathered is not None else {}
    places = Places(str(path), root, {("upstreams", "default"): ("upstream",)}, origins)
    if root is None:
        return Loaded(None, places, _sorted(problems))
    if gathered is not None:
        problems += gathered.problems
        outside.files.extend(gathered.files)
    data = typist.typed(root, ())
    config, findings = _validated(data)
    problems += _placed(typist.findings, findings, places)
    if config is None or any(not problem.warning for problem in problems):
        return Loaded(None, places, _sorted(problems), paths=_paths(data))
    return Loaded(_settled(config, path.parent), places, _sorted(problems))


def _paths(data: Any) -> dict[int, str]:
    """The paths of all routes that begin as a path does."""
    routes = data.get("routes") if isinstance(data, Mapping) else None
    items = routes if isinstance(routes, tuple) else ()
    written = [each.get("path") if isinstance(each, Mapping) else None for each in items]
    return {
        index: path for index, path in enumerate(written) if isinstance(path, str) and path.startswith("/")
    }


def _gathered(root: Node | None, path: Path, read: Read, typist: _Typist) -> Gathered | None:
    return gather(root, path, read, typist.text) if isinstance(root, Table) else None


def _settled(config: Config, folder: Path) -> Config:
    """A relative file stands beside gateway.yaml, as `.env` does, wherever a command is run."""
    upstreams = {name: _upstream_files(each, folder.absolute()) for name, each in config.upstreams.items()}
    server = _listener_files(config.server, folder.absolute())
    tokens = _key_folder(config.tokens, folder.absolute())
    settled = {"upstreams": upstreams, "server": server, "tokens": tokens}
    return _database_file(config.model_copy(update=settled), folder)


def _listener_files(server: Server, folder: Path) -> Server:
    if server.tls is None:
        return server
    settled = {"certificate": str(folder / server.tls.certificate), "key": str(folder / server.tls.key)}
    return server.model_copy(update={"tls": server.tls.model_copy(update=settled)})


def _key_folder(tokens: Tokens, folder: Path) -> Tokens:
    if tokens.access.keys is None:
        return tokens
    access = tokens.access.model_copy(update={"keys": str(folder / tokens.access.keys)})
    return tokens.model_copy(update={"access": access})


def _upstream_files(upstream: Upstream, folder: Path) -> Upstream:
    written = upstream.tls.model_dump(include={"ca", "certificate", "key"}, exclude_none=True)
    settled = {name: str(folder / file) for name, file in written.items()}
    return upstream.model_copy(update={"tls": upstream.tls.model_copy(update=settled)})


def _database_file(config: Config, folder: Path) -> Config:
    if isinstance(config.accounts.database, UnsetSecret):
        return config
    scheme, separator, file = config.accounts.database.get_secret_value().partition(":///")
    if scheme != "sqlite":
        return config
    url = SecretStr(f"{scheme}{separator}{folder.absolute() / file}")
    return config.model_copy(update={"accounts": config.accounts.model_copy(update={"database": url})})


class _Typist:
    """Turns nodes into values: fills scalars in, then gives plain ones their YAML type."""

    def __init__(self, outside: Outside, allow_unset: bool) -> None:
        self.findings: list[Finding] = []
        self._outside = outside
        self._allow_unset = allow_unset

    def text(self, node: Scalar) -> tuple[str, list[str]]:
        """What a scalar says before it has a type, and what went wrong."""
        faults: list[str] = []
        text = fill(node.text, self._outside, lambda reason, _: faults.append(reason))
        return text, faults

    def typed(self, node: Node, path: Steps) -> Any:
        if isinstance(node, Scalar):
            return self._scalar(node, path)
        if isinstance(node, Sequence):
            return tuple(self.typed(item, (*path, index)) for index, item in enumerate(node.items))
        return {key: self.typed(entry.value, (*path, key)) for key, entry in node.entries.items()}

    def _scalar(self, node: Scalar, path: Steps) -> Any:
        if "${" in node.text:
            return fill(node.text, self._outside, self._noter(path))
        if not node.plain or (_is_secret(path) and node.text):
            return node.text
        reason = None if path in PLAIN_WORDS or _is_moment(path) else surprise(node.text)
        if reason is not None:
            self.findings.append(Finding(path, reason))
            return Broken("", node.text)
        value = resolve(node.text)
        if value is None:
            self.findings.append(Finding(path, "has no value; give it one, or remove it"))
            return Broken("", "")
        return value

    def _noter(self, path: Steps) -> Any:
        def note(reason: str, missing: bool) -> None:
            if not (missing and self._allow_unset and _is_secret(path)):
                self.findings.append(Finding(path, reason))

        return note


def _is_secret(path: Steps) -> bool:
    return path in SECRETS or (len(path) > 1 and isinstance(path[-1], int) and path[:-1] in SECRETS)


_MOMENT_NAMES = frozenset(path[-1] for path in MOMENTS)


def _is_moment(path: Steps) -> bool:
    return (
        len(path) > 2
        and path[-1] in _MOMENT_NAMES
        and tuple(step for step in path if isinstance(step, str)) in MOMENTS
    )


def _validated(data: Any) -> tuple[Config | None, list[Finding]]:
    """The configuration, if nothing at all is wrong with it, and what is."""
    if not isinstance(data, Mapping):
        return None, [Finding((), "must be a mapping of settings, like `upstream: http://127.0.0.1:9000`")]
    findings = [_unknown(name, data) for name in data if name not in Config.model_fields]
    sections = {name: _section(name, data, findings) for name in Config.model_fields}
    findings += check(Parts(data, **{name: sections[name] for name in CHECKED}))
    if any(not finding.warning for finding in findings):
        return None, findings
    if sections["upstream"] is not None:
        sections["upstreams"] = {"default": Upstream(url=data["upstream"]), **sections["upstreams"]}
    if sections["defaults"].model_fields_set:
        sections["routes"] = tuple(with_defaults(route, sections["defaults"]) for route in sections["routes"])
    return Config.model_construct(**sections), findings


def _section(name: str, data: Mapping[str, Any], findings: list[Finding]) -> Any:
    """One top-level setting, valid or None. Items of collections stand for themselves."""
    value = data.get(name)
    if name in _ITEMS and isinstance(value, tuple):
        return tuple(
            _item(_ITEMS[name], item, (name, index), data, findings) for index, item in enumerate(value)
        )
    if name == "upstreams" and isinstance(value, dict):
        return {key: _item(Upstream, item, (name, key), data, findings) for key, item in value.items()}
    given = {name: value} if name in data else {}
    valid = _item(_single(name), given, (), data, findings)
    return getattr(valid, name, None)


_ITEMS: dict[str, type[BaseModel]] = {"routes": Route, "tests": Test}


def _item(
    model: type[BaseModel], value: Any, prefix: Steps, data: Mapping[str, Any], findings: list[Finding]
) -> BaseModel | None:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = ({**each, "loc": (*prefix, *each["loc"])} for each in error.errors(include_url=False))
        findings.extend(_finding(each, text, data) for each, text in sentences(found))
        return None


@cache
def _single(name: str) -> type[BaseModel]:
    """A model of one top-level setting alone."""
    field = Config.model_fields[name]
    fields: dict[str, Any] = {name: (field.annotation, field)}
    return create_model(name, __base__=Section, **fields)


def _unknown(name: str, data: Mapping[str, Any]) -> Finding:
    error = {"type": "extra_forbidden", "loc": (name,), "input": data[name]}
    return _finding(error, sentence(error), data)


def _finding(error: Mapping[str, Any], text: str, data: Mapping[str, Any]) -> Finding:
    return Finding(path_in_file(error["loc"], data), text, key=error["type"] == "extra_forbidden")


def _placed(early: list[Finding], late: list[Finding], places: Places) -> list[Problem]:
    """Findings with their places. Where filling failed already, nothing more is said."""
    silent = {finding.path for finding in early}
    return [
        Problem(
            places.key(*finding.path) if finding.key else places.of(*finding.path),
            places.name(*finding.path),
            finding.sentence,
            finding.warning,
        )
        for finding in [*early, *(finding for finding in late if finding.path not in silent)]
        if finding.sentence
    ]


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(set(problems), key=lambda problem: (problem.place, problem.path, problem.sentence)))
