"""The live view: a session on one screen of 80 by 24, wider where there is room.

`SessionView` draws a summary; `LiveView` asks for a fresh one twice a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from autoresearch.core.events import Event
from autoresearch.errors import AutoresearchError
from autoresearch.formatting import counted, duration, one_line, short
from autoresearch.report import text
from autoresearch.report.experiments import STATUS_STYLES
from autoresearch.report.summary import Finished, OpenRun, Summary

REFRESH_PER_SECOND = 2
BAR_WIDTH = 16
WARNINGS_SHOWN = 2
AGENTS_SHOWN = 4
OPEN_SHOWN = 4  # runs under way; the others are counted


class LiveView:
    """A context manager that shows `read()` until it is left. `read` is called from a thread of the
    view's own. After an `AutoresearchError` of `read` the last picture stays: a view that cannot
    read must not end the session."""

    def __init__(self, read: Callable[[], Summary], console: Console | None = None) -> None:
        self._read = read
        self._latest: RenderableType = Text("starting ...", style="dim")
        self._running = True
        self._live = Live(
            console=console, refresh_per_second=REFRESH_PER_SECOND, get_renderable=self._draw
        )

    def __enter__(self) -> LiveView:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._running = False
        self._live.stop()

    def note(self, event: Event) -> None:
        """A listener: the event's line stays above the panel."""
        self._live.console.print(Text(one_line(str(event))))

    def _draw(self) -> RenderableType:
        try:
            self._latest = SessionView(self._read(), self._running)
        except AutoresearchError as error:
            return Group(self._latest, Text(one_line(str(error)), style="red"))
        return self._latest


@dataclass(frozen=True)
class SessionView:
    """A summary drawn by rich. It shows fewer experiments on a console of less height."""

    summary: Summary
    running: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        summary = self.summary
        facts, now = _draw_facts(summary), _draw_runs(summary, self.running)
        parts: list[RenderableType] = [facts, Rule(style="dim"), *now]
        # Border 2, rules 2, heading of the table 1, and a line for the cursor below.
        room = options.size.height - 6 - facts.row_count - len(now)
        if room > 0 and summary.recent:
            recent = _draw_recent(summary, summary.recent[-room:], options.max_width)
            parts += [Rule(style="dim"), recent]
        names = filter(None, (summary.task, summary.tag, summary.agent))
        state = text.describe_state(summary, self.running)
        style = "not dim green" if self.running else "not dim yellow"
        yield Panel(
            Group(*parts),
            title=Text(" · ".join(map(one_line, names)), style="bold not dim"),
            title_align="left",
            subtitle=Text.assemble((f"{text.describe_spent(summary)} · ", "dim"), (state, style)),
            subtitle_align="right",
            border_style="dim",
            padding=(0, 1),
        )


def _draw_facts(summary: Summary) -> Table:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    styles = text.get_styles(summary)
    warnings = [("warning", one_line(line)) for line in summary.warnings[:WARNINGS_SHOWN]]
    agents = [("agent", line) for line in text.list_shares(summary)[:AGENTS_SHOWN]]
    rows = [*warnings, *text.list_facts(summary), *(agents if len(summary.agents) > 1 else [])]
    for label, line in rows:
        if line:
            grid.add_row(label, Text(line, style=styles.get(label, "")))
    return grid


def _draw_runs(summary: Summary, running: bool) -> list[RenderableType]:
    """Each run under way: the experiment, how far the run is, what it is for."""
    runs = summary.open_runs
    if not running or not runs:
        lines = text.list_open_runs(summary, running) or ["nothing is running"]
        return [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines]
    rows = [row for run in runs[:OPEN_SHOWN] for row in _draw_run(summary, run, len(runs) == 1)]
    if len(runs) > OPEN_SHOWN:
        rows.append(Text(f"and {counted(len(runs) - OPEN_SHOWN, 'run')} more", style="dim"))
    waiting = text.list_waiting(summary)
    return [*rows, *(Text(line, style="dim", no_wrap=True) for line in waiting)]


def _draw_run(summary: Summary, run: OpenRun, is_alone: bool) -> Iterator[RenderableType]:
    """The run on two lines with the whole change if it is alone, else on one with its beginning."""
    experiment = text.find_open_experiment(summary, run.experiment)
    description = one_line(experiment.description) if experiment and experiment.number else ""
    change = Text(description, style="bold", no_wrap=True, overflow="ellipsis")
    number = Text(f"#{run.experiment}", style="bold cyan")
    typical = summary.typical_run_s
    bar = ProgressBar(
        total=typical or 1.0,
        completed=min(run.age_s, typical or 0.0),
        width=BAR_WIDTH,
        complete_style="cyan",
        finished_style="cyan",
    )
    took = duration(run.age_s) + (f" of ~{duration(typical)}" if typical else "")
    phase = Text(text.describe_phase(summary, run))
    progress: list[RenderableType] = [bar, Text(took, style="dim"), phase]
    if is_alone and change:
        yield _make_row([number, change])
        yield _make_row(progress)
    else:
        yield _make_row([number, *progress, change])


def _make_row(cells: Sequence[RenderableType]) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    for _ in cells[:-1]:
        grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row(*cells)
    return grid


def _draw_recent(summary: Summary, recent: Sequence[Finished], width: int) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("commit", no_wrap=True, style="dim")
    table.add_column(one_line(summary.metric.name), justify="right", no_wrap=True, max_width=14)
    table.add_column("sd" if summary.noise_sd else "gain", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("reason", no_wrap=True, overflow="ellipsis", max_width=max(12, width // 6))
    table.add_column("change", ratio=1, no_wrap=True, overflow="ellipsis")
    for experiment in recent:
        reason = Text(one_line(experiment.reason or ""), style="dim")
        table.add_row(
            Text(str(experiment.number)),
            Text(short(experiment.commit)),
            Text(summary.numbers.value(experiment.metric)),
            Text(
                summary.numbers.short(experiment.gain),
                style="green" if (experiment.gain or 0) > 0 else "",
            ),
            Text(str(experiment.status), style=STATUS_STYLES[experiment.status]),
            Text("flagged", style=text.WARNING) if experiment.flag else reason,
            Text(one_line(experiment.description)),
        )
    return table
