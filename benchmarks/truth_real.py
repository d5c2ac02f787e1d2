"""Real sessions in which nothing helps: is what they announce, and the score they report, true?

    python benchmarks/truth_real.py [--sessions 6] [--experiments 300]

The task `instant` with `INSTANT_NULL=1`: the loss is 1 + noise (sd 0.01) whatever the constants, so
every keep is false and the truth is known to be 1. Real commits, processes and ledger, the tuner as
the agent. `benchmarks/truth.py` simulates many more sessions with the same judge.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from autoresearch.cli import look
from autoresearch.core import judge
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths

TRUTH, SD = 1.0, 0.01
COMMAND = [sys.executable, "-m", "autoresearch"]
KINDS = ("gauss", "heavy", "drift")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=6, help="a third of each kind of noise")
    parser.add_argument("--experiments", type=int, default=300)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("noise   experiments  runs  confirmations  announced  false keeps  score - truth (sd)")
    announced, keeps = 0.0, 0
    for index in range(options.sessions):
        kind = KINDS[index % len(KINDS)]
        with tempfile.TemporaryDirectory() as folder:
            found = session(Path(folder) / "instant", kind, options.experiments)
        announced += found["announced"]
        keeps += int(found["keeps"])
        # The drift is a part of the score that no session can know, so its truth is not 1.
        bias = "-" if kind == "drift" else f"{found['bias']:+.2f}"
        print(
            f"{kind:<8}{options.experiments:>11}{found['runs']:>6.0f}"
            f"{found['confirmations']:>15.0f}{found['announced']:>11.2f}{found['keeps']:>13.0f}"
            f"{bias:>20}",
            flush=True,
        )
    print(f"\nin all: {keeps} false keeps, {announced:.1f} announced")


def session(root: Path, kind: str, experiments: int) -> dict[str, float]:
    env = os.environ | {
        "INSTANT_NULL": "1",
        "INSTANT_NOISE": str(SD),
        "INSTANT_NOISE_KIND": kind,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "env": env}
    subprocess.run([*COMMAND, "new", "instant", str(root)], **quiet)  # type: ignore[call-overload]
    command = [*COMMAND, "run", str(root), "--plain", "--tag", "null"]
    subprocess.run([*command, "--experiments", str(experiments)], **quiet)  # type: ignore[call-overload]
    ledger = Ledger(SessionPaths(root, "null").ledger, readonly=True)
    found = look.read_summary(ledger, SessionPaths(root, "null"))
    best = found.incumbent
    assert best is not None and best.score is not None
    result = {
        "runs": float(found.runs),
        "confirmations": float(found.confirmations),
        "announced": found.confirmations * judge.LEVELS["default"].false_keep,
        "keeps": float(found.keep),
        "bias": (best.score - TRUTH) / SD,
    }
    ledger.close()
    return result


if __name__ == "__main__":
    main()
