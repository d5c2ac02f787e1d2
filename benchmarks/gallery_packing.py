"""The picture of the task packing: its best packing, and the way there beside published results.

    python benchmarks/gallery_packing.py SESSION_FOLDER PICTURE

`benchmarks/gallery.py packing --save` calls it.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

BEST = "refs/autoresearch/gallery/best"
PUBLISHED = [  # name, evaluations, sum of radii; sources: docs/gallery/packing.md
    ("OpenEvolve's example, 470", 470, 2.6342924),
    ("OpenEvolve, a user's run, 450", 450, 2.635977),
    ("ShinkaEvolve, 150", 150, 2.635983),
]
ALPHAEVOLVE = 2.6358628
CHANGES, GAP = "#2a8f4f", 1e-7  # a gap of 0 has no logarithm
LIMIT = 2.635983085


def main() -> None:
    folder, picture = (Path(argument).resolve() for argument in sys.argv[1:3])
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
    draw_packing(left, find_circles(folder))
    draw_curve(right, read_scores(folder / "results.tsv"))
    figure.savefig(picture, dpi=110)


def find_circles(folder: Path) -> list[list[float]]:
    """Run the best commit, and return its circles in the unit square."""
    with tempfile.TemporaryDirectory() as tree:
        archive = subprocess.run(
            ["git", "archive", BEST], cwd=folder, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)
        env = {**os.environ, "OMP_NUM_THREADS": "1"}  # as the harness sets it for a CPU budget
        subprocess.run([sys.executable, "run.py"], cwd=tree, check=True, env=env)
        packings: list[list[list[float]]] = json.loads(Path(tree, "packing.json").read_text())
    return packings[0]


def read_scores(table: Path) -> list[float]:
    """The best sum after each experiment, the baseline first."""
    with table.open() as lines:
        rows = sorted(csv.DictReader(lines, delimiter="\t"), key=lambda row: int(row["experiment"]))
    return list(accumulate((float(row["sum_radii"]) for row in rows), max))


def draw_packing(axes: Axes, circles: list[list[float]]) -> None:
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, linewidth=1.5))
    for x, y, radius in circles:
        axes.add_patch(Circle((x, y), radius, facecolor="#cfe8d8", edgecolor=CHANGES))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_axis_off()
    axes.set_title(f"26 circles, sum of radii {sum(radius for *_, radius in circles):.9f}")


def draw_curve(axes: Axes, scores: list[float]) -> None:
    """How far each is from the best sum known, on logarithmic axes."""
    here = [max(LIMIT - score, GAP) for score in scores]
    axes.step(range(1, len(here) + 1), here, where="post", color=CHANGES, marker="o")
    axes.annotate("this session", (3, here[2]), (10, 4), textcoords="offset points", color=CHANGES)
    for name, evaluations, value in PUBLISHED:
        axes.plot(evaluations, max(LIMIT - value, GAP), "s", color="#555555")
        place = (evaluations, max(LIMIT - value, GAP))
        axes.annotate(name, place, (-8, 8), textcoords="offset points", ha="right", fontsize=9)
    axes.axhline(LIMIT - ALPHAEVOLVE, linestyle=":", color="#555555")
    axes.annotate("AlphaEvolve", (1.1, (LIMIT - ALPHAEVOLVE) * 1.2), fontsize=9)
    axes.set(xscale="log", yscale="log", xlim=(0.9, 1500), ylim=(GAP / 2, 2))
    axes.set_xlabel("programs measured, the baseline included")
    axes.set_ylabel("below 2.635983085, the best sum known")
    axes.set_title("The way there, beside published results")


if __name__ == "__main__":
    main()
