"""The exceptions that steer a session's work. None of them is an error or reaches the user."""

from __future__ import annotations

from autoresearch.records import Verdict


class Stopped(Exception):
    """The session is to stop. A resumed session takes up the unfinished work."""


class Restart(Exception):
    """The incumbent or the segment is another than when the work under way began, so its runs
    cannot be compared any more: begin it again."""


class Decided(Exception):
    """One run of a series has settled the experiment. Carries the verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict
