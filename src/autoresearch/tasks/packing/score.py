"""Score packing.json: the sum of the radii in the unit square. Frozen.

Every test is exact. A float is a fraction, fractions are compared without rounding, and there is no
tolerance: circles that overlap by the last bit are refused.
"""

from __future__ import annotations

import json
import math
import sys
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple, NoReturn

from problem import COUNT, OUTPUT, get_rectangles

LEAST_SHARE = 0.95  # of the square's sum, which the other rectangle has to reach


class Circle(NamedTuple):
    x: Fraction
    y: Fraction
    radius: Fraction


def main() -> None:
    rectangles = get_rectangles()
    packings = read()
    if not isinstance(packings, list) or len(packings) != len(rectangles):
        fail(f"{OUTPUT} should hold {len(rectangles)} packings")
    square, other = (
        measure(packing, width, height)
        for packing, (width, height) in zip(packings, rectangles, strict=True)
    )
    if other < LEAST_SHARE * square:
        width, height = rectangles[1]
        fail(
            f"in a rectangle of {width} x {height} the sum is {float(other):.4f}, less than "
            f"{LEAST_SHARE} of the square's {float(square):.4f}: pack(width, height) should pack "
            "any rectangle that is nearly a square"
        )
    print("---")
    print(f"sum_radii:        {float(square)!r}")
    print(f"other_sum:        {float(other)!r}")


def read() -> object:
    try:
        return json.loads(OUTPUT.read_text())
    except ValueError as error:
        fail(f"{OUTPUT} is no JSON: {error}")


def measure(packing: object, width: float, height: float) -> Fraction:
    """Return the sum of the radii of a packing in a rectangle, or refuse it."""
    if not isinstance(packing, list) or len(packing) != COUNT:
        fail(f"a packing should have {COUNT} circles")
    circles = [read_circle(index, row) for index, row in enumerate(packing)]
    right, top = Fraction(width), Fraction(height)
    for index, (x, y, radius) in enumerate(circles):
        if radius <= 0:
            fail(f"circle {index} has the radius {float(radius)}")
        if min(x, y, right - x, top - y) < radius:
            fail(f"circle {index} leaves the {width} x {height} rectangle")
    for (i, a), (j, b) in combinations(enumerate(circles), 2):
        if (a.x - b.x) ** 2 + (a.y - b.y) ** 2 < (a.radius + b.radius) ** 2:
            fail(f"circles {i} and {j} overlap")
    return sum((circle.radius for circle in circles), Fraction(0))


def read_circle(index: int, row: object) -> Circle:
    if not isinstance(row, list) or len(row) != 3 or not all(map(is_number, row)):
        fail(f"circle {index} should be three finite numbers: x, y, radius")
    return Circle(*map(Fraction, row))


def is_number(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def fail(message: str) -> NoReturn:
    sys.exit(f"error: {message}")


if __name__ == "__main__":
    main()
