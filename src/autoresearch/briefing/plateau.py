"""The section that proposes another kind of change after every `PLATEAU` experiments without a
keep."""

from __future__ import annotations

from autoresearch.briefing.digest import NearMiss
from autoresearch.briefing.facts import Facts
from autoresearch.briefing.fitting import Section, shorten
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
    pair = misses[2 * (lap % pairs) :][:2]
    if len(pair) < 2:
        return ""
    names = " with ".join(_name(facts, miss, miss.gain) for miss in pair)
    return (
        f"combine near misses: {names}. Each "
        "alone was too small to be told from noise, their sum may not be. They were built on the "
        "incumbent of their time: make them anew on this source."
    )


def _undo(facts: Facts, lap: int) -> str:
    """Name in turn the keep with the smallest effect and the oldest, each time the next of them."""
    gains = [(facts.digest.gain(keep.base, keep.metric), keep) for keep in facts.digest.keeps[1:]]
    if not gains:
        return ""
    if lap % 2 == 0:
        gains.sort(key=lambda item: item[0] or 0.0)
    gain, keep = gains[lap // 2 % len(gains)]
    return (
        f"undo or weaken a keep: {_name(facts, keep, gain)}. "
        "It was right for the program of its time; since then "
        "other keeps may have taken its effect over, or it may stand in their way."
    )


def _name(facts: Facts, attempt: NearMiss | PastAttempt, gain: float | None) -> str:
    description = shorten(attempt.description, 100)
    return f'experiment {attempt.number} ({facts.short_effect(gain)}, "{description}")'


def _go_radical(facts: Facts, lap: int) -> str:
    tried = [count for name in facts.names.constants if (count := facts.digest.count(name))]
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
