"""Reads the ledger into a `Summary`.

It costs a dozen indexed queries and writes nothing. The queries are not one transaction, so a
session that moves on meanwhile may be seen in the middle of a step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from autoresearch.core.history import SegmentAlignment, noise
from autoresearch.core.judge import LEVELS
from autoresearch.core.limits import FRUITLESS_TURNS
from autoresearch.measure.doom import DOOMED
from autoresearch.records import Experiment, Role, Status
from autoresearch.report.effects import compare_finished, divide, gain_over, score_keeps
from autoresearch.report.summary import (
    AgentShare,
    Doomed,
    Flagged,
    Kept,
    OpenExperiment,
    OpenRun,
    SegmentView,
    Summary,
    derive,
)
from autoresearch.report.verification import check_result, read_verification
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.requests import Requests
from autoresearch.store.rows import Segment, SessionRecord, Share

RECENT = 10  # finished experiments shown
RECENT_KEEPS = 20
TYPICAL_OVER = 20  # runs behind the typical run time


def summarise(
    ledger: Ledger,
    tag: str,
    now: float,
    *,
    agent: str | None = None,
    elapsed_s: float | None = None,
    whole: bool = False,
    open_holdout: bool = False,
) -> Summary:
    """Summarise the session `tag` at Unix time `now`. Raises `LedgerError`.

    A caller that knows the agents' names and the session's working time better than the ledger
    gives them as `agent` and `elapsed_s`. A page needs the `whole` session; a view that is
    refreshed twice a second does not. `open_holdout` is for the report: it opens the sealed holdout
    if the session has stopped or its result was run again.
    """
    session = ledger.session(tag)
    metric = session.metric
    elapsed_s = session.elapsed_s if elapsed_s is None else elapsed_s
    counts = queries.count_verdicts(ledger, session)
    started, finished = ledger.started(session), sum(counts.values())
    segments = ledger.segments(session)
    starts = [segment.after_order for segment in segments]
    sd, df = noise(ledger, session)
    noise_sd = sd if df else None

    kept = ledger.keeps(session)
    known = ledger.scores(session, [keep.commit for keep in kept])
    keeps = score_keeps(kept, known, starts, metric)
    baseline, incumbent = (keeps[0], keeps[-1]) if keeps else (None, None)
    flagged = tuple(derive(Flagged, keep) for keep in kept if keep.flag is not None)
    gain = verification = holdout = machine = doomed = checks = None
    if baseline and incumbent and incumbent is not baseline:
        if incumbent.score is not None:
            score = SegmentAlignment(ledger, session).now(incumbent.score)
            gain = gain_over(metric, score, baseline.score_when_kept)
        verification = read_verification(ledger, session, kept[-1])
    is_over = session.stopped is not None or verification is not None
    is_sealed = not (open_holdout and is_over)
    if keeps and not is_sealed:
        from autoresearch.report.holdout import unseal

        holdout = unseal(ledger, session, kept)
    if len(keeps) > 1:
        checks = check_result(session, gain, verification, flagged, holdout, is_sealed=is_sealed)
    if whole:
        from autoresearch.report.machine import find_trends

        machine = find_trends(queries.list_incumbents_runs(ledger, session), metric)
        doomed = _count_doomed(ledger, session)

    in_flight = ledger.in_flight(session)
    latest = ledger.finished(session, last=None if whole else RECENT)
    fruitless = ledger.fruitless_turns(session)
    experiments_left = session.limits.get("experiments")
    if experiments_left is not None:
        experiments_left = max(0, experiments_left - finished - fruitless // FRUITLESS_TURNS)
    time_left_s = _time_left(session.limits, elapsed_s, now)
    pace_s = elapsed_s / finished if finished and elapsed_s else None
    spent = ledger.spent(session)
    tokens, usd = ledger.costs(session)
    confirmations = queries.count_confirmations(ledger, session)
    false_keep = 0.0 if session.deterministic else LEVELS[session.level].false_keep
    run_times = [run.took_s for run in queries.list_latest_runs(ledger, session, TYPICAL_OVER)]
    turns = queries.list_failed_turns(ledger, session, last=1)
    return derive(
        Summary,
        session,
        task=ledger.path.absolute().parent.parent.name,
        agent=agent or _name_agents(in_flight, latest[-RECENT:]),
        now=now,
        request=str(Requests(SessionPaths(ledger.path.absolute().parent.parent, tag))),
        elapsed_s=elapsed_s,
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
        keeps=keeps if whole else (*keeps[:1], *keeps[1:][-RECENT_KEEPS:]),
        flagged=flagged,
        gain=gain,
        gain_share=divide(gain, abs(baseline.score_when_kept or 0.0) if baseline else None),
        gain_sd=divide(gain, noise_sd),
        noise_sd=noise_sd,
        noise_df=df,
        segments=tuple(_view_segments(segments, kept, keeps)),
        machine=machine,
        doomed=doomed,
        confirmations=confirmations,
        false_keep=false_keep,
        false_keeps_expected=confirmations * false_keep,
        runs=int(spent["runs"]),
        wall_s=spent["wall_s"],
        cpu_s=spent["cpu_s"],
        tokens=tokens,
        usd=usd,
        tokens_per_experiment=divide(tokens or None, started),
        usd_per_experiment=divide(usd or None, started),
        tokens_per_keep=divide(tokens or None, counts[Status.KEEP]),
        usd_per_keep=divide(usd or None, counts[Status.KEEP]),
        agents=tuple(_share_out(queries.list_shares(ledger, session), keeps)),
        typical_run_s=median(run_times) if run_times else None,
        open_experiments=tuple(
            _describe_open(ledger, session, experiment, now) for experiment in in_flight
        ),
        open_runs=tuple(
            derive(OpenRun, run, age_s=max(0.0, now - run.started_at))
            for run in ledger.open_runs(session)
        ),
        recent=compare_finished(latest, keeps, starts, metric, noise_sd),
        fruitless_latest=f"{turns[0][2]}: {turns[0][3]}" if turns else None,
        verification=verification,
        holdout=holdout,
        checks=checks,
    )


def _view_segments(
    segments: Sequence[Segment], kept: Sequence[Experiment], keeps: Sequence[Kept]
) -> Iterator[SegmentView]:
    orders = [keep.order or 0 for keep in kept]
    for segment in segments:
        earlier = keeps[: bisect_right(orders, segment.after_order)]
        best = earlier[-1] if earlier else None
        yield derive(
            SegmentView,
            segment,
            incumbent=best.number if best else None,
            score=best.scores.get(segment.number) if best else None,
        )


def _time_left(limits: Mapping[str, Any], elapsed_s: float, now: float) -> float | None:
    """Seconds until the first limit on time; None without one."""
    left = []
    if (hours := limits.get("hours")) is not None:
        left.append(hours * 3600 - elapsed_s)
    if (deadline := limits.get("deadline")) is not None:
        left.append(deadline - now)
    return max(0.0, min(left)) if left else None


def _estimate_end(
    experiments_left: int | None, pace_s: float | None, time_left_s: float | None
) -> float | None:
    """Seconds until the first limit is reached, at this pace; None without a limit."""
    ends = [] if time_left_s is None else [time_left_s]
    if experiments_left is not None and pace_s is not None:
        ends.append(experiments_left * pace_s)
    return min(ends, default=None)


def _share_out(shares: Sequence[Share], keeps: Sequence[Kept]) -> Iterator[AgentShare]:
    """The share of each agent, its gains added up over all keeps. Empty for a single agent without
    known costs."""
    if len(shares) < 2 and not any(share.tokens or share.usd for share in shares):
        return
    for share in shares:
        gain = sum(keep.gain or 0.0 for keep in keeps if keep.agent == share.agent)
        yield derive(
            AgentShare,
            share,
            name=share.agent,
            gain=gain,
            gain_per_experiment=divide(gain, share.experiments),
            gain_per_usd=divide(gain, share.usd),
        )


def _name_agents(in_flight: Sequence[Experiment], latest: Sequence[Experiment]) -> str:
    experiments = (*in_flight, *reversed(latest))
    return ", ".join(dict.fromkeys(row.agent for row in experiments if row.number))


def _count_doomed(ledger: Ledger, session: SessionRecord) -> Doomed | None:
    """None if no run was doomed."""
    runs = queries.list_doomed(ledger, session, DOOMED)
    audited = [run for run in runs if not (run[0] or "").startswith(DOOMED)]
    better = session.metric.better
    wrong = sum(
        metric is not None and incumbent is not None and better(metric, incumbent)
        for _, metric, incumbent in audited
    )
    return Doomed(len(runs) - len(audited), len(audited), wrong) if runs else None


def _describe_open(
    ledger: Ledger, session: SessionRecord, experiment: Experiment, now: float
) -> OpenExperiment:
    done = [
        run
        for run in ledger.runs(session, experiment.number)
        if run.finished and run.attempt == experiment.attempt
    ]
    return derive(
        OpenExperiment,
        experiment,
        age_s=max(0.0, now - experiment.started_at),
        runs_done=len(done),
        confirming=sum(run.role in (Role.CANDIDATE, Role.CONTROL) for run in done),
    )
