"""Time as the metric: measured from outside, repeated, beside the unchanged program."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from support.bench import bench, untouched
from support.commands import call
from support.sessions import commit_all, git, linux_only, make_task

from autoresearch.commands.check import check_task
from autoresearch.commands.start import open_session
from autoresearch.errors import RunnerError, TaskError
from autoresearch.measure.execution import Interrupted
from autoresearch.measure.timing import Costs, check_measurable, get_cost
from autoresearch.protocols import RunResult
from autoresearch.runners.local import LocalRunner
from autoresearch.runners.warden import cpu_clock
from autoresearch.runners.warden.instructions import InstructionCounter
from autoresearch.task.model import Measure
from autoresearch.task.reading import load

TASK = """\
objective = "make it faster"
editable = ["prog.py"]
[run]
command = "python -S -E prog.py"
timeout = "20s"
[metric]
name = "time"
goal = "minimize"
measure = "cpu_time"
repeats = 3
relative = false
[runner]
cores = 1
"""
BURN = "import os, time\ndef burn(s):\n    while time.process_time() < s: pass\n"
RELATIVE = TASK.replace("false", "true")
SCORED = f"""{TASK}
[score]
command = "sh score.sh"
reads = ["answer"]
"""


def make(tmp_path: Path, program: str, toml: str = TASK, **files: str) -> Path:
    """A task whose runs share nothing: `make_task` gives them a folder, which is refused here."""
    root = make_task(tmp_path / "task", BURN + program, toml, files)
    (root / "autoresearch.toml").write_text(toml)
    commit_all(root)
    return root


needs_cpu_time = pytest.mark.skipif(
    not cpu_clock.is_available(), reason="nothing counts the CPU time of all descendants here"
)


@needs_cpu_time
def test_the_time_is_measured_and_not_what_the_program_prints(tmp_path: Path) -> None:
    """A child that nobody waits for counts too."""
    program = (
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    burn(0.1)\n    os._exit(0)\n"
        "try: os.wait()\nexcept ChildProcessError: pass\n"
        "print('METRIC time=0.000001')\nprint('time: 0.000001')\n"
    )
    with bench(make(tmp_path, program)) as made:
        run = made.measure()
    assert run.reason is None
    assert run.metric is not None and 0.1 < run.metric < 5
    assert run.numbers["cpu_time_s"] == run.metric
    assert run.cpu_s is not None and run.cpu_s > 3 * run.metric - 1e-6  # of all repetitions


def test_the_cheapest_repetition_counts_beside_that_of_the_unchanged_program(
    tmp_path: Path,
) -> None:
    """The change sleeps a fifth as long, whatever the neighbours do."""
    root = make(tmp_path, "time.sleep(0.5)\n", RELATIVE.replace("cpu_time", "wall_time"))
    with bench(root) as made:
        unchanged = made.measure()
        (root / "prog.py").write_text("import time\ntime.sleep(0.1)\n")
        commit_all(root)
        run = made.executor.measure(
            replace(made.open(), commit=git(root, "rev-parse", "HEAD")), untouched
        )
        costs = Costs.read(made.file(run, ""))
        assert sorted(path.name for path in made.file(run, "").iterdir()) == ["costs.json", "log"]
        assert list(made.paths.trees.iterdir()) == []
    assert unchanged.metric == pytest.approx(1, abs=0.4)
    assert (len(costs.own), len(costs.reference)) == (3, 3)
    assert run.metric == min(costs.own) / min(costs.reference)
    assert run.metric < 0.7
    assert run.numbers["wall_time_s"] == min(costs.own)
    assert run.numbers["wall_time_s_unchanged"] == min(costs.reference) > 0.5


def test_no_repetition_finds_what_another_has_computed(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "places = ['answer', os.environ['TMPDIR'] + '/answer', '/tmp/answer', '/dev/shm/answer']\n"
        "for place in places:\n"
        "    if os.path.exists(place): sys.exit(f'found {place}')\n"
        "    try: open(place, 'w').write('42')\n"
        "    except OSError: pass\n"
    )
    with bench(make(tmp_path, program)) as made:
        run = made.measure()
        assert run.reason is None, made.file(run, "log").read_text()


def test_a_program_cannot_be_fast_in_one_repetition_and_right_in_another(tmp_path: Path) -> None:
    """In two of three repetitions it guesses instead of working: one of those is the cheapest, and
    the one that is scored."""
    program = (
        "if os.urandom(1)[0] < 170: open('answer', 'w').write('guessed')\n"
        "else:\n    burn(0.3)\n    open('answer', 'w').write('right')\n"
    )
    score = {"score.sh": "grep -q right answer\n"}
    with bench(make(tmp_path, program, SCORED, **score)) as made:
        for _ in range(3):
            run = made.measure()
            if run.metric is None:
                assert run.reason == "score: exit code 1"
            else:
                assert run.metric > 0.3


def test_the_scorer_sees_the_answer_and_its_numbers_are_guarded(tmp_path: Path) -> None:
    toml = f"{SCORED}[guards]\nerror = '< 0.5'\n"
    score = {"score.sh": "echo error: $(cat answer)\n"}
    for error, reason in (("0.25", None), ("0.75", "guard failed: error = 0.75, not error < 0.5")):
        with bench(
            make(tmp_path / error, f"open('answer', 'w').write('{error}')\n", toml, **score)
        ) as made:
            run = made.measure()
        assert (run.reason, run.numbers["error"]) == (reason, float(error))
        assert run.metric is not None


def test_a_repetition_that_fails_is_a_crash(tmp_path: Path) -> None:
    with bench(make(tmp_path, "raise SystemExit('no luck')\n", RELATIVE)) as made:
        runs = [made.measure() for _ in range(2)]  # either of both goes first
        for run in runs:
            assert (run.metric, run.reason) == (None, "exit code 1")
            assert "no luck" in made.file(run, "log").read_text()


def test_a_failure_of_the_unchanged_program_is_not_the_changes_fault(tmp_path: Path) -> None:
    root = make(tmp_path, "raise SystemExit(3)\n", RELATIVE)
    with bench(root) as made:
        (root / "prog.py").write_text("")
        commit_all(root)
        run = replace(made.open(), commit=git(root, "rev-parse", "HEAD"))
        with pytest.raises(Interrupted, match="timed beside it, failed: exit code 3"):
            made.executor.measure(run, untouched)


def test_what_was_measured_before_a_kill_is_not_measured_again(tmp_path: Path) -> None:
    with bench(make(tmp_path, "print('loss: 0.5')\n")) as made:
        run = made.open()
        killed = patch.object(made.ledger, "finish_run", side_effect=KeyboardInterrupt)
        with killed, pytest.raises(KeyboardInterrupt):
            made.executor.measure(run, untouched)
        costs = Costs.read(made.file(run, ""))
        with patch.object(made.executor.commands.runner, "run", side_effect=AssertionError):
            done = made.executor.measure(run, untouched)
        assert done.metric == min(costs.own)
        assert done.numbers["loss"] == 0.5


def test_check_says_what_nothing_checks(tmp_path: Path) -> None:
    root = make(tmp_path, "N = 1\n", TASK.replace("repeats = 3", "repeats = 1"))
    said = call(root, "check", "--runs", "2").stdout
    assert 'time ([metric] measure = "cpu_time", repeats = 1, relative = false)' in said
    assert "NOT: nothing checks that the program does the same in less time ([score])" in said


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("measure =", "pattern = '(.+)'\nmeasure =", "reads a number, but `measure` measures it"),
        ('measure = "cpu_time"\n', "", 'repeats: needs `measure`, such as measure = "cpu_time"'),
        ('"minimize"', '"maximize"', 'found "maximize"; a cpu_time can only be minimized'),
        ("[run]\n", '[run]\nbudget = "1s"\n', "takes as long as that; use `timeout`"),
        ("[run]\n", '[run]\ncaches = ["/x"]\n', "could find there what an earlier repetition"),
        ("[runner]", "[judge]\ndeterministic = true\n[runner]", "is never the same twice"),
        ('"cpu_time"', '"time"', 'accepted: "cpu_time" or "wall_time" or "instructions"'),
        ("repeats = 3", "repeats = 0", "repeats: found 0 (below 1)"),
    ],
)
def test_a_task_that_makes_no_sense(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "autoresearch.toml").write_text(TASK.replace(old, new))
    with pytest.raises(TaskError) as error:
        load(tmp_path)
    assert message in str(error.value)


def test_the_defaults(tmp_path: Path) -> None:
    """Neighbours change times, but not how many instructions a program has."""
    bare = TASK.replace("repeats = 3\nrelative = false\n[runner]\ncores = 1\n", "")
    expected = {"cpu_time": (5, True), "wall_time": (5, True), "instructions": (1, False)}
    for what, (repeats, relative) in expected.items():
        (tmp_path / "autoresearch.toml").write_text(bare.replace("cpu_time", what))
        task = load(tmp_path)
        assert task.measure == Measure(what, repeats, relative)
        assert task.runner.cores == 1


def test_a_measure_that_this_machine_lacks_is_refused_before_any_run(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "N = 1\nraise SystemExit('it was executed')\n",
        TASK.replace("cpu_time", "instructions"),
    )
    message = "measure = \"instructions\": the runner 'local' cannot count them here"
    with patch.object(LocalRunner, "counts_instructions", False):
        with pytest.raises(TaskError, match=message):
            check_task(load(root), 3, lambda event: None)
        with pytest.raises(TaskError, match=message), open_session(load(root), "t", lambda e: None):
            pass
    cpu_time = Measure("cpu_time", 5, relative=True)
    with closing(LocalRunner(1)) as runner:
        check_measurable(replace(cpu_time, what="wall_time"), runner)
        blind = patch.object(LocalRunner, "misses_cpu_time", True)
        with blind, pytest.raises(TaskError, match="a program could hide it"):
            check_measurable(cpu_time, runner)


def test_a_cost_that_is_not_known_is_no_number() -> None:
    result = RunResult(0, None, 1.0, None, None)
    with pytest.raises(Interrupted, match="its cpu_time could not be measured"):
        get_cost(Measure("cpu_time", 5, relative=True), result)
    assert get_cost(Measure("wall_time", 5, relative=True), result) == 1.0
    assert (
        get_cost(Measure("instructions", 1, relative=False), replace(result, instructions=7)) == 7
    )


# ---- cores, and instructions ---------------------------------------------------------------------


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_run_has_its_core_for_itself(tmp_path: Path) -> None:
    all_cores = os.sched_getaffinity(0)
    with closing(LocalRunner(1, cores=1)):
        assert os.sched_getaffinity(0) == all_cores - {max(all_cores)}
        started = ["python", "-S", "-E", "-c", "import os; print(len(os.sched_getaffinity(0)))"]
        out = subprocess.run(started, check=True, capture_output=True, text=True).stdout
        assert int(out) == len(all_cores) - 1  # an agent's program, too
    assert os.sched_getaffinity(0) == all_cores
    root = make(tmp_path, "print('cores:', *os.sched_getaffinity(0))\n")
    with bench(root) as made, closing(LocalRunner(1, cores=1)) as runner:
        made.executor.commands.runner = runner
        run = made.measure()
        assert made.file(run, "log").read_text() == f"cores: {max(all_cores)}\n"
    with pytest.raises(
        RunnerError, match=r"slots = 2 with cores = 512 need 1,024 cores; this proc"
    ):
        LocalRunner(2, cores=512)


@linux_only
def test_a_counter_counts_descendants_alone() -> None:
    """Of nanoseconds instead of instructions: few machines of tests have a counter of those."""
    counter = InstructionCounter(cpu_clock.SOFTWARE, cpu_clock.TASK_CLOCK)
    if counter.used() is None:
        pytest.skip("this kernel gives us no performance counters")
    burn = f"{BURN}burn(0.1)\nif os.fork() == 0: burn(0.1)\n"
    subprocess.run(["python", "-S", "-E", "-c", burn], check=True)
    time.sleep(0.3)  # the child that nobody waits for
    began = time.process_time()
    while time.process_time() < began + 0.2:
        pass
    used = counter.used()
    assert used is not None
    assert 0.1 < used / 1e9 < 0.39
