"""What the tuner finds on tiny_gpt, beside random search over the same constants.

    python benchmarks/research.py --work DIR [--experiments 100] [--seeds 8]

Two sessions side by side, one slot each, so that both meet the same machine: the tuner, and random
search (every constant drawn at once, whatever the incumbent). Random search goes on until it has
had as many runs as the tuner. Then, interleaved in random order on fresh seeds: the baseline and
both results at the full budget, and the tuner's result at smaller budgets, to find how much less
training time reaches the baseline's loss. Resumable: call it again with the same DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from autoresearch.records import Metric
from autoresearch.statistics import difference_interval
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import ledger_path
from autoresearch.store.queries import count_confirmations, count_verdicts

ARMS = {"tuner": "tuner", "random": "tuner:random"}
FRACTIONS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the budget, for the time to the baseline's loss
DATA = ("data", "val", "holdout")
METRIC = Metric("val_bpb")
COMMAND = [sys.executable, "-m", "autoresearch"]
ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder to work in")
    parser.add_argument("--experiments", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=8, help="fresh runs of each result")
    options = parser.parse_args()
    work = options.work.resolve()
    for arm in ARMS:
        prepare(work / arm)
    sessions = [
        threading.Thread(target=search, args=(work, arm, options.experiments)) for arm in ARMS
    ]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    found = evaluate(work, options.seeds)
    (work / "research.json").write_text(json.dumps(found, indent=1))
    print(report(found))


def prepare(folder: Path) -> None:
    if (folder / "data" / "meta.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([*COMMAND, "new", "tiny_gpt", str(folder)], check=True, env=ENV)
    prepared = next(folder.parent.glob("*/data/meta.json"), None)
    if prepared:
        for name in DATA:
            shutil.copytree(prepared.parents[1] / name, folder / name)
    else:
        subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True, env=ENV)


def search(work: Path, arm: str, experiments: int) -> None:
    """The session of one arm. Random search goes on until the tuner is done and it has had as
    many runs."""
    go(work / arm, arm, experiments)
    while arm == "random" and not (work / "tuner" / "report.md").exists():
        threading.Event().wait(5)
    while arm == "random" and runs(work / arm) < runs(work / "tuner"):
        experiments += 5
        go(work / arm, arm, experiments)


def go(folder: Path, arm: str, experiments: int) -> None:
    command = [*COMMAND, "run", "--plain", "--tag", "research", "--agent", ARMS[arm]]
    with (folder / "session.txt").open("a") as out:
        limit = ["--experiments", str(experiments)]
        subprocess.run([*command, *limit], cwd=folder, check=True, stdout=out, stderr=out, env=ENV)


def runs(folder: Path) -> int:
    ledger = Ledger(ledger_path(folder), readonly=True)
    spent = ledger.spent(ledger.session("research"))
    ledger.close()
    return int(spent["runs"])


def evaluate(work: Path, seeds: int) -> dict[str, object]:
    """Fresh runs of everything, two at a time, in random order."""
    trees = {"baseline": export(work, "tuner", best=False)}
    for arm in ARMS:
        trees[arm] = export(work, arm, best=True)
    jobs = [(name, 1.0) for name in trees for _ in range(seeds)]
    jobs += [("tuner", fraction) for fraction in FRACTIONS for _ in range(seeds // 2)]
    rng = random.Random(20261123)
    rng.shuffle(jobs)
    drawn = rng.sample(range(2**31), len(jobs))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda job, seed: bpb(trees[job[0]], job[1], seed), jobs, drawn))
    values: dict[str, list[float]] = {}
    for (name, fraction), value in zip(jobs, done, strict=True):
        values.setdefault(f"{name} {fraction:g}", []).append(value)
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {processor()}",
        "values": values,
        "arms": {arm: facts(work / arm) for arm in ARMS},
    }


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"model name\s*: (.*)", text)
    return found[1] if found else platform.processor()


def export(work: Path, arm: str, *, best: bool) -> Path:
    """A plain folder with a commit's files and the data."""
    folder = work / "trees" / (arm if best else "baseline")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    commit = "refs/autoresearch/research/best" if best else "refs/autoresearch/research/0"
    archive = subprocess.run(
        ["git", "archive", commit], cwd=work / arm, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    for name in DATA:
        (folder / name).symlink_to(work / arm / name)
    return folder


def bpb(tree: Path, fraction: float, seed: int) -> float:
    budget_s = 10.0 * fraction
    env = ENV | {
        "AUTORESEARCH_SEED": str(seed),
        "AUTORESEARCH_BUDGET": str(budget_s),
        "AUTORESEARCH_BUDGET_CLOCK": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory() as own:  # two run at a time, and each leaves a model
        folder = shutil.copytree(tree, Path(own, "run"), symlinks=True)
        for name in ("train.py", "score.py"):
            done = subprocess.run(
                [sys.executable, name],
                cwd=folder,
                env=env,
                check=True,
                capture_output=True,
                text=True,
            )
    return float(re.findall(r"^val_bpb:\s+(\S+)", done.stdout, re.MULTILINE)[-1])


def facts(folder: Path) -> dict[str, object]:
    ledger = Ledger(ledger_path(folder), readonly=True)
    row = ledger.session("research")
    keeps = ledger.keeps(row)
    found = {
        "experiments": ledger.started(row),
        "runs": ledger.spent(row)["runs"],
        "cpu_s": ledger.spent(row)["cpu_s"],
        "counts": count_verdicts(ledger, row),
        "confirmations": count_confirmations(ledger, row),
        "keeps": [f"{one.metric:.4f} {one.description}" for one in keeps if one.metric],
    }
    ledger.close()
    return found


def time_to_loss(values: dict[str, list[float]], name: str, target: float) -> float | None:
    """The fraction of the budget at which `name` reaches `target`, by linear interpolation
    between the mean losses at the measured fractions; None when it does not reach it."""
    points = [(f, fmean(values[f"{name} {f:g}"])) for f in (*FRACTIONS, 1.0)]
    if points[0][1] <= target:
        return points[0][0]
    for (f0, v0), (f1, v1) in pairwise(points):
        if v1 <= target:
            return f0 + (f1 - f0) * (v0 - target) / (v0 - v1)
    return None


def report(found: dict[str, object]) -> str:
    values: dict[str, list[float]] = found["values"]  # type: ignore[assignment]
    baseline = values["baseline 1"]
    lines = [str(found["machine"]), "", "| | val_bpb | gain over the baseline | 95 % interval |"]
    lines += ["|---|--:|--:|--:|", f"| baseline | {fmean(baseline):.4f} | | |"]
    for arm in ARMS:
        mine = values[f"{arm} 1"]
        gain, low, high = difference_interval(METRIC, mine, baseline)
        share = 100 * gain / fmean(baseline)
        shown = f"{gain:+.4f} ({share:+.1f} %) | {low:+.4f} to {high:+.4f}"
        lines.append(f"| {arm} | {fmean(mine):.4f} | {shown} |")
    gain, low, high = difference_interval(METRIC, values["tuner 1"], values["random 1"])
    lines.append(f"\ntuner over random search: {gain:+.4f} bpb, {low:+.4f} to {high:+.4f}")
    fraction = time_to_loss(values, "tuner", fmean(baseline))
    if fraction is None:
        lines.append("the tuner's result does not reach the baseline's loss")
    else:
        sign = "at least " if fraction == FRACTIONS[0] else ""
        lines.append(
            f"training time to the baseline's loss: {sign}{100 * (1 - fraction):.0f} % less"
        )
    arms: dict[str, dict[str, object]] = found["arms"]  # type: ignore[assignment]
    for arm, facts in arms.items():
        lines += [
            "",
            f"{arm}: {facts['experiments']} experiments, {facts['runs']} runs, "
            f"{facts['confirmations']} confirmations, {facts['counts']}",
        ]
        lines += [f"    {line}" for line in facts["keeps"]]  # type: ignore[attr-defined]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
