"""Does everything agree with the ledger, and the ledger with itself?

`audit` looks and changes nothing; `repair` makes again what follows from the ledger: refs, the
branch, results.tsv, and the removal of what a kill left behind. What the ledger says is never
changed: a verdict that its runs do not bear out is a finding for a person.

While a process owns a session, only its ledger and its commits are looked at: refs and files follow
a moment later than the transaction they follow from. Open experiments and runs of an interrupted
session are no findings: the next `run` takes them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import psutil

from autoresearch.core import judge
from autoresearch.errors import NotOursError
from autoresearch.files import remove_tree
from autoresearch.git.repository import Repository
from autoresearch.measure.runs import OUTCOMES, leftovers
from autoresearch.records import HELD_OUT, Experiment, Role, Run, Status
from autoresearch.store.files import drafts, read_ours, replace_file
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import Lock, SessionPaths, owner
from autoresearch.store.results import DECIDING, check_ours, table
from autoresearch.store.rows import SessionRecord, segment_of
from autoresearch.task.model import Task

OF_THE_BASE = {Role.CONTROL, Role.VERIFY_BASELINE}  # runs of another commit than the experiment's
UNMEASURED = ("conflict", "duplicate", "incumbent crashed")  # discards without a metric
GIVEN_UP = "lost "  # how the reason of a run begins that never came back: it may have no log


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not agree. `repairable`: it follows from the ledger, and can be made
    again."""

    what: str  # "ref", "results.tsv", "metric", ...
    where: str  # a ref, a path, "experiment 7"
    detail: str  # what is there, and what should be
    repairable: bool


@dataclass(frozen=True, slots=True)
class _Problem:
    what: str
    where: str
    detail: str
    mend: Callable[[], object] | None = None

    def finding(self) -> Finding:
        return Finding(self.what, self.where, self.detail, self.mend is not None)


Problems = Iterator[_Problem]


def audit(task: Task, tag: str | None = None) -> list[Finding]:
    """What does not agree, of one session or of all of the task's ledger; empty when all is well.

    Raises `LedgerError` for a ledger that is missing, damaged or has no session `tag`."""
    return [problem.finding() for problem in _problems(task, tag)]


def repair(task: Task, tag: str | None = None) -> list[Finding]:
    """Make again what can be made from the ledger, and return what was mended.

    Raises `BusyError`, before anything is changed, while a process owns a session of the task."""
    with closing(_opened(task)) as ledger:
        ledger.check_integrity()
        tags = [record.tag for record in ledger.sessions()]
    locks: list[Lock] = []
    try:
        for one in tags:  # all of them: results.tsv is everybody's, and no other may begin now
            locks.append(Lock(SessionPaths(task.root, one)))
        mended = []
        for problem in _problems(task, tag, ours=True):
            if problem.mend is not None:
                problem.mend()
                mended.append(problem.finding())
        return mended
    finally:
        for lock in locks:
            lock.release()


def _opened(task: Task) -> Ledger:
    return Ledger(SessionPaths(task.root, "").ledger, readonly=True)


def _sessions(ledger: Ledger, tag: str | None) -> list[SessionRecord]:
    return ledger.sessions() if tag is None else [ledger.session(tag)]


def _problems(task: Task, tag: str | None, ours: bool = False) -> list[_Problem]:
    """`ours`: the sessions are owned by this process."""
    repository = Repository(task.root, task.editable, task.may_edit)
    with closing(_opened(task)) as ledger:
        ledger.check_integrity()  # seeds and names of runs are unique: the schema says so
        found = []
        for record in _sessions(ledger, tag):
            idle = ours or owner(SessionPaths(task.root, record.tag)) is None
            found += list(_Audit(task, repository, ledger, record).problems(idle))
        if ours or all(
            owner(SessionPaths(task.root, one.tag)) is None for one in ledger.sessions()
        ):
            found += _results(task, ledger)
        return found


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
            self.runs = {one.number: ledger.runs(record, one.number) for one in self.experiments}
            self.trees = {
                one.number: ledger.recorded_tree(record, one.number) for one in self.experiments
            }
        finished = [one for one in self.experiments if one.order is not None]
        self.keeps = [one for one in finished if one.status is Status.KEEP]
        self.keeps.sort(key=lambda one: one.order or 0)

    def problems(self, idle: bool) -> Problems:
        yield from self._numbers()
        for one in self.experiments:
            yield from self._commit(one)
            yield from self._base(one)
            yield from self._commits_of_runs(one)
            yield from self._verdict(one)
        if idle:
            yield from self._refs()
            yield from self._branch()
            yield from self._folders()
            yield from self._leftovers()

    # ---- the ledger with itself ------------------------------------------------------------

    def _numbers(self) -> Problems:
        numbers = [one.number for one in self.experiments]
        if numbers != list(range(len(numbers))):
            yield self._of_session("numbers", f"experiments are numbered {_brief(numbers)}")
        orders = sorted(one.order for one in self.experiments if one.order is not None)
        if orders != list(range(len(orders))):
            yield self._of_session("order", f"the order of finishing is {_brief(orders)}")

    def _base(self, one: Experiment) -> Problems:
        base = next((known for known in self.keeps if known.number == one.base), None)
        if one.number == 0:
            if one.base != 0:
                yield self._of(one, "base", f"the baseline is built on experiment {one.base}")
        elif base is None:
            yield self._of(one, "base", f"it is built on {one.base}, which was not kept")
        elif one.order is not None and (base.order or 0) >= one.order:
            yield self._of(one, "base", f"it is built on {one.base}, which was kept later")

    def _commits_of_runs(self, one: Experiment) -> Problems:
        commits = {known.number: known.commit for known in self.experiments}
        for run in self.runs[one.number]:
            if run.holdout is not None and (run.role not in HELD_OUT or run.metric is None):
                yield self._of(one, "holdout", f"{run.role} run {run.name} was scored on it")
            if run.attempt != one.attempt:
                continue
            wanted = one.commit
            if run.role in OF_THE_BASE:
                control = run.role is Role.CONTROL
                wanted = commits.get(one.base, "") if control else self.record.base_commit
            if run.commit != wanted:
                yield self._of(
                    one, "run", f"{run.role} run {run.name} is of {run.commit}, not of {wanted}"
                )

    def _verdict(self, one: Experiment) -> Problems:
        if (one.status is None) != (one.order is None) or (one.status is None) != (
            one.ended_at is None
        ):
            yield self._of(one, "verdict", "only a part of its verdict is recorded")
        if one.status is None:
            return
        if (one.status is Status.KEEP) != (one.reason is None):
            yield self._of(one, "verdict", f"{one.status} with the reason {one.reason!r}")
        mine = [r for r in self.runs[one.number] if r.attempt == one.attempt and r.finished]
        known = _metrics_borne_out(one, mine, bool(self.record.deterministic))
        if one.metric not in known:
            said = " or ".join(map(str, known)) or "nothing"
            yield self._of(one, "metric", f"{one.metric} is recorded, its runs say {said}")
        if one.status is Status.CRASH and not any(
            run.metric is None and run.reason == one.reason for run in mine
        ):
            yield self._of(one, "verdict", f"no run of it crashed with {one.reason!r}")
        here = segment_of(self.starts, one.order or 0)
        if one.reason not in UNMEASURED and (
            astray := {r.segment for r in mine if r.role in DECIDING} - {here}
        ):
            yield self._of(one, "verdict", f"of segment {here}, by runs of {sorted(astray)}")
        if one.flag is not None and (
            one.status is not Status.KEEP or one.number == 0 or self.record.deterministic
        ):
            yield self._of(one, "flag", f"only a keep of a task with noise is flagged: {one.flag}")
        if one.status is Status.KEEP and one.number:
            for lack in self._lacks(one, mine):
                yield self._of(one, "verdict", f"kept, but {lack}")

    def _lacks(self, one: Experiment, runs: list[Run]) -> Iterator[str]:
        """What a keep's runs lack of what `judge.py` asks for."""
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
        elif not metric.better(metric.worst(candidate), self._bar(one, metric.best(control))):
            yield f"{candidate} do not all beat {control}"

    def _bar(self, one: Experiment, best: float) -> float:
        """What a keep's worst run has to beat: less where removing code may cost a margin."""
        simpler = one.removed_lines > one.added_lines or "simpler" in one.detail
        margin = self.task.judge.simplify or 0.0
        return self.record.metric.worsened(best, margin) if simpler else best

    # ---- what follows from the ledger ------------------------------------------------------

    def _commit(self, one: Experiment) -> Problems:
        if not self.repository.has_files(one.commit):
            yield self._of(one, "commit", f"{one.commit} is not in the repository any more")
        elif (tree := self.repository.tree_id(one.commit)) != self.trees[one.number]:
            yield self._of(one, "commit", f"{one.commit} has the tree {tree}, another is recorded")

    def _refs(self) -> Problems:
        tag, there = self.record.tag, self.repository.refs(self.record.tag)
        for one in self.experiments:
            name = f"refs/autoresearch/{tag}/{one.number}"
            at = there.pop(name, None)
            if at != one.commit and self.repository.has_files(one.commit):
                mend = partial(self.repository.keep_reachable, tag, one.number, one.commit)
                yield _Problem("ref", name, _instead(at, one.commit), mend)
        name = f"refs/autoresearch/{tag}/best"
        at = there.pop(name, None)
        if self.keeps and at != (best := self.keeps[-1].commit):
            yield _Problem("ref", name, _instead(at, best), self._move)
        for name in self.repository.passing_refs(tag, len(self.experiments)):
            del there[name]
            yield _Problem(
                "ref", name, "a kill left it behind", partial(self.repository.drop_ref, name)
            )
        for name in there:
            yield _Problem("ref", name, "it belongs to no experiment of the ledger")

    def _branch(self) -> Problems:
        if not self.keeps:
            return
        best, ours = self.keeps[-1].commit, self._ours()
        branch = self.repository.branch_name(self.record.tag)
        at = self.repository.ref(f"refs/heads/{branch}")
        if at == best or self.repository.is_stood_on(self.record.tag):
            return  # who stands on it was told, or has made it go on from there
        why = self.repository.why_left_alone(self.record.tag, best, ours)
        if why is None:
            yield _Problem("branch", branch, _instead(at, best), self._move)
        elif why not in self.record.warnings:
            yield _Problem("branch", branch, why)

    def _ours(self) -> set[str]:
        return {self.record.base_commit, *(keep.commit for keep in self.keeps)}

    def _move(self) -> None:
        best = self.keeps[-1].commit
        if self.repository.has_files(best):
            self.repository.move(self.record.tag, best, self._ours())

    def _folders(self) -> Problems:
        """A folder for every finished run, and none for what is no run."""
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
                mend = partial(remove_tree, folder)
                yield _Problem("run folder", str(folder), "no run of the ledger made it", mend)

    def _leftovers(self) -> Problems:
        """What a kill leaves behind. A tree of a run that is still open is no leftover: when the
        run had ended, its files are in there."""
        runs = [run for some in self.runs.values() for run in some]
        open_trees = {f"{run.id:05d}" for run in runs if not run.finished}
        trees = [tree for tree in _below(self.paths.trees) if tree.name not in open_trees]
        for folder in (*trees, *_below(self.paths.turns)):
            yield _left(folder, partial(remove_tree, folder))
        done = [self.paths.runs / run.name for run in runs if run.finished]
        outcomes = [folder / name for folder in done for name in OUTCOMES]
        files = [file for file in outcomes if file.exists()]
        for file in (*files, *drafts(self.paths), *self.repository.locks(self.record.tag)):
            yield _left(file, partial(file.unlink, missing_ok=True))
        for process in leftovers(self.paths):
            yield _Problem(
                "process", f"pid {process.pid}", "it outlived its run", partial(_kill, process)
            )

    # ---- words -----------------------------------------------------------------------------

    def _of(self, one: Experiment, what: str, detail: str) -> _Problem:
        return _Problem(what, f"session {self.record.tag}, experiment {one.number}", detail)

    def _of_session(self, what: str, detail: str) -> _Problem:
        return _Problem(what, f"session {self.record.tag}", detail)


def _metrics(runs: Iterable[Run], role: Role) -> list[float]:
    """Of the runs in that role, by their index; crashed ones left out."""
    mine = sorted((run for run in runs if run.role is role), key=lambda run: run.index)
    return [run.metric for run in mine if run.metric is not None]


def _metrics_borne_out(one: Experiment, runs: list[Run], deterministic: bool) -> list[float | None]:
    """What the metric of a finished experiment may be, by the rules of `loop.py`."""
    if one.status is Status.CRASH or one.reason in UNMEASURED:
        return [None]
    if one.status is Status.KEEP:
        values = _metrics(runs, Role.REMEASURE if one.number else Role.BASELINE)
        return [values[0] if one.number and deterministic else fmean(values)] if values else []
    # A bound was broken by one run; else the screen counts: as many looks of it as were needed when
    # the verdict fell, which after a kill may be fewer than were made.
    broken = [run.metric for run in runs if run.reason == one.reason and run.metric is not None]
    screen = _metrics(runs, Role.SCREEN)
    return [*broken, *(fmean(screen[:looks]) for looks in range(1, len(screen) + 1))]


def _results(task: Task, ledger: Ledger) -> Problems:
    """results.tsv is the table of one session, the latest one's unless another was resumed."""
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


def _left(path: Path, mend: Callable[[], object]) -> _Problem:
    return _Problem("leftover", str(path), "a kill left it behind", mend)


def _instead(at: str | None, wanted: str) -> str:
    return f"it is {f'at {at}' if at else 'missing'}; {wanted} is right"


def _brief(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:20]))
    return shown + (", ..." if len(numbers) > 20 else "")


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):  # it has just ended
        process.kill()
        process.wait(5)
