"""What progress.png shows, read from its SVG, whose text is text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support.fabricated import NOW, FabricatedSession

from autoresearch.records import Role
from autoresearch.report.gap_panel import align, draw_gap, needs_gap
from autoresearch.report.plot import list_steps, plot_svg
from autoresearch.store.ledger import Ledger

MOVED = 0.2  # by the second segment


@pytest.fixture
def session(tmp_path: Path) -> Iterator[FabricatedSession]:
    (tmp_path / ".autoresearch").mkdir()
    with closing(Ledger(tmp_path / ".autoresearch" / "ledger.sqlite")) as ledger:
        yield FabricatedSession(ledger)


def begin_segment(session: FabricatedSession, reason: str) -> None:
    """The machine is another from now on: every number is larger by `MOVED`."""
    ledger, record = session.ledger, session.record
    number = len(ledger.segments(record))
    ledger.begin_segment(record, number, reason=reason, fingerprint={}, now=NOW)
    if number:
        session.means = {of: mean + MOVED for of, mean in session.means.items()}
        run = ledger.open_run(
            record,
            experiment=session.incumbent,
            attempt=0,
            role=Role.SEGMENT,
            index=0,
            commit=session.commit(session.incumbent),
            now=NOW,
            segment=number,
        )
        session.end(run, session.means[session.incumbent])


def test_crashes_and_segments_are_named(session: FabricatedSession) -> None:
    begin_segment(session, "the session began")
    session.baseline()
    session.change(0.1)
    session.crash()
    begin_segment(session, "driver 550.1 -> 551.2")
    session.crash()
    svg = plot_svg(session.summary(whole=True))
    assert "Crashed (2)" in svg and "segment 1: driver 550.1 -&gt; 551.2" in svg
    assert "gap to the best" not in svg


def test_late_small_gains_have_a_panel(session: FabricatedSession) -> None:
    session.baseline(2.0)
    session.change(0.9, "large")
    session.change(-0.05)
    session.change(0.006, "small")
    summary = session.summary(whole=True)
    svg = plot_svg(summary)
    assert "gap to the best" in svg and "sd of one run" in svg
    assert not needs_gap(summary, list_steps(summary)[:2], 1.0)


def test_a_best_that_is_not_the_last_can_be_drawn(session: FabricatedSession) -> None:
    """A keep whose fresh runs are worse than those of the one before."""
    session.baseline(1.6)
    session.change(0.1)
    session.change(0.02)
    session.means[session.incumbent] += 0.03
    session.change(0.005)
    summary = session.summary(whole=True)
    axes = Figure().add_subplot()
    draw_gap(axes, summary, list_steps(summary), [], last=3)
    assert 0 < axes.get_ylim()[0] < 0.02


def test_what_a_new_segment_moves_is_no_gain(session: FabricatedSession) -> None:
    """Every step is on the scale of the last segment, in which the baseline is larger too."""
    begin_segment(session, "the session began")
    session.baseline(2.0)
    session.change(0.5)
    begin_segment(session, "another machine")
    summary = session.summary(whole=True)
    steps = list_steps(summary)
    baseline, keep, again = (value for _, value in align(summary, steps))
    assert steps[2][1] == again == keep
    assert baseline - keep == pytest.approx(steps[0][1] - steps[1][1])
