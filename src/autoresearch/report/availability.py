"""What `autoresearch agents` prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from autoresearch.agents.support.availability import AgentAvailability
from autoresearch.formatting import one_line


def availability_text(agents: Sequence[AgentAvailability]) -> str:
    """Two lines for each agent: what it is, and how it stands here."""
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
    return f"{agent.version or agent.problem}{_credentials(agent)}"


def _credentials(agent: AgentAvailability) -> str:
    if agent.credentials:
        return f"; key or login: {', '.join(agent.credentials)}"
    unseen = " (its keychain is not looked at)" if sys.platform == "darwin" else ""
    return f"; no key or login seen{unseen}. {agent.login}" if agent.wants_credentials else ""
