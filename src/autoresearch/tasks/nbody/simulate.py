"""The simulation. Edit anything here: the method, the step, the code. The faster, the better.

It writes `trajectory.txt`: a line for each body at the end of each tenth of the time, with its
position and its velocity.
"""

from system import MASSES, SNAPSHOTS, YEARS, G, initial

INTEGRATOR = "leapfrog"  # one of: leapfrog, forest-ruth, yoshida6, rk4
STEPS = 1600  # in [20, 3200], in all
PAIRWISE = False  # whether each pair's force is computed once, for both bodies
UNROLLED = False  # whether the loops over bodies are written out before they are executed
CACHED_PRODUCTS = False  # whether G times the masses is computed once

COMPOSITIONS = {  # of leapfrog steps: the shares of the step
    "leapfrog": (1.0,),
    "forest-ruth": (1.3512071919596578, -1.7024143839193153, 1.3512071919596578),
    "yoshida6": (
        0.784513610477560,
        0.235573213359357,
        -1.17767998417887,
        1.31518632068391,
        -1.17767998417887,
        0.235573213359357,
        0.784513610477560,
    ),
}


def accelerations(positions):
    """The acceleration of every body."""
    result = [[0.0, 0.0, 0.0] for _ in positions]
    products = PRODUCTS if CACHED_PRODUCTS else [G * mass for mass in MASSES]
    if PAIRWISE:
        for i in range(len(positions)):
            xi, yi, zi = positions[i]
            own = result[i]
            for j in range(i):
                xj, yj, zj = positions[j]
                dx, dy, dz = xj - xi, yj - yi, zj - zi
                r2 = dx * dx + dy * dy + dz * dz
                r3 = r2 * r2**0.5
                here, there = products[j] / r3, products[i] / r3
                own[0] += here * dx
                own[1] += here * dy
                own[2] += here * dz
                other = result[j]
                other[0] -= there * dx
                other[1] -= there * dy
                other[2] -= there * dz
        return result
    for i in range(len(positions)):
        for j in range(len(positions)):
            if i != j:
                d = [positions[j][axis] - positions[i][axis] for axis in range(3)]
                r3 = (d[0] ** 2 + d[1] ** 2 + d[2] ** 2) ** 1.5
                for axis in range(3):
                    result[i][axis] += products[j] * d[axis] / r3
    return result


PRODUCTS = [G * mass for mass in MASSES]


def write_out():
    """Return a function like `accelerations` whose loops are written out for five bodies."""
    bodies = range(len(MASSES))
    lines = ["def accelerations(p):"]
    for i in bodies:
        lines.append(f"    x{i}, y{i}, z{i} = p[{i}]")
    done = set()
    for i in bodies:
        for j in range(i):
            lines += [
                f"    dx = x{j} - x{i}; dy = y{j} - y{i}; dz = z{j} - z{i}",
                "    r2 = dx * dx + dy * dy + dz * dz",
                "    f = 1.0 / (r2 * r2 ** 0.5)",
                f"    h = {PRODUCTS[j]!r} * f; t = {PRODUCTS[i]!r} * f",
            ]
            for body, sign, factor in ((i, "+", "h"), (j, "-", "t")):
                for axis in "xyz":
                    name = f"a{axis}{body}"
                    old = name if name in done else "0.0"
                    lines.append(f"    {name} = {old} {sign} {factor} * d{axis}")
                    done.add(name)
    rows = ", ".join(f"[ax{i}, ay{i}, az{i}]" for i in bodies)
    lines.append(f"    return [{rows}]")
    names = {}
    exec("\n".join(lines), names)
    return names["accelerations"]


if UNROLLED:
    accelerations = write_out()


def kick(velocities, positions, step):
    for velocity, acceleration in zip(velocities, accelerations(positions), strict=True):
        velocity[0] += step * acceleration[0]
        velocity[1] += step * acceleration[1]
        velocity[2] += step * acceleration[2]


def drift(positions, velocities, step):
    for position, velocity in zip(positions, velocities, strict=True):
        position[0] += step * velocity[0]
        position[1] += step * velocity[1]
        position[2] += step * velocity[2]


def advance_symplectic(positions, velocities, step, steps):
    """Drift, kick, drift; the drifts of two steps that follow each other are one."""
    shares = COMPOSITIONS[INTEGRATOR]
    drift(positions, velocities, step * shares[0] / 2)
    for number in range(steps):
        for index, share in enumerate(shares):
            kick(velocities, positions, step * share)
            if index + 1 < len(shares):
                drift(positions, velocities, step * (share + shares[index + 1]) / 2)
        last = number + 1 == steps
        drift(positions, velocities, step * (shares[-1] + (0 if last else shares[0])) / 2)


def moved(rows, changes, step):
    return [
        [a + step * b for a, b in zip(row, change, strict=True)]
        for row, change in zip(rows, changes, strict=True)
    ]


def advance_rk4(positions, velocities, step, steps):
    for _ in range(steps):
        v1, a1 = velocities, accelerations(positions)
        v2 = moved(velocities, a1, step / 2)
        a2 = accelerations(moved(positions, v1, step / 2))
        v3 = moved(velocities, a2, step / 2)
        a3 = accelerations(moved(positions, v2, step / 2))
        v4 = moved(velocities, a3, step)
        a4 = accelerations(moved(positions, v3, step))
        for body in range(len(positions)):
            for axis in range(3):
                positions[body][axis] += (step / 6) * (
                    v1[body][axis] + 2 * v2[body][axis] + 2 * v3[body][axis] + v4[body][axis]
                )
        for body in range(len(positions)):
            for axis in range(3):
                velocities[body][axis] += (step / 6) * (
                    a1[body][axis] + 2 * a2[body][axis] + 2 * a3[body][axis] + a4[body][axis]
                )


def main():
    positions, velocities = initial()
    advance = advance_rk4 if INTEGRATOR == "rk4" else advance_symplectic
    steps = max(1, round(STEPS / SNAPSHOTS))
    with open("trajectory.txt", "w") as file:  # noqa: PTH123 - to import pathlib takes time
        for _ in range(SNAPSHOTS):
            advance(positions, velocities, YEARS / SNAPSHOTS / steps, steps)
            for position, velocity in zip(positions, velocities, strict=True):
                print(*map(repr, position + velocity), file=file)


main()
