"""Pydantic's errors in plain English, with the path as the file has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from .fields import choice, closest
from .filled import Broken, Unset
from .schema import Config
from .source import Steps

_SHORT_FORMS = {
    "roles": "must say any or all: write {any: [...]} or {all: [...]}",
    "scopes": "must say any or all: write {any: [...]} or {all: [...]}",
    "rate_limit": "must say per_user or per_address: write {per_user: 100/minute}",
    "upstreams": "must be a mapping of names: write {app: {url: http://127.0.0.1:9000}}",
}
_REQUIRED = {
    "tokens": '; write `tokens: {access: {secret: "${JWT_ACCESS_SECRET}"}, '
    'refresh: {secret: "${JWT_REFRESH_SECRET}"}}`',
    "secret": '; write `secret: "${NAME}"` and set that variable to the output of `openssl rand -hex 32`',
    "allow": "; write public, authenticated, admin, nobody, or a mapping like {roles: {any: [analyst]}}",
}
_NAMED = {
    "reqire": "allow", "require": "allow", "requires": "allow", "access": "allow", "auth": "allow",
    "permission": "allow", "policy": "allow", "who": "allow",
    "method": "methods", "verbs": "methods", "host": "hosts", "domain": "hosts", "url": "path",
    "backend": "upstream", "target": "upstream", "service": "upstream", "proxy": "upstream",
    "port": "listen", "bind": "listen", "address": "listen",
    "backends": "upstreams", "services": "upstreams", "rules": "routes", "paths": "routes",
    "status": "expect", "user": "as", "ip": "from", "email": "user",
}  # fmt: skip
"""What people from neighbouring tools write, and our name for it."""
_FEW = 3
"""Sections that a message names; more would only confuse."""


def sentences(errors: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each error with its sentence. A required setting that was only misspelt is not missed too."""
    errors = list(errors)
    meant = {
        (*error["loc"][:-1], _meant(str(error["loc"][-1]), _known_beside(error["loc"])))
        for error in errors
        if error["type"] == "extra_forbidden"
    }
    for error in errors:
        if error["type"] != "missing" or error["loc"] not in meant:
            yield error, sentence(error)


def sentence(error: Mapping[str, Any]) -> str:
    """What is wrong and what to do, or nothing for what is reported already."""
    kind, value = error["type"], error["input"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "extra_forbidden":
        return _unknown(error["loc"])
    if kind == "missing":
        name = str(error["loc"][-1])
        return f'"{name}" is required{_REQUIRED.get(name, "")}'
    if isinstance(value, Broken | Unset):
        return ""
    return _wrong_type(kind, error["loc"], value)


def path_in_file(location: tuple[str | int, ...], data: Any) -> Steps:
    """The steps of a pydantic location that the file has; tags of unions and the like drop out."""
    steps: list[str | int] = []
    for step in location:
        if _leads(data, step):
            data = data[step]
            steps.append(step)
    return tuple(steps)


def _leads(data: Any, step: str | int) -> bool:
    if isinstance(data, Mapping):
        return step in data
    return isinstance(data, tuple) and isinstance(step, int) and step < len(data)


def _wrong_type(kind: str, location: tuple[str | int, ...], value: Any) -> str:
    name = next((step for step in reversed(location) if isinstance(step, str) and step[:1] != "<"), "")
    if name in _SHORT_FORMS:
        return _SHORT_FORMS[name]
    if kind == "tuple_type":
        return f"must be a list, not {_kind(value)}; begin each item with -, or write [ ] around them"
    return f"must be a mapping of settings, not {_kind(value)}"


def _kind(value: Any) -> str:
    """What a value is. It is not quoted: text in the wrong place may be a secret."""
    kinds = ((dict, "a mapping"), (tuple, "a list"), (str, "text"), (bool, "true or false"))
    return next((words for kind, words in kinds if isinstance(value, kind)), "a number")


def _unknown(location: tuple[str | int, ...]) -> str:
    """An unknown setting, with the likeliest known one."""
    name, known = str(location[-1]), _known_beside(location)
    if meant := _meant(name, known):
        return f'unknown setting, did you mean "{meant}"?'
    if homes := _homes(name):
        return f'unknown setting here; "{name}" belongs to {choice(homes)}'
    return f"unknown setting; known here: {', '.join(sorted(known))}"


def _known_beside(location: Steps) -> frozenset[str]:
    """The settings of the section that a location is in: `upstreams.NAME.timeouts` and the like."""
    shape = [step for step in location[:-1] if isinstance(step, str) and step[:1] != "<"]
    if shape[:1] == ["upstreams"] and len(shape) > 1:
        shape[1] = "NAME"
    return sections().get(".".join(shape), frozenset())


def _meant(name: str, known: frozenset[str]) -> str:
    """The known setting that was meant, unless the name is a setting of another section."""
    if _NAMED.get(name) in known:
        return _NAMED[name]
    return "" if _homes(name) else closest(name, known)


def _homes(name: str) -> tuple[str, ...]:
    """The sections that have such a setting, if they are few."""
    homes = tuple(
        shape or "the top level"
        for shape, known in sections().items()
        if name in known and not shape.startswith("defaults")  # which holds what routes hold
    )
    return homes if len(homes) <= _FEW else ()


@cache
def sections() -> dict[str, frozenset[str]]:
    """Every section of the file by its shape, with the names of its settings."""
    return dict(_walk("", Config))


def _walk(shape: str, model: type[BaseModel]) -> Iterator[tuple[str, frozenset[str]]]:
    names = frozenset(field.alias or name for name, field in model.model_fields.items())
    yield shape, names
    for name, field in model.model_fields.items():
        below = ".".join(filter(None, (shape, field.alias or name)))
        for inner, named in models_in(field.annotation):
            yield from _walk(f"{below}.NAME" if named else below, inner)


def models_in(annotation: Any, named: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """The sections inside a type, and whether they sit behind names, as upstreams do."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, named
    for argument in get_args(annotation):
        yield from models_in(argument, named or getattr(annotation, "__origin__", None) is dict)
