"""The lower panel of progress.png: how far the running best was from the best, on a log axis.
After one large keep, the later ones are a flat line in the upper panel; here each is a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from autoresearch.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_STEP = 0.02  # of the frame's height: a smaller step cannot be seen
ROOM = 2.5  # the axis goes beyond the largest and the smallest gap by that factor
NOISE, DOT, KEPT, LINE = "#b0b0b0", "#cccccc", "#2ecc71", "#27ae60"

Step = tuple[float, float]  # (order, value) of the running best


def needs_gap(summary: Summary, steps: Sequence[Step], height: float) -> bool:
    """Whether a later gain cannot be seen in a frame of that height. `steps` are of the running
    best."""
    values = [value for _, value in align(summary, steps)]
    gains = [summary.metric.gain(new, old) for old, new in pairwise(values)]
    return any(0 < gain < LEAST_STEP * height for gain in gains)


def align(summary: Summary, steps: Sequence[Step]) -> list[Step]:
    """The steps on the scale of the last segment: where a segment begins, the best was measured
    again, and what its score moved by is no gain."""
    boundaries = {segment.after_order + 0.5 for segment in summary.segments[1:]}
    aligned: list[Step] = []
    moved = 0.0  # by all later segments together
    for place in reversed(range(len(steps))):
        order, value = steps[place]
        aligned.append((order, value + moved))
        if order in boundaries and place:
            moved += value - steps[place - 1][1]
    return aligned[::-1]


def draw_gap(
    axes: Axes, summary: Summary, steps: Sequence[Step], discards: Sequence[Step], last: float
) -> None:
    """Draw the gap of the running best and of discards to the best, up to the order `last`."""
    aligned = align(summary, steps)
    best = summary.metric.best([value for _, value in aligned])
    gaps = [(order, -summary.metric.gain(value, best)) for order, value in aligned]
    known = [gap for _, gap in gaps if gap > 0]
    floor, top = min(known) / ROOM, max(known) * ROOM
    axes.set_yscale("log")
    axes.set_ylim(floor, top)
    moves = {order: value - raw for (order, value), (_, raw) in zip(aligned, steps, strict=True)}
    below = [
        (order, -summary.metric.gain(value + _find_move(moves, order), best))
        for order, value in discards
    ]
    shown = [(order, gap) for order, gap in below if floor < gap < top]
    axes.scatter(*_split(shown), c=DOT, s=12, zorder=2)
    clipped = [(order, max(gap, floor)) for order, gap in gaps]
    axes.step(
        *_split([*clipped, (last, clipped[-1][1])]), where="post", color=LINE, lw=2, alpha=0.7
    )
    kept = [(order, gap) for order, gap in clipped if order == int(order)]
    axes.scatter(
        *_split(kept), c=KEPT, s=40, zorder=4, edgecolors="black", linewidths=0.5, clip_on=False
    )
    sd = None if summary.deterministic else summary.noise_sd
    if sd and floor < sd < top:
        axes.axhline(sd, color=NOISE, linestyle=":", linewidth=1)
        axes.annotate(
            "sd of one run",
            (1, sd),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            xytext=(-4, 3),
            ha="right",
            fontsize=8,
            color="#888888",
        )


def _find_move(moves: dict[float, float], order: float) -> float:
    """By how much the numbers of an experiment of that order are to be moved."""
    before = [at for at in moves if at <= order]
    return moves[max(before)] if before else 0.0


def _split(points: Sequence[Step]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
