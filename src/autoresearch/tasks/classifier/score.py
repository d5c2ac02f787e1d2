"""Score predictions.npy on val/ or holdout/: the mean cross-entropy, in nats. Frozen.

    python score.py val
    python score.py holdout

A row has the probabilities of the ten digits for one image. Each row is divided by its sum here, so
that no program can claim more than 1.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import numpy as np

SMALLEST = 1e-6  # of a probability: a certain and wrong answer costs 13.8 nats


def main(name: str) -> None:
    known = np.load(f"{name}/digits.npz")
    try:
        rows = np.load("predictions.npy", allow_pickle=False)
    except ValueError as error:
        fail(f"predictions.npy cannot be read: {error}")
    count = int(known["asked"])
    if rows.shape != (count, 10) or rows.dtype.kind != "f":
        fail(f"predictions.npy should have {count} rows of ten floats, found {rows.shape}")
    if not (np.isfinite(rows).all() and (rows >= 0).all() and (rows.sum(axis=1) > 0).all()):
        fail("a probability is negative or not finite, or a row is empty")
    rows = rows[known["places"]].astype(float)
    shares = rows / rows.sum(axis=1, keepdims=True)
    right = shares[np.arange(len(rows)), known["digits"]]
    print("---")
    print(f"val_loss:         {float(-np.log(np.maximum(right, SMALLEST)).mean())!r}")
    print(f"wrong:            {(shares.argmax(axis=1) != known['digits']).mean():.4f}")


def fail(message: str) -> NoReturn:
    sys.exit(f"error: {message}")


if __name__ == "__main__":
    main(sys.argv[1])
