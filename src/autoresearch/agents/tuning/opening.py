"""The tuner's first proposals: what usually pays, before anything is known of this program.

Learning rates matter most, and the best ones are seldom known within a factor of two; then comes
the batch size (Bengio, "Practical recommendations for gradient-based training of deep
architectures", 2012). The best size of a model depends on the time it is trained for (Hoffmann et
al., "Training compute-optimal large language models", 2022): in a short run half of the layers make
twice the steps. So the first moves scale all learning rates together, then halve the depth, scale
each rate by itself, and halve the batch. Constants are recognised by their names. A program without
such names has no opening.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from autoresearch.agents.tuning.constants import Constant, Value

RATE = re.compile(r"(^|[_.])(lr|learning_?rate|step_?size)s?($|[_\[])", re.IGNORECASE)
BATCH = re.compile(r"(^|[_.])batch(_?size)?s?($|[_\[])", re.IGNORECASE)
DEPTH = re.compile(r"(^|[_.])(depth|n?_?layers?|blocks)($|\[)", re.IGNORECASE)
NEITHER = re.compile(  # FINAL_LR_FRAC, LR_WARMUP_STEPS, BATCH_NORM
    r"decay|warm|steps|epoch|frac|ratio|factor|norm|schedule", re.IGNORECASE
)
TOGETHER, ALONE = 2.0, 4.0  # factors of all learning rates, and of one

Move = tuple[Sequence[str], float]
"""Names of constants, and the factor that they are multiplied by."""


def list_moves(constants: Mapping[str, Constant]) -> list[Move]:
    """The first moves for a program with these constants, in their order."""
    rates, depths, batches = (list(_matching(constants, p)) for p in (RATE, DEPTH, BATCH))
    moves: list[Move] = []
    if rates:
        moves.append((rates, TOGETHER))
    moves += [([name], 0.5) for name in depths]
    if len(rates) > 1:
        moves += [([name], ALONE) for name in rates]
    moves += [([name], 0.5) for name in batches]
    if rates:
        moves.append((rates, 1 / TOGETHER))
    return moves


def _matching(constants: Mapping[str, Constant], pattern: re.Pattern[str]) -> Iterator[str]:
    for name, constant in constants.items():
        own_name = name.rpartition(":")[2]  # without its file
        is_number = not constant.choices and not isinstance(constant.value, str | bool)
        if is_number and pattern.search(own_name) and not NEITHER.search(own_name):
            yield name


def carry_out(
    move: Move, constants: Mapping[str, Constant], present: Mapping[str, Value]
) -> dict[str, float]:
    """The positions, 0 to 1, of the constants that a move changes, within their ranges."""
    names, factor = move
    positions = {}
    for name in names:
        number = constants[name].effective(present[name])
        if number is not None:
            target = constants[name].rounded(_solve(constants[name], number * factor))
            positions[name] = constants[name].position(target)
    return positions


def _solve(constant: Constant, number: float) -> float:
    """The value whose effect is `number`: for `2**14` an exponent."""
    if constant.base is None or number <= 0:
        return number
    exponent = 0
    while constant.base ** (exponent + 1) <= number:
        exponent += 1
    return exponent
