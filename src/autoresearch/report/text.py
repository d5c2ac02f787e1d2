"""What `status`, `log` and `show` print: plain text, the same on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autoresearch.core.judge import FRESH_RUNS, LEVELS, SCREEN_RUNS
from autoresearch.formatting import (
    Numbers,
    clock,
    counted,
    cut,
    dollars,
    duration,
    one_line,
    percent,
    printable,
    short,
    size,
)
from autoresearch.records import Experiment, Metric, Role, Run
from autoresearch.report.page import amount, cost_of_each, outcome
from autoresearch.report.summary import OpenExperiment, OpenRun, Summary
from autoresearch.report.verification import Verification

FLAGGED = 8  # flagged keeps named, the latest


def status_text(summary: Summary, running: bool = False) -> str:
    """A dozen lines: where the session stands."""
    lines = [
        (
            "session",
            f"{one_line(summary.tag)} on {one_line(summary.task)}, {_state(summary, running)}",
        ),
        *[("warning", one_line(warning)) for warning in summary.warnings],
        ("best", best(summary)),
        ("gain", gain(summary)),
        ("noise", noise(summary)),
        ("flagged", flagged(summary)),
        ("judged", outcome(summary)),
        ("trust", "" if summary.deterministic else trust(summary)),
        ("verified", verified(summary)),
        ("left", left(summary)),
        ("spent", spent(summary)),
        ("each", cost_of_each(summary)),
        *[("agent", line) for line in shares(summary)],
        *[("now", line) for line in under_way(summary, running)],
    ]
    if summary.fruitless_latest:
        lines.append(("fruitless", f"latest: {cut(summary.fruitless_latest, 200)}"))
    return "\n".join(f"{name:<9}  {text}" for name, text in lines if text) + "\n"


def log_text(experiments: Sequence[Experiment], metric: Metric | None = None) -> str:
    """One line for each experiment, finished or in flight."""
    name = one_line(metric.name) if metric else "metric"
    width = max(10, len(name))
    more = _columns(experiments)
    titles = "".join(f"{title}  " for title, _ in more)
    lines = [
        f"{'#':>5}  {'commit':<7}  {name:>{width}}  {'status':<7}  {'reason':<16}  "
        f"{titles}description"
    ]
    for one in experiments:
        value = "-" if one.metric is None else f"{one.metric:.6g}"
        cells = "".join(f"{cell(one)}  " for _, cell in more)
        lines.append(
            f"{one.number:>5}  {short(one.commit):<7}  {value:>{width}}  "
            f"{one.status or 'open':<7}  {cut(_why(one), 16):<16}  "
            f"{cells}{one_line(one.description)}"
        )
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _why(one: Experiment) -> str:
    return one.reason or ("flagged" if one.flag else "")


def _columns(experiments: Sequence[Experiment]) -> list[tuple[str, Callable[[Experiment], str]]]:
    """Those of the log that are there only when they say something: agent, tokens, dollars."""
    columns: list[tuple[str, Callable[[Experiment], str]]] = []
    if len({one.agent for one in experiments if one.number}) > 1:
        columns.append((f"{'agent':<16}", lambda one: f"{cut(one.agent, 16):<16}"))
    if any(one.tokens is not None for one in experiments):
        columns.append((f"{'tokens':>10}", lambda one: f"{_number(one.tokens):>10}"))
    if any(one.usd is not None for one in experiments):
        columns.append((f"{'cost':>7}", lambda one: f"{dollars(one.usd):>7}"))
    return columns


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def show_text(
    experiment: Experiment,
    runs: Sequence[Run],
    diff: str,
    log_tail: str,
    metric: Metric | None = None,
) -> str:
    """Everything about one experiment: what, why, its runs, its diff, the end of its output."""
    name = one_line(metric.name) if metric else "metric"
    sections = [_facts(experiment, name), _runs(runs, name)]
    if diff.strip():
        sections.append(printable(diff.rstrip("\n")))
    if log_tail.strip():
        sections.append("output, the end of it:\n" + _indented(printable(log_tail.rstrip("\n"))))
    return "\n\n".join(sections) + "\n"


def _facts(one: Experiment, name: str) -> str:
    value = "" if one.metric is None else f", {name} {one.metric:.6g}"
    verdict = "in flight" if one.status is None else f"{one.status}{value}"
    why = ": ".join(one_line(part) for part in (one.reason or "", one.detail) if part)
    built = "the baseline" if one.number == 0 else f"built on #{one.base}"
    if one.attempt:
        built += f", begun again {counted(one.attempt, 'time')}"
    lines = [
        ("experiment", f"#{one.number} {short(one.commit)}, {built}, by {one_line(one.agent)}"),
        ("change", f"{one_line(one.description)} (+{one.added_lines} -{one.removed_lines} lines)"),
        ("hypothesis", one_line(one.hypothesis)),
        ("notes", one_line(one.notes)),
        ("verdict", verdict),
        ("why", why),
        ("flagged", one_line(one.flag or "")),
        ("started", clock(one.started_at)),
        ("took", duration(one.ended_at - one.started_at) if one.ended_at is not None else ""),
        ("memory", size(one.peak_memory_bytes) if one.peak_memory_bytes else ""),
        ("tokens", f"{one.tokens:,}" if one.tokens is not None else ""),
        ("cost", dollars(one.usd)),
    ]
    return "\n".join(f"{label:<10}  {text}" for label, text in lines if text)


def _runs(runs: Sequence[Run], name: str) -> str:
    if not runs:
        return "no runs"
    width = max(10, len(name))
    lines = [
        f"{'run':<11} {'role':<15} {'commit':<7} {'seed':>10} {name:>{width}}"
        f" {'CPU':>8} {'wall':>8} {'memory':>8}  result"
    ]
    for run in runs:
        value = "-" if run.metric is None else f"{run.metric:.6g}"
        result = one_line(run.reason or "ok") if run.finished else "under way"
        lines.append(
            f"{run.name:<11} {run.role:<15} {short(run.commit):<7} {run.seed:>10}"
            f" {value:>{width}} {duration(run.cpu_s):>8} {duration(run.wall_s):>8}"
            f" {size(run.peak_memory_bytes):>8}  {result}"
        )
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.split("\n"))


# --------------------------------------------------------------------------------------------
# Lines that the status and the live view share


def best(summary: Summary) -> str:
    if summary.incumbent is None:
        return "no baseline yet"
    one = summary.incumbent
    runs = f", mean of {counted(one.runs, 'run')}" if one.runs else ""
    what = one_line(one.description) if one.number else "the baseline"
    return (
        f"{one_line(summary.metric.name)} {summary.numbers.value(one.score)}"
        f" (#{one.number} {short(one.commit)}{runs}) {what}"
    )


def gain(summary: Summary) -> str:
    """Of the incumbent over the baseline, by the session's own unselected runs."""
    if summary.baseline is None:
        return ""
    if summary.gain is None:
        return f"none yet, {summary.numbers.direction}"
    parts = [percent(summary.gain_share)]
    if summary.gain_sd is not None:
        parts.append(f"{abs(summary.gain_sd):.1f} sd")
    than = f"than the baseline's {summary.numbers.value(summary.baseline.score)}"
    if len(summary.segments) > 1:
        than = f"than the baseline, added up over {len(summary.segments)} segments"
    return (
        f"{summary.numbers.gain(summary.gain)} ({', '.join(part for part in parts if part)}) {than}"
    )


def noise(summary: Summary) -> str:
    if summary.deterministic:
        return "deterministic: the same code gives the same number, one run decides"
    if summary.noise_sd is None:
        return "not known yet"
    return f"sd {summary.numbers.value(summary.noise_sd)} of one run ({summary.noise_df} df)"


def flagged(summary: Summary) -> str:
    """The keeps that are too good for the session's history."""
    if not summary.flagged:
        return ""
    latest = summary.flagged[-FLAGGED:]
    more = ", ..." if len(latest) < len(summary.flagged) else ""
    shown = ", ".join(f"#{one.number}" for one in reversed(latest)) + more
    return (
        f"{counted(len(summary.flagged), 'keep')} too good to be believed unseen: {shown} "
        f"(autoresearch show {latest[-1].number})"
    )


def trust(summary: Summary) -> str:
    about = "about" if LEVELS[summary.level].cached else "at most"
    bound = f"{about} {summary.false_keeps_expected:.2g}" if summary.confirmations else "no"
    return f"{counted(summary.confirmations, 'confirmation')}, {bound} false keeps expected"


def verified(summary: Summary) -> str:
    found = summary.verification
    return "" if found is None else _verified(summary.numbers, found)


def _verified(numbers: Numbers, found: Verification) -> str:
    return (
        f"{numbers.gain(found.gain)} [{numbers.signed(found.low)}, {numbers.signed(found.high)}]"
        f" on {found.new_runs} and {found.old_runs} fresh runs"
    )


def left(summary: Summary) -> str:
    """Limits and what is left of them."""
    parts = []
    if summary.experiments_left is not None:
        total = summary.limits["experiments"]
        parts.append(f"{summary.experiments_left:,} of {counted(total, 'experiment')}")
    if summary.time_left_s is not None:
        parts.append(f"{duration(summary.time_left_s)} of time")
    if not parts:
        return "no limit on experiments or time"
    if summary.end_in_s and summary.end_in_s != summary.time_left_s:
        parts.append(f"ends in about {duration(summary.end_in_s)}")
    return ", ".join(parts)


def spent(summary: Summary) -> str:
    parts = [counted(summary.runs, "run"), f"CPU {duration(summary.cpu_s)}"]
    parts.append(f"{duration(summary.elapsed_s)} of work")
    parts.append(amount(summary.tokens, summary.usd))
    return ", ".join(part for part in parts if part)


def shares(summary: Summary) -> list[str]:
    """A line for each agent, where there is more than one or costs are known."""
    return [
        ", ".join(
            part
            for part in (
                f"{cut(one.name, 40)}: {counted(one.experiments, 'experiment')}",
                counted(one.keeps, "keep"),
                f"gain {summary.numbers.signed(one.gain)}" if one.keeps else "",
                amount(one.tokens, one.usd),
                f"{one.gain_per_usd:+.2g} a dollar"
                if one.keeps and one.gain_per_usd is not None
                else "",
            )
            if part
        )
        for one in summary.agents
    ]


def under_way(summary: Summary, running: bool) -> list[str]:
    """One line for each run and each idle experiment under way."""
    if not running:
        return [f"{counted(len(summary.open_runs), 'run')} to make again on resume"] * bool(
            summary.open_runs
        )
    lines = []
    for run in summary.open_runs:
        typical = f" of about {duration(summary.typical_run_s)}" if summary.typical_run_s else ""
        one = open_experiment(summary, run.experiment)
        what = f" {cut(one.description, 60)}" if one and one.number else ""
        lines.append(
            f"#{run.experiment} {phase(summary, run)}, {duration(run.age_s)}{typical}{what}"
        )
    return lines or [waiting(summary)]


def waiting(summary: Summary) -> str:
    """What goes on while nothing runs."""
    if summary.open_experiments:
        return f"#{summary.open_experiments[0].number} between runs"
    return (
        f"{one_line(summary.agent) or 'the agent'} is thinking" if summary.baseline else "starting"
    )


def open_experiment(summary: Summary, number: int) -> OpenExperiment | None:
    return next((one for one in summary.open_experiments if one.number == number), None)


def phase(summary: Summary, run: OpenRun) -> str:
    """ "screen, run 1 of at most 3", "confirmation, run 4 of 6"."""
    one = open_experiment(summary, run.experiment)
    if run.role in (Role.CANDIDATE, Role.CONTROL):
        level = LEVELS[summary.level]
        total = level.k if level.cached else 2 * level.k
        done = one.confirming if one else 0
        return f"confirmation, run {min(done + 1, total)} of {total}"
    number = run.index + 1
    return {
        Role.BASELINE: f"baseline, run {number}",
        Role.SCREEN: f"screen, run {number} of at most {max(SCREEN_RUNS, number)}",
        Role.REMEASURE: f"measuring the new best, run {number} of {max(FRESH_RUNS, number)}",
        Role.TOPUP: "measuring the best once more",
        Role.SEGMENT: f"new segment, run {number} of {max(FRESH_RUNS, number)} of the best",
        Role.VERIFY: f"verifying the best, run {number}",
        Role.VERIFY_BASELINE: f"verifying against the baseline, run {number}",
    }[run.role]


def _state(summary: Summary, running: bool) -> str:
    if running:
        return "running"
    return f"stopped: {one_line(summary.stopped)}" if summary.stopped else "not running"
