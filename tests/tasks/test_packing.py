"""The task packing: its score is exact, and an answer in the source does not pass."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from support.sessions import ScriptedAgent, Step, git, run_session

from autoresearch.protocols import Proposal, Turn

TASK = Path(__file__).parents[2] / "src" / "autoresearch" / "tasks" / "packing"
CHANGES = TASK.parents[3] / "docs" / "gallery" / "packing" / "changes"
IGNORED = shutil.ignore_patterns("__pycache__")


class Scorer:
    """The task's scorer, on circles that a test makes up."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.module = importlib.import_module("score")

    def judge(self, packings: object) -> str:
        """What it prints about these circles: the sum, or the error."""
        (self.folder / "packing.json").write_text(json.dumps(packings))
        try:
            self.module.main()
        except SystemExit as refused:
            return str(refused)
        return self.capsys.readouterr().out


@pytest.fixture
def scorer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Scorer]:
    monkeypatch.syspath_prepend(str(TASK))
    monkeypatch.chdir(tmp_path)
    yield Scorer(tmp_path, capsys)
    for name in ("score", "problem"):
        sys.modules.pop(name, None)


GRID = [[0.05 + 0.1 * (i % 5), 0.85 - 0.1 * (i // 5), 0.01] for i in range(26)]


def test_the_score_is_the_exact_sum(scorer: Scorer) -> None:
    exact = float(26 * Fraction(0.01))
    assert f"sum_radii:        {exact!r}\n" in scorer.judge([GRID, GRID])


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
    scorer: Scorer, circles: list[list[object]], message: str
) -> None:
    """Circles of a grid, of which the first are replaced."""
    told = scorer.judge([[*circles, *GRID[len(circles) :]], GRID])
    assert f"error: {message}" in told and "sum_radii" not in told


def test_circles_that_touch_are_a_packing(scorer: Scorer) -> None:
    grid = [[0.125 + 0.125 * (i % 6), 0.125 + 0.125 * (i // 6), 0.0625] for i in range(26)]
    assert "sum_radii:        1.625\n" in scorer.judge([grid, grid])


@pytest.mark.parametrize("packings", [[], [ROW], {"a": 1}, [ROW[:25], ROW]])
def test_another_number_of_circles_is_refused(scorer: Scorer, packings: object) -> None:
    assert "error: " in scorer.judge(packings)


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
