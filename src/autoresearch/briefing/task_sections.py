"""Sections on where the session stands: the objective, the rules, how a change is judged, the
incumbent, and what is left of the limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoresearch.briefing.facts import Facts
from autoresearch.briefing.fitting import BYTES_PER_TOKEN, Section, shorten
from autoresearch.core.judge import DROP_BELOW, LEVELS
from autoresearch.formatting import counted, duration, percent, printable

WRAP = 300  # characters of a line of the objective, so that it can be cut between lines
CHANCES = {
    "fast": (10, 50, 85),
    "default": (5, 40, 80),
    "strict": (5, 30, 75),
}
"""Per cent of the changes that are truly 1, 2 and 3 sd better that get through screen and
separation: a simulation with the judge's own code, in `tests/briefing/test_briefing.py`."""


def describe_objective(facts: Facts, limit_tokens: int) -> Section:
    text, path = facts.task.objective_text.strip(), facts.task.objective
    head = printable(text[: limit_tokens * BYTES_PER_TOKEN])
    is_in_file = path not in ("", facts.task.objective_text)
    rest = f"; the rest is in {shorten(path, 80)}" if is_in_file else ""
    more = f"(the objective is cut here: it has {len(text):,} characters in all{rest})"
    lines = [
        line[at : at + WRAP]
        for line in map(str.rstrip, _demote_headings(head.split("\n")))
        for at in range(0, len(line) or 1, WRAP)
    ]
    return Section(
        "Objective",
        lines,
        share=0.25,
        rank=1,
        drops_end=True,
        intro=[more.replace("here", "below")] if len(head) < len(text) else [],
        more=more.replace("{", "("),
    )


def _demote_headings(lines: Sequence[str]) -> Iterator[str]:
    """Put headings two levels below ours; code between fences stays as it is."""
    is_code = False
    for line in lines:
        is_code ^= line.lstrip().startswith("```")
        yield f"##{line}" if line.startswith("#") and not is_code else line


def describe_rules(facts: Facts) -> Section:
    task = facts.task
    scorer = f" (by the frozen command `{shorten(task.score.command, 80)}`)" if task.score else ""
    lines = [
        f"- Edit only: {shorten(', '.join(task.editable), 400)}. All else is frozen: a turn that "
        "changes anything else is refused, and so is a change that only moves a seed or makes the "
        "same program as an earlier experiment, comments and formatting apart.",
        "- One idea a turn, one that you could defend; two that only make sense together are one. "
        "With several ideas at once nobody knows which one it was.",
        f"- Only what the harness measures counts{scorer}. What you measure, print or claim "
        "decides nothing.",
        *_describe_measure(facts),
        _describe_budget(facts),
    ]
    lines += [
        f"- Every run has to keep to `{shorten(str(bound), 80)}`."
        for bound in task.guards.bounds[:8]
    ]
    if task.guards.commands:
        names = ", ".join(name for name, _ in task.guards.commands)
        lines.append(f"- A change that passes the screen must also pass: {shorten(names)}.")
    if task.judge.least:
        lines.append(f"- A change that gains less than {task.judge.least:g} is not kept.")
    if task.judge.simplify is not None:
        lines.append(
            "- Removing code counts: a change that takes out lines of code is kept unless it is "
            f"worse by more than {task.judge.simplify:g}, summed over the session."
        )
    return Section("Rules", lines)


def _describe_measure(facts: Facts) -> Iterator[str]:
    if (measure := facts.task.measure) is not None:
        beside = ", divided by that of the unchanged program" if measure.relative else ""
        yield (
            f"- The metric is the {measure.what.replace('_', ' ')} of a run, start-up included, "
            f"over all its processes: of {counted(measure.repeats, 'repetition')} the "
            f"cheapest{beside}. Nothing passes from one repetition to the next."
        )


def _describe_budget(facts: Facts) -> str:
    run = facts.task.run
    killed = f"Whatever it does, a run is killed after {duration(run.timeout_s)}."
    if run.budget_s is None:
        return f"- A run has no budget of its own. {killed}"
    clock = "CPU time, summed" if run.budget_clock == "cpu" else "wall time, measured"
    allowance_s = run.allowance_s or facts.record.allowance_s
    extra = "start-up" if facts.task.score else "start-up and evaluation"
    crash = f"; beyond it and {duration(allowance_s)} for {extra}, it is a crash"
    return (
        f"- A run's budget is {duration(run.budget_s)} of {clock} over all its processes"
        f"{crash if allowance_s else ''}. {killed}"
    )


def describe_judge(facts: Facts) -> Section:
    lines = [f"- `{facts.record.metric.name}`: {facts.numbers.direction}."]
    if facts.record.deterministic:
        lines.append(
            "- The task is deterministic: one run is compared exactly with the incumbent's, and "
            "kept if it is better and comes out the same a second time. Any real gain counts."
        )
    elif facts.sd is None:
        lines.append("- How much one run varies is not known yet.")
    else:
        lines += _describe_noise(facts, facts.sd)
    return Section("What is better, and how it is decided", lines)


def _describe_noise(facts: Facts, sd: float) -> list[str]:
    value, level = facts.numbers.value, LEVELS[facts.record.level]
    share = f" ({percent(sd / abs(facts.score))} of the score)" if facts.score else ""
    chances = CHANCES[level.name]
    least = ", ".join(f"{value(sds * sd)} ({sds:g} sd)" for sds in DROP_BELOW)
    return [
        f"- Noise: two runs of the same files differ. The sd of one run is {value(sd)}{share}, "
        f"from {facts.reference.df} degrees of freedom. Below, gains are in these sd.",
        f"- Screen: at most {len(DROP_BELOW)} runs; dropped when less than this much better after "
        f"each, on average: {least}.",
        f"- Keep: {level.k} fresh runs of it and {level.k} of the incumbent follow in random "
        "order, and every one of its runs must beat every one of the incumbent's. A change that "
        f"does nothing gets that far in 1 of {round(1 / level.false_keep)} cases.",
        f"- So of changes that are truly 1, 2 and 3 sd better, about {chances[0]} %, "
        f"{chances[1]} % and {chances[2]} % are kept: {value(2 * sd)} is worth aiming at, less is "
        "mostly lost.",
    ]


def describe_standing(facts: Facts) -> Section:
    best, digest, value = facts.incumbent, facts.digest, facts.numbers.value
    runs, sd = len(facts.reference.scores), facts.sd
    within = f", give or take {value(sd / runs**0.5)}" if sd and runs else ""
    lines = [
        f"- Incumbent: experiment {best.number}, `{facts.record.metric.name}` {value(facts.score)} "
        f"(mean of {counted(runs, 'run')} that did not choose it{within}): "
        f"{shorten(best.description)}. Build on it: its source is at the end.",
    ]
    baseline = digest.keeps[0].metric if digest.keeps else None
    if best.number and facts.score is not None and baseline is not None:
        gain = facts.record.metric.gain(facts.scale.now(facts.score), baseline)
        share = f", {percent(gain / abs(baseline))}" if baseline else ""
        lines.append(f"- Gain over the baseline: {facts.effect(gain)}{share}.")
    if facts.scale.segments > 1:
        lines.append(
            "- What runs depend on changed during the session, and moved every score. Earlier ones "
            "are given as they would have been at its beginning: go by gains, not by values."
        )
    kept, crashed = len(digest.keeps[1:]), digest.crashes.total()
    lines.append(
        f"- {counted(digest.order, 'experiment')} finished: {kept} kept, "
        f"{digest.order - kept - crashed} discarded, {crashed} crashed; "
        f"{digest.since_keep} since the latest keep."
    )
    return Section("Where we are", lines)


def describe_limits(facts: Facts) -> Section:
    return Section("What is left", [f"- {shorten(text)}" for text in facts.limits_left[:12]])
