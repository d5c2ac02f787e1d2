"""What `status` prints, and the sentences about a session that it shares with other views."""

from __future__ import annotations

from autoresearch.core.judge import FRESH_RUNS, LEVELS, SCREEN_RUNS
from autoresearch.formatting import (
    counted,
    cut,
    dollars,
    duration,
    join,
    one_line,
    percent,
    short,
)
from autoresearch.records import Role
from autoresearch.report.summary import Kept, OpenExperiment, OpenRun, Summary
from autoresearch.store.requests import PAUSE_ASKED

GAIN, WARNING = "bold green", "yellow"  # styles, in words that rich and the CLI know


def status_text(summary: Summary, running: bool = False) -> str:
    """A dozen lines: where the session stands."""
    lines = list_status(summary, running)
    return "".join(f"{label:<9}  {text}\n" for label, text in lines)


def get_styles(summary: Summary) -> dict[str, str]:
    """The style of each line of `list_status`, by label."""
    checks = summary.checks
    return {
        "warning": WARNING,
        "suspicion": WARNING,
        "best": "bold",
        "gain": GAIN if summary.gain is not None and summary.gain > 0 else "",
        "repeated": GAIN if checks is not None and checks.repeats is True else WARNING,
        "checks": GAIN if checks is not None and checks.is_good else "",
        "noise": "bold yellow" if summary.deterministic else "",
        "now": "cyan",
    }


def list_status(summary: Summary, running: bool = False) -> list[tuple[str, str]]:
    """The lines of `status`: label and text."""
    state = describe_state(summary, running)
    lines = [
        ("session", f"{one_line(summary.tag)} on {one_line(summary.task)}, {state}"),
        *[("warning", one_line(warning)) for warning in summary.warnings],
        *list_facts(summary),
        ("spent", describe_spent(summary)),
        ("each", describe_cost_of_each(summary)),
        *[("agent", line) for line in list_shares(summary)],
        *[("now", line) for line in list_open_runs(summary, running)],
    ]
    if summary.fruitless_latest:
        lines.append(("fruitless", f"latest: {cut(summary.fruitless_latest, 200)}"))
    return [(label, text) for label, text in lines if text]


def describe_state(summary: Summary, running: bool) -> str:
    """ "running", "running, asked to pause", "stopped: ...", "not running"."""
    if running:
        return join("running", summary.request)
    return f"stopped: {one_line(summary.stopped)}" if summary.stopped else "not running"


def list_facts(summary: Summary) -> list[tuple[str, str]]:
    """The lines of `status` and the live view: label and text, which may be empty."""
    return [
        *[("suspicion", line) for line in summary.suspicions],
        ("best", _describe_best(summary)),
        ("gain", describe_gain(summary)),
        ("repeated", _describe_verification(summary)),
        ("checks", str(summary.checks or "")),
        ("noise", describe_noise(summary)),
        ("judged", describe_outcome(summary)),
        ("trust", "" if summary.deterministic else describe_trust(summary)),
        ("left", describe_left(summary)),
    ]


def _describe_best(summary: Summary) -> str:
    keep = summary.incumbent
    if keep is None:
        return "no baseline yet"
    runs = f", mean of {counted(keep.runs, 'run')}" if keep.runs else ""
    change = one_line(keep.description) if keep.number else "the baseline"
    return (
        f"{one_line(summary.metric.name)} {summary.numbers.value(keep.score)}"
        f" (#{keep.number} {short(keep.commit)}{runs}) {change}"
    )


def describe_gain(summary: Summary) -> str:
    """The incumbent's gain over the baseline, by the session's own unselected runs."""
    if summary.baseline is None:
        return ""
    if summary.gain is None:
        return f"none yet, {summary.numbers.direction}"
    in_sd = "" if summary.gain_sd is None else f"{abs(summary.gain_sd):.1f} sd"
    size = join(percent(summary.gain_share), in_sd)
    than = f"than the baseline's {summary.numbers.value(summary.baseline.score)}"
    if len(summary.segments) > 1:
        than = f"than the baseline, added up over {len(summary.segments)} segments"
    return f"{summary.numbers.gain(summary.gain)}{size and f' ({size})'} {than}"


def describe_effect(summary: Summary, keep: Kept) -> str:
    """ "val_bpb 1.5646 → 1.5227: 0.0419 better than experiment 3 (95 % interval +0.0301 to
    +0.0537)": a keep against the one it was built on."""
    numbers = summary.numbers
    base = next((old for old in summary.keeps if old.number == keep.base), None)
    than = "the baseline" if keep.base == 0 else f"experiment {keep.base}"
    if keep.gain is None:
        return f"{one_line(summary.metric.name)} {numbers.value(keep.score_when_kept)}"
    before = base.score_in(keep.segment) if base else None
    interval = ""
    if summary.deterministic:
        interval = " (exactly)"
    elif keep.low is not None and keep.high is not None:
        interval = f" (95 % interval {numbers.signed(keep.low)} to {numbers.signed(keep.high)})"
    return (
        f"{one_line(summary.metric.name)} {numbers.value(before)} → "
        f"{numbers.value(keep.score_in(keep.segment))}: {numbers.gain(keep.gain)} than {than}"
        f"{interval}"
    )


def _describe_verification(summary: Summary) -> str:
    result, numbers = summary.verification, summary.numbers
    if result is None:
        return ""
    return (
        f"{numbers.gain(result.gain)} [{numbers.signed(result.low)}, {numbers.signed(result.high)}]"
        f" on {result.new_runs} and {result.old_runs} fresh runs"
    )


def describe_noise(summary: Summary) -> str:
    if summary.deterministic:
        return "deterministic: the same code gives the same number, one run decides"
    if summary.noise_sd is None:
        return "not known yet"
    return f"sd {summary.numbers.value(summary.noise_sd)} of one run ({summary.noise_df} df)"


def describe_outcome(summary: Summary) -> str:
    return (
        f"{counted(summary.finished, 'experiment')}: {counted(summary.keep, 'keep')}, "
        f"{counted(summary.discard, 'discard')}, {counted(summary.crash, 'crash', 'crashes')}; "
        f"{counted(summary.fruitless, 'fruitless turn')}"
    )


def describe_trust(summary: Summary) -> str:
    bound = f"at most {summary.false_keeps_expected:.2g}" if summary.confirmations else "no"
    return f"{counted(summary.confirmations, 'confirmation')}, {bound} false keeps expected"


def describe_left(summary: Summary) -> str:
    """Limits and what is left of them."""
    experiments_left, time_left = "", ""
    if summary.experiments_left is not None:
        total = counted(summary.limits["experiments"], "experiment")
        experiments_left = f"{summary.experiments_left:,} of {total}"
    if summary.time_left_s is not None:
        time_left = f"{duration(summary.time_left_s)} of time"
    if not experiments_left and not time_left:
        return "no limit on experiments or time"
    ends = summary.end_in_s and summary.end_in_s != summary.time_left_s
    end = f"ends in about {duration(summary.end_in_s)}" if ends else ""
    return join(experiments_left, time_left, end)


def describe_spent(summary: Summary) -> str:
    return join(
        counted(summary.runs, "run"),
        f"CPU {duration(summary.cpu_s)}",
        f"{duration(summary.elapsed_s)} of work",
        format_costs(summary.tokens, summary.usd),
    )


def describe_cost_of_each(summary: Summary) -> str:
    """What an experiment and a keep cost in tokens and dollars; empty while that is not known."""
    each = format_costs(summary.tokens_per_experiment, summary.usd_per_experiment)
    keep = format_costs(summary.tokens_per_keep, summary.usd_per_keep)
    return (f"{each} an experiment" if each else "") + (f"; {keep} a keep" if keep else "")


def format_costs(tokens: float | None, usd: float | None) -> str:
    """ "1,200 tokens, $0.34"; a part that is not known, or zero, is left out."""
    return join(f"{tokens:,.0f} tokens" if tokens else "", dollars(usd) if usd else "")


def list_shares(summary: Summary) -> list[str]:
    """A line for each agent, if there is more than one or costs are known."""
    return [
        join(
            f"{cut(share.name, 40)}: {counted(share.experiments, 'experiment')}",
            counted(share.keeps, "keep"),
            f"gain {summary.numbers.signed(share.gain)}" if share.keeps else "",
            format_costs(share.tokens, share.usd),
            f"{share.gain_per_usd:+.2g} a dollar"
            if share.keeps and share.gain_per_usd is not None
            else "",
        )
        for share in summary.agents
    ]


def list_open_runs(summary: Summary, running: bool) -> list[str]:
    """One line for each run under way, or one that says what the session waits for."""
    runs = summary.open_runs
    waiting = list_waiting(summary)
    if not running:
        again = [f"{counted(len(runs), 'run')} to make again on resume"] if runs else []
        return [*again, *waiting]
    lines = []
    for run in runs:
        typical = f" of about {duration(summary.typical_run_s)}" if summary.typical_run_s else ""
        experiment = find_open_experiment(summary, run.experiment)
        change = f" {cut(experiment.description, 60)}" if experiment and experiment.number else ""
        phase = describe_phase(summary, run)
        lines.append(f"#{run.experiment} {phase}, {duration(run.age_s)}{typical}{change}")
    begun = [row for row in summary.open_experiments if row.runs_done]
    if not lines and not begun and summary.request == PAUSE_ASKED:
        lines = ["paused; `autoresearch resume` goes on"]
    elif not lines and begun:
        lines = [f"#{begun[0].number} between runs"]
    elif not lines and summary.baseline and not waiting:
        lines = [f"{one_line(summary.agent) or 'the agent'} is thinking"]
    return [*lines, *waiting] or ["starting"]


def list_waiting(summary: Summary) -> list[str]:
    """One line for each change that was proposed and has no run yet."""
    running = {run.experiment for run in summary.open_runs}
    return [
        f"#{row.number} waits to be measured {cut(row.description, 60)}"
        for row in summary.open_experiments
        if row.number and not row.runs_done and row.number not in running
    ]


def find_open_experiment(summary: Summary, number: int) -> OpenExperiment | None:
    experiments = (row for row in summary.open_experiments if row.number == number)
    return next(experiments, None)


def describe_phase(summary: Summary, run: OpenRun) -> str:
    """ "screen, run 1 of at most 3", "confirmation, run 4 of 6"."""
    if run.role in (Role.CANDIDATE, Role.CONTROL):
        total = 2 * LEVELS[summary.level].k
        experiment = find_open_experiment(summary, run.experiment)
        done = experiment.confirming if experiment else 0
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
        Role.ABLATION: f"leaving out one change after the other, run {number}",
        Role.REDUCED: f"verifying the best without some of its changes, run {number}",
        Role.SCRATCH: f"scratch run {run.index}",
    }[run.role]
