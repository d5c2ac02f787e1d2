"""Reads the ledger into a `Summary`.

It costs a dozen indexed queries and writes nothing. The queries are not one transaction, so a
session that moves on meanwhile may be seen in the middle of a step.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from autoresearch.core.history import NOISE_KEEPS, SegmentAlignment, noise
from autoresearch.core.judge import LEVELS, SCORE_RUNS
from autoresearch.core.limits import FRUITLESS_TURNS
from autoresearch.records import Experiment, Role, Run, Status
from autoresearch.report.effects import compare_finished, divide, gain_over, score_keeps
from autoresearch.report.holdout import unseal
from autoresearch.report.machine import find_trends
from autoresearch.report.summary import (
    AgentShare,
    Flagged,
    Kept,
    OpenExperiment,
    OpenRun,
    SegmentView,
    Summary,
)
from autoresearch.report.verification import read_verification
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import Segment, SessionRecord
from autoresearch.task.model import seconds_until

RECENT = 10  # finished experiments shown
TYPICAL_OVER = 20  # runs behind the typical run time


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
    """Summarise the session `tag` at Unix time `now`. Raises `LedgerError`.

    `task` and `agent` are names for people, guessed when left out. `elapsed_s` is the session's
    working time, where the caller knows it better than the ledger. `keeps` holds the latest keeps
    only, unless `all_keeps`: a page wants all, a view refreshed twice a second does not.
    `open_holdout` is for the report: it opens the sealed holdout if the session has stopped or its
    result was verified.
    """
    session = ledger.session(tag)
    elapsed_s = session.elapsed_s if elapsed_s is None else elapsed_s
    counts = queries.count_verdicts(ledger, session)
    kept = ledger.keeps(session)
    shown = kept if all_keeps else [*kept[:1], *kept[1:][-NOISE_KEEPS:]]
    segments = ledger.segments(session)
    starts = [segment.after_order for segment in segments]
    known = ledger.scores(session, [keep.commit for keep in shown])
    keeps = score_keeps(shown, known, starts, session.metric)
    baseline, incumbent = (keeps[0], keeps[-1]) if keeps else (None, None)
    sd, df = noise(ledger, session)
    noise_sd = sd if df else None
    in_flight = ledger.in_flight(session)
    latest = ledger.finished(session, last=RECENT)
    finished = sum(counts.values())
    started = ledger.started(session)
    confirmations = queries.count_confirmations(ledger, session)
    false_keep = 0.0 if session.deterministic else LEVELS[session.level].false_keep
    gain = None
    if incumbent and baseline and incumbent is not baseline and incumbent.score is not None:
        scale = SegmentAlignment(ledger, session)
        gain = gain_over(session.metric, scale.now(incumbent.score), baseline.kept_at)
    spent = ledger.spent(session)
    fruitless = ledger.fruitless_turns(session)
    tokens, usd = ledger.costs(session)
    experiments_left = session.limits.get("experiments")
    if experiments_left is not None:
        done = finished + fruitless // FRUITLESS_TURNS
        experiments_left = max(0, experiments_left - done)
    time_left_s = _time_left(session.limits, elapsed_s, now)
    pace_s = elapsed_s / finished if finished and elapsed_s else None
    turns = queries.list_failed_turns(ledger, session, last=1)
    verification = None
    if incumbent is not None and incumbent.number:
        verification = read_verification(ledger, session, incumbent.number, incumbent.commit)
    over = session.stopped is not None or verification is not None
    return Summary(
        task=task or ledger.path.absolute().parent.parent.name,
        agent=agent or _name_agents(in_flight, latest),
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
        end_in_s=_estimate_end(experiments_left, pace_s, time_left_s),
        baseline=baseline,
        incumbent=incumbent,
        keeps=keeps,
        flagged=tuple(
            Flagged(keep.number, keep.commit, keep.description, keep.flag)
            for keep in kept
            if keep.flag is not None
        ),
        gain=gain,
        gain_share=divide(gain, abs(baseline.kept_at or 0.0) if baseline else None),
        gain_sd=divide(gain, noise_sd),
        noise_sd=noise_sd,
        noise_df=df,
        segments=tuple(_view_segments(ledger, session, segments, kept)),
        machine=find_trends(queries.list_incumbents_runs(ledger, session), session.metric)
        if all_keeps
        else None,
        confirmations=confirmations,
        false_keep=false_keep,
        false_keeps_expected=confirmations * false_keep,
        runs=int(spent["runs"]),
        wall_s=spent["wall_s"],
        cpu_s=spent["cpu_s"],
        tokens=tokens,
        usd=usd,
        tokens_per_experiment=_per(tokens, started),
        usd_per_experiment=_per(usd, started),
        tokens_per_keep=_per(tokens, counts[Status.KEEP]),
        usd_per_keep=_per(usd, counts[Status.KEEP]),
        agents=_share_out(ledger, session, kept, keeps, starts),
        typical_run_s=_find_typical_s(queries.list_latest_runs(ledger, session, TYPICAL_OVER)),
        open_experiments=tuple(
            _describe_open(ledger, session, experiment, now) for experiment in in_flight
        ),
        open_runs=tuple(
            OpenRun(run.experiment, run.role, run.index, max(0.0, now - run.started_at))
            for run in ledger.open_runs(session)
        ),
        recent=tuple(compare_finished(latest, keeps, session.metric, noise_sd, starts)),
        fruitless_latest=f"{turns[0][2]}: {turns[0][3]}" if turns else None,
        verification=verification,
        holdout=unseal(ledger, session, shown) if open_holdout and over and shown else None,
    )


def _view_segments(
    ledger: Ledger, session: SessionRecord, segments: Sequence[Segment], kept: Sequence[Experiment]
) -> Iterator[SegmentView]:
    for segment in segments:
        earlier = [keep for keep in kept if (keep.order or 0) <= segment.after_order]
        best = earlier[-1] if earlier else None
        known = ledger.scores(session, [best.commit]) if best else {}
        runs = known.get((best.commit, segment.number)) if best else None
        yield SegmentView(
            number=segment.number,
            at=segment.at,
            after_order=segment.after_order,
            reason=segment.reason,
            incumbent=best.number if best else None,
            score=fmean(runs[-SCORE_RUNS:]) if runs else None,
        )


def _time_left(limits: Mapping[str, Any], elapsed_s: float, now: float) -> float | None:
    """Seconds until the first limit on time; None without one."""
    left: list[float] = []
    if (hours := limits.get("hours")) is not None:
        left.append(hours * 3600 - elapsed_s)
    if (deadline := limits.get("deadline")) is not None:
        left.append(deadline - now)
    elif (until := limits.get("until")) is not None:
        at = datetime.time.fromisoformat(until) if isinstance(until, str) else until
        left.append(seconds_until(at, datetime.datetime.fromtimestamp(now)))
    return max(0.0, min(left)) if left else None


def _estimate_end(
    experiments_left: int | None, pace_s: float | None, time_left_s: float | None
) -> float | None:
    """Seconds until the first limit is reached, at this pace; None without a limit."""
    ends = [] if time_left_s is None else [time_left_s]
    if experiments_left is not None and pace_s is not None:
        ends.append(experiments_left * pace_s)
    return min(ends, default=None)


def _per(total: float, count: int) -> float | None:
    return total / count if total and count else None


def _share_out(
    ledger: Ledger,
    session: SessionRecord,
    kept: Sequence[Experiment],
    shown: Sequence[Kept],
    starts: Sequence[int],
) -> tuple[AgentShare, ...]:
    """The share of each agent, its gains added up over all keeps. Empty for a single agent without
    known costs."""
    shares = queries.list_shares(ledger, session)
    if len(shares) < 2 and not any(share.tokens or share.usd for share in shares):
        return ()
    if len(shown) < len(kept):
        known = ledger.scores(session, [keep.commit for keep in kept])
        shown = score_keeps(kept, known, starts, session.metric)
    gains: dict[str, float] = defaultdict(float)
    for keep in shown:
        gains[keep.agent] += keep.gain or 0.0
    return tuple(
        AgentShare(
            name=share.agent,
            experiments=share.experiments,
            keeps=share.keeps,
            other_turns=share.other_turns,
            gain=gains[share.agent],
            gain_per_experiment=divide(gains[share.agent], share.experiments),
            tokens=share.tokens,
            usd=share.usd,
            gain_per_usd=divide(gains[share.agent], share.usd),
        )
        for share in shares
    )


def _name_agents(in_flight: Sequence[Experiment], latest: Sequence[Experiment]) -> str:
    experiments = (*in_flight, *reversed(latest))
    return ", ".join(dict.fromkeys(row.agent for row in experiments if row.number))


def _find_typical_s(runs: Sequence[Run]) -> float | None:
    """The median wall time of runs; None without any."""
    times = [run.took_s for run in runs if run.wall_s is not None]
    return median(times) if times else None


def _describe_open(
    ledger: Ledger, session: SessionRecord, experiment: Experiment, now: float
) -> OpenExperiment:
    done = [
        run
        for run in ledger.runs(session, experiment.number)
        if run.finished and run.attempt == experiment.attempt
    ]
    return OpenExperiment(
        number=experiment.number,
        base=experiment.base,
        commit=experiment.commit,
        agent=experiment.agent,
        description=experiment.description,
        attempt=experiment.attempt,
        age_s=max(0.0, now - experiment.started_at),
        runs_done=len(done),
        confirming=sum(run.role in (Role.CANDIDATE, Role.CONTROL) for run in done),
    )
