"""Writes a session's report.md, progress.png and report.html."""

from __future__ import annotations

import time
from contextlib import suppress

from autoresearch.commands.ablate import ablation_text, read_ablation
from autoresearch.commands.check import not_enforced
from autoresearch.errors import NotOursError, WorkspaceError
from autoresearch.files import replace_file
from autoresearch.git.repository import Repository
from autoresearch.measure.scratch import read_scratch
from autoresearch.records import Role
from autoresearch.report import collect, page, plot
from autoresearch.report.summary import Summary
from autoresearch.report.tradeoffs import find_tradeoff
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.published import publish
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task


def write_report(
    ledger: Ledger, paths: SessionPaths, task: Task, *, has_html: bool = False
) -> list[str]:
    """Write report.md and progress.png from the ledger, and report.html if it is wanted. Returns a
    line for each that says where it is: in the session's own folder if a file of that name exists
    that is not ours."""
    summary = collect.summarise(ledger, paths.tag, time.time(), whole=True, open_holdout=True)
    facts = _gather_facts(ledger, paths, task, summary)
    files = [
        (paths.report, page.draw_page(summary, facts).encode()),
        (paths.picture, plot.plot(summary)),
    ]
    if has_html:
        from autoresearch.report.html_page import draw_html

        files.append((paths.html, draw_html(summary, facts).encode()))
    lines = []
    for path, data in files:
        try:
            publish(ledger, path, data)
            lines.append(f"written: {path}")
        except NotOursError:
            other = paths.folder / path.name
            replace_file(other, data)
            lines.append(f"written: {other} ({path} is not ours, and was left alone)")
    return lines


def _gather_facts(ledger: Ledger, paths: SessionPaths, task: Task, summary: Summary) -> page.Facts:
    record = ledger.session(paths.tag)
    names = ("machine", "python")
    known = {name: record.fingerprint[name] for name in names if name in record.fingerprint}
    repository = Repository(paths.root, editable=(), may_edit=lambda path: False)
    owned = ledger.runs(record, summary.incumbent.number) if summary.incumbent else []
    runs = []
    if summary.verification is not None:
        verifying = (Role.VERIFY, Role.VERIFY_BASELINE)
        runs = [run for run in owned if run.role in verifying and run.finished]
    ablation = ""
    if any(run.role is Role.ABLATION for run in owned):
        with suppress(WorkspaceError):  # a commit that is gone: `fsck` tells of it
            result = read_ablation(ledger, record, repository)
            ablation = ablation_text(result, record, summary.typical_run_s)
    return page.Facts(
        sandbox="; ".join(not_enforced(task)),
        changes=_read_changes(ledger, record, repository, summary),
        ablation=ablation,
        tradeoff=find_tradeoff(ledger, record, task.second) if task.second else None,
        scratch=read_scratch(ledger, record, repository),
        has_hidden=bool(task.score and task.score.hidden),
        command=task.run.command,
        environment=", ".join(f"{name} {value}" for name, value in known.items()),
        runs=[run for run in runs if run.segment == max(run.segment for run in runs)],
    )


def _read_changes(
    ledger: Ledger, record: SessionRecord, repository: Repository, summary: Summary
) -> dict[int, page.ChangeText]:
    """The change of each keep. A commit that is gone has no diff: `fsck` tells of it."""
    commits = {keep.number: keep.commit for keep in summary.keeps}
    changes = {}
    for keep in summary.keeps[1:]:
        experiment, diff = ledger.experiment(record, keep.number), ""
        with suppress(WorkspaceError):
            diff = repository.diff(commits[keep.base], keep.commit)
        changes[keep.number] = page.ChangeText(diff, experiment.hypothesis, experiment.detail)
    return changes
