"""The tuner's Optuna study: what was measured goes in, positions to try come out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoresearch.agents.tuning.constants import Value
from autoresearch.agents.tuning.space import Space
from autoresearch.agents.tuning.trend import Aim, Axis, TrendSampler

REMEMBERED = 48  # trials the study keeps, of the best and of the latest each, once it has ...
FULL = 144  # ... this many: a proposal costs the same at the 2,000th experiment
TPE_CHANGES = (1, 2, 3)  # constants that TPE moves at a time


@dataclass(frozen=True, slots=True)
class Measured:
    """An experiment, as a trial sees it."""

    values: Mapping[str, Value]
    digest: str  # of the program around the constants
    score: float | None = None  # the higher the better; None: it crashed, or still runs
    runs: int = 1  # that the score is the mean of


@dataclass(frozen=True, slots=True)
class Situation:
    """What a proposal starts from."""

    incumbent: Measured
    noise_sd: float | None
    running: Sequence[Measured]
    allowed: Callable[[Sequence[float]], bool]
    seed: Sequence[int]


class Study:
    """An Optuna study over the positions (0 to 1) of a space's constants.

    A trial is told as what the commit really holds, so the trial that was asked for is closed at
    once, and so are those for the experiments in flight: the next proposal sees them afresh. Hence
    a proposal depends on the history alone, and a restarted tuner makes the same.
    """

    def __init__(self, sampler: str, space: Space) -> None:
        self._kind = sampler
        self._space = space
        self._measured: list[Measured] = []
        self._study: optuna.Study | None = None
        self._axes: list[Axis] = []
        self._distributions: dict[str, BaseDistribution] = {}

    def add(self, measured: Measured) -> None:
        self._measured.append(measured)
        if len(self._measured) > FULL:
            self._forget()
        elif self._study is not None:
            self._study.add_trial(self._trial(measured))

    def rebuild(self) -> None:
        """Because the space has grown."""
        self._study = None

    def ask(self, situation: Situation) -> list[float]:
        """Positions worth trying. They may fail `situation.allowed` when few or none are left."""
        if self._study is None:
            self._study = self._new_study()
        study, rng = self._study, np.random.default_rng(list(situation.seed))
        present = self._space.positions(situation.incumbent.values)
        study.sampler = self._sampler(situation, present, rng)
        first = len(study.get_trials(deepcopy=False))
        study.add_trials([self._trial(m, TrialState.RUNNING) for m in situation.running])
        trial = study.ask(self._distributions)
        for number in range(first, trial.number + 1):
            study.tell(number, state=TrialState.FAIL)
        return [float(trial.params[name]) for name in self._space.constants]

    def _forget(self) -> None:
        order = range(len(self._measured))
        scored = [(m.score, i) for i, m in enumerate(self._measured) if m.score is not None]
        best = [i for _, i in sorted(scored)[-REMEMBERED:]]
        kept = sorted({*best, *order[-REMEMBERED:]})
        self._measured = [self._measured[i] for i in kept]
        self._study = None

    def _new_study(self) -> optuna.Study:
        self._axes = [
            _axis(name, self._space.levels(constant), not constant.ordered)
            for name, constant in self._space.constants.items()
        ]
        self._distributions = {axis.name: _distribution(axis) for axis in self._axes}
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(direction="maximize")
        finally:
            optuna.logging.set_verbosity(verbosity)
        study.add_trials([self._trial(measured) for measured in self._measured])
        return study

    def _sampler(
        self, situation: Situation, present: list[float], rng: np.random.Generator
    ) -> BaseSampler:
        seed = int(rng.integers(2**31))
        if self._kind == "random":
            return RandomSampler(seed=seed)
        if self._kind == "trend":
            return self._trend(situation, present, rng)
        names = list(self._space.constants)
        count = min(int(rng.choice(TPE_CHANGES)), len(names))
        free = set(rng.choice(len(names), size=count, replace=False).tolist())
        fixed = {
            name: u for i, (name, u) in enumerate(zip(names, present, strict=True)) if i not in free
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            tpe = TPESampler(multivariate=True, constant_liar=True, n_startup_trials=5, seed=seed)
            return PartialFixedSampler(fixed, tpe)

    def _trend(
        self, situation: Situation, present: list[float], rng: np.random.Generator
    ) -> TrendSampler:
        start = [c.position(c.value) for c in self._space.constants.values()]
        aim = Aim(
            incumbent=np.array(present),
            start=np.array(start),
            score=situation.incumbent.score,
            noise_sd=situation.noise_sd,
            program=situation.incumbent.digest,
            allowed=lambda positions: situation.allowed(positions.tolist()),
        )
        return TrendSampler(self._axes, self._distributions, aim, rng)

    def _trial(self, measured: Measured, state: TrialState | None = None) -> FrozenTrial:
        """A crash is a pruned trial without a value: TPE ranks it below every other."""
        if state is None:
            state = TrialState.PRUNED if measured.score is None else TrialState.COMPLETE
        names = list(self._space.constants)
        return create_trial(
            state=state,
            value=measured.score if state is TrialState.COMPLETE else None,
            params=dict(zip(names, self._space.positions(measured.values), strict=True)),
            distributions=self._distributions,
            user_attrs={"runs": measured.runs, "program": measured.digest},
        )


def _axis(name: str, levels: list[float] | None, choice: bool) -> Axis:
    return Axis(name, None if levels is None else np.array(levels), choice)


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.choice and axis.levels is not None:
        return CategoricalDistribution(axis.levels.tolist())
    return FloatDistribution(0.0, 1.0)
