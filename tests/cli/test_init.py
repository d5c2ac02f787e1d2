"""`init` on differently shaped repositories: each comes to a running baseline without editing a
file by hand, or to one clear question."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.commands import call
from support.screens import run_on_terminal
from support.sessions import git

from autoresearch.task.reading import load

SEEDED = "import os, random\nrandom.seed(int(os.environ.get('AUTORESEARCH_SEED', 0)))\n"
NOISE = "random.random() / 1000"

HYPERFINE = """\
#!{python}
import json, random, sys
times = [1 + random.random() / 9 for _ in range(3)]
result = {{"command": sys.argv[1], "median": sorted(times)[1], "times": times}}
json.dump({{"results": [result]}}, open(sys.argv[sys.argv.index("--export-json") + 1], "w"))
"""
UV = '#!/bin/sh\nshift\nexec "$@"\n'
STAND_INS = {"hyperfine": HYPERFINE.format(python=sys.executable), "uv": UV}
"""Programs for tools that this machine may lack."""

PYTEST_BENCHMARK = """\
import json, time
import pytest

results = []

def pytest_addoption(parser):
    parser.addoption("--benchmark-json")

@pytest.fixture
def benchmark(request):
    def measure(function):
        begin = time.perf_counter()
        function()
        stats = {"median": time.perf_counter() - begin}
        results.append({"name": request.node.name, "stats": stats})
    return measure

def pytest_sessionfinish(session):
    document = {"machine_info": {}, "benchmarks": results}
    json.dump(document, open(session.config.getoption("--benchmark-json"), "w"))
"""

PROMPT = """\
# Autoresearch

## Objective
Make it faster.

## Metrics
- **Primary**: total_ms (ms, lower is better)

## How to Run
`./autoresearch.sh`

## Files in Scope
- `work.py`: all of it

## Off Limits
- tests
"""


@dataclass
class Shape:
    """A repository, and what `init` proposes for it."""

    name: str
    files: dict[str, str]
    layout: str
    command: str
    editable: Sequence[str]
    metric: str
    goal: str
    where: str = "."  # the task's folder
    untracked: dict[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    tools: Sequence[str] = ()  # without which only `init` is tried
    is_quick: bool = False  # its baseline runs in the default suite


EVALUATOR = """\
import runpy, sys

def evaluate(program_path):
    print("Stderr: nothing", file=sys.stderr)
    return {"combined_score": runpy.run_path(program_path)["search"](), "runs_successfully": 1.0}
"""
SHINKA = """\
import argparse, json, os, runpy
parser = argparse.ArgumentParser()
parser.add_argument("--program_path")
parser.add_argument("--results_dir")
args = parser.parse_args()
os.makedirs(args.results_dir, exist_ok=True)
score = runpy.run_path(args.program_path)["search"]()
json.dump({"combined_score": score}, open(os.path.join(args.results_dir, "metrics.json"), "w"))
"""
EVOLVED = f"{SEEDED}WIDTH = 0.5\n\ndef search():\n    return WIDTH + {NOISE}\n"
TRAIN = f"{SEEDED}LR = 0.3\nprint(f'val_bpb:          {{LR + {NOISE}:.6f}}')\n"
WORK = f"{SEEDED}SIZE = 3\nprint('METRIC total_ms=%f' % (SIZE + {NOISE}))\n"
MAIN_C = '#include <stdio.h>\nint sum(int);\nint main() { printf("loss: %f\\n", sum(9) / 7.0); }\n'
SUM_C = "int sum(int n) { int s = 0; for (int i = 0; i < n; i++) s += i; return s; }\n"

SHAPES = [
    Shape(
        "plain script, with a setup.py",
        {
            "orbit.py": f"{SEEDED}DT = 0.1\nprint('energy_error:', DT + {NOISE})\n",
            "setup.py": "from setuptools import setup\nsetup()\n",
            "test_orbit.py": "def test_nothing(): pass\n",
        },
        "a Python script", "python orbit.py", ["orbit.py"], "energy_error", "minimize",
    ),
    Shape(
        "package with __main__",
        {
            "fit/__init__.py": "",
            "fit/__main__.py": f"{SEEDED}from fit.model import loss\n"
            "print(f'val/loss: {loss():.6f}')\n",
            "fit/model.py": "import random\nRATE = 0.3\n\ndef loss():\n"
            f"    return RATE + {NOISE}\n",
            "setup.py": "",
        },
        "a Python package", "python -m fit", ["fit/**/*.py"], "val/loss", "minimize",
    ),
    Shape(
        "sub-folder of a monorepo",
        {
            "README.md": "Everything.\n",
            "projects/adder/train.py": f"{SEEDED}LR = 0.1\n"
            f"print('test_accuracy: %f' % (LR + {NOISE}))\n",
            "projects/other/train.py": "print('x')\n",
        },
        "a Python script", "python train.py", ["train.py"], "test_accuracy", "maximize",
        where="projects/adder",
    ),
    Shape(
        "pytest-benchmark",
        {
            "parse.py": "SIZE = 20000\n\ndef parse():\n    return sum(range(SIZE))\n",
            "tests/test_parse.py": "from parse import parse\n\ndef test_parse(benchmark):\n"
            "    benchmark(parse)\n",
            "conftest.py": PYTEST_BENCHMARK,
        },
        "pytest-benchmark", "-m pytest tests/test_parse.py", ["parse.py"], "median_s", "minimize",
    ),
    Shape(
        "hyperfine",
        {
            "work.py": "print(sum(range(1000)))\n",
            "bench.sh": "#!/bin/sh\nset -e\nhyperfine --warmup 1 'python3 work.py'\n",
        },
        "hyperfine", "hyperfine --warmup 1", ["work.py"], "median_s", "minimize",
    ),
    Shape(
        "C with a Makefile",
        {
            "Makefile": "bench: prog\n\t./prog\nprog: main.c sum.c\n\t$(CC) -o prog main.c sum.c\n",
            "main.c": MAIN_C,
            "sum.c": SUM_C,
        },
        "Make", "make -s bench", ["main.c", "sum.c"], "loss", "minimize",
        tools=["make", "cc"],
    ),
    Shape(
        "CMake",
        {
            "CMakeLists.txt": "cmake_minimum_required(VERSION 3.10)\nproject(p C)\n"
            "add_executable(prog src/main.c src/sum.c)\n",
            "src/main.c": MAIN_C,
            "src/sum.c": SUM_C,
        },
        "CMake", "./build/prog", ["src/main.c", "src/sum.c"], "loss", "minimize",
        tools=["cmake", "cc", "make"],
    ),
    Shape(
        "Cargo",
        {
            "Cargo.toml": '[package]\nname = "digits"\nversion = "0.1.0"\nedition = "2021"\n',
            "src/main.rs": 'fn main() { println!("METRIC ns_per_op={}", 42.5); }\n',
        },
        "Cargo", "./target/release/digits", ["src/main.rs"], "ns_per_op", "minimize",
        tools=["cargo"],
        options=["--goal", "minimize"],
    ),
    Shape(
        "Cargo with a bench target",  # cargo must not find the checkout's Cargo.toml above the run
        {
            "Cargo.toml": '[package]\nname = "digits"\nversion = "0.1.0"\nedition = "2021"\n'
            '[[bench]]\nname = "b"\nharness = false\n',
            "src/lib.rs": "pub fn f() -> u32 { 7 }\n",
            "benches/b.rs": 'fn main() { println!("METRIC ns_per_op={}", digits::f()); }\n',
        },
        "", "cargo bench --offline", ["src/*.rs"], "ns_per_op", "minimize",
        tools=["cargo"],
        options=["--command", "cargo bench --offline --bench b", "--editable", "src/*.rs",
                 "--metric", "ns_per_op", "--goal", "minimize"],
    ),
    Shape(
        "npm",
        {
            "package.json": '{"scripts": {"bench": "node bench.js", "test": "node test.js"}}',
            "bench.js": "const f = require('./index.js')\nconsole.log(`ops_per_s: ${f()}`)\n",
            "index.js": "module.exports = () => 100\n",
        },
        "npm", "npm run --silent bench", ["index.js"], "ops_per_s", "maximize",
        tools=["npm", "node"],
    ),
    Shape(
        "uv",
        {
            "pyproject.toml": '[project]\nname = "x"\nversion = "0"\n',
            "uv.lock": "version = 1\n",
            "simulate.py": f"{SEEDED}DT = 0.5\nprint('METRIC psnr=%f' % (30 + DT + {NOISE}))\n",
        },
        "a Python script", "uv run python simulate.py", ["simulate.py"], "psnr", "maximize",
    ),
    Shape(
        "the original",
        {"train.py": TRAIN, "prepare.py": "TIME_BUDGET = 300\n", "program.md": "Lower it.\n"},
        "original", "python train.py", ["train.py"], "val_bpb", "minimize",
    ),
    Shape(
        "pi-autoresearch before 1.6",
        {"autoresearch.md": PROMPT, "autoresearch.sh": "python3 work.py\n", "work.py": WORK},
        "pi-autoresearch", "bash autoresearch.sh", ["work.py"], "total_ms", "minimize",
    ),
    Shape(
        "pi-autoresearch",
        {".auto/prompt.md": PROMPT, ".auto/measure.sh": "python3 work.py\n", "work.py": WORK},
        "pi-autoresearch", "bash .auto/measure.sh", ["work.py"], "total_ms", "minimize",
    ),
    Shape(
        "OpenEvolve",
        {"evaluator.py": EVALUATOR, "initial_program.py": EVOLVED, "config.yaml": "x: 1\n"},
        "OpenEvolve", "evaluator.evaluate('initial_program.py')", ["initial_program.py"],
        "combined_score", "maximize", is_quick=True,
    ),
    Shape(
        "SkyDiscover",
        {"evaluator/evaluator.py": EVALUATOR, "initial_program.py": EVOLVED},
        "SkyDiscover", "evaluator.evaluate('initial_program.py')", ["initial_program.py"],
        "combined_score", "maximize",
    ),
    Shape(
        "ShinkaEvolve",
        {"evaluate.py": SHINKA, "initial.py": EVOLVED},
        "ShinkaEvolve", "python evaluate.py --program_path initial.py", ["initial.py"],
        "combined_score", "maximize",
    ),
    Shape(
        "data and settings that git does not have",
        {
            "train.py": f"{SEEDED}LR = 0.1\nwith open('data/x.txt') as file:\n    file.read()\n"
            f"print('loss:', LR + {NOISE})\n",
            ".gitignore": "data/\n",
        },
        "a Python script", "python train.py", ["train.py"], "loss", "minimize",
        untracked={"data/x.txt": "1\n"},
    ),
    Shape(
        "a benchmark of a module",
        {
            "sort.py": "STEP = 2\n\ndef sort(items):\n    return sorted(items)\n",
            "bench_sort.py": f"{SEEDED}from sort import sort\nsort([2, 1])\n"
            f"print(f'METRIC seconds={{1 + {NOISE}}}')\n",
        },
        "a Python script", "python bench_sort.py", ["sort.py"], "seconds", "minimize",
    ),
    Shape(
        "globs by options",
        {
            "lib/core.py": f"{SEEDED}RATE = 0.2\nprint('rmse:', RATE + {NOISE})\n",
            "lib/more.py": "",
        },
        "", "python lib/core.py", ["lib/*.py"], "rmse", "minimize",
        options=["--editable", "lib/*.py", "--command", "python lib/core.py"],
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tools" / "bin"
    folder.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)


def make_repository(root: Path, files: dict[str, str]) -> Path:
    write(root, files)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")
    return root


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def run_init(root: Path, *options: str) -> dict[str, Any]:
    done = call(root, "init", "--json", *options)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.name)
def shape(request: pytest.FixtureRequest) -> Shape:
    made: Shape = request.param
    return made


def test_init_proposes_a_task_with_reasons(shape: Shape, tmp_path: Path) -> None:
    root = make_repository(tmp_path / "task", shape.files)
    write(root, shape.untracked)
    answer = run_init(root / shape.where, *shape.options)
    if shape.layout:
        assert answer["layout"] == shape.layout
    assert set(answer["proposed"]) - {"inputs"} <= set(answer["reasons"])
    task = load(root / shape.where)
    assert shape.command in task.run.command
    assert list(task.editable) == list(shape.editable)
    assert (task.metric.name, task.metric.goal) == (shape.metric, shape.goal)
    assert task.run.inputs == tuple({path.split("/")[0] for path in shape.untracked})
    judges = ("setup.py", "evaluator.py", "evaluate.py", "evaluator/evaluator.py", "test_orbit.py")
    assert not any(task.may_edit(path) for path in judges)


def check(shape: Shape, tmp_path: Path) -> None:
    if missing := [tool for tool in shape.tools if shutil.which(tool) is None]:
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    root = make_repository(tmp_path / "task", shape.files)
    write(root, shape.untracked)
    run_init(root / shape.where, *shape.options)
    done = call(root / shape.where, "check", "--runs", 2)
    assert done.returncode == 0, done.stderr
    assert f"works      {shape.metric} " in done.stdout


@pytest.mark.parametrize("quick", [s for s in SHAPES if s.is_quick], ids=lambda shape: shape.name)
def test_the_baseline_runs(quick: Shape, tmp_path: Path) -> None:
    check(quick, tmp_path)


@pytest.mark.slow
def test_the_baseline_runs_everywhere(shape: Shape, tmp_path: Path) -> None:
    check(shape, tmp_path)


# ---- what init cannot know ---------------------------------------------------------------------

TWO = {"a.py": "print('score:', 1)\n", "b.py": "print('score:', 2)\n"}


@pytest.mark.parametrize(
    ("files", "flags"),
    [
        (TWO, ["--editable", "--goal"]),
        ({"train.py": "print('hello')\n"}, ["--metric", "--goal"]),
        ({"train.py": "print('loss_scale:', 1)\n"}, ["--goal"]),
        ({"main.f90": "end\n"}, ["--editable", "--command", "--metric", "--goal"]),
        ({"setup.py": "from setuptools import setup\nsetup()\n"},
         ["--editable", "--command", "--metric", "--goal"]),
        ({"evaluator.py": "def evaluate(p):\n    return {'a': 1, 'b': 2}\n",
          "initial_program.py": "X = 1\n"}, ["--metric"]),
    ],
)  # fmt: skip
def test_all_that_is_missing_is_said_at_once(
    files: dict[str, str], flags: list[str], tmp_path: Path
) -> None:
    root = make_repository(tmp_path / "task", files)
    done = call(root, "init")
    assert done.returncode == 2
    asked = [line.split()[0] for line in done.stderr.splitlines() if line.startswith("    --")]
    assert asked == flags
    assert not (root / "autoresearch.toml").exists()


def test_a_terminal_is_asked_all_together_and_check_follows(tmp_path: Path) -> None:
    program = TWO["a.py"].replace("1)", f"1 + {NOISE})")
    root = make_repository(tmp_path / "task", {**TWO, "a.py": SEEDED + "LR = 0.1\n" + program})
    code, shown = run_on_terminal(root, "init", answers="a.py\nhigh\nn\n")
    assert code == 0, shown
    questions = shown[shown.index("2 questions left") : shown.index("1> ")]
    assert "a.py, b.py" in questions and "Is a lower or a higher score better?" in questions
    assert "the tuner sees 1 constant: LR" in shown and "Run it now?" in shown
    task = load(root)
    assert (task.run.command, task.metric.goal) == ("python a.py", "maximize")


def test_everything_by_flags(tmp_path: Path) -> None:
    files = {"prog.c": "int main() {}\n", "score.py": "print('x: 1')\n", "holdout/x": "1\n"}
    root = make_repository(tmp_path / "task", files)
    write(root, {"data/x": "1\n"})
    words = "--editable *.c --metric x --goal minimize --budget 5m --timeout 11m --reads out.bin"
    words += " --hidden holdout --input data --cache ~/.cache/prog"
    run_init(root, *words.split(), "--command", "make run", "--score", "python score.py")
    task = load(root)
    assert task.score is not None and task.score.command == "python score.py"
    assert (task.score.reads, task.score.hidden) == (("out.bin",), ("holdout",))
    assert (task.run.budget_s, task.run.timeout_s) == (300, 660)
    assert (task.run.inputs, task.run.caches) == (("data",), ("~/.cache/prog",))


def test_check_can_follow_without_a_question(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "task", SHAPES[0].files)
    answer = run_init(root, "--check")
    assert answer["check"]["metric"] == "energy_error" and answer["check"]["to_mend"] == []


def test_only_python3_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_repository(tmp_path / "task", SHAPES[0].files)
    tools = tmp_path / "few"
    tools.mkdir()
    for name in ("git", "python3"):
        (tools / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tools))
    run_init(root)
    assert load(root).run.command == "python3 orbit.py"


def test_one_of_several_benchmarks_is_chosen_by_name(tmp_path: Path) -> None:
    tests = "from parse import parse\n\n"
    tests += "".join(f"def test_{n}(benchmark):\n    benchmark(parse)\n\n" for n in ("a", "b"))
    files = {"parse.py": "def parse(): pass\n", "tests/test_parse.py": tests}
    root = make_repository(tmp_path / "task", files)
    done = call(root, "init")
    assert done.returncode == 2 and "--metric    Which" in done.stderr
    assert "(test_a, test_b?)" in done.stderr and "--goal" not in done.stderr
    run_init(root, "--metric", "test_b")
    task = load(root)
    assert "-k test_b" in task.run.command and task.editable == ("parse.py",)
    assert (task.metric.name, task.metric.goal) == ("test_b", "minimize")


def test_a_target_that_only_builds_is_no_command(tmp_path: Path) -> None:
    files = {"Makefile": "run: run.c\n\tcc -o run run.c\n", "run.c": MAIN_C}
    root = make_repository(tmp_path / "task", files)
    done = call(root, "init")
    assert done.returncode == 2 and "--command   Which command" in done.stderr


def test_a_virtual_environment_in_the_folder(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "task", {**SHAPES[0].files, ".gitignore": ".venv\n"})
    write(root, {".venv/pyvenv.cfg": "", ".venv/bin/python": ""})
    run_init(root)
    task = load(root)
    assert (task.run.command, task.run.inputs) == (".venv/bin/python orbit.py", (".venv",))


def test_what_is_not_committed_is_said(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "task", {"README.md": "x\n", "train.py": TRAIN})
    write(root, {"go.sh": "python train.py\n"})
    done = call(root, "init", "--command", "sh go.sh")
    assert done.returncode == 0 and "git add go.sh && git commit" in done.stdout


def test_force_replaces_the_task_file_only(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "task", SHAPES[0].files)
    run_init(root)
    (root / "program.md").write_text("Mine.\n")
    assert run_init(root, "--force", "--metric", "other", "--goal", "maximize")["written"] == [
        "autoresearch.toml"
    ]
    assert load(root).metric.name == "other" and (root / "program.md").read_text() == "Mine.\n"
