"""Opens a session: from a task and a tag to a session that is ready to work. Every check that needs
no run is made first, so that a refused start leaves nothing half-done."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime

from autoresearch import agents, runners
from autoresearch.briefing import Briefer
from autoresearch.commands.probe import first_turns
from autoresearch.core.events import Listener
from autoresearch.core.scheduler import AgentScheduler
from autoresearch.core.session import Session
from autoresearch.errors import StorageError, TaskError
from autoresearch.files import remove_tree
from autoresearch.git.repository import Repository
from autoresearch.protocols import Agent
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import Lock, check_alone
from autoresearch.store.paths import OURS, SessionPaths
from autoresearch.store.queries import list_shares
from autoresearch.store.results import check_ours
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task, seconds_until


@contextmanager
def open_session(
    task: Task,
    tag: str,
    listener: Listener,
    caller: Agent | None = None,
    keep_deadline: bool = False,
) -> Iterator[Session]:
    """The session `tag` on `task`, new or resumed, owned by this process until the block ends.
    `caller` takes the place of the task's agents: an agent that calls the harness from a terminal.
    With `keep_deadline` the limit `until` means the same day as when it was set."""
    repository = Repository(task.root, task.editable, task.may_edit)
    paths = SessionPaths(task.root, tag)
    repository.refs.check_tag(tag)
    try:
        paths.ledger.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {paths.ledger.parent}: {error.strerror}") from error
    repository.exclude(*OURS)
    lock = Lock(paths)
    try:
        check_alone(paths)
        ledger = Ledger(paths.ledger)
        try:
            if caller is None and ledger.find_session(tag) is None:
                # An agent that cannot be made must not leave a session behind.
                _make_scheduler(task, 0, ledger, repository, {}).close(lambda event: None)
            record = _open_record(task, tag, repository, ledger, paths, keep_deadline)
            if caller is not None:
                scheduler = AgentScheduler([(caller.name, caller, 1.0)])
            else:
                begun = {share.agent: share.experiments for share in list_shares(ledger, record)}
                scheduler = _make_scheduler(task, record.secret, ledger, repository, begun)
            try:
                runner = runners.load(task.runner)
                if hold := getattr(runner, "hold", None):
                    hold(lock.fd)
                try:
                    briefer = Briefer(task, ledger, record, repository, paths)
                    yield Session(
                        task,
                        paths,
                        repository,
                        ledger,
                        runner,
                        scheduler,
                        record,
                        briefer,
                        listener,
                        first_turns,
                    )
                finally:
                    runner.close()
            finally:
                scheduler.close(listener)
                with suppress(OSError):  # a lost disk must not hide the error that ended us
                    remove_tree(paths.temporary)
        finally:
            ledger.close()
            repository.trees.drop_spares()
    finally:
        lock.release()


def _open_record(
    task: Task,
    tag: str,
    repository: Repository,
    ledger: Ledger,
    paths: SessionPaths,
    keep_deadline: bool,
) -> SessionRecord:
    """The session's record: created now, or checked to be of the same task."""
    record = ledger.find_session(tag)
    given = asdict(task.limits)
    limits = {
        name: str(value) if name == "until" else value
        for name, value in given.items()
        if value is not None
    }
    if task.limits.until is not None:
        limits["deadline"] = time.time() + seconds_until(task.limits.until, datetime.now())
        if record is not None and keep_deadline and record.limits.get("until") == limits["until"]:
            limits["deadline"] = record.limits.get("deadline", limits["deadline"])
    fresh = fingerprint(task)
    if record is not None:
        has_baseline = ledger.has_baseline(record)
        _check_same(task, record, fresh if has_baseline else record.fingerprint)
        facts: dict[str, object] = {"limits": limits}
        if not has_baseline:  # nothing was measured yet: begin with the present files
            repository.check_editable()
            facts |= {"base_commit": repository.head(), "fingerprint": fresh}
        return ledger.update_session(record, **facts)
    repository.refs.check_branch(tag)
    repository.check_editable()
    check_ours(paths.results, ledger)
    return ledger.create_session(
        tag,
        base_commit=repository.head(),
        metric=task.metric,
        level=task.judge.level,
        budget_s=task.run.budget_s,
        budget_clock=task.run.budget_clock,
        limits=limits,
        fingerprint=fresh,
        now=time.time(),
    )


def _check_same(task: Task, record: SessionRecord, fresh: Mapping[str, str]) -> None:
    """Raises `TaskError` if something has changed that a session's numbers cannot do without. Other
    changes of the environment begin a new segment (`core/segments.py`)."""
    pairs = {
        "[metric]": (
            f"{record.metric.goal} {record.metric.name}",
            f"{task.metric.goal} {task.metric.name}",
        ),
        "[run] budget": (record.budget_s, task.run.budget_s),
        "[run] budget_clock": (record.budget_clock, task.run.budget_clock),
        "[judge] level": (record.level, task.judge.level),
        "[holdout]": (
            record.fingerprint.get("[holdout]", "None"),
            fresh.get("[holdout]", "None"),
        ),
    }
    for name, was in record.fingerprint.items():
        if name.startswith("["):
            pairs[name] = (was, fresh.get(name, "missing"))
    for what, (then, now) in pairs.items():
        if then != now:
            raise TaskError(
                f"session {record.tag!r} began with {what} = {then}; now it is {now}. Its numbers "
                "could not be compared: put it back, or begin a new session with another --tag"
            )


def fingerprint(task: Task) -> dict[str, str]:
    """What a session began with: its commands, our interpreter, the machine."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "[run] command": task.run.command,
        "[score]": str(task.score),
        "[holdout]": str(task.holdout),
        "[guards]": str(task.guards),
    }


def _make_scheduler(
    task: Task, seed: int, ledger: Ledger, repository: Repository, begun: Mapping[str, int]
) -> AgentScheduler:
    """The agents of the task. Agents of the same name are told apart by their specification."""
    weights = dict(task.agent.portfolio)
    fallback = task.agent.fallback if task.agent.fallback not in weights else None
    specs = [*weights, *([fallback] if fallback else [])]
    loaded = {spec: _load_agent(spec, task, seed, ledger, repository) for spec in specs}
    counts = Counter(agent.name for agent in loaded.values())
    names = {
        spec: agent.name if counts[agent.name] == 1 else spec for spec, agent in loaded.items()
    }
    return AgentScheduler(
        [(names[spec], loaded[spec], weight) for spec, weight in weights.items()],
        (names[fallback], loaded[fallback]) if fallback else None,
        begun,
    )


def _load_agent(spec: str, task: Task, seed: int, ledger: Ledger, repository: Repository) -> Agent:
    name, argument = agents.parse(spec)
    options = dict(task.agent.options.get(name, {}))
    if (tag := agents.earlier_session(name, argument)) is not None:
        options["proposals"] = _read_proposals(tag, ledger, repository)
    return agents.load(name, argument, options, seed=seed)


def _read_proposals(
    tag: str, ledger: Ledger, repository: Repository
) -> list[tuple[str, dict[str, bytes | None]]]:
    """The changes of an earlier session, as (description, editable files), in their order."""
    return [
        (experiment.description, dict(repository.editable_files(experiment.commit)))
        for experiment in ledger.all_experiments(ledger.session(tag))
        if experiment.number
    ]
