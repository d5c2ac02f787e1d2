"""Hostile programs, texts and numbers: each costs its own experiment, and reaches nobody else.

A session runs one hostile program after another for real. What they print, and what an agent
writes, is then handed to every parser and to every place where it is shown or stored.
"""

from __future__ import annotations

from pathlib import Path

from support.sessions import (
    PROGRAM,
    ScriptedAgent,
    Step,
    change,
    make_task,
    rewrite,
    run_session,
    task_of,
)

from autoresearch.commands.fsck import Finding, audit, repair
from autoresearch.measure.scoring import MAX_NUMBERS
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import Status

# ---- programs ----------------------------------------------------------------------------------

ODD_NAMES = [b"new\nline", b"\xff\xfe half", b"\x1b[31mred", b"\xe2\x80\xaeleft", b"\xed\xa0\x80"]
NO_NUMBERS = (
    *("1e400", "-1e400", "1e308", "-1e308", "0x10", "1_000", "١٢", '"nan"'),
    "9" * 5000,
)
"""Metrics that are printed, and are none: not decimal, or too large to compute with."""

CRASHES = {
    "1,900 folders in each other": "unexpected error: RecursionError",
    "a name of 255 bytes in folders of 255": "unexpected error: OSError",
    "an error with hostile words": "exit code 1",
}
"""The others print their metric, leave something behind, and are merely worse."""

HOSTILE = {
    "1,900 folders in each other": """
for _ in range(1900):
    os.mkdir("d")
    os.chdir("d")
open("file", "w").close()
""",
    "1,900 folders, all closed": """
for _ in range(1900):
    os.mkdir("d")
    os.chdir("d")
for _ in range(1900):
    os.chdir("..")
    os.chmod("d", 0)
""",
    "a tracked file of 6 GB, all of it a hole": "os.truncate('big.txt', 6_000_000_000)\n",
    "a link in place of a tracked file": """
os.remove("big.txt")
os.symlink("/dev/zero", "big.txt")
""",
    "odd names": f"for name in {ODD_NAMES}: open(name, 'w').close(); os.mkdir(name + b' folder')\n",
    "a name of 255 bytes in folders of 255": """
for _ in range(15):
    os.mkdir("n" * 255)
    os.chdir("n" * 255)
    open("m" * 255, "w").close()
""",
    "a fifo, a socket and a device": """
import socket
os.remove("big.txt")
os.mkfifo("big.txt")
socket.socket(socket.AF_UNIX).bind("socket")
for make in (lambda: os.mknod("device", 0o20666, os.makedev(1, 5)), lambda: os.mkfifo("model.pt")):
    try: make()
    except OSError: pass
""",
    "a folder in place of a tracked file": "os.remove('big.txt'); os.makedirs('big.txt/big.txt')\n",
    "a file in place of a tracked folder": """
import shutil
shutil.rmtree("lib")
open("lib", "w").close()
""",
    "an unreadable file and folder": """
os.makedirs("closed/within")
open("closed/within/file", "w").close()
os.chmod("closed/within/file", 0)
os.chmod("closed", 0)
os.chmod("big.txt", 0)
""",
    "a tree without permissions": """
for where, folders, files in os.walk(".", topdown=False):
    for name in folders + files: os.chmod(os.path.join(where, name), 0)
os.chmod(".", 0)
""",
    "links in a circle": """
os.symlink("loop", "loop"); os.symlink(".", "self"); os.symlink("b", "a"); os.symlink("a", "b")
os.symlink("/", "root")
""",
    "attributes that keep files": """
import subprocess
open("kept", "w").close()
for flag in ("+i", "+a"): subprocess.run(["chattr", flag, "kept", "."], stderr=-3)
""",
    "long lines": "print('x' * 100_000); print('METRIC ' + 'x' * 100_000 + '=1')\n",
    "no text": r"""
os.write(1, bytes(range(256)) * 20 + b'\xe2\x80\n\xff\n\0METRIC score=1\n')
""",
    "line ends of other kinds": r"""
for end in "\f\v\x1c\x1d\x1e\x85\u2028\u2029\r": print("quoted", end, "METRIC score=-5", sep="")
""",
    "thousands of names": "for i in range(20_000): print(f'METRIC n{i}={i}')\n",
    "escapes and directions": r"""
print("\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\u2066\u200f")
print("METRIC µ\u0301=1\nMETRIC =1\nMETRIC a=\nMETRIC")
""",
    **{
        f"peak_vram_mb {value}": f"print('METRIC peak_vram_mb={value}')\n"
        for value in ("1e308", "-1e308", "-1", "1e15", "nan")
    },
    **{
        f"a metric of {text[:20]}": f"print('METRIC score={text}', flush=True)\nos._exit(0)\n"
        for text in NO_NUMBERS
    },
    "an error with hostile words": r"raise OSError('\x1b[31m\u202e\udcff =cmd()' * 100)" + "\n",
}
"""What a program does after it has printed a metric that is worse."""

WORSE = PROGRAM.replace("VALUE = 10.0", "VALUE = 20.0") + "sys.stdout.flush()\n"


def test_hostile_programs(tmp_path: Path) -> None:
    """After each of them the record is in order, and the next experiment is measured as ever."""
    files = {"big.txt": "text\n", "lib/helper.py": "GAIN = 1\n"}
    root = make_task(tmp_path / "task", files=files)
    findings: dict[str, list[Finding]] = {}

    def audit_and_propose(name: str, end: str) -> Step:
        def step(turn: Turn) -> Proposal | Failure | None:
            if found := audit(task_of(root)):
                findings[f"before {name}"] = found
            return rewrite(WORSE + end, name)(turn)

        return step

    steps = [audit_and_propose(name, end) for name, end in HOSTILE.items()]
    found = run_session(root, ScriptedAgent(*steps, change(VALUE=5.0)))
    assert found.reason == "the agent has nothing more to propose"
    assert findings == {}
    assert repair(task_of(root)) == audit(task_of(root)) == []
    reasons = {one.description: one.reason for one in found.experiments}
    crashes = {one.description for one in found.experiments if one.status is Status.CRASH}
    assert crashes == {*CRASHES, *(f"a metric of {text[:20]}" for text in NO_NUMBERS)}
    assert {name: reasons[name] for name in CRASHES} == CRASHES
    assert found.verdicts[-1] == ("keep", None)
    assert [status for status, _ in found.verdicts].count("keep") == 1
    assert all(len(run.numbers) <= MAX_NUMBERS for run in found.runs)
