"""A Ray cluster: the connection, the nodes that can hold a run, and the actors on them.

Ray is imported when a cluster is needed: it takes a second.
https://docs.ray.io/en/latest/ray-core/actors.html
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from autoresearch import __version__
from autoresearch.errors import RunnerError
from autoresearch.runners.support.remote_slot import Machine, RemoteSlot, describe_machine

REACH_S = 5.0  # for a connection to the head node
PROBE_S = 120.0  # for a node's answer: Ray starts a process there first
CALLS = 4  # of an actor at a time: the run, its output, an interrupt
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ray sets handlers of its own
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no news of this user to Ray's makers
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # nothing from its nodes on the terminal
    "RAY_ENABLE_AUTO_CONNECT": "0",  # without the cluster, start none here
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # our children execute other programs at once
    "GRPC_VERBOSITY": "NONE",
}
"""Of this process, for Ray and its gRPC, unless the user has set them."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What Ray reserves for one run."""

    cpus: int
    gpus: float
    memory_bytes: int | None
    resources: Mapping[str, float]

    def as_resources(self) -> dict[str, float]:
        """In Ray's own names."""
        own = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_bytes or 0}
        return {name: count for name, count in {**own, **self.resources}.items() if count}

    def count_room(self, node: Mapping[str, float]) -> int:
        """How many runs a node with these resources can hold at a time."""
        return int(min(node.get(name, 0.0) / count for name, count in self.as_resources().items()))


class RaySlot(RemoteSlot):
    """The actor of one slot, in a worker process of Ray."""

    def __init__(self, cpus: int) -> None:
        context = importlib.import_module("ray").get_runtime_context()
        self._node: str = context.get_node_id()
        super().__init__(cpus, tuple(context.get_accelerator_ids().get("GPU", ())))

    def locate(self) -> str:
        """The id of its node."""
        return self._node


class RayCluster:
    """A process has one connection to Ray. If it has one already, that is used, and stays."""

    def __init__(self, address: str) -> None:
        """`address` is "local" for a cluster on this machine alone, which ends with this object,
        "auto", "HOST:PORT" or "ray://HOST:PORT". Raises `RunnerError` if it cannot be reached."""
        self.address = address
        self._ray = _import_ray()
        self.exceptions: Any = importlib.import_module("ray.exceptions")
        self._strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
        self._is_own = not self._ray.is_initialized()
        if self._is_own:
            self._connect()
        self._head = self._find_head()
        self._machines: dict[str, Machine] = {}  # by node

    def _connect(self) -> None:
        if host := _split_address(self.address):
            _reach(self.address, host)
        own = {"include_dashboard": False} if self.address == "local" else {}
        if not self.address.startswith("ray://"):
            own["log_to_driver"] = False
        in_main = threading.current_thread() is threading.main_thread()
        handlers = {number: signal.getsignal(number) for number in SIGNALS if in_main}
        try:
            with warnings.catch_warnings(action="ignore"):  # the error says the same
                self._ray.init(address=self.address, logging_level="ERROR", **own)
            logging.getLogger("ray").setLevel(logging.CRITICAL)  # of a client, too
        except Exception as error:  # of many kinds, from Ray and gRPC
            raise RunnerError(_explain_refusal(self.address, error)) from error
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _find_head(self) -> tuple[str, int] | None:
        """The address of the process that the connection depends on."""
        own = self.address if self.address.startswith("ray://") else None
        return _split_address(own or self._ray.get_runtime_context().gcs_address)

    def has_head(self) -> bool:
        """Whether the head node still answers."""
        try:
            socket.create_connection(self._head or ("", 0), REACH_S).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._is_own and self.has_head():
            with suppress(Exception):  # it is gone now
                self._ray.shutdown()

    # ---- nodes -----------------------------------------------------------------------------

    def list_nodes(self) -> dict[str, Mapping[str, float]]:
        """The resources of the nodes that are alive, by the node's id."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def select_nodes(self, needs: Needs, slots: int, kind: str) -> dict[str, Machine]:
        """The nodes that can hold a run, all of one kind. Raises `RunnerError` if there are none,
        if they have too little room for `slots` runs, or are of several kinds. `kind` is a part of
        the description of the kind to use."""
        nodes = self.list_nodes()
        room = {node: n for node, has in nodes.items() if (n := needs.count_room(has))}
        wanted = ", ".join(f"{name} {count:g}" for name, count in needs.as_resources().items())
        if not room:
            has = "; ".join(_describe_resources(resources) for resources in nodes.values())
            raise RunnerError(
                f"no node of the Ray cluster can hold a run, which needs {wanted}. "
                f"The nodes have: {has}. Ask for less in [runner.ray], or add such a node"
            )
        found = {node: self.describe(node) for node in room}
        machines = {node: it for node, it in found.items() if kind in it.kind}
        kinds = defaultdict(list)
        for machine in machines.values():
            kinds[machine.kind].append(machine.host)
        if len(kinds) != 1:
            listed = "\n".join(f"  {it.kind} ({it.host})" for it in (machines or found).values())
            raise RunnerError(
                "the nodes of the Ray cluster are of several kinds, and numbers of different "
                "machines cannot be compared. Choose one by a part of its description, such as "
                f'[runner.ray] kind = "A100":\n{listed}'
                if machines
                else f"no node of the Ray cluster is of the kind {kind!r}. There are:\n{listed}"
            )
        if (places := sum(room[node] for node in machines)) < slots:
            raise RunnerError(
                f"the Ray cluster has room for {places} runs at a time, each with {wanted}; "
                f"[runner] slots = {slots}. Accepted: at most {places}, or add nodes"
            )
        return machines

    def describe(self, node: str) -> Machine:
        """The machine of a node, as a process there sees it. Raises `RunnerError` if it cannot
        execute runs."""
        if node not in self._machines:
            place = self._strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            probe = self._ray.remote(describe_machine).options(
                num_cpus=0, scheduling_strategy=place, max_retries=0
            )
            try:
                machine: Machine = self._ray.get(probe.remote(), timeout=PROBE_S)
            except Exception as error:
                raise RunnerError(self._explain_probe(node, error)) from error
            if machine.version != __version__:
                raise RunnerError(
                    f"node {machine.host} has autoresearch {machine.version}; needed: "
                    f"{__version__}, as here"
                )
            self._machines[node] = machine
        return self._machines[node]

    def _explain_probe(self, node: str, error: Exception) -> str:
        hosts = [it["NodeManagerHostname"] for it in self._ray.nodes() if it["NodeID"] == node]
        host = f"node {', '.join(hosts)} of the Ray cluster"
        if isinstance(error, self.exceptions.GetTimeoutError):
            return f"{host} gave no answer within {PROBE_S:g} s"
        if "No module named" in str(error):
            name = str(error).rpartition("No module named")[2].split()[0].strip("'\".")
            return (
                f"{host} cannot execute runs: its Python has no {name}. Install autoresearch "
                f"{__version__} there, in the Python that started Ray: pip install "
                "'autoresearch[ray]'"
            )
        return f"{host} cannot execute runs: {_last_line(error)}"

    # ---- actors ----------------------------------------------------------------------------

    def start(self, needs: Needs, nodes: Sequence[str]) -> Any:
        """Start a slot's actor on one of the nodes, as soon as Ray has the room."""
        label = {"ray.io/node-id": self._strategies.In(*nodes)}
        options = {
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "resources": dict(needs.resources),
            "max_concurrency": CALLS,
            "max_restarts": 0,
            "scheduling_strategy": self._strategies.NodeLabelSchedulingStrategy(label),
        }
        if needs.memory_bytes is not None:
            options["memory"] = needs.memory_bytes
        return self._ray.remote(RaySlot).options(**options).remote(needs.cpus)

    def put(self, value: object) -> Any:
        return self._ray.put(value)

    def kill(self, actor: Any) -> None:
        with suppress(Exception):  # it is dead, or the cluster is gone
            self._ray.kill(actor)

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error means that an actor or its node is gone."""
        return not isinstance(error, self.exceptions.RayTaskError)


def as_future(reference: Any) -> Future[Any]:
    """A future of what a call returns."""
    future: Future[Any] = reference.future()
    return future


def _import_ray() -> Any:
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise RunnerError(
            "the runner ray needs the package ray: pip install 'autoresearch[ray]' "
            f"(python is {sys.executable})"
        ) from error


def _split_address(address: str) -> tuple[str, int] | None:
    """(host, port) of an address that names them."""
    with suppress(ValueError):
        parts = urlsplit(address if "://" in address else f"//{address}")
        if parts.hostname and parts.port:
            return parts.hostname, parts.port
    return None


def _reach(address: str, host: tuple[str, int]) -> None:
    try:
        socket.create_connection(host, REACH_S).close()
    except OSError as error:
        raise RunnerError(
            f"[runner.ray] address: nothing answers at {address} ({error.strerror or error}). "
            "Accepted: the address of a cluster that is up, such as ray://HOST:10001 or "
            'HOST:6379, "auto" on one of its nodes, or "local"'
        ) from error


def _explain_refusal(address: str, error: Exception) -> str:
    text = str(error)
    if "ersion" in text and ("mismatch" in text or "differ" in text):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"the Ray cluster at {address} has another version: {' '.join(lines)}"
    return (
        f"[runner.ray] address = {address!r}: {_last_line(error)}. Is it Ray of the version here? "
        "If the cluster asks for a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or its file"
    )


def _describe_resources(resources: Mapping[str, float]) -> str:
    shown = {name: count for name, count in resources.items() if not name.startswith("node:")}
    return ", ".join(f"{name} {count:g}" for name, count in sorted(shown.items()))


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
