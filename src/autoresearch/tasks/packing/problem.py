"""The problem (frozen): 26 circles in a rectangle, with the largest sum of radii.

The unit square counts. A second rectangle, of nearly the same shape, shows that the program packs
circles: the seed of the run chooses it, so that no source can hold its answer.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

COUNT = 26
SQUARE = (1.0, 1.0)
OUTPUT = Path("packing.json")

Circle = tuple[float, float, float]
"""x and y of the centre, radius. The rectangle's corners are (0, 0) and (width, height)."""


def get_rectangles() -> tuple[tuple[float, float], tuple[float, float]]:
    """The unit square, and the rectangle of this seed: 2 to 8 % wider, and as much lower."""
    rng = random.Random(f"rectangle {os.environ.get('AUTORESEARCH_SEED', '0')}")
    width = round(rng.uniform(1.02, 1.08), 3)
    return SQUARE, (width, round(1 / width, 3))


def write(packings: Sequence[Sequence[Circle]]) -> None:
    """Write the circles of each rectangle. JSON keeps every bit of a float."""
    rows = [[[float(number) for number in circle] for circle in packing] for packing in packings]
    OUTPUT.write_text(json.dumps(rows))
