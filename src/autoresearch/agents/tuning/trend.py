"""An Optuna sampler for few, noisy, expensive trials around a known good point.

A Bayesian regression says how much each constant, moved so far from the incumbent, would gain:
linear plus quadratic along a number's range, one effect per alternative of a choice. A proposal is
Thompson sampling (Thompson 1933; Russo et al., "A Tutorial on Thompson Sampling", 2018): draw one
such model from the posterior and take the moves it likes best, a few constants at a time. So every
trial, kept or not, teaches all constants it touched, and near misses come back combined.

TPE is the better model of a large budget; in a hundred trials over thirteen constants it finds less
(`benchmarks/tuner_strategies.py` has the numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

Vector = NDArray[np.float64]

RADIUS = 0.35  # of a number's range: a quadratic describes no more, and a far step crashes
SMALLEST = 0.02  # of the range: less could not be told from noise
STEPS = 14  # tried along each number
DRAWS = 30  # from the posterior before giving up on an allowed proposal
CHANGES = (1, 2, 3)  # constants moved at a time ...
CHANGE_ODDS = (0.3, 0.4, 0.3)  # ... and how often

# Prior, in units of the typical effect of a trial. Between them they say: half a range moves the
# metric by a few typical effects, and most settings have their best value inside their range.
SLOPE_SD = 5.0
CURVE_MEAN, CURVE_SD = -16.0, 20.0
CHOICE_SD = 2.0
LEVEL_SD = 10.0  # of a program's score about the incumbent's
# Error of the quadratic at one range's distance. Trusting far trials less than that (5.0) brings a
# median gain of 0.078 in the simulation, instead of 0.093.
MISFIT = 0.5


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter: a position from 0 to 1. `levels` lists the positions that exist, None is all
    of them; a choice has no order."""

    name: str
    levels: Vector | None = None
    choice: bool = False


@dataclass(frozen=True, slots=True)
class Aim:
    """Where the next proposal starts from, and what it must not be."""

    incumbent: Vector  # positions, one per axis
    start: Vector  # of the session, likewise; crashes are measured from there
    score: float | None  # the higher the better, like the values in the study
    noise_sd: float | None
    program: str  # trials of another program (the code around the constants) share its slopes only
    allowed: Callable[[Vector], bool]


@dataclass(frozen=True, slots=True)
class _Data:
    x: Vector  # (n, axes)
    y: Vector  # (n,) above the incumbent's score
    runs: Vector  # (n,) averaged in y
    programs: list[str]
    crashes: Vector  # (m, axes)


class TrendSampler(BaseSampler):
    """Good for one proposal. Trials carry `runs` and `program` as user attributes; a crash is a
    pruned trial. The study maximizes."""

    def __init__(
        self,
        axes: Sequence[Axis],
        distributions: Mapping[str, BaseDistribution],
        aim: Aim,
        rng: np.random.Generator,
    ) -> None:
        self.axes = tuple(axes)
        self.distributions = dict(distributions)
        self.aim = aim
        self.rng = rng

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, distribution: BaseDistribution
    ) -> Any:
        sampler = RandomSampler(seed=int(self.rng.integers(2**31)))
        return sampler.sample_independent(study, trial, param_name, distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        position = self._propose(self._data(study, self.aim), self.aim)
        return {axis.name: float(u) for axis, u in zip(self.axes, position, strict=True)}

    def _data(self, study: Study, aim: Aim) -> _Data:
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        failed = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        names = [axis.name for axis in self.axes]
        scores = np.array([trial.value for trial in done], dtype=np.float64)
        center = aim.score if aim.score is not None else float(scores.mean()) if done else 0.0
        return _Data(
            x=_positions(done, names),
            y=scores - center,
            runs=np.array([t.user_attrs["runs"] for t in done], dtype=np.float64),
            programs=[t.user_attrs["program"] for t in done],
            crashes=_positions(failed, names),
        )

    def _propose(self, data: _Data, aim: Aim) -> Vector:
        """The favourite moves of one posterior draw; of another draw while that is not allowed."""
        moves = [self._moves(axis, u) for axis, u in zip(self.axes, aim.incumbent, strict=True)]
        mean, factor = self._posterior(data, aim)
        danger = _Danger(aim.start, data)
        position = aim.incumbent
        for _ in range(DRAWS):
            weights = mean + np.linalg.solve(factor.T, self.rng.standard_normal(len(mean)))
            position = self._favourite(weights, moves, aim.incumbent)
            if aim.allowed(position) and self.rng.random() >= danger.at(position):
                break
        return position

    def _moves(self, axis: Axis, here: float) -> Vector:
        """Positions one proposal may move this axis to."""
        if axis.levels is None:
            steps = np.linspace(-RADIUS, RADIUS, STEPS) + self.rng.uniform(-SMALLEST, SMALLEST)
            to = np.clip(here + steps, 0.0, 1.0)
            return to[np.abs(to - here) > SMALLEST]
        others = axis.levels[np.abs(axis.levels - here) > 1e-9]
        if axis.choice:
            return others
        near = others[np.abs(others - here) <= RADIUS]
        return near if len(near) else others[np.argsort(np.abs(others - here))[:2]]

    def _favourite(self, weights: Vector, moves: list[Vector], incumbent: Vector) -> Vector:
        best: list[tuple[float, int, float]] = []
        start = 0
        for index, (axis, to) in enumerate(zip(self.axes, moves, strict=True)):
            width = _width(axis)
            if len(to):
                gains = _features(axis, to, incumbent[index]) @ weights[start : start + width]
                top = int(gains.argmax())
                best.append((float(gains[top]), index, float(to[top])))
            start += width
        best.sort(reverse=True)
        position = incumbent.copy()
        for rank, (gain, index, to_position) in enumerate(best[: self._how_many()]):
            if rank == 0 or gain > 0:
                position[index] = to_position
        return position

    def _how_many(self) -> int:
        return int(self.rng.choice(CHANGES, p=CHANGE_ODDS))

    def _posterior(self, data: _Data, aim: Aim) -> tuple[Vector, Vector]:
        """Mean of the weights and the Cholesky factor of their precision, in metric units.

        Weights: those of `_features` axis by axis, then one level per program.
        """
        x = np.vstack([data.x, aim.incumbent])
        y = np.append(data.y, 0.0)
        # The incumbent's score is a mean of up to eight fresh runs; with none, it pins the level.
        runs = np.append(data.runs, 8.0)
        programs = [*data.programs, aim.program]
        effect, noise = _scales(data.y, aim.noise_sd)
        columns = [
            _features(axis, x[:, index], aim.incumbent[index])
            for index, axis in enumerate(self.axes)
        ]
        known = sorted(set(programs))
        columns.append(np.array([[p == k for k in known] for p in programs], dtype=np.float64))
        design = np.hstack(columns)
        distance = ((x - aim.incumbent) ** 2).sum(axis=1)
        precision = 1.0 / (noise**2 / runs + (MISFIT * effect * distance) ** 2 + 1e-4 * effect**2)
        prior_mean, prior_sd = self._prior(effect, len(known))
        matrix = design.T @ (design * precision[:, None]) + np.diag(prior_sd**-2)
        right = design.T @ (precision * y) + prior_mean * prior_sd**-2
        return np.linalg.solve(matrix, right), np.linalg.cholesky(matrix)

    def _prior(self, effect: float, programs: int) -> tuple[Vector, Vector]:
        mean: list[float] = []
        sd: list[float] = []
        for axis in self.axes:
            if axis.choice:
                mean += [0.0] * _width(axis)
                sd += [CHOICE_SD] * _width(axis)
            else:
                mean += [0.0, CURVE_MEAN]
                sd += [SLOPE_SD, CURVE_SD]
        return (
            effect * np.array([*mean, *[0.0] * programs]),
            effect * np.array([*sd, *[LEVEL_SD] * programs]),
        )


def _positions(trials: Sequence[FrozenTrial], names: Sequence[str]) -> Vector:
    rows = [[trial.params[name] for name in names] for trial in trials]
    return np.array(rows, dtype=np.float64).reshape(-1, len(names))


def _width(axis: Axis) -> int:
    return len(axis.levels) if axis.choice and axis.levels is not None else 2


def _features(axis: Axis, to: Vector, here: float) -> Vector:
    """What moving an axis from `here` to each of `to` means, (len(to), _width(axis))."""
    if axis.choice and axis.levels is not None:
        chosen = np.abs(to[:, None] - axis.levels) < 1e-9
        return chosen.astype(np.float64) - (np.abs(here - axis.levels) < 1e-9)
    step = to - here
    return np.stack([step, step**2], axis=1)


def _scales(gains: Vector, noise_sd: float | None) -> tuple[float, float]:
    """(typical effect of a trial, noise of one run). The median absolute gain, so that a diverged
    trial counts no more than another."""
    spread = float(np.median(np.abs(gains))) if len(gains) >= 5 else 0.0
    effect = max(spread, noise_sd or 0.0) or 1e-3
    return effect, noise_sd if noise_sd is not None else effect / 2


class _Danger:
    """How likely a crash is, judging by the crashes so far.

    A crash is blamed, in equal parts, on the axes that no success moved as far; a position that
    goes as far on all of them is as good as certain to crash again.
    """

    def __init__(self, start: Vector, data: _Data) -> None:
        self._start = start
        self._away = data.crashes - start
        up = (data.x - start).max(axis=0, initial=0.0)
        down = (start - data.x).max(axis=0, initial=0.0)
        reach = np.where(self._away > 0, up, down)
        moved = np.abs(self._away) > 1e-6
        self._suspect = moved & (reach < np.abs(self._away) - 1e-9)

    def at(self, position: Vector) -> float:
        """0 to 1."""
        there = (position - self._start) * np.sign(self._away)
        as_far = self._suspect & (there >= 0.95 * np.abs(self._away))
        blame = as_far.sum(axis=1) / np.maximum(self._suspect.sum(axis=1), 1)
        return 1.0 - float(np.prod(1.0 - blame))
