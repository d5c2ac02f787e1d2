"""Which kept changes still earn their place? The best commit is measured against itself without one
of them, for each, by fresh runs in interleaved rounds. A change that was kept by luck, or that a
later one has made useless, shows here.

Every version gets the same number of runs, decided beforehand, so that the 95 % intervals are what
they claim. Nothing is dropped early. The runs are in the ledger, so that the same command goes on
where it was stopped, and more runs may be added later.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from autoresearch.commands.finish import list_chain, replay
from autoresearch.core.session import Session
from autoresearch.core.verification import compare
from autoresearch.errors import TaskError
from autoresearch.formatting import Numbers, counted, duration, one_line
from autoresearch.git.branches import Identity
from autoresearch.git.objects import AUTHOR
from autoresearch.git.repository import Repository
from autoresearch.records import Experiment, Role
from autoresearch.report.verification import Comparison, least_runs, metrics_of
from autoresearch.report.verification import compare as compare_metrics
from autoresearch.statistics import pooled_noise
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

EARNS, NOTHING, HURTS = "earns its place", "earns nothing", "makes it worse"
UNRESOLVED, TIED, UNMEASURED = "not resolved", "cannot be left out alone", "not measured yet"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The best against itself without one kept change. A positive gain is the change's."""

    number: int
    description: str
    verdict: str  # one of the words above
    why: str  # it cannot be left out alone; else empty
    result: Comparison | None

    @property
    def is_offered(self) -> bool:
        """Whether its removal is offered."""
        return self.verdict in (NOTHING, HURTS)


@dataclass(frozen=True, slots=True)
class Reduced:
    """The best without all changes that earn nothing. Positive gains are the reduced version's."""

    without: tuple[int, ...]
    commit: str
    over_best: Comparison | None  # None: too few runs yet
    over_baseline: Comparison | None


@dataclass(frozen=True, slots=True)
class Ablation:
    best: int
    least: float  # the least gain worth keeping, in metric units
    changes: tuple[LeftOut, ...]
    reduced: Reduced | None  # None if no removal is offered, or the rest does not fit together


def ablate(
    session: Session, runs: int, hours: float | None = None, least: float | None = None
) -> None:
    """Make rounds of runs until every version has `runs` of them, or the next round would end after
    `hours`. Then measure the best without the changes that earn nothing (see `read_ablation`), as
    often. Returns early when the session stops."""
    ledger, record, repository = session.ledger, session.record, session.repository
    best = list_chain(ledger, record)[-1]
    deadline = None if hours is None else time.monotonic() + 3600 * hours
    versions = [best.commit, *make_variants(ledger, record, repository).values()]
    if _make_rounds(session, best, Role.ABLATION, versions, runs, deadline):
        versions = _list_reduced(ledger, record, repository, least)
        _make_rounds(session, best, Role.REDUCED, versions, runs, deadline)


def _make_rounds(
    session: Session,
    best: Experiment,
    role: Role,
    versions: Sequence[str],
    runs: int,
    deadline: float | None,
) -> bool:
    """Make rounds of one run of each version, in random order. Returns whether all are made."""
    wanted = [(role, commit) for commit in versions]
    for done in range(1, runs + 1 if len(wanted) > 1 else 1):
        began = time.monotonic()
        compare(session, best, wanted, done)
        now = time.monotonic()
        is_late = deadline is not None and now + (now - began) > deadline and done < runs
        if session.stopping is not None or is_late:
            return False
    return True


def make_variants(ledger: Ledger, record: SessionRecord, repository: Repository) -> dict[int, str]:
    """The commit of the best without each kept change that can be left out alone, by its number."""
    chain = list_chain(ledger, record)
    variants: dict[int, str] = {}
    if len(chain) == 2:
        return (
            variants  # without the only change it is the baseline: that is what `verify` compares
        )
    for keep in chain[1:]:
        try:
            variants[keep.number] = _make_variant(repository, record, chain, (keep.number,))
        except TaskError:
            continue  # `read_ablation` tells why
    return variants


def _make_variant(
    repository: Repository,
    record: SessionRecord,
    chain: Sequence[Experiment],
    without: tuple[int, ...],
) -> str:
    """The commit of the best without some changes: the same at every call. Raises `TaskError` if a
    later change does not fit then."""
    best, trees = chain[-1], replay(repository, chain, without)
    last = [keep.number for keep in chain if keep.number not in without][-1]
    left_out = ", ".join(f"#{number}" for number in without)
    message = f"Experiment {best.number} without {left_out}\n"
    at = best.ended_at or best.started_at
    commit = repository.branches.commit(
        trees[last], record.base_commit, message, Identity(*AUTHOR), at
    )
    repository.refs.keep_variant(record.tag, best.number, without, commit)
    return commit


def _list_reduced(
    ledger: Ledger, record: SessionRecord, repository: Repository, least: float | None
) -> list[str]:
    reduced = read_ablation(ledger, record, repository, least).reduced
    best = list_chain(ledger, record)[-1]
    return [] if reduced is None else [best.commit, reduced.commit, record.base_commit]


def read_reduced_gain(
    ledger: Ledger, record: SessionRecord, repository: Repository, without: Collection[int]
) -> Comparison | None:
    """The gain over the baseline of the best without these changes, as it was measured after an
    ablation. None if it was not."""
    best = list_chain(ledger, record)[-1]
    commit = repository.refs.get_variant(record.tag, best.number, without)
    metrics = _read_metrics(ledger, record, best, Role.REDUCED)
    return _compare(record, metrics, commit, record.base_commit) if commit else None


def read_ablation(
    ledger: Ledger, record: SessionRecord, repository: Repository, least: float | None = None
) -> Ablation:
    """The result so far, by the runs of the latest segment. `least` is the least gain worth
    keeping; by default the noise of one run, and 0 on a deterministic task."""
    chain = list_chain(ledger, record)
    best = chain[-1]
    variants = make_variants(ledger, record, repository)
    metrics = _read_metrics(ledger, record, best, Role.ABLATION)
    if least is None:
        least = _measure_noise(record, metrics)
    changes = []
    for keep in chain[1:]:
        why = "" if keep.number in variants else _explain_tie(repository, chain, keep)
        result = _compare(record, metrics, best.commit, variants.get(keep.number))
        verdict = TIED if why else judge_gain(result, least, is_exact=bool(record.deterministic))
        changes.append(LeftOut(keep.number, one_line(keep.description), verdict, why, result))
    reduced = _read_reduced(ledger, record, repository, chain, changes)
    return Ablation(best.number, least, tuple(changes), reduced)


def _explain_tie(repository: Repository, chain: Sequence[Experiment], keep: Experiment) -> str:
    if len(chain) == 2:
        return "it is the only change: the best without it is the baseline"
    try:
        replay(repository, chain, (keep.number,))
    except TaskError as error:
        return str(error)
    return ""


def judge_gain(result: Comparison | None, least: float, is_exact: bool = False) -> str:
    """What the gain of a change says of it, in one of the words above; `least` is the least gain
    worth keeping, in metric units."""
    if result is None:
        return UNMEASURED
    if result.low > 0:
        return EARNS
    if result.high < 0:
        return HURTS
    is_small = result.high == 0 if is_exact else result.high < least
    return NOTHING if is_small else UNRESOLVED


def _read_reduced(
    ledger: Ledger,
    record: SessionRecord,
    repository: Repository,
    chain: Sequence[Experiment],
    changes: Sequence[LeftOut],
) -> Reduced | None:
    without = tuple(change.number for change in changes if change.is_offered)
    if not without or len(without) == len(changes):
        return None
    try:
        commit = _make_variant(repository, record, chain, without)
    except TaskError:
        return None
    metrics = _read_metrics(ledger, record, chain[-1], Role.REDUCED)
    over_best = _compare(record, metrics, commit, chain[-1].commit)
    over_baseline = _compare(record, metrics, commit, record.base_commit)
    return Reduced(without, commit, over_best, over_baseline)


def _read_metrics(
    ledger: Ledger, record: SessionRecord, best: Experiment, role: Role
) -> dict[str, list[float]]:
    """The metrics of each commit's runs in the role, of the latest segment that has any."""
    runs = [
        run
        for run in ledger.runs(record, best.number)
        if run.role is role and run.finished and run.attempt == best.attempt
    ]
    latest = max((run.segment for run in runs), default=0)
    groups: dict[str, list[float]] = {}
    for run in runs:
        if run.segment == latest:
            groups.setdefault(run.commit, []).extend(metrics_of([run]))
    return groups


def _measure_noise(record: SessionRecord, metrics: Mapping[str, Sequence[float]]) -> float:
    return 0.0 if record.deterministic else pooled_noise(list(metrics.values()))[0]


def _compare(
    record: SessionRecord,
    metrics: Mapping[str, Sequence[float]],
    new: str,
    old: str | None,
) -> Comparison | None:
    """Compare two versions; None while one has too few runs."""
    ours, theirs = metrics.get(new, ()), metrics.get(old or "", ())
    if min(len(ours), len(theirs)) < least_runs(record):
        return None
    return compare_metrics(record.metric, ours, theirs)


def ablation_text(ablation: Ablation, record: SessionRecord, run_s: float | None) -> str:
    """The verdict on each change, what the budget could not resolve, and what to do."""
    numbers = Numbers(record.metric, ablation.least)
    lines = [f"experiment {ablation.best}, and without each kept change:"]
    for change in ablation.changes:
        result = change.result
        effect = "" if result is None else f": {numbers.signed(result.gain)}"
        if result is not None and not record.deterministic:
            effect += f" [{numbers.signed(result.low)}, {numbers.signed(result.high)}]"
            effect += f", {result.new_runs} and {result.old_runs} runs"
        lines.append(f"  #{change.number} {change.verdict}{effect}  {change.description}")
        if change.why:
            lines.append(f"      {change.why}")
    lines += _describe_open(ablation, record, numbers, run_s)
    lines += _describe_reduced(ablation, record, numbers)
    return "\n".join(lines)


def _describe_open(
    ablation: Ablation, record: SessionRecord, numbers: Numbers, run_s: float | None
) -> list[str]:
    """What the runs so far could not resolve, and how many would."""
    unresolved = [change for change in ablation.changes if change.verdict == UNRESOLVED]
    waiting = [change for change in ablation.changes if change.verdict == UNMEASURED]
    lines = []
    if waiting:
        names = ", ".join(f"#{change.number}" for change in waiting)
        lines.append(f"Not measured within the budget: {names}. The same command goes on")
    known = [change.result for change in unresolved if change.result is not None]
    if known:
        names = ", ".join(f"#{change.number}" for change in unresolved)
        width = max((result.high - result.low) / 2 for result in known)
        runs = max(result.new_runs for result in known)
        # The interval narrows with the root of the runs: to half of the least gain worth keeping.
        needed = round(runs * max(1.0, 2 * width / ablation.least) ** 2) if ablation.least else 0
        cost = len(ablation.changes) * (needed - runs) * (run_s or 0.0)
        lines.append(
            f"The budget could not resolve {names}: a gain of {numbers.value(ablation.least)} "
            f"would matter, and the intervals reach {numbers.value(width)} either way. They stay. "
            f"About {counted(needed, 'run')} of each would tell"
            + (f" ({duration(cost)} more of running)" if run_s else "")
            + f": autoresearch verify --ablate --runs {needed}"
        )
    return lines


def _describe_reduced(ablation: Ablation, record: SessionRecord, numbers: Numbers) -> list[str]:
    offered = [change.number for change in ablation.changes if change.is_offered]
    if not offered:
        return ["No change is offered for removal"]
    reduced, names = ablation.reduced, ", ".join(f"#{number}" for number in offered)
    without = " ".join(f"--without {number}" for number in offered)
    if reduced is None:
        return [f"{names} would go, but the rest does not fit together, or nothing is left"]
    if reduced.over_best is None or reduced.over_baseline is None:
        return [f"The best without {names} was not measured yet: the same command goes on"]

    def describe(result: Comparison) -> str:
        bounds = f" [{numbers.signed(result.low)}, {numbers.signed(result.high)}]"
        return numbers.gain(result.gain) + ("" if record.deterministic else bounds)

    return [
        f"Without {names}, on fresh runs: {describe(reduced.over_best)} than the best, "
        f"{describe(reduced.over_baseline)} than the baseline",
        f"To take it without them: autoresearch finish {without}",
    ]
