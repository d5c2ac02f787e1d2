"""The tuner's view of a program: its constants, and the space they span."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoresearch.agents.tuning import sources
from autoresearch.agents.tuning.constants import Constant, SourceError, Value
from autoresearch.agents.tuning.trees import MissingParser

LEVELS = 64  # an int with no more values than this is searched value by value

Key = bytes  # a digest: two thousand full lists of values would be megabytes


@dataclass(frozen=True, slots=True)
class Program:
    """A set of editable files, taken apart: its constants, and a digest of the code around them."""

    constants: Mapping[str, Constant]
    paths: Mapping[str, str]  # of each constant
    digest: str

    @property
    def values(self) -> dict[str, Value]:
        return {name: constant.value for name, constant in self.constants.items()}

    def integers(self, values: Mapping[str, Value]) -> dict[str, int]:
        """The positive whole numbers the program would work with: 2**19 counts as 524288."""
        found: dict[str, int] = {}
        for name, constant in self.constants.items():
            number = constant.effective(values[name])
            if isinstance(number, int) and not isinstance(number, bool) and number > 0:
                found[name] = number
        return found

    def key(self, values: Mapping[str, Value]) -> Key:
        """What makes two experiments the same: the code, and the values as far as they differ by
        more than rounding."""
        items = [(name, _coarse(values.get(name, c.value))) for name, c in self.constants.items()]
        return hashlib.blake2b(repr((self.digest, items)).encode(), digest_size=12).digest()


def _coarse(value: Value) -> Value:
    if not isinstance(value, float):
        return value
    return 1.0 - float(f"{1.0 - value:.1e}") if 0.9 <= value < 1 else float(f"{value:.2e}")


def take_apart(files: Mapping[str, bytes], main: str | None = None) -> Program:
    """Read the constants of the files in a known language. Those of the file `main` go by their own
    name, those of others by `path:NAME`. Raises `SourceError` if a file does not parse."""
    digest = hashlib.blake2b(digest_size=8)
    constants: dict[str, Constant] = {}
    paths: dict[str, str] = {}
    for path, source in sorted(files.items()):
        found = _find(path, source)
        end = 0
        for constant in found:
            name = constant.name if path == main else f"{path}:{constant.name}"
            constants[name], paths[name] = constant, path
            digest.update(source[end : constant.span[0]])
            end = constant.span[1]
        digest.update(source[end:] + b"\0")
    return Program(constants, paths, digest.hexdigest())


def _find(path: str, source: bytes) -> list[Constant]:
    try:
        return sources.find(path, source)
    except MissingParser:
        return []  # `find_missing_parsers` tells of it where nothing else can be tuned
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error


class Space:
    """The constants that were ever seen in an incumbent, with the ranges they had then: so that
    the space does not move with the incumbent."""

    def __init__(self) -> None:
        self.constants: dict[str, Constant] = {}

    def add(self, program: Program) -> bool:
        """Let the constants of a program join; says whether any did."""
        new = {n: c for n, c in program.constants.items() if n not in self.constants}
        self.constants.update(new)
        return bool(new)

    def positions(self, values: Mapping[str, Value]) -> list[float]:
        """Where each constant stands; one that is missing stands where it did at first."""
        return [c.position(values.get(name, c.value)) for name, c in self.constants.items()]

    def values(self, positions: Sequence[float], present: Mapping[str, Value]) -> dict[str, Value]:
        """The values at `positions`; a constant that does not move keeps its exact value, one
        that is not `present` is left out."""
        moved = dict(present)
        for (name, constant), position in zip(self.constants.items(), positions, strict=True):
            here = present.get(name)
            if here is not None and abs(constant.position(here) - position) > 1e-9:
                moved[name] = constant.at(position)
        return moved

    def levels(self, constant: Constant) -> list[float] | None:
        """The positions a constant can take, None for (almost) any."""
        if constant.choices:
            return [constant.position(choice) for choice in constant.choices]
        if constant.kind not in ("int", "exponent"):
            return None
        low, high = math.ceil(constant.low), math.floor(constant.high)
        if (high - low) // constant.step >= LEVELS:
            return None
        integers = {constant.rounded(i) for i in (*range(low, high, constant.step), high)}
        return sorted(constant.position(i) for i in integers)


class Divisibility:
    """Learns that A must be a multiple of B: every success was, and some crash was not."""

    def __init__(self) -> None:
        self._held: set[tuple[str, str]] | None = None
        self._broken: set[tuple[str, str]] = set()

    def learn(self, numbers: Mapping[str, int], crashed: bool) -> None:
        pairs = list(itertools.permutations(numbers, 2))
        if crashed:
            self._broken.update((a, b) for a, b in pairs if numbers[a] % numbers[b])
        elif self._held is None:
            self._held = {(a, b) for a, b in pairs if numbers[a] % numbers[b] == 0}
        else:
            self._held -= {(a, b) for a, b in pairs if numbers[a] % numbers[b]}

    def rules(self) -> set[tuple[str, str]]:
        return (self._held or set()) & self._broken

    def respected(self, numbers: Mapping[str, int]) -> bool:
        return all(
            numbers[a] % numbers[b] == 0 for a, b in self.rules() if a in numbers and b in numbers
        )
