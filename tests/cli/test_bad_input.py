"""Everything on the list of bad input, through the command line: a clear message, the right exit
code, and nothing half-done."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.sessions import (
    PROGRAM,
    TASK,
    commit_all,
    edit,
    git,
    make_task,
    night,
    side,
    wait_until,
)

from autoresearch.cli import main as cli
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths, ledger_path
from autoresearch.store.schema import VERSION

USAGE, BUSY, BASELINE, AGENT, STORAGE = 2, 3, 4, 5, 7


@dataclass
class Done:
    code: int
    out: str
    error: str


Run = Callable[..., Done]


@pytest.fixture
def autoresearch(capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line, in this process."""

    def call(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        done = capfd.readouterr()
        assert not re.search("^Traceback", done.err, re.MULTILINE)
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, done.out, done.err)

    return call


@pytest.fixture
def changes(tmp_path: Path) -> Callable[..., str]:
    """An agent that proposes these versions of prog.py, or patches."""
    folder = tmp_path / "changes"
    folder.mkdir()

    def make(*versions: dict[str, str | bytes] | str) -> str:
        for number, files in enumerate(versions):
            if isinstance(files, str):
                (folder / f"{number:02}.patch").write_text(files)
                continue
            for name, content in files.items():
                place = folder / f"{number:02}" / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content if isinstance(content, bytes) else content.encode())
        return f"replay:{folder}"

    return make


def better(value: float = 5.0) -> dict[str, str | bytes]:
    return {"prog.py": PROGRAM.replace("10.0", str(value))}


def assert_nothing_half_done(root: Path, tag: str = "t") -> None:
    """No branch, no ref, no results, no lock, no process; and git sees no difference."""
    assert git(root, "for-each-ref", "refs/autoresearch", "refs/heads/autoresearch") == ""
    assert not (root / "results.tsv").exists()
    assert find_owner(SessionPaths(root, tag)) is None


def assert_goes_on(autoresearch: Run, root: Path, agent: str) -> None:
    """After the refusal the same tag works."""
    done = autoresearch("run", root, "--tag", "t", "--agent", agent, "--experiments", 1)
    assert done.code == 0, done.error
    assert [experiment.status for experiment in night(root).experiments] == ["keep", "keep"]


# ---- the repository ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "check"])
def test_not_a_git_repository(tmp_path: Path, autoresearch: Run, command: str) -> None:
    (tmp_path / "autoresearch.toml").write_text(TASK)
    (tmp_path / "prog.py").write_text(PROGRAM)
    done = autoresearch(command, tmp_path)
    assert done.code == USAGE
    assert f"{tmp_path} is not in a git repository: run `git init" in done.error
    assert not (tmp_path / ".autoresearch").exists()


@pytest.mark.parametrize("command", ["run", "check"])
def test_no_commits(tmp_path: Path, autoresearch: Run, command: str) -> None:
    (tmp_path / "autoresearch.toml").write_text(TASK)
    (tmp_path / "prog.py").write_text(PROGRAM)
    git(tmp_path, "init", "-q")
    done = autoresearch(command, tmp_path)
    assert done.code == USAGE
    assert "has no commits: commit the code first" in done.error
    assert not (tmp_path / ".autoresearch").exists()


def test_no_such_folder(tmp_path: Path, autoresearch: Run) -> None:
    done = autoresearch("run", tmp_path / "nowhere")
    assert (done.code, "no such folder or task file" in done.error) == (USAGE, True)


def test_no_task(tmp_path: Path, autoresearch: Run) -> None:
    done = autoresearch("run", tmp_path)
    assert (done.code, "`autoresearch init` writes a task file" in done.error) == (USAGE, True)


@pytest.mark.parametrize(
    ("editable", "message"),
    [
        ("missing.py", "editable: 'missing.py' does not exist"),
        ("*.rs", "no file of the last commit matches"),
        ("../outside.py", "editable: found"),
        ("/etc/passwd", "editable: found"),
        ("autoresearch.toml", 'editable: "autoresearch.toml" is never editable'),
        (".git/config", "is never editable"),
        ("data/x", "data/ is editable too; it must be frozen"),
    ],
)
def test_editable_files(root: Path, autoresearch: Run, editable: str, message: str) -> None:
    (root / "data").mkdir()
    (root / "data" / "x").write_text("x")
    task = TASK.replace('"prog.py"', f'"{editable}"')
    task = task.replace("[metric]", 'inputs = ["data"]\n[metric]')
    (root / "autoresearch.toml").write_text(task)
    done = autoresearch("run", root, "--tag", "t")
    assert done.code == USAGE
    assert message in done.error.replace('"data"', "data/")
    assert_nothing_half_done(root)


def test_an_editable_file_behind_a_link(root: Path, tmp_path: Path, autoresearch: Run) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.py").touch()
    (root / "away").symlink_to(tmp_path / "elsewhere")
    (root / "autoresearch.toml").write_text(TASK.replace('"prog.py"', '"away/x.py"'))
    commit_all(root)
    done = autoresearch("run", root, "--tag", "t")
    assert done.code == USAGE
    assert "'away/x.py' is outside the task's folder, by a link" in done.error
    assert_nothing_half_done(root)


def test_uncommitted_changes(root: Path, autoresearch: Run, changes: Callable[..., str]) -> None:
    edit(root, VALUE=9.0)
    done = autoresearch("run", root, "--tag", "t")
    assert done.code == USAGE
    assert "prog.py has uncommitted changes: commit or stash them first" in done.error
    assert_nothing_half_done(root)
    commit_all(root)
    assert_goes_on(autoresearch, root, changes(better()))


# ---- the task file -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("timeout =", "timeuot =", (":6: [run] timeuot: unknown key", 'did you mean "timeout"?')),
        ('"90s"', '"soon"', (':6: [run] timeout: found "soon"', "accepted: ")),
        ('"90s"', "true", (":6: [run] timeout: found true", "accepted: ")),
        ('"90s"', "0", (":6: [run] timeout: found 0", "accepted: ")),
        ('"minimize"', '"lower"', (':9: [metric] goal: found "lower"', "minimize", "maximize")),
        ('["prog.py"]', '"prog.py"', (':2: editable: found "prog.py"', "accepted: a list")),
        ("[metric]", "[metrik]", ("metrik", "unknown key")),
        ("command =", "# command =", ("[run] command: missing; needed: ",)),
        ('name = "score"', "name = ", ("not valid TOML",)),
        ("[metric]", "[limits]\nexperiments = 0\n[metric]", ("[limits] experiments: found 0",)),
    ],
)
def test_the_task_file(
    root: Path, autoresearch: Run, old: str, new: str, parts: tuple[str, ...]
) -> None:
    """The key, what was found, what is accepted, and where."""
    (root / "autoresearch.toml").write_text(TASK.replace(old, new, 1))
    for command in ("run", "check", "status"):
        done = autoresearch(command, root)
        assert done.code == USAGE
        assert f"{root / 'autoresearch.toml'}:" in done.error
        for part in parts:
            assert part in done.error
    assert not (root / ".autoresearch").exists()
    assert_nothing_half_done(root)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--experiments", "0"), "[limits] experiments: found 0"),
        (("--hours", "-1"), "[limits] hours: found -1"),
        (("--until", "25:00"), '[limits] until: found "25:00"'),
        (("--slots", "0"), "[runner] slots: found 0"),
        (("--agent", "tunner"), "no agent 'tunner'. Did you mean 'tuner'?"),
        (("--agent", "replay:nowhere"), "replay: 'nowhere' is no folder"),
        (("--tag", "a b"), "'a b' cannot be a tag"),
    ],
)
def test_options(root: Path, autoresearch: Run, arguments: tuple[str, ...], message: str) -> None:
    done = autoresearch("run", root, *arguments)
    assert done.code in (USAGE, AGENT)
    assert message in done.error
    assert_nothing_half_done(root)
    for command in ("status", "log", "report"):  # before anything was measured
        assert autoresearch(command, root).code in (0, USAGE)


# ---- the unchanged program ---------------------------------------------------------------------

BROKEN = {
    "command not found": ("no-such-program", PROGRAM, "command not found", "cannot start"),
    "fails": ("python -S -E prog.py", "raise ValueError('broken')", "exit code 1", "broken"),
    "no metric": ("python -S -E prog.py", "print('hello')", "no metric", "METRIC score=NUMBER"),
    "nan": ("python -S -E prog.py", "print('score: nan')", "metric is 'nan'", "score: nan"),
    "inf": ("python -S -E prog.py", "print('score: -inf')", "metric is '-inf'", "score: -inf"),
    "text": ("python -S -E prog.py", "print('score: good')", "metric is 'good'", "score: good"),
    "timeout": (
        "python -S -E prog.py",
        "import time\nprint('begun', flush=True)\ntime.sleep(99)",
        "timeout",
        "begun",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_baseline_that_fails(
    tmp_path: Path, autoresearch: Run, changes: Callable[..., str], how: str
) -> None:
    """Once it is mended, the same tag works."""
    command, program, reason, shown = BROKEN[how]
    task = TASK.replace("python -S -E prog.py", command).replace('"90s"', '"1s"')
    root = make_task(tmp_path / "task", f"LR = 0.1  # for the tuner\n{program}", task)
    done = autoresearch("run", root, "--tag", "t")
    assert done.code == BASELINE
    assert f"the unchanged program does not work (run 1 of the baseline): {reason}" in done.error
    log = root / ".autoresearch" / "t" / "runs" / "0000" / "00001" / "log"
    assert f"The end of its log {log}:" in done.error
    assert log.exists()
    assert shown in done.error
    assert git(root, "for-each-ref", "refs/heads/autoresearch") == ""
    assert not (root / "results.tsv").exists()

    done = autoresearch("check", root)
    assert done.code == BASELINE
    assert reason in done.error
    assert shown in done.error

    if how not in ("timeout", "no metric"):
        return  # the refusal left the same record
    (root / "prog.py").write_text(PROGRAM)
    (root / "autoresearch.toml").write_text(TASK)
    commit_all(root)
    assert_goes_on(autoresearch, root, changes(better()))


def test_the_metric_is_absent_from_one_run_of_the_baseline(
    tmp_path: Path, autoresearch: Run
) -> None:
    once = tmp_path / "side" / "once"
    program = PROGRAM.replace(
        'print("score:", score)',
        f"seen = len(open({str(once)!r}, 'a+').read() or open({str(once)!r}).read())\n"
        f"open({str(once)!r}, 'a').write('x')\nif seen != 1: print('score:', score)",
    )
    root = make_task(tmp_path / "task", program)
    done = autoresearch("run", root, "--tag", "t")
    assert done.code == BASELINE
    assert "(run 2 of the baseline): no metric" in done.error


def test_the_metric_is_absent_from_one_run_of_a_change(
    root: Path, autoresearch: Run, changes: Callable[..., str], tmp_path: Path
) -> None:
    """Whichever of its runs it is, the change is a crash."""
    once = tmp_path / "side" / "once"
    silent = PROGRAM.replace("10.0", "5.0").replace(
        'print("score:", score)',
        f"open({str(once)!r}, 'a').write('x')\n"
        f"if len(open({str(once)!r}).read()) != 3: print('score:', score)",
    )
    done = autoresearch("run", root, "--tag", "t", "--agent", changes({"prog.py": silent}))
    assert done.code == 0
    finished = night(root)
    assert finished.verdicts == [("crash", "no metric")]
    assert finished.results[2][1:4] == ["0.000000", "0.0", "crash"]
    assert finished.branch() == finished.experiments[0].commit


def test_a_program_that_ignores_the_seed(
    tmp_path: Path, autoresearch: Run, changes: Callable[..., str]
) -> None:
    program = PROGRAM.replace('int(os.environ["AUTORESEARCH_SEED"])', "1")
    root = make_task(tmp_path / "task", program)
    agent = changes({"prog.py": program.replace("10.0", "5.0")})
    done = autoresearch("run", root, "--tag", "t", "--agent", agent)
    assert done.code == 0
    assert "warning: every seed gave score" in done.out
    assert "ignores AUTORESEARCH_SEED" in done.out
    assert "ignores AUTORESEARCH_SEED" in autoresearch("status", root).out
    assert "ignores AUTORESEARCH_SEED" in (root / "report.md").read_text()
    assert night(root).verdicts == [("keep", None)]
    assert "ignores AUTORESEARCH_SEED" in " ".join(autoresearch("check", root).out.split())


# ---- files and branches of others ----------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A session of another process, in the middle of its first run."""
    gate = tmp_path / "gate"
    root = make_task(tmp_path / "task", PROGRAM.replace('WAIT_A = ""', f"WAIT_A = {str(gate)!r}"))
    process = subprocess.Popen(
        [sys.executable, "-m", "autoresearch", "run", str(root), "--tag", "t", "--plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list((root / ".autoresearch" / "t" / "runs").glob("*/*/log")), 60)
    yield root, process
    gate.touch()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_a_tag_owned_by_a_running_session(
    running: tuple[Path, subprocess.Popen[str]], autoresearch: Run
) -> None:
    root, process = running
    done = autoresearch("run", root, "--tag", "t")
    assert done.code == BUSY
    assert f"session 't' is owned by a running process (pid {process.pid})" in done.error
    assert "autoresearch stop --tag t" in done.error
    assert process.poll() is None
    assert autoresearch("status", root).code == 0


def test_a_branch_that_is_taken(root: Path, autoresearch: Run) -> None:
    git(root, "branch", "autoresearch/t")
    done = autoresearch("run", root, "--tag", "t")
    assert done.code == USAGE
    assert "a branch 'autoresearch/t' exists" in done.error
    assert "choose another --tag" in done.error
    assert has_no_session(root)
    assert not (root / "results.tsv").exists()


def has_no_session(root: Path) -> bool:
    db = sqlite3.connect(ledger_path(root))
    count = db.execute("SELECT count(*) FROM session").fetchone()[0]
    db.close()
    return bool(count == 0)


@pytest.mark.parametrize(
    "text", ["mine\n", "commit\tscore\tmemory_gb\tstatus\tdescription\nabc1234\t1\t1\tkeep\tx\n"]
)
def test_results_that_are_not_ours(root: Path, autoresearch: Run, text: str) -> None:
    (root / "results.tsv").write_text(text)
    done = autoresearch("run", root, "--tag", "t")
    assert done.code == USAGE
    assert "results.tsv is not a record of any session" in done.error
    assert "move it away" in done.error
    assert (root / "results.tsv").read_text() == text
    assert has_no_session(root)
    assert git(root, "for-each-ref", "refs/autoresearch", "refs/heads/autoresearch") == ""


def test_a_ledger_that_cannot_be_used(
    root: Path, autoresearch: Run, changes: Callable[..., str]
) -> None:
    agent = changes(better())
    assert_goes_on(autoresearch, root, agent)
    file = ledger_path(root)
    good, results = file.read_bytes(), (root / "results.tsv").read_bytes()
    db = sqlite3.connect(file)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    newer = file.read_bytes()
    for bad, message in (
        (newer, "was written by a newer autoresearch"),
        (b"garbage" * 1000, "is damaged"),
        (good[: len(good) // 2], "is damaged"),
    ):
        file.write_bytes(bad)
        for command in ("run", "report", "status"):
            done = autoresearch(command, root)
            if (command, bad) != ("status", good[: len(good) // 2]):  # it reads what it needs
                assert (done.code, message in done.error) == (USAGE, True), done.error
        assert file.read_bytes() == bad
    assert (root / "results.tsv").read_bytes() == results
    file.write_bytes(good)
    assert autoresearch("run", root, "--tag", "t", "--experiments", 1).code == 0


# ---- the disk ----------------------------------------------------------------------------------


def test_a_disk_that_fills_up_during_the_night(
    tmp_path: Path, autoresearch: Run, changes: Callable[..., str]
) -> None:
    """It stops before more work is started, with a non-zero exit code, and goes on afterwards."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        root = make_task(place / "task")
        filler = side(root) / "filler"
        hog = PROGRAM.replace("10.0", "20.0") + f"open({str(filler)!r}, 'wb').write(bytes(10**8))\n"
        agent = changes({"prog.py": hog}, better())
        done = autoresearch("run", root, "--tag", "t", "--agent", agent)
        assert done.code == STORAGE
        assert "MB are free on the disk" in done.error
        assert "Make room" in done.error
        finished = night(root)
        assert finished.verdicts == [("discard", "worse")]  # what was finished is recorded
        assert len(finished.results) == 3
        assert all(run.finished for run in finished.runs)
        assert autoresearch("run", root, "--tag", "t", "--agent", agent).code == STORAGE
        filler.unlink()
        assert autoresearch("run", root, "--tag", "t", "--agent", agent).code == 0
        assert night(root).verdicts == [("discard", "worse"), ("keep", None)]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_full_from_the_start(
    root: Path, autoresearch: Run, changes: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(root)._replace(free=99_000_000)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: full)
        done = autoresearch("run", root, "--tag", "t")
    assert done.code == STORAGE
    assert "only 99 MB are free" in done.error
    assert git(root, "for-each-ref", "refs/heads/autoresearch") == ""
    assert_goes_on(autoresearch, root, changes(better()))


# ---- edits of an agent -------------------------------------------------------------------------

LINK = """\
diff --git a/prog.py b/prog.py
deleted file mode 100644
diff --git a/prog.py b/prog.py
new file mode 120000
--- /dev/null
+++ b/prog.py
@@ -0,0 +1 @@
+/etc/passwd
\\ No newline at end of file
"""


def deleting(program: str) -> str:
    lines = program.splitlines()
    body = "".join(f"-{line}\n" for line in lines)
    return (
        "diff --git a/prog.py b/prog.py\ndeleted file mode 100644\n--- a/prog.py\n"
        f"+++ /dev/null\n@@ -1,{len(lines)} +0,0 @@\n{body}"
    )


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ({"prog.py": PROGRAM}, "no change: the editable files are as they were"),
        (better() | {"other.py": "x"}, "frozen file: changed outside `editable`: other.py"),
        (
            better() | {"frozen.txt": "y"},
            "frozen file: changed outside `editable`: frozen.txt",
        ),
        (
            better() | {"autoresearch.toml": TASK + "# mine"},
            "frozen file: changed outside `editable`: autoresearch.toml",
        ),
        (deleting(PROGRAM), "deleted: prog.py was deleted"),
        ({"prog.py": b"\x7fELF\0\0\0"}, "binary: prog.py is no text any more"),
        ({"prog.py": "#" * 3_000_000}, "too large: prog.py has 3000000 bytes"),
    ],
)
def test_forbidden_edits_of_an_agent(
    tmp_path: Path,
    autoresearch: Run,
    changes: Callable[..., str],
    version: dict[str, str | bytes] | str,
    message: str,
) -> None:
    """The turn comes to nothing, costs no run, and the next one is fine."""
    root = make_task(tmp_path / "task", files={"frozen.txt": "x"})
    done = autoresearch("run", root, "--tag", "t", "--agent", changes(version, better()))
    assert done.code == 0, done.error
    assert f"turn of replay came to nothing: {message}" in done.out
    finished = night(root)
    assert finished.verdicts == [("keep", None)]
    assert len(finished.experiments) == 2
    assert (root / "frozen.txt").read_text() == "x"


def test_an_agent_that_makes_a_link_out_of_the_tree(
    tmp_path: Path, autoresearch: Run, changes: Callable[..., str]
) -> None:
    root = make_task(tmp_path / "task", "print('score: 1')\n")
    patch = LINK.replace(
        "deleted file mode 100644\n",
        "deleted file mode 100644\n--- a/prog.py\n+++ /dev/null\n@@ -1 +0,0 @@\n"
        "-print('score: 1')\n",
    )
    done = autoresearch("run", root, "--tag", "t", "--agent", changes(patch))
    assert done.code == 0, done.error
    assert "link: prog.py is not a regular file any more" in done.out
    assert len(night(root).experiments) == 1


def test_an_agent_that_cannot_work_here(tmp_path: Path, autoresearch: Run) -> None:
    root = make_task(
        tmp_path / "task", "import os\nprint('score:', os.environ['AUTORESEARCH_SEED'])"
    )
    done = autoresearch("run", root, "--tag", "t", "--agent", "tuner")
    assert done.code == AGENT
    assert "the tuner found no constants in prog.py" in done.error
    assert "baseline" not in done.out  # nothing was measured
    assert "no session was started" in autoresearch("status", root).error
    assert "found no constants" in autoresearch("check", root, "--runs", 2).out


# ---- the clock ---------------------------------------------------------------------------------


def test_a_clock_set_back(
    root: Path, autoresearch: Run, changes: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = changes(better(20), better(), better(4))
    assert autoresearch("run", root, "--tag", "t", "--agent", agent, "--experiments", 1).code == 0
    real = time.time
    ago = [100_000.0]

    def earlier() -> float:
        ago[0] += 1000
        return real() - ago[0]

    monkeypatch.setattr(time, "time", earlier)
    assert autoresearch("run", root, "--tag", "t", "--agent", agent, "--hours", 1).code == 0
    finished = night(root)
    assert finished.verdicts == [("discard", "worse"), ("keep", None), ("keep", None)]
    assert [row[5] for row in finished.results[1:]] == ["0", "1", "2", "3"]
    assert 0 < finished.record.elapsed_s < 120
    for command in ("status", "log", "report"):
        done = autoresearch(command, root, "--json")
        assert done.code == 0
        assert not re.search(r'_s": -', done.out)  # no duration is negative


# ---- the process itself ------------------------------------------------------------------------


def test_exit_codes_of_the_real_program(root: Path) -> None:
    (root / "prog.py").write_text("x")
    for arguments, code in ((["run", str(root)], USAGE), (["--version"], 0), (["nonsense"], USAGE)):
        done = subprocess.run(
            [sys.executable, "-m", "autoresearch", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONWARNINGS": "error"},
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_a_closed_output_is_no_error(tmp_path: Path) -> None:
    """`run >&-`: print would raise, and the ledger could get the number of the closed stream."""
    root = make_task(tmp_path / "task")
    command = f"exec {sys.executable} -m autoresearch run --experiments 1 --agent tuner >&- 2>&-"
    done = subprocess.run(["/bin/sh", "-c", command], cwd=root, check=False, timeout=120)
    assert done.returncode == 0
    assert (root / "results.tsv").read_text().count("\n") >= 2


def test_a_program_that_fails_when_it_exits(tmp_path: Path, autoresearch: Run) -> None:
    """Its metric is printed by then. A crash in a library's clean-up must not lose every run."""
    program = "import os\nprint('score: 1', flush=True)\nos._exit(3)\n"
    root = make_task(tmp_path / "task", program)
    done = autoresearch("check", root, "--runs", 2)
    assert "[run] exit_codes = [0, 3]" in done.error and "'score: 1'" in done.error
    file = root / "autoresearch.toml"
    file.write_text(file.read_text().replace("[run]\n", "[run]\nexit_codes = [0, 3]\n"))
    assert autoresearch("check", root, "--runs", 2).code == 0
