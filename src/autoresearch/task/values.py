"""The types of the values in a task file. Each has a validator and a description for people.

The validators are schemas of pydantic-core, the part of pydantic v2 that validates. It takes 0.05 s
of CPU to import, pydantic with its first model 0.26 s, and most commands read a task. So the
schemas are plain dictionaries, and pydantic-core is imported when a value is validated.
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
from autoresearch.task.json_path import parse_path

Schema = dict[str, Any]

MAX_DURATION_S = 365 * 86_400.0  # the operating system's waits overflow not far beyond
MAX_NUMBER = 1e300  # sums and products of a few such numbers are still finite
MAX_WHOLE = 2**63 - 1  # SQLite stores no larger number


@dataclass(frozen=True, eq=False)  # a type's metadata needs a hash, and dictionaries have none
class Kind:
    """The metadata of a type: the values it accepts, in words and as a schema."""

    accepts: str
    schema: Schema

    def read(self, value: object) -> Any:
        """Convert `value` to its type. Raises ValueError that tells the value and `accepts`."""
        from pydantic_core import SchemaValidator, ValidationError

        schema: Any = self.schema
        try:
            return SchemaValidator(schema).validate_python(value)
        except ValidationError as refused:
            raise ValueError(explain(self, value, refused.errors()[0])) from None


def explain(kind: Kind, value: object, error: Mapping[str, Any]) -> str:
    """Return a sentence for one of a ValidationError's `errors()` about `value`."""
    template = REASONS.get(error["type"], "")
    reason = template.format(**error.get("ctx", {}))
    if reason and error["input"] is not value:
        reason = f"{show(error['input'])}: {reason}"
    return f"found {show(value)}{reason and f' ({reason})'}; accepted: {kind.accepts}"


REASONS = {
    "extra_forbidden": "unknown key",
    "missing": "a key is missing",
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
    """Write a value as the task file would, in at most 60 characters."""
    if isinstance(value, dict):
        return "a table"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):  # a whole number of more than 4,300 digits
        text = "something that cannot be shown"
    return text if len(text) <= 60 else text[:57] + "..."


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


def matching(pattern: str) -> Schema:
    """Text that a regular expression matches as a whole."""
    whole = rf"\A(?:{pattern})\Z"
    return {"type": "str", "strict": True, "pattern": whole, "regex_engine": "python-re"}


def _whole(least: int = 1) -> Schema:
    return {"type": "int", "strict": True, "ge": least, "le": MAX_WHOLE}


def _list(item: Schema, least: int = 0) -> Schema:
    items = {"items_schema": [item], "variadic_item_index": 0}
    return {"type": "tuple", "min_length": least} | items


def one_of(*words: str) -> Kind:
    accepts = " or ".join(f'"{word}"' for word in words)
    return Kind(accepts, {"type": "literal", "expected": list(words)})


# --------------------------------------------------------------------------------------------
# Numbers and times


def _to_seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+", value, re.ASCII):
        raise ValueError("not a duration")
    parts = re.findall(r"([\d.]+)(ms|[smhd])", value)
    return sum(float(count) * units[unit] for count, unit in parts)


def _to_bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kKMGT])(i?))?B", value, re.ASCII)
    if not match:
        raise ValueError("not a size")
    power = " KMGT".index((match[2] or " ").upper())
    size = float(match[1]) * (1024 if match[3] else 1000) ** power
    return int(size) if math.isfinite(size) else MAX_WHOLE + 1


def _to_clock_time(value: object) -> datetime.time:
    if isinstance(value, datetime.time):
        return value
    match = isinstance(value, str) and re.fullmatch(r"(\d{1,2}):(\d\d)", value, re.ASCII)
    if not match:
        raise ValueError("not a time")
    return datetime.time(int(match[1]), int(match[2]))


DURATION = Kind(
    '"10s", "2m", "1h30m" or seconds, at most 365 days',
    _before(_to_seconds, number(gt=0, le=MAX_DURATION_S)),
)
SIZE = Kind('"512MB", "8GB", "8GiB" or bytes', _before(_to_bytes, _whole()))
CLOCK_TIME = Kind('a time of day such as "07:00"', after(_to_clock_time, {"type": "any"}))

Flag = Annotated[bool, Kind("true or false", {"type": "bool", "strict": True})]
Duration = Annotated[float, DURATION]
Size = Annotated[int, SIZE]
Number = Annotated[float, Kind("a finite number", number())]
Amount = Annotated[float, Kind("a number above 0, or no such key for no limit", number(gt=0))]
LeastGain = Annotated[float, Kind("a number, at least 0", number(ge=0))]
Multiple = Annotated[float, Kind("a number, at least 1", number(ge=1))]
Share = Annotated[float, Kind("a number, at least 0", number(ge=0))]
Limit = Annotated[int, Kind("a whole number above 0, or no such key for no limit", _whole())]
Count = Annotated[int, Kind("a whole number above 0", _whole())]
Budget = Annotated[int, Kind("a whole number; 0 allows none", _whole(0))]
Several = Annotated[int, Kind("a whole number, at least 2", _whole(2))]
BriefingTokens = Annotated[int, Kind("a whole number of tokens, at least 1000", _whole(1000))]
ClockTime = Annotated[datetime.time, CLOCK_TIME]


# --------------------------------------------------------------------------------------------
# Words


def shell_words(command: str) -> tuple[str, ...]:
    """Split `command` into the words to execute: `/bin/sh -c COMMAND` if it needs a shell.

    Raises ValueError if a command that needs no shell leaves a quotation open.
    """
    if re.search(r"[|&;<>()$`*?\[\]{}~#!\\\n]", command) or re.match(r"\s*\w+=", command):
        return ("/bin/sh", "-c", command)
    return tuple(shlex.split(command))


def _check_text(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("holds a NUL character" if value.strip() else "empty")
    return value


def _check_command(value: str) -> str:
    if not any(shell_words(value)):
        raise ValueError("empty")
    return value


def _check_pattern(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{error}") from error
    if groups != 1:
        raise ValueError(f"it has {groups} groups")
    return value


def _check_json_path(value: str) -> str:
    parse_path(value)
    return value


def _to_weights(value: object) -> object:
    """Convert a name or a list of names to name -> weight, the third form of a portfolio."""
    if isinstance(value, str):
        return {value: 1}
    if not isinstance(value, list):
        return value
    names = [name for name in value if isinstance(name, str)]
    if len(set(names)) < len(value):
        raise ValueError("a name comes twice" if len(names) == len(value) else "not text")
    return dict.fromkeys(names, 1)


def _to_bound(text: str) -> tuple[str, float]:
    if not (match := re.fullmatch(r"(<=|>=|==|<|>)\s*(\S+)", text.strip())):
        raise ValueError("no comparison")
    limit = float(match[2])
    if not math.isfinite(limit):
        raise ValueError("not a finite number")
    return match[1], limit


NAME = r"(?a:[A-Za-z][\w.-]*)"  # ours, an entry point of another package, or a dotted path
VARIABLE = r"(?a:[A-Za-z_]\w*)"
TEXT = after(_check_text, {"type": "str", "strict": True})
AGENT = after(unquote, matching(rf"{NAME}(:[^\0\n]+)?"))
WEIGHTS: Schema = {
    "type": "dict",
    "strict": True,
    "keys_schema": AGENT,
    "values_schema": number(gt=0),
    "min_length": 1,
}
COMMAND = Kind('a command such as "python train.py"', after(_check_command, TEXT))
METRIC_NAME = Kind(
    "letters, digits, spaces and _ . / @ % -", matching(r"[\w.µ/@%-]+(?: [\w.µ/@%-]+)*")
)
GOAL = one_of(*(goal.value for goal in Goal))
PORTFOLIO = Kind(
    '"tuner", or "NAME:ARGUMENT", or ["tuner", "claude"], or weights { tuner = 1, claude = 3 }',
    _before(_to_weights, after(lambda weights: tuple(weights.items()), WEIGHTS)),
)
BOUNDS = Kind(
    '"<= 60000" (<=, <, >=, >, ==), or a list of such',
    _before(
        lambda value: value if isinstance(value, list) else [value], _list(after(_to_bound, TEXT))
    ),
)

GUARD_COMMAND = Kind(
    'a command such as "pytest -q", or { command = "pytest -q", timeout = "5m" }',
    _before(
        lambda value: value if isinstance(value, dict) else {"command": value},
        after(
            lambda given: (given["command"], given.get("timeout")),
            {
                "type": "typed-dict",
                "extra_behavior": "forbid",
                "fields": {
                    "command": {"type": "typed-dict-field", "schema": COMMAND.schema},
                    "timeout": {
                        "type": "typed-dict-field",
                        "schema": DURATION.schema,
                        "required": False,
                    },
                },
            },
        ),
    ),
)

Text = Annotated[str, Kind("text that is not empty", TEXT)]
Texts = Annotated[tuple[str, ...], Kind("a list of texts", _list(TEXT))]
Command = Annotated[str, COMMAND]
MetricName = Annotated[str, METRIC_NAME]
JsonPath = Annotated[
    str,
    Kind(
        'a path such as "results[0].mean" or "benchmarks[name=sort].stats.median"',
        after(_check_json_path, TEXT),
    ),
]
Pattern = Annotated[
    str, Kind("a regular expression with one group, the number", after(_check_pattern, TEXT))
]
GoalWord = Annotated[Goal, Kind(GOAL.accepts, after(Goal, GOAL.schema))]
BudgetClock = Annotated[str, one_of("wall", "cpu")]
MeasureWord = Annotated[str, one_of("cpu_time", "wall_time", "instructions")]
Executor = Annotated[str, one_of("slurm", "local")]  # of submitit
JudgeLevel = Annotated[str, one_of("fast", "default", "strict")]
AMOUNTS = Kind(
    "a table of names and numbers above 0, such as { fast = 1 }",
    after(
        lambda table: tuple(table.items()),
        {
            "type": "dict",
            "strict": True,
            "keys_schema": TEXT,
            "values_schema": number(gt=0),
        },
    ),
)
Amounts = Annotated[tuple[tuple[str, float], ...], AMOUNTS]
Url = Annotated[
    str, Kind("an address such as https://host/path", matching(r"https?://[^\s/?#]+[^\s]*"))
]
OCCASIONS = ("first keep", "new best", "stopped early", "finished")
_OCCASION = one_of(*OCCASIONS)
Occasions = Annotated[
    tuple[str, ...], Kind(f"a list of {_OCCASION.accepts}", _list(_OCCASION.schema, least=1))
]
RunnerName = Annotated[str, Kind("a name of letters, digits, _, . and -", matching(NAME))]
Formats = Annotated[
    tuple[str, ...], Kind('a list of formats such as ["csv", "mlflow"]', _list(matching(NAME)))
]
AgentName = Annotated[str, Kind('"tuner", or "NAME:ARGUMENT"', AGENT)]
Portfolio = Annotated[tuple[tuple[str, float], ...], PORTFOLIO]
CODE = {"type": "int", "strict": True, "ge": -64, "le": 255}
ExitCodes = Annotated[
    tuple[int, ...],
    Kind("a list of exit codes such as [0, 1]; -11 is signal 11", _list(CODE, least=1)),
]
VARIABLES = Kind("a list of environment variables' names", _list(matching(VARIABLE)))
Variables = Annotated[tuple[str, ...], VARIABLES]
MODULES = Kind(
    'a list of modules such as ["torch"]', _list(matching(rf"{VARIABLE}(\.{VARIABLE})*"))
)
Modules = Annotated[tuple[str, ...], MODULES]


# --------------------------------------------------------------------------------------------
# Paths


def _check_inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or value.startswith("~"):
        raise ValueError("leads outside the task's folder")
    if not path.parts:
        raise ValueError("the whole folder")
    return str(path)


def _check_glob(value: str) -> str:
    if value.startswith("!"):
        return f"!{_check_inside(_check_text(value[1:]))}"
    return _check_inside(value)


def _check_absolute(value: str) -> str:
    if not value.startswith(("/", "~/")) or ".." in PurePosixPath(value).parts:
        raise ValueError("not absolute")
    return value


INSIDE, GLOB, ABSOLUTE = (
    after(check, TEXT) for check in (_check_inside, _check_glob, _check_absolute)
)
RELATIVE = "relative to the task's folder, without .."
GLOBS = Kind('a list of relative paths or globs such as ["train.py"]', _list(GLOB))
PATHS = Kind(f"a list of paths {RELATIVE}", _list(INSIDE))
SOME_PATHS = Kind(f"a list of at least one path {RELATIVE}", _list(INSIDE, least=1))
PLACES = Kind('a list of absolute paths or such as "~/.cache/x"', _list(ABSOLUTE))

Globs = Annotated[tuple[str, ...], GLOBS]
Paths = Annotated[tuple[str, ...], PATHS]
OnePath = Annotated[str, Kind(f"a path {RELATIVE}", INSIDE)]
SomePaths = Annotated[tuple[str, ...], SOME_PATHS]
Places = Annotated[tuple[str, ...], PLACES]
