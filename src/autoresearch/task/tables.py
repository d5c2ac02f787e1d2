"""Validate a table of settings against the dataclass that declares them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from autoresearch.errors import AgentError, AutoresearchError
from autoresearch.task.values import Kind, explain, show

Settings = TypeVar("Settings")


class Key(NamedTuple):
    field: str  # of the dataclass
    kind: Kind
    default: Any = MISSING  # MISSING: the table needs the key


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


def read_table(
    keys: Mapping[str, Key], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Validate `given` against `keys`.

    Returns field -> value, and key -> a sentence for everything that is wrong (None for an unknown
    key). If something is wrong, there are no values.
    """
    from pydantic_core import SchemaValidator, ValidationError

    members = {
        name: {
            "type": "typed-dict-field",
            "schema": key.kind.schema,
            "required": key.default is MISSING,
        }
        for name, key in keys.items()
    }
    schema: Any = {"type": "typed-dict", "fields": members, "extra_behavior": "forbid"}
    try:
        values = SchemaValidator(schema).validate_python(given)
        return {keys[name].field: value for name, value in values.items()}, {}
    except ValidationError as refused:
        problems: dict[str, str | None] = {}
        for error in refused.errors(include_url=False):
            name = str(error["loc"][0])
            if name not in keys:
                problems[name] = None
            elif error["type"] == "missing" and len(error["loc"]) == 1:
                problems[name] = f"missing; needed: {keys[name].kind.accepts}"
            else:  # of several wrong items of a list, the first
                problems.setdefault(name, explain(keys[name].kind, given[name], error))
        return {}, problems


def did_you_mean(key: str, accepted: Iterable[str], otherwise: str) -> str:
    """A hint for an unknown key: the nearest known one, or `otherwise`."""
    near = difflib.get_close_matches(key, accepted, 1, 0.7)
    return f"did you mean {show(near[0])}?" if near else otherwise


def read_options(
    settings: type[Settings],
    plugin: str,
    given: Mapping[str, object],
    error: type[AutoresearchError] = AgentError,
) -> Settings:
    """Read `[agent.NAME]`, or the table of a runner, into the dataclass that declares its keys.
    Raises `error`."""
    keys: Mapping[str, Key] = keys_of(settings)
    values, problems = read_table(keys, given)
    accepted = f"accepted: {', '.join(keys)}"
    lines = [
        f"{plugin}: option {key}: {sentence}"
        if sentence
        else f"{plugin}: unknown option {key!r}; {did_you_mean(key, keys, accepted)}"
        for key, sentence in problems.items()
    ]
    if lines:
        raise error("\n".join(lines))
    return settings(**values)
