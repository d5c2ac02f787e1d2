"""Where one stands: the objective, the rules, what is better, the incumbent, what is left, and
which way to turn when nothing has helped for long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoresearch.briefing.memory import NearMiss
from autoresearch.briefing.scene import Scene
from autoresearch.briefing.sections import BYTES_PER_TOKEN, Section, line
from autoresearch.core.judge import DROP_BELOW, LEVELS
from autoresearch.formatting import counted, duration, percent, printable
from autoresearch.store.rows import PastAttempt

PLATEAU = 15  # finished experiments without a keep
WRAP = 300  # characters of a line of the objective, so that it can be cut between lines
CHANCES = {
    "fast": (20, 70, 95),
    "default": (10, 50, 85),
    "strict": (5, 40, 80),
}
"""Per cent of the changes that are truly 1, 2 and 3 sd better that get through screen and
separation: a simulation with the judge's own code, in `tests/briefing/test_briefing.py`."""


def objective(scene: Scene, limit_tokens: int) -> Section:
    text = scene.task.objective_text.strip()
    head = printable(text[: limit_tokens * BYTES_PER_TOKEN])
    lines = [piece for whole in _demoted(head.split("\n")) for piece in _wrapped(whole.rstrip())]
    where = scene.task.objective if scene.task.objective != scene.task.objective_text else ""
    rest = f"; the rest is in {line(where, 80)}" if where else ""
    more = f"(the objective is cut here: it has {len(text):,} characters in all{rest})"
    return Section(
        "Objective",
        lines,
        share=0.25,
        drop=tuple(range(len(lines) - 1, -1, -1)),
        intro=[more.replace("here", "below")] if len(head) < len(text) else [],
        more=more.replace("{", "("),
    )


def _demoted(lines: Sequence[str]) -> Iterator[str]:
    """With its headings below ours; what is fenced stays as it is."""
    fenced = False
    for one in lines:
        fenced ^= one.lstrip().startswith("```")
        yield f"##{one}" if one.startswith("#") and not fenced else one


def _wrapped(whole: str) -> list[str]:
    return [whole[at : at + WRAP] for at in range(0, len(whole), WRAP)] or [""]


def rules(scene: Scene) -> Section:
    task = scene.task
    lines = [
        f"- Edit only: {line(', '.join(task.editable), 400)}. All else is frozen: a turn that "
        "changes anything else is refused, and so is a change that only moves a seed or makes the "
        "same files as an earlier experiment.",
        "- One idea a turn, one that you could defend; two that only make sense together are one. "
        "With several ideas at once nobody knows which one it was.",
        f"- Only what the harness measures counts{_scorer(scene)}. What you measure, print or "
        "claim decides nothing.",
        *_budget(scene),
    ]
    lines += [f"- Every run has to keep to `{line(str(b), 80)}`." for b in task.guards.bounds[:8]]
    if task.guards.commands:
        named = ", ".join(name for name, _ in task.guards.commands)
        lines.append(f"- A change that passes the screen must also pass: {line(named)}.")
    if task.judge.simplify is not None:
        lines.append(
            "- Removing code counts: a change that takes out lines of code is kept unless it is "
            f"worse by more than {task.judge.simplify:g}, summed over the session."
        )
    return Section("Rules", lines)


def _scorer(scene: Scene) -> str:
    score = scene.task.score
    return f" (by the frozen command `{line(score.command, 80)}`)" if score else ""


def _budget(scene: Scene) -> list[str]:
    run = scene.task.run
    killed = f"Whatever it does, a run is killed after {duration(run.timeout_s)}."
    if run.budget_s is None:
        return [f"- A run has no budget of its own. {killed}"]
    clock = "CPU time, summed" if run.budget_clock == "cpu" else "wall time, measured"
    allowance_s = run.allowance_s or scene.record.allowance_s
    what = "start-up" if scene.task.score else "start-up and evaluation"
    beyond = f" beyond it and {duration(allowance_s)} for {what}, it is a crash"
    return [
        f"- A run's budget is {duration(run.budget_s)} of {clock} over all its processes"
        f"{';' + beyond if allowance_s else ''}. {killed}"
    ]


def better(scene: Scene) -> Section:
    metric = scene.record.metric
    lines = [f"- `{metric.name}`: {scene.numbers.direction}."]
    if scene.record.deterministic:
        lines.append(
            "- The task is deterministic: one run is compared exactly with the incumbent's, and "
            "kept if it is better and comes out the same a second time. Any real gain counts."
        )
    elif scene.sd is None:
        lines.append("- How much one run varies is not known yet.")
    else:
        lines += _noise(scene, scene.sd)
    return Section("What is better, and how it is decided", lines)


def _noise(scene: Scene, sd: float) -> list[str]:
    value, level = scene.numbers.value, LEVELS[scene.record.level]
    share = percent(sd / abs(scene.score)) if scene.score else ""
    first, later = DROP_BELOW[:2]
    chances = CHANCES[level.name]
    runs = (
        f"{level.k} fresh runs of it are held against the incumbent's latest runs by a t test"
        if level.cached
        else f"{level.k} fresh runs of it and {level.k} of the incumbent follow in random order, "
        "and every one of its runs must beat every one of the incumbent's"
    )
    return [
        f"- Noise: two runs of the same files differ. The sd of one run is {value(sd)}"
        f"{f' ({share} of the score)' if share else ''}, from {scene.reference.df} degrees of "
        "freedom. Below, gains are in these sd.",
        f"- Screen: one to three runs; dropped when less than {value(first * sd)} ({first} sd) "
        f"better after the first, or {value(later * sd)} ({later} sd) on average after more.",
        f"- Keep: {runs}. A change that does nothing gets that far in 1 of "
        f"{round(1 / level.false_keep)} cases.",
        f"- So of changes that are truly 1, 2 and 3 sd better, about {chances[0]} %, "
        f"{chances[1]} % and {chances[2]} % are kept: {value(2 * sd)} is worth aiming at, less is "
        "mostly lost.",
    ]


def standing(scene: Scene) -> Section:
    best, memory, value = scene.incumbent, scene.memory, scene.numbers.value
    runs, sd = len(scene.reference.scores), scene.sd
    within = f", give or take {value(sd / runs**0.5)}" if sd and runs else ""
    lines = [
        f"- Incumbent: experiment {best.number}, `{scene.record.metric.name}` {value(scene.score)} "
        f"(mean of {counted(runs, 'run')} that did not choose it{within}): "
        f"{line(best.description)}. Build on it: its source is at the end.",
    ]
    baseline = memory.keeps[0].metric if memory.keeps else None
    if best.number and scene.score is not None and baseline is not None:
        gain = scene.record.metric.gain(scene.scale.now(scene.score), baseline)
        share = f", {percent(gain / abs(baseline))}" if baseline else ""
        lines.append(f"- Gain over the baseline: {scene.effect(gain)}{share}.")
    if scene.scale.segments > 1:
        lines.append(
            "- What runs depend on changed during the session, and moved every score. Earlier ones "
            "are given as they would have been at its beginning: go by gains, not by values."
        )
    kept, crashed = len(memory.keeps[1:]), memory.crashes.total()
    lines.append(
        f"- {counted(memory.finished, 'experiment')} finished: {kept} kept, "
        f"{memory.finished - kept - crashed} discarded, {crashed} crashed; "
        f"{memory.since_keep} since the latest keep."
    )
    return Section("Where we are", lines)


def left(scene: Scene) -> Section | None:
    lines = [f"- {line(one)}" for one in scene.left[:12]]
    return Section("What is left", lines) if lines else None


# --------------------------------------------------------------------------------------------
# A plateau


def plateau(scene: Scene) -> Section | None:
    """After every `PLATEAU` experiments without a keep, another way out of it."""
    length = scene.memory.since_keep
    if length < PLATEAU:
        return None
    rounds = length // PLATEAU - 1
    ways = (_combine, _undo, _go_radical, _simplify)
    # A way that has nothing to name (no near miss, no keep) gives way to the next.
    turned = [*ways[rounds % len(ways) :], *ways]
    lines = next(found for way in turned if (found := way(scene, rounds // len(ways))))
    return Section(
        "Change direction",
        [f"- No keep for {length} experiments: more of the same is unlikely to help.", *lines],
    )


def _combine(scene: Scene, lap: int) -> list[str]:
    misses = scene.memory.near
    pairs = max(1, len(misses) // 2)
    chosen = misses[2 * (lap % pairs) :][:2]
    if len(chosen) < 2:
        return []
    named = " with ".join(_missed(scene, miss) for miss in chosen)
    return [
        f"- This time combine near misses: {named}. Each alone was too small to be told from "
        "noise, their sum may not be. They were built on the incumbent of their time: make them "
        "anew on this source."
    ]


def _missed(scene: Scene, miss: NearMiss) -> str:
    shown = line(miss.description, 100)
    return f'experiment {miss.number} ({scene.short_effect(miss.gain)}, "{shown}")'


def _undo(scene: Scene, lap: int) -> list[str]:
    chosen = _weakest(scene, lap)
    if chosen is None:
        return []
    effect = scene.short_effect(scene.memory.gain(chosen.base, chosen.metric))
    return [
        f"- This time undo or weaken a keep: experiment {chosen.number} ({effect}, "
        f'"{line(chosen.description, 100)}"). It was right for the program of its time; since '
        "then other keeps may have taken its effect over, or it may stand in their way."
    ]


def _weakest(scene: Scene, lap: int) -> PastAttempt | None:
    """The keep with the smallest effect, then the oldest, in turn."""
    keeps = scene.memory.keeps[1:]
    if not keeps:
        return None
    if lap % 2:
        return keeps[lap // 2 % len(keeps)]
    gains = {one.number: scene.memory.gain(one.base, one.metric) or 0.0 for one in keeps}
    return sorted(keeps, key=lambda one: gains[one.number])[lap // 2 % len(keeps)]


def _go_radical(scene: Scene, lap: int) -> list[str]:
    tried = [theme for name in scene.names.constants if (theme := scene.memory.theme(name))]
    worn = sorted(tried, key=lambda theme: -theme.tried)[:4]
    named = ", ".join(f"{theme.name} ({theme.tried} times)" for theme in worn)
    away = f" Leave alone what was turned most: {named}." if named else ""
    return [
        "- This time go radical: something structural, not a constant. Another algorithm, another "
        "architecture, another way to spend the budget; a loss of a few turns is the price of "
        f"finding a new slope.{away}"
    ]


def _simplify(scene: Scene, lap: int) -> list[str]:
    return [
        "- This time simplify: remove code. Take out a part and see whether it pays for its time; "
        "what is gone also makes the next idea easier, and cheaper to run."
    ]


def present(*sections: Section | None) -> Sequence[Section]:
    return [section for section in sections if section is not None]
