"""The sandbox within the scorer's: what code that is executed there can reach, by real processes.

The task's runs leave a program behind, which the scorer starts behind `AUTORESEARCH_ASIDE`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.sessions import TASK, ScriptedAgent, make_task, run_session

from autoresearch.protocols import Confinement
from autoresearch.sandbox import landlock, nested

needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
needs_scopes = pytest.mark.skipif(
    landlock.abi() < landlock.SCOPE_ABI, reason="needs Landlock's ABI 6"
)

SCORED = """
[score]
command = "python -S -E score.py {task}/../named"
reads = ["left.py"]
hidden = ["hidden"]
"""
SCORER = """\
import json, os, shlex, shutil, subprocess, sys
hidden = open("hidden/answer").read() + open(sys.argv[1]).read()
os.mkdir("candidate")
shutil.copy("left.py", "candidate")
wall = shlex.split(os.environ["AUTORESEARCH_ASIDE"])
done = subprocess.run(
    [*wall, sys.executable, "-S", "-E", "left.py"],
    cwd="candidate", input=b"question", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
)
print(json.dumps([done.returncode, *done.stdout.decode().split()]))
print(done.stderr.decode())
print("---")
print("score:", 7 + (done.stdout.split()[:1] == [b"question"]))
"""
TRY = """\
import errno, os, signal, socket, sys
print(sys.stdin.read())
try:
    {line}
    print("did-it")
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
"""


def tried(folder: Path, line: str) -> list[str]:
    """What became of `line` behind the wall: its words, after the question it was asked."""
    left = TRY.format(line=line.format(task=folder / "task"))
    files = {
        "score.py": SCORER,
        "hidden/answer": "7",
        "data/x": "1",
        ".gitignore": "hidden\ndata\n",
    }
    toml = TASK.replace('env = ["COUNTED"]', 'inputs = ["data"]') + SCORED.format(
        task=folder / "task"
    )
    (folder / "named").write_text("the answers")
    program = f"open('left.py', 'w').write({left!r})\n"
    root = make_task(folder / "task", program, toml, files=files)
    found = run_session(root, ScriptedAgent(), judge__deterministic=True)
    assert {(run.metric, run.reason) for run in found.runs} == {(8.0, None)}
    log = (found.paths.runs / found.runs[0].name / "score.log").read_text()
    code, question, *words = json.loads(log.splitlines()[0])
    assert (code, question) == (0, "question"), log
    return list(words)


@needs_landlock
@pytest.mark.parametrize(
    "line",
    [
        "open('../hidden/answer')",
        "open('{task}/hidden/answer')",
        "open('../score.py')",
        "open('{task}/../named')",
        "os.listdir('..')",
        "open('../data/x')",
        "open('{task}/data/x')",
        "open('{task}/.autoresearch/ledger.sqlite')",
        "open('left.py', 'w')",
        "open('../json.py', 'w')",
        "open('/dev/shm/' + str(os.getpid()), 'w')",
        "open('/proc/%d/environ' % os.getppid(), 'rb').read(1)",
        "open('/proc/%d/mem' % os.getppid(), 'rb')",
        "os.readlink('/proc/%d/fd/0' % os.getppid())",
        "socket.socket().connect(('127.0.0.1', 9))",
    ],
)
def test_what_is_none_of_its_business(tmp_path: Path, line: str) -> None:
    assert tried(tmp_path, line)[0] in ("EACCES", "EPERM", "EROFS")


@needs_scopes
def test_it_cannot_signal_the_scorer(tmp_path: Path) -> None:
    assert tried(tmp_path, "os.kill(os.getppid(), signal.SIGTERM)") == ["EPERM"]


@needs_landlock
def test_what_it_may_do(tmp_path: Path) -> None:
    """Its own folder, what is installed, and a temporary folder that nobody else sees."""
    line = (
        "import tempfile; open('left.py').read(); tempfile.TemporaryFile(); "
        "print('ASIDE' in str(os.environ), len(os.listdir(tempfile.gettempdir())))"
    )
    assert tried(tmp_path, line) == ["False", "0", "did-it"]


def asked(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    read = ("/usr", "/lib", "/lib64", "/bin", sys.base_prefix, sys.prefix)
    wall = nested.make_prefix(Confinement(read, (), False))
    return subprocess.run(
        [*shlex.split(wall), *command],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_landlock
def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    done = asked(tmp_path, "no-such-program")
    assert (done.returncode, done.stdout) == (127, "")
    assert "cannot start no-such-program" in done.stderr


@needs_landlock
def test_two_do_not_see_each_others_temporary_folders(tmp_path: Path) -> None:
    """What one leaves there is not to be had by the other."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    leave = "import os, tempfile; path = tempfile.mkstemp()[1]; print(path)"
    left = asked(tmp_path / "a", sys.executable, "-S", "-c", leave).stdout.strip()
    assert Path(left).exists()
    seen = asked(tmp_path / "b", sys.executable, "-S", "-c", f"open({left!r})")
    assert "PermissionError" in seen.stderr


def test_where_nothing_confines_it_the_scorer_is_not_told_otherwise(tmp_path: Path) -> None:
    scorer = "import os\nprint('---')\nprint('score:', len(os.environ.get('{}', '')))\n"
    files = {"score.py": scorer.format(nested.PREFIX_VARIABLE)}
    toml = TASK + '[score]\ncommand = "python -S -E score.py"\n'
    root = make_task(tmp_path / "task", "", toml, files=files)
    found = run_session(root, ScriptedAgent(), runner__confine=False, judge__deterministic=True)
    assert {run.metric for run in found.runs} == {0.0}


def test_the_whole_command_is_one_word_list() -> None:
    """Paths with spaces and quotes come back as they were."""
    wanted = Confinement(("/a b", "/c'd"), ("/e",), False, True)
    python, *flags, file, given = shlex.split(nested.make_prefix(wanted))
    assert python == sys.executable and flags == ["-I", "-S"]
    assert Path(file).samefile(nested.__file__) and Path(file).is_absolute()
    assert Confinement.from_json(json.loads(given)) == wanted
