"""The task tiny_gpt, and a small text for it."""

from __future__ import annotations

import random
from pathlib import Path

TASK = Path(__file__).parents[2] / "src" / "autoresearch" / "tasks" / "tiny_gpt"


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
