"""What the user is told when the unchanged program fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.sessions import (
    TASK,
    ScriptedAgent,
    commit_all,
    git,
    linux_only,
    make_task,
    run_session,
)

from autoresearch.errors import BaselineError
from autoresearch.sandbox import landlock

needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="nothing is confined")


def explain(root: Path, program: str, **settings: object) -> str:
    """The error of a session whose unchanged program is this one."""
    (root / "prog.py").write_text(program)
    commit_all(root)
    with pytest.raises(BaselineError) as error:
        run_session(root, ScriptedAgent(), **settings)
    return str(error.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_task(
        tmp_path / "task", files={".gitignore": "data\nhelper.py\nrun.sh\nmodel.bin\n"}
    )
    (root / "data").mkdir()
    (root / "data" / "x.csv").write_text("1")
    (root / "helper.py").touch()
    (root / "run.sh").touch(mode=0o755)
    return root


NOT_COMMITTED = (
    " is in your checkout but not in the commit: commit it, or name it in `[run] inputs`"
)


@pytest.mark.parametrize(
    ("program", "settings", "name"),
    [
        ("open('data/x.csv')", {}, "data/x.csv"),
        ("import helper", {"run__command": "python prog.py"}, "helper.py"),
        ("1", {"run__command": "./run.sh"}, "run.sh"),
        ("1", {"run__command": "sh run.sh"}, "run.sh"),
    ],
)
def test_files_that_are_not_committed(
    root: Path, program: str, settings: dict[str, object], name: str
) -> None:
    text = explain(root, program, **settings)
    assert f"\n{name}{NOT_COMMITTED}" in text
    assert text.count(NOT_COMMITTED) == 1


@linux_only
@needs_landlock
@pytest.mark.parametrize(
    ("action", "hint"),
    [
        ("open(FAR + '/x')", 'denied: reading {far}/x. Allow it by `inputs = ["x"]` in [run]'),
        ("open(FAR + '/y', 'w')", 'denied: writing {far}/y. Allow it by `caches = ["{far}"]`'),
        ("os.mkdir(FAR + '/z')", 'denied: writing {far}/z. Allow it by `caches = ["{far}"]`'),
        ("open(TASK + '/data/x.csv')", '/data/x.csv. Allow it by `inputs = ["data/x.csv"]`'),
        ("open(TASK + '/.autoresearch/ledger.sqlite')", "which no run may use"),
        ("print('Network is unreachable'); 1 / 0", "the network. Allow it by `network = true`"),
    ],
)
def test_what_was_denied_and_the_line_that_allows_it(
    root: Path, tmp_path: Path, action: str, hint: str
) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / "x").touch()
    text = explain(root, f"import os\nFAR, TASK = {str(far)!r}, {str(root)!r}\n{action}")
    assert hint.format(far=far) in text
    assert text.count("\ndenied: ") == 1


def test_a_warning_does_not_blame_the_sandbox_for_a_missing_metric(root: Path) -> None:
    text = explain(root, "print('/root/.config/matplotlib: Permission denied; a temporary folder')")
    assert "no metric" in text
    assert "\ndenied: " not in text


def test_a_pointer_of_git_lfs(root: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    (root / "weights.bin").write_text(pointer)
    text = explain(root, "raise SystemExit('cannot open weights.bin')")
    assert "weights.bin is a Git LFS pointer in the commit" in text


def test_a_module_that_is_not_installed(root: Path) -> None:
    (root / "uv.lock").touch()
    assert "uv.lock is here: run `uv sync` first" in explain(root, "import nosuchmodule")
    (root / "uv.lock").unlink()
    assert "nosuchmodule is not installed for /" in explain(root, "import nosuchmodule")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="has a GPU")
def test_the_original_without_a_gpu_and_without_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "task"
    root.mkdir()
    (root / "prepare.py").write_text("TIME_BUDGET = 1\n")
    (root / "train.py").write_text("assert 0, 'val_bpb'\n")
    git(root, "init", "-q")
    git(root, "config", "user.name", "x")
    git(root, "config", "user.email", "x")
    commit_all(root)
    with pytest.raises(BaselineError) as error:
        run_session(root, ScriptedAgent())
    assert "needs an NVIDIA GPU, and this machine shows none" in str(error.value)
    assert f"run `python prepare.py` once, which fills {tmp_path}/.cache" in str(error.value)


def test_a_uv_project_runs_with_its_own_environment(tmp_path: Path) -> None:
    program = "import os, shutil\nprint('score:', len(os.environ['VIRTUAL_ENV']))\n"
    program += "assert shutil.which('python').startswith(os.environ['VIRTUAL_ENV'])\n"
    root = make_task(tmp_path / "task", program, files={"uv.lock": "", ".gitignore": ".venv\n"})
    binaries = root / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (root / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (binaries / "python").symlink_to(os.path.realpath(sys.executable))
    night = run_session(root, ScriptedAgent())
    assert night.runs[0].metric == len(str(root / ".venv"))


@pytest.mark.parametrize("is_inner", [True, False])
def test_a_script_in_a_sub_folder_imports_the_package_beside_it(
    tmp_path: Path, is_inner: bool
) -> None:
    """As `projects/adder/adder.py` does `mingpt/`. The run's own copy counts."""
    inner = "projects/adder/"
    files = {
        "mingpt/__init__.py": "",
        "mingpt/model.py": "SCORE = 4\n",
        f"{inner}prog.py": "import json\nfrom mingpt.model import SCORE\nprint('score:', SCORE)\n",
    }
    toml = TASK.replace("python -S -E prog.py", "python prog.py")
    if is_inner:
        files[f"{inner}autoresearch.toml"] = toml
    else:
        toml = toml.replace("prog.py", f"{inner}prog.py")
    top = make_task(tmp_path / "top", "", toml, files)
    night = run_session(top / inner if is_inner else top, ScriptedAgent())
    assert night.runs[0].metric == 4
