"""The judge's promises: the bound on false keeps by enumeration, the rest against published tables,
hand computations and mirror images."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoresearch.core.judge import (
    DROP_BELOW,
    LEVELS,
    PASS_LEVEL,
    Reference,
    reproduces,
    screen,
    separate,
)
from autoresearch.core.judge import (
    TestResult as JudgeResult,
)
from autoresearch.records import Goal, Metric
from autoresearch.statistics import difference_interval, pooled_noise, t_cdf, t_quantile

LOSS = Metric("loss", Goal.MINIMIZE)
ACCURACY = Metric("accuracy", Goal.MAXIMIZE)

Labels = tuple[bool, ...]
"""The order of a separation: True where the change runs, False where the incumbent does."""


class Abandoned(Exception):
    """What a draw raises when the run crashed or the session stops."""


class Arranged(random.Random):
    """A shuffle that puts the two sides into a given order."""

    def __init__(self, labels: Labels) -> None:
        super().__init__(0)
        self.labels = labels

    def shuffle(self, x: list) -> None:  # type: ignore[type-arg, override]
        assert len(x) == len(self.labels)
        x[:] = [x[0] if label else x[-1] for label in self.labels]


class Series:
    """Draws that hand out prepared values, and remember who asked for which index."""

    def __init__(self, values: Iterable[float]) -> None:
        self.values = iter(values)
        self.asked: list[tuple[str, int]] = []

    def side(self, name: str) -> Callable[[int], float]:
        def draw(index: int) -> float:
            self.asked.append((name, index))
            return next(self.values)

        return draw


def draws(*values: float) -> Callable[[int], float]:
    return lambda index: values[index]


def arrangements(k: int) -> list[Labels]:
    """All C(2k, k) of them."""
    return [
        tuple(slot in chosen for slot in range(2 * k))
        for chosen in itertools.combinations(range(2 * k), k)
    ]


def separated(values: Sequence[float], labels: Labels, metric: Metric = LOSS) -> JudgeResult:
    """A separation in which the i-th run made has the i-th value, whoever makes it."""
    made = iter(values)
    k = len(labels) // 2
    return separate(metric, k, Arranged(labels), lambda _: next(made), lambda _: next(made))


# --------------------------------------------------------------------------------------------
# The bound: P(keep) = 1 / C(2k, k) for a change that does nothing


@pytest.mark.parametrize("k", [1, 2, 3])
def test_every_order_of_the_values_is_kept_under_exactly_one_arrangement(k: int) -> None:
    for values in itertools.permutations(range(2 * k)):
        assert sum(separated(values, labels).passed for labels in arrangements(k)) == 1


@pytest.mark.parametrize("labels", arrangements(4)[::10])
def test_under_an_arrangement_one_order_in_seventy_is_kept(labels: Labels) -> None:
    kept = sum(separated(values, labels).passed for values in itertools.permutations(range(8)))
    assert kept * math.comb(8, 4) == math.factorial(8)


@pytest.mark.slow
def test_for_k_4_too_every_order_of_the_values_is_kept_under_exactly_one_arrangement() -> None:
    for values in itertools.permutations(range(8)):
        assert sum(separated(values, labels).passed for labels in arrangements(4)) == 1


@pytest.mark.parametrize(("k", "distinct"), [(2, 4), (3, 3), (4, 2)])
def test_ties_are_never_kept_more_often(k: int, distinct: int) -> None:
    for values in itertools.product(range(distinct), repeat=2 * k):
        ranked = sorted(values)
        kept = sum(separated(values, labels).passed for labels in arrangements(k))
        assert kept == (ranked[k - 1] < ranked[k])


@given(
    st.sampled_from([3, 4]).flatmap(
        lambda k: st.lists(st.floats(-1e9, 1e9), min_size=2 * k, max_size=2 * k)
    ),
    st.sampled_from([LOSS, ACCURACY]),
)
def test_whatever_the_values_at_most_one_arrangement_is_kept(
    values: list[float], metric: Metric
) -> None:
    k = len(values) // 2
    kept = sum(separated(values, labels, metric).passed for labels in arrangements(k))
    ranked = sorted(values)
    assert kept == (ranked[k - 1] < ranked[k])


@pytest.mark.parametrize(
    ("name", "announced"), [("fast", 1 / 6), ("default", 1 / 20), ("strict", 1 / 70)]
)
def test_levels_announce_the_bound(name: str, announced: float) -> None:
    assert LEVELS[name].false_keep == pytest.approx(announced)


def test_every_arrangement_is_as_likely() -> None:
    """The 20 arrangements of k = 3 under real shuffles: chi squared with 19 degrees of freedom is
    below 43.82 with probability 0.999."""
    rng = random.Random(20)
    seen = dict.fromkeys(arrangements(3), 0)
    times = 4000
    for _ in range(times):
        order: list[bool] = []

        def change(index: int, order: list[bool] = order) -> float:
            order.append(True)
            return 0.0  # always better: nothing stops early

        def incumbent(index: int, order: list[bool] = order) -> float:
            order.append(False)
            return 1.0

        assert separate(LOSS, 3, rng, change, incumbent).passed
        seen[tuple(order)] += 1
    expected = times / len(seen)
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 43.82


# --------------------------------------------------------------------------------------------
# Separation: what is drawn, and when it ends


def test_nothing_is_drawn_after_the_first_violation() -> None:
    for values in itertools.permutations(range(6)):
        for labels in arrangements(3):
            series = Series(values)
            outcome = separate(
                LOSS, 3, Arranged(labels), series.side("change"), series.side("incumbent")
            )
            made = len(series.asked)
            assert made == len(outcome.values) + len(outcome.controls)
            assert (
                list(outcome.values)
                == [v for v, mine in zip(values, labels, strict=True) if mine][
                    : len(outcome.values)
                ]
            )
            assert made == first_violation(values, labels)
            for side in ("change", "incumbent"):
                indices = [index for name, index in series.asked if name == side]
                assert indices == list(range(len(indices)))


def first_violation(values: Sequence[float], labels: Labels) -> int:
    """After how many runs some run of the change does not beat some run of the incumbent."""
    runs = list(zip(values, labels, strict=True))
    for made in range(1, len(runs) + 1):
        seen = runs[:made]
        if any(v >= c for v, mine in seen if mine for c, other in seen if not other):
            return made
    return len(runs)


def test_a_tie_is_a_violation() -> None:
    outcome = separated([1.0, 1.0, 0, 0, 0, 0], (True, False, True, False, True, False))
    assert outcome == JudgeResult(False, (1.0,), (1.0,))


def test_a_kept_change_has_all_runs_of_both_sides() -> None:
    outcome = separated([1, 4, 2, 5, 3, 6], (True, False) * 3)
    assert outcome == JudgeResult(True, (1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize("crash_at", range(6))
def test_a_separation_whose_draw_raises_is_abandoned_at_once(crash_at: int) -> None:
    asked = 0

    def drawing(value: float) -> Callable[[int], float]:
        def draw(index: int) -> float:
            nonlocal asked
            asked += 1
            if asked > crash_at:
                raise Abandoned
            return value

        return draw

    with pytest.raises(Abandoned):
        separate(LOSS, 3, random.Random(1), drawing(0.0), drawing(1.0))
    assert asked == crash_at + 1


# --------------------------------------------------------------------------------------------
# The screen: 1.5, 1 and 0.8 sd after one, two and three runs, and the t test


def reference(sd: float = 1.0, runs: int = 8, df: int = 7, metric: Metric = LOSS) -> Reference:
    """An incumbent that scored 0 in every run."""
    return Reference(metric, (0.0,) * runs, sd, df)


def needed(runs: int, controls: int = 8, df: int = 7) -> float:
    """The gain in sd at which the t test ends the screen."""
    return t_quantile(1 - PASS_LEVEL, df) * math.sqrt(1 / runs + 1 / controls)


FIRST, LATER, LAST = DROP_BELOW
ON = 2 * (LATER + 0.005) - FIRST  # a second run, after FIRST, that just keeps a change in
OFF = 2 * (LATER - 0.005) - FIRST


@pytest.mark.parametrize(
    ("scores", "passed", "made"),
    [
        ((-(FIRST - 0.01), -9, -9), False, 1),
        ((0.5, -9, -9), False, 1),  # worse
        ((-FIRST, -OFF, -9), False, 2),
        ((-FIRST, -ON, 0.2), False, 3),  # falls below the third threshold
        ((-FIRST, -ON, -LAST), False, 3),  # above it, and not enough
        ((-FIRST, -FIRST, -FIRST), False, 3),
        ((-(needed(1) - 1e-9), -0.1, -0.1), False, 3),
        ((-(needed(1) + 1e-9), 9, 9), True, 1),
        ((-2.0, 2.0 - 2 * (needed(2) + 1e-9), 9), True, 2),
        ((-1.6, -1.6, 3.2 - 3 * (needed(3) + 1e-9)), True, 3),
    ],
)
def test_screen_thresholds(scores: tuple[float, ...], passed: bool, made: int) -> None:
    outcome = screen(reference(), draws(*scores))
    assert (outcome.passed, len(outcome.values)) == (passed, made)
    assert outcome.values == scores[:made]
    assert outcome.controls == ()


def test_the_constants_of_the_screen_are_the_documented_ones() -> None:
    assert DROP_BELOW == (1.5, 1.0, 0.8)
    assert PASS_LEVEL == 0.02


def test_screen_is_in_units_of_the_noise() -> None:
    assert len(screen(reference(sd=0.01), draws(-0.01 * (FIRST + 0.01), 9)).values) == 2
    assert len(screen(reference(sd=0.01), draws(-0.01 * (FIRST - 0.01), 9)).values) == 1


def test_fewer_runs_or_degrees_of_freedom_need_a_larger_gain() -> None:
    gain = needed(1) + 0.01
    assert screen(reference(), draws(-gain)).passed
    assert not screen(reference(runs=4), draws(-gain, 9.0)).passed
    assert not screen(reference(df=3), draws(-gain, 9.0)).passed


def test_without_noise_any_gain_passes_and_no_gain_is_dropped() -> None:
    assert screen(reference(sd=0.0), draws(-1e-9)).passed
    assert not screen(reference(sd=0.0), draws(0.0)).passed
    assert not screen(reference(sd=0.0), draws(1e-9)).passed


@pytest.mark.parametrize("crash_at", [0, 1, 2])
def test_a_screen_whose_draw_raises_is_abandoned_at_once(crash_at: int) -> None:
    asked = []

    def draw(index: int) -> float:
        asked.append(index)
        if index == crash_at:
            raise Abandoned
        return -1.6

    with pytest.raises(Abandoned):
        screen(reference(), draw)
    assert asked == list(range(crash_at + 1))


def test_screen_lets_one_change_in_forty_through_that_does_nothing() -> None:
    """With the incumbent's true mean and noise known, 0.027 pass and a screen takes 1.06 runs
    (200,000 simulated)."""
    rng = random.Random(4)
    known = reference(runs=10_000, df=10_000)
    outcomes = [screen(known, lambda index: rng.gauss(0, 1)) for _ in range(4000)]
    assert fmean(outcome.passed for outcome in outcomes) == pytest.approx(0.027, abs=0.01)
    assert fmean(len(outcome.values) for outcome in outcomes) == pytest.approx(1.06, abs=0.02)


# --------------------------------------------------------------------------------------------
# Deterministic tasks


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.0,), JudgeResult(False, (0.0,))),  # the same is not better
        ((0.5,), JudgeResult(False, (0.5,))),
        ((-1e-12, -1e-12), JudgeResult(True, (-1e-12, -1e-12))),
        ((-2.0, -2.5), JudgeResult(False, (-2.0, -2.5))),  # better, and not the same twice
        ((-2.0, 1.0), JudgeResult(False, (-2.0, 1.0))),
    ],
)
def test_a_deterministic_keep_is_better_and_the_same_twice(
    scores: tuple[float, ...], expected: JudgeResult
) -> None:
    series = Series(scores)
    assert reproduces(reference(sd=0.0, runs=1, df=0), 0.0, series.side("change")) == expected
    assert [index for _, index in series.asked] == list(range(len(scores)))


@pytest.mark.parametrize(
    ("best", "least", "score", "passed"),
    [
        (2.6342, 2.6e-9, 2.6342 - 1.8e-15, False),
        (2.6342, 2.6e-9, 2.6342 - 1e-8, True),
        (2.6342, 0.0, 2.6342 - 1e-10, True),
        (2.6342, 0.0, 2.6342, False),
        (1.3, 0.1, 1.2, True),  # 1.3 - 1.2 is 0.10000000000000009
        (0.3, 0.1, 0.2, True),  # 0.3 - 0.2 is 0.09999999999999998
        (1e9 + 1, 1.0, 1e9, True),
        (1e9 + 1, 1.0, 1e9 + 1, False),
        (0.0, 0.0, 0.0, False),
        (5.0, 1e-15, 5.0, False),  # less than rounding, and still a tie
        (5.0, -0.1, 5.0, True),  # simpler code may lose 0.1
        (5.0, -0.1, 5.1, True),
        (5.0, -0.1, 5.11, False),
        (math.inf, math.inf, 5.0, True),  # an incumbent that crashes
        (math.inf, 0.1, 5.0, True),
        (math.inf, -0.1, 5.0, True),
    ],
)
def test_a_deterministic_keep_gains_the_least(
    best: float, least: float, score: float, passed: bool
) -> None:
    known = replace(reference(sd=0.0, runs=1, df=0), scores=(best,))
    assert reproduces(known, least, lambda _: score).passed == passed


def test_a_deterministic_task_raises_what_its_draw_raises() -> None:
    def draw(index: int) -> float:
        if index:
            raise Abandoned
        return -1.0

    with pytest.raises(Abandoned):
        reproduces(reference(sd=0.0), 0.0, draw)


# --------------------------------------------------------------------------------------------
# Maximize is minimize in a mirror

SCORES = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


def mirrored(outcome: JudgeResult) -> JudgeResult:
    return JudgeResult(
        outcome.passed, tuple(-v for v in outcome.values), tuple(-v for v in outcome.controls)
    )


@given(
    st.lists(SCORES, min_size=1, max_size=8),
    st.lists(SCORES, min_size=3, max_size=3),
    st.floats(0.001, 1e6),
    st.integers(1, 40),
    st.floats(-1, 1e3),
)
def test_mirror_of_the_single_sided_rules(
    incumbent: list[float], change: list[float], sd: float, df: int, least: float
) -> None:
    down = Reference(LOSS, tuple(incumbent), sd, df)
    up = Reference(ACCURACY, tuple(-v for v in incumbent), sd, df)
    low, high = draws(*change), draws(*(-v for v in change))
    assert screen(up, high, least) == mirrored(screen(down, low, least))
    assert reproduces(up, least, high) == mirrored(reproduces(down, least, low))


@given(
    st.sampled_from([3, 4]).flatmap(
        lambda k: st.tuples(*[st.lists(SCORES, min_size=k, max_size=k)] * 2)
    ),
    st.integers(0, 2**32),
)
def test_mirror_of_the_separation(sides: tuple[list[float], list[float]], seed: int) -> None:
    new, old = sides
    down = separate(LOSS, len(new), random.Random(seed), draws(*new), draws(*old))
    up = separate(
        ACCURACY,
        len(new),
        random.Random(seed),
        draws(*(-v for v in new)),
        draws(*(-v for v in old)),
    )
    assert up == mirrored(down)
    assert down.passed == (max(new) < min(old))


@given(st.lists(SCORES, min_size=2, max_size=8), st.lists(SCORES, min_size=2, max_size=8))
def test_mirror_of_the_interval(new: list[float], old: list[float]) -> None:
    down = difference_interval(LOSS, new, old)
    assert down == difference_interval(ACCURACY, [-v for v in new], [-v for v in old])
    gain, low, high = down
    assert low <= gain <= high
    assert gain == pytest.approx(fmean(old) - fmean(new))


# --------------------------------------------------------------------------------------------
# Noise and intervals


def test_pooled_noise_by_hand() -> None:
    # squares within: 1 + 0 + 1, 4 + 4, none; degrees of freedom: 2 + 1 + 0
    sd, df = pooled_noise([[1, 2, 3], [10, 14], [5], []])
    assert sd == pytest.approx(math.sqrt(10 / 3))
    assert df == 3


@pytest.mark.parametrize("groups", [[], [[]], [[1.0]], [[1.0], [2.0], []]])
def test_pooled_noise_is_unknown_without_two_runs_of_a_commit(groups: list[list[float]]) -> None:
    assert pooled_noise(groups) == (0.0, 0)


@given(
    st.lists(st.lists(st.floats(-100, 100), min_size=2, max_size=8), min_size=1, max_size=5),
    st.lists(st.floats(-100, 100), min_size=5, max_size=5),
)
def test_pooled_noise_does_not_see_the_differences_between_commits(
    groups: list[list[float]], shifts: list[float]
) -> None:
    moved = [[v + by for v in group] for group, by in zip(groups, shifts, strict=False)]
    sd, df = pooled_noise(groups)
    assert pooled_noise(moved) == (pytest.approx(sd, abs=1e-6), df)


def test_difference_interval_by_hand() -> None:
    # means 2 and 6; variances of the means 1/3 and 4/3; Welch's df 2.94, rounded down to 2
    gain, low, high = difference_interval(LOSS, [1, 2, 3], [4, 6, 8])
    half = 4.303 * math.sqrt(5 / 3)
    assert gain == 4
    assert (low, high) == (pytest.approx(4 - half, abs=1e-3), pytest.approx(4 + half, abs=1e-3))


def test_difference_interval_without_spread_is_a_point() -> None:
    assert difference_interval(ACCURACY, [3, 3], [1, 1, 1]) == (2, 2, 2)


def test_difference_interval_covers_the_truth_as_often_as_it_says() -> None:
    """2,000 intervals of six runs against four with unequal spreads: at least 95 %, and not
    absurdly more (the degrees of freedom are rounded down)."""
    rng = random.Random(95)
    covered = 0
    for _ in range(2000):
        new = [rng.gauss(1.0, 1.0) for _ in range(6)]
        old = [rng.gauss(3.0, 2.0) for _ in range(4)]
        _, low, high = difference_interval(LOSS, new, old)
        covered += low <= 2.0 <= high
    assert 0.94 <= covered / 2000 <= 0.985


# --------------------------------------------------------------------------------------------
# Student's t, against the table of every textbook (for example Fisher and Yates, table III)

LEVELS_OF_TABLE = (0.90, 0.95, 0.975, 0.99, 0.995)
TABLE = {
    1: (3.078, 6.314, 12.706, 31.821, 63.657),
    2: (1.886, 2.920, 4.303, 6.965, 9.925),
    3: (1.638, 2.353, 3.182, 4.541, 5.841),
    4: (1.533, 2.132, 2.776, 3.747, 4.604),
    5: (1.476, 2.015, 2.571, 3.365, 4.032),
    6: (1.440, 1.943, 2.447, 3.143, 3.707),
    7: (1.415, 1.895, 2.365, 2.998, 3.499),
    8: (1.397, 1.860, 2.306, 2.896, 3.355),
    9: (1.383, 1.833, 2.262, 2.821, 3.250),
    10: (1.372, 1.812, 2.228, 2.764, 3.169),
    15: (1.341, 1.753, 2.131, 2.602, 2.947),
    20: (1.325, 1.725, 2.086, 2.528, 2.845),
    30: (1.310, 1.697, 2.042, 2.457, 2.750),
    60: (1.296, 1.671, 2.000, 2.390, 2.660),
    120: (1.289, 1.658, 1.980, 2.358, 2.617),
}
ENTRIES = [
    (df, p, t) for df, row in TABLE.items() for p, t in zip(LEVELS_OF_TABLE, row, strict=True)
]


@pytest.mark.parametrize(("df", "p", "t"), ENTRIES)
def test_t_table(df: int, p: float, t: float) -> None:
    assert t_quantile(p, df) == pytest.approx(t, abs=0.0005001)
    assert t_cdf(t, df) == pytest.approx(p, abs=0.0002)


def test_t_of_one_degree_of_freedom_is_cauchy() -> None:
    for t in (0.0, 0.3, 1.0, 40.0):
        assert t_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi)


def test_t_of_many_degrees_of_freedom_is_normal() -> None:
    for t in (0.0, 0.5, 1.0, 1.645, 2.576):
        assert t_cdf(t, 20_000) == pytest.approx((1 + math.erf(t / math.sqrt(2))) / 2, abs=1e-5)


@given(st.floats(0.5, 0.999), st.integers(1, 300))
def test_quantile_inverts_the_distribution(p: float, df: int) -> None:
    t = t_quantile(p, df)
    assert t >= 0
    assert t_cdf(t, df) == pytest.approx(p, abs=1e-9)


@given(st.floats(0, 50), st.floats(0, 50), st.integers(1, 300))
def test_distribution_rises(one: float, other: float, df: int) -> None:
    assume(one < other)
    assert t_cdf(one, df) <= t_cdf(other, df) + 1e-12


@pytest.mark.parametrize("metric", [Metric("m", Goal.MINIMIZE), Metric("m", Goal.MAXIMIZE)])
@pytest.mark.parametrize("k", [3, 4])
def test_a_change_that_is_worse_by_the_whole_margin_is_kept_as_rarely_as_a_null(
    k: int, metric: Metric
) -> None:
    """By enumeration: of all ways to deal 2k values to the two sides, 1 in C(2k, k) is kept when
    the change's values are worse by the margin and the margin is granted."""
    values, margin = [1.0, 2.5, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0][: 2 * k], 10.0
    kept = deals = 0
    for mine in itertools.combinations(range(2 * k), k):
        deals += 1
        new = [metric.worsened(values[i], margin) for i in mine]
        old = [metric.worsened(values[i], margin) for i in range(2 * k) if i not in mine]
        rng = random.Random(1)
        kept += separate(metric, k, rng, new.__getitem__, old.__getitem__).passed
    assert (kept, deals) == (1, math.comb(2 * k, k))


def test_the_screen_holds_a_change_against_an_incumbent_that_is_better_by_the_least_gain() -> None:
    known = reference(sd=0.01)
    assert screen(known, draws(-0.2), least=0.1).passed
    assert not screen(known, draws(-0.05), least=0.1).passed
    assert screen(known, draws(0.05), least=-0.1).passed
    assert not screen(reference(sd=0.0), draws(-1.0), least=1.0).passed
