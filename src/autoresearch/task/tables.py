"""Validate a table of settings against the dataclass that declares them, with pydantic-core."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from autoresearch.errors import AgentError
from autoresearch.task.values import Kind, explain, show

Settings = TypeVar("Settings")


class Key(NamedTuple):
    field: str  # of the dataclass
    kind: Kind
    default: Any = MISSING  # MISSING: the key is needed


class Refusal(Exception):
    """What is wrong with a table. `problems` are (key, sentence); the sentence is None for an
    unknown key."""

    def __init__(self, problems: list[tuple[str, str | None]]) -> None:
        super().__init__(problems)
        self.problems = problems


@lru_cache(maxsize=64)
def keys_of(settings: type) -> Mapping[str, Key]:
    """The keys that a dataclass declares, by name: the fields whose type is a `Kind`."""
    hints = get_type_hints(settings, include_extras=True)
    keys = {}
    for member in fields(settings):
        hint = hints[member.name]
        for part in (hint, *get_args(hint)):  # `Kind | None` has parts
            for kind in getattr(part, "__metadata__", ()):
                name = member.metadata.get("key", re.sub("_(s|bytes)$", "", member.name))
                keys[name] = Key(member.name, kind, member.default)
    return keys


@lru_cache(maxsize=64)
def _validator(settings: type) -> Any:
    from pydantic_core import SchemaValidator

    members = {
        name: {
            "type": "typed-dict-field",
            "schema": key.kind.schema,
            "required": key.default is MISSING,
        }
        for name, key in keys_of(settings).items()
    }
    schema: Any = {"type": "typed-dict", "fields": members, "extra_behavior": "forbid"}
    return SchemaValidator(schema)


def read_fields(settings: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Field -> value of the keys in `given`. Raises `Refusal` with everything that is wrong."""
    from pydantic_core import ValidationError

    keys = keys_of(settings)
    try:
        read = _validator(settings).validate_python(given)
    except ValidationError as refused:
        problems: dict[str, str | None] = {}
        for error in refused.errors(include_url=False):
            name = str(error["loc"][0])
            if name not in keys:
                problems[name] = None
            elif error["type"] == "missing":
                problems[name] = f"missing; needed: {keys[name].kind.accepts}"
            else:  # of several wrong items of a list, the first
                sentence = explain(keys[name].kind, given[name], error)
                problems.setdefault(name, sentence)
        raise Refusal(list(problems.items())) from None
    return {keys[name].field: value for name, value in read.items()}


def did_you_mean(key: str, accepted: Iterable[str], otherwise: str) -> str:
    """A hint for an unknown key: the nearest known one, or `otherwise`."""
    near = difflib.get_close_matches(key, accepted, 1, 0.7)
    return f"did you mean {show(near[0])}?" if near else otherwise


def read_options(settings: type[Settings], agent: str, given: Mapping[str, object]) -> Settings:
    """The `[agent.NAME]` that an agent declares as a dataclass. Raises `AgentError`."""
    try:
        return settings(**read_fields(settings, given))
    except Refusal as refused:
        known: Mapping[str, Key] = keys_of(settings)  # type: ignore[arg-type]
        accepted = f"accepted: {', '.join(known)}"
        lines = [
            f"{agent}: option {key}: {sentence}"
            if sentence
            else f"{agent}: unknown option {key!r}; {did_you_mean(key, known, accepted)}"
            for key, sentence in refused.problems
        ]
        raise AgentError("\n".join(lines)) from None
