"""Find the constants of a source in any language that is known, and edit them without touching
another byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePosixPath

from autoresearch.agents.tuning import config_files, flags, programs, python_source, writing
from autoresearch.agents.tuning.constants import Constant, SourceError, Value
from autoresearch.agents.tuning.node_types import GRAMMARS
from autoresearch.agents.tuning.trees import MissingParser


@dataclass(frozen=True, slots=True)
class Language:
    """How the constants of a kind of file are found and written."""

    find: Callable[[bytes], list[Constant]]
    encoding: Callable[[bytes], str] = lambda source: "utf-8"
    respell: Callable[[str], str] = str  # a number as Python writes it, where that does not do


YAML = Language(config_files.find_yaml, respell=config_files.respell_yaml)
MAKEFILE = Language(flags.find_in_makefile)
FLAG_LIST = Language(flags.find)
BY_SUFFIX = {
    ".py": Language(python_source.find, python_source.find_encoding),
    **{s: Language(partial(programs.find, name)) for s, name in GRAMMARS.items()},
    ".toml": Language(config_files.find_toml),
    ".json": Language(config_files.find_json),
    ".yaml": YAML,
    ".yml": YAML,
}


def get_language(path: str) -> Language | None:
    """The language of a file, by its name."""
    name = PurePosixPath(path).name
    if flags.is_makefile(name):
        return MAKEFILE
    return FLAG_LIST if flags.is_flag_list(name) else BY_SUFFIX.get(PurePosixPath(name).suffix)


def find(path: str, source: bytes) -> list[Constant]:
    """Return the constants of a source, in order; none if its language is not known. Raises
    `SourceError` if it does not parse, `MissingParser` if its parser is not installed."""
    return list(_find(path, source))


@lru_cache(maxsize=64)
def _find(path: str, source: bytes) -> tuple[Constant, ...]:
    language = get_language(path)
    return tuple(language.find(source)) if language else ()


def edit(path: str, source: bytes, changes: Mapping[str, Value]) -> bytes:
    """Replace the literals of the constants named in `changes`, in the author's style; every other
    byte stays. Raises `SourceError` for a name that is no constant."""
    constants = {constant.name: constant for constant in _find(path, source)}
    if unknown := sorted(set(changes) - set(constants)):
        raise SourceError(f"no such constant: {', '.join(unknown)}")
    language = get_language(path)
    assert language is not None  # it has constants
    encoding = language.encoding(source)
    for name in sorted(changes, key=lambda name: constants[name].span, reverse=True):
        constant, value = constants[name], changes[name]
        start, end = constant.span
        if value != constant.value:
            literal = writing.write(constant, value, source[start:end].decode("latin-1"))
            if isinstance(value, float) and not constant.words:
                literal = language.respell(literal)
            source = source[:start] + literal.encode(encoding) + source[end:]
    return source


def find_missing_parsers(files: Mapping[str, bytes]) -> list[str]:
    """Say for which of these files a parser is not installed, and how to install it."""
    missing = []
    for path, source in sorted(files.items()):
        try:
            _find(path, source)
        except MissingParser as error:
            missing.append(f"{path}: {error}")
        except SourceError:
            pass  # told where the file is read
    return missing
