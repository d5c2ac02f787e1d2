"""Reads and writes the text of one literal, as C and its descendants and the languages of
configuration files write it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from autoresearch.agents.tuning.comments import LARGEST, largest_exponent
from autoresearch.agents.tuning.constants import Value

DIGITS = r"\d+(?:[_']\d+)*"
INTEGER = rf"0[xX][\da-fA-F]+(?:[_'][\da-fA-F]+)*|0[bB][01]+(?:[_'][01]+)*|{DIGITS}"
FLOAT = rf"(?:{DIGITS}\.(?:{DIGITS})?|\.{DIGITS})(?:[eE][-+]?\d+)?|{DIGITS}[eE][-+]?\d+"
SUFFIX = r"_?(?:[uUlLzZ]{1,3}|[fF](?:16|32|64|128)?|[iu](?:8|16|32|64|128|size)|n)"
"""Of the type. It stays as it is. JavaScript's `10n`, Rust's `4_u32`, C's `64UL` and `0.1f`."""

NUMBER = re.compile(rf"[\s(]*(-?\s*(?:{FLOAT}|{INTEGER}))({SUFFIX})?[\s)]*", re.ASCII)
POWER = re.compile(
    rf"[\s(]*(?:1(?:{SUFFIX})?\s*<<|(\d+)\s*\*\*)\s*(\d+)(?:{SUFFIX})?[\s)]*", re.ASCII
)
BOOL = re.compile(r"\s*(true|false|True|False|TRUE|FALSE)\s*", re.ASCII)
STRING = re.compile(r"""\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)'|`([^`\\\n]*)`)\s*""", re.ASCII)
SPACE = " \t\n\r\f\v"  # what `\s` matches in ASCII: one byte each
AMBIGUOUS = re.compile(r"-?\s*0[\d_']+")
"""Octal in C, decimal in Rust, both in YAML: no setting is worth a guess."""


@dataclass(frozen=True, slots=True)
class Part:
    """A literal within a text."""

    value: Value
    span: tuple[int, int]  # of what `edit` replaces, in the text
    base: int | None = None  # the value is an exponent of it
    write: Callable[[Value], str] | None = None  # a bool or a string


def read_literal(source: bytes) -> Part | None:
    """The literal that is the whole text; None if it is none, or more than one number."""
    try:
        text = source.decode()
    except UnicodeDecodeError:
        return None
    if match := NUMBER.fullmatch(text):
        value = _read_number(match[1], match[2] or "")
        return None if value is None else Part(value, match.span(1))
    if match := POWER.fullmatch(text):
        return _read_power(match)
    if match := BOOL.fullmatch(text):
        return Part(match[1].lower() == "true", match.span(1), write=partial(_write_bool, match[1]))
    if STRING.fullmatch(text):
        return _read_string(text)
    return None


def _read_number(text: str, suffix: str) -> int | float | None:
    plain = re.sub(r"[\s_']", "", text)
    if AMBIGUOUS.fullmatch(text):
        return None
    is_float = re.fullmatch(rf"-?(?:{FLOAT})", plain) or suffix.lower().lstrip("_")[:1] == "f"
    value = float(plain) if is_float else int(plain, 0)
    return value if abs(value) <= LARGEST else None


def _read_power(match: re.Match[str]) -> Part | None:
    base, exponent = int(match[1] or 2), int(match[2])
    if not 2 <= base <= LARGEST or exponent > largest_exponent(base):
        return None
    return Part(exponent, match.span(2), base)


def _read_string(text: str) -> Part:
    word = text.strip(SPACE)
    start = len(text) - len(text.lstrip(SPACE))
    write = partial(_write_string, word[0])
    return Part(word[1:-1], (start, start + len(word.encode())), write=write)


def _write_bool(old: str, value: Value) -> str:
    """In the case of the old word."""
    word = str(value)
    return word.upper() if old.isupper() else word if old.istitle() else word.lower()


def _write_string(quote: str, value: Value) -> str:
    """Raises ValueError for a text that would need an escape in some language."""
    text = str(value)
    if not text.isprintable() or re.search(r"""["'`\\$]""", text):
        raise ValueError(f"{text!r} cannot be written without an escape")
    return f"{quote}{text}{quote}"
