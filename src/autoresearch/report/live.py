"""The live view: a session on one screen of 80 by 24, wider where there is room.

`render` draws a summary and knows nothing else; `LiveView` asks for a fresh one twice a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

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
from autoresearch.records import Status
from autoresearch.report import text
from autoresearch.report.page import outcome
from autoresearch.report.summary import Finished, OpenRun, Summary

REFRESH_PER_SECOND = 2
BAR_WIDTH = 16
AGENTS_SHOWN = 4
OPEN_SHOWN = 4  # runs under way; the others are counted
STYLES = {Status.KEEP: "green", Status.DISCARD: "default", Status.CRASH: "red"}


def render(summary: Summary, running: bool) -> RenderableType:
    """The whole view. Fits the height of the console by showing fewer experiments."""
    return _View(summary, running)


class LiveView(AbstractContextManager["LiveView"]):
    """Shows `read()` until the block ends; `read` is called from a thread of the view's own.

    An `AutoresearchError` of `read` leaves the last picture standing: a view that cannot look must
    not end the night."""

    def __init__(self, read: Callable[[], Summary], console: Console | None = None) -> None:
        self._read = read
        self._latest: RenderableType = Text("starting ...", style="dim")
        self._running = True
        self._live = Live(
            get_renderable=self._frame,
            console=console or Console(),
            refresh_per_second=REFRESH_PER_SECOND,
        )

    def __enter__(self) -> LiveView:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running = False
        self._live.stop()

    def note(self, event: Event) -> None:
        """A listener: the event's line stays above the panel."""
        self._live.console.print(Text(one_line(str(event))))

    def _frame(self) -> RenderableType:
        try:
            self._latest = render(self._read(), self._running)
        except AutoresearchError as error:
            return Group(self._latest, Text(one_line(str(error)), style="red"))
        return self._latest


class _View:
    def __init__(self, summary: Summary, running: bool) -> None:
        self.summary = summary
        self.running = running

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        facts = _facts(self.summary)
        now = _now(self.summary, self.running)
        # Border 2, rules 2, heading of the table 1, and a line for the cursor below.
        room = options.size.height - 6 - facts.row_count - len(now)
        parts: list[RenderableType] = [facts, Rule(style="dim"), *now]
        recent = self.summary.recent[max(0, len(self.summary.recent) - room) :] if room > 0 else ()
        if recent:
            parts += [Rule(style="dim"), _recent(self.summary, recent, options.max_width)]
        yield Panel(
            Group(*parts),
            title=_title(self.summary),
            title_align="left",
            subtitle=_state(self.summary, self.running),
            subtitle_align="right",
            border_style="dim",
            padding=(0, 1),
        )


def _title(summary: Summary) -> Text:
    names = [summary.task, summary.tag, summary.agent]
    return Text(" · ".join(one_line(name) for name in names if name), style="bold not dim")


def _state(summary: Summary, running: bool) -> Text:
    state = "running" if running else one_line(summary.stopped or "not running")
    style = "not dim green" if running else "not dim yellow"
    return Text.assemble((f"{text.spent(summary)} · ", "dim"), (state, style))


def _facts(summary: Summary) -> Table:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for warning in summary.warnings[:2]:
        grid.add_row(Text("warning"), Text(one_line(warning), style="yellow"))
    grid.add_row("best", Text(text.best(summary), style="bold"))
    if summary.baseline is not None:
        found = summary.gain is not None and summary.gain > 0
        grid.add_row("gain", Text(text.gain(summary), style="bold green" if found else ""))
    if summary.verification is not None:
        clear = summary.verification.low > 0
        grid.add_row(
            "verified", Text(text.verified(summary), style="bold green" if clear else "yellow")
        )
    if summary.flagged:
        grid.add_row("flagged", Text(text.flagged(summary), style="yellow"))
    loud = "bold yellow" if summary.deterministic else ""
    grid.add_row("noise", Text(text.noise(summary), style=loud))
    grid.add_row("judged", Text(outcome(summary).rstrip(".")))
    if not summary.deterministic:
        grid.add_row("trust", Text(text.trust(summary)))
    for line in text.shares(summary)[:AGENTS_SHOWN] if len(summary.agents) > 1 else ():
        grid.add_row("agent", Text(line))
    grid.add_row("left", Text(text.left(summary)))
    return grid


def _now(summary: Summary, running: bool) -> list[RenderableType]:
    """Each run under way: the experiment, how far the run is, what it is for."""
    lines = 2 if len(summary.open_runs) == 1 else 1
    if not running or not summary.open_runs:
        said = text.under_way(summary, running) or ["nothing is running"]
        return [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in said]
    shown = [row for run in summary.open_runs[:OPEN_SHOWN] for row in _run(summary, run, lines)]
    more = len(summary.open_runs) - OPEN_SHOWN
    return [*shown, Text(f"and {counted(more, 'run')} more", style="dim")] if more > 0 else shown


def _run(summary: Summary, run: OpenRun, lines: int) -> list[RenderableType]:
    """On two lines with the whole change, on one with the beginning of it."""
    one = text.open_experiment(summary, run.experiment)
    change = Text(one_line(one.description) if one and one.number else "", style="bold")
    change.no_wrap, change.overflow = True, "ellipsis"
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
    progress: list[RenderableType] = [bar, Text(took, style="dim"), Text(text.phase(summary, run))]
    if lines == 1 or not change:
        return [_row([number, *progress, change])]
    return [_row([number, change]), _row(progress)]


def _row(cells: Sequence[RenderableType]) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    for _ in cells[:-1]:
        grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row(*cells)
    return grid


def _recent(summary: Summary, recent: tuple[Finished, ...], width: int) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    in_sd = bool(summary.noise_sd)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("commit", no_wrap=True, style="dim")
    table.add_column(one_line(summary.metric.name), justify="right", no_wrap=True, max_width=14)
    table.add_column("sd" if in_sd else "gain", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("reason", no_wrap=True, overflow="ellipsis", max_width=max(12, width // 6))
    table.add_column("change", ratio=1, no_wrap=True, overflow="ellipsis")
    for one in recent:
        gain = summary.numbers.short(one.gain)
        table.add_row(
            Text(str(one.number)),
            Text(short(one.commit)),
            Text(summary.numbers.value(one.metric)),
            Text(gain, style="green" if (one.gain or 0) > 0 else ""),
            Text(str(one.status), style=STYLES[one.status]),
            Text("flagged", style="yellow")
            if one.flag
            else Text(one_line(one.reason or ""), style="dim"),
            Text(one_line(one.description)),
        )
    return table
