"""A real session of a ready task, from `autoresearch new` to its verified result.

    python benchmarks/gallery.py NAME --work DIR [--experiments 150] [--agent tuner] [--runs 12]
        [--save]

NAME is a folder of src/autoresearch/tasks. Called again with the same DIR it goes on. It prints
what the session found and what that cost. If docs/gallery/NAME/changes holds the changes of an
agent's session, they are measured again; else the tuner makes its own. With `--save` the text goes
to benchmarks/results/gallery_NAME.txt, from where `python scripts/docs.py` takes it into
docs/gallery.md and the task's README, and the session's picture to docs/gallery/NAME.png, or what
benchmarks/gallery_NAME.py draws instead.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "autoresearch"]
ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
TAG = "gallery"
NEAR_MISSES = "near misses together"  # begins the description of such an experiment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in")
    parser.add_argument("--experiments", type=int, default=150)
    parser.add_argument("--agent", help="by default the saved changes, or else the tuner")
    parser.add_argument("--runs", type=int, help="of each version, for `verify --ablate`")
    parser.add_argument("--save", action="store_true", help="write what README and docs/ show")
    options = parser.parse_args()
    folder = options.work.resolve() / options.name
    if not folder.exists():
        call("new", options.name, str(folder))
        if (folder / "prepare.py").exists():
            subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True, env=ENV)
    limit = ["--experiments", str(options.experiments)]
    task = [str(folder), "--tag", TAG]
    changes = ROOT / "docs" / "gallery" / options.name / "changes"
    agent = options.agent or (f"replay:{changes}" if changes.exists() else "tuner")
    call("run", *task, "--plain", "--agent", agent, *limit)
    ablation = ""
    if options.runs:
        said = call("verify", *task, "--ablate", "--runs", str(options.runs))
        ablation = f"\n\n{said[said.index('experiment ') :].strip()}"
    report, experiments = (json.loads(call(name, *task, "--json")) for name in ("report", "log"))
    text = describe(report, experiments, options.name) + ablation
    print(text)
    if options.save:
        (ROOT / "benchmarks" / "results" / f"gallery_{options.name}.txt").write_text(f"{text}\n")
        save_picture(options.name, folder)


def save_picture(name: str, folder: Path) -> None:
    picture = ROOT / "docs" / "gallery" / f"{name}.png"
    picture.parent.mkdir(exist_ok=True)
    own = ROOT / "benchmarks" / f"gallery_{name}.py"
    if own.exists():
        subprocess.run([sys.executable, own, folder, picture], check=True, env=ENV)
    else:
        shutil.copyfile(folder / "progress.png", picture)


def call(*arguments: str) -> str:
    """Call a command of the product. Return what it prints."""
    command = [*COMMAND, *arguments]
    return subprocess.run(command, check=True, env=ENV, stdout=subprocess.PIPE, text=True).stdout


def describe(report: dict[str, Any], experiments: list[dict[str, Any]], name: str) -> str:
    metric, verified = report["metric"]["name"], report["verification"]
    minutes, cpu_minutes = report["elapsed_s"] / 60, report["cpu_s"] / 60
    counts = ", ".join(f"{report[word]} {word}" for word in ("keep", "discard", "crash"))
    lines = [
        f"{name}: {report['finished']} experiments by `{report['agent']}`, {report['runs']} runs "
        f"in {minutes:.0f} minutes ({cpu_minutes:.0f} of CPU time in runs)",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        f"{counts}; {report['confirmations']} confirmations, "
        f"{report['false_keeps_expected']:.2f} false keeps expected at most",
        "",
    ]
    if verified:
        lines += [
            f"{metric}, measured again on {verified['new_runs']} fresh seeds each: "
            f"{verified['old_mean']:.4g} -> {verified['new_mean']:.4g}",
            f"gain {verified['gain']:.4g}, 95 % interval {verified['low']:.4g} to "
            f"{verified['high']:.4g} ({'; '.join(report['checks']['words'])})",
        ]
    else:
        best, first = report["incumbent"]["score"], report["baseline"]["score"]
        lines.append(f"{metric}: {first:.10g} -> {best:.10g}, reproduced exactly")
    if report["holdout"]:
        held, gap = report["holdout"]["held_out"], report["holdout"]["gap"]
        interval = f"95 % interval {gap['low']:.4g} to {gap['high']:.4g}" if verified else "exactly"
        lines.append(
            f"on the sealed holdout: {held['old_mean']:.4g} -> {held['new_mean']:.4g}; the gap has "
            f"grown by {gap['growth']:.4g} ({interval})"
        )
    lines += ["", f"kept, with {metric} as measured then:"]
    digits = 4 if verified else 7
    for keep in report["keeps"]:
        lines.append(f"{keep['number']:5} {keep['score']:.{digits}g} {keep['description']}")
        lines += [f"{'':11} #{part}" for part in list_parts(keep, experiments)]
    return "\n".join(lines)


def list_parts(keep: dict[str, Any], experiments: list[dict[str, Any]]) -> list[str]:
    """The changes of a keep that was made of near misses."""
    numbers = re.findall(r"\d+", keep["description"]) if NEAR_MISSES in keep["description"] else []
    known = {one["number"]: one["description"] for one in experiments}
    return [f"{number} {known[int(number)]}" for number in numbers]


if __name__ == "__main__":
    main()
