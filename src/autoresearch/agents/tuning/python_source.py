"""Find the constants of a Python source.

A constant is a literal with a name (see `places.py`): a number, a bool, a string that lists its
alternatives, `2**19` (by its exponent), or an element of a tuple or list of numbers.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autoresearch.agents.tuning.comments import (
    LARGEST,
    MAX_ELEMENTS,
    Literal,
    largest_exponent,
    make_constants,
)
from autoresearch.agents.tuning.constants import Constant, SourceError, Value
from autoresearch.agents.tuning.places import Place, find_inner_places, find_places

NEWLINE = re.compile(rb"\r\n|\r|\n")


def find(source: bytes) -> list[Constant]:
    """Return the constants of a Python source, in order. Raises `SourceError` if it does not
    parse."""
    text, tree = _read(source)
    declared = find_places(tree, has_globals=b"global" in source)
    return _find_at(text, declared) or _find_at(text, find_inner_places(tree))


def _find_at(text: _Text, places: Iterable[Place]) -> list[Constant]:
    """The constants at these places, in the order of the source."""
    return make_constants(
        Literal(
            part.name,
            part.value,
            text.span(part.node),
            _find_comments(text, place.statement, part.node),
            part.node.lineno,
            part.base,
            place.is_inner,
        )
        for place in places
        for part in _split(place.name, place.value)
    )


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


def find_encoding(source: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return "utf-8" if encoding == "utf-8-sig" else encoding


def _read(source: bytes) -> tuple[_Text, ast.Module]:
    try:
        encoding = find_encoding(source)
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


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    value: Value
    node: ast.expr  # the part that `edit` replaces
    base: int | None = None


def _split(name: str, value: ast.expr) -> Iterator[_Part]:
    """Yield the literals of an assignment, each element of a short list of numbers by itself."""
    match value:
        case ast.Tuple(elts=nodes) | ast.List(elts=nodes):
            numbers = [(node, _read_number(node)) for node in nodes]
            if len(numbers) <= MAX_ELEMENTS and all(number is not None for _, number in numbers):
                for index, (node, number) in enumerate(numbers):
                    assert number is not None
                    yield _Part(f"{name}[{index}]", number, node)
        case ast.Constant(value=bool() | str() as constant):
            yield _Part(name, constant, value)
        case ast.BinOp(
            op=ast.Pow(),
            left=ast.Constant(value=int() as base),
            right=ast.Constant(value=int() as exponent) as node,
        ) if 2 <= base <= LARGEST and not isinstance(exponent, bool):
            if exponent <= largest_exponent(base):
                yield _Part(name, exponent, node, base)
        case _ if (number := _read_number(value)) is not None:
            yield _Part(name, number, value)


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
