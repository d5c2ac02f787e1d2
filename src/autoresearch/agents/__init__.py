"""Agents: one file, one agent. The file name is the registration.

A module of this package that defines `create(argument, options, seed) -> Agent` is an agent; the
others are helpers. On the command line an agent is `NAME` or `NAME:ARGUMENT`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from types import ModuleType

from autoresearch.errors import AgentError
from autoresearch.protocols import Agent

__all__ = ["load", "names", "parse"]


def names() -> list[str]:
    """The agents there are, sorted. Imports every module of the package; `AgentError` if one of
    them cannot be imported."""
    modules = (info.name for info in pkgutil.iter_modules(__path__))
    return sorted(name for name in modules if name[0] != "_" and hasattr(_import(name), "create"))


def parse(spec: str) -> tuple[str, str | None]:
    """`NAME` or `NAME:ARGUMENT` -> (name, argument)."""
    name, colon, argument = spec.partition(":")
    if not name.strip() or (colon and not argument.strip()):
        raise AgentError(f"agent {spec!r}: expected NAME or NAME:ARGUMENT")
    return name.strip(), argument.strip() or None


def load(
    name: str, argument: str | None = None, options: Mapping[str, object] = {}, seed: int = 0
) -> Agent:
    """The agent `name`, made by its module's `create`. Hyphens in the name count as underscores.

    Raises `AgentError` for an unknown name, naming the nearest, and for a module that cannot be
    imported.
    """
    stem = name.replace("-", "_")
    known = stem.isidentifier() and stem[0] != "_"
    if not known or importlib.util.find_spec(f"{__name__}.{stem}") is None:
        raise _unknown(name)
    create = getattr(_import(stem), "create", None)
    if create is None:
        raise _unknown(name)
    agent: Agent = create(argument, options, seed)
    return agent


def _import(stem: str) -> ModuleType:
    try:
        return importlib.import_module(f"{__name__}.{stem}")
    except Exception as error:  # whatever a plug-in does at import is a reason not to start
        raise AgentError(
            f"agent {stem!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _unknown(name: str) -> AgentError:
    accepted = names()
    near = difflib.get_close_matches(name.replace("-", "_"), accepted, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return AgentError(f"no agent {name!r}.{hint} There are: {', '.join(accepted)}")
