"""The text of `autoresearch agents`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from autoresearch.agents.support.availability import AgentAvailability
from autoresearch.formatting import one_line


def availability_text(agents: Sequence[AgentAvailability]) -> str:
    """Two lines for each agent: a description, and its state on this machine."""
    width = max((len(agent.name) for agent in agents), default=0)
    lines = []
    for agent in agents:
        lines.append(f"{agent.name:<{width}}  {one_line(agent.what)}")
        lines.append(f"{'':<{width}}    {one_line(_state(agent))}")
    return "\n".join(lines) + "\n"


def _state(agent: AgentAvailability) -> str:
    if agent.built_in:
        return "built in"
    if not agent.installed:
        return f"not installed: {agent.install}"
    version = agent.version or agent.problem
    if agent.credentials:
        return f"{version}; key or login: {', '.join(agent.credentials)}"
    if not agent.wants_credentials:
        return version
    keychain = " (its keychain is not looked at)" if sys.platform == "darwin" else ""
    return f"{version}; no key or login seen{keychain}. {agent.login}"
