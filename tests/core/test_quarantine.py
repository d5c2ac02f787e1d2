"""An improvement too good for its session's history is kept flagged, and said first."""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from support.audits import findings, sql
from support.sessions import PROGRAM, Night, ScriptedAgent, change, make_task, run_session, task_of
from support.tables import read_table

from autoresearch.cli import main as cli
from autoresearch.commands.fsck import audit
from autoresearch.core.judge import Excess, too_good
from autoresearch.report.collect import summarise
from autoresearch.report.live import SessionView
from autoresearch.report.page import draw_page
from autoresearch.report.summary import Summary, to_json
from autoresearch.store.ledger import Ledger

SD = 0.1  # of one run, in the pure tests


# ---- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "effects", "usual"),
    [
        (2.1, [], 0.4),  # beyond 20 sd
        (1.9, [], None),
        (2.1, [0.1, 0.3], 0.4),  # effects below 4 sd say nothing
        (2.1, [0.1, 0.5], None),
        (2.6, [0.5, 0.1], 0.5),
        (2.6, [-3.0], 0.4),  # what simplicity has cost
        (-9.0, [0.1], None),
    ],
)
def test_the_rule(gain: float, effects: list[float], usual: float | None) -> None:
    found = too_good(gain, SD, effects, 5)
    assert (found and found.usual) == usual


def test_the_bound_itself_is_not_beyond() -> None:
    assert too_good(2.0, 0.125, [], 4) is None  # 4 times 4 sd
    assert too_good(2.0, 0.125, [0.75], 2) is not None
    assert too_good(2.0, 0.125, [1.0], 2) is None


def test_where_nothing_is_known_nothing_is_too_good() -> None:
    assert too_good(9.0, 0.0, [], 5) is None
    assert too_good(9.0, 0.0, [-1.0], 5) is None
    assert too_good(9.0, 0.0, [1.0], 5) is not None


def test_it_does_not_depend_on_units_or_order() -> None:
    rng = random.Random(1)
    for _ in range(200):
        gain, sd = rng.uniform(0, 30), rng.uniform(0.1, 1)
        effects = [rng.uniform(-1, 5) for _ in range(rng.randrange(5))]
        once = too_good(gain, sd, effects, 5) is None
        scaled = [1024 * one for one in reversed(effects)]
        assert (too_good(1024 * gain, 1024 * sd, scaled, 5) is None) == once


def test_it_says_by_how_much_and_of_what() -> None:
    first = too_good(4.2, SD, [], 5)
    assert str(first) == "a gain of 4.2 is 10.5 times 4 sd of one run (0.4)"
    later = too_good(4.2, SD, [0.7], 5)
    assert later == Excess(4.2, 0.7, "the largest effect before it")
    assert str(later) == "a gain of 4.2 is 6 times the largest effect before it (0.7)"


# ---- a night -------------------------------------------------------------------------------------

QUIET = PROGRAM.replace("SPREAD = 0.1", "SPREAD = 0.01")  # so 4 sd are about 0.012
STEPS = (
    change(VALUE=9.98),  # better by 0.02
    change(VALUE=9.58),  # by 0.4: 20 times that
    change(VALUE=9.28),  # by 0.3: 15 times 0.02, as 0.4 does not count
    change(VALUE=9.23),  # by 0.05
    change(VALUE=9.17),  # by 0.06
    change(VALUE=20.0),
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Night:
    root = make_task(tmp_path_factory.mktemp("night") / "task", QUIET)
    return run_session(root, ScriptedAgent(*STEPS), judge__baseline_runs=6)


@pytest.fixture
def summary(found: Night) -> Summary:
    ledger = Ledger(found.paths.ledger, readonly=True)
    try:
        return summarise(ledger, "t", time.time(), whole=True)
    finally:
        ledger.close()


def test_what_is_flagged_and_what_is_not(found: Night) -> None:
    assert found.verdicts == [("keep", None)] * 5 + [("discard", "worse")]
    assert [bool(one.flag) for one in found.experiments] == [
        *(False, False, True, True, False, False, False)
    ]
    flag = found.experiments[2].flag or ""
    assert flag.startswith("a gain of 0.") and " times " in flag
    assert "; beyond 5 times it is to be looked at before it is believed" in flag
    assert found.branch() == found.experiments[5].commit  # the night went on from there
    assert [one.base for one in found.experiments] == [0, 0, 1, 2, 3, 4, 5]
    assert audit(task_of(found.root)) == []


def test_it_is_said_at_the_moment(found: Night) -> None:
    at = next(i for i, line in enumerate(found.lines) if line.startswith("   2 keep"))
    assert found.lines[at + 1] == f"   2 flagged: {found.experiments[2].flag}"
    assert sum("flagged" in line for line in found.lines) == 2


def test_the_table_has_it_where_a_keep_has_no_reason(found: Night) -> None:
    rows = read_table((found.root / "results.tsv").read_text())
    assert [row["reason"] for row in rows] == ["", "", "flagged", "flagged", "", "", "worse"]
    assert [row["status"] for row in rows] == ["keep"] * 6 + ["discard"]
    again = run_session(found.root, ScriptedAgent())  # the file is recognised as ours
    assert again.results == found.results


def test_the_report_begins_with_it(found: Night, summary: Summary) -> None:
    text = draw_page(summary)
    _, first, headline = text.split("\n\n")[:3]
    lines = first.split("\n")
    assert lines[0].startswith("> **Flagged: #2 `")
    assert "is too good for this session's history**: a gain of 0." in lines[0]
    assert "`autoresearch show 2`" in lines[0] and lines[0].endswith("It is: VALUE 9.58")
    assert lines[1] == ">"
    assert lines[2].startswith("> **Flagged: #3 `")
    assert headline.startswith("**Suspicious: 2 keeps too good to be believed unseen: #3, #2 ")
    assert "; 1 suspicion" in headline


@pytest.fixture
def shown(
    found: Night, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    def call(*words: str) -> str:
        monkeypatch.chdir(found.root)
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 0
        return capsys.readouterr().out

    return call


def test_every_view_has_it(found: Night, summary: Summary, shown: Callable[..., str]) -> None:
    flag = found.experiments[2].flag
    status = shown("status").splitlines()
    said = "2 keeps too good to be believed unseen: #3, #2 (autoresearch show 3)"
    assert f"suspicion  {said}" in status
    at = [line.split()[0] for line in status]
    assert at.index("suspicion") < at.index("gain")
    assert sum("flagged" in line for line in shown("log").splitlines()) == 2
    assert f"flagged     {flag}" in shown("show", "2").splitlines()
    assert "flagged" not in shown("show", "1")
    [two, three] = json.loads(shown("status", "--json"))["flagged"]
    assert (two["number"], two["flag"], three["number"]) == (2, flag, 3)
    assert to_json(summary)["recent"][2]["flag"] == flag
    assert [one["flag"] for one in json.loads(shown("log", "--json"))][1:3] == [None, flag]
    assert json.loads(shown("show", "2", "--json"))["flag"] == flag
    assert json.loads(shown("report", "--json"))["flagged"][0]["flag"] == flag
    console = Console(file=io.StringIO(), width=100, height=40)
    console.print(SessionView(summary, running=True))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert said in drawn
    assert drawn.count(" flagged ") == 2  # in the list of experiments


def test_a_first_keep_is_held_against_the_noise(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", QUIET)
    [flag] = [one.flag for one in run_session(root, ScriptedAgent(STEPS[1])).experiments[1:]]
    assert flag and " times 4 sd of one run (0." in flag


def test_the_multiple_is_the_tasks(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", QUIET)
    made = run_session(root, ScriptedAgent(*STEPS[:2]), judge__quarantine=1000.0)
    assert [one.flag for one in made.experiments] == [None] * 3


def test_a_deterministic_task_has_nothing_to_compare_with(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", PROGRAM.replace("SPREAD = 0.1", "SPREAD = 0.0"))
    made = run_session(root, ScriptedAgent(*STEPS[:2]), judge__deterministic=True)
    assert made.verdicts == [("keep", None)] * 2
    assert [one.flag for one in made.experiments] == [None] * 3


def test_fsck_finds_a_flag_where_none_can_be(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task")
    run_session(root, ScriptedAgent(STEPS[-1]))
    sql(root, "UPDATE experiment SET flag = 'x' WHERE number = 1")
    (root / "results.tsv").unlink()
    assert findings(root) == [("flag", False), ("results.tsv", True)]
    sql(root, "UPDATE experiment SET flag = NULL WHERE number = 1")
    sql(root, "UPDATE experiment SET flag = 'x' WHERE number = 0")
    assert ("flag", False) in findings(root)
