"""From a task and a tag to a session ready to run: every check that can be made before any work
begins, so that what is refused leaves nothing half-done."""

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
from autoresearch.core.limits import seconds_until
from autoresearch.core.scheduler import AgentScheduler
from autoresearch.core.session import Session
from autoresearch.errors import StorageError, TaskError
from autoresearch.files import remove_tree
from autoresearch.git.repository import Repository
from autoresearch.protocols import Agent
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import OURS, Lock, SessionPaths, check_alone
from autoresearch.store.results import check_ours
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task


@contextmanager
def opened(
    task: Task,
    tag: str,
    listener: Listener,
    caller: Agent | None = None,
    keep_deadline: bool = False,
) -> Iterator[Session]:
    """The session `tag` on `task`, new or resumed, owned by this process until the end. `caller`
    is somebody else than the task names: who calls the harness from a terminal. With
    `keep_deadline` the limit `until` means the same morning as when it was set."""
    repository = Repository(task.root, task.editable, task.may_edit)
    paths = SessionPaths(task.root, tag)
    repository.check_tag_name(tag)
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
            if caller is None and ledger.find_session(tag) is None:  # refused before there is one
                _make_scheduler(task, 0, ledger, repository, {}).close(lambda event: None)
            record = _row(task, tag, repository, ledger, paths, keep_deadline)
            if caller is not None:
                scheduler = AgentScheduler([(caller.name, caller, 1.0)])
            else:
                begun = {share.agent: share.experiments for share in ledger.shares(record)}
                scheduler = _make_scheduler(task, record.secret, ledger, repository, begun)
            try:
                runner = runners.load(task.runner, inherit=(lock.fd,))
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
                with suppress(OSError):  # a disk that is lost must not hide why
                    remove_tree(paths.temporary)
        finally:
            ledger.close()
            repository.drop_spares()
    finally:
        lock.release()


def _row(
    task: Task,
    tag: str,
    repository: Repository,
    ledger: Ledger,
    paths: SessionPaths,
    keep_deadline: bool,
) -> SessionRecord:
    """The session's row: made now, or checked to be of the same task."""
    found = ledger.find_session(tag)
    given = {key: v for key, v in asdict(task.limits).items() if v is not None}
    limits = {key: str(v) if key == "until" else v for key, v in given.items()}
    if task.limits.until is not None:
        limits["deadline"] = time.time() + seconds_until(task.limits.until, datetime.now())
        if found is not None and keep_deadline and found.limits.get("until") == limits["until"]:
            limits["deadline"] = found.limits.get("deadline", limits["deadline"])
    fresh = fingerprint(task)
    if found is not None:
        begun = ledger.has_baseline(found)
        _check_same(task, found, fresh if begun else found.fingerprint)
        facts: dict[str, object] = {"limits": limits}
        if not begun:  # it never worked: begin with what is there now
            repository.check_editable()
            facts |= {"base_commit": repository.head(), "fingerprint": fresh}
        return ledger.update_session(found, **facts)
    repository.check_branch(tag)
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
    """A session asks one question: these stay as they were. What else its numbers depend on may
    change, and begins a new segment (`segments.py`)."""
    pairs = {
        "[metric]": (
            f"{record.metric.goal} {record.metric.name}",
            f"{task.metric.goal} {task.metric.name}",
        ),
        "[run] budget": (record.budget_s, task.run.budget_s),
        "[run] budget_clock": (record.budget_clock, task.run.budget_clock),
        "[judge] level": (record.level, task.judge.level),
        "[holdout]": tuple(one.get("[holdout]", "None") for one in (record.fingerprint, fresh)),
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
    """How a session was begun: its commands, our interpreter, the machine."""
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    found["[run] command"] = task.run.command
    found["[score]"] = str(task.score)
    found["[holdout]"] = str(task.holdout)
    found["[guards]"] = str(task.guards)
    return found


def _make_scheduler(
    task: Task, seed: int, ledger: Ledger, repository: Repository, begun: Mapping[str, int]
) -> AgentScheduler:
    """The agents of the task. Those of the same name go by the words that asked for them."""
    weights = dict(task.agent.portfolio)
    fallback = task.agent.fallback if task.agent.fallback not in weights else None
    specs = [*weights, *([fallback] if fallback else [])]
    loaded = {spec: _agent(spec, task, seed, ledger, repository) for spec in specs}
    often = Counter(agent.name for agent in loaded.values())
    names = {spec: agent.name if often[agent.name] == 1 else spec for spec, agent in loaded.items()}
    return AgentScheduler(
        [(names[spec], loaded[spec], weight) for spec, weight in weights.items()],
        (names[fallback], loaded[fallback]) if fallback else None,
        begun,
    )


def _agent(spec: str, task: Task, seed: int, ledger: Ledger, repository: Repository) -> Agent:
    name, argument = agents.parse(spec)
    options = dict(task.agent.options.get(name, {}))
    if name == "replay" and argument and argument.startswith("session:"):
        options["proposals"] = _proposals(argument.removeprefix("session:"), ledger, repository)
    return agents.load(name, argument, options, seed=seed)


def _proposals(
    tag: str, ledger: Ledger, repository: Repository
) -> list[tuple[str, dict[str, bytes | None]]]:
    """The changes of an earlier session, as (description, editable files) in their order."""
    earlier = ledger.session(tag)
    return [
        (one.description, dict(repository.editable_files(one.commit)))
        for one in ledger.all_experiments(earlier)
        if one.number
    ]
