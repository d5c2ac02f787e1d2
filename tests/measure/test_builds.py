"""`[run] build`: made before the clock, once for each program, and out of every run's reach."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.bench import Bench, bench
from support.sessions import (
    PROGRAM,
    TASK,
    ScriptedAgent,
    change,
    commit_all,
    linux_only,
    make_task,
    rewrite,
    run_session,
    side,
)

from autoresearch.errors import BaselineError
from autoresearch.measure.diagnosis import find_first_error

BUILD = """\
set -e
test "$AUTORESEARCH_SEED" = 0
echo built >> "$1/builds"
mkdir -p out/deep
cp prog.py out/prog.py
ln -s ../prog.py out/deep/link
chmod +x out/prog.py
echo old > out/old; sleep 0.02; echo new > out/new
if grep -n MISTAKE prog.py; then
    echo "prog.py:1:2: error: no MISTAKE here"
    echo "prog.py:3:4: error: which follows from it"
    exit 2
fi
"""


def make_built_task(root: Path, command: str = "python -S -E out/prog.py", **files: str) -> Path:
    """A task whose build copies the program."""
    build = f'build = "sh build.sh {side(root)}"\n'
    toml = TASK.replace("python -S -E prog.py", command).replace("[run]\n", f"[run]\n{build}")
    return make_task(root, toml=toml, files={"build.sh": BUILD, **files})


def count_builds(root: Path) -> int:
    return len((side(root) / "builds").read_text().splitlines())


class Reader(ScriptedAgent):
    """Wants briefings."""

    wants_briefing = True


def test_one_build_for_all_runs_of_a_program(tmp_path: Path) -> None:
    root = make_built_task(tmp_path / "task")
    agent = Reader(change(VALUE=5.0), rewrite("MISTAKE\n" + PROGRAM), change(VALUE=6.0))
    night = run_session(root, agent)
    assert [status for status, _ in night.verdicts] == ["keep", "crash", "discard"]
    assert len(night.runs) > 12
    assert count_builds(root) == 4  # baseline, three changes
    crash = night.experiments[2]
    assert crash.reason == "build: exit code 2"
    [run] = night.runs_of(2)
    assert "no MISTAKE here" in (night.paths.runs / run.name / "log").read_text()
    briefing = agent.turns[2].briefing or ""
    assert "error: no MISTAKE here" in briefing


def tree_of(made: Bench) -> Path:
    """What a run would see, without a run."""
    content = made.executor._make_content(made.record.base_commit)
    folder = made.paths.trees / "look"
    content.write(folder)
    return folder


def test_a_run_gets_the_built_files_as_its_own(tmp_path: Path) -> None:
    root = make_built_task(tmp_path / "task")
    with bench(root) as made:
        tree = tree_of(made)
        assert (tree / "out" / "deep" / "link").readlink() == Path("../prog.py")
        assert (tree / "out" / "prog.py").stat().st_mode & 0o111
        times = [tree / name for name in ("prog.py", "out/prog.py", "out/old", "out/new")]
        assert times == sorted(times, key=lambda file: file.stat().st_mtime_ns)
        content = made.executor._make_content(made.record.base_commit)
        manifest = content.manifest()
        assert manifest.files["out/prog.py"].mode == 0o100755
        assert content.read(manifest.files["out/deep/link"].blob) == b"../prog.py"
        run = made.measure()
        assert run.metric is not None
        assert not made.file(run, "artefacts").exists()  # the run made none of them
        assert made.executor.run_guard("g", "test -x out/prog.py", 0, run.commit).exit_code == 0
        assert count_builds(root) == 1


def test_what_a_run_changes_reaches_no_other(tmp_path: Path) -> None:
    """Neither in its own tree, nor in the folder of the build: that is closed to it."""
    attack = """\
import glob, os, sys
sys.path.insert(0, "")
for path in ["out/prog.py", *glob.glob("../../builds/*/out/prog.py")]:
    try:
        open(path, "a").write("print('score: 0')\\n")
    except OSError as error:
        print("denied", error.errno)
exec(open("out/old").read() and "print('score: 7')")
"""
    root = make_built_task(tmp_path / "task", "python -S -E attack.py", **{"attack.py": attack})
    with bench(root) as made:
        first, second = made.measure(), made.measure()
        assert (first.metric, second.metric) == (7, 7)
        assert "score: 0" in made.file(first, "artefacts/out/prog.py").read_text()
        [built] = made.paths.builds.glob("*/out/prog.py")
        assert "score: 0" not in built.read_text()
        assert count_builds(root) == 1


def test_a_build_that_was_changed_is_made_again(tmp_path: Path) -> None:
    """As a run could, where nothing confines it."""
    root = make_built_task(tmp_path / "task")
    with bench(root) as made:
        made.measure()
        [built] = made.paths.builds.glob("*/out/prog.py")
        status = built.stat()
        built.write_text("x" * status.st_size)
        run = made.measure()
        assert run.metric is not None
        assert count_builds(root) == 2


def test_a_build_does_not_write_through_links_into_inputs(tmp_path: Path) -> None:
    """A change may replace the link to an input by a folder."""
    root = make_built_task(tmp_path / "task")
    script = root / "build.sh"
    script.write_text(BUILD + "rm data; mkdir data; echo lost > data/precious\n")
    (root / "data").mkdir()
    (root / "data" / "precious").write_text("kept\n")
    (root / ".gitignore").write_text("data\n")
    commit_all(root)
    with bench(root, run__inputs=["data"]) as made:
        tree = tree_of(made)
        assert (tree / "data" / "precious").read_text() == "lost\n"
    assert (root / "data" / "precious").read_text() == "kept\n"


def test_a_scorer_reads_what_a_build_made(tmp_path: Path) -> None:
    root = make_built_task(tmp_path / "task", "true", **{"score.py": "print('score: 3')\n"})
    score = {"command": "python -S score.py", "reads": ["out/old"]}
    with bench(root, score=score) as made:
        run = made.measure()
        assert run.metric == 3, run.reason
        assert made.file(run, "artefacts/out/old").exists()


def test_a_build_has_its_own_time_limit(tmp_path: Path) -> None:
    root = make_built_task(tmp_path / "task")
    with bench(root, run__build="sleep 60", run__build_timeout="0.3s") as made:
        assert made.measure().reason == "build: timeout"


def test_old_builds_make_room(tmp_path: Path) -> None:
    root = make_built_task(tmp_path / "task")
    with bench(root, runner__keep_outputs="1kB") as made:
        for segment in range(5):
            made.executor.builds.get(made.record.base_commit, segment)
        assert len(list(made.paths.builds.glob("*.json"))) == 2
        assert len([path for path in made.paths.builds.iterdir() if path.is_dir()]) == 2


def test_a_baseline_that_does_not_build_shows_the_first_error(tmp_path: Path) -> None:
    root = make_built_task(tmp_path / "task")
    (root / "prog.py").write_text("MISTAKE\n")
    commit_all(root)
    with pytest.raises(BaselineError, match=r"build: exit code 2[^$]*prog\.py:1:2: error: no MIS"):
        run_session(root, ScriptedAgent())


@pytest.mark.parametrize(
    "line",
    [
        "main.c:3:5: error: expected ';' before '}' token",
        "error[E0308]: mismatched types",
        "src/a.ts(3,5): error TS2322: Type 'x'",
        "./main.go:4:2: undefined: x",
        "CMake Error at CMakeLists.txt:3 (add_executable):",
        "a.c:1:10: fatal error: none.h: No such file or directory",
        "/usr/bin/ld: a.o: in function `main': a.c: undefined reference to `f'",
        "error: could not compile `itoa`",
    ],
)
def test_the_first_error_of_a_compiler(line: str) -> None:
    lines = ["gcc -Werror -c error_table.c", "a.c:1:1: warning: odd", "", line, "x", "b: error: 2"]
    assert find_first_error(lines) == [line, "x", "b: error: 2"]
    assert find_first_error(lines[:3]) == []


@linux_only
@pytest.mark.skipif(not (shutil.which("make") and shutil.which("gcc")), reason="needs make and gcc")
def test_make_builds_nothing_again_in_a_run(tmp_path: Path) -> None:
    makefile = (
        f"all: prog\nprog: prog.o\n\tgcc -o prog prog.o\nprog.o: prog.c\n"
        f"\techo compiled >> {side(tmp_path / 'task')}/builds\n\tgcc -c prog.c\n"
        "run: prog\n\t./prog\n"
    )
    program = '#include <stdio.h>\nint main() { printf("score: %d\\n", 4); return 0; }\n'
    toml = TASK.replace("python -S -E prog.py", "make -s run")
    toml = toml.replace("[run]\n", '[run]\nbuild = "make"\n').replace("prog.py", "prog.c")
    root = make_task(tmp_path / "task", toml=toml, files={"Makefile": makefile, "prog.c": program})
    with bench(root) as made:
        assert [made.measure().metric for _ in range(3)] == [4, 4, 4]
        assert count_builds(root) == 1
