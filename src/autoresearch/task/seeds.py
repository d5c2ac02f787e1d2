"""Patch a program that sets its own seed, so that it takes the harness's seed."""

from __future__ import annotations

import ast
import difflib
import io
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoresearch.errors import TaskError
from autoresearch.task.files import read_text

SEEDERS = {"manual_seed", "manual_seed_all", "seed", "set_seed", "seed_everything", "seed_all"}
GENERATORS = {"default_rng", "PRNGKey", "RandomState", "Random"}
SEED_NAMES = {"seed", "random_seed", "random_state", "rng_seed"}
SPLIT = re.compile(r"split|fold|\bGenerator\b", re.IGNORECASE)
"""Calls that divide data. Another seed of these changes what is measured."""


def seed_patch(path: Path) -> str | None:
    """Return a unified diff after which the program at `path` takes AUTORESEARCH_SEED as its seed.

    Every `SEED = 1337`, `seed=0` and `manual_seed(42)` keeps its number as the default; if there is
    none, every `default_rng(0)` does. A seed in a call that divides data stays. Returns None if
    there is no such number, the program reads the variable already, or it is not Python.
    """
    try:
        before = read_text(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
            tree = ast.parse(before)
        fixed = list(_find_splits(tree))
        seeds = [seed for seed in _seeds(before) if not any(a <= seed[1][:2] < b for a, b in fixed)]
        rank = min((rank for rank, _ in seeds), default=0)
        spots = sorted((spot for r, spot in seeds if r == rank), reverse=True)
    except (TaskError, SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return None
    if "AUTORESEARCH_SEED" in before or not spots:
        return None
    lines = list(io.StringIO(before))  # lines as the tokenizer counts them
    for row, start, end in spots:
        line = lines[row]
        seed = f'int(os.environ.get("AUTORESEARCH_SEED", {line[start:end]}))'
        lines[row] = line[:start] + seed + line[end:]
    if not _imports_os(tree):
        lines.insert(_first_line(tree, lines), "import os\n")
    name = path.name if path.is_absolute() else path.as_posix()
    diff = difflib.unified_diff(list(io.StringIO(before)), lines, f"a/{name}", f"b/{name}", n=3)
    return "".join(d if d.endswith("\n") else f"{d}\n\\ No newline at end of file\n" for d in diff)


def _find_splits(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield begin and end, as (line from 0, column), of each call that divides data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and SPLIT.search(ast.unparse(node.func)):
            end = (node.end_lineno or node.lineno) - 1, node.end_col_offset or 0
            yield (node.lineno - 1, node.col_offset), end


def _seeds(source: str) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Yield every number that is a seed: its rank (0 for the program's, 1 for a generator's) and
    (line from 0, first column, end column)."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    tokens = [token for token in tokens if token.type not in (tokenize.NL, tokenize.COMMENT)]
    for name, mark, number, after in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
        line, is_seed = number.line, False
        if mark.string == "(":
            is_seed = name.string in SEEDERS | GENERATORS and after.string in (")", ",")
        elif mark.string == "=":
            is_typed = re.match(r"\s*(?i:seed|random_seed|rng_seed)\s*:\s*int\s*=", line)
            is_seed = (
                name.string.lower() in SEED_NAMES
                or (name.string == "int" and bool(is_typed))
                or (name.string == "default" and bool(re.search(r"--seed\b", line)))
            )
        if is_seed and number.string.isdigit():
            yield (
                int(name.string in GENERATORS),
                (number.start[0] - 1, number.start[1], number.end[1]),
            )


def _imports_os(tree: ast.Module) -> bool:
    names = [name for node in tree.body if isinstance(node, ast.Import) for name in node.names]
    return any(name.name.split(".")[0] == "os" and not name.asname for name in names)


def _first_line(tree: ast.Module, lines: Sequence[str]) -> int:
    """The line for an import: after the docstring, the `__future__` imports and comments."""
    line = 0
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not (is_docstring or is_future):
            break
        line = node.end_lineno or 0
    while line < len(lines) and (not lines[line].strip() or lines[line].startswith("#")):
        line += 1
    return line
