"""Checks that everything agrees with the ledger, and the ledger with itself.

`audit` changes nothing. `repair` restores what follows from the ledger: refs, the branch and
results.tsv; and it removes what a killed process left behind. Neither changes the ledger: if its
runs do not support a verdict, a person has to look.

While a process owns a session, only its ledger and its commits are checked: refs and files are
written a moment after their transaction. Open experiments and runs of an interrupted session are no
findings: the next `run` continues them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import psutil

from autoresearch.core import judge
from autoresearch.errors import NotOursError
from autoresearch.files import remove_tree, replace_file
from autoresearch.git.repository import Repository
from autoresearch.measure.runs import OUTCOMES, leftovers
from autoresearch.records import HELD_OUT, Experiment, Role, Run, Status
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import Lock, find_owner
from autoresearch.store.paths import SessionPaths
from autoresearch.store.published import drafts, read_ours
from autoresearch.store.results import DECIDING, check_ours, table
from autoresearch.store.rows import SessionRecord, segment_of
from autoresearch.task.model import Task

OTHER_COMMIT = {Role.CONTROL, Role.VERIFY_BASELINE}  # runs of another commit than the experiment's
UNMEASURED = ("conflict", "duplicate", "incumbent crashed")  # discards without a metric
GIVEN_UP = "lost "  # begins the reason of a run that never ended: it may have no log


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not agree. It is repairable if it follows from the ledger."""

    what: str  # "ref", "results.tsv", "metric", ...
    where: str  # a ref, a path, "experiment 7"
    detail: str  # what is there, and what should be
    repairable: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.where}: {self.detail}"


def findings_text(left: Sequence[Finding], repaired: Sequence[Finding] = ()) -> str:
    """What was repaired, what does not agree, and what to do about it, for people."""
    lines = [f"repaired: {finding}" for finding in repaired]
    lines += [f"{finding}{' [repairable]' if finding.repairable else ''}" for finding in left]
    if not left:
        lines.append("everything agrees with the ledger")
    elif any(finding.repairable for finding in left):
        lines.append("`autoresearch fsck --repair` restores what is marked repairable")
    if not all(finding.repairable for finding in left):
        lines.append("What is not marked cannot be restored from the ledger: docs/faults.md")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Problem:
    what: str
    where: str
    detail: str
    repair: Callable[[], object] | None = None

    def to_finding(self) -> Finding:
        return Finding(self.what, self.where, self.detail, self.repair is not None)


Problems = Iterator[_Problem]
Disagreements = Iterator[tuple[str, str]]  # (what, detail) of one experiment


def audit(task: Task, tag: str | None = None) -> list[Finding]:
    """What does not agree in session `tag`, or in all sessions.

    Raises `LedgerError` for a ledger that is missing, damaged or has no session `tag`."""
    return [problem.to_finding() for problem in _find_problems(task, tag)]


def repair(task: Task, tag: str | None = None) -> list[Finding]:
    """Restore what follows from the ledger. Returns what was repaired.

    Raises `BusyError`, before anything is changed, while a process owns a session of the task."""
    with closing(_open_ledger(task)) as ledger:
        ledger.check_integrity()
        tags = [record.tag for record in ledger.sessions()]
    locks: list[Lock] = []
    try:
        for name in tags:  # all of them: they share results.tsv, and none may begin meanwhile
            locks.append(Lock(SessionPaths(task.root, name)))
        repaired = []
        for problem in _find_problems(task, tag, is_ours=True):
            if problem.repair is not None:
                problem.repair()
                repaired.append(problem.to_finding())
        return repaired
    finally:
        for lock in locks:
            lock.release()


def _open_ledger(task: Task) -> Ledger:
    return Ledger(SessionPaths(task.root, "").ledger, readonly=True)


def _sessions(ledger: Ledger, tag: str | None) -> list[SessionRecord]:
    return ledger.sessions() if tag is None else [ledger.session(tag)]


def _find_problems(task: Task, tag: str | None, is_ours: bool = False) -> list[_Problem]:
    """`is_ours`: this process owns all sessions."""
    repository = Repository(task.root, task.editable, task.may_edit)
    with closing(_open_ledger(task)) as ledger:
        ledger.check_integrity()  # the schema makes seeds and names of runs unique
        problems = []
        for record in _sessions(ledger, tag):
            is_idle = is_ours or find_owner(SessionPaths(task.root, record.tag)) is None
            problems += list(_Audit(task, repository, ledger, record).problems(is_idle))
        if is_ours or all(
            find_owner(SessionPaths(task.root, record.tag)) is None for record in ledger.sessions()
        ):
            problems += _check_results(task, ledger)
        return problems


class _Audit:
    """The checks of one session. Each is a generator of problems."""

    def __init__(
        self, task: Task, repository: Repository, ledger: Ledger, record: SessionRecord
    ) -> None:
        self.task = task
        self.paths = SessionPaths(task.root, record.tag)
        self.repository = repository
        self.record = record
        with ledger.snapshot():
            self.experiments = ledger.all_experiments(record)
            self.starts = ledger.starts(record)
            numbers = [experiment.number for experiment in self.experiments]
            self.runs = {number: ledger.runs(record, number) for number in numbers}
            self.trees = {number: ledger.recorded_tree(record, number) for number in numbers}
        keeps = [e for e in self.experiments if e.order is not None and e.status is Status.KEEP]
        self.keeps = sorted(keeps, key=lambda keep: keep.order or 0)

    def problems(self, is_idle: bool) -> Problems:
        yield from self._numbers()
        for experiment in self.experiments:
            where = f"session {self.record.tag}, experiment {experiment.number}"
            for check in (self._commit, self._base, self._commits_of_runs, self._verdict):
                for what, detail in check(experiment):
                    yield _Problem(what, where, detail)
        if is_idle:
            yield from self._refs()
            yield from self._branch()
            yield from self._folders()
            yield from self._leftovers()

    # ---- the ledger with itself ------------------------------------------------------------

    def _numbers(self) -> Problems:
        numbers = [experiment.number for experiment in self.experiments]
        if numbers != list(range(len(numbers))):
            yield self._of_session("numbers", f"experiments are numbered {_brief(numbers)}")
        orders = sorted(e.order for e in self.experiments if e.order is not None)
        if orders != list(range(len(orders))):
            yield self._of_session("order", f"the order of finishing is {_brief(orders)}")

    def _base(self, experiment: Experiment) -> Disagreements:
        base = next((known for known in self.keeps if known.number == experiment.base), None)
        if experiment.number == 0:
            if experiment.base != 0:
                yield "base", f"the baseline is built on experiment {experiment.base}"
        elif base is None:
            yield "base", f"it is built on {experiment.base}, which was not kept"
        elif experiment.order is not None and (base.order or 0) >= experiment.order:
            yield "base", f"it is built on {experiment.base}, which was kept later"

    def _commits_of_runs(self, experiment: Experiment) -> Disagreements:
        commits = {known.number: known.commit for known in self.experiments}
        for run in self.runs[experiment.number]:
            if run.holdout is not None and (run.role not in HELD_OUT or run.metric is None):
                yield "holdout", f"{run.role} run {run.name} was scored on it"
            if run.attempt != experiment.attempt:
                continue
            wanted = experiment.commit
            if run.role in OTHER_COMMIT:
                control = run.role is Role.CONTROL
                wanted = commits.get(experiment.base, "") if control else self.record.base_commit
            if run.commit != wanted:
                yield "run", f"{run.role} run {run.name} is of {run.commit}, not of {wanted}"

    def _verdict(self, experiment: Experiment) -> Disagreements:
        parts = (experiment.status, experiment.order, experiment.ended_at)
        if len({part is None for part in parts}) > 1:
            yield "verdict", "only a part of its verdict is recorded"
        if experiment.status is None:
            return
        if (experiment.status is Status.KEEP) != (experiment.reason is None):
            yield "verdict", f"{experiment.status} with the reason {experiment.reason!r}"
        runs = [run for run in self.runs[experiment.number] if run.finished]
        mine = [run for run in runs if run.attempt == experiment.attempt]
        known = _possible_metrics(experiment, mine, bool(self.record.deterministic))
        if experiment.metric not in known:
            said = " or ".join(map(str, known)) or "nothing"
            yield "metric", f"{experiment.metric} is recorded, its runs say {said}"
        if experiment.status is Status.CRASH and not any(
            run.metric is None and run.reason == experiment.reason for run in mine
        ):
            yield "verdict", f"no run of it crashed with {experiment.reason!r}"
        here = segment_of(self.starts, experiment.order or 0)
        if experiment.reason not in UNMEASURED and (
            astray := {r.segment for r in mine if r.role in DECIDING} - {here}
        ):
            yield "verdict", f"of segment {here}, by runs of {sorted(astray)}"
        if experiment.flag is not None and (
            experiment.status is not Status.KEEP
            or experiment.number == 0
            or self.record.deterministic
        ):
            yield "flag", f"only a keep of a task with noise is flagged: {experiment.flag}"
        if experiment.status is Status.KEEP and experiment.number:
            for lack in self._lacks(experiment, mine):
                yield "verdict", f"kept, but {lack}"

    def _lacks(self, experiment: Experiment, runs: list[Run]) -> Iterator[str]:
        """What is missing from a keep's runs that `core/judge.py` asks for."""
        level, metric = judge.LEVELS[self.record.level], self.record.metric
        screen, candidate, control, fresh = (
            _metrics(runs, role)
            for role in (Role.SCREEN, Role.CANDIDATE, Role.CONTROL, Role.REMEASURE)
        )
        if self.record.deterministic:
            if len(screen) < 2 or screen[0] != screen[1]:
                yield f"it was not reproduced: {screen}"
            if not fresh:
                yield "it was not measured again"
            return
        if not screen:
            yield "it was not screened"
        if len(fresh) != judge.FRESH_RUNS:
            yield f"it was measured again {len(fresh)} times, not {judge.FRESH_RUNS}"
        if len(candidate) != level.k:
            yield f"it was confirmed by {len(candidate)} runs, not {level.k}"
        if level.cached or not candidate:
            return
        if len(control) != level.k:
            yield f"{len(control)} runs of the incumbent stood against it, not {level.k}"
        elif not metric.better(
            metric.worst(candidate), self._bar(experiment, metric.best(control))
        ):
            yield f"{candidate} do not all beat {control}"

    def _bar(self, experiment: Experiment, best: float) -> float:
        """What a keep's worst run has to beat. Removing code may cost a margin."""
        removed = experiment.removed_lines - experiment.added_lines
        margin = self.task.judge.simplify or 0.0
        is_simpler = removed > 0 or "simpler" in experiment.detail
        return self.record.metric.worsened(best, margin) if is_simpler else best

    # ---- what follows from the ledger ------------------------------------------------------

    def _commit(self, experiment: Experiment) -> Disagreements:
        if not self.repository.has_files(experiment.commit):
            yield "commit", f"{experiment.commit} is not in the repository any more"
        elif (tree := self.repository.tree_id(experiment.commit)) != self.trees[experiment.number]:
            yield "commit", f"{experiment.commit} has the tree {tree}, another is recorded"

    def _refs(self) -> Problems:
        tag, there = self.record.tag, self.repository.refs.all(self.record.tag)
        for experiment in self.experiments:
            name = f"refs/autoresearch/{tag}/{experiment.number}"
            at = there.pop(name, None)
            if at != experiment.commit and self.repository.has_files(experiment.commit):
                repair = partial(
                    self.repository.refs.keep, tag, experiment.number, experiment.commit
                )
                yield _Problem("ref", name, _instead(at, experiment.commit), repair)
        name = f"refs/autoresearch/{tag}/best"
        at = there.pop(name, None)
        if self.keeps and at != (best := self.keeps[-1].commit):
            yield _Problem("ref", name, _instead(at, best), self._move)
        for name in self.repository.refs.leftovers(tag, len(self.experiments)):
            del there[name]
            yield _Problem(
                "ref", name, "a kill left it behind", partial(self.repository.refs.drop, name)
            )
        for name in there:
            yield _Problem("ref", name, "it belongs to no experiment of the ledger")

    def _branch(self) -> Problems:
        if not self.keeps:
            return
        best, ours = self.keeps[-1].commit, self._ours()
        branch = self.repository.refs.branch_name(self.record.tag)
        at = self.repository.refs.get(f"refs/heads/{branch}")
        if at == best or self.repository.refs.is_branch_checked_out(self.record.tag):
            return  # its user was warned, or has committed on it
        why = self.repository.refs.why_branch_stays(self.record.tag, best, ours)
        if why is None:
            yield _Problem("branch", branch, _instead(at, best), self._move)
        elif why not in self.record.warnings:
            yield _Problem("branch", branch, why)

    def _ours(self) -> set[str]:
        return {self.record.base_commit, *(keep.commit for keep in self.keeps)}

    def _move(self) -> None:
        best = self.keeps[-1].commit
        if self.repository.has_files(best):
            self.repository.refs.move_best(self.record.tag, best, self._ours())

    def _folders(self) -> Problems:
        """Every finished run has a folder, and there are no others."""
        runs = [run for some in self.runs.values() for run in some]
        known = {run.name for run in runs}
        for run in runs:
            given_up = (run.reason or "").startswith(GIVEN_UP)
            if run.finished and not given_up and not (self.paths.runs / run.name / "log").exists():
                where = str(self.paths.runs / run.name)
                yield _Problem("run folder", where, "the log of this finished run is gone")
        for folder in sorted(self.paths.runs.glob("*/*/")):
            name = folder.relative_to(self.paths.runs).as_posix()
            if name not in known:
                repair = partial(remove_tree, folder)
                yield _Problem("run folder", str(folder), "no run of the ledger made it", repair)

    def _leftovers(self) -> Problems:
        """What a killed process left behind. The tree of an open run is no leftover: if the run
        has ended, its files are in there."""
        runs = [run for some in self.runs.values() for run in some]
        open_trees = {f"{run.id:05d}" for run in runs if not run.finished}
        trees = [tree for tree in _below(self.paths.trees) if tree.name not in open_trees]
        for folder in (*trees, *_below(self.paths.turns)):
            yield _left(folder, partial(remove_tree, folder))
        done = [self.paths.runs / run.name for run in runs if run.finished]
        outcomes = [folder / name for folder in done for name in OUTCOMES]
        files = [file for file in outcomes if file.exists()]
        for file in (*files, *drafts(self.paths), *self.repository.refs.locks(self.record.tag)):
            yield _left(file, partial(file.unlink, missing_ok=True))
        for process in leftovers(self.paths):
            yield _Problem(
                "process", f"pid {process.pid}", "it outlived its run", partial(_kill, process)
            )

    def _of_session(self, what: str, detail: str) -> _Problem:
        return _Problem(what, f"session {self.record.tag}", detail)


def _metrics(runs: Iterable[Run], role: Role) -> list[float]:
    """Metrics of the runs in that role that did not crash, in the order of their index."""
    mine = sorted((run for run in runs if run.role is role), key=lambda run: run.index)
    return [run.metric for run in mine if run.metric is not None]


def _possible_metrics(
    experiment: Experiment, runs: list[Run], deterministic: bool
) -> list[float | None]:
    """What the metric of a finished experiment may be, by the rules of the loop."""
    if experiment.status is Status.CRASH or experiment.reason in UNMEASURED:
        return [None]
    if experiment.status is Status.KEEP:
        values = _metrics(runs, Role.REMEASURE if experiment.number else Role.BASELINE)
        return (
            [values[0] if experiment.number and deterministic else fmean(values)] if values else []
        )
    # If a run broke a bound, its metric counts; otherwise the mean of the screening runs. If the
    # session was killed, the verdict may rest on fewer of them than were made.
    broken = [
        run.metric for run in runs if run.reason == experiment.reason and run.metric is not None
    ]
    screen = _metrics(runs, Role.SCREEN)
    return [*broken, *(fmean(screen[:looks]) for looks in range(1, len(screen) + 1))]


def _check_results(task: Task, ledger: Ledger) -> Problems:
    """results.tsv must be the table of a session: the latest, unless an earlier one was resumed."""
    path = SessionPaths(task.root, "").results
    sessions = ledger.sessions()
    try:
        found = read_ours(path)
        if found is None and not any(ledger.finished(record, last=1) for record in sessions[-1:]):
            return
        tables = [table(ledger, record).encode() for record in reversed(sessions)]
        if found in tables:
            return
        check_ours(path, ledger)
    except NotOursError as error:
        yield _Problem("results.tsv", str(path), str(error))
        return
    begun = [whole for whole in tables if found and whole.startswith(found)]
    right = (begun or tables)[0]
    detail = "it is missing" if found is None else "it does not say what the ledger says"
    yield _Problem("results.tsv", str(path), detail, partial(replace_file, path, right))


def _below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _left(path: Path, repair: Callable[[], object]) -> _Problem:
    return _Problem("leftover", str(path), "a kill left it behind", repair)


def _instead(at: str | None, wanted: str) -> str:
    return f"it is {f'at {at}' if at else 'missing'}; {wanted} is right"


def _brief(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:20]))
    return shown + (", ..." if len(numbers) > 20 else "")


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):  # it has just ended
        process.kill()
        process.wait(5)
