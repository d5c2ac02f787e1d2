"""The agents that come with autoresearch: one file each, named as the agent.

Such a file defines `create(argument, options, seed) -> Agent`. Agents of other packages do the same
and are found by an entry point or a dotted path (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from autoresearch.errors import AgentError
from autoresearch.plugins import AGENTS
from autoresearch.protocols import Agent

__all__ = ["earlier_session", "load", "names", "parse"]

names = AGENTS.names


def parse(spec: str) -> tuple[str, str | None]:
    """Split `NAME` or `NAME:ARGUMENT` into name and argument."""
    name, colon, argument = spec.partition(":")
    if not name.strip() or (colon and not argument.strip()):
        raise AgentError(f"agent {spec!r}: expected NAME or NAME:ARGUMENT")
    return name.strip(), argument.strip() or None


def load(
    name: str, argument: str | None = None, options: Mapping[str, object] = {}, seed: int = 0
) -> Agent:
    """Make the agent `name`, ours or another package's. Raises `AgentError` if there is no such
    agent, its module cannot be imported, or it refuses the argument or the options."""
    agent: Agent = AGENTS.load(name).create(argument, options, seed)
    return agent


def earlier_session(name: str, argument: str | None) -> str | None:
    """Return the tag of the session whose changes the agent needs, or None.

    An agent's file may define `earlier_session(argument)`. `create` then gets the changes as the
    option `proposals`: a list of (description, {path: content, or None to delete}).
    """
    if argument is None:
        return None
    function = getattr(AGENTS.load(name), "earlier_session", None)
    tag: str | None = function(argument) if function else None
    return tag
