"""The numbers behind the page's small pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.fabricated import BPB, FabricatedSession

from autoresearch.formatting import Numbers
from autoresearch.records import UNSELECTED, Role
from autoresearch.store.ledger import Ledger
from autoresearch.web.lineage import list_lineage
from autoresearch.web.strips import draw_curve, draw_strip, group_runs
from autoresearch.web.timing import compare_agents, read_timing


def test_the_parts_of_the_time_add_up(ledger: Ledger) -> None:
    night = FabricatedSession(ledger)
    assert read_timing(ledger, night.record) is None
    night.plausible(30)
    timing = read_timing(ledger, ledger.session("nov23"))
    assert timing is not None and timing.slots == 1
    wall_s = ledger.spent(night.record)["wall_s"]
    assert sum(part.seconds for part in timing.purposes) == pytest.approx(wall_s)
    assert sum(part.seconds for part in timing.parts) == pytest.approx(timing.total_s)
    # A program that says how long it trained has a start-up; others only run.
    assert [part.label for part in timing.parts][:1] == ["running"]
    run = night.open_run(0, Role.TOPUP, 99)
    facts = {"reason": None, "slot": 1, "exit_code": 0, "peak_memory_bytes": 1}
    ledger.finish_run(
        run, metric=1.6, numbers={"training_seconds": 60.0}, wall_s=100.0, cpu_s=90.0, **facts
    )
    told = read_timing(ledger, ledger.session("nov23"))
    assert told is not None and told.slots == 2
    parts = {part.label: part.seconds for part in told.parts}
    assert (parts["training"], parts["start-up and end of a run"]) == (60.0, 40.0)
    assert parts["runs that do not say how long they trained"] == pytest.approx(wall_s)


def test_agents_are_compared_by_the_hours_of_their_runs(ledger: Ledger) -> None:
    night = FabricatedSession(ledger)
    night.baseline()
    night.agent, night.costs = "claude", (1000, 0.5)
    night.change(0.05)
    night.agent, night.costs = "tuner", (None, None)
    night.change(-0.1)
    claude, tuner = compare_agents(ledger, night.record, night.summary(whole=True))
    assert (claude.share.name, tuner.share.name) == ("claude", "tuner")
    assert claude.run_s == pytest.approx(11 * 11.5) and tuner.run_s == pytest.approx(11.5)
    assert claude.gain_per_hour == pytest.approx(claude.share.gain / (11 * 11.5 / 3600))
    assert tuner.gain_per_hour is None


def test_the_lineage_names_what_each_keep_is_built_on(ledger: Ledger) -> None:
    night = FabricatedSession(ledger)
    night.baseline()
    night.change(0.05)
    night.change(0.02)
    lineage = list_lineage(ledger, night.record, night.summary(whole=True))
    assert [(row.keep.number, row.base, row.follows) for row in lineage] == [
        (0, 0, True),
        (1, 0, True),
        (2, 1, True),
    ]
    assert lineage[1].share == 1.0 and 0 < lineage[2].share < 1


def test_runs_are_points_on_one_axis(ledger: Ledger) -> None:
    night = FabricatedSession(ledger)
    night.baseline()
    night.change(0.05)
    runs = ledger.runs(night.record, 1)
    rivals = ledger.runs_of(night.record, night.commit(0), UNSELECTED)
    strip = draw_strip(group_runs(runs, night.commit(1), rivals), Numbers(BPB, 0.006))
    assert strip is not None
    assert [(row.label, len(row.points)) for row in strip.rows] == [
        ("screen", 1),
        ("confirmation", 3),
        ("measured again", 4),
        ("incumbent, confirmation", 3),
        ("incumbent, its score", 6),
    ]
    places = [point.at for row in strip.rows for point in row.points]
    assert 0 < min(places) < 6 and 94 < max(places) < 100
    own = [point.at for row in strip.rows[:3] for point in row.points]
    assert max(own) < min(point.at for row in strip.rows[3:] for point in row.points)
    crashed = [replace(run, metric=None) for run in runs]
    assert draw_strip(group_runs(crashed, night.commit(1), ()), Numbers(BPB)) is None


def test_a_curve_is_drawn_over_the_incumbents(tmp_path: Path) -> None:
    log, rival = tmp_path / "log", tmp_path / "rival"
    log.write_text("".join(f"step {step} loss {5 - step / 10}\n" for step in range(10)))
    rival.write_text("".join(f"step {step} loss {6 - step / 10}\n" for step in range(20)))
    curve = draw_curve(log, rival, BPB)
    assert curve is not None and curve.last == "4.1 at step 9"
    points = [tuple(map(float, pair.split(","))) for pair in curve.points.split()]
    assert len(points) == 10 and points[0][0] == 0.0 and points[-1][1] == 60.0
    others = [tuple(map(float, pair.split(","))) for pair in curve.rival.split()]
    assert others[0] == (0.0, 0.0) and others[-1][0] == 300.0
    log.write_text("step 1 loss 5\nstep 2 loss nan\nstep 3 loss inf\n")
    assert draw_curve(log, rival, BPB) is None
    assert draw_curve(tmp_path / "none", None, BPB) is None
