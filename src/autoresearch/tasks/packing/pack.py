"""Packs 26 circles into a rectangle. Edit this file; the higher the sum of radii, the better.

Two rings of centres about one in the middle, and the largest radii that a simple rule finds.
"""

import math

INNER = 0.3  # radius of the ring of 9, as a share of the rectangle; in [0.1, 0.45]
OUTER = 0.45  # radius of the ring of 16; in [0.1, 0.6]
TURN = 0.0  # of the outer ring, in steps of it; in [0, 1]
INSET = 0.02  # least distance of a centre from a wall; in [0.005, 0.2]
SHRINK = 1e-12  # of every radius, so that rounding makes no circles overlap


def pack(width, height):
    """Return 26 circles (x, y, radius) in the rectangle from (0, 0) to (width, height)."""
    centres = [(0.5, 0.5), *ring(9, INNER, 0.0), *ring(16, OUTER, TURN)]
    centres = [(clip(x) * width, clip(y) * height) for x, y in centres]
    radii = find_radii(centres, width, height)
    return [(x, y, radius) for (x, y), radius in zip(centres, radii, strict=True)]


def ring(count, radius, turn):
    """Return `count` points on a circle about the middle of the unit square."""
    angles = [math.tau * (index + turn) / count for index in range(count)]
    return [(0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)) for angle in angles]


def clip(share):
    return min(max(share, INSET), 1 - INSET)


def find_radii(centres, width, height):
    """Let every circle touch a wall, then shrink each pair that overlaps in proportion."""
    radii = [min(x, y, width - x, height - y) for x, y in centres]
    for i, first in enumerate(centres):
        for j, second in enumerate(centres[:i]):
            distance = math.dist(first, second)
            if radii[i] + radii[j] > distance:
                scale = distance / (radii[i] + radii[j])
                radii[i] *= scale
                radii[j] *= scale
    return [radius * (1 - SHRINK) for radius in radii]
