"""The local runner and its wardens, with real processes, beyond the suite that all runners pass."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from support.sessions import alive, linux_only, wait_until

from autoresearch.protocols import Confinement, RunResult, RunSpec
from autoresearch.runners.local import LocalRunner
from autoresearch.runners.support.resources import share
from autoresearch.runners.warden import cpu_clock
from autoresearch.sandbox import landlock, seccomp

PYTHON = (sys.executable, "-S", "-E", "-c")
BURN = "import time\nwhile time.process_time() < {}: pass\n"

# Children whose parent ignores SIGCHLD: nobody waits for them, so `wait` reports no time of theirs.
HIDDEN = (
    "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nfor _ in range({}):\n"
    "    if os.fork() == 0:\n        while time.process_time() < 0.1: pass\n        os._exit(0)\n"
    "    try: os.wait()\n    except ChildProcessError: pass\n"
)
needs_counter = pytest.mark.skipif(
    not cpu_clock.is_available(), reason="this kernel gives us no performance counters"
)


@pytest.fixture
def runner() -> Iterator[LocalRunner]:
    with closing(LocalRunner(1)) as runner:
        yield runner


class Place:
    """Makes runs, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def spec(self, program: str = "", **settings: object) -> RunSpec:
        self.count += 1
        tree = self.folder / str(self.count)
        tree.mkdir()
        fields: dict[str, object] = {
            "argv": (*PYTHON, program),
            "tree": tree,
            "log": self.folder / f"{self.count}.log",
            "outcome": self.folder / f"{self.count}.json",
            "env": {"PATH": os.environ["PATH"]},
            "timeout_s": 30.0,
        }
        return RunSpec(**(fields | settings))  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_run(runner: LocalRunner, place: Place) -> None:
    spec = place.spec(
        "import os, sys\nprint(os.getcwd(), flush=True)\nprint(sorted(os.environ))\n"
        "print('error', file=sys.stderr)\nopen('left', 'w').write('x')\nsys.exit(3)\n",
        env={"ONE": "1"},
    )
    result = runner.run(spec)
    assert (result.exit_code, result.stopped, result.slot) == (3, None, 0)
    assert 0 < result.wall_s < 20
    assert spec.log.read_text().splitlines()[0] == str(spec.tree)
    assert "'ONE'" in spec.log.read_text()
    assert "PATH" not in spec.log.read_text()
    assert "error" in spec.log.read_text()
    assert (spec.tree / "left").read_text() == "x"
    assert RunResult(**json.loads(spec.outcome.read_text())) == result


def test_a_crash_leaves_no_core_dump(runner: LocalRunner, place: Place) -> None:
    program = (
        "import os, resource\nlimit, most = resource.getrlimit(resource.RLIMIT_CORE)\n"
        "print(limit <= most <= 1, flush=True)\nos.abort()\n"
    )
    spec = place.spec(program)
    assert runner.run(spec).exit_code == -signal.SIGABRT
    assert spec.log.read_text().startswith("True")
    assert list(spec.tree.iterdir()) == []


def test_a_run_has_no_terminal_and_no_input(runner: LocalRunner, place: Place) -> None:
    program = (
        "import os, sys\nassert sys.stdin.read() == ''\nassert os.getsid(0) == os.getpid()\n"
        "assert sorted(int(fd) for fd in os.listdir('/dev/fd'))[:3] == [0, 1, 2]\n"
        "assert len(os.listdir('/dev/fd')) == 4\n"
    )
    spec = place.spec(program)
    assert runner.run(spec).exit_code == 0, spec.log.read_text()


@pytest.mark.parametrize("argv", [("no-such-program-at-all",), ("./prog",), ("a\0b",)])
def test_a_command_that_cannot_be_started(
    runner: LocalRunner, place: Place, argv: tuple[str, ...]
) -> None:
    spec = place.spec(argv=argv)
    result = runner.run(spec)
    assert (result.exit_code, result.stopped) == (None, "command not found")
    assert "cannot start" in spec.log.read_text()
    assert runner.run(place.spec("pass")).exit_code == 0


@pytest.mark.parametrize("escape", ["", "os.setsid()", "os.setsid(); os.fork() and os._exit(0)"])
def test_no_descendant_outlives_its_run(runner: LocalRunner, place: Place, escape: str) -> None:
    """A process in the background, one in a session of its own, and a daemon."""
    program = (
        "import os, time\n"
        "ready, done = os.pipe()\n"
        "if os.fork() == 0:\n"
        f"    {escape}\n"
        "    open('pid', 'w').write(str(os.getpid()))\n"
        "    os.write(done, b'x')\n"
        "    time.sleep(600)\n"
        "os.read(ready, 1)\n"
    )
    spec = place.spec(program)
    result = runner.run(spec)
    assert (result.exit_code, result.stopped) == (0, None)
    assert not alive(int((spec.tree / "pid").read_text()))


def test_a_timeout_kills_the_whole_tree(runner: LocalRunner, place: Place) -> None:
    program = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid()\n    open('pid', 'w').write(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    spec = place.spec(program, timeout_s=1.5)
    result = runner.run(spec)
    assert (result.exit_code, result.stopped) == (-9, "timeout")
    assert 1.5 <= result.wall_s < 15
    assert not alive(int((spec.tree / "pid").read_text()))


def test_the_budget_in_cpu_seconds(runner: LocalRunner, place: Place) -> None:
    result = runner.run(place.spec(BURN.format(60), limit_s=0.5))
    assert result.stopped == "over budget"
    assert result.cpu_s is not None
    assert 0.5 < result.cpu_s < 5
    asleep = place.spec("import time; time.sleep(1)", limit_s=0.5)
    assert runner.run(asleep).stopped is None


@pytest.mark.parametrize(
    "how",
    ["child", "daemon", "reaped", pytest.param("reaped by the kernel", marks=needs_counter)],
)
def test_the_budget_is_of_the_whole_tree(runner: LocalRunner, place: Place, how: str) -> None:
    burn = BURN.format(60)
    program = {
        "child": f"import os\nif os.fork() == 0:\n    os.setsid()\n{burn}os.wait()\n".replace(
            "import time\nwhile", "    import time\n    while"
        ),
        "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork() == 0:\n        while True: pass\n    os._exit(0)\nos.wait()\n"
        "time.sleep(60)\n",
        "reaped": "import os, time\nfor _ in range(600):\n    if os.fork() == 0:\n"
        "        while time.process_time() < 0.1: pass\n        os._exit(0)\n    os.wait()\n",
        "reaped by the kernel": HIDDEN.format(500),
    }[how]
    result = runner.run(place.spec(program, limit_s=1.0))
    assert result.stopped == "over budget"
    assert result.cpu_s is not None
    assert result.cpu_s > 1.0


def test_a_run_that_ends_just_over_its_budget(runner: LocalRunner, place: Place) -> None:
    result = runner.run(place.spec(BURN.format(0.1), limit_s=0.05))
    assert result.stopped == "over budget"


def test_cpu_seconds_are_of_the_whole_tree(runner: LocalRunner, place: Place) -> None:
    program = (
        "import os\nfor _ in range(2):\n    if os.fork() == 0:\n        break\n" + BURN.format(0.3)
    )
    wait = program + "try:\n    while True: os.wait()\nexcept ChildProcessError: pass\n"
    result = runner.run(place.spec(wait))
    assert result.cpu_s == pytest.approx(0.9, abs=0.35)
    # The CPU seconds of the next run are its own alone.
    again = runner.run(place.spec("pass"))
    assert again.cpu_s is not None
    assert again.cpu_s < 0.3


def test_peak_memory(runner: LocalRunner, place: Place) -> None:
    result = runner.run(place.spec("x = b'x' * 200_000_000"))
    assert result.peak_memory_bytes == pytest.approx(210e6, rel=0.1)
    small = runner.run(place.spec("pass"))
    assert small.peak_memory_bytes is not None
    assert 1e6 < small.peak_memory_bytes < 60e6


def test_the_memory_limit(runner: LocalRunner, place: Place) -> None:
    program = "x = b'x' * 300_000_000\nimport time\ntime.sleep(60)"
    result = runner.run(place.spec(program, memory_bytes=100_000_000))
    assert result.stopped == "memory"
    assert runner.run(place.spec("pass", memory_bytes=100_000_000)).stopped is None


def test_the_memory_limit_is_of_the_whole_tree(runner: LocalRunner, place: Place) -> None:
    program = "import os, time\nos.fork()\nos.fork()\nx = b'x' * 60_000_000\ntime.sleep(60)"
    result = runner.run(place.spec(program, memory_bytes=200_000_000))
    assert result.stopped == "memory"


@pytest.mark.parametrize("then", ["time.sleep(60)", "pass"])
def test_the_log_limit(runner: LocalRunner, place: Place, then: str) -> None:
    """Also for a run that ends before the first sample. The log is cut to the limit."""
    program = f"import time\nprint('x' * 3_000_000, flush=True)\n{then}"
    spec = place.spec(program, log_bytes=1_000_000)
    assert runner.run(spec).stopped == "log too large"
    assert spec.log.stat().st_size == 1_000_000


def test_interrupt(runner: LocalRunner, place: Place) -> None:
    spec = place.spec("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(runner.run, spec)
        wait_until(lambda: (spec.tree / "pid").exists() and (spec.tree / "pid").read_text())
        runner.interrupt()
        result = running.result(timeout=20)
    assert result.stopped == "interrupted"
    assert not alive(int((spec.tree / "pid").read_text()))
    runner.interrupt()  # no effect without a run
    assert runner.run(place.spec("pass")).stopped is None


def test_an_interrupt_that_comes_with_the_request(place: Place) -> None:
    """The warden reads both at once, before the run begins."""
    warden = subprocess.Popen(
        [sys.executable, "-m", "autoresearch.runners.warden.main", ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    spec = place.spec("import time\ntime.sleep(600)")
    request = {name: getattr(spec, name) for name in RunSpec.__dataclass_fields__} | {"slot": 0}
    assert warden.stdin and warden.stdout
    warden.stdin.write(json.dumps(request, default=str) + "\n\n")
    warden.stdin.flush()
    assert json.loads(warden.stdout.readline())["stopped"] == "interrupted"
    warden.communicate(timeout=10)


def test_close_kills_what_is_running(place: Place) -> None:
    runner = LocalRunner(1)
    spec = place.spec("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(runner.run, spec)
        wait_until(lambda: (spec.tree / "pid").exists() and (spec.tree / "pid").read_text())
        runner.close()
        assert running.result(timeout=20).stopped in ("interrupted", "lost")
    assert not alive(int((spec.tree / "pid").read_text()))
    runner.close()


@linux_only  # elsewhere the next start kills the processes
def test_a_killed_warden(runner: LocalRunner, place: Place) -> None:
    spec = place.spec("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(runner.run, spec)
        wait_until(lambda: (spec.tree / "pid").exists() and (spec.tree / "pid").read_text())
        child = psutil.Process(int((spec.tree / "pid").read_text()))
        warden = child.parent()
        assert warden is not None
        warden.kill()
        result = running.result(timeout=20)
    assert result.stopped == "lost"
    assert not spec.outcome.exists()
    wait_until(lambda: not alive(child.pid))
    assert runner.run(place.spec("pass")).exit_code == 0  # with a new warden


@linux_only
def test_slots(place: Place) -> None:
    """Two runs at the same time, each in its slot and on its cores."""
    runner = LocalRunner(2)
    barrier = place.folder / "barrier"
    program = (
        "import os, sys, time\n"
        f"open({str(barrier)!r} + sys.argv[1], 'w').close()\n"
        f"while not os.path.exists({str(barrier)!r} + sys.argv[2]): time.sleep(0.005)\n"
        "print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])\n"
    )
    specs = [place.spec(argv=(*PYTHON, program, *names)) for names in (("a", "b"), ("b", "a"))]
    try:
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(runner.run, specs))
    finally:
        runner.close()
    assert [result.exit_code for result in results] == [0, 0]
    assert {result.slot for result in results} == {0, 1}
    if len(os.sched_getaffinity(0)) > 1:
        assert specs[0].log.read_text() != specs[1].log.read_text()


def test_shares_of_cores_and_gpus() -> None:
    assert [list(share(range(8), slot, 2)) for slot in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [list(share(range(5), slot, 2)) for slot in range(2)] == [[0, 1], [2, 3, 4]]
    assert [list(share(range(2), slot, 3)) for slot in range(3)] == [[0], [1], [0]]
    assert list(share(range(8), 0, 1)) == list(share([], 0, 4)) == []


DRIVER = """
import sys
from pathlib import Path
from autoresearch.store.lock import Lock
from autoresearch.store.paths import SessionPaths
from autoresearch.protocols import RunSpec
from autoresearch.runners.local import LocalRunner

folder = Path(sys.argv[1])
lock = Lock(SessionPaths(folder, "t"))
runner = LocalRunner(1)
runner.hold(lock.fd)
program = '''
import os, time
if os.fork() == 0:
    os.setsid()
    open("daemon", "w").write(str(os.getpid()))
    time.sleep(600)
open("pid", "w").write(str(os.getpid()))
time.sleep(600)
'''
argv = (sys.executable, "-S", "-E", "-c", program)
runner.run(RunSpec(argv, folder, folder / "log", folder / "outcome.json", {}, 600.0))
"""


def test_a_killed_harness_leaves_no_process_and_no_lock(tmp_path: Path) -> None:
    from autoresearch.store.lock import Lock, find_owner
    from autoresearch.store.paths import SessionPaths

    harness = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)])
    files = [tmp_path / "pid", tmp_path / "daemon"]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    pids = [int(file.read_text()) for file in files]
    assert all(map(alive, pids))
    assert find_owner(SessionPaths(tmp_path, "t")) == harness.pid
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    began = time.monotonic()
    lock = Lock(SessionPaths(tmp_path, "t"), patience_s=20)  # waits until the runs are dead
    assert time.monotonic() - began < 20
    assert not any(map(alive, pids))
    lock.release()
    assert not (tmp_path / "outcome.json").exists()  # the run will be executed again


LAUNCHER = """
import subprocess
from autoresearch.runners.warden.launch import ColdLauncher
from autoresearch.runners.warden.main import main

class Launcher(ColdLauncher):
    def start(self, spec, log):
        log.write(b"another launcher\\n")
        log.flush()
        return subprocess.Popen(
            spec.argv, cwd=spec.tree, stdout=log, stderr=log, start_new_session=True
        )

main(Launcher())
"""


def test_another_launcher_starts_the_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """`LocalRunner.warden` is a module that calls `main` with its launcher."""
    (place.folder / "other_warden.py").write_text(LAUNCHER)
    monkeypatch.setenv("PYTHONPATH", str(place.folder))
    monkeypatch.setattr(LocalRunner, "warden", "other_warden")
    with closing(LocalRunner(1)) as runner:
        for code in (3, 4):
            spec = place.spec(f"import sys\nprint('run')\nsys.exit({code})")
            result = runner.run(spec)
            assert (result.exit_code, result.stopped, result.slot) == (code, None, 0)
            assert spec.log.read_text() == "another launcher\nrun\n"
            assert RunResult.from_json(json.loads(spec.outcome.read_text())) == result


# ---- confinement -------------------------------------------------------------------------------

needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", sys.prefix, sys.base_prefix)


@needs_landlock
def test_a_run_is_confined_and_its_warden_is_not(runner: LocalRunner, place: Place) -> None:
    secret = place.folder / "secret"
    secret.write_text("x")
    program = (
        f"open('left', 'w').write('x')\ntry:\n    open({str(secret)!r})\n"
        "except OSError:\n    print('refused')\n"
    )
    spec = place.spec(program)
    tree = str(spec.tree)
    confined = dataclasses.replace(spec, confinement=Confinement(read=SYSTEM, write=(tree,)))
    assert runner.run(confined).exit_code == 0
    assert spec.log.read_text() == "refused\n"
    assert (spec.tree / "left").exists()
    free = place.spec(program)
    assert runner.run(free).exit_code == 0
    assert free.log.read_text() == ""


@needs_landlock
def test_a_run_that_cannot_be_confined_does_not_start(runner: LocalRunner, place: Place) -> None:
    """Landlock accepts no rule for this file of the kernel."""
    spec = place.spec("open('begun', 'w')", confinement=Confinement(read=("/proc/self/ns/net",)))
    result = runner.run(spec)
    assert (result.exit_code, result.stopped) == (None, "not confined")
    assert "/proc/self/ns/net" in result.detail
    assert "cannot be confined" in spec.log.read_text()
    assert not (spec.tree / "begun").exists()
    assert RunResult(**json.loads(spec.outcome.read_text())) == result
    assert runner.run(place.spec("pass")).exit_code == 0


@needs_landlock
def test_a_run_that_the_kernel_refuses_to_confine_does_not_start(place: Place) -> None:
    """The kernel stacks sixteen confinements, and the harness is in all of them already."""
    spec = place.spec()
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from autoresearch.protocols import Confinement, RunSpec\n"
        "from autoresearch.runners.local import LocalRunner\n"
        "from autoresearch.sandbox.landlock import Ruleset\n"
        "tree, log, outcome = map(Path, sys.argv[1:])\nall = Confinement(write=('/',))\n"
        "with Ruleset(all) as ruleset:\n    for _ in range(16): ruleset.apply()\n"
        "spec = RunSpec(('touch', 'begun'), tree, log, outcome, {'PATH': '/usr/bin:/bin'}, 30.0)\n"
        "runner = LocalRunner(1)\nprint(runner.run(spec).stopped)\n(tree / 'begun').unlink()\n"
        "import dataclasses\n"
        "print(runner.run(dataclasses.replace(spec, confinement=all)).stopped)\nrunner.close()\n"
    )
    arguments = [str(spec.tree), str(spec.log), str(spec.outcome)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["None", "not confined", ""]
    assert not (spec.tree / "begun").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="has to become another user")
def test_the_kernel_limits_the_forks_of_other_users_than_root() -> None:
    """Even of forks that are too fast for samples: see `max_threads`."""
    script = (
        "import os, resource, signal\nfrom autoresearch.runners.warden import limits\n"
        "os.setuid(65534)\nallowed = limits.max_threads(3)\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (allowed, allowed))\n"
        "children = []\n"
        "try:\n"
        "    while len(children) < allowed + 500:\n"
        "        if (pid := os.fork()) == 0:\n            signal.pause()\n"
        "        children.append(pid)\n"
        "    print('no end')\n"
        "except BlockingIOError:\n    print('stopped')\n"
        "for pid in children: os.kill(pid, 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "stopped\n"


@needs_counter
def test_children_that_nobody_waits_for_count(runner: LocalRunner, place: Place) -> None:
    outcome = runner.run(place.spec(HIDDEN.format(6)))
    assert outcome.cpu_s == pytest.approx(0.6, abs=0.3)


@needs_counter
@pytest.mark.skipif(landlock.abi() == 0 or not seccomp.is_available(), reason="needs a sandbox")
def test_a_program_that_may_not_be_read_hides_no_time(runner: LocalRunner, place: Place) -> None:
    """When a process executes one, or with two group IDs, the kernel takes its counter away."""
    env = "/usr/bin/env"
    program = (
        f"import os, shutil\nshutil.copyfile({env!r}, 'x')\nos.chmod('x', 0o755)\n"
        "if os.getuid() == 0: os.setresgid(-1, 65533, -1)\n"
        "else:\n    try: os.chmod('x', 0o111)\n    except PermissionError: print('refused')\n"
        f"os.execv('./x', ['x', {sys.executable!r}, '-S', '-E', '-c', {HIDDEN.format(6)!r}])\n"
    )
    spec = place.spec(program)
    confined = dataclasses.replace(spec, confinement=Confinement(SYSTEM, (str(spec.tree),)))
    outcome = runner.run(confined)
    assert outcome.exit_code == 0
    assert outcome.cpu_s == pytest.approx(0.6, abs=0.3)


@linux_only
def test_a_control_group_counts_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no performance counter. In a process of its own, which stays in the group."""
    script = (
        "from autoresearch.runners.warden import cpu_clock as clock\nimport os, time\n"
        "clock.open_counter = lambda *_: -1\ncounted = clock.CpuClock()\n"
        f"if (pid := os.fork()) == 0:\n    exec({HIDDEN.format(6)!r})\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\nprint(counted.used_s(), os.times().children_user, os.getpid())\n"
    )
    monkeypatch.setattr(cpu_clock, "open_counter", lambda *_: -1)
    if not cpu_clock.is_available.__wrapped__():
        pytest.skip("this system lets us make no control group")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    counted_s, waited_s, pid = map(float, done.stdout.split())
    assert counted_s == pytest.approx(0.6, abs=0.3)
    assert waited_s < 0.3
    cpu_clock.remove_groups()
    # Others may be at work beside this test, each in a group of its own.
    assert not any(
        (folder / f"autoresearch-{pid:.0f}").exists() for folder in cpu_clock._list_groups()
    )


@pytest.mark.skipif(
    landlock.abi() == 0 or not seccomp.is_available() or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, Landlock and seccomp",
)
def test_a_confined_run_keeps_to_the_cores_of_its_slot(place: Place) -> None:
    program = "import os\ntry: os.sched_setaffinity(0, range(64))\n"
    program += "except PermissionError: print('refused')\nprint(len(os.sched_getaffinity(0)))\n"
    spec = place.spec(program)
    walls = Confinement(SYSTEM, (str(spec.tree),))
    confined = dataclasses.replace(spec, confinement=walls)
    cores = sorted(os.sched_getaffinity(0))
    for slots, expected in ((len(cores), "refused\n1\n"), (1, f"{len(cores)}\n")):
        with closing(LocalRunner(slots)) as runner:
            assert runner.run(confined).exit_code == 0
        assert spec.log.read_text() == expected


@linux_only
def test_cores_and_priority_are_set_anew_for_each_run(runner: LocalRunner, place: Place) -> None:
    """An unconfined run may change its warden's; the next one starts with what the first had."""
    show = (
        "import os\nprint(sorted(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0),"
        " os.sched_getscheduler(0))\n"
    )
    change = (
        "os.sched_setaffinity(os.getppid(), [min(os.sched_getaffinity(0))])\n"
        "os.sched_setscheduler(os.getppid(), os.SCHED_BATCH, os.sched_param(0))\n"
    )
    change += "os.setpriority(os.PRIO_PROCESS, os.getppid(), 3)\n" if os.geteuid() == 0 else ""
    logs = []
    for program in (show + change, show):
        spec = place.spec(program)
        assert runner.run(spec).exit_code == 0
        logs.append(spec.log.read_text())
    assert logs[0] == logs[1]
