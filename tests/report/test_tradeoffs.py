"""The report's table of the metric beside a second number."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import call
from support.sessions import PROGRAM, TASK, ScriptedAgent, change, make_task, run_session

from autoresearch.records import Goal, Metric
from autoresearch.report.tradeoffs import Point, find_front

LOSS, SPEED = Metric("loss"), Metric("speed", Goal.MAXIMIZE)
VALUES = st.floats(-1e6, 1e6)


def point(number: int, metric: float, second: float) -> Point:
    return Point(number, "c" * 40, "a change", "discard", metric, second, 1)


def dominates(one: Point, other: Point) -> bool:
    gains = LOSS.gain(one.metric, other.metric), SPEED.gain(one.second, other.second)
    return min(gains) >= 0 and max(gains) > 0


@given(st.lists(st.tuples(VALUES, VALUES), max_size=12))
def test_the_front_is_what_no_other_beats_in_both(values: list[tuple[float, float]]) -> None:
    points = [point(number, *pair) for number, pair in enumerate(values)]
    front = find_front(points, LOSS, SPEED)
    unbeaten = [p for p in points if not any(dominates(other, p) for other in points)]
    assert {(p.metric, p.second) for p in front} == {(p.metric, p.second) for p in unbeaten}
    assert len({(p.metric, p.second) for p in front}) == len(front)
    assert [p.metric for p in front] == sorted(p.metric for p in front)


SIZED = f"{TASK}[second]\nname = 'size'\ngoal = 'minimize'\n[guards]\nsize = '< 200'\n"


def test_the_report_of_a_session(tmp_path: Path) -> None:
    """Only the metric decides; what was discarded stands in the table, too."""
    program = PROGRAM.replace("SPREAD = 0.1", "SPREAD = 0.0")
    program += "print('size:', 100 - 3 * VALUE - (50 if BONUS else 0))\n"
    root = make_task(tmp_path / "task", program, SIZED)
    steps = [change(VALUE=4.0), change(VALUE=4.5, BONUS=1.0), change(VALUE=20.0)]
    steps += [change(VALUE=30.0, SPREAD="crash"), change(VALUE=-50.0), change(VALUE=-60.0)]
    found = run_session(root, ScriptedAgent(*steps))
    verdicts = ["keep", "discard", "discard", "crash", "discard", "discard"]
    assert [status for status, _ in found.verdicts] == verdicts
    assert call(root, "report", "--html").returncode == 0
    page = (root / "report.md").read_text()
    section = page.partition("## score beside size\n")[2].partition("\n## ")[0]
    assert "score alone decided what was kept; size (minimize) decides nothing" in section
    rows = [row.split(" | ") for row in section.splitlines() if row.startswith("| ")][1:]
    assert [(row[0], *row[2:6]) for row in rows] == [
        ("| 1", "4", "88", "3", "keep"),
        ("| 2", "4.5", "36.5", "1", "discard"),
    ]  # the baseline is beaten in both
    assert "Of 4 experiments with both numbers that kept to the guards" in section
    assert "- 2 × **guard failed: size**: VALUE -60.0 (#6), VALUE -50.0 (#5)" in page
    assert "score beside size" in (root / "report.html").read_text()


def test_a_second_number_that_nothing_prints(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", toml=SIZED.replace("[guards]\nsize = '< 200'\n", ""))
    done = call(root, "check")
    assert done.returncode != 0
    assert "[second] name: no run prints 'size'; accepted: a number that every run" in done.stderr
    run_session(root, ScriptedAgent(), limits__experiments=1)
    call(root, "report")
    assert "No run printed size." in (root / "report.md").read_text()


def test_the_metric_is_no_second_number(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", toml=SIZED.replace("'size'", "'score'"))
    assert 'name: "score" is the metric; name another number' in call(root, "check").stderr


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{ timeout = "1m" }', "a key is missing"),
        ('{ command = "x", timeout = "soon" }', '"soon": not a duration'),
        ('{ command = "x", limit = 3 }', "3: unknown key"),
        ("3", "not text"),
    ],
)
def test_a_guard_that_is_wrong(tmp_path: Path, value: str, message: str) -> None:
    root = make_task(tmp_path / "task", toml=f"{TASK}[guards.commands]\nt = {value}\n")
    said = call(root, "check").stderr
    assert message in said
    assert 'accepted: a command such as "pytest -q", or { command = "pytest -q", timeout' in said
