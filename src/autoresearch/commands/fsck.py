"""Check that refs, files and processes agree with the ledger, and the ledger with itself.

`audit` changes nothing. `repair` restores what follows from the ledger (refs, the branch,
results.tsv) and removes what a killed process left behind. Neither changes the ledger: if its runs
do not support a verdict, a person has to look.

While a process owns a session, only its ledger and its commits are checked: refs and files are
written a moment after their transaction. Open experiments and runs of an interrupted session are no
findings: the next `run` continues them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Any

import psutil

from autoresearch.core import judge
from autoresearch.core.segments import NOISY
from autoresearch.errors import NotOursError
from autoresearch.files import LEFT, remove_tree, replace_file
from autoresearch.git.refs import SCRATCH, VARIANT
from autoresearch.git.repository import Repository
from autoresearch.measure.runs import OUTCOMES, UNEXPECTED, leftovers
from autoresearch.records import HELD_OUT, Experiment, Role, Run, Status
from autoresearch.store.ledger import UNMEASURED, Ledger
from autoresearch.store.lock import Lock, find_owner
from autoresearch.store.paths import SessionPaths, ledger_path
from autoresearch.store.published import drafts, read_ours
from autoresearch.store.results import DECIDING, check_ours, table
from autoresearch.store.rows import SessionRecord, segment_of
from autoresearch.task.model import Task

OTHER_COMMIT = {Role.CONTROL, Role.VERIFY_BASELINE}  # runs of another commit than the experiment's
LOST = "lost "  # begins the reason of a run that never ended: it may have no log


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not agree. `repair` restores it, if it follows from the ledger."""

    what: str  # "ref", "results.tsv", "metric", ...
    where: str  # a ref, a path, "experiment 7"
    detail: str  # the present state, and the right one
    repair: Callable[[], object] | None = None

    @property
    def repairable(self) -> bool:
        return self.repair is not None

    def __str__(self) -> str:
        return f"{self.what}: {self.where}: {self.detail}"

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("what", "where", "detail", "repairable")}


Findings = Iterator[Finding]
Disagreements = Iterator[tuple[str, str]]  # (what, detail) of one experiment


def findings_text(left: Sequence[Finding], repaired: Sequence[Finding] = ()) -> str:
    """List repairs and findings for people, and say what to do about them."""
    lines = [f"repaired: {finding}" for finding in repaired]
    lines += [f"{finding}{' [repairable]' if finding.repairable else ''}" for finding in left]
    if not left:
        lines.append("everything agrees with the ledger")
    elif any(finding.repairable for finding in left):
        lines.append("`autoresearch fsck --repair` restores what is marked repairable")
    if not all(finding.repairable for finding in left):
        lines.append("What is not marked cannot be restored from the ledger: docs/faults.md")
    return "\n".join(lines)


def audit(task: Task, tag: str | None = None, is_ours: bool = False) -> list[Finding]:
    """Return what does not agree in session `tag`, or in all sessions. `is_ours` means that this
    process owns all sessions.

    Raises `LedgerError` for a ledger that is missing, damaged or has no session `tag`."""
    repository = Repository(task.root, task.editable, task.may_edit)

    def is_idle(record: SessionRecord) -> bool:
        return is_ours or find_owner(SessionPaths(task.root, record.tag)) is None

    with closing(Ledger(ledger_path(task.root), readonly=True)) as ledger:
        ledger.check_integrity()  # the schema makes seeds and names of runs unique
        findings = []
        for record in ledger.sessions() if tag is None else [ledger.session(tag)]:
            session_audit = _Audit(task, repository, ledger, record)
            findings += list(session_audit.check_ledger())
            if is_idle(record):
                findings += list(session_audit.check_derived())
        if all(map(is_idle, ledger.sessions())):
            findings += _check_results(task, ledger)
        return findings


def repair(task: Task, tag: str | None = None) -> list[Finding]:
    """Restore what follows from the ledger. Returns what was repaired.

    Raises `BusyError`, before anything is changed, while a process owns a session of the task."""
    with closing(Ledger(ledger_path(task.root), readonly=True)) as ledger:
        ledger.check_integrity()
        tags = [record.tag for record in ledger.sessions()]
    with ExitStack() as locks:
        for name in tags:  # all of them: they share results.tsv, and none may begin meanwhile
            locks.callback(Lock(SessionPaths(task.root, name)).release)
        repaired = []
        for finding in audit(task, tag, is_ours=True):
            if finding.repair is not None:
                finding.repair()
                repaired.append(finding)
        return repaired


class _Audit:
    """The checks of one session."""

    def __init__(
        self, task: Task, repository: Repository, ledger: Ledger, record: SessionRecord
    ) -> None:
        self.task = task
        self.paths = SessionPaths(task.root, record.tag)
        self.repository = repository
        self.refs = repository.refs
        self.record = record
        with ledger.snapshot():
            self.experiments = ledger.all_experiments(record)
            self.starts = ledger.starts(record)
            noisy = [s.number for s in ledger.segments(record) if s.reason.startswith(NOISY)]
            self.noisy_from = min(noisy, default=None)
            self.all_runs = ledger.all_runs(record)
            self.trees = ledger.recorded_trees(record)
        self.runs: dict[int, list[Run]] = defaultdict(list)  # by experiment
        for run in self.all_runs:
            self.runs[run.experiment].append(run)
        self.commits = {experiment.number: experiment.commit for experiment in self.experiments}
        keeps = [e for e in self.experiments if e.order is not None and e.status is Status.KEEP]
        self.keeps = sorted(keeps, key=lambda keep: keep.order or 0)
        self.keep_orders = {keep.number: keep.order or 0 for keep in keeps}
        self.own_commits = {record.base_commit, *(keep.commit for keep in keeps)}

    def check_ledger(self) -> Findings:
        """Check the ledger with itself, and that the repository has its commits."""
        session = f"session {self.record.tag}"
        numbers = [experiment.number for experiment in self.experiments]
        orders = sorted(e.order for e in self.experiments if e.order is not None)
        for what, found in (("numbers", numbers), ("order", orders)):
            gap = next((i for i, number in enumerate(found) if i != number), None)
            if gap is not None:
                yield Finding(what, session, f"after {gap} experiments comes number {found[gap]}")
        for experiment in self.experiments:
            for check in (self._commit, self._base, self._commits_of_runs, self._verdict):
                for what, detail in check(experiment):
                    yield Finding(what, f"{session}, experiment {experiment.number}", detail)

    def _commit(self, experiment: Experiment) -> Disagreements:
        if not self.repository.has_files(experiment.commit):
            yield "commit", f"{experiment.commit} is not in the repository any more"
        elif (tree := self.repository.tree_id(experiment.commit)) != self.trees[experiment.number]:
            yield "commit", f"{experiment.commit} has the tree {tree}, another is recorded"

    def _base(self, experiment: Experiment) -> Disagreements:
        kept = self.keep_orders.get(experiment.base)
        if experiment.number == 0:
            if experiment.base != 0:
                yield "base", f"the baseline is built on experiment {experiment.base}"
        elif kept is None:
            yield "base", f"it is built on {experiment.base}, which was not kept"
        elif experiment.order is not None and kept >= experiment.order:
            yield "base", f"it is built on {experiment.base}, which was kept later"

    def _commits_of_runs(self, experiment: Experiment) -> Disagreements:
        for run in self.runs[experiment.number]:
            if run.holdout is not None and (run.role not in HELD_OUT or run.metric is None):
                yield "holdout", f"{run.role} run {run.name} was scored on it"
            if run.attempt != experiment.attempt:
                continue
            right = experiment.commit
            if run.role in OTHER_COMMIT:
                is_control = run.role is Role.CONTROL
                base = self.commits.get(experiment.base, "")
                right = base if is_control else self.record.base_commit
            if run.role in (Role.ABLATION, Role.REDUCED) and run.commit in self._list_variants():
                continue
            if run.role is Role.SCRATCH:  # of what a folder held: `_check_refs` looks for its name
                continue
            if run.commit != right:
                yield "run", f"{run.role} run {run.name} is of {run.commit}, not of {right}"

    def _list_variants(self) -> set[str]:
        """The commits that an ablation measured beside the best one."""
        refs = self.refs.all(self.record.tag).items()
        variants = {commit for ref, commit in refs if VARIANT.fullmatch(ref.rpartition("/")[2])}
        return variants | {self.record.base_commit}

    def _verdict(self, experiment: Experiment) -> Disagreements:
        status, reason = experiment.status, experiment.reason
        if len({part is None for part in (status, experiment.order, experiment.ended_at)}) > 1:
            yield "verdict", "only a part of its verdict is recorded"
        if status is None:
            return
        if (status is Status.KEEP) != (reason is None):
            yield "verdict", f"{status} with the reason {reason!r}"
        attempt = [r for r in self.runs[experiment.number] if r.attempt == experiment.attempt]
        runs = [run for run in attempt if run.finished]
        possible = _possible_metrics(experiment, runs, self._was_exact(experiment))
        if experiment.metric not in possible:
            text = " or ".join(map(str, possible)) or "nothing"
            yield "metric", f"{experiment.metric} is recorded, its runs say {text}"
        is_of_a_run = any(run.metric is None and run.reason == reason for run in runs)
        if status is Status.CRASH and not is_of_a_run and not (reason or "").startswith(UNEXPECTED):
            yield "verdict", f"no run of it crashed with {reason!r}"
        segment = segment_of(self.starts, experiment.order or 0)
        others = {run.segment for run in runs if run.role in DECIDING} - {segment}
        if others and reason not in UNMEASURED:
            yield "verdict", f"of segment {segment}, by runs of {sorted(others)}"
        is_kept_change = status is Status.KEEP and experiment.number > 0
        if experiment.flag is not None and (not is_kept_change or self._was_exact(experiment)):
            yield "flag", f"only a keep of a task with noise is flagged: {experiment.flag}"
        if is_kept_change:
            for lack in self._lacks(experiment, runs):
                yield "verdict", f"kept, but {lack}"

    def _was_exact(self, experiment: Experiment) -> bool:
        """Whether its runs were compared exactly: the session was taken for deterministic until the
        segment that began with two numbers of one commit."""
        if self.noisy_from is None:
            return bool(self.record.deterministic)
        return segment_of(self.starts, experiment.order or 0) < self.noisy_from

    def _lacks(self, experiment: Experiment, runs: list[Run]) -> Iterator[str]:
        """Yield what a keep's runs lack of what `core/judge.py` asks for."""
        level, metric = judge.LEVELS[self.record.level], self.record.metric
        screen, candidate, control, fresh = (
            _metrics(runs, role)
            for role in (Role.SCREEN, Role.CANDIDATE, Role.CONTROL, Role.REMEASURE)
        )
        if self._was_exact(experiment):
            if len(screen) < 2 or screen[0] != screen[1]:
                yield f"it was not reproduced: {screen}"
            if not fresh:
                yield "it was not measured again"
            return
        if not screen:
            yield "it was not screened"
        if len(fresh) < judge.FRESH_RUNS:  # earlier versions made four
            yield f"it was measured again {len(fresh)} times, not {judge.FRESH_RUNS}"
        if len(candidate) != level.k:
            yield f"it was confirmed by {len(candidate)} runs, not {level.k}"
        if not candidate:
            return
        crashed = sum(run.role is Role.CONTROL and run.metric is None for run in runs)
        control += [metric.crash] * crashed
        if len(control) != level.k:
            yield f"{len(control)} runs of the incumbent stood against it, not {level.k}"
            return
        bar = metric.best(control)
        if experiment.removed_lines > experiment.added_lines or "simpler" in experiment.detail:
            bar = metric.worsened(bar, self.task.judge.simplify or 0.0)
        if not metric.better(metric.worst(candidate), bar):
            yield f"{candidate} do not all beat {control}"

    def check_derived(self) -> Findings:
        """Check what follows from the ledger of a session that no process owns."""
        yield from self._check_refs()
        yield from self._check_branch()
        yield from self._check_run_folders()
        yield from self._check_leftovers()

    def _check_refs(self) -> Findings:
        tag, refs = self.record.tag, self.refs.all(self.record.tag)
        right: list[tuple[str, str, Callable[[], object]]] = [
            (str(e.number), e.commit, partial(self.refs.keep, tag, e.number, e.commit))
            for e in self.experiments
        ]
        right += [
            (
                f"scratch-{r.index}",
                r.commit,
                partial(self.refs.keep_scratch, tag, r.index, r.commit),
            )
            for r in self.all_runs
            if r.role is Role.SCRATCH and r.finished
        ]
        if self.keeps:
            right.append(("best", self.keeps[-1].commit, self._move_best))
        for name, commit, repair in right:
            ref = f"refs/autoresearch/{tag}/{name}"
            present = refs.pop(ref, None)
            if present != commit and self.repository.has_files(commit):
                yield Finding("ref", ref, _describe_move(present, commit), repair)
        for ref in self.refs.leftovers(tag, len(self.experiments)):
            del refs[ref]
            yield Finding("ref", ref, "a kill left it behind", partial(self.refs.drop, ref))
        for ref in refs:
            name = ref.rpartition("/")[2]
            if VARIANT.fullmatch(name):
                continue  # made by `verify --ablate`
            if SCRATCH.fullmatch(name):
                continue  # of a scratch run that was cut off: the next one takes the name
            yield Finding("ref", ref, "it belongs to no experiment of the ledger")

    def _check_branch(self) -> Findings:
        tag = self.record.tag
        if not self.keeps or self.refs.is_branch_checked_out(tag):
            return  # its user was warned, or has committed on it
        best, branch = self.keeps[-1].commit, self.refs.branch_name(tag)
        present = self.refs.get(f"refs/heads/{branch}")
        obstacle = self.refs.why_branch_stays(tag, best, self.own_commits)
        if obstacle is None:
            if present != best and self.repository.has_files(best):
                detail = _describe_move(present, best)
                yield Finding("branch", branch, detail, self._move_best)
        elif obstacle not in self.record.warnings:
            yield Finding("branch", branch, obstacle)

    def _move_best(self) -> None:
        self.refs.move_best(self.record.tag, self.keeps[-1].commit, self.own_commits)

    def _check_run_folders(self) -> Findings:
        """Every finished run has a folder, and there are no others."""
        for run in self.all_runs:
            is_lost = (run.reason or "").startswith(LOST)
            if run.finished and not is_lost and "log" not in self._folders.get(run.name, ()):
                folder = self.paths.runs / run.name
                yield Finding("run folder", str(folder), "the log of this finished run is gone")
        for name in sorted(self._folders.keys() - {run.name for run in self.all_runs}):
            folder = self.paths.runs / name
            remove = partial(remove_tree, folder)
            yield Finding("run folder", str(folder), "no run of the ledger made it", remove)

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        """The names in each run's folder, by the run's name. Read once: a look for each file of
        10,000 experiments takes seconds."""
        folders: dict[str, list[str]] = {}
        for run in self.paths.runs.glob("*/*/"):
            with os.scandir(run) as entries:
                folders[f"{run.parent.name}/{run.name}"] = [entry.name for entry in entries]
        return folders

    def _check_leftovers(self) -> Findings:
        """Find what a killed process left behind. The tree of an open run is no leftover: if the
        run has ended, its files are in there."""
        open_trees = {f"{run.id:05d}" for run in self.all_runs if not run.finished}
        trees = [tree for tree in self.paths.trees.glob("*") if tree.name not in open_trees]
        places = (self.paths.folder, self.paths.trees.parent)
        stuck = [folder for place in places for folder in place.glob(f"*{LEFT}*")]
        for folder in sorted((*trees, *self.paths.turns.glob("*"), *stuck)):
            remove: Callable[[], object] = partial(remove_tree, folder)
            if LEFT in folder.name:
                yield Finding("leftover", str(folder), "it could not be removed: do it by hand")
            else:
                yield Finding("leftover", str(folder), "a kill left it behind", remove)
        files = [
            self.paths.runs / run.name / name
            for run in self.all_runs
            for name in OUTCOMES
            if run.finished and name in self._folders.get(run.name, ())
        ]
        for file in (*files, *drafts(self.paths), *self.refs.locks(self.record.tag)):
            remove = partial(file.unlink, missing_ok=True)
            yield Finding("leftover", str(file), "a kill left it behind", remove)
        for process in leftovers(self.paths):
            pid = f"pid {process.pid}"
            yield Finding("process", pid, "it outlived its run", partial(_kill, process))


def _metrics(runs: Iterable[Run], role: Role) -> list[float]:
    """Metrics of the runs in that role that did not crash, in the order of their index."""
    in_role = sorted((run for run in runs if run.role is role), key=lambda run: run.index)
    return [run.metric for run in in_role if run.metric is not None]


def _possible_metrics(
    experiment: Experiment, runs: list[Run], deterministic: bool
) -> list[float | None]:
    """What the metric of a finished experiment may be, by the rules of the loop."""
    if experiment.status is Status.CRASH or experiment.reason in UNMEASURED:
        return [None]
    if experiment.status is Status.KEEP:
        values = _metrics(runs, Role.REMEASURE if experiment.number else Role.BASELINE)
        is_exact = experiment.number > 0 and deterministic
        return [values[0] if is_exact else fmean(values)] if values else []
    # If a run broke a bound, its metric counts; otherwise the mean of the screening runs. If the
    # session was killed, the verdict may rest on fewer of them than were made.
    broken = [
        run.metric for run in runs if run.reason == experiment.reason and run.metric is not None
    ]
    screen = _metrics(runs, Role.SCREEN)
    return [*broken, *(fmean(screen[:looks]) for looks in range(1, len(screen) + 1))]


def _check_results(task: Task, ledger: Ledger) -> Findings:
    """results.tsv must be the table of a session: the latest, unless an earlier one was resumed."""
    path = SessionPaths(task.root, "").results
    sessions = ledger.sessions()
    try:
        content = read_ours(path)
        if content is None and not any(ledger.finished(record, last=1) for record in sessions[-1:]):
            return
        tables = [table(ledger, record).encode() for record in reversed(sessions)]
        if content in tables:
            return
        check_ours(path, ledger)
    except NotOursError as error:
        yield Finding("results.tsv", str(path), str(error))
        return
    continued = [whole for whole in tables if content and whole.startswith(content)]
    right = (continued or tables)[0]
    detail = "it is missing" if content is None else "it differs from the ledger"
    yield Finding("results.tsv", str(path), detail, partial(replace_file, path, right))


def _describe_move(present: str | None, right: str) -> str:
    return f"it is {f'at {present}' if present else 'missing'}; {right} is right"


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):  # it has just ended
        process.kill()
        process.wait(5)
