"""The sealed holdout: it scores runs that decide nothing, and only the report shows its scores."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import pytest
from support.audits import findings, sql
from support.bench import bench, untouched
from support.sessions import (
    PROGRAM,
    TASK,
    Night,
    ScriptedAgent,
    change,
    git,
    make_task,
    night,
    run_session,
    side,
    task_of,
)

from autoresearch import agents
from autoresearch.cli import main as cli
from autoresearch.cli.look import read_summary
from autoresearch.commands.check import check_task
from autoresearch.commands.fsck import audit
from autoresearch.commands.start import open_session
from autoresearch.core.loop import Loop
from autoresearch.errors import BaselineError, TaskError
from autoresearch.measure.execution import Interrupted
from autoresearch.measure.runs import RunExecutor
from autoresearch.protocols import Proposal, RunResult, RunSpec, TreeSource, Turn
from autoresearch.records import HELD_OUT, Role
from autoresearch.report.collect import summarise
from autoresearch.report.page import draw_page
from autoresearch.report.summary import Summary
from autoresearch.runners.local import LocalRunner
from autoresearch.sandbox import landlock
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths

LEARNER = PROGRAM.replace("SPREAD = 0.1\n", "SPREAD = 0.1\n\nOVERFIT = 0.0\n").replace(
    'print("score:", score)',
    'open("out", "w").write(f"{score} {OVERFIT}")\n'
    'print("seen:", [name for name in ("validation", "holdout") if os.path.exists(name)])',
)
"""OVERFIT improves the score on the search data alone."""

SCORER = """\
import os, sys
sealed = "--holdout" in sys.argv
with open(os.environ["COUNTED"] + "-scored", "a") as file:
    file.write(os.environ["AUTORESEARCH_SEED"] + (" holdout\\n" if sealed else " score\\n"))
print("seen:", [name for name in ("validation", "holdout") if os.path.exists(name)])
try:
    print("reached:", open("{root}/holdout/shift").read())
except OSError as error:
    print("refused:", error.errno)
score, overfit = map(float, open("out").read().split())
if sealed:
    print("loss:", 123.0)
    print("score:", score + 770000 + float(open("holdout/shift").read()))
else:
    print("score:", score - overfit + float(open("validation/shift").read()))
"""
TOML = TASK + (
    '[score]\ncommand = "python -S -E score.py"\nreads = ["out"]\nhidden = ["validation"]\n'
    '[holdout]\ncommand = "python -S -E score.py --holdout"\nhidden = ["holdout"]\n'
)


def make(folder: Path, committed: bool = True, toml: str = TOML, program: str = LEARNER) -> Path:
    root = folder / "task"
    files = {
        "score.py": SCORER.replace("{root}", str(root)),
        "validation/shift": "0",
        "holdout/shift": "0.25",
    }
    if not committed:
        files[".gitignore"] = "holdout\nvalidation\n"
    return make_task(root, program, toml, files)


pytestmark = pytest.mark.usefixtures("counted")


def scorings(root: Path) -> Counter[str]:
    return Counter((side(root) / "counted-scored").read_text().splitlines())


def report_of(root: Path) -> tuple[Summary, str]:
    with closing(Ledger(SessionPaths(root, "t").ledger, readonly=True)) as ledger:
        summary = summarise(ledger, "t", time.time(), whole=True, open_holdout=True)
        return summary, draw_page(summary)


@dataclass
class Observed:
    """A session of a keep and a discard, and everything that its agent could read."""

    root: Path
    night: Night
    trees: list[set[str]]  # the names in the worktree, each turn
    texts: list[str]  # the briefing and the history, each turn
    summaries: list[Summary]  # during the second turn


def observe(folder: Path, committed: bool = True) -> Observed:
    root = make(folder, committed)
    trees: list[set[str]] = []
    texts: list[str] = []
    summaries: list[Summary] = []

    def propose(turn: Turn) -> Proposal:
        trees.append({path.name for path in turn.worktree.iterdir()})
        history = turn.history
        texts.append(turn.briefing + repr(history.finished()) + repr(history.baseline()))
        if len(trees) == 1:
            return change(VALUE=9.5)(turn)
        paths = SessionPaths(root, "t")
        with closing(Ledger(paths.ledger, readonly=True)) as ledger:
            summaries.append(read_summary(ledger, paths, open_holdout=True))
        return change(VALUE=20.0)(turn)

    agent = ScriptedAgent(propose, propose)
    agent.wants_briefing = True
    return Observed(root, run_session(root, agent, verified=True), trees, texts, summaries)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """One session for all tests that only read it."""
    folder = tmp_path_factory.mktemp("observed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COUNTED", str(folder / "side" / "counted"))
        return observe(folder)


@pytest.mark.parametrize("committed", [True, False])
def test_it_scores_runs_that_decide_nothing_and_nobody_else_reads_it(
    tmp_path: Path, observed: Observed, committed: bool
) -> None:
    if not committed:
        observed = observe(tmp_path, committed=False)
    root, session = observed.root, observed.night
    assert session.verdicts == [("keep", None), ("discard", "worse")]
    ignored = set() if committed else {".gitignore"}
    assert observed.trees == [{"prog.py", "score.py", "autoresearch.toml", ".git", *ignored}] * 2
    for run in session.runs:
        folder = session.paths.runs / run.name
        assert run.metric is not None
        assert "seen: []" in (folder / "log").read_text()
        assert "seen: ['validation']" in (folder / "score.log").read_text()
        assert (run.holdout is not None) == (run.is_held_out)
        assert (folder / "holdout.log").exists() == (run.is_held_out)
        if run.holdout is not None:
            assert run.holdout == pytest.approx(run.metric + 770000.25)
            assert "seen: ['validation', 'holdout']" in (folder / "holdout.log").read_text()
        if landlock.abi():
            assert "refused: 13" in (folder / "score.log").read_text()
    never = {Role.SEGMENT}  # nothing changed in this session
    assert {run.role for run in session.runs if run.holdout} == set(HELD_OUT) - never
    assert all(count == 1 for count in scorings(root).values())
    assert not any("holdout" in line for line in session.lines)
    assert audit(task_of(root)) == []


@pytest.fixture
def shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """What a command prints in a task's folder."""

    def call(root: Path, *words: str) -> str:
        monkeypatch.chdir(root)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 0
        return capsys.readouterr().out

    return call


def test_only_the_report_opens_it(observed: Observed, shown: Callable[..., str]) -> None:
    """Its scores are 770,009 and more here, unlike all other numbers."""
    root, session = observed.root, observed.night
    everywhere = {
        "briefing": "".join(observed.texts),
        "results": (root / "results.tsv").read_text(),
        "numbers": repr([dict(run.numbers) for run in session.runs]),
        "lines": "\n".join(session.lines),
        **{
            " ".join(words): shown(root, *words)
            for words in (
                ("status",),
                ("status", "--json"),
                ("log",),
                ("log", "--json"),
                ("show", "0"),
                ("show", "1"),
                ("show", "1", "--json"),
                ("brief",),
            )
        },
    }
    assert {round(run.holdout) for run in session.runs if run.holdout} == {770010}
    for place, text in everywhere.items():
        assert not re.search(r"770[,_]?0(09|10)|7\.7\d*e", text), place
        assert "123.0" not in text, place
    assert '"holdout": null' in everywhere["status --json"]
    report = json.loads(shown(root, "report", "--json"))["holdout"]
    assert report["held_out"]["old_mean"] == pytest.approx(770010.25, abs=0.05)
    assert report["gap"]["growth"] == pytest.approx(0, abs=1e-6)
    assert report["gains"] == {"1": pytest.approx(0.5, abs=0.1)}
    text = (root / "report.md").read_text()
    assert "## On the sealed holdout" in text
    assert "| on the holdout |" in text


def test_it_stays_sealed_until_the_session_is_over(observed: Observed) -> None:
    assert [summary.holdout for summary in observed.summaries] == [None]
    summary, _ = report_of(observed.root)
    assert summary.holdout is not None


def test_a_gap_that_grows_is_the_first_thing_in_the_report(tmp_path: Path) -> None:
    root = make(tmp_path)
    found = run_session(root, ScriptedAgent(change(VALUE=9.5), change(OVERFIT=0.5)), verified=True)
    assert found.verdicts == [("keep", None)] * 2
    summary, text = report_of(root)
    assert summary.holdout and summary.holdout.held_out and summary.holdout.gap
    gap = summary.holdout.gap
    assert gap.growth == pytest.approx(0.5, abs=1e-6)
    assert gap.growth == pytest.approx(gap.search_gain - gap.holdout_gain)
    assert gap.has_grown
    first = next(block for block in text.split("\n\n")[1].split("\n>\n") if "carry over" in block)
    assert first.startswith("> **Warning: the gain does not all carry over.**")
    assert "on the sealed holdout: the gap between the two has grown by 0.5" in first
    assert summary.holdout.held_out.gain == pytest.approx(0.5, abs=0.1)
    gains = summary.holdout.gains
    assert gains[1] == pytest.approx(0.5, abs=0.1) and gains[2] == pytest.approx(0, abs=0.1)
    kept = [line for line in text.splitlines() if line.startswith("| 2 |")]
    assert len(kept) == 1 and kept[0].count("|") == 10
    assert "**Warning" not in draw_page(replace(summary, holdout=None))


def test_a_gain_that_carries_over_is_no_warning(observed: Observed) -> None:
    summary, text = report_of(observed.root)
    assert summary.holdout and summary.holdout.gap and not summary.holdout.gap.has_grown
    assert "carry over" not in text
    sentence = text.partition("## On the sealed holdout\n\n")[2].split("\n")[0]
    assert "better** (95 % interval +0." in sentence
    assert "from 3 runs of the best and 3 of the baseline" in sentence


def test_nothing_kept_and_nothing_verified(tmp_path: Path) -> None:
    root = make(tmp_path)
    run_session(root, ScriptedAgent(change(VALUE=20.0)))
    summary, text = report_of(root)
    assert summary.holdout and summary.holdout.gap is None
    assert "sealed holdout" not in text

    def interrupt(turn: Turn) -> Proposal:
        session.stop("interrupted")
        return change(VALUE=21.0)(turn)

    agent = ScriptedAgent(change(VALUE=9.5), interrupt)
    load = patch.object(agents, "load", lambda *_, **__: agent)
    with load, open_session(task_of(root), "t", lambda line: None) as session:
        Loop(session).run()
    summary, text = report_of(root)
    assert summary.verification is None
    assert summary.holdout and summary.holdout.gap and summary.holdout.held_out is None
    assert "not run side by side on it: no gain is claimed. Where both were measured" in text


def test_a_deterministic_task(tmp_path: Path) -> None:
    """One run of each is exact."""
    program = LEARNER.replace("SPREAD = 0.1", "SPREAD = 0.0")
    root = make(tmp_path, program=program)
    agent = ScriptedAgent(change(VALUE=8.0), change(OVERFIT=1.0))
    run_session(root, agent, verified=True, judge__deterministic=True)
    summary, text = report_of(root)
    assert summary.holdout and summary.holdout.held_out and summary.holdout.gap
    assert summary.holdout.held_out.gain == pytest.approx(2)
    assert summary.holdout.gap.growth == pytest.approx(1)
    assert "3 better on `score` and only 2 of that on the sealed holdout" in text
    assert "has grown by 1 (exactly)" in text
    assert audit(task_of(root)) == []


def test_a_failing_holdout_scorer_costs_no_run(tmp_path: Path) -> None:
    """The user gets one warning for each experiment."""
    root = make(tmp_path)
    file = root / "score.py"
    file.write_text(file.read_text().replace("if sealed:\n", "if sealed:\n    raise KeyError(1)\n"))
    git(root, "commit", "-qam", "broken")
    found = run_session(root, ScriptedAgent(change(VALUE=9.5), change(VALUE=20.0)), runner__slots=2)
    assert found.verdicts == [("keep", None), ("discard", "worse")]
    assert {run.holdout for run in found.runs} == {None}
    warnings = [text for text in found.record.warnings if "holdout" in text]
    assert sorted(warnings) == [
        f"the sealed holdout could not be scored for experiment {number} (exit code 1): "
        f"{found.paths.runs / f'{number:04d}'}/*/holdout.log"
        for number in (0, 1)
    ]
    assert sorted(line for line in found.lines if "holdout" in line) == sorted(
        f"warning: {text}" for text in warnings
    )
    assert "KeyError" in (found.paths.runs / found.runs[0].name / "holdout.log").read_text()
    assert audit(task_of(root)) == []
    summary, text = report_of(root)
    assert summary.holdout is None
    assert "## On the sealed" not in text
    with pytest.raises(BaselineError, match=r"(?s)\[holdout\] command gave no score .*KeyError"):
        check_task(task_of(root), 2, lambda line: None)


def test_check_reports_it(tmp_path: Path, shown: Callable[..., str]) -> None:
    root = make(tmp_path)
    output = shown(root, "check", "--runs", "2")
    assert "the sealed holdout is scored for the baseline and for keeps" in output
    assert "7700" not in output
    plain = make_task(tmp_path / "plain")
    assert "holdout" not in shown(plain, "check", "--runs", "2")


def test_a_session_keeps_its_holdout(tmp_path: Path) -> None:
    root = make(tmp_path)
    run_session(root, ScriptedAgent())
    text = (root / "autoresearch.toml").read_text()
    for other in (
        text.replace("score.py --holdout", "score.py --holdout --other"),
        text.partition("[holdout]")[0],
    ):
        (root / "autoresearch.toml").write_text(other)
        with pytest.raises(TaskError, match=r"began with \[holdout\] = .*another --tag"):
            run_session(root, ScriptedAgent())
    (root / "autoresearch.toml").write_text(text)
    assert run_session(root, ScriptedAgent()).reason


def test_a_session_from_before_there_were_holdouts(root: Path) -> None:
    run_session(root, ScriptedAgent())
    record = night(root).record
    older = {name: fact for name, fact in record.fingerprint.items() if name != "[holdout]"}
    sql(root, "UPDATE session SET fingerprint = ?", json.dumps(older))
    assert run_session(root, ScriptedAgent()).reason


# ---- nothing is lost, nothing is scored twice ----------------------------------------------------


class Cut(LocalRunner):
    """Fails once, before or after the command with this outcome file has been executed."""

    def __init__(self, stem: str, after: bool) -> None:
        super().__init__(1)
        self.stem, self.after = stem, after

    def run(self, spec: RunSpec, source: TreeSource | None = None) -> RunResult:
        if spec.outcome.stem != self.stem:
            return super().run(spec, source)
        self.stem = ""
        if self.after:
            super().run(spec, source)
            raise KeyboardInterrupt
        return RunResult(None, "lost", 0.0, None, None)


@pytest.mark.parametrize(
    ("stem", "after", "error"),
    [
        ("score", True, KeyboardInterrupt),
        ("holdout", False, Interrupted),
        ("holdout", True, KeyboardInterrupt),
    ],
)
def test_a_score_from_before_a_kill_is_not_repeated(
    tmp_path: Path,
    counted: Callable[[], list[str]],
    stem: str,
    after: bool,
    error: type[BaseException],
) -> None:
    root = make(tmp_path)
    with bench(root) as made:
        run = made.open()
        executor = made.executor
        runner = Cut(stem, after)
        first = executor.first_commit
        cut = RunExecutor(executor.task, made.paths, made.repository, runner, made.ledger, first)
        with pytest.raises(error):
            cut.measure(run, untouched)
        runner.close()
        assert not made.ledger.runs(made.record, 0)[0].finished
        assert executor.ended_unseen(run)
        done = executor.measure(run, untouched)
        assert done.metric is not None
        assert done.holdout == pytest.approx(done.metric + 770000.25)
        assert counted() == [str(run.seed)]
        assert scorings(root) == {f"{run.seed} score": 1, f"{run.seed} holdout": 1}
        left = {path.name for path in made.file(run, "").iterdir()}
        assert left == {"log", "score.log", "holdout.log", "artefacts"}


def test_fsck_reports_a_deciding_run_with_a_holdout_score(observed: Observed) -> None:
    [screened] = observed.night.runs_of(2, "screen")
    sql(observed.root, "UPDATE run SET holdout = 1 WHERE id = ?", screened.id)
    try:
        assert findings(observed.root) == [("holdout", False)]
    finally:
        sql(observed.root, "UPDATE run SET holdout = NULL WHERE id = ?", screened.id)


def test_a_holdout_may_be_heavier_than_the_scorer(tmp_path: Path) -> None:
    """The limit learned from the scorer does not hold for the holdout, whose time is recorded."""
    toml = TOML.replace("[run]\n", '[run]\nbudget = "1s"\nbudget_clock = "cpu"\n')
    program = LEARNER.replace("SPREAD = 0.1", "SPREAD = 0.0")
    root = make(tmp_path, toml=toml, program=program)
    file = root / "score.py"
    burn = "if sealed:\n    import time\n    while time.process_time() < 2: pass\n"
    file.write_text(file.read_text().replace("try:\n", f"{burn}try:\n", 1))
    git(root, "commit", "-qam", "heavier")
    agent = ScriptedAgent(change(VALUE=5.0))
    found = run_session(root, agent, judge__deterministic=True)  # few runs: each burns 2 s
    assert found.verdicts == [("keep", None)]
    assert not [line for line in found.lines if "could not be scored" in line]
    for run in found.runs:
        assert (run.holdout is not None) == (run.is_held_out)
        if run.holdout is not None:
            assert run.holdout_cpu_s and run.holdout_cpu_s > 1.5 and run.took_s > 1.5
            assert run.score_cpu_s and run.score_cpu_s < 1


def test_a_holdout_that_fails_says_why(tmp_path: Path) -> None:
    root = make(tmp_path)
    file = root / "score.py"
    broken = 'if sealed and score < 7:\n    raise SystemExit("no")\n'
    file.write_text(
        file.read_text().replace("if sealed:\n    print", f"{broken}if sealed:\n    print")
    )
    git(root, "commit", "-qam", "breaks")
    found = run_session(root, ScriptedAgent(change(VALUE=5.0)))
    [warning] = [line for line in found.lines if "could not be scored" in line]
    assert "for experiment 1 (exit code 1): " in warning and warning.endswith("/*/holdout.log")


def test_the_holdout_is_compared_within_a_segment(tmp_path: Path) -> None:
    """The data changes after the first keep, so that earlier scores cannot be compared."""
    toml = TOML.replace("[run]\n", '[run]\ninputs = ["data"]\n')
    program = LEARNER.replace("+ noise", '+ float(open("data").read()) + noise')
    root = make_task(
        tmp_path / "task",
        program,
        toml,
        {
            "score.py": SCORER.replace("{root}", str(tmp_path / "task")),
            "validation/shift": "0",
            "holdout/shift": "0.25",
            ".gitignore": "data\n",
        },
    )
    (root / "data").write_text("0")

    def changed(turn: Turn) -> Proposal:
        (root / "data").write_text("50")
        return change(VALUE=8.0)(turn)

    found = run_session(root, ScriptedAgent(change(VALUE=9.0), changed), verified=True)
    assert found.verdicts == [("keep", None), ("keep", None)]
    again = [run for run in found.runs if run.role == Role.SEGMENT]
    assert again and all(run.segment == 1 and run.holdout is not None for run in again)
    opened_report, _ = report_of(root)
    assert opened_report.holdout is not None and opened_report.holdout.held_out is not None
    for number in (1, 2):
        assert opened_report.holdout.gains[number] == pytest.approx(1.0, abs=0.3)
    assert opened_report.holdout.held_out.gain == pytest.approx(2.0, abs=0.3)
    assert opened_report.holdout.gap is not None and not opened_report.holdout.gap.has_grown
    assert audit(task_of(root)) == []
