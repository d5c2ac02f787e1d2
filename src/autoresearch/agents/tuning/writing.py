"""Writes the literals of new values in the style of the old ones."""

from __future__ import annotations

import re
from decimal import Decimal

from autoresearch.agents.tuning.constants import Constant, Value


def write(constant: Constant, value: Value, old: str) -> str:
    """Return the literal of a value, in the style of the old literal."""
    if constant.words:
        return constant.words[constant.choices.index(value)]
    if isinstance(value, str):
        quote = old[0] if old[:1] in ("'", '"') and not old.startswith(old[:1] * 3) else "'"
        plain = value.isprintable() and quote not in value and "\\" not in value
        return f"{quote}{value}{quote}" if plain else ascii(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(value) if isinstance(constant.value, int) else repr(float(value))
    if isinstance(constant.value, int) and value.is_integer() and not constant.choices:
        return str(int(value))
    marker = re.search(r"[eE]", old)
    return _write_scientific(value, marker[0]) if marker else repr(value)


def _write_scientific(value: float, marker: str) -> str:
    """Return the shortest digits that give the float back, as `3.2e-4`."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    fraction = "".join(map(str, digits[1:]))
    mantissa = f"{'-' if sign else ''}{digits[0]}{'.' if fraction else ''}{fraction}"
    return f"{mantissa}{marker}{exponent + len(digits) - 1}"
