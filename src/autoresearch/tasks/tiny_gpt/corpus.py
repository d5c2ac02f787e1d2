"""
Read a user's own text, and hold out two parts of it. Frozen.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NoReturn

# Two twentieths of the text are held out, from these fractions on. The search is scored on "val".
# "holdout" is sealed: the baseline and keeps are scored on it, and only the report shows that.
HELD_OUT = {"holdout": 0.25, "val": 0.65}
HELD_OUT_FRACTION = 0.05
MIN_CORPUS_BYTES = 100_000  # with less, the held-out part is too small for a comparison


def fail(message: str) -> NoReturn:
    """End the program with exit code 1 and one readable message on stderr."""
    raise SystemExit(f"error: {message}")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_corpus(path: Path) -> str:
    """Read the user's text: a UTF-8 file, or all .txt files below a folder, sorted by name."""
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        fail(f"no .txt file in the folder {path}")
    texts = []
    for file in files:
        try:
            texts.append(file.read_text(encoding="utf-8"))
        except OSError as error:
            fail(f"cannot read {file}: {error.strerror}")
        except UnicodeDecodeError as error:
            fail(f"{file} is not UTF-8 (byte {error.start}); convert it first")
    text = "\n".join(texts)
    if not text.strip():
        fail(f"the corpus {path} is empty")
    return text


def split(text: str) -> dict[str, str]:
    """Split the text into "train", "val" and "holdout".

    Each held-out part is a contiguous twentieth, cut at the start of a line. If it were drawn at
    random, most of its sentences would have their neighbours in the training text.
    """
    size = len(text.encode())
    if size < MIN_CORPUS_BYTES:
        fail(f"the corpus is too small: {size:,} bytes, at least {MIN_CORPUS_BYTES:,} are needed")
    parts, left, end = {}, [], 0
    for name, place in HELD_OUT.items():
        start, stop = (
            text.find("\n", at, at + len(text) // 100) + 1 or at
            for at in (int(len(text) * place), int(len(text) * (place + HELD_OUT_FRACTION)))
        )
        left.append(text[end:start])
        parts[name], end = text[start:stop], stop
    return parts | {"train": "".join([*left, text[end:]])}
