"""Say in plain words whether a task is ready for a night, from what `check` measured."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from autoresearch.core.judge import LEVELS, Reference, screen, separate
from autoresearch.formatting import Numbers, duration
from autoresearch.records import Goal, Metric
from autoresearch.statistics import t_quantile

if TYPE_CHECKING:
    from autoresearch.commands.check import CheckResult

NIGHT_S = 8 * 3600  # what a night is taken for where no limit is set
POWER = 0.8  # a gain counts as recognised if it is kept in so many cases
SIMULATED = 400  # judgements for each gain: the answer is right within 0.1 sd
LARGEST_GAIN_SD = 20.0
ENOUGH_EXPERIMENTS = 30  # in a night; 5 % to 20 % of the changes of an agent are kept
COARSE_SHARE = 0.1  # a recognised gain above this share of the metric is a coarse measurement
IDLE_SHARE = 0.5  # of a run's time without use of the CPU that deserves a comment


@lru_cache
def recognised_gain_sd(level: str, baseline_runs: int) -> float:
    """The gain, in standard deviations of one run, that is kept in 80 % of the cases.

    Simulated with the judge's own code and Gaussian noise, against an incumbent that was measured
    `baseline_runs` times.
    """
    low, high = 0.0, LARGEST_GAIN_SD
    for _ in range(9):
        middle = (low + high) / 2
        kept = sum(_is_kept(level, baseline_runs, middle, seed) for seed in range(SIMULATED))
        low, high = (low, middle) if kept >= POWER * SIMULATED else (middle, high)
    return high


def _is_kept(name: str, runs: int, gain_sd: float, seed: int) -> bool:
    rng, level = random.Random(seed), LEVELS[name]
    metric = Metric("gain", Goal.MAXIMIZE)
    scores = tuple(rng.gauss(0, 1) for _ in range(runs))
    mean = sum(scores) / runs
    sd = math.sqrt(sum((score - mean) ** 2 for score in scores) / (runs - 1))
    reference = Reference(metric, scores, sd, runs - 1)

    def candidate(index: int) -> float:
        return rng.gauss(gain_sd, 1)

    if not screen(reference, candidate).passed:
        return False
    return separate(metric, level.k, rng, candidate, lambda index: rng.gauss(0, 1)).passed


def final_error_sd(runs: int) -> float:
    """Half the 95 % interval of the whole gain at a session's end, in sd of one run: the difference
    of the baseline and the best, each measured `runs` times again."""
    return t_quantile(0.975, 2 * runs - 2) * math.sqrt(2 / runs)


def list_problems(result: CheckResult) -> Iterator[str]:
    """What to mend before a night, the most important first."""
    if result.deterministic and not result.declared_deterministic:
        patch = " (the patch above mends it)" if result.seed_patch else ""
        yield (
            f"every seed gave the same number: either the program ignores AUTORESEARCH_SEED{patch}"
            ", or it uses no random numbers (say so: `[judge] deterministic = true`)"
        )
    share = result.recognised_gain / abs(result.mean) if result.mean else 0.0
    if share > COARSE_SHARE:
        more = "Raise [metric] `repeats`" if result.measured else "Let a run average over more work"
        yield (
            f"the noise is large: only gains above {100 * share:.0f} % of {result.metric} can be "
            f"told apart. {more}, or give it a machine of its own"
        )
    if result.experiments_in_a_night < ENOUGH_EXPERIMENTS:
        yield (
            f"only {result.experiments_in_a_night} experiments fit: make a run shorter, by a "
            "smaller [run] budget, less data or a smaller model"
        )
    yield from result.agent_problems


def list_remarks(result: CheckResult) -> Iterator[str]:
    """What a user should know, and need not mend."""
    if result.wall_s > 1 and result.cpu_s < IDLE_SHARE * result.wall_s:
        yield (
            f"a run used the CPU for {result.cpu_s:.1f} s of {result.wall_s:.1f} s: it waits, "
            "computes on a GPU, or shares the CPU with other programs, which makes a measured "
            "speed uncertain"
        )
    if result.load is not None:
        yield f"other programs were at work on this machine before ({result.load})"
    yield from result.absent_files
    if result.holdout:
        yield "the sealed holdout is scored for the baseline and for keeps; the report shows it"


def check_text(result: CheckResult, *, verbose: bool = False) -> str:
    """Describe the result for people: four lines, after what explains them."""
    lines = [""]
    if result.seed_patch:
        lines.append(
            "This patch lets the program take its seed. If the program divides its data by that "
            f"seed, give the division a seed of its own first:\n\n{result.seed_patch}"
        )
    if verbose or any(start.startswith("cold") for start in result.starts):
        lines += [f"start      {clause}" for clause in result.starts]
    if verbose:
        lines.append(f"python     {result.python or 'not found on PATH'}")
        lines += [f"enforced   {clause}" for clause in result.enforced]
        lines += [f"NOT so     {clause}" for clause in result.not_enforced]
    lines += [f"slots      {tried}" for tried in result.slots]
    if result.best_slots is not None:
        pays = "1 slot pays best" if result.best_slots == 1 else f"{result.best_slots} slots pay"
        lines.append(f"slots      {pays}: autoresearch run --slots {result.best_slots}")
    lines += [f"note       {remark}" for remark in list_remarks(result)]
    lines += [
        f"works      {_describe_runs(result)}",
        f"night      {_describe_night(result)}",
        f"protected  {_describe_protection(result)}" + ("" if verbose else " (--verbose: all)"),
    ]
    problems = list(list_problems(result))
    if not problems:
        hours = " --hours 8" if result.duration_s is None else ""
        lines.append(f"ready      yes: autoresearch run{hours}")
    for number, problem in enumerate(problems, 1):
        lines.append(f"{'mend first' if number == 1 else '':<10} {number}. {problem}")
    return "\n".join(lines)


def _describe_runs(result: CheckResult) -> str:
    memory = f", {result.peak_memory_bytes / 2**20:.0f} MB" if result.peak_memory_bytes else ""
    share = f", {100 * result.sd / abs(result.mean):.2g} %" if result.mean and result.sd else ""
    noise = f" with noise (sd {result.sd:.3g}{share})" if result.sd else ", the same each time,"
    value = Numbers(Metric(result.metric, Goal.MINIMIZE), result.sd).value(result.mean)
    source = f" ([metric] {result.metric_source})" if result.metric_source else ""
    return (
        f"{result.metric}{source} {value}{noise} in {len(result.values)} runs of "
        f"{duration(result.wall_s)} ({result.cpu_s:.1f} s CPU{memory})"
    )


def _describe_night(result: CheckResult) -> str:
    seconds = result.duration_s or NIGHT_S
    length = duration(seconds) if seconds % 3600 else f"{seconds / 3600:g} h"
    end = f" until {result.ends_at[11:]}" if result.ends_at else ""
    cost = f"at most {result.experiments_in_a_night:,} experiments in {length}{end}, beside the "
    cost += "agent's own time; "
    if result.duration_s is None:
        cost = f"no limit is set; {cost}"
    if result.deterministic:
        return f"{cost}any change of the number is seen"
    share = f" ({100 * result.recognised_gain / abs(result.mean):.2g} %)" if result.mean else ""
    return (
        f"{cost}a change that gains {result.recognised_gain:.2g}{share} is kept 4 times out of 5, "
        f"and the whole gain is known to ± {result.final_error:.2g} at the end"
    )


def _describe_protection(result: CheckResult) -> str:
    first, *_ = result.not_enforced
    if first.startswith("runs read and write"):
        return f"NO: {first}"
    own = ""
    if not result.scored and result.measured:
        own = "; NOT: nothing checks that the program does the same in less time ([score])"
    elif not result.scored:
        own = "; NOT: the program prints its own number, so that an edit could falsify it ([score])"
    return f"time, memory, files and network of a run{own}"
