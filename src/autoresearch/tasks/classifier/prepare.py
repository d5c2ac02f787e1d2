"""Split the digits: 300 to learn from, 100 for the score, the rest for the sealed holdout. Frozen.

    python prepare.py [--digits FILE]

FILE has one image a line: 64 numbers from 0 to 16 and the digit, separated by commas. data/ gets
the images, and the digits of the 300; val/ and holdout/ get the other digits, which no run sees.
The images of both are mixed, so that no program can tell which of them count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

TRAIN, VAL = 300, 100
SPLIT_SEED = 20261128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--digits", type=Path, default=Path(__file__).with_name("digits.csv.gz"))
    table = np.loadtxt(parser.parse_args().digits, delimiter=",")
    if table.ndim != 2 or table.shape[1] != 65 or len(table) <= TRAIN + VAL:
        raise SystemExit(f"error: expected more than {TRAIN + VAL} lines of 65 numbers")
    table = table[np.random.default_rng(SPLIT_SEED).permutation(len(table))]
    images, digits = table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(int)
    asked = np.arange(TRAIN, len(table))
    val, holdout = asked[:VAL], asked[VAL:]
    order = np.random.default_rng().permutation(asked)  # another in each copy: none can compute it
    for name in ("data", "val", "holdout"):
        Path(name).mkdir(exist_ok=True)
    np.savez("data/digits.npz", images=images[:TRAIN], digits=digits[:TRAIN], asked=images[order])
    for name, rows in (("val", val), ("holdout", holdout)):
        places = np.flatnonzero(np.isin(order, rows))
        known = {"places": places, "digits": digits[order[places]], "asked": len(order)}
        np.savez(f"{name}/digits.npz", **known)
    print(f"{TRAIN} images to learn from, {VAL} for the score, {len(holdout)} in the holdout")


if __name__ == "__main__":
    main()
