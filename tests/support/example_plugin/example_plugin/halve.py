"""Lowers the constant LR, by more with every experiment. `--agent halve`, `--agent halve:0.5`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from autoresearch.errors import AgentError
from autoresearch.protocols import Proposal, Turn

LR = re.compile(r"^LR = ([\d.e-]+)", re.MULTILINE)


def create(argument: str | None, options: Mapping[str, object], seed: int) -> Halve:
    if options:
        raise AgentError(f"halve: unknown option {min(options)!r}; it has none")
    try:
        return Halve(float(argument or 0.9))
    except ValueError:
        raise AgentError(f"halve: found {argument!r}; accepted: a factor such as 0.9") from None


class Halve:
    name = "halve"
    wants_briefing = False  # it needs no briefing

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def propose(self, turn: Turn) -> Proposal | None:
        path = turn.worktree / turn.editable[0]
        source = path.read_text()
        if (match := LR.search(source)) is None:
            return None
        running = len(turn.history.in_flight())  # first: an experiment may finish meanwhile
        power = running + len(turn.history.finished()) + 1
        lr = float(match[1]) * self.factor**power
        path.write_text(LR.sub(f"LR = {lr:.6g}", source))
        return Proposal(f"LR {match[1]} -> {lr:.6g}")
