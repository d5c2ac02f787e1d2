"""`verify --reaches`: how many runs reach a score, and what that says of all seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from math import comb
from pathlib import Path

import pytest
from support.commands import call
from support.fabricated import ACCURACY, FabricatedSession
from support.sessions import make_task, night

from autoresearch.records import Role
from autoresearch.report.reaches import binomial_interval, reached_text, read_reached
from autoresearch.store.ledger import Ledger

SEARCH = """\
import os
seed = int(os.environ["AUTORESEARCH_SEED"])
print("score:", seed % 1000)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / ".autoresearch-ledger.sqlite")) as ledger:
        yield ledger


@pytest.mark.parametrize(
    ("hits", "runs", "low", "high"),  # from printed tables of the exact interval
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (1, 20, 0.0013, 0.2487), (10, 10, 0.6915, 1.0)],
)
def test_the_interval_is_the_exact_one(hits: int, runs: int, low: float, high: float) -> None:
    assert binomial_interval(hits, runs) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("runs", [6, 25])
def test_it_covers_the_truth_as_often_as_it_says(share: float, runs: int) -> None:
    """Added up over every outcome, so nothing here is left to luck."""
    covered = 0.0
    for hits in range(runs + 1):
        low, high = binomial_interval(hits, runs)
        if low <= share <= high:
            covered += comb(runs, hits) * share**hits * (1 - share) ** (runs - hits)
    assert covered >= 0.95


def test_many_runs_do_not_overflow() -> None:
    low, high = binomial_interval(990, 1100)
    assert 0.88 < low < 0.9 < high < 0.92


def test_runs_of_the_best_and_of_the_baseline_are_counted_apart(ledger: Ledger) -> None:
    """A score that is met exactly is reached. A crash reaches nothing."""
    session = FabricatedSession(ledger, metric=ACCURACY)
    session.baseline(0.5)
    best = session.change(0.3).number
    for index, value in enumerate((0.8, 0.79, None, 0.9)):
        session.end(session.open_run(best, Role.VERIFY, index), value, value and None)
        session.end(session.open_run(best, Role.VERIFY_BASELINE, index, of=0), 0.5)
    ours, baseline = read_reached(ledger, session.record, 0.8)
    assert (ours.number, ours.hits, ours.runs, ours.crashed) == (best, 2, 4, 1)
    assert (baseline.number, baseline.hits, baseline.runs) == (0, 0, 4)
    text = reached_text([ours, baseline], session.record, 0.8)
    assert "at least 0.8" in text and "2 of 4 runs (95 % interval 7 % to 93 %), 1 crashed" in text


def test_the_command_makes_the_runs_and_counts_them(tmp_path: Path) -> None:
    """Before anything was kept it is about the baseline alone."""
    root = make_task(tmp_path / "task", SEARCH)
    call(root, "start", "--tag", "t")
    done = call(root, "verify", "--reaches", "500", "--runs", "3", "--json")
    [side] = json.loads(done.stdout)["reached"]
    made = [run for run in night(root, "t").runs if run.role is Role.VERIFY_BASELINE]
    assert side["runs"] == len(made) == 3
    assert side["hits"] == sum(run.seed % 1000 <= 500 for run in made)
    for words in (("--reaches", "nan"), ("--reaches", "1", "--ablate"), ("--reaches", "x")):
        assert call(root, "verify", *words).returncode == 2
