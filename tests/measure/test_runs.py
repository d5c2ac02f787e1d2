"""One run: what its log says, what it may see, what is kept of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench import bench, untouched
from support.sessions import (
    PROGRAM,
    TASK,
    ScriptedAgent,
    change,
    make_task,
    run_session,
)

from autoresearch.errors import BaselineError, StorageError, TaskError
from autoresearch.files import tail
from autoresearch.measure.artifacts import ArtefactLimit
from autoresearch.measure.execution import Interrupted
from autoresearch.measure.output import LARGEST, read_log
from autoresearch.protocols import RunResult, RunSpec, TreeSource
from autoresearch.records import Role, Run
from autoresearch.runners.local import LocalRunner
from autoresearch.store.paths import SessionPaths

ORIGINAL = """\
step 00953 (99.9%) | loss: 2.797900 | lrm: 0.00
---
val_bpb:          0.997900
training_seconds: 300.1
total_seconds:    325.9
peak_vram_mb:     45060.2
mfu_percent:      39.80
total_tokens_M:   499.6
num_steps:        953
num_params_M:     50.3
depth:            8
"""


# ---- logs --------------------------------------------------------------------------------------


def test_the_originals_summary_block() -> None:
    reading = read_log(ORIGINAL)
    assert reading.numbers["val_bpb"] == 0.9979
    assert reading.numbers["num_steps"] == 953
    assert len(reading.numbers) == 9
    assert reading.faulty == {}


def test_a_summary_follows_the_last_rule() -> None:
    assert read_log("score: 1\n---\nother: 2\n").numbers == {"other": 2}
    assert read_log("---\nscore: 1\n---\nscore: 2\n").numbers == {"score": 2}
    assert read_log("score: 1\nscore: 2\n").numbers == {"score": 2}  # no rule: anywhere
    assert read_log("---\nscore: 1\ntext: one two\n a: 3\n").numbers == {"score": 1}
    assert read_log("---\r\nscore: 1\r\n").numbers == {"score": 1}


def test_metric_lines() -> None:
    text = "METRIC a=1\nx METRIC b=2\nMETRIC a=3e-1 \nMETRIC c = 4\nMETRIC µ.s=5\nMETRIC d=6 7\n"
    assert read_log(text).numbers == {"a": 0.3, "µ.s": 5}


def test_the_last_value_counts() -> None:
    assert read_log("METRIC a=1\nMETRIC a=2\n").numbers == {"a": 2}
    assert read_log("METRIC a=1\n---\na: 2\n").numbers == {"a": 2}
    assert read_log("---\na: 2\nMETRIC a=1\n").numbers == {"a": 1}
    assert read_log("METRIC a=1\nMETRIC a=nan\n").numbers == {}
    assert read_log("METRIC a=nan\nMETRIC a=1\n").faulty == {}


@pytest.mark.parametrize(
    "word",
    ["nan", "inf", "-inf", "NaN", "1e999", "-1e101", "text", "0x10", "1,5", "1_0", "١٢", "--"],
)
def test_texts_that_are_no_finite_number(word: str) -> None:
    reading = read_log(f"METRIC a={word}\n")
    assert (reading.numbers, reading.faulty) == ({}, {"a": word})


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    reading = read_log(text)
    assert not reading.numbers.keys() & reading.faulty.keys()


@given(st.floats(-LARGEST, LARGEST))
def test_any_number_comes_back(value: float) -> None:
    assert read_log(f"---\nscore:   {value}\n").numbers == {"score": value}


def test_the_end_of_a_file(tmp_path: Path) -> None:
    assert tail(tmp_path / "none") == ""
    (tmp_path / "log").write_bytes(b"x" * 100 + b"\xff\xfe end")
    assert tail(tmp_path / "log", 6) == "\ufffd\ufffd end"
    assert len(tail(tmp_path / "log")) == 106


# ---- runs --------------------------------------------------------------------------------------


def test_a_run_is_recorded(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", PROGRAM + 'print("memory:", 5)\n')
    with bench(root) as made:
        run = made.measure()
        assert run.finished
        assert run.metric == pytest.approx(10, abs=0.1)
        assert (run.reason, run.exit_code, run.slot) == (None, 0, 0)
        assert dict(run.numbers) == {"memory": 5}
        assert run.wall_s and run.cpu_s and run.peak_memory_bytes
        assert made.ledger.runs(made.record, 0) == [run]
        assert made.executor.measure(run, untouched) is run
        assert "memory: 5" in made.file(run, "log").read_text()
        assert not list(made.paths.trees.iterdir())
        assert [path.name for path in (made.paths.runs / run.name).iterdir()] == ["log"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", "no metric"),
        ("print('score: 1')\nraise SystemExit(3)", "exit code 3"),
        ("print('score: nan')", "metric is 'nan', not a finite number"),
        ("print('score: inf')", "metric is 'inf', not a finite number"),
        ("print('score: much')", "metric is 'much', not a finite number"),
        ("print('score: ' + 99 * 'x')", f"metric is {40 * 'x'!r}, not a finite number"),
        ("print('score: 1')\nimport os\nos.kill(os.getpid(), 11)", "killed by signal 11"),
        ("print('score: 1', flush=True)\nimport time\ntime.sleep(60)", "timeout"),
        ("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe\\n')", "no metric"),
        ("print('score: 1'); print('x' * 200_000)", "log too large"),
        ("x = b'x' * 300_000_000\nprint('score: 1')\nimport time; time.sleep(60)", "memory"),
    ],
)
def test_crashes(tmp_path: Path, program: str, reason: str) -> None:
    settings = {"run__timeout": "3s", "runner__log_limit": 100_000, "runner__memory": "100MB"}
    with bench(make_task(tmp_path / "task", program), **settings) as made:
        run = made.measure()
        assert (run.metric, run.reason, run.finished) == (None, reason, True)


def test_an_unknown_command(root: Path) -> None:
    with bench(root, run__command="no-such-command --x") as made:
        assert made.measure().reason == "command not found"
    shutil.rmtree(root / ".autoresearch")
    with bench(root, run__command="no-such-command | cat; no-such-command") as made:
        assert made.measure().reason == "command not found"


def test_the_environment_is_an_allow_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_KEY", "PYTHONPATH", "MINE"):
        monkeypatch.setenv(name, "x")
    program = "import os\nprint(dict(os.environ))\nprint('score: 1')\n"
    toml = TASK.replace('"COUNTED"', '"MINE", "NOT_SET"').replace(
        "[metric]", 'budget = "5s"\nbudget_clock = "cpu"\n[metric]'
    )
    with bench(make_task(tmp_path / "task", program, toml)) as made:
        run = made.measure()
        env = eval(made.file(run, "log").read_text().splitlines()[0])
    assert env["MINE"] == "x"
    assert env["AUTORESEARCH_SEED"] == env["PYTHONHASHSEED"] == str(run.seed)
    assert (env["AUTORESEARCH_BUDGET"], env["AUTORESEARCH_BUDGET_CLOCK"]) == ("5", "cpu")
    assert env["OMP_NUM_THREADS"] == "1"
    assert env["PATH"] == os.environ["PATH"]
    assert not {"SECRET_KEY", "PYTHONPATH", "NOT_SET"} & env.keys()


def test_a_run_sees_a_pristine_tree(tmp_path: Path) -> None:
    program = (
        "import os\n"
        "print(sorted(os.listdir('.')))\nprint(open('frozen.txt').read())\n"
        "open('frozen.txt', 'w').write('touched')\nprint('score: 1')\n"
    )
    root = make_task(tmp_path / "task", program, files={"frozen.txt": "pristine"})
    (root / "untracked").write_text("x")
    with bench(root) as made:
        runs = [made.measure(), made.measure()]
        logs = [made.file(run, "log").read_text() for run in runs]
    assert logs[0] == logs[1]
    assert "pristine" in logs[1]
    assert "untracked" not in logs[0]
    assert ".git" not in logs[0].replace(".gitignore", "")
    assert (root / "frozen.txt").read_text() == "pristine"


def test_inputs_are_there(tmp_path: Path) -> None:
    """They are links, so that gigabytes of them cost nothing."""
    toml = TASK.replace("[metric]", 'inputs = ["data/", "deep/file.txt"]\n[metric]')
    program = (
        "print('score:', float(open('data/x').read()) + float(open('deep/file.txt').read()))\n"
        "open('made', 'w').write('x')\n"
    )
    root = make_task(
        tmp_path / "task",
        program,
        toml,
        {".gitignore": "data/\ndeep/\n"} | {"data/x": "1", "deep/file.txt": "2"},
    )
    with bench(root) as made:
        run = made.measure()
        assert run.metric == 3
        kept = made.file(run, "artefacts")
        assert [path.name for path in kept.rglob("*")] == ["made"]
        assert (root / "data" / "x").read_text() == "1"
        (root / "data" / "x").unlink()
        (root / "data").rmdir()
        with pytest.raises(TaskError, match=r"inputs: .*data does not exist any more"):
            made.measure()


def test_artefacts(tmp_path: Path) -> None:
    """A run's new and changed files are kept, but no links, pipes and unchanged files."""
    program = (
        "import os\n"
        "os.makedirs('out/deep'); open('out/deep/model', 'w').write('weights')\n"
        "open('frozen.txt', 'w').write('changed')\nopen('same.txt', 'w').write('same')\n"
        "os.symlink('/etc/passwd', 'link'); os.mkfifo('pipe'); os.symlink('/etc', 'out/etc')\n"
        "os.makedirs('closed'); open('closed/x', 'w').close(); os.chmod('closed', 0)\n"
        "print('score: 1')\n"
    )
    files = {"frozen.txt": "pristine", "same.txt": "same"}
    with bench(make_task(tmp_path / "task", program, files=files)) as made:
        run = made.measure()
        kept = made.file(run, "artefacts")
        found = {p.relative_to(kept).as_posix() for p in kept.rglob("*") if not p.is_dir()}
        assert found - {"closed/x"} == {"out/deep/model", "frozen.txt"}
        assert not list(made.paths.trees.iterdir())


def test_time_that_nothing_counts_is_limited_by_the_wall_clock(tmp_path: Path) -> None:
    """A sleep stands for work in uncounted children."""
    program = PROGRAM + "time.sleep(60)\n"
    toml = TASK.replace("[metric]", 'budget = "0.5s"\nbudget_clock = "cpu"\n[metric]')
    with bench(make_task(tmp_path / "task", program, toml)) as made:
        made.executor.limit_s = 0.5
        honest = Run(1, 0, 0, Role.BASELINE, 0, "c", 1, wall_s=0.75, cpu_s=0.5)
        with patch.object(LocalRunner, "misses_cpu_time", True):
            made.executor.commands.limit_wall_time([honest])
        run = made.executor.measure(replace(made.open(), role=Role.SCREEN), untouched)
        assert (run.metric, run.reason) == (None, "over budget")


BURNING = """\
import os, time
count = f"{os.environ['COUNTED']}/" + open("left").read().strip()
with open(count, "a") as file:
    file.write("x")
seconds = [float(word) for word in open(f"{count}.seconds").read().split()]
began = time.process_time()
while time.process_time() - began < seconds[min(os.path.getsize(count), len(seconds)) - 1]:
    pass
print("score: 7")
"""


@pytest.mark.parametrize(
    ("candidate", "baseline", "reason", "scorings"),
    [
        ("0.1", "0.3 0.3", None, (1, 1)),
        ("0.6 0.2", "0.3 0.3", None, (2, 2)),  # a moment's load
        ("0.6 0.6", "0.3 0.6", None, (2, 2)),  # the machine is slower now
        ("0.6 0.6", "0.3 0.3", "score: over budget", (2, 2)),
        ("3 0.1", "0.3 0.6", "score: over budget", (1, 1)),  # far above: no second try
    ],
)
def test_a_score_just_above_its_limit_is_made_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    candidate: str,
    baseline: str,
    reason: str | None,
    scorings: tuple[int, int],
) -> None:
    counts = tmp_path / "counts"
    counts.mkdir()
    monkeypatch.setenv("COUNTED", str(counts))
    for name, seconds in (("candidate", candidate), ("baseline", baseline)):
        (counts / f"{name}.seconds").write_text(seconds)
    program = (
        "import os\nis_first = os.environ['AUTORESEARCH_SEED'] == '0'\n"
        "open('left', 'w').write('baseline' if is_first else 'candidate')\n"
    )
    scored = '[score]\ncommand = "python score.py"\nreads = ["left"]\n'
    toml = TASK.replace("[metric]", f'budget = "9s"\nbudget_clock = "cpu"\n{scored}[metric]')
    toml = toml.replace("[run]", f'[run]\ncaches = ["{counts}"]', 1)
    files = {"score.py": BURNING}
    with bench(make_task(tmp_path / "task", program, toml, files=files)) as made:
        honest = made.executor.measure(replace(made.open(), seed=0), untouched)
        assert honest.metric == 7
        made.executor.commands.limit_wall_time([honest])
        made.executor.score_limit_s = 0.45
        run = made.executor.measure(replace(made.open(), role=Role.SCREEN), untouched)
        assert (run.metric, run.reason) == (None if reason else 7.0, reason)
        counted = [len((counts / name).read_text()) for name in ("candidate", "baseline")]
        assert tuple(counted) == scorings
        left = {path.name for path in made.file(run, "").iterdir()}
        assert not any(name.endswith(".json") for name in left)


def test_artefacts_are_kept_within_a_limit(tmp_path: Path) -> None:
    program = PROGRAM + "open('model', 'wb').write(bytes(1_000_000))\n"
    root = make_task(tmp_path / "task", program)
    agent = ScriptedAgent(
        change(VALUE=20.0), change(VALUE=5.0), change(VALUE=21.0), change(VALUE=22.0)
    )
    found = run_session(root, agent, runner__keep_outputs="1500kB")
    sizes = {
        number: sum(
            (found.paths.runs / run.name / "artefacts" / "model").exists()
            for run in found.runs_of(number)
        )
        for number in range(5)
    }
    assert sizes[0] == sizes[2] == 1  # one of each keep stays, and one of the baseline
    [kept] = [r for r in found.runs_of(2, "remeasure") if r.index == 0]
    assert (found.paths.runs / kept.name / "artefacts" / "model").exists()
    assert sizes[1] == sizes[3] == 0
    assert all((found.paths.runs / run.name / "log").exists() for run in found.runs)
    roomy = run_session(root, ScriptedAgent(change(VALUE=23.0)), runner__keep_outputs="1GB")
    assert (roomy.paths.runs / roomy.runs_of(5)[0].name / "artefacts" / "model").exists()


def test_artefacts_are_counted_once_and_holes_are_not(tmp_path: Path) -> None:
    paths = SessionPaths(tmp_path, "t")
    folder = paths.runs / "0001" / "00001" / "artefacts"
    folder.mkdir(parents=True)
    (folder / "model").write_bytes(bytes(600))
    with (folder / "hole").open("wb") as file:
        file.truncate(6_000_000_000)
    run = Run(id=1, experiment=1, attempt=0, role=Role.SCREEN, index=0, commit="c", seed=1)
    limit = ArtefactLimit(paths, 1000, lambda folder: False)
    limit.add([run])
    assert folder.exists()


# ---- the scorer --------------------------------------------------------------------------------

SCORED = TASK + (
    '[score]\ncommand = "python -S -E score.py"\nreads = ["out/model"]\nhidden = ["holdout"]\n'
)
SCORE = (
    "import os\n"
    "print(sorted(os.listdir('.')), open('frozen.txt').read())\n"
    "print('score:', float(open('out/model').read()) + float(open('holdout/answer').read()))\n"
)
RUN = (
    "import os\n"
    "print(sorted(os.listdir('.')))\n"
    "os.mkdir('out'); open('out/model', 'w').write('1')\n"
    "open('score.py', 'w').write('print(0)'); open('frozen.txt', 'w').write('cheat')\n"
    "open('planted.py', 'w').write('x')\n"
    "print('score: -1000')\nprint('steps: 7')\n"
)


@pytest.mark.parametrize("committed", [True, False])
def test_the_scorer_has_the_last_word(tmp_path: Path, committed: bool) -> None:
    """Its tree has the hidden files, and of the run only the files in `[score] reads`."""
    files = {"score.py": SCORE, "frozen.txt": "pristine", "holdout/answer": "41"}
    if not committed:
        files[".gitignore"] = "holdout/\n"
    with bench(make_task(tmp_path / "task", RUN, SCORED, files)) as made:
        run = made.measure()
        assert run.metric == 42
        assert dict(run.numbers) == {"steps": 7}  # the run's own print is a log
        assert "holdout" not in made.file(run, "log").read_text()
        said = made.file(run, "score.log").read_text()
        assert "pristine" in said
        assert "planted.py" not in said
        assert not list(made.paths.trees.iterdir())


@pytest.mark.parametrize(
    ("program", "score", "reason"),
    [
        ("print('score: 1')", SCORE, "score: the run left no file out/model"),
        ("import os; os.makedirs('out/model')", SCORE, "score: the run left no file out/model"),
        (
            "import os; os.mkdir('out'); os.symlink('/etc/hostname', 'out/model')",
            SCORE,
            "score: the run left no file out/model",
        ),
        (RUN, "raise SystemExit(9)", "score: exit code 9"),
        (RUN, "print('nothing')", "no metric"),
        (RUN, "print('score: nan')", "metric is 'nan', not a finite number"),
        ("raise SystemExit(5)", SCORE, "exit code 5"),
    ],
)
def test_a_score_that_fails(tmp_path: Path, program: str, score: str, reason: str) -> None:
    files = {"score.py": score, "frozen.txt": "pristine", "holdout/answer": "41"}
    with bench(make_task(tmp_path / "task", program, SCORED, files)) as made:
        run = made.measure()
        assert (run.metric, run.reason) == (None, reason)


def test_a_failing_scorer_is_shown_with_its_own_log(tmp_path: Path) -> None:
    files = {"score.py": "raise ValueError('no holdout')", "frozen.txt": "", "holdout/answer": "1"}
    root = make_task(tmp_path / "task", RUN, SCORED, files)
    with pytest.raises(BaselineError, match=r"score: exit code 1\n.*score.log:(.|\n)*no holdout"):
        run_session(root, ScriptedAgent())


# ---- what can go wrong on our side -------------------------------------------------------------


class Broken(LocalRunner):
    """A runner that loses its first run."""

    def __init__(self) -> None:
        super().__init__(1)
        self.answers: list[Callable[[RunSpec], RunResult]] = []

    def run(self, spec: RunSpec, source: TreeSource | None = None) -> RunResult:
        return self.answers.pop(0)(spec) if self.answers else super().run(spec, source)


@pytest.mark.parametrize("how", ["lost", "interrupted"])
def test_an_interrupted_run_is_executed_again(root: Path, how: str) -> None:
    with bench(root) as made:
        made.executor.commands.runner.close()
        runner = Broken()
        made.executor.commands.runner = runner

        def cut_off(spec: RunSpec) -> RunResult:
            spec.outcome.write_text(
                f'{{"exit_code": null, "stopped": "{how}", "wall_s": 1.0, '
                '"cpu_s": null, "peak_memory_bytes": null}'
            )
            return RunResult(None, how, 1.0, None, None)

        runner.answers = [cut_off]
        run = made.open()
        with pytest.raises(Interrupted):
            made.executor.measure(run, untouched)
        assert not made.executor.ended_unseen(run)
        again = made.executor.measure(run, untouched)
        assert (again.finished, again.seed, again.reason) == (True, run.seed, None)
        runner.close()


def test_a_run_that_ended_without_a_harness_is_recorded(root: Path) -> None:
    with bench(root) as made:
        run = made.open()
        folder = made.paths.runs / run.name
        folder.mkdir(parents=True)
        (folder / "log").write_text("score: 77\n")
        (folder / "outcome.json").write_text(
            '{"exit_code": 0, "stopped": null, "wall_s": 1, "cpu_s": 1, "peak_memory_bytes": 1}'
        )
        assert made.executor.ended_unseen(run)
        assert made.executor.measure(run, untouched).metric == 77


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"other": 1}'])
def test_a_damaged_outcome_is_ignored(root: Path, torn: str) -> None:
    with bench(root) as made:
        run = made.open()
        folder = made.paths.runs / run.name
        folder.mkdir(parents=True)
        (folder / "outcome.json").write_text(torn)
        assert made.executor.measure(run, untouched).metric == pytest.approx(10, abs=0.1)


def test_no_run_starts_without_room_on_the_disk(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(root)._replace(free=50_000_000)
    with bench(root) as made:
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "disk_usage", lambda path: usage)
            with pytest.raises(StorageError, match=r"only 50 MB are free .* no run was started"):
                made.measure()
        assert made.measure().finished


def test_a_disk_that_fills_up_meanwhile(
    root: Path, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system's error becomes ours, with the file's name."""
    with bench(root) as made:
        trees = full_disk / "trees"
        trees.mkdir()
        monkeypatch.setattr(made.paths, "trees", trees)
        with (full_disk / "filler").open("wb") as filler, pytest.raises(OSError):
            while True:
                filler.write(bytes(1 << 16))
                filler.flush()
        with pytest.raises(StorageError, match=r"cannot write .*No space left"):
            for _ in range(50):
                made.measure()
                (trees / f"{made.count}").mkdir()
