"""progress.png, as the original draws it: what was tried, what was kept, how far it came.

Grey dots are discards, green ones keeps, red crosses on the axis crashes. The step line follows the
incumbent's kept value, not the luckiest dot. The picture is framed around baseline and best;
outliers are counted in a corner instead of drawn. If late gains are too small to be seen, a lower
panel has them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from autoresearch.formatting import counted, cut
from autoresearch.records import Metric, Status
from autoresearch.report.gap_panel import draw_gap, needs_gap
from autoresearch.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP_SHARE = 0.35  # of the height, for the lower panel
LEGEND_BELOW = 24  # points below the picture, beside the axis' name
MARGIN = 0.12  # of the height, above and below
LABEL_WIDTH = 45  # characters, the original's
LABEL_ANGLE = 30  # degrees
LABEL_GAP = 19  # pixels between the lines on which two labels are written
CHARACTER_WIDTH = 9.5  # pixels
MANY_DOTS = 200  # a faint dot among hundreds is a cloud, a faint dot among ten is invisible
MANY_ELEMENTS = 2_000  # dots of an SVG: more are drawn into it as a picture
BOUNDARY = "#888888"
BOUNDARY_WIDTH = 48  # characters of a segment's name
NAME_GAP = 18  # pixels between two lines that are both named
RED = "#c0392b"
GREY, GREEN, LINE, INK = "#cccccc", "#2ecc71", "#27ae60", "#1a7a3a"


class Dot(NamedTuple):
    order: int
    value: float
    description: str


def plot(summary: Summary) -> bytes:
    """Draw a whole summary as PNG."""
    return _print(_draw_figure(summary), "png", {"Software": None})


def plot_svg(summary: Summary) -> str:
    """Draw it as an `<svg>` element for a page: transparent, with its text as text."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": summary.tag}):
        figure = _draw_figure(summary, (11, 6))  # larger letters, for a page
        figure.patch.set_visible(False)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        data = _print(figure, "svg", {"Date": None, "Creator": None})
    return data[data.index(b"<svg") :].decode()


def _print(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    out = io.BytesIO()
    figure.canvas.print_figure(out, format=kind, bbox_inches="tight", metadata=metadata)
    return out.getvalue()


def _draw_figure(summary: Summary, size: tuple[float, float] = (16, 8)) -> Figure:
    """`size` is in inches."""
    # Half a second of import, wanted by few commands.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keeps, discards = select_dots(summary, Status.KEEP), select_dots(summary, Status.DISCARD)
    low, high = frame_summary(summary) if keeps or discards else (0.0, 1.0)
    steps = list_steps(summary)
    has_gap = needs_gap(summary, steps, high - low)
    width, height = size
    figure = Figure(figsize=(width, height * (1 + GAP_SHARE * has_gap)), dpi=150, layout="tight")
    FigureCanvasAgg(figure)
    ratios = (1, GAP_SHARE)[: 1 + has_gap]
    axes, *lower = figure.subplots(
        len(ratios), sharex=True, squeeze=False, height_ratios=ratios
    ).flat
    axes.set_title(
        f"Autoresearch Progress: {summary.finished} Experiments, {summary.keep} Kept Improvements",
        fontsize=14,
    )
    figure.axes[-1].set_xlabel("Experiment #", fontsize=12)
    name = _replace_missing(summary.metric.name)
    label = f"{name} ({summary.numbers.direction})"
    axes.set_ylabel(label, fontsize=12, parse_math=False)
    for part in figure.axes:
        part.grid(True, alpha=0.2)
        _draw_boundaries(part, summary)
    last = len(summary.recent) - 1
    if keeps or discards:
        axes.set_ylim(low, high)
        axes.set_xlim(-0.02 * last - 0.5, 1.02 * last + 0.5)
        inside = [dot for dot in discards if low <= dot.value <= high]
        _draw(axes, summary, inside, keeps)
        _draw_crashes(axes, summary)
        _write_counts(axes, summary, len(discards) - len(inside))
        _name_boundaries(axes, summary)
        _label(axes, keeps, summary.metric)
        _add_legend(figure.axes[-1], axes)
    for part in lower:
        part.set_ylabel("gap to the best, log", fontsize=12)
        draw_gap(part, summary, steps, [(dot.order, dot.value) for dot in discards], last)
    return figure


def select_dots(summary: Summary, status: Status) -> list[Dot]:
    """The experiments of a whole summary that have this status and a metric."""
    return [
        Dot(order, experiment.metric, experiment.description)
        for order, experiment in enumerate(summary.recent)
        if experiment.status is status and experiment.metric is not None
    ]


def list_steps(summary: Summary) -> list[tuple[float, float]]:
    """Where the running best changes, as (order, value): at keeps, and at the beginnings of
    segments, where the incumbent was measured anew."""
    steps: list[tuple[float, float]] = [
        (dot.order, dot.value) for dot in select_dots(summary, Status.KEEP)
    ]
    for segment in summary.segments[1:]:
        if segment.score is not None:
            steps.append((segment.after_order + 0.5, segment.score))
    return sorted(steps)


def frame_summary(summary: Summary) -> tuple[float, float]:
    """`find_frame` for a whole summary that has a keep or a discard with a metric."""
    discards = [dot.value for dot in select_dots(summary, Status.DISCARD)]
    return find_frame([value for _, value in list_steps(summary)], discards, summary.noise_sd)


def find_frame(
    keeps: Sequence[float], discards: Sequence[float], sd: float | None
) -> tuple[float, float]:
    """The range of the metric worth drawing: from the worst keep (usually the baseline) to the
    best, and what lies within ordinary noise of them, but no outlier."""
    centre = list(keeps) or [median(discards)]
    low, high = min(centre), max(centre)
    margin = max(0.15 * (high - low), 3 * (sd or 0.0))
    if not margin and discards:
        margin = 2 * median(abs(value - centre[0]) for value in discards)
    shown = [value for value in (*centre, *discards) if low - margin <= value <= high + margin]
    room = MARGIN * (max(shown) - min(shown)) or margin or 0.01 * abs(low) or 1.0
    return min(shown) - room, max(shown) + room


def _draw(axes: Axes, summary: Summary, discards: Sequence[Dot], keeps: Sequence[Dot]) -> None:
    orders, values = [dot.order for dot in discards], [dot.value for dot in discards]
    alpha = 0.5 if len(discards) > MANY_DOTS else 0.9
    axes.scatter(
        orders,
        values,
        c=GREY,
        s=18,
        alpha=alpha,
        zorder=2,
        label="Discarded",
        rasterized=len(orders) > MANY_ELEMENTS,
    )
    orders, values = [dot.order for dot in keeps], [dot.value for dot in keeps]
    axes.scatter(
        orders, values, c=GREEN, s=50, zorder=4, label="Kept", edgecolors="black", linewidths=0.5
    )
    steps = list_steps(summary)
    steps.append((len(summary.recent) - 1, steps[-1][1] if steps else math.nan))
    axes.step(
        [order for order, _ in steps],
        [value for _, value in steps],
        where="post",
        color=LINE,
        linewidth=2,
        alpha=0.7,
        zorder=3,
        label="Running best",
    )


def _draw_crashes(axes: Axes, summary: Summary) -> None:
    """A cross on the axis at the number of each crash: it has no metric."""
    orders = [at for at, done in enumerate(summary.recent) if done.status is Status.CRASH]
    if not orders:
        return
    axes.scatter(
        orders,
        [0.0] * len(orders),
        transform=axes.get_xaxis_transform(),
        c=RED,
        s=28,
        marker="x",
        linewidths=1.2,
        zorder=5,
        clip_on=False,
        label=f"Crashed ({len(orders)})",
    )


def _draw_boundaries(axes: Axes, summary: Summary) -> None:
    for segment in summary.segments[1:]:
        axes.axvline(segment.after_order + 0.5, color=BOUNDARY, linewidth=0.8, zorder=1)


def _name_boundaries(axes: Axes, summary: Summary) -> None:
    """Say along each segment's line why it began, where the curve is not. A line that is close to a
    named one goes without."""
    top = summary.metric.better(0.0, 1.0)
    latest = -math.inf
    for segment in summary.segments[1:]:
        at = segment.after_order + 0.5
        x, _ = axes.transData.transform((at, 0.0))
        if x - latest < NAME_GAP:
            continue
        latest = x
        axes.annotate(
            _replace_missing(cut(f"segment {segment.number}: {segment.reason}", BOUNDARY_WIDTH)),
            (at, 0.99 if top else 0.01),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            xytext=(2, 0),
            rotation=90,
            ha="left",
            va="top" if top else "bottom",
            fontsize=8,
            color=BOUNDARY,
            parse_math=False,
        )


def _add_legend(lowest: Axes, axes: Axes) -> None:
    """Below the picture: within it, it would hide something."""
    from matplotlib.transforms import ScaledTranslation

    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    assert figure is not None
    below = ScaledTranslation(0, -LEGEND_BELOW / 72, figure.dpi_scale_trans)
    lowest.legend(
        handles,
        labels,
        loc="upper right",
        bbox_to_anchor=(1.0, 0.0),
        bbox_transform=lowest.transAxes + below,
        ncols=len(labels),
        frameon=False,
        fontsize=9,
        borderaxespad=0.0,
    )


def _write_counts(axes: Axes, summary: Summary, outside: int) -> None:
    """Write into a corner what the frame leaves out."""
    falls = summary.metric.better(0.0, 1.0)
    axes.text(
        0.008,
        0.015 if falls else 0.985,
        f"{counted(outside, 'discard')} outside the frame" if outside else "",
        transform=axes.transAxes,
        fontsize=9,
        color="#999999",
        va="bottom" if falls else "top",
    )


def _label(axes: Axes, keeps: Sequence[Dot], metric: Metric) -> None:
    """Name the keeps, away from the line, the most important first: the baseline, the best and the
    largest steps. A label that would be written over another is left out."""
    steps = [metric.gain(new.value, old.value) for old, new in pairwise(keeps)]
    weights = [math.inf, *steps]
    weights[-1] = math.inf
    up = 1 if metric.better(0.0, 1.0) else -1
    slope = up * math.radians(LABEL_ANGLE)
    taken: list[tuple[float, float]] = []
    for _, dot in sorted(zip(weights, keeps, strict=False), key=lambda pair: -pair[0]):
        x, y = axes.transData.transform((dot.order, dot.value))
        along = x * math.cos(slope) + y * math.sin(slope)
        across = y * math.cos(slope) - x * math.sin(slope)
        text = _replace_missing(cut(dot.description, LABEL_WIDTH))
        if any(
            abs(across - line) < LABEL_GAP
            and -CHARACTER_WIDTH * len(text) < along - start < CHARACTER_WIDTH * LABEL_WIDTH
            for line, start in taken
        ):
            continue
        taken.append((across, along))
        axes.annotate(
            text,
            (dot.order, dot.value),
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


def _replace_missing(text: str) -> str:
    """Characters that the bundled font lacks would be boxes, each with a warning."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return "".join(char if font.get_char_index(ord(char)) else "?" for char in text)
