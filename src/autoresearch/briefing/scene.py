"""All that a briefing is made of, looked up once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.briefing.logs import Curve
from autoresearch.briefing.memory import Memory
from autoresearch.briefing.source import Names
from autoresearch.core.history import SegmentAlignment
from autoresearch.core.judge import Reference
from autoresearch.formatting import Numbers, in_sd, sds
from autoresearch.records import Experiment
from autoresearch.store.rows import Note, SessionRecord
from autoresearch.task.model import Task


@dataclass(frozen=True, slots=True)
class Training:
    """The curves of one run."""

    experiment: int
    curves: Sequence[Curve]


@dataclass(frozen=True, slots=True)
class Crash:
    """How a run ended that crashed."""

    experiment: int
    reason: str
    words: Sequence[str]  # lines of its output


@dataclass(frozen=True, slots=True)
class Scene:
    task: Task
    record: SessionRecord
    reference: Reference  # what a change has to beat now
    incumbent: Experiment
    memory: Memory
    names: Names
    latest: Sequence[Experiment]  # finished, the oldest first
    scale: SegmentAlignment  # on which earlier metrics are given
    in_flight: Sequence[Experiment]
    trainings: Sequence[Training]
    crashes: Sequence[Crash]
    noted: Sequence[Experiment]  # with notes
    notes: Sequence[Note]
    turns: Sequence[tuple[float, str, str, str]]  # fruitless: when, agent, reason, message
    left: Sequence[str]

    @property
    def sd(self) -> float | None:
        """Of one run; None where there is no noise, or it is not known."""
        known = self.reference.df > 0 and self.reference.sd > 0 and not self.record.deterministic
        return self.reference.sd if known else None

    @property
    def numbers(self) -> Numbers:
        return Numbers.of(self.record.metric, self.sd)

    @property
    def score(self) -> float | None:
        """The incumbent's; its row's own until its first scheduled run is done."""
        return self.reference.score if self.reference.scores else self.incumbent.metric

    def effect(self, gain: float | None) -> str:
        """ "+0.012 (+1.3 sd)"; positive is better."""
        if gain is None:
            return "no score"
        shown = self.numbers.signed(gain)
        return f"{shown} ({sds(in_sd(gain, self.sd))} sd)" if self.sd else shown

    def short_effect(self, gain: float | None) -> str:
        """ "+1.3 sd", in metric units where there is no noise."""
        if gain is None:
            return "no score"
        return f"{sds(in_sd(gain, self.sd))} sd" if self.sd else self.numbers.signed(gain)
