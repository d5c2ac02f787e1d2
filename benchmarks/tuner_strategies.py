"""Compares how much each way of proposing constants finds in a hundred noisy experiments.

    python benchmarks/tuner_strategies.py [--sessions 30] [--experiments 100] [--noise 0.006]
    python benchmarks/tuner_strategies.py --only trend --ahead 0 1 2 --sessions 200

Each simulated session is a program of 13 constants with a hidden optimum worth 0.1, reached through
six good settings of 0.008 to 0.03 each, on a skewed bowl with interactions and two crashing
corners. The judge drops a change unless its first run is 0.8 sd better than the incumbent's score,
and keeps it if three fresh runs all beat three fresh runs of the incumbent. Reported is the *true*
gain of the last incumbent, which no strategy can see.

`--ahead 0 1 2` compares sessions in which a proposal is made while so many earlier ones wait for
their results, as by `[agent] ahead`, on the same programs. One that was made on an earlier
incumbent is merged onto the present one, and dropped where both changed the same lines: a turn that
measures nothing.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from autoresearch import agents
from autoresearch.agents.tuning.constants import Constant
from autoresearch.agents.tuning.sources import edit, find
from autoresearch.merging import merge_files
from autoresearch.protocols import Agent, Proposal, Turn
from autoresearch.records import Experiment, Metric, Status

PATH = "train.py"
PROGRAM = b"""\
DEPTH = 4  # in [1, 8]
WIDTH = 256
BATCH = 2**14
EMBEDDING_LR = 0.6
UNEMBEDDING_LR = 0.004
MATRIX_LR = 0.04
SCALAR_LR = 0.5
WEIGHT_DECAY = 0.2
ADAM_BETAS = (0.8, 0.95)
WARMUP_RATIO = 0.1  # in [0, 0.4]
WARMDOWN_RATIO = 0.5
ACTIVATION = "relu"  # one of: relu, gelu, silu
"""
SPACE = find(PATH, PROGRAM)
NUMBERS = [constant for constant in SPACE if not constant.choices]
OPTIMUM = 0.1


class Landscape:
    """The true gain of a program over PROGRAM, None for a crash."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.start = np.array([c.position(c.value) for c in NUMBERS])
        size = len(NUMBERS)
        away, curve = rng.uniform(-0.1, 0.1, size), rng.uniform(0.05, 0.6, size)
        for axis in rng.permutation(size)[:6]:
            room = [s for s in (-1, 1) if 0 <= self.start[axis] + 0.15 * s <= 1]
            away[axis] = rng.choice(room) * rng.uniform(0.15, 0.45)
            curve[axis] = rng.uniform(0.008, 0.03) / away[axis] ** 2
        self.optimum = np.clip(self.start + away, 0, 1)
        self.hessian = _positive(_with_interactions(np.diag(curve), rng))
        self.skew = rng.uniform(0.7, 1.5, (2, size))
        self.power = rng.choice([1.0, 1.0, 0.75])
        self.scale = OPTIMUM / self._height(self.start)
        self.crashes = [(axis, rng.choice([-1, 1])) for axis in rng.choice(size, 2, replace=False)]
        self.alternatives = dict(zip(("gelu", "silu"), rng.uniform(-0.02, 0.01, 2), strict=True))

    def gain(self, source: bytes) -> float | None:
        values = {constant.name: constant.value for constant in find(PATH, source)}
        here = np.array([c.position(values[c.name]) for c in NUMBERS])
        if any(sign * (here[axis] - self.start[axis]) > 0.38 for axis, sign in self.crashes):
            return None
        bonus = self.alternatives.get(str(values["ACTIVATION"]), 0.0)
        return OPTIMUM - self.scale * self._height(here) + bonus

    def _height(self, here: np.ndarray) -> float:
        off = here - self.optimum
        off = off * np.where(off > 0, self.skew[0], self.skew[1])
        return float(off @ self.hessian @ off) ** self.power


def _with_interactions(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for _ in range(5):
        i, j = rng.choice(len(matrix), 2, replace=False)
        matrix[i, j] += rng.uniform(-0.4, 0.4) * np.sqrt(matrix[i, i] * matrix[j, j])
        matrix[j, i] = matrix[i, j]
    return matrix


def _positive(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.maximum(values, 1e-3)) @ vectors.T


@dataclass
class Past:
    """A history in memory."""

    noise_sd: float
    files: dict[str, dict[str, bytes]]
    best: Experiment
    metric: Metric = field(default_factory=lambda: Metric("val_bpb"))
    done: list[Experiment] = field(default_factory=list)
    waiting: list[Experiment] = field(default_factory=list)
    score: float = 0.0

    def __post_init__(self) -> None:
        self.first = self.best

    def baseline(self) -> Experiment:
        return self.first

    def incumbent(self) -> Experiment:
        return self.best

    def incumbent_score(self) -> float:
        return self.score

    def finished(self, after: int = 0) -> list[Experiment]:
        return self.done[after:]

    def in_flight(self) -> list[Experiment]:
        return list(self.waiting)

    def editable_files(self, commit: str) -> dict[str, bytes]:
        return self.files[commit]

    def rebase(self, experiment: Experiment) -> bool:
        """Put a change on the present incumbent. Return whether it fits."""
        if experiment.base == self.best.number:
            return True
        commits = (f"c{experiment.base}", self.best.commit, experiment.commit)
        merged = merge_files(*map(self.editable_files, commits))
        if merged is None or merged == self.files[self.best.commit]:
            return False
        self.files[experiment.commit] = merged
        return True


class OneAtATime:
    """The plain hill climber: one constant, a random step."""

    name, wants_briefing = "one at a time", False

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def propose(self, turn: Turn) -> Proposal:
        path = turn.worktree / "train.py"
        source = path.read_bytes()
        while True:
            constant = find(PATH, source)[self._rng.integers(len(SPACE))]
            value = self._step(constant, SPACE[[c.name for c in SPACE].index(constant.name)])
            if value != constant.value:
                path.write_bytes(edit(PATH, source, {constant.name: value}))
                return Proposal(constant.name)

    def _step(self, now: Constant, ranged: Constant):
        if ranged.choices:
            return ranged.choices[self._rng.integers(len(ranged.choices))]
        step = self._rng.choice([-1, 1]) * self._rng.uniform(0.1, 0.35)
        return ranged.at(ranged.position(now.value) + step)


@dataclass(frozen=True)
class Night:
    gain: float
    halfway: float
    keeps: int
    crashes: int
    conflicts: int
    milliseconds: float


def night(agent: Agent, seed: int, experiments: int, noise: float, ahead: int = 0) -> Night:
    """One simulated session. A conflict is no experiment."""
    landscape, rng = Landscape(seed), np.random.default_rng(10_000 + seed)
    first = Experiment(0, 0, "c0", "", "baseline", status=Status.KEEP, order=0, metric=0.0)
    past = Past(noise, {"c0": {"train.py": PROGRAM}}, first)
    truth = 0.0
    incumbent_runs = list(rng.normal(0.0, noise, 4))
    gains, cost = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.py"
        for number in itertools.count(1):
            past.score = -statistics.fmean(incumbent_runs[-8:])
            path.write_bytes(past.files[past.best.commit]["train.py"])
            before = time.process_time()
            proposal = agent.propose(Turn(Path(folder), ("train.py",), past, ""))
            cost.append(time.process_time() - before)
            assert isinstance(proposal, Proposal)
            past.files[f"c{number}"] = {"train.py": path.read_bytes()}
            past.waiting.append(
                Experiment(
                    number, past.best.number, f"c{number}", agent.name, proposal.description,
                    notes=proposal.notes,
                )
            )  # fmt: skip
            if len(past.waiting) <= ahead:
                continue
            experiment, status, metric = past.waiting.pop(0), Status.CRASH, None
            order = len(past.done) + 1
            if not past.rebase(experiment):
                past.done.append(replace(experiment, status=Status.DISCARD, order=order))
                continue
            gain = landscape.gain(past.files[experiment.commit]["train.py"])
            if gain is not None:
                status, metric = _judge(gain, truth, incumbent_runs, rng, noise)
            done = replace(experiment, base=past.best.number, status=status, metric=metric)
            past.done.append(replace(done, order=order))
            if status is Status.KEEP:
                truth, past.best = gain, past.done[-1]
            gains.append(truth)
            if len(gains) == experiments:
                break
    statuses = [e.status for e in past.done]
    return Night(
        truth,
        gains[len(gains) // 2 - 1],
        statuses.count(Status.KEEP),
        statuses.count(Status.CRASH),
        sum(e.status is Status.DISCARD and e.metric is None for e in past.done),
        1e3 * statistics.median(cost),
    )


def _judge(
    gain: float, truth: float, incumbent_runs: list[float], rng: np.random.Generator, noise: float
) -> tuple[Status, float]:
    """Screen, then separate. Appends the incumbent's fresh runs, replaces them after a keep."""
    first = rng.normal(gain, noise)
    if first - statistics.fmean(incumbent_runs[-8:]) >= 0.8 * noise:
        candidates, controls = rng.normal(gain, noise, 3), rng.normal(truth, noise, 3)
        incumbent_runs += list(controls)
        if candidates.min() > controls.max():
            incumbent_runs[:] = rng.normal(gain, noise, 4)
            return Status.KEEP, -statistics.fmean(incumbent_runs)
    return Status.DISCARD, -first


def strategies(seed: int) -> Iterator[tuple[str, Agent]]:
    yield "random", agents.load("tuner", "random", seed=seed)
    yield "one at a time", OneAtATime(seed)
    yield "tpe", agents.load("tuner", "tpe", seed=seed)
    yield "trend", agents.load("tuner", "trend", seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=30)
    parser.add_argument("--experiments", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.006)
    parser.add_argument("--only", help="one strategy")
    parser.add_argument("--ahead", type=int, nargs="+", default=[0], metavar="N")
    options = parser.parse_args()
    print(f"{machine()}; {options.sessions} sessions of {options.experiments} experiments\n")
    print("| strategy | ahead | true gain, mean | quartiles | halfway | beside the first |", end="")
    print(" keeps | crashes | conflicts | CPU ms |")
    print("|---|--:|---|---|---|---|---|---|---|---|")
    for name, _ in strategies(0):
        if options.only not in (None, name):
            continue
        first: list[Night] = []
        for ahead in options.ahead:
            nights = [
                night(dict(strategies(seed))[name], seed, options.experiments, options.noise, ahead)
                for seed in range(options.sessions)
            ]
            first = first or nights
            print(describe(name, ahead, nights, first), flush=True)


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def describe(name: str, ahead: int, nights: list[Night], first: list[Night]) -> str:
    """A row of the table. `first` are the nights on the same programs in the first row."""
    gains = [night.gain for night in nights]
    low, _, high = statistics.quantiles(gains, n=4)
    halfway, keeps, crashes, conflicts = (
        statistics.fmean(getattr(night, what) for night in nights)
        for what in ("halfway", "keeps", "crashes", "conflicts")
    )
    beside = [gain - other.gain for gain, other in zip(gains, first, strict=True)]
    cost = statistics.median(night.milliseconds for night in nights)
    return (
        f"| {name} | {ahead} | {with_error(gains)} | {low:.4f} to {high:.4f} | {halfway:.4f}"
        f" | {with_error(beside)} | {keeps:.1f} | {crashes:.1f} | {conflicts:.1f} | {cost:.1f} |"
    )


def with_error(values: list[float]) -> str:
    """The mean and its standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):.4f} ± {error:.4f}"


if __name__ == "__main__":
    main()
