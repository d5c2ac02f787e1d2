"""How much better each keep and each finished experiment was, compared within segments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from autoresearch.core.judge import SCORE_RUNS
from autoresearch.records import Experiment, Metric, Status
from autoresearch.report.summary import Finished, Kept, derive
from autoresearch.statistics import difference_interval, pooled_noise
from autoresearch.store.rows import segment_of


def score_keeps(
    experiments: Sequence[Experiment],
    known: Mapping[tuple[str, int], Sequence[float]],
    starts: Sequence[int],
    metric: Metric,
) -> tuple[Kept, ...]:
    """Score keeps by their unselected runs (`known`, by commit and segment), each against the keep
    it was built on, if that comes earlier. `starts`: see `segment_of`."""
    runs: dict[str, dict[int, Sequence[float]]] = defaultdict(dict)
    for (commit, segment), values in known.items():
        runs[commit][segment] = values
    keeps: dict[int, Kept] = {}
    for keep in experiments:
        by_segment, segment = runs[keep.commit], segment_of(starts, keep.order or 0)
        last = by_segment[max(by_segment)][-SCORE_RUNS:] if by_segment else ()
        sd, df = pooled_noise(list(by_segment.values()))
        # Between the verdict and the new measurements, the row's own metric is all there is.
        score = fmean(last) if last else keep.metric
        scores = {number: fmean(values[-SCORE_RUNS:]) for number, values in by_segment.items()}
        old = keeps.get(keep.base)
        base = old.score_in(segment) if old else None
        low, high = _bound_gain(metric, by_segment, runs[old.commit] if old else {}, segment)
        keeps[keep.number] = derive(
            Kept,
            keep,
            score=score,
            runs=len(last),
            sd=sd if df else None,
            gain=gain_over(metric, scores.get(segment, score), base),
            low=low,
            high=high,
            segment=segment,
            scores=scores,
        )
    return tuple(keeps.values())


def _bound_gain(
    metric: Metric,
    new: Mapping[int, Sequence[float]],
    old: Mapping[int, Sequence[float]],
    segment: int,
) -> tuple[float | None, float | None]:
    """The 95 % interval of a keep's gain, by the runs that its gain is computed from."""
    ours, theirs = (runs.get(segment, ())[-SCORE_RUNS:] for runs in (new, old))
    if min(len(ours), len(theirs)) < 2:
        return None, None
    return difference_interval(metric, ours, theirs)[1:]


def compare_finished(
    experiments: Sequence[Experiment],
    keeps: Sequence[Kept],
    starts: Sequence[int],
    metric: Metric,
    sd: float | None,
) -> tuple[Finished, ...]:
    """Compare finished experiments with the incumbents of their time, as measured by unselected
    runs of the same segment. The baseline, crashes and experiments without a metric gain None."""
    bases = {keep.number: keep for keep in keeps}
    finished = []
    for experiment in experiments:
        base = bases.get(experiment.base) if experiment.number else None
        segment = segment_of(starts, experiment.order or 0)
        measured = None if experiment.status is Status.CRASH else experiment.metric
        gain = gain_over(metric, measured, base.score_in(segment) if base else None)
        finished.append(derive(Finished, experiment, gain=gain, gain_sd=divide(gain, sd)))
    return tuple(finished)


def gain_over(metric: Metric, new: float | None, old: float | None) -> float | None:
    """`Metric.gain`; None if a side is unknown."""
    return None if new is None or old is None else metric.gain(new, old)


def divide(value: float | None, by: float | None) -> float | None:
    """The quotient; None if a side is unknown or `by` is 0."""
    return value / by if value is not None and by else None
