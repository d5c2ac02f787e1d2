"""What a pristine tree costs in a very large repository.

    python benchmarks/large_repository.py                  # 100,000 files
    python benchmarks/large_repository.py --files 20000

Every run gets all files of its commit in a folder of its own. The repository is made here, in a
temporary folder: small files, 100 to a folder, in three levels of folders, in one pack. Each figure
is the median of its rounds. The first tree of a slot is written file by file; from then on, what
the run before has not touched stays. Work beside it on the machine adds to the seconds, which is
why the load is said, and hardly to the CPU seconds. TMPDIR=/dev/shm leaves the disk out.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from autoresearch.git.repository import Repository
from autoresearch.git.trees import Manifest

ROUNDS = 5
PER_FOLDER = 100
STEPS = (
    "the first tree",
    "a tree for a run, from the one before",
    "what was changed in it",
    "putting it aside",
    "removal, at the end",
)


def path_of(number: int) -> str:
    folder = number // PER_FOLDER
    return f"src/{folder // 100:02}/{folder % 100:02}/file{number % PER_FOLDER:02}.txt"


def make_repository(root: Path, files: int) -> None:
    """By one stream into `git fast-import`: a commit of so many files."""
    git = ["git", "-C", str(root)]
    subprocess.run(["git", "init", "-q", "--initial-branch=main", str(root)], check=True)
    stream = subprocess.Popen([*git, "fast-import", "--quiet"], stdin=subprocess.PIPE)
    assert stream.stdin
    write = stream.stdin.write
    write(b"commit refs/heads/main\ncommitter bench <bench@localhost> 0 +0000\ndata 5\nstart\n")
    for number in range(files):
        text = f"file {number}\n".encode() * (1 + number % 50)
        write(f"M 100644 inline {path_of(number)}\ndata {len(text)}\n".encode() + text + b"\n")
    write(b"M 100644 inline train.py\ndata 8\nLR = 0.1\n\n")
    stream.stdin.close()
    if stream.wait():
        sys.exit("git fast-import failed")
    subprocess.run([*git, "sparse-checkout", "set", "none"], check=True, capture_output=True)
    subprocess.run([*git, "checkout", "-q", "main"], check=True)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(root: Path, trees: Path) -> dict[str, list[tuple[float, float]]]:
    repository = Repository(root, ["train.py"], lambda path: path == "train.py")
    head = repository.head()
    found: dict[str, list[tuple[float, float]]] = {step: [] for step in STEPS}
    for number in range(1 + ROUNDS):
        tree = trees / str(number)
        made: list[Manifest] = []
        materialize = partial(repository.trees.materialize, head, tree)
        found[STEPS[min(number, 1)]].append(timed(lambda m=made, do=materialize: m.append(do())))
        (tree / "train.py").write_text("LR = 0.2\n")
        found[STEPS[2]].append(timed(partial(repository.edits.collect, tree, made[0])))
        found[STEPS[3]].append(timed(partial(repository.trees.put_aside, tree, made[0])))
    found[STEPS[4]].append(timed(repository.trees.drop_spares))
    return found


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else []:
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor()


def file_system(path: Path) -> str:
    mounts = [m for m in psutil.disk_partitions(all=True) if path.is_relative_to(m.mountpoint)]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else "?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--work", type=Path, help="where to make it (a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autoresearch-large-", dir=options.work) as folder:
        root = Path(folder) / "repository"
        make_repository(root, options.files)
        found = measure(root, Path(folder) / "trees")
        disk = file_system(root)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {processor()}"
    load = f"load average {os.getloadavg()[0]:.1f}"
    print(
        f"{options.files:,} files; {machine}, Python {platform.python_version()}, {disk}, {load}\n"
    )
    print("| | seconds | CPU seconds | rounds |\n|---|--:|--:|--:|")
    for step, times in found.items():
        wall, cpu = (median(values) for values in zip(*times, strict=True))
        print(f"| {step} | {wall:.2f} | {cpu:.2f} | {len(times)} |")


if __name__ == "__main__":
    main()
