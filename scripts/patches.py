"""Write the patches of the task gpt again, after a change of its train.py.

    python scripts/patches.py

Each patch is applied wherever its lines are now, and its header is kept. Exits with 1 if one does
not apply any more: then mend that one by hand.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from autoresearch.agents.replay import Patch

TASK = Path(__file__).parents[1] / "src" / "autoresearch" / "tasks" / "gpt"
SECTION = re.compile(r"^(@@ .* @@).*$", re.MULTILINE)  # git adds the line of a function
BLOBS = re.compile(r"^index .*\n", re.MULTILINE)


def main() -> int:
    failed = 0
    for file in sorted((TASK / "published").glob("*.patch")):
        with tempfile.TemporaryDirectory() as name:
            old, new = Path(name, "a"), Path(name, "b")
            for folder in (old, new):
                folder.mkdir()
                shutil.copy(TASK / "train.py", folder)
            if (problem := Patch(file.name, file.read_bytes()).apply(new)) is not None:
                print(f"{file.name}: {problem}", file=sys.stderr)
                failed += 1
                continue
            diff = ["git", "diff", "--no-index", "-U1", "--no-prefix", "a/train.py", "b/train.py"]
            done = subprocess.run(diff, cwd=name, capture_output=True, text=True, check=False)
        header = file.read_text().partition("diff --git ")[0]
        file.write_text(header + SECTION.sub(r"\1", BLOBS.sub("", done.stdout)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
