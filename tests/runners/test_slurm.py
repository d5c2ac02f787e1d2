"""The runner `slurm`, with submitit's local executor and, where it runs, with a real Slurm."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
from support.sessions import ScriptedAgent, change, make_task, run_session, wait_until

from autoresearch.errors import RunnerError
from autoresearch.protocols import Runner
from autoresearch.runners import load
from autoresearch.runners.slurm import Options, SlurmRunner
from autoresearch.task.model import RunnerSettings
from autoresearch.testing import Files, RunnerSuite

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("default"),  # submitit's own
    pytest.mark.timeout(600),
]


class TestSlurmRunner(RunnerSuite):
    """submitit's local executor: each job is a process on this machine."""

    executor: ClassVar[str] = "local"

    def make(self, slots: int) -> Runner:
        pytest.importorskip("submitit")
        return SlurmRunner(slots, Options(self.executor))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of one node on this machine, which takes no other one's place."""
    daemons = ("munged", "slurmctld", "slurmd")
    if os.geteuid() != 0 or not all(map(shutil.which, daemons)):
        pytest.skip("needs root, and Slurm and munge: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(folder=folder, host=socket.gethostname().partition(".")[0])
    )
    key = folder / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    names = ("key-file", "socket", "pid-file", "log-file", "seed-file")
    files = [f"--{name}={key if name == 'key-file' else folder / name}" for name in names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        started = [
            subprocess.Popen(["munged", "--force", "--foreground", *files]),
            subprocess.Popen(["slurmctld", "-D"], stderr=subprocess.DEVNULL),
            subprocess.Popen(["slurmd", "-D"], stderr=subprocess.DEVNULL),
        ]
        try:
            wait_until(lambda: b"idle" in _capture("sinfo", "--noheader"), 60)
            yield
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(30)


CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=6951
SlurmdPort=6952
AuthType=auth/munge
AuthInfo=socket={folder}/socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=8000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def _capture(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=False).stdout


@pytest.mark.usefixtures("slurm")
class TestRealSlurm(TestSlurmRunner):
    """Jobs of a real Slurm."""

    executor = "slurm"


@pytest.mark.usefixtures("slurm")
def test_a_job_that_slurm_cancels_is_lost(tmp_path: Path) -> None:
    suite = TestRealSlurm()
    with suite.calls() as calls, suite.runner() as runner, ThreadPoolExecutor(1) as pool:
        spec = suite.spec(tmp_path, f"{calls.program}call.recv(1)")
        running = pool.submit(runner.run, spec, Files())
        calls.wait_for(1)
        subprocess.run(["scancel", "--signal=KILL", "--name=autoresearch"], check=True)
        result = running.result(120)
        assert (result.exit_code, result.stopped) == (None, "lost")
        assert runner.run(suite.spec(tmp_path, "pass", name="next"), Files()).exit_code == 0


@pytest.mark.usefixtures("slurm")
def test_a_partition_that_slurm_does_not_have(tmp_path: Path) -> None:
    runner = SlurmRunner(1, Options(partition="fast"))
    with closing(runner), pytest.raises(RunnerError, match=r"accepts no job: .*invalid partition"):
        runner.run(SUITE.spec(tmp_path, "pass"), Files())


SUITE = TestSlurmRunner()


def test_output_comes_back_while_the_run_goes_on(tmp_path: Path) -> None:
    with SUITE.calls() as calls, SUITE.runner() as runner, ThreadPoolExecutor(1) as pool:
        spec = SUITE.spec(tmp_path, f"print('begun', flush=True)\n{calls.program}call.recv(1)")
        running = pool.submit(runner.run, spec, Files())
        (call,) = calls.wait_for(1)
        wait_until(lambda: spec.log.exists() and spec.log.read_text() == "begun\n")
        assert not running.done()
        call.send(b"x")
        assert running.result(60).exit_code == 0


def test_a_session(tmp_path: Path) -> None:
    settings = {"runner.slurm": {"executor": "local"}, "runner__name": "slurm"}
    told = run_session(
        make_task(tmp_path / "task"),
        ScriptedAgent(change(VALUE=9.0), change(VALUE=8.0)),
        **settings,
    )
    assert [status for status, _ in told.verdicts] == ["keep", "keep"]


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    runner = load(RunnerSettings("slurm"))
    with (
        closing(runner),
        pytest.raises(RunnerError, match='accepts no job: Could not detect "srun"'),
    ):
        runner.run(SUITE.spec(tmp_path, "pass"), Files())
