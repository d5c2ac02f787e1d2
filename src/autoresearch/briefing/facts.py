"""The facts of one briefing, looked up once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.briefing.digest import Digest
from autoresearch.briefing.earlier import Earlier
from autoresearch.briefing.logs import Curve
from autoresearch.briefing.source_code import Names
from autoresearch.core.history import SegmentAlignment
from autoresearch.core.judge import Reference
from autoresearch.formatting import Numbers
from autoresearch.measure.scratch import ScratchRun
from autoresearch.records import Experiment
from autoresearch.store.rows import Note, SessionRecord
from autoresearch.task.model import Task


@dataclass(frozen=True, slots=True)
class Crash:
    """A run that crashed, and the end of its output."""

    experiment: int
    reason: str
    output: Sequence[str]  # lines


@dataclass(frozen=True, slots=True)
class Facts:
    task: Task
    record: SessionRecord
    reference: Reference  # what a change has to beat now
    incumbent: Experiment
    digest: Digest
    earlier: Sequence[Earlier]  # sessions of the same task
    names: Names
    latest: Sequence[Experiment]  # finished, the oldest first
    scale: SegmentAlignment  # on which earlier metrics are given
    in_flight: Sequence[Experiment]
    curves: Sequence[tuple[int, Sequence[Curve]]]  # of experiments
    crashes: Sequence[Crash]
    with_notes: Sequence[Experiment]  # whose agents left notes
    notes: Sequence[Note]  # left without an experiment
    turns: Sequence[tuple[float, str, str, str]]  # fruitless: when, agent, reason, message
    scratch: Sequence[ScratchRun]  # that are finished
    limits_left: Sequence[str]

    @property
    def sd(self) -> float | None:
        """Noise of one run; None where there is no noise, or it is not known."""
        is_known = self.reference.df > 0 and self.reference.sd > 0 and not self.record.deterministic
        return self.reference.sd if is_known else None

    @property
    def numbers(self) -> Numbers:
        return Numbers(self.record.metric, self.sd)

    @property
    def score(self) -> float | None:
        """The incumbent's score. Until its first scheduled run is done, its row's own metric."""
        return self.reference.score if self.reference.scores else self.incumbent.metric

    def effect(self, gain: float | None) -> str:
        """ "+0.012 (+1.3 sd)"; positive is better."""
        if gain is None:
            return "no score"
        signed = self.numbers.signed(gain)
        return f"{signed} ({self.numbers.in_sd(gain)} sd)" if self.sd else signed

    def short_effect(self, gain: float | None) -> str:
        """ "+1.3 sd", in metric units where there is no noise."""
        in_sd = self.numbers.in_sd(gain)
        return f"{in_sd} sd" if in_sd else self.effect(gain)
