"""Write a session's report.md and progress.png."""

from __future__ import annotations

import time

from autoresearch.commands.check import not_enforced
from autoresearch.errors import NotOursError
from autoresearch.report import collect, page, plot
from autoresearch.store import files
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.task.model import Task


def write_report(ledger: Ledger, paths: SessionPaths, task: Task) -> list[str]:
    """Write report.md and progress.png from the ledger: into the session's own folder if the user
    has a file of that name. Returns a line for each that says where it is."""
    record = ledger.session(paths.tag)
    experiments = ledger.finished(record)
    result = collect.summarise(
        ledger, paths.tag, time.time(), task=task.root.name, all_keeps=True, open_holdout=True
    )
    segments = [(segment.after_order, segment.score) for segment in result.segments[1:]]
    picture = plot.plot(experiments, record.metric, result.noise_sd, segments)
    text = page.page(result, experiments, sandbox="; ".join(not_enforced(task)))
    lines = []
    for path, data in ((paths.report, text.encode()), (paths.picture, picture)):
        try:
            files.publish(ledger, path, data)
            lines.append(f"written: {path}")
        except NotOursError:
            other = paths.folder / path.name
            files.replace_file(other, data)
            lines.append(f"written: {other} ({path} is not ours, and was left alone)")
    return lines
