"""Writes a session's report.md and progress.png."""

from __future__ import annotations

import time

from autoresearch.commands.check import not_enforced
from autoresearch.errors import NotOursError
from autoresearch.files import replace_file
from autoresearch.report import collect, page, plot
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.published import publish
from autoresearch.task.model import Task


def write_report(ledger: Ledger, paths: SessionPaths, task: Task) -> list[str]:
    """Write report.md and progress.png from the ledger. Returns a line for each that says where it
    is: in the session's own folder if a file of that name exists that is not ours."""
    summary = collect.summarise(ledger, paths.tag, time.time(), whole=True, open_holdout=True)
    text = page.draw_page(summary, sandbox="; ".join(not_enforced(task)))
    lines = []
    for path, data in ((paths.report, text.encode()), (paths.picture, plot.plot(summary))):
        try:
            publish(ledger, path, data)
            lines.append(f"written: {path}")
        except NotOursError:
            other = paths.folder / path.name
            replace_file(other, data)
            lines.append(f"written: {other} ({path} is not ours, and was left alone)")
    return lines
