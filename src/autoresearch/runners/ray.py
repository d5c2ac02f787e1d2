"""Executes runs on a Ray cluster: one that is up, or one on this machine that it starts.

Each slot is an actor (`support/remote_slot.py`), for which Ray reserves the resources of one run. A
run's tree travels as content, and its output comes back while it goes on. A run whose node is lost
is placed again. All nodes in use are of one kind: numbers of different machines are never compared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from autoresearch.errors import AutoresearchError, RunnerError
from autoresearch.protocols import RunResult, RunSpec, TreeSource
from autoresearch.runners.support.ray_cluster import Needs, RayCluster, as_future
from autoresearch.runners.support.shipping import (
    InputPacker,
    PackedInput,
    follow_log,
    make_shipment,
    receive,
)
from autoresearch.task import values
from autoresearch.task.model import RunnerSettings, Task
from autoresearch.task.tables import read_options

FOLLOW_S = 1.0  # between two looks at the output of a run
QUIET_S = 10.0  # between two looks at most, while a run prints nothing
FOLLOWS_PER_S = 20  # of all runs together
KEEP_S = 1.0  # between two looks at the slots
HEAD_S = 5.0  # between two looks at the head node
HEAD_LOST_S = 20.0  # without an answer of the head node; Ray ends this process after 60 s
NO_SLOT_S = 600.0  # without any slot: the cluster has lost its nodes
FIRST_SLOT_S = 120.0  # for the first slot: others may use the cluster
END_S = 30.0  # for a run to end after an interrupt; then its actor is killed
ANSWER_S = 2.0  # between two looks at the cluster, while an actor does not answer
NODE_DEATH_S = 15.0  # until Ray has noticed that a node died
MOVES = 10  # of one run to another node: it may itself be to blame
INTERRUPT = "interrupt"
HOW_TO_MOUNT = (
    "Put them on every node under the same path, on a shared disk or in its image, and name them: "
    '[runner.ray] mounted = ["data/"]; or raise [runner.ray] ship_limit'
)


@dataclass(frozen=True, slots=True)
class Options:
    """The keys of `[runner.ray]`."""

    address: values.Text = "local"
    cpus: values.Count = 1
    gpus: values.Share = 0.0
    resources: values.Amounts = ()
    kind: values.Text = ""
    mounted: values.Texts = ()
    ship_limit_bytes: values.Size = 1_000_000_000


def create(settings: RunnerSettings) -> RayRunner:
    options = read_options(Options, "ray", settings.options.get("ray", {}), RunnerError)
    return RayRunner(settings.slots, options, settings.memory_bytes)


class RayRunner:
    name = "ray"

    def __init__(self, slots: int, options: Options, memory_bytes: int | None = None) -> None:
        """Raises `RunnerError` if the cluster cannot be reached, or cannot hold so many runs."""
        self.slots = slots
        self._options = options
        self._needs = Needs(options.cpus, options.gpus, memory_bytes, dict(options.resources))
        self._packer = InputPacker(options.mounted, options.ship_limit_bytes, HOW_TO_MOUNT)
        self._cluster = RayCluster(options.address)
        self._changed = threading.Condition()
        self._free: list[_Slot] = []
        self._placed: dict[int, _Slot] = {}
        self._pending: dict[int, Any] = {}  # actors that have not answered yet
        self._missing = set(range(slots))
        self._refused: set[str] = set()  # nodes of another kind, or without the package
        self._busy: dict[int, SimpleQueue[Any]] = {}  # by the run's number
        self._numbers = count()
        self._interrupts = 0
        self._packed: dict[str, list[Any]] = {}  # the parts of inputs in Ray's store, by name
        self._error: RunnerError | None = None  # why nothing can be executed any more
        self._is_closed = False
        try:
            machines = self._cluster.select_nodes(self._needs, slots, options.kind)
            self._machine = next(iter(machines.values()))
            self.facts = self._machine.facts
            self.misses_cpu_time = not all(it.counts_cpu_time for it in machines.values())
            self._slot_seen = time.monotonic()
            self._keeper = threading.Thread(target=self._keep, name="ray-keeper", daemon=True)
            self._keeper.start()
            self._wait_for_first_slot()
        except BaseException:
            self.close()
            raise

    def check(self, task: Task) -> None:
        """Raise `RunnerError` for a task whose runs need the harness's disk."""
        if task.run.setup is not None:
            raise RunnerError(
                "[run] setup works on one machine only. Prepare every node of the Ray cluster "
                "before it starts, and leave `setup` out"
            )
        mounted = [str((task.root / path).resolve()) for path in self._options.mounted]
        self._packer = InputPacker(mounted, self._options.ship_limit_bytes, HOW_TO_MOUNT)
        names = (*task.run.inputs, *task.hidden)
        self._packer.pack([str((task.root / name).resolve()) for name in names])

    # ---- runs ------------------------------------------------------------------------------

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        """See `Runner`. A run whose node dies is placed on another one."""
        interrupts = self._interrupts
        inputs = self._packer.pack(set(source.manifest().links.values()))
        moves: list[str] = []
        while True:
            slot = self._take(interrupts)
            if slot is None:
                return RunResult(None, "interrupted", 0.0, 0.0, None)
            result = self._run_on(slot, spec, source, inputs, interrupts)
            if result.stopped != "lost" or len(moves) == MOVES or self._is_alive(slot):
                detail = "; ".join(filter(None, [result.detail, *moves]))
                return replace(result, detail=detail)
            moves.append(f"placed again: its node {slot.host} was lost")

    def _take(self, interrupts: int) -> _Slot | None:
        """Wait for a free slot. None if the run is interrupted meanwhile."""
        with self._changed:
            while True:
                self._raise_any()
                if self._interrupts != interrupts:
                    return None
                if self._free:
                    return self._free.pop(0)
                self._changed.wait(0.2)  # `interrupt` must not wait for a lock

    def _raise_any(self) -> None:
        if self._is_closed:
            raise RunnerError("the runner is closed")
        if self._error is not None:
            raise self._error

    def _run_on(
        self,
        slot: _Slot,
        spec: RunSpec,
        source: TreeSource,
        inputs: Mapping[str, PackedInput],
        interrupts: int,
    ) -> RunResult:
        number = next(self._numbers)
        events = self._busy[number] = SimpleQueue()
        is_lost = is_made = False
        try:
            shipment = make_shipment(number, spec, source, slot.known, inputs)
            spec.log.write_bytes(b"")
            is_made = True
            self._ship(slot, inputs)
            slot.known = {file.blob for file in shipment.manifest.files.values()}
            as_future(slot.actor.run.remote(shipment)).add_done_callback(events.put)
            if self._interrupts != interrupts:
                events.put(INTERRUPT)
            return self._follow(slot, number, spec, events)
        except (AutoresearchError, KeyboardInterrupt):
            raise
        except Exception as error:
            if not is_made or _is_of_disk(error):
                raise
            is_lost = self._cluster.is_loss(error)
            if self._error is not None:
                raise self._error from error
            if not is_lost:  # what the actor raised
                raise RunnerError(f"node {slot.host}: {_get_cause(error)}") from error
            why = f"its slot on node {slot.host} was lost: {type(error).__name__}"
            return RunResult(None, "lost", 0.0, None, None, slot.number, why)
        finally:
            del self._busy[number]
            self._give_back(slot, is_lost)

    def _follow(
        self, slot: _Slot, number: int, spec: RunSpec, events: SimpleQueue[Any]
    ) -> RunResult:
        """Copy the output of a run until it has ended."""
        read = partial(self._read, slot)
        shortest_s = follow_s = max(FOLLOW_S, self.slots / FOLLOWS_PER_S)
        kill_at: float | None = None
        while True:
            try:
                event = events.get(timeout=follow_s)
            except Empty:
                if kill_at is not None and time.monotonic() > kill_at:
                    self._cluster.kill(slot.actor)
                is_silent = follow_log(spec, read) == 0
                follow_s = min(2 * follow_s, QUIET_S) if is_silent else shortest_s
                continue
            if isinstance(event, RunnerError):
                raise event
            if event is INTERRUPT:
                if kill_at is None:
                    kill_at = time.monotonic() + END_S
                    slot.actor.interrupt.remote(number)
                continue
            return receive(spec, event.result(), read, slot.number)

    def _read(self, slot: _Slot, path: str, begin: int, end: int) -> bytes:
        content: bytes = self._get(slot.actor.read.remote(path, begin, end))
        return content

    def _get(self, reference: Any) -> Any:
        """Wait for what a call returns, but not longer than the cluster lives."""
        future = as_future(reference)
        while not wait([future], ANSWER_S).done:
            if self._error is not None:
                raise self._error
        return future.result()

    def _ship(self, slot: _Slot, inputs: Mapping[str, PackedInput]) -> None:
        """Send the inputs that a slot does not have. Ray copies each part once to a node."""
        for packed in inputs.values():
            if packed.name in slot.inputs:
                continue
            if packed.name not in self._packed:
                self._packed[packed.name] = [self._cluster.put(it) for it in packed.chunks()]
            for part in self._packed[packed.name]:
                self._get(slot.actor.add_input.remote(packed.name, part, False))
            self._get(slot.actor.add_input.remote(packed.name, {}, True))
            slot.inputs.add(packed.name)

    def _give_back(self, slot: _Slot, is_lost: bool) -> None:
        if is_lost:
            self._cluster.kill(slot.actor)
        with self._changed:
            if is_lost:
                self._placed.pop(slot.number, None)
                self._missing.add(slot.number)
            else:
                self._free.append(slot)
            self._changed.notify()

    def _is_alive(self, slot: _Slot) -> bool:
        """Whether the node of a lost slot is alive: then the run may have killed the slot. Raises
        `RunnerError` if the head node is gone, too."""
        deadline = time.monotonic() + NODE_DEATH_S
        while time.monotonic() < deadline:
            self._raise_any()
            with suppress(Exception):  # Ray's, while the cluster changes
                if not self._cluster.has_head():  # `_keep` finds out whether it is gone
                    deadline = time.monotonic() + NODE_DEATH_S
                elif slot.node not in self._cluster.list_nodes():
                    return False
            time.sleep(0.5)
        return True

    # ---- slots -----------------------------------------------------------------------------

    def _keep(self) -> None:
        """Place the slots that are missing, and watch the head node, until the end."""
        head_seen = time.monotonic()
        while not self._is_closed and self._error is None:
            try:
                now = time.monotonic()
                if not self._missing and now - head_seen < HEAD_S:
                    pass  # a look costs CPU time, which is taken from runs on this machine
                elif self._cluster.has_head():
                    head_seen = now
                    self._place_missing()
                elif now - head_seen > HEAD_LOST_S:
                    self._fail(
                        f"the head node of the Ray cluster ({self._options.address}) is gone. All "
                        "that has finished is recorded; start the cluster and run the same "
                        "command to go on"
                    )
                if self._placed:
                    self._slot_seen = now
                elif now - self._slot_seen > NO_SLOT_S:
                    self._fail(f"the Ray cluster has had no room for a run for {NO_SLOT_S:g} s")
            except RunnerError as error:
                self._fail(str(error))
            except Exception:
                pass  # Ray's errors while nodes come and go: look again
            time.sleep(KEEP_S)

    def _place_missing(self) -> None:
        if not self._missing:
            return
        nodes = self._cluster.list_nodes()
        fitting = [node for node, has in nodes.items() if self._needs.count_room(has)]
        if same := [node for node in fitting if self._is_of_kind(node)]:
            for number in sorted(self._missing):
                self._missing.discard(number)
                actor = self._pending[number] = self._cluster.start(self._needs, same)
                located = as_future(actor.locate.remote())
                located.add_done_callback(partial(self._note_located, number, actor))

    def _is_of_kind(self, node: str) -> bool:
        """Whether a node, which may have joined later, can execute this session's runs."""
        if node not in self._refused:
            try:
                if self._cluster.describe(node).kind == self._machine.kind:
                    return True
            except RunnerError:
                pass  # such as a Python without the package: the others go on
            self._refused.add(node)
        return False

    def _note_located(self, number: int, actor: Any, located: Any) -> None:
        """Called in a thread of Ray's, when an actor has been placed or has failed."""
        with self._changed:
            self._pending.pop(number, None)
            if located.cancelled() or (error := located.exception()) is not None:
                if not self._is_closed and not self._cluster.is_loss(error):
                    self._fail(f"a slot of the Ray cluster cannot start: {_get_cause(error)}")
                self._missing.add(number)
                return
            node = located.result()
            slot = _Slot(number, actor, node, self._cluster.describe(node).host)
            self._placed[number] = slot
            self._free.append(slot)
            self._changed.notify()

    def _wait_for_first_slot(self) -> None:
        deadline = time.monotonic() + FIRST_SLOT_S
        with self._changed:
            while not self._placed:
                self._raise_any()
                if time.monotonic() > deadline:
                    raise RunnerError(
                        f"the Ray cluster had no room for a run within {FIRST_SLOT_S:g} s: others "
                        "use it. Try again later, or ask for less in [runner.ray]"
                    )
                self._changed.wait(0.2)

    def _fail(self, why: str) -> None:
        self._error = RunnerError(why)
        for events in list(self._busy.values()):
            events.put(self._error)

    # ---- the end ---------------------------------------------------------------------------

    def interrupt(self) -> None:
        self._interrupts += 1
        for events in list(self._busy.values()):
            events.put(INTERRUPT)

    def close(self) -> None:
        if self._is_closed:
            return
        self.interrupt()
        self._is_closed = True
        deadline = time.monotonic() + END_S
        while self._busy and self._error is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._error is None:
            with suppress(Exception):  # the cluster is gone
                self._close_actors(deadline)
        self._cluster.close()

    def _close_actors(self, deadline: float) -> None:
        """Let the actors remove what they have made, then kill them."""
        actors = [slot.actor for slot in self._placed.values()]
        for end in [as_future(actor.close.remote()) for actor in actors]:
            end.exception(max(0.0, deadline - time.monotonic()))
        for actor in (*actors, *self._pending.values()):
            self._cluster.kill(actor)


@dataclass(slots=True, eq=False)
class _Slot:
    """A slot whose actor has been placed, and what the actor has."""

    number: int
    actor: Any
    node: str
    host: str
    known: set[str] = field(default_factory=set)  # blobs
    inputs: set[str] = field(default_factory=set)  # names of packed inputs


def _is_of_disk(error: Exception) -> bool:
    """Whether an error is of this machine's files, and not of the connection."""
    return isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError)


def _get_cause(error: BaseException) -> str:
    """The words of an error that an actor raised, without its traceback."""
    cause = getattr(error, "cause", None) or error
    return str(cause).strip().splitlines()[-1]
