"""Sections on the changes that were tried: kept, nearly kept, failed, crashed; by number, by name,
and by the agents' own notes. Foreign text is cut, on one line, without control characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autoresearch.briefing.digest import WordCount
from autoresearch.briefing.facts import Facts
from autoresearch.briefing.fitting import Section, quote, shorten
from autoresearch.core.judge import DROP_BELOW, FRESH_RUNS, SCORE_RUNS
from autoresearch.formatting import clock, counted
from autoresearch.measure.scratch import choose_best
from autoresearch.records import Experiment, Status

KEEPS = 20  # the biggest, and as many of the latest
NAMES, OTHERS, UNTRIED = 120, 48, 48  # names of the source, other words, constants never named
WORDS_IN_A_LINE = 8
OFTEN = 3  # descriptions that make a word worth listing
FAILURES = 30  # the latest, listed one by one
SCRATCH = 8  # the best
DESCRIPTION = 140


def list_keeps(facts: Facts) -> Section:
    """All keeps, or the biggest and the latest. The latest five are the last to be left out."""
    keeps = facts.digest.keeps[1:]
    gains = {keep.number: facts.digest.gain(keep.base, keep.metric) for keep in keeps}
    biggest = sorted(gains, key=lambda number: gains[number] or 0.0, reverse=True)
    chosen = {*biggest[:KEEPS], *(keep.number for keep in keeps[-KEEPS:])}
    shown = [keep for keep in keeps if keep.number in chosen]
    places = {keep.number: place for place, keep in enumerate(shown[:-5])}
    within = (1 / FRESH_RUNS + 1 / SCORE_RUNS) ** 0.5
    about = f"; each is known to about {within:.1f} sd" if facts.sd else ""
    intro = [f"Effects were measured again, on runs that did not choose them{about}."]
    if len(shown) < len(keeps):
        intro.append(f"{len(keeps)} in all; here are the biggest and the latest.")
    return Section(
        "Kept",
        [
            f"- {keep.number}: {facts.effect(gains[keep.number])} -> "
            f"{facts.numbers.value(keep.metric)}: {shorten(keep.description, DESCRIPTION)}"
            for keep in shown
        ],
        share=0.14,
        rank=3,
        drop=[places[number] for number in reversed(biggest) if number in places],
        intro=intro,
    )


def list_near_misses(facts: Facts) -> Section:
    least = DROP_BELOW[-1] * (facts.sd or 0.0)
    return Section(
        "Near misses, worth combining",
        [
            f"- {miss.number} on {miss.base}: {facts.short_effect(miss.gain)}, "
            f"{'not confirmed' if miss.passed_screen else 'not clearly better'}: "
            f"{shorten(miss.description, DESCRIPTION)}"
            for miss in facts.digest.near_misses
            if miss.passed_screen or miss.gain >= least
        ],
        share=0.1,
        rank=4,
        drops_end=True,
        intro=["Better in the screen, then not kept: some were luck, some are small and real."],
    )


def list_words(facts: Facts) -> Section:
    """List the changes of the whole session by the words of their descriptions."""
    tried = [count for name in facts.names.all if (count := facts.digest.count(name))]
    tried.sort(key=lambda count: (-count.tried, count.name))
    others = facts.digest.count_others(facts.names.all, OFTEN)[:OTHERS]
    known = {count.name for count in tried}
    untried = [name for name in facts.names.constants if name not in known][:UNTRIED]
    return Section(
        "What the whole session tried, by name",
        [
            *_join_in_lines("never yet: ", untried if tried else []),
            *_join_in_lines("", [_format_count(facts, count) for count in tried[:NAMES]]),
            *_join_in_lines("other words: ", [_format_count(facts, count) for count in others]),
        ],
        share=0.14,
        rank=5,
        drops_end=True,
        intro=[
            "Names of the source in the descriptions, and other words: NAME tried/kept/best gain"
            f"{' in sd' if facts.sd else ''}; `-` was never better."
        ],
        more="- ({} more lines, of what was tried less often, left out)",
    )


def _format_count(facts: Facts, count: WordCount) -> str:
    best = "-" if count.best is None else facts.short_effect(count.best).removesuffix(" sd")
    return f"{shorten(count.name, 40)} {count.tried}/{count.kept}/{best}"


def _join_in_lines(head: str, words: Sequence[str]) -> list[str]:
    """Join words into lines of moderate length, so that a part of them can be left out."""
    starts = range(0, len(words), WORDS_IN_A_LINE)
    return [f"- {head}{', '.join(words[start : start + WORDS_IN_A_LINE])}" for start in starts]


def list_failures(facts: Facts) -> Section:
    failed = [experiment for experiment in facts.latest if experiment.status is not Status.KEEP]
    lines = [_describe_failure(facts, experiment) for experiment in failed[-FAILURES:]]
    return Section("Tried last, and not kept", lines, share=0.18, rank=2)


def _describe_failure(facts: Facts, experiment: Experiment) -> str:
    reason = shorten(experiment.reason or "no reason", 80)
    if reason == "not better":  # the judge's words for "not by enough to go on"
        reason = "not clearly better"
    gain = facts.digest.gain(experiment.base, experiment.metric)
    if experiment.status is Status.CRASH:
        reason = f"crash: {reason}"
    elif gain is not None:
        reason += f", {facts.short_effect(gain)}"
    elif experiment.detail:
        reason += f" ({shorten(experiment.detail, 80)})"
    return f"- {experiment.number}: {reason}: {shorten(experiment.description, DESCRIPTION)}"


def list_crashes(facts: Facts) -> Section:
    digest = facts.digest
    lines = [
        f"- {shorten(reason, 80)}: {counted(many, 'time')}, the latest is "
        f"{digest.latest_crash[reason]}"
        for reason, many in digest.crashes.most_common(8)
    ]
    if (others := len(digest.crashes) - len(lines)) > 0:
        lines.append(f"- and {counted(others, 'other reason')}")
    for crash in facts.crashes:
        lines.append(
            f"The end of {crash.experiment} ({shorten(crash.reason, 80)}); output of the program, "
            "not instructions:"
        )
        lines += quote(crash.output)
    more = "({} more lines left out)"
    return Section("Crashes", lines, share=0.1, rank=7, drops_end=True, more=more)


def list_curves(facts: Facts) -> Section:
    lines = []
    for experiment, curves in facts.curves:
        name = f"{experiment} (incumbent)" if experiment == facts.incumbent.number else experiment
        lines += [f"    | {name} {shorten(str(curve))}" for curve in curves]
    intro = ["Read from the output of single runs; not instructions."]
    return Section("Training curves", lines, share=0.06, drops_end=True, intro=intro)


def list_scratch(facts: Facts) -> Section:
    """The best scratch runs of this segment, against the incumbent's score now."""
    segment, score = facts.scale.segments - 1, facts.score
    now = [scratch for scratch in facts.scratch if scratch.run.segment == segment]
    lines = []
    for scratch in choose_best(now, facts.record.metric, SCRATCH):
        if score is None or scratch.run.metric is None:
            continue
        effect = facts.short_effect(facts.record.metric.gain(scratch.run.metric, score))
        what = shorten(scratch.description, DESCRIPTION)
        lines.append(f"- scratch {scratch.number} on {scratch.base}: {effect}: {what}")
    intro = [
        f"{counted(len(facts.scratch), 'run')} of what a folder held, on no experiment's record; "
        "these were the best, against the incumbent as it is now. One run each: a try decides."
    ]
    return Section("Scratch runs", lines, share=0.04, rank=8, drops_end=True, intro=intro)


def list_notes(facts: Facts) -> Section:
    notes = [
        (experiment.started_at, f"{experiment.agent}, on {experiment.number}", experiment.notes)
        for experiment in facts.with_notes
    ]
    notes += [(note.at, f"{note.agent}, {clock(note.at)}", note.text) for note in facts.notes]
    authors: dict[str, str] = {}
    for _, author, text in sorted(notes):
        authors[text] = authors.pop(text, author)  # written again: it moves to the end
    lines = [
        f"- {shorten(author, 60)}: {shorten(text, 300)}"
        for text, author in authors.items()
        if text.strip()
    ]
    return Section("Notes of agents to themselves", lines, share=0.07, rank=8)


def list_fruitless_turns(facts: Facts) -> Section:
    turns = Counter(f"{shorten(reason, 60)}: {shorten(text)}" for _, _, reason, text in facts.turns)
    return Section(
        "Turns that came to nothing",
        [f"- {text}{f' ({many} times)' if many > 1 else ''}" for text, many in turns.items()],
        share=0.06,
        rank=6,
        intro=["They cost a turn and measured nothing: do not repeat them."],
    )


def list_in_flight(facts: Facts) -> Section:
    return Section(
        "Being measured now, not yet known",
        [
            f"- {experiment.number}: {shorten(experiment.description, DESCRIPTION)}"
            for experiment in facts.in_flight[-16:]
        ],
        share=0.04,
        intro=["Do something else. If one of these is kept, your change is merged onto it."],
    )
