"""How many slots pay: the rule, the options, and real runs at the same time."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support.commands import call
from support.sessions import ScriptedAgent, change, make_task, run_session, task_of

from autoresearch.commands.slots import SlotRuns, choose, read_most
from autoresearch.errors import RunnerError, TaskError
from autoresearch.records import Goal, Metric
from autoresearch.runners.support import resources
from autoresearch.runners.support.resources import count_usable_slots, divide_machine

ALONE = SlotRuns(1, 10.0, (1.0, 1.02))


@pytest.mark.parametrize(
    ("several", "best"),
    [
        ([SlotRuns(2, 10.5, (1.0, 1.02))], 2),
        ([SlotRuns(2, 18.5, (1.0, 1.02))], 1),  # 8 % more runs an hour
        ([SlotRuns(2, 10.0, (1.5, 1.51))], 1),  # they train less in their budget
        ([SlotRuns(2, 10.0, (0.5, 0.51))], 2),  # better is no disturbance
        ([SlotRuns(2, 10.0, (1.0, 1.02)), SlotRuns(4, 11.0, (1.0, 1.02, 1.01, 1.0))], 4),
        ([SlotRuns(2, 10.0, (1.0, 1.02)), SlotRuns(4, 19.0, (1.0, 1.02, 1.01, 1.0))], 2),
    ],
)
def test_slots_pay_that_make_more_runs_and_do_not_harm_the_metric(
    several: list[SlotRuns], best: int
) -> None:
    assert choose([ALONE, *several], Metric("loss")) == best


def test_a_metric_to_maximize_and_one_without_noise() -> None:
    accuracy, exact = Metric("accuracy", Goal.MAXIMIZE), SlotRuns(1, 10.0, (0.9, 0.9))
    assert choose([exact, SlotRuns(2, 10.0, (0.8, 0.8))], accuracy) == 1
    assert choose([exact, SlotRuns(2, 10.0, (0.9, 0.9))], accuracy) == 2


@pytest.mark.parametrize("text", ["two", "1.5", "1_0", ""])
def test_what_is_no_number_of_slots(root: Path, text: str) -> None:
    with pytest.raises(TaskError, match=r"accepted: a whole number above 0, or auto"):
        read_most(text, task_of(root))


def test_auto_is_for_this_machine(root: Path) -> None:
    assert read_most("auto", task_of(root)) == count_usable_slots()
    with pytest.raises(TaskError, match="not the runner 'ray'"):
        read_most("auto", task_of(root, runner__name="ray"))


def test_more_slots_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "list_cores", lambda: [0, 1])
    assert len(divide_machine(2)) == 2
    with pytest.raises(RunnerError, match=r"slots = 3: .* 2 cores.* Accepted here: 1 to 2"):
        divide_machine(3)


def test_a_session_is_refused_before_its_baseline(root: Path) -> None:
    cores = len(resources.list_cores())
    with pytest.raises(RunnerError, match=f"Accepted here: 1 to {cores}"):
        run_session(root, ScriptedAgent(), runner__slots=cores + 1)
    assert not list((root / ".autoresearch").glob("t/runs/*"))


def test_gpus_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: x)'\necho 'GPU 1: H100 (UUID: y)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(resources, "list_cores", lambda: list(range(8)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert count_usable_slots() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [part.gpus for part in divide_machine(2)] == [("1",), ("1",)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    with pytest.raises(RunnerError, match="there is no GPU 2; `nvidia-smi -L` lists 2 GPUs"):
        divide_machine(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-x,MIG-y")  # names are CUDA's business
    assert divide_machine(1)


def test_check_measures_slots_and_run_takes_what_pays(tmp_path: Path) -> None:
    if count_usable_slots() < 2:
        pytest.skip("one core")
    program = "import os, time\nVALUE = 10.0\ntime.sleep(0.1)\n"
    program += "print('score:', VALUE + int(os.environ['AUTORESEARCH_SEED']) / 2**40)\n"
    root = make_task(tmp_path / "task", program)
    checked = call(root, "check", "--runs", 2, "--slots", 2)
    assert checked.returncode == 0, checked.stderr
    assert "slots      1 slot: " in checked.stdout and "slots      2 slots: " in checked.stdout
    # Which of them depends on what else this machine does.
    assert re.search(r"(1 slot pays best|2 slots pay): autoresearch run --slots", checked.stdout)
    found = run_session(root, ScriptedAgent(change(VALUE=20.0), change(VALUE=21.0)))
    assert {run.slot for run in found.runs} == {0}
    words = ("--slots", "auto", "--experiments", 3, "--plain")
    more = call(root, "run", "--tag", "t", *words)
    assert more.returncode == 0, more.stderr
    assert "baseline 1 of" not in more.stdout  # the session goes on with the slots that it had
