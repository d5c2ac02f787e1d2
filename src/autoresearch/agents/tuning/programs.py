"""Find the constants of a program in C, C++, CUDA, Rust, Go or JavaScript.

    #define BLOCK 64                               BLOCK
    static const float lr = 0.1f;                  lr
    struct Config { int depth = 4; };              Config.depth
    const CONFIG = { optim: { lr: 0.1 } };         CONFIG.optim.lr
    flag.Float64("lr", 0.1, "rate")                -lr
    void f() { const int unroll = 4; }             f.unroll

As in Python, a name must be bound once in its scope, and those of the last line count only in a
source that has none of the others. What does not parse is passed over: a macro may hide anything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoresearch.agents.tuning.comments import has_values, make_constants
from autoresearch.agents.tuning.constants import Constant
from autoresearch.agents.tuning.names import SETTINGS, is_ignored
from autoresearch.agents.tuning.node_types import (
    CONTAINERS,
    DECLARATIONS,
    DECLARATORS,
    ENTRIES,
    FIELDS,
    FUNCTIONS,
    IDENTIFIERS,
    PARAMETERS,
    REBINDINGS,
    RECORDS,
    TABLES,
)
from autoresearch.agents.tuning.trees import (
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

ARGUMENT = re.compile(rb'flag\.\w+\("([\w.-]+)"')
QUOTES = re.compile(r"""^\.|["'`]""")  # around a key; C's `.key`
DEEPEST = 3  # of nested entries


def find(grammar: str, source: bytes) -> list[Constant]:
    """Return the constants of a source, in order. Raises `SourceError`."""
    root = parse(grammar, source)
    comments = Comments(root)
    literals = [
        literal
        for place in _find_places(root)
        for literal in read_place(place, comments)
        if place.statement.type != "enumerator" or has_values(literal)
    ]
    declared = make_constants(literal for literal in literals if not literal.is_inner)
    return declared or make_constants(literal for literal in literals if literal.is_inner)


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where a node stands: the names of its functions and types, each with a dot behind it."""

    prefix: str = ""
    outer: tuple[str, ...] = ()  # the prefixes around it
    is_inner: bool = False  # in a function

    def enter(self, name: str, is_inner: bool) -> _Scope:
        if not name:
            return _Scope(self.prefix, self.outer, is_inner)
        return _Scope(f"{self.prefix}{name}.", (*self.outer, self.prefix), is_inner)


def _find_places(root: Node) -> list[Place]:
    """The places that may hold a constant, each name once."""
    bound: Counter[str] = Counter()
    places: list[tuple[str, Place]] = []  # with the name of the variable it belongs to
    todo = [(root, _Scope())]
    while todo:
        node, scope = todo.pop()
        if node.is_error or node.is_missing:
            continue
        bound.update(_list_bound(node, scope))
        places += _find_at(node, scope)
        inside = _enter(node, scope)
        todo.extend((child, inside) for child in node.named_children)
    names = Counter(place.name for _, place in places)
    return [
        place
        for variable, place in places
        if names[place.name] == 1 and bound[variable] <= 1 and not is_ignored(place.name)
    ]


def _enter(node: Node, scope: _Scope) -> _Scope:
    if node.type in FUNCTIONS:
        return scope.enter(_get_name(_child(node, FUNCTIONS[node.type])), True)
    if node.type in CONTAINERS:
        return scope.enter(_get_name(_child(node, CONTAINERS[node.type])), scope.is_inner)
    return scope


def _list_bound(node: Node, scope: _Scope) -> Iterator[str]:
    """The names that a node binds: a declaration in its own scope, an assignment perhaps in one
    around it."""
    if node.type in DECLARATIONS:
        target = _child(node, DECLARATIONS[node.type][0])
        yield from (scope.prefix + name for name in _list_names(target, node))
    elif node.type == "preproc_call":  # #undef NAME
        yield get_text(_child(node, "argument") or node).decode().strip()
    elif node.type in REBINDINGS and not _only_reads(node):
        target = _child(node, REBINDINGS[node.type]) or _child(node, "name")
        for name in _list_names(target, node):
            yield from (prefix + name for prefix in (scope.prefix, *scope.outer))


def _only_reads(node: Node) -> bool:
    """Whether an operator or a declaration that could bind a name again does not."""
    if node.type in ("pointer_expression", "unary_expression"):
        return not get_text(node).startswith(b"&")
    if node.type == "reference_expression":
        return not get_text(node).startswith(b"&mut")
    declarator = _child(node, "declarator")
    return declarator is not None and declarator.type == "init_declarator"


def _list_names(target: Node | None, node: Node) -> list[str]:
    """The identifiers in a target, without those of an array's size."""
    if target is not None and target.type in ("array_declarator", "pointer_declarator"):
        return [_get_name(target)]
    within = node if target is None else target
    return [get_text(leaf).decode() for leaf in walk(within) if leaf.type in IDENTIFIERS]


def _find_at(node: Node, scope: _Scope) -> Iterator[tuple[str, Place]]:
    if node.type in DECLARATIONS:
        yield from _read_declaration(node, scope)
    elif node.type in RECORDS:
        kind = get_text(_child(node, RECORDS[node.type]) or node).decode()
        if SETTINGS.search(kind):
            yield from _find_entries(kind, kind, unwrap(node), False)
    elif node.type == "call_expression" and (match := ARGUMENT.match(get_text(node))):
        values = node.child_by_field_name("arguments")
        if values is not None and len(values.named_children) == 3:
            name = f"-{match[1].decode()}"
            yield name, Place(name, values.named_children[1], node)


def _read_declaration(node: Node, scope: _Scope) -> Iterator[tuple[str, Place]]:
    target, value = (_child(node, field) for field in DECLARATIONS[node.type])
    if target is None or value is None or _is_broken(node):
        return
    target = unwrap(target) if target.named_child_count == 1 else target
    if target.type not in DECLARATORS or (node.type in FIELDS and not _is_setting(node, scope)):
        return
    items = value.named_children
    if value.type == "initializer_list" and target.type in IDENTIFIERS and len(items) == 1:
        value = items[0]  # C++'s `int name{64}`
    name = scope.prefix + _get_name(target)
    is_inner = scope.is_inner and node.type != "preproc_def"
    if node.type in PARAMETERS:
        is_inner = node.parent is None or node.parent.type != "template_parameter_list"
    yield name, Place(name, value, node, is_inner)
    if SETTINGS.search(name):
        yield from _find_entries(name, name, unwrap(value), is_inner)


def _is_broken(node: Node) -> bool:
    """Whether a declaration, or the statement that it is a part of, does not parse."""
    parent = node.parent
    whole = parent if parent and parent.type.endswith("declaration") else node
    return whole.has_error


def _is_setting(node: Node, scope: _Scope) -> bool:
    """Whether a field with a default is a setting, not a state."""
    return SETTINGS.search(scope.prefix) is not None or b"const" in get_text(node).split(b"=")[0]


def _find_entries(
    variable: str, name: str, value: Node, is_inner: bool, depth: int = DEEPEST
) -> Iterator[tuple[str, Place]]:
    """The entries of a table whose keys are names."""
    if value.type not in TABLES:
        return
    body = value.child_by_field_name("body") or value
    for pair in body.named_children:
        if pair.type not in ENTRIES:
            continue
        key, item = (_child(pair, field) for field in ENTRIES[pair.type])
        if key is None or item is None:
            continue
        entry = f"{name}.{QUOTES.sub('', get_text(key).decode())}"
        yield variable, Place(entry, item, pair, is_inner)
        if depth > 1 and item.type not in RECORDS:  # a record stands for itself
            yield from _find_entries(variable, entry, unwrap(item), is_inner, depth - 1)


def _child(node: Node, field: str | None) -> Node | None:
    return None if field is None else node.child_by_field_name(field)


def _get_name(node: Node | None) -> str:
    """The first identifier in a node; empty if there is none."""
    if node is None:
        return ""
    names = (get_text(leaf).decode() for leaf in walk(node) if leaf.type in IDENTIFIERS)
    return next(names, "")
