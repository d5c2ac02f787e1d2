"""How many slots pay: runs of the unchanged program alone, and several at the same time.

Slots share the machine. Where they disturb each other, runs take longer, or train less in their
budget and give a worse metric. More slots pay as long as they make more runs in the same time, and
the metric is not worse for it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import fmean

from autoresearch.commands.start import make_runner
from autoresearch.core.session import Session
from autoresearch.errors import BaselineError, TaskError
from autoresearch.formatting import counted, duration
from autoresearch.measure.runs import RunExecutor
from autoresearch.records import Metric, Role, Run
from autoresearch.runners.support.resources import count_usable_slots
from autoresearch.statistics import pooled_noise, t_quantile
from autoresearch.task.model import Task

AUTO = "auto"
LEAST_RATE = 1.1  # times the runs in the same time: fewer do not pay for the disturbance
WORSE_LEVEL = 0.01  # one-sided, of the t test that says that the metric is worse
LEAST_RUNS = 2  # for each number of slots


@dataclass(frozen=True, slots=True)
class SlotRuns:
    """Runs of the unchanged program, `slots` at the same time."""

    slots: int
    wall_s: float  # mean of a run and its score
    values: tuple[float, ...]  # metrics

    @property
    def per_hour(self) -> float:
        return 3600 * self.slots / self.wall_s if self.wall_s else math.inf

    def __str__(self) -> str:
        return (
            f"{counted(self.slots, 'slot')}: {duration(self.wall_s)} a run, "
            f"{self.per_hour:.3g} runs an hour, metric {fmean(self.values):.6g}"
        )


def read_most(text: str, task: Task) -> int:
    """The most slots that an option asks to try: a number, or `auto` for all that this machine has.
    Raises `TaskError`."""
    if text != AUTO:
        if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
            raise TaskError(f"--slots {text}: accepted: a whole number above 0, or {AUTO}")
        return int(text)
    if task.runner.name != "local":
        raise TaskError(
            f"--slots {AUTO} knows only this machine, not the runner {task.runner.name!r}: give a "
            "number"
        )
    return count_usable_slots(task.runner.cores)


def measure_slots(session: Session, most: int) -> list[SlotRuns]:
    """Measure 1, 2, 4, ... and `most` slots, while one pays. Raises `BaselineError` if a run of the
    unchanged program fails."""
    tried: list[SlotRuns] = []
    session.runner.close()  # a runner for each number of slots follows, on the same cores
    for slots in _list_counts(most):
        tried.append(_measure(session, slots, first=LEAST_RUNS * most * len(tried)))
        if len(tried) > 1 and tried[-1].per_hour < LEAST_RATE * tried[-2].per_hour:
            break
    return tried


def choose(tried: Sequence[SlotRuns], metric: Metric) -> int:
    """The number of slots that pays."""
    best = alone = tried[0]
    sd, df = pooled_noise([runs.values for runs in tried])
    for several in tried[1:]:
        error = sd * math.sqrt(1 / len(several.values) + 1 / len(alone.values))
        loss = metric.gain(fmean(alone.values), fmean(several.values))
        is_worse = loss > error * t_quantile(1 - WORSE_LEVEL, df)
        if several.per_hour >= LEAST_RATE * best.per_hour and not is_worse:
            best = several
    return best.slots


def _list_counts(most: int) -> Iterator[int]:
    count = 1
    while count < most:
        yield count
        count *= 2
    yield most


def _measure(session: Session, slots: int, first: int) -> SlotRuns:
    """`first` is the index of the first run: each has its own."""
    task = session.task
    runner = make_runner(replace(task, runner=replace(task.runner, slots=slots)))
    first_commit = session.record.base_commit
    parts = (task, session.paths, session.repository, runner, session.ledger, first_commit)
    executor = RunExecutor(*parts)

    def make(index: int) -> Run:
        run = session.ledger.open_run(
            session.record,
            experiment=0,
            attempt=0,
            role=Role.TOPUP,
            index=index,
            commit=first_commit,
            now=time.time(),
        )
        return executor.measure(run, lambda run: False)

    try:
        with ThreadPoolExecutor(slots) as pool:
            runs = list(pool.map(make, range(first, first + max(LEAST_RUNS, slots))))
    finally:
        runner.close()
    values = [run.metric for run in runs if run.metric is not None]
    if len(values) < len(runs):
        reasons = ", ".join({run.reason or "no metric" for run in runs if run.metric is None})
        raise BaselineError(
            f"with {counted(slots, 'slot')} the unchanged program does not work: {reasons}. "
            "Accepted: fewer slots, or more memory for each"
        )
    return SlotRuns(slots, fmean(run.took_s for run in runs), tuple(values))
