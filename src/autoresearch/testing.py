"""Conformance suites for agents and runners, as tests for pytest.

Subclass a suite in a test module and define `make`. The built-in agents and runners are tested by
the same suites:

    from autoresearch.testing import AgentSuite

    class TestMine(AgentSuite):
        def make(self) -> Agent:
            return Mine()

The protocols in `autoresearch.protocols` describe the contracts. This module does not import
pytest, and nothing else of this package imports it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import psutil

from autoresearch.briefing import Briefer
from autoresearch.core.history import SessionHistory
from autoresearch.errors import RunnerError, TaskError
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

PATIENCE_S = 60.0  # for milliseconds of work, on the slowest machine
SLEEP = "import time\ntime.sleep(600)\n"


# --------------------------------------------------------------------------------------------
# Agents


class AgentSuite:
    """Tests of an agent on a small task that is never executed: the verdicts are made up.

    Subclasses define `make`, and may change the task. Give an agent that needs a service a fake
    one: the suite takes a few dozen turns.
    """

    files: ClassVar[dict[str, str]] = {
        "train.py": "LR = 0.1  # in [0.001, 1]\nDEPTH = 2  # in [1, 8]\nprint('loss:', LR)\n",
        "data.py": "SIZE = 100\n",
    }
    editable: ClassVar[tuple[str, ...]] = ("train.py",)
    goal: ClassVar[str] = "minimize"

    def make(self) -> Agent:
        """A new agent, as in a new process: it knows nothing of earlier turns."""
        raise NotImplementedError

    def test_it_has_a_name(self) -> None:
        agent = self.make()
        assert isinstance(agent.name, str)
        assert agent.name.strip() == agent.name != ""
        assert isinstance(agent.wants_briefing, bool)

    def test_it_proposes_an_edit_of_the_editable_files(self, tmp_path: Path) -> None:
        """`EditRules.collect` refuses every other edit."""
        with self._turn_taker(tmp_path) as taker:
            answer, changes = taker.turn(self.make())
            assert isinstance(answer, Proposal), f"the first turn gave no proposal: {answer}"
            assert changes
            assert answer.description.strip(), "a proposal needs a description"
            assert "\n" not in answer.description.strip(), "of one line"

    def test_it_goes_on_after_every_verdict(self, tmp_path: Path) -> None:
        with self._turn_taker(tmp_path) as taker:
            agent = self.make()
            for status in (Status.DISCARD, Status.CRASH, Status.KEEP, Status.KEEP, Status.CRASH):
                taker.turn_with_verdict(agent, status)

    def test_it_proposes_again_before_the_verdict(self, tmp_path: Path) -> None:
        """With several slots, the next turn comes while the first experiment is in flight."""
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
        """An agent in a new process knows only the history, and does not repeat proposals."""
        with self._turn_taker(tmp_path) as taker:
            proposals: list[object] = []
            for _ in range(4):
                if changes := taker.turn_with_verdict(self.make(), Status.DISCARD):
                    assert changes not in proposals, "proposed again after a restart"
                    proposals.append(changes)

    def test_it_can_be_called_from_any_thread(self, tmp_path: Path) -> None:
        with self._turn_taker(tmp_path) as taker:
            agent = self.make()
            for _ in range(2):
                with ThreadPoolExecutor(1) as pool:
                    answer, changes = pool.submit(taker.turn, agent).result()
                if isinstance(answer, Proposal):
                    taker.finish(taker.begin(agent, answer, changes), Status.DISCARD)

    def test_turns_without_a_verdict(self, tmp_path: Path) -> None:
        """The harness may drop a proposal, such as a duplicate, without a word: the agent goes on.
        Having nothing more to propose is final."""
        with self._turn_taker(tmp_path) as taker:
            agent = self.make()
            answers = [taker.turn(agent)[0] for _ in range(12)]
            if None in answers:
                assert set(answers[answers.index(None) :]) == {None}

    def test_it_leaves_no_trace_in_the_harness(self, tmp_path: Path) -> None:
        """In its working directory, environment and processes."""
        with self._turn_taker(tmp_path) as taker:
            before = Path.cwd(), dict(os.environ), _children()
            taker.turn(self.make())
            taker.close()
            assert (Path.cwd(), dict(os.environ)) == before[:2]
            deadline = time.monotonic() + PATIENCE_S
            while not _children() <= before[2]:
                assert time.monotonic() < deadline, "it left a process behind"
                time.sleep(0.01)

    @contextmanager
    def _turn_taker(self, folder: Path) -> Iterator[_TurnTaker]:
        root = folder / "task"
        task_file = (
            'objective = "Make the loss as low as you can."\n'
            f"editable = {json.dumps(self.editable)}\n"
            '[run]\ncommand = "python train.py"\n'
            f'[metric]\nname = "loss"\ngoal = "{self.goal}"\n'
        )
        for name, text in {**self.files, "autoresearch.toml": task_file}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        author = ["-c", "user.name=suite", "-c", "user.email=suite@localhost"]
        for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "start", "-n"]):
            subprocess.run(["git", "-c", "commit.gpgsign=false", *words], cwd=root, check=True)
        paths = SessionPaths(root, "suite")
        paths.folder.mkdir(parents=True)
        with (
            closing(Ledger(paths.ledger)) as ledger,
            closing(_TurnTaker(root, task_file, paths, ledger)) as taker,
        ):
            yield taker


class _TurnTaker:
    """Gives an agent its turns as `autoresearch.core.turns` does, with made-up verdicts."""

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
        self._agents: list[Agent] = []
        baseline = self._enter("", Proposal("baseline"), self.record.base_commit, base=0)
        self.finish(baseline, Status.KEEP)

    def turn(self, agent: Agent) -> tuple[Proposal | Failure | None, dict[str, bytes | None]]:
        """Return the agent's answer, and its changes if that is a proposal."""
        if agent not in self._agents:
            self._agents.append(agent)
        worktree = self.paths.turns / "worktree"
        remove_tree(worktree)
        incumbent = self.ledger.incumbent(self.record)
        manifest = self.repository.trees.materialize(incumbent.commit, worktree)
        text = ""
        if agent.wants_briefing:
            self.repository.trees.make_repository(worktree)
            text = self.briefer.text()
        editable = tuple(path for path in manifest if self.repository.edits.is_editable(path))
        answer = agent.propose(Turn(worktree, editable, self.history, text, PATIENCE_S))
        assert answer is None or isinstance(answer, (Proposal, Failure)), f"answered {answer!r}"
        if isinstance(answer, Failure):
            assert answer.reason.strip(), "a failure needs a reason"
        if not isinstance(answer, Proposal):
            return answer, {}
        return answer, self.repository.edits.collect(worktree, manifest)

    def turn_with_verdict(self, agent: Agent, status: Status) -> dict[str, bytes | None]:
        """Take a turn and finish the experiment. Return the changes."""
        answer, changes = self.turn(agent)
        if isinstance(answer, Proposal):
            self.finish(self.begin(agent, answer, changes), status)
        return changes

    def close(self) -> None:
        """End the agents, as at a session's end."""
        for agent in self._agents:
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
        """Record a verdict. Each keep is better by a tenth; its runs vary by a hundredth."""
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
    """Tests of a runner with real processes. It must execute runs with a Python at `python`. Runs
    must reach this machine at `host`; they need not see its files."""

    python: ClassVar[str] = sys.executable
    host: ClassVar[str] = "127.0.0.1"

    def make(self, slots: int) -> Runner:
        raise NotImplementedError

    @contextmanager
    def runner(self, slots: int = 1) -> Iterator[Runner]:
        with closing(self.make(slots)) as runner:
            yield runner

    def spec(self, folder: Path, program: str, name: str = "run", **fields: Any) -> RunSpec:
        """A run of this Python program. `fields` are other fields of the spec."""
        spec = RunSpec(
            argv=(self.python, "-S", "-E", "-c", program),
            tree=folder / name,
            log=folder / f"{name}.log",
            outcome=folder / f"{name}.json",
            env={"PATH": os.environ["PATH"]},
            timeout_s=PATIENCE_S,
        )
        return replace(spec, **fields)

    def execute(self, spec: RunSpec, source: Files | None = None) -> RunResult:
        """Execute one run with a new runner."""
        with self.runner() as runner:
            return runner.run(spec, source or Files())

    def test_it_has_a_name_and_slots(self) -> None:
        with self.runner(2) as runner:
            assert runner.name
            assert runner.slots == 2

    def test_a_run_that_ends_by_itself(self, tmp_path: Path) -> None:
        program = (
            "import os, sys\nprint(os.listdir(), os.environ['MINE'], flush=True)\n"
            "print('error', file=sys.stderr)\nopen('left', 'w').write('x')\nsys.exit(3)\n"
        )
        spec = self.spec(tmp_path, program, env={"PATH": os.environ["PATH"], "MINE": "here"})
        result = self.execute(spec)
        assert (result.exit_code, result.stopped) == (3, None)
        assert 0 < result.wall_s < PATIENCE_S
        assert spec.log.read_text().splitlines() == ["[] here", "error"]
        assert (spec.tree / "left").read_text() == "x"
        assert result.slot == 0
        assert RunResult.from_json(json.loads(spec.outcome.read_text())) == result

    def test_the_tree_is_made_of_content(self, tmp_path: Path) -> None:
        """Files, programs, links and inputs; and the run starts in the given folder."""
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
        spec = self.spec(tmp_path, program, directory="task")
        assert self.execute(spec, source).exit_code == 0, spec.log.read_text()
        assert spec.log.read_text().splitlines() == [
            r"b'\xff\x00text' /",
            "['link', 'task'] task/deep",
            "executed",
        ]

    def test_new_and_changed_files_come_back(self, tmp_path: Path) -> None:
        program = (
            "import os\nopen('old', 'a').write(' and new')\nos.makedirs('a/b')\n"
            "open('a/b/weights', 'wb').write(bytes(range(256)) * 1000)\n"
        )
        spec = self.spec(tmp_path, program)
        assert self.execute(spec, Files(old=b"old", same=b"same")).exit_code == 0
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
        class Broken(Files):
            def manifest(self) -> TreeManifest:
                raise TaskError("an input is gone")

        spec = self.spec(tmp_path, "pass")
        with self.runner() as runner:
            for _ in range(2):  # the slot is free again
                try:
                    runner.run(spec, Broken())
                except TaskError as error:
                    assert str(error) == "an input is gone"
                else:
                    raise AssertionError("no error")
            assert runner.run(spec, Files()).exit_code == 0

    def test_the_environment_is_the_given_one(self, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, "import os\nprint(*os.environ)")
        os.environ["AUTORESEARCH_SUITE_SECRET"] = "x"
        try:
            self.execute(spec)
        finally:
            del os.environ["AUTORESEARCH_SUITE_SECRET"]
        assert "PATH" in spec.log.read_text().split()
        assert "AUTORESEARCH_SUITE_SECRET" not in spec.log.read_text()

    def test_a_run_that_cannot_be_confined_does_not_start(self, tmp_path: Path) -> None:
        """A runner without confinement must refuse such a run."""
        secret = tmp_path / "secret"
        secret.write_text("x")
        spec = self.spec(tmp_path, f"open('left', 'w')\nopen({str(secret)!r})")
        folders = (str(path) for path in Path("/").iterdir() if path.name != tmp_path.parts[1])
        confinement = Confinement((*folders, sys.prefix, sys.base_prefix), (str(spec.tree),))
        result = self.execute(replace(spec, confinement=confinement))
        if result.exit_code is None:
            assert result.stopped == "not confined"
            assert not (spec.tree / "left").exists()
        else:
            assert result.exit_code == 1
            assert "PermissionError" in spec.log.read_text()

    def test_a_run_without_network_has_none_or_does_not_start(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            connect = f"import socket\nsocket.create_connection({server.getsockname()!r})"
            spec = self.spec(tmp_path, connect)
            confinement = Confinement(("/",), (str(spec.tree),), network=False)
            result = self.execute(replace(spec, confinement=confinement))
        assert result.exit_code == 1 or result.stopped == "not confined"

    def test_the_file_limit(self, tmp_path: Path) -> None:
        program = "open('x', 'wb').write(bytes(3_000_000))"
        spec = self.spec(tmp_path, program, file_bytes=1_000_000)
        assert self.execute(spec).exit_code != 0
        assert (spec.tree / "x").stat().st_size <= 1_000_000

    def test_the_process_limit(self, tmp_path: Path) -> None:
        program = f"import os\nfor _ in range(30):\n    if not os.fork(): break\n{SLEEP}"
        spec = self.spec(tmp_path, program, processes=10)
        assert self.execute(spec).stopped == "too many processes"

    def test_a_signal(self, tmp_path: Path) -> None:
        result = self.execute(self.spec(tmp_path, "import os\nos.kill(os.getpid(), 11)"))
        assert (result.exit_code, result.stopped) == (-11, None)

    def test_an_unknown_command(self, tmp_path: Path) -> None:
        result = self.execute(self.spec(tmp_path, "", argv=("no-such-program-anywhere",)))
        assert (result.exit_code, result.stopped) == (None, "command not found")

    def test_the_timeout(self, tmp_path: Path) -> None:
        result = self.execute(self.spec(tmp_path, SLEEP, timeout_s=1.0))
        assert result.stopped == "timeout"
        assert 1.0 <= result.wall_s < PATIENCE_S

    def test_the_budget_in_cpu_seconds(self, tmp_path: Path) -> None:
        """The budget counts the whole tree of processes."""
        program = "import os\nif os.fork() == 0:\n    while True: pass\nos.wait()"
        result = self.execute(self.spec(tmp_path, program, limit_s=0.5))
        assert result.stopped == "over budget"
        assert result.cpu_s is not None
        assert result.cpu_s > 0.5

    def test_the_budget_in_wall_seconds(self, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, SLEEP, limit_s=0.5, limit_clock="wall")
        assert self.execute(spec).stopped == "over budget"

    def test_the_memory_limit(self, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, f"x = b'x' * 300_000_000\n{SLEEP}", memory_bytes=100_000_000)
        result = self.execute(spec)
        assert result.stopped == "memory"
        assert result.peak_memory_bytes is None or result.peak_memory_bytes > 100_000_000

    def test_the_log_limit(self, tmp_path: Path) -> None:
        program = f"print('x' * 3_000_000, flush=True)\n{SLEEP}"
        spec = self.spec(tmp_path, program, log_bytes=1_000_000)
        assert self.execute(spec).stopped == "log too large"
        assert spec.log.stat().st_size <= 1_000_000

    def test_no_process_outlives_its_run(self, tmp_path: Path) -> None:
        program = (
            "import os, time\nready, done = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n"
            "    open('pid', 'w').write(str(os.getpid()))\n    os.write(done, b'x')\n"
            "    time.sleep(600)\nos.read(ready, 1)\n"
        )
        spec = self.spec(tmp_path, program)
        with self.runner() as runner:
            assert runner.run(spec, Files()).exit_code == 0
            assert not psutil.pid_exists(int((spec.tree / "pid").read_text()))

    def test_interrupt(self, tmp_path: Path) -> None:
        with self.calls() as calls, self.runner() as runner, ThreadPoolExecutor(1) as pool:
            spec = self.spec(tmp_path, calls.program + SLEEP)
            running = pool.submit(runner.run, spec, Files())
            calls.wait_for(1)
            runner.interrupt()
            assert running.result(PATIENCE_S).stopped == "interrupted"
            runner.interrupt()  # nothing is running
            assert runner.run(self.spec(tmp_path, "pass", name="next"), Files()).exit_code == 0

    def test_close_ends_a_run_and_may_be_called_twice(self, tmp_path: Path) -> None:
        runner = self.make(1)
        with self.calls() as calls, ThreadPoolExecutor(1) as pool:
            spec = self.spec(tmp_path, calls.program + SLEEP)
            running = pool.submit(runner.run, spec, Files())
            calls.wait_for(1)
            runner.close()
            assert running.result(PATIENCE_S).stopped in ("interrupted", "lost")
        runner.close()
        try:
            runner.run(self.spec(tmp_path, "pass", name="late"), Files())
        except RunnerError:
            return
        raise AssertionError("after `close` a run is accepted")

    def test_slots_work_at_the_same_time(self, tmp_path: Path) -> None:
        """Two runs wait for each other, each in its own slot. Then come more runs than slots."""
        with self.calls() as calls, self.runner(2) as runner, ThreadPoolExecutor(5) as pool:
            program = f"{calls.program}call.recv(1)"
            specs = [self.spec(tmp_path, program, name=name) for name in "ab"]
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
    """Connections from runs. They show that a run is going on, without shared files."""

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
    """A `TreeSource` of files in memory. The constructor's files are at the top of the tree."""

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
