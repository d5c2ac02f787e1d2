"""The scorer (frozen): is sorted.bin the log of main.c, sorted by time and stably?

It prints `wrong`, the number of lines that are not where they belong.
"""

import os
import sys
from array import array
from pathlib import Path

COUNT, MACHINES = 400_000, 64
MULTIPLIER, INCREMENT, MASK = 6364136223846793005, 1442695040888963407, 2**64 - 1


def make_keys():
    """The times of the lines of main.c."""
    state, clocks, keys = int(os.environ.get("AUTORESEARCH_SEED", "0")), [], array("I")
    for _ in range(MACHINES):
        state = (state * MULTIPLIER + INCREMENT) & MASK
        clocks.append(1_000_000_000 + (state >> 33) % 86_400)
    for _ in range(COUNT):
        state = (state * MULTIPLIER + INCREMENT) & MASK
        machine = (state >> 33) % MACHINES
        state = (state * MULTIPLIER + INCREMENT) & MASK
        clocks[machine] += (state >> 33) % 4
        keys.append(clocks[machine])
    return keys


def main():
    keys, found = make_keys(), array("I")
    data = Path("sorted.bin").read_bytes()
    if len(data) != 8 * COUNT:
        sys.exit(f"sorted.bin has {len(data)} bytes instead of {8 * COUNT}")
    found.frombytes(data)
    order = sorted(range(COUNT), key=keys.__getitem__)  # stable
    wrong = sum(
        number != right or key != keys[right]
        for key, number, right in zip(found[::2], found[1::2], order, strict=True)
    )
    print(f"wrong: {wrong}")


main()
