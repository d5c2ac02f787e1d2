"""The tuner: proposes other values for the constants of the editable files.

It needs no key and no network. All it knows it reads from the history, so a resumed session goes on
as if nothing had happened. Its proposals come from an Optuna study of what was measured, by one of
three samplers:

    trend    a Bayesian regression about the incumbent, a few constants at a time (the default)
    tpe      Optuna's TPE, a few constants at a time
    random   all constants at once, anywhere: the classical baseline
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.agents.tuning import opening
from autoresearch.agents.tuning.constants import SourceError, Value
from autoresearch.agents.tuning.sources import edit, find_missing_parsers
from autoresearch.agents.tuning.space import Divisibility, Key, Program, Space, take_apart
from autoresearch.errors import AgentError
from autoresearch.protocols import Failure, History, Proposal, Turn
from autoresearch.records import Experiment, Status

if TYPE_CHECKING:
    from autoresearch.agents.tuning.study import Measured, Study

SAMPLERS = ("trend", "tpe", "random")

GUESSES = 300  # at random, before counting what is left of the space
COUNTABLE = 2_000  # a space of no more points than this can be exhausted
# Reasons of crashes of size or of the loss: they tell nothing of the shapes that fit together.
NO_SHAPE = ("over budget", "timeout", "memory", "log too large", "doomed")
KEEP_RUNS = 3  # fresh runs behind the metric of a keep
DESCRIPTION_LENGTH = 80
ORIGIN = re.compile(r"\bspace of (\w+)")
HOW_TO = (
    "the tuner found no constants in {paths}. It changes numbers, and lists of them, that have a "
    "name in a file of Python, C, C++, CUDA, Rust, Go, JavaScript, TOML, YAML or JSON, in a "
    "Makefile or in a list of compiler flags, such as `LR = 3e-4  # in [1e-5, 1e-2]`, a field of a "
    "dataclass or the default of an option, and strings with their alternatives, such as "
    "`ACTIVATION = 'relu'  # one of: relu, gelu`"
)


def create(argument: str | None, options: Mapping[str, object], seed: int) -> Tuner:
    """`tuner`, `tuner:SAMPLER` or the option `sampler`."""
    if unknown := sorted(set(options) - {"sampler"}):
        raise AgentError(f"tuner: unknown option {unknown[0]!r}; accepted: sampler")
    sampler = argument or options.get("sampler", SAMPLERS[0])
    if sampler not in SAMPLERS:
        raise AgentError(f"tuner: no sampler {sampler!r}; there are: {', '.join(SAMPLERS)}")
    return Tuner(str(sampler), seed)


class Tuner:
    name = "tuner"
    wants_briefing = False

    def __init__(self, sampler: str, seed: int) -> None:
        from autoresearch.agents.tuning.study import Study  # optuna takes half a second to import

        self._seed = seed
        self._near = sampler != "random"
        self._space = Space()
        self._study: Study = Study(sampler, self._space)
        self._rules = Divisibility()
        self._taken: set[Key] = set()
        self._origin = ""  # the commit whose ranges the space has
        self._main: str | None = None  # the file whose constants go by their own names
        self._seen = 0  # order of the last experiment absorbed
        self._proposed = 0  # of those, the tuner's own
        self._state: tuple[int, ...] = ()  # of the history, at the last proposal
        self._repeats = 0  # proposals made in this state

    def check_files(self, files: Mapping[str, bytes]) -> None:
        """Raises `AgentError` if the files hold no constant to change."""
        _find_with_constants(files)

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        files = {path: (turn.worktree / path).read_bytes() for path in turn.editable}
        if not self._origin:
            self._begin(turn.history)
        incumbent = self._incumbent(files)
        running = turn.history.in_flight()
        self._absorb(turn.history)
        self._join(incumbent)
        values = self._choose(turn.history, incumbent, running)
        if values is None:
            return None
        self._taken.add(incumbent.key(values))
        changes = {n: v for n, v in values.items() if v != incumbent.values[n]}
        _write(turn.worktree, files, incumbent, changes)
        return Proposal(describe(incumbent, changes), notes=f"space of {self._origin}")

    # What happened so far

    def _begin(self, history: History) -> None:
        """Lay out the space: as the first tuner of this session did, which left the commit in its
        notes, or else about the present incumbent."""
        running = history.in_flight()  # first: what ends meanwhile is in both, not in none
        experiments = itertools.chain(history.finished(), running)
        noted = (ORIGIN.search(experiment.notes) for experiment in experiments)
        origin = next((match[1] for match in noted if match), history.incumbent().commit)
        files = history.editable_files(origin)
        with_constants = _find_with_constants(files)
        self._main = min(with_constants) if len(with_constants) == 1 else None
        self._origin = origin
        program = self._incumbent(files)
        self._join(program)
        self._rules.learn(program.integers(program.values), crashed=False)
        self._taken.add(program.key(program.values))
        first = history.baseline()  # after another agent's keeps, it is not the origin
        if first.commit != origin and (unchanged := self._program(history, first)) is not None:
            self._taken.add(unchanged.key(unchanged.values))

    def _incumbent(self, files: Mapping[str, bytes]) -> Program:
        return _take_apart(files, self._main)

    def _join(self, program: Program) -> None:
        if self._space.add(program):
            self._study.rebuild()

    def _absorb(self, history: History) -> None:
        for experiment in history.finished(after=self._seen):
            self._seen = experiment.order or self._seen
            self._proposed += _is_own(experiment)
            if (program := self._program(history, experiment)) is not None:
                self._learn(history, experiment, program)

    def _program(self, history: History, experiment: Experiment) -> Program | None:
        """None if its source does not parse: it teaches nothing about constants."""
        try:
            return take_apart(history.editable_files(experiment.commit), self._main)
        except SourceError:
            return None

    def _learn(self, history: History, experiment: Experiment, program: Program) -> None:
        if experiment.status is Status.KEEP:
            self._join(program)
        self._taken.add(program.key(program.values))
        crashed = experiment.status is Status.CRASH
        if not crashed and experiment.metric is None:
            return
        if not (experiment.reason or "").startswith(NO_SHAPE):
            self._rules.learn(program.integers(program.values), crashed)
        score = None if crashed else self._score(history, experiment.metric)
        runs = KEEP_RUNS if experiment.status is Status.KEEP else 1
        self._study.add(_measured(program, score, runs))

    def _score(self, history: History, metric: float | None) -> float | None:
        return None if metric is None else history.metric.gain(metric, 0.0)

    # What next

    def _choose(
        self, history: History, incumbent: Program, in_flight: Sequence[Experiment]
    ) -> dict[str, Value] | None:
        """The values to propose; None if there is nothing left to try."""
        from autoresearch.agents.tuning.study import Situation

        running = [self._program(history, e) for e in in_flight]
        programs = [program for program in running if program is not None]
        busy = {program.key(program.values) for program in programs}
        space, present = self._space, incumbent.values

        def new(positions: Sequence[float]) -> bool:
            key = incumbent.key(space.values(positions, present))
            return key not in self._taken and key not in busy

        def allowed(positions: Sequence[float]) -> bool:
            values = space.values(positions, present)
            return new(positions) and self._rules.respected(incumbent.integers(values))

        seed = self._next_seed(in_flight)
        situation = Situation(
            incumbent=_measured(incumbent, self._score(history, history.incumbent_score())),
            noise_sd=history.noise_sd,
            running=[_measured(program) for program in programs],
            allowed=allowed,
            seed=seed,
        )
        positions = self._open(incumbent, in_flight)
        if positions is None or not allowed(positions):
            positions = self._study.ask(situation)
        if not allowed(positions):
            # What was learned about crashes is a guess: it does not end the search.
            for fits in (allowed, new):
                others = self._others(space.positions(present), random.Random(str(seed)))
                if (other := next(filter(fits, others), None)) is not None:
                    return space.values(other, present)
            return None
        return space.values(positions, present)

    def _open(self, incumbent: Program, in_flight: Sequence[Experiment]) -> list[float] | None:
        """The next move of the opening; None once all were proposed."""
        moves = opening.list_moves(self._space.constants) if self._near else []
        count = self._proposed + sum(map(_is_own, in_flight))
        if count >= len(moves):
            return None
        present = incumbent.values
        if any(name not in present for name in moves[count][0]):
            return None  # a keep has removed the constant
        positions = self._space.positions(present)
        changed = opening.carry_out(moves[count], self._space.constants, present)
        return [
            changed.get(name, position)
            for name, position in zip(self._space.constants, positions, strict=True)
        ]

    def _next_seed(self, in_flight: Sequence[Experiment]) -> list[int]:
        """A function of the history, so that a restarted tuner makes the same proposals."""
        state = (self._seen, *(experiment.number for experiment in in_flight))
        self._repeats = self._repeats + 1 if state == self._state else 0
        self._state = state
        return [self._seed, self._repeats, *state]

    def _others(self, present: list[float], rng: random.Random) -> Iterator[list[float]]:
        """Random points, for the local samplers near the incumbent at first; then every point of
        a space small enough."""
        levels = [self._space.levels(c) for c in self._space.constants.values()]
        for guess in range(GUESSES):
            positions = list(present)
            count = min(1 + guess // 50, len(positions)) if self._near else len(positions)
            for index in rng.sample(range(len(positions)), count):
                choices = levels[index]
                positions[index] = rng.random() if choices is None else rng.choice(choices)
            yield positions
        counts = [len(choices) if choices is not None else math.inf for choices in levels]
        if math.prod(counts) <= COUNTABLE:
            yield from map(list, itertools.product(*(choices or () for choices in levels)))


def _is_own(experiment: Experiment) -> bool:
    return ORIGIN.search(experiment.notes) is not None


def _measured(program: Program, score: float | None = None, runs: int = 1) -> Measured:
    from autoresearch.agents.tuning.study import Measured

    return Measured(program.values, program.digest, score, runs)


def _take_apart(files: Mapping[str, bytes], main: str | None = None) -> Program:
    try:
        return take_apart(files, main)
    except SourceError as error:
        raise AgentError(f"the tuner cannot read the constants: {error}") from error


def _find_with_constants(files: Mapping[str, bytes]) -> set[str]:
    """The files that hold constants. Raises `AgentError` if none does."""
    paths = {path for path in files if _take_apart({path: files[path]}).constants}
    if not paths:
        why = "".join(f"; {problem}" for problem in find_missing_parsers(files))
        where = ", ".join(sorted(files)) or "the editable files"
        raise AgentError(HOW_TO.format(paths=where) + why)
    return paths


def _write(
    worktree: Path, files: Mapping[str, bytes], program: Program, changes: Mapping[str, Value]
) -> None:
    for path in {program.paths[name] for name in changes}:
        inside = {
            program.constants[name].name: value
            for name, value in changes.items()
            if program.paths[name] == path
        }
        (worktree / path).write_bytes(edit(path, files[path], inside))


def describe(program: Program, changes: Mapping[str, Value]) -> str:
    """`LR 0.02 -> 0.035, DEPTH 2 -> 3`, at most 80 characters if two changes are."""
    parts = [
        f"{name} {program.constants[name].shown(program.constants[name].value)}"
        f" -> {program.constants[name].shown(value)}"
        for name, value in changes.items()
    ]
    for shown in range(len(parts), 0, -1):
        more = f" and {len(parts) - shown} more" if shown < len(parts) else ""
        text = ", ".join(parts[:shown]) + more
        if len(text) <= DESCRIPTION_LENGTH:
            return text
    return text
