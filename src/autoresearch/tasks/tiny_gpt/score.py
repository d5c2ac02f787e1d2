"""
The number that counts: bits per byte of a trained model on text that it has not seen. Frozen.

    python score.py                # of model.pt, which train.py left, on val/
    python score.py holdout        # the same on the sealed text in holdout/

A model is code that an agent wrote, so it is executed where it can only answer (serve.py): it gets
tokens, and returns logits for each next one. The text, the questions and the arithmetic are here.

    bpb = sum of -log2 p(token) / sum of the tokens' UTF-8 bytes

The logits are normalised here, so nobody can claim probabilities that add up to more than one. The
text is cut into windows of the model's own context, so that none has to run at a length it was not
trained for, and each token after the first is predicted exactly once. A longer context therefore
sees more and a shorter one less: that trade is the model's to make.

A model that looks ahead, or remembers what it was asked, would score wonderfully and mean nothing.
So among the windows are others, whose text goes on differently from some place on, with other real
text that could follow there; the prediction of every token before that place has to be the same.
The model cannot tell which are which: two processes that cannot talk to each other share the
windows in random order, and no window comes to the same one twice.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing, suppress
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from prepare import ROOT, fail, load_meta, load_token_bytes, load_tokens

# The harness's own: what is started with it sees only the folder it is started in.
WALL = shlex.split(os.environ.get("AUTORESEARCH_ASIDE", ""))

MAX_CONTEXT = 1024
BATCH_TOKENS = 2048  # a question: 17 MB of logits at a vocabulary of 2,048
CHECK_TOKENS = 8192  # so many are asked again with another future, in 64 to 128 windows
LOOK_BACK = 64  # before that place, so many predictions are compared
TOLERANCE = 2e-3  # nats, by which they may differ; rounding makes 1e-5 of it
FLOOR = -30.0  # nats; below, a token is as good as impossible, and numbers are too large to compare

MAX_SOURCE_BYTES = 100_000
QUOTE_BYTES = 32  # so much of the held-out text in a row is no coincidence


# -------------------------------------------------------------------------------------------------
# The model, behind a wall


class Model:
    """One process with the candidate's model. `ask` and `answer` in turn."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.folder = Path(tempfile.mkdtemp(prefix="model-", dir=ROOT))
        for name in ("train.py", "prepare.py", "serve.py", "model.pt"):
            shutil.copyfile(ROOT / name, self.folder / name)
        kept_back = ("AUTORESEARCH_SEED", "PYTHONHASHSEED", "PYTHONPATH")
        env = {name: value for name, value in os.environ.items() if name not in kept_back}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            [*WALL, sys.executable, "serve.py"],
            cwd=self.folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )

    def context(self) -> int:
        """How many tokens it reads at a time."""
        assert self.process.stdout
        line = self.process.stdout.readline(100)
        try:
            context = json.loads(line)["context"]
        except (ValueError, TypeError, KeyError):
            self.fail("the model could not be loaded")
        if type(context) is not int or not 1 <= context <= MAX_CONTEXT:
            fail(f"the model's context is {context!r}; accepted: 1 to {MAX_CONTEXT}")
        return context

    def ask(self, idx: np.ndarray) -> None:
        """(rows, length) tokens."""
        assert self.process.stdin
        try:
            self.process.stdin.write(struct.pack("=II", *idx.shape) + idx.astype("=u2").tobytes())
            self.process.stdin.flush()
        except BrokenPipeError:
            self.fail("the model has ended")

    def answer(self, rows: int, length: int) -> np.ndarray:
        """(rows, length, vocab_size) logits, float32."""
        assert self.process.stdout
        logits = np.empty((rows, length, self.vocab_size), dtype=np.float32)
        if self.process.stdout.readinto(memoryview(logits).cast("B")) < logits.nbytes:
            self.fail("the model has ended")
        return logits

    def fail(self, what: str) -> NoReturn:
        """End the program with what the process has said last, marked: it is not our own word."""
        assert self.process.stdin
        with suppress(OSError):
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        self.process.kill()
        self.process.wait()
        self.errors.seek(0)
        for line in self.errors.read().decode(errors="replace").splitlines()[-20:]:
            print(f"| {line}")
        fail(f"{what} (exit code {self.process.returncode})")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


# -------------------------------------------------------------------------------------------------
# The questions


class Question(NamedTuple):
    """A window of the text, or one whose text goes on differently from `cut` on."""

    window: int  # its number
    idx: np.ndarray  # (context,) tokens
    cut: int | None = None


def questions(
    tokens: np.ndarray, context: int, rng: np.random.Generator
) -> tuple[list[Question], list[Question]]:
    """Two lists in random order, one for each process. Every window is in one of them; those that
    are asked again, with another future, are so in the other."""
    starts = window_starts(len(tokens) - 1, context)
    lists: tuple[list[Question], list[Question]] = ([], [])
    again = min(len(starts), max(64, min(128, CHECK_TOKENS // context))) if context > 1 else 0
    for place, window in enumerate(rng.permutation(len(starts))):
        start = starts[window]
        idx = tokens[start : start + context]
        lists[place % 2].append(Question(window, idx))
        if place < again:
            cut = int(rng.integers(1, context))
            other = exchanged(tokens, start, cut, context, rng)
            lists[1 - place % 2].append(Question(window, other, cut))
    for questions in lists:
        rng.shuffle(questions)
    return lists


def window_starts(targets: int, context: int) -> list[int]:
    """Where windows begin, so that together they predict every token; the last one lies as far
    back as it has to, to be as long as the others."""
    if context > targets // 2:
        fail(f"a context of {context} is too long for {targets} tokens of held-out text")
    starts = list(range(0, targets - context + 1, context))
    return starts if targets % context == 0 else [*starts, targets - context]


def exchanged(
    tokens: np.ndarray, start: int, cut: int, context: int, rng: np.random.Generator
) -> np.ndarray:
    """The window at `start` with other text from `cut` on: from a place where the same token stands
    before, so that it reads like the text itself, but another one follows."""
    length, last, real = context - cut, tokens[start + cut - 1], tokens[start + cut]
    places = np.arange(1, len(tokens) - length)
    follows = (tokens[places] != real) & (abs(places - start - cut) > context)
    alike = follows & (tokens[places - 1] == last)
    place = rng.choice(places[alike] if alike.any() else places)
    return np.concatenate((tokens[start : start + cut], tokens[place : place + length]))


# -------------------------------------------------------------------------------------------------
# The arithmetic


def bits_per_byte(models: tuple[Model, Model], tokens: np.ndarray) -> tuple[float, int]:
    """(bits per byte, windows that were asked twice). Ends the program where the answers of the two
    processes say that the model sees the future."""
    context, other = (model.context() for model in models)
    if context != other:
        fail(f"the model's context is {context} in one process and {other} in another")
    lists = questions(tokens, context, np.random.default_rng())
    nats: dict[int, float] = {}
    seen: dict[int, np.ndarray] = {}
    cuts = {question.window: question.cut for one in lists for question in one if question.cut}
    size = max(1, BATCH_TOKENS // context)
    batches = ([one[at : at + size] for at in range(0, len(one), size)] for one in lists)
    for pair in zip_longest(*batches):
        asked = [(model, batch) for model, batch in zip(models, pair, strict=True) if batch]
        for model, batch in asked:
            model.ask(np.stack([question.idx for question in batch]))
        for model, batch in asked:
            for question, logits in zip(batch, model.answer(len(batch), context), strict=True):
                log_p = normalised(logits)
                if question.cut is None:
                    nats[question.window] = surprise(log_p, tokens, question.window, context)
                if question.window in cuts:
                    compare(seen, question.window, cuts[question.window], log_p)
    answered = load_token_bytes()[tokens[1:]].sum()
    return math.fsum(nats.values()) / math.log(2) / int(answered), len(cuts)


def normalised(logits: np.ndarray) -> np.ndarray:
    """(length, vocab_size) log-probabilities of logits, in nats."""
    log_p = logits - logits.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    if not np.isfinite(log_p).all():
        fail("the model answers with numbers that are not finite")
    return log_p


def surprise(log_p: np.ndarray, tokens: np.ndarray, window: int, context: int) -> float:
    """Nats that the window's own tokens cost: all but those that the window before has predicted,
    for the last one."""
    start = min(window * context, len(tokens) - 1 - context)
    new = np.arange(window * context - start, context)
    return -float(log_p[new, tokens[start + 1 + new]].sum(dtype=np.float64))


def compare(seen: dict[int, np.ndarray], window: int, cut: int, log_p: np.ndarray) -> None:
    """Hold what one process said of a window's text before `cut` against what the other did."""
    before = np.maximum(log_p[max(0, cut - LOOK_BACK) : cut], FLOOR)
    if window not in seen:
        seen[window] = before
        return
    moved = float(np.abs(before - seen.pop(window)).max())
    if not moved <= TOLERANCE:
        fail(
            "the model sees the future, or remembers what it was asked: with other text from "
            f"token {cut} of a window on, its predictions before that move by {moved:.3g} nats"
        )


def refuse_text_in_the_source(source: bytes, text: bytes) -> None:
    """The text that a model is scored on, in the program that trains it, is no learning."""
    if len(source) > MAX_SOURCE_BYTES:
        fail(f"train.py has {len(source):,} bytes; accepted: up to {MAX_SOURCE_BYTES:,}")
    pieces = (source[at : at + QUOTE_BYTES] for at in range(0, len(source), QUOTE_BYTES // 2))
    if any(len(piece) == QUOTE_BYTES and piece in text for piece in pieces):
        fail("train.py holds a part of the text that it is scored on")


def main() -> None:
    part = "holdout" if sys.argv[1:] == ["holdout"] else "val"
    if sys.argv[1:] not in ([], ["holdout"]):
        fail(f"found {' '.join(sys.argv[1:])}; accepted: nothing, or `holdout`")
    vocab_size = load_meta("data", part)["vocab_size"]
    if not (ROOT / "model.pt").is_file():
        fail("there is no model.pt: run `python train.py` first")
    text = (ROOT / part / "text.txt").read_bytes()
    refuse_text_in_the_source((ROOT / "train.py").read_bytes(), text)
    if not WALL:
        print("note: nothing confines the model's code: it could read the text it is scored on")
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(Model(vocab_size))) for _ in range(2))
        bpb, twice = bits_per_byte((first, second), load_tokens(part))
    print("---")
    print(f"val_bpb:          {bpb:.6f}")
    print(f"checked_windows:  {twice}")


if __name__ == "__main__":
    main()
