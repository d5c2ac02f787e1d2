"""The scorer (frozen): how wrong a trajectory is, beside a far more exact one of its own.

It prints `energy_error` (the largest relative change of the energy at a snapshot) and
`position_error` (the largest distance of a body from where it is in truth, in astronomical units).
The truth comes from Gragg's, Bulirsch's and Stoer's method of order 16, exact to about 1e-9.
"""

import math
import sys
from pathlib import Path

from system import MASSES, SNAPSHOTS, YEARS, G, initial

DIVISIONS = (2, 4, 6, 8, 10, 12, 14, 16)  # of a large step
LARGE_STEPS = 2  # between two snapshots
BODIES = range(len(MASSES))


def derivative(state):
    """The velocities, then the accelerations, of a flat state of positions and velocities."""
    size = 3 * len(MASSES)
    result = [*state[size:], *[0.0] * size]
    for i in BODIES:
        for j in range(i):
            dx, dy, dz = (state[3 * j + axis] - state[3 * i + axis] for axis in range(3))
            r2 = dx * dx + dy * dy + dz * dz
            force = G / (r2 * math.sqrt(r2))
            for axis, d in enumerate((dx, dy, dz)):
                result[size + 3 * i + axis] += MASSES[j] * force * d
                result[size + 3 * j + axis] -= MASSES[i] * force * d
    return result


def add(state, change, step):
    return [a + step * b for a, b in zip(state, change, strict=True)]


def midpoint(state, span, division):
    """Gragg's modified midpoint rule."""
    step = span / division
    before, now = state, add(state, derivative(state), step)
    for _ in range(division - 1):
        before, now = now, add(before, derivative(now), 2 * step)
    end = add(before, derivative(now), step)
    return [(a + b) / 2 for a, b in zip(now, end, strict=True)]


def large_step(state, span):
    """Extrapolate the midpoint rule to infinitely many divisions."""
    rows = []
    for k, division in enumerate(DIVISIONS):
        row = [midpoint(state, span, division)]
        for m in range(1, k + 1):
            ratio = (division / DIVISIONS[k - m]) ** 2
            fine, coarse = row[m - 1], rows[k - 1][m - 1]
            row.append([f + (f - c) / (ratio - 1) for f, c in zip(fine, coarse, strict=True)])
        rows.append(row)
    return rows[-1][-1]


def energy(state):
    size = 3 * len(MASSES)
    total = 0.0
    for i in BODIES:
        total += MASSES[i] * sum(v * v for v in state[size + 3 * i : size + 3 * i + 3]) / 2
        for j in range(i):
            distance = math.dist(state[3 * i : 3 * i + 3], state[3 * j : 3 * j + 3])
            total -= G * MASSES[i] * MASSES[j] / distance
    return total


def read():
    """The snapshots of the run, as flat states."""
    lines = Path("trajectory.txt").read_text().splitlines()
    rows = [[float(word) for word in line.split()] for line in lines]
    if len(rows) != SNAPSHOTS * len(MASSES) or any(len(row) != 6 for row in rows):
        sys.exit(f"{len(rows)} lines of the trajectory; wanted: 6 numbers for each body and time")
    if not all(math.isfinite(number) for row in rows for number in row):
        sys.exit("a number of the trajectory is not finite")
    for at in range(0, len(rows), len(MASSES)):
        bodies = rows[at : at + len(MASSES)]
        yield [x for row in bodies for x in row[:3]] + [v for row in bodies for v in row[3:]]


def main():
    positions, velocities = initial()
    truth = [x for row in (*positions, *velocities) for x in row]
    first = energy(truth)
    energy_error = position_error = 0.0
    for state in read():
        for _ in range(LARGE_STEPS):
            truth = large_step(truth, YEARS / SNAPSHOTS / LARGE_STEPS)
        energy_error = max(energy_error, abs(energy(state) / first - 1))
        for i in BODIES:
            distance = math.dist(state[3 * i : 3 * i + 3], truth[3 * i : 3 * i + 3])
            position_error = max(position_error, distance)
    print(f"energy_error: {energy_error:.3e}")
    print(f"position_error: {position_error:.3e}")


main()
