"""The cores and GPUs of this machine, and a slot's share of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SlotResources:
    """The cores and GPUs of one slot. An empty field reserves nothing: all may be used."""

    cores: tuple[int, ...] = ()
    gpus: tuple[int | str, ...] = ()  # CUDA's numbers or names

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """A run's environment with the variables that keep it to these resources."""
        env = dict(env)
        if self.cores:
            env.setdefault("OMP_NUM_THREADS", str(len(self.cores)))
            if sys.platform == "darwin":
                env.setdefault("VECLIB_MAXIMUM_THREADS", str(len(self.cores)))
        if self.gpus:  # a subset of the GPUs that `env` may name
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, self.gpus))
        return env


def divide_machine(slots: int) -> list[SlotResources]:
    """The part of this machine for each slot."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if has_affinity else range(os.cpu_count() or 1)
    gpus = _list_gpus()
    return [SlotResources(share(cores, n, slots), share(gpus, n, slots)) for n in range(slots)]


def share(items: Sequence[T], slot: int, slots: int) -> tuple[T, ...]:
    """A slot's part of the cores or GPUs. Empty for a single slot, which may use everything. If
    there are fewer items than slots, several slots use the same item."""
    if slots == 1 or not items:
        return ()
    if len(items) < slots:
        return (items[slot % len(items)],)
    return tuple(items[slot * len(items) // slots : (slot + 1) * len(items) // slots])


def _list_gpus() -> list[int | str]:
    """The GPUs that this process may use; none without NVIDIA's tools."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return list(range(sum(line.startswith("GPU ") for line in listing.stdout.splitlines())))
