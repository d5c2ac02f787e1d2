"""Find the constants of a Python source, and edit them without touching another byte.

A constant is a literal with a name (see `places.py`): a number, a bool, a string that lists its
alternatives, `2**19` (by its exponent), or an element of a tuple or list of numbers. A trailing
comment may limit its values:

    DEPTH = 4               # layers; in [1, 8]
    ACTIVATION = "relu"     # one of: relu, gelu, silu
    TIME_LIMIT = 300        # fixed

Without one, `find` guesses a range from the value and the name.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Literal

from autoresearch.agents.tuning.places import (
    Place,
    find_inner_places,
    find_places,
    get_setting_name,
)

__all__ = ["Constant", "SourceError", "Value", "edit", "find"]

Value = bool | int | float | str
Kind = Literal["float", "beta", "int", "exponent", "bool", "choice"]

MAX_ELEMENTS = 8  # a longer tuple or list of numbers is data, not settings
LARGEST = 1e300  # a larger number is no setting, and its range would leave the floats
NEAREST = 1e-8  # to 1: a closer coefficient has no range worth searching

NUMBER = r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"\bin\s*\[\s*({NUMBER})\s*,\s*({NUMBER})\s*\]")
ONE_OF = re.compile(r"\bone of:\s*([^;]+)")
FIXED = re.compile(r"\bfixed\b(?!-)")
RATE = re.compile(r"(?:^|_)(?:lr|eps|epsilon)(?:_|$)|rate|decay", re.IGNORECASE)
FRACTION = re.compile(r"ratio|frac|prob|drop|percent", re.IGNORECASE)
AVERAGE = re.compile(r"beta|momentum|ema|decay|gamma", re.IGNORECASE)
NEWLINE = re.compile(rb"\r\n|\r|\n")


class SourceError(ValueError):
    """A source that cannot be read or edited in place, or a wrong comment on a constant."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One tunable literal and its range. `value` is the exponent for `2**19`."""

    name: str  # `LR`, `ADAM_BETAS[0]`
    value: Value
    span: tuple[int, int]  # of the literal in the source, in bytes
    kind: Kind
    low: float = 0.0  # inclusive, like `high`; meaningless for a bool or a choice
    high: float = 0.0
    log: bool = False  # search on a log scale: of 1 - v for a beta, of -v for a negative number
    choices: tuple[Value, ...] = ()  # for a bool or a choice
    step: int = 1  # ints move in multiples of it
    base: int | None = None  # of an exponent

    @property
    def ordered(self) -> bool:
        """Whether neighbouring positions are alike: not so for alternatives without an order."""
        return not any(isinstance(choice, bool | str) for choice in self.choices)

    def effective(self, value: Value) -> float | None:
        """Return the number that the program works with; None for a string."""
        if isinstance(value, str):
            return None
        return value if self.base is None else self.base ** int(value)

    def shown(self, value: Value) -> str:
        """Return `value` as a person would write it."""
        return str(value) if self.base is None else f"{self.base}**{value}"

    def rounded(self, value: Value) -> Value:
        """Return the nearest value in range, with at most 3 significant digits."""
        if self.choices:
            return value if value in self.choices else self.value
        number = min(max(float(value), self.low), self.high)
        if self.kind in ("int", "exponent"):
            low, high = math.ceil(self.low), math.floor(self.high)
            stepped = round(number / self.step) * self.step
            return stepped if low <= stepped <= high else min(max(round(number), low), high)
        if self.kind == "beta":
            number = _round(1.0 - _round(1.0 - number, 2), 9)
        else:
            number = _round(number, 3)
        return min(max(number, self.low), self.high)

    def position(self, value: Value) -> float:
        """Return where a value lies in the range or in the list of choices, 0 to 1 (clipped)."""
        if self.choices:
            last = len(self.choices) - 1
            return self.choices.index(value) / last if value in self.choices and last else 0.0
        low, high, here = (self._to_scale(v) for v in (self.low, self.high, float(value)))
        return min(max((here - low) / (high - low), 0.0), 1.0) if low < high else 0.0

    def at(self, position: float) -> Value:
        """Return the value worth proposing at a position, 0 to 1."""
        position = min(max(position, 0.0), 1.0)
        if self.choices:
            return self.choices[round(position * (len(self.choices) - 1))]
        low, high = self._to_scale(self.low), self._to_scale(self.high)
        return self.rounded(self._from_scale(low + position * (high - low)))

    def _to_scale(self, value: float) -> float:
        """Map a value onto the scale on which equal steps are equally interesting."""
        if not self.log:
            return value
        if self.kind == "beta":
            return -math.log(max(1.0 - value, 1e-12))
        return -math.log(max(-value, 1e-300)) if self.high < 0 else math.log(max(value, 1e-300))

    def _from_scale(self, scaled: float) -> float:
        if not self.log:
            return scaled
        if self.kind == "beta":
            return 1.0 - math.exp(-scaled)
        return -math.exp(-scaled) if self.high < 0 else math.exp(scaled)


def find(source: bytes | str) -> list[Constant]:
    """Return the constants of a Python source, in order. Raises `SourceError` if it does not
    parse."""
    return list(_find(source.encode(errors="surrogatepass") if isinstance(source, str) else source))


def edit(source: bytes, changes: Mapping[str, Value]) -> bytes:
    """Replace the literals of the constants named in `changes`, in the author's style; every other
    byte stays. Raises `SourceError` for a name that is no constant."""
    constants = {constant.name: constant for constant in _find(source)}
    if unknown := sorted(set(changes) - set(constants)):
        raise SourceError(f"no such constant: {', '.join(unknown)}")
    for name in sorted(changes, key=lambda name: constants[name].span, reverse=True):
        start, end = constants[name].span
        literal = _write(constants[name], changes[name], source[start:end].decode("latin-1"))
        if changes[name] != constants[name].value:
            source = source[:start] + literal.encode(_find_encoding(source)) + source[end:]
    return source


# ---- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Text:
    """A source in UTF-8, in which `ast` counts columns, and its encoding."""

    source: bytes
    encoding: str
    bom: int  # bytes of the mark at the beginning of the source
    utf8: bytes  # without the mark
    line_starts: tuple[int, ...]  # in utf8, and the end of the last line

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self.line_starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.line_starts[node.end_lineno - 1] + node.end_col_offset

    def span(self, node: ast.expr) -> tuple[int, int]:
        """Return where the node begins and ends in the source."""
        first, last = self.start(node), self.end(node)
        start = self.bom + len(self.utf8[:first].decode().encode(self.encoding))
        literal = self.utf8[first:last].decode().encode(self.encoding)
        if self.source[start : start + len(literal)] != literal:  # an encoding with states
            raise SourceError(f"line {node.lineno}: cannot be edited in {self.encoding}")
        return start, start + len(literal)


def _find_encoding(source: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return "utf-8" if encoding == "utf-8-sig" else encoding


def _read(source: bytes) -> tuple[_Text, ast.Module]:
    try:
        encoding = _find_encoding(source)
        bom = 3 if source.startswith(b"\xef\xbb\xbf") else 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
            text = source[bom:].decode(encoding)
            tree = ast.parse(text)
        is_stable = text.encode(encoding) == source[bom:]
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise SourceError(where + error.msg) from error
    except (ValueError, LookupError, RecursionError, MemoryError) as error:
        raise SourceError(str(error) or "nested too deeply") from error
    if not is_stable:
        raise SourceError(f"cannot be edited in place in the encoding {encoding}")
    utf8 = text.encode()
    starts = (0, *(match.end() for match in NEWLINE.finditer(utf8)), len(utf8))
    return _Text(source, encoding, bom, utf8, starts), tree


@lru_cache(maxsize=64)
def _find(source: bytes) -> tuple[Constant, ...]:
    text, tree = _read(source)
    constants = _find_at(text, find_places(tree, has_globals=b"global" in source))
    return tuple(constants or _find_at(text, find_inner_places(tree)))


def _find_at(text: _Text, places: Iterable[Place]) -> list[Constant]:
    """The constants at these places, in the order of the source."""
    constants = []
    for place in places:
        for literal in _split(place.name, place.value):
            comment = _find_comments(text, place.statement, literal.node)
            if FIXED.search(comment) or (place.is_inner and _is_common(literal, comment)):
                continue
            try:
                constant = _make_constant(literal, text.span(literal.node), comment)
            except _CommentError as error:
                where = f"{literal.name}, line {literal.node.lineno}"
                raise SourceError(f"{where}: {error}") from error
            if constant is not None:
                constants.append(constant)
    return sorted(constants, key=lambda constant: constant.span)


def _is_common(literal: _Literal, comment: str) -> bool:
    """Whether it is a value that starts a count or a switch, more likely than a setting. A range in
    a comment makes it a setting."""
    is_plain = isinstance(literal.value, bool) or literal.value in (-1, 0, 1)
    return is_plain and not (RANGE.search(comment) or ONE_OF.search(comment))


@dataclass(frozen=True, slots=True)
class _Literal:
    name: str
    value: Value
    node: ast.expr  # the part that `edit` replaces
    base: int | None = None


def _split(name: str, value: ast.expr) -> Iterator[_Literal]:
    """Yield the literals of an assignment, each element of a short list of numbers by itself."""
    match value:
        case ast.Tuple(elts=nodes) | ast.List(elts=nodes):
            numbers = [(node, _read_number(node)) for node in nodes]
            if len(numbers) <= MAX_ELEMENTS and all(number is not None for _, number in numbers):
                for index, (node, number) in enumerate(numbers):
                    assert number is not None
                    yield _Literal(f"{name}[{index}]", number, node)
        case ast.Constant(value=bool() | str() as constant):
            yield _Literal(name, constant, value)
        case ast.BinOp(
            op=ast.Pow(),
            left=ast.Constant(value=int() as base),
            right=ast.Constant(value=int() as exponent) as node,
        ) if 2 <= base <= LARGEST and not isinstance(exponent, bool):
            if exponent <= _largest_exponent(base):
                yield _Literal(name, exponent, node, base)
        case _ if (number := _read_number(value)) is not None:
            yield _Literal(name, number, value)


def _read_number(node: ast.expr) -> int | float | None:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
            number = _read_number(operand)
            return None if number is None else -number
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as value) if abs(value) <= LARGEST:
            return value
    return None


def _largest_exponent(base: int) -> int:
    """Return the largest exponent that is worth a try."""
    return math.floor(math.log10(LARGEST) / math.log10(base))


def _find_comments(text: _Text, statement: ast.stmt, node: ast.expr) -> str:
    """Return the comments on a literal: on its own line, and on its statement's first and last
    lines. Only the statement is tokenized; a whole file would cost more than parsing it."""
    assert statement.end_lineno is not None and node.end_lineno is not None
    snippet = text.utf8[text.start(statement) : text.line_starts[statement.end_lineno]]
    if b"#" not in snippet:
        return ""
    comments: dict[int, str] = {}
    lines = io.StringIO(NEWLINE.sub(b"\n", snippet).decode())
    try:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type == tokenize.COMMENT:
                comments[statement.lineno + token.start[0] - 1] = token.string
    except (tokenize.TokenError, SyntaxError):
        pass  # another statement begins on our last line and ends below it; ours is complete
    wanted = dict.fromkeys((node.end_lineno, statement.end_lineno, statement.lineno))
    return "; ".join(comments[line] for line in wanted if line in comments)


# ---- comments and ranges -----------------------------------------------------------------------


class _CommentError(ValueError):
    """A wrong comment on a constant. The message does not name the constant."""


def _make_constant(literal: _Literal, span: tuple[int, int], comment: str) -> Constant | None:
    value = literal.value
    bare = Constant(literal.name, value, span, "choice", base=literal.base)
    if isinstance(value, bool):
        return replace(bare, kind="bool", choices=(False, True))
    if match := ONE_OF.search(comment):
        return replace(bare, choices=_read_choices(bare, match))
    if isinstance(value, str):
        return None
    return _add_range(bare, value, _read_range(bare, comment))


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
    if base is not None and not 0 <= number <= _largest_exponent(base):
        raise _CommentError(f"{word!r} is no exponent from 0 to {_largest_exponent(base)}")
    return number


def _add_range(
    bare: Constant, value: int | float, explicit: tuple[float, float] | None
) -> Constant:
    """Add kind and range. Every guess is a factor, because the order of magnitude of a setting is
    usually what is not known."""
    if bare.base is not None:
        top = max(_largest_exponent(bare.base), 1)
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
    near, far = sorted((_round(value / 4, 3), _round(value * 4, 3)))
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


# ---- writing -----------------------------------------------------------------------------------


def _round(number: float, digits: int) -> float:
    """Round to significant digits."""
    return float(f"{number:.{digits - 1}e}")


def _write(constant: Constant, value: Value, old: str) -> str:
    """Return the literal of a value, in the style of the old literal."""
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
