"""kill -9 the harness again and again, resume, and see whether anything was lost or done twice.

    python benchmarks/nothing_lost.py                 # 50 kills, some minutes
    python benchmarks/nothing_lost.py --kills 6 --seed 7

A session of the instant task by the tuner, two slots. Its program is wrapped so that a run takes
50 to 150 ms, sometimes leaves a process behind in a session of its own, and bears witness: it
appends `start` and `end` lines to a file that nobody else writes. The harness is killed at random
moments (in the baseline, between and in experiments, while the result is measured again), every
seventh time together with its wardens, and started again at once.

A run is *finished* when its program has ended by itself and a warden lived to see it. So a run that
ends while only the harness is dead counts, and one that was going on is cut off and made again, on
a new seed. Exits with 1 and says what is wrong when, in the end, a finished run is not in the
ledger with its metric, or is there twice; a process outlived a kill by two seconds; a resume was
refused; or branch, refs, results.tsv, repository and database do not agree.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from autoresearch.errors import LedgerError
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.results import table

TAG = "kills"
MARK, WITNESS = "NOTHING_LOST_MARK", "NOTHING_LOST_WITNESS"
ORPHANS_S = 2.0  # all processes have to be dead after this
PROGRAM = '''\
"""train.py with a witness: what it writes to NOTHING_LOST_WITNESS is nobody else's to change."""

import io, os, subprocess, sys, time

seed = os.environ["AUTORESEARCH_SEED"]


def witness(text):
    file = os.open(os.environ["NOTHING_LOST_WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{time.time()} {seed} {text}\\n".encode())
    os.close(file)


witness("start")
if int(seed) % 3 == 0:
    subprocess.Popen(["sleep", "600"], start_new_session=True)
time.sleep(0.05 + int(seed) % 100 / 1000)
stdout, sys.stdout = sys.stdout, io.StringIO()
try:
    sys.path.insert(0, "")
    import train
    said, code = sys.stdout.getvalue(), 0
except SystemExit as error:
    said, code = f"{error}\\n", 1
stdout.write(said)
stdout.flush()
witness("end " + (said.split()[-1] if code == 0 else "crash"))
os._exit(code)
'''


@dataclass
class Night:
    """The session, and what became of it so far."""

    root: Path
    witness: Path
    rng: random.Random
    experiments: int
    problems: list[str] = field(default_factory=list)
    blind: list[float] = field(default_factory=list)  # when wardens were killed as well
    phases: Counter[str] = field(default_factory=Counter)

    @property
    def log(self) -> Path:
        return self.root.parent / "session.log"

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "autoresearch", "run", "--plain", "--tag", TAG]
        command += ["--experiments", str(self.experiments), "--slots", "2", str(self.root)]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command,
                env=os.environ | {WITNESS: str(self.witness), MARK: str(self.root)},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def kill(self, number: int, kills: int) -> bool:
        """Start or resume, kill at a random moment. False when it ended before that."""
        began = self._witnessed()
        process = self.start()
        if number >= kills - max(1, kills // 10):
            while process.poll() is None and b"measuring again: " not in self.log.read_bytes():
                time.sleep(0.01)
        if self.rng.random() < 0.8:  # else perhaps before it has begun anything
            wanted = self._witnessed() + self.rng.randint(1, 16)
            while process.poll() is None and self._witnessed() < wanted:
                time.sleep(0.005)
        try:
            process.wait(self.rng.uniform(0, 0.5))
        except subprocess.TimeoutExpired:
            pass
        else:
            self._check_ended(process)
            return False
        working = self._witnessed() > began
        wardens = psutil.Process(process.pid).children() if number % 7 == 6 else []
        process.kill()
        for warden in wardens:
            warden.kill()
        process.wait()
        if wardens:
            self.blind.append(time.time())
        self.phases[self._phase() if working else "before the first"] += 1
        self._check_orphans(spare=bool(wardens))
        return True

    def _phase(self) -> str:
        """What the runs under way at the kill were for."""
        try:
            ledger = Ledger(SessionPaths(self.root, TAG).ledger, readonly=True)
            row = ledger.session(TAG)
            roles = {run.role for run in ledger.open_runs(row)}
            ledger.close()
        except LedgerError:
            return "no session yet"
        return " + ".join(sorted(roles)) or "none"

    def _witnessed(self) -> int:
        """Starts and ends of runs so far."""
        return self.witness.read_bytes().count(b"\n") if self.witness.exists() else 0

    def _check_ended(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode != 0:
            tail = self.log.read_text()[-600:]
            self.problems.append(f"a resume ended with {process.returncode}: {tail}")

    def _check_orphans(self, spare: bool) -> None:
        """No process of the task outlives a kill. With `spare`, its wardens were killed too, and
        what had left its session dies when the next harness begins."""
        if spare:
            time.sleep(ORPHANS_S / 4)
            left = self._marked()
            process = self.start()
            time.sleep(ORPHANS_S)
            still = self._marked()
            left = [one for one in left if one in still]
            process.kill()
            process.wait()
        deadline = time.monotonic() + ORPHANS_S
        while time.monotonic() < deadline and (not spare) and (left := self._marked()):
            time.sleep(0.01)
        for one in left:
            self.problems.append(f"process {one} outlived the harness")
            one.kill()
        if spare:
            self._check_orphans(spare=False)

    def _marked(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get(MARK) == str(self.root)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    # ---- in the end ------------------------------------------------------------------------

    def check(self) -> dict[str, int]:
        """Everything that has to agree; what does not goes to `problems`."""
        ledger = Ledger(SessionPaths(self.root, TAG).ledger, readonly=True)
        row = ledger.session(TAG)
        experiments = ledger.all_experiments(row)
        recorded = {
            run.seed: run
            for experiment in experiments
            for run in ledger.runs(row, experiment.number)
            if run.finished
        }
        ends: dict[int, str] = {}
        starts = 0
        for line in self.witness.read_text().splitlines():
            at, seed, *words = line.split()
            starts += words == ["start"]
            if words[0] == "end":
                self._expect(int(seed) not in ends, f"seed {seed} ran to its end twice")
                if int(seed) in recorded or not self._unseen(float(at)):
                    ends[int(seed)] = words[1]
        for seed in ends.keys() - recorded.keys():
            self.problems.append(f"the run on seed {seed} ended, and is not in the ledger")
        for seed in recorded.keys() - ends.keys():
            self.problems.append(f"run {recorded[seed].name} is recorded, but never ended")
        for seed in ends.keys() & recorded.keys():
            run = recorded[seed]
            metric = None if ends[seed] == "crash" else float(ends[seed])
            self._expect(run.metric == metric, f"run {run.name}: {run.metric}, not {metric}")
        names = Counter(
            (r.experiment, r.attempt, r.role, r.segment, r.index, r.retry)
            for r in recorded.values()
        )
        self._expect(max(names.values()) == 1, "a run was made twice")
        self._expect(not ledger.open_runs(row), "runs are still open")
        self._expect(not ledger.in_flight(row), "experiments are still open")
        self._expect(ledger.started(row) == self.experiments, f"{ledger.started(row)} experiments")
        orders = sorted(one.order for one in experiments if one.order is not None)
        self._expect(orders == list(range(len(experiments))), "the order of finishing has gaps")
        best = ledger.incumbent(row).commit
        self._expect(self._ref(f"refs/heads/autoresearch/{TAG}") == best, "branch is not the best")
        self._expect(self._ref(f"refs/autoresearch/{TAG}/best") == best, "ref best is not the best")
        for one in experiments:
            name = f"refs/autoresearch/{TAG}/{one.number}"
            self._expect(self._ref(name) == one.commit, f"{name} is not its commit")
        results = (self.root / "results.tsv").read_text()
        self._expect(results == table(ledger, row), "results.tsv is not what the ledger says")
        ledger.close()
        self._check_files()
        return {"experiments": len(experiments) - 1, "runs": len(recorded), "starts": starts}

    def _check_files(self) -> None:
        fsck = subprocess.run(
            ["git", "fsck", "--no-dangling"], cwd=self.root, capture_output=True, text=True
        )
        self._expect(fsck.returncode == 0, f"git fsck: {fsck.stdout}{fsck.stderr}")
        status = self._git("status", "--porcelain")
        self._expect(not status, f"left in the user's folder: {status}")
        locks = list((self.root / ".git").rglob("*.lock"))
        self._expect(not locks, f"stale locks: {locks}")
        with sqlite3.connect(SessionPaths(self.root, TAG).ledger) as database:
            found = database.execute("PRAGMA integrity_check").fetchone()[0]
        database.close()
        self._expect(found == "ok", f"integrity_check: {found}")

    def _unseen(self, at: float) -> bool:
        """The run ended when its warden, too, was being killed: nobody could see it end."""
        return any(killed - 1 < at < killed + 1 for killed in self.blind)

    def _expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def _ref(self, name: str) -> str:
        return self._git("rev-parse", "--verify", "--quiet", name)

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()


def prepare(root: Path) -> None:
    """The instant task, its program wrapped, committed."""
    new = [sys.executable, "-m", "autoresearch", "new", "instant", str(root)]
    subprocess.run(new, check=True, stdout=subprocess.DEVNULL)
    (root / "witnessed.py").write_text(PROGRAM)
    settings = root / "autoresearch.toml"
    text = settings.read_text().replace("-BES train.py", "-BES witnessed.py")
    text = text.replace("env = [", f'env = ["{WITNESS}", "{MARK}", ')
    settings.write_text(text.replace("[run]\n", f'[run]\ncaches = ["{root.parent / "seen"}"]\n'))
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["add", "--all"], [*who, "commit", "--quiet", "--message=witnessed"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--experiments", type=int, default=100, help="more if that is not enough")
    parser.add_argument("--seed", type=int, help="of the moments; drawn and printed otherwise")
    options = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="autoresearch-kills-") as folder:
        root = Path(folder) / "instant"
        prepare(root)
        night = Night(
            root, Path(folder) / "seen" / "witness", random.Random(seed), options.experiments
        )
        killed = 0
        while killed < options.kills and not night.problems:
            if night.kill(killed, options.kills):
                killed += 1
            else:
                night.experiments += max(4, options.experiments // 5)
        if not night.problems:
            last = night.start()
            last.wait()
            night._check_ended(last)
        found = night.check()
    phases = ", ".join(f"{count} in {phase}" for phase, count in night.phases.most_common())
    print(f"{killed} kills, {len(night.blind)} with the wardens, seed {seed}; runs: {phases}")
    cut = found["starts"] - found["runs"]
    print(
        f"{found['experiments']} experiments, {found['runs']} runs recorded, {cut} cut off and "
        f"made again, {len(night.problems)} problems"
    )
    if night.problems:
        sys.exit("\n".join(night.problems))


if __name__ == "__main__":
    main()
