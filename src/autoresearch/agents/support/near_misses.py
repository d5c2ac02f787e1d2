"""Near misses tried together: several changes that were almost kept, as one proposal.

A change that is better in its screen and is not kept is either luck or a real gain that is too
small to tell from noise. The sum of several such changes is easier to tell: four gains of half a
standard deviation are one of two. The judge treats the sum like any other change, so no promise of
its depends on this. In simulation it adds 10 to 30 % to a session's gain, and three times that
where most gains are small (`benchmarks/frontier.py`).
"""

from __future__ import annotations

import re
import threading
from typing import Any

from autoresearch.merging import Files, merge_files
from autoresearch.protocols import Agent, Failure, History, Proposal, Turn
from autoresearch.records import Experiment, Status

COMBINED = 4  # near misses tried together
LEAST_SD = 0.8  # a near miss was at least this much better in its screen, in sd of one run
REASONS = ("not better", "not confirmed")  # of the discards that can be near misses
WAITING = 16  # at most: the latest
PREFIX = "near misses together: "
NUMBERS = re.compile(re.escape(PREFIX) + r"(\d+(?:, \d+)*)")


class WithNearMisses:
    """An agent whose turn goes to near misses together whenever there are enough of them."""

    def __init__(self, agent: Agent, combiner: Combiner) -> None:
        self._agent = agent
        self._combiner = combiner

    def __getattr__(self, name: str) -> Any:  # name, wants_briefing, close and what else it has
        return getattr(self._agent, name)

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        return self._combiner.propose(turn) or self._agent.propose(turn)


class Combiner:
    """Collects a session's near misses and merges them. The agents of a session share one."""

    def __init__(self) -> None:
        self._order = 0  # of the latest finished experiment that was read
        self._scores: dict[int, float] = {}  # of keeps, by number
        self._commits: dict[int, str] = {}  # of keeps, by number
        self._waiting: list[Experiment] = []
        self._has_new = False  # a near miss since the latest attempt to merge
        self._lock = threading.Lock()

    def join(self, agent: Agent) -> Agent:
        """The agent, with some of its turns given to near misses. An agent whose changes are given
        (`fixed`) stays as it is."""
        return agent if getattr(agent, "fixed", False) else WithNearMisses(agent, self)

    def propose(self, turn: Turn) -> Proposal | None:
        """Put the near misses into the worktree, if enough of them fit together. Else None."""
        with self._lock:
            self._read(turn.history)
            if not self._has_new or len(self._waiting) < COMBINED:
                return None
            self._has_new = False
            files, merged = self._merge(turn.history)
            if len(merged) < COMBINED:
                return None
            self._forget({miss.number for miss in merged})
        for path, content in files.items():
            (turn.worktree / path).write_bytes(content)
        merged.sort(key=lambda miss: miss.number)
        numbers = ", ".join(str(miss.number) for miss in merged)
        ideas = "\n".join(f"{miss.number}: {miss.description}" for miss in merged)
        return Proposal(PREFIX + numbers, f"Each was better in its screen.\n{ideas}", "", 0, 0.0)

    def _read(self, history: History) -> None:
        """Read what has finished since the last call."""
        if not self._scores:
            self._add_keep(history.baseline())
        sd = history.noise_sd
        for done in history.finished(self._order):
            self._order = done.order or self._order
            self._forget(_list_combined(done))
            if done.status == Status.KEEP:
                self._add_keep(done)
            elif sd and self._is_near_miss(done, history, sd):
                self._waiting = [*self._waiting, done][-WAITING:]
                self._has_new = True
        for running in history.in_flight():
            self._forget(_list_combined(running))

    def _add_keep(self, keep: Experiment) -> None:
        if keep.metric is not None:
            self._scores[keep.number] = keep.metric
        self._commits[keep.number] = keep.commit

    def _is_near_miss(self, done: Experiment, history: History, sd: float) -> bool:
        score = self._scores.get(done.base)
        if done.reason not in REASONS or done.metric is None or score is None:
            return False
        return not _list_combined(done) and history.metric.gain(done.metric, score) >= LEAST_SD * sd

    def _forget(self, numbers: set[int]) -> None:
        self._waiting = [miss for miss in self._waiting if miss.number not in numbers]

    def _merge(self, history: History) -> tuple[Files, list[Experiment]]:
        """Merge waiting near misses onto the incumbent, the first ones first, until there are
        enough. Returns the changed files and the near misses that went in. One that does not fit
        onto the incumbent alone is forgotten."""
        incumbent = history.editable_files(history.incumbent().commit)
        together, merged = incumbent, []
        for miss in list(self._waiting):
            base = history.editable_files(self._commits[miss.base])
            changed = history.editable_files(miss.commit)
            if merge_files(base, incumbent, changed) is None:
                self._forget({miss.number})
                continue
            attempt = merge_files(base, together, changed)
            if attempt is not None and attempt != together:
                together = attempt
                merged.append(miss)
            if len(merged) == COMBINED:
                break
        changes = {path: data for path, data in together.items() if incumbent.get(path) != data}
        return changes, merged


def _list_combined(experiment: Experiment) -> set[int]:
    """The numbers of the near misses that an experiment combines."""
    match = NUMBERS.fullmatch(experiment.description)
    return {int(number) for number in match[1].split(", ")} if match else set()
