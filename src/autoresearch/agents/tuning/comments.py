"""The comments and guesses that turn a literal into a constant with a range.

The text of a comment behind the literal may limit its values, in every language alike:

    DEPTH = 4               # layers; in [1, 8]
    ACTIVATION = "relu"     # one of: relu, gelu, silu
    TIME_LIMIT = 300        # fixed

Without one, the range is guessed from the value and the name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from autoresearch.agents.tuning.constants import (
    Constant,
    Kind,
    SourceError,
    Value,
    round_to_digits,
)
from autoresearch.agents.tuning.names import get_setting_name

LARGEST = 1e300  # a larger number is no setting, and its range would leave the floats
MAX_ELEMENTS = 8  # a longer list of numbers is data, not settings
NEAREST = 1e-8  # to 1: a closer coefficient has no range worth searching

NUMBER = r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"\bin\s*\[\s*({NUMBER})\s*,\s*({NUMBER})\s*\]")
ONE_OF = re.compile(r"\bone of:\s*([^;]+)")
FIXED = re.compile(r"\bfixed\b(?!-)")
RATE = re.compile(r"(?:^|_)(?:lr|eps|epsilon)(?:_|$)|rate|decay", re.IGNORECASE)
FRACTION = re.compile(r"ratio|frac|prob|drop|percent", re.IGNORECASE)
AVERAGE = re.compile(r"beta|momentum|ema|decay|gamma", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that a source gives to a name, and the comments on it."""

    name: str
    value: Value
    span: tuple[int, int]  # of what `edit` replaces, in bytes
    comment: str
    line: int  # for errors, from 1
    base: int | None = None  # the value is an exponent of it
    is_inner: bool = False  # in a function
    write: Callable[[Value], str] | None = (
        None  # a choice, where Python's way is not the language's
    )


def make_constants(literals: Iterable[Literal]) -> list[Constant]:
    """The constants among the literals, in the order of the source. Raises `SourceError`."""
    constants = []
    for literal in literals:
        if FIXED.search(literal.comment) or (literal.is_inner and _is_common(literal)):
            continue
        try:
            constant = _make_constant(literal)
        except _CommentError as error:
            raise SourceError(f"{literal.name}, line {literal.line}: {error}") from error
        if constant is not None:
            constants.append(constant)
    return sorted(constants, key=lambda constant: constant.span)


def largest_exponent(base: int) -> int:
    """The largest exponent that is worth a try."""
    return math.floor(math.log10(LARGEST) / math.log10(base))


def _is_common(literal: Literal) -> bool:
    """Whether it is a value that starts a count or a switch, more likely than a setting. A range in
    a comment makes it a setting."""
    is_plain = isinstance(literal.value, bool) or literal.value in (-1, 0, 1)
    return is_plain and not has_values(literal)


def has_values(literal: Literal) -> bool:
    """Whether a comment says which values it may have."""
    return bool(RANGE.search(literal.comment) or ONE_OF.search(literal.comment))


class _CommentError(ValueError):
    """A wrong comment on a constant. The message does not name the constant."""


def _make_constant(literal: Literal) -> Constant | None:
    value = literal.value
    bare = Constant(literal.name, value, literal.span, "choice", base=literal.base)
    if isinstance(value, bool):
        return _add_words(literal, replace(bare, kind="bool", choices=(False, True)))
    if match := ONE_OF.search(literal.comment):
        return _add_words(literal, replace(bare, choices=_read_choices(bare, match)))
    if isinstance(value, str):
        return None
    return _add_range(bare, value, _read_range(bare, literal.comment))


def _add_words(literal: Literal, constant: Constant) -> Constant:
    if literal.write is None or not isinstance(literal.value, bool | str):
        return constant
    try:
        return replace(constant, words=tuple(map(literal.write, constant.choices)))
    except ValueError as error:
        raise _CommentError(str(error)) from error


def _read_choices(bare: Constant, match: re.Match[str]) -> tuple[Value, ...]:
    """Return the alternatives after `one of:`, the present value among them."""
    words = [word.strip() for word in re.sub(r"\s*\(.*", "", match[1]).split(",")]
    if isinstance(bare.value, str):
        choices = [word.strip("'\"`") for word in words if word]
        return tuple(dict.fromkeys(choices if bare.value in choices else [bare.value, *choices]))
    numbers = {_parse(bare.base, word) for word in words if word} | {bare.value}
    if bare.base is not None and any(isinstance(number, float) for number in numbers):
        raise _CommentError(f"{match[0]!r} are no whole numbers")
    return tuple(sorted(numbers))


def _read_range(bare: Constant, comment: str) -> tuple[float, float] | None:
    match = RANGE.search(comment)
    if match is None:
        return None
    low, high = (float(_parse(bare.base, bound)) for bound in match.groups())
    if not low < high:
        raise _CommentError(f"{match[0]!r} should be in [low, high]")
    if isinstance(bare.value, int) and math.ceil(low) > math.floor(high):
        raise _CommentError(f"{match[0]!r} holds no whole number")
    return low, high


def _parse(base: int | None, word: str) -> int | float:
    """Read a number of a comment, or an exponent of `base`."""
    try:
        number = int(word) if re.fullmatch(r"[-+]?[\d_]+", word) else float(word)
    except ValueError:
        number = math.nan
    if not (re.fullmatch(NUMBER, word) and abs(number) <= LARGEST):
        raise _CommentError(f"{word!r} is not a number")
    if base is not None and not 0 <= number <= largest_exponent(base):
        raise _CommentError(f"{word!r} is no exponent from 0 to {largest_exponent(base)}")
    return number


def _add_range(
    bare: Constant, value: int | float, explicit: tuple[float, float] | None
) -> Constant:
    """Add kind and range. Every guess is a factor, because the order of magnitude of a setting is
    usually what is not known."""
    if bare.base is not None:
        top = max(largest_exponent(bare.base), 1)
        low, high = explicit or (max(0, value - 2), min(value + 2, top))
        return replace(bare, kind="exponent", low=low, high=high)
    name = get_setting_name(bare.name)
    if _is_beta(name, value) and (explicit is None or 0 <= explicit[0] < explicit[1] < 1):
        low, high = explicit or (max(0.0, 1 - 4 * (1 - value)), 1 - (1 - value) / 4)
        return replace(bare, kind="beta", low=low, high=high, log=True)
    guess: tuple[float, float]
    if isinstance(value, int):
        guess, step, is_rate = _guess_int_range(value), _guess_step(value), False
    else:
        guess, step, is_rate = _guess_range(name, value), 1, bool(RATE.search(name))
    low, high = explicit or guess
    small, large = sorted((abs(low), abs(high)))
    is_log = (low > 0 or high < 0) and (explicit is None or is_rate or large / small >= 8)
    kind: Kind = "int" if isinstance(value, int) else "float"
    return replace(bare, kind=kind, low=low, high=high, log=is_log, step=step)


def _is_beta(name: str, value: float) -> bool:
    """Whether it is a coefficient of a running average, whose distance from 1 matters."""
    is_average = value >= 0.9 or AVERAGE.search(name) is not None
    is_near = isinstance(value, float) and 0.5 <= value <= 1 - NEAREST
    return is_near and is_average and not FRACTION.search(name)


def _guess_range(name: str, value: float) -> tuple[float, float]:
    is_fraction = FRACTION.search(name) is not None
    if value == 0:
        return 0.0, 0.5 if is_fraction else 0.1
    near, far = sorted((round_to_digits(value / 4, 3), round_to_digits(value * 4, 3)))
    return (near, 1.0) if is_fraction and near < 1.0 < far and value <= 1.0 else (near, far)


def _guess_int_range(value: int) -> tuple[int, int]:
    if value == 0:
        return 0, 4
    size = abs(value)
    near, far = max(1, size // 4), 2 * size + (1 if size < 4 else 0)
    return (near, far) if value > 0 else (-far, -near)


def _guess_step(value: int) -> int:
    """Return the author's granularity: the largest power of two in the value, at most an eighth of
    it, so that 768 moves in steps of 64 and 100 in steps of 4."""
    size, step = abs(value), 1
    while size and size % (2 * step) == 0 and 16 * step <= size:
        step *= 2
    return step
