"""Measures what a program costs: its time, or its instructions, as the metric of a run.

The program is repeated within a run. The run's metric is that of its cheapest repetition, since all
that neighbours on the machine do makes a program slower, never faster. With `relative`, the
unchanged program is repeated too, in turns with it, and the metric is the ratio of both: a machine
that becomes slower, or gets a second tenant, slows both down. `benchmarks/timing.py` compares this
with a mean and other rules.

A repetition cannot forge its number: the warden measures it from outside, over all processes. It
cannot use what another one has computed either: each has a pristine tree, and a temporary folder
and `/dev/shm` of its own. The repetition whose time counts is the one that the scorer judges and
whose output has the guards' numbers, so a program cannot be fast in one and right in another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.errors import TaskError
from autoresearch.files import clear_path, replace_file
from autoresearch.git.trees import Manifest, PristineTrees
from autoresearch.measure.execution import Interrupted, check_settled
from autoresearch.protocols import Runner, RunResult
from autoresearch.task.model import Measure

COSTS = "costs.json"  # in a run's folder: what each repetition cost

Execute = Callable[[], tuple[RunResult, Manifest]]
"""Execute a program once. Its log, its result and its tree are where those of a run are."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What the repetitions of one run cost: seconds, or instructions."""

    own: tuple[float, ...]
    reference: tuple[float, ...] = ()  # of the unchanged program; empty without `relative`

    @property
    def metric(self) -> float:
        return min(self.own) / min(self.reference) if self.reference else min(self.own)

    def numbers(self, measure: Measure) -> dict[str, float]:
        """The costs of the cheapest repetitions by name, for the record."""
        name = f"{measure.what}_s" if measure.is_time else measure.what
        numbers = {name: min(self.own)}
        return numbers | ({f"{name}_unchanged": min(self.reference)} if self.reference else {})

    def write(self, folder: Path) -> None:
        fields = {"own": self.own, "reference": self.reference}
        replace_file(folder / COSTS, json.dumps(fields).encode(), is_durable=False)

    @classmethod
    def read(cls, folder: Path) -> Costs:
        fields = json.loads((folder / COSTS).read_text())
        return cls(tuple(fields["own"]), tuple(fields["reference"]))


class Repetitions:
    """Repeats the program of one run, and keeps the log and the tree of the cheapest repetition."""

    def __init__(
        self,
        measure: Measure,
        trees: PristineTrees,
        folder: Path,
        tree: Path,
        is_good: Callable[[RunResult], bool],
    ) -> None:
        """`folder` is the run's, with its log, and `tree` is where each repetition works."""
        self._measure = measure
        self._trees = trees
        self._folder = folder
        self._tree, self._best_tree = tree, tree.with_name(f"{tree.name}-best")
        self._log, self._best_log = folder / "log", folder / "log-best"
        self._is_good = is_good
        self._best: tuple[RunResult, Manifest] | None = None
        self._own: list[float] = []
        self._reference: list[float] = []
        self._results: list[RunResult] = []

    def make(
        self, own: Execute, reference: Execute, seed: int, is_unchanged: bool
    ) -> tuple[RunResult, Manifest]:
        """Return the result and the manifest of the cheapest repetition, or of the first one that
        failed. Raises `Interrupted` if one of the unchanged program beside it failed, one was lost,
        or what it cost is not known. With `is_unchanged` both are the same program."""
        self._drop_best()
        for is_own in _order(self._measure, seed):
            result, manifest = own() if is_own else reference()
            check_settled(result)
            self._results.append(result)
            if (is_own or is_unchanged) and not self._is_good(result):
                self._drop_best()
                return self._sum_up(result), manifest
            self._add(is_own, result, manifest)
        assert self._best is not None
        result, manifest = self._best
        clear_path(self._tree)
        self._best_tree.rename(self._tree)
        self._best_log.replace(self._log)
        Costs(tuple(self._own), tuple(self._reference)).write(self._folder)
        return self._sum_up(result), manifest

    def _add(self, is_own: bool, result: RunResult, manifest: Manifest) -> None:
        """Add a repetition. Keep its log and its tree if it is the program's cheapest so far."""
        if not self._is_good(result):
            how = result.stopped or f"exit code {result.exit_code}"
            raise Interrupted(f"the unchanged program, which is timed beside it, failed: {how}")
        cost, costs = get_cost(self._measure, result), self._own if is_own else self._reference
        costs.append(cost)
        if is_own and cost == min(costs) and costs.count(cost) == 1:
            self._drop_best()
            self._best = result, manifest
            self._tree.rename(self._best_tree)
            self._log.replace(self._best_log)
        else:
            self._trees.put_aside(self._tree, manifest)

    def _drop_best(self) -> None:
        clear_path(self._best_tree)
        self._best_log.unlink(missing_ok=True)

    def _sum_up(self, result: RunResult) -> RunResult:
        """A result with the time that all repetitions took: the session's limits go by it."""
        total = replace(
            result,
            wall_s=sum(each.wall_s for each in self._results),
            cpu_s=sum(each.cpu_s or 0.0 for each in self._results),
        )
        replace_file(
            self._folder / "outcome.json", json.dumps(total.to_json()).encode(), is_durable=False
        )
        return total


def _order(measure: Measure, seed: int) -> Iterator[bool]:
    """True for a repetition of the program, False for one of the unchanged program. Both go first
    equally often: A B B A."""
    for index in range(measure.repeats):
        is_own_first = (index + seed) % 2 == 0
        yield from (is_own_first, not is_own_first) if measure.relative else (True,)


def get_cost(measure: Measure, result: RunResult) -> float:
    """What one repetition cost. Raises `Interrupted` if the runner could not measure it."""
    known = {
        "cpu_time": result.cpu_s,
        "wall_time": result.wall_s,
        "instructions": result.instructions,
    }
    cost = known[measure.what]
    if not cost:
        raise Interrupted(f"its {measure.what} could not be measured")
    return cost


def check_measurable(measure: Measure | None, runner: Runner) -> None:
    """Raise `TaskError` if the runner cannot measure what the metric is."""
    if measure is None or measure.what == "wall_time":
        return
    if measure.what == "cpu_time" and getattr(runner, "misses_cpu_time", False):
        raise TaskError(
            '[metric] measure = "cpu_time": here nothing counts the CPU time of processes that '
            "nobody waits for, so a program could hide it (no performance counter, as with "
            "kernel.perf_event_paranoid above 2, and no control group of its own); accepted here: "
            '"wall_time"'
        )
    if measure.what == "instructions" and not getattr(runner, "counts_instructions", False):
        raise TaskError(
            '[metric] measure = "instructions": the runner '
            f"{runner.name!r} cannot count them here. Virtual machines often have no such counter, "
            "and kernel.perf_event_paranoid must be 2 or less; accepted everywhere: "
            '"wall_time", and mostly "cpu_time"'
        )
