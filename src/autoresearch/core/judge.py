"""The judge: screen, then separate. Pure functions of numbers; it knows no git, process or file.

One lucky run mints a false improvement, so a change has to win twice. The *screen* spends one to
three runs to drop what is not promising; it carries no guarantee and needs none. The *separation*
then makes k fresh runs of the change and k fresh runs of the incumbent in random order, and keeps
the change if and only if every one of its runs beats every one of the incumbent's.

If a change does nothing, the 2k runs are exchangeable: any k of them are equally likely to be the
best k, so P(keep) = 1 / C(2k, k), whatever the shape of the noise and whatever the agent has
learned. The expected number of false keeps of a session is at most confirmations / C(2k, k).

A run is asked for through a `draw` function, which may raise to abandon the whole judgement: the
same code judges processes and simulations.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from autoresearch.formatting import ROUNDING
from autoresearch.records import Metric
from autoresearch.statistics import t_quantile

DROP_BELOW = (1.5, 1.0, 0.8)  # sd better than the incumbent, after one, two, three runs
SCREEN_RUNS = len(DROP_BELOW)
PASS_LEVEL = 0.02  # one-sided level of the t test that ends the screen early
SCORE_RUNS = 8  # an incumbent's score is the mean of its last so many unselected runs
FRESH_RUNS = 3  # a new incumbent is measured again so often
TOPUP_EVERY = 10  # experiments after which the incumbent is measured once more
DRIFT_LEVEL = 0.02  # two-sided, of two runs each: 0.1 to 0.3 false alarms in 1,000 experiments
LEAST_SHARE = 1e-9  # of a deterministic task's score: a smaller gain is no progress
USUAL_SD = 4  # sd of one run: the least that a session's largest effect is taken for

Draw = Callable[[int], float]
"""Make the i-th run of a series and return its metric; may raise to abandon the judgement."""


@dataclass(frozen=True, slots=True)
class Level:
    """How sure a keep has to be."""

    name: str
    k: int  # runs of each side in a separation

    @property
    def false_keep(self) -> float:
        """P(keep) of a change that does nothing, once it is past the screen."""
        return 1 / math.comb(2 * self.k, self.k)


LEVELS = {name: Level(name, k) for name, k in (("fast", 2), ("default", 3), ("strict", 4))}


@dataclass(frozen=True, slots=True)
class Reference:
    """What a change has to beat: the incumbent's unselected runs and the noise of one run."""

    metric: Metric
    scores: tuple[float, ...]  # the latest unselected runs of the incumbent, at most SCORE_RUNS
    sd: float  # of one run, in metric units
    df: int  # degrees of freedom behind `sd`

    @property
    def score(self) -> float:
        return fmean(self.scores)

    def gain_in_sd(self, values: Sequence[float], least: float = 0.0) -> float:
        """How much more than `least`, in metric units, these runs gain on average, in standard
        deviations of one run."""
        gain = self.metric.gain(fmean(values), self.score) - least
        if self.sd == 0:
            return math.copysign(math.inf, gain) if gain else 0.0
        return gain / self.sd


@dataclass(frozen=True, slots=True)
class TestResult:
    """What a screen or a separation saw, and whether the change passed it."""

    passed: bool
    values: tuple[float, ...]  # the change's runs
    controls: tuple[float, ...] = ()  # the incumbent's, in a separation


def screen(reference: Reference, draw: Draw, least: float = 0.0) -> TestResult:
    """One to three runs of a change against the incumbent's score, improved by `least`.

    Dropped when less than 1.5, 1 and 0.8 sd better after one, two and three runs; passed as soon
    as t = gain / (sd * sqrt(1/n + 1/m)) reaches the one-sided 0.02 level; else dropped.
    """
    values: list[float] = []
    for look, threshold in enumerate(DROP_BELOW):
        values.append(draw(look))
        gain = reference.gain_in_sd(values, least)
        if gain < threshold:
            return TestResult(False, tuple(values))
        t = gain / math.sqrt(1 / len(values) + 1 / len(reference.scores))
        if t >= t_quantile(1 - PASS_LEVEL, reference.df):
            return TestResult(True, tuple(values))
    return TestResult(False, tuple(values))


def separate(
    metric: Metric, k: int, rng: random.Random, candidate: Draw, control: Draw
) -> TestResult:
    """k fresh runs of each side in random order; stops at the first pair in the wrong order."""
    turns = [True] * k + [False] * k
    rng.shuffle(turns)
    values: list[float] = []
    controls: list[float] = []
    for candidates_turn in turns:
        if candidates_turn:
            values.append(candidate(len(values)))
        else:
            controls.append(control(len(controls)))
        if values and controls:
            worst, best = metric.worst(values), metric.best(controls)
            if not metric.better(worst, best):
                return TestResult(False, tuple(values), tuple(controls))
    return TestResult(True, tuple(values), tuple(controls))


def reproduces(reference: Reference, least: float, draw: Draw) -> TestResult:
    """For a deterministic task: one run, and a second one, exactly alike, if the first gains at
    least `least` (negative: may lose as much). Only then an equal score is enough."""
    first, best = draw(0), reference.scores[-1]  # a mean would round
    gain = reference.metric.gain(first, best)
    if gain < least - ROUNDING * abs(best) or gain <= 0 <= least:
        return TestResult(False, (first,))
    second = draw(1)
    return TestResult(first == second, (first, second))


def drifted(reference: Reference, first: float, draw_again: Draw) -> bool:
    """Whether the machine has drifted: the incumbent's run `first` and one more both differ
    significantly from its earlier runs, in the same direction. Heavy tails fool one run alone."""
    side = _outlier_sign(reference, first)
    return side != 0 and _outlier_sign(reference, draw_again(0)) == side


def _outlier_sign(reference: Reference, value: float) -> int:
    """The side on which t = difference / (sd * sqrt(1 + 1/n)) is beyond DRIFT_LEVEL; else 0."""
    if reference.df < 1 or reference.sd == 0:
        return 0
    t = reference.gain_in_sd([value]) / math.sqrt(1 + 1 / len(reference.scores))
    if abs(t) < t_quantile(1 - DRIFT_LEVEL / 2, reference.df):
        return 0
    return 1 if t > 0 else -1


@dataclass(frozen=True, slots=True)
class Excess:
    """An improvement beside the largest that its session makes one expect, in metric units."""

    gain: float
    usual: float
    usual_source: str  # what `usual` is, in words

    def __str__(self) -> str:
        times = self.gain / self.usual
        return (
            f"a gain of {self.gain:.3g} is {times:.3g} times {self.usual_source} ({self.usual:.3g})"
        )


def too_good(gain: float, sd: float, effects: Sequence[float], multiple: float) -> Excess | None:
    """Quarantine: a keep's gain is flagged when it is more than `multiple` times the largest of the
    session's effects so far (those of flagged keeps left out) and of 4 sd of one run. None when it
    is not, and where neither is known. A change of 4 sd is large for a program that somebody has
    tuned, and a separation of three runs each finds it 98 times out of 100."""
    least = USUAL_SD * sd
    usual = max([least, *effects])
    if usual <= 0 or gain <= multiple * usual:
        return None
    what = "the largest effect before it" if usual > least else f"{USUAL_SD} sd of one run"
    return Excess(gain, usual, what)
