"""The instructions that a process's descendants execute, counted by the processor.

As with `cpu_clock.py`, each descendant inherits the counter at its birth, so nothing that a run
starts goes uncounted. Instructions of the kernel are not counted: that needs a privilege. Virtual
machines often have no such counter.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache

from autoresearch.runners.warden.cpu_clock import open_counter

HARDWARE, INSTRUCTIONS = 0, 1


class InstructionCounter:
    """Counts from its creation, for processes started after that."""

    def __init__(self, kind: int = HARDWARE, event: int = INSTRUCTIONS) -> None:
        """Another event is for tests on machines without this one."""
        self._all = open_counter(kind, event, times=True)
        self._own = open_counter(kind, event, inherit=False, times=True)

    def used(self) -> int | None:
        """Instructions of all descendants so far, dead or alive. None where nothing counts them, or
        if another program's counters have taken the place of this one for a while."""
        if self._all < 0 or self._own < 0:
            return None
        counts = []
        for descriptor in (self._all, self._own):
            count, wanted_ns, ran_ns = struct.unpack("=QQQ", os.read(descriptor, 24))
            if ran_ns < wanted_ns:
                return None
            counts.append(count)
        return int(counts[0] - counts[1])


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether this machine's processor counts instructions, and the kernel lets this user know."""
    descriptor = open_counter(HARDWARE, INSTRUCTIONS)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0
