"""Faults injected into real sessions: each has the outcome it should have, costs nobody else
anything, and leaves a record that `fsck` finds in order. docs/faults.md lists all of them, with the
tests of those that are shown elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.model_server import MODEL, ModelServer
from support.sessions import (
    PROGRAM,
    TASK,
    ScriptedAgent,
    Step,
    alive,
    change,
    commit_all,
    edit,
    git,
    make_task,
    rewrite,
    run_session,
    task_of,
    wait_until,
)

from autoresearch.agents import llm
from autoresearch.commands.fsck import audit
from autoresearch.core import limits, turns
from autoresearch.core.session import Session
from autoresearch.errors import LedgerError, StorageError
from autoresearch.git import trees
from autoresearch.protocols import Agent, Failure, Proposal, Turn
from autoresearch.sandbox import landlock
from autoresearch.store.paths import SessionPaths

INSTANT = Path(__file__).parents[2] / "src" / "autoresearch" / "tasks" / "instant"
BETTER, WORSE = change(VALUE=5.0), change(VALUE=20.0)
GOOD_NIGHT = [("keep", None), ("discard", "worse")]


def in_order(root: Path) -> None:
    assert audit(task_of(root)) == []


# ---- programs that misbehave -------------------------------------------------------------------

BEFORE_THE_PRINT = PROGRAM.partition('print("---")')[0]
GRANDCHILD = """
import subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session={own_session})
open("pid", "w").write(str(child.pid))
while True: pass
"""
MISBEHAVING = {
    "an infinite loop with a grandchild": (GRANDCHILD.format(own_session=False), "timeout"),
    "the grandchild in a session of its own": (GRANDCHILD.format(own_session=True), "timeout"),
    "os._exit": ("os._exit(0)\n", "no metric"),
    "SIGKILL": ("import signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "killed by signal 9"),
    "SystemExit(0)": ("raise SystemExit(0)\n", "no metric"),
    "plus infinity": ('print("score:", float("inf"))\n', "metric is 'inf', not a finite number"),
    "minus infinity": ('print("score:", -1e999)\n', "metric is '-inf', not a finite number"),
    "NaN": ('print("score: nan")\n', "metric is 'nan', not a finite number"),
    "a string": ('print("score: great")\n', "metric is 'great', not a finite number"),
    "4 GB against a limit of 1 GB": (
        "parts = []\nfor _ in range(64):\n"
        "    parts.append(bytearray(b'x') * 2**26)\n    time.sleep(0.05)\n",
        "memory",
    ),
    "a flood of output": ("while True: print('x' * 1000)\n", "log too large"),
}
LIMITED = TASK.replace('"90s"', '"8s"') + '[runner]\nmemory = "1GB"\nlog_limit = "1MB"\n'


def test_programs_that_misbehave(tmp_path: Path) -> None:
    """Eleven of twelve experiments; the last one is innocent, and is measured as ever."""
    root = make_task(tmp_path / "task", toml=LIMITED)
    crashes: list[tuple[str, str | None]] = [
        ("crash", reason) for _, reason in MISBEHAVING.values()
    ]
    steps = [rewrite(BEFORE_THE_PRINT + end, what) for what, (end, _) in MISBEHAVING.items()]
    endless, others = steps[:2], steps[2:]  # these burn CPU time until the timeout
    run_session(root, ScriptedAgent(*endless), run__timeout="3s")
    in_order(root)
    found = run_session(root, ScriptedAgent(*others, BETTER))
    assert found.verdicts == [*crashes, ("keep", None)]
    assert [one.metric for one in found.experiments[1:-1]] == [None] * len(crashes)
    pids = [
        int(file.read_text()) for file in SessionPaths(root, "t").runs.glob("*/*/artefacts/pid")
    ]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)
    flood = found.runs_of(len(crashes))[0]
    assert (SessionPaths(root, "t").runs / flood.name / "log").stat().st_size <= 1_000_000
    in_order(root)


def test_a_program_that_takes_its_own_tree_away(root: Path) -> None:
    vandal = "import shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\n"
    locked = "open('mine', 'w').write('x')\nos.chmod('mine', 0)\nos.chmod('.', 0o500)\n"
    steps = [rewrite(PROGRAM.replace("10.0", "20.0") + end) for end in (vandal, locked)]
    found = run_session(root, ScriptedAgent(*steps, BETTER))
    assert found.verdicts == [("discard", "worse"), ("discard", "worse"), ("keep", None)]
    in_order(root)


def test_a_tree_that_is_used_again_carries_nothing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a very large repository: what a run leaves in its tree reaches no other run."""
    monkeypatch.setattr(trees, "SPARE_FILES", 1)
    monkeypatch.setattr(trees, "TICK_NS", 0)
    root = make_task(tmp_path / "task", files={"lib/helper.py": "GAIN = 0\n"})
    program = PROGRAM.replace(
        "VALUE = 10.0", "sys.path.insert(0, 'lib')\nimport helper\n\nVALUE = 10.0"
    )
    program = program.replace("score = VALUE", "score = -helper.GAIN + VALUE")
    (root / "prog.py").write_text(program)
    git(root, "commit", "-qam", "helped")
    poison = """
stat = os.stat("lib/helper.py")
open("lib/helper.py", "w").write("GAIN = 9\\n")
os.utime("lib/helper.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
open("helper.py", "w").write("GAIN = 9\\n")
os.symlink("lib", "more")
"""
    poisoner = rewrite(program.replace("10.0", "20.0") + poison)
    found = run_session(root, ScriptedAgent(poisoner, WORSE, poisoner, BETTER), runner__slots=2)
    assert [status for status, _ in found.verdicts] == ["discard", "discard", "keep"]
    assert found.experiments[3].metric == pytest.approx(5.0, abs=0.1)
    assert found.experiments[2].metric == pytest.approx(20.0, abs=0.1)
    paths = SessionPaths(root, "t")
    assert not [*paths.trees.glob("*"), *paths.turns.glob("*")]
    in_order(root)


def test_an_edited_evaluator_is_refused(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", files={"score.py": "print('frozen')\n"})

    def cheat(turn: Turn) -> Proposal:
        (turn.worktree / "score.py").write_text("print('score: -1000')\n")
        edit(turn.worktree, VALUE=9.0)
        return Proposal("better")

    found = run_session(root, ScriptedAgent(cheat, WORSE))
    assert found.verdicts == [("discard", "worse")]
    assert any("frozen file" in line and "score.py" in line for line in found.lines)
    in_order(root)


SCORED = """
[score]
command = "python -S -E score.py"
reads = ["out"]
hidden = ["holdout"]
"""
SCORER = """\
import json, sys
assert not hasattr(json, "cheated")
print("---")
print("score:", abs(float(open("out").read()) - float(open("holdout/answer").read())))
"""
GUESS = PROGRAM.partition("print(")[0] + "open('out', 'w').write(str(score))\n"
PLANT = """
for name in ("json.py", "score.py", "sitecustomize.py", "holdout/answer", "__pycache__/x.pyc"):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    open(name, "w").write("cheated = 1\\nprint('---\\\\nscore: 0')\\n")
"""
CHEATS = {
    "reads the hidden answer": (
        GUESS + "open('out', 'w').write(open('{root}/holdout/answer').read())\n",
        ("crash", "exit code 1"),
    ),
    "looks for it beside itself": (
        GUESS + "open('out', 'w').write(open('holdout/answer').read())\n",
        ("crash", "exit code 1"),
    ),
    "patches the scorer": (
        GUESS.replace("10.0", "20.0") + "open('{root}/score.py', 'w').write('print(0)')\n",
        ("crash", "exit code 1"),
    ),
    "leaves a scorer behind": (GUESS.replace("10.0", "20.0") + PLANT, ("discard", "worse")),
    "prints the score": (
        GUESS.replace("10.0", "20.0") + "print('---\\nscore: 0')\nprint('METRIC score=0')\n",
        ("discard", "worse"),
    ),
    "leaves a process behind to write": (
        GUESS.replace("10.0", "20.0")
        + "import subprocess\nsubprocess.Popen(['sh', '-c', 'while sleep 0.3; do echo 7 > out; "
        "done'], start_new_session=True)\n",
        ("discard", "worse"),
    ),
}


@pytest.mark.skipif(landlock.abi() == 0, reason="needs Landlock")
def test_cheats_cost_their_own_experiment_and_gain_nothing(tmp_path: Path) -> None:
    """The answer is 7: the unchanged program is 3 away from it, most cheats are 13."""
    files = {"score.py": SCORER, "holdout/answer": "7", ".gitignore": "holdout\n"}
    root = make_task(tmp_path / "task", GUESS, TASK + SCORED, files)
    verdicts: list[tuple[str, str | None]] = []
    for what, (program, verdict) in CHEATS.items():
        cheat = rewrite(program.replace("{root}", str(root)), what)
        verdicts.append(verdict)
        assert run_session(root, ScriptedAgent(cheat)).verdicts == verdicts
        in_order(root)
    found = run_session(root, ScriptedAgent(change(VALUE=8.0)))
    assert found.verdicts == [*verdicts, ("keep", None)]
    assert found.experiments[-1].metric == pytest.approx(1.0, abs=0.1)
    assert (root / "score.py").read_text() == SCORER
    in_order(root)


# ---- folders that go away ----------------------------------------------------------------------


def test_the_agents_worktree_is_deleted(root: Path) -> None:
    def vandal(turn: Turn) -> Proposal:
        shutil.rmtree(turn.worktree)
        return Proposal("tidied up")

    found = run_session(root, ScriptedAgent(vandal, BETTER))
    assert found.verdicts == [("keep", None)]
    in_order(root)


@pytest.mark.parametrize("what", ["trees", "runs"])
def test_the_folder_of_a_run_under_way_is_deleted(
    root: Path, tmp_path: Path, counted: Callable[[], list[str]], what: str
) -> None:
    """Of the run itself only: without its tree it can end, without its folder it is made again."""
    gate = tmp_path / "gate"

    def delete(turn: Turn) -> Proposal:
        paths = SessionPaths(root, "t")
        wait_until(lambda: len(counted()) == 4)  # the first run after the baseline's three
        [tree] = paths.trees.iterdir()
        shutil.rmtree(tree if what == "trees" else next(paths.runs.glob(f"*/{tree.name}")))
        gate.touch()
        return WORSE(turn)  # type: ignore[return-value]

    waiting = change(VALUE=5.0, WAIT_A=str(gate))
    found = run_session(root, ScriptedAgent(waiting, delete), runner__slots=2)
    assert found.verdicts == GOOD_NIGHT
    in_order(root)


def test_everything_but_the_ledger_is_deleted_between_two_nights(root: Path) -> None:
    """Only the logs of the runs are lost, and that is said."""
    first = run_session(root, ScriptedAgent(BETTER))
    shutil.rmtree(SessionPaths(root, "t").folder)
    found = run_session(root, ScriptedAgent(WORSE), verified=True)
    assert found.verdicts == GOOD_NIGHT
    assert {"verify", "verify baseline"} <= {run.role for run in found.runs}
    said = {(one.what, one.where) for one in audit(task_of(root))}
    assert said == {("run folder", str(first.paths.runs / run.name)) for run in first.runs}


# ---- repositories of all shapes ----------------------------------------------------------------


def plain(root: Path) -> Path:
    return make_task(root)


def detached(root: Path) -> Path:
    make_task(root)
    git(root, "checkout", "-q", "--detach")
    return root


def with_a_submodule(root: Path) -> Path:
    other = make_task(root.parent / "other")
    make_task(root)
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "sub")
    git(root, "commit", "-qm", "a submodule")
    return root


def with_lfs_pointers(root: Path) -> Path:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456789\n"
    attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
    program = PROGRAM + "assert open('weights.bin').read().startswith('version ')\n"
    return make_task(root, program, files={"weights.bin": pointer, ".gitattributes": attributes})


def sparse(root: Path) -> Path:
    program = PROGRAM + "open('far/data.txt').read()\n"
    make_task(root, program, files={"far/data.txt": "x\n", "near/data.txt": "x\n"})
    git(root, "sparse-checkout", "set", "near")
    assert not (root / "far").exists()
    return root


def with_read_only_files(root: Path) -> Path:
    make_task(root, files={"data/frozen.txt": "x\n"})
    for path in (root / "data" / "frozen.txt", root / "prog.py", root / "data"):
        path.chmod(path.stat().st_mode & ~0o222)
    return root


def with_names_of_all_kinds(root: Path) -> Path:
    root = root.parent / "my täsk ☂ $HOME 'x'"
    names = ["a b.txt", "ü/☃ ☃.txt", "-rf", "$(touch hacked).txt", "new\nline.txt", "tab\t.txt"]
    toml = TASK.replace("prog.py", "mein prögramm.py").replace(
        "-E mein prögramm.py", "-E 'mein prögramm.py'"
    )
    files = {**dict.fromkeys(names, "x\n"), "mein prögramm.py": PROGRAM}
    return make_task(root, toml=toml, files=files)


def shallow(root: Path) -> Path:
    origin = make_task(root.parent / "origin")
    (origin / "more.txt").write_text("x")
    git(origin, "add", "--all")
    git(origin, "commit", "-qm", "more")
    git(root.parent, "clone", "-q", "--depth=1", f"file://{origin}", str(root))
    return root


@pytest.mark.parametrize(
    "shape",
    [
        detached,
        with_a_submodule,
        with_lfs_pointers,
        sparse,
        with_read_only_files,
        with_names_of_all_kinds,
        shallow,
    ],
)
def test_repositories_of_all_shapes(tmp_path: Path, shape: Callable[[Path], Path]) -> None:
    root = shape(tmp_path / "task")

    def user_sees() -> tuple[str, ...]:
        return (
            git(root, "status", "--porcelain", "--untracked-files=all"),
            git(root, "rev-parse", "HEAD"),
            git(root, "rev-parse", "--abbrev-ref", "HEAD"),
            git(root, "diff", "HEAD"),
        )

    before = user_sees()
    found = run_session(root, ScriptedAgent(*(in_that_file(root, v) for v in (5.0, 20.0))))
    assert found.verdicts == GOOD_NIGHT
    assert user_sees() == before
    in_order(root)
    git(root, "fsck", "--no-dangling")


def in_that_file(root: Path, value: float) -> Step:
    """Sets VALUE in the file that may be edited, whatever its name."""
    [name] = task_of(root).editable

    def step(turn: Turn) -> Proposal:
        file = turn.worktree / name
        lines = file.read_text().splitlines(keepends=True)
        changed = [f"VALUE = {value}\n" if x.startswith("VALUE = ") else x for x in lines]
        file.write_text("".join(changed))
        return Proposal(f"VALUE {value}")

    return step


# ---- what the user does meanwhile --------------------------------------------------------------


def collect_garbage(root: Path) -> None:
    git(root, "gc", "-q", "--prune=now")


def repack(root: Path) -> None:
    git(root, "reflog", "expire", "--expire=now", "--all")
    git(root, "repack", "-a", "-d", "-q")
    git(root, "pack-refs", "--all")


def commit_on_main(root: Path) -> None:
    (root / "notes.txt").write_text(str(time.monotonic()))
    git(root, "add", "notes.txt")
    git(root, "commit", "-qm", "mine")


def switch_branches(root: Path) -> None:
    git(root, "checkout", "-q", "-B", "side")


def edit_the_editable_file(root: Path) -> None:
    edit(root, VALUE=1.0)  # not committed: none of our business while the session works


def commit_on_the_sessions_branch(root: Path) -> None:
    git(root, "checkout", "-q", "autoresearch/t")
    commit_on_main(root)


def commit_there_and_leave(root: Path) -> None:
    commit_on_the_sessions_branch(root)
    git(root, "checkout", "-q", "main")


def delete_the_sessions_branch(root: Path) -> None:
    git(root, "update-ref", "-d", "refs/heads/autoresearch/t")


def turn_the_sessions_branch_back(root: Path) -> None:
    git(root, "branch", "-q", "-f", "autoresearch/t", "main")


ON_ITS_BRANCH = (
    commit_on_the_sessions_branch,
    commit_there_and_leave,
    delete_the_sessions_branch,
    turn_the_sessions_branch_back,
)


@pytest.mark.parametrize(
    "act",
    [
        collect_garbage,
        repack,
        commit_on_main,
        switch_branches,
        edit_the_editable_file,
        *ON_ITS_BRANCH,
    ],
)
def test_what_the_user_does_meanwhile(root: Path, act: Callable[[Path], None]) -> None:
    users: list[str] = []

    def after(step: Step) -> Step:
        def acted(turn: Turn) -> Proposal | Failure | None:
            act(root)
            users.append(git(root, "rev-parse", "HEAD"))
            return step(turn)

        return acted

    changes = change(VALUE=8.0), change(SPREAD=0.2, VALUE=20.0), change(BONUS=3.0)
    if act in ON_ITS_BRANCH:
        run_session(root, ScriptedAgent(change(VALUE=9.0)))  # from here on there is one
    steps = [after(step) for step in (*changes, change(VALUE=21.0))]
    found = run_session(root, ScriptedAgent(*steps), runner__slots=2)
    statuses = [status for status, _ in found.verdicts]
    assert sorted(statuses) == ["discard"] * 2 + ["keep"] * (2 + (act in ON_ITS_BRANCH))
    in_order(root)
    git(root, "fsck", "--no-dangling")
    assert git(root, "rev-parse", "HEAD") == users[-1]
    keeps = [one for one in found.experiments if one.status == "keep"]
    best = max(keeps, key=lambda one: one.order or 0)
    assert git(root, "rev-parse", "refs/autoresearch/t/best") == best.commit


# ---- the ledger --------------------------------------------------------------------------------

HOLD = """\
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def hold(root: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process, with a lock on the ledger."""
    command = [sys.executable, "-c", HOLD, str(SessionPaths(root, "t").ledger), str(seconds)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    return holder


def test_a_ledger_locked_for_a_moment(root: Path) -> None:
    held: list[subprocess.Popen[str]] = []

    def slow(turn: Turn) -> Proposal | Failure | None:
        held.append(hold(root, 2.0))
        return BETTER(turn)

    found = run_session(root, ScriptedAgent(slow, WORSE))
    assert found.verdicts == GOOD_NIGHT
    held[0].communicate()
    in_order(root)


def test_a_ledger_locked_for_long(root: Path) -> None:
    """The session ends, says why, and goes on when the other program has let go."""
    held: list[subprocess.Popen[str]] = []
    sessions: list[Session] = []

    def blocked(turn: Turn) -> Proposal | Failure | None:
        sessions[0].ledger._db.execute("PRAGMA busy_timeout = 500")
        held.append(hold(root, 600))
        return BETTER(turn)

    with pytest.raises(LedgerError, match="is locked by another program"):
        run_session(root, ScriptedAgent(WORSE, blocked), before=sessions.append)
    held[0].kill()
    held[0].communicate()
    found = run_session(root, ScriptedAgent(BETTER))
    assert found.verdicts == [("discard", "worse"), ("keep", None)]
    in_order(root)


CUT = "is damaged|is empty, but there are runs beside it: it was cut short"


def test_a_ledger_cut_to_any_length(root: Path) -> None:
    """Nothing is made of what is left, not even of nothing, and it is said how to go on."""
    found = run_session(root, ScriptedAgent(BETTER, WORSE))
    file, results = found.paths.ledger, (root / "results.tsv").read_bytes()
    whole = file.read_bytes()
    pages = range(0, len(whole), 4096)
    for length in {0, 1, 15, 16, 50, 100, 511, 512, 1024, *pages, *(at - 1 for at in pages if at)}:
        cut = whole[:length]
        file.write_bytes(cut)
        with pytest.raises(LedgerError, match=CUT):
            audit(task_of(root))
        for tag in ("t", "u"):
            with pytest.raises(LedgerError, match=f"({CUT}).*move it away to start afresh"):
                run_session(root, ScriptedAgent(BETTER), tag=tag)
        assert (length, file.read_bytes()) == (length, cut)
    file.write_bytes(whole)
    assert run_session(root, ScriptedAgent()).verdicts == GOOD_NIGHT
    assert (root / "results.tsv").read_bytes() == results
    in_order(root)


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_ledger_cut_while_a_session_works(root: Path, part: float) -> None:
    """It is seen at the next start at the latest, and results.tsv has what was finished."""
    file = SessionPaths(root, "t").ledger

    def cut(turn: Turn) -> Proposal | Failure | None:
        os.truncate(file, int(file.stat().st_size * part))
        return WORSE(turn)

    run_session(root, ScriptedAgent(BETTER))
    results = (root / "results.tsv").read_bytes()
    with pytest.raises(LedgerError, match=CUT):
        run_session(root, ScriptedAgent(cut))
        run_session(root, ScriptedAgent())
    with pytest.raises(LedgerError, match=CUT):
        audit(task_of(root))
    assert (root / "results.tsv").read_bytes().startswith(results)


# ---- the disk ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(disk: Path, how: str) -> None:
    """Files that were deleted while open keep a file system busy for a moment."""
    command = ["mount", "-o", f"remount,{how}", str(disk)]
    wait_until(lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0)


def test_a_file_system_that_becomes_read_only(disk: Path) -> None:
    root = make_task(disk / "task")
    run_session(root, ScriptedAgent(BETTER))
    before = (root / "results.tsv").read_bytes()
    remount(disk, "ro")
    with pytest.raises(StorageError, match="cannot write"):
        run_session(root, ScriptedAgent(WORSE))
    remount(disk, "rw")
    assert (root / "results.tsv").read_bytes() == before
    found = run_session(root, ScriptedAgent(WORSE))
    assert found.verdicts == GOOD_NIGHT
    in_order(root)


def test_a_file_system_that_becomes_read_only_during_a_turn(disk: Path) -> None:
    root = make_task(disk / "task")

    def remounted(turn: Turn) -> Proposal | Failure | None:
        answer = WORSE(turn)
        # Files open for writing keep a remount away, but not a mount over the folder.
        subprocess.run(["mount", "--bind", str(root), str(root)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
        return answer

    with pytest.raises(StorageError):
        run_session(root, ScriptedAgent(BETTER, remounted))
    subprocess.run(["umount", "-l", str(root)], check=True)
    found = run_session(root, ScriptedAgent(WORSE))
    assert found.verdicts == GOOD_NIGHT
    in_order(root)


# ---- the clock ---------------------------------------------------------------------------------


def test_a_clock_set_forward_by_hours(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten hours at every look: no limit is reached by that, no run is taken for slow."""
    real, ahead = time.time, [0.0]

    def later() -> float:
        ahead[0] += 36_000
        return real() + ahead[0]

    monkeypatch.setattr(time, "time", later)
    found = run_session(root, ScriptedAgent(BETTER, WORSE), limits__hours=1.0)
    assert found.verdicts == GOOD_NIGHT
    assert 0 < found.record.elapsed_s < 60
    assert all(0 < (run.wall_s or 0) < 60 for run in found.runs)
    in_order(root)


def asleep(monkeypatch: pytest.MonkeyPatch, hours: float) -> Step:
    """A turn in which the machine sleeps: the clocks of the day and since boot go on, that of
    work does not."""

    def step(turn: Turn) -> Proposal | Failure | None:
        boot, day = limits.boot_clock, time.time
        monkeypatch.setattr(limits, "boot_clock", lambda: boot() + hours * 3600)
        monkeypatch.setattr(time, "time", lambda: day() + hours * 3600)
        return BETTER(turn)

    return step


def test_a_suspended_machine_has_not_worked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = asleep(monkeypatch, hours=8), WORSE
    found = run_session(root, ScriptedAgent(*steps), limits__hours=1.0)
    assert found.verdicts == GOOD_NIGHT
    assert 0 < found.record.elapsed_s < 60
    in_order(root)


def test_a_machine_that_sleeps_past_the_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--until` is a time of day: what was under way when it fell asleep is finished, no more."""
    now = time.localtime(time.time() + 4 * 3600)
    steps = asleep(monkeypatch, hours=8), WORSE
    found = run_session(root, ScriptedAgent(*steps), limits__until=time.strftime("%H:%M", now))
    assert found.reason.startswith("it is ")
    assert found.verdicts == [("keep", None)]
    in_order(root)


# ---- others at work ----------------------------------------------------------------------------


def test_two_processes_on_one_session(root: Path, tmp_path: Path) -> None:
    """Begun at the same moment: one works, the other says who does, and nothing is mixed."""
    gate, slow = tmp_path / "gate", change(VALUE=5.0)
    edit(root, WAIT_A=str(gate))
    git(root, "commit", "-qam", "waits")
    command = [sys.executable, "-m", "autoresearch", "run", "--plain", "--tag", "t"]
    command += ["--agent", "tuner", "--experiments", "1", str(root)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    wait_until(lambda: any(one.poll() is not None for one in both), timeout_s=60)
    [refused] = [one for one in both if one.poll() is not None]
    [works] = [one for one in both if one is not refused]
    said = refused.communicate()[1]
    assert refused.returncode == 3, said
    assert f"owned by a running process (pid {works.pid})" in said
    works.terminate()
    gate.touch()
    works.communicate(timeout=60)
    found = run_session(root, ScriptedAgent(slow))
    assert found.verdicts[-1] == ("keep", None)
    in_order(root)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since the start, by a clock that only waiting moves."""
    clock = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return clock[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            clock[0] += seconds

        time = staticmethod(time.time)

    monkeypatch.setattr(turns, "time", Clock)
    monkeypatch.setattr(turns, "POLL_S", 5.0)  # it looks at the ledger each time
    return clock


def down_for_an_hour(clock: list[float], down: Agent, up: Agent) -> tuple[Agent, list[float]]:
    """Two agents as one, and when the first was asked."""
    asked: list[float] = []

    class Changing:
        name = up.name
        wants_briefing = up.wants_briefing

        def propose(self, turn: Turn) -> Proposal | Failure | None:
            if asked and clock[0] >= 3600:
                return up.propose(turn)
            asked.append(clock[0])
            return down.propose(turn)

    return Changing(), asked


def waited_for(clock: list[float], asked: list[float]) -> None:
    """Ever less often, and not for much longer than it took."""
    assert asked[-1] > 3000
    assert len(asked) <= 25
    assert 3600 <= clock[0] < 3600 + 600


def test_an_agent_service_that_fails_for_an_hour(root: Path, clock: list[float]) -> None:
    """It is waited for, asked ever less often, and no experiment is lost."""
    down = ScriptedAgent(*[lambda turn: Failure("service down", "503")] * 100)
    agent, asked = down_for_an_hour(clock, down, ScriptedAgent(BETTER, WORSE))
    found = run_session(root, agent)
    assert found.verdicts == GOOD_NIGHT
    waited_for(clock, asked)
    in_order(root)


@pytest.mark.parametrize("mode", ["limited", "broken"])
def test_a_real_service_that_fails_for_an_hour(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """By the client of `llm`: 429 with the time to wait, and 500."""
    for name in [name for name in os.environ if "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    root = Path(shutil.copytree(INSTANT, tmp_path / "instant"))
    git(root, "init", "-q", "--initial-branch=main")
    commit_all(root)
    with ModelServer() as server:
        down, up = (llm.create(MODEL, {"base_url": f"{server.url(m)}/v1"}, 0) for m in (mode, "ok"))
        agent, asked = down_for_an_hour(clock, down, up)
        found = run_session(root, agent, limits__experiments=2)
        assert [path.split("/")[0] for path, _ in server.requests[:-2]] == [mode] * len(asked)
    assert len(found.verdicts) == 2
    waited_for(clock, asked)
    in_order(root)
