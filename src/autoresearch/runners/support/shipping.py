"""The harness's end of a run on another machine: what is sent there, and what comes back.

A runner on other machines makes a `Shipment` of each run, hands it to a `RemoteSlot` there
(`remote_slot.py`), and passes the answer to `receive`. How the two travel is the runner's business.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.errors import RunnerError
from autoresearch.files import replace_file
from autoresearch.measure.fingerprint import list_files
from autoresearch.protocols import RunResult, RunSpec, TreeManifest, TreeSource

CHUNK_BYTES = 8_000_000  # of a file that travels in several parts
LOG = "log"  # the name of a run's log for `read`
UNSETTLED = ("interrupted", "lost")  # such a run is executed again

Read = Callable[[str, int, int], bytes]
"""Reads a part of a run's file on the other machine: (path in the run's folder, begin, end)."""


@dataclass(frozen=True, slots=True)
class PackedInput:
    """The files of one input of a task, as they are now."""

    name: str  # differs when a file differs in its name, size or time
    source: Path
    files: tuple[tuple[str, int], ...]  # (path below `source`, bytes); "" for a single file

    def chunks(self) -> Iterator[dict[str, bytes]]:
        """The contents by path, in parts of moderate size."""
        part: dict[str, bytes] = {}
        size = 0
        for path, count in self.files:
            if part and size + count > CHUNK_BYTES:
                yield part
                part, size = {}, 0
            part[path] = (self.source / path if path else self.source).read_bytes()
            size += count
        yield part


@dataclass(frozen=True, slots=True)
class Shipment:
    """A run on its way to another machine."""

    number: int  # of the run, for an interrupt
    spec: RunSpec  # with the harness's paths
    manifest: TreeManifest
    contents: Mapping[str, bytes]  # by blob: those that the slot does not have
    inputs: Mapping[str, str]  # path on the harness's machine -> name of a packed input
    python: str | None  # the file that `python` means on the harness's machine


@dataclass(frozen=True, slots=True)
class Segments:
    """The parts of a file that are no holes, and its size."""

    size: int
    parts: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that ended on another machine, whose files are still there."""

    result: RunResult
    log_bytes: int
    files: Mapping[str, bytes]  # the small files that it made or changed, by path in the tree
    large: Mapping[str, Segments]  # the others


class InputPacker:
    """Packs the inputs of a task that the other machines do not have."""

    def __init__(self, mounted: Sequence[str], limit_bytes: int, how_to_mount: str) -> None:
        """`mounted` are paths that each machine has. `how_to_mount` ends the error for others."""
        self._mounted = [Path(path).expanduser() for path in mounted]
        self._limit_bytes = limit_bytes
        self._how_to_mount = how_to_mount

    def pack(self, sources: Collection[str]) -> dict[str, PackedInput]:
        """The inputs to ship, by path. Raises `RunnerError` if they are too large together."""
        packed = {
            source: _pack(Path(source)) for source in sources if not self._is_mounted(Path(source))
        }
        sizes = {source: sum(size for _, size in it.files) for source, it in packed.items()}
        if sum(sizes.values()) > self._limit_bytes:
            largest = max(sizes, key=lambda source: sizes[source])
            raise RunnerError(
                f"the task's inputs are {sum(sizes.values()) / 1e6:,.0f} MB, of which {largest} is "
                f"{sizes[largest] / 1e6:,.0f} MB; at most {self._limit_bytes / 1e6:,.0f} MB are "
                f"shipped. {self._how_to_mount}"
            )
        return packed

    def _is_mounted(self, source: Path) -> bool:
        return any(source.is_relative_to(path) for path in self._mounted)


def _pack(source: Path) -> PackedInput:
    files = sorted(list_files(str(source)))
    name = hashlib.sha256(repr((str(source), files)).encode(errors="surrogateescape")).hexdigest()
    return PackedInput(name[:24], source, tuple((path, max(0, size)) for path, size, _ in files))


def make_shipment(
    number: int,
    spec: RunSpec,
    source: TreeSource,
    known: Collection[str],
    inputs: Mapping[str, PackedInput],
) -> Shipment:
    """Raises what the source raises. `known` are the blobs that the slot has."""
    manifest = source.manifest()
    blobs = {file.blob for file in manifest.files.values()}
    return Shipment(
        number,
        spec,
        manifest,
        {blob: source.read(blob) for blob in blobs - set(known)},
        {path: packed.name for path, packed in inputs.items()},
        shutil.which("python", path=spec.env.get("PATH")),
    )


def follow_log(spec: RunSpec, read: Read) -> int:
    """Append to the log here what the run has printed there since the latest call. Returns the
    number of bytes."""
    begin = spec.log.stat().st_size if spec.log.exists() else 0
    end = begin + CHUNK_BYTES if spec.log_bytes is None else spec.log_bytes
    if begin >= end:
        return 0
    with spec.log.open("ab") as log:
        return log.write(read(LOG, begin, min(end, begin + CHUNK_BYTES)))


def receive(spec: RunSpec, ended: Ended, read: Read, slot: int) -> RunResult:
    """Write what a run left to the harness's paths. Return its result."""
    with spec.log.open("ab") as log:
        log.truncate(min(log.tell(), ended.log_bytes))
        for begin, end in _split(log.tell(), ended.log_bytes):
            log.write(read(LOG, begin, end))
    for path, content in ended.files.items():
        _place(spec.tree / path).write_bytes(content)
    for path, segments in ended.large.items():
        with _place(spec.tree / path).open("wb") as file:
            for part in segments.parts:
                for begin, end in _split(*part):
                    file.seek(begin)
                    file.write(read(f"tree/{path}", begin, end))
            file.truncate(segments.size)
    result = replace(ended.result, slot=slot)
    if result.stopped not in UNSETTLED:
        replace_file(spec.outcome, json.dumps(result.to_json()).encode(), is_durable=False)
    return result


def _split(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(begin, end, CHUNK_BYTES):
        yield at, min(end, at + CHUNK_BYTES)


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
