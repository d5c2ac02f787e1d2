"""The messages of the commits that hold changes under measurement."""

from __future__ import annotations

from autoresearch.formatting import quote_trailers
from autoresearch.protocols import Proposal

SUBJECT_LENGTH = 72


def write_message(proposal: Proposal, tag: str, agent: str) -> str:
    """What the agent says of its change, and trailers with the session and the agent."""
    subject = " ".join(proposal.description.split()) or "(no description)"
    message = f"{subject[:SUBJECT_LENGTH]}\n\n"
    if len(subject) > SUBJECT_LENGTH or proposal.hypothesis:
        message += quote_trailers(f"{subject}\n\n{proposal.hypothesis}".strip()) + "\n\n"
    return f"{message}Autoresearch-Session: {tag}\nAutoresearch-Agent: {agent}\n"
