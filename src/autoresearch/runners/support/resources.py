"""The cores and GPUs of this machine, and a slot's share of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from autoresearch.errors import RunnerError
from autoresearch.formatting import counted

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


def divide_machine(slots: int, cores_each: int | None = None) -> list[SlotResources]:
    """The part of this machine for each slot. With `cores_each` a slot has so many cores of its
    own: the last ones, as interrupts and other programs mostly use the first. Raises `RunnerError`
    if there are fewer cores, or if a GPU that the environment names is not there."""
    gpus = [share(_list_gpus(), n, slots) for n in range(slots)]
    cores = list_cores()
    if slots > len(cores):
        raise RunnerError(
            f"[runner] slots = {slots}: this process may use {counted(len(cores), 'core')}, and "
            f"slots that share one slow each other down. Accepted here: 1 to {len(cores)}; "
            "`autoresearch check --slots auto` measures how many pay"
        )
    if cores_each is None:
        return [SlotResources(share(cores, n, slots), gpus[n]) for n in range(slots)]
    if (needed := slots * cores_each) > len(cores):
        raise RunnerError(
            f"[runner] slots = {slots} with cores = {cores_each} need {counted(needed, 'core')}; "
            f"this process may use {len(cores)}. Lower one of them"
        )
    own = cores[-needed:]
    return [SlotResources(share(own, n, slots) or tuple(own), gpus[n]) for n in range(slots)]


def list_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def count_usable_slots(cores_each: int | None = None) -> int:
    """The most slots that share no core, and no GPU if there are GPUs. At least 1."""
    most = len(list_cores()) // (cores_each or 1)
    return max(1, min(most, len(_list_gpus()) or most))


def share(items: Sequence[T], slot: int, slots: int) -> tuple[T, ...]:
    """A slot's part of the cores or GPUs. Empty for a single slot, which may use everything. If
    there are fewer items than slots, several slots use the same item."""
    if slots == 1 or not items:
        return ()
    if len(items) < slots:
        return (items[slot % len(items)],)
    return tuple(items[slot * len(items) // slots : (slot + 1) * len(items) // slots])


def _list_gpus() -> list[int | str]:
    """The GPUs that this process may use; none without NVIDIA's tools, unless the environment names
    some. Raises `RunnerError` if it names one by a number that NVIDIA's tools do not list."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [device for device in (visible or "").split(",") if device]
    if visible is not None and not any(map(str.isdecimal, named)):
        return list(named)
    if shutil.which("nvidia-smi") is None:
        return list(named)
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    there = sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    if missing := [device for device in named if device.isdecimal() and int(device) >= there]:
        raise RunnerError(
            f"CUDA_VISIBLE_DEVICES = {visible}: there is no GPU {missing[0]}; `nvidia-smi -L` "
            f"lists {counted(there, 'GPU')}, counted from 0"
        )
    return list(range(there)) if visible is None else list(named)
