"""The ready tasks whose metric is speed: the unchanged program is right, and no cheat is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.bench import Bench, bench
from support.commands import call
from support.sessions import commit_all

from autoresearch.records import Run

needs_gcc = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("make") and os.uname().machine == "x86_64"),
    reason="needs gcc and make, and flags of x86-64",
)
OTHER_SEED = {"AUTORESEARCH_SEED": "1"}

# Functions of C that run before `main`, write what the other seed's run has left, and say that all
# is right.
BEFORE_MAIN = """
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void cheat(void) {
    FILE *in = fopen("answer.bin", "rb"), *out = fopen("OUTPUT", "wb");
    for (int c; (c = fgetc(in)) != EOF;) fputc(c, out);
    fclose(out);
    puts("error: 0\\nwrong: 0");
    fflush(stdout);
    _Exit(0);
}
"""


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """The task that the test names, with one repetition in each run."""
    root = tmp_path / "task"
    assert call(tmp_path, "new", request.param, root).returncode == 0
    with bench(root, metric__repeats=1, metric__relative=False) as made:
        yield made


def run_with(made: Bench, edit: Callable[[Path], None]) -> Run:
    """Measure the task after an edit of its checkout."""
    root = made.executor.task.root
    edit(root)
    commit_all(root)
    commit = made.repository.head()
    made.record = made.ledger.update_session(made.record, base_commit=commit)
    return made.measure()


def replace_in(name: str, *pairs: tuple[str, str]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        text = (root / name).read_text()
        for old, new in pairs:
            text, count = re.subn(old, new, text)
            assert count == 1, old
        (root / name).write_text(text)

    return edit


def check_honest(run: Run) -> None:
    assert run.reason is None
    assert run.metric is not None and run.metric < 30


def check_refused(run: Run, guard: str) -> None:
    assert run.reason is not None and run.reason.startswith(f"guard failed: {guard}"), run.reason


def precompute(name: str, source: str) -> Callable[[Path], None]:
    """Put the output of another seed's run beside the source, which then only copies it, and print
    what the scorer should."""

    def edit(root: Path) -> None:
        env = {**os.environ, **OTHER_SEED}
        subprocess.run("make -s && ./main", shell=True, cwd=root, env=env, check=True)
        (root / name).rename(root / "answer.bin")
        cheat = BEFORE_MAIN.replace("OUTPUT", name)
        (root / source).write_text(cheat + (root / source).read_text())

    return edit


@pytest.mark.parametrize("made", ["nbody"], indirect=True)
def test_nbody(made: Bench) -> None:
    check_honest(honest := made.measure())
    assert 0 < honest.numbers["energy_error"] < 5e-6
    assert 1e-5 < honest.numbers["position_error"] < 2e-3

    better = [(r'INTEGRATOR = "leapfrog"', 'INTEGRATOR = "yoshida6"'), ("= 1600  #", "= 100  #")]
    better += [("UNROLLED = False", "UNROLLED = True")]
    check_honest(run_with(made, replace_in("simulate.py", *better)))

    forged = r"\nprint('energy_error: 0')\nprint('position_error: 0')\nmain()\n"
    coarse = replace_in("simulate.py", ("= 100  #", "= 20  #"), (r"\nmain\(\)\n", forged))
    check_refused(run_with(made, coarse), "energy_error")

    def copy_other_seed(root: Path) -> None:
        command = ["python", "simulate.py"]
        subprocess.run(command, cwd=root, env={**os.environ, **OTHER_SEED}, check=True)
        answer = (root / "trajectory.txt").read_text()
        (root / "trajectory.txt").unlink()
        (root / "simulate.py").write_text(f"open('trajectory.txt', 'w').write({answer!r})\n")

    check_refused(run_with(made, copy_other_seed), "energy_error")


@needs_gcc
@pytest.mark.parametrize("made", ["compiler"], indirect=True)
def test_compiler(made: Bench) -> None:
    check_honest(honest := made.measure())
    assert 0 < honest.numbers["error"] < 1e-5

    blocks = ("BLOCK_ROWS 400", "BLOCK_ROWS 200")
    half = replace_in(
        "kernel.c", blocks, ("i = 0; i < SIZE; i \\+= B", "i = 200; i < SIZE; i += B")
    )
    check_refused(run_with(made, half), "error")
    check_refused(run_with(made, precompute("product.bin", "kernel.c")), "error")


@needs_gcc
@pytest.mark.parametrize("made", ["sort"], indirect=True)
def test_sort(made: Bench) -> None:
    check_honest(made.measure())
    merge = (r"\.key < spare\[left\]\.key", ".key <= spare[left].key")
    check_refused(run_with(made, replace_in("sort.c", merge)), "wrong")  # not stable
    check_refused(run_with(made, precompute("sorted.bin", "sort.c")), "wrong")
