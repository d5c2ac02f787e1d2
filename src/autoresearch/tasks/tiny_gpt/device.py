"""
The device of a run: which one it is, the clock of its budget, and the summary at the end. Frozen.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from corpus import fail

# -------------------------------------------------------------------------------------------------
# The budget
#
# The budget is time: with a budget of steps or tokens, a larger model always wins. It is CPU time,
# because wall time also measures other programs: 30 wall seconds reached 1.47 on an idle machine,
# 1.79 to 1.84 on a busy one; 30 CPU seconds reached 1.47 on both.


def budget_clock() -> str:
    """Return AUTORESEARCH_BUDGET_CLOCK: "cpu", "wall", or "" if it is not set."""
    clock = os.environ.get("AUTORESEARCH_BUDGET_CLOCK", "")
    if clock not in ("", "cpu", "wall"):
        fail(f'AUTORESEARCH_BUDGET_CLOCK is "{clock}"; accepted: cpu, wall')
    return clock


def pick_device() -> str:
    """Return "cuda", "mps" or "cpu". With a budget of CPU seconds, training is on the CPU."""
    import torch

    if budget_clock() == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


class Budget:
    """The clock of one training run. It starts when it is created.

    `seconds` is AUTORESEARCH_BUDGET, or `default_s` if that is not set. Unless
    AUTORESEARCH_BUDGET_CLOCK is set, they are CPU seconds of this process on the CPU, wall seconds
    on other devices.
    """

    def __init__(self, device: str, default_s: float) -> None:
        text = os.environ.get("AUTORESEARCH_BUDGET", str(default_s))
        try:
            self.seconds = float(text)
        except ValueError:
            self.seconds = math.nan
        if not (0 < self.seconds < math.inf):
            fail(f'AUTORESEARCH_BUDGET is "{text}"; accepted: a positive number of seconds')
        self.device = device
        self.clock = budget_clock() or ("cpu" if device == "cpu" else "wall")
        self.start = self.now()

    def now(self) -> float:
        if self.clock == "cpu":
            return time.process_time()
        synchronize(self.device)  # a GPU still works on its queue when Python is done
        return time.perf_counter()

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return self.now() - self.start

    def progress(self) -> float:
        """Return the fraction of the budget that is spent: 0 at the start, 1 from the end on."""
        return min(self.elapsed() / self.seconds, 1.0)


def keep_freed_memory() -> None:
    """On Linux, let malloc keep freed memory.

    Otherwise each step returns its larger tensors (8 MB of logits) to the kernel and gets them back
    page by page, which takes a fifth of a step on a CPU.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def synchronize(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


# -------------------------------------------------------------------------------------------------
# The summary

# Dense bfloat16 FLOP/s from the data sheets.
PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989.5e12,
    "H100": 989.5e12,
    "A100": 312e12,
    "L40S": 362e12,
    "5090": 209.5e12,
    "4090": 165e12,
    "3090": 71e12,
    "MI300X": 1307e12,
    "MI250X": 383e12,
}


def print_summary(
    budget: Budget,
    training_seconds: float,
    steps: int,
    tokens: int,
    flops: float,
    params: int,
    depth: int,
    devices: int = 1,
    file: str | None = None,
) -> None:
    """Print the last lines of a run; score.py adds `val_bpb`. Write them to `file` too, as JSON.

    The budget's clock decides whether seconds are CPU or wall seconds. total_seconds include the
    imports. `flops` are those of the whole training, on all `devices`.
    """
    total = time.process_time() if budget.clock == "cpu" else time.perf_counter() - IMPORTED_AT
    peak = peak_flops(budget.device) * devices
    summary = {
        "training_seconds": f"{training_seconds:.1f}",
        "total_seconds": f"{total:.1f}",
        "peak_vram_mb": f"{peak_memory_mb(budget.device):.1f}",
        "mfu_percent": f"{100 * flops / training_seconds / peak:.2f}",
        "total_tokens_M": f"{tokens / 1e6:.3f}",
        "num_steps": f"{steps}",
        "num_params_M": f"{params / 1e6:.3f}",
        "depth": f"{depth}",
    }
    print("---")
    for name, value in summary.items():
        print(f"{name + ':':<17} {value}")
    if file is not None:
        numbers = {name: float(value) for name, value in summary.items()}
        Path(file).write_text(json.dumps(numbers), encoding="utf-8")


IMPORTED_AT = time.perf_counter()


def peak_memory_mb(device: str) -> float:
    """Return the peak memory in MiB: the GPU's on CUDA, else this process's resident set."""
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def peak_flops(device: str) -> float:
    """Return the device's peak FLOP/s in the type that it trains in: from the data sheet, else
    measured, which takes 0.1 s after training, with the training's threads."""
    import torch

    if device == "cuda":
        for name, flops in PEAK_FLOPS.items():
            if name in torch.cuda.get_device_name():
                return flops
        return measure_peak_flops(device, torch.bfloat16)
    return measure_peak_flops(device, torch.float32)


def measure_peak_flops(device: str, dtype: Any) -> float:
    """Return the FLOP/s of a large matmul."""
    import torch

    side = 768 if device == "cpu" else 4096
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = math.inf
    now = time.process_time if device == "cpu" else time.perf_counter
    for _ in range(6):
        synchronize(device)
        start = now()
        a @ a
        synchronize(device)
        best = min(best, now() - start)
    return 2 * side**3 / best
