"""Small values of ours in JSON, read back: what was written, or nothing.

A file may have been cut off, torn by a power cut, or edited. What is not exactly a value of the
kind that is asked for is none.
"""

from __future__ import annotations

import json
import math
import types
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from autoresearch.errors import StorageError

T = TypeVar("T")
MOST = 2**63  # what SQLite can store


def read(path: Path, kind: type[T]) -> T | None:
    """The value of a dataclass in a file; None when there is none."""
    try:
        return parse(path.read_bytes(), kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def parse(text: str | bytes, kind: type[T]) -> T | None:
    """The value of a dataclass in a JSON object; None when it is none. What has a default may be
    absent."""
    try:
        found = json.loads(text)
        hints = get_type_hints(kind)
        return kind(**{name: _value(value, hints[name]) for name, value in found.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _value(value: object, hint: Any) -> Any:
    """`value` as a field of that type holds it. Raises ValueError."""
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(item, get_args(hint)[0]) for item in value)
    options = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if not any(_fits(value, option) for option in options):
        raise ValueError("of another type")
    return value


def _fits(value: object, option: Any) -> bool:
    if isinstance(value, str):
        return option is str and _is_whole(value)
    if isinstance(value, bool) or value is None:
        return isinstance(value, option)
    if isinstance(value, int):
        return option in (int, float) and -MOST <= value < MOST
    return isinstance(value, float) and option is float and math.isfinite(value)


def _is_whole(text: str) -> bool:
    """No half of a pair, which neither SQLite nor a terminal can take."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
