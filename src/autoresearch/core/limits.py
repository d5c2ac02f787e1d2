"""When to stop. `None` means unlimited; 0 never does."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autoresearch.core.history import reference
from autoresearch.formatting import counted, duration
from autoresearch.records import Metric

if TYPE_CHECKING:
    from autoresearch.store.ledger import Ledger
    from autoresearch.store.rows import SessionRecord
    from autoresearch.task.model import Limits  # `status` needs no task file

FRUITLESS_TURNS = 10  # count as one experiment, so that a broken agent cannot go on for ever
ROUNDING_USD = 1e-9  # three turns of 0.1 fit into a limit of 0.3


@dataclass(frozen=True, slots=True)
class Spent:
    """How far a session is, over all its resumes."""

    experiments: int  # fruitless turns included, ten for one
    elapsed_s: float
    since_keep: int  # experiments
    score: float | None  # the incumbent's
    run_s: float = 0.0  # wall, of all runs; each has its slot's GPU
    tokens: float = 0
    usd: float = 0.0
    turn_tokens: float = 0  # of the largest turn so far: what the next one may take
    turn_usd: float = 0.0

    def with_turns(self, count: int) -> Spent:
        """With so many turns under way as if they had ended, each as large as the largest: before
        the first has told its cost, as if there were no bound to it."""
        unknown = math.inf if count else 0.0
        return replace(
            self,
            experiments=self.experiments + count,
            tokens=self.tokens + (count * self.turn_tokens or unknown),
            usd=self.usd + (count * self.turn_usd or unknown),
        )


def read_spent(ledger: Ledger, record: SessionRecord, wanted: Limits, elapsed_s: float) -> Spent:
    """Measure how far a session is. Costs are read only if a limit on them is set."""
    spent = Spent(
        experiments=ledger.started(record) + ledger.fruitless_turns(record) // FRUITLESS_TURNS,
        elapsed_s=elapsed_s,
        since_keep=ledger.since_keep(record),
        score=reference(ledger, record, ledger.incumbent(record)).score
        if wanted.target is not None
        else None,
    )
    if wanted.gpu_hours or wanted.tokens or wanted.usd:  # these read every row
        tokens, usd = ledger.costs(record)
        turn_tokens, turn_usd = ledger.largest_turn(record)
        spent = replace(
            spent,
            run_s=ledger.spent(record)["wall_s"],
            tokens=tokens,
            usd=usd,
            turn_tokens=turn_tokens,
            turn_usd=turn_usd,
        )
    return spent


def reached(limits: Limits, spent: Spent, metric: Metric, reserve_s: float = 0.0) -> str | None:
    """Return the limit that is reached, in words, or None to go on. `reserve_s` is the time that
    the session needs after its last experiment: `hours` is reached that much earlier."""
    if limits.experiments is not None and spent.experiments >= limits.experiments:
        return f"{counted(limits.experiments, 'experiment')} done"
    if limits.hours is not None and spent.elapsed_s + reserve_s >= limits.hours * 3600:
        return f"{limits.hours:g} hours worked"
    if limits.patience is not None and spent.since_keep >= limits.patience:
        return f"{limits.patience} experiments without a keep"
    if limits.target is not None and spent.score is not None:
        missing = metric.gain(limits.target, spent.score)
        if missing <= 0:
            return f"target reached: {metric.name} {limits.target:g}"
    if limits.gpu_hours is not None and spent.run_s >= limits.gpu_hours * 3600:
        return f"{limits.gpu_hours:g} GPU hours used"
    return _reached_cost(
        limits.tokens, spent.tokens, spent.turn_tokens, "tokens used"
    ) or _reached_cost(limits.usd, spent.usd, spent.turn_usd, "dollars spent")


def _reached_cost(limit: float | None, spent: float, turn: float, done: str) -> str | None:
    """The limit on a cost, if it is reached, or if another turn as large as the largest so far
    (`turn`) could pass it. `done` says what was spent, such as "tokens used"."""
    if limit is None or (spent < limit and spent + turn <= limit + ROUNDING_USD):
        return None
    limit_text, spent_text, turn_text = (
        f"{cost:g}" if isinstance(cost, float) else str(cost) for cost in (limit, spent, turn)
    )
    if spent >= limit:
        return f"{limit_text} {done}"
    return (
        f"{spent_text} of {limit_text} {done}, and a turn took up to {turn_text}: "
        "the next one could pass the limit"
    )


def left(limits: Limits, spent: Spent, metric: Metric, until_s: float | None = None) -> list[str]:
    """Return what is left of each limit that is set, one line each. `until_s` is the number of
    seconds until the time of day in `limits.until`."""
    lines = []
    if limits.experiments is not None:
        to_go = max(0, limits.experiments - spent.experiments)
        lines.append(f"{counted(to_go, 'experiment')} of {limits.experiments:,}")
    if limits.hours is not None:
        to_go_s = limits.hours * 3600 - spent.elapsed_s
        lines.append(f"{duration(to_go_s)} of {limits.hours:g} hours")
    if limits.until is not None and until_s is not None:
        lines.append(f"{duration(until_s)} until {limits.until:%H:%M}")
    if limits.patience is not None:
        to_go = max(0, limits.patience - spent.since_keep)
        lines.append(f"{counted(to_go, 'experiment')} without a keep, then it ends")
    if limits.target is not None and spent.score is not None:
        missing = max(0.0, metric.gain(limits.target, spent.score))
        lines.append(f"{missing:.4g} to the target, {metric.name} {limits.target:g}")
    if limits.gpu_hours is not None:
        to_go_s = limits.gpu_hours * 3600 - spent.run_s
        lines.append(f"{duration(to_go_s)} of {limits.gpu_hours:g} GPU hours")
    if limits.tokens is not None:
        lines.append(f"{max(0, limits.tokens - spent.tokens):,} of {limits.tokens:,} tokens")
    if limits.usd is not None:
        lines.append(f"{max(0.0, limits.usd - spent.usd):.2f} of {limits.usd:g} dollars")
    return lines


def boot_clock() -> float:
    """A clock in seconds that nobody sets back and that goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # macOS has another, and `monotonic` stops there
    return time.clock_gettime(time.CLOCK_MONOTONIC_RAW if clock is None else clock)
