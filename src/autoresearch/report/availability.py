"""What `autoresearch agents` prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from autoresearch.agents.support.availability import AgentAvailability
from autoresearch.formatting import one_line


def standing_text(standings: Sequence[AgentAvailability]) -> str:
    """Two lines for each agent: what it is, and how it stands here."""
    width = max((len(one.name) for one in standings), default=0)
    lines = []
    for one in standings:
        lines.append(f"{one.name:<{width}}  {one_line(one.what)}")
        lines.append(f"{'':<{width}}    {one_line(_state(one))}")
    return "\n".join(lines) + "\n"


def _state(one: AgentAvailability) -> str:
    if one.built_in:
        return "built in"
    if not one.installed:
        return f"not installed: {one.install}"
    return f"{one.version or one.problem}{_credentials(one)}"


def _credentials(one: AgentAvailability) -> str:
    if one.credentials:
        return f"; key or login: {', '.join(one.credentials)}"
    unseen = " (its keychain is not looked at)" if sys.platform == "darwin" else ""
    return f"; no key or login seen{unseen}. {one.login}" if one.wants_credentials else ""
