"""The share of time in which the device trains, while an agent thinks for 20 % of a run's length.

    python benchmarks/utilisation.py                    # 11 minutes, of which it sleeps nearly all
    python benchmarks/utilisation.py --run-s 3 --experiments 10

Real sessions of the command `autoresearch run`, with real processes, git and confinement. The agent
is a program (`command:`) that sleeps and then sets another constant. The "device" sleeps, too, so
that the four sessions can run side by side. Every change is worse and takes one run: the agent is
asked as often as can be. Measured is the time from the moment when every slot has a change to the
start of the last change, with the incumbent's runs in between: the seconds of training, as the runs
print them, for each second and slot.

`one after another` is `--no-ahead`: a slot waits for its proposal. `ahead` is the default of an
agent that reads briefings. Exits with 1 if a device with one slot trains for less than 97 % of the
time, or with two slots for less than 95 %.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autoresearch.files import remove_tree
from autoresearch.records import Role
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths

THINKING = 0.2  # of a run's length
REACH = {1: 0.97, 2: 0.95}  # by slots
TAG = "bench"

TASK = """\
objective = "lower the loss"
editable = ["prog.py"]
[run]
command = "python -S -E prog.py"
[metric]
name = "loss"
goal = "minimize"
[judge]
baseline_runs = 2
combine = false
[agent]
probe = false
"""
PROGRAM = """\
import os, time
VALUE = 1
began = time.monotonic()
time.sleep({run_s})
print("---")
print("loss:", VALUE + int(os.environ["AUTORESEARCH_SEED"]) / 2**31 / 100)
print("training_seconds:", time.monotonic() - began)
"""
AGENT = """\
import pathlib, random, re, time
time.sleep({think_s})
path = pathlib.Path("prog.py")
value = random.randrange(1000, 10**9)
path.write_text(re.sub(r"VALUE = .*", f"VALUE = {{value}}", path.read_text()))
print(f"VALUE {{value}}")
"""


def run_session(folder: Path, slots: int, way: str, run_s: float, experiments: int) -> float:
    """Return the share of time in which a slot trains."""
    folder.mkdir()
    (folder / "autoresearch.toml").write_text(TASK)
    (folder / "prog.py").write_text(PROGRAM.format(run_s=run_s))
    (folder / "think.py").write_text(AGENT.format(think_s=THINKING * run_s))
    for command in ("init --quiet", "add --all", "commit --quiet --message start"):
        git = ["git", "-c", "user.name=b", "-c", "user.email=b@b", *command.split()]
        subprocess.run(git, cwd=folder, check=True)
    command = [sys.executable, "-m", "autoresearch", "run", "--plain", "--tag", TAG]
    command += ["--slots", str(slots), "--experiments", str(experiments), way]
    command += ["--agent", f"command:{sys.executable} think.py"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return measure(folder, slots)


def measure(folder: Path, slots: int) -> float:
    ledger = Ledger(SessionPaths(folder, TAG).ledger, readonly=True)
    record = ledger.session(TAG)
    runs = [
        run for done in ledger.all_experiments(record) for run in ledger.runs(record, done.number)
    ]
    ledger.close()
    starts = sorted(run.started_at for run in runs if run.role is Role.SCREEN)
    began, ended = starts[slots - 1], starts[-1]
    trained = 0.0
    for run in runs:
        end = run.started_at + (run.wall_s or 0.0)
        start = end - run.numbers["training_seconds"]
        trained += max(0.0, min(end, ended) - max(start, began))
    return trained / (slots * (ended - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run-s", type=float, default=60.0, help="length of a run (%(default)s)")
    parser.add_argument("--experiments", type=int, default=7, help="per slot (%(default)s)")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.0f} by other programs\n"
        f"runs of {options.run_s:g} s, an agent that thinks for {THINKING * options.run_s:g} s, "
        f"{options.experiments} experiments a slot"
    )
    print("\n| the device trains | one after another | ahead | reach |\n|---|--:|--:|--:|")
    plans = [(slots, way) for slots in REACH for way in ("--no-ahead", "--ahead")]
    with tempfile.TemporaryDirectory(prefix="autoresearch-utilisation-") as name:

        def carry_out(plan: tuple[int, str]) -> float:
            slots, way = plan
            folder = Path(name, f"{slots}{way}")
            return run_session(folder, slots, way, options.run_s, slots * options.experiments)

        with ThreadPoolExecutor(len(plans)) as pool:
            shares = dict(zip(plans, pool.map(carry_out, plans), strict=True))
        for slots, way in plans:
            remove_tree(Path(name, f"{slots}{way}"))
    for slots, reach in REACH.items():
        row = [shares[slots, "--no-ahead"], shares[slots, "--ahead"], reach]
        cells = " | ".join(f"{100 * share:.1f} %" for share in row)
        print(f"| {slots} slot{'s' if slots > 1 else ''} | {cells} |")
    sys.exit(any(shares[slots, "--ahead"] < reach for slots, reach in REACH.items()))


if __name__ == "__main__":
    main()
