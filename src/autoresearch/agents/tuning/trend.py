"""A sampler for few, noisy, expensive trials around a known good point.

A Bayesian regression estimates how much each constant, moved so far from the incumbent, would gain:
linear plus quadratic along a number's range, one effect per alternative of a choice. A proposal is
Thompson sampling (Thompson 1933; Russo et al., "A Tutorial on Thompson Sampling", 2018): draw one
such model from the posterior and take the moves it likes best, a few constants at a time. So every
trial, kept or not, teaches all constants it touched, and near misses come back combined.

TPE is the better model of a large budget; in a hundred trials over thirteen constants it finds less
(`benchmarks/tuner_strategies.py` has the numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoresearch.agents.tuning.space import Measured, Situation, Space

Vector = NDArray[np.float64]

RADIUS = 0.35  # of a number's range: a quadratic describes no more, and a far step crashes
SMALLEST = 0.02  # of the range: less could not be told from noise
STEPS = 14  # tried along each number
DRAWS = 30  # from the posterior before giving up on an allowed proposal
CHANGES = (1, 2, 3)  # constants moved at a time ...
CHANGE_ODDS = (0.3, 0.4, 0.3)  # ... and how often
SCORE_RUNS = 8.0  # the incumbent's score is a mean of up to so many fresh runs

# Prior, in units of the typical effect of a trial. Together they mean: half a range moves the
# metric by a few typical effects, and most settings have their best value inside their range.
SLOPE_SD = 5.0
CURVE_MEAN, CURVE_SD = -16.0, 20.0
CHOICE_SD = 2.0
LEVEL_SD = 10.0  # of a program's score about the incumbent's
# Error of the quadratic at one range's distance. Trusting far trials less than that (5.0) brings a
# median gain of 0.078 in the simulation, instead of 0.093.
MISFIT = 0.5


@dataclass(frozen=True, slots=True)
class _Axis:
    """The positions of one constant, from 0 to 1."""

    here: float  # the incumbent's
    levels: Vector | None  # the positions that exist; None: all of them
    choices: Vector | None  # the same, if they have no order

    def moves(self, rng: np.random.Generator) -> Vector:
        """Return the positions that one proposal may move to."""
        if self.levels is None:
            steps = np.linspace(-RADIUS, RADIUS, STEPS) + rng.uniform(-SMALLEST, SMALLEST)
            positions = np.clip(self.here + steps, 0.0, 1.0)
            return positions[np.abs(positions - self.here) > SMALLEST]
        others = self.levels[np.abs(self.levels - self.here) > 1e-9]
        if self.choices is not None:
            return others
        distances = np.abs(others - self.here)
        near = others[distances <= RADIUS]
        return near if len(near) else others[np.argsort(distances)[:2]]

    def features(self, positions: Vector) -> Vector:
        """Describe a move from `here` to each of the positions: (len(positions), features)."""
        if self.choices is not None:
            chosen = np.abs(positions[:, None] - self.choices) < 1e-9
            return chosen.astype(np.float64) - (np.abs(self.here - self.choices) < 1e-9)
        step = positions - self.here
        return np.stack([step, step**2], axis=1)

    def prior(self) -> list[tuple[float, float]]:
        """Return (mean, sd) of the weight of each feature, in typical effects."""
        if self.choices is not None:
            return [(0.0, CHOICE_SD)] * len(self.choices)
        return [(0.0, SLOPE_SD), (CURVE_MEAN, CURVE_SD)]


def propose(
    measured: Sequence[Measured], space: Space, situation: Situation, rng: np.random.Generator
) -> list[float]:
    """Return the favourite moves of one posterior draw; of another draw if they are not allowed."""
    incumbent = np.array(space.positions(situation.incumbent.program.values))
    start = np.array([c.position(c.value) for c in space.constants.values()])
    axes = []
    for here, (name, constant) in zip(incumbent, space.constants.items(), strict=True):
        levels = space.levels[name]
        array = None if levels is None else np.array(levels)
        axes.append(_Axis(float(here), array, None if constant.ordered else array))
    scored = [m for m in measured if m.score is not None]
    trials = _positions(scored, space)
    danger = _Danger(start, trials, _positions([m for m in measured if m.score is None], space))
    moves = [axis.moves(rng) for axis in axes]
    mean, factor = _posterior(axes, scored, trials, situation)
    position = incumbent
    for _ in range(DRAWS):
        weights = mean + np.linalg.solve(factor.T, rng.standard_normal(len(mean)))
        position = _choose_moves(axes, moves, weights, rng)
        if situation.is_allowed(position.tolist()) and rng.random() >= danger.at(position):
            break
    return [float(u) for u in position]


def _positions(measured: Sequence[Measured], space: Space) -> Vector:
    rows = [space.positions(m.program.values) for m in measured]
    return np.array(rows, dtype=np.float64).reshape(-1, len(space.constants))


def _choose_moves(
    axes: Sequence[_Axis], moves: Sequence[Vector], weights: Vector, rng: np.random.Generator
) -> Vector:
    """Return the position after the best moves of a few axes, at least of one."""
    best: list[tuple[float, int, float]] = []
    first = 0
    for index, (axis, positions) in enumerate(zip(axes, moves, strict=True)):
        last = first + len(axis.prior())
        if len(positions):
            gains = axis.features(positions) @ weights[first:last]
            top = int(gains.argmax())
            best.append((float(gains[top]), index, float(positions[top])))
        first = last
    best.sort(reverse=True)
    position = np.array([axis.here for axis in axes])
    count = int(rng.choice(CHANGES, p=CHANGE_ODDS))
    for rank, (gain, index, to) in enumerate(best[:count]):
        if rank == 0 or gain > 0:
            position[index] = to
    return position


def _posterior(
    axes: Sequence[_Axis], scored: Sequence[Measured], trials: Vector, situation: Situation
) -> tuple[Vector, Vector]:
    """Return the mean of the weights and the Cholesky factor of their precision, in metric units.

    Weights: those of the features axis by axis, then one level per program. Trials of another
    program (the code around the constants) share only its slopes.
    """
    scores = np.array([m.score for m in scored], dtype=np.float64)
    center = situation.incumbent.score
    if center is None:
        center = float(scores.mean()) if scored else 0.0
    gains = scores - center
    effect, noise = _scales(gains, situation.noise_sd)
    incumbent = np.array([axis.here for axis in axes])
    x = np.vstack([trials, incumbent])
    y = np.append(gains, 0.0)
    runs = np.array([*(m.runs for m in scored), SCORE_RUNS])
    programs = [m.program.digest for m in (*scored, situation.incumbent)]
    known = sorted(set(programs))
    columns = [axis.features(x[:, index]) for index, axis in enumerate(axes)]
    columns.append(np.array([[p == k for k in known] for p in programs], dtype=np.float64))
    design = np.hstack(columns)
    distance = ((x - incumbent) ** 2).sum(axis=1)
    precision = 1.0 / (noise**2 / runs + (MISFIT * effect * distance) ** 2 + 1e-4 * effect**2)
    levels = [(0.0, LEVEL_SD)] * len(known)
    prior = effect * np.array([*(row for axis in axes for row in axis.prior()), *levels])
    prior_mean, prior_precision = prior[:, 0], prior[:, 1] ** -2
    matrix = design.T @ (design * precision[:, None]) + np.diag(prior_precision)
    right = design.T @ (precision * y) + prior_mean * prior_precision
    return np.linalg.solve(matrix, right), np.linalg.cholesky(matrix)


def _scales(gains: Vector, noise_sd: float | None) -> tuple[float, float]:
    """Return (typical effect of a trial, noise of one run). The median absolute gain, so that a
    diverged trial counts no more than another."""
    spread = float(np.median(np.abs(gains))) if len(gains) >= 5 else 0.0
    effect = max(spread, noise_sd or 0.0) or 1e-3
    return effect, noise_sd if noise_sd is not None else effect / 2


class _Danger:
    """How likely a crash is, judging by the crashes so far.

    A crash is blamed, in equal parts, on the axes that no success moved as far from the session's
    start; a position that goes as far on all of them is as good as certain to crash again.
    """

    def __init__(self, start: Vector, successes: Vector, crashes: Vector) -> None:
        self._start = start
        self._away = crashes - start
        up = (successes - start).max(axis=0, initial=0.0)
        down = (start - successes).max(axis=0, initial=0.0)
        reach = np.where(self._away > 0, up, down)
        moved = np.abs(self._away) > 1e-6
        self._suspect = moved & (reach < np.abs(self._away) - 1e-9)

    def at(self, position: Vector) -> float:
        """Return the probability of a crash."""
        there = (position - self._start) * np.sign(self._away)
        as_far = self._suspect & (there >= 0.95 * np.abs(self._away))
        blame = as_far.sum(axis=1) / np.maximum(self._suspect.sum(axis=1), 1)
        return 1.0 - float(np.prod(1.0 - blame))
