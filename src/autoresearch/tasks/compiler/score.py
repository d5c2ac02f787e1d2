"""The scorer (frozen): is product.bin the product of the two matrices?

Freivalds' check: for random vectors v, A (B v) has to be C v. A wrong entry of C is in every such
sum. It prints `error`, the largest difference beside the largest sum; rounding makes 1e-7 of it.
"""

import os
import random
import struct
import sys
from pathlib import Path

SIZE = 400
TRIALS = 3
MULTIPLIER, INCREMENT, MASK = 6364136223846793005, 1442695040888963407, 2**64 - 1


def make_matrices():
    """The matrices of main.c."""
    state, matrices = int(os.environ.get("AUTORESEARCH_SEED", "0")), []
    for _ in range(2):
        rows = []
        for _ in range(SIZE):
            row = []
            for _ in range(SIZE):
                state = (state * MULTIPLIER + INCREMENT) & MASK
                row.append((state >> 40) / 16777216.0 - 0.5)
            rows.append(row)
        matrices.append(rows)
    return matrices


def times(matrix, vector):
    return [sum(map(float.__mul__, row, vector)) for row in matrix]


def main():
    a, b = make_matrices()
    data = Path("product.bin").read_bytes()
    if len(data) != 4 * SIZE * SIZE:
        sys.exit(f"product.bin has {len(data)} bytes instead of {4 * SIZE * SIZE}")
    numbers = struct.unpack(f"{SIZE * SIZE}f", data)
    c = [list(numbers[at : at + SIZE]) for at in range(0, len(numbers), SIZE)]
    rng, error = random.SystemRandom(), 0.0
    for _ in range(TRIALS):
        vector = [rng.uniform(-1, 1) for _ in range(SIZE)]
        wanted, found = times(a, times(b, vector)), times(c, vector)
        largest = max(map(abs, wanted))
        for left, right in zip(wanted, found, strict=True):
            difference = abs(left - right) / largest
            error = max(error, difference) if difference == difference else float("1e9")
    print(f"error: {error:.3e}")


main()
