"""Does `verify --ablate` tell true keeps from false ones? Sessions whose truth is known.

    python benchmarks/ablation.py        # seconds

Each session has eight kept changes: six that help, by 0.5 to 4 sd of one run, and two false ones,
the first of which does nothing and the second harms by 0.5 sd. Of the best and of the best without
each change so many runs are drawn, as `verify --ablate --runs N` makes them. Intervals and verdicts
are the product's own (`autoresearch.commands.ablate`), with the noise of one run as the least gain
worth keeping. The noise of a run is Gaussian, or heavy-tailed (Student's t with 3 degrees of
freedom, the same sd).

    covered     intervals that hold the true effect; nominal 95 %
    found       false keeps that are offered for removal
    believed    false keeps that "earn their place"
    removed     true keeps of at least the least gain that are offered for removal
    earn        true keeps of at least the least gain that "earn their place"; the others stay, too

Exits with 1 if an interval covers less than 93 %.
"""

from __future__ import annotations

import argparse
import random
import sys

from truth import METRIC, Machine

from autoresearch.commands.ablate import EARNS, HURTS, NOTHING, judge_gain
from autoresearch.report.verification import compare
from autoresearch.statistics import pooled_noise

TRUE, FALSE = 6, (0.0, -0.5)  # keeps; gains in sd of one run
GAINS = (0.5, 4.0)
RUNS = (4, 8, 12, 20, 40)
MIN_COVERED = 0.93
ROW = "{:6} {:>4} {:>8} {:>7} {:>9} {:>8} {:>6}"


def play(noise: str, runs: int, sessions: int, seed: int) -> dict[str, float]:
    """The shares of each kind, over so many sessions."""
    rng = random.Random(f"{noise}/{runs}/{seed}")
    covered: list[bool] = []
    false: list[str] = []
    true: list[str] = []
    for _ in range(sessions):
        machine = Machine(noise, sessions, rng)
        gains = [rng.uniform(*GAINS) for _ in range(TRUE)] + list(FALSE)
        best = [machine.run(0.0) for _ in range(runs)]
        without = [[machine.run(gain) for _ in range(runs)] for gain in gains]
        least = pooled_noise([best, *without])[0]
        for gain, metrics in zip(gains, without, strict=True):
            result = compare(METRIC, best, metrics)
            covered.append(result.low <= gain <= result.high)
            if gain <= 0:
                false.append(judge_gain(result, least))
            elif gain >= 1:
                true.append(judge_gain(result, least))
    return {
        "covered": sum(covered) / len(covered),
        "found": sum(verdict in (NOTHING, HURTS) for verdict in false) / len(false),
        "believed": false.count(EARNS) / len(false),
        "removed": sum(verdict in (NOTHING, HURTS) for verdict in true) / len(true),
        "earn": true.count(EARNS) / len(true),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=1000, help="per row (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(ROW.format("noise", "runs", "covered", "found", "believed", "removed", "earn"))
    lowest = 1.0
    for noise in ("gauss", "heavy"):
        for runs in RUNS:
            shares = play(noise, runs, options.sessions, options.seed)
            print(ROW.format(noise, runs, *(f"{share:.1%}" for share in shares.values())))
            lowest = min(lowest, shares["covered"])
    print(f"\n{options.sessions} sessions a row, of {TRUE} true and {len(FALSE)} false keeps each")
    return lowest < MIN_COVERED


if __name__ == "__main__":
    sys.exit(main())
