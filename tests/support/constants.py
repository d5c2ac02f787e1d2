"""The constants of Python sources, for tests of the tuner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoresearch.agents.tuning import sources
from autoresearch.agents.tuning.constants import Constant, Value

PATH = "program.py"


def find(source: bytes | str) -> list[Constant]:
    raw = source.encode(errors="surrogatepass") if isinstance(source, str) else source
    return sources.find(PATH, raw)


def edit(source: bytes, changes: Mapping[str, Value]) -> bytes:
    return sources.edit(PATH, source, changes)


def between(source: bytes, constants: Sequence[Constant]) -> list[bytes]:
    """The bytes between the constants' literals."""
    edges = [0, *(edge for constant in constants for edge in constant.span), len(source)]
    return [source[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
