"""What a page shows beside a summary: one experiment, two of them, and the runs under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.errors import AutoresearchError, LedgerError
from autoresearch.files import READ_BYTES, tail
from autoresearch.formatting import cut, duration, one_line, printable, short, size
from autoresearch.git.repository import Repository
from autoresearch.records import UNSELECTED, Experiment, Metric, Run
from autoresearch.report.experiments import describe_result, format_metric, list_facts
from autoresearch.report.summary import OpenRun, Summary
from autoresearch.report.text import describe_phase, find_open_experiment
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.web.diff import Patch, read_patch
from autoresearch.web.model import SessionModel
from autoresearch.web.strips import Curve, Strip, draw_curve, draw_strip, group_runs

OUTPUT_BYTES = 16_000  # of a log's end on the page; a link leads to more
RIVAL_RUNS = 8  # of the incumbent, beside the runs of an experiment
CHANGE = 300  # characters of a description beside a run
SCORE_LOG = "score.log"


@dataclass(frozen=True, slots=True)
class RunRow:
    run: Run
    cells: Sequence[str]


@dataclass(frozen=True, slots=True)
class Details:
    """One experiment, for its page."""

    experiment: Experiment
    base: Experiment
    facts: Sequence[tuple[str, str]]
    notes: str  # empty for a mark that an agent makes for itself
    runs: Sequence[RunRow]
    strip: Strip | None
    patch: Patch | None
    patch_trouble: str  # why there is no patch
    output: str
    output_run: Run | None
    output_file: str
    older: int | None
    newer: int | None


def read_details(model: SessionModel, number: int, *, shows_scores: bool) -> Details:
    """Read an experiment. `shows_scores`: its page may show what the scorer printed, which may
    quote hidden files. Raises `LedgerError` if there is no such experiment."""
    ledger, record = model.ledger, model.record
    experiment = ledger.experiment(record, number)
    base = ledger.experiment(record, experiment.base)
    runs = ledger.runs(record, number)
    patch, trouble = read_diff(model.paths.root, base, experiment)
    run, file = choose_log(runs, experiment, shows_scores=shows_scores)
    output = tail(model.paths.runs / run.name / file, OUTPUT_BYTES) if run else ""
    last = ledger.started(record)
    return Details(
        experiment,
        base,
        list_facts(experiment, record.metric),
        experiment.notes if len(experiment.notes.split()) >= queries.MIN_WORDS else "",
        [RunRow(run, _list_cells(run, record.metric)) for run in runs],
        _draw_runs(ledger, record, experiment, base, runs, model.summary),
        patch,
        trouble,
        printable(output),
        run,
        file,
        number - 1 if number else None,
        number + 1 if number < last else None,
    )


RUN_HEADINGS = ("run", "purpose", "commit", "seed", "metric", "CPU", "wall", "memory", "result")


def _list_cells(run: Run, metric: Metric) -> tuple[str, ...]:
    return (
        run.name,
        str(run.role),
        short(run.commit),
        str(run.seed),
        format_metric(run),
        duration(run.cpu_s),
        duration(run.wall_s),
        size(run.peak_memory_bytes),
        describe_result(run),
    )


def choose_log(
    runs: Sequence[Run], experiment: Experiment, *, shows_scores: bool
) -> tuple[Run | None, str]:
    """The last finished run of the change itself, and the log that says how it went: the scorer's
    if that failed. The log of a run under way may hold secrets, which are masked at its end."""
    own = [run for run in runs if run.commit == experiment.commit and run.finished]
    if not own:
        return None, "log"
    is_scored = (own[-1].reason or "").startswith("score: ")
    return own[-1], SCORE_LOG if is_scored and shows_scores else "log"


def _draw_runs(
    ledger: Ledger,
    record: SessionRecord,
    experiment: Experiment,
    base: Experiment,
    runs: Sequence[Run],
    summary: Summary,
) -> Strip | None:
    rivals: Sequence[Run] = []
    if experiment.number and runs:
        rivals = [
            run
            for run in ledger.runs_of(record, base.commit, UNSELECTED, RIVAL_RUNS)
            if run.segment == runs[-1].segment
        ]
    return draw_strip(group_runs(runs, experiment.commit, rivals), summary.numbers)


def read_diff(root: Path, old: Experiment, new: Experiment) -> tuple[Patch | None, str]:
    """The change from one experiment to another, or why it cannot be shown."""
    if old.commit == new.commit:
        return None, ""
    try:
        repository = Repository(root, editable=(), may_edit=lambda path: False)
        return read_patch(repository.diff(old.commit, new.commit)), ""
    except AutoresearchError as error:
        return None, one_line(str(error))
    except (KeyError, ValueError, OSError):
        commits = f"{short(old.commit)} and {short(new.commit)}"
        return None, f"the repository at {root} does not hold the commits {commits}"


def read_log(model: SessionModel, number: int, run_id: int, *, shows_scores: bool) -> str:
    """The end of a finished run's log, up to a megabyte. Raises `LedgerError`."""
    runs = model.ledger.runs(model.record, number)
    run = next((run for run in runs if run.id == run_id and run.finished), None)
    if run is None:
        raise LedgerError(f"experiment {number} has no finished run {run_id}")
    experiment = model.ledger.experiment(model.record, number)
    _, file = choose_log([run], experiment, shows_scores=shows_scores)
    return printable(tail(model.paths.runs / run.name / file, READ_BYTES))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two experiments side by side."""

    old: Experiment
    new: Experiment
    facts: Sequence[tuple[str, str, str]]  # label, of the old, of the new
    gain: str
    strip: Strip | None
    patch: Patch | None
    patch_trouble: str


def compare_experiments(model: SessionModel, old_number: int, new_number: int) -> Comparison:
    """Compare two experiments. Raises `LedgerError` if one is not there."""
    ledger, record = model.ledger, model.record
    old, new = (ledger.experiment(record, number) for number in (old_number, new_number))
    facts = [dict(list_facts(experiment, record.metric)) for experiment in (old, new)]
    labels = dict.fromkeys([*facts[0], *facts[1]])
    patch, trouble = read_diff(model.paths.root, old, new)
    summary = model.summary
    starts = ledger.starts(record)
    groups = []
    for experiment in (old, new):
        runs = ledger.runs(record, experiment.number)
        for group in group_runs(runs, experiment.commit, ()):
            if not group.label.startswith("incumbent"):
                label = f"#{experiment.number} {group.label}"
                groups.append(type(group)(label, group.runs, experiment is new))
    gain = ""
    if old.metric is not None and new.metric is not None:
        gain = summary.numbers.gain(record.metric.gain(new.metric, old.metric))
        if len(starts) > 1:
            gain += ", if nothing changed between the segments in which they ran"
    return Comparison(
        old,
        new,
        [(label, facts[0].get(label, ""), facts[1].get(label, "")) for label in labels],
        gain,
        draw_strip(groups, summary.numbers),
        patch,
        trouble,
    )


@dataclass(frozen=True, slots=True)
class RunningRun:
    """A run under way, as the terminal view has it, with its curve."""

    run: OpenRun
    change: str
    agent: str
    phase: str
    started_at: float
    curve: Curve | None


def list_running(model: SessionModel) -> list[RunningRun]:
    """The runs under way, with the curves that they print. None while the session is at rest."""
    summary = model.summary
    if not model.is_running:
        return []
    ledger, record = model.ledger, model.record
    rival = _find_rival_log(ledger, record, model.paths)
    rows = []
    for run in ledger.open_runs(record):
        shown = next((o for o in summary.open_runs if _same(o, run)), None)
        if shown is None:  # it began after the summary was made
            continue
        experiment = find_open_experiment(summary, run.experiment)
        log = model.paths.runs / run.name / "log"
        rows.append(
            RunningRun(
                shown,
                cut(experiment.description, CHANGE) if experiment and run.experiment else "",
                cut(experiment.agent, 40) if experiment and run.experiment else "",
                describe_phase(summary, shown),
                run.started_at,
                draw_curve(log, rival, record.metric),
            )
        )
    return rows


def _same(shown: OpenRun, run: Run) -> bool:
    return (shown.experiment, shown.role, shown.index) == (run.experiment, run.role, run.index)


def _find_rival_log(ledger: Ledger, record: SessionRecord, paths: SessionPaths) -> Path | None:
    """The log of the incumbent's latest run."""
    if not ledger.has_baseline(record):
        return None
    runs = ledger.runs_of(record, ledger.incumbent(record).commit, last=1)
    return paths.runs / runs[0].name / "log" if runs else None
