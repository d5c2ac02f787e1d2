"""The other way in: an agent that already sits in a terminal calls the harness.

    start  ->  a folder with the incumbent's files  ->  the agent edits them  ->  try
           ->  the same loop, judge and record      ->  the folder holds the incumbent again

Everything is in the ledger, so each call is a process of its own: what one that was killed left
unfinished, the next one finishes. `.autoresearch/<tag>/try.json` only says what became of the
latest try, for who did not wait for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autoresearch.core import verification
from autoresearch.core.control import Stopped
from autoresearch.core.history import reference
from autoresearch.core.loop import Loop
from autoresearch.core.scheduler import recordable
from autoresearch.core.session import Session
from autoresearch.core.turns import TurnTaker, hide
from autoresearch.errors import LedgerError, Refused, TaskError
from autoresearch.files import files_below
from autoresearch.formatting import escape_unstorable
from autoresearch.measure.output import last_lines
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import Experiment, Status
from autoresearch.store import values
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task
from autoresearch.task.reading import override

YOUR_TURN = """
## Your turn

Edit {editable} in {folder}, one idea at a time, and call there

    autoresearch try -m "what you changed, and why it should help"

The harness runs it, measures, judges, records and commits, and brings the folder to the incumbent:
do none of that yourself. Then have the next idea, and go on until it says that a limit is reached.
If your shell cannot wait that long: `autoresearch try --detach -m "..."`, then
`autoresearch wait --timeout 60` until there is a verdict. `autoresearch note "..."` is kept for
your later self, `autoresearch brief` shows this page as it is by then.
"""


class Terminal:
    """Whoever sits in a terminal, as the session's agent: it is never asked, it calls."""

    reads = False

    def __init__(self, name: str) -> None:
        self.name = name

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        return None


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What became of a try. `status` is an experiment's, or "refused" (it was no experiment; the
    folder is as it was), "running", "interrupted" or "limit" (it was not begun)."""

    status: str
    description: str = ""
    experiment: int | None = None
    reason: str | None = None
    detail: str = ""
    metric: float | None = None
    flag: str | None = None  # why a keep is to be looked at before it is believed
    incumbent: int | None = None  # the experiment whose files the folder holds now
    score: float | None = None  # the incumbent's
    output: tuple[str, ...] = ()  # the end of what a crashed run printed
    limit: str | None = None  # that is reached now: there is nothing more to try
    edited: bool = False  # the folder was edited meanwhile, and was left as it is
    pid: int | None = None  # of the process that said so

    def save(self, paths: SessionPaths) -> None:
        draft = paths.latest_try.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(replace(self, pid=os.getpid()))))
        draft.replace(paths.latest_try)


def latest(paths: SessionPaths) -> TrialReport | None:
    """What became of the latest try, as far as it is known; None when there was none."""
    return values.read(paths.latest_try, TrialReport)


def agreed(task: Task, tag: str) -> Task:
    """`task` with the limits and the level that session `tag` was started with."""
    paths = SessionPaths(task.root, tag)
    try:
        ledger = Ledger(paths.ledger, readonly=True)
        try:
            record = ledger.session(tag)
        finally:
            ledger.close()
    except LedgerError as error:
        raise LedgerError(f"{error}. Begin with: autoresearch start --tag {tag}") from None
    given = {f"limits.{key}": value for key, value in record.limits.items() if key != "deadline"}
    if "limits.until" in given:
        given["limits.until"] = given["limits.until"][:5]  # HH:MM
    unlimited = replace(task, limits=type(task.limits)())
    return override(unlimited, **given, **{"judge.level": record.level})


def begin(session: Session) -> None:
    """Measure the unchanged program, unless that is done, and make the folder."""
    session.warn("the agent called the harness from a terminal: nothing confined it")
    loop = Loop(session)
    loop.begin()
    _finish_unfinished(loop)
    _refresh(session)


def try_change(
    session: Session, proposal: Proposal, taken: Callable[[TrialReport], None] | None = None
) -> TrialReport:
    """Measure what the folder holds, judge it, record it, and bring the folder to the incumbent.

    `taken` is told as soon as the files have been copied out: from then on the try survives
    whatever happens to this process.
    """
    loop = Loop(session)
    proposal = recordable(proposal)
    session.paths.latest_try.unlink(missing_ok=True)
    try:
        loop.begin()
        number = _finish_unfinished(loop)
        if number is not None and _state(session).taken == _digest(session):
            return _verdict(session, number)  # this is the same try again
        if limit := session.limit():
            return _last(session, TrialReport("limit", proposal.description, limit=limit))
        session.executor.commands.check_disk()
        _refresh(session)
        experiment = _taken(session, proposal)
        if isinstance(experiment, TrialReport):
            return _told(session, experiment)
        told = TrialReport("running", experiment.description, experiment.number)
        told.save(session.paths)
        if taken:
            taken(told)
        _live(loop, experiment)
    except Stopped:
        return _told(session, TrialReport("interrupted", proposal.description))
    return _verdict(session, experiment.number)


def go_on(session: Session) -> TrialReport | None:
    """Finish a try that was cut off; None when there is none."""
    loop = Loop(session)
    try:
        loop.begin()
        number = _finish_unfinished(loop)
    except Stopped:
        return TrialReport("interrupted")
    told = latest(session.paths)
    if number is None and told and told.status == "running":
        number = told.experiment  # it was recorded, but nobody was told
    return None if number is None else _verdict(session, number)


def verify(session: Session, runs: int) -> None:
    """Measure the result again now: so many fresh runs of the baseline and of the best. Raises
    `Stopped` when interrupted."""
    stopped = session.record.stopped
    Loop(session).begin()
    verification.verify(session, runs)
    session.update(stopped=stopped)
    if session.stopping:
        raise Stopped


def _finish_unfinished(loop: Loop) -> int | None:
    number = None
    for one in loop.session.ledger.in_flight(loop.session.record):
        number = one.number
        _live(loop, one)
    return number


def _live(loop: Loop, experiment: Experiment) -> None:
    """To its verdict. Raises `Stopped` when it was interrupted before that."""
    session = loop.session
    session.in_slots([lambda: loop.carry_out(experiment)])
    if session.ledger.experiment(session.record, experiment.number).status is None:
        raise Stopped


def _taken(session: Session, proposal: Proposal) -> Experiment | TrialReport:
    state = _state(session)
    if state.base is None or not session.paths.work.is_dir():
        raise TaskError(
            f"{session.paths.work} is gone, or nobody knows what it was made from: save your edit, "
            f"remove it, and `autoresearch start --tag {session.record.tag}` makes it again"
        )
    base = _nearest(session, state)
    state = _State(base, taken=_digest(session))
    state.save(session.paths)  # before the commit point: a kill after it is recognised by this
    try:
        experiment = TurnTaker(session).take(session.paths.work, base, proposal)
    except Refused as refused:
        replace(state, taken=None).save(session.paths)
        message = escape_unstorable(str(refused))
        failure = Failure(refused.reason, message, 0, proposal.tokens, proposal.usd)
        session.ledger.add_turn(
            session.record, session.scheduler.members[0].name, failure, time.time()
        )
        return TrialReport("refused", proposal.description, reason=refused.reason, detail=message)
    replace(state, commit=experiment.commit).save(session.paths)
    return experiment


def _nearest(session: Session, state: _State) -> str:
    """The commit that the folder is an edit of. After a try during which it was edited, that is
    what was taken, or what that was made from if somebody began there again."""
    known = [commit for commit in (state.commit, state.base) if commit is not None]
    return min(known, key=lambda commit: _distance(session, commit))


def _distance(session: Session, commit: str) -> int:
    """Lines of editable files that the folder has and a commit has not, or the other way round."""
    theirs = session.repository.editable_files(commit)
    ours = dict(_editable_files(session))
    lines = 0
    for path in theirs.keys() | ours.keys():
        one, other = (Counter(side.get(path, b"").splitlines()) for side in (theirs, ours))
        lines += (one - other).total() + (other - one).total()
    return lines


def _verdict(session: Session, number: int) -> TrialReport:
    """The folder is brought to the incumbent, unless it was edited since the try was taken."""
    done = session.ledger.experiment(session.record, number)
    output: tuple[str, ...] = ()
    if done.status is Status.CRASH and (runs := session.ledger.runs(session.record, number)):
        # The scorer's log may hold what is hidden, so this is the run's own.
        output = last_lines(session.paths.runs / runs[-1].name / "log")
    state = _state(session)  # nothing taken: the folder was brought to the incumbent since
    edited = state.taken is not None and state.taken != _digest(session)
    if edited:  # what comes next may be a change of what was taken, or of what that was made from
        replace(state, taken=None, commit=state.commit or done.commit).save(session.paths)
    elif state.taken is not None:
        _bring(session)
    told = TrialReport(
        status=str(done.status),
        description=done.description,
        experiment=number,
        reason=done.reason,
        detail=done.detail,
        metric=done.metric,
        flag=done.flag,
        output=output,
        edited=edited,
    )
    if limit := session.limit():
        return _last(session, replace(told, limit=limit))
    return _told(session, told)


def _last(session: Session, told: TrialReport) -> TrialReport:
    """A limit is reached: the result is measured again, once."""
    with suppress(Stopped):
        verification.verify(session)
        session.update(stopped=told.limit)
    return _told(session, told)


def _told(session: Session, told: TrialReport) -> TrialReport:
    best = session.ledger.incumbent(session.record)
    score = reference(session.ledger, session.record, best).score
    told = replace(told, incumbent=best.number, score=score)
    told.save(session.paths)
    session.tick()
    return told


# ---- the folder --------------------------------------------------------------------------------


def _refresh(session: Session) -> None:
    """Make the folder if it is missing, and bring it to the incumbent if nobody has edited it."""
    _folder(session)
    state = _state(session)
    best = session.ledger.incumbent(session.record)
    if not session.paths.work.exists() or (
        state.base != best.commit and state.brought == _digest(session)
    ):
        _bring(session)


def _bring(session: Session) -> None:
    """Make the folder hold the incumbent's files, in place, as a repository of one commit."""
    folder = _folder(session)
    best = session.ledger.incumbent(session.record)
    manifest = session.repository.manifest(best.commit)
    hide(session, manifest, folder)
    session.repository.restore(manifest, folder)
    session.repository.make_repository(folder, manifest)
    # Of the commit, not of the folder: what was edited in it meanwhile is an edit.
    files = session.repository.editable_files(best.commit)
    brought = _digest_of((p, data) for p, data in files.items() if not manifest[p].is_link)
    _State(best.commit, brought=brought).save(session.paths)


def _folder(session: Session) -> Path:
    """The working folder. Raises `TaskError` where it is a link: it would lead us elsewhere."""
    folder = session.paths.work
    if folder.is_symlink():
        raise TaskError(f"{folder} is a link now: put the folder back, or remove the link")
    return folder


@dataclass(frozen=True, slots=True)
class _State:
    """Kept beside the folder. Digests are of the editable files in it."""

    base: str | None = None  # the commit it was made from; None: nobody knows
    brought: str | None = None  # as it was made
    taken: str | None = None  # as it was when the try under way was taken out of it
    commit: str | None = None  # of that try, as it was taken

    def save(self, paths: SessionPaths) -> None:
        draft = _state_file(paths).with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(_state_file(paths))


def _state(session: Session) -> _State:
    return values.read(_state_file(session.paths), _State) or _State()


def _state_file(paths: SessionPaths) -> Path:
    return paths.folder / "work.json"


def _digest(session: Session) -> str:
    """Of the editable files in the folder."""
    return _digest_of(_editable_files(session))


def _digest_of(files: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for path, data in sorted(files):
        digest.update(f"{path}\0{len(data)}\0".encode(errors="surrogateescape") + data)
    return digest.hexdigest()


def _editable_files(session: Session) -> Iterator[tuple[str, bytes]]:
    """Those in the folder, as far as they are regular files."""
    for path, found in files_below(_folder(session)):
        if session.repository.is_editable(path) and found.is_file(follow_symlinks=False):
            yield path, Path(found.path).read_bytes()


# ---- words -------------------------------------------------------------------------------------


def your_turn(task: Task, folder: Path) -> str:
    """What follows the briefing for who calls the harness."""
    return YOUR_TURN.format(editable=" or ".join(task.editable), folder=folder)


def text(told: TrialReport, record: SessionRecord) -> str:
    """A try's verdict for people and for agents."""
    name = record.metric.name
    number = "" if told.experiment is None else f" experiment {told.experiment}"
    metric = "" if told.metric is None else f", {name} {told.metric:.6g}"
    why = f" ({told.reason})" if told.reason else ""
    lines = [f"{told.status}{number}{why}{metric}: {told.description}"]
    if told.detail:
        lines.append(told.detail)
    if told.flag:
        lines.append(f"flagged: {told.flag}")
    if told.output:
        lines += ["the end of what it printed:", *(f"    | {line}" for line in told.output)]
    if told.edited and told.score is not None:
        lines.append(
            f"the incumbent is experiment {told.incumbent}, {name} {told.score:.6g}; the folder "
            "was edited meanwhile and left as it is: your next try is what was edited since"
        )
    elif told.score is not None and told.status not in ("refused", "interrupted"):
        lines.append(
            f"the folder holds the incumbent, experiment {told.incumbent}, {name} {told.score:.6g}"
        )
    if told.status == "refused":
        lines.append("that was no experiment; the folder is as you left it: mend it and try again")
    if told.limit:
        lines.append(f"{told.limit}: stop here. `autoresearch report` says what was found")
    return "\n".join(lines)


def to_json(told: TrialReport) -> dict[str, Any]:
    """What there is to say; what is absent is left out."""
    return {
        key: value
        for key, value in asdict(told).items()
        if key != "pid" and value is not None and value is not False and value not in ("", ())
    }
