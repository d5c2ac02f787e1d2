"""The tuner: proposes other values for the constants of the editable Python files.

It needs no key and no network. It keeps no state: it reads the history, so a resumed session goes
on as if nothing had happened. One of three samplers makes the proposals:

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

from autoresearch.agents.tuning.constants import SourceError, Value, edit
from autoresearch.agents.tuning.space import (
    Divisibility,
    Measured,
    Program,
    Situation,
    Space,
    take_apart,
)
from autoresearch.errors import AgentError
from autoresearch.protocols import Failure, History, Proposal, Turn
from autoresearch.records import Experiment, Status

SAMPLERS = ("trend", "tpe", "random")

GUESSES = 300  # at random, before counting what is left of the space
COUNTABLE = 2_000  # a space of no more points than this can be exhausted
COSTLY = ("over budget", "timeout", "memory", "log too large")  # crashes of size, not of shape
KEEP_RUNS = 4  # fresh runs behind the metric of a keep
REMEMBERED = 48  # experiments to learn from, of the best and of the latest each, once there ...
FULL = 144  # ... are this many: a proposal costs the same at the 2,000th experiment
DESCRIPTION_LENGTH = 80
ORIGIN = re.compile(r"\bspace of (\w+)")
HOW_TO = (
    "the tuner found no constants in {paths}. It changes numbers, and lists of them, assigned once "
    "at the top level of a Python file, such as `LR = 3e-4  # in [1e-5, 1e-2]`, and strings with "
    "their alternatives, such as `ACTIVATION = 'relu'  # one of: relu, gelu`"
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
        self._sampler = sampler
        self._seed = seed
        self._space = Space()
        self._rules = Divisibility()
        self._measured: list[Measured] = []
        self._taken: set[bytes] = set()  # keys of programs
        self._origin = ""  # the commit whose ranges the space has
        self._main: str | None = None  # the file whose constants go by their own names
        self._order = 0  # of the last experiment learned from
        self._state: tuple[int, ...] = ()  # of the history, at the last proposal
        self._repeats = 0  # proposals made in this state

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        files = {path: (turn.worktree / path).read_bytes() for path in turn.editable}
        if not self._origin:
            self._begin(turn.history)
        incumbent = _take_apart(files, self._main)
        running = turn.history.in_flight()  # before what is finished, so that none is missed
        for experiment in turn.history.finished(after=self._order):
            self._learn(turn.history, experiment)
        self._space.add(incumbent)
        values = self._choose(turn.history, incumbent, running)
        if values is None:
            return None
        self._taken.add(incumbent.key(values))
        changes = {n: v for n, v in values.items() if v != incumbent.values[n]}
        _write(turn.worktree, files, incumbent, changes)
        return Proposal(describe(incumbent, changes), notes=f"space of {self._origin}")

    # ---- what happened so far ----------------------------------------------------------------

    def _begin(self, history: History) -> None:
        """Lay out the space: about the commit that the first tuner of this session left in its
        notes, or else about the present incumbent."""
        running = history.in_flight()  # before what is finished, so that none is missed
        experiments = itertools.chain(history.finished(), running)
        matches = (ORIGIN.search(experiment.notes) for experiment in experiments)
        origin = next((match[1] for match in matches if match), history.incumbent().commit)
        files = history.editable_files(origin)
        with_constants = {path for path in files if _take_apart({path: files[path]}).constants}
        if not with_constants:
            raise AgentError(HOW_TO.format(paths=", ".join(sorted(files)) or "the editable files"))
        self._main = min(with_constants) if len(with_constants) == 1 else None
        self._origin = origin
        program = _take_apart(files, self._main)
        self._space.add(program)
        self._rules.learn(program.integers(program.values), crashed=False)
        self._taken.add(program.key(program.values))
        baseline = history.baseline()  # after another agent's keeps, it is not the origin
        if baseline.commit != origin and (first := self._read(history, baseline)) is not None:
            self._taken.add(first.key(first.values))

    def _read(self, history: History, experiment: Experiment) -> Program | None:
        """Return the program of an experiment; None if it does not parse: its source teaches
        nothing about constants."""
        try:
            return take_apart(history.editable_files(experiment.commit), self._main)
        except SourceError:
            return None

    def _learn(self, history: History, experiment: Experiment) -> None:
        self._order = experiment.order or self._order
        program = self._read(history, experiment)
        if program is None:
            return
        is_keep, is_crash = (experiment.status is s for s in (Status.KEEP, Status.CRASH))
        if is_keep:
            self._space.add(program)
        self._taken.add(program.key(program.values))
        if not is_crash and experiment.metric is None:
            return
        if experiment.reason not in COSTLY:
            self._rules.learn(program.integers(program.values), is_crash)
        score = None if is_crash else _to_score(history, experiment.metric)
        self._measured.append(Measured(program, score, KEEP_RUNS if is_keep else 1))
        if len(self._measured) > FULL:
            self._forget()

    def _forget(self) -> None:
        scored = [(m.score, i) for i, m in enumerate(self._measured) if m.score is not None]
        best = [i for _, i in sorted(scored)[-REMEMBERED:]]
        latest = range(len(self._measured))[-REMEMBERED:]
        self._measured = [self._measured[i] for i in sorted({*best, *latest})]

    # ---- what to propose next ----------------------------------------------------------------

    def _choose(
        self, history: History, incumbent: Program, in_flight: Sequence[Experiment]
    ) -> dict[str, Value] | None:
        """Return the values to propose; None if there is nothing left to try."""
        programs = [self._read(history, experiment) for experiment in in_flight]
        running = [program for program in programs if program is not None]
        taken = self._taken.union(program.key(program.values) for program in running)
        space, present = self._space, incumbent.values

        def is_new(positions: Sequence[float]) -> bool:
            return incumbent.key(space.values(positions, present)) not in taken

        def is_allowed(positions: Sequence[float]) -> bool:
            values = space.values(positions, present)
            return is_new(positions) and self._rules.respected(incumbent.integers(values))

        seed = self._next_seed(in_flight)
        situation = Situation(
            incumbent=Measured(incumbent, _to_score(history, history.incumbent_score())),
            noise_sd=history.noise_sd,
            running=[Measured(program) for program in running],
            is_allowed=is_allowed,
        )
        positions: Sequence[float] | None = self._sample(situation, seed)
        if positions is None or not is_allowed(positions):
            # The rules learned from crashes are guesses: they do not end the search.
            for is_fit in (is_allowed, is_new):
                others = self._others(space.positions(present), random.Random(str(seed)))
                positions = next(filter(is_fit, others), None)
                if positions is not None:
                    break
        return None if positions is None else space.values(positions, present)

    def _sample(self, situation: Situation, seed: Sequence[int]) -> list[float]:
        import numpy as np

        rng = np.random.default_rng(seed)
        optuna_seed = int(rng.integers(2**31))
        if self._sampler == "trend":
            from autoresearch.agents.tuning import trend

            return trend.propose(self._measured, self._space, situation, rng)
        from autoresearch.agents.tuning import study  # optuna takes half a second to import

        sampler = study.make_sampler(self._sampler, optuna_seed, self._space, situation, rng)
        return study.propose(sampler, self._measured, self._space, situation)

    def _next_seed(self, in_flight: Sequence[Experiment]) -> list[int]:
        """Return a function of the history, so that a restarted tuner makes the same proposals."""
        state = (self._order, *(experiment.number for experiment in in_flight))
        self._repeats = self._repeats + 1 if state == self._state else 0
        self._state = state
        return [self._seed, self._repeats, *state]

    def _others(self, present: list[float], rng: random.Random) -> Iterator[list[float]]:
        """Yield random points, for the local samplers near the incumbent at first; then every
        point of a space that is small enough."""
        levels = list(self._space.levels.values())
        for guess in range(GUESSES):
            positions = list(present)
            is_local = self._sampler != "random"
            count = min(1 + guess // 50, len(positions)) if is_local else len(positions)
            for index in rng.sample(range(len(positions)), count):
                choices = levels[index]
                positions[index] = rng.random() if choices is None else rng.choice(choices)
            yield positions
        counts = [len(choices) if choices is not None else math.inf for choices in levels]
        if math.prod(counts) <= COUNTABLE:
            yield from map(list, itertools.product(*(choices or () for choices in levels)))


def _to_score(history: History, metric: float | None) -> float | None:
    """Return a metric as a score: the higher the better."""
    return None if metric is None else history.metric.gain(metric, 0.0)


def _take_apart(files: Mapping[str, bytes], main: str | None = None) -> Program:
    try:
        return take_apart(files, main)
    except SourceError as error:
        raise AgentError(f"the tuner cannot read the constants: {error}") from error


def _write(
    worktree: Path, files: Mapping[str, bytes], program: Program, changes: Mapping[str, Value]
) -> None:
    for path in {program.paths[name] for name in changes}:
        inside = {
            program.constants[name].name: value
            for name, value in changes.items()
            if program.paths[name] == path
        }
        (worktree / path).write_bytes(edit(files[path], inside))


def describe(program: Program, changes: Mapping[str, Value]) -> str:
    """Return `LR 0.02 -> 0.035, DEPTH 2 -> 3`, at most 80 characters if two changes are."""
    parts = []
    for name, value in changes.items():
        constant = program.constants[name]
        parts.append(f"{name} {constant.shown(constant.value)} -> {constant.shown(value)}")
    for shown in range(len(parts), 0, -1):
        more = f" and {len(parts) - shown} more" if shown < len(parts) else ""
        text = ", ".join(parts[:shown]) + more
        if len(text) <= DESCRIPTION_LENGTH:
            break
    return text
