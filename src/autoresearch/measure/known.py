"""Finds the experiment that measured a program already, so that nothing is measured twice.

Two programs are the same if their files are. So are two that are built on the same incumbent, or
one of them and the incumbent, if their Python files have the same syntax trees: they differ in
comments, blank lines, quotes, line breaks or the spelling of numbers. Docstrings count, since a
program may read its own.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from autoresearch.git.repository import Repository
from autoresearch.records import Experiment
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

LOOKED_AT = 500  # latest experiments on one incumbent: a resumed session parses each, in 8 ms
DIRECTIVES = (b"# cython:", b"# distutils:")  # comments that a build reads


@dataclass(frozen=True, slots=True)
class Known:
    """An experiment that measured, or is measuring, the same program."""

    experiment: Experiment
    how: str  # in which way it is the same

    def __str__(self) -> str:
        """What the ledger answers, in place of a measurement."""
        known = self.experiment
        answer = ", ".join(filter(None, (known.status, known.reason, known.detail)))
        return f"{self.how} experiment {known.number} ({answer or 'being measured'})"


class KnownPrograms:
    """What one session measured. Parses each program once."""

    def __init__(self, ledger: Ledger, record: SessionRecord, repository: Repository) -> None:
        self._ledger = ledger
        self._record = record
        self._repository = repository
        self._normal: dict[str, bytes] = {}  # by commit

    def find(self, commit: str, incumbent: Experiment, besides: int | None = None) -> Known | None:
        """The experiment with the same program as a commit made on the incumbent, or the incumbent;
        None if there is none but number `besides`."""
        tree = self._repository.tree_id(commit)
        known = self._ledger.with_tree(self._record, tree)
        if known is not None and known.number != besides:
            return Known(known, "the same files as")
        rivals = self._ledger.on_base(self._record, incumbent.number, last=LOOKED_AT)
        normal = self._normalise(commit)
        for rival in (incumbent, *rivals):
            if rival.number != besides and self._normalise(rival.commit) == normal:
                return Known(rival, "but for comments and formatting the same program as")
        return None

    def _normalise(self, commit: str) -> bytes:
        if commit not in self._normal:
            self._normal[commit] = digest(self._repository.editable_files(commit))
        return self._normal[commit]


def digest(files: Mapping[str, bytes]) -> bytes:
    """A hash of a program, equal for programs that differ in comments and formatting."""
    total = hashlib.sha256()
    for path, content in sorted(files.items()):
        normal = normalise(content) if path.endswith(".py") else content
        total.update(f"{path}\0{len(normal)}\0".encode(errors="surrogateescape") + normal)
    return total.digest()


def normalise(source: bytes) -> bytes:
    """The syntax tree of a Python file; the file itself if it does not parse, or if a build reads
    its comments."""
    if any(directive in source for directive in DIRECTIVES):
        return source
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        source.decode(encoding)  # Python refuses a file with other bytes, `ast` does not
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings, for example
            return ast.dump(ast.parse(source)).encode(errors="surrogatepass")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source
