"""progress.png, as the original draws it: what was tried, what was kept, how far it came.

Grey dots are discards, green ones keeps; the step line follows the incumbent's kept value, not the
luckiest dot. The picture is framed around baseline and best: what lies far outside is counted in a
corner rather than drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from autoresearch.formatting import Numbers, counted, cut
from autoresearch.records import Experiment, Metric, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN = 0.12  # of the height, above and below
LABEL_WIDTH = 45  # characters, the original's
LABEL_ANGLE = 30  # degrees
LABEL_GAP = 19  # pixels between the lines on which two labels are written
BOUNDARY = "#888888"
GREY, GREEN, LINE, INK = "#cccccc", "#2ecc71", "#27ae60", "#1a7a3a"


def plot(
    experiments: Sequence[Experiment],
    metric: Metric,
    sd: float | None = None,
    segments: Sequence[tuple[int, float | None]] = (),
) -> bytes:
    """The picture as PNG. `experiments` are the finished ones in order, the baseline first; `sd`
    is the noise of one run, where it is known. `segments` are those after the first: the order
    after which one began, and what the incumbent scored in it."""
    # Half a second of import, wanted by few commands.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 8), dpi=150, layout="tight")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    keeps = [one for one in experiments if one.status is Status.KEEP and one.metric is not None]
    discards = [
        one for one in experiments if one.status is Status.DISCARD and one.metric is not None
    ]
    _title(axes, experiments, metric)
    if keeps or discards:
        again = [score for _, score in segments if score is not None]
        low, high = frame([*_values(keeps), *again], _values(discards), sd)
        axes.set_ylim(low, high)
        last = max(_orders(experiments), default=0)
        axes.set_xlim(-0.02 * last - 0.5, 1.02 * last + 0.5)
        inside = [one for one in discards if low <= _value(one) <= high]
        _draw(axes, inside, keeps, last, segments)
        crashes = sum(one.status is Status.CRASH for one in experiments)
        _corner(axes, metric, len(discards) - len(inside), crashes)
        _label(axes, keeps, metric)
    out = io.BytesIO()
    canvas.print_figure(out, format="png", bbox_inches="tight", metadata={"Software": None})
    return out.getvalue()


def frame(
    keeps: Sequence[float], discards: Sequence[float], sd: float | None
) -> tuple[float, float]:
    """The range of the metric worth seeing: from the worst keep (the baseline, as a rule) to the
    best, and what lies within ordinary noise of them, but no outlier."""
    centre = list(keeps) or [median(discards)]
    low, high = min(centre), max(centre)
    margin = max(0.15 * (high - low), 3 * (sd or 0.0))
    if not margin and discards:
        margin = 2 * median(abs(value - centre[0]) for value in discards)
    shown = [value for value in (*centre, *discards) if low - margin <= value <= high + margin]
    room = MARGIN * (max(shown) - min(shown)) or margin or 0.01 * abs(low) or 1.0
    return min(shown) - room, max(shown) + room


def _title(axes: Axes, experiments: Sequence[Experiment], metric: Metric) -> None:
    changes = [one for one in experiments if one.number]
    kept = sum(one.status is Status.KEEP for one in changes)
    axes.set_title(
        f"Autoresearch Progress: {len(changes)} Experiments, {kept} Kept Improvements", fontsize=14
    )
    axes.set_xlabel("Experiment #", fontsize=12)
    axes.set_ylabel(
        f"{_drawable(metric.name)} ({Numbers(metric).direction})", fontsize=12, parse_math=False
    )
    axes.grid(True, alpha=0.2)


def _draw(
    axes: Axes,
    discards: Sequence[Experiment],
    keeps: Sequence[Experiment],
    last: int,
    segments: Sequence[tuple[int, float | None]],
) -> None:
    # A faint dot among hundreds is a cloud; a faint dot among ten is not there.
    alpha = 0.5 if len(discards) > 200 else 0.9
    axes.scatter(
        _orders(discards), _values(discards), c=GREY, s=18, alpha=alpha, zorder=2, label="Discarded"
    )
    axes.scatter(
        _orders(keeps),
        _values(keeps),
        c=GREEN,
        s=50,
        zorder=4,
        label="Kept",
        edgecolors="black",
        linewidths=0.5,
    )
    for after, _ in segments:
        axes.axvline(after + 0.5, color=BOUNDARY, linewidth=0.8, zorder=1)
    again = [(after + 0.5, score) for after, score in segments if score is not None]
    steps = sorted([*zip(_orders(keeps), _values(keeps), strict=True), *again])
    axes.step(
        [*(order for order, _ in steps), last],
        [*(value for _, value in steps), *(value for _, value in steps[-1:])] or [math.nan],
        where="post",
        color=LINE,
        linewidth=2,
        alpha=0.7,
        zorder=3,
        label="Running best",
    )
    if not keeps or _value(keeps[-1]) <= _value(keeps[0]):
        axes.legend(loc="upper right", fontsize=9)
    else:
        axes.legend(loc="lower right", fontsize=9)


def _corner(axes: Axes, metric: Metric, outside: int, crashes: int) -> None:
    """Says what the frame leaves out."""
    said = []
    if outside:
        said.append(f"{counted(outside, 'discard')} outside the frame")
    if crashes:
        said.append(counted(crashes, "crash", "crashes"))
    falls = metric.gain(0.0, 1.0) > 0
    axes.text(
        0.008,
        0.015 if falls else 0.985,
        ", ".join(said),
        transform=axes.transAxes,
        fontsize=9,
        color="#999999",
        va="bottom" if falls else "top",
    )


def _label(axes: Axes, keeps: Sequence[Experiment], metric: Metric) -> None:
    """Names the keeps, away from the line, and leaves out what would be written over another:
    first come the baseline, the best and the largest steps."""
    up = 1 if metric.gain(0.0, 1.0) > 0 else -1
    taken: list[tuple[float, float]] = []
    for one in _by_weight(keeps, metric):
        x, y = axes.transData.transform((one.order or 0, _value(one)))
        slope = up * math.radians(LABEL_ANGLE)
        along = x * math.cos(slope) + y * math.sin(slope)
        across = y * math.cos(slope) - x * math.sin(slope)
        text = _drawable(cut(one.description, LABEL_WIDTH))
        length = 9.5 * len(text)
        if any(
            abs(across - line) < LABEL_GAP and start - length < along < start + 9.5 * LABEL_WIDTH
            for line, start in taken
        ):
            continue
        taken.append((across, along))
        axes.annotate(
            text,
            (one.order or 0, _value(one)),
            textcoords="offset points",
            xytext=(6, 6 * up),
            fontsize=8.0,
            color=INK,
            alpha=0.9,
            rotation=LABEL_ANGLE * up,
            rotation_mode="anchor",
            ha="left",
            va="center",
            family="DejaVu Sans",
            parse_math=False,
        )


def _by_weight(keeps: Sequence[Experiment], metric: Metric) -> list[Experiment]:
    steps = zip(keeps[1:], keeps, strict=False)
    weights = {one.number: metric.gain(_value(one), _value(before)) for one, before in steps}
    ends = {one.number for one in (*keeps[:1], *keeps[-1:])}
    return sorted(keeps, key=lambda one: -math.inf if one.number in ends else -weights[one.number])


def _drawable(text: str) -> str:
    """Characters that the bundled font lacks would be boxes, each with a warning."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return "".join(char if font.get_char_index(ord(char)) else "?" for char in text)


def _orders(experiments: Sequence[Experiment]) -> list[int]:
    return [one.order or 0 for one in experiments]


def _values(experiments: Sequence[Experiment]) -> list[float]:
    return [_value(one) for one in experiments]


def _value(one: Experiment) -> float:
    return math.nan if one.metric is None else one.metric
