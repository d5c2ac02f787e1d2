"""What a value in a task file may be: each kind with the words that say what it accepts.

`Kind.read` returns the value as the program uses it, or raises ValueError saying why not.
"""

from __future__ import annotations

import datetime
import json
import re
import shlex
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar

from autoresearch.records import Goal

T = TypeVar("T")
Read = Callable[[object], T]

MAX_DURATION_S = 365 * 86_400.0  # the operating system's waits overflow not far beyond


class Kind(NamedTuple):
    accepts: str
    read: Read[Any]


# --------------------------------------------------------------------------------------------
# Numbers


def parse_duration(value: object) -> float:
    """Seconds of `"10s"`, `"2m"`, `"1h30m"`, `"500ms"`, `"1.5h"`, `"2d"` or a number of seconds.

    Raises ValueError, also for 0 and for more than a year.
    """
    if isinstance(value, str):
        units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
        if not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+", value, re.ASCII):
            raise ValueError("not a duration")
        parts = re.findall(r"([\d.]+)(ms|[smhd])", value)
        value = sum(float(number) * units[unit] for number, unit in parts)
    if (seconds := _positive(value)) > MAX_DURATION_S:
        raise ValueError("more than 365 days")
    return seconds


def parse_size(value: object) -> int:
    """Bytes of `"8GB"` (powers of 1000), `"8GiB"` (powers of 1024) or a whole number of bytes.

    Raises ValueError, also for 0.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kKMGT])(i?))?B", value, re.ASCII)
        if not match:
            raise ValueError("not a size")
        power = " KMGT".index((match[2] or " ").upper())
        value = int(_finite(float(match[1]) * (1024 if match[3] else 1000) ** power))
    return _whole(value)


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    if not abs(value) <= 1e300:  # also nan; an int of any length can be compared
        raise ValueError("not a finite number")
    return float(value)


def _positive(value: object) -> float:
    if (number := _finite(value)) <= 0:
        raise ValueError("not above 0")
    return number


def _multiple(value: object) -> float:
    if (number := _finite(value)) < 1:
        raise ValueError("below 1")
    return number


def _whole(value: object, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a whole number")
    if not least <= value < 2**63:  # what SQLite can store
        raise ValueError(f"below {least}" if value < least else "too large")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither")
    return value


def _clock_time(value: object) -> datetime.time:
    if isinstance(value, datetime.time):
        return value
    if not (match := re.fullmatch(r"(\d{1,2}):(\d\d)", text(value), re.ASCII)):
        raise ValueError("not a time")
    return datetime.time(int(match[1]), int(match[2]))


def _bounds(value: object) -> tuple[tuple[str, float], ...]:
    def bound(item: object) -> tuple[str, float]:
        if not (match := re.fullmatch(r"(<=|>=|==|<|>)\s*(\S+)", text(item).strip())):
            raise ValueError("no comparison")
        return match[1], _finite(float(match[2]))

    return tuple(bound(item) for item in (value if isinstance(value, list) else [value]))


# --------------------------------------------------------------------------------------------
# Words


def text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    if not value.strip() or "\0" in value:
        raise ValueError("empty" if not value.strip() else "holds a NUL character")
    if re.search("[\ud800-\udfff]", value):
        raise ValueError("is not UTF-8")
    return value


def shell_words(command: str) -> tuple[str, ...]:
    """What to execute for `command`: its words where it needs no shell, else `/bin/sh -c`.

    Raises ValueError where a command that needs no shell leaves a quotation open.
    """
    if re.search(r"[|&;<>()$`*?\[\]{}~#!\\\n]", command) or re.match(r"\s*\w+=", command):
        return ("/bin/sh", "-c", command)
    return tuple(shlex.split(command))


def _command(value: object) -> str:
    if not any(shell_words(text(value))):
        raise ValueError("empty")
    return text(value)


def _named(pattern: str, flags: int = re.ASCII) -> Read[str]:
    def read(value: object) -> str:
        if not re.fullmatch(pattern, text(value), flags):
            raise ValueError(f"{show(value)} is no such name")
        return text(value)

    return read


def one_of(*words: str) -> Kind:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError("neither" if len(words) == 2 else "none of these")
        return value

    return Kind(" or ".join(f'"{word}"' for word in words), read)


_plugin = _named(r"[A-Za-z][\w-]*")  # a file in `agents/` or `runners/`, without its suffix
_spec = _named(r"[A-Za-z][\w-]*(:.+)?")  # and an argument for it


def unquoted(spec: str) -> str:
    """`command:"sh a.sh"` as a shell would hand it on: quotes around the whole of an argument are
    no part of it."""
    match = re.fullmatch(r"""([\w-]+:)(["'])(.*)\2""", spec, re.DOTALL)
    return match[1] + match[3] if match and match[3] and match[2] not in match[3] else spec


def _agent(value: object) -> str:
    return unquoted(_spec(value))


def _portfolio(value: object) -> str | tuple[tuple[str, float], ...]:
    if isinstance(value, str):
        return _agent(value)
    if not isinstance(value, list | dict) or not value:
        raise ValueError("no name")
    weights = value if isinstance(value, dict) else dict.fromkeys(map(_agent, value), 1)
    if len(weights) < len(value):
        raise ValueError("a name comes twice")
    return tuple((_agent(name), _positive(weight)) for name, weight in weights.items())


# --------------------------------------------------------------------------------------------
# Paths


def _inside(value: object) -> str:
    path = PurePosixPath(text(value))
    if path.is_absolute() or ".." in path.parts or text(value).startswith("~"):
        raise ValueError(f"{show(value)} leads outside the task's folder")
    if not path.parts:
        raise ValueError(f"{show(value)} is the whole folder")
    return str(path)


def _glob(value: object) -> str:
    negative = text(value).startswith("!")
    return "!" * negative + _inside(text(value)[negative:])


def _outside(value: object) -> str:
    if not text(value).startswith(("/", "~/")) or ".." in PurePosixPath(text(value)).parts:
        raise ValueError(f"{show(value)} is not absolute")
    return text(value)


def _list(read: Read[str]) -> Read[tuple[str, ...]]:
    def read_list(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError("not a list")
        return tuple(read(item) for item in value)

    return read_list


def _some(read: Read[tuple[str, ...]]) -> Read[tuple[str, ...]]:
    def read_some(value: object) -> tuple[str, ...]:
        if not read(value):
            raise ValueError("empty")
        return read(value)

    return read_some


def show(value: object) -> str:
    """A value as the task file would write it, in at most 60 characters."""
    try:
        shown = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):  # a whole number of more than 4,300 digits
        shown = "something that cannot be shown"
    shown = "a table" if isinstance(value, dict) else shown
    return shown if len(shown) <= 60 else shown[:57] + "..."


TEXT = Kind("text that is not empty", text)
COMMAND = Kind('a command such as "python train.py"', _command)
WORD = Kind("one word of letters, digits, _ and .", _named(r"[\w.µ]+", 0))
GOAL = Kind('"minimize" or "maximize"', lambda value: Goal(one_of(*Goal).read(value)))
FLAG = Kind("true or false", _flag)
DURATION = Kind('"10s", "2m", "1h30m" or seconds, at most 365 days', parse_duration)
SIZE = Kind('"512MB", "8GB", "8GiB" or bytes', parse_size)
NUMBER = Kind("a finite number", _finite)
AMOUNT = Kind("a number above 0, or no such key for no limit", _positive)
MULTIPLE = Kind("a number, at least 1", _multiple)
LIMIT = Kind("a whole number above 0, or no such key for no limit", _whole)
COUNT = Kind("a whole number above 0", _whole)
SEVERAL = Kind("a whole number, at least 2", lambda value: _whole(value, 2))
BRIEFING = Kind("a whole number of tokens, at least 1000", lambda value: _whole(value, 1000))
TIME = Kind('a time of day such as "07:00"', _clock_time)
NAME = Kind("a name of letters, digits, _ and -", _plugin)
AGENT = Kind('"tuner", or "NAME:ARGUMENT"', _agent)
NAMES = Kind(
    '"tuner", or "NAME:ARGUMENT", or ["tuner", "claude"], or weights { tuner = 1, claude = 3 }',
    _portfolio,
)
PATHS = Kind("a list of paths relative to the task's folder, without ..", _list(_inside))
SOME_PATHS = Kind(
    "a list of at least one path relative to the task's folder, without ..",
    _some(_list(_inside)),
)
GLOBS = Kind('a list of relative paths or globs such as ["train.py"]', _list(_glob))
PLACES = Kind('a list of absolute paths or such as "~/models"', _list(_outside))
CACHES = Kind('a list of absolute paths or such as "~/.cache/x"', _list(_outside))
VARIABLES = Kind("a list of environment variables' names", _list(_named(r"[A-Za-z_]\w*")))
BOUND = Kind('"<= 60000" (<=, <, >=, >, ==), or a list of such', _bounds)
