"""Measures the cost and the length of a briefing after a long session.

    python benchmarks/briefing.py                       # 10, 100, 1,000 and 10,000 experiments
    python benchmarks/briefing.py --show 2000           # print a briefing instead

For each length it makes up a session of the task tiny_gpt: a real repository, a real ledger with
the runs, commits of the keeps, descriptions that name constants and ideas, near misses, crashes,
notes, fruitless turns, and the logs of the runs a briefing may read, one in eight of them of more
than a megabyte. Nothing is trained: the numbers are drawn.

    tokens   of the briefing, and of the source after it, by the briefing's own rule
    warm     an experiment has finished since the last briefing, as in a session
    cold     the first briefing of a process that has just opened the ledger, read-only

CPU ms, medians; the imports are not counted. Exits with 1 when a briefing is longer than 8,000
tokens or takes more than 50 ms, warm or cold.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from autoresearch.briefing import Briefer
from autoresearch.briefing.fitting import count_tokens
from autoresearch.git.repository import Repository
from autoresearch.protocols import Failure, Proposal
from autoresearch.records import Experiment, Role, Status, Verdict
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task
from autoresearch.task.reading import load

SIZES = (10, 100, 1_000, 10_000)
MAX_TOKENS, MAX_MS = 8_000, 50.0
WARM, COLD = 15, 7  # briefings of each kind
LOGGED = 60  # latest experiments whose runs have logs
SD = 0.014
AGENTS = ("claude", "claude", "claude", "tuner")
CONSTANTS = {
    "DEPTH": (1, 6), "WIDTH": (32, 256), "MLP_RATIO": (1, 8), "SOFTCAP": (5, 60),
    "INIT_SCALE": (0.2, 3), "BATCH_SIZE": (2, 32), "MATRIX_LR": (0.005, 0.3),
    "EMBEDDING_LR": (0.05, 5), "UNEMBEDDING_LR": (0.0005, 0.1), "WEIGHT_DECAY": (0, 1),
    "MOMENTUM": (0.7, 0.99), "BETA2": (0.8, 0.999), "WARMUP": (0, 0.3), "WARMDOWN": (0.1, 1),
}  # fmt: skip
IDEAS = (
    "SwiGLU instead of squared ReLU in MLP.forward: gating pays per parameter",
    "average the weights over the last 10 % of the steps, an EMA with decay 0.95",
    "initialise the unembedding bias with the log unigram frequencies of the corpus",
    "tie the embedding and the unembedding, as the vocabulary dominates the parameters",
    "cosine instead of linear warmdown in learning_rate: more steps at a high rate",
    "drop the value embeddings: two table lookups less per step",
    "label smoothing of 0.05 in the loss: less confident on rare tokens",
    "Muon with 3 Newton-Schulz iterations instead of 5: a third of its cost saved",
    "sequence length warmup, 32 to 128: cheap steps while the bigrams are learnt",
    "a bigram table added to the logits: statistics that need no depth",
    "z-loss of 1e-4 on the logits: keeps softcap out of saturation",
    "multi-query attention: one key and value head for all heads",
    "grouped batches by document so that rows do not cross books",
    "lookahead with 5 inner steps around AdamW",
)
CRASHES = (
    ("exit code 1", "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1024x64 and 128x64)"),
    ("exit code 1", "TypeError: step() missing 1 required positional argument: 'weight_decay'"),
    ("over budget", ""),
    ("exit code 1", "error: diverged: the loss is nan after 31 steps"),
)
NOTES = (
    "the output layer takes over half of a step: look there for speed, not in the blocks",
    "learning rates are within a factor of two of their optimum, all four of them",
    "more depth never paid for its steps; width might, with a smaller vocabulary table",
)


@dataclass(frozen=True, slots=True)
class Night:
    task: Task
    paths: SessionPaths
    repository: Repository


@dataclass(frozen=True, slots=True)
class Row:
    experiments: int
    tokens: int
    source_tokens: int
    warm_ms: float
    cold_ms: float


class Writer:
    """Makes up a session, experiment by experiment."""

    def __init__(self, night: Night, ledger: Ledger, experiments: int) -> None:
        self.night = night
        self.ledger = ledger
        self.rng = random.Random(experiments)
        self.score = 1.63
        self.at = 1_750_000_000.0
        self.experiments = experiments
        self.record = ledger.create_session(
            "night",
            base_commit=night.repository.head(),
            metric=night.task.metric,
            level="default",
            budget_s=10.0,
            budget_clock="cpu",
            limits={"experiments": experiments},
            fingerprint={},
            now=self.at,
        )
        ledger.update_session(self.record, deterministic=False, allowance_s=3.5)
        self._finish(
            self._begin("baseline", self.record.base_commit), Status.KEEP, None, self.score
        )

    def experiment(self, finish: bool = True) -> Experiment:
        """Add the next experiment: 1 keep in 30 at first, fewer later."""
        self.at += 20
        roll, base = self.rng.random(), self.ledger.incumbent(self.record)
        keeps = 1 / (30 + self.ledger.started(self.record) / 4)
        kept = roll < keeps
        commit = self._commit(base) if kept else f"{self.rng.getrandbits(160):040x}"
        experiment = self._begin(self._description(), commit, base.number)
        gain = self.rng.gauss(-1.5, 1.3) * SD
        if not finish:
            return experiment
        if kept:
            self.score -= abs(self.rng.gauss(0.3, 0.4)) * SD
            self._finish(experiment, Status.KEEP, None, self.score)
        elif roll > 0.93:
            self._finish(experiment, Status.CRASH, self.rng.choice(CRASHES), None)
        elif gain > 0.8 * SD:
            why = "not confirmed" if self.rng.random() < 0.5 else "not better"
            self._finish(experiment, Status.DISCARD, (why, ""), self.score - gain)
        else:
            why = "not better" if gain > 0 else "worse"
            self._finish(experiment, Status.DISCARD, (why, ""), self.score - gain)
        if roll > 0.98:
            failure = Failure("frozen file", "prepare.py was changed; only train.py may be")
            self.ledger.add_turn(self.record, "claude", failure, self.at)
        return experiment

    def _description(self) -> str:
        if self.rng.random() < 0.35:
            return self.rng.choice(IDEAS)
        name = self.rng.choice(list(CONSTANTS))
        low, high = CONSTANTS[name]
        was, now = (round(self.rng.uniform(low, high), 3) for _ in range(2))
        why = self.rng.choice(("cheaper steps", "the matrices learn too slowly", "less noise"))
        return f"{name} {was} -> {now}: {why}, as far as experiment {self.rng.randrange(99)} tells"

    def _commit(self, base: Experiment) -> str:
        path = str(self.night.repository.prefix / "train.py")
        text = self.night.repository.editable_files(base.commit)[path]
        changed = text + f"# kept {self.rng.random()}\n".encode()
        return self.night.repository.commit(base.commit, {path: changed}, "keep\n")

    def _begin(self, description: str, commit: str, base: int = 0) -> Experiment:
        noted = self.rng.random() < 0.03
        proposal = Proposal(description, notes=self.rng.choice(NOTES) if noted else "")
        return self.ledger.begin(
            self.record,
            base=base,
            commit=commit,
            tree=f"{self.rng.random()}",
            agent=self.rng.choice(AGENTS),
            proposal=proposal,
            now=self.at,
        )

    def _finish(
        self,
        experiment: Experiment,
        status: Status,
        why: tuple[str, str] | None,
        metric: float | None,
    ) -> None:
        reason, message = why or (None, "")
        role = Role.SCREEN if experiment.number else Role.BASELINE
        self._run(experiment, role, 0, metric, reason, message)
        for index in range(5 if status is Status.KEEP else 0):
            fresh = Role.REMEASURE if experiment.number else Role.BASELINE
            value = (metric or 0.0) + self.rng.gauss(0, SD)
            self._run(experiment, fresh, index + 1, value, None, "")
        verdict = Verdict(status, reason, metric, "")
        self.ledger.finish(
            self.record, experiment.number, verdict, peak_memory_bytes=10**8, now=self.at
        )

    def _run(
        self,
        experiment: Experiment,
        role: Role,
        index: int,
        metric: float | None,
        reason: str | None,
        message: str,
    ) -> None:
        run = self.ledger.open_run(
            self.record,
            experiment=experiment.number,
            attempt=0,
            role=role,
            index=index,
            commit=experiment.commit,
            now=self.at,
        )
        self.ledger.finish_run(
            run,
            metric=metric,
            reason=reason if metric is None else None,
            numbers={"num_steps": 130.0, "peak_vram_mb": 0.0},
            slot=0,
            exit_code=0,
            wall_s=14.0,
            cpu_s=13.0,
            peak_memory_bytes=10**8,
        )
        late = experiment.number > self.experiments - LOGGED or role in (
            Role.BASELINE,
            Role.REMEASURE,
        )
        if late:
            folder = self.night.paths.runs / run.name
            folder.mkdir(parents=True)
            (folder / "log").write_text(self._log(metric, message, long=run.id % 8 == 0))

    def _log(self, metric: float | None, message: str, long: bool) -> str:
        steps = 20_000 if long else 16
        lines = [
            f"step {8 * i:05d} | loss {7.6 * (i + 1) ** -0.22 + self.rng.gauss(0, 0.03):.4f} | "
            f"{i / steps:.1%} | 14.{i % 10}k tok/s"
            for i in range(steps)
        ]
        if message:
            lines += ["Traceback (most recent call last):"] if ":" in message else []
            for line, call in ((301, "main()"), (262, "train(model, budget, seed, device)")):
                lines += [f'  File "train.py", line {line}, in <module>', f"    {call}"]
            lines.append(message)
        else:
            lines += ["---", f"val_bpb:          {metric or 0.0:.6f}"]
        return "\n".join(lines) + "\n"


def make(folder: Path, experiments: int) -> tuple[Night, Ledger, Writer]:
    """Make a task and a session of that length, with one more experiment in flight."""
    new = [sys.executable, "-m", "autoresearch", "new", "tiny_gpt", str(folder)]
    subprocess.run(new, check=True, stdout=subprocess.DEVNULL)
    for name in ("data", "val", "holdout"):
        (folder / name).mkdir(exist_ok=True)
    task = load(folder)
    night = Night(
        task, SessionPaths(folder, "night"), Repository(folder, task.editable, task.may_edit)
    )
    night.paths.folder.mkdir(parents=True)
    ledger = Ledger(night.paths.ledger)
    with ledger.transaction():
        writer = Writer(night, ledger, experiments)
        for _ in range(experiments):
            writer.experiment()
        for note in NOTES:
            ledger.add_note(writer.record, "claude", note, writer.at)
        writer.experiment(finish=False)
    return night, ledger, writer


def make_briefer(night: Night, ledger: Ledger, record: SessionRecord) -> Briefer:
    return Briefer(night.task, ledger, record, night.repository, night.paths)


LEFT = ("63 experiments of 100", "5 h 10 min of 8 hours", "1,200,000 of 5,000,000 tokens")


def measure(folder: Path, experiments: int) -> Row:
    night, ledger, writer = make(folder, experiments)
    cold = []
    for _ in range(COLD):
        reader = Ledger(night.paths.ledger, readonly=True)
        repository = Repository(folder, night.task.editable, night.task.may_edit)
        began = time.process_time()
        record = reader.session("night")
        Briefer(night.task, reader, record, repository, night.paths).text(LEFT)
        cold.append(time.process_time() - began)
        reader.close()
    warm, lengths, sources = [], [], []
    warm_briefer = make_briefer(night, ledger, writer.record)
    warm_briefer.text(LEFT)
    for _ in range(WARM):
        writer.experiment()
        began = time.process_time()
        text = warm_briefer.text(LEFT)
        warm.append(time.process_time() - began)
        head, heading, source = text.rpartition("## The source")
        lengths.append(count_tokens(head))
        sources.append(count_tokens(heading + source))
    ledger.close()
    return Row(experiments, max(lengths), max(sources), 1000 * median(warm), 1000 * median(cold))


def table(rows: list[Row]) -> str:
    lines = [
        "| experiments | tokens | tokens of the source | warm, CPU ms | cold, CPU ms |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {line.experiments:,} | {line.tokens:,} | {line.source_tokens:,} | {line.warm_ms:.1f} |"
        f" {line.cold_ms:.1f} |"
        for line in rows
    ]
    return "\n".join(lines)


def failures(rows: list[Row]) -> list[str]:
    problems = []
    for row in rows:
        where = f"after {row.experiments:,} experiments"
        if row.tokens > MAX_TOKENS:
            problems.append(f"{row.tokens:,} tokens, above {MAX_TOKENS:,}: {where}")
        problems += [
            f"{took_ms:.1f} ms {kind}, above {MAX_MS:g}: {where}"
            for kind, took_ms in (("warm", row.warm_ms), ("cold", row.cold_ms))
            if took_ms > MAX_MS
        ]
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--show", type=int, metavar="N", help="print the briefing after N")
    options = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="autoresearch-briefing-") as folder:
        if options.show:
            night, ledger, writer = make(Path(folder) / "task", options.show)
            print(make_briefer(night, ledger, writer.record).text(LEFT))
            return
        rows = [measure(Path(folder) / str(size), size) for size in SIZES]
    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}\n"
    )
    print(table(rows))
    if problems := failures(rows):
        sys.exit("\n".join(["", *problems]))


if __name__ == "__main__":
    main()
