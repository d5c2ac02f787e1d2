"""Doomed runs: what is learned from the baseline, what stops a run, and the audit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from support.sessions import ScriptedAgent, change, make_task, run_session

from autoresearch.measure import runs
from autoresearch.measure.doom import UNBOUNDED, DoomWatch, learn_bounds
from autoresearch.report.collect import summarise
from autoresearch.store.ledger import Ledger

GOOD = "step 0 | train_loss: 4.0\nstep 1 | train_loss: 3.0\nstep 2 | train_loss: 2.5\nscore: 1\n"


def learn(tmp_path: Path, *texts: str, metric: str = "score") -> dict[str, float]:
    logs = [tmp_path / f"log{number}" for number in range(len(texts))]
    for log, text in zip(logs, texts, strict=True):
        log.write_text(text)
    return learn_bounds(logs, metric)


def test_curves_of_the_baseline_are_learned(tmp_path: Path) -> None:
    assert learn(tmp_path, GOOD, GOOD.replace("4.0", "5.0")) == {"train_loss": 15.0}


def test_the_beginning_of_a_long_log_counts(tmp_path: Path) -> None:
    long = "train_loss: 9\n" + "train_loss: 0.1, and what else is known of this step\n" * 20_000
    assert learn(tmp_path, long) == {"train_loss": 27.0}


@pytest.mark.parametrize("name", ["reward", "loss_scale", "loss_time_ms", "ppl", "aux_loss"])
def test_the_size_of_what_is_no_plain_loss_stops_nobody(tmp_path: Path, name: str) -> None:
    assert learn(tmp_path, GOOD.replace("train_loss", name), metric="reward") == {name: UNBOUNDED}
    negative = GOOD.replace("loss: ", "loss: -")
    assert learn(tmp_path, negative) == {"train_loss": UNBOUNDED}


def test_a_number_printed_once_in_each_run_is_no_curve(tmp_path: Path) -> None:
    assert learn(tmp_path, *["loss: 3\n"] * 5) == {}


@pytest.mark.parametrize("odd", ["nan", "-inf"])
def test_a_curve_in_which_a_good_program_prints_nan_is_not_watched(
    tmp_path: Path, odd: str
) -> None:
    assert learn(tmp_path, GOOD, GOOD.replace("3.0", odd)) == {}


def test_a_single_number_is_no_curve(tmp_path: Path) -> None:
    assert learn(tmp_path, "loss: 3\n---\nscore: 1\n") == {}


def look(tmp_path: Path, pieces: Sequence[str]) -> list[str | None]:
    log = tmp_path / "log"
    log.touch()
    watch = DoomWatch(log, {"train_loss": 12.0})
    found = []
    for piece in pieces:
        with log.open("a") as file:
            file.write(piece)
        found.append(watch.look())
    return found


@pytest.mark.parametrize(
    ("values", "doomed"),
    [
        (("nan", "nan", "nan"), "train_loss is nan"),
        (("3", "NaN", "inf", "1e9"), "train_loss is 1e9"),
        (("13", "14", "15"), "train_loss is 15"),
        (("-13", "-14", "-15"), None),
        (("nan", "nan", "3", "nan", "nan"), None),  # a spike from which it recovers
        (("13", "14", "11", "13"), None),
        (("4", "4", "4", "4"), None),  # it is behind, and may win yet
    ],
)
def test_three_points_in_a_row_doom_a_run(
    tmp_path: Path, values: Sequence[str], doomed: str | None
) -> None:
    text = "".join(f"step {step} | train_loss: {value}\n" for step, value in enumerate(values))
    assert look(tmp_path, [text]) == [doomed]


def test_lines_arrive_in_pieces(tmp_path: Path) -> None:
    pieces = ["train_loss: nan\rtrain_lo", "ss: na", "n\nval_loss: nan\ntrain_loss: nan", "\n"]
    assert look(tmp_path, pieces) == [None, None, None, "train_loss is nan"]


def test_other_lines_and_long_ones_do_not(tmp_path: Path) -> None:
    others = "other_loss: nan\n" * 5 + "x" * 300_000 + "\ntrain_loss: nan\n" * 2
    assert look(tmp_path, [others]) == [None]


PROGRAM = """\
import os, time

SCALE = 1.0

BONUS = 0.0

WAIT = 0

for step in range(5):
    print(f"step {step} | train_loss: {SCALE * (9 - step)}", flush=True)
time.sleep(WAIT)
print("score:", 1 + int(os.environ["AUTORESEARCH_SEED"]) / 2**31 / 100 - BONUS)
"""


def test_a_doomed_run_ends_at_once_and_one_that_is_behind_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "AUDITED", 2**40)
    root = make_task(tmp_path / "task", PROGRAM)
    steps = [change(SCALE=2.9, BONUS=-1.0), change(SCALE=40.0, WAIT=80)]
    found = run_session(root, ScriptedAgent(*steps))
    assert found.verdicts == [("discard", "worse"), ("crash", "doomed: train_loss is 280.0")]
    [doomed] = found.runs_of(2)
    assert doomed.wall_s is not None and doomed.wall_s < 40
    assert doomed.numbers["doomed"] == 1


def test_an_audited_run_goes_on_and_the_report_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "AUDITED", 1)
    root = make_task(tmp_path / "task", PROGRAM)
    steps = [change(SCALE=40.0, BONUS=0.5, WAIT=0.4)]
    found = run_session(root, ScriptedAgent(*steps), judge__level="fast")
    assert found.verdicts == [("keep", None)]
    with closing(Ledger(found.paths.ledger, readonly=True)) as ledger:
        doomed = summarise(ledger, "t", time.time(), whole=True).doomed
    assert doomed is not None
    deciding = found.runs_of(1, "screen", "candidate")
    assert (doomed.stopped, doomed.audited, doomed.wrong) == (0, len(deciding), len(deciding))
    assert "a rate of false stops of 100%" in str(doomed)


def test_a_task_may_switch_it_off(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", PROGRAM)
    steps = [change(SCALE=40.0, BONUS=-1.0, WAIT=0.6)]
    found = run_session(root, ScriptedAgent(*steps), run__stop_doomed=False)
    assert found.verdicts == [("discard", "worse")]
