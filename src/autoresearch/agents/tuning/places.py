"""The places in a Python source where a constant may stand, and their names.

    LR = 3e-4                                      LR
    @dataclass class Config: depth: int = 4        Config.depth
    parser.add_argument("--lr", default=0.1)       --lr
    CONFIG = {"optim": {"lr": 0.1}}                CONFIG[optim][lr]
    def main(rounds=10): step = 0.1                main.rounds, main.step

A name must be bound once in its scope. Those of the last line count only in a source that has none
of the others: a program that declares its settings means them, and a function's locals are many.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from autoresearch.agents.tuning.names import SETTINGS, is_ignored

DEEPEST = 3  # of nested dictionaries

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Place(NamedTuple):
    """An expression that may be a constant. Its comments are looked for in `statement`."""

    name: str
    value: ast.expr
    statement: ast.stmt
    is_inner: bool = False  # in a function


def find_places(tree: ast.Module, has_globals: bool) -> list[Place]:
    """The places of a source, each name once."""
    declared = [*_find_at_top(tree, has_globals), *_find_in_classes(tree), *_find_arguments(tree)]
    return _drop_repeated(declared)


def find_inner_places(tree: ast.Module) -> list[Place]:
    """The places in functions: defaults of arguments, and names that are bound once."""
    scopes: list[tuple[str, ast.Module | ast.ClassDef]] = [("", tree)]
    scopes += [(f"{node.name}.", node) for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = (
        (f"{prefix}{node.name}", node)
        for prefix, scope in scopes
        for node in scope.body
        if isinstance(node, Function)
    )
    places = [place for name, node in functions for place in _find_in_function(name, node)]
    return _drop_repeated(places)


def _drop_repeated(places: list[Place]) -> list[Place]:
    counts = Counter(place.name for place in places)
    return [place for place in places if counts[place.name] == 1 and not is_ignored(place.name)]


def _find_at_top(tree: ast.Module, has_globals: bool) -> Iterator[Place]:
    bound = _count_bindings(tree)
    if has_globals:
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                bound.update(node.names)
    for statement in tree.body:
        for name, value in _read_assignment(statement):
            if bound[name] == 1:
                yield Place(name, value, statement)
                if SETTINGS.search(name):
                    yield from _find_entries(name, value, statement)


def _read_assignment(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value


def _find_entries(
    name: str, value: ast.expr, statement: ast.stmt, depth: int = DEEPEST
) -> Iterator[Place]:
    """The entries of a dictionary whose keys are texts, each key once."""
    match value:
        case ast.Dict(keys=keys, values=values):
            pairs = [(key, item) for key, item in zip(keys, values, strict=True) if key]
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            pairs = [(ast.Constant(word.arg), word.value) for word in keywords if word.arg]
        case _:
            return
    for key, item in pairs:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            place = f"{name}[{key.value}]"
            yield Place(place, item, statement)
            if depth > 1:
                yield from _find_entries(place, item, statement, depth - 1)


def _find_in_classes(tree: ast.Module) -> Iterator[Place]:
    """The fields of classes that hold settings, with their defaults."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and _holds_settings(node):
            bound = _count_bindings(node)
            for statement in node.body:
                for name, value in _read_assignment(statement):
                    if bound[name] == 1:
                        yield Place(f"{node.name}.{name}", _unwrap(value), statement)


def _holds_settings(node: ast.ClassDef) -> bool:
    signs = [ast.unparse(sign) for sign in (*node.decorator_list, *node.bases)]
    words = ("dataclass", "define", "BaseModel", "NamedTuple", "BaseSettings")
    return SETTINGS.search(node.name) is not None or any(
        word in sign for sign in signs for word in words
    )


def _unwrap(value: ast.expr) -> ast.expr:
    """The default in `field(default=0.1)`."""
    match value:
        case ast.Call(func=ast.Name(id="field" | "Field"), keywords=keywords):
            return next((word.value for word in keywords if word.arg == "default"), value)
    return value


def _find_arguments(tree: ast.Module) -> Iterator[Place]:
    """The defaults of command-line options."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(
                value=ast.Call(func=ast.Attribute(attr="add_argument"), args=args, keywords=words)
            ):
                names = [a.value for a in args if isinstance(a, ast.Constant)]
                name = next((n for n in names if isinstance(n, str) and n.startswith("--")), None)
                default = next((word.value for word in words if word.arg == "default"), None)
                if name and default:
                    yield Place(name, default, node)


def _find_in_function(name: str, function: Function) -> Iterator[Place]:
    arguments = function.args
    with_default = [*arguments.posonlyargs, *arguments.args][-len(arguments.defaults) :]
    pairs = list(zip(with_default, arguments.defaults, strict=False)) if arguments.defaults else []
    pairs += [
        (argument, default)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is not None
    ]
    for argument, default in pairs:
        yield Place(f"{name}.{argument.arg}", default, _head(function, default), is_inner=True)
    bound = _count_bindings(function)
    for statement in _walk_statements(function.body):
        for target, value in _read_assignment(statement):
            if bound[target] == 1:
                yield Place(f"{name}.{target}", value, statement, is_inner=True)
                if SETTINGS.search(target):
                    yield from _find_entries(f"{name}.{target}", value, statement)


def _head(function: Function, default: ast.expr) -> ast.stmt:
    """A stand-in for the function's first lines, up to a default."""
    head = ast.Expr(default)
    head.lineno, head.col_offset = function.lineno, function.col_offset
    head.end_lineno, head.end_col_offset = default.end_lineno, default.end_col_offset
    return head


def _walk_statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a function, with those of its blocks, without those of its functions. A
    loop, as a long chain of `elif` is a deeper tree than Python's stack."""
    todo = list(body)
    while todo:
        statement = todo.pop()
        yield statement
        if not isinstance(statement, Function | ast.ClassDef):
            for block in ("body", "orelse", "finalbody"):
                todo += getattr(statement, block, ())


def _count_bindings(scope: ast.Module | ast.ClassDef | Function) -> Counter[str]:
    """Count how often each name is bound in a scope, in any block. A loop, as a long sum is a
    deeper tree than Python's stack."""
    bound: Counter[str] = Counter()
    parents: list[ast.AST] = [scope]
    while parents:
        for child in ast.iter_child_nodes(parents.pop()):
            bound.update(_list_names_bound_by(child))
            if not isinstance(child, Function | ast.ClassDef | ast.Lambda):
                parents.append(child)
    return bound


def _list_names_bound_by(node: ast.AST) -> list[str]:
    match node:
        case (
            ast.Name(id=str(name), ctx=ast.Store() | ast.Del())
            | ast.Subscript(value=ast.Name(id=str(name)), ctx=ast.Store() | ast.Del())
            | ast.FunctionDef(name=str(name))
            | ast.AsyncFunctionDef(name=str(name))
            | ast.ClassDef(name=str(name))
            | ast.ExceptHandler(name=str(name))
            | ast.MatchAs(name=str(name))
            | ast.MatchStar(name=str(name))
            | ast.MatchMapping(rest=str(name))
        ):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [alias.asname or alias.name.split(".")[0] for alias in aliases]
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return [*names, *names]  # bound elsewhere too
    return []
