"""What a value of a task file may be: types that carry a validator and the words for people.

The validators are schemas of pydantic-core, the part of pydantic v2 that validates. Importing it
takes 0.05 s of CPU where pydantic takes 0.26 s with its first model, and most commands read a task.
It is imported only when a value is validated.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from autoresearch.records import Goal
from autoresearch.task.agent_names import unquote

Schema = dict[str, Any]

MAX_DURATION_S = 365 * 86_400.0  # the operating system's waits overflow not far beyond
MAX_NUMBER = 1e300  # sums and products of a few such numbers are still finite
MAX_WHOLE = 2**63 - 1  # what SQLite can store


@dataclass(frozen=True, eq=False)  # schemas are dicts, but types want metadata with a hash
class Kind:
    """The metadata of a type: what it accepts, for people and as a schema of pydantic-core."""

    accepts: str
    schema: Schema

    def read(self, value: object) -> Any:
        """`value` as the program uses it. Raises ValueError with what was found and is accepted."""
        from pydantic_core import SchemaValidator, ValidationError

        schema: Any = self.schema
        try:
            return SchemaValidator(schema).validate_python(value)
        except ValidationError as refused:
            raise ValueError(explain(self, value, refused.errors()[0])) from None


def explain(kind: Kind, value: object, error: Mapping[str, Any]) -> str:
    """A sentence for one of a ValidationError's `errors()` about `value`."""
    template = REASONS.get(error["type"], "")
    reason = template.format(**error.get("ctx", {}))
    if reason and error["input"] is not value:
        reason = f"{show(error['input'])}: {reason}"
    return f"found {show(value)}{reason and f' ({reason})'}; accepted: {kind.accepts}"


REASONS = {
    "dict_type": "not a list or a table",
    "finite_number": "not a finite number",
    "float_type": "not a number",
    "greater_than": "not above {gt:g}",
    "greater_than_equal": "below {ge:g}",
    "int_type": "not a whole number",
    "less_than_equal": "above {le:.10g}",
    "string_type": "not text",
    "string_unicode": "not UTF-8",
    "too_short": "empty",
    "tuple_type": "not a list",
    "value_error": "{error}",
}


def show(value: object) -> str:
    """A value as the task file would write it, in at most 60 characters."""
    try:
        shown = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):  # a whole number of more than 4,300 digits
        shown = "something that cannot be shown"
    shown = "a table" if isinstance(value, dict) else shown
    return shown if len(shown) <= 60 else shown[:57] + "..."


# --------------------------------------------------------------------------------------------
# Schemas


def after(check: Callable[[Any], object], schema: Schema) -> Schema:
    """`schema`, then `check`, which returns the value to use or raises ValueError."""
    function = {"type": "no-info", "function": check}
    return {"type": "function-after", "function": function, "schema": schema}


def _before(convert: Callable[[Any], object], schema: Schema) -> Schema:
    return after(convert, schema) | {"type": "function-before"}


def number(**bounds: float) -> Schema:
    """A finite number; `bounds` are pydantic's `gt`, `ge`, `lt` and `le`."""
    limits = {"ge": -MAX_NUMBER, "le": MAX_NUMBER} | bounds
    return {"type": "float", "strict": True, "allow_inf_nan": False} | limits


def _whole(least: int = 1) -> Schema:
    return {"type": "int", "strict": True, "ge": least, "le": MAX_WHOLE}


def _list(item: Schema, least: int = 0) -> Schema:
    return {
        "type": "tuple",
        "items_schema": [item],
        "variadic_item_index": 0,
        "min_length": least,
    }


def one_of(*words: str) -> Kind:
    accepts = " or ".join(f'"{word}"' for word in words)
    return Kind(accepts, {"type": "literal", "expected": list(words)})


# --------------------------------------------------------------------------------------------
# Numbers and times


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+", value, re.ASCII):
        raise ValueError("not a duration")
    parts = re.findall(r"([\d.]+)(ms|[smhd])", value)
    return sum(float(count) * units[unit] for count, unit in parts)


def _bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kKMGT])(i?))?B", value, re.ASCII)
    if not match:
        raise ValueError("not a size")
    power = " KMGT".index((match[2] or " ").upper())
    size = float(match[1]) * (1024 if match[3] else 1000) ** power
    return int(size) if math.isfinite(size) else MAX_WHOLE + 1


def _clock_time(value: object) -> datetime.time:
    if isinstance(value, datetime.time):
        return value
    match = isinstance(value, str) and re.fullmatch(r"(\d{1,2}):(\d\d)", value, re.ASCII)
    if not match:
        raise ValueError("not a time")
    return datetime.time(int(match[1]), int(match[2]))


DURATION = Kind(
    '"10s", "2m", "1h30m" or seconds, at most 365 days',
    _before(_seconds, number(gt=0, le=MAX_DURATION_S)),
)
SIZE = Kind('"512MB", "8GB", "8GiB" or bytes', _before(_bytes, _whole()))

Flag = Annotated[bool, Kind("true or false", {"type": "bool", "strict": True})]
Duration = Annotated[float, DURATION]
Size = Annotated[int, SIZE]
Number = Annotated[float, Kind("a finite number", number())]
Amount = Annotated[float, Kind("a number above 0, or no such key for no limit", number(gt=0))]
Multiple = Annotated[float, Kind("a number, at least 1", number(ge=1))]
Limit = Annotated[int, Kind("a whole number above 0, or no such key for no limit", _whole())]
Count = Annotated[int, Kind("a whole number above 0", _whole())]
Several = Annotated[int, Kind("a whole number, at least 2", _whole(2))]
BriefingTokens = Annotated[int, Kind("a whole number of tokens, at least 1000", _whole(1000))]
ClockTime = Annotated[
    datetime.time,
    Kind(
        'a time of day such as "07:00"',
        {"type": "function-plain", "function": {"type": "no-info", "function": _clock_time}},
    ),
]


# --------------------------------------------------------------------------------------------
# Words


def shell_words(command: str) -> tuple[str, ...]:
    """The words to execute for `command`: its own if it needs no shell, else `/bin/sh -c` with it.

    Raises ValueError if a command that needs no shell leaves a quotation open.
    """
    if re.search(r"[|&;<>()$`*?\[\]{}~#!\\\n]", command) or re.match(r"\s*\w+=", command):
        return ("/bin/sh", "-c", command)
    return tuple(shlex.split(command))


def _text(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("holds a NUL character" if value.strip() else "empty")
    return value


def _command(value: str) -> str:
    if not any(shell_words(value)):
        raise ValueError("empty")
    return value


TEXT = after(_text, {"type": "str", "strict": True})


def matching(pattern: str) -> Schema:
    """Text that the whole of a regular expression matches."""
    whole = rf"\A(?:{pattern})\Z"
    return {"type": "str", "strict": True, "pattern": whole, "regex_engine": "python-re"}


NAME = r"(?a:[A-Za-z][\w.-]*)"  # ours, an entry point of another package, or a dotted path
VARIABLE = r"(?a:[A-Za-z_]\w*)"
AGENT = after(unquote, matching(rf"{NAME}(:[^\0\n]+)?"))

Text = Annotated[str, Kind("text that is not empty", TEXT)]
Texts = Annotated[tuple[str, ...], Kind("a list of texts", _list(TEXT))]
COMMAND = Kind('a command such as "python train.py"', after(_command, TEXT))
Command = Annotated[str, COMMAND]
WORD = Kind("one word of letters, digits, _ and .", matching(r"[\w.µ]+"))
Word = Annotated[str, WORD]
GOAL = one_of(*(goal.value for goal in Goal))
GoalWord = Annotated[Goal, Kind(GOAL.accepts, after(Goal, GOAL.schema))]
BudgetClock = Annotated[str, one_of("wall", "cpu")]
JudgeLevel = Annotated[str, one_of("fast", "default", "strict")]
RunnerName = Annotated[str, Kind("a name of letters, digits, _, . and -", matching(NAME))]
AgentName = Annotated[str, Kind('"tuner", or "NAME:ARGUMENT"', AGENT)]
Variables = Annotated[
    tuple[str, ...], Kind("a list of environment variables' names", _list(matching(VARIABLE)))
]


def _weights(value: object) -> object:
    """The three ways to name agents, all as name -> weight."""
    if isinstance(value, str):
        return {value: 1}
    if not isinstance(value, list):
        return value
    names = [name for name in value if isinstance(name, str)]
    if len(set(names)) < len(value):
        raise ValueError("a name comes twice" if len(names) == len(value) else "not text")
    return dict.fromkeys(names, 1)


def _bound(text: str) -> tuple[str, float]:
    if not (match := re.fullmatch(r"(<=|>=|==|<|>)\s*(\S+)", text.strip())):
        raise ValueError("no comparison")
    limit = float(match[2])
    if not math.isfinite(limit):
        raise ValueError("not a finite number")
    return match[1], limit


WEIGHTS: Schema = {
    "type": "dict",
    "strict": True,
    "keys_schema": AGENT,
    "values_schema": number(gt=0),
    "min_length": 1,
}
PORTFOLIO = Kind(
    '"tuner", or "NAME:ARGUMENT", or ["tuner", "claude"], or weights { tuner = 1, claude = 3 }',
    _before(_weights, after(lambda weights: tuple(weights.items()), WEIGHTS)),
)
Portfolio = Annotated[tuple[tuple[str, float], ...], PORTFOLIO]
BOUNDS = Kind(
    '"<= 60000" (<=, <, >=, >, ==), or a list of such',
    _before(
        lambda value: value if isinstance(value, list) else [value], _list(after(_bound, TEXT))
    ),
)


# --------------------------------------------------------------------------------------------
# Paths


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or value.startswith("~"):
        raise ValueError("leads outside the task's folder")
    if not path.parts:
        raise ValueError("the whole folder")
    return str(path)


def _glob(value: str) -> str:
    return f"!{_inside(_text(value[1:]))}" if value.startswith("!") else _inside(value)


def _absolute(value: str) -> str:
    if not value.startswith(("/", "~/")) or ".." in PurePosixPath(value).parts:
        raise ValueError("not absolute")
    return value


INSIDE = after(_inside, TEXT)
OUTSIDE = _list(after(_absolute, TEXT))
GLOBS = Kind('a list of relative paths or globs such as ["train.py"]', _list(after(_glob, TEXT)))

Globs = Annotated[tuple[str, ...], GLOBS]
Paths = Annotated[
    tuple[str, ...],
    Kind("a list of paths relative to the task's folder, without ..", _list(INSIDE)),
]
SomePaths = Annotated[
    tuple[str, ...],
    Kind(
        "a list of at least one path relative to the task's folder, without ..",
        _list(INSIDE, least=1),
    ),
]
Places = Annotated[tuple[str, ...], Kind('a list of absolute paths or such as "~/models"', OUTSIDE)]
Caches = Annotated[
    tuple[str, ...], Kind('a list of absolute paths or such as "~/.cache/x"', OUTSIDE)
]
