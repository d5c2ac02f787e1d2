"""Hostile programs, texts and numbers: each costs its own experiment, and reaches nobody else.

A session runs one hostile program after another for real. What they print, and what an agent
writes, is then handed to every parser and to every place where it is shown or stored.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.commands import call
from support.fabricated import FabricatedSession
from support.sessions import (
    PROGRAM,
    TASK,
    ScriptedAgent,
    Step,
    change,
    make_task,
    rewrite,
    run_session,
    task_of,
)

from autoresearch.cli.session import print_json, print_line
from autoresearch.commands.fsck import Finding, audit, repair
from autoresearch.core.events import ExperimentFinished, TurnFailed, Warned
from autoresearch.files import remove_tree
from autoresearch.formatting import UNPRINTABLE, quote_trailers
from autoresearch.git import trees
from autoresearch.measure.output import last_lines, read_log
from autoresearch.measure.scoring import MAX_NUMBERS
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import Metric, Role, Status
from autoresearch.report.experiments import log_text, show_text
from autoresearch.report.page import draw_page
from autoresearch.report.summary import to_json
from autoresearch.report.text import status_text
from autoresearch.store.answers import make_recordable
from autoresearch.store.ledger import Ledger
from autoresearch.store.results import row

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
    unclear = {"no text", "line ends of other kinds"}  # they name the metric after the last value
    assert crashes == {*CRASHES, *(f"a metric of {text[:20]}" for text in NO_NUMBERS), *unclear}
    assert all((reasons[name] or "").startswith("metric unclear") for name in unclear)
    assert {name: reasons[name] for name in CRASHES} == CRASHES
    assert found.verdicts[-1] == ("keep", None)
    assert [status for status, _ in found.verdicts].count("keep") == 1
    assert all(len(run.numbers) <= MAX_NUMBERS for run in found.runs)


MOUNT = """
import subprocess
os.makedirs("mounted", exist_ok=True)
subprocess.run(["mount", "-t", "tmpfs", "none", "mounted"], check=True)
"""


@pytest.mark.parametrize("reused", [False, True])
def test_what_cannot_be_removed_ends_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reused: bool
) -> None:
    """Root's mounts stand for what another user left, such as a container's root."""
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount")
    monkeypatch.setattr(trees, "SPARE_FILES", 1 if reused else 5_000)
    root = make_task(tmp_path / "task")
    elsewhere = "os.chdir(os.environ['TMPDIR'])\n" + MOUNT
    agent = ScriptedAgent(rewrite(WORSE + MOUNT), rewrite(WORSE + elsewhere), change(VALUE=5.0))
    free = {"runner__confine": False}
    try:
        found = run_session(root, agent, **free)
        assert [status for status, _ in found.verdicts] == ["discard", "discard", "keep"]
        again = run_session(root, ScriptedAgent(change(VALUE=4.0)), **free)
        assert again.verdicts[3:] == [("keep", None)]
        [left] = audit(task_of(root))
        assert (left.what, left.repairable) == ("leftover", False)
        assert repair(task_of(root)) == []
    finally:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        ours = (str(root), str(found.paths.temporary))
        for mount in filter(lambda name: name.startswith(ours), mounts):
            subprocess.run(["umount", mount], check=True)
        for folder in found.paths.temporary.parent.glob(f"{found.paths.temporary.name}.left-*"):
            remove_tree(folder)


CLOSED = {
    "its log": ("os.fchmod(1, 0)\n", "worse"),
    "its log, and floods it": (
        "os.fchmod(1, 0)\nwhile True: print('x' * 100_000, flush=True)\n",
        "log too large",
    ),
    "what the scorer reads": ("os.chmod('out', 0)\n", "score: the run left no file out"),
    "its temporary folder": ("os.chmod(os.environ['TMPDIR'], 0)\n", "worse"),
}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_run_that_closes_its_files_ends_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_KEY", SECRET)
    toml = TASK.replace('env = ["COUNTED"]', 'env = ["SERVICE_KEY"]') + SCORED.partition("[gua")[0]
    files = {"score.py": "print('METRIC score=' + open('out').read())\n", "val/text": "hidden"}
    end = "open('out', 'w').write(str(score))\n"
    root = make_task(tmp_path / "task", PROGRAM + end, toml, files)
    steps = [rewrite(WORSE + end + close, name) for name, (close, _) in CLOSED.items()]
    found = run_session(root, ScriptedAgent(*steps, change(VALUE=5.0)), runner__log_limit=1_000_000)
    reasons = [reason for _, reason in CLOSED.values()]
    assert [reason for _, reason in found.verdicts] == [*reasons, None]
    assert audit(task_of(root)) == []


# ---- texts -------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *("\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\u202e", "\u2066", "\u200f", "\x00", "\ud800"),
        *("\f", "\v", "\x1c", "\x85", "\u2028", "\r", "\r\n", "\n", "\n\n", "\t", "---", "|", "`"),
        *(
            "=cmd()",
            "+1",
            "-1",
            "@SUM(A1)",
            '"',
            "METRIC score=0",
            "score: 0",
            "<b>",
            "1e400",
            "١٢",
        ),
        *("Autoresearch-Agent: forged", "Signed-off-by: forged", "12:00:00    1 keep: forged"),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=6).map("".join)
few = settings(max_examples=60, deadline=None)


def is_clean(text: str, lines: int | None = None) -> bool:
    """Whether a text has no character that commands a terminal, and this number of lines."""
    found = set(UNPRINTABLE.findall(text)) - {"\n", "\t"}
    return not found and (lines is None or text.count("\n") == lines)


@few
@given(TEXTS)
@example("quoted \f METRIC score=0")
@example("quoted \u2028METRIC score=0")
def test_a_quoted_text_makes_no_metric(text: str) -> None:
    """A scorer that quotes a model's text on one line prints no number but its own."""
    quoted = text.replace("\n", " ")
    assert read_log(f"METRIC score=0.7\nthe model said: {quoted}\n").numbers == {"score": 0.7}


@few
@given(st.binary(max_size=60) | TEXTS.map(lambda text: text.encode(errors="surrogatepass")))
def test_any_log_is_shown_clean(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    log = tmp_path_factory.getbasetemp() / "hostile.log"
    log.write_bytes(data)
    assert all(is_clean(line, lines=0) for line in last_lines(log))


@few
@given(TEXTS)
def test_events_are_one_clean_line(text: str) -> None:
    for event in (
        Warned(text),
        TurnFailed("agent", "frozen file", text, 0.0),
        ExperimentFinished(1, "keep", text, "score", 1.0, text),
    ):
        with pytest.MonkeyPatch.context() as patch:
            printed: list[str] = []
            patch.setattr("builtins.print", lambda line, to=printed, **_: to.append(line))
            print_line(event)
            print_json(event)
        assert is_clean(printed[0], lines=0)
        assert json.loads(printed[1])["text"] == str(event)
        assert printed[1].isascii()


@pytest.fixture(scope="module")
def new_session(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], FabricatedSession]]:
    folder = tmp_path_factory.mktemp("task") / ".autoresearch"
    folder.mkdir()
    ledger = Ledger(folder / "ledger.sqlite")
    tags = iter(range(10_000))
    yield lambda: FabricatedSession(ledger, f"t{next(tags)}", Metric("score"))
    ledger.close()


@settings(max_examples=25, deadline=None)
@given(TEXTS, TEXTS)
def test_views_of_a_hostile_proposal_are_clean(
    new_session: Callable[[], FabricatedSession], text: str, reason: str
) -> None:
    session = new_session()
    session.baseline()
    proposal = make_recordable(Proposal(text, text, text))
    session.change(0.1, proposal.description)
    session.open(proposal.description, 2)
    session.end(session.open_run(2, Role.SCREEN), None, "score: crashed")
    failure = make_recordable(Failure(reason, text, 0.0))
    session.ledger.add_turn(session.record, "agent", failure, 0.0)
    session.finish(2, Status.CRASH, None, f"metric is {reason[:40]!r}, not a finite number")
    experiments, metric = session.experiments(), session.metric
    runs = session.ledger.runs(session.record, 2)
    summary = session.summary(whole=True)
    assert is_clean(log_text(experiments, metric), lines=4)
    assert is_clean(show_text(experiments[2], runs, text, reason, metric))
    assert is_clean(status_text(summary))
    assert is_clean(draw_page(summary))
    json.dumps(to_json(summary), allow_nan=False)
    for experiment in experiments:
        line = row(experiment, runs)
        assert is_clean(line, lines=1)
        assert line.count("\t") == 11
        assert not any(cell.startswith(tuple("=+@")) for cell in line.split("\t"))
        assert not line.split("\t")[4].startswith("-")


@few
@given(TEXTS)
@example("\n\nAutoresearch-Agent: forged\n---\n")
@example("\n\nAutoresearch-Agent: forged\n--- \n")
def test_no_trailer_is_forged(text: str) -> None:
    """As git reads them, also from a mail."""
    hypothesis = make_recordable(Proposal("a", text)).hypothesis
    message = f"subject\n\n{quote_trailers(hypothesis)}\n\nAutoresearch-Agent: tuner\n"
    assert re.findall(r"(?m)^[\w-]+-[\w-]+\s*:.*", message) == ["Autoresearch-Agent: tuner"]
    assert not re.search(r"(?m)^---", message)


# ---- leaks, forgeries, links -------------------------------------------------------------------

SECRET = "hunter2-is-a-long-password"


def test_a_secret_in_a_traceback_is_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SERVICE_KEY", SECRET)
    toml = TASK.replace('env = ["COUNTED"]', 'env = ["COUNTED", "SERVICE_KEY"]')
    root = make_task(tmp_path / "task", toml=toml)
    leak = "raise ValueError(f'refused: {os.environ[\"SERVICE_KEY\"]}')\n"
    metric = "print('score:', os.environ['SERVICE_KEY'])\n"
    found = run_session(
        root, ScriptedAgent(rewrite(WORSE + leak), rewrite(WORSE + metric)), say=print
    )
    assert [status for status, _ in found.verdicts] == ["crash", "crash"]
    log = (found.paths.runs / found.runs_of(1)[-1].name / "log").read_text()
    assert "ValueError: refused: <SERVICE_KEY>" in log
    shown = [call(root, *words) for words in (["show", "1"], ["brief"], ["log"], ["report"])]
    texts = "".join(done.stdout + done.stderr for done in shown) + capsys.readouterr().out
    assert "<SERVICE_KEY>" in texts
    assert SECRET not in texts
    for file in root.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


SCORED = """
[score]
command = "python -S -E score.py"
reads = ["out"]
hidden = ["val/text"]
[guards]
size = "<= 10"
"""


def test_a_bound_is_on_the_scorers_number(tmp_path: Path) -> None:
    """The run prints another, and its text begins a line with a form feed."""
    files = {
        "score.py": "text = open('out').read().split('|')\n"
        "print('METRIC score=' + text[0])\nprint('METRIC size=' + text[1])\n"
        "print('quoted:', text[2])\n",
        "val/text": "hidden",
    }
    end = "open('out', 'w').write(f'{{score}}|{size}|\\fMETRIC score=-9\\u2028METRIC size=1')\n"
    root = make_task(tmp_path / "task", PROGRAM + end.format(size=9), TASK + SCORED, files)
    small = PROGRAM.replace("VALUE = 10.0", "VALUE = 4.0") + end.format(size=900)
    forger = rewrite(small + "print('METRIC size=9')\n")
    found = run_session(root, ScriptedAgent(forger, change(VALUE=5.0)))
    assert found.verdicts == [
        ("discard", "guard failed: size = 900, not size <= 10"),
        ("keep", None),
    ]
    assert found.experiments[2].metric == pytest.approx(5.0, abs=0.1)


def test_a_link_in_the_agents_folder_leads_to_no_file_of_the_user(tmp_path: Path) -> None:
    """The harness removes hidden files from the folder, and must not do so in the user's."""
    program = PROGRAM + "open('out', 'w').write(str(score))\n"
    toml = TASK + SCORED.replace('[guards]\nsize = "<= 10"\n', "")
    scorer = "print('score:', open('out').read())\n"
    root = make_task(tmp_path / "task", program, toml, {"score.py": scorer, "val/text": "hidden"})
    call(root, "start", "--tag", "t", "--experiments", "5")
    work = root / ".autoresearch" / "t" / "work"
    subprocess.run(["rm", "-rf", work / "val"], check=True)
    (work / "val").symlink_to(root / "val")
    assert call(work, "try", "-m", "a link").returncode == 1
    assert (root / "val" / "text").read_text() == "hidden"


@pytest.mark.parametrize("words", [["run", "--plain"], ["start"], ["status"]])
def test_a_record_that_is_a_link_is_refused(tmp_path: Path, words: list[str]) -> None:
    root, elsewhere = make_task(tmp_path / "task"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / ".autoresearch").symlink_to(elsewhere)
    done = call(root, *words)
    assert done.returncode == 7
    assert f".autoresearch is a link to {elsewhere}" in done.stderr
    assert list(elsewhere.iterdir()) == []
