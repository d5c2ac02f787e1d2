"""report.md: the results of a session on one page.

It claims only what was measured again. A gain is the headline when its interval does not include
zero; otherwise the headline says what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autoresearch.formatting import (
    Numbers,
    clock,
    counted,
    cut,
    dollars,
    duration,
    one_line,
    percent,
    short,
)
from autoresearch.records import Experiment, Status
from autoresearch.report.effects import compare_finished
from autoresearch.report.holdout import Gap
from autoresearch.report.machine import describe_trends
from autoresearch.report.summary import Finished, Kept, Summary
from autoresearch.report.verification import Verification

NEAR_MISSES = 5
REASONS = 10  # of crashes; the rarer ones are summed up
DESCRIPTION = 100  # characters


def page(
    summary: Summary,
    experiments: Sequence[Experiment],
    *,
    sandbox: str = "",
    picture: str | None = "progress.png",
) -> str:
    """Draw a summary with `all_keeps` as Markdown. `experiments` are the finished ones in order,
    the baseline first. `sandbox` says in one line what the sandbox cannot do here."""
    starts = [one.after_order for one in summary.segments]
    finished = compare_finished(
        experiments, summary.keeps, summary.metric, summary.noise_sd, starts
    )
    sections = [
        [f"# {_plain(summary.task)}, session {_plain(summary.tag)}"],
        _alarms(summary),
        [headline(summary)],
        _warnings(summary),
        _picture(summary, picture),
        _kept(summary),
        _holdout(summary),
        _near_misses(summary, finished),
        _crashes(finished),
        _trust(summary),
        _machine(summary),
        _costs(summary),
        _agents(summary),
        _take(summary),
        _setting(summary, sandbox),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _alarms(summary: Summary) -> list[str]:
    """Warnings that come before the headline: the gain may not be real."""
    return "\n>\n".join([*_flagged(summary), *_lost_gain(summary)]).splitlines()


def _flagged(summary: Summary) -> list[str]:
    return [
        f"> **Flagged: #{one.number} `{short(one.commit)}` is too good for this session's "
        f"history**: {_plain(one.flag)}. It was kept, and later changes build on it: look at it "
        f"(`autoresearch show {one.number}`) before you believe a gain. It is: "
        f"{_cell(one.description)}"
        for one in summary.flagged
    ]


def _lost_gain(summary: Summary) -> list[str]:
    found = summary.holdout and summary.holdout.gap
    if not found or not found.has_grown:
        return []
    numbers, name = _finer(summary, found), f"`{summary.metric.name}`"
    if found.holdout_gain > 0:
        kept = f"only {numbers.value(found.holdout_gain)} of that"
    else:
        kept = "nothing of that"
    return [
        f"> **Warning: the gain does not all carry over.** Against the baseline the best is "
        f"{numbers.value(found.search_gain)} better on {name} and {kept} on the sealed holdout: "
        f"{_growth(summary, found)}."
    ]


def _finer(summary: Summary, found: Gap) -> Numbers:
    """The gap is known better than a run: most of the noise is in both of its sides."""
    return Numbers(summary.metric, (found.high - found.low) / 2)


def _growth(summary: Summary, found: Gap) -> str:
    """ "the gap between the two has grown by 0.012 (95 % interval +0.010 to +0.014)"."""
    numbers = _finer(summary, found)
    how = f"has {'grown' if found.growth > 0 else 'shrunk'} by {numbers.value(abs(found.growth))}"
    sure = "exactly" if summary.deterministic else _interval(numbers, found.low, found.high)
    return f"the gap between the two {how if found.growth else 'is what it was'} ({sure})"


def _interval(numbers: Numbers, low: float, high: float) -> str:
    return f"95 % interval {numbers.signed(low)} to {numbers.signed(high)}"


def headline(summary: Summary) -> str:
    """The one sentence or two that somebody will quote."""
    name = f"`{summary.metric.name}`"
    tried = counted(summary.finished, "experiment")
    if summary.baseline is None:
        return "**Nothing was measured: there is no baseline yet.**"
    if summary.incumbent is None or summary.incumbent.number == 0:
        return (
            f"**Nothing better was found in {tried}.** "
            f"The baseline stands: {name} {_score(summary, summary.baseline)}."
        )
    if summary.deterministic:
        return _reproduced(summary, summary.baseline, summary.incumbent)
    if summary.verification is not None:
        return _verified(summary, summary.verification)
    goes_on = f"`autoresearch run --tag {summary.tag}` goes on, and measures both again at its end."
    if len(summary.segments) > 1:
        return (
            f"**Not verified: {name} {summary.numbers.gain(summary.gain or 0.0)} after {tried}, "
            f"added up over {len(summary.segments)} segments.** Something changed in between, so "
            f"baseline and best cannot be compared as they were measured. {goes_on}"
        )
    return (
        f"**Not verified: {name} {_score(summary, summary.incumbent)} after {tried}, where the "
        f"baseline had {_score(summary, summary.baseline)}.** Baseline and best were not run side "
        f"by side at the end, so a drift of the machine is part of the difference. {goes_on}"
    )


def _reproduced(summary: Summary, first: Kept, best: Kept) -> str:
    value, share = summary.numbers.value, percent(summary.gain_share)
    amount = summary.numbers.gain(summary.gain or 0.0) + (f", {share}" if share else "")
    if len(summary.segments) > 1:
        return (
            f"**`{summary.metric.name}` {value(best.score)}: {amount} than the baseline, added up "
            f"over {len(summary.segments)} segments.** Deterministic: within each the same code "
            f"gives exactly its number again, so there is no interval."
        )
    return (
        f"**`{summary.metric.name}` {value(first.score)} → {value(best.score)}: {amount}.** "
        f"Deterministic: the same code gives exactly this number again, so there is no interval."
    )


def _verified(summary: Summary, found: Verification) -> str:
    numbers, name = summary.numbers, f"`{summary.metric.name}`"
    means = f"{name} {numbers.value(found.old_mean)} → {numbers.value(found.new_mean)}"
    share = percent(found.gain / abs(found.old_mean)) if found.old_mean else ""
    sides = f"{found.new_runs} fresh runs of the best and {found.old_runs} of the baseline"
    interval = (
        f"95 % interval {numbers.signed(found.low)} to {numbers.signed(found.high)}, "
        f"from {sides}, none of which helped to choose it"
    )
    crashed = f" {counted(found.crashed, 'run')} of them crashed." if found.crashed else ""
    amount = numbers.gain(found.gain) + (f", {share}" if share else "")
    if found.low > 0:
        return f"**{means}: {amount}.** Verified: {interval}.{crashed}"
    if found.high < 0:
        return f"**Not an improvement: {means}, {amount}.** Run again: {interval}.{crashed}"
    return (
        f"**Not established: {means}, {amount}, but the interval includes zero.** "
        f"Run again: {interval}.{crashed}"
    )


def _warnings(summary: Summary) -> list[str]:
    lines = [f"> **Warning:** {_plain(warning)}" for warning in summary.warnings]
    if summary.deterministic:
        lines.append(
            "> **Deterministic:** every run of the same code gives the same number, so changes "
            "were compared exactly and a keep had to reproduce once. Seeds were not varied: "
            "nothing here says how the result carries over to another seed."
        )
    return "\n>\n".join(lines).split("\n") if lines else []


def _picture(summary: Summary, picture: str | None) -> list[str]:
    return [f"![progress]({picture})"] if picture and summary.baseline else []


def _kept(summary: Summary) -> list[str]:
    changes = [one for one in summary.keeps if one.number]
    if not changes:
        return []
    numbers = summary.numbers
    held = (" on the holdout |", "--:|") if summary.holdout else ("", "")
    lines = [
        "## Kept",
        "",
        "Effects are against the one before"
        + (
            "."
            if summary.deterministic
            else ", by runs that did not help to choose either; sd is the standard deviation of "
            "one run."
        ),
        "",
        f"| # | commit | {_cell(summary.metric.name)} | effect | sd | runs |{held[0]} change |",
        f"|--:|:--|--:|--:|--:|--:|{held[1]}:--|",
    ]
    for one in changes:
        effect = "" if one.gain is None else numbers.signed(one.gain)
        in_sd = numbers.in_sd(one.gain or None)
        lines.append(
            f"| {one.number} | `{short(one.commit)}` | {numbers.value(one.kept_at)} | {effect} "
            f"| {in_sd} | {one.runs} |{_held_cell(summary, one)} {_cell(one.description)} |"
        )
    if len(changes) < summary.keep:
        lines += ["", f"These are the latest {len(changes)} of {summary.keep}."]
    return lines


def _held_cell(summary: Summary, one: Kept) -> str:
    """The effect on the sealed holdout, where there is one."""
    if summary.holdout is None:
        return ""
    gain = summary.holdout.gains.get(one.number)
    return f" {'' if gain is None else summary.numbers.signed(gain)} |"


def _holdout(summary: Summary) -> list[str]:
    """The gain on data that decided nothing and that no agent knew of."""
    if summary.holdout is None or summary.incumbent is summary.baseline:
        return []
    numbers, found, gap = summary.numbers, summary.holdout.held_out, summary.holdout.gap
    lines = ["## On the sealed holdout", ""]
    if found is None:
        lines.append("Baseline and best were not run side by side on it: no gain is claimed.")
    else:
        sides = f"{found.new_runs} runs of the best and {found.old_runs} of the baseline"
        exact = "exactly" if summary.deterministic else _interval(numbers, found.low, found.high)
        lines.append(
            f"`{summary.metric.name}` {numbers.value(found.old_mean)} for the baseline, "
            f"{numbers.value(found.new_mean)} for the best: **{numbers.gain(found.gain)}** "
            f"({exact}, from {sides})."
        )
    if gap is not None:
        unsure = gap.low < 0 < gap.high
        seen = ": it cannot be told from none" if unsure else ""
        lines[-1] += f" Where both were measured, {_growth(summary, gap)}{seen}."
    return lines


def _near_misses(summary: Summary, finished: Sequence[Finished]) -> list[str]:
    """Discards that looked better than their incumbent: ideas worth another look."""
    promising = [
        one
        for one in finished
        if one.status is Status.DISCARD and one.gain is not None and one.gain > 0
    ]
    promising.sort(key=lambda one: one.gain or 0.0, reverse=True)
    if not promising:
        return []
    lines = [
        "## Near misses",
        "",
        "Looked better in the screen than the incumbent of their time, but did not hold. A lucky "
        "run looks the same, and these are the luckiest.",
        "",
        "| # | commit | looked | sd | why not | change |",
        "|--:|:--|--:|--:|:--|:--|",
    ]
    for one in promising[:NEAR_MISSES]:
        lines.append(
            f"| {one.number} | `{short(one.commit)}` | {summary.numbers.signed(one.gain)} "
            f"| {summary.numbers.in_sd(one.gain)} | {_cell(one.reason or '')} "
            f"| {_cell(one.description)} |"
        )
    return lines


def _crashes(finished: Sequence[Finished]) -> list[str]:
    crashed = [one for one in finished if one.status is Status.CRASH]
    if not crashed:
        return []
    lines = ["## Crashes", ""]
    reasons = Counter(one.reason or "unknown" for one in crashed)
    for reason, count in reasons.most_common(REASONS):
        examples = [f"#{one.number}" for one in crashed if (one.reason or "unknown") == reason]
        more = ", ..." if len(examples) > 5 else ""
        lines.append(f"- {count} × {_plain(reason)} ({', '.join(examples[:5])}{more})")
    rest = len(crashed) - sum(count for _, count in reasons.most_common(REASONS))
    return lines + ([f"- {rest} × other reasons"] if rest else [])


def _trust(summary: Summary) -> list[str]:
    if summary.baseline is None:
        return []
    lines = ["## How far to trust it", "", f"- {outcome(summary)}"]
    if not summary.deterministic:
        lines += [f"- {false_keeps(summary)}", f"- {_noise(summary)}"]
        lines += [f"- {line}" for line in (_spreads(summary), _drift(summary)) if line]
    return lines


def outcome(summary: Summary) -> str:
    return (
        f"{counted(summary.finished, 'experiment')}: {counted(summary.keep, 'keep')}, "
        f"{counted(summary.discard, 'discard')}, {counted(summary.crash, 'crash', 'crashes')}; "
        f"{counted(summary.fruitless, 'fruitless turn')}."
    )


def false_keeps(summary: Summary) -> str:
    about = " approximately" if summary.level == "fast" else ""
    return (
        f"{counted(summary.confirmations, 'confirmation')} at level `{summary.level}`: at most "
        f"{summary.false_keeps_expected:.2g} false keeps are expected{about} "
        f"({100 * summary.false_keep:.2g} % for each change that does nothing)."
    )


def _noise(summary: Summary) -> str:
    if summary.noise_sd is None:
        return "Noise: not known, too few runs."
    return (
        f"Noise: one run varies by {summary.numbers.value(summary.noise_sd)} (sd, "
        f"{summary.noise_df} degrees of freedom)."
    )


def _spreads(summary: Summary) -> str:
    """Judge rule 3 does not cover a change that only widens the spread, so both are shown."""
    first, best = summary.baseline, summary.incumbent
    if first is None or best is None or first is best:
        return ""
    old, new = first.sd, best.sd
    if summary.verification is not None:
        old, new = summary.verification.old_sd, summary.verification.new_sd
    if old is None or new is None:
        return ""
    value = summary.numbers.value
    return (
        f"Spread (sd): baseline {value(old)}, best {value(new)}. The bound on false keeps does not "
        f"cover a change that leaves the mean and only widens the spread."
    )


def _drift(summary: Summary) -> str:
    found = summary.verification
    if found is None or found.drift is None or found.drift_low is None or found.drift_high is None:
        return ""
    signed = summary.numbers.signed
    text = (
        f"Drift: at the end the unchanged baseline measured {signed(found.drift)} against its "
        f"start (95 % interval {signed(found.drift_low)} to {signed(found.drift_high)})"
    )
    if found.drift_low <= 0 <= found.drift_high:
        return f"{text}: none to be seen."
    return (
        f"{text}: **the machine changed during the session.** The verified gain is not "
        f"touched by it, the effects in the list of keeps may be."
    )


def _machine(summary: Summary) -> list[str]:
    """Whether the machine and all else that runs depend on stayed as they were."""
    said = [] if summary.machine is None else describe_trends(summary.machine)
    later = summary.segments[1:]
    if not said and not later:
        return []
    lines = ["## The machine", *(["", " ".join(said)] if said else [])]
    if later:
        lines += [
            "",
            f"The session has {len(summary.segments)} segments. Nothing was compared across them: "
            "in each the best was measured again, and effects are within the one in which a change "
            "was kept.",
            "",
            f"| segment | began | after | because | best, {_cell(summary.metric.name)} in it |",
            "|--:|:--|--:|:--|--:|",
        ]
    for one in later:
        after = f"{max(0, one.after_order)} experiments"
        best = "" if one.incumbent is None else f"#{one.incumbent} "
        lines.append(
            f"| {one.number} | {clock(one.at)} | {after} | {_cell(one.reason)} "
            f"| {best}{summary.numbers.value(one.score)} |"
        )
    return lines


def _costs(summary: Summary) -> list[str]:
    lines = [
        "## What it cost",
        "",
        f"{counted(summary.runs, 'run')}, {duration(summary.cpu_s)} of CPU time, "
        f"{duration(summary.wall_s)} of running, {duration(summary.elapsed_s)} in all.",
    ]
    if spent := amount(summary.tokens, summary.usd):
        each = cost_of_each(summary)
        lines[-1] += f" The agents took {spent}{': ' if each else ''}{each}."
    if summary.stopped:
        lines[-1] += f" Stopped: {_plain(summary.stopped)}."
    return lines


def cost_of_each(summary: Summary) -> str:
    """What an experiment and a keep cost in tokens and dollars; empty while that is not known."""
    return "; ".join(
        f"{amount(tokens, usd)} {what}"
        for what, tokens, usd in (
            ("an experiment", summary.tokens_per_experiment, summary.usd_per_experiment),
            ("a keep", summary.tokens_per_keep, summary.usd_per_keep),
        )
        if tokens or usd
    )


def amount(tokens: float | None, usd: float | None) -> str:
    """ "1,200 tokens, $0.34", as far as it is known and not nothing."""
    return ", ".join(
        part
        for part in (f"{tokens:,.0f} tokens" if tokens else "", dollars(usd) if usd else "")
        if part
    )


def _agents(summary: Summary) -> list[str]:
    """Who did, earned and cost what."""
    if not summary.agents:
        return []
    numbers = summary.numbers
    lines = [
        "## Agents",
        "",
        "The gain is the sum of an agent's keeps, each over the one it was built on.",
        "",
        "| agent | experiments | keeps | gain | per experiment | tokens | dollars | per dollar |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in summary.agents:
        cells = (
            _cell(one.name),
            str(one.experiments),
            str(one.keeps),
            numbers.signed(one.gain) if one.keeps else "",
            _rate(one.gain_per_experiment) if one.keeps else "",
            f"{one.tokens:,}" if one.tokens is not None else "",
            dollars(one.usd),
            _rate(one.gain_per_usd) if one.keeps else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _rate(gain: float | None) -> str:
    """A gain for something, which the noise of a single run says nothing about."""
    return "" if gain is None else f"{gain:+.2g}"


def _take(summary: Summary) -> list[str]:
    if summary.incumbent is None or summary.incumbent.number == 0:
        return []
    base, branch = short(summary.base_commit), f"autoresearch/{summary.tag}"
    commands = (
        (f"git diff {base}..{branch}", "what changed in all"),
        (f"git merge {branch}", "take everything"),
        ("git cherry-pick COMMIT", "or single keeps, from the list above"),
    )
    width = max(len(command) for command, _ in commands)
    return [
        "## Taking it",
        "",
        f"The best is #{summary.incumbent.number}, commit `{short(summary.incumbent.commit)}`, "
        f"the tip of `{branch}`. Each keep is one commit.",
        "",
        "```sh",
        *(f"{command:<{width}}  # {what}" for command, what in commands),
        "```",
    ]


def _setting(summary: Summary, sandbox: str) -> list[str]:
    budget = (
        f", {summary.budget_s:g} s of {summary.budget_clock} time per run"
        if summary.budget_s is not None
        else ""
    )
    agent = f", agent {_plain(summary.agent)}" if summary.agent else ""
    lines = [
        f"<sub>Started {clock(summary.created_at)}, this page is of {clock(summary.now)}{agent}"
        f"{budget}, judge level `{summary.level}`.</sub>"
    ]
    return lines + (["", f"<sub>Sandbox: {_plain(sandbox)}</sub>"] if sandbox else [])


def _score(summary: Summary, kept: Kept) -> str:
    runs = f" (mean of {counted(kept.runs, 'run')})" if kept.runs > 1 else ""
    return summary.numbers.value(kept.score) + runs


def _plain(text: str) -> str:
    """Escape foreign text, so that it cannot become Markdown or HTML."""
    text = one_line(text)
    for mark in "\\`*[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return text


def _cell(text: str) -> str:
    return _plain(cut(text, DESCRIPTION))
