"""
Score a trained model: its bits per byte on text that it has not seen. Frozen.

    python score.py                # score model.pt, which train.py wrote, on val/
    python score.py holdout        # the same on the sealed text in holdout/

A model is code that an agent wrote. It is executed in processes that can only answer (serve.py):
they get tokens and return the logits of each next token. The text, the questions and the arithmetic
are here. The harness may start this program as a copy of a process that has imported PyTorch; then
those processes are copies too, made before this one reads the text.

    bpb = sum of -log2 p(token) / sum of the tokens' UTF-8 bytes

The logits are normalised here, so that no model can claim probabilities that add up to more than 1.
The text is cut into windows of the model's own context length, so that every model runs at a length
it was trained for. Each token after the first is predicted exactly once. A model with a longer
context sees more of the text before a token, and costs more.

A model that looks ahead, or remembers the questions, would get a good score that means nothing. So
some windows are asked a second time, with other real text from some position (the cut) on. The
predictions before the cut have to be the same. The model cannot tell which windows these are: two
processes that cannot talk to each other share the windows in random order, and no process gets a
window twice.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from corpus import fail
from prepare import (
    BATCH_TOKENS,
    MAX_CONTEXT,
    ROOT,
    load_meta,
    load_token_bytes,
    load_tokens,
)

try:
    from autoresearch_aside import become  # the harness has imported PyTorch for this process
except ImportError:
    become = None

# The harness's sandbox: a program started with it sees only the folder it is started in.
WALL = shlex.split(os.environ.get("AUTORESEARCH_ASIDE", ""))
PIPE_BYTES = 1 << 20  # of the answers' pipes, where the system allows it: 64 kB fill 8,000 times

CHECK_TOKENS = 8192  # asked again with another future, in 64 to 128 windows
LOOK_BACK = 64  # predictions that are compared before a cut
TOLERANCE = 2e-3  # nats by which two predictions may differ; rounding causes 1e-5
THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
FLOOR = -30.0  # nats; lower log-probabilities mean "impossible" and are too large to compare

MAX_SOURCE_BYTES = 100_000
QUOTE_BYTES = 32  # of held-out text in a row are no coincidence


# -------------------------------------------------------------------------------------------------
# The model, in a sandbox


class Model:
    """One process with the candidate's model. Call `ask` and `answer` in turn."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.folder = Path(tempfile.mkdtemp(prefix="model-", dir=ROOT))
        for file in (*ROOT.glob("*.py"), ROOT / "model.pt"):
            shutil.copyfile(file, self.folder / file.name)
        withheld = ("AUTORESEARCH_SEED", "PYTHONHASHSEED", "PYTHONPATH")
        env = {name: value for name, value in os.environ.items() if name not in withheld}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self.process = subprocess.Popen(
            [*WALL, sys.executable, "serve.py"],
            cwd=self.folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            preexec_fn=partial(become, ["serve.py"], env) if become else None,
        )
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):
                fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.logits = np.empty(0, dtype=np.float32)

    def context(self) -> int:
        """Return the number of tokens that the model reads at a time."""
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
        """Send (rows, length) tokens."""
        assert self.process.stdin
        try:
            self.process.stdin.write(struct.pack("=II", *idx.shape) + idx.astype("=u2").tobytes())
            self.process.stdin.flush()
        except BrokenPipeError:
            self.fail("the model has ended")

    def answer(self, rows: int, length: int) -> np.ndarray:
        """Receive (rows, length, vocab_size) logits, float32. They last until the next answer."""
        assert self.process.stdout
        size = rows * length * self.vocab_size
        if self.logits.size < size:
            self.logits = np.empty(size, dtype=np.float32)
        logits = self.logits[:size].reshape(rows, length, self.vocab_size)
        if self.process.stdout.readinto(memoryview(logits).cast("B")) < logits.nbytes:
            self.fail("the model has ended")
        return logits

    def fail(self, message: str) -> NoReturn:
        """End the program. Print the process's last lines first, marked, as an agent wrote them."""
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
        fail(f"{message} (exit code {self.process.returncode})")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


# -------------------------------------------------------------------------------------------------
# The questions


class Question(NamedTuple):
    """A window of the text. From `cut` on, its text may be another one."""

    window: int  # its number
    idx: np.ndarray  # (context,) tokens
    cut: int | None = None


def questions(
    tokens: np.ndarray, context: int, rng: np.random.Generator
) -> tuple[list[Question], list[Question]]:
    """Return two lists in random order, one for each process.

    Every window is in one list. If it is asked again with another future, that is in the other.
    """
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
    """Return the starts of windows that together predict every token.

    The last window begins early enough to be as long as the others.
    """
    if context > targets // 2:
        fail(f"a context of {context} is too long for {targets} tokens of held-out text")
    starts = list(range(0, targets - context + 1, context))
    return starts if targets % context == 0 else [*starts, targets - context]


def exchanged(
    tokens: np.ndarray, start: int, cut: int, context: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the window at `start` with other text from `cut` on.

    That text comes from a place behind the same token, so that it reads naturally, and begins with
    another token than the window's own.
    """
    length, last, real = context - cut, tokens[start + cut - 1], tokens[start + cut]
    places = np.arange(1, len(tokens) - length)
    follows = (tokens[places] != real) & (abs(places - start - cut) > context)
    alike = follows & (tokens[places - 1] == last)
    place = rng.choice(places[alike] if alike.any() else places)
    return np.concatenate((tokens[start : start + cut], tokens[place : place + length]))


# -------------------------------------------------------------------------------------------------
# The arithmetic


def bits_per_byte(models: tuple[Model, Model], tokens: np.ndarray) -> tuple[float, int]:
    """Return bits per byte, and the number of windows that were asked twice.

    Ends the program if the two processes' answers show that the model sees the future.
    """
    context, other_context = (model.context() for model in models)
    if context != other_context:
        fail(f"the model's context is {context} in one process and {other_context} in another")
    lists = questions(tokens, context, np.random.default_rng())
    nats: dict[int, float] = {}
    first_answers: dict[int, np.ndarray] = {}
    cuts = {question.window: question.cut for part in lists for question in part if question.cut}
    size = max(1, BATCH_TOKENS // context)
    batches = ([part[at : at + size] for at in range(0, len(part), size)] for part in lists)
    with ThreadPoolExecutor(THREADS) as threads:
        for pair in zip_longest(*batches):
            turns = [(model, batch) for model, batch in zip(models, pair, strict=True) if batch]
            for model, batch in turns:
                model.ask(np.stack([question.idx for question in batch]))
            received = threads.map(lambda turn: turn[0].answer(len(turn[1]), context), turns)
            for (_, batch), logits in zip(turns, list(received), strict=True):
                answers = threads.map(LogProbabilities, logits)
                for question, log_p in zip(batch, answers, strict=True):
                    if question.cut is None:
                        nats[question.window] = surprise(log_p, tokens, question.window, context)
                    if question.window in cuts:
                        compare(first_answers, question.window, cuts[question.window], log_p)
    predicted_bytes = load_token_bytes()[tokens[1:]].sum()
    return math.fsum(nats.values()) / math.log(2) / int(predicted_bytes), len(cuts)


class LogProbabilities:
    """The log-probabilities of (length, vocab_size) logits, in nats, computed where they are used.

    Ends the program if one is not finite.
    """

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits
        self.highest = logits.max(axis=-1, keepdims=True)  # nan if one is
        lowest = logits.min(axis=-1, keepdims=True)
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(lowest - self.highest).all():
                fail("the model answers with numbers that are not finite")
        parts = logits - self.highest
        np.exp(parts, out=parts)
        self.log_sum = np.log(parts.sum(axis=-1, keepdims=True))

    def rows(self, part: slice) -> np.ndarray:
        """Return the log-probabilities of all tokens at these positions."""
        return (self.logits[part] - self.highest[part]) - self.log_sum[part]

    def of(self, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return those of one token at each of these positions."""
        logits = self.logits[positions, tokens]
        return (logits - self.highest[positions, 0]) - self.log_sum[positions, 0]


def surprise(log_p: LogProbabilities, tokens: np.ndarray, window: int, context: int) -> float:
    """Return the nats that the window's tokens cost, without those of the window before it.

    Only the last window has tokens that the window before has predicted already.
    """
    start = min(window * context, len(tokens) - 1 - context)
    new = np.arange(window * context - start, context)
    return -float(log_p.of(new, tokens[start + 1 + new]).sum(dtype=np.float64))


def compare(
    first_answers: dict[int, np.ndarray], window: int, cut: int, log_p: LogProbabilities
) -> None:
    """Compare the two processes' predictions for a window's text before `cut`."""
    before = np.maximum(log_p.rows(slice(max(0, cut - LOOK_BACK), cut)), FLOOR)
    if window not in first_answers:
        first_answers[window] = before
        return
    difference = float(np.abs(before - first_answers.pop(window)).max())
    if not difference <= TOLERANCE:
        fail(
            "the model sees the future, or remembers what it was asked: with other text from token "
            f"{cut} of a window on, its predictions before that move by {difference:.3g} nats"
        )


def refuse_text_in_the_source(source: bytes, text: bytes) -> None:
    """End the program if train.py holds text that the model is scored on: that is no learning."""
    if len(source) > MAX_SOURCE_BYTES:
        fail(f"train.py has {len(source):,} bytes; accepted: up to {MAX_SOURCE_BYTES:,}")
    pieces = (source[at : at + QUOTE_BYTES] for at in range(0, len(source), QUOTE_BYTES // 2))
    if any(len(piece) == QUOTE_BYTES and piece in text for piece in pieces):
        fail("train.py holds a part of the text that it is scored on")


def read_claim(name: str) -> float | None:
    """Return a number that the run claims of itself in run.json, so that a guard can be on it; None
    if the task does not pass that file on."""
    file = ROOT / "run.json"
    if not file.is_file():
        return None
    try:
        value = json.loads(file.read_bytes()[:MAX_SOURCE_BYTES])[name]
    except (ValueError, TypeError, KeyError):
        value = None
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        fail(f"run.json has no number {name} that is 0 or more")
    return float(value)


def main() -> None:
    part = "holdout" if sys.argv[1:] == ["holdout"] else "val"
    if sys.argv[1:] not in ([], ["holdout"]):
        fail(f"found {' '.join(sys.argv[1:])}; accepted: no argument, or `holdout`")
    vocab_size = load_meta()["vocab_size"]
    if not (ROOT / "model.pt").is_file():
        fail("there is no model.pt: run `python train.py` first")
    if not WALL:
        print("note: nothing confines the model's code: it could read the text it is scored on")
    with ExitStack() as stack:
        # Before the text is read: the processes may be copies of this one.
        first, second = (stack.enter_context(closing(Model(vocab_size))) for _ in range(2))
        load_meta(part)
        text = (ROOT / part / "text.txt").read_bytes()
        refuse_text_in_the_source((ROOT / "train.py").read_bytes(), text)
        bpb, checked = bits_per_byte((first, second), load_tokens(part))
        vram_mb = read_claim("peak_vram_mb")
    print("---")
    print(f"val_bpb:          {bpb:.6f}")
    print(f"checked_windows:  {checked}")
    if vram_mb is not None:
        print(f"peak_vram_mb:     {vram_mb:.1f}")


if __name__ == "__main__":
    main()
