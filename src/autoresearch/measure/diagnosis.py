"""Why a command failed, and what the user can do about it: read from its log and the disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from autoresearch.files import tail
from autoresearch.measure.absent import POINTER
from autoresearch.measure.execution import CommandExecutor
from autoresearch.sandbox.run_policy import why_unconfined
from autoresearch.task.checks import private_paths
from autoresearch.task.model import Task
from autoresearch.task.values import shell_words

ERROR = re.compile(
    r"(?:^|[\s:])(?:fatal )?error(?:\[\w+\]|\s\w+)?\s?:|^CMake Error|undefined reference|"
    r"^[\w./-]+\.go:\d+:\d+: ",
    re.IGNORECASE,
)
"""A compiler's or linker's error: of GCC, Clang, rustc, tsc, Go, ld and CMake."""
ERROR_LINES = 8
READ_BYTES = 65_536  # of a log, from its end
SHOWN_HINTS = 5
LONGEST_PATH = 300
WORD = re.compile(r"[^\s'\"`,;()\[\]<>]*[^\s'\"`,;()\[\]<>:.]")
MODULE = re.compile(r"No module named '?(\w+)")
MISSING = re.compile(r"No such file|[Nn]ot found|can't open|cannot open|ENOENT|Cannot find module")
DENIED = re.compile(
    r"[Pp]ermission denied|Operation not permitted|PermissionError|EACCES|EPERM|EROFS|"
    r"[Rr]ead-only file system"
)
WRITING = re.compile(r"[Rr]ead-only|EROFS|mkdir|creat|writ|unlink|rename|remove", re.IGNORECASE)
NETWORK = re.compile(
    r"[Nn]etwork is unreachable|[Nn]ame resolution|[Nn]ame or service not known|"
    r"[Cc]ould not resolve|EAI_AGAIN"
)


def find_first_error(lines: Sequence[str]) -> list[str]:
    """A compiler's first error and the lines after it; empty if there is none. Later errors often
    follow from the first."""
    filled = [line.rstrip() for line in lines if line.strip()]
    first = next((at for at, line in enumerate(filled) if ERROR.search(line)), None)
    return [] if first is None else filled[first : first + ERROR_LINES]


def explain_failure(commands: CommandExecutor, log: Path, reason: str | None = None) -> str:
    """Why a command on the unchanged program failed with this log, as far as it can be told, and
    what helps; each on a line. Empty if nothing is known. `reason` is the run's."""
    settings = commands.task.run
    known = {
        "command not found": f"The command is `{settings.command}`.",
        "timeout": f"[run] timeout is {settings.timeout_s:g} s.",
    }
    text = tail(log, READ_BYTES)
    lines = text.splitlines()
    hints = [
        *([known[reason]] if reason in known else []),
        *_explain_missing_files(commands, lines),
        *_explain_denials(commands, lines),
        *_explain_modules(commands, text),
        *(_explain_original(commands.task) if commands.task.layout == "original" else ()),
    ]
    return "".join(f"\n{hint}" for hint in list(dict.fromkeys(hints))[:SHOWN_HINTS])


def _find_paths(commands: CommandExecutor, lines: Iterable[str]) -> Iterator[str]:
    """The paths in some lines. Of a path in a run's tree, the part below the task's folder."""
    trees = f"{commands.paths.trees.parent}/"
    for word in (word for line in lines for word in WORD.findall(line)):
        if not word.startswith(trees):
            yield word
            continue
        parts = Path(word.removeprefix(trees)).parts[2:]  # trees/00001
        prefix = commands.repository.prefix.parts
        yield str(Path(*(parts[len(prefix) :] if parts[: len(prefix)] == prefix else parts)))


def _explain_missing_files(commands: CommandExecutor, lines: Sequence[str]) -> Iterator[str]:
    """Files that the log or the command names, that the checkout has and the commit does not."""
    task, repository = commands.task, commands.repository
    manifest = repository.trees.manifest(repository.head())
    missing = [line for line in lines if MISSING.search(line)]
    names = [*_find_paths(commands, missing), *shell_words(task.run.command)]
    names += shell_words(task.run.build) if task.run.build else []
    for module in MODULE.findall("\n".join(lines)):
        names += [f"{module}.py", module]
    for name in dict.fromkeys(name.removeprefix("./") for name in names):
        if not name or name.startswith(("/", "-", "..")) or len(name) > LONGEST_PATH:
            continue
        path = (repository.prefix / name).as_posix()
        below = [known for known in manifest if known == path or known.startswith(f"{path}/")]
        is_input = any(Path(name).is_relative_to(other) for other in task.run.inputs)
        if not below and not is_input and (task.root / name).exists():
            yield (
                f"{name} is in your checkout but not in the commit: commit it, or name it in "
                "`[run] inputs`"
            )
        if below == [path] and repository.read_blob(str(manifest[path].blob)).startswith(POINTER):
            yield (
                f"{name} is a Git LFS pointer in the commit, and runs get the pointer: keep what "
                "runs read in a folder that git ignores, and name that in `[run] inputs`"
            )


def _explain_denials(commands: CommandExecutor, lines: Sequence[str]) -> Iterator[str]:
    """The paths that were denied, and the line of the task file that allows each."""
    task = commands.task
    if why_unconfined(task) is not None:
        return
    own = (str(commands.paths.folder), str(commands.paths.temporary), "/dev/", "/proc/")
    for at, line in enumerate(lines):
        if NETWORK.search(line) and not task.runner.network:
            yield "denied: the network. Allow it by `network = true` in [runner]"
        if not DENIED.search(line):
            continue
        near = [line] if "/" in line else lines[max(0, at - 2) : at + 1]  # cargo names it above
        for name in dict.fromkeys(_find_paths(commands, near)):
            if name.startswith("/") and not name.startswith(own):
                yield _name_grant(task, Path(name), is_write=bool(WRITING.search(line)))


def _name_grant(task: Task, path: Path, *, is_write: bool) -> str:
    root = task.root.resolve()
    if any(path.is_relative_to(private) for private in private_paths(task)):
        return f"denied: {path}, which no run may use"
    if is_write:
        folder = path if path.is_dir() else path.parent
        return f'denied: writing {path}. Allow it by `caches = ["{folder}"]` in [run]'
    if path.is_relative_to(root):
        return f'denied: {path}. Allow it by `inputs = ["{path.relative_to(root)}"]` in [run]'
    return (
        f'denied: reading {path}. Allow it by `inputs = ["{path.name}"]` in [run], and '
        f"`ln -s {path} {path.name}` in {task.root}"
    )


def _explain_modules(commands: CommandExecutor, text: str) -> Iterator[str]:
    """Python modules that the run's interpreter lacks."""
    root = commands.task.root
    python = shutil.which("python", path=commands.env.get("PATH")) or "python"
    for module in dict.fromkeys(MODULE.findall(text)):
        if (root / f"{module}.py").exists() or (root / module).is_dir():
            continue
        if (root / "uv.lock").exists() and not (root / ".venv").is_dir():
            yield f"{module} is not installed, and uv.lock is here: run `uv sync` first"
        else:
            yield f"{module} is not installed for {python}, the python of the runs"


def _explain_original(task: Task) -> Iterator[str]:
    """What karpathy/autoresearch needs: an NVIDIA GPU, and data that its prepare.py makes."""
    if not Path("/dev/nvidiactl").exists() and not shutil.which("nvidia-smi"):
        yield "train.py needs an NVIDIA GPU, and this machine shows none (`autoresearch new \
tiny_gpt DIR` makes a task for the CPU)"
    data = Path("~/.cache/autoresearch").expanduser()
    if not data.is_dir() or not any(data.iterdir()):
        uv = "uv run" if (task.root / "uv.lock").exists() else "python"
        yield f"the data is not prepared: run `{uv} prepare.py` once, which fills {data}"
