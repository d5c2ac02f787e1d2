"""The built-in agents and runners, by the suites that third parties use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.far_runner import FarRunner

from autoresearch import agents, runners
from autoresearch.errors import Refused
from autoresearch.protocols import (
    Agent,
    Failure,
    Proposal,
    Runner,
    RunResult,
    RunSpec,
    TreeSource,
    Turn,
)
from autoresearch.runners.local import LocalRunner
from autoresearch.task.model import RunnerSettings
from autoresearch.testing import AgentSuite, RunnerSuite


class TestLocalRunner(RunnerSuite):
    def make(self, slots: int) -> Runner:
        return runners.load(RunnerSettings(slots=slots))


class TestFarRunner(RunnerSuite):
    """Its processes share no folder with the harness."""

    def make(self, slots: int) -> Runner:
        return FarRunner(slots)


class TestTuner(AgentSuite):
    def make(self) -> Agent:
        return agents.load("tuner")


class TestRandomSearch(AgentSuite):
    goal = "maximize"

    def make(self) -> Agent:
        return agents.load("tuner", "random")


class TestReplay(AgentSuite):
    def make(self) -> Agent:
        versions = [(f"LR {n}", {"train.py": f"LR = {n}\n".encode()}) for n in range(1, 9)]
        return agents.load("replay", None, {"proposals": versions})


# ---- the suites find what is wrong ------------------------------------------------------------


class Fine:
    name = "fine"
    wants_briefing = False

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        file = turn.worktree / "train.py"
        file.write_text(file.read_text() + "# more\n")
        return Proposal("more")


class Lazy(Fine):
    def propose(self, turn: Turn) -> Proposal:
        return Proposal("did nothing")


class Chatty(Fine):
    def propose(self, turn: Turn) -> Proposal:
        super().propose(turn)
        return Proposal("first\nsecond")


class Meddler(Fine):
    def propose(self, turn: Turn) -> Proposal:
        (turn.worktree / "data.py").write_text("SIZE = 1\n")
        return Proposal("smaller data")


class Liar(Fine):
    def propose(self, turn: Turn) -> Proposal:
        super().propose(turn)
        return "better"  # type: ignore[return-value]


@pytest.mark.parametrize("agent", [Lazy, Chatty, Meddler, Liar])
def test_the_suite_refuses_an_agent_that_breaks_the_rules(
    agent: type[Fine], tmp_path: Path
) -> None:
    class Suite(AgentSuite):
        def make(self) -> Agent:
            return agent()

    with pytest.raises((AssertionError, Refused)):
        Suite().test_it_proposes_an_edit_of_the_editable_files(tmp_path)


def test_the_suite_passes_one_that_keeps_them(tmp_path: Path) -> None:
    class Suite(AgentSuite):
        def make(self) -> Agent:
            return Fine()

    Suite().test_it_proposes_an_edit_of_the_editable_files(tmp_path)


def test_the_suite_refuses_a_runner_that_ignores_a_limit(tmp_path: Path) -> None:
    class Deaf(LocalRunner):
        def run(self, spec: RunSpec, source: TreeSource | None = None) -> RunResult:
            return super().run(replace(spec, log_bytes=None, timeout_s=1.0), source)

    class Suite(RunnerSuite):
        def make(self, slots: int) -> Runner:
            return Deaf(slots)

    with pytest.raises(AssertionError):
        Suite().test_the_log_limit(tmp_path)
