"""A runner whose processes share no folder with the harness.

It shows that the contract in `protocols.py` is enough for a runner on other machines. The far
process gets a run as JSON, asks for files by blob, makes the tree in a folder of its own, and
returns the result, the log and the changed files as content. The harness's paths are replaced
before a run is sent.
"""

from __future__ import annotations

import base64
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoresearch.errors import RunnerError
from autoresearch.files import replace_file
from autoresearch.protocols import RunResult, RunSpec, TreeManifest, TreeSource
from autoresearch.runners.local import LocalRunner
from autoresearch.runners.support.content import changed_files, write_tree

PLACEHOLDER = Path("/harness")  # replaces the harness's paths on the way; does not exist


class FarRunner:
    """The harness's end: a far process for each slot."""

    name = "far"

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._far = [_Far(slot) for slot in range(slots)]
        self._free: queue.Queue[_Far] = queue.Queue()
        self._is_closed = False
        for far in self._far:
            self._free.put(far)

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        if self._is_closed:
            raise RunnerError("the runner is closed")
        far = self._free.get()
        try:
            return far.run(spec, source)
        finally:
            self._free.put(far)

    def interrupt(self) -> None:
        for far in self._far:
            far.send({"interrupt": True})

    def close(self) -> None:
        self._is_closed = True
        for far in self._far:
            far.close()


class _Far:
    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._lock = threading.Lock()  # for writing
        self._reading = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    def send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                pass  # the process has ended: `run` gets no answer either

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        manifest = source.manifest()
        self.send({"spec": spec.moved(PLACEHOLDER).to_json(), "manifest": manifest.to_json()})
        assert self._process.stdout
        with self._reading:
            while line := self._process.stdout.readline():
                answer = json.loads(line)
                if "read" not in answer:
                    return self._receive(spec, answer)
                self.send({"content": _to_text(source.read(answer["read"]))})
        return RunResult(None, "lost", 0.0, None, None, self._slot, "the far process ended")

    def _receive(self, spec: RunSpec, answer: dict[str, Any]) -> RunResult:
        """Write the answer to the harness's paths."""
        spec.log.write_bytes(base64.b64decode(answer["log"]))
        for path, content in answer["files"].items():
            target = spec.tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(base64.b64decode(content))
        result = RunResult.from_json(answer["result"] | {"slot": self._slot})
        if result.stopped not in ("interrupted", "lost"):
            replace_file(spec.outcome, json.dumps(result.to_json()).encode())
        return result

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        with self._lock:
            self._process.stdin.close()
        self._process.wait()
        with self._reading:
            self._process.stdout.close()


# ---- the far process ---------------------------------------------------------------------------


def main() -> None:
    runner = LocalRunner(1)
    contents: queue.Queue[bytes] = queue.Queue()

    def read(blob: str) -> bytes:
        print(json.dumps({"read": blob}), flush=True)
        return contents.get()

    running: threading.Thread | None = None
    for line in sys.stdin:
        message = json.loads(line)
        if "interrupt" in message:
            runner.interrupt()
        elif "content" in message:
            contents.put(base64.b64decode(message["content"]))
        else:
            running = threading.Thread(target=execute, args=(runner, message, read), daemon=True)
            running.start()
    runner.close()
    if running:
        running.join(10)


def execute(runner: LocalRunner, request: dict[str, Any], read: Callable[[str], bytes]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="far-"))
    try:
        spec = RunSpec.from_json(request["spec"]).moved(folder)
        manifest = TreeManifest.from_json(request["manifest"])
        (folder / "tmp").mkdir()
        write_tree(manifest, read, spec.tree)
        (spec.tree / spec.directory).mkdir(parents=True, exist_ok=True)
        result = runner.run(spec)
        files = {
            path: _to_text(file.read_bytes()) for path, file in changed_files(manifest, spec.tree)
        }
        log = _to_text(spec.log.read_bytes()) if spec.log.exists() else ""
        answer = {"result": result.to_json(), "log": log, "files": files}
        print(json.dumps(answer), flush=True)
    finally:
        shutil.rmtree(folder)


def _to_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


if __name__ == "__main__":
    main()
