"""Open a session: from a task and a tag to a session that is ready to work. Every check that needs
no run is made first, so that a refused start leaves nothing half-done."""

from __future__ import annotations

import os
import platform
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from autoresearch import agents, runners
from autoresearch.agents.support.near_misses import Combiner
from autoresearch.briefing import Briefer
from autoresearch.commands.probe import probe_agents
from autoresearch.core.events import Listener, Warned
from autoresearch.core.scheduler import AgentScheduler
from autoresearch.core.session import Session
from autoresearch.errors import AgentError, DirtyError, NotOursError, StorageError, TaskError
from autoresearch.files import remove_tree
from autoresearch.formatting import short
from autoresearch.git.repository import Repository
from autoresearch.measure.timing import check_measurable
from autoresearch.protocols import Agent, Runner
from autoresearch.runners.warden import cpu_clock
from autoresearch.sandbox.run_policy import list_missing_rules
from autoresearch.store import queries
from autoresearch.store.imported import find_night
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import Lock, check_alone
from autoresearch.store.paths import OURS, SessionPaths
from autoresearch.store.requests import Requests
from autoresearch.store.results import check_ours
from autoresearch.store.rows import CLAUSES, NOT_ENFORCED, SessionRecord
from autoresearch.task.model import TASK_FILE, Task, seconds_until

SHOWN_PATHS = 5  # in a message
NO_CODE = re.compile(r"(^|/)(\.git[^/]*|LICENSE[^/]*|[^/]+\.(md|rst))$")  # no run depends on them


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
    with ExitStack() as stack:
        lock = Lock(paths)
        stack.callback(lock.release)
        check_alone(paths)
        Requests(paths).resume()
        stack.callback(repository.trees.drop_spares)
        ledger = Ledger(paths.ledger)
        stack.callback(ledger.close)
        if caller is None and ledger.find_session(tag) is None:
            # An agent that cannot be made must not leave a session behind, nor one baseline run.
            scheduler = _make_scheduler(task, 0, ledger, repository, {})
            scheduler.close(lambda event: None)
            _check_files(scheduler, repository)
        stack.callback(_remove, paths.temporary)
        runner = make_runner(task)
        stack.callback(runner.close)
        if hold := getattr(runner, "hold", None):
            hold(lock.fd)
        record = _open_record(task, tag, repository, ledger, paths, keep_deadline)
        if ledger.has_baseline(record):
            _compare_head(task, record, repository, ledger, listener)
        if caller is not None:
            scheduler = AgentScheduler([(caller.name, caller, 1.0)])
        else:
            begun = {
                share.agent: share.experiments for share in queries.list_shares(ledger, record)
            }
            scheduler = _make_scheduler(task, record.secret, ledger, repository, begun)
        stack.callback(scheduler.close, listener)
        briefer = Briefer(task, ledger, record, repository, paths)
        parts = (task, paths, repository, ledger, runner, scheduler, record, briefer, listener)
        yield Session(*parts, probe_agents)


def make_runner(task: Task) -> Runner:
    """The task's runner. Raises `RunnerError` or `TaskError` if it cannot execute its runs."""
    runner = runners.load(task.runner)
    try:
        if check := getattr(runner, "check", None):
            check(task)
        check_measurable(task.measure, runner)
    except BaseException:
        runner.close()
        raise
    return runner


def _remove(folder: Path) -> None:
    with suppress(OSError):  # a lost disk must not hide the error that ended the session
        remove_tree(folder)


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
    limits: dict[str, Any] = {
        name: value for name, value in asdict(task.limits).items() if value is not None
    }
    if task.limits.until is not None:
        limits["until"] = str(task.limits.until)
        limits["deadline"] = time.time() + seconds_until(task.limits.until, datetime.now())
        if record is not None and keep_deadline and record.limits.get("until") == limits["until"]:
            limits["deadline"] = record.limits.get("deadline", limits["deadline"])
    if record is None:
        if find_night(task.root, tag) is not None:
            raise NotOursError(f"{tag!r} is an imported night: choose another --tag")
        repository.refs.check_branch(tag)
        repository.check_editable()
        check_ours(paths.results, ledger)
        return create_record(task, tag, repository, ledger, limits)
    fresh = get_fingerprint(task)
    if ledger.has_baseline(record):
        _check_same(task, record, fresh)
        clauses = dict.fromkeys((*record.not_enforced, *_list_not_enforced(task)))
        facts = {**record.fingerprint, NOT_ENFORCED: CLAUSES.join(clauses)}
        return ledger.update_session(record, limits=limits, fingerprint=facts)
    _check_same(task, record, record.fingerprint)
    repository.check_editable()  # nothing was measured yet: begin with the present files
    base = repository.head()
    return ledger.update_session(record, limits=limits, base_commit=base, fingerprint=fresh)


def _compare_head(
    task: Task, record: SessionRecord, repository: Repository, ledger: Ledger, listener: Listener
) -> None:
    """Say what of HEAD or the checkout is no part of a session that goes on. Raises `TaskError` if
    HEAD has other frozen files: by another evaluator, numbers could not be compared."""
    head, best = repository.head(), ledger.incumbent(record)
    own = {task.objective, task.source.name if task.source else TASK_FILE}
    frozen, edited = [], []
    for path in repository.changed_files(record.base_commit, head):
        if repository.edits.is_editable(path):
            edited.append(path)
        elif PurePosixPath(path).name not in own and not NO_CODE.search(path):
            frozen.append(path)
    new = "--tag NAME begins a new session with HEAD"
    if frozen:
        raise TaskError(
            f"session {record.tag!r} began with {short(record.base_commit)}; HEAD "
            f"({short(head)}) has other frozen files: {_list_paths(frozen)}. Its numbers could not "
            f"be compared: {new}"
        )
    known = set(repository.changed_files(best.commit, head))
    if edited and (other := [path for path in edited if path in known]):
        listener(
            Warned(
                f"session {record.tag!r} goes on from {short(best.commit)}; HEAD ({short(head)}) "
                f"differs in {_list_paths(other)}. {new}"
            )
        )
    try:
        repository.check_editable()
    except DirtyError as dirty:
        what = str(dirty).partition(":")[0]
        listener(
            Warned(f"{what}, which session {record.tag!r} does not use. {new}, once committed")
        )


def _list_paths(paths: list[str]) -> str:
    more = f" and {len(paths) - SHOWN_PATHS} more" if len(paths) > SHOWN_PATHS else ""
    return ", ".join(paths[:SHOWN_PATHS]) + more


def create_record(
    task: Task, tag: str, repository: Repository, ledger: Ledger, limits: Mapping[str, Any]
) -> SessionRecord:
    """Record a new session, which begins with the last commit."""
    return ledger.create_session(
        tag,
        base_commit=repository.head(),
        metric=task.metric,
        level=task.judge.level,
        budget_s=task.run.budget_s,
        budget_clock=task.run.budget_clock,
        limits=limits,
        fingerprint=get_fingerprint(task),
        now=time.time(),
    )


def _check_same(task: Task, record: SessionRecord, fingerprint: Mapping[str, str]) -> None:
    """Raises `TaskError` if a setting changed without which a session's numbers mean nothing. Other
    changes of the environment begin a new segment (`core/segments.py`)."""
    old, new = (
        {"[holdout]": "None", "[run] build": "None", "[metric] measure": "None"} | dict(facts)
        for facts in (record.fingerprint, fingerprint)
    )
    metric = task.metric
    pairs: dict[str, tuple[object, object]] = {
        "[metric]": (f"{record.metric.goal} {record.metric.name}", f"{metric.goal} {metric.name}"),
        "[run] budget": (record.budget_s, task.run.budget_s),
        "[run] budget_clock": (record.budget_clock, task.run.budget_clock),
        "[judge] level": (record.level, task.judge.level),
        **{name: (old[name], new.get(name, "missing")) for name in old if name.startswith("[")},
    }
    for name, (before, now) in pairs.items():
        if before != now:
            raise TaskError(
                f"session {record.tag!r} began with {name} = {before}; now it is {now}. Its "
                "numbers could not be compared: put it back, or begin a new session with another "
                "--tag"
            )


def get_fingerprint(task: Task) -> dict[str, str]:
    """The commands, the interpreter and the machine that a session begins with, and what is not
    enforced there."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "[run] command": task.run.command,
        "[metric] pattern, json, file": str(task.metric_source),
        "[metric] measure": str(task.measure),
        "[run] build": str(task.run.build),
        "[score]": str(task.score),
        "[holdout]": str(task.holdout),
        "[guards]": str(task.guards),
        NOT_ENFORCED: CLAUSES.join(_list_not_enforced(task)),
    }


def _list_not_enforced(task: Task) -> list[str]:
    """What nothing enforces on the task's runs on this machine, a clause each."""
    missing = list_missing_rules(task)
    if task.run.budget_clock == "cpu" and not cpu_clock.is_available():
        missing.append("CPU time of processes that nobody waits for is not counted")
    return missing


def _make_scheduler(
    task: Task, seed: int, ledger: Ledger, repository: Repository, begun: Mapping[str, int]
) -> AgentScheduler:
    """Load the agents of the task. Agents of the same name get their specification as name."""
    weights = dict(task.agent.portfolio)
    fallback = task.agent.fallback if task.agent.fallback not in weights else None
    specs = [*weights, *filter(None, [fallback])]
    combiner = Combiner()

    def load_agent(spec: str) -> Agent:
        agent = _load_agent(spec, task, seed, ledger, repository)
        return combiner.join(agent, spec) if task.judge.combine else agent

    loaded = {spec: load_agent(spec) for spec in specs}
    counts = Counter(agent.name for agent in loaded.values())
    names = {
        spec: agent.name if counts[agent.name] == 1 else spec for spec, agent in loaded.items()
    }
    return AgentScheduler(
        [(names[spec], loaded[spec], weight) for spec, weight in weights.items()],
        (names[fallback], loaded[fallback]) if fallback else None,
        begun,
        {
            names[spec]: [load_agent(spec) for _ in range(task.agent.at_once - 1)]
            for spec, agent in loaded.items()
            if agent.wants_briefing
        },
    )


def _check_files(scheduler: AgentScheduler, repository: Repository) -> None:
    """Raises `AgentError` if no agent can propose anything for the last commit's files, and
    `WorkspaceError` if there are none to edit."""
    repository.check_editable()
    files = dict(repository.editable_files(repository.head()))
    refusals = [
        refusal
        for member in scheduler.members
        if (refusal := _find_refusal(member.agent, files)) is not None
    ]
    if refusals and len(refusals) == len(scheduler.members):
        raise refusals[0]


def _find_refusal(agent: Agent, files: Mapping[str, bytes]) -> AgentError | None:
    """The reason why the agent can propose nothing for these files; None if it can."""
    try:
        if check := getattr(agent, "check_files", None):
            check(files)
    except AgentError as refusal:
        return refusal
    return None


def list_agent_problems(task: Task, repository: Repository) -> list[str]:
    """Why agents of the task could propose nothing, a sentence each. Agents that need a session's
    record are left out."""
    files = dict(repository.editable_files(repository.head()))
    problems = []
    for spec, _ in task.agent.portfolio:
        name, argument = agents.parse(spec)
        if agents.earlier_session(name, argument) is not None:
            continue
        try:
            agent = agents.load(name, argument, task.agent.options.get(name, {}), seed=0)
        except AgentError as error:
            problems.append(str(error))
            continue
        if refusal := _find_refusal(agent, files):
            problems.append(f"{refusal}; or let a model work: `--agent claude`")
        if close := getattr(agent, "close", None):
            close()
    return problems


def _load_agent(spec: str, task: Task, seed: int, ledger: Ledger, repository: Repository) -> Agent:
    name, argument = agents.parse(spec)
    options = dict(task.agent.options.get(name, {}))
    if (tag := agents.earlier_session(name, argument)) is not None:
        options["proposals"] = _read_proposals(tag, ledger, repository)
    return agents.load(name, argument, options, seed=seed)


def _read_proposals(
    tag: str, ledger: Ledger, repository: Repository
) -> list[tuple[str, dict[str, bytes | None]]]:
    """Return an earlier session's changes as (description, editable files), in their order."""
    return [
        (experiment.description, dict(repository.editable_files(experiment.commit)))
        for experiment in ledger.all_experiments(ledger.session(tag))
        if experiment.number
    ]
