"""Attempts of runs to break their confinement, by real processes in real sessions. None succeeds,
and each costs its own experiment at most."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.sessions import (
    PROGRAM,
    TASK,
    Night,
    ScriptedAgent,
    change,
    git,
    linux_only,
    make_task,
    rewrite,
    run_session,
    side,
    task_of,
    workspace_of,
)

from autoresearch.commands.check import check_task, enforced, not_enforced
from autoresearch.errors import BaselineError, StorageError, TaskError
from autoresearch.measure.execution import make_private_folder
from autoresearch.protocols import Confinement
from autoresearch.runners.warden import cpu_clock
from autoresearch.sandbox import landlock, namespaces, run_policy
from autoresearch.sandbox.run_policy import Purpose, RunPolicies, find_editable_packages
from autoresearch.store.paths import SessionPaths

needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
needs_scopes = pytest.mark.skipif(
    landlock.abi() < landlock.SCOPE_ABI, reason="needs Landlock's ABI 6"
)
SECRET = "very-secret-value"
GOOD = PROGRAM.replace("VALUE = 10.0", "VALUE = 5.0")
TRY = """\
import errno, json, os, signal, socket, subprocess, sys

def attempt(line):
    try:
        exec(line, globals())
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "did it"

print(json.dumps([attempt(line) for line in {lines!r}]))
print("---")
print("score: 10." + os.environ["AUTORESEARCH_SEED"])
"""


class Prey:
    """A task with everything that a run might try to read or write, its user's home folder, and a
    copy of installed software that a failing test may damage."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "id_ed25519").write_text(SECRET)
        self.installed = installation(folder)
        self.named = folder / "named"  # in the scorer's command line
        self.named.write_text(SECRET)
        self.root = make_task(
            folder / "task",
            toml=TASK.replace('env = ["COUNTED"]', 'env = ["COUNTED"]\ninputs = ["data"]')
            + f'[score]\ncommand = "python -S -E score.py {self.named}"\n'
            + 'hidden = ["holdout"]\nreads = []\n',
            files={
                "score.py": "import sys\nopen(sys.argv[1]).close()\nprint('---')\n"
                "print('score:', open('holdout/answer').read())\n",
                ".gitignore": "data\nholdout\nnotes\n",
                "notes": SECRET,
                "holdout/answer": "7",
                "data/x": "1",
            },
        )

    def try_to(self, *lines: str, **settings: object) -> dict[str, set[str]]:
        """The results of each line in the three runs of the unchanged program."""
        (self.root / "prog.py").write_text(TRY.format(lines=lines))
        git(self.root, "commit", "-qam", "tries something", "--allow-empty")
        found = run_session(self.root, ScriptedAgent(), tag=f"t{time.monotonic_ns()}", **settings)
        logs = [found.paths.runs / run.name / "log" for run in found.runs]
        assert len(logs) == 3
        results = [json.loads(log.read_text().splitlines()[0]) for log in logs]
        return {
            line: set(column)
            for line, column in zip(lines, zip(*results, strict=True), strict=True)
        }


@pytest.fixture
def prey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prey:
    made = Prey(tmp_path)
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{made.installed / 'bin'}")
    return made


def installation(folder: Path) -> Path:
    """An installation, for the PATH to name its `bin`."""
    for name in ("bin", "lib"):
        (folder / "installed" / name).mkdir(parents=True)
    (folder / "installed" / "lib" / "module.py").write_text("x = 1")
    return folder / "installed"


def logs(found: Night, number: int) -> str:
    """The output of an experiment's runs."""
    return "".join((found.paths.runs / r.name / "log").read_text() for r in found.runs_of(number))


PRIVATE = (
    "open('{state}/ledger.sqlite', 'rb')",
    "open('{root}/holdout/answer')",
    "open('holdout/answer')",
    "open('{root}/notes')",
    "open('{named}')",
    "open('{root}/prog.py')",
    "os.listdir('{root}')",
    "os.listdir('{state}')",
    "open('{home}/.ssh/id_ed25519')",
    "os.listdir('{home}')",
    "os.symlink('{home}/.ssh/id_ed25519', 'link'); open('link')",
    "open('{root}/prog.py', 'w')",
    "open('{root}/new', 'w')",
    "open('{root}/.git/hooks/post-commit', 'w')",
    "open('{state}/ledger.sqlite', 'r+b')",
    "open('{root}/data/x', 'w')",
    "open('data/x', 'a')",
    "open('{home}/.bashrc', 'a')",
    "assert open('{installed}/lib/module.py').read(); open('{installed}/lib/module.py', 'a')",
    "open('{installed}/lib/sitecustomize.py', 'w')",
    "os.makedirs('{installed}/lib/__pycache__')",
    "open('{installed}/bin/python', 'w')",
    "open('../../../ledger.sqlite', 'rb')",
    "os.rename('prog.py', '{root}/prog.py')",
    "os.link('prog.py', '{root}/linked')",
)


@needs_landlock
def test_files_that_are_none_of_its_business(prey: Prey) -> None:
    before = git(prey.root, "status", "--porcelain", "--ignored")
    places = {"root": prey.root, "home": prey.home, "installed": prey.installed}
    places |= {"state": prey.root / ".autoresearch", "named": prey.named}
    results = prey.try_to(*(line.format(**places) for line in PRIVATE))
    refused = {"EACCES", "EROFS", "EXDEV", "ENOENT"}
    assert {line: result for line, result in results.items() if not result <= refused} == {}
    after = git(prey.root, "status", "--porcelain", "--ignored")
    assert after.replace("!! .autoresearch/\n!! ", "!! ").replace("!! results.tsv", "").split() == (
        before.split()
    )
    assert (prey.root / "data" / "x").read_text() == "1"
    files = {path.name: path.read_text() for path in prey.installed.rglob("*") if path.is_file()}
    assert files == {"module.py": "x = 1"}


@needs_landlock
def test_what_a_run_may_do(prey: Prey) -> None:
    results = prey.try_to(
        "assert open('data/x').read() == '1'",
        "open('left', 'w').write('x'); os.mkdir('d'); os.rename('left', 'd/left')",
        f"open({str(side(prey.root) / 'kept')!r}, 'a').write('x')",
        "import tempfile; tempfile.NamedTemporaryFile().write(b'x')",
        "open('/dev/null', 'w').write('x'); open('/dev/urandom', 'rb').read(1)",
        "from multiprocessing import shared_memory as s; m = s.SharedMemory(None, True, 9); "
        "m.close(); m.unlink()",
        "subprocess.run(['sh', '-c', 'ls /usr/bin | head -1'], check=True, capture_output=True)",
        "import multiprocessing as m; p = m.get_context('fork').Pool(2); p.map(abs, [1]); "
        "p.terminate()",
    )
    assert set.union(*results.values()) == {"did it"}, results
    assert (side(prey.root) / "kept").read_text() == "xxx"


@needs_landlock
def test_the_temporary_folder_is_its_own_and_gone_after_it(prey: Prey) -> None:
    line = (
        "import tempfile; t = tempfile.gettempdir(); open(t + '/x', 'x'); "
        f"open({str(side(prey.root))!r} + '/places', 'a').write(t + chr(10))"
    )
    shared = "/tmp/autoresearch-was-here"
    results = prey.try_to(line, f"open({shared!r}, 'x')")
    assert results[line] == {"did it"}
    assert not Path(shared).exists()  # it has a /tmp of its own, or may not write there
    places = [Path(name) for name in (side(prey.root) / "places").read_text().split()]
    assert len(set(places)) == 3
    assert not any(place.exists() or place.parent.exists() for place in places)
    assert all(place.parent.parent == Path(tempfile.gettempdir()) for place in places)


def test_what_a_killed_session_left_in_its_temporary_folder_is_removed(root: Path) -> None:
    left = SessionPaths(root, "t").temporary / "00001" / "x"
    left.mkdir(parents=True)
    left.parent.chmod(0)
    run_session(root, ScriptedAgent())
    assert not SessionPaths(root, "t").temporary.exists()


def test_a_temporary_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    make_private_folder(mine)
    make_private_folder(mine)
    assert mine.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(StorageError, match="belongs to another user"):
        make_private_folder(tmp_path / "link")


@needs_landlock
def test_the_logs_of_other_runs(prey: Prey) -> None:
    """A run reads neither the logs nor the trees of other runs."""
    first = prey.root / ".autoresearch" / "t" / "runs" / "0000" / "00001" / "log"
    trees = first.parents[3] / "target" / "package" / "trees"
    spy = PROGRAM.replace(
        "noise =",
        f"for place in ({str(first)!r}, {str(trees)!r}, '..'):\n"
        "    look = os.listdir if os.path.isdir(place) else open\n"
        "    try: print('SEEN', list(look(place)))\n"
        "    except OSError as error: print('refused', error.errno)\nnoise =",
    )
    found = run_session(prey.root, ScriptedAgent(rewrite(spy)))
    assert first.exists()
    assert logs(found, 1).count("refused 13") == 3 * len(found.runs_of(1))
    assert "SEEN" not in logs(found, 1)


# ---- what is declared ----------------------------------------------------------------------------


@needs_landlock
def test_inputs_that_are_links_out_of_the_tasks_folder(tmp_path: Path) -> None:
    far, farther = tmp_path / "far", tmp_path / "farther"
    for folder in (far, farther):
        folder.mkdir()
        (folder / "x").write_text("3")
    (far / "more").symlink_to(farther)
    (far / "loop").symlink_to(far)
    program = (
        "import os\nprint('score:', float(open('data/x').read()) + "
        "float(open('data/more/x').read()))\n"
        f"for path in ('data/x', 'data/more/x', {str(far / 'new')!r}):\n"
        "    try: open(path, 'w'); print('WROTE', path)\n    except OSError: pass\n"
    )
    toml = TASK.replace("[metric]", 'inputs = ["data"]\n[metric]')
    root = tmp_path / "task"
    root.mkdir()
    (root / "data").symlink_to(far)
    make_task(root, program, toml, files={".gitignore": "data\n"})
    found = run_session(root, ScriptedAgent())
    assert [run.metric for run in found.runs] == [6.0] * 3
    assert "WROTE" not in logs(found, 0)
    assert {path.name for path in far.iterdir()} == {"loop", "more", "x"}


def test_a_missing_cache_is_made(tmp_path: Path) -> None:
    cache = tmp_path / "some" / "cache"
    toml = TASK.replace("[run]", f'[run]\ncaches = ["{cache}"]')
    root = make_task(tmp_path / "task", f"open({str(cache / 'x')!r}, 'w')\n" + PROGRAM, toml)
    run_session(root, ScriptedAgent())
    assert (cache / "x").exists()


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    toml = TASK.replace("[run]", f'[run]\ncaches = ["{tmp_path / "file" / "cache"}"]')
    root = make_task(tmp_path / "task", toml=toml)
    with pytest.raises(TaskError, match=r"\[run\] caches: cannot make the folder .*file/cache"):
        run_session(root, ScriptedAgent())


@pytest.mark.parametrize("cache", ["{root}/.autoresearch/x", "{root}/.autoresearch", "{link}"])
def test_a_cache_that_leads_to_the_record_is_refused(tmp_path: Path, cache: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "task" / ".autoresearch")
    named = cache.format(root=tmp_path / "task", link=tmp_path / "link")
    root = make_task(tmp_path / "task", toml=TASK.replace("[run]", f'[run]\ncaches = ["{named}"]'))
    with pytest.raises(TaskError, match=r"\[run\] caches: .*\.autoresearch"):
        task_of(root)


def test_an_input_that_leads_to_the_record_is_refused(tmp_path: Path) -> None:
    toml = TASK.replace("[metric]", 'inputs = ["link"]\n[metric]')
    root = make_task(tmp_path / "task", toml=toml)
    (root / ".autoresearch").mkdir()
    (root / "link").symlink_to(root / ".autoresearch")
    with pytest.raises(TaskError, match=r"\[run\] inputs: .*\.autoresearch"):
        task_of(root)


# ---- the network, other processes, and limits ----------------------------------------------------


@pytest.fixture
def servers() -> Iterator[tuple[int, int]]:
    """Ports of a TCP and a UDP server on this machine; fails when anything reaches them that is
    not allowed."""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(0)
        yield tcp.getsockname()[1], udp.getsockname()[1]


@needs_landlock
@pytest.mark.parametrize("network", [False, True])
def test_the_network_is_there_only_if_the_task_says_so(
    prey: Prey, servers: tuple[int, int], network: bool
) -> None:
    tcp, udp = servers
    results = prey.try_to(
        f"socket.create_connection(('127.0.0.1', {tcp}))",
        f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.create_server(('127.0.0.1', 0))",
        runner__network=network,
    )
    assert set.union(*results.values()) == {"did it" if network else "EACCES"}, results


@needs_scopes
def test_signals_reach_nobody_else(prey: Prey) -> None:
    results = prey.try_to(
        f"os.kill({os.getpid()}, signal.SIGTERM)",  # the harness
        "os.kill(os.getppid(), signal.SIGKILL)",  # the warden
        f"import resource; resource.prlimit({os.getpid()}, resource.RLIMIT_CPU, (1, 1))",
    )
    assert set.union(*results.values()) <= {"EPERM", "EACCES"}, results


def test_a_helper_in_a_session_of_its_own_does_not_write_later(prey: Prey) -> None:
    """Neither into a later run's tree, nor into the artefacts, nor into the caches."""
    later, gate = side(prey.root) / "later", side(prey.root) / "gate"
    helper = (
        f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
        f"open({str(later)!r}, 'w')"
    )
    line = f"subprocess.Popen([sys.executable, '-c', {helper!r}], start_new_session=True)"
    assert prey.try_to(line) == {line: {"did it"}}
    gate.touch()
    time.sleep(0.5)
    assert not later.exists()


BOMBS = {
    "children": "while True:\n    if os.fork() == 0:\n        time.sleep(600)\n",
    "daemons": "while True:\n    if os.fork() == 0:\n        leave()\n        time.sleep(600)\n",
    "a chain": "while True:\n    if os.fork():\n        leave()\n        time.sleep(600)\n",
    "all of them": "for _ in range(GENERATIONS):\n    os.fork()\n    leave()\ntime.sleep(600)\n",
}


@linux_only  # elsewhere they are counted seldom, and no Mac has tried it
@pytest.mark.parametrize("name", BOMBS)
def test_thousands_of_processes(root: Path, name: str) -> None:
    """Also as root. The experiment crashes, the next one is measured, and no process is left."""
    bomb = (
        "import os, time\nGENERATIONS = 10\ndef leave():\n    try: os.setsid()\n"
        "    except OSError: pass\n" + BOMBS[name]
    )
    agent = ScriptedAgent(rewrite(bomb), rewrite(GOOD))
    before = len(psutil.pids())
    found = run_session(root, agent, runner__processes=100)
    assert found.verdicts == [("crash", "too many processes"), ("keep", None)]
    assert len(psutil.pids()) < before + 50


def test_the_permitted_number_of_processes(root: Path) -> None:
    program = (
        "import os, time\nfor _ in range(40):\n    if os.fork() == 0:\n"
        "        time.sleep(0.5)\n        os._exit(0)\ntime.sleep(0.4)\n" + GOOD
    )
    settings = {"runner__processes": 50, "judge__level": "fast"}  # few runs: each sleeps
    found = run_session(root, ScriptedAgent(rewrite(program)), **settings)
    assert found.verdicts == [("keep", None)]


@pytest.mark.parametrize("confined", [True, False])
def test_a_huge_file(root: Path, confined: bool) -> None:
    huge = "with open('huge', 'wb') as file:\n    file.truncate(60_000_000)\n" + GOOD
    grown = "with open('huge', 'wb') as file:\n    file.write(bytes(60_000_000))\n" + GOOD
    killed = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n" + grown
    raised = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n" + grown
    agent = ScriptedAgent(*map(rewrite, (huge, grown, killed, raised)), rewrite(GOOD))
    found = run_session(root, agent, runner__file_limit="50MB", runner__confine=confined)
    crash = ("crash", "exit code 1")
    expected = [crash, crash, ("crash", "killed by signal 25"), crash, ("keep", None)]
    if not confined and os.geteuid() == 0:
        expected[3] = found.verdicts[3]  # root may, where nothing confines it
    assert found.verdicts == expected
    assert (
        not list(found.paths.runs.rglob("huge"))
        or not confined
        or all(path.stat().st_size <= 50_000_000 for path in found.paths.runs.rglob("huge"))
    )


# ---- the scorer, and setup -----------------------------------------------------------------------

SCORED = '[score]\ncommand = "python -S score.py"\nreads = ["out"]\nhidden = ["holdout"]\n'
SCORER = """\
import json, os, re, tempfile
assert not hasattr(json, "cheated"), json.__file__
assert os.listdir(tempfile.gettempdir()) == ["home"]
for path in ("{root}/../home/.ssh/id_ed25519", "{root}/notes", "{root}/holdout/answer"):
    try:
        print(path, open(path).read() == "7")
    except PermissionError:
        print("refused")
try:
    open("holdout/answer", "a")
except OSError:
    print("read-only")
print("---")
print("score:", abs(float(open("out").read()) - float(open("holdout/answer").read())))
"""


@needs_landlock
def test_what_is_left_for_the_scorer_does_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules beside it, in its temporary folder, in what is installed. The scorer alone sees the
    hidden files, and nothing of the user's either."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / ".ssh" / "id_ed25519").write_text(SECRET)
    installed = installation(tmp_path)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{installed / 'bin'}")
    monkeypatch.setenv("PYTHONPATH", str(installed / "lib"))
    planter = (
        "import os, tempfile\nopen('out', 'w').write('5')\n"
        f"for folder in ('.', tempfile.gettempdir(), {str(installed / 'lib')!r}):\n"
        "    for name in ('json.py', 're.py', 'sitecustomize.py', '__pycache__/x.pyc'):\n"
        "        try: open(os.path.join(folder, name), 'w').write('cheated = 1')\n"
        "        except OSError as error: print(folder, name, error.errno)\n"
    )
    root = tmp_path / "task"
    files = {
        "score.py": SCORER.format(root=root),
        "holdout/answer": "7",
        "notes": SECRET,
        ".gitignore": "holdout\nnotes\n",
    }
    toml = TASK.replace('"COUNTED"', '"COUNTED", "PYTHONPATH"') + SCORED
    make_task(root, planter, toml, files=files)
    found = run_session(root, ScriptedAgent())
    assert [(run.metric, run.reason) for run in found.runs] == [(2.0, None)] * 3
    assert {path.name for path in installed.rglob("*.py*")} == {"module.py"}
    said = (found.paths.runs / found.runs[0].name / "score.log").read_text()
    assert said.splitlines()[:4] == [
        "refused",
        "refused",
        f"{root}/holdout/answer True",
        "read-only",
    ]


@needs_landlock
def test_what_setup_makes_stays_and_is_read_by_runs(
    tmp_path: Path, servers: tuple[int, int]
) -> None:
    """`setup` has its own folder, the caches and the network; runs read the files it made."""
    folder = tmp_path / "task" / ".autoresearch/t/target/package/setup"
    make = (
        f"import os, socket; socket.create_connection(('127.0.0.1', {servers[0]}))\n"
        "open('made', 'w').write('4')\n"
        f"try: open({str(tmp_path / 'task' / 'prog.py')!r}, 'a')\n"
        "except OSError: print('refused')\n"
    )
    program = (
        f"import os\nprint('score:', open({str(folder / 'made')!r}).read())\n"
        f"try: open({str(folder / 'made')!r}, 'a'); print('WROTE')\nexcept OSError: pass\n"
    )
    toml = TASK.replace("[metric]", 'setup = "python -S make.py"\n[metric]')
    root = make_task(tmp_path / "task", program, toml, files={"make.py": make})
    found = run_session(root, ScriptedAgent())
    assert [run.metric for run in found.runs] == [4.0] * 3
    assert "WROTE" not in logs(found, 0)
    assert (found.paths.folder / "setup.log").read_text() == "refused\n"


# ---- environments --------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment in the task's folder, as `uv` makes it."""
    folder = tmp_path / "task" / ".venv"
    making = [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)]
    subprocess.run(making, check=True)
    return folder


def _site(environment: Path) -> Path:
    [site] = environment.glob("lib/python3*/site-packages")
    return site


@needs_landlock
@pytest.mark.parametrize("how", ["path", "link", "activated"])
def test_a_virtual_environment_of_the_checkout(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """First on the PATH, through a link elsewhere, or by its absolute name as `uv run` finds it."""
    (_site(environment) / "installed.py").write_text("NUMBER = 3.0\n")
    command = "python prog.py"
    bin_ = environment / "bin"
    if how == "link":
        (tmp_path / "tools").symlink_to(environment)
        bin_ = tmp_path / "tools" / "bin"
    if how == "activated":
        monkeypatch.setenv("VIRTUAL_ENV", str(environment))
        command = f"{environment}/bin/python prog.py"
    else:
        monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    program = (
        "import installed, os\nprint('score:', installed.NUMBER)\n"
        "try: open(installed.__file__, 'a'); print('WROTE')\nexcept OSError: pass\n"
    )
    toml = TASK.replace("python -S -E prog.py", command)
    make_task(tmp_path / "task", program, toml, files={".gitignore": ".venv\n"})
    found = run_session(tmp_path / "task", ScriptedAgent())
    assert [run.metric for run in found.runs] == [3.0] * 3
    assert "WROTE" not in logs(found, 0)


@needs_landlock
def test_the_settings_that_tools_look_for_upwards_can_be_read(tmp_path: Path) -> None:
    """`uv run` fails at a `pyproject.toml` above its project that it sees but cannot read."""
    program = (
        "import os\nfolder = os.getcwd()\nfound = 0\n"
        "while (folder := os.path.dirname(folder)) != '/':\n"
        "    if os.path.exists(folder + '/pyproject.toml'):\n"
        "        found += len(open(folder + '/pyproject.toml').read())\n"
        "print('score:', found)\n"
    )
    (tmp_path / "pyproject.toml").write_text("12")
    root = make_task(tmp_path / "task", program, files={"pyproject.toml": "345"})
    assert [run.metric for run in run_session(root, ScriptedAgent()).runs] == [5.0] * 3


FINDER = """\
from __future__ import annotations
import sys
MAPPING: dict[str, str] = {mapping}
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        import importlib.util
        if name in MAPPING:
            return importlib.util.spec_from_file_location(name, MAPPING[name] + "/__init__.py")
def install():
    sys.meta_path.append(Finder)
"""


@needs_landlock
@pytest.mark.parametrize("how", ["path", "finder"])
def test_editable_packages(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A run imports its own tree's: the checkout's is neither seen nor what was changed. One that
    lies elsewhere is read there."""
    root, other = tmp_path / "task", tmp_path / "other"
    (other / "theirs").mkdir(parents=True)
    (other / "theirs" / "__init__.py").write_text("NUMBER = 100.0\n")
    packages = {"own": str(root / "src" / "own"), "theirs": str(other / "theirs")}
    site = _site(environment)
    if how == "path":
        (site / "own.pth").write_text(f"{root}/src\n")
        (site / "theirs.pth").write_text(f"{other}\n")
    else:
        (site / "__editable___x_finder.py").write_text(FINDER.format(mapping=packages))
        (site / "x.pth").write_text("import __editable___x_finder as f; f.install()\n")
    assert set(find_editable_packages(site)) == {root / "src", other}
    monkeypatch.setenv("PATH", f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}")
    toml = TASK.replace("python -S -E", "python").replace("prog.py", "src/own/__init__.py", 1)
    toml = toml.replace("python src/own/__init__.py", "python prog.py")
    program = "import own, theirs\nprint('score:', own.NUMBER + theirs.NUMBER)\n"
    files = {"src/own/__init__.py": "NUMBER = 5.0\n", ".gitignore": ".venv\n"}
    make_task(root, program, toml, files=files)
    (root / "src" / "own" / "__init__.py").write_text("NUMBER = 77.0\n")  # not committed
    git(root, "update-index", "--assume-unchanged", "src/own/__init__.py")
    policies = RunPolicies(
        task_of(root), SessionPaths(root, "t"), workspace_of(root), {"PATH": os.environ["PATH"]}
    )
    env = policies.environment(Purpose.RUN, tmp_path / "tree", tmp_path / "tmp")
    assert env["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "tree" / "src")]
    allowed = policies.confinement(Purpose.RUN, "true", tmp_path / "tree", tmp_path / "tmp")
    assert allowed is not None
    assert str(other) in allowed.read
    assert not any(Path(path).is_relative_to(root / "src") for path in allowed.read)
    (root / "src" / "own" / "__init__.py").write_text("NUMBER = 5.0\n")
    found = run_session(root, ScriptedAgent())
    assert [run.metric for run in found.runs] == [105.0] * 3, logs(found, 0)


# ---- messages ------------------------------------------------------------------------------------


@needs_landlock
def test_a_baseline_that_its_confinement_breaks_says_so(prey: Prey) -> None:
    (prey.root / "prog.py").write_text(f"open({str(prey.home / '.ssh' / 'id_ed25519')!r})\n")
    git(prey.root, "commit", "-qam", "reads a key")
    with pytest.raises(BaselineError) as raised:
        run_session(prey.root, ScriptedAgent())
    key = prey.home / ".ssh" / "id_ed25519"
    for word in (
        "Permission denied",
        f"denied: reading {key}",
        'inputs = ["id_ed25519"]` in [run]',
    ):
        assert word in str(raised.value)
    with pytest.raises(BaselineError) as raised:
        run_session(
            prey.root, ScriptedAgent(), tag="free", runner__confine=False, run__command="false"
        )
    assert "denied" not in str(raised.value)


def test_a_baseline_that_fails_for_another_reason_has_no_such_hint(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", "raise SystemExit('the data is stale')\n")
    with pytest.raises(BaselineError) as raised:
        run_session(root, ScriptedAgent())
    assert "confine" not in str(raised.value)


def test_a_session_without_confinement_warns(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    (root / "prog.py").write_text(f"open({str(secret)!r})\n" + PROGRAM)
    git(root, "commit", "-qam", "reads a secret")
    found = run_session(root, ScriptedAgent(), runner__confine=False)
    assert all(run.metric for run in found.runs)
    warnings = [line for line in found.lines if "runs are not confined" in line]
    assert len(warnings) == 1
    assert "[runner] confine = false" in warnings[0]
    assert any("runs are not confined" in warning for warning in found.record.warnings)


def test_without_landlock_a_session_warns_once_and_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    for value in (5.0, 4.0):
        found = run_session(root, ScriptedAgent(change(VALUE=value)))
    assert found.verdicts == [("keep", None)] * 2
    assert sum("no Landlock" in warning for warning in found.record.warnings) == 1
    assert not any("no Landlock" in line for line in found.lines)  # of the second
    assert any("no Landlock" in line for line in not_enforced(task_of(root)))


@needs_landlock
def test_check_says_what_holds(root: Path) -> None:
    checked = check_task(task_of(root), 2, lambda line: None)
    holds, lacks = "\n".join(checked.enforced), "\n".join(checked.not_enforced)
    assert "a run reads its tree, the system" in holds
    assert "1024 processes, files of 50 GB, a log of 16 MB" in holds
    assert "no network of any kind" in holds or "no TCP" in holds
    assert "a run: it can connect to sockets that have a path" in lacks
    assert ("/tmp, /dev/shm and message queues are its own" in holds) == namespaces.is_available()
    assert ("gives it no namespaces" in lacks) != namespaces.is_available()
    assert ("nobody waits for is not counted" in lacks) != cpu_clock.is_available()
    free = task_of(root, runner__confine=False)
    assert not any("a run reads" in line for line in enforced(free))
    assert any("[runner] confine = false" in line for line in not_enforced(free))
    open_ = task_of(root, runner__network=True)
    assert any("[runner] network" in line for line in not_enforced(open_))
    assert not any("network" in line for line in enforced(open_))


@pytest.mark.parametrize(
    ("key", "value"),
    [("processes", 0), ("processes", "many"), ("file_limit", 0), ("confine", "no")],
)
def test_settings_that_are_refused(root: Path, key: str, value: object) -> None:
    with pytest.raises(TaskError, match=rf"\[runner\] {key}: found .*; accepted: "):
        task_of(root, **{f"runner__{key}": value})


@needs_landlock
def test_devices_are_for_computing(tmp_path: Path) -> None:
    found = {str(path) for path in run_policy.list_devices()}
    assert {"/dev/null", "/dev/shm"} <= found
    assert not any(re.match(r"/dev/(sd|vd|nvme|tty|pts|mem|kvm|dm-)", path) for path in found)


@needs_landlock
def test_a_confinement_is_looked_up_once_and_survives_json(root: Path) -> None:
    policies = RunPolicies(
        task_of(root), SessionPaths(root, "t"), workspace_of(root), dict(os.environ)
    )
    first = policies.confinement(Purpose.RUN, "true", root / "a", root / "b")
    began = time.perf_counter()
    again = policies.confinement(Purpose.RUN, "true", root / "a", root / "b")
    assert time.perf_counter() - began < 0.1
    assert first == again and first is not None
    assert Confinement.from_json(json.loads(json.dumps(first.to_json()))) == first
