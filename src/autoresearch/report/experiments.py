"""What `log` and `show` print: plain text about experiments, without a summary of the session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from autoresearch.formatting import (
    clock,
    counted,
    cut,
    dollars,
    duration,
    one_line,
    plain,
    printable,
    short,
    size,
)
from autoresearch.records import Experiment, Metric, Run, Status

if TYPE_CHECKING:  # git, which `log` does not need
    from autoresearch.measure.scratch import ScratchRun

METRIC_WIDTH = 10  # at least
STATUS_STYLES = {Status.KEEP: "green", Status.DISCARD: "", Status.CRASH: "red", None: "cyan"}


def log_text(experiments: Sequence[Experiment], metric: Metric) -> str:
    """What `log` prints, without colours."""
    return "".join(f"{line}\n" for line, _ in list_log(experiments, metric))


def list_log(experiments: Sequence[Experiment], metric: Metric) -> list[tuple[str, str]]:
    """A heading, and a line for each experiment, finished or in flight, each with its style. The
    columns for agents, tokens and dollars are there only if they distinguish experiments."""
    columns: list[tuple[str, str, Callable[[Experiment], str]]] = [
        ("#", ">5", lambda experiment: str(experiment.number)),
        ("commit", "<7", lambda experiment: short(experiment.commit)),
        (*_make_metric_heading(metric), format_metric),
        ("status", "<7", lambda experiment: experiment.status or "open"),
        ("reason", "<16", _format_reason),
    ]
    if len({experiment.agent for experiment in experiments if experiment.number}) > 1:
        columns.append(("agent", "<16", lambda experiment: cut(experiment.agent, 16)))
    if any(experiment.tokens is not None for experiment in experiments):
        columns.append(("tokens", ">10", _format_tokens))
    if any(experiment.usd is not None for experiment in experiments):
        columns.append(("cost", ">7", lambda experiment: dollars(experiment.usd)))
    columns.append(("description", "", lambda experiment: one_line(experiment.description)))
    heading = "  ".join(f"{title:{width}}" for title, width, _ in columns).rstrip()
    lines = [(heading, "dim")]
    for experiment in experiments:
        cells = [f"{cell(experiment):{width}}" for _, width, cell in columns]
        style = "yellow" if experiment.flag else STATUS_STYLES[experiment.status]
        lines.append(("  ".join(cells).rstrip(), style))
    return lines


def scratch_text(scratch: Sequence[ScratchRun], metric: Metric) -> str:
    """A heading and a line for each scratch run."""
    name, width = _make_metric_heading(metric)
    lines = [f"{'scratch':>7}  {'on':>5}  {name:{width}}  {'wall':>8}  {'run':<11}  description"]
    for one in scratch:
        run = one.run
        what = one_line(one.description)
        if run.reason:
            what = f"({describe_result(run)}) {what}"
        lines.append(
            f"{one.number:>7}  {f'#{one.base}':>5}  {format_metric(run):{width}}"
            f"  {duration(run.wall_s):>8}  {run.name:<11}  {what}"
        )
    return "\n".join(line.rstrip() for line in lines) + "\n"


def show_scratch_text(scratch: ScratchRun, diff: str, log_tail: str, metric: Metric) -> str:
    """Everything about one scratch run: what ran, the run, the difference to the incumbent of its
    time, the end of its output."""
    facts = f"scratch {scratch.number}   on #{scratch.base}: {one_line(scratch.description)}"
    return _join_sections(facts, [scratch.run], diff, log_tail, metric)


def _make_metric_heading(metric: Metric) -> tuple[str, str]:
    """The metric's name, and the width and alignment of its column."""
    name = one_line(metric.name)
    return name, f">{max(METRIC_WIDTH, len(name))}"


def format_metric(run: Experiment | Run) -> str:
    """A metric as it was measured, to six digits: "-" if there is none."""
    return "-" if run.metric is None else plain(run.metric)


def _format_reason(experiment: Experiment) -> str:
    return cut(experiment.reason or ("flagged" if experiment.flag else ""), 16)


def _format_tokens(experiment: Experiment) -> str:
    return "" if experiment.tokens is None else f"{experiment.tokens:,}"


def show_text(
    experiment: Experiment, runs: Sequence[Run], diff: str, log_tail: str, metric: Metric
) -> str:
    """Everything about one experiment: what, why, its runs, its diff, the end of its output."""
    facts = "\n".join(f"{label:<10}  {text}" for label, text in list_facts(experiment, metric))
    return _join_sections(facts, runs, diff, log_tail, metric)


def _join_sections(
    facts: str, runs: Sequence[Run], diff: str, log_tail: str, metric: Metric
) -> str:
    sections = [facts, _tabulate(runs, metric)]
    if diff.strip():
        sections.append(printable(diff.rstrip("\n")))
    if log_tail.strip():
        lines = printable(log_tail.rstrip("\n")).split("\n")
        output = [f"    {line}".rstrip() for line in lines]
        sections.append("\n".join(["output, the end of it:", *output]))
    return "\n\n".join(sections) + "\n"


def list_facts(experiment: Experiment, metric: Metric) -> list[tuple[str, str]]:
    """What is known of an experiment, as labels and texts of one line. Unknown facts are left
    out."""
    value = ""
    if experiment.metric is not None:
        value = f", {one_line(metric.name)} {format_metric(experiment)}"
    base = "the baseline" if experiment.number == 0 else f"built on #{experiment.base}"
    if experiment.attempt:
        base += f", begun again {counted(experiment.attempt, 'time')}"
    number = f"#{experiment.number} {short(experiment.commit)}"
    size_of_change = f"+{experiment.added_lines} -{experiment.removed_lines} lines"
    took = ""
    if experiment.ended_at is not None:
        took = duration(experiment.ended_at - experiment.started_at)
    rows = (
        ("experiment", f"{number}, {base}, by {one_line(experiment.agent)}"),
        ("change", f"{one_line(experiment.description)} ({size_of_change})"),
        ("hypothesis", one_line(experiment.hypothesis)),
        ("notes", one_line(experiment.notes)),
        ("verdict", f"{experiment.status}{value}" if experiment.status else "in flight"),
        ("why", ": ".join(map(one_line, filter(None, (experiment.reason, experiment.detail))))),
        ("flagged", one_line(experiment.flag or "")),
        ("started", clock(experiment.started_at)),
        ("took", took),
        ("memory", size(experiment.peak_memory_bytes) if experiment.peak_memory_bytes else ""),
        ("tokens", _format_tokens(experiment)),
        ("cost", dollars(experiment.usd)),
    )
    return [(label, text) for label, text in rows if text]


def _tabulate(runs: Sequence[Run], metric: Metric) -> str:
    if not runs:
        return "no runs"
    name, width = _make_metric_heading(metric)
    lines = [
        f"{'run':<11} {'role':<15} {'commit':<7} {'seed':>10} {name:{width}}"
        f" {'CPU':>8} {'wall':>8} {'memory':>8}  result"
    ]
    for run in runs:
        lines.append(
            f"{run.name:<11} {run.role:<15} {short(run.commit):<7} {run.seed:>10}"
            f" {format_metric(run):{width}} {duration(run.cpu_s):>8}"
            f" {duration(run.wall_s):>8} {size(run.peak_memory_bytes):>8}  {describe_result(run)}"
        )
    return "\n".join(lines)


def describe_result(run: Run) -> str:
    """ "ok", "under way", or why the run crashed."""
    return one_line(run.reason or "ok") if run.finished else "under way"
