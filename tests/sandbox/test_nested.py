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


NONE_OF_ITS_BUSINESS = [
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
]


@needs_landlock
@pytest.mark.parametrize("line", NONE_OF_ITS_BUSINESS)
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


WARM_SCORER = """\
import json, os, shlex, shutil, subprocess, sys
from functools import partial
from autoresearch_aside import become
os.mkdir("candidate")
shutil.copy("left.py", "candidate")
env = {**os.environ, "GIVEN": "1"}
process = subprocess.Popen(
    [*shlex.split(os.environ["AUTORESEARCH_ASIDE"]), sys.executable, "left.py", "argument"],
    cwd="candidate", env=env, preexec_fn=partial(become, ["left.py", "argument"], env),
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
)
hidden = open("hidden/answer").read()
answer, errors = process.communicate("question")
print(answer, errors, process.returncode, sep="\\n")
print("---")
print("score:", 7 + answer.startswith("question"))
"""
WARM_TRY = """\
import atexit, errno, os, re, signal, socket, sys, tempfile
print(sys.stdin.read())
for line in LINES:
    try:
        exec(line)
        print("did-it", line)
    except OSError as error:
        print(errno.errorcode.get(error.errno, error))
secret = re.compile(rb"the answer is 12345[4]321")  # so that it is not here itself
with open("/proc/self/mem", "rb") as memory:
    for line in open("/proc/self/maps"):
        place, rights, *_ = line.split()
        if rights.startswith("rw") and "[v" not in line:
            start, end = (int(number, 16) for number in place.split("-"))
            memory.seek(start)
            print("knows" if secret.search(memory.read(end - start)) else "", end="")
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print()
print(sys.argv, sys.path[0] == os.getcwd(), os.environ["GIVEN"], len(os.listdir("/proc/self/fd")),
      "ASIDE" in str(os.environ), os.listdir(tempfile.gettempdir()), "autoresearch_aside" in
      sys.modules, "json" in sys.modules, int(status["CapEff"], 16) & CAPABILITIES)
atexit.register(print, "at exit")
sys.exit(3)
"""


@needs_landlock
def test_a_forked_process_knows_nothing_of_the_text(tmp_path: Path) -> None:
    """The same walls as above, and none of the scorer's memory of the hidden file."""
    secret = "the answer is 123454321"
    lines = [line.format(task=tmp_path / "task") for line in NONE_OF_ITS_BUSINESS]
    if landlock.abi() >= landlock.SCOPE_ABI:
        lines.append("os.kill(os.getppid(), signal.SIGTERM)")
    forbidden = sum(1 << capability for capability in landlock.DROPPED)
    left = WARM_TRY.replace("LINES", repr(lines))
    left = left.replace("CAPABILITIES", str(forbidden))
    files = {"score.py": WARM_SCORER, "hidden/answer": secret, "data/x": "1"}
    files[".gitignore"] = "hidden\ndata\n"
    scored = SCORED.format(task=tmp_path / "task").replace(" -S -E", "") + 'preload = ["json"]\n'
    (tmp_path / "named").write_text("the answers")
    toml = TASK.replace('env = ["COUNTED"]', 'inputs = ["data"]') + scored
    program = f"open('left.py', 'w').write({left!r})\n"
    root = make_task(tmp_path / "task", program, toml, files=files)
    found = run_session(root, ScriptedAgent(), judge__deterministic=True)
    log = (found.paths.runs / found.runs[0].name / "score.log").read_text()
    assert {(run.metric, run.reason) for run in found.runs} == {(8.0, None)}, log
    question, *answers = log.splitlines()
    assert question == "question"
    refused, rest = answers[: len(lines)], answers[len(lines) :]
    assert set(refused) <= {"EACCES", "EPERM", "EROFS"}, log
    facts = "['left.py', 'argument'] True 1 4 False [] False True 0"
    assert rest[:5] == ["", facts, "at exit", "", ""], log
    assert rest[5] == "3"


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
