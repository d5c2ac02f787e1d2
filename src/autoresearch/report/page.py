"""report.md: the results of a session on one page.

It claims only what was measured again. The headline says which of three properties the result has:
it repeats, it holds on the sealed holdout, nothing suspicious was seen (`verification.py`). What is
suspicious comes before the gain.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from autoresearch.formatting import (
    Numbers,
    clock,
    counted,
    cut,
    dollars,
    duration,
    join,
    one_line,
    percent,
    plain,
    printable,
    short,
)
from autoresearch.measure.scratch import ScratchRun, choose_best
from autoresearch.records import Role, Run, Status
from autoresearch.report import text
from autoresearch.report.holdout import Gap
from autoresearch.report.machine import Machine, Trend
from autoresearch.report.summary import Finished, Kept, Summary
from autoresearch.report.tradeoffs import GUARD_FAILED, Tradeoff
from autoresearch.report.verification import Verification

NEAR_MISSES = 5
SCRATCH_RUNS = 5  # the best
FRONT = 20  # experiments of a Pareto front
REASONS = 10  # of crashes and discards; the rarer ones are counted together
EXAMPLES = 5  # of each reason
DIFF_LINES = 120  # shown of one change in report.md
DESCRIPTION, EXAMPLE = 100, 60  # characters
KEPT, CHANGES = "Kept", "The changes"  # headings
LEAST_SD, LEAST_SHARE = 0.5, 0.05  # what a trend changes over the session, to be worth a sentence


@dataclass(frozen=True, slots=True)
class ChangeText:
    """What an agent changed, and why."""

    diff: str
    hypothesis: str
    detail: str  # of the verdict


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report tells and no summary has."""

    sandbox: str = ""  # what it cannot do on this machine, on one line
    changes: Mapping[int, ChangeText] = field(default_factory=dict)  # of the keeps, by number
    command: str = ""  # of a run
    environment: str = ""  # in which the session began
    runs: Sequence[Run] = ()  # that verified the result
    ablation: str = ""  # the best without each change, as `verify --ablate` tells it
    tradeoff: Tradeoff | None = None  # if the task names a second number
    scratch: Sequence[ScratchRun] = ()
    has_hidden: bool = False  # whether the scorer reads files that agents do not see


class Section(NamedTuple):
    heading: str
    text: str  # Markdown


def draw_page(summary: Summary, facts: Facts | None = None) -> str:
    """Draw a whole summary as Markdown."""
    facts = facts or Facts()
    parts = [
        f"# {_escape(summary.task)}, session {_escape(summary.tag)}",
        _quote([*list_alarms(summary), *_list_flagged_diffs(summary, facts)]),
        make_headline(summary),
        _quote(list_warnings(summary)),
        "![progress](progress.png)" if summary.baseline else "",
    ]
    for section in list_sections(summary, facts):
        parts += [f"## {section.heading}" if section.heading else "", section.text]
    return "\n\n".join(filter(None, parts)) + "\n"


def list_alarms(summary: Summary) -> list[str]:
    """What comes before the gain."""
    return [
        *_describe_flagged(summary),
        *_warn_of_gap(summary),
        *_warn_of_uncounted_time(summary),
    ]


def list_sections(summary: Summary, facts: Facts) -> list[Section]:
    """The sections below the headline, without those that have nothing to say."""
    sections = [
        _list_keeps(summary),
        _list_changes(summary, facts),
        _describe_ablation(facts),
        _list_tradeoff(summary, facts.tradeoff),
        _describe_holdout(summary),
        _list_near_misses(summary),
        _list_scratch(summary, facts),
        _list_discards(summary),
        _list_crashes(summary),
        _describe_trust(summary),
        _describe_machine(summary),
        _list_costs(summary),
        _list_agents(summary),
        _list_commands(summary),
        _describe_reproduction(summary, facts),
        _describe_setting(summary, facts.sandbox),
    ]
    return [section for section in sections if section is not None]


def make_headline(summary: Summary) -> str:
    """The one or two sentences that people will quote."""
    if summary.baseline is None or summary.incumbent is None:
        return "**Nothing was measured: there is no baseline yet.**"
    if summary.incumbent.number == 0:
        return (
            f"**Nothing better was found in {counted(summary.finished, 'experiment')}.** The "
            f"baseline stands: `{summary.metric.name}` {_format_score(summary, summary.baseline)}."
        )
    claim, evidence = _claim(summary, summary.baseline, summary.incumbent)
    checks = str(summary.checks or "")
    suspicions = f"Suspicious: {'; '.join(summary.suspicions)}. " if summary.suspicions else ""
    return f"**{suspicions}{claim}.** {checks[:1].upper()}{checks[1:]}. {evidence}"


def make_plain_headline(summary: Summary) -> str:
    """The headline without its Markdown."""
    return make_headline(summary).replace("**", "").replace("`", "")


def _claim(summary: Summary, baseline: Kept, best: Kept) -> tuple[str, str]:
    """The gain, and how it was measured."""
    name, numbers = f"`{summary.metric.name}`", summary.numbers
    tried = counted(summary.finished, "experiment")
    if summary.deterministic:
        return _claim_exact(summary, baseline, best)
    if summary.verification is not None:
        return _claim_repeated(summary, summary.verification)
    go_on = f"`autoresearch run --tag {summary.tag}` goes on, and measures both again at its end."
    if len(summary.segments) > 1:
        return (
            f"Not repeated yet: {name} {numbers.gain(summary.gain or 0.0)} after {tried}, "
            f"added up over {len(summary.segments)} segments",
            f"Something changed in between, so baseline and best cannot be compared as they were "
            f"measured. {go_on}",
        )
    before, after = _format_score(summary, baseline), _format_score(summary, best)
    return (
        f"Not repeated yet: {name} {after} after {tried}, where the baseline had {before}",
        f"Baseline and best were not run side by side at the end, so a drift of the machine is "
        f"part of the difference. {go_on}",
    )


def _claim_exact(summary: Summary, baseline: Kept, best: Kept) -> tuple[str, str]:
    numbers, exact = (
        summary.numbers,
        "the same code gives exactly this number again, so there is no ",
    )
    if (result := summary.verification) is not None:  # both in one segment
        share = result.gain / abs(result.old_mean) if result.old_mean else None
        means = f"{numbers.value(result.old_mean)} → {numbers.value(result.new_mean)}"
        claim = f"{means}: {join(numbers.gain(result.gain), percent(share))}"
    elif len(summary.segments) > 1:
        share_text = f" ({percent(summary.gain_share)})" if summary.gain_share else ""
        claim = f"{numbers.value(best.score)}: {numbers.gain(summary.gain or 0.0)}{share_text}"
        claim += f" than the baseline, added up over {len(summary.segments)} segments"
        exact = f"within a segment {exact}"
    else:
        means = f"{numbers.value(baseline.score)} → {numbers.value(best.score)}"
        claim = f"{means}: {join(numbers.gain(summary.gain or 0.0), percent(summary.gain_share))}"
    return f"`{summary.metric.name}` {claim}", f"Deterministic: {exact}interval."


def _claim_repeated(summary: Summary, result: Verification) -> tuple[str, str]:
    numbers = summary.numbers
    means = f"{numbers.value(result.old_mean)} → {numbers.value(result.new_mean)}"
    share = result.gain / abs(result.old_mean) if result.old_mean else None
    gain = join(numbers.gain(result.gain), percent(share))
    claim = f"`{summary.metric.name}` {means}, {gain}"
    if result.low > 0:
        claim = f"`{summary.metric.name}` {means}: {gain}"
    elif result.high < 0:
        claim = f"Not an improvement: {claim}"
    else:
        claim = f"Not established: {claim}, but the interval includes zero"
    interval = _format_interval(summary, numbers, result.low, result.high)
    crashed = f" {counted(result.crashed, 'run')} of them crashed." if result.crashed else ""
    return (
        claim,
        f"Run again: {interval}, from {result.new_runs} fresh runs of the best and "
        f"{result.old_runs} of the baseline, none of which helped to choose it.{crashed}",
    )


def _describe_flagged(summary: Summary) -> list[str]:
    return [
        f"**Flagged: #{keep.number} `{short(keep.commit)}` is too good for this session's "
        f"history**: {_escape(keep.flag)}. It was kept, and later changes build on it: look at it "
        f"(`autoresearch show {keep.number}`) before you believe a gain. It is: "
        f"{_make_cell(keep.description)}"
        for keep in summary.flagged
    ]


def _warn_of_gap(summary: Summary) -> list[str]:
    """That the gain is larger on the metric than on the sealed holdout."""
    gap = summary.holdout and summary.holdout.gap
    if not gap or not gap.has_grown:
        return []
    value = _gap_numbers(summary, gap).value
    rest = f"only {value(gap.holdout_gain)}" if gap.holdout_gain > 0 else "nothing"
    return [
        f"**Warning: the gain does not all carry over.** Against the baseline the best is "
        f"{value(gap.search_gain)} better on `{summary.metric.name}` and {rest} of that on the "
        f"sealed holdout: {_describe_growth(summary, gap)}."
    ]


def _warn_of_uncounted_time(summary: Summary) -> list[str]:
    """That the best's runs work, or wait, where no CPU time is counted."""
    uncounted = summary.verification and summary.verification.uncounted
    if not uncounted or not uncounted.is_suspicious:
        return []
    return [
        f"**Warning: CPU time may be missing.** In every run of the best, no CPU time was counted "
        f"in {percent(uncounted.best)} of the time or more; in the baseline's runs beside them it "
        f"was at most {percent(uncounted.baseline)}. The budget is CPU time: see what the program "
        f"does in the rest."
    ]


def _gap_numbers(summary: Summary, gap: Gap) -> Numbers:
    """The gap is known better than a run: most of the noise is in both of its sides."""
    return Numbers(summary.metric, (gap.high - gap.low) / 2)


def _describe_growth(summary: Summary, gap: Gap) -> str:
    """ "the gap between the two has grown by 0.012 (95 % interval +0.010 to +0.014)"."""
    numbers = _gap_numbers(summary, gap)
    change = f"has {'grown' if gap.growth > 0 else 'shrunk'} by {numbers.value(abs(gap.growth))}"
    interval = _format_interval(summary, numbers, gap.low, gap.high)
    return f"the gap between the two {change if gap.growth else 'is what it was'} ({interval})"


def _format_interval(summary: Summary, numbers: Numbers, low: float, high: float) -> str:
    if summary.deterministic:
        return "exactly"
    return f"95 % interval {numbers.signed(low)} to {numbers.signed(high)}"


def list_warnings(summary: Summary) -> list[str]:
    warnings = [f"**Warning:** {_escape(warning)}" for warning in summary.warnings]
    if summary.deterministic:
        warnings.append(
            "**Deterministic:** every run of the same code gives the same number, so changes "
            "were compared exactly and a keep had to reproduce once. The runs had different seeds, "
            "which made no difference: nothing here says how the result carries over to other data."
        )
    return warnings


def _list_keeps(summary: Summary) -> Section | None:
    keeps = [keep for keep in summary.keeps if keep.number]
    if not keeps:
        return None
    numbers, holdout = summary.numbers, summary.holdout
    heading, alignment = (" on the holdout |", "--:|") if holdout else ("", "")
    name = _make_cell(summary.metric.name)
    lines = [
        f"| # | commit | {name} | effect | 95 % interval | sd | runs |{heading} change |",
        f"|--:|:--|--:|--:|:--|--:|--:|{alignment}:--|",
    ]
    for keep in keeps:
        held = f" {numbers.signed(holdout.gains.get(keep.number))} |" if holdout else ""
        lines.append(
            f"| {keep.number} | `{short(keep.commit)}` | {numbers.value(keep.score_when_kept)} "
            f"| {numbers.signed(keep.gain)} | {_format_bounds(summary, keep)} "
            f"| {numbers.in_sd(keep.gain or None)} | {keep.runs} "
            f"|{held} {_make_cell(keep.description)} |"
        )
    how = ", by runs that did not help to choose either; sd is the standard deviation of one run"
    basis = f"Effects are against the one before{'' if summary.deterministic else how}."
    return _make_section(KEPT, basis, lines=lines)


def _format_bounds(summary: Summary, keep: Kept) -> str:
    if summary.deterministic or keep.low is None or keep.high is None:
        return ""
    return f"{summary.numbers.signed(keep.low)} to {summary.numbers.signed(keep.high)}"


def _list_changes(summary: Summary, facts: Facts) -> Section | None:
    """Each keep with its reason and its diff."""
    parts = [
        part
        for keep in summary.keeps
        if keep.number in facts.changes
        for part in _describe_change(keep, facts.changes[keep.number])
    ]
    return _make_section(CHANGES, *parts) if parts else None


def _describe_ablation(facts: Facts) -> Section | None:
    if not facts.ablation:
        return None
    return _make_section(
        "Does each change still earn its place?", _fence(printable(facts.ablation), "text")
    )


def _list_tradeoff(summary: Summary, tradeoff: Tradeoff | None) -> Section | None:
    """The experiments that no other beats in both numbers."""
    if tradeoff is None:
        return None
    metric, second = _escape(tradeoff.metric.name), _escape(tradeoff.second.name)
    heading = f"{metric} beside {second}"
    if not tradeoff.points:
        return _make_section(heading, f"No run printed {second}.")
    lines = [f"| # | commit | {metric} | {second} | runs | verdict | change |"]
    lines.append("|--:|:--|--:|--:|--:|:--|:--|")
    for point in tradeoff.points[:FRONT]:
        lines.append(
            f"| {point.number} | `{short(point.commit)}` | {summary.numbers.value(point.metric)} "
            f"| {plain(point.second)} | {point.runs} | {point.status} "
            f"| {_make_cell(point.description)} |"
        )
    more = len(tradeoff.points) - FRONT
    luck = (
        " Discards were measured by their screen alone, and the luckiest of them stand here: "
        "measure one again before you use it."
    )
    luck = "" if summary.deterministic else luck
    return _make_section(
        heading,
        f"{metric} alone decided what was kept; {second} ({tradeoff.second.goal}) decides nothing "
        f"beyond its bounds in [guards]. Of {counted(tradeoff.measured, 'experiment')} with both "
        f"numbers that kept to the guards, no other beats these in both (the Pareto front).{luck}",
        lines=[*lines, *([f"\n{more} more are not shown."] if more > 0 else [])],
    )


def _describe_change(keep: Kept, change: ChangeText) -> list[str]:
    why = f" Why: {_escape(change.hypothesis)}." if change.hypothesis else ""
    verdict = f" Verdict: {_escape(change.detail)}." if change.detail else ""
    return [
        f"**#{keep.number}** {_make_cell(keep.description)}.{why}{verdict}",
        _draw_diff(change.diff, keep.commit),
    ]


def _draw_diff(diff: str, commit: str) -> str:
    lines = printable(diff.rstrip("\n")).split("\n") if diff.strip() else []
    rest = len(lines) - DIFF_LINES
    more = f"\n... {rest:,} more lines: git show {short(commit)}" if rest > 0 else ""
    return _fence("\n".join(lines[:DIFF_LINES]) + more, "diff") if lines else ""


def _list_flagged_diffs(summary: Summary, facts: Facts) -> list[str]:
    return [
        _draw_diff(facts.changes[keep.number].diff, keep.commit)
        for keep in summary.flagged
        if keep.number in facts.changes
    ]


def _describe_holdout(summary: Summary) -> Section | None:
    """The gain on data that decided nothing and that no agent knew of."""
    if summary.holdout is None or summary.incumbent is summary.baseline:
        return None
    numbers, result, gap = summary.numbers, summary.holdout.held_out, summary.holdout.gap
    sentence = "Baseline and best were not run side by side on it: no gain is claimed."
    if result is not None:
        interval = _format_interval(summary, numbers, result.low, result.high)
        sentence = (
            f"`{summary.metric.name}` {numbers.value(result.old_mean)} for the baseline, "
            f"{numbers.value(result.new_mean)} for the best: **{numbers.gain(result.gain)}** "
            f"({interval}, from {result.new_runs} runs of the best and {result.old_runs} of the "
            f"baseline)."
        )
    if gap is not None:
        unsure = ": it cannot be told from none" if gap.low < 0 < gap.high else ""
        sentence += f" Where both were measured, {_describe_growth(summary, gap)}{unsure}."
    return _make_section("On the sealed holdout", sentence)


def _list_near_misses(summary: Summary) -> Section | None:
    """Discards that looked better than their incumbent: ideas worth another look."""
    misses = [
        (experiment.gain, experiment)
        for experiment in summary.recent
        if experiment.status is Status.DISCARD
        and experiment.gain
        and experiment.gain > 0
        and not (experiment.reason or "").startswith(GUARD_FAILED)
    ]
    if not misses:
        return None
    numbers = summary.numbers
    lines = ["| # | commit | looked | sd | why not | change |", "|--:|:--|--:|--:|:--|:--|"]
    for gain, experiment in sorted(misses, key=itemgetter(0), reverse=True)[:NEAR_MISSES]:
        lines.append(
            f"| {experiment.number} | `{short(experiment.commit)}` | {numbers.signed(gain)} "
            f"| {numbers.in_sd(gain)} | {_make_cell(experiment.reason or '')} "
            f"| {_make_cell(experiment.description)} |"
        )
    return _make_section(
        "Near misses",
        "Looked better in the screen than the incumbent of their time, but did not hold. A lucky "
        "run looks the same, and these are the luckiest.",
        lines=lines,
    )


def _list_scratch(summary: Summary, facts: Facts) -> Section | None:
    """The best scratch runs, and how often the agent saw a number of the scorer."""
    if not facts.scratch:
        return None
    runs = counted(len(facts.scratch), "run")
    looks = (
        f"The scorer has hidden files. The agent saw a score of them after each of "
        f"{counted(summary.finished, 'experiment')}, and {len(facts.scratch)} times more here: the "
        f"more often, the better a program can be fitted to them. A sealed holdout shows whether "
        f"it was."
    )
    lines = [
        f"| scratch | on | {_make_cell(summary.metric.name)} | run | what |",
        "|--:|--:|--:|:--|:--|",
    ]
    for scratch in choose_best(facts.scratch, summary.metric, SCRATCH_RUNS):
        lines.append(
            f"| {scratch.number} | #{scratch.base} | {summary.numbers.value(scratch.run.metric)} "
            f"| `{scratch.run.name}` | {_make_cell(scratch.description)} |"
        )
    return _make_section(
        "Scratch runs",
        f"{runs} that the agent asked for beside its experiments. They decided nothing: no keep, "
        f"no score, no noise. Each is one run; the best of them are also the luckiest.",
        looks if facts.has_hidden else "",
        lines=lines if len(lines) > 2 else [],
    )


def _list_discards(summary: Summary) -> Section | None:
    """What did not work, by the reason."""
    lines = _group(summary, Status.DISCARD)
    basis = "By the reason of the verdict; for each the latest, by name."
    return _make_section("What did not work", basis, lines=lines) if lines else None


def _list_crashes(summary: Summary) -> Section | None:
    lines = _group(summary, Status.CRASH)
    doomed = str(summary.doomed) if summary.doomed else ""
    return _make_section("Crashes", doomed, lines=lines) if lines or doomed else None


def _group(summary: Summary, status: Status) -> list[str]:
    """A line for each reason of a status, the most frequent first. A guard is one reason, whatever
    its number was."""
    groups: dict[str, list[Finished]] = defaultdict(list)
    for experiment in summary.recent:
        if experiment.status is status:
            groups[(experiment.reason or "unknown").partition(" = ")[0]].append(experiment)
    reasons = sorted(groups.items(), key=lambda item: len(item[1]), reverse=True)
    lines = []
    for reason, experiments in reasons[:REASONS]:
        latest = [
            f"{_escape(cut(one.description, EXAMPLE))} (#{one.number})"
            for one in reversed(experiments[-EXAMPLES:])
        ]
        more = ", ..." if len(experiments) > EXAMPLES else ""
        lines.append(f"- {len(experiments)} × **{_escape(reason)}**: {', '.join(latest)}{more}")
    if rest := sum(len(experiments) for _, experiments in reasons[REASONS:]):
        lines.append(f"- {rest} × other reasons")
    return lines


def _describe_trust(summary: Summary) -> Section | None:
    if summary.baseline is None:
        return None
    points = [f"{text.describe_outcome(summary)}."]
    if not summary.deterministic:
        points += [
            f"{text.describe_trust(summary)} (level `{summary.level}`: "
            f"{100 * summary.false_keep:.2g} % for each change that does nothing).",
            f"Noise: {text.describe_noise(summary)}.",
            _compare_spreads(summary),
            _describe_drift(summary),
        ]
    return _make_section("How far to trust it", lines=[f"- {point}" for point in points if point])


def _compare_spreads(summary: Summary) -> str:
    """Judge rule 3 does not cover a change that only widens the spread, so both are shown."""
    baseline, best, result = summary.baseline, summary.incumbent, summary.verification
    if baseline is None or best is None or baseline is best:
        return ""
    old, new = (result.old_sd, result.new_sd) if result else (baseline.sd, best.sd)
    if old is None or new is None:
        return ""
    value = summary.numbers.value
    return (
        f"Spread (sd): baseline {value(old)}, best {value(new)}. The bound on false keeps does not "
        f"cover a change that leaves the mean and only widens the spread."
    )


def _describe_drift(summary: Summary) -> str:
    result = summary.verification
    if (
        result is None
        or result.drift is None
        or result.drift_low is None
        or result.drift_high is None
    ):
        return ""
    interval = _format_interval(summary, summary.numbers, result.drift_low, result.drift_high)
    sentence = (
        "Drift: at the end the unchanged baseline measured "
        f"{summary.numbers.signed(result.drift)} against its start ({interval})"
    )
    if result.drift_low <= 0 <= result.drift_high:
        return f"{sentence}: none to be seen."
    return (
        f"{sentence}: **the machine changed during the session.** The gain measured at the "
        f"end is not touched by it, the effects in the list of keeps may be."
    )


def _describe_machine(summary: Summary) -> Section | None:
    """Whether the machine and all else that runs depend on stayed as they were."""
    trends = "" if summary.machine is None else describe_trends(summary.machine)
    later = summary.segments[1:]
    if not later:
        return _make_section("The machine", trends) if trends else None
    lines = [
        f"| segment | began | after | because | best, {_make_cell(summary.metric.name)} in it |",
        "|--:|:--|--:|:--|--:|",
    ]
    for segment in later:
        best = "" if segment.incumbent is None else f"#{segment.incumbent} "
        lines.append(
            f"| {segment.number} | {clock(segment.at)} | {max(0, segment.after_order)} experiments "
            f"| {_make_cell(segment.reason)} | {best}{summary.numbers.value(segment.score)} |"
        )
    return _make_section(
        "The machine",
        trends,
        f"The session has {len(summary.segments)} segments. Nothing was compared across them: in "
        "each the best was measured again, and effects are within the one in which a change was "
        "kept.",
        lines=lines,
    )


def describe_trends(machine: Machine) -> str:
    """Sentences about each clear trend, or one that says that there is none."""
    sentences, is_slower = [], False
    if (trend := machine.metric) and trend.is_clear(LEAST_SD):
        direction = "better" if trend.slope > 0 else "worse"
        is_slower = trend.slope < 0
        sentences.append(
            f"The same code became {direction} by {abs(trend.slope):.2g} sd an hour "
            f"({_format_trend_interval(trend, 1, '')})."
        )
    for time, trend in (("wall time", machine.wall), ("CPU time", machine.cpu)):
        if trend and trend.is_clear(LEAST_SHARE):
            direction = "more" if trend.slope > 0 else "less"
            is_slower = is_slower or trend.slope > 0
            sentences.append(
                f"The same code took {abs(100 * trend.slope):.2g} % {direction} {time} a run with "
                f"every hour ({_format_trend_interval(trend, 100, ' %')})."
            )
    if not sentences:
        return f"It stood still, as far as {machine.runs} runs of incumbents tell."
    slower = "It throttled, or something else was at work on it."
    return " ".join([*sentences, slower if is_slower else "What slowed it before has ended."])


def _format_trend_interval(trend: Trend, scale: float, unit: str) -> str:
    return f"99 % interval {scale * trend.low:+.2g}{unit} to {scale * trend.high:+.2g}{unit}"


def _list_costs(summary: Summary) -> Section | None:
    sentence = (
        f"{counted(summary.runs, 'run')}, {duration(summary.cpu_s)} of CPU time, "
        f"{duration(summary.wall_s)} of running, {duration(summary.elapsed_s)} in all."
    )
    if spent := text.format_costs(summary.tokens, summary.usd):
        each = text.describe_cost_of_each(summary)
        sentence += f" The agents took {spent}{': ' if each else ''}{each}."
    if summary.stopped:
        sentence += f" Stopped: {_escape(summary.stopped)}."
    return _make_section("What it cost", sentence)


def _list_agents(summary: Summary) -> Section | None:
    """What each agent did, earned and cost."""
    if not summary.agents:
        return None
    lines = [
        "| agent | experiments | keeps | gain | per experiment | tokens | dollars | per dollar |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for share in summary.agents:
        cells = (
            _make_cell(share.name),
            str(share.experiments),
            str(share.keeps),
            summary.numbers.signed(share.gain) if share.keeps else "",
            _format_rate(share.gain_per_experiment) if share.keeps else "",
            f"{share.tokens:,}" if share.tokens is not None else "",
            dollars(share.usd),
            _format_rate(share.gain_per_usd) if share.keeps else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    basis = "The gain is the sum of an agent's keeps, each over the one it was built on."
    return _make_section("Agents", basis, lines=lines)


def _format_rate(gain: float | None) -> str:
    """A gain for something, whose decimals the noise of a single run does not determine."""
    return "" if gain is None else f"{gain:+.2g}"


def _list_commands(summary: Summary) -> Section | None:
    if summary.incumbent is None or summary.incumbent.number == 0:
        return None
    base, branch = short(summary.base_commit), f"autoresearch/{summary.tag}"
    commands = (
        (f"git diff {base}..{branch}", "what changed in all"),
        (f"autoresearch finish --tag {summary.tag}", "a clean branch, one commit of yours each"),
        (f"git merge {branch}-final", "take it"),
    )
    width = max(len(command) for command, _ in commands)
    lines = [f"{command:<{width}}  # {effect}" for command, effect in commands]
    return _make_section(
        "Taking it",
        f"The best is #{summary.incumbent.number}, commit `{short(summary.incumbent.commit)}`, "
        f"the tip of `{branch}`. Each keep is one commit.",
        lines=["```sh", *lines, "```"],
    )


def _describe_reproduction(summary: Summary, facts: Facts) -> Section | None:
    """The command of a run, and the seeds and numbers of the runs that verified the result."""
    if summary.incumbent is None or not facts.command:
        return None
    best = summary.incumbent
    budget = "" if summary.budget_s is None else f"AUTORESEARCH_BUDGET={summary.budget_s:g} "
    is_best = [run.commit == best.commit for run in facts.runs]
    seed = facts.runs[is_best.index(True)].seed if any(is_best) else 1
    commands = [
        f"git worktree add ../reproduce {short(best.commit)}",
        "cd ../reproduce",
        f"AUTORESEARCH_SEED={seed} {budget}{one_line(facts.command)}",
    ]
    lines = []
    if facts.runs:
        name = _make_cell(summary.metric.name)
        lines = [f"| commit | experiment | seed | {name} |", "|:--|:--|--:|--:|"]
    for run in sorted(facts.runs, key=lambda run: run.role is not Role.VERIFY):
        which = f"#{best.number}" if run.role is Role.VERIFY else "baseline"
        value = "crashed" if run.metric is None else f"{run.metric:.9g}"
        lines.append(f"| `{short(run.commit)}` | {which} | {run.seed} | {value} |")
    where = f"The session began with {_escape(facts.environment)}." if facts.environment else ""
    verified = "The runs that verified the result:" if lines else ""
    return _make_section(
        "How to reproduce it", where, _fence("\n".join(commands), "sh"), verified, lines=lines
    )


def _describe_setting(summary: Summary, sandbox: str) -> Section:
    agent = f", agent {_escape(summary.agent)}" if summary.agent else ""
    budget = ""
    if summary.budget_s is not None:
        budget = f", {summary.budget_s:g} s of {summary.budget_clock} time per run"
    sentence = (
        f"Started {clock(summary.created_at)}, this page is of {clock(summary.now)}{agent}"
        f"{budget}, judge level `{summary.level}`."
    )
    return _make_section(
        "The setting", sentence, f"Sandbox: {_escape(sandbox)}." if sandbox else ""
    )


def _make_section(heading: str, *paragraphs: str, lines: Iterable[str] = ()) -> Section:
    """A heading, paragraphs, and the lines of a list or a table. Empty parts are left out."""
    return Section(heading, "\n\n".join(filter(None, [*paragraphs, "\n".join(lines)])))


def _quote(paragraphs: Sequence[str]) -> str:
    lines = "\n\n".join(paragraphs).split("\n") if paragraphs else []
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _fence(code: str, language: str) -> str:
    """A block of code that nothing in it can end."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}{language}\n{code}\n{marks}"


def _format_score(summary: Summary, kept: Kept) -> str:
    runs = f" (mean of {counted(kept.runs, 'run')})" if kept.runs > 1 else ""
    return summary.numbers.value(kept.score) + runs


def _escape(foreign: str) -> str:
    """Escape foreign text, so that it cannot become Markdown or HTML."""
    line = one_line(foreign)
    for mark in "\\`*[]<>|":
        line = line.replace(mark, f"\\{mark}")
    return line


def _make_cell(foreign: str) -> str:
    return _escape(cut(foreign, DESCRIPTION))
