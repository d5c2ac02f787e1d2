"""Everything about the task `gpt` that needs a GPU, with short runs: some ten minutes.

    python benchmarks/gpu.py --work DIR                          # on 2 shards of ClimbMix
    python benchmarks/gpu.py --work DIR --corpus TEXT            # without network
    python benchmarks/gpu.py --work DIR --original PATH/train.py # beside the original's program
    python benchmarks/gpu.py --work DIR --budget 300 --only original --original PATH/train.py
    python benchmarks/gpu.py --work DIR --corpus TEXT --toy      # on a CPU: tests this script

One session by the tuner gives the baseline and its noise (a run on each of 5 seeds), utilisation,
memory, and what starts and scores take when runs are warm and kernels precompiled. Two runs by hand
show what they take otherwise. With --original, the file of that name (karpathy/autoresearch's
train.py, or another that uses the same prepare.py) trains on the same tokens for the same time; its
bits per byte are over the same windows and true bytes. `--only attention` compares the kinds of
attention that are here. Each part is printed and kept in DIR when it is done: call it again to go
on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import ledger_path

TAG = "gpu"
DATA = ("data", "val", "holdout")
COMMAND = [sys.executable, "-m", "autoresearch"]
ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
SHIM = Path(__file__).parent / "gpu_original"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder to work in")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of training; 10")
    parser.add_argument("--seeds", type=int, default=5, help="runs of the baseline; 5")
    parser.add_argument("--experiments", type=int, default=3, help="by the tuner; 3")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--from", dest="source", help="a mirror of the shards, or a folder")
    parser.add_argument("--corpus", type=Path, help="a text of your own instead of the shards")
    parser.add_argument("--original", type=Path, help="the original's train.py")
    parser.add_argument("--only", nargs="+", choices=[*REPORTS], help="parts; all but attention")
    parser.add_argument("--toy", action="store_true", help="toy size, on the CPU")
    options = parser.parse_args()
    task = options.work.resolve() / "task"
    prepare(task, options)
    parts = {
        "machine": describe_machine,
        "session": lambda: run_session(task, options.experiments),
        "starts": lambda: {kernels: start(task, kernels, options) for kernels in ("no", "yes")},
        "attention": lambda: try_attention(task, options),
        "original": lambda: run_original(task, options),
    }
    default = ["session", "starts", *(["original"] if options.original else [])]
    for name in ("machine", *(options.only or default)):
        file = options.work / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(parts[name](), indent=1))
        print("\n".join(REPORTS[name](json.loads(file.read_text()))), flush=True)


# ---- the task -----------------------------------------------------------------------------------


def prepare(task: Path, options: argparse.Namespace) -> None:
    """Make the task with its data, budget and kernels, unless it is there."""
    if (task / "ready").exists():
        return
    shutil.rmtree(task, ignore_errors=True)
    run([*COMMAND, "new", "gpt", str(task)])
    if options.toy:
        run([sys.executable, "toy.py"], task)
    text = ["--corpus", str(options.corpus.resolve())] if options.corpus else []
    place = ["--from", options.source] if options.source else []
    run([sys.executable, "prepare.py", "--shards", str(options.shards), *place, *text], task)
    file = task / "autoresearch.toml"
    settings = re.sub(r"(?m)^budget = .*", f"budget = {options.budget:g}", file.read_text())
    settings += f"\n[judge]\nbaseline_runs = {max(2, options.seeds)}\n"
    file.write_text(settings)
    git = ["git", "-c", "user.name=b", "-c", "user.email=b@localhost"]
    run([*git, "commit", "--quiet", "--all", "--message=benchmark"], task)
    if not options.toy:
        run([sys.executable, "precompile.py"], task)
    (task / "ready").touch()


def run(command: list[str], folder: Path | None = None) -> None:
    subprocess.run(command, cwd=folder, check=True, env=ENV)


def describe_machine() -> dict[str, str]:
    import torch

    has_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if has_gpu else f"no GPU, {platform.machine()}"
    return {"device": device, "torch": torch.__version__, "python": platform.python_version()}


def show_machine(machine: dict[str, str]) -> list[str]:
    return [f"{machine['device']}; torch {machine['torch']}, Python {machine['python']}"]


# ---- a session ----------------------------------------------------------------------------------


def run_session(task: Path, experiments: int) -> dict[str, Any]:
    """The baseline's runs, and some experiments by the tuner."""
    begun = time.monotonic()
    options = ["--plain", "--tag", TAG, "--agent", "tuner", "--experiments", str(experiments or 1)]
    if (
        experiments == 0
    ):  # a session has one at least: let the baseline be all that there is time for
        options[-1:] = ["1", "--hours", "0.0001"]
    subprocess.run([*COMMAND, "run", *options], cwd=task, check=True, env=ENV)
    took_s = time.monotonic() - begun
    ledger = Ledger(ledger_path(task), readonly=True)
    record = ledger.session(TAG)
    runs = [
        {
            "bpb": run.metric,
            "start_s": (run.wall_s or 0.0) - run.numbers["training_seconds"],
            "score_s": run.score_wall_s,
            "numbers": dict(run.numbers),
        }
        for run in ledger.runs(record, 0)
        if run.metric is not None
    ]
    found = {
        "took_s": took_s,
        "baseline": runs,
        "experiments": [
            [str(one.status), one.metric, one.description]
            for one in ledger.all_experiments(record)
            if one.number > 0
        ],
    }
    ledger.close()
    return found


def show_session(session: dict[str, Any]) -> list[str]:
    runs = session["baseline"]
    bpb = [run["bpb"] for run in runs]
    numbers = {name: fmean(run["numbers"][name] for run in runs) for name in runs[0]["numbers"]}
    tokens = 1e6 * numbers["total_tokens_M"] / numbers["training_seconds"]
    noise = f"{stdev(bpb):.5f}" if len(bpb) > 1 else "unknown"
    lines = [
        "",
        f"The baseline, {len(runs)} seeds, {numbers['training_seconds']:.1f} s of training each:",
        "",
        "| | |",
        "|---|--:|",
        f"| val_bpb, mean | {fmean(bpb):.5f} |",
        f"| its standard deviation | {noise} |",
        f"| steps | {numbers['num_steps']:.0f} |",
        f"| tokens a second | {tokens:,.0f} |",
        f"| model FLOPs utilisation | {numbers['mfu_percent']:.2f} % |",
        f"| peak memory | {numbers['peak_vram_mb']:,.0f} MB |",
        f"| start and warm-up of a run (warm, precompiled) | {fmean_of(runs, 'start_s'):.1f} s |",
        f"| its score | {fmean_of(runs, 'score_s'):.1f} s |",
        "",
        f"The tuner, {len(session['experiments'])} experiments; the session took "
        f"{session['took_s']:.0f} s:",
        "",
    ]
    for status, metric, description in session["experiments"]:
        lines.append(f"    {status} {metric if metric is None else round(metric, 5)} {description}")
    return lines


def fmean_of(runs: list[dict[str, Any]], name: str) -> float:
    return fmean(run[name] or 0.0 for run in runs)


# ---- starts -------------------------------------------------------------------------------------


def start(task: Path, kernels: str, options: argparse.Namespace) -> dict[str, float]:
    """A run by hand, so a cold one, with the kernels of precompile.py or without."""
    tree = export(task, task.parent / f"start-{kernels}")
    if kernels == "no":
        (tree / "compiled").unlink()
    return train(tree, options)


def show_starts(starts: dict[str, dict[str, float]]) -> list[str]:
    lines = ["", "| start and warm-up of a cold run | s |", "|---|--:|"]
    for kernels, numbers in starts.items():
        lines.append(f"| precompiled: {kernels} | {outside_s(numbers):.1f} |")
    return lines


def outside_s(numbers: dict[str, float]) -> float:
    """Wall seconds of a run by hand outside training."""
    return numbers["wall_s"] - numbers["training_seconds"]


def export(task: Path, tree: Path) -> Path:
    """A folder with the committed programs, and links to the data."""
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", "HEAD"], cwd=task, check=True, capture_output=True, env=ENV
    )
    subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)
    for name in (*DATA, "compiled"):
        (tree / name).symlink_to(task / name)
    return tree


def train(tree: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run train.py in a folder. Returns the numbers that it prints, and `wall_s`."""
    cache = tree / "cache"
    cache.mkdir(exist_ok=True)
    env = ENV | {
        "AUTORESEARCH_BUDGET": f"{options.budget:g}",
        "AUTORESEARCH_BUDGET_CLOCK": "cpu" if options.toy else "wall",
        "AUTORESEARCH_SEED": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
        "TRITON_CACHE_DIR": str(cache / "triton"),
    }
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tree, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{tree}/train.py failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found = re.findall(r"^(\w+): +([-+\d.e]+)$", done.stdout.split("---\n")[-1], re.MULTILINE)
    return {name: float(value) for name, value in found} | {"wall_s": time.monotonic() - begun}


# ---- attention ----------------------------------------------------------------------------------


def try_attention(task: Path, options: argparse.Namespace) -> dict[str, dict[str, float] | str]:
    """A run by hand with each kind of attention; why not, if it is not here."""
    found: dict[str, dict[str, float] | str] = {}
    for name in ("flash", "flex", "sdpa"):
        tree = export(task, task.parent / f"attention-{name}")
        file = tree / "train.py"
        file.write_text(file.read_text().replace('ATTENTION = "auto"', f'ATTENTION = "{name}"'))
        try:
            found[name] = train(tree, options)
        except SystemExit as failed:
            found[name] = str(failed).strip().splitlines()[-1]
    return found


def show_attention(found: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "| attention | tokens a second | MFU | start, not precompiled |",
        "|---|--:|--:|--:|",
    ]
    for name, numbers in found.items():
        if isinstance(numbers, str):
            lines.append(f"| {name} | {numbers} | | |")
            continue
        tokens = 1e6 * numbers["total_tokens_M"] / numbers["training_seconds"]
        mfu, start_s = numbers["mfu_percent"], outside_s(numbers)
        lines.append(f"| {name} | {tokens:,.0f} | {mfu:.2f} % | {start_s:.1f} s |")
    return lines


# ---- beside the original ------------------------------------------------------------------------


def run_original(task: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The original's program and ours, one run each, on the same tokens for the same time."""
    if options.original is None:
        sys.exit("--only original needs --original PATH/train.py")
    ours = train(export(task, task.parent / "ours"), options)
    score = subprocess.run(
        [sys.executable, "score.py"],
        cwd=task.parent / "ours",
        env=ENV,
        capture_output=True,
        text=True,
        check=True,
    )
    ours["val_bpb"] = float(re.findall(r"^val_bpb: +(\S+)$", score.stdout, re.MULTILINE)[-1])
    tree = export(task, task.parent / "original")
    shutil.copy(tree / "train.py", tree / "our_train.py")
    shutil.move(tree / "prepare.py", tree / "our_prepare.py")
    shutil.copy(options.original, tree / "train.py")
    shutil.copy(SHIM / "prepare.py", tree)
    has_kernels = subprocess.run([sys.executable, "-c", "import kernels"], capture_output=True)
    if has_kernels.returncode != 0:
        shutil.copy(SHIM / "kernels.py", tree)
    attention = "its own" if has_kernels.returncode == 0 else "ours"
    return {"ours": ours, "original": train(tree, options), "attention": attention}


def show_original(found: dict[str, Any]) -> list[str]:
    lines = ["", f"Side by side, the original with {found['attention']} attention:", ""]
    lines += ["| | ours | original |", "|---|--:|--:|"]
    for name in ("val_bpb", "num_steps", "mfu_percent", "peak_vram_mb", "training_seconds"):
        values = (found[who].get(name) for who in ("ours", "original"))
        lines.append(f"| {name} | " + " | ".join(f"{value}" for value in values) + " |")
    return lines


REPORTS = {
    "machine": show_machine,
    "session": show_session,
    "starts": show_starts,
    "attention": show_attention,
    "original": show_original,
}

if __name__ == "__main__":
    main()
