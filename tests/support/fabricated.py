"""A session in a real ledger, fabricated without runs."""

from __future__ import annotations

import random
from statistics import fmean

from autoresearch.protocols import Proposal
from autoresearch.records import Experiment, Goal, Metric, Role, Run, Status, Verdict
from autoresearch.report.collect import summarise
from autoresearch.report.summary import Summary
from autoresearch.store.ledger import Ledger

NOW = 1_795_000_000.0
MEMORY = 412_000_000
BPB = Metric("val_bpb")
ACCURACY = Metric("accuracy", Goal.MAXIMIZE)
IDEAS = (
    "raise MATRIX_LR to 0.08",
    "warm down over half of the budget instead of a fifth",
    "depth 3, width 96",
    "no value embeddings in the first layer, and a larger head dimension to make up for it",
    "ROPE base 5000",
    "batch of 4 x 256",
)


class FabricatedSession:
    """Fills a ledger as the loop does, without runs."""

    def __init__(
        self, ledger: Ledger, tag: str = "nov23", metric: Metric = BPB, **facts: object
    ) -> None:
        self.ledger = ledger
        self.metric = metric
        self.rng = random.Random(tag)
        self.record = ledger.create_session(
            tag,
            base_commit=self.commit(0),
            metric=metric,
            level="default",
            budget_s=10.0,
            budget_clock="cpu",
            limits={"experiments": 100, "hours": 8, "until": "07:00", "deadline": NOW + 9 * 3600},
            fingerprint={},
            now=NOW - 3600,
        )
        if facts:
            self.record = ledger.update_session(self.record, **facts)
        self.means: dict[int, float] = {}
        self.incumbent = 0
        self.agent = "tuner"
        self.costs: tuple[int | None, float | None] = (None, None)  # of a turn of that agent

    def commit(self, number: int) -> str:
        return f"{number:07x}" + "f" * 33

    def open(self, description: str, number: int = 0) -> Experiment:
        return self.ledger.begin(
            self.record,
            base=self.incumbent,
            commit=self.commit(number),
            tree=f"tree{number}",
            agent=self.agent if number else "baseline",
            proposal=Proposal(description, "", "", *(self.costs if number else (None, None))),
            lines=(1, 1),
            now=NOW - 60,
        )

    def open_run(self, number: int, role: Role, index: int = 0, of: int | None = None) -> Run:
        commit = self.commit(number if of is None else of)
        return self.ledger.open_run(
            self.record,
            experiment=number,
            attempt=0,
            role=role,
            index=index,
            commit=commit,
            now=NOW - 7,
        )

    def run(self, number: int, role: Role, index: int = 0, of: int | None = None) -> float:
        """Make a finished run of experiment `of`'s commit, for experiment `number`."""
        mean = self.means[number if of is None else of]
        value = mean + self.rng.gauss(0, 0.006)
        self.end(self.open_run(number, role, index, of), value)
        return value

    def end(self, run: Run, value: float | None, reason: str | None = None) -> Run:
        return self.ledger.finish_run(
            run,
            metric=value,
            reason=reason,
            numbers={"num_steps": 160.0},
            slot=0,
            exit_code=0 if reason is None else 1,
            wall_s=11.5,
            cpu_s=10.25,
            peak_memory_bytes=MEMORY,
        )

    def finish(
        self,
        number: int,
        status: Status,
        metric: float | None,
        reason: str | None = None,
    ) -> Experiment:
        if status is Status.KEEP:
            self.incumbent = number
        verdict = Verdict(status, reason, metric, "on three runs")
        return self.ledger.finish(
            self.record, number, verdict, peak_memory_bytes=MEMORY, now=NOW - 5
        )

    def baseline(self, mean: float = 1.603) -> Experiment:
        self.means[0] = mean
        self.open("baseline")
        values = [self.run(0, Role.BASELINE, index) for index in range(6)]
        return self.finish(0, Status.KEEP, fmean(values))

    def change(self, gain: float, description: str | None = None) -> Experiment:
        """Make a change that is truly better by `gain`, and is kept if that is much."""
        number = self.ledger.started(self.record) + 1
        sign = 1 if self.metric.better(1.0, 0.0) else -1
        self.means[number] = self.means[self.incumbent] + sign * gain
        self.open(IDEAS[number % len(IDEAS)] if description is None else description, number)
        first = self.run(number, Role.SCREEN)
        if gain < 0:
            return self.finish(number, Status.DISCARD, first, "worse")
        for index in range(3):
            self.run(number, Role.CANDIDATE, index)
            self.run(number, Role.CONTROL, index, of=self.incumbent)
        if gain < 0.004:
            return self.finish(number, Status.DISCARD, first, "not confirmed")
        fresh = [self.run(number, Role.REMEASURE, index) for index in range(4)]
        return self.finish(number, Status.KEEP, fmean(fresh))

    def crash(self, reason: str = "exit code 1") -> Experiment:
        number = self.ledger.started(self.record) + 1
        self.open("depth 64", number)
        self.end(self.open_run(number, Role.SCREEN), None, reason)
        return self.finish(number, Status.CRASH, None, reason)

    def verify(self, runs: int = 6) -> None:
        for index in range(runs):
            self.run(self.incumbent, Role.VERIFY, index)
            self.run(self.incumbent, Role.VERIFY_BASELINE, index, of=0)

    def plausible(self, experiments: int, keep_share: float = 0.07) -> FabricatedSession:
        with self.ledger.transaction():
            self.baseline(1.603 if self.metric is BPB else 0.81)
            for _ in range(experiments):
                dice = self.rng.random()
                if dice < 0.04:
                    self.crash(self.rng.choice(["timeout", "exit code 1", "memory"]))
                elif dice < 0.04 + keep_share:
                    self.change(0.004 + self.rng.expovariate(200))
                elif dice < 0.25:
                    self.change(self.rng.uniform(0, 0.003))
                else:
                    self.change(-self.rng.expovariate(40))
            self.ledger.add_elapsed(self.record, 40.0 * experiments)
        return self

    def summary(self, whole: bool = False) -> Summary:
        return summarise(self.ledger, self.record.tag, NOW, whole=whole)

    def experiments(self) -> list[Experiment]:
        return self.ledger.finished(self.record)
