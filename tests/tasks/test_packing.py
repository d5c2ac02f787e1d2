"""The task packing: its score is exact, and an answer in the source does not pass."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from support.sessions import ScriptedAgent, Step, git, run_session

from autoresearch.protocols import Proposal, Turn

TASK = Path(__file__).parents[2] / "src" / "autoresearch" / "tasks" / "packing"
CHANGES = TASK.parents[3] / "docs" / "gallery" / "packing" / "changes"
IGNORED = shutil.ignore_patterns("__pycache__")


def call(folder: Path, *arguments: str, seed: int = 1) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "AUTORESEARCH_SEED": str(seed), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task after a run of the unchanged program."""
    folder = shutil.copytree(TASK, tmp_path_factory.mktemp("packing") / "task", ignore=IGNORED)
    assert call(folder, "run.py").returncode == 0
    return folder


def score(packed: Path, packings: object) -> str:
    """What the scorer prints about other circles than the run's: the sum, or the error."""
    text = json.dumps(packings)
    before = (packed / "packing.json").read_text()
    try:
        (packed / "packing.json").write_text(text)
        done = call(packed, "score.py")
    finally:
        (packed / "packing.json").write_text(before)
    return done.stdout + done.stderr


def test_the_score_is_the_exact_sum(packed: Path) -> None:
    packings = json.loads((packed / "packing.json").read_text())
    exact = float(sum(Fraction(radius) for *_, radius in packings[0]))
    assert f"sum_radii:        {exact!r}\n" in score(packed, packings)
    assert 1.8 < exact < 1.9


ROW = [[0.5, 0.5, 0.01]] * 26


@pytest.mark.parametrize(
    ("circles", "message"),
    [
        ([[0.25, 0.5, 0.25], [math.nextafter(0.75, 0), 0.5, 0.25]], "circles 0 and 1 overlap"),
        ([[0.25, 0.5, math.nextafter(0.25, 1)]], "circle 0 leaves the 1.0 x 1.0 rectangle"),
        ([[0.5, 0.5, 0.0]], "circle 0 has the radius 0.0"),
        ([[0.5, 0.5, -1.0]], "circle 0 has the radius -1.0"),
        ([[math.nan, 0.5, 0.1]], "circle 0 should be three finite numbers"),
        ([[0.5, 0.5, math.inf]], "circle 0 should be three finite numbers"),
        ([[0.5, 0.5, True]], "circle 0 should be three finite numbers"),
        ([[0.5, 0.5, "1"]], "circle 0 should be three finite numbers"),
        ([[0.5, 0.5]], "circle 0 should be three finite numbers"),
    ],
)
def test_what_is_no_packing_is_refused(
    packed: Path, circles: list[list[object]], message: str
) -> None:
    """Circles of a grid, of which the first are replaced."""
    grid = [[0.05 + 0.1 * (i % 5), 0.95 - 0.1 * (i // 5), 0.001] for i in range(26)]
    told = score(packed, [[*circles, *grid[len(circles) :]], grid])
    assert f"error: {message}" in told and "sum_radii" not in told


def test_circles_that_touch_are_a_packing(packed: Path) -> None:
    grid = [[0.125 + 0.125 * (i % 6), 0.125 + 0.125 * (i // 6), 0.0625] for i in range(26)]
    assert "sum_radii:        1.625\n" in score(packed, [grid, grid])


@pytest.mark.parametrize("packings", [[], [ROW], {"a": 1}, [ROW[:25], ROW]])
def test_another_number_of_circles_is_refused(packed: Path, packings: object) -> None:
    assert "error: " in score(packed, packings)


def put(name: str, source: str) -> Step:
    def step(turn: Turn) -> Proposal:
        (turn.worktree / "pack.py").write_text(source)
        return Proposal(name)

    return step


def copy_task(folder: Path) -> Path:
    root = shutil.copytree(TASK, folder / "task", ignore=IGNORED)
    git(root, "init", "-q", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "-qm", "start")
    return root


def test_cheats_are_refused_and_a_tie_is_no_progress(tmp_path: Path) -> None:
    root = copy_task(tmp_path)
    honest = (TASK / "pack.py").read_text()
    grid = "[(0.1 + 0.2 * (i % 5), 0.1 + 0.2 * (i // 5), 0.0999) for i in range(25)]"
    recited = f"SQUARE = {grid} + [(0.2, 0.2, 0.04)]\n"
    forged = 'print("---\\nsum_radii: 9.0")\n'
    cheats = [
        put("an answer for the square alone", f"{recited}def pack(w, h): return SQUARE\n"),
        put(
            "an answer for the square, and little else",
            f"{recited}def pack(w, h):\n"
            "    return SQUARE if w == 1 else [(0.1 + i / 32, 0.5, 0.01) for i in range(26)]\n",
        ),
        put("a number of its own", f"{honest}{forged}"),
        put("a scorer of its own", f"{honest}\nopen('score.py', 'w').write({forged!r})\n"),
        put("gains of rounding", honest.replace("SHRINK = 1e-12", "SHRINK = 1e-13")),
    ]
    found = run_session(root, ScriptedAgent(*cheats), judge__baseline_runs=2)
    assert found.verdicts == [
        ("crash", "score: exit code 1"),
        ("crash", "score: exit code 1"),
        ("discard", "not better"),
        ("discard", "not better"),
        ("discard", "not better"),
    ]
    [first] = found.runs_of(1)
    assert "leaves the" in (found.paths.runs / first.name / "score.log").read_text()
    [second] = found.runs_of(2)
    assert "less than 0.95 of" in (found.paths.runs / second.name / "score.log").read_text()
    assert found.experiments[5].detail.startswith("a gain of ")


@pytest.mark.slow  # 40 CPU seconds
def test_the_published_session_comes_out_the_same(tmp_path: Path) -> None:
    """Of its five keeps, in order: numbers that differ by machine only in the last digits."""
    root = copy_task(tmp_path)
    command = [sys.executable, "-m", "autoresearch", "run", "--plain", "--experiments", "8"]
    subprocess.run([*command, "--agent", f"replay:{CHANGES}"], cwd=root, check=True)
    lines = (root / "results.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    assert [row[3] for row in rows] == ["keep"] * 6 + ["discard"] * 3
    assert max(float(row[1]) for row in rows) == pytest.approx(2.635983, abs=1e-6)
