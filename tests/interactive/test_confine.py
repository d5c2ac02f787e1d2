"""`autoresearch confine`: a program in a terminal under the rules of headless agents, which calls
the harness outside its sandbox. Real processes, a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from support.commands import COMMAND, call
from support.sessions import TASK, alive, make_task, night

from autoresearch.cli.forwarded import find_refusal
from autoresearch.cli.parser import make_parser
from autoresearch.interactive.verdict import read_latest
from autoresearch.sandbox import landlock, seccomp
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths

pytestmark = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
TRY = [sys.executable, "-P", "-m", "autoresearch"]
PRELUDE = f"""
import json, os, re, signal, subprocess, sys, time
from pathlib import Path
def ours(*words):
    done = subprocess.run([*{TRY!r}, *words], capture_output=True, text=True)
    return [done.returncode, done.stdout, done.stderr]
def attempt(function):
    try:
        return bool(function()) or True
    except OSError:
        return False
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task after `start`."""
    root = make_task(tmp_path_factory.mktemp("confined") / "task")
    done = call(root, "start", "--tag", "t")
    assert "nothing confines an agent" in done.stderr and "autoresearch confine" in done.stderr
    return root


def confine(root: Path, program: str, *options: str, **settings: Any) -> Any:
    """Start a program of Python, which lies outside the folder."""
    file = root.parent / "agent.py"  # its command line names it, so it may be read
    file.write_text(PRELUDE + program)
    words = [*COMMAND, "confine", *options, "--", sys.executable, str(file)]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | settings
    return subprocess.Popen(words, cwd=root, **settings)


def facts(root: Path, program: str, **settings: Any) -> dict[str, Any]:
    process = confine(root, program, **settings)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return found


def test_it_is_confined_and_its_tries_are_judged(root: Path) -> None:
    """The folder is its own, the checkout, the record and the home folder are closed, and the
    harness works all the same, for it has a process outside."""
    other = root.parent / "other"
    other.mkdir()
    (other / "file").write_text("mine")
    seen = facts(
        root,
        f"""
file = Path("prog.py")
file.write_text(file.read_text().replace("VALUE = 10.0", "VALUE = 8.0"))
Path(os.environ["TMPDIR"], "scratch").write_text("x")
print(json.dumps({{
    "folder": os.getcwd(),
    "record": attempt(lambda: open({str(root / ".autoresearch" / "ledger.sqlite")!r}, "rb")),
    "checkout": attempt(lambda: open({str(root / "prog.py")!r}, "a")),
    "other": attempt(lambda: open({str(other / "file")!r})),
    "mode": attempt(lambda: os.chmod({str(other / "file")!r}, 0o777)),
    "parent": attempt(lambda: os.kill(os.getppid(), signal.SIGCONT)),
    "variable": os.environ.get("MY_SECRET"),
    "brief": ours("brief"),
    "note": ours("note", "kept"),
    "try": ours("try", "-m", "a lower value", "--as", "me", "--json"),
    "refused": ours("try", "-m", "nothing"),
}}))
""",
        env={**os.environ, "MY_SECRET": "x"},
    )
    work = root / ".autoresearch" / "t" / "work"
    assert seen["folder"] == str(work)
    assert not any(seen[name] for name in ("record", "checkout", "other", "mode", "variable"))
    assert not seen["parent"] or landlock.abi() < landlock.SCOPE_ABI
    assert seen["brief"][0] == 0 and "## Your turn" in seen["brief"][1]
    assert seen["note"][:2] == [0, "noted\n"]
    assert json.loads(seen["try"][1])["status"] == "keep"
    assert seen["refused"][0] == 1 and "no change" in seen["refused"][1]
    after = night(root, "t")
    assert (after.experiments[1].agent, after.experiments[1].status) == ("me", "keep")
    assert "nothing confines an agent" not in call(root, "status").stdout
    assert (other / "file").read_text() == "mine"


def test_what_it_may_not_ask_for_is_refused(root: Path) -> None:
    """Another session, a text that is no request, a wrong key. Whatever it sends, the next command
    is carried out."""
    seen = facts(
        root,
        """
import socket
def send(data, fds=(1, 2)):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        socket.send_fds(connection, [data], fds)
        return connection.recv(16).decode()
path, _, key = os.environ["AUTORESEARCH_HARNESS"].rpartition(":")
words = [key, "brief"]
say = lambda *texts: json.dumps(texts).encode()
print(json.dumps({
    "refused": ours("brief", "--tag", "other"),
    "unanswered": [
        send(b"{"), send(b"[]"), send(b'"x"'), send(say(key, 1)), send(say(key, "a\\0")),
        send(say("another key", "brief")), send(say(key, "brief"), [1]), send(b"{}", []),
    ],
    "brief": ours("brief")[0],
}))
""",
    )
    assert seen["refused"][0] == 1 and "its commands are start, try" in seen["refused"][2]
    assert set(seen["unanswered"]) == {""}
    assert seen["brief"] == 0


@pytest.mark.parametrize(
    ("words", "is_accepted"),
    [
        ("start", True),
        ("start --tag t --json", True),
        ("try -m x --notes y --as me --detach", True),
        ("wait --timeout 60", True),
        ("note x", True),
        ("scratch -m x --detach", True),
        ("start --from 1", True),
        ("show 0", True),
        ("diff 0 s1", True),
        ("start --experiments 9", False),
        ("start --level fast", False),
        ("brief --tag other", False),
        ("brief /etc", False),
        ("report", False),
        ("start --scratch 99", False),
        ("show 0 --tag other", False),
        ("log --scratch", False),
        ("run --agent command:id", False),
        ("confine -- id", False),
    ],
)
def test_it_has_the_commands_of_an_agent(words: str, is_accepted: bool) -> None:
    options = make_parser().parse_args(words.split())
    assert (find_refusal(options, words.split()[0], "t") is None) == is_accepted


def test_a_run_that_finds_the_socket_does_not_know_the_key(root: Path) -> None:
    """The path is in `/proc/net/unix`, the key in the variables of the agent's processes."""
    process = confine(
        root,
        'print(os.environ["AUTORESEARCH_HARNESS"], flush=True); sys.stdin.read()',
        stdin=subprocess.PIPE,
    )
    path, _, key = process.stdout.readline().strip().rpartition(":")
    assert path in Path("/proc/net/unix").read_text()
    assert key not in Path("/proc/net/unix").read_text()
    process.communicate(timeout=60)


def test_its_end_is_ours(root: Path) -> None:
    """Its exit code, the signals that end it, and whatever it has left running."""
    process = confine(
        root,
        """
def end(*_):
    left = subprocess.Popen(["sleep", "300"], start_new_session=True)
    os.write(1, str(left.pid).encode())
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
""",
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (3, "")
    assert not alive(int(stdout))
    process = confine(root, "os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate(timeout=60)
    assert process.returncode == 137


def test_a_try_under_way_is_interrupted_at_the_end(root: Path, tmp_path: Path) -> None:
    """It stays open, as after Ctrl-C: a later `wait` or `try` finishes it."""
    own = shutil.copytree(root, tmp_path / "task", symlinks=True)
    program = f"""
file = Path("prog.py")
file.write_text("import time; time.sleep(50)\\n" + file.read_text())
subprocess.Popen([*{TRY!r}, "try", "-m", "slow"], stdout=2)
while '"running"' not in ours("wait", "--timeout=0.1", "--json")[1]: time.sleep(0.1)
"""
    process = confine(own, program)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    paths = SessionPaths(own, "t")
    assert find_owner(paths) is None, "nothing outside goes on"
    report = read_latest(paths)
    assert report is not None and report.status in ("interrupted", "running")
    assert night(own, "t").experiments[-1].status is None


def test_it_has_the_terminal_but_cannot_type_there(root: Path) -> None:
    """Ctrl-C reaches the program, not us. What it would type into the terminal (TIOCSTI) would be
    read by the user's shell, which nothing confines."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    program = """
import fcntl, termios
signal.signal(signal.SIGINT, lambda *_: os._exit(5))
assert sys.stdin.isatty() and os.open("/dev/tty", os.O_RDWR)
try:
    fcntl.ioctl(0, termios.TIOCSTI, b"x")
    print("typed", flush=True)
except OSError:
    print("refused", flush=True)
time.sleep(60)
"""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = confine(root, program, preexec_fn=take_terminal, **streams)
    os.close(theirs)
    text = b""
    while b"refused" not in text and b"typed" not in text:
        text += os.read(ours, 1000)
    os.write(ours, b"\x03")
    assert process.wait(60) == 5
    os.close(ours)
    assert b"refused" in text or not seccomp.is_available(), text


def test_a_known_agent_has_its_configuration(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the program's name, or `--agent`; another program does not see it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    script = (
        f"#!{sys.executable}\n{PRELUDE}"
        + """
print(attempt(lambda: Path.home().joinpath(".claude", "memory").write_text("x")),
      attempt(lambda: os.listdir(Path.home())), os.environ.get("ANTHROPIC_API_KEY"))
"""
    )
    for name in ("claude", "other"):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)

    def see(*words: str) -> str:
        words = (*COMMAND, "confine", *words)
        return subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout

    assert see("--", "claude") == "True False key\n"
    assert see("--agent", "claude", "--", "other") == "True False key\n"
    assert see("--", "other") == "False False None\n"


def test_what_cannot_be_confined_is_not_started(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    start = ("--", "touch", mark)
    with monkeypatch.context() as patch:
        patch.setattr(landlock, "abi", lambda: 0)
        done = call(root, "confine", *start)
        assert done.returncode != 0 and "no Landlock" in done.stderr
    unconfined = make_task(tmp_path / "task", toml=TASK + "[agent]\nconfine = false\n")
    done = call(unconfined, "confine", *start)
    assert done.returncode != 0 and "no session was started" in done.stderr
    assert call(unconfined, "start", "--tag", "t").returncode == 0
    done = call(unconfined, "confine", *start)
    assert done.returncode != 0 and "[agent] confine = false" in done.stderr
    done = call(root, "confine", "--agent", "tuner", *start)
    assert done.returncode != 0 and "no program of its own" in done.stderr
    work = root / ".autoresearch" / "t" / "work"
    work.rename(work.with_name("elsewhere"))
    work.symlink_to(Path.home())
    done = call(root, "confine", *start)
    assert done.returncode == 2 and "is a link" in done.stderr
    work.unlink()
    work.with_name("elsewhere").rename(work)
    done = call(root, "confine", "--", "no-such-program")
    assert done.returncode != 0 and "not installed" in done.stderr
    assert not mark.exists()


def test_a_try_without_it_is_a_warning_of_the_record(root: Path) -> None:
    work = root / ".autoresearch" / "t" / "work"
    call(work, "try", "-m", "nothing")
    assert "nothing confines an agent" in call(root, "status").stdout
