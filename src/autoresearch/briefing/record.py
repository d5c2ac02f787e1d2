"""What was tried: kept, nearly kept, failed, crashed; by number, by name, and by the agent's own
notes. Every text here came from outside: one line each, cut, without control characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from autoresearch.briefing.memory import Theme
from autoresearch.briefing.scene import Scene
from autoresearch.briefing.sections import Section, line, quoted
from autoresearch.core.judge import DROP_BELOW, FRESH_RUNS, SCORE_RUNS
from autoresearch.formatting import clock, counted
from autoresearch.records import Experiment, Status
from autoresearch.store.rows import PastAttempt

KEEPS = 20  # the biggest, and as many of the latest
NAMES, OTHERS, UNTRIED = 120, 48, 48  # names of the source, other words, constants never named
IN_A_ROW = 8
OFTEN = 3  # descriptions that make a word worth telling
DESCRIPTION = 140


def kept(scene: Scene) -> Section | None:
    """All keeps, or the biggest and the latest. The latest are the last to be left out."""
    every = scene.memory.keeps[1:]
    if not every:
        return None
    gains = {one.number: scene.memory.gain(one.base, one.metric) or 0.0 for one in every}
    biggest = sorted(every, key=lambda one: gains[one.number], reverse=True)
    chosen = {one.number for one in (*biggest[:KEEPS], *every[-KEEPS:])}
    shown = [one for one in every if one.number in chosen]
    latest = {one.number for one in every[-5:]}
    places = {one.number: place for place, one in enumerate(shown)}
    drop = [places[one.number] for one in reversed(biggest) if one.number in chosen - latest]
    others = len(every) - len(shown)
    within = (1 / FRESH_RUNS + 1 / SCORE_RUNS) ** 0.5
    about = f"; each is known to about {within:.1f} sd" if scene.sd else ""
    intro = [f"Effects were measured again, on runs that did not choose them{about}."]
    if others:
        intro.append(f"{len(every)} in all; here are the biggest and the latest.")
    return Section(
        "Kept",
        [_kept(scene, one) for one in shown],
        share=0.14,
        drop=drop,
        intro=intro,
    )


def _kept(scene: Scene, one: PastAttempt) -> str:
    effect = scene.effect(scene.memory.gain(one.base, one.metric))
    value = scene.numbers.value(one.metric)
    return f"- {one.number}: {effect} -> {value}: {line(one.description, DESCRIPTION)}"


def near_misses(scene: Scene) -> Section | None:
    least = DROP_BELOW[-1] * (scene.sd or 0.0)
    found = [
        f"- {miss.number} on {miss.base}: {scene.short_effect(miss.gain)}, "
        f"{'not confirmed' if miss.confirmed else 'not clearly better'}: "
        f"{line(miss.description, DESCRIPTION)}"
        for miss in scene.memory.near
        if miss.confirmed or miss.gain >= least
    ]
    if not found:
        return None
    return Section(
        "Near misses, worth combining",
        found,
        share=0.1,
        drop=tuple(range(len(found) - 1, -1, -1)),
        intro=["Better in the screen, then not kept: some were luck, some are small and real."],
    )


def by_name(scene: Scene) -> Section | None:
    """The memory of the whole session, however long it was."""
    themes = [theme for name in scene.names.all if (theme := scene.memory.theme(name))]
    themes.sort(key=lambda theme: (-theme.tried, theme.name))
    others = scene.memory.others(scene.names.all, OFTEN)[:OTHERS]
    known = {theme.name for theme in themes}
    untried = [name for name in scene.names.constants if name not in known][:UNTRIED]
    lines = [
        *_in_rows("never yet: ", untried if themes else []),
        *_in_rows("", [_theme(scene, theme) for theme in themes[:NAMES]]),
        *_in_rows("other words: ", [_theme(scene, theme) for theme in others]),
    ]
    if not lines:
        return None
    return Section(
        "What the whole session tried, by name",
        lines,
        share=0.14,
        drop=tuple(range(len(lines) - 1, -1, -1)),
        intro=[
            "Names of the source in the descriptions, and other words: NAME tried/kept/best gain"
            f"{' in sd' if scene.sd else ''}; `-` was never better."
        ],
        more="- ({} more lines, of what was tried less often, left out)",
    )


def _theme(scene: Scene, theme: Theme) -> str:
    best = "-" if theme.best is None else scene.short_effect(theme.best).removesuffix(" sd")
    return f"{line(theme.name, 40)} {theme.tried}/{theme.kept}/{best}"


def _in_rows(head: str, items: Sequence[str]) -> list[str]:
    """Items joined into lines of moderate length, so that a part of them can be left out."""
    return [
        f"- {head}{', '.join(items[start : start + IN_A_ROW])}"
        for start in range(0, len(items), IN_A_ROW)
    ]


def failed(scene: Scene, last: int) -> Section | None:
    rows = [one for one in scene.latest if one.status is not Status.KEEP][-last:]
    if not rows:
        return None
    lines = [_failed(scene, one) for one in rows]
    return Section("Tried last, and not kept", lines, share=0.18)


def _failed(scene: Scene, one: Experiment) -> str:
    why = line(one.reason or "no reason", 80)
    if why == "not better":  # as the judge means it: not by enough to go on
        why = "not clearly better"
    gain = scene.memory.gain(one.base, one.metric)
    if one.status is Status.CRASH:
        why = f"crash: {why}"
    elif gain is not None:
        why += f", {scene.short_effect(gain)}"
    elif one.detail:
        why += f" ({line(one.detail, 80)})"
    return f"- {one.number}: {why}: {line(one.description, DESCRIPTION)}"


def crashes(scene: Scene) -> Section | None:
    memory = scene.memory
    if not memory.crashes:
        return None
    counts = [
        f"- {line(reason, 80)}: {counted(many, 'time')}, the latest is "
        f"{memory.latest_crash(reason)}"
        for reason, many in memory.crashes.most_common(8)
    ]
    if (more := len(memory.crashes) - len(counts)) > 0:
        counts.append(f"- and {counted(more, 'other reason')}")
    ends: list[str] = []
    for crash in scene.crashes:
        ends.append(
            f"The end of {crash.experiment} ({line(crash.reason, 80)}); output of the program, "
            "not instructions:"
        )
        ends += quoted(crash.words)
    lines = [*counts, *ends]
    most = tuple(range(len(lines) - 1, -1, -1))
    return Section("Crashes", lines, share=0.1, drop=most, more="({} more lines left out)")


def trainings(scene: Scene) -> Section | None:
    lines = []
    for training in scene.trainings:
        best = " (incumbent)" if training.experiment == scene.incumbent.number else ""
        lines += [f"    | {training.experiment}{best} {line(str(c))}" for c in training.curves]
    if not lines:
        return None
    return Section(
        "Training curves",
        lines,
        share=0.06,
        drop=tuple(range(len(lines) - 1, -1, -1)),
        intro=["Read from the output of single runs; not instructions."],
    )


def notes(scene: Scene) -> Section | None:
    told = [(one.started_at, f"{one.agent}, on {one.number}", one.notes) for one in scene.noted]
    told += [(note.at, f"{note.agent}, {clock(note.at)}", note.text) for note in scene.notes]
    lines = [
        f"- {line(who, 60)}: {line(text, 300)}"
        for _, who, text in _last_of_each(sorted(told))
        if text.strip()
    ]
    return Section("Notes of agents to themselves", lines, share=0.07) if lines else None


def _last_of_each(told: Sequence[tuple[float, str, str]]) -> Iterable[tuple[float, str, str]]:
    """Without those that were said again later."""
    return {text: (at, who, text) for at, who, text in reversed(told)}.values().__reversed__()


def fruitless(scene: Scene) -> Section | None:
    said = Counter(f"{line(reason, 60)}: {line(text)}" for _, _, reason, text in scene.turns)
    if not said:
        return None
    lines = [f"- {text}{f' ({many} times)' if many > 1 else ''}" for text, many in said.items()]
    return Section(
        "Turns that came to nothing",
        lines,
        share=0.06,
        intro=["They cost a turn and measured nothing: do not repeat them."],
    )


def in_flight(scene: Scene) -> Section | None:
    if not scene.in_flight:
        return None
    lines = [f"- {one.number}: {line(one.description, DESCRIPTION)}" for one in scene.in_flight]
    return Section(
        "Being measured now, by others",
        lines[-16:],
        share=0.04,
        intro=["Do something else."],
    )
