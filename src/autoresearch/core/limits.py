"""When to stop. `None` means unlimited; nothing here is ever switched off by a zero."""

from __future__ import annotations

import datetime
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
    tokens: int = 0
    usd: float = 0.0
    turn_tokens: int = 0  # of the largest turn so far: what the next one may take
    turn_usd: float = 0.0


def read_spent(ledger: Ledger, record: SessionRecord, wanted: Limits, elapsed_s: float) -> Spent:
    """How far a session is, as far as the limits that are set need it."""
    spent = Spent(
        experiments=ledger.started(record) + ledger.fruitless_turns(record) // FRUITLESS_TURNS,
        elapsed_s=elapsed_s,
        since_keep=ledger.since_keep(record),
        score=None
        if wanted.target is None
        else reference(ledger, record, ledger.incumbent(record)).score,
    )
    if wanted.gpu_hours or wanted.tokens or wanted.usd:  # these cost a look at every row
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
    """The limit that is reached, in words; None to go on. `reserve_s` is what the session still
    needs after its last experiment: `hours` is reached that much earlier."""
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
    return _tokens(limits.tokens, spent) or _dollars(limits.usd, spent)


def _tokens(limit: int | None, spent: Spent) -> str | None:
    if limit is None:
        return None
    if spent.tokens >= limit:
        return f"{limit} tokens used"
    if spent.tokens + spent.turn_tokens <= limit:
        return None
    return (
        f"{spent.tokens} of {limit} tokens used, and a turn took up to {spent.turn_tokens}: "
        "the next one could pass the limit"
    )


def _dollars(limit: float | None, spent: Spent) -> str | None:
    if limit is None:
        return None
    if spent.usd >= limit:
        return f"{limit:g} dollars spent"
    if spent.usd + spent.turn_usd <= limit + ROUNDING_USD:
        return None
    return (
        f"{spent.usd:.4g} of {limit:g} dollars spent, and a turn took up to {spent.turn_usd:.4g}: "
        "the next one could pass the limit"
    )


def left(limits: Limits, spent: Spent, metric: Metric, until_s: float | None = None) -> list[str]:
    """What is left of each limit that is set, one line each. `until_s` are the seconds to go until
    the time of day."""
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


def seconds_until(until: datetime.time, now: datetime.datetime) -> float:
    """Seconds from `now` to the next time the clock shows `until`."""
    target = now.replace(hour=until.hour, minute=until.minute, second=0, microsecond=0)
    if target <= now:
        target += datetime.timedelta(days=1)
    return (target - now).total_seconds()
