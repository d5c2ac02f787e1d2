"""The picture of the task classifier: the loss that decides, and the loss on the sealed holdout.

    python benchmarks/gallery_classifier.py SESSION_FOLDER PICTURE

`benchmarks/gallery.py classifier --save` calls it.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure


def main() -> None:
    folder, picture = (Path(argument).resolve() for argument in sys.argv[1:3])
    command = [sys.executable, "-m", "autoresearch", "report", str(folder), "--json"]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    holdout = json.loads(report)["holdout"]
    gains = {int(number): gain for number, gain in holdout["gains"].items()}
    with (folder / "results.tsv").open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    last = max(int(row["experiment"]) for row in rows)
    scores = {
        int(row["experiment"]): float(row["val_loss"]) for row in rows if row["status"] == "keep"
    }
    keeps = sorted(scores)
    lost = accumulate((-gains[number] for number in keeps[1:]), initial=0.0)
    held_out = [holdout["held_out"]["old_mean"] + change for change in lost]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    curves = (
        ("val_loss, which decides (100 images)", [scores[n] for n in keeps], "#2a8f4f"),
        ("the sealed holdout (1,397 images)", held_out, "#c0392b"),
    )
    for name, losses, colour in curves:
        axes.step([*keeps, last], [*losses, losses[-1]], where="post", label=name, color=colour)
    best = held_out.index(min(held_out))
    text = f"best on the holdout: {held_out[best]:.3f}, experiment {keeps[best]}"
    axes.annotate(text, (keeps[best], held_out[best]), (0, -22), textcoords="offset points")
    axes.set(yscale="log", xlabel="experiment", ylabel="cross-entropy, nats", ylim=(0.05, 1.3))
    axes.set_title("Fitting the metric: what the tuner kept, and what nobody saw")
    axes.legend()
    figure.savefig(picture, dpi=110)
    print(text)


if __name__ == "__main__":
    main()
