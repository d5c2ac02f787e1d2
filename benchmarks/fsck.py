"""The CPU time of `autoresearch fsck` on long sessions.

    python benchmarks/fsck.py                     # 1,000 and 10,000 experiments: a few minutes
    python benchmarks/fsck.py --experiments 2000 --profile

The sessions are made up: a real ledger, a real commit and ref for each experiment, packed as a
session packs them, and the folder of each run with its log. Every change has two runs and is worse.
`fsck` has to find that everything agrees. Exits with 1 if 10,000 experiments take more than 10 CPU
seconds.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import pstats
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import fmean

from autoresearch.commands.fsck import audit
from autoresearch.commands.start import create_record
from autoresearch.git.repository import Repository
from autoresearch.protocols import Proposal
from autoresearch.records import Role, Status, Verdict
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.results import ResultsFile
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task
from autoresearch.task.reading import load

REACH_S = 10.0  # for 10,000 experiments
TASK = """\
objective = "lower the loss"
editable = ["prog.py"]
[run]
command = "python prog.py"
[metric]
name = "loss"
goal = "minimize"
"""
PROGRAM = "VALUE = {}\n" + "".join(f"x{line} = {line}\n" for line in range(100))
BASELINE_RUNS = 6


class MadeUpSession:
    """Fills the record of a session as the loop does, without runs."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        (root / "autoresearch.toml").write_text(TASK)
        (root / "prog.py").write_text(PROGRAM.format(0))
        for command in ("init --quiet", "add --all", "commit --quiet --message start"):
            git = ["git", "-c", "user.name=b", "-c", "user.email=b@b", *command.split()]
            subprocess.run(git, cwd=root, check=True)
        self.task: Task = load(root)
        self.paths = SessionPaths(root, "t")
        self.paths.folder.mkdir(parents=True)
        self.repository = Repository(root, self.task.editable, self.task.may_edit)

    def fill(self, experiments: int) -> None:
        with closing(Ledger(self.paths.ledger)) as ledger:
            record = create_record(self.task, "t", self.repository, ledger, limits={})
            with ledger.transaction():
                self._add(ledger, record, 0, record.base_commit, [float(v) for v in range(6)])
                for number in range(1, experiments + 1):
                    files = {"prog.py": PROGRAM.format(number).encode()}
                    commit = self.repository.commit(record.base_commit, files, f"{number}\n")
                    self._add(ledger, record, number, commit, [9.0, 8.0])
                    self.repository.tidy(number)
            self.repository.refs.move_best("t", record.base_commit, {record.base_commit})
            self.repository.pack()
            results = ResultsFile(self.paths.results, ledger, record)
            results.prepare()

    def _add(
        self, ledger: Ledger, record: SessionRecord, number: int, commit: str, values: list[float]
    ) -> None:
        ledger.begin(
            record,
            base=0,
            commit=commit,
            tree=self.repository.tree_id(commit),
            agent="tuner",
            proposal=Proposal(f"VALUE {number}"),
            now=0.0,
        )
        self.repository.refs.keep("t", number, commit)
        role = Role.SCREEN if number else Role.BASELINE
        for index, value in enumerate(values):
            run = ledger.open_run(
                record,
                experiment=number,
                attempt=0,
                role=role,
                index=index,
                commit=commit,
                now=0.0,
            )
            folder = self.paths.runs / run.name
            folder.mkdir(parents=True)
            (folder / "log").write_text(f"loss: {value}\n")
            ledger.finish_run(
                run,
                metric=value,
                reason=None,
                numbers={},
                slot=0,
                exit_code=0,
                wall_s=1.0,
                cpu_s=1.0,
                peak_memory_bytes=1,
            )
        verdict = Verdict(
            Status.DISCARD if number else Status.KEEP, "worse" if number else None, fmean(values)
        )
        ledger.finish(record, number, verdict, peak_memory_bytes=1, now=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--experiments", type=int, nargs="+", default=[1000, 10000], metavar="N")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| experiments | CPU s of `fsck` | ms each |\n|--:|--:|--:|")
    is_reached = True
    for experiments in options.experiments:
        with tempfile.TemporaryDirectory(prefix="autoresearch-fsck-") as name:
            session = MadeUpSession(Path(name, "task"))
            session.fill(experiments)
            profile = cProfile.Profile()
            began = time.process_time()
            if options.profile:
                profile.enable()
            found = audit(session.task)
            profile.disable()
            cpu_s = time.process_time() - began
        if found:
            sys.exit(f"{len(found)} findings, such as: {found[0]}")
        print(f"| {experiments:,} | {cpu_s:.1f} | {1000 * cpu_s / experiments:.2f} |", flush=True)
        is_reached &= experiments < 10_000 or cpu_s <= REACH_S
        if options.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(25)
    sys.exit(not is_reached)


if __name__ == "__main__":
    main()
