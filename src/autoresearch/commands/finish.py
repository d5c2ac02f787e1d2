"""A clean branch from the user's base: one commit for each kept change, in the user's name.

The branch is made from the ledger and git's objects alone. It is verified to produce exactly the
files that were measured, and is never pushed. It may be made again: the same keeps give the same
commits, and a branch that this command made moves along as long as nobody else has moved it.
"""

from __future__ import annotations

import hashlib
import textwrap
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from autoresearch.errors import LedgerError, NotOursError, TaskError, WorkspaceError
from autoresearch.formatting import counted, cut, one_line, quote_trailers, short
from autoresearch.git.repository import Repository
from autoresearch.records import Experiment
from autoresearch.report import collect, text
from autoresearch.report.page import make_plain_headline
from autoresearch.report.summary import Kept, Summary
from autoresearch.report.verification import Comparison
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

SUBJECT_WIDTH = 72  # characters, git's own habit
MADE, MOVED, UNCHANGED = "made", "moved", "unchanged"


@dataclass(frozen=True, slots=True)
class CleanCommit:
    commit: str
    experiments: tuple[int, ...]
    subject: str


@dataclass(frozen=True, slots=True)
class CleanBranch:
    """What `finish` made. `state` is "made", "moved" (from where this command had left it) or
    "unchanged". `measured` is the experiment whose files the branch has exactly; None if a keep was
    left out."""

    name: str
    state: str
    base: str
    tip: str
    commits: tuple[CleanCommit, ...]
    left_out: tuple[int, ...]
    measured: int | None


def make_branch(
    ledger: Ledger,
    record: SessionRecord,
    repository: Repository,
    *,
    name: str | None = None,
    squash: bool = False,
    without: Collection[int] = (),
) -> CleanBranch:
    """Make the branch of a session's surviving keeps, without the experiments `without`. Raises
    `NotOursError` if a branch of that name is not ours, or is checked out."""
    name = name or f"{repository.refs.branch_name(record.tag)}-final"
    _check_name(ledger, repository, name)
    keeps = list_chain(ledger, record)
    best = keeps[-1]
    _check_objects(repository, keeps)
    trees = replay(repository, keeps, without)
    if not without and trees[best.number] != repository.tree_id(best.commit):
        raise WorkspaceError(
            f"the kept changes, one after the other, do not give the files of experiment "
            f"{best.number}: `autoresearch fsck` looks for the reason. Nothing was made"
        )
    summary = collect.summarise(ledger, record.tag, time.time(), whole=True)
    surviving = [keep for keep in keeps[1:] if keep.number not in without]
    commits = _commit_all(repository, summary, surviving, trees, squash=squash)
    tip = commits[-1].commit
    if repository.tree_id(tip) != trees[surviving[-1].number]:
        raise WorkspaceError(f"commit {tip} has not the files that it was made of")
    state = _point_branch(ledger, repository, name, tip)
    return CleanBranch(
        name=name,
        state=state,
        base=record.base_commit,
        tip=tip,
        commits=tuple(commits),
        left_out=tuple(sorted(without)),
        measured=None if without else best.number,
    )


def list_chain(ledger: Ledger, record: SessionRecord) -> list[Experiment]:
    """The baseline and the keeps that the best is made of, oldest first. Raises `LedgerError` if
    there is no keep."""
    known = {keep.number: keep for keep in ledger.keeps(record)}
    if len(known) < 2:
        tried = counted(ledger.last_order(record), "experiment")
        raise LedgerError(
            f"session {record.tag!r} has no keep after {tried}: there is nothing to take. "
            f"`autoresearch run --tag {record.tag}` goes on"
        )
    chain = [ledger.incumbent(record)]
    while chain[-1].number:
        chain.append(known[chain[-1].base])
    return chain[::-1]


def replay(
    repository: Repository, chain: Sequence[Experiment], without: Collection[int] = ()
) -> dict[int, str]:
    """The tree after each surviving keep, by number, when the changes `without` are left out. The
    baseline's is among them. Raises `TaskError` if a later change does not fit then."""
    numbers = [keep.number for keep in chain[1:]]
    if strangers := sorted(set(without) - set(numbers)):
        raise TaskError(
            f"experiment {strangers[0]} is no keep that the best is made of; these are: "
            f"{', '.join(map(str, numbers))}"
        )
    if not set(numbers) - set(without):
        raise TaskError("all kept changes would be left out: that is the unchanged program")
    trees = {0: repository.tree_id(chain[0].commit)}
    tree, is_moved = trees[0], False
    for old, keep in pairwise(chain):
        if keep.number in without:
            is_moved = True
            continue
        merged = repository.tree_id(keep.commit)
        if is_moved:
            moved = repository.merge_tree(old.commit, keep.commit, tree)
            if moved is None:
                left_out = ", ".join(f"#{number}" for number in sorted(without))
                raise TaskError(
                    f"without {left_out}, the change of experiment {keep.number} does not fit: it "
                    f"edits the same lines. Leave both in, or both out"
                )
            merged = moved
        trees[keep.number] = tree = merged
    return trees


def _check_objects(repository: Repository, keeps: Sequence[Experiment]) -> None:
    for keep in keeps:
        if not repository.has_files(keep.commit):
            what = f"experiment {keep.number}" if keep.number else "the session's base"
            raise WorkspaceError(
                f"commit {short(keep.commit)} of {what} is gone from this repository: fetch it "
                "from a copy in which the session's refs/autoresearch/* are still there"
            )


def _commit_all(
    repository: Repository,
    summary: Summary,
    surviving: Sequence[Experiment],
    trees: dict[int, str],
    *,
    squash: bool,
) -> list[CleanCommit]:
    """Make the commits, each on top of the one before."""
    author = repository.branches.identity()
    kept = {keep.number: keep for keep in summary.keeps}
    groups = [surviving] if squash else [[keep] for keep in surviving]
    tip, commits = summary.base_commit, list[CleanCommit]()
    for group in groups:
        last = group[-1]
        message = (
            _describe_all(summary, [kept[keep.number] for keep in group])
            if squash
            else _describe(summary, last, kept[last.number])
        )
        at = last.ended_at or last.started_at
        tip = repository.branches.commit(trees[last.number], tip, message, author, at)
        numbers = tuple(keep.number for keep in group)
        commits.append(CleanCommit(tip, numbers, message.split("\n", 1)[0]))
    return commits


def _describe(summary: Summary, experiment: Experiment, keep: Kept) -> str:
    """The message of a keep's commit: what, by how much, how sure, and which experiment."""
    description = one_line(keep.description) or f"Experiment {keep.number}"
    paragraphs = [
        description if len(description) > SUBJECT_WIDTH else "",
        f"{text.describe_effect(summary, keep)}.",
        one_line(experiment.hypothesis),
        f"Flagged: {one_line(experiment.flag)}." if experiment.flag else "",
    ]
    trailers = _list_trailers(summary, [keep])
    return _make_message(description, paragraphs, trailers)


def _describe_all(summary: Summary, keeps: Sequence[Kept]) -> str:
    """The message of the one commit that holds all keeps."""
    name = one_line(summary.metric.name)
    changes = [
        f"- {text.describe_effect(summary, keep)}: {one_line(keep.description)} (#{keep.number})"
        for keep in keeps
    ]
    subject = f"Improve {name} by {counted(len(keeps), 'measured change')}"
    whole = len(keeps) == len(summary.keeps) - 1
    paragraphs = [make_plain_headline(summary) if whole else "", *changes]
    return _make_message(subject, paragraphs, _list_trailers(summary, keeps))


def _list_trailers(summary: Summary, keeps: Sequence[Kept]) -> list[str]:
    agents = dict.fromkeys(one_line(keep.agent) for keep in keeps)
    return [
        f"Autoresearch-Session: {summary.tag}",
        *(f"Autoresearch-Experiment: {keep.number}" for keep in keeps),
        *(f"Autoresearch-Agent: {agent}" for agent in agents),
    ]


def _make_message(subject: str, paragraphs: Sequence[str], trailers: Sequence[str]) -> str:
    body = [
        quote_trailers(textwrap.fill(part, SUBJECT_WIDTH, break_long_words=False))
        for part in paragraphs
        if part
    ]
    return "\n\n".join([cut(subject, SUBJECT_WIDTH), *body, "\n".join(trailers)]) + "\n"


def _check_name(ledger: Ledger, repository: Repository, name: str) -> None:
    for session in ledger.sessions():
        if name == repository.refs.branch_name(session.tag):
            raise NotOursError(
                f"branch {name} is that of session {session.tag!r}, and the harness moves it: "
                "choose another --branch"
            )
    repository.branches.check_name(name)


def _point_branch(ledger: Ledger, repository: Repository, name: str, tip: str) -> str:
    """Point the branch at `tip` if that loses nothing of anybody's. Returns what happened."""
    ref = Path("refs/heads", name)
    present = repository.refs.get(str(ref))
    if present == tip:
        return UNCHANGED
    if present is not None and not ledger.was_published(ref, _key(present)):
        raise NotOursError(
            f"branch {name} exists, and is not as this command made it: somebody else made it, or "
            "committed to it. It was left alone. Choose another name with --branch, or delete it: "
            f"git branch -D {name}"
        )
    if repository.branches.is_checked_out(name):
        raise NotOursError(
            f"branch {name} is checked out, and would have to move: switch to another branch "
            "first, or choose another name with --branch"
        )
    ledger.add_published(ref, _key(tip))  # first: after a kill in between, the branch is ours
    repository.branches.set(name, tip, present)
    return UNCHANGED if present == tip else MADE if present is None else MOVED


def _key(commit: str) -> str:
    return hashlib.sha256(commit.encode()).hexdigest()


def branch_text(
    made: CleanBranch, summary: Summary, *, is_running: bool, reduced: Comparison | None = None
) -> str:
    """What was made, the commands to look at it and to take it, and what to look at first.
    `reduced` is what is left after an ablation, against the baseline."""
    base, name = short(made.base), made.name
    what = (
        f"exactly the files of experiment {made.measured}"
        if made.measured is not None
        else f"without {', '.join(f'#{number}' for number in made.left_out)}"
    )
    state = {MADE: "", MOVED: " (moved to the present keeps)", UNCHANGED: " (it was there already)"}
    lines = [f"{name}{state[made.state]}: {counted(len(made.commits), 'commit')} on {base}, {what}"]
    lines += [f"  {short(commit.commit)}  {commit.subject}" for commit in made.commits]
    lines += [f"Suspicious: {suspicion}. Look before you merge" for suspicion in summary.suspicions]
    if reduced is not None:
        numbers = summary.numbers
        interval = f"{numbers.signed(reduced.low)} to {numbers.signed(reduced.high)}"
        lines.append(
            f"Measured as it is: {numbers.gain(reduced.gain)} than the baseline (95 % interval "
            f"{interval})"
        )
    elif made.measured is None:
        lines.append("These changes without the others were not measured as one by this command")
    elif summary.verification is None and not summary.deterministic:
        lines.append("The result was not repeated yet: autoresearch verify")
    if is_running:
        lines.append("The session is at work: the same command adds the keeps to come")
    commands = (
        (f"git log --patch {base}..{name}", "look: each change, its effect and its interval"),
        (f"git diff {base} {name}", "look: all of it at once"),
        (f"git merge {name}", "take it"),
        (f"git branch -D {name}", "or throw it away"),
    )
    width = max(len(command) for command, _ in commands)
    lines += ["", *(f"{command:<{width}}  # {effect}" for command, effect in commands)]
    lines.append("\nNothing was pushed, and your checkout is as it was.")
    return "\n".join(lines)
