"""A session at one moment, as one value. Every view is drawn from it, and `--json` prints it.

Reading one costs a dozen indexed queries; it writes nothing. The statements are not one
transaction, so a session that moves on meanwhile may be seen in the middle of a step.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from autoresearch.core.history import SegmentAlignment, latest_noise
from autoresearch.core.judge import LEVELS, SCORE_RUNS
from autoresearch.core.limits import FRUITLESS_TURNS
from autoresearch.core.statistics import pooled_noise
from autoresearch.formatting import Numbers
from autoresearch.records import Experiment, Metric, Role, Run, Status
from autoresearch.report.holdout import Holdout, interval, unsealed
from autoresearch.report.machine import Machine, machine
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import Segment, SessionRecord, Share, segment_of

RECENT = 10  # finished experiments shown
TYPICAL_OVER = 20  # runs behind the typical run time
NOISE_KEEPS = 20  # latest keeps, beside the baseline, whose runs tell the noise
CONFIRMING = (Role.CANDIDATE, Role.CONTROL)


@dataclass(frozen=True, slots=True)
class Kept:
    """The baseline, or an experiment that became the incumbent."""

    number: int
    commit: str
    agent: str
    description: str
    score: float | None  # mean of its last SCORE_RUNS unselected runs, of the latest segment
    runs: int  # behind `score`
    sd: float | None  # of all its unselected runs; None below two
    gain: float | None  # over the one it was built on, in metric units; None for the baseline
    segment: int = 0  # in which it was kept, and `gain` holds
    scores: Mapping[int, float] = dataclasses.field(default_factory=dict)  # by segment

    @property
    def kept_at(self) -> float | None:
        """Its score in the segment in which it was kept."""
        return self.scores.get(self.segment, self.score)


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A segment: what is of one can be compared."""

    number: int
    at: float  # Unix time
    after_order: int
    reason: str
    incumbent: int | None  # at its beginning; None before the baseline
    score: float | None  # that one's, in it


@dataclass(frozen=True, slots=True)
class Flagged:
    """A keep that is too good for the session's history."""

    number: int
    commit: str
    description: str
    flag: str  # why, for people


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished experiment, beside the incumbent it was held against."""

    number: int
    commit: str
    agent: str
    description: str
    status: Status
    reason: str | None
    detail: str
    metric: float | None
    gain: float | None  # over the incumbent it was held against, in metric units
    gain_sd: float | None  # the same in standard deviations of one run
    flag: str | None = None  # why a keep is to be looked at first


@dataclass(frozen=True, slots=True)
class OpenRun:
    experiment: int
    role: Role
    index: int
    age_s: float


@dataclass(frozen=True, slots=True)
class OpenExperiment:
    number: int
    base: int
    commit: str
    agent: str
    description: str
    attempt: int
    age_s: float
    runs_done: int  # of this attempt
    confirming: int  # how many of them belong to its separation


@dataclass(frozen=True, slots=True)
class Verification:
    """The best commit and the baseline, run again side by side on fresh seeds at the end."""

    number: int
    new_runs: int
    old_runs: int
    crashed: int
    new_mean: float
    old_mean: float
    new_sd: float | None
    old_sd: float | None
    gain: float
    low: float  # of the 95 % interval
    high: float
    drift: float | None  # of the baseline, its second mean against its first: > 0 is better now
    drift_low: float | None
    drift_high: float | None


@dataclass(frozen=True, slots=True)
class AgentShare:
    """What one agent did, earned and cost."""

    name: str
    experiments: int  # begun
    keeps: int
    other_turns: int  # turns that became no experiment
    gain: float  # sum of its keeps' gains, each over the one it was built on, in metric units
    gain_per_experiment: float | None
    tokens: int | None  # None: it never said
    usd: float | None
    gain_per_usd: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    task: str
    agent: str
    tag: str
    now: float
    metric: Metric
    level: str
    base_commit: str
    created_at: float
    elapsed_s: float
    deterministic: bool | None
    budget_s: float | None
    budget_clock: str
    stopped: str | None
    warnings: tuple[str, ...]
    limits: Mapping[str, Any]

    started: int
    finished: int
    keep: int
    discard: int
    crash: int
    fruitless: int
    since_keep: int
    experiments_left: int | None
    time_left_s: float | None  # until a limit on time is reached
    pace_s: float | None  # of one experiment so far
    end_in_s: float | None  # when the first of all limits is reached, at this pace

    baseline: Kept | None
    incumbent: Kept | None  # the baseline itself as long as nothing was kept
    keeps: tuple[Kept, ...]  # the baseline, then the latest or all, oldest first
    flagged: tuple[Flagged, ...]  # of all keeps, oldest first
    gain: float | None  # of the incumbent over the baseline; None as long as nothing was kept
    gain_share: float | None  # of the baseline's score
    gain_sd: float | None
    noise_sd: float | None  # of one run; None while it is not known
    noise_df: int

    segments: tuple[SegmentView, ...]
    machine: Machine | None  # only with `all_keeps`

    confirmations: int
    false_keep: float  # P(keep) of a change that does nothing, per confirmation
    false_keeps_expected: float

    runs: int
    wall_s: float
    cpu_s: float
    tokens: int
    usd: float
    tokens_per_experiment: float | None  # of those begun; None while no costs are known
    usd_per_experiment: float | None
    tokens_per_keep: float | None
    usd_per_keep: float | None
    agents: tuple[AgentShare, ...]  # empty for a single agent without known costs
    typical_run_s: float | None

    open_experiments: tuple[OpenExperiment, ...]
    open_runs: tuple[OpenRun, ...]
    recent: tuple[Finished, ...]  # oldest first
    fruitless_latest: str | None
    verification: Verification | None
    holdout: Holdout | None  # None while it is sealed: everywhere but in the report

    @property
    def numbers(self) -> Numbers:
        return Numbers(self.metric, self.noise_sd)


def summarise(
    ledger: Ledger,
    tag: str,
    now: float,
    *,
    task: str | None = None,
    agent: str | None = None,
    elapsed_s: float | None = None,
    all_keeps: bool = False,
    open_holdout: bool = False,
) -> Summary:
    """The session `tag` at Unix time `now`. `task` and `agent` are names for people, guessed when
    left out; `elapsed_s` is the session's working time where the caller knows it better than the
    ledger does. `keeps` holds the latest NOISE_KEEPS unless `all_keeps`, which a page wants and a
    view refreshed twice a second does not. `open_holdout` is for the report: the sealed holdout is
    opened when the session has stopped or its result was measured again. Raises `LedgerError`."""
    session = ledger.session(tag)
    elapsed_s = session.elapsed_s if elapsed_s is None else elapsed_s
    counts = ledger.counts(session)
    kept = ledger.keeps(session)
    latest_kept = _latest(kept)
    told = kept if all_keeps else latest_kept
    begun = ledger.segments(session)
    starts = [one.after_order for one in begun]
    known = ledger.scores(session, [one.commit for one in told])
    keeps = _keeps(told, known, starts, session.metric)
    baseline, incumbent = (keeps[0], keeps[-1]) if keeps else (None, None)
    sd, df = _noise(latest_kept, known)
    noise_sd = sd if df else None
    in_flight = ledger.in_flight(session)
    latest = ledger.finished(session, last=RECENT)
    finished = sum(counts.values())
    started = ledger.started(session)
    confirmations = ledger.confirmations(session)
    false_keep = 0.0 if session.deterministic else LEVELS[session.level].false_keep
    gain = _gain(session.metric, incumbent, baseline, SegmentAlignment(ledger, session))
    spent = ledger.spent(session)
    fruitless = ledger.fruitless_turns(session)
    tokens, usd = ledger.costs(session)
    experiments_left = _left(
        session.limits.get("experiments"), finished + fruitless // FRUITLESS_TURNS
    )
    time_left_s = _time_left(session.limits, elapsed_s, now)
    pace_s = elapsed_s / finished if finished and elapsed_s else None
    turns = ledger.turns(session, last=1)
    verification = _verification(ledger, session, incumbent)
    over = session.stopped is not None or verification is not None
    return Summary(
        task=task or ledger.path.absolute().parent.parent.name,
        agent=agent or _agents(in_flight, latest),
        tag=tag,
        now=now,
        metric=session.metric,
        level=session.level,
        base_commit=session.base_commit,
        created_at=session.created_at,
        elapsed_s=elapsed_s,
        deterministic=session.deterministic,
        budget_s=session.budget_s,
        budget_clock=session.budget_clock,
        stopped=session.stopped,
        warnings=session.warnings,
        limits=session.limits,
        started=started,
        finished=finished,
        keep=counts[Status.KEEP],
        discard=counts[Status.DISCARD],
        crash=counts[Status.CRASH],
        fruitless=fruitless,
        since_keep=ledger.since_keep(session),
        experiments_left=experiments_left,
        time_left_s=time_left_s,
        pace_s=pace_s,
        end_in_s=_end_in(experiments_left, pace_s, time_left_s),
        baseline=baseline,
        incumbent=incumbent,
        keeps=keeps,
        flagged=tuple(
            Flagged(one.number, one.commit, one.description, one.flag)
            for one in kept
            if one.flag is not None
        ),
        gain=gain,
        gain_share=_share(gain, baseline),
        gain_sd=_in_sd(gain, noise_sd),
        noise_sd=noise_sd,
        noise_df=df,
        segments=tuple(_stretches(ledger, session, begun, kept)),
        machine=machine(ledger.incumbents_runs(session), session.metric) if all_keeps else None,
        confirmations=confirmations,
        false_keep=false_keep,
        false_keeps_expected=confirmations * false_keep,
        runs=int(spent["runs"]),
        wall_s=spent["wall_s"],
        cpu_s=spent["cpu_s"],
        tokens=tokens,
        usd=usd,
        tokens_per_experiment=_each(tokens, started),
        usd_per_experiment=_each(usd, started),
        tokens_per_keep=_each(tokens, counts[Status.KEEP]),
        usd_per_keep=_each(usd, counts[Status.KEEP]),
        agents=_shares(ledger, session, kept, keeps, starts),
        typical_run_s=_typical(ledger.latest_runs(session, TYPICAL_OVER)),
        open_experiments=tuple(_open(ledger, session, one, now) for one in in_flight),
        open_runs=tuple(
            OpenRun(run.experiment, run.role, run.index, max(0.0, now - run.started_at))
            for run in ledger.open_runs(session)
        ),
        recent=tuple(held_against(latest, keeps, session.metric, noise_sd, starts)),
        fruitless_latest=f"{turns[0][2]}: {turns[0][3]}" if turns else None,
        verification=verification,
        holdout=unsealed(ledger, session, told) if open_holdout and over and told else None,
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """Plain dictionaries, lists, strings and finite numbers, ready for `json.dumps`."""
    plain = _plain(dataclasses.asdict(summary))
    assert isinstance(plain, dict)
    return plain


def held_against(
    experiments: Sequence[Experiment],
    keeps: Sequence[Kept],
    metric: Metric,
    sd: float | None,
    starts: Sequence[int] = (),
) -> list[Finished]:
    """Finished experiments with their gain over the incumbent each was held against, measured by
    that incumbent's unselected runs in the same segment (`starts`: see `segment_of`). The baseline,
    a crash and a missing metric have none."""
    bases = {one.number: one for one in keeps}
    rows = []
    for one in experiments:
        base = None
        if one.number and (incumbent := bases.get(one.base)):
            base = _score_in(incumbent, segment_of(starts, one.order or 0))
        measured = one.status is not Status.CRASH
        gain = _difference(metric, one.metric if measured else None, base)
        rows.append(
            Finished(
                number=one.number,
                commit=one.commit,
                agent=one.agent,
                description=one.description,
                status=one.status or Status.CRASH,
                reason=one.reason,
                detail=one.detail,
                metric=one.metric,
                gain=gain,
                gain_sd=_in_sd(gain, sd),
                flag=one.flag,
            )
        )
    return rows


def _keeps(
    experiments: Sequence[Experiment],
    known: Mapping[tuple[str, int], Sequence[float]],
    starts: Sequence[int],
    metric: Metric,
) -> tuple[Kept, ...]:
    runs: dict[str, dict[int, Sequence[float]]] = defaultdict(dict)
    for (commit, segment), values in known.items():
        runs[commit][segment] = values
    keeps: dict[int, Kept] = {}
    for one in experiments:
        mine, segment = runs[one.commit], segment_of(starts, one.order or 0)
        last = mine[max(mine)][-SCORE_RUNS:] if mine else ()
        # Between the verdict and the new measurements, the row's own metric is all there is.
        score = fmean(last) if last else one.metric
        sd, df = pooled_noise(list(mine.values()))
        kept = Kept(
            number=one.number,
            commit=one.commit,
            agent=one.agent,
            description=one.description,
            score=score,
            runs=len(last),
            sd=sd if df else None,
            gain=None,
            segment=segment,
            scores={where: fmean(values[-SCORE_RUNS:]) for where, values in mine.items()},
        )
        base = keeps.get(one.base)
        gain = _difference(metric, kept.kept_at, _score_in(base, segment) if base else None)
        keeps[one.number] = dataclasses.replace(kept, gain=gain)
    return tuple(keeps.values())


def _score_in(kept: Kept, segment: int) -> float | None:
    """What it scored in that segment; None when it was not measured in it."""
    if not kept.scores and kept.segment == segment:
        return kept.score
    return kept.scores.get(segment)


def _stretches(
    ledger: Ledger, session: SessionRecord, begun: Sequence[Segment], kept: Sequence[Experiment]
) -> Iterator[SegmentView]:
    for one in begun:
        earlier = [keep for keep in kept if (keep.order or 0) <= one.after_order]
        best = earlier[-1] if earlier else None
        runs = ledger.scores(session, [best.commit]).get((best.commit, one.number)) if best else ()
        yield SegmentView(
            number=one.number,
            at=one.at,
            after_order=one.after_order,
            reason=one.reason,
            incumbent=best.number if best else None,
            score=fmean(runs[-SCORE_RUNS:]) if runs else None,
        )


def _latest(keeps: Sequence[Experiment]) -> list[Experiment]:
    """The baseline and the latest keeps: enough to know the noise, at the same cost all night."""
    return [*keeps[:1], *keeps[1:][-NOISE_KEEPS:]]


def _noise(
    keeps: Sequence[Experiment], known: Mapping[tuple[str, int], Sequence[float]]
) -> tuple[float, int]:
    commits = {one.commit for one in keeps}
    return latest_noise({key: runs for key, runs in known.items() if key[0] in commits})


def _gain(
    metric: Metric, incumbent: Kept | None, baseline: Kept | None, scale: SegmentAlignment
) -> float | None:
    """Of the incumbent over the baseline: that of each segment, added up. None as long as nothing
    was kept."""
    if incumbent is None or baseline is None or incumbent is baseline or incumbent.score is None:
        return None
    return _difference(metric, scale.now(incumbent.score), baseline.kept_at)


def _difference(metric: Metric, new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else metric.gain(new, old)


def _in_sd(gain: float | None, sd: float | None) -> float | None:
    return gain / sd if gain is not None and sd else None


def _share(gain: float | None, baseline: Kept | None) -> float | None:
    if gain is None or baseline is None or not baseline.kept_at:
        return None
    return gain / abs(baseline.kept_at)


def _left(limit: int | None, done: int) -> int | None:
    return None if limit is None else max(0, limit - done)


def _time_left(limits: Mapping[str, Any], elapsed_s: float, now: float) -> float | None:
    left: list[float] = []
    if (hours := limits.get("hours")) is not None:
        left.append(hours * 3600 - elapsed_s)
    if (deadline := limits.get("deadline")) is not None:
        left.append(deadline - now)
    elif (until := limits.get("until")) is not None:
        left.append(_seconds_until(until, now))
    return max(0.0, min(left)) if left else None


def _seconds_until(until: str | datetime.time, now: float) -> float:
    """Until the next time the local clock shows `until`."""
    at = datetime.time.fromisoformat(until) if isinstance(until, str) else until
    here = datetime.datetime.fromtimestamp(now)
    there = datetime.datetime.combine(here.date(), at)
    if there <= here:
        there += datetime.timedelta(days=1)
    return there.timestamp() - now


def _end_in(left: int | None, pace_s: float | None, time_left_s: float | None) -> float | None:
    ends = [] if time_left_s is None else [time_left_s]
    if left is not None and pace_s is not None:
        ends.append(left * pace_s)
    return min(ends) if ends else None


def _each(total: float, count: int) -> float | None:
    return total / count if total and count else None


def _shares(
    ledger: Ledger,
    session: SessionRecord,
    kept: Sequence[Experiment],
    told: Sequence[Kept],
    starts: Sequence[int],
) -> tuple[AgentShare, ...]:
    shares = ledger.shares(session)
    if len(shares) < 2 and not any(one.tokens or one.usd for one in shares):
        return ()
    if len(told) < len(kept):
        known = ledger.scores(session, [one.commit for one in kept])
        told = _keeps(kept, known, starts, session.metric)
    gains: dict[str, float] = defaultdict(float)
    for one in told:
        gains[one.agent] += one.gain or 0.0
    return tuple(_share_of(one, gains[one.agent]) for one in shares)


def _share_of(share: Share, gain: float) -> AgentShare:
    return AgentShare(
        name=share.agent,
        experiments=share.experiments,
        keeps=share.keeps,
        other_turns=share.other_turns,
        gain=gain,
        gain_per_experiment=gain / share.experiments if share.experiments else None,
        tokens=share.tokens,
        usd=share.usd,
        gain_per_usd=gain / share.usd if share.usd else None,
    )


def _agents(in_flight: Sequence[Experiment], latest: Sequence[Experiment]) -> str:
    names = dict.fromkeys(one.agent for one in (*in_flight, *reversed(latest)) if one.number)
    return ", ".join(names)


def _typical(runs: Sequence[Run]) -> float | None:
    rules = [run.took_s for run in runs if run.wall_s is not None]
    return median(rules) if rules else None


def _open(ledger: Ledger, session: SessionRecord, one: Experiment, now: float) -> OpenExperiment:
    done = [
        run
        for run in ledger.runs(session, one.number)
        if run.finished and run.attempt == one.attempt
    ]
    return OpenExperiment(
        number=one.number,
        base=one.base,
        commit=one.commit,
        agent=one.agent,
        description=one.description,
        attempt=one.attempt,
        age_s=max(0.0, now - one.started_at),
        runs_done=len(done),
        confirming=sum(run.role in CONFIRMING for run in done),
    )


def _verification(
    ledger: Ledger, session: SessionRecord, incumbent: Kept | None
) -> Verification | None:
    """None unless both sides were run often enough to compare: twice, or once where every run of
    the same code gives the same number."""
    if incumbent is None or incumbent.number == 0:
        return None
    new_runs = ledger.runs_of(session, incumbent.commit, (Role.VERIFY,))
    segment = max((run.segment for run in new_runs), default=0)
    new_runs = [run for run in new_runs if run.segment == segment]
    # The baseline may have been held against an earlier best as well, on another day's machine.
    old_runs = [
        run
        for run in ledger.runs_of(session, session.base_commit, (Role.VERIFY_BASELINE,))
        if run.experiment == incumbent.number and run.segment == segment
    ]
    new, old = _metrics(new_runs), _metrics(old_runs)
    enough = 1 if session.deterministic else 2
    if min(len(new), len(old)) < enough:
        return None
    baseline = ledger.runs_of(session, session.base_commit, (Role.BASELINE,))
    first = _metrics([run for run in baseline if run.segment == segment])
    gain, low, high = interval(session.metric, new, old)
    drift = interval(session.metric, old, first) if len(first) >= enough else (None, None, None)
    return Verification(
        number=incumbent.number,
        new_runs=len(new),
        old_runs=len(old),
        crashed=len(new_runs) + len(old_runs) - len(new) - len(old),
        new_mean=fmean(new),
        old_mean=fmean(old),
        new_sd=pooled_noise([new])[0] if len(new) > 1 else None,
        old_sd=pooled_noise([old])[0] if len(old) > 1 else None,
        gain=gain,
        low=low,
        high=high,
        drift=drift[0],
        drift_low=drift[1],
        drift_high=drift[2],
    )


def _metrics(runs: Sequence[Run]) -> list[float]:
    return [run.metric for run in runs if run.metric is not None]


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str(value)
    return value if value is None or isinstance(value, (bool, int)) else _text(value)


def _text(value: object) -> str:
    if isinstance(value, (datetime.time, Path)):
        return str(value)
    raise TypeError(f"a summary holds no {type(value).__name__}")
