"""Find the constants of a Python source, and edit them without touching another byte.

A constant is a module-level `NAME = literal` whose name is bound once: a number, a bool, a string
that lists its alternatives, `2**19` (by its exponent), or an element of a tuple or list of numbers.
A trailing comment may say how far it may go:

    DEPTH = 4               # layers; in [1, 8]
    ACTIVATION = "relu"     # one of: relu, gelu, silu
    TIME_LIMIT = 300        # fixed

Without one, `find` guesses a range from the value and the name. Names that contain SEED are left
out: a better seed is no improvement.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Literal

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
NEWLINE = re.compile(r"\r\n|\r|\n")


class SourceError(ValueError):
    """The source cannot be read or be edited in place, or a comment on a constant makes no
    sense."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One tunable literal and where it may go. `value` is the exponent for `2**19`."""

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
        """What the program sees; None for a string."""
        if isinstance(value, str):
            return None
        return value if self.base is None else self.base ** int(value)

    def shown(self, value: Value) -> str:
        """`value` as a person would write it."""
        if isinstance(value, str):
            return value
        return str(value) if self.base is None else f"{self.base}**{value}"

    def rounded(self, value: Value) -> Value:
        """The nearest value worth proposing: inside the range, at most 3 significant digits."""
        if self.choices:
            return value if value in self.choices else self.value
        number = min(max(float(value), self.low), self.high)
        if self.kind in ("int", "exponent"):
            return self._on_step(number)
        if self.kind == "beta":
            number = _significant(1.0 - _significant(1.0 - number, 2), 9)
        else:
            number = _significant(number, 3)
        return min(max(number, self.low), self.high)

    def _on_step(self, number: float) -> int:
        low, high = math.ceil(self.low), math.floor(self.high)
        stepped = round(number / self.step) * self.step
        return stepped if low <= stepped <= high else min(max(round(number), low), high)

    def position(self, value: Value) -> float:
        """Where a number lies in its range, 0 to 1 (clipped); a choice's place in the list."""
        if self.choices:
            last = len(self.choices) - 1
            return self.choices.index(value) / last if value in self.choices and last else 0.0
        low, high, here = (self._inner(v) for v in (self.low, self.high, float(value)))
        return min(max((here - low) / (high - low), 0.0), 1.0) if low < high else 0.0

    def at(self, position: float) -> Value:
        """The value worth proposing at a position, 0 to 1."""
        position = min(max(position, 0.0), 1.0)
        if self.choices:
            return self.choices[round(position * (len(self.choices) - 1))]
        low, high = self._inner(self.low), self._inner(self.high)
        return self.rounded(self._outer(low + position * (high - low)))

    def _inner(self, value: float) -> float:
        """A monotone map onto the scale on which equal steps are equally interesting."""
        if not self.log:
            return value
        if self.kind == "beta":
            return -math.log(max(1.0 - value, 1e-12))
        return -math.log(max(-value, 1e-300)) if self.high < 0 else math.log(max(value, 1e-300))

    def _outer(self, inner: float) -> float:
        if not self.log:
            return inner
        if self.kind == "beta":
            return 1.0 - math.exp(-inner)
        return -math.exp(-inner) if self.high < 0 else math.exp(inner)


def find(source: bytes | str) -> list[Constant]:
    """The constants of a Python source, in order. Raises `SourceError` if it does not parse."""
    return list(_find(source.encode(errors="surrogatepass") if isinstance(source, str) else source))


def edit(source: bytes, changes: Mapping[str, Value]) -> bytes:
    """`source` with the literals of the constants named in `changes` replaced, in the author's
    style; every other byte stays. Raises `SourceError` for a name that is no constant."""
    constants = {constant.name: constant for constant in _find(source)}
    if unknown := sorted(set(changes) - set(constants)):
        raise SourceError(f"no such constant: {', '.join(unknown)}")
    for name in sorted(changes, key=lambda name: constants[name].span, reverse=True):
        start, end = constants[name].span
        old = source[start:end]
        literal = _literal(constants[name], changes[name], old.decode("latin-1"))
        if changes[name] != constants[name].value:
            source = source[:start] + literal.encode(_encoding(source)) + source[end:]
    return source


# --------------------------------------------------------------------------------------------
# Reading


@dataclass(frozen=True, slots=True)
class _Text:
    """A source as text, and the way from the positions of `ast` back to bytes."""

    source: bytes
    text: str
    encoding: str
    bom: int
    line_starts: tuple[int, ...]  # in characters

    def character(self, line: int, utf8_column: int) -> int:
        """`ast` counts columns in bytes of UTF-8, whatever the file's encoding is."""
        start = self.line_starts[line - 1]
        end = self.line_starts[line] if line < len(self.line_starts) else len(self.text)
        prefix = self.text[start:end].encode("utf-8", "surrogatepass")[:utf8_column]
        return start + len(prefix.decode("utf-8", "surrogatepass"))

    def span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        first = self.character(node.lineno, node.col_offset)
        last = self.character(node.end_lineno, node.end_col_offset)
        literal = self.text[first:last].encode(self.encoding)
        start = self.bom + len(self.text[:first].encode(self.encoding))
        if self.source[start : start + len(literal)] != literal:  # an encoding with states
            raise SourceError(f"line {node.lineno}: cannot be edited in {self.encoding}")
        return start, start + len(literal)


def _encoding(source: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return "utf-8" if encoding == "utf-8-sig" else encoding


def _read(source: bytes) -> tuple[_Text, ast.Module]:
    try:
        encoding = _encoding(source)
        bom = 3 if source.startswith(b"\xef\xbb\xbf") else 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
            text = source[bom:].decode(encoding)
            tree = ast.parse(text)
        if text.encode(encoding) != source[bom:]:
            raise SourceError(f"cannot be edited in place in the encoding {encoding}")
    except SourceError:
        raise
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise SourceError(where + error.msg) from error
    except (ValueError, LookupError, RecursionError, MemoryError) as error:
        raise SourceError(str(error) or "nested too deeply") from error
    starts = (0, *(match.end() for match in NEWLINE.finditer(text)))
    return _Text(source, text, encoding, bom, starts), tree


@lru_cache(maxsize=64)
def _find(source: bytes) -> tuple[Constant, ...]:
    text, tree = _read(source)
    bound = _bindings(tree, with_globals=b"global" in source)
    found: list[Constant] = []
    for statement in tree.body:
        target, value = _assignment(statement)
        if target is None or value is None or bound[target] != 1 or not _tunable_name(target):
            continue
        for literal in _literals(target, value):
            comment = _comment(text, statement, literal.node)
            if not FIXED.search(comment) and (constant := _constant(text, literal, comment)):
                found.append(constant)
    return tuple(found)


def _tunable_name(name: str) -> bool:
    return "seed" not in name.lower() and not (name.startswith("__") and name.endswith("__"))


def _assignment(statement: ast.stmt) -> tuple[str | None, ast.expr | None]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target: ast.expr = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    else:
        return None, None
    return (target.id if isinstance(target, ast.Name) else None), statement.value


def _bindings(tree: ast.Module, with_globals: bool) -> Counter[str]:
    """How often each name is bound at module level, in any block, or by `global` in a function."""
    bound: Counter[str] = Counter()
    for node in _module_scope(tree):
        bound.update(_names_bound_by(node))
    if with_globals:
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                bound.update(node.names)
    return bound


def _module_scope(tree: ast.Module) -> Iterator[ast.AST]:
    """A loop, as a long sum is a deeper tree than Python's stack."""
    below: list[ast.AST] = [tree]
    while below:
        for child in ast.iter_child_nodes(below.pop()):
            yield child
            if not isinstance(
                child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
            ):
                below.append(child)


def _names_bound_by(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [alias.asname or alias.name.split(".")[0] for alias in aliases]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            return [name]
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return [name]
    return []


@dataclass(frozen=True, slots=True)
class _Literal:
    name: str
    value: Value
    node: ast.expr  # what `edit` replaces
    base: int | None = None


def _literals(target: str, value: ast.expr) -> Iterator[_Literal]:
    if isinstance(value, ast.Tuple | ast.List):
        numbers = [_number(element) for element in value.elts]
        if len(numbers) <= MAX_ELEMENTS and None not in numbers:
            for index, (node, number) in enumerate(zip(value.elts, numbers, strict=True)):
                assert number is not None
                yield _Literal(f"{target}[{index}]", number, node)
    elif isinstance(value, ast.Constant) and isinstance(value.value, bool | str):
        yield _Literal(target, value.value, value)
    elif (number := _number(value)) is not None:
        yield _Literal(target, number, value)
    elif (power := _power(target, value)) is not None:
        yield power


def _number(node: ast.expr) -> int | float | None:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
            inner = _number(operand)
            return None if inner is None else -inner
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as value) if abs(value) <= LARGEST:
            return value
    return None


def _power(target: str, node: ast.expr) -> _Literal | None:
    match node:
        case ast.BinOp(
            op=ast.Pow(),
            left=ast.Constant(value=int() as base),
            right=ast.Constant(value=int() as exponent) as right,
        ) if 2 <= base <= LARGEST and not isinstance(exponent, bool):
            return _Literal(target, exponent, right, base) if exponent <= _most(base) else None
    return None


def _most(base: int) -> int:
    """The largest exponent that is worth a try."""
    return math.floor(math.log10(LARGEST) / math.log10(base))


def _comment(text: _Text, statement: ast.stmt, node: ast.expr) -> str:
    """The comments that speak of a literal: on its own line, and on its statement's first and last
    lines. Only the statement is tokenized; a whole file would cost more than parsing it."""
    assert statement.end_lineno is not None and node.end_lineno is not None
    start = text.character(statement.lineno, statement.col_offset)
    last = statement.end_lineno
    end = text.line_starts[last] if last < len(text.line_starts) else len(text.text)
    snippet = text.text[start:end]
    if "#" not in snippet:
        return ""
    comments: dict[int, str] = {}
    lines = io.StringIO(NEWLINE.sub("\n", snippet))
    try:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type == tokenize.COMMENT:
                comments[statement.lineno + token.start[0] - 1] = token.string
    except (tokenize.TokenError, SyntaxError):
        pass  # another statement begins on our last line and ends below it; ours is complete
    wanted = dict.fromkeys((node.end_lineno, statement.end_lineno, statement.lineno))
    return "; ".join(comments[line] for line in wanted if line in comments)


def _constant(text: _Text, literal: _Literal, comment: str) -> Constant | None:
    value = literal.value
    bare = Constant(literal.name, value, text.span(literal.node), "choice", base=literal.base)
    if isinstance(value, bool):
        return replace(bare, kind="bool", choices=(False, True))
    if choices := _choices(literal, comment):
        return replace(bare, choices=choices)
    if isinstance(value, str):
        return None
    return _numeric(bare, value, _explicit_range(literal, comment))


def _choices(literal: _Literal, comment: str) -> tuple[Value, ...]:
    """The alternatives after `one of:`, the present value among them."""
    match = ONE_OF.search(comment)
    if match is None:
        return ()
    words = [word.strip() for word in re.sub(r"\s*\(.*", "", match[1]).split(",")]
    if isinstance(literal.value, str):
        choices = [word.strip("'\"`") for word in words if word]
    else:
        numbers = {_parse(literal, word) for word in words if word} | {literal.value}
        if literal.base is not None and any(isinstance(number, float) for number in numbers):
            raise SourceError(
                f"{literal.name}, line {literal.node.lineno}: {match[0]!r} are no whole numbers"
            )
        return tuple(sorted(numbers))
    return tuple(dict.fromkeys(choices if literal.value in choices else [literal.value, *choices]))


def _parse(literal: _Literal, word: str) -> int | float:
    try:
        number = int(word) if re.fullmatch(r"[-+]?[\d_]+", word) else float(word)
    except ValueError:
        number = math.nan
    where = f"{literal.name}, line {literal.node.lineno}: {word!r}"
    if not (re.fullmatch(NUMBER, word) and abs(number) <= LARGEST):
        raise SourceError(f"{where} is not a number")
    if literal.base is not None and not 0 <= number <= _most(literal.base):
        raise SourceError(f"{where} is no exponent from 0 to {_most(literal.base)}")
    return number


def _explicit_range(literal: _Literal, comment: str) -> tuple[float, float] | None:
    match = RANGE.search(comment)
    if match is None:
        return None
    low, high = (float(_parse(literal, bound)) for bound in match.groups())
    where = f"{literal.name}, line {literal.node.lineno}: {match[0]!r}"
    if not low < high:
        raise SourceError(f"{where} should be in [low, high]")
    if isinstance(literal.value, int) and math.ceil(low) > math.floor(high):
        raise SourceError(f"{where} holds no whole number")
    return low, high


# --------------------------------------------------------------------------------------------
# Ranges


def _numeric(bare: Constant, value: int | float, explicit: tuple[float, float] | None) -> Constant:
    """Fill in kind and range. Every guess is a factor, because what one does not know about a
    setting is usually its order of magnitude."""
    if bare.base is not None:
        low, high = explicit or (max(0, value - 2), min(value + 2, max(_most(bare.base), 1)))
        return replace(bare, kind="exponent", low=low, high=high)
    if isinstance(value, int):
        low, high = explicit or _int_range(value)
        log = _same_sign(low, high) and (explicit is None or _wide(low, high))
        return replace(bare, kind="int", low=low, high=high, log=log, step=_step(value))
    if _is_beta(bare.name, value) and (explicit is None or 0 <= explicit[0] < explicit[1] < 1):
        low, high = explicit or (max(0.0, 1 - 4 * (1 - value)), 1 - (1 - value) / 4)
        return replace(bare, kind="beta", low=low, high=high, log=True)
    low, high = explicit or _float_range(bare.name, value)
    log = _same_sign(low, high) and (
        explicit is None or _wide(low, high) or bool(RATE.search(bare.name))
    )
    return replace(bare, kind="float", low=low, high=high, log=log)


def _is_beta(name: str, value: float) -> bool:
    """A coefficient of a running average: what matters is its distance from 1."""
    looks = value >= 0.9 or AVERAGE.search(name) is not None
    return 0.5 <= value <= 1 - NEAREST and looks and not FRACTION.search(name)


def _float_range(name: str, value: float) -> tuple[float, float]:
    fraction = FRACTION.search(name) is not None
    if value == 0:
        return 0.0, 0.5 if fraction else 0.1
    near, far = sorted((_significant(value / 4, 3), _significant(value * 4, 3)))
    return (near, 1.0) if fraction and near < 1.0 < far and value <= 1.0 else (near, far)


def _int_range(value: int) -> tuple[int, int]:
    if value == 0:
        return 0, 4
    size = abs(value)
    near, far = max(1, size // 4), 2 * size + (1 if size < 4 else 0)
    return (near, far) if value > 0 else (-far, -near)


def _step(value: int) -> int:
    """The author's granularity: the largest power of two in the value, at most an eighth of it, so
    that 768 moves in steps of 64 and 100 in steps of 4."""
    size, step = abs(value), 1
    while size and size % (2 * step) == 0 and 16 * step <= size:
        step *= 2
    return step


def _same_sign(low: float, high: float) -> bool:
    return low > 0 or high < 0


def _wide(low: float, high: float) -> bool:
    small, large = sorted((abs(low), abs(high)))
    return large / small >= 8


# --------------------------------------------------------------------------------------------
# Writing


def _significant(number: float, digits: int) -> float:
    return float(f"{number:.{digits - 1}e}")


def _literal(constant: Constant, value: Value, old: str) -> str:
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
    return _scientific(value, marker[0]) if marker else repr(value)


def _scientific(value: float, marker: str) -> str:
    """The shortest digits that give the float back, as `3.2e-4`."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    fraction = "".join(map(str, digits[1:]))
    mantissa = f"{'-' if sign else ''}{digits[0]}{'.' if fraction else ''}{fraction}"
    return f"{mantissa}{marker}{exponent + len(digits) - 1}"
