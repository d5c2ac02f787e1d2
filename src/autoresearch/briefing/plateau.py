"""A way out of a plateau: after every `PLATEAU` experiments without a keep, the briefing proposes
another kind of change."""

from __future__ import annotations

from autoresearch.briefing.digest import NearMiss
from autoresearch.briefing.facts import Facts
from autoresearch.briefing.fitting import Section, line
from autoresearch.store.rows import PastAttempt

PLATEAU = 15  # finished experiments without a keep


def suggest_direction(facts: Facts) -> Section:
    """Empty while the latest keep is less than `PLATEAU` experiments old."""
    length = facts.digest.since_keep
    lines = []
    if length >= PLATEAU:
        lap, turn = divmod(length // PLATEAU - 1, len(WAYS))
        # A way that has nothing to name (no near miss, no keep) gives way to the next.
        ways = (*WAYS[turn:], *WAYS)
        advice = next(text for way in ways if (text := way(facts, lap)))
        lines = [
            f"- No keep for {length} experiments: more of the same is unlikely to help.",
            f"- This time {advice}",
        ]
    return Section("Change direction", lines)


def _combine(facts: Facts, lap: int) -> str:
    misses = facts.digest.near_misses
    pairs = max(1, len(misses) // 2)
    chosen = misses[2 * (lap % pairs) :][:2]
    if len(chosen) < 2:
        return ""
    return (
        f"combine near misses: {' with '.join(_name_miss(facts, miss) for miss in chosen)}. Each "
        "alone was too small to be told from noise, their sum may not be. They were built on the "
        "incumbent of their time: make them anew on this source."
    )


def _name_miss(facts: Facts, miss: NearMiss) -> str:
    effect = facts.short_effect(miss.gain)
    return f'experiment {miss.number} ({effect}, "{line(miss.description, 100)}")'


def _undo(facts: Facts, lap: int) -> str:
    if (keep := _choose_keep(facts, lap)) is None:
        return ""
    effect = facts.short_effect(facts.digest.gain(keep.base, keep.metric))
    return (
        f"undo or weaken a keep: experiment {keep.number} ({effect}, "
        f'"{line(keep.description, 100)}"). It was right for the program of its time; since then '
        "other keeps may have taken its effect over, or it may stand in their way."
    )


def _choose_keep(facts: Facts, lap: int) -> PastAttempt | None:
    """In turn the keep with the smallest effect and the oldest, each time the next of them."""
    keeps = facts.digest.keeps[1:]
    if lap % 2 == 0:
        keeps.sort(key=lambda keep: facts.digest.gain(keep.base, keep.metric) or 0.0)
    return keeps[lap // 2 % len(keeps)] if keeps else None


def _go_radical(facts: Facts, lap: int) -> str:
    digest = facts.digest
    tried = [count for name in facts.names.constants if (count := digest.count(name))]
    most = sorted(tried, key=lambda count: -count.tried)[:4]
    names = ", ".join(f"{count.name} ({count.tried} times)" for count in most)
    away = f" Leave alone what was turned most: {names}." if names else ""
    return (
        "go radical: something structural, not a constant. Another algorithm, another "
        "architecture, another way to spend the budget; a loss of a few turns is the price of "
        f"finding a new slope.{away}"
    )


def _simplify(facts: Facts, lap: int) -> str:
    return (
        "simplify: remove code. Take out a part and see whether it pays for its time; what is gone "
        "also makes the next idea easier, and cheaper to run."
    )


WAYS = (_combine, _undo, _go_radical, _simplify)
