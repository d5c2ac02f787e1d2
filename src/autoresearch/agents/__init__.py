"""The agents that come with autoresearch: one file each, and the file's name is the agent's.

Such a file defines `create(argument, options, seed) -> Agent`. An agent of another package is the
same, found by an entry point or a dotted path (docs/extending.md). On the command line an agent is
`NAME` or `NAME:ARGUMENT`.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoresearch.errors import AgentError
from autoresearch.plugins import AGENTS
from autoresearch.protocols import Agent

__all__ = ["earlier_session", "load", "names", "parse"]

names = AGENTS.names


def parse(spec: str) -> tuple[str, str | None]:
    """`NAME` or `NAME:ARGUMENT` -> (name, argument)."""
    name, colon, argument = spec.partition(":")
    if not name.strip() or (colon and not argument.strip()):
        raise AgentError(f"agent {spec!r}: expected NAME or NAME:ARGUMENT")
    return name.strip(), argument.strip() or None


def load(
    name: str, argument: str | None = None, options: Mapping[str, object] = {}, seed: int = 0
) -> Agent:
    """Make the agent `name`, ours or another package's. Raises `AgentError` where there is none of
    that name, its module cannot be imported, or it refuses the argument or the options."""
    agent: Agent = AGENTS.load(name).create(argument, options, seed)
    return agent


def earlier_session(name: str, argument: str | None) -> str | None:
    """The tag of the session whose changes the agent needs, None if it needs none.

    Its file may define `earlier_session(argument)` for that. `create` then gets the changes as the
    option `proposals`: a list of (description, {path: content, or None to delete}).
    """
    if argument is None:
        return None
    ask = getattr(AGENTS.load(name), "earlier_session", None)
    tag: str | None = ask(argument) if ask else None
    return tag
