"""A constant of a source: a literal with a name and a range, which the tuner may change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Value = bool | int | float | str
Kind = Literal["float", "beta", "int", "exponent", "bool", "choice"]


class SourceError(ValueError):
    """A source that cannot be read or edited in place, or a wrong comment on a constant."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One tunable literal and its range. `value` is the exponent for `2**19`."""

    name: str  # `LR`, `ADAM_BETAS[0]`
    value: Value
    span: tuple[int, int]  # of the literal in the source, in bytes
    kind: Kind
    low: float = 0.0  # inclusive, like `high`; meaningless for a bool or a choice
    high: float = 0.0
    log: bool = False  # search on a log scale: of 1 - v for a beta, of -v for a negative number
    choices: tuple[Value, ...] = ()  # for a bool or a choice
    step: int = 1  # ints move in multiples of it
    base: int | None = None  # of an exponent
    words: tuple[str, ...] = ()  # the choices as the source writes them; empty: as Python does

    @property
    def ordered(self) -> bool:
        """Whether neighbouring positions are alike: not so for alternatives without an order."""
        return not any(isinstance(choice, bool | str) for choice in self.choices)

    def effective(self, value: Value) -> float | None:
        """Return the number that the program works with; None for a string."""
        if isinstance(value, str):
            return None
        return value if self.base is None else self.base ** int(value)

    def shown(self, value: Value) -> str:
        """Return `value` as a person would write it."""
        return str(value) if self.base is None else f"{self.base}**{value}"

    def rounded(self, value: Value) -> Value:
        """Return the nearest value in range, with at most 3 significant digits."""
        if self.choices:
            return value if value in self.choices else self.value
        number = min(max(float(value), self.low), self.high)
        if self.kind in ("int", "exponent"):
            low, high = math.ceil(self.low), math.floor(self.high)
            stepped = round(number / self.step) * self.step
            return stepped if low <= stepped <= high else min(max(round(number), low), high)
        if self.kind == "beta":
            number = round_to_digits(1.0 - round_to_digits(1.0 - number, 2), 9)
        else:
            number = round_to_digits(number, 3)
        return min(max(number, self.low), self.high)

    def position(self, value: Value) -> float:
        """Return where a value lies in the range or in the list of choices, 0 to 1 (clipped)."""
        if self.choices:
            last = len(self.choices) - 1
            return self.choices.index(value) / last if value in self.choices and last else 0.0
        low, high, here = (self._to_scale(v) for v in (self.low, self.high, float(value)))
        return min(max((here - low) / (high - low), 0.0), 1.0) if low < high else 0.0

    def at(self, position: float) -> Value:
        """Return the value worth proposing at a position, 0 to 1."""
        position = min(max(position, 0.0), 1.0)
        if self.choices:
            return self.choices[round(position * (len(self.choices) - 1))]
        low, high = self._to_scale(self.low), self._to_scale(self.high)
        return self.rounded(self._from_scale(low + position * (high - low)))

    def _to_scale(self, value: float) -> float:
        """Map a value onto the scale on which equal steps are equally interesting."""
        if not self.log:
            return value
        if self.kind == "beta":
            return -math.log(max(1.0 - value, 1e-12))
        return -math.log(max(-value, 1e-300)) if self.high < 0 else math.log(max(value, 1e-300))

    def _from_scale(self, scaled: float) -> float:
        if not self.log:
            return scaled
        if self.kind == "beta":
            return 1.0 - math.exp(-scaled)
        return -math.exp(-scaled) if self.high < 0 else math.exp(scaled)


def round_to_digits(number: float, digits: int) -> float:
    """Round to significant digits."""
    return float(f"{number:.{digits - 1}e}")
