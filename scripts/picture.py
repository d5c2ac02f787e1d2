"""The README's pictures, from a real session: python scripts/picture.py TASK_FOLDER TAG"""

from __future__ import annotations

import io
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from autoresearch.report import collect, live, plot
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    paths = SessionPaths(Path(sys.argv[1]).resolve(), sys.argv[2])
    ledger = Ledger(paths.ledger, readonly=True)
    summary = collect.summarise(ledger, paths.tag, time.time(), whole=True)
    summary = replace(summary, task="tiny_gpt")
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(live.SessionView(summary, running=bool(summary.open_runs)))
    console.save_svg(str(DOCS / "live.svg"), title="autoresearch run")
    (DOCS / "progress.png").write_bytes(plot.plot(summary))


if __name__ == "__main__":
    main()
