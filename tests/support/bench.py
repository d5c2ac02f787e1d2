"""One executor on a task of its own, for tests that make single runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.files import remove_tree
from autoresearch.git.repository import Repository
from autoresearch.measure.runs import RunExecutor
from autoresearch.protocols import Proposal
from autoresearch.records import Role, Run
from autoresearch.runners.local import LocalRunner
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from support.sessions import (
    task_of,
)


def untouched(run: Run) -> bool:
    """Nothing has changed meanwhile."""
    return False


class Bench:
    """A run executor, and a way to make runs of the last commit with it."""

    def __init__(self, executor: RunExecutor, ledger: Ledger) -> None:
        self.executor = executor
        self.ledger = ledger
        self.paths = executor.paths
        self.repository = executor.repository
        task = executor.task
        self.record = ledger.create_session(
            "t",
            base_commit=self.repository.head(),
            metric=task.metric,
            level="default",
            budget_s=None,
            budget_clock="wall",
            limits={},
            fingerprint={},
            now=0.0,
        )
        commit, tree = self.record.base_commit, self.repository.tree_id(self.record.base_commit)
        begun = {"base": 0, "commit": commit, "tree": tree, "agent": "", "now": 0.0}
        ledger.begin(self.record, proposal=Proposal("baseline"), **begun)  # type: ignore[arg-type]
        self.count = 0

    def open(self) -> Run:
        self.count += 1
        return self.ledger.open_run(
            self.record,
            experiment=0,
            attempt=0,
            role=Role.BASELINE,
            index=self.count,
            commit=self.record.base_commit,
            now=0.0,
        )

    def measure(self) -> Run:
        return self.executor.measure(self.open(), untouched)

    def file(self, run: Run, name: str) -> Path:
        return self.paths.runs / run.name / name


@contextmanager
def bench(root: Path, **settings: object) -> Iterator[Bench]:
    task = task_of(root, **settings)
    repository = Repository(task.root, task.editable, task.may_edit)
    paths = SessionPaths(root, "t")
    paths.folder.mkdir(parents=True)
    runner, ledger = LocalRunner(1), Ledger(paths.ledger)
    try:
        first = repository.head()
        yield Bench(RunExecutor(task, paths, repository, runner, ledger, first), ledger)
    finally:
        runner.close()
        ledger.close()
        remove_tree(paths.temporary)
