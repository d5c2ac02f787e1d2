"""New files beside a scorer, which Python would import instead of installed modules."""

from __future__ import annotations

from pathlib import Path

from support.sessions import TASK, ScriptedAgent, edit, make_task, run_session

from autoresearch.protocols import Proposal, Turn
from autoresearch.sandbox.import_folders import find_shadows

SCORER = "import json, os\nprint('---')\nprint('score:', json.loads(open('out').read()))\n"
PROGRAM = "VALUE = 10.0\nopen('out', 'w').write(str(VALUE))\n"
FORGED = "def loads(text): return 1.0\n"


def test_a_new_file_shadows_no_module_of_the_scorer(tmp_path: Path) -> None:
    def cheat(turn: Turn) -> Proposal:
        edit(turn.worktree, VALUE=9.0)
        (turn.worktree / "json.py").write_text(FORGED)
        (turn.worktree / "own.py").write_text("x = 1\n")
        return Proposal("forged")

    toml = TASK.replace('["prog.py"]', '["*.py", "!score.py"]')
    toml += '[score]\ncommand = "python -S -E score.py"\nreads = ["out"]\n'
    root = make_task(tmp_path / "task", PROGRAM, toml, files={"score.py": SCORER})
    found = run_session(root, ScriptedAgent(cheat), judge__deterministic=True)
    assert found.experiments[1].metric == 9.0


def test_which_files_shadow_installed_modules(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "six.py").touch()
    files = [
        *("json.py", "lib/json.py", "src/six.py", "src/numpy/core.py", "sitecustomize.py"),
        *("model.py", "src/deep/six.py", "json.txt", "src/own.py"),
    ]
    assert list(find_shadows(files, [".", "src"], [tmp_path])) == [
        *("json.py", "src/six.py", "src/numpy/core.py", "sitecustomize.py")
    ]
