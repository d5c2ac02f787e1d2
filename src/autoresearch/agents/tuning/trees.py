"""Syntax trees of files that are not Python, by tree-sitter, and the comments in them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from autoresearch.agents.tuning.comments import MAX_ELEMENTS, Literal
from autoresearch.agents.tuning.constants import SourceError
from autoresearch.agents.tuning.literal_text import Part, read_literal

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

LISTS = {
    *("array", "array_expression", "initializer_list", "literal_value"),
    *("flow_sequence", "block_sequence"),
}
WRAPPERS = {"expression_list", "literal_element", "flow_node", "block_node", "block_sequence_item"}
"""Nodes around one value, if they have one child."""


TEXTS = {"preproc_arg"}  # nodes that the grammar leaves unparsed, comments and all
MARK = re.compile(rb"//|/\*")


class MissingParser(SourceError):
    """The parser of a language is not installed."""


@cache
def _make_parser(grammar: str) -> Parser:
    try:
        from tree_sitter import Language, Parser

        module = import_module(f"tree_sitter_{grammar}")
    except ImportError as error:
        raise MissingParser(
            f"the package {error.name} is not installed: `pip install 'autoresearch[languages]'`"
        ) from error
    return Parser(Language(module.language()))


def parse(grammar: str, source: bytes) -> Node:
    """Return the root of a source's tree. Where the source does not parse, the tree has nodes with
    `is_error` or `is_missing`. Raises `SourceError` for text that is not UTF-8."""
    try:
        source.decode()
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise SourceError(f"line {line}: not UTF-8") from error
    return _make_parser(grammar).parse(source).root_node


def walk(root: Node) -> Iterator[Node]:
    """Yield a node and all below it, in the order of the source. A loop, as a tree may be deeper
    than Python's stack."""
    todo = [root]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(reversed(node.children))


def get_text(node: Node) -> bytes:
    return node.text or b""


class Comments:
    """The comments of a source, by line."""

    def __init__(self, root: Node) -> None:
        self._by_row: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
        for node in walk(root):
            if "comment" in node.type:
                self._add(node, 0)
            elif node.type in TEXTS and (match := MARK.search(get_text(node))):
                self._add(node, match.start())

    def _add(self, node: Node, start: int) -> None:
        text = get_text(node)
        row = node.start_point[0] + text.count(b"\n", 0, start)
        comment = text[start:].decode().strip().removesuffix("*/")
        self._by_row[row].append((node.start_byte + start, comment))

    def on(self, row: int, end: int, statement: Node) -> str:
        """The comments on a literal that ends on line `row` at byte `end`: behind it, and on the
        first and last lines of its statement."""
        starts = {statement.start_point[0]: statement.start_byte}
        if statement.end_point[1]:  # else it ends with its last line
            starts[statement.end_point[0]] = statement.end_byte
        starts[row] = end
        texts = (self._first(row, start) for row, start in starts.items())
        return "; ".join(text for text in texts if text)

    def _first(self, row: int, start: int) -> str:
        return next((text for at, text in self._by_row[row] if at >= start), "")


def read_node(node: Node) -> Part | None:
    """The literal that is the whole node."""
    text = get_text(node)
    match = MARK.search(text) if node.type in TEXTS else None
    return read_literal(text[: match.start()] if match else text)


@dataclass(frozen=True, slots=True)
class Place:
    """A node that may be a constant."""

    name: str
    value: Node
    statement: Node  # where its comments are looked for
    is_inner: bool = False  # in a function


def read_place(
    place: Place, comments: Comments, read: Callable[[Node], Part | None] = read_node
) -> Iterator[Literal]:
    """Yield the literal at a place, or each element of a short list of numbers."""
    for name, node in _split(place, read):
        if (part := read(node)) is None:
            continue
        start, end = (node.start_byte + at for at in part.span)
        row = node.start_point[0]
        yield Literal(
            name,
            part.value,
            (start, end),
            comments.on(row, end, place.statement),
            row + 1,
            part.base,
            place.is_inner,
            part.write,
        )


def _split(place: Place, read: Callable[[Node], Part | None]) -> Iterator[tuple[str, Node]]:
    node = unwrap(place.value)
    if node.type not in LISTS:
        yield place.name, node
        return
    items = [unwrap(child) for child in node.named_children if "comment" not in child.type]
    parts = [read(item) for item in items]
    are_numbers = all(part and not isinstance(part.value, bool | str) for part in parts)
    if are_numbers and len(items) <= MAX_ELEMENTS:
        for index, item in enumerate(items):
            yield f"{place.name}[{index}]", item


def unwrap(node: Node) -> Node:
    """The value within nodes that hold one value alone."""
    while node.type in WRAPPERS and node.named_child_count == 1:
        node = node.named_children[0]
    if node.type == "composite_literal":
        return node.child_by_field_name("body") or node
    return node
