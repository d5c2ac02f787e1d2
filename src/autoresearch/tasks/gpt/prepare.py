"""
Prepare the text, and provide the batches of a training run.

train.py imports this file, and device.py for the clock. train.py is the file to edit, these are
frozen. score.py computes the metric.

    python prepare.py                     # once: 10 shards of ClimbMix, write 3 folders
    python prepare.py --shards 40         # more of them
    python prepare.py --from PLACE        # shards from a mirror's address, or from a folder
    python prepare.py --corpus PATH       # your own text: a .txt file, or a folder of them

Shards are kept where the original keeps them, in ~/.cache/autoresearch/data, so a download serves
both. --shards-folder names another place.

The chapters: 1 the shards, 2 the tokenizer, 3 data/, 4 batches.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from corpus import fail, read_corpus, sha256, split

# Preparing does not need torch, so only the functions that train.py calls import it.
if TYPE_CHECKING:
    import torch
    from device import Budget

# -------------------------------------------------------------------------------------------------
# Constants (fixed). The first four are the original's.

VOCAB_SIZE = 8192
# GPT-4's, but numbers are cut after two digits, which is better for a small vocabulary.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
DOCUMENT_CHARS = 10_000  # of a document that the tokenizer learns from
TIME_BUDGET = 300.0  # seconds of training, unless AUTORESEARCH_BUDGET is set

BOS = "<|bos|>"  # begins each document
TOKENIZER_CHARS = 200_000_000  # that it learns from
# Of "val" and of the sealed "holdout" of the shards: some 0.9 million tokens each, 30 GB of logits.
# If two models differ by 0.5 nats a token (one standard deviation), the difference of their scores
# is exact to 0.0002 bits per byte.
HELD_OUT_BYTES = 4_000_000
BATCH_DOCUMENTS = 1024  # that are tokenized at a time
PIECE_CHARS = 50_000  # of a text of your own that are tokenized at a time

# For score.py.
MAX_CONTEXT = 4096  # tokens that a model may read at a time
BATCH_TOKENS = 8192  # asked at a time: 268 MB of logits

ROOT = Path(__file__).absolute().parent
FORMAT = 1  # of the files that this program writes; raise it when their meaning changes


# -------------------------------------------------------------------------------------------------
# 1. The shards: karpathy/climbmix-400b-shuffle, 6,543 parquet files with a column "text". The last
# one is never trained on, whatever their number.

SOURCE = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
HELD_OUT_SHARD = 6542
SHARDS_FOLDER = Path("~/.cache/autoresearch/data").expanduser()


def shard_name(number: int) -> str:
    return f"shard_{number:05d}.parquet"


def find_shards(count: int, source: str, folder: Path) -> tuple[list[Path], Path]:
    """Return the training shards and the held-out one. Download those that are missing, unless
    `source` is a folder that has them."""
    if not 1 <= count <= HELD_OUT_SHARD:
        fail(f"--shards {count}; accepted: 1 to {HELD_OUT_SHARD}")
    names = [*map(shard_name, range(count)), shard_name(HELD_OUT_SHARD)]
    if source.startswith(("http://", "https://")):
        from download import fetch_all

        fetch_all(source.rstrip("/"), names, folder)
    else:
        folder = Path(source).expanduser()
        if missing := [name for name in names if not (folder / name).is_file()]:
            fail(f"{len(missing)} of {len(names)} shards are not in {folder}, {missing[0]} first")
    paths = [folder / name for name in names]
    return paths[:-1], paths[-1]


def read_documents(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the documents of shards."""
    try:
        import pyarrow.parquet as pq
        from pyarrow import ArrowException
    except ImportError:
        fail("shards need pyarrow: pip install -r requirements.txt")
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield from file.read_row_group(group, ["text"]).column(0).to_pylist()
        except (ArrowException, OSError, KeyError, IndexError) as error:
            fail(f"{path} cannot be read as a shard ({error}). Delete it, and call this again")


def take_bytes(documents: Iterator[str], size: int) -> list[str]:
    """Return the next documents, of `size` bytes or a little more together."""
    taken, there = [], 0
    while there < size and (document := next(documents, None)) is not None:
        taken.append(document)
        there += len(document.encode())
    return taken


def pieces(text: str) -> Iterator[str]:
    """Cut a long text at ends of lines."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + PIECE_CHARS) + 1 or len(text)
        yield text[start:end]
        start = end


# -------------------------------------------------------------------------------------------------
# 2. The tokenizer


def train_tokenizer(texts: Iterable[str]) -> Any:
    """Learn a byte-level BPE with the original's pattern.

    Each character of a token's name stands for exactly one byte.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[BOS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(limit_chars(texts), trainer)
    tokenizer.encode_special_tokens = True  # a text may hold the name of BOS
    return tokenizer


def limit_chars(texts: Iterable[str]) -> Iterator[str]:
    left = TOKENIZER_CHARS
    for text in texts:
        if left <= 0:
            return
        yield text[:DOCUMENT_CHARS]
        left -= min(len(text), DOCUMENT_CHARS)


def load_token_bytes() -> np.ndarray:
    """Return (vocab_size,) int64: how many bytes of UTF-8 each token stands for. BOS has none.

    These are the true bytes. A token that is a part of a character decodes to U+FFFD, three bytes;
    whoever counts those (the original does) finds a text longer than it is.
    """
    tokenizer = json.loads((ROOT / "data/tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    return np.array([0 if name == BOS else len(name) for name in sorted(vocab, key=vocab.get)])


# -------------------------------------------------------------------------------------------------
# 3. data/, val/ and holdout/
#
#     data/tokenizer.json     the tokenizer
#     data/train.bin          the training text as tokens, uint16: BOS, document, BOS, document, ...
#     data/meta.json          sizes and hashes; written last, so that the rest is complete
#     val/, holdout/          text.txt and tokens.bin of the held-out parts. A run does not see them
#     compiled/               the kernels of precompile.py, if it was called

HELD_OUT = ("val", "holdout")
HASHED_BYTES = 64_000_000  # of larger files only the size is compared: every run would wait


class Part:
    """One part of the text, on its way to the disk."""

    def __init__(self, name: str) -> None:
        self.name, self.tokens, self.bytes = name, 0, 0
        self.file = tokens_file(name).open("wb")
        self.text = (ROOT / name / "text.txt").open("wb") if name in HELD_OUT else None

    def add(self, tokenizer: Any, texts: list[str], token_bytes: np.ndarray, bos: bool) -> None:
        """Write texts. With `bos`, each is a document; else a document goes on."""
        start = [tokenizer.token_to_id(BOS)] if bos else []
        encoded = [start + encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        tokens = np.concatenate([np.array(ids, dtype=np.uint16) for ids in encoded])
        data = "".join(texts).encode()
        assert token_bytes[tokens].sum() == len(data), "the tokens do not add up to the text"
        tokens.tofile(self.file)
        self.tokens, self.bytes = self.tokens + len(tokens), self.bytes + len(data)
        if self.text:
            self.text.write(data)

    def close(self) -> dict[str, int]:
        self.file.close()
        if self.text:
            self.text.close()
        return {"tokens": self.tokens, "bytes": self.bytes}


def write_data(
    parts: dict[str, Iterable[str]], learn: Iterable[str], corpus: dict[str, Any], whole: bool
) -> dict[str, Any]:
    """Write the three folders. Returns the content of meta.json.

    `parts` are documents, or if `whole`, pieces of one document. The tokenizer learns from `learn`.
    """
    for folder in ("data", "compiled", *HELD_OUT):
        (ROOT / folder).mkdir(exist_ok=True)
    (ROOT / "data/meta.json").unlink(missing_ok=True)
    print("tokenizer  learns", flush=True)
    tokenizer = train_tokenizer(learn)
    tokenizer.save(str(ROOT / "data/tokenizer.json"))
    token_bytes = load_token_bytes()
    sizes = {}
    for name, texts in parts.items():
        part, batches = Part(name), iter(texts)
        while batch := list(islice(batches, BATCH_DOCUMENTS)):
            if whole and not part.tokens:
                part.add(tokenizer, [""], token_bytes, bos=True)
            part.add(tokenizer, batch, token_bytes, bos=not whole)
            if sys.stdout.isatty():
                print(f"{name:<10} {part.tokens / 1e6:,.1f}M tokens", end="\r", flush=True)
        sizes[name] = part.close()
        print(f"{name:<10} {part.tokens:,} tokens, {part.bytes:,} bytes")
    files = [ROOT / "data/tokenizer.json", tokens_file("train")]
    files += [ROOT / part / name for part in HELD_OUT for name in ("tokens.bin", "text.txt")]
    meta = {
        "recipe": recipe(),
        "corpus": corpus,
        "vocab_size": tokenizer.get_vocab_size(),
        "parts": sizes,
        "files": {str(file.relative_to(ROOT)): describe_file(file) for file in files},
    }
    (ROOT / "data/meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return meta


def tokens_file(part: str) -> Path:
    return ROOT / ("data/train.bin" if part == "train" else f"{part}/tokens.bin")


def recipe() -> dict[str, Any]:
    """The settings that, with the corpus, decide the content of the three folders."""
    pattern = sha256(SPLIT_PATTERN.encode())[:12]
    return {
        "format": FORMAT,
        "vocab_size": VOCAB_SIZE,
        "split": pattern,
        "held_out": HELD_OUT_BYTES,
    }


def describe_file(file: Path) -> str:
    """The size of a file, and if that is quick its SHA-256."""
    size = file.stat().st_size
    return f"{size}" if size > HASHED_BYTES else f"{size} {sha256(file.read_bytes())}"


def read_meta(*folders: str) -> dict[str, Any] | str:
    """Return meta.json if these folders are complete and unaltered, else the problem as text."""
    try:
        meta = json.loads((ROOT / "data/meta.json").read_text(encoding="utf-8"))
        if meta["recipe"] != recipe():
            return f"data/ was written by another prepare.py ({meta['recipe']}, now {recipe()})"
        for file, described in meta["files"].items():
            if file.split("/")[0] in folders and describe_file(ROOT / file) != described:
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
    rows: int, seq_len: int, seed: int, device: str, budget: Budget, rank: int = 0, world: int = 1
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (inputs, targets) without end, each (rows, seq_len) int64 on `device`.

    Each epoch cuts the training text into windows from a random offset and shuffles them. `seed`
    decides offsets and order. Of `world` processes, each gets other windows. `budget` is the clock
    that runs already: whoever warms up does so without the text.
    """
    import torch

    assert budget.elapsed() >= 0
    tokens = np.memmap(tokens_file("train"), dtype=np.uint16, mode="r")
    if len(tokens) <= seq_len * (rows * world + 1):
        fail(
            f"the training text has {len(tokens):,} tokens, too few for a batch of "
            f"{rows * world} x {seq_len}"
        )
    rng = np.random.default_rng(seed)
    while True:
        offset = rng.integers(seq_len)
        starts = rng.permutation(np.arange(offset, len(tokens) - seq_len, seq_len))
        for at in range(rank * rows, len(starts) - (world - rank) * rows + 1, world * rows):
            windows = [tokens[start : start + seq_len + 1] for start in starts[at : at + rows]]
            batch = torch.from_numpy(np.stack(windows).astype(np.int32))
            if device == "cuda":
                batch = batch.pin_memory().to(device, non_blocking=True)
            batch = batch.to(device).long()
            # Contiguous: a compiler makes other kernels for other strides.
            yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


# -------------------------------------------------------------------------------------------------


def prepare_corpus(path: Path) -> dict[str, Any]:
    """Prepare a text of the user's own."""
    text = read_corpus(path)
    parts = {name: pieces(part) for name, part in sorted(split(text).items(), reverse=True)}
    corpus = {"name": path.name, "bytes": len(text.encode()), "sha256": sha256(text.encode())}
    return write_data(parts, pieces(split(text)["train"]), corpus, whole=True)


def prepare_shards(count: int, source: str, folder: Path) -> dict[str, Any]:
    """Prepare shards of ClimbMix."""
    train, held_out = find_shards(count, source, folder)
    documents = read_documents([held_out])
    parts: dict[str, Iterable[str]] = {
        "train": read_documents(train),
        **{name: take_bytes(documents, HELD_OUT_BYTES) for name in HELD_OUT},
    }
    if not parts["holdout"]:
        fail(f"{held_out} is too small: {HELD_OUT_BYTES:,} bytes are held out twice")
    corpus = {
        "name": f"climbmix-400b-shuffle, {count} shards",
        "bytes": sum(os.path.getsize(path) for path in train),  # noqa: PTH202
        "shards": count,
    }
    return write_data(parts, read_documents(train), corpus, whole=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare the text for gpt.")
    parser.add_argument("--shards", type=int, default=10, help="how many to train on; 10")
    parser.add_argument("--from", dest="source", default=SOURCE, help="a mirror, or a folder")
    parser.add_argument("--shards-folder", type=Path, default=SHARDS_FOLDER)
    parser.add_argument("--corpus", type=Path, help="your own text: a .txt file or a folder")
    options = parser.parse_args()
    wanted = {"shards": options.shards}
    if options.corpus:
        wanted = {"sha256": sha256(read_corpus(options.corpus).encode())}
    old = read_meta("data", *HELD_OUT)
    if isinstance(old, dict) and wanted.items() <= old["corpus"].items():
        print(f"data/ is ready ({old['corpus']['name']}); nothing to do. To start over, delete it.")
        return
    if options.corpus:
        meta = prepare_corpus(options.corpus)
    else:
        meta = prepare_shards(options.shards, options.source, options.shards_folder)
    print(f"corpus     {meta['corpus']['name']}, {meta['corpus']['bytes']:,} bytes")
    print(f"vocabulary {meta['vocab_size']:,} tokens")
    print("next       on a GPU: python precompile.py")


if __name__ == "__main__":
    main()
