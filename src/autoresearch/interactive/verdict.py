"""What an agent in a terminal is told: the verdict on a try, or the number of a scratch run. The
latest report stays in `try.json`, for an agent that did not wait for it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from autoresearch.files import replace_file
from autoresearch.formatting import counted, duration, tell_apart
from autoresearch.store import values
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord

AGENT_VARIABLE = "AUTORESEARCH_IS_FOR_AGENT"
"""Set for commands whose output goes to an agent: it is not told what a scorer prints."""
WITHHELD = "(the scorer's own message is withheld: this task has hidden files)"


@dataclass(frozen=True, slots=True)
class TrialReport:
    """The report on a try, or on a scratch run. `status` is an experiment's, or "scratch", or
    "refused" (nothing ran; the folder is as it was), "running", "interrupted", "limit" (it was not
    begun) or "lost" (a scratch run that was cut off)."""

    status: str
    description: str = ""
    experiment: int | None = None
    reason: str | None = None
    detail: str = ""
    metric: float | None = None
    flag: str | None = None  # why a person should look at this keep
    incumbent: int | None = None  # the experiment whose files the folder holds now
    score: float | None = None  # the incumbent's
    output: tuple[str, ...] = ()  # the last lines that a crashed run printed
    limit: str | None = None  # that is reached now: there is nothing more to try
    edited: bool = False  # the folder was edited meanwhile, and was left as it is
    gain: float | None = None  # over the score of the incumbent of its time, in metric units
    base: int | None = None  # that incumbent
    wall_s: float | None = None  # of the latest run of the change, like the two below
    cpu_s: float | None = None
    files: tuple[str, ...] = ()  # that it left
    advice: str = ""  # what to do next
    scratch: int | None = None  # the number of a scratch run; the two below are of one
    sd: float | None = None  # of one run, in metric units
    left: int | None = None  # scratch runs
    pid: int | None = None  # of the process that wrote this report

    def save(self, paths: SessionPaths) -> None:
        facts = asdict(replace(self, pid=os.getpid()))
        replace_file(paths.latest_try, json.dumps(facts).encode())


def read_latest(paths: SessionPaths) -> TrialReport | None:
    """The report on the latest try. None if there was no try, or its report is damaged."""
    return values.read(paths.latest_try, TrialReport)


def text(report: TrialReport, record: SessionRecord) -> str:
    """Describe the report for people and for agents."""
    if report.scratch is not None or report.status == "lost":
        return _describe_scratch(report, record)
    name = record.metric.name
    number = "" if report.experiment is None else f" experiment {report.experiment}"
    numbers = tell_apart(report.metric or 0.0, report.score or 0.0)
    metric = "" if report.metric is None else f", {name} {numbers[0]}"
    reason = f" ({report.reason})" if report.reason else ""
    lines = [f"{report.status}{number}{reason}{metric}: {report.description}"]
    if report.detail:
        lines.append(report.detail)
    if report.gain is not None:
        lines.append(f"{report.gain:+.6g} against experiment {report.base} (more is better)")
    lines += _describe_usage(report)
    if report.flag:
        lines.append(f"flagged: {report.flag}")
    if report.output:
        lines += ["the end of its output:", *(f"    | {line}" for line in report.output)]
    if report.score is not None:
        incumbent = f"experiment {report.incumbent}, {name} {numbers[1]}"
        if report.edited:
            lines.append(
                f"the incumbent is {incumbent}; the folder was edited meanwhile and left as it "
                "is: your next try is what was edited since"
            )
        elif report.status not in ("refused", "interrupted"):
            lines.append(f"the folder holds the incumbent, {incumbent}")
    if report.reason == "conflict":
        lines.append(
            "way out: `git checkout .` in the folder and edit again, or save your edit, remove the "
            "folder, and let `autoresearch start` make it again with the incumbent's files"
        )
    if report.status == "refused" and report.left is None:
        lines.append(
            "that was no experiment, but ten such turns count as one; the folder is as you left "
            "it: mend it and try again"
        )
    if report.advice:
        lines.append(report.advice)
    if report.limit:
        lines.append(f"{report.limit}: stop here. `autoresearch report` shows the result")
    return "\n".join(lines)


def _describe_scratch(report: TrialReport, record: SessionRecord) -> str:
    if report.status == "lost":
        return "the scratch run was cut off, and is on no record: `autoresearch scratch` again"
    name, heading = record.metric.name, f"scratch {report.scratch}"
    if report.status == "running":
        return f"{heading} is running: {report.description}"
    numbers = tell_apart(report.metric or 0.0, report.score or 0.0)
    reason = f" ({report.reason})" if report.reason else ""
    number = "crashed" if report.metric is None else f"{name} {numbers[0]}"
    lines = [f"{heading}: {number}{reason}: {report.description}"]
    if report.score is not None:
        against = f"the incumbent, experiment {report.incumbent}, has {numbers[1]}"
        if report.gain is not None:
            against += f"; the difference is {report.gain:+.6g} (more is better)"
        if report.sd is not None:
            against += f"; one run varies by {report.sd:.3g} (sd)"
        lines.append(f"{against}. This run decides nothing: `autoresearch try` does")
    lines += _describe_usage(report)
    lines += ["the end of its output:", *(f"    | {line}" for line in report.output)]
    if report.left is not None:
        lines.append(f"{counted(report.left, 'scratch run')} left")
    return "\n".join(lines)


def _describe_usage(report: TrialReport) -> list[str]:
    """What a run took, and what it left."""
    if report.wall_s is None:
        return []
    used = f"{duration(report.wall_s)} of wall time, {duration(report.cpu_s)} of CPU time"
    return [f"a run took {used}" + (f"; it left {', '.join(report.files)}" if report.files else "")]


def to_json(report: TrialReport) -> dict[str, Any]:
    """The facts of a report, without those that are absent."""
    return {
        key: value
        for key, value in asdict(report).items()
        if key != "pid" and value is not None and value is not False and value not in ("", ())
    }
