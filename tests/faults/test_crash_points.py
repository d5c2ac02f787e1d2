"""kill -9 before and after every durable action of a session: nothing finished is lost or made
twice, nothing is left behind, and the record agrees with itself (`crash_points.py` is what is
killed).

Each round begins a session anew, kills it at its n-th action, looks at what is there, kills the
resume at one of its own first actions, and lets the next one go on to the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.crash_points import (
    PROGRAM,
    RULES,
    SCORED,
    SCORED_TASK,
    SLOTS,
    STEPS,
    TAG,
    TASK,
    VERDICTS,
)
from support.sessions import Night, git, make_task, night, side, task_of, wait_until

from autoresearch.commands.fsck import audit, repair
from autoresearch.core import judge
from autoresearch.errors import LedgerError
from autoresearch.measure.runs import leftovers
from autoresearch.records import Role, Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths

DRIVER = Path(__file__).parents[1] / "support" / "crash_points.py"
PARTS = 8  # that the whole enumeration is cut into
SAMPLE = 43  # the default suite takes one action in so many
KILLED = -9


@dataclass(frozen=True)
class Ended:
    status: int
    reason: str
    error: str  # the class of what was raised
    actions: list[str]


class Driver:
    """The process that serves sessions."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def session(self, root: Path, number: int | None = None, what: str = "") -> Ended:
        assert self.process.stdin and self.process.stdout
        request = {"root": str(root), "number": number, "what": what}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in RULES.items():
        monkeypatch.setattr(judge, name, value)


Make = Callable[[Path], Path]


def make_scored(folder: Path) -> Path:
    return make(folder, SCORED_TASK, SCORED)


def make(folder: Path, toml: str = TASK, files: Mapping[str, str] | None = None) -> Path:
    given = {"prog.sh": PROGRAM, ".gitignore": "data*\n", **(files or {})}
    root = make_task(folder / "task", toml=toml, files=given)
    (root / "data").write_text("old")
    return root


def test_the_session_has_everything_in_it(driver: Driver, tmp_path: Path) -> None:
    root = make(tmp_path)
    ended = driver.session(root)
    assert ended.status == 0, ended.reason
    check_end(root, kills=0)
    found = night(root)
    assert max(one.attempt for one in found.experiments) >= 1  # one was moved onto the other
    roles = Counter(run.role for run in found.runs)
    others = {Role.ABLATION, Role.REDUCED, Role.SCRATCH}  # of `verify` and `scratch`
    assert roles.keys() == set(Role) - others
    assert {
        "COMMIT",
        "replace",
        "rmtree",
        "create",
        "create_commit",
        "pack",
        "flock",
        "run",
        "append",
        "materialize",
        "unlink",
        "compress_references",
    } <= set(ended.actions)


def test_a_sample(driver: Driver, tmp_path: Path) -> None:
    """In the default suite; the phase of the sample moves with what is sampled."""
    rounds(driver, tmp_path, first=1, step=SAMPLE)


def test_a_sample_of_scored_runs(driver: Driver, tmp_path: Path) -> None:
    rounds(driver, tmp_path, first=5, step=2 * SAMPLE, task=make_scored)


@pytest.mark.parametrize("what", ["full", "readonly"])
def test_a_sample_of_lost_disks(driver: Driver, tmp_path: Path, what: str) -> None:
    disks(driver, tmp_path, what, first=3, step=2 * SAMPLE)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.8, 0.99])
def test_the_end_of_what_was_written_is_cut_off(
    driver: Driver, tmp_path: Path, part: float
) -> None:
    """A kill, and a disk that did not keep the ledger's log to its end: what is left is an earlier
    moment. It goes on from there, or is refused where results.tsv knows more."""
    root = make(tmp_path)
    assert driver.session(root, 200, "after").status == KILLED
    paths = SessionPaths(root, TAG)
    wait_until(lambda: find_owner(paths) is None, timeout_s=5)
    results, log = paths.results.read_bytes(), paths.ledger.with_name("ledger.sqlite-wal")
    os.truncate(log, int(log.stat().st_size * part))
    last = driver.session(root)
    if last.status == 0:
        repair(task_of(root))
        assert audit(task_of(root)) == []
        assert night(root).verdicts == VERDICTS
    else:
        assert last.error == ("LedgerError" if part == 0 else "NotOursError"), last.reason
        assert paths.results.read_bytes() == results
    assert last.status == 0 or part < 0.9
    assert leftovers(paths) == []


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_action(driver: Driver, tmp_path: Path, part: int) -> None:
    rounds(driver, tmp_path, first=part + 1, step=PARTS, whens=("before", "after"))


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_action_of_scored_runs(driver: Driver, tmp_path: Path, part: int) -> None:
    whens = ("before", "after")
    rounds(driver, tmp_path, first=part + 1, step=PARTS, whens=whens, task=make_scored)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("what", ["full", "readonly"])
def test_the_disk_is_lost_at_every_action(
    driver: Driver, tmp_path: Path, what: str, part: int
) -> None:
    disks(driver, tmp_path, what, first=part + 1, step=PARTS)


def disks(driver: Driver, folder: Path, what: str, first: int, step: int) -> None:
    """From the n-th action on, nothing can be written: the session ends with the error that says
    so, and the next start, with room again, goes on."""
    for number in range(first, 10_000, step):
        root = make(folder / f"{number}-{what}")
        ended = driver.session(root, number, what)
        if ended.status == 0:
            break
        assert ended.error == "StorageError", ended.reason
        settled = after_kill(root)
        last = driver.session(root)
        assert last.status == 0, last.reason
        check_end(root, kills=1, settled=settled)
    assert number > first + 3 * step


def rounds(
    driver: Driver,
    folder: Path,
    first: int,
    step: int,
    whens: tuple[str, ...] = (),
    task: Make = make,
) -> None:
    """Until the session ends before it reaches the action. Without `whens`, they alternate."""
    number, count = first, 0
    while True:
        chosen = whens or (("before", "after")[count % 2],)
        roots = {when: task(folder / f"{number}-{when}") for when in chosen}
        ends = [one_round(driver, root, number, when) for when, root in roots.items()]
        if any(ends):
            break
        number, count = number + step, count + 1
    assert count >= 3


def one_round(driver: Driver, root: Path, number: int, when: str) -> bool:
    """True when the session ended by itself."""
    ended = driver.session(root, number, when)
    if ended.status != KILLED:
        assert ended.status == 0, ended.reason
        return True
    settled = after_kill(root)
    if number % 3 == 0 and settled:  # what fsck repairs must not be in the way of the resume
        repair(task_of(root))
        assert audit(task_of(root)) == []
    second = driver.session(root, 1 + number * 7 % 40, when)
    assert second.status in (0, KILLED), second.reason
    settled |= after_kill(root)
    last = driver.session(root)
    assert last.status == 0, last.reason
    check_end(root, kills=1 + (second.status == KILLED), settled=settled)
    return False


def after_kill(root: Path) -> dict[int, float | None]:
    """Wait for the wardens; the metric by seed of every run that had ended by then, recorded or
    not. What does not agree is only what follows from the ledger."""
    paths = SessionPaths(root, TAG)
    git(root, "gc", "-q", "--prune=now")  # of all moments, the user chooses this one
    if paths.lock.exists():
        wait_until(lambda: find_owner(paths) is None, timeout_s=5)
    wait_until(lambda: not leftovers(paths), timeout_s=2)
    try:
        ledger = Ledger(paths.ledger, readonly=True)
    except LedgerError:
        return {}
    try:
        row = ledger.find_session(TAG)
    except LedgerError:
        return {}  # its tables were not made yet
    finally:
        ledger.close()
    if row is None:
        return {}
    assert [one for one in audit(task_of(root)) if not one.repairable] == []
    return {run.seed: run.metric for run in night(root).runs if run.finished or unseen(paths, run)}


def unseen(paths: SessionPaths, run: Run) -> bool:
    """It ended, but was not recorded."""
    file = paths.runs / run.name / "outcome.json"
    return file.exists() and json.loads(file.read_text())["stopped"] is None


def check_end(root: Path, kills: int, settled: dict[int, float | None] | None = None) -> None:
    found, task = night(root), task_of(root)
    count = task.limits.experiments or len(STEPS)
    assert found.verdicts == VERDICTS[:count]
    assert [one.description for one in found.experiments[1:]] == list(STEPS[:count])
    assert all(run.finished for run in found.runs)
    by_seed = {run.seed: run for run in found.runs}
    for seed, metric in (settled or {}).items():
        assert seed in by_seed, f"the run on seed {seed} had ended, and is lost"
        assert metric is None or by_seed[seed].metric == metric
    counted = Counter((side(root) / "counted").read_text().split("\n"))
    for run in found.runs:
        times = [counted[f"{run.seed} {what}"] for what in ("start", "end")]
        assert times == [1, 1], f"run {run.name} was made {times} times"
    cut_off = [line for line in counted if line.endswith(" start")]
    assert len(cut_off) - len(found.runs) <= SLOTS * kills
    made = Counter(run.index for run in found.runs if run.role == "topup")
    renewed = [run for run in found.runs if run.role == "segment" and run.metric is not None]
    if task.score is not None:  # the shorter one: no top-up, and nothing changes
        assert not made and not renewed
        check_scores(found, kills)
    else:
        assert made[4] == 1 and made[2] <= 1  # that may meet the change, which stands for it
        assert len(renewed) == RULES["FRESH_RUNS"]
    last = 0 if task.score is not None else 1
    assert {run.segment for run in found.runs} == set(range(last + 1))
    best = max(found.experiments[1:3], key=lambda one: one.order or 0)
    checked = found.runs_of(best.number, "verify", "verify baseline")
    assert [run.segment for run in checked] == [last] * 4
    assert found.branch() == best.commit
    assert audit(task_of(root)) == []
    assert leftovers(SessionPaths(root, TAG)) == []
    assert git(root, "status", "--porcelain") == ""
    git(root, "fsck", "--no-dangling")
    assert not list((root / ".git").rglob("*.lock"))


def check_scores(found: Night, kills: int) -> None:
    """A scoring that ended is not made again, and those that have chosen nothing have two."""
    counted = Counter((side(found.root) / "counted").read_text().split("\n"))
    again = 0
    for run in found.runs:
        search, sealed = (counted[f"{run.seed} {what}"] for what in ("search", "sealed"))
        assert run.metric is not None and search >= 1
        assert run.holdout == (run.metric + 7 if run.is_held_out else None)
        assert (sealed >= 1) == (run.is_held_out)
        again += search - 1 + max(0, sealed - 1)
    assert again <= SLOTS * kills  # cut off after the last word, and before it was settled
