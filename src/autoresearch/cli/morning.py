"""The commands of the morning after: finish."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import asdict

from autoresearch.cli.common import find_session, print_answer
from autoresearch.cli.look import read_summary
from autoresearch.commands.finish import branch_text, make_branch
from autoresearch.git.repository import Repository
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner


def finish(options: argparse.Namespace) -> int:
    record, paths = find_session(options)
    is_running = find_owner(paths) is not None
    repository = Repository(paths.root, editable=(), may_edit=lambda path: False)
    with closing(Ledger(paths.ledger)) as ledger:
        made = make_branch(
            ledger,
            record,
            repository,
            name=options.branch,
            squash=options.squash,
            without=options.without or (),
        )
        summary = read_summary(ledger, paths)
    facts = {**asdict(made), "running": is_running, "pushed": False}
    print_answer(options, facts, branch_text(made, summary, is_running=is_running))
    return 0
