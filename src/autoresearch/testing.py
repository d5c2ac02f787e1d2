"""Conformance suites: what every agent and every runner has to do, as tests for pytest.

A plug-in's author subclasses the suite in a test module, says how to make the plug-in, and runs
pytest; the built-in ones are tested by the same suites:

    from autoresearch.testing import AgentSuite

    class TestMine(AgentSuite):
        def make(self) -> Agent:
            return Mine()

The contracts in words are the protocols in `autoresearch.protocols`. Nothing here imports pytest,
and nothing else of this package imports this module.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import psutil

from autoresearch.briefing import Briefer
from autoresearch.core.history import SessionHistory
from autoresearch.errors import TaskError
from autoresearch.files import remove_tree
from autoresearch.git.repository import Repository
from autoresearch.protocols import (
    Agent,
    Confinement,
    Failure,
    Proposal,
    Runner,
    RunResult,
    RunSpec,
    TreeFile,
    TreeManifest,
    Turn,
)
from autoresearch.records import Experiment, Role, Status, Verdict
from autoresearch.runners.support.content import write_tree
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.task.reading import parse

__all__ = ["AgentSuite", "RunnerSuite"]

PATIENCE_S = 60.0  # for what should take milliseconds, on the slowest of machines


# --------------------------------------------------------------------------------------------
# Agents


class AgentSuite:
    """Tests of an agent on a small task, without running anything: verdicts are made up.

    Subclasses define `make`, and may change the task. An agent that needs a service gets a fake
    one from the subclass: the suite takes a few dozen turns.
    """

    files: ClassVar[dict[str, str]] = {
        "train.py": "LR = 0.1  # in [0.001, 1]\nDEPTH = 2  # in [1, 8]\nprint('loss:', LR)\n",
        "data.py": "SIZE = 100\n",
    }
    editable: ClassVar[tuple[str, ...]] = ("train.py",)
    goal: ClassVar[str] = "minimize"

    def make(self) -> Agent:
        """A new agent, as a new process would have it: it knows nothing of earlier turns."""
        raise NotImplementedError

    def test_it_says_who_it_is(self) -> None:
        agent = self.make()
        assert isinstance(agent.name, str)
        assert agent.name.strip() == agent.name != ""
        assert isinstance(agent.reads, bool)

    def test_it_proposes_an_edit_of_the_editable_files(self, tmp_path: Path) -> None:
        """`EditRules.collect` refuses everything else, and says what."""
        with self._turn_taker(tmp_path) as taker:
            answer, changes = taker.turn(self.make())
            assert isinstance(answer, Proposal), f"the first turn came to nothing: {answer}"
            assert changes
            assert answer.description.strip(), "a proposal needs a description"
            assert "\n" not in answer.description.strip(), "of one line"

    def test_it_goes_on_whatever_becomes_of_its_proposals(self, tmp_path: Path) -> None:
        with self._turn_taker(tmp_path) as taker:
            agent = self.make()
            for status in (Status.DISCARD, Status.CRASH, Status.KEEP, Status.KEEP, Status.CRASH):
                answer, changes = taker.turn(agent)
                if isinstance(answer, Proposal):
                    taker.finish(taker.begin(agent, answer, changes), status)

    def test_it_can_be_asked_again_before_the_verdict(self, tmp_path: Path) -> None:
        """Several slots: the second turn comes while the first experiment is in flight."""
        with self._turn_taker(tmp_path) as taker:
            agent = self.make()
            experiments = []
            for _ in range(3):
                answer, changes = taker.turn(agent)
                if isinstance(answer, Proposal):
                    experiments.append(taker.begin(agent, answer, changes))
            for experiment in reversed(experiments):
                taker.finish(experiment, Status.DISCARD)
            taker.turn(agent)

    def test_it_goes_on_after_a_restart(self, tmp_path: Path) -> None:
        """A new process has nothing but the history; it does not begin from the start."""
        with self._turn_taker(tmp_path) as taker:
            seen: list[object] = []
            for _ in range(4):
                agent = self.make()
                answer, changes = taker.turn(agent)
                if isinstance(answer, Proposal):
                    assert changes not in seen, "proposed again after a restart"
                    seen.append(changes)
                    taker.finish(taker.begin(agent, answer, changes), Status.DISCARD)

    def test_a_turn_that_came_to_nothing_is_no_obstacle(self, tmp_path: Path) -> None:
        """What it proposed was a duplicate, say: nobody tells it, and the next turn is fine."""
        with self._turn_taker(tmp_path) as taker:
            agent = self.make()
            for _ in range(3):
                taker.turn(agent)

    def test_it_can_be_called_from_any_thread(self, tmp_path: Path) -> None:
        with self._turn_taker(tmp_path) as taker:
            agent = self.make()
            for _ in range(2):
                with ThreadPoolExecutor(1) as pool:
                    answer, changes = pool.submit(taker.turn, agent).result()
                if isinstance(answer, Proposal):
                    taker.finish(taker.begin(agent, answer, changes), Status.DISCARD)

    def test_having_nothing_more_to_propose_is_final(self, tmp_path: Path) -> None:
        with self._turn_taker(tmp_path) as taker:
            agent = self.make()
            answers = [taker.turn(agent)[0] for _ in range(12)]
            if None in answers:
                assert set(answers[answers.index(None) :]) == {None}

    def test_it_leaves_the_harness_as_it_was(self, tmp_path: Path) -> None:
        """Working directory, environment and processes."""
        with self._turn_taker(tmp_path) as taker:
            before = Path.cwd(), dict(os.environ), _children()
            taker.turn(self.make())
            taker.close()
            assert (Path.cwd(), dict(os.environ)) == before[:2]
            _until(lambda: _children() <= before[2], "it left a process behind")

    @contextmanager
    def _turn_taker(self, folder: Path) -> Iterator[_TurnTaker]:
        root = folder / "task"
        root.mkdir()
        task_file = (
            'objective = "Make the loss as low as you can."\n'
            f"editable = {json.dumps(self.editable)}\n"
            '[run]\ncommand = "python train.py"\n'
            f'[metric]\nname = "loss"\ngoal = "{self.goal}"\n'
        )
        for name, text in {**self.files, "autoresearch.toml": task_file}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        who = ["-c", "user.name=suite", "-c", "user.email=suite@localhost"]
        for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "start", "-n"]):
            subprocess.run(["git", "-c", "commit.gpgsign=false", *words], cwd=root, check=True)
        paths = SessionPaths(root, "suite")
        paths.folder.mkdir(parents=True)
        with (
            closing(Ledger(paths.ledger)) as ledger,
            closing(_TurnTaker(root, task_file, paths, ledger)) as taker,
        ):
            yield taker


class _TurnTaker:
    """Gives an agent its turns as `autoresearch.core.turns` does; the verdicts are made up."""

    def __init__(self, root: Path, task_file: str, paths: SessionPaths, ledger: Ledger) -> None:
        self.task = parse(task_file, root, root / "autoresearch.toml")
        self.repository = Repository(root, self.task.editable, self.task.may_edit)
        self.paths = paths
        self.ledger = ledger
        self.record = ledger.create_session(
            "suite",
            base_commit=self.repository.head(),
            metric=self.task.metric,
            level="default",
            budget_s=None,
            budget_clock="wall",
            limits={},
            fingerprint={},
            now=time.time(),
        )
        self.history = SessionHistory(ledger, self.record, self.repository)
        self.briefer = Briefer(self.task, ledger, self.record, self.repository, paths)
        self._metric = 1.0
        self._seen: list[Agent] = []
        baseline = self._enter("", Proposal("baseline"), self.record.base_commit, base=0)
        self.finish(baseline, Status.KEEP)

    def turn(self, agent: Agent) -> tuple[Proposal | Failure | None, dict[str, bytes | None]]:
        """The agent's answer, and what it changed if it proposed something."""
        if agent not in self._seen:
            self._seen.append(agent)
        worktree = self.paths.turns / "worktree"
        remove_tree(worktree)
        incumbent = self.ledger.incumbent(self.record)
        manifest = self.repository.trees.materialize(incumbent.commit, worktree)
        text = ""
        if agent.reads:
            self.repository.trees.make_repository(worktree)
            text = self.briefer.text()
        answer = agent.propose(
            Turn(
                worktree=worktree,
                editable=tuple(
                    path for path in manifest if self.repository.edits.is_editable(path)
                ),
                history=self.history,
                briefing=text,
                timeout_s=PATIENCE_S,
            )
        )
        assert answer is None or isinstance(answer, (Proposal, Failure)), f"answered {answer!r}"
        if isinstance(answer, Failure):
            assert answer.reason.strip(), "a failure needs a reason"
        changes = (
            self.repository.edits.collect(worktree, manifest)
            if isinstance(answer, Proposal)
            else {}
        )
        return answer, changes

    def close(self) -> None:
        """What happens at a session's end."""
        for agent in self._seen:
            if close := getattr(agent, "close", None):
                close()

    def begin(
        self, agent: Agent, proposal: Proposal, changes: dict[str, bytes | None]
    ) -> Experiment:
        incumbent = self.ledger.incumbent(self.record)
        commit = self.repository.commit(incumbent.commit, changes, proposal.description + "\n")
        return self._enter(agent.name, proposal, commit, base=incumbent.number)

    def _enter(self, agent: str, proposal: Proposal, commit: str, base: int) -> Experiment:
        return self.ledger.begin(
            self.record,
            base=base,
            commit=commit,
            tree=self.repository.tree_id(commit),
            agent=agent,
            proposal=proposal,
            now=time.time(),
        )

    def finish(self, experiment: Experiment, status: Status) -> None:
        """A keep is better by a tenth each time; its fresh runs vary by a hundredth."""
        if status is Status.KEEP:
            self._metric *= 0.9 if self.task.metric.better(0.9, 1.0) else 1.1
        for index in range(4 if status is Status.KEEP else 0):
            role = Role.BASELINE if experiment.number == 0 else Role.REMEASURE
            run = self.ledger.open_run(
                self.record,
                experiment=experiment.number,
                attempt=0,
                role=role,
                index=index,
                commit=experiment.commit,
                now=time.time(),
            )
            self.ledger.finish_run(
                run,
                metric=self._metric + 0.01 * (index - 1.5),
                reason=None,
                numbers={},
                slot=0,
                exit_code=0,
                wall_s=1.0,
                cpu_s=1.0,
                peak_memory_bytes=None,
            )
        metric = None if status is Status.CRASH else self._metric
        reason = {Status.KEEP: None, Status.DISCARD: "worse", Status.CRASH: "exit code 1"}[status]
        verdict = Verdict(status, reason, metric)
        self.ledger.finish(
            self.record, experiment.number, verdict, peak_memory_bytes=None, now=time.time()
        )


# --------------------------------------------------------------------------------------------
# Runners


class RunnerSuite:
    """Tests of a runner with real processes. Needs Python where the runs are executed. Runs need
    to reach this machine at `host`; they need not see its files."""

    python: ClassVar[str] = sys.executable
    host: ClassVar[str] = "127.0.0.1"

    def make(self, slots: int) -> Runner:
        raise NotImplementedError

    @contextmanager
    def runner(self, slots: int = 1) -> Iterator[Runner]:
        with closing(self.make(slots)) as runner:
            yield runner

    def spec(
        self,
        folder: Path,
        program: str,
        *,
        name: str = "run",
        argv: tuple[str, ...] | None = None,
        env: dict[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
        limit_s: float | None = None,
        limit_clock: str = "cpu",
        memory_bytes: int | None = None,
        log_bytes: int | None = None,
    ) -> RunSpec:
        """A run of this Python program, in a folder of its own."""
        return RunSpec(
            argv=argv or (self.python, "-S", "-E", "-c", program),
            tree=folder / name,
            log=folder / f"{name}.log",
            outcome=folder / f"{name}.json",
            env={"PATH": os.environ["PATH"]} | (env or {}),
            timeout_s=timeout_s,
            limit_s=limit_s,
            limit_clock=limit_clock,
            memory_bytes=memory_bytes,
            log_bytes=log_bytes,
        )

    def test_it_says_what_it_is(self) -> None:
        with self.runner(2) as runner:
            assert runner.name
            assert runner.slots == 2

    def test_a_run_that_ends_by_itself(self, tmp_path: Path) -> None:
        program = (
            "import os, sys\nprint(os.listdir(), os.environ['MINE'], flush=True)\n"
            "print('error', file=sys.stderr)\nopen('left', 'w').write('x')\nsys.exit(3)\n"
        )
        spec = self.spec(tmp_path, program, env={"MINE": "here"})
        with self.runner() as runner:
            result = runner.run(spec, Files())
        assert (result.exit_code, result.stopped) == (3, None)
        assert 0 < result.wall_s < PATIENCE_S
        assert spec.log.read_text().splitlines() == ["[] here", "error"]
        assert (spec.tree / "left").read_text() == "x"
        assert result.slot == 0

    def test_the_tree_is_made_of_content(self, tmp_path: Path) -> None:
        """Files and programs, links, inputs; and it starts in the folder that is asked for."""
        source = Files()
        source.add("task/text", b"\xff\x00text")
        source.add("task/deep/program", b"#!/bin/sh\necho executed\n", 0o100755)
        source.add("link", b"task/deep", 0o120000)
        source.links["task/inputs/all"] = "/"
        program = (
            "import os, subprocess\nprint(open('text', 'rb').read(), os.readlink('inputs/all'))\n"
            "print(sorted(os.listdir('..')), os.readlink('../link'), flush=True)\n"
            "subprocess.run(['../link/program'], check=True)\n"
        )
        spec = replace(self.spec(tmp_path, program), directory="task")
        with self.runner() as runner:
            assert runner.run(spec, source).exit_code == 0, spec.log.read_text()
        assert spec.log.read_text().splitlines() == [
            r"b'\xff\x00text' /",
            "['link', 'task'] task/deep",
            "executed",
        ]

    def test_what_a_run_makes_or_changes_comes_back(self, tmp_path: Path) -> None:
        source = Files(old=b"old", same=b"same")
        program = (
            "import os\nopen('old', 'a').write(' and new')\nos.makedirs('a/b')\n"
            "open('a/b/weights', 'wb').write(bytes(range(256)) * 1000)\n"
        )
        spec = self.spec(tmp_path, program)
        with self.runner() as runner:
            assert runner.run(spec, source).exit_code == 0
        assert (spec.tree / "old").read_text() == "old and new"
        assert (spec.tree / "a/b/weights").read_bytes() == bytes(range(256)) * 1000
        same = spec.tree / "same"
        assert not same.exists() or same.read_bytes() == b"same"

    def test_a_tree_is_new_for_every_run(self, tmp_path: Path) -> None:
        program = "import os\nprint(os.listdir())\nopen('more', 'w').close()\n"
        with self.runner() as runner:
            for _ in range(2):
                spec = self.spec(tmp_path, program)
                assert runner.run(spec, Files(file=b"")).exit_code == 0
                assert spec.log.read_text() == "['file']\n"

    def test_an_error_of_the_source_reaches_the_caller(self, tmp_path: Path) -> None:
        class Gone(Files):
            def manifest(self) -> TreeManifest:
                raise TaskError("an input is gone")

            def write(self, folder: Path) -> None:
                raise TaskError("an input is gone")

        spec = self.spec(tmp_path, "pass")
        with self.runner() as runner:
            for _ in range(2):  # neither is the slot lost
                try:
                    runner.run(spec, Gone())
                except TaskError as error:
                    assert str(error) == "an input is gone"
                else:
                    raise AssertionError("no error")
            assert runner.run(spec, Files()).exit_code == 0

    def test_the_outcome_is_written_before_it_is_returned(self, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, "print('x')")
        with self.runner() as runner:
            result = runner.run(spec, Files())
            assert RunResult.from_json(json.loads(spec.outcome.read_text())) == result

    def test_the_environment_is_the_one_given(self, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, "import os\nprint(*os.environ)")
        os.environ["AUTORESEARCH_SUITE_SECRET"] = "x"
        try:
            with self.runner() as runner:
                runner.run(spec, Files())
        finally:
            del os.environ["AUTORESEARCH_SUITE_SECRET"]
        assert "PATH" in spec.log.read_text().split()
        assert "AUTORESEARCH_SUITE_SECRET" not in spec.log.read_text()

    def test_what_is_confined_is_confined_or_does_not_start(self, tmp_path: Path) -> None:
        """A runner that knows nothing of confinement must refuse such a run, not run it free."""
        secret = tmp_path / "secret"
        secret.write_text("x")
        spec = self.spec(tmp_path, f"open('left', 'w')\nopen({str(secret)!r})")
        places = tuple(path.name for path in Path("/").iterdir() if path.name != tmp_path.parts[1])
        read = (*(f"/{name}" for name in places), sys.prefix, sys.base_prefix)
        confined = replace(spec, confinement=Confinement(read, (str(spec.tree),)))
        with self.runner() as runner:
            result = runner.run(confined, Files())
        if result.exit_code is None:
            assert result.stopped == "not confined"
            assert not (spec.tree / "left").exists()
        else:
            assert result.exit_code == 1
            assert "PermissionError" in spec.log.read_text()

    def test_without_network_there_is_none_or_it_does_not_start(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            connect = f"import socket\nsocket.create_connection({server.getsockname()!r})"
            spec = self.spec(tmp_path, connect)
            confined = replace(spec, confinement=Confinement(("/",), (str(spec.tree),), False))
            with self.runner() as runner:
                result = runner.run(confined, Files())
        assert result.exit_code == 1 or result.stopped == "not confined"

    def test_a_file_that_is_too_large(self, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, "open('x', 'wb').write(bytes(3_000_000))")
        with self.runner() as runner:
            assert runner.run(replace(spec, file_bytes=1_000_000), Files()).exit_code != 0
        assert (spec.tree / "x").stat().st_size <= 1_000_000

    def test_too_many_processes(self, tmp_path: Path) -> None:
        program = "import os, time\nfor _ in range(30):\n    os.fork() or time.sleep(600)\n"
        spec = replace(self.spec(tmp_path, f"{program}time.sleep(600)"), processes=10)
        with self.runner() as runner:
            assert runner.run(spec, Files()).stopped == "too many processes"

    def test_a_signal(self, tmp_path: Path) -> None:
        with self.runner() as runner:
            spec = self.spec(tmp_path, "import os\nos.kill(os.getpid(), 11)")
            result = runner.run(spec, Files())
        assert (result.exit_code, result.stopped) == (-11, None)

    def test_a_command_that_is_not_there(self, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, "", argv=("no-such-program-anywhere",))
        with self.runner() as runner:
            result = runner.run(spec, Files())
        assert (result.exit_code, result.stopped) == (None, "command not found")

    def test_a_timeout(self, tmp_path: Path) -> None:
        with self.runner() as runner:
            result = runner.run(
                self.spec(tmp_path, "import time\ntime.sleep(600)", timeout_s=1.0), Files()
            )
        assert result.stopped == "timeout"
        assert 1.0 <= result.wall_s < PATIENCE_S

    def test_the_budget_in_cpu_seconds(self, tmp_path: Path) -> None:
        """Of the whole tree of processes."""
        program = "import os\nif os.fork() == 0:\n    while True: pass\nos.wait()"
        with self.runner() as runner:
            result = runner.run(self.spec(tmp_path, program, limit_s=0.5), Files())
        assert result.stopped == "over budget"
        assert result.cpu_s is not None
        assert result.cpu_s > 0.5

    def test_the_budget_in_wall_seconds(self, tmp_path: Path) -> None:
        program = "import time\ntime.sleep(600)"
        with self.runner() as runner:
            result = runner.run(
                self.spec(tmp_path, program, limit_s=0.5, limit_clock="wall"), Files()
            )
        assert result.stopped == "over budget"

    def test_the_memory_limit(self, tmp_path: Path) -> None:
        program = "x = b'x' * 300_000_000\nimport time\ntime.sleep(600)"
        with self.runner() as runner:
            result = runner.run(self.spec(tmp_path, program, memory_bytes=100_000_000), Files())
        assert result.stopped == "memory"
        assert result.peak_memory_bytes is None or result.peak_memory_bytes > 100_000_000

    def test_the_log_limit(self, tmp_path: Path) -> None:
        program = "import time\nprint('x' * 3_000_000, flush=True)\ntime.sleep(600)"
        spec = self.spec(tmp_path, program, log_bytes=1_000_000)
        with self.runner() as runner:
            assert runner.run(spec, Files()).stopped == "log too large"
        assert spec.log.stat().st_size <= 1_000_000

    def test_no_process_outlives_its_run(self, tmp_path: Path) -> None:
        program = (
            "import os, time\nready, told = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n"
            "    open('pid', 'w').write(str(os.getpid()))\n    os.write(told, b'x')\n"
            "    time.sleep(600)\nos.read(ready, 1)\n"
        )
        spec = self.spec(tmp_path, program)
        with self.runner() as runner:
            assert runner.run(spec, Files()).exit_code == 0
            assert not psutil.pid_exists(int((spec.tree / "pid").read_text()))

    def test_interrupt(self, tmp_path: Path) -> None:
        with self.calls() as calls, self.runner() as runner, ThreadPoolExecutor(1) as pool:
            spec = self.spec(tmp_path, f"{calls.program}import time\ntime.sleep(600)")
            running = pool.submit(runner.run, spec, Files())
            calls.wait_for(1)
            runner.interrupt()
            assert running.result(PATIENCE_S).stopped == "interrupted"
            runner.interrupt()  # with nothing to interrupt
            assert runner.run(self.spec(tmp_path, "pass", name="next"), Files()).exit_code == 0

    def test_close_ends_what_is_running_and_may_be_called_twice(self, tmp_path: Path) -> None:
        runner = self.make(1)
        with self.calls() as calls, ThreadPoolExecutor(1) as pool:
            spec = self.spec(tmp_path, f"{calls.program}import time\ntime.sleep(600)")
            running = pool.submit(runner.run, spec, Files())
            calls.wait_for(1)
            runner.close()
            assert running.result(PATIENCE_S).stopped in ("interrupted", "lost")
        runner.close()

    def test_slots_work_at_the_same_time(self, tmp_path: Path) -> None:
        """Two runs that wait for each other, each in a slot of its own; and more than fit."""
        with (
            self.calls() as calls,
            self.runner(2) as runner,
            ThreadPoolExecutor(5) as pool,
        ):
            specs = [
                self.spec(tmp_path, f"{calls.program}call.recv(1)", name=name) for name in "ab"
            ]
            running = [pool.submit(runner.run, spec, Files()) for spec in specs]
            for call in calls.wait_for(2):
                call.send(b"x")
            results = [future.result(PATIENCE_S) for future in running]
            assert [result.exit_code for result in results] == [0, 0]
            assert {result.slot for result in results} == {0, 1}
            more = [self.spec(tmp_path, "pass", name=f"more{n}") for n in range(5)]
            results = list(pool.map(lambda spec: runner.run(spec, Files()), more))
            assert [result.exit_code for result in results] == [0] * 5

    def test_no_more_runs_than_slots(self, tmp_path: Path) -> None:
        program = "import time\nprint(time.time())\ntime.sleep(0.05)\nprint(time.time())"
        with self.runner(1) as runner, ThreadPoolExecutor(3) as pool:
            specs = [self.spec(tmp_path, program, name=f"run{n}") for n in range(3)]
            results = list(pool.map(lambda spec: runner.run(spec, Files()), specs))
        assert [result.exit_code for result in results] == [0] * 3
        spans = sorted([float(line) for line in spec.log.read_text().split()] for spec in specs)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans)), spans

    @contextmanager
    def calls(self) -> Iterator[Calls]:
        with socket.create_server((self.host, 0)) as server:
            server.settimeout(PATIENCE_S)
            calls = Calls(server)
            try:
                yield calls
            finally:
                for call in calls.accepted:
                    call.close()


class Calls:
    """Connections from runs, which tell that a run goes on, where no files are shared."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.accepted: list[socket.socket] = []
        self.program = (  # the beginning of a run's program
            f"import socket\ncall = socket.create_connection({server.getsockname()!r})\n"
        )

    def wait_for(self, count: int) -> list[socket.socket]:
        self.accepted += [self._server.accept()[0] for _ in range(count)]
        return self.accepted


class Files:
    """A `TreeSource` of files in memory, all at the top of the tree unless they are added."""

    def __init__(self, **contents: bytes) -> None:
        self.links: dict[str, str] = {}
        self._files: dict[str, TreeFile] = {}
        self._contents: dict[str, bytes] = {}  # by blob
        for name, content in contents.items():
            self.add(name, content)

    def add(self, path: str, content: bytes, mode: int = 0o100644) -> None:
        self._files[path] = file = TreeFile.of(content, mode)
        self._contents[file.blob] = content

    def manifest(self) -> TreeManifest:
        return TreeManifest("0" * 40, self._files, self.links)

    def read(self, blob: str) -> bytes:
        return self._contents[blob]

    def write(self, folder: Path) -> None:
        remove_tree(folder)
        write_tree(self.manifest(), self.read, folder)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _until(condition: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    waiting = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, otherwise
        waiting.wait(0.01)
