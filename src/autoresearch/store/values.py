"""Read dataclasses back from JSON files of ours.

A file may have been cut off, torn by a power cut, or edited. If it does not hold exactly a value of
the dataclass, it is treated as missing.
"""

from __future__ import annotations

import json
import math
import types
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from autoresearch.errors import StorageError

T = TypeVar("T")
INTEGER_LIMIT = 2**63  # of SQLite


def read(path: Path, kind: type[T]) -> T | None:
    """The value of a dataclass in a file; None if there is none. Raises `StorageError`."""
    try:
        return parse(path.read_bytes(), kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def parse(text: str | bytes, kind: type[T]) -> T | None:
    """The value of a dataclass in a JSON object; None if it is not one. Fields with a default may
    be absent."""
    try:
        values = json.loads(text)
        hints = get_type_hints(kind)
        return kind(**{name: _convert(value, hints[name]) for name, value in values.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _convert(value: object, hint: Any) -> Any:
    """`value` as a field of that type. Raises ValueError."""
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_convert(item, get_args(hint)[0]) for item in value)
    options = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if not any(_fits(value, option) for option in options):
        raise ValueError("of another type")
    return value


def _fits(value: object, option: Any) -> bool:
    if isinstance(value, str):
        return option is str and _is_storable(value)
    if isinstance(value, bool) or value is None:
        return isinstance(value, option)
    if isinstance(value, int):
        return option in (int, float) and -INTEGER_LIMIT <= value < INTEGER_LIMIT
    return isinstance(value, float) and option is float and math.isfinite(value)


def _is_storable(text: str) -> bool:
    """Whether the text has no half of a surrogate pair, which SQLite and terminals refuse."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
