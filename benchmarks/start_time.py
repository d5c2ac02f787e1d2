"""What the commands that only look cost: CPU seconds of the whole process, from start to exit.

    python benchmarks/start_time.py                    # this source tree
    python benchmarks/start_time.py --against PATH     # and another one, in the same run

Each tree makes a finished session of the instant task with its own code, then runs the commands
on it, `--runs` times, the trees in turn. A number is the median of user and system time, that of
children included; compiled files are there before the first run counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

COMMANDS = (["status"], ["log"], ["show", "1"], ["brief"])
EXPERIMENTS = 8
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", type=Path, metavar="PATH", help="another source tree")
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="of each command")
    options = parser.parse_args()
    trees = [*([options.against.resolve()] if options.against else []), ROOT]
    cores = os.cpu_count()
    python = platform.python_version()
    print(f"{platform.system()} {platform.machine()}, {cores} cores, Python {python}; ", end="")
    print(f"median of {options.runs} runs, CPU seconds\n")
    print("| command |", " | ".join([*(["against"] if options.against else []), "this tree"]), "|")
    print("|---|" + "---:|" * len(trees), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tasks = [make_session(tree, Path(folder, str(i))) for i, tree in enumerate(trees)]
        for command in [[], *COMMANDS]:
            times: list[list[float]] = [[] for _ in trees]
            for run in range(options.runs + 1):
                for tree, task, spent in zip(trees, tasks, times, strict=True):
                    cpu_s = measure(tree, command, task)
                    if run > 0:  # the first one compiles
                        spent.append(cpu_s)
            name = f"`{' '.join(command)}`" if command else "Python alone"
            cells = " | ".join(f"{median(spent):.3f}" for spent in times)
            print(f"| {name} | {cells} |", flush=True)


def make_session(tree: Path, task: Path) -> Path:
    """The folder of a task with a finished session."""
    subprocess.run([*autoresearch("new", "instant", str(task))], **quiet(tree))
    run = ["run", "--agent", "tuner", "--experiments", str(EXPERIMENTS), "--plain"]
    subprocess.run([*autoresearch(*run), str(task)], **quiet(tree))
    return task


def measure(tree: Path, command: list[str], task: Path) -> float:
    """CPU seconds of one command; of Python alone, if there are no words."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = autoresearch(*command, str(task)) if command else [sys.executable, "-c", ""]
    subprocess.run(words, **quiet(tree))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def autoresearch(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "autoresearch", *words]


def quiet(tree: Path) -> dict[str, object]:
    """How to run a program with the code of that tree."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users have compiled files
    return {"env": environment, "check": True, "stdout": subprocess.DEVNULL}


if __name__ == "__main__":
    main()
