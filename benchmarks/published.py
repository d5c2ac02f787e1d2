"""Which published improvements hold up under our judge: the patches of the task `gpt`, in order.

    autoresearch new gpt DIR            # then prepare.py and precompile.py, as docs/gpu.md says
    python benchmarks/published.py DIR  # reckon with a night; call it again to go on

A session by the agent `replay` proposes each patch on what was kept so far. What is printed is each
patch with the gain that was published, ours over the incumbent, and the verdict. Gains of keeps are
of fresh runs, with their 95 % interval; of the others, of the runs in which they failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

TAG = "published"
COMMAND = [sys.executable, "-m", "autoresearch"]
ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
PUBLISHED = re.compile(r"^Published: (\S+) val_bpb$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("task", type=Path, help="a prepared task gpt")
    parser.add_argument("--patches", type=Path, help="folder of patches; published/ of the task")
    options = parser.parse_args()
    patches = (options.patches or options.task / "published").resolve()
    agent = ["--agent", f"replay:{patches}"]
    limit = ["--experiments", str(len(list(patches.glob("*.patch"))))]
    run = [*COMMAND, "run", "--plain", "--tag", TAG, *agent, *limit]
    subprocess.run(run, cwd=options.task, check=True, env=ENV)
    experiments, report = (ask(options.task, command) for command in ("log", "report"))
    print(show(patches, experiments, report))


def ask(task: Path, command: str) -> Any:
    """The answer of a command of the harness, as JSON."""
    done = subprocess.run(
        [*COMMAND, command, "--json", "--tag", TAG],
        cwd=task,
        check=True,
        env=ENV,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


def show(patches: Path, experiments: list[dict[str, Any]], report: dict[str, Any]) -> str:
    """The table, as Markdown."""
    keeps = {keep["number"]: keep for keep in report["keeps"]}
    by_patch = {one["notes"].removeprefix("replay: "): one for one in experiments if one["notes"]}
    machine = (report["machine"] or {}).get("gpu") or "machine unknown"
    lines = [
        f"{machine}; baseline {keeps[0]['score']:.5f}, noise {report['noise_sd']:.5f} (sd)",
        "",
    ]
    lines += ["| change | published | ours | verdict |", "|---|--:|--:|---|"]
    for file in sorted(patches.glob("*.patch")):
        text = file.read_text()
        subject = text.partition("\n")[0].removeprefix("Subject: ")
        published = PUBLISHED.search(text)
        row = by_patch.get(file.name)
        verdict, gain = ("not measured", "") if row is None else judge(row, keeps)
        lines.append(f"| {subject} | {published[1] if published else ''} | {gain} | {verdict} |")
    return "\n".join(lines)


def judge(row: dict[str, Any], keeps: dict[int, dict[str, Any]]) -> tuple[str, str]:
    """The verdict on a change, and how val_bpb changed by it."""
    if row["status"] == "keep":
        keep = keeps[row["number"]]
        if keep["gain"] is None:
            return "keep", ""
        interval = f" ({-keep['high']:+.4f} to {-keep['low']:+.4f})" if keep["low"] else ""
        return "keep", f"{-keep['gain']:+.4f}{interval}"
    why = f"{row['status']}, {row['reason']}"
    base = keeps.get(row["base"])
    if row["metric"] is None or base is None:
        return why, ""
    return why, f"{row['metric'] - base['score']:+.4f}"


if __name__ == "__main__":
    main()
