"""Executes runs as jobs of Slurm, by submitit: a job for each run.

The task's folder must be on a disk that the nodes share. A job works on its node's own disk, where
it makes the run's tree from content (`support/remote_slot.py`), and writes the output and what the
run left to the harness's paths. Inputs are read from the shared disk.
https://github.com/facebookincubator/submitit
"""

from __future__ import annotations

import importlib
import logging
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from autoresearch.errors import RunnerError
from autoresearch.files import remove_tree
from autoresearch.protocols import RunResult, RunSpec, TreeSource
from autoresearch.runners.support.remote_slot import Machine, RemoteSlot, describe_machine
from autoresearch.runners.support.shipping import Shipment, follow_log, make_shipment, receive
from autoresearch.task import values
from autoresearch.task.model import RunnerSettings, Task
from autoresearch.task.tables import read_options

FOLLOW_S = 1.0  # between two looks at a job, and at its output
STATE_S = 10.0  # between two questions to Slurm about a job
SILENT_S = 120.0  # without a sign of the other side, a job or the harness is lost
END_S = 30.0  # for a job to end after an interrupt; then it is cancelled
STARTUP_MINUTES = 10  # of a job, beyond its run's timeout
ENDED = ("CANCELLED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
SIGNALLED = (-signal.SIGTERM, -signal.SIGKILL)  # exit codes
SIGNAL_S = 2.0  # until a signal that a run has got reaches its job, too
STARTED, INTERRUPT, JOB_BEAT, OUR_BEAT = "started", "interrupt", "job-beat", "our-beat"


@dataclass(frozen=True, slots=True)
class Options:
    """The keys of `[runner.slurm]`; `partition`, `account`, `qos` and `constraint` are Slurm's."""

    executor: values.Executor = "slurm"
    partition: values.Text | None = None
    account: values.Text | None = None
    qos: values.Text | None = None
    constraint: values.Text | None = None
    cpus: values.Count = 1
    gpus: values.Limit | None = None
    prologue: values.Texts = ()  # commands of the shell before each run, such as "module load cuda"
    first_wait_s: values.Duration = 3600.0  # for the first job, in the queue


def create(settings: RunnerSettings) -> SlurmRunner:
    options = read_options(Options, "slurm", settings.options.get("slurm", {}), RunnerError)
    return SlurmRunner(settings.slots, options, settings.memory_bytes)


class SlurmRunner:
    name = "slurm"

    def __init__(self, slots: int, options: Options, memory_bytes: int | None = None) -> None:
        """Raises `RunnerError` if there is no Slurm here, or it accepts no such job."""
        self.slots = slots
        self._options = options
        self._memory_bytes = memory_bytes
        self._submitit = _import_submitit()
        self._numbers = count()
        self._free = list(range(slots))
        self._changed = threading.Condition()
        self._busy: set[int] = set()  # numbers of runs
        self._interrupts = 0
        self._is_closed = False
        self._machine: Machine | None = None  # of all runs; known after `check` or the first run

    @property
    def facts(self) -> dict[str, str]:
        return self._machine.facts if self._machine else {}

    @property
    def misses_cpu_time(self) -> bool:
        return self._machine is not None and not self._machine.counts_cpu_time

    def check(self, task: Task) -> None:
        """Execute a first job, which tells the kind of node. Raises `RunnerError`."""
        if task.run.setup is not None:
            raise RunnerError(
                "[run] setup works on one machine only. Prepare the environment on the shared disk "
                "before, and leave `setup` out"
            )
        folder = task.root / ".autoresearch" / "slurm"
        job = self._submit(folder, 60.0, describe_machine)
        deadline = time.monotonic() + self._options.first_wait_s
        while not _has_result(job):
            if time.monotonic() > deadline or _is_over(job):
                job.cancel(check=False)
                raise RunnerError(_explain(job, "the first job of Slurm did not run"))
            time.sleep(FOLLOW_S)
        self._machine = job.result()
        remove_tree(folder)

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        shipment = make_shipment(next(self._numbers), spec, source, (), {})
        interrupts = self._interrupts
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._is_closed)
            if self._is_closed:
                raise RunnerError("the runner is closed")
            slot = self._free.pop(0)
        folder = spec.log.with_suffix(".slurm")
        self._busy.add(shipment.number)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds the environment
            spec.tree.mkdir(parents=True, exist_ok=True)
            job = self._submit(
                folder, spec.timeout_s, carry_out, shipment, folder, slot, self._machine
            )
            return replace(self._follow(job, folder, interrupts), slot=slot)
        finally:
            remove_tree(folder)
            self._busy.discard(shipment.number)
            with self._changed:
                self._free.append(slot)
                self._changed.notify()

    def _submit(self, folder: Path, timeout_s: float, function: Any, *arguments: object) -> Any:
        """Raises `RunnerError` if Slurm refuses the job."""
        try:
            executor = self._submitit.AutoExecutor(folder, cluster=self._options.executor)
            executor.update_parameters(**self._make_parameters(timeout_s))
            return executor.submit(function, *arguments)
        except Exception as error:  # of many kinds, from submitit and Slurm's commands
            raise RunnerError(f"Slurm accepts no job: {error}") from error

    def _make_parameters(self, timeout_s: float) -> dict[str, Any]:
        options = self._options
        own = {
            "name": "autoresearch",
            "timeout_min": int(timeout_s / 60) + STARTUP_MINUTES,
            "cpus_per_task": options.cpus,
            "gpus_per_node": options.gpus,
            "mem_gb": self._memory_bytes and self._memory_bytes / 1e9,
        }
        names = ("partition", "account", "qos", "constraint")
        slurm = {f"slurm_{name}": getattr(options, name) for name in names}
        slurm["slurm_setup"] = list(options.prologue) or None
        return {name: value for name, value in (own | slurm).items() if value is not None}

    def _follow(self, job: Any, folder: Path, interrupts: int) -> RunResult:
        """Wait for a job's end. A job that is lost, or that its node lost, is to be made again."""
        beat = Beat(folder / JOB_BEAT)
        cancel_at: float | None = None
        look_at = time.monotonic() + STATE_S
        while not _has_result(job):
            (folder / OUR_BEAT).write_text(str(time.monotonic()))
            if self._interrupts != interrupts and cancel_at is None:
                (folder / INTERRUPT).touch()
                has_started = (folder / STARTED).exists()
                cancel_at = time.monotonic() + (END_S if has_started else 0.0)
            if cancel_at is not None and time.monotonic() >= cancel_at:
                job.cancel(check=False)
                return RunResult(None, "interrupted", 0.0, None, None)
            is_silent = (folder / STARTED).exists() and beat.silent_s() > SILENT_S
            if is_silent or (time.monotonic() > look_at and _is_over(job)):
                job.cancel(check=False)
                return RunResult(None, "lost", 0.0, None, None, detail=_explain(job, "job lost"))
            if time.monotonic() > look_at:
                look_at = time.monotonic() + STATE_S
            time.sleep(FOLLOW_S / 10 if cancel_at else FOLLOW_S)
        return self._read_answer(job)

    def _read_answer(self, job: Any) -> RunResult:
        if (error := job.exception()) is not None:
            raise RunnerError(f"a job of Slurm failed: {_last_line(str(error))}")
        machine, result = job.result()
        if result is None:
            assert self._machine is not None
            raise RunnerError(
                f"Slurm gave a run to the node {machine.host}, which is of another kind "
                f"({machine.kind}) than {self._machine.host} ({self._machine.kind}): their numbers "
                "cannot be compared. Choose one kind by [runner.slurm] constraint or partition"
            )
        self._machine = self._machine or machine
        answer: RunResult = result
        return answer

    def interrupt(self) -> None:
        self._interrupts += 1

    def close(self) -> None:
        self._is_closed = True
        self.interrupt()
        with self._changed:
            self._changed.notify_all()
        deadline = time.monotonic() + 2 * END_S
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.02)


# ---- in the job --------------------------------------------------------------------------------


def carry_out(
    shipment: Shipment, folder: Path, number: int, expected: Machine | None
) -> tuple[Machine, RunResult | None]:
    """Execute a run on this node, and write what it leaves to the harness's paths. No result if
    this machine is of another kind than the expected one. Raises `RunnerError`."""
    if not folder.exists():
        raise RunnerError(f"{folder} is not on this node: the task must be on a shared disk")
    is_ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_ending.set())  # Slurm ends the job, or preempts it
    (folder / JOB_BEAT).touch()
    (folder / STARTED).touch()
    machine = describe_machine()
    if expected is not None and machine.facts != expected.facts:
        return machine, None
    slot, has_ended = RemoteSlot(), threading.Event()
    spec = shipment.spec
    spec.log.write_bytes(b"")
    watching = threading.Thread(target=partial(_watch, slot, shipment, folder, has_ended))
    watching.start()
    try:
        ended = slot.run(shipment)
        has_ended.set()
        watching.join()
        # Slurm signals all processes of a job, so that the run may end before this one.
        if ended.result.exit_code in SIGNALLED and is_ending.wait(SIGNAL_S):
            return machine, RunResult(None, "lost", 0.0, None, None, detail="Slurm ended its job")
        return machine, receive(spec, ended, slot.read, number)
    finally:
        has_ended.set()
        slot.close()


def _watch(slot: RemoteSlot, shipment: Shipment, folder: Path, has_ended: threading.Event) -> None:
    """Copy the output, and interrupt the run when the harness wants it or is gone."""
    beat = Beat(folder / OUR_BEAT)
    while not has_ended.wait(FOLLOW_S):
        with suppress(OSError):  # the harness has removed its files
            (folder / JOB_BEAT).write_text(str(time.monotonic()))
            follow_log(shipment.spec, slot.read)
        if (folder / INTERRUPT).exists() or not folder.exists() or beat.silent_s() > SILENT_S:
            slot.interrupt(shipment.number)


class Beat:
    """A file that the other side writes again and again. The clocks of nodes differ, so that only
    changes of its content count."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._content: bytes | None = None
        self._changed_at = time.monotonic()

    def silent_s(self) -> float:
        """Seconds since the latest change that was seen."""
        content = None
        with suppress(OSError):
            content = self._file.read_bytes()
        if content != self._content:
            self._content, self._changed_at = content, time.monotonic()
        return time.monotonic() - self._changed_at


# ---- jobs --------------------------------------------------------------------------------------


def _has_result(job: Any) -> bool:
    return bool(job.paths.result_pickle.exists())


def _is_over(job: Any) -> bool:
    """Whether a job has ended without a result. If Slurm does not answer, it may still run."""
    if hasattr(job, "_process"):  # of submitit's local executor
        return bool(job.done()) and not _has_result(job)
    command = ["squeue", "--noheader", f"--jobs={job.job_id}", "--format=%T"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    is_unknown = asked.returncode != 0 and "Invalid job id" in asked.stderr
    is_gone = asked.returncode == 0 and asked.stdout.strip() in ("", *ENDED)
    return (is_gone or is_unknown) and not _has_result(job)


def _explain(job: Any, what: str) -> str:
    """With the last line that the job printed."""
    with suppress(OSError):
        what += f": {_last_line(job.paths.stderr.read_text(errors='replace'))}"
    return what


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _import_submitit() -> Any:
    try:
        submitit = importlib.import_module("submitit")
    except ImportError as error:
        raise RunnerError(
            "the runner slurm needs the package submitit: pip install 'autoresearch[slurm]' "
            f"(python is {sys.executable})"
        ) from error
    logging.getLogger("submitit").setLevel(logging.ERROR)
    return submitit
