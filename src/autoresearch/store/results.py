"""results.tsv: the original's five columns, then ours.

One line is added when an experiment finishes. The whole file can be written again at any time, and
a line never changes: it is made only from facts that were known when the experiment finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoresearch.errors import NotOursError, StorageError
from autoresearch.files import replace_file
from autoresearch.formatting import one_line, quote_formula, short
from autoresearch.records import Experiment, Role, Run, Status
from autoresearch.store.ledger import Ledger
from autoresearch.store.published import read_ours
from autoresearch.store.rows import SessionRecord

ORIGINAL = ("commit", "", "memory_gb", "status", "description")  # the second is the metric's name
OURS = ("experiment", "reason", "runs", "cpu_s", "agent", "tokens", "usd")
COSTS = (7, 8)  # columns made from the runs: not compared when lines are recognised
DECIDING = (Role.BASELINE, Role.SCREEN, Role.CANDIDATE, Role.CONTROL, Role.REMEASURE)
"""Roles of runs made before the verdict. Later runs of the experiment must not change its line."""


def header(metric: str) -> str:
    return _line([ORIGINAL[0], _cell(metric), *ORIGINAL[2:], *OURS])


LEAST_FIXED = 1e-3  # a smaller metric has an exponent; the original's format, `%.6f`, has no digits


def row(experiment: Experiment, runs: Sequence[Run]) -> str:
    """The line of a finished experiment, with its newline. `runs` are all of the experiment's."""
    crashed = experiment.status is Status.CRASH
    metric = 0.0 if crashed or experiment.metric is None else experiment.metric
    memory = 0 if crashed else experiment.peak_memory_bytes or 0
    deciding = [run for run in runs if run.role in DECIDING and run.finished]
    cpu_s = [run.cpu_s for run in deciding if run.cpu_s is not None]
    return _line(
        [
            short(experiment.commit),
            f"{metric:.6f}" if not 0 < abs(metric) < LEAST_FIXED else f"{metric:.6g}",
            f"{memory / 2**30:.1f}",
            str(experiment.status),
            _cell(experiment.description),
            str(experiment.number),
            _cell(experiment.reason or ("flagged" if experiment.flag else "")),
            str(len(deciding)),
            f"{sum(cpu_s):.1f}" if cpu_s else "",
            _cell(experiment.agent),
            "" if experiment.tokens is None else str(experiment.tokens),
            "" if experiment.usd is None else f"{experiment.usd:.4f}",
        ]
    )


def table(ledger: Ledger, session: SessionRecord) -> str:
    """The whole file: the baseline first, then every experiment in the order of finishing."""
    rows = (row(done, ledger.runs(session, done.number)) for done in ledger.finished(session))
    return "".join([header(session.metric.name), *rows])


class ResultsFile:
    """The results.tsv of one session. One thread at a time."""

    def __init__(self, path: Path, ledger: Ledger, session: SessionRecord) -> None:
        self.path = path
        self._ledger = ledger
        self._session = session
        self._next = 0  # the order of the experiment whose line comes next

    def prepare(self) -> None:
        """Make the file agree with the ledger. Raises `NotOursError`, before anything is changed,
        when it holds lines of somebody else."""
        check_ours(self.path, self._ledger)
        if self.path.exists() or self._ledger.finished(self._session, last=1):
            self.rebuild()

    def append(self, experiment: Experiment) -> None:
        """Add the line of an experiment that has just finished."""
        if experiment.order is not None and experiment.order < self._next:
            return
        if experiment.order != self._next or not self.path.exists():
            self.rebuild()
            return
        runs = self._ledger.runs(self._session, experiment.number)
        try:
            with self.path.open("ab") as file:
                file.write(row(experiment, runs).encode())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from error
        self._next += 1

    def rebuild(self) -> None:
        """Write the whole file again, unless it is right."""
        text = table(self._ledger, self._session)
        data = text.encode()
        if read_ours(self.path) != data:
            replace_file(self.path, data)
        self._next = text.count("\n") - 1


def check_ours(path: Path, ledger: Ledger) -> None:
    """Raises `NotOursError` when there is a file that no session of this ledger has written."""
    data = read_ours(path)
    if data and not _is_ours(data, ledger):
        raise NotOursError(
            f"{path} is not a record of any session in {ledger.path}, and is never "
            f"overwritten: move it away (for example: mv {path.name} "
            f"{path.stem}-old{path.suffix}) and run again. `autoresearch import` lets briefings "
            "know what it says"
        )


def _is_ours(data: bytes, ledger: Ledger) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError:  # torn in the middle of a character, or not ours
        text = data.decode(errors="ignore")
        start = text.encode()
        if not data.startswith(start) or len(data) - len(start) > 3:
            return False
    lines = text.split("\n")
    if len(lines) == 2 and not lines[1] and _is_header(lines[0].split("\t")):
        return True  # a header without rows: the original's instructions begin the file like this
    return any(_written_for(ledger, session, lines) for session in reversed(ledger.sessions()))


def _written_for(ledger: Ledger, session: SessionRecord, lines: list[str]) -> bool:
    """Whether `lines` begin the file of `session`; the last may be cut short."""
    *whole, torn = lines
    expected = [header(session.metric.name)]
    expected += [row(experiment, ()) for experiment in ledger.finished(session)]
    if len(whole) > len(expected) or (torn and len(whole) == len(expected)):
        return False
    pairs = zip(whole, expected, strict=False)
    if any(_drop_costs(line) != _drop_costs(ours.rstrip("\n")) for line, ours in pairs):
        return False
    if not torn:
        return True
    # A torn line ends before the costs, or contains all that is before them.
    ours = expected[len(whole)].rstrip("\n").split("\t")
    start = "\t".join(ours[: COSTS[0]]) + "\t"
    return start.startswith(torn) or torn.startswith(start)


def _drop_costs(line: str) -> list[str]:
    return [cell for index, cell in enumerate(line.split("\t")) if index not in COSTS]


def _is_header(names: Sequence[str]) -> bool:
    return len(names) >= len(ORIGINAL) and all(
        not want or name == want for name, want in zip(names, ORIGINAL, strict=False)
    )


def _line(cells: Sequence[str]) -> str:
    return "\t".join(cells) + "\n"


def _cell(text: str) -> str:
    text = quote_formula(one_line(text))
    # The original's notebook reads the file with pandas, where a leading quote opens a quotation
    # that swallows the rows after it.
    return text.replace('"', "'") if text.startswith('"') else text
