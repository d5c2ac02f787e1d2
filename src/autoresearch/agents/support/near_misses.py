"""Near misses tried together: several changes that were almost kept, as one proposal.

A change that is better in its screen and is not kept is either luck or a real gain that is too
small to tell from noise. The sum of several such changes is easier to tell: four gains of half a
standard deviation are one of two. The judge treats the sum like any other change, so no promise of
its depends on this. In simulation a session gains 16 to 21 % more by it, three times as much where
most gains are small, and no more where gains are few and large (`benchmarks/frontier.py`).
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
SCREENED = re.compile(r"([+-]\d+\.\d) sd in the screen")  # a discard's `detail`, by the judge
REASONS = ("not better", "not confirmed")  # of the discards that can be near misses
WAITING = 16  # at most: the latest
PREFIX = "near misses together: "
HYPOTHESIS = "Each was better in its screen."  # an agent may copy the description
NUMBERS = re.compile(re.escape(PREFIX) + r"(\d+(?:, \d+)*)")


class WithNearMisses:
    """An agent whose turn goes to near misses together whenever there are enough of them."""

    def __init__(self, agent: Agent, combiner: Combiner, spec: str) -> None:
        self._agent = agent
        self._combiner = combiner
        self._spec = spec

    def __getattr__(self, name: str) -> Any:  # name, wants_briefing, close and what else it has
        return getattr(self._agent, name)

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        # Else the harness would believe that a failing agent works again, and that an agent that
        # has not answered yet tells its costs.
        has_proposed = self._combiner.has_proposed
        if has_proposed.get(self._spec) and (together := self._combiner.propose(turn)):
            return together
        answer = self._agent.propose(turn)
        has_proposed[self._spec] = isinstance(answer, Proposal)
        return answer


class Combiner:
    """Collects a session's near misses and merges them. The agents of a session share one."""

    def __init__(self) -> None:
        # In an agent's latest answer, by its specification: copies fail and recover as one.
        self.has_proposed: dict[str, bool] = {}
        self._order = 0  # of the latest finished experiment that was read
        self._commits: dict[int, str] = {}  # of keeps, by number
        self._waiting: list[Experiment] = []
        self._has_new = False  # a near miss since the latest attempt to merge
        self._lock = threading.Lock()

    def join(self, agent: Agent, spec: str) -> Agent:
        """The agent, with some of its turns given to near misses. An agent whose changes are given
        (`fixed`) stays as it is."""
        return agent if getattr(agent, "fixed", False) else WithNearMisses(agent, self, spec)

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
        return Proposal(PREFIX + numbers, f"{HYPOTHESIS}\n{ideas}", "", 0, 0.0)

    def _read(self, history: History) -> None:
        """Read what has finished since the last call."""
        running = history.in_flight()  # first: what ends meanwhile is in both, not in none
        if not self._commits:
            self._commits[0] = history.baseline().commit
        for done in history.finished(self._order):
            self._order = done.order or self._order
            self._forget(_list_combined(done))
            if done.status == Status.KEEP:
                self._commits[done.number] = done.commit
            elif _is_near_miss(done):
                self._waiting = [*self._waiting, done][-WAITING:]
                self._has_new = True
        for experiment in running:
            self._forget(_list_combined(experiment))

    def _forget(self, numbers: set[int]) -> None:
        self._waiting = [miss for miss in self._waiting if miss.number not in numbers]

    def _merge(self, history: History) -> tuple[Files, list[Experiment]]:
        """Merge waiting near misses onto the incumbent, the first ones first, until there are
        enough. Returns the changed files and the near misses that went in. One that does not fit
        onto the incumbent alone is forgotten."""
        merged: list[Experiment] = []
        incumbent = together = history.editable_files(history.incumbent().commit)
        for miss in list(self._waiting):
            base = history.editable_files(self._commits[miss.base])
            changed = history.editable_files(miss.commit)
            attempt = merge_files(base, together, changed)
            if attempt is None:
                if not merged or merge_files(base, incumbent, changed) is None:
                    self._forget({miss.number})
            elif attempt != together:
                together = attempt
                merged.append(miss)
            if len(merged) == COMBINED:
                break
        changes = {path: data for path, data in together.items() if incumbent.get(path) != data}
        return changes, merged


def _is_near_miss(done: Experiment) -> bool:
    """By the judge's own words: a comparison of metrics would miss that the machine has drifted."""
    screened = SCREENED.fullmatch(done.detail)
    is_better = screened is not None and float(screened[1]) >= LEAST_SD
    return is_better and done.reason in REASONS and not _list_combined(done)


def _list_combined(experiment: Experiment) -> set[int]:
    """The numbers of the near misses that an experiment combines."""
    if not experiment.hypothesis.startswith(HYPOTHESIS):
        return set()
    match = NUMBERS.fullmatch(experiment.description)
    return {int(number) for number in match[1].split(", ")} if match else set()
