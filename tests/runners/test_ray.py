"""The runner `ray` on real clusters, of several nodes on this machine.

One cluster serves most tests, and this process is connected to it. The others start one from the
command line, and a session in a process of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.sessions import ScriptedAgent, change, make_task, night, run_session, side, wait_until

from autoresearch.commands.start import make_runner
from autoresearch.errors import RunnerError
from autoresearch.protocols import Runner
from autoresearch.runners import load
from autoresearch.runners.ray import Options, RayRunner
from autoresearch.runners.support.remote_slot import Machine
from autoresearch.store.paths import SessionPaths
from autoresearch.task.model import RunnerSettings
from autoresearch.task.reading import load as load_task
from autoresearch.task.reading import override
from autoresearch.testing import Files, RunnerSuite

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("default"),  # Ray's own
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of two CPUs each, to which this process is connected."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.usefixtures("cluster")
class TestRayRunner(RunnerSuite):
    def make(self, slots: int) -> Runner:
        return RayRunner(slots, Options("auto", mounted=("/",)))


SUITE = TestRayRunner()


@pytest.mark.usefixtures("cluster")
def test_output_comes_back_while_the_run_goes_on(tmp_path: Path) -> None:
    with SUITE.calls() as calls, SUITE.runner() as runner, ThreadPoolExecutor(1) as pool:
        spec = SUITE.spec(tmp_path, f"print('begun', flush=True)\n{calls.program}call.recv(1)")
        running = pool.submit(runner.run, spec, Files())
        (call,) = calls.wait_for(1)
        wait_until(lambda: spec.log.exists() and spec.log.read_text() == "begun\n")
        assert not running.done()
        call.send(b"x")
        assert running.result(60).exit_code == 0


@pytest.mark.usefixtures("cluster")
def test_nothing_is_left_on_a_node(tmp_path: Path) -> None:
    with SUITE.calls() as calls, SUITE.runner() as runner, ThreadPoolExecutor(1) as pool:
        program = f"import os\n{calls.program}call.send(os.getcwd().encode())\ncall.recv(1)"
        running = pool.submit(runner.run, SUITE.spec(tmp_path, program), Files())
        (call,) = calls.wait_for(1)
        folder = Path(call.recv(1000).decode())
        assert folder.parent.parent.name.startswith("autoresearch-slot-")
        runner.close()
        assert running.result(60).stopped in ("interrupted", "lost")
        assert not folder.parent.parent.exists()


def test_a_run_whose_node_dies_is_placed_again(cluster: Any, tmp_path: Path) -> None:
    doomed = cluster.add_node(num_cpus=2, resources={"here": 2})
    options = Options("auto", mounted=("/",), resources=(("here", 1.0),))
    with (
        SUITE.calls() as calls,
        closing(RayRunner(1, options)) as runner,
        ThreadPoolExecutor(1) as pool,
    ):
        program = f"{calls.program}print('begun', flush=True)\ncall.recv(1)"
        spec = SUITE.spec(tmp_path, program)
        running = pool.submit(runner.run, spec, Files())
        calls.wait_for(1)
        cluster.remove_node(doomed, allow_graceful=False)
        other = cluster.add_node(num_cpus=2, resources={"here": 2})
        again = calls.wait_for(1)[-1]
        again.send(b"x")
        result = running.result(120)
        cluster.remove_node(other)
    assert (result.exit_code, result.stopped) == (0, None)
    assert "placed again: its node" in result.detail
    assert spec.log.read_text() == "begun\n"


def test_a_session_loses_a_node_in_the_middle_of_runs_and_no_run(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots are on the node that is killed, and the cluster has no room for them afterwards: the
    others do their work."""
    root = make_task(tmp_path / "task")
    started, gate = side(root) / "started", side(root) / "gate"
    monkeypatch.setenv("COUNTED", str(started))
    stays = cluster.add_node(num_cpus=2, resources={"here": 2})
    doomed = cluster.add_node(num_cpus=2, resources={"here": 2})

    def count() -> int:
        return len(started.read_text().split()) if started.exists() else 0

    def lose_the_node() -> int:
        wait_until(lambda: count() >= 7, 120)  # the baseline's three runs and four that wait
        cluster.remove_node(doomed, allow_graceful=False)
        gate.touch()
        return count()

    steps = [change(WAIT_A=str(gate), BONUS=number / 10) for number in range(1, 6)]
    with ThreadPoolExecutor(1) as pool:
        losing = pool.submit(lose_the_node)
        settings = {"runner.ray": {"address": "auto", "resources": {"here": 1}}}
        told = run_session(
            root, ScriptedAgent(*steps), runner__name="ray", runner__slots=4, **settings
        )
        losing.result()
    cluster.remove_node(stays)
    assert len(told.verdicts) == 5
    assert "crash" not in [status for status, _ in told.verdicts]
    assert all(run.metric is not None for run in told.runs)
    assert count() > len(told.runs)  # those that were lost began again


@pytest.mark.usefixtures("cluster")
def test_inputs_are_shipped_once_and_again_when_they_change(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "deep" / "x").write_text("first")
    source = Files()
    source.links["data"] = str(data)
    program = "import os\nprint(os.path.realpath('data'), open('data/deep/x').read())"
    with closing(RayRunner(1, Options("auto"))) as runner:
        places = []
        for name, expected in (("a", "first"), ("b", "first"), ("c", "second")):
            if expected == "second":
                (data / "deep" / "x").write_text("second")
            spec = SUITE.spec(tmp_path, program, name=name)
            assert runner.run(spec, source).exit_code == 0, spec.log.read_text()
            place, content = spec.log.read_text().split()
            assert content == expected
            places.append(place)
    assert places[0] == places[1] != places[2]
    assert str(data) not in places


# ---- what is refused ---------------------------------------------------------------------------


def test_inputs_that_are_too_large_are_refused_with_the_way_to_mount_them(
    cluster: Any, tmp_path: Path
) -> None:
    toml = (
        'objective = "lower it"\neditable = ["prog.py"]\n[run]\ncommand = "python prog.py"\n'
        'inputs = ["data/"]\n[metric]\nname = "score"\ngoal = "minimize"\n[runner]\nname = "ray"\n'
        '[runner.ray]\naddress = "auto"\nship_limit = "1MB"\n'
    )
    root = make_task(tmp_path / "task", toml=toml, files={"data/x": "0" * 2_000_000})
    with pytest.raises(RunnerError, match=r"inputs are 2 MB, .*/data is 2 MB; at most 1 MB") as e:
        make_runner(load_task(root))
    assert 'mounted = ["data/"]' in str(e.value)
    mounted = override(load_task(root), **{"runner.ray.mounted": ["data"]})
    make_runner(mounted).close()
    with pytest.raises(RunnerError, match="setup works on one machine only"):
        make_runner(override(mounted, **{"run.setup": "true"}))


@pytest.mark.parametrize(
    ("slots", "options", "words"),
    [
        (1, {"gpus": 1}, "no node of the Ray cluster can hold a run, which needs CPU 1, GPU 1"),
        (1, {"resources": {"fast": 1}}, "needs CPU 1, fast 1. The nodes have: CPU 2"),
        (5, {}, "room for 4 runs at a time, each with CPU 1; [runner] slots = 5. Accepted: at m"),
        (1, {"kind": "Abacus"}, "no node of the Ray cluster is of the kind 'Abacus'. There are:"),
        (1, {"cpu": 1}, "ray: unknown option 'cpu'; did you mean \"cpus\"?"),
        (1, {"gpus": -1}, "ray: option gpus: found -1 (below 0); accepted: a number, at least 0"),
    ],
)
def test_a_cluster_without_the_resources(
    cluster: Any, slots: int, options: dict[str, Any], words: str
) -> None:
    settings = RunnerSettings("ray", slots, options={"ray": {"address": "auto", **options}})
    with pytest.raises(RunnerError) as refused:
        load(settings)
    assert words in str(refused.value)


def test_nodes_of_two_kinds_are_refused_unless_one_is_chosen(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoresearch.runners.support.ray_cluster import RayCluster

    describe = RayCluster.describe

    def describe_with_gpus(self: RayCluster, node: str) -> Machine:
        machine = describe(self, node)
        first = min(self.list_nodes())
        return replace(machine, gpu="NVIDIA H100" if node == first else "NVIDIA A100")

    monkeypatch.setattr(RayCluster, "describe", describe_with_gpus)
    with pytest.raises(RunnerError, match="are of several kinds") as refused:
        RayRunner(1, Options("auto"))
    assert "NVIDIA H100" in str(refused.value)
    assert "NVIDIA A100" in str(refused.value)
    with closing(RayRunner(2, Options("auto", kind="H100"))) as runner:
        assert runner.facts["node GPU"] == "NVIDIA H100"


# ---- clusters from the command line ------------------------------------------------------------


class CommandLine:
    """A head node, and perhaps others, started as a user starts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.client_port = _free_port(), _free_port()
        self.env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}

    def start(self, *options: str, python: str = sys.executable) -> None:
        with (self.folder / "ray.log").open("ab") as log:  # a pipe would stay open
            subprocess.run(
                [python, "-m", "ray.scripts.scripts", "start", "--num-cpus=2", *options],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                timeout=120,
                cwd=self.folder,
            )

    def start_head(self) -> None:
        self.start(
            *("--head", f"--port={self.port}", "--include-dashboard=false"),
            *(f"--ray-client-server-port={self.client_port}", f"--temp-dir={self.folder}/ray"),
        )

    def processes(self, *names: str) -> list[psutil.Process]:
        """Those of this cluster, or the ones with such a word in their command."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or ())
            if (str(self.folder / "ray") in line or f":{self.port}" in line) and (
                not names or any(name in line for name in names)
            ):
                found.append(process)
        return found

    def kill(self, *names: str) -> None:
        for process in self.processes(*names):
            process.kill()


@pytest.fixture
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    line = CommandLine(tmp_path_factory.mktemp("r"))
    yield line
    while line.processes():
        line.kill()
        time.sleep(0.2)


def _free_port() -> int:
    """Below those that Ray gives to its workers."""
    for port in range(6400, 9900):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _TAKEN:
                _TAKEN.add(port)
                return port
    raise AssertionError("no port is free")


_TAKEN: set[int] = set()


def test_an_address_where_nothing_answers(tmp_path: Path) -> None:
    for address in (f"ray://127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}"):
        root = make_task(tmp_path / address.replace("/", ""))
        done = run_cli(root, address)
        assert done.returncode == 6
        assert f"[runner.ray] address: nothing answers at {address}" in done.stderr
        assert not night_exists(root)


def test_a_worker_without_the_package(line: CommandLine, tmp_path: Path) -> None:
    """Its Python has Ray alone."""
    ray = Path(pytest.importorskip("ray").__file__).parent.parent
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    site = next((tmp_path / "venv").glob("lib/python3*/site-packages"))
    (site / "ray.pth").write_text(f"{ray}\n")
    if (ray / "autoresearch").exists() or list(ray.glob("*autoresearch*")):
        pytest.skip("Ray is installed beside autoresearch: no Python can have it alone")
    line.start_head()
    python = str(tmp_path / "venv/bin/python")
    line.start(f"--address=127.0.0.1:{line.port}", python=python)
    root = make_task(tmp_path / "task")
    done = run_cli(root, f"ray://127.0.0.1:{line.client_port}", slots=3)
    assert done.returncode == 6, done.stderr
    assert "of the Ray cluster cannot execute runs: its Python has no autoresearch" in done.stderr
    assert "pip install 'autoresearch[ray]'" in done.stderr
    assert not night_exists(root)


def test_a_cluster_with_another_python(line: CommandLine, tmp_path: Path) -> None:
    """The head node's Python says that it is another."""
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "sitecustomize.py").write_text(
        "import ray._private.utils as utils\n"
        "utils.compute_version_info = lambda: ('0.0.1', '3.99.0')\n"
    )
    line.env |= {"PYTHONPATH": str(fake)}
    line.start_head()
    del line.env["PYTHONPATH"]
    root, address = make_task(tmp_path / "task"), f"127.0.0.1:{line.port}"
    done = run_cli(root, address)
    assert done.returncode == 6, done.stderr
    assert f"the Ray cluster at {address} has another version" in done.stderr
    assert "3.99.0" in done.stderr
    assert not night_exists(root)


@pytest.mark.parametrize("way", ["client", "node"])
def test_a_head_node_that_dies_ends_the_session_and_it_can_be_resumed(
    line: CommandLine, tmp_path: Path, way: str
) -> None:
    line.start_head()
    address = f"ray://127.0.0.1:{line.client_port}" if way == "client" else f"127.0.0.1:{line.port}"
    root = make_task(tmp_path / "task", program=SLOW)
    with (tmp_path / "out").open("w") as out:
        session = subprocess.Popen(
            command(root, address, 2), stdout=out, stderr=out, env=line.env, cwd=root
        )
    read = (tmp_path / "out").read_text
    wait_until(lambda: session.poll() is not None or read().count("baseline") >= 2, 300)
    line.kill()
    assert session.wait(120) == 6, read()
    said = read()
    assert f"the head node of the Ray cluster ({address}) is gone" in said
    assert "Traceback" not in said
    before = {run.id for run in night(root).runs if run.finished}
    assert len(before) >= 2
    line.start_head()
    done = run_cli(root, address, slots=2, env=line.env)
    assert done.returncode == 0, done.stderr
    after = night(root)
    assert before <= {run.id for run in after.runs}
    assert len(after.experiments) == 3


def test_a_killed_session_leaves_no_run_on_the_cluster(line: CommandLine, tmp_path: Path) -> None:
    line.start_head()
    root = make_task(tmp_path / "task", program="import time\nX = 1.0\ntime.sleep(600)\n")
    address = f"127.0.0.1:{line.port}"
    session = subprocess.Popen(
        command(root, address, 1), stdout=subprocess.DEVNULL, env=line.env, cwd=root
    )
    mark = str(SessionPaths(root, "t").folder)

    def runs() -> list[int]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("AUTORESEARCH_SESSION") == mark:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    wait_until(runs, 300)
    session.send_signal(signal.SIGKILL)
    session.wait()
    wait_until(lambda: not runs(), 60)


SLOW = """\
import os, time
VALUE = 10.0
time.sleep(2)
seed = int(os.environ["AUTORESEARCH_SEED"])
print("score:", VALUE + (seed * 2654435761 % 2**32 / 2**32 - 0.5) * 0.1)
"""


def command(root: Path, address: str, slots: int) -> list[str]:
    """A session of two experiments, whose task uses the cluster."""
    with (root / "autoresearch.toml").open("a") as file:
        file.write(
            f'[runner]\nname = "ray"\nslots = {slots}\n[runner.ray]\naddress = "{address}"\n'
            if "[runner]" not in (root / "autoresearch.toml").read_text()
            else ""
        )
    module = [sys.executable, "-m", "autoresearch", "run", "--plain", "--tag", "t"]
    return [*module, "--experiments", "2"]


def run_cli(
    root: Path, address: str, slots: int = 1, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, address, slots),
        cwd=root,
        env=env or os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def night_exists(root: Path) -> bool:
    """Whether a refused start left a session behind."""
    try:
        night(root)
    except Exception:
        return False
    return True
