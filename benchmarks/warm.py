"""What a warm start saves: runs of `tiny_gpt` with their scores, cold and warm in turns.

    python benchmarks/warm.py                     # 6 of each: 8 minutes on a quiet machine
    python benchmarks/warm.py --runs 2 --data DIR # DIR: a prepared tiny_gpt, if there is no network

What is printed are CPU seconds, as the harness charges them, beside those that a run says it has
trained for. A run here is what screens a change: it is scored, but not on the sealed holdout. Both
ways use the same session, program and runner; cold, the task names no modules to preload. To
compare the numbers themselves, a variant of the program that trains for a fixed number of steps is
run with the same seeds in both ways. Exits with 1 if their metrics differ, or if a warm run takes
more than 4 CPU seconds outside training.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

from autoresearch.commands.start import open_session
from autoresearch.core.session import Session
from autoresearch.files import remove_tree
from autoresearch.measure.runs import RunExecutor
from autoresearch.protocols import Proposal
from autoresearch.records import Role, Run
from autoresearch.task.reading import load, override

MAX_S = 4.0
STEPS, SEEDS = 20, (1, 2)
CLOCK, FIXED = "progress = budget.progress()", f"progress = step / {STEPS}"
DATA = ("data", "val", "holdout")


class Bench:
    """Makes runs of the session's first commit, cold and warm."""

    def __init__(self, session: Session) -> None:
        self._session = session
        record, repository = session.record, session.repository
        tree = repository.tree_id(record.base_commit)
        begun = {"base": 0, "commit": record.base_commit, "tree": tree, "agent": "", "now": 0.0}
        session.ledger.begin(record, proposal=Proposal("baseline"), **begun)
        cold = override(session.task, **{"run.preload": [], "score.preload": []})
        parts = (session.paths, repository, session.runner, session.ledger, record.base_commit)
        self._executors = {"cold": RunExecutor(cold, *parts), "warm": session.executor}
        self._count = 0

    def run(self, way: str, seed: int | None = None) -> Run:
        self._count += 1
        run = self._session.ledger.open_run(
            self._session.record,
            experiment=0,
            attempt=0,
            role=Role.SCREEN,
            index=self._count,
            commit=self._session.record.base_commit,
            now=0.0,
        )
        run = run if seed is None else replace(run, seed=seed)
        done = self._executors[way].measure(run, lambda run: False)
        if done.metric is None:
            raise SystemExit(f"a run failed: {done.reason}")
        return done


@contextmanager
def make_bench(
    folder: Path, data: Path | None, train: tuple[str, str] = ("", "")
) -> Iterator[Bench]:
    """A bench on a new copy of `tiny_gpt`, with a text in its program replaced."""
    new = [sys.executable, "-m", "autoresearch", "new", "tiny_gpt", str(folder)]
    subprocess.run(new, check=True, stdout=subprocess.DEVNULL)
    program = folder / "train.py"
    program.write_text(program.read_text().replace(*train))
    for name in DATA if data else ():
        shutil.copytree(data / name, folder / name)
    prepare = [sys.executable, "prepare.py"]
    subprocess.run(prepare, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    git = ["git", "-c", "user.name=b", "-c", "user.email=b@b", "commit", "--quiet", "--all"]
    subprocess.run([*git, "--allow-empty", "-m", "benchmark"], cwd=folder, check=True)
    with open_session(load(folder), "bench", lambda line: None) as session:
        yield Bench(session)
    remove_tree(folder)


def outside_s(run: Run) -> float:
    """CPU seconds of a run and its score, without those that it trained for."""
    return (run.cpu_s or 0.0) + (run.score_cpu_s or 0.0) - run.numbers["training_seconds"]


def print_costs(runs: dict[str, list[Run]]) -> None:
    print("| median CPU s of a screened run | cold | warm |\n|---|---:|---:|")
    rows = {
        "in all": lambda run: run.cpu_s + run.score_cpu_s,
        "- training": lambda run: run.numbers["training_seconds"],
        "- the run, outside training": lambda run: run.cpu_s - run.numbers["training_seconds"],
        "- the score": lambda run: run.score_cpu_s,
        "**outside training**": outside_s,
        "wall s of the run and its score": lambda run: run.took_s,
    }
    for name, value in rows.items():
        cold, warm = (median(map(value, runs[way])) for way in ("cold", "warm"))
        print(f"| {name} | {cold:.1f} | {warm:.1f} |")
    for way in runs:
        metrics = [run.metric or 0.0 for run in runs[way]]
        print(f"\n{way}: val_bpb {fmean(metrics):.4f} on average", end="")
    print()


def compare_metrics(bench: Bench) -> bool:
    """Print the metrics of a program that is deterministic for a seed. Whether they are equal."""
    pairs = [(bench.run("cold", seed).metric, bench.run("warm", seed).metric) for seed in SEEDS]
    print(f"\nTrained for {STEPS} steps, the same seeds cold and warm:")
    for seed, (cold, warm) in zip(SEEDS, pairs, strict=True):
        print(f"- seed {seed}: {cold:.6f} and {warm:.6f}")
    return all(cold == warm for cold, warm in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=6, help="of each kind; 6")
    parser.add_argument("--data", type=Path, help="a prepared tiny_gpt, to copy its text")
    options = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="autoresearch-warm-") as name:
        folder = Path(name)
        with make_bench(folder / "fixed", options.data, (CLOCK, FIXED)) as bench:
            is_equal = compare_metrics(bench)
        print()
        with make_bench(folder / "task", options.data) as bench:
            ways = ("cold", "warm")
            runs: dict[str, list[Run]] = {way: [] for way in ways}
            for number in range(options.runs):
                for way in ways if number % 2 else reversed(ways):
                    runs[way].append(bench.run(way))
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"{options.runs} of each, in turns; {machine}, load {os.getloadavg()[0]:.1f}, ", end="")
    print(f"Python {platform.python_version()}\n")
    print_costs(runs)
    problems = [] if is_equal else ["the metrics differ"]
    if (warm_s := median(map(outside_s, runs["warm"]))) > MAX_S:
        problems.append(f"{warm_s:.1f} s outside training, more than {MAX_S:g} s")
    if problems:
        sys.exit("\n".join(["", *problems]))


if __name__ == "__main__":
    main()
