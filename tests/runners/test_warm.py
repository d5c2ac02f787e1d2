"""Runs that start warm: forks of a process that has imported what the task names, real ones.

Most tests preload small modules of their own, in a folder on PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support.sessions import alive, linux_only, wait_until

from autoresearch.errors import RunnerError
from autoresearch.protocols import Confinement, RunResult, RunSpec
from autoresearch.runners.local import LocalRunner
from autoresearch.runners.warden import cpu_clock, zygotes
from autoresearch.sandbox import landlock

pytestmark = linux_only

BIN = str(Path(sys.executable).parent)
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", sys.prefix, sys.base_prefix, "/sys")
STATE = "value = 0\nimport random\n"
CONFINED = pytest.param(True, marks=pytest.mark.skipif(landlock.abi() == 0, reason="no Landlock"))


@pytest.fixture(scope="module")
def runner() -> Iterator[LocalRunner]:
    """Shared, as a zygote serves many runs."""
    with closing(LocalRunner(1)) as runner:
        yield runner


@pytest.fixture
def own() -> Iterator[LocalRunner]:
    """For tests that count zygotes, or end them."""
    with closing(LocalRunner(1)) as runner:
        yield runner


class Place:
    """Makes runs of `prog.py`, each in a folder of its own, warm ones and cold ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 100
        self.modules = folder / "modules"
        self.modules.mkdir()
        self.module("state", STATE)

    def module(self, name: str, text: str) -> None:
        (self.modules / f"{name}.py").write_text(text)

    def spec(self, program: str, *preload: str, **settings: object) -> RunSpec:
        self.count += 1
        tree = self.folder / "trees" / str(self.count)
        temporary = self.folder / "tmp" / str(self.count)
        for folder in (tree, temporary):
            folder.mkdir(parents=True)
        (tree / "prog.py").write_text(program)
        fields: dict[str, object] = {
            "argv": ("python", "prog.py"),
            "tree": tree,
            "log": self.folder / f"{self.count}.log",
            "outcome": self.folder / f"{self.count}.json",
            "env": {
                "PATH": f"{BIN}:/usr/bin:/bin",
                "PYTHONPATH": str(self.modules),
                "PYTHONHASHSEED": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "TMPDIR": str(temporary),
                "AUTORESEARCH_SEED": str(self.count),
            },
            "timeout_s": 60.0,
            "preload": preload,
        }
        return RunSpec(**(fields | settings))  # type: ignore[arg-type]

    def confined(self, spec: RunSpec) -> RunSpec:
        write = (str(spec.tree), spec.env["TMPDIR"], "/dev/null")
        confinement = Confinement((*SYSTEM, str(self.modules)), write, network=False)
        return replace(spec, confinement=confinement)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("warm"))


def run_warm(runner: LocalRunner, spec: RunSpec) -> RunResult:
    result = runner.run(spec)
    assert result.spared_s is not None, (result, spec.log.read_text())
    return result


# ---- as a cold start ---------------------------------------------------------------------------

FACTS = """\
import inspect, os, resource, signal, sys, threading
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
main = sys.modules["__main__"]
facts = {
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "executable": sys.executable,
    "flags": str(sys.flags), "prefix": sys.prefix, "name": __name__, "file": __file__,
    "globals": sorted(globals()), "loader": type(__loader__).__name__, "doc": __doc__,
    "spec": __spec__ and (__spec__.name, __spec__.origin), "package": __package__,
    "main": vars(main) is globals(),
    "annotations": globals().get("__annotations__"),
    "environ": dict(os.environ), "cwd": os.getcwd(), "hash": hash("text"),
    "umask": os.umask(0o22), "session": os.getsid(0) == os.getpid() == os.getpgid(0),
    "limits": [resource.getrlimit(kind) for kind in range(16)],
    "cores": sorted(os.sched_getaffinity(0)), "nice": os.nice(0),
    "descriptors": sorted(os.listdir("/proc/self/fd"), key=int),
    "links": [os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)],
    "threads": len(os.listdir("/proc/self/task")), "thread": threading.current_thread().name,
    "streams": [
        (s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.seekable(),
         s.buffer.raw.name, s.closed, s is getattr(sys, f"__{n}__"))
        for n in ("stdin", "stdout", "stderr") for s in [getattr(sys, n)]
    ],
    "signals": [str(signal.getsignal(number)) for number in range(1, 32)],
    "status": {name: status[name] for name in status if name.startswith(
        ("SigP", "SigB", "SigI", "SigC", "Shd", "Cap", "NoNew",
         "Seccomp", "Uid", "Gid", "Groups", "Cpus_allowed"))},
    "dumpable": os.stat("/proc/self/status").st_uid == os.getuid(),
    "namespaces": [os.readlink("/proc/self/ns/mnt") != MOUNTS],
    "input": sys.stdin.read(), "recursion": sys.getrecursionlimit(), "hooks": [
        sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__],
}
for name, fact in facts.items():
    print(name, fact)
"""


@pytest.mark.parametrize("is_confined", [False, CONFINED])
@pytest.mark.parametrize("argv", [("prog.py", "a b", "-x"), ("./prog.py",), ("-m", "prog", "-x")])
def test_the_program_finds_what_a_cold_start_would_give_it(
    runner: LocalRunner, place: Place, is_confined: bool, argv: tuple[str, ...]
) -> None:
    mounts = str(Path("/proc/self/ns/mnt").readlink())
    program = FACTS.replace("MOUNTS", repr(mounts))
    logs = []
    for preload in ((), ("state",)):
        spec = place.spec(program, *preload, file_bytes=10**9, processes=50)
        spec = replace(spec, argv=("python", *argv))
        result = runner.run(place.confined(spec) if is_confined else spec)
        assert result.exit_code == 0, spec.log.read_text()
        assert (result.spared_s is not None) == bool(preload), result
        number = str(place.count)
        text = spec.log.read_text().replace(f"/{number}/", "/N/").replace(f"/{number}'", "/N'")
        text = text.replace(f"/{number}.", "/N.").replace(f"SEED': '{number}'", "SEED': 'N'")
        text = text.replace(f"trees/{number}", "trees/N").replace(f"tmp/{number}", "tmp/N")
        logs.append(text.splitlines())
    for cold, warm in zip(*logs, strict=True):
        assert warm == cold


ENDS = {
    "normal": "print('x')",
    "code": "import sys; sys.exit(3)",
    "large code": "import sys; sys.exit(300)",
    "message": "import sys; sys.exit('a message')",
    "exception": "def f():\n    return 1 / 0\ntry:\n    f()\nexcept ValueError:\n    pass\n",
    "syntax": "print('x'\n",
    "encoding": "# coding: latin-1\nprint('\xe4')\nraise ValueError('\xe4')",
    "hook": "import sys\nsys.excepthook = lambda *a: print('hooked', a[2].tb_lineno)\n1 / 0\n",
    "bad hook": "import sys\nsys.excepthook = lambda *a: 1 / 0\nraise ValueError\n",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "interrupt": "raise KeyboardInterrupt",
    "pipe": "import os, signal\nprint(signal.getsignal(signal.SIGPIPE))\nos.abort()",
    "_exit": "import os; print('lost'); os._exit(4)",
    "atexit": "import atexit, sys\natexit.register(print, 'at exit')\nprint('x'); sys.exit(5)",
    "thread": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.2), print('later'))).start()\nprint('main')",
    "unclosed": "file = open('left', 'w')\nfile.write('written')\n"
    "class C:\n    def __del__(self): print('deleted', file is None)\nc = C()\n",
    "closed output": "import os, sys\nprint('x'); sys.stdout.flush()\nos.close(1)\nprint('y')",
    "order": "import os, sys\nprint('a')\nos.write(1, b'b\\n')\nprint('c', file=sys.stderr)\n"
    "print('d')",
}


@pytest.mark.parametrize("end", ENDS)
def test_it_ends_as_a_cold_start_would(runner: LocalRunner, place: Place, end: str) -> None:
    ends = []
    for preload in ((), ("state",)):
        spec = place.spec("", *preload)
        encoding = "latin-1" if end == "encoding" else "utf-8"
        (spec.tree / "prog.py").write_text(ENDS[end], encoding=encoding)
        result = runner.run(spec)
        assert (result.spared_s is not None) == bool(preload)
        left = spec.tree / "left"
        log = spec.log.read_text().replace(str(spec.tree), "TREE").replace("0x", "")
        ends.append((result.exit_code, log, left.exists() and left.read_text()))
    assert ends[0] == ends[1]


def test_an_unbuffered_program(runner: LocalRunner, place: Place) -> None:
    program = "import os\nprint('a')\nos.write(1, b'b\\n')\nprint('c')\n"
    spec = place.spec(program, "state")
    run_warm(runner, replace(spec, env={**spec.env, "PYTHONUNBUFFERED": "1"}))
    assert spec.log.read_text() == "a\nb\nc\n"


def test_it_runs_in_a_folder_of_its_tree(runner: LocalRunner, place: Place) -> None:
    spec = place.spec("", "state", directory="sub")
    (spec.tree / "sub").mkdir()
    (spec.tree / "sub" / "prog.py").write_text("import os, helper\nprint(os.getcwd(), helper.x)\n")
    (spec.tree / "sub" / "helper.py").write_text("x = 7\n")
    run_warm(runner, spec)
    assert spec.log.read_text() == f"{spec.tree}/sub 7\n"


def test_a_package_of_the_tree_on_the_path(runner: LocalRunner, place: Place) -> None:
    """As `CommandExecutor` does for packages installed in editable mode."""
    spec = place.spec("import helper\nprint(helper.__file__)\n", "state")
    (spec.tree / "src").mkdir()
    (spec.tree / "src" / "helper.py").touch()
    path = f"{spec.tree}/src:{place.modules}"
    run_warm(runner, replace(spec, env={**spec.env, "PYTHONPATH": path}))
    assert spec.log.read_text() == f"{spec.tree}/src/helper.py\n"


def test_what_imports_print_is_in_every_log(runner: LocalRunner, place: Place) -> None:
    place.module("loud", "import os\nprint('imported')\n")
    for _ in range(2):
        spec = place.spec("import loud\nprint('run')\n", "loud")
        run_warm(runner, spec)
        assert spec.log.read_text() == "imported\nrun\n"


def test_processes_of_multiprocessing_start(runner: LocalRunner, place: Place) -> None:
    program = (
        "import multiprocessing, sys\n"
        "def work(n): return n * n\n"
        "if __name__ == '__main__':\n"
        "    for way in ('fork', 'spawn'):\n"
        "        with multiprocessing.get_context(way).Pool(2) as pool:\n"
        "            print(pool.map(work, range(3)))\n"
    )
    spec = place.spec(program, "multiprocessing.pool")
    assert run_warm(runner, spec).exit_code == 0, spec.log.read_text()
    assert spec.log.read_text() == "[0, 1, 4]\n" * 2


@pytest.mark.skipif(landlock.abi() == 0, reason="no Landlock")
def test_multiprocessing_knows_the_program(runner: LocalRunner, place: Place) -> None:
    """It remembers the main module, which was the zygote when it was imported."""
    program = "import sys\nprint(sys.modules['__mp_main__'] is sys.modules['__main__'])\n"
    spec = place.confined(place.spec(program, "multiprocessing"))
    run_warm(runner, spec)
    assert spec.log.read_text() == "True\n"


# ---- nothing is carried over -------------------------------------------------------------------

CARRIED = {
    "module state": "import state\nprint(state.value)\nstate.value = 1\n",
    "modules": "import sys\nprint('extra' in sys.modules)\nsys.modules['extra'] = sys\n",
    "builtins": "import builtins\nprint(hasattr(builtins, 'x'))\nbuiltins.x = 1\n",
    "environment": "import os\nprint(os.environ.get('LEFT'), os.getenv('HOME'))\n"
    "os.environ['LEFT'] = '1'\nos.putenv('HOME', '/left')\n",
    "working folder": "import os\nprint(os.path.basename(os.getcwd()).isdigit())\nos.chdir('/')\n",
    "open files": "import os\nprint(len(os.listdir('/proc/self/fd')))\nos.dup(0)\n"
    "import fcntl\nprint(fcntl.fcntl(0, fcntl.F_GETFL) & os.O_NONBLOCK)\n"
    "fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK)\n",
    "threads": "import threading, time\nprint(threading.active_count())\n"
    "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n",
    "limits": "import resource as r\nprint(r.getrlimit(r.RLIMIT_NOFILE))\n"
    "r.setrlimit(r.RLIMIT_NOFILE, (50, 50))\n",
    "signals": "import signal\nprint(signal.getsignal(signal.SIGUSR1))\n"
    "signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n",
    "umask": "import os\nprint(os.umask(0o77))\n",
    "priority": "import os\nprint(os.nice(0), len(os.sched_getaffinity(0)))\nos.nice(5)\n"
    "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n",
    "exit handlers": "import atexit\nprint(atexit._ncallbacks())\natexit.register(id, 0)\n",
    "memory": "import ctypes, state\nprint(ctypes.string_at(id(state.__doc__), 8))\n"
    "ctypes.memset(id(state.__doc__) , 7, 1)\nimport os; os._exit(0)\n",
    "temporary folder": "import os, tempfile\n"
    "print(tempfile.gettempdir() == os.environ['TMPDIR'])\ntempfile.tempdir = '/left'\n",
}


@pytest.mark.parametrize("what", CARRIED)
def test_nothing_is_carried_over(runner: LocalRunner, place: Place, what: str) -> None:
    logs = []
    for _ in range(2):
        spec = place.spec("import tempfile, multiprocessing.process\n" + CARRIED[what], *WIDE)
        run_warm(runner, spec)
        logs.append(spec.log.read_text())
    cold = place.spec(CARRIED[what])
    runner.run(cold)
    assert logs[0] == logs[1]
    if what not in ("memory", "exit handlers"):
        assert logs[0] == cold.log.read_text()


WIDE = ("state", "tempfile", "multiprocessing.process", "ctypes", "numpy.random")


def test_random_numbers_are_new_in_each_run(runner: LocalRunner, place: Place) -> None:
    program = (
        "import multiprocessing as m, os, random, tempfile\nimport numpy.random\n"
        "print(random.random())\nprint(numpy.random.random())\nprint(next(\n"
        "    tempfile._get_candidate_names()))\nprint(m.current_process().authkey)\n"
    )
    seen: list[str] = []
    for _ in range(3):
        spec = place.spec(program, *WIDE)
        run_warm(runner, spec)
        lines = spec.log.read_text().splitlines()
        assert len(lines) == 4
        seen += lines
    assert len(set(seen)) == 12


def test_the_zygote_never_holds_what_belongs_to_a_run(own: LocalRunner, place: Place) -> None:
    """Its memory, as root can read it: no seed, folder or argument of a run."""
    if os.geteuid() != 0:
        pytest.skip("only root may read another process's memory")
    marker = "m" + "arker" * 3
    for _ in range(2):
        spec = place.spec("import sys; print(sys.argv)", "state")
        spec = replace(spec, argv=(*spec.argv, marker), env={**spec.env, "MARK_" + marker: "1"})
        # A variable of all runs is in the zygote's environment; this one belongs to a run.
        spec = replace(spec, env={**spec.env, "MARK_" + marker: str(spec.tree)})
        run_warm(own, spec)
        assert marker in spec.log.read_text()
    [zygote] = find_zygotes(own)
    assert marker.encode() not in read_memory(zygote)
    assert b"/trees/1" not in read_memory(zygote)


def read_memory(process: psutil.Process) -> bytes:
    content = b""
    with Path(f"/proc/{process.pid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(number, 16) for number in place.split("-"))
                memory.seek(start)
                content += memory.read(end - start)
    return content


def find_zygotes(runner: LocalRunner) -> list[psutil.Process]:
    process = runner._wardens[0]._process
    children = psutil.Process(process.pid).children() if process else []
    return [child for child in children if "zygote.py" in " ".join(child.cmdline())]


@pytest.mark.skipif(landlock.abi() < landlock.SCOPE_ABI, reason="needs Landlock's ABI 6")
def test_a_confined_run_cannot_reach_the_zygote(runner: LocalRunner, place: Place) -> None:
    program = (
        "import os, signal\n"
        "for name in os.listdir('/proc'):\n"
        "    try: line = name.isdigit() and open(f'/proc/{name}/cmdline').read()\n"
        "    except OSError: continue\n"
        "    if line and 'zygote.py' in line and int(name) != os.getpid():\n"
        "        for what in ('os.kill(int(name), 9)', \"open(f'/proc/{name}/mem', 'r+b')\",\n"
        "            \"os.readlink(f'/proc/{name}/fd/0')\"):\n"
        "            try: exec(what); print('did it', what)\n"
        "            except OSError: print('refused')\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:3])\n"
    )
    for _ in range(2):
        spec = place.confined(place.spec(program, "state"))
        run_warm(runner, spec)
        assert "refused" in spec.log.read_text()
        assert "did it" not in spec.log.read_text()


# ---- the account -------------------------------------------------------------------------------

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
CHILDREN = "import os\nfor _ in range(2):\n    if os.fork() == 0:\n" + "".join(
    f"        {line}\n" for line in [*BURN.splitlines(), "os._exit(0)"]
)
UNWAITED = "import signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + CHILDREN
THREADS = (
    "import hashlib, threading\ndata = bytes(1 << 22)\n"
    "work = lambda: [hashlib.sha256(data) for _ in range(30)]\n"
    "threads = [threading.Thread(target=work) for _ in range(2)]\n"
    "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
)
WORK = {
    "a loop": BURN,
    "children": CHILDREN + "os.wait(); os.wait()\n",
    "children that nobody waits for": UNWAITED + "time.sleep(0.01)\ntry: os.wait()\n"
    "except ChildProcessError: pass\n",
    "threads": THREADS,
    "a child that stays": "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
    "    while time.process_time() < 0.3: pass\n    time.sleep(600)\n"
    "else:\n    os.wait3(os.WNOHANG)\n    time.sleep(0.01)\n"
    "    while time.process_time() < 0.3: pass\n",
}


@pytest.mark.skipif(not cpu_clock.is_available(), reason="no performance counters")
@pytest.mark.parametrize("work", WORK)
def test_a_fork_is_charged_like_a_cold_run(runner: LocalRunner, place: Place, work: str) -> None:
    """Each by what the processes themselves say, and so like each other."""
    program = (
        "import os, resource, time\nbegan = time.process_time()\n" + WORK[work] + "\n"
        "open('own', 'w').write(repr(time.process_time()))\n"
    )
    slack_s = 0.15  # the interpreter's start and end
    for preload in ((), ("state", "numpy.random")):
        spec = place.spec(program, *preload)
        result = runner.run(spec)
        assert result.exit_code == 0, spec.log.read_text()
        assert (result.spared_s is not None) == bool(preload)
        own_s = float((spec.tree / "own").read_text())
        children_s = {"a loop": 0.0, "threads": 0.0, "a child that stays": 0.0}.get(work, 0.6)
        assert result.cpu_s is not None
        least_s = own_s + children_s - 0.03
        assert least_s <= result.cpu_s <= least_s + slack_s + (work == "a child that stays") * 0.6


def test_imports_are_not_charged_but_their_time_is_reported(
    runner: LocalRunner, place: Place
) -> None:
    place.module("slow1", "import time\nwhile time.process_time() < 0.6: pass\n")
    for _ in range(2):
        result = run_warm(runner, place.spec("import slow1", "slow1", limit_s=0.5))
        assert result.stopped is None
        assert result.cpu_s is not None and result.cpu_s < 0.3
        assert result.spared_s is not None and result.spared_s > 0.5


@pytest.mark.parametrize("limit", ["limit_s", "memory_bytes", "processes", "timeout_s"])
def test_limits_hold(own: LocalRunner, place: Place, limit: str) -> None:
    programs: dict[str, tuple[str, float, str]] = {
        "limit_s": ("while True: pass", 0.3, "over budget"),
        "memory_bytes": (
            "x = bytearray(300_000_000)\nx[::4096] = bytes(len(x[::4096]))\n"
            "import time; time.sleep(60)",
            100_000_000,
            "memory",
        ),
        "processes": (
            "import os, time\nfor _ in range(9):\n    os.fork() or time.sleep(60)\ntime.sleep(60)",
            4,
            "too many processes",
        ),
        "timeout_s": ("import time; time.sleep(60)", 2.0, "timeout"),
    }
    program, value, stopped = programs[limit]
    result = run_warm(own, place.spec(program, "state", **{limit: value}))
    assert result.stopped == stopped
    [zygote] = find_zygotes(own)  # the run's end is not its own
    run_warm(own, place.spec("pass", "state"))
    assert [process.pid for process in find_zygotes(own)] == [zygote.pid]


def test_the_zygote_counts_as_no_process_of_the_run(runner: LocalRunner, place: Place) -> None:
    result = run_warm(
        runner, place.spec("import time; time.sleep(0.6)", "state", processes=1, timeout_s=20.0)
    )
    assert result.stopped is None
    assert result.peak_memory_bytes is not None and result.peak_memory_bytes < 60e6


# ---- what starts cold --------------------------------------------------------------------------

COLD = [
    (("sh", "-c", "python prog.py"), "only `python FILE`"),
    (("python", "-c", "pass"), "only `python FILE`"),
    (("python", "-O", "prog.py"), "only `python FILE`"),
    (("python",), "only `python FILE`"),
    (("python", "absent.py"), "absent.py is no file"),
    (("./python", "prog.py"), "may lie in the run's tree"),
]


@pytest.mark.parametrize(("argv", "why"), COLD)
def test_other_commands_start_cold_and_say_why(
    runner: LocalRunner, place: Place, argv: tuple[str, ...], why: str
) -> None:
    result = runner.run(place.spec("pass", "state", argv=argv))
    assert result.spared_s is None
    if result.stopped is None:
        assert why in result.detail
    with pytest.raises(zygotes.Cold, match=why.replace("(", r"\(")):
        zygotes.make_key(place.spec("pass", "state", argv=argv))


def test_a_relative_folder_on_the_path_may_hold_a_changed_python(place: Place) -> None:
    spec = place.spec("", "state")
    with pytest.raises(zygotes.Cold, match="may lie"):
        zygotes.make_key(replace(spec, env={**spec.env, "PATH": f"bin:{BIN}"}))
    with pytest.raises(zygotes.Cold, match="no python on"):
        zygotes.make_key(replace(spec, env={**spec.env, "PATH": "/nowhere"}))
    (spec.tree / "python").touch(mode=0o755)
    with pytest.raises(zygotes.Cold, match="lies in the run's tree"):
        zygotes.make_key(replace(spec, env={**spec.env, "PATH": f"{spec.tree}:{BIN}"}))


@pytest.mark.parametrize("name", ["state.py", "state/__init__.py", "json.pyc", "state.abi3.so"])
def test_a_file_that_a_cold_start_would_import_instead(
    runner: LocalRunner, place: Place, name: str
) -> None:
    """It starts cold, and has the time for its imports: the limit was learned from warm runs."""
    place.module("slow2", "import json, state, time\nwhile time.process_time() < 0.8: pass\n")
    run_warm(runner, place.spec("import slow2", "slow2", limit_s=0.5))
    spec = place.spec(
        "import slow2, sys\nprint(sys.modules['state'].__file__)", "slow2", limit_s=0.5
    )
    (spec.tree / name).parent.mkdir(exist_ok=True)
    (spec.tree / name).write_text("")
    result = runner.run(spec)
    assert result.spared_s is None
    assert "has the name of a preloaded module" in result.detail
    assert result.stopped is None
    if name.endswith(".py"):
        assert spec.log.read_text().strip() == str(spec.tree / name)


# ---- bad modules -------------------------------------------------------------------------------

BAD = {
    "absent": (None, "cannot import absent: ModuleNotFoundError: No module named 'absent'"),
    "raises": ("1 / 0", "cannot import raises: ZeroDivisionError"),
    "exits": ("import sys; sys.exit(3)", "cannot import exits: SystemExit: 3"),
    "dies": ("import os; os._exit(3)", "importing dies ends the process"),
    "threads": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True)"
        ".start()\n",
        "importing threads starts threads, 1 still run",
    ),
    "opens": ("import os\nfd = os.open('/dev/zero', 0)\n", "importing opens leaves /dev/zero open"),
    "shares": ("import mmap\nm = mmap.mmap(-1, 4096)\n", "importing shares maps /dev/zero"),
    "hangs": ("import time; time.sleep(60)", "importing takes more than 1.5 s"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_module_that_cannot_be_preloaded(own: LocalRunner, place: Place, name: str) -> None:
    text, message = BAD[name]
    if text is not None:
        place.module(name, text)
    spec = place.spec("pass", name, timeout_s=1.5 if name == "hangs" else 60.0)
    with pytest.raises(RunnerError, match="preload") as error:
        own.run(spec)
    assert message in str(error.value)
    assert not spec.outcome.exists()
    assert find_zygotes(own) == []
    assert own.run(place.spec("pass")).exit_code == 0


@pytest.mark.skipif(landlock.abi() == 0, reason="no Landlock")
def test_a_module_from_a_folder_that_runs_may_not_read(own: LocalRunner, place: Place) -> None:
    """Such as the user's checkout: a cold start could not import it."""
    spec = place.confined(place.spec("pass", "state"))
    assert spec.confinement
    confinement = replace(spec.confinement, read=SYSTEM)
    with pytest.raises(RunnerError, match=f"a module comes from {place.modules}, which a run may"):
        own.run(replace(spec, confinement=confinement))


# ---- a zygote's end ----------------------------------------------------------------------------


def test_a_dead_zygote_is_replaced(own: LocalRunner, place: Place) -> None:
    for _ in range(3):
        run_warm(own, place.spec("pass", "state"))
        [zygote] = find_zygotes(own)
        zygote.kill()
        wait_until(lambda zygote=zygote: zygote.status() == psutil.STATUS_ZOMBIE)


def test_a_zygote_that_dies_during_a_run_costs_it_nothing(own: LocalRunner, place: Place) -> None:
    """Its CPU time, which the warden learns when it reaps it, is not the run's."""
    place.module("slow3", "import time\nwhile time.process_time() < 0.8: pass\n")
    program = "import os, signal, time\nos.kill(int(open('pid').read()), 9)\ntime.sleep(0.1)\n"
    run_warm(own, place.spec("pass", "slow3"))
    [zygote] = find_zygotes(own)
    spec = place.spec(program, "slow3", limit_s=0.5)
    (spec.tree / "pid").write_text(str(zygote.pid))
    result = run_warm(own, spec)
    assert (result.exit_code, result.stopped) == (0, None)
    assert result.cpu_s is not None and result.cpu_s < 0.4
    assert run_warm(own, place.spec("pass", "slow3")).exit_code == 0


def test_a_zygote_that_cannot_be_made_again(own: LocalRunner, place: Place) -> None:
    """The module is gone: runs start cold, with the time for their imports."""
    place.module("slow4", "import time\nwhile time.process_time() < 0.8: pass\n")
    run_warm(own, place.spec("import slow4", "slow4"))
    [zygote] = find_zygotes(own)
    zygote.kill()
    place.module("slow4", "import os, sys\nif 'zygote' in sys.argv[0]: os._exit(1)\n")
    for _ in range(2):
        result = own.run(place.spec("import slow4\nprint(1)", "slow4", limit_s=0.2))
        assert (result.exit_code, result.stopped, result.spared_s) == (0, None, None)
        assert "started cold: importing slow4 ends the process" in result.detail


def test_another_warden_cannot_make_one(own: LocalRunner, place: Place) -> None:
    """As when the machine is short of memory: no reason to end the session."""
    place.module("rare", "import time\nwhile time.process_time() < 0.8: pass\n")
    run_warm(own, place.spec("import rare", "rare"))
    parent = find_zygotes(own)[0].parent()
    assert parent is not None
    parent.kill()
    assert own.run(place.spec("pass", "rare")).stopped == "lost"
    place.module("rare", "import os, sys\nif 'zygote' in sys.argv[0]: os._exit(1)\n")
    result = own.run(place.spec("import rare", "rare", limit_s=0.2))
    assert (result.exit_code, result.stopped, result.spared_s) == (0, None, None)
    assert result.detail.startswith("started cold: importing rare ends")


def test_installed_packages_that_change_are_imported_anew(
    runner: LocalRunner, place: Place
) -> None:
    for value in (1, 2):
        place.module(f"other{value}", "")  # changes the folder, as an installation does
        place.module("state", f"value = {value}\n")
        spec = place.spec("import state; print(state.value)", "state")
        run_warm(runner, spec)
        assert spec.log.read_text() == f"{value}\n"


def test_runs_with_another_environment_have_another_zygote(own: LocalRunner, place: Place) -> None:
    place.module("reads", "import os\nvalue = os.environ.get('SETTING')\n")
    for setting in ("a", "b", "a"):
        spec = place.spec("import reads; print(reads.value)", "reads")
        run_warm(own, replace(spec, env={**spec.env, "SETTING": setting}))
        assert spec.log.read_text() == f"{setting}\n"
    assert len(find_zygotes(own)) == 2


@pytest.mark.parametrize("way", ["close", "kill"])
def test_no_zygote_outlives_its_warden(place: Place, way: str) -> None:
    own = LocalRunner(1)
    run_warm(own, place.spec("pass", "state"))
    [zygote] = find_zygotes(own)
    if way == "kill":
        parent = zygote.parent()
        assert parent is not None
        parent.send_signal(signal.SIGKILL)
        wait_until(lambda: not alive(zygote.pid))
        assert own.run(place.spec("pass", "state")).stopped == "lost"
        run_warm(own, place.spec("pass", "state"))
    own.close()
    assert not alive(zygote.pid)
    assert find_zygotes(own) == []


def test_the_death_of_the_warden_kills_a_warm_run(place: Place) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with closing(LocalRunner(1)) as own, ThreadPoolExecutor(1) as pool:
        run_warm(own, place.spec("pass", "state"))
        parent = find_zygotes(own)[0].parent()
        program = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
        spec = place.spec(program, "state")
        future = pool.submit(own.run, spec)
        file = spec.tree / "pid"
        wait_until(lambda: file.exists() and file.read_text() != "")
        pid = int(file.read_text())
        # The harness finds a run's processes by this, also those that a killed warden leaves.
        assert psutil.Process(pid).environ()["AUTORESEARCH_SEED"] == str(place.count)
        assert parent is not None
        parent.send_signal(signal.SIGKILL)
        assert future.result().stopped == "lost"
        wait_until(lambda: not alive(pid))


def test_importing_can_be_interrupted(place: Place) -> None:
    from concurrent.futures import ThreadPoolExecutor

    place.module("hangs", "import time; time.sleep(60)")
    with closing(LocalRunner(1)) as own, ThreadPoolExecutor(1) as pool:
        future = pool.submit(own.run, place.spec("pass", "hangs"))
        wait_until(lambda: len(find_zygotes(own)) == 1)
        began = time.monotonic()
        own.interrupt()
        assert future.result().stopped == "interrupted"
        assert time.monotonic() - began < 10
        assert find_zygotes(own) == []


def test_a_result_says_what_was_spared(runner: LocalRunner, place: Place) -> None:
    spec = place.spec("pass", "state")
    result = run_warm(runner, spec)
    assert RunResult.from_json(json.loads(spec.outcome.read_text())) == result
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
