"""Task files, good and bad, and the layouts that need none."""

from __future__ import annotations

import datetime
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoresearch.errors import TaskError
from autoresearch.records import Goal, Metric
from autoresearch.task import draft
from autoresearch.task.checks import private_paths
from autoresearch.task.layouts import scaffold
from autoresearch.task.model import Bound, Limits, Task, seconds_until
from autoresearch.task.reading import KEYS, load, override, parse
from autoresearch.task.seeds import seed_patch
from autoresearch.task.values import DURATION, SIZE, shell_words

SMALL = """\
objective = "program.md"
editable = ["train.py"]
[run]
command = "python train.py"
[metric]
name = "val_bpb"
goal = "minimize"
"""

FULL = """\
objective = "program.md"
editable  = ["train.py", "src/"]
[run]
command      = "python train.py"
budget       = "10s"
budget_clock = "cpu"
timeout      = "2m"
inputs       = ["data/"]
caches       = ["~/.cache/x"]
env          = ["MY_SETTING"]
setup        = "pip install -e ."
build        = "make"
build_timeout = "5m"
allowance    = 3.5
preload      = ["torch", "a.b"]
exit_codes   = [0, -11]
stop_doomed  = false
[metric]
name = "val_bpb"
goal = "maximize"
pattern = '^best (.+)'
[score]
command = "python score.py"
reads   = ["model.pt"]
hidden  = ["validation/"]
preload = ["numpy"]
[holdout]
command = "python score.py --holdout"
hidden  = ["holdout/"]
[guards]
peak_vram_mb = "<= 60000"
share = [">= 0.1", "< 1"]
[guards.commands]
tests = "pytest -q"
slow = { command = "pytest -q slow", timeout = "5m" }
[second]
name = "peak_vram_mb"
goal = "minimize"
[judge]
level = "strict"
deterministic = true
baseline_runs = 4
least = 0.001
simplify = 0.01
combine = false
quarantine = 3
[notify]
command = "python3 tell.py"
webhook = "http://127.0.0.1:8000/hook"
desktop = true
on      = ["finished"]
[export]
formats = ["csv"]
[limits]
experiments = 100
hours = 8
until = "07:00"
patience = 30
target = 0.9
usd = 2.5
tokens = 1000000
gpu_hours = 4
scratch = 20
[agent]
name = { tuner = 1, claude = 3 }
timeout = "10m"
env = ["MY_TOKEN"]
read = ["/usr"]
write = ["/dev/null"]
confine = false
fallback = "tuner:random"
probe = false
briefing = 4000
memory       = true
ahead        = true
at_once      = 2
[agent.claude]
model = "opus"
[runner]
cores = 1
name = "local"
slots = 2
memory = "8GB"
network = true
keep_outputs = "1GiB"
log_limit = "1MB"
file_limit = "2GB"
processes = 64
confine = false
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("data", "holdout", "src", "validation"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to("validation")
    (tmp_path / "program.md").write_text("Lower it.\n")
    (tmp_path / "train.py").write_text("print('val_bpb: 1.0')\n")
    return tmp_path


def write(root: Path, text: str) -> Path:
    file = root / "autoresearch.toml"
    file.write_text(text)
    return file


def refusal(root: Path, text: str) -> str:
    write(root, text)
    with pytest.raises(TaskError) as caught:
        load(root)
    return str(caught.value)


def test_small_task_gets_the_defaults(root: Path) -> None:
    task = load(write(root, SMALL))
    assert task == load(root)
    assert (task.root, task.source) == (root.resolve(), root.resolve() / "autoresearch.toml")
    assert (task.objective, task.objective_text) == ("program.md", "Lower it.\n")
    assert (task.editable, task.layout, task.score) == (("train.py",), "autoresearch.toml", None)
    assert (task.run.budget_s, task.run.budget_clock, task.run.timeout_s) == (None, "wall", 600)
    assert (task.judge.level, task.judge.deterministic, task.judge.baseline_runs) == (
        "default",
        None,
        6,
    )
    assert (task.holdout, task.hidden, task.judge.quarantine) == (None, (), 5)
    assert task.limits.experiments is None
    assert task.agent.portfolio == (("tuner", 1.0),)
    assert (task.runner.name, task.runner.slots, task.runner.network) == ("local", 1, False)
    assert (task.runner.keep_outputs_bytes, task.runner.log_bytes) == (2 * 10**9, 16 * 10**6)
    assert (task.runner.file_bytes, task.runner.processes) == (50 * 10**9, 1024)
    assert task.runner.confine and not task.runner.network


def test_every_key_is_read(root: Path) -> None:
    task = load(write(root, FULL))
    assert (task.run.budget_s, task.run.timeout_s, task.run.allowance_s) == (10, 120, 3.5)
    assert (task.run.inputs, task.run.caches, task.run.env) == (
        ("data",),
        ("~/.cache/x",),
        ("MY_SETTING",),
    )
    assert task.metric.goal is Goal.MAXIMIZE
    assert task.score and (task.score.reads, task.score.hidden) == (
        ("model.pt",),
        ("validation",),
    )
    assert task.holdout and task.holdout.command == "python score.py --holdout"
    assert (task.sealed, task.hidden) == (("holdout",), ("validation", "holdout"))
    private = [path.name for path in private_paths(task)]
    assert private == [".autoresearch", "validation", "holdout"]
    assert task.judge.quarantine == 3
    bounds = [str(bound) for bound in task.guards.bounds]
    assert bounds == ["peak_vram_mb <= 60000", "share >= 0.1", "share < 1"]
    assert task.guards.commands == (("tests", "pytest -q"), ("slow", "pytest -q slow"))
    assert task.guards.timeouts == {"slow": 300.0}
    assert task.second == Metric("peak_vram_mb")
    assert task.limits.until == datetime.time(7)
    assert (task.limits.usd, task.limits.target) == (2.5, 0.9)
    assert task.agent.portfolio == (("tuner", 1.0), ("claude", 3.0))
    assert (task.notify.command, task.notify.on) == ("python3 tell.py", ("finished",))
    assert not task.judge.combine and task.notify.desktop
    assert (task.run.build, task.run.build_timeout_s, task.run.exit_codes) == (
        "make",
        300,
        (0, -11),
    )
    assert (task.agent.fallback, task.agent.probe) == ("tuner:random", False)
    assert task.agent.options == {"claude": {"model": "opus"}}
    assert (task.runner.memory_bytes, task.runner.keep_outputs_bytes) == (8 * 10**9, 2**30)


INSTEAD_OF_PATTERN = {"json", "file", "measure", "repeats", "relative"}


def test_every_key_is_in_the_full_example() -> None:
    for table, keys in KEYS.items():
        block = FULL.split(f"\n[{table}]\n")[1] if table else FULL
        block = block.split("\n[")[0]
        for key in keys.keys() - INSTEAD_OF_PATTERN:
            assert any(line.split("=")[0].strip() == key for line in block.splitlines()), key


def test_the_timeout_follows_the_budget(root: Path) -> None:
    task = parse(SMALL.replace("[metric]", 'budget = "10s"\n[metric]'), root)
    assert task.run.timeout_s == 160
    assert override(task, **{"run.budget": "1m"}).run.timeout_s == 660
    fixed = override(task, **{"run.timeout": "5m"})
    assert override(fixed, **{"run.budget": "1m"}).run.timeout_s == 300


HELD_OUT = """\
[score]
command = "s"
reads = ["out"]
hidden = ["validation"]
[holdout]
command = "s -x"
"""

# (text after the small task, place in the message, parts of the message)
BAD = [
    ("[limits]\nexperiments = 0", "9: ", ["[limits] experiments", "found 0", "above 0"]),
    ("[limits]\nexperiments = -1", "9: ", ["found -1"]),
    ("[limits]\nexperiments = true", "9: ", ["found true", "not a whole number"]),
    ('[limits]\nexperiments = "10"', "9: ", ['found "10"', "not a whole number"]),
    ("[limits]\nexperiments = 1.5", "9: ", ["found 1.5"]),
    ("[limits]\nhours = inf", "9: ", ["[limits] hours", "finite"]),
    ("[limits]\nhours = nan", "9: ", ["finite"]),
    ("[limits]\nhours = 0", "9: ", ["not above 0"]),
    ("[limits]\ntarget = -inf", "9: ", ["finite"]),
    ('[limits]\nuntil = "25:00"', "9: ", ["[limits] until", '"07:00"']),
    ('[limits]\nuntil = "late"', "9: ", ["time of day"]),
    ("[limits]\nexperimnts = 5", "9: ", ["[limits] experimnts", 'did you mean "experiments"?']),
    ("[limit]\nhours = 5", "8: ", ["limit: unknown key", 'did you mean "limits"?']),
    ("limits = 5", "", ["[metric] limits", "unknown key"]),
    ("[judge]\nlevel = 'lax'", "9: ", ['found "lax"', '"fast" or "default" or "strict"']),
    ("[judge]\ndeterministic = 'yes'", "9: ", ["true or false"]),
    ("[judge]\nbaseline_runs = 1", "9: ", ["at least 2"]),
    ("[runner]\nslots = 0", "9: ", ["[runner] slots"]),
    ('[runner]\nmemory = "8 apples"', "9: ", ["[runner] memory", '"8GiB"']),
    ('[runner]\nmemory = "0GB"', "9: ", ["below 1"]),
    ('[runner]\nnetwork = "no"', "9: ", ["true or false"]),
    ('[runner]\nname = "../x"', "9: ", ["[runner] name"]),
    ("[agent]\nname = []", "9: ", ["[agent] name"]),
    ('[agent]\nname = ["a", "a"]', "9: ", ["twice"]),
    ("[agent]\nname = { a = 0 }", "9: ", ["not above 0"]),
    ("[agent]\nbriefing = 999", "9: ", ["[agent] briefing", "below 1000", "at least 1000"]),
    ("[agent]\nbriefing = 8e3", "9: ", ["[agent] briefing", "not a whole number"]),
    ("[agent]\ntimeot = 5", "9: ", ['did you mean "timeout"?']),
    ('[guards]\nvram = "about 5"', "9: ", ["[guards] vram", '"<= 60000"']),
    ('[guards]\nvram = "<= nan"', "9: ", ["finite"]),
    ("[guards]\nvram = 5", "9: ", ["found 5"]),
    ('[guards]\n"my: vram" = "<= 5"', "9: ", ["letters, digits, spaces"]),
    ('[guards.commands]\nt = "pytest \'"', "9: ", ["[guards.commands] t", "quotation"]),
    ("[guards]\ncommands = 3", "", ["[guards.commands]"]),
    ("[score]\nreads = []", "8: ", ["[score] command: missing"]),
    ('[score]\ncommand = "s"\nreads = ["/etc/x"]', "10: ", ["outside"]),
    ('[score]\ncommand = "s"\nhidden = ["gone"]', "10: ", ["prepare it first"]),
    ('[score]\ncommand = "s"\nhidden = ["data"]\nreads = ["data/x"]', "10: ", ["`reads`"]),
    ('[score]\ncommand = "python ./train.py"', "9: ", ["scorer must be frozen"]),
    ('[holdout]\ncommand = "s"\nhidden = ["holdout"]', "9: ", ["needs a table [score]"]),
    (f"{HELD_OUT}hidden = []", "14: ", ["[holdout] hidden", "empty", "at least one path"]),
    (HELD_OUT, "12: ", ["[holdout] hidden: missing", "at least one path"]),
    ('[score]\ncommand = "s"\n[holdout]\nhidden = ["holdout"]', "10: ", ["command: missing"]),
    (f'{HELD_OUT}hidden = ["gone"]', "14: ", ["prepare it first"]),
    (f'{HELD_OUT}hidden = ["/etc"]', "14: ", ["leads outside"]),
    (f'{HELD_OUT}hidden = ["train.py"]', "14: ", ["editable too"]),
    (f'{HELD_OUT}hidden = ["out"]', "14: ", ["`inputs` or `reads`"]),
    (f'{HELD_OUT}hidden = ["validation"]', "14: ", ["is seen by [score]"]),
    (f'{HELD_OUT}hidden = ["link"]', "14: ", ["is seen by [score]"]),
    (f'{HELD_OUT}hidden = ["holdout"]\nreads = ["x"]', "15: ", ["unknown key", "[score]"]),
    (f'{HELD_OUT.replace("s -x", "sh train.py")}hidden = ["holdout"]', "13: ", ["be frozen"]),
    ("[judge]\nquarantine = 0.5", "9: ", ["[judge] quarantine", "below 1", "at least 1"]),
    ("[judge]\nquarantine = inf", "9: ", ["[judge] quarantine", "finite"]),
]


@pytest.mark.parametrize(("text", "line", "parts"), BAD)
def test_bad_tables_are_refused(root: Path, text: str, line: str, parts: list[str]) -> None:
    message = refusal(root, SMALL + text)
    assert f"autoresearch.toml:{line}" in message
    for word in parts:
        assert word in message


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('["train.py"]', '["/etc/passwd"]', ["toml:2: editable", "outside the task's folder"]),
        ('["train.py"]', '["../train.py"]', ["outside"]),
        ('["train.py"]', '["~/train.py"]', ["outside"]),
        ('["train.py"]', '["."]', ["whole folder"]),
        ('["train.py"]', '[""]', ["empty"]),
        ('["train.py"]', "[]", ["names no file"]),
        ('["train.py"]', '["!train.py"]', ["names no file"]),
        ('["train.py"]', '"train.py"', ["not a list"]),
        ('["train.py"]', "[3]", ["not text"]),
        ('["train.py"]', '["program.md"]', ["never editable"]),
        ('["train.py"]', '["autoresearch.toml"]', ["never editable"]),
        ('["train.py"]', '[".git/config"]', ["never editable"]),
        ('editable = ["train.py"]\n', "", ["editable: missing"]),
        ('editable = ["train.py"]', 'editabel = ["x"]', ['"editable"', "editable: missing"]),
        ('"program.md"', '"gone.md"', ["toml:1: objective", '"gone.md" does not exist']),
        ('"program.md"', '"../program.md"', ["does not exist below"]),
        ('"program.md"', '""', ["empty"]),
        ('"program.md"', '"data"', ["not a regular file"]),
        ('command = "python train.py"', "", ["[run] command: missing"]),
        ('"python train.py"', '" "', ["[run] command", "empty"]),
        ('"python train.py"', "['python']", ["not text"]),
        ('"python train.py"', '"python \'train.py"', ["quotation"]),
        ("[metric]", 'budget = "fast"\n[metric]', ["toml:5: [run] budget", '"2m"']),
        ("[metric]", "budget = 0\n[metric]", ["not above 0"]),
        ("[metric]", 'budget = "400d"\n[metric]', ["365 days"]),
        ("[metric]", "budget = true\n[metric]", ["not a number"]),
        ("[metric]", 'budget_clock = "gpu"\n[metric]', ['"wall" or "cpu"']),
        ("[metric]", 'budget = "2m"\ntimeout = "1m"\n[metric]', ["toml:6: [run] timeout"]),
        ("[metric]", 'inputs = ["gone"]\n[metric]', ['"gone"', "prepare it first"]),
        ("[metric]", 'inputs = ["train.py"]\n[metric]', ["editable too"]),
        ("[metric]", 'inputs = ["/data"]\n[metric]', ["outside"]),
        ("[metric]", 'caches = ["here"]\n[metric]', ["not absolute"]),
        ("[metric]", 'caches = ["/"]\n[metric]', ["holds the task"]),
        ("[metric]", 'caches = ["~/"]\n[metric]', ["home folder"]),
        ("[metric]", 'env = ["A=1"]\n[metric]', ["environment variables"]),
        ('"val_bpb"', '"val: bpb"', ["[metric] name", "letters, digits, spaces"]),
        ('"minimize"', '"minimize"\npattern = "loss ("', ["[metric] pattern", "one group"]),
        ('"minimize"', '"minimize"\npattern = "loss"', ["[metric] pattern", "one group"]),
        ('name = "val_bpb"', "", ["[metric] name: missing"]),
        ('goal = "minimize"', "", ["[metric] goal: missing", '"maximize"']),
        ('"minimize"', '"min"', ['"minimize" or "maximize"']),
        ("[metric]", "[[metric]]", ["a table [metric]"]),
        ("[run]", 'command = "x"\n[run]', ["command: unknown key; it belongs in [run]"]),
    ],
)
def test_bad_values_are_refused(root: Path, old: str, new: str, parts: list[str]) -> None:
    assert old in SMALL
    message = refusal(root, SMALL.replace(old, new))
    for word in parts:
        assert word in message


def test_all_problems_are_told_at_once_in_the_order_of_the_file(root: Path) -> None:
    text = SMALL.replace('"val_bpb"', "7").replace('"python train.py"', "8") + "[judge]\nlevl = 9\n"
    lines = refusal(root, text).splitlines()
    assert [line.split(":")[1] for line in lines] == ["4", "6", "9"]


def test_each_problem_has_its_line_what_is_accepted_and_the_nearest_key(root: Path) -> None:
    text = SMALL.replace("minimize", "min") + "[limits]\nexperiments = 0\npatienc = 3\n"
    file = write(root, text)
    with pytest.raises(TaskError) as caught:
        load(root)
    limit = "a whole number above 0, or no such key for no limit"
    assert str(caught.value).splitlines() == [
        f'{file}:7: [metric] goal: found "min"; accepted: "minimize" or "maximize"',
        f"{file}:9: [limits] experiments: found 0 (below 1); accepted: {limit}",
        f'{file}:10: [limits] patienc: unknown key; did you mean "patience"?',
    ]


def test_reading_a_task_imports_no_pydantic_models(root: Path) -> None:
    """They take five times as long to import as the validator alone."""
    write(root, SMALL)
    code = (
        "import sys; from pathlib import Path; from autoresearch.task.reading import load; "
        "load(Path(sys.argv[1])); print('pydantic_core' in sys.modules, 'pydantic' in sys.modules)"
    )
    argv = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_flood_of_problems_is_cut(root: Path) -> None:
    lines = refusal(root, SMALL + "".join(f"x{i} = 1\n" for i in range(500))).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 480 more"


def test_unreadable_files_are_refused(root: Path) -> None:
    assert "not valid TOML" in refusal(root, "objective = ")
    assert "line 2" in refusal(root, 'objective = "x"\nobjective = "y"\n')
    assert "nested too deeply" in refusal(root, "x = " + "[" * 100_000)
    assert "at most 1000000" in refusal(root, "#" * 1_000_001)
    file = root / "autoresearch.toml"
    file.write_bytes(b'objective = "\xff"')
    with pytest.raises(TaskError, match=r"not UTF-8 \(byte 13\)"):
        load(root)
    file.unlink()
    file.mkdir()
    with pytest.raises(TaskError, match="not a regular file"):
        load(root)
    with pytest.raises(TaskError, match="no such folder"):
        load(root / "gone")


def test_the_error_for_a_folder_without_a_task_names_the_files(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="autoresearch init") as caught:
        load(tmp_path)
    for name in ("autoresearch.toml", "prepare.py", "autoresearch.sh", ".auto/measure.sh"):
        assert name in str(caught.value)


def test_the_objective_may_be_text(root: Path) -> None:
    task = parse(SMALL.replace("program.md", "Make it better. See notes.md"), root)
    assert task.objective == task.objective_text == "Make it better. See notes.md"
    long = "better " * 1000
    assert parse(SMALL.replace("program.md", long), root).objective_text == long


def test_a_byte_order_mark_and_windows_lines_are_fine(root: Path) -> None:
    (root / "autoresearch.toml").write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert load(root).metric.name == "val_bpb"


@pytest.mark.parametrize(
    ("globs", "path", "editable"),
    [
        (["train.py"], "train.py", True),
        (["train.py"], "sub/train.py", False),
        (["./src/"], "src/a/b.py", True),
        (["src"], "srcs/a.py", False),
        (["src/*.py"], "src/a.py", True),
        (["src/*.py"], "src/a/b.py", False),
        (["*"], "src/a.py", False),
        (["src/**/*.py"], "src/b.py", True),
        (["src/**/*.py"], "src/a/a/b.py", True),
        (["**"], "deep/down/x", True),
        (["**"], ".git/config", False),
        (["**"], "sub/.GIT/config", False),
        (["**"], ".autoresearch/ledger.sqlite", False),
        (["**"], "autoresearch.toml", False),
        (["**"], "program.md", False),
        (["**", "!src/generated"], "src/generated/x.py", False),
        (["**", "!src/generated"], "src/x.py", True),
        (["v?.py"], "v1.py", True),
        (["a.b"], "axb", False),
        (["src/***/x*y?z"], "src/a/b/xyyz", True),
        (["a**b/c"], "a/b/ab/c/d", True),
        (["a**b/c*"], "a/b/ab/c/d", False),
        (["a**b/c"], "a/b/ab/c", True),
    ],
)
def test_may_edit(root: Path, globs: list[str], path: str, editable: bool) -> None:
    task = parse(SMALL.replace('["train.py"]', repr(globs).replace("'", '"')), root)
    assert task.may_edit(path) is editable


@pytest.mark.parametrize("star", ["*", "**", "*?", "**/"])
def test_many_stars_take_no_time(root: Path, star: str) -> None:
    glob, path = f"{star}a" * 30 + f"{star}b", "a" * 255 + "/a" * 1900
    task = parse(SMALL.replace('["train.py"]', f'["{glob}"]'), root)
    began = time.monotonic()
    assert not task.may_edit(path)
    assert time.monotonic() - began < 1  # with a regular expression: years


def test_override_is_validated_like_the_file(root: Path) -> None:
    task = parse(SMALL, root)
    changed = override(
        task,
        **{
            "limits.experiments": 5,
            "agent.name": "claude",
            "run.command": None,
            "judge.level": "fast",
        },
    )
    assert (changed.limits.experiments, changed.agent.portfolio, changed.judge.level) == (
        5,
        (("claude", 1.0),),
        "fast",
    )
    assert changed.run == task.run
    assert override(task, **{"metric.goal": "maximize"}).metric.goal is Goal.MAXIMIZE
    assert override(task, objective="Other.").objective_text == "Other."
    assert override(changed, limits={}, **{"limits.hours": 2}).limits == Limits(hours=2)
    assert changed.document["limits"] == {"experiments": 5}  # overriding leaves its argument alone
    options = override(task, **{"agent.replay.path": "x", "agent.replay.fast": True}).agent.options
    assert options == {"replay": {"path": "x", "fast": True}}
    for name, value, parts in [
        ("limits.experiments", 0, r"^\[limits\] experiments: found 0"),
        ("limits.experiment", 1, 'did you mean "experiments"'),
        ("limit.experiments", 1, "unknown key"),
        ("guards.x", "about 1", "no comparison"),
        ("score.reads", ["x"], r"\[score\] command: missing"),
        ("run.timeout", "abc", "not a duration"),
        ("editable", ["/x"], "outside"),
    ]:
        with pytest.raises(TaskError, match=parts):
            override(task, **{name: value})


def test_bounds() -> None:
    assert Bound("m", "<=", 2).holds(2)
    assert not Bound("m", "<", 2).holds(2)
    assert Bound("m", ">", 2).holds(3)
    assert Bound("m", ">=", 2).holds(2)
    assert Bound("m", "==", 2).holds(2)
    assert not any(Bound("m", op, 2).holds(math.nan) for op in ("<=", "<", ">=", ">", "=="))
    assert str(Bound("m", "<=", 6e6)) == "m <= 6000000"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python train.py", ("python", "train.py")),
        ("python 'my file.py' --x=1", ("python", "my file.py", "--x=1")),
        ("A=1 python train.py", None),
        ("a && b", None),
        ("python $X", None),
        ("ls *.py", None),
        ("a | b > c", None),
        ("cd ~/x", None),
    ],
)
def test_shell_words(command: str, words: tuple[str, ...] | None) -> None:
    assert shell_words(command) == (words or ("/bin/sh", "-c", command))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("2m", 120),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (10, 10),
        (0.5, 0.5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert DURATION.read(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "bad", ["", "10", "s", "-1s", "1x", "1 h", "0s", 0, -1, True, None, math.nan]
)
def test_bad_durations(bad: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        DURATION.read(bad)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * 10**9),
        ("8GiB", 2**33),
        ("1.5kB", 1500),
        ("512 MB", 512 * 10**6),
        ("7B", 7),
        (9, 9),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert SIZE.read(text) == size


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_durations_round_trip(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    assert DURATION.read(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@settings(deadline=None)
@given(st.integers(1, 4000), st.sampled_from(["", "k", "M", "G", "T"]), st.booleans())
def test_sizes_round_trip(number: int, unit: str, binary: bool) -> None:
    size = number * (1024 if binary and unit else 1000) ** ["", "k", "M", "G", "T"].index(unit)
    assert SIZE.read(f"{number}{unit}{'i' if binary and unit else ''}B") == size


@settings(deadline=None)
@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
@example("9" * 400 + "h")
@example("9" * 400 + "TB")
@example(10**400)
def test_the_parsers_return_a_positive_number_or_raise_value_error(value: object) -> None:
    for read in (DURATION.read, SIZE.read):
        try:
            number = read(value)
        except ValueError:
            continue
        assert 0 < number < math.inf


NAMES = sorted({key for keys in KEYS.values() for key in keys} | {"guards", "commands", "x", "a b"})
SCALARS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.text("ab./~!*\\'<=0 \0é\n", max_size=8).map(draft.toml),
    st.sampled_from(
        ["true", "07:00:00", "1979-05-27", '"10s"', '"8GB"', '"<= 3"', "0x" + "f" * 9999]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.tuples(st.sampled_from(["a", "name", "tuner"]), inner).map(
            lambda pair: f"{{ {pair[0]} = {pair[1]} }}"
        ),
    ),
    max_leaves=4,
)
LINES = st.one_of(
    st.tuples(st.sampled_from(NAMES), VALUES).map(
        lambda pair: f"{draft.toml(pair[0])} = {pair[1]}"
    ),
    st.sampled_from([*(f"[{table}]" for table in KEYS if table), "[guards]", "[guards.commands]"]),
    st.text(max_size=20),
)


@settings(deadline=None)
@given(st.lists(LINES, max_size=12).map("\n".join), st.booleans())
@example("[run]\ncommand = 0x" + "f" * 9999, True)
@example("x = " + "9" * 9999, True)
def test_any_text_parses_or_is_a_task_error(text: str, complete: bool) -> None:
    try:
        task = parse(f"{SMALL}{text}" if complete else text, Path(__file__).parent)
    except TaskError as error:
        assert str(error)
    else:
        assert task.editable


# --------------------------------------------------------------------------------------------
# Layouts

ORIGINAL_TRAIN = """\
import os
import torch
from kernels import get_kernel
torch.manual_seed(42)
torch.cuda.manual_seed(42)
print("---")
print(f"val_bpb:          {1:.6f}")
"""

PROMPT = """\
# Autoresearch: faster parsing

## Objective
Parse faster.

## Metrics
- **Primary**: `exec_µs` (µs, **LOWER is better**) — time to parse
- **Secondary**: schema_µs (higher is better)

## How to Run
`./autoresearch.sh` — outputs `METRIC name=number` lines.

## Files in Scope
The hot path:
- `src/lexer.rs` — the lexer, see `README.md`
- `src/ast/*.rs`, `src/tokens.rs` — the rest
- **`src/gen/`** — generated
- src/plain.rs: without quotes
- `autoresearch.sh` — the session's own
- Other `src/client/*.rs` files only when profiling says so

## Off Limits
- `src/gen/schema.rs` — generated
- No new dependencies; `Cargo.toml` stays
- `parse()` in `src/lexer.rs`

## What's Been Tried
- `src/never.rs`
"""


def original(root: Path) -> Path:
    (root / "train.py").write_text(ORIGINAL_TRAIN)
    (root / "prepare.py").write_text("MAX_SEQ_LEN = 2048\nTIME_BUDGET = 300        # seconds\n")
    return root


def pi(root: Path, prompt: str = PROMPT, new: bool = False) -> Path:
    (root / ".auto").mkdir()
    names = (".auto/prompt.md", ".auto/measure.sh", ".auto/checks.sh")
    old = ("autoresearch.md", "autoresearch.sh", "autoresearch.checks.sh")
    texts = (prompt, "echo METRIC exec_µs=1\n", "true\n")
    for name, text in zip(names if new else old, texts, strict=True):
        (root / name).write_text(text)
    return root


def test_the_original_is_recognised(tmp_path: Path) -> None:
    task = load(original(tmp_path))
    assert (task.layout, task.source, task.editable) == ("original", None, ("train.py",))
    assert (task.metric.name, task.metric.goal) == ("val_bpb", Goal.MINIMIZE)
    assert (task.run.budget_s, task.run.budget_clock, task.run.timeout_s) == (300, "wall", 600)
    assert task.run.command == "python train.py"
    assert task.run.caches == ("~/.cache/autoresearch", "~/.cache/huggingface")
    assert "val_bpb" in task.objective_text
    (tmp_path / "program.md").write_text("Do it.\n")
    assert load(tmp_path).objective_text == "Do it.\n"


def test_the_original_runs_with_uv_where_both_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text("#!/bin/sh\n")
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert load(tmp_path).run.command == "python train.py"
    (tmp_path / "uv.lock").write_text("version = 1\n")
    assert load(tmp_path).run.command == "uv run train.py"


@pytest.mark.parametrize("new", [False, True])
def test_pi_autoresearch_is_recognised(tmp_path: Path, new: bool) -> None:
    task = load(pi(tmp_path, new=new))
    assert (task.layout, task.source) == ("pi-autoresearch", None)
    assert task.run.command == ("bash .auto/measure.sh" if new else "bash autoresearch.sh")
    assert (task.metric.name, task.metric.goal) == ("exec_µs", Goal.MINIMIZE)
    assert task.guards.commands == (
        ("checks", "bash .auto/checks.sh" if new else "bash autoresearch.checks.sh"),
    )
    assert task.objective_text == PROMPT
    assert task.editable == (
        "src/lexer.rs",
        "src/ast/*.rs",
        "src/tokens.rs",
        "src/gen",
        "src/plain.rs",
        "!src/gen/schema.rs",
    )
    assert task.may_edit("src/gen/x.rs")
    assert not task.may_edit("src/gen/schema.rs")


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("## Metrics", "## Numbers", ["no primary metric", "## Metrics", "**Primary**"]),
        ("LOWER is better", "small", ["no direction", "lower is better"]),
        ("## Files in Scope", "## Files", ["## Files in Scope", "path"]),
    ],
)
def test_the_error_for_an_incomplete_pi_session_names_the_section(
    tmp_path: Path, old: str, new: str, parts: list[str]
) -> None:
    pi(tmp_path, PROMPT.replace(old, new))
    with pytest.raises(TaskError, match=r"autoresearch\.md") as caught:
        load(tmp_path)
    assert all(word in str(caught.value) for word in parts)


@pytest.mark.parametrize(
    ("line", "name", "goal"),
    [
        ("- **Primary**: acc (higher is better)", "acc", "maximize"),
        ("- **Primary:** acc.top1 (%, higher is better) — x", "acc.top1", "maximize"),
        ("* **Primary**: `t_ms` (ms,\n  lower is better)", "t_ms", "minimize"),
    ],
)
def test_the_forms_of_a_primary_metric(tmp_path: Path, line: str, name: str, goal: str) -> None:
    old = PROMPT[PROMPT.index("- **Primary**") : PROMPT.index("- **Secondary**")]
    metric = load(pi(tmp_path, PROMPT.replace(old, line + "\n"))).metric
    assert (metric.name, metric.goal) == (name, goal)


def test_the_limit_of_a_pi_session_counts(tmp_path: Path) -> None:
    pi(tmp_path, new=True)
    config = tmp_path / ".auto/config.json"
    config.write_text('{"maxIterations": 50}')
    assert load(tmp_path).limits.experiments == 50
    config.write_text('{"workingDir": "/elsewhere"}')
    with pytest.raises(TaskError, match="workingDir"):
        load(tmp_path)
    config.write_text("{")
    with pytest.raises(TaskError, match="JSON"):
        load(tmp_path)


def scaffolded(root: Path, **given: object) -> Task:
    for name, text in scaffold(root, **given).items():
        assert not (root / name).exists()
        (root / name).write_text(text)
    return load(root)


def test_a_scaffold_equals_the_recognised_layout(tmp_path: Path) -> None:
    for make in (original, pi):
        root = tmp_path / make.__name__
        root.mkdir()
        recognised, written = load(make(root)), scaffolded(root)
        for name in ("editable", "run", "metric", "guards", "limits", "objective_text"):
            assert getattr(recognised, name) == getattr(written, name), name
        assert written.layout == "autoresearch.toml"


def test_a_scaffold_from_one_program(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text('print(f"loss: {1}")\nprint(f"val_acc: {0.5:.3f}")\n')
    task = scaffolded(tmp_path)
    assert (task.editable, task.run.command) == (("fit.py",), "python fit.py")
    assert (task.metric.name, task.metric.goal) == ("val_acc", Goal.MAXIMIZE)
    assert "val_acc" in task.objective_text


def test_a_scaffold_from_options(tmp_path: Path) -> None:
    (tmp_path / "program.md").write_text("Mine.\n")
    given = {"editable": ["src/"], "command": "make bench", "metric": "µs", "goal": "minimize"}
    assert scaffold(tmp_path, **given).keys() == {"autoresearch.toml"}
    task = scaffolded(tmp_path, **given)
    assert (task.editable, task.run.command, task.metric.name) == (("src",), "make bench", "µs")


def test_a_scaffold_asks_for_missing_options(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="--editable"):
        scaffold(tmp_path)
    with pytest.raises(TaskError, match="--command CMD --metric NAME"):
        scaffold(tmp_path, editable=["a.c"])
    (tmp_path / "a.py").write_text("print(1)\n")
    with pytest.raises(TaskError, match="--metric NAME"):
        scaffold(tmp_path, editable=["a.py"])


@pytest.mark.parametrize(
    "program",
    [
        "import random\nrandom.seed(0)\nprint(random.random())\n",
        '"""Doc."""\nfrom __future__ import annotations\n\nSEED = 1337\nprint(SEED)\n',
        "#!/usr/bin/env python\nseed: int = 7  # fixed\nprint(seed)",
        "import os.path\nimport random\nr = random.Random(\n    3,\n)\nprint(r.random())\n",
        "import argparse\np = argparse.ArgumentParser()\n"
        'p.add_argument("--seed", type=int, default=4)\n'
        "print(p.parse_args().seed)\n",
        "import random\ndef f(seed=1):\n\treturn random.Random(seed).random()\nprint(f())\n",
    ],
)
def test_the_seed_patch_applies_and_works(tmp_path: Path, program: str) -> None:
    file = tmp_path / "train.py"
    file.write_text(program)
    patch = seed_patch(file)
    assert patch is not None

    def output(**env: str) -> str:
        argv = [sys.executable, "-I", str(file)]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout

    before = output()
    git = shutil.which("git") or "git"
    subprocess.run([git, "apply", "-"], cwd=tmp_path, input=patch, text=True, check=True)
    assert file.read_text() != program
    assert output() == before
    assert output(AUTORESEARCH_SEED="99") != before
    assert seed_patch(file) is None


def test_the_seed_patch_of_the_original(tmp_path: Path) -> None:
    patch = seed_patch(original(tmp_path) / "train.py")
    assert patch is not None
    added = [line for line in patch.splitlines() if line.startswith("+") and "seed" in line]
    assert added == [
        '+torch.manual_seed(int(os.environ.get("AUTORESEARCH_SEED", 42)))',
        '+torch.cuda.manual_seed(int(os.environ.get("AUTORESEARCH_SEED", 42)))',
    ]


def test_the_seed_patch_leaves_the_division_of_the_data(tmp_path: Path) -> None:
    """Another division would change what is measured."""
    (tmp_path / "train.py").write_text(
        "x = train_test_split(\n    data, random_state=0\n)\nfolds = KFold(5, random_state=1)\n"
        "a, b = random_split(d, [8, 2], torch.Generator().manual_seed(2))\n"
        "data = numpy.random.default_rng(3).random(9)\ntorch.manual_seed(4)\nfit(seed=5)\n"
    )
    patch = seed_patch(tmp_path / "train.py") or ""
    assert [line for line in patch.splitlines() if line[:2] in ("+t", "+f", "+x", "+a", "+d")] == [
        '+torch.manual_seed(int(os.environ.get("AUTORESEARCH_SEED", 4)))',
        '+fit(seed=int(os.environ.get("AUTORESEARCH_SEED", 5)))',
    ]
    (tmp_path / "train.py").write_text("rng = default_rng(3)\nx = rng.split(d, seed=1)\n")
    patch = seed_patch(tmp_path / "train.py") or ""
    assert '"AUTORESEARCH_SEED", 3' in patch and '"AUTORESEARCH_SEED", 1' not in patch


@pytest.mark.parametrize(
    "program", ["print(1)\n", "x = 'seed = 1'\n", "def (", "seed = f(1)\n", "\0"]
)
def test_no_seed_patch(tmp_path: Path, program: str) -> None:
    (tmp_path / "train.py").write_text(program)
    assert seed_patch(tmp_path / "train.py") is None
    assert seed_patch(tmp_path / "gone.py") is None


@pytest.mark.parametrize(
    "name",
    ["'command:\"sh a.sh\"'", "['command:\"sh a.sh\"']", "{ 'command:\"sh a.sh\"' = 1 }"],
)
def test_quotes_around_an_agents_argument_are_no_part_of_it(root: Path, name: str) -> None:
    task = load(write(root, f"{SMALL}[agent]\nname = {name}\n"))
    assert task.agent.portfolio == (("command:sh a.sh", 1.0),)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('json = "a..b"', "[metric] json: found"),
        ('json = "loss"\npattern = "(.*)"', "keep one of them"),
        ('file = "out.json"', "[metric] json: missing; needed: the path of the number"),
        ('json = "x"\nfile = "../out.json"', "leads outside the task's folder"),
        ('json = "x"\nfile = "train.py"', '"train.py" is editable; a run must write it'),
    ],
)
def test_where_the_metric_is_read(root: Path, lines: str, why: str) -> None:
    text = SMALL.replace('goal = "minimize"\n', f'goal = "minimize"\n{lines}\n', 1)
    with pytest.raises(TaskError) as caught:
        parse(text, root)
    assert why in str(caught.value)


def test_until_in_a_night_of_a_clock_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        hours = [
            seconds_until(datetime.time(7), datetime.datetime(2026, month, day, 22)) / 3600
            for month, day in ((3, 28), (10, 24), (11, 28))
        ]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert hours == [8, 10, 9]
