"""The problem (frozen): the Sun and four planets, from AUTORESEARCH_SEED, for 8 years.

Units: astronomical units, years, solar masses. The planets begin on nearly circular orbits; the
seed decides where on them, how far out, and how tilted.
"""

import math
import os
from _random import Random  # the core of `random`, without 5 ms of imports

G = 4 * math.pi**2
YEARS = 8.0
SNAPSHOTS = 10
MASSES = (1.0, 9.5e-4, 2.9e-4, 4.4e-5, 5.2e-5)
DISTANCES = (0.0, 2.5, 4.5, 7.0, 10.0)


def initial():
    """Return (positions, velocities): [x, y, z] for each body. The centre of mass rests."""
    draw = Random(int(os.environ.get("AUTORESEARCH_SEED", "0"))).random
    positions, velocities = [[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]
    for distance in DISTANCES[1:]:
        radius, angle = distance * (0.9 + 0.2 * draw()), 2 * math.pi * draw()
        speed, tilt = math.sqrt(G / radius) * (0.97 + 0.06 * draw()), 0.1 * (draw() - 0.5)
        positions.append([radius * math.cos(angle), radius * math.sin(angle), 0.0])
        velocities.append([-speed * math.sin(angle), speed * math.cos(angle), speed * tilt])
    for axis in range(3):
        momentum = sum(mass * v[axis] for mass, v in zip(MASSES, velocities, strict=True))
        for velocity in velocities:
            velocity[axis] -= momentum / sum(MASSES)
    return positions, velocities
