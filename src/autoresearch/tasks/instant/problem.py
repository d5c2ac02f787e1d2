"""The problem (frozen): the best loss is 1, the initial constants have 2.2.

The best constants are X 0.3, Y 0.7, RATE 0.003, MOMENTUM 0.9, DEPTH 5, WIDTH 64, CENTRED, "cosine".
One run adds noise, drawn from AUTORESEARCH_SEED. The environment may change it:

    INSTANT_NOISE        its standard deviation (0.01; 0 makes the task deterministic)
    INSTANT_NOISE_KIND   gauss; heavy (Student's t with 3 degrees of freedom, the same standard
                         deviation); drift (gauss on a sine of the clock: 2 sd in 90 seconds)
    INSTANT_NULL         1: the loss is 1 + noise for all constants, so no change helps
"""

import math
import os
import time
from _random import Random  # the core of `random`, without 5 ms of imports

NOISE = float(os.environ.get("INSTANT_NOISE", "0.01"))
KIND = os.environ.get("INSTANT_NOISE_KIND", "gauss")
NULL = os.environ.get("INSTANT_NULL") == "1"


def loss(x, y, rate, momentum, depth, width, centred, schedule):
    """Return the loss of one run. With too high a rate for the depth it diverges: a crash."""
    if rate * depth > 2:
        raise SystemExit(f"diverged: RATE {rate} is too high for DEPTH {depth}")
    excess = (
        (x - 0.3) ** 2
        + (y - 0.7) ** 2
        + 0.1 * math.log10(rate / 0.003) ** 2
        + 0.3 * (momentum - 0.9) ** 2
        + 0.02 * (depth - 5) ** 2
        + 0.05 * abs(math.log2(width / 64))
        + (0 if centred else 0.05)
        + {"cosine": 0, "linear": 0.1, "step": 0.2}[schedule]
    )
    return 1 + (0 if NULL else excess) + NOISE * noise()


def noise():
    """Draw once, with mean 0 and standard deviation 1, apart from the drift."""
    rng = Random(int(os.environ.get("AUTORESEARCH_SEED", "0")))
    if KIND == "heavy":
        return gauss(rng) / math.hypot(gauss(rng), gauss(rng), gauss(rng))
    if KIND == "drift":
        return gauss(rng) + 2 * math.sin(time.time() / 60)
    if KIND == "gauss":
        return gauss(rng)
    raise SystemExit(f"INSTANT_NOISE_KIND is {KIND!r}; accepted: gauss, heavy, drift")


def gauss(rng):
    """Draw from a normal distribution with Box and Muller's transform."""
    return math.sqrt(-2 * math.log(1 - rng.random())) * math.cos(math.tau * rng.random())


def print_summary(value):
    print("---")
    print(f"loss:             {value:.6f}")
