"""Stands in for the original's prepare.py, with our tokens and our score.

The original's train.py imports this file from a folder that `benchmarks/gpu.py` makes. Both
programs then read the same tokens, in rows that are cut in the same way, and are scored on the same
windows and the same true bytes. The original counts other bytes, and packs documents into rows.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from typing import Any

import torch
from device import pick_device
from our_prepare import (
    BATCH_TOKENS,
    MAX_CONTEXT,
    ROOT,
    load_meta,
    load_token_bytes,
    load_tokens,
    make_loader,
)
from score import window_starts

__all__ = ["BATCH_TOKENS", "MAX_CONTEXT", "load_meta", "load_token_bytes", "load_tokens"]
"""What our programs import from a prepare.py."""

TIME_BUDGET = float(os.environ["AUTORESEARCH_BUDGET"])
MAX_SEQ_LEN = int(re.findall(r"^SEQ_LEN = (\d+)", (ROOT / "our_train.py").read_text(), re.M)[0])


class Tokenizer:
    @classmethod
    def from_directory(cls) -> Tokenizer:
        return cls()

    def get_vocab_size(self) -> int:
        return int(load_meta()["vocab_size"])

    def get_bos_token_id(self) -> int:
        return 0


class Running:
    """A clock that runs: the original keeps its own."""

    def elapsed(self) -> float:
        return 0.0


def make_dataloader(tokenizer: Tokenizer, rows: int, length: int, part: str) -> Iterator[Any]:
    seed = int(os.environ["AUTORESEARCH_SEED"])
    for inputs, targets in make_loader(rows, length, seed, pick_device(), Running()):
        yield inputs, targets, 1


@torch.no_grad()
def evaluate_bpb(model: Any, tokenizer: Tokenizer, batch_size: int) -> float:
    """Return bits per byte as score.py counts them: each token after the first once."""
    tokens = torch.from_numpy(load_tokens("val"))
    starts = window_starts(len(tokens) - 1, MAX_SEQ_LEN)
    nats, predicted = 0.0, 0
    for start in starts:
        window = tokens[None, start : start + MAX_SEQ_LEN + 1].to(pick_device())
        loss = model(window[:, :-1], window[:, 1:], reduction="none").view(-1)
        nats += loss[max(0, predicted - start) :].double().sum().item()
        predicted = start + MAX_SEQ_LEN
    return nats / math.log(2) / int(load_token_bytes()[tokens[1:].numpy()].sum())
