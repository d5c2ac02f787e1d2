"""`verify` and `verify --ablate` on a real session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import Done, call
from support.sessions import (
    PROGRAM,
    ScriptedAgent,
    change,
    git,
    make_task,
    night,
    run_session,
    side,
)

from autoresearch.commands.fsck import audit
from autoresearch.task.reading import load

FAST = {"judge__level": "fast"}

ALTERNATING = """\
with open(f"{SIDE}/{{VALUE}}-{{BONUS}}", "a+") as file:
    noise = SPREAD / 2 if file.tell() % 2 else -SPREAD / 2
    file.write("x")
"""
"""A version's runs lie above and below its value by turns: no verdict here hangs on luck."""


def alternating(side: Path) -> str:
    lines = PROGRAM.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.startswith("noise = "))
    lines[at] = ALTERNATING.format(SIDE=side)
    return "".join(lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three keeps. The second makes the first useless: BONUS counts only while VALUE is above 5."""
    root = tmp_path_factory.mktemp("finished") / "task"
    make_task(root, alternating(side(root)))
    agent = ScriptedAgent(
        change("a bonus", BONUS=1.0), change("a low value", VALUE=4.0), change("less", VALUE=3.0)
    )
    run_session(root, agent, verified=True, **FAST)
    git(root, "config", "user.name", "Ada")
    git(root, "config", "user.email", "ada@example.org")
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "task", symlinks=True)
    return tmp_path / "task"


def verify(root: Path, *words: object) -> dict[str, Any]:
    done = call(root, "verify", *words, "--json")
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_a_change_that_a_later_one_made_useless_is_found_and_left_out(root: Path) -> None:
    words = ("--ablate", "--runs", 3, "--least", 0.5)
    facts = verify(root, *words)
    assert facts["verification"]["new_runs"] == 3
    ablation = facts["ablation"]
    verdicts = {change["number"]: change["verdict"] for change in ablation["changes"]}
    # The third edits the line of the second again, so the second cannot go alone.
    assert verdicts == {
        1: "earns nothing",
        2: "cannot be left out alone",
        3: "earns its place",
    }
    assert ablation["reduced"]["without"] == [1]
    assert abs(ablation["reduced"]["over_best"]["gain"]) < 0.2
    assert ablation["reduced"]["over_baseline"]["gain"] == pytest.approx(7, abs=0.2)
    before = len(night(root).runs)
    text = call(root, "verify", *words).stdout  # all runs are there: none is made again
    assert len(night(root).runs) == before
    assert "To take it without them: autoresearch finish --without 1" in text
    call(root, "report", "--html")
    for report in (root / "report.md", root / "report.html"):
        assert "#3 earns its place" in report.read_text()
    taken = call(root, "finish", "--without", 1).stdout
    assert "Measured as it is: " in taken and "better than the baseline (95 % interval" in taken
    assert audit(load(root)) == []


def test_an_ablation_goes_on_and_says_what_it_could_not_resolve(root: Path) -> None:
    assert verify(root, "--ablate", "--runs", 2, "--hours", 1e-9)["ablation"]["reduced"] is None
    seeds = {run.seed for run in night(root).runs if run.role == "ablation"}
    assert len(seeds) == 3  # a round: the best, and it without the first and without the third
    done = call(root, "verify", "--ablate", "--runs", 2, "--least", 1e-6)
    assert seeds < {run.seed for run in night(root).runs if run.role == "ablation"}
    assert "could not resolve #1" in done.stdout and "They stay." in done.stdout
    assert "runs of each would tell" in done.stdout and "No change is offered" in done.stdout


def test_a_deterministic_result_is_repeated_once(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task")
    agent = ScriptedAgent(change("exact", SPREAD=0.0, VALUE=9.0), change("bonus", BONUS=1.0))
    shutil.copy(root / "prog.py", tmp_path / "prog.py")
    text = (root / "prog.py").read_text().replace("SPREAD = 0.1", "SPREAD = 0.0")
    (root / "prog.py").write_text(text)
    git(root, "commit", "-qam", "exact")
    run_session(root, agent, verified=True, **FAST)
    facts = verify(root, "--ablate")
    assert facts["verification"]["new_runs"] == 1
    assert [change["verdict"] for change in facts["ablation"]["changes"]] == ["earns its place"] * 2
    assert "one run of each is all that there is to repeat" in call(root, "verify").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--runs", 1), "at least 2 of each version"),
        (("--hours", 1), "belong to --ablate"),
        (("--ablate", "--hours", 0), "more than 0 is accepted"),
        (("--ablate", "--least", -1), "more than 0 is accepted"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(
    root: Path, words: tuple[object, ...], message: str
) -> None:
    done: Done = call(root, "verify", *words)
    assert done.returncode == 2 and message in done.stderr


def test_a_session_without_a_keep_has_nothing_to_verify(
    tmp_path: Path, counted: Callable[[], list[str]]
) -> None:
    root = make_task(tmp_path / "task")
    run_session(root, ScriptedAgent(change("worse", VALUE=12.0)), **FAST)
    runs = counted()
    done = call(root, "verify")
    assert done.returncode == 2 and "has no keep after 1 experiment" in done.stderr
    assert counted() == runs
