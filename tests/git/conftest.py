from __future__ import annotations

from pathlib import Path

import pytest
from support.sessions import commit_all, make_task


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = make_task(
        tmp_path / "repo",
        files={"src/a.py": "A = 1\n", "src/b.py": "B = 1\n", "data/x.txt": "x\n", "run.sh": "#!\n"},
    )
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("data/x.txt")
    (root / ".gitignore").write_text("*.log\n")
    commit_all(root)
    return root
