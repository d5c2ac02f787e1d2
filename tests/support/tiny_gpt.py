"""The tasks tiny_gpt and gpt, and a small text for them."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

TASK = Path(__file__).parents[2] / "src" / "autoresearch" / "tasks" / "tiny_gpt"
GPT = TASK.parent / "gpt"


def write_corpus(path, size=300_000):
    rng = random.Random(0)
    syllables = ["ka", "to", "mi", "ré", "shu", "lo", "an", "ber", "ost", "ü"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(800)]
    lines, written = [], 0
    while written < size:
        lines.append(" ".join(rng.choices(words, k=rng.randint(5, 20))) + ".\n")
        written += len(lines[-1].encode())
    path.write_text("".join(lines), encoding="utf-8")
    return path


@contextmanager
def import_modules(folder, names):
    """The modules of a task's folder, which are forgotten afterwards: tasks use the same names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        for name in names:
            sys.modules.pop(name, None)


def run_python(folder, *command, **env):
    """Run `python COMMAND` in `folder`, without AUTORESEARCH_ variables of the environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AUTORESEARCH_")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=kept | {f"AUTORESEARCH_{k}": v for k, v in env.items()},
        capture_output=True,
        text=True,
        timeout=600,
    )
