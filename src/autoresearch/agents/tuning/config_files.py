"""Find the constants of TOML, YAML and JSON: every value is a setting, named by its path.

[optim]
lr = 1e-3          # in [1e-4, 1e-2]           optim.lr
betas = [0.9, 0.95]                            optim.betas[0], optim.betas[1]

layers:
  - width: 64                                  layers[0].width
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from autoresearch.agents.tuning.comments import make_constants
from autoresearch.agents.tuning.constants import Constant, SourceError, Value
from autoresearch.agents.tuning.literal_text import Part, read_literal
from autoresearch.agents.tuning.names import is_ignored
from autoresearch.agents.tuning.trees import (
    LISTS,
    Comments,
    Place,
    get_text,
    parse,
    read_place,
    unwrap,
    walk,
)

if TYPE_CHECKING:
    from tree_sitter import Node

PAIRS = {"pair", "block_mapping_pair", "flow_pair"}
TABLES = {"table", "table_array_element"}  # of TOML: the first child is the header
NUMBERS = {"number", "integer", "float", "integer_scalar", "float_scalar"}
BOOLS = {"true", "false", "boolean", "boolean_scalar"}
STRINGS = {"string", "double_quote_scalar", "single_quote_scalar"}

WORD = re.compile(r"[A-Za-z][\w./+-]*")  # text that YAML reads as text without quotes
NO_WORD = re.compile(r"y|n|yes|no|on|off|true|false|null", re.IGNORECASE)
EXPONENT = re.compile(r"(-?\d+)(\.\d+)?[eE]([-+]?)(\d+)")


def find(grammar: str, source: bytes) -> list[Constant]:
    """Return the constants of a source, in order. Raises `SourceError` if it does not parse."""
    root = parse(grammar, source)
    if root.has_error:
        wrong = next(node for node in walk(root) if node.is_error or node.is_missing)
        raise SourceError(f"line {wrong.start_point[0] + 1}: it does not parse as {grammar}")
    places, comments = list(_find_places(root)), Comments(root)
    counts = Counter(place.name for place in places)
    return make_constants(
        literal
        for place in places
        if counts[place.name] == 1 and not is_ignored(place.name)
        for literal in read_place(place, comments, _read)
    )


def _find_places(root: Node) -> Iterator[Place]:
    """The values of keys, with their paths. A loop, as a file may be nested deeper than Python's
    stack."""
    tables: Counter[str] = Counter()
    todo = [(root, "")]
    while todo:
        node, path = todo.pop()
        children = [child for child in node.named_children if "comment" not in child.type]
        if node.type in PAIRS and len(children) == 2:
            name, value = _join(path, children[0]), children[1]
            yield Place(name, value, node)
            todo.append((value, name))
        elif node.type in TABLES and children:
            header = _join(path, children[0])
            if node.type == "table_array_element":
                header = f"{header}[{_count(tables, header)}]"
            todo.extend((child, header) for child in reversed(children[1:]))
        elif node.type in LISTS:
            items = [(child, f"{path}[{index}]") for index, child in enumerate(children)]
            todo.extend(reversed(items))
        elif node.type == "document" and root.type == "stream":  # of YAML
            index = _count(tables, "")
            todo.extend((child, f"[{index}]" if index else "") for child in children)
        else:
            todo.extend((child, path) for child in reversed(children))


def _count(counts: Counter[str], name: str) -> int:
    counts[name] += 1
    return counts[name] - 1


def _join(path: str, key: Node) -> str:
    name = re.sub(r"[\"'\s]", "", get_text(key).decode())
    return f"{path}.{name}" if path else name


def _read(node: Node) -> Part | None:
    """The literal of a node, by the type that the grammar gives it: `1_000` is text in YAML."""
    inner = unwrap(node)
    if inner.type == "plain_scalar" and inner.named_child_count == 1:
        inner = inner.named_children[0]
    if inner.type == "string_scalar":
        text = get_text(inner).decode()
        return Part(text, (0, len(text.encode())), write=_write_word)
    part = read_literal(get_text(inner))
    if part is None or inner.type in STRINGS:
        return part if part and isinstance(part.value, str) else None
    is_right = inner.type in (BOOLS if isinstance(part.value, bool) else NUMBERS)
    return part if is_right and part.base is None else None


def _write_word(value: Value) -> str:
    text = str(value)
    if not WORD.fullmatch(text) or NO_WORD.fullmatch(text):
        raise ValueError(f"{text!r} needs quotes in YAML: put the present value into quotes")
    return text


def respell_yaml(number: str) -> str:
    """A number with an exponent as PyYAML reads it: `1.0e-05`, for `1e-05` is text to it."""
    match = EXPONENT.fullmatch(number)
    if match is None:
        return number
    return f"{match[1]}{match[2] or '.0'}e{match[3] or '+'}{match[4]}"


find_toml, find_yaml, find_json = (partial(find, name) for name in ("toml", "yaml", "json"))
