"""The replay: proposes given changes again, in order, one per turn, and then stops.

    replay:FOLDER         every `*.patch` and `*.diff` in the folder (unified, with a/ and b/), and
                          every subfolder: files that replace those at the same path, beside an
                          optional `description.txt`; all sorted by name
    replay:session:TAG    the changes of an earlier session, which the caller hands over as the
                          option `proposals`: (description, {path: content, or None to delete})

An item that was measured in this session is not tried again: its name is in the proposal's notes.
"""

from __future__ import annotations

import email.policy
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path, PurePosixPath
from typing import Protocol

from autoresearch.errors import AgentError
from autoresearch.protocols import Failure, History, Proposal, Turn

SUFFIXES = (".patch", ".diff")
DESCRIPTION = "description.txt"
NOTE = "replay: "
SESSION = "session:"  # begins an argument that names an earlier session
GIT_TIMEOUT_S = 60.0

DIFF_BEGINS = re.compile(rb"^(diff |--- |Index: |GIT binary patch)", re.MULTILINE)
BOILERPLATE = re.compile(r"(commit [0-9a-f]+\b|From |From:|Author:|Date:|Merge:|---)")
PATCH_TAG = re.compile(r"^\s*(\[[^]]*\]\s*)+")


def create(argument: str | None, options: Mapping[str, object], seed: int) -> Replay:
    """The items of a folder, or of the option `proposals`. The seed plays no part."""
    if unknown := sorted(set(options) - {"proposals"}):
        raise AgentError(f"replay: unknown option {unknown[0]!r}; accepted: proposals")
    if "proposals" in options:
        return Replay(_given(argument or "proposals", options["proposals"]))
    if not argument or earlier_session(argument) is not None:
        raise AgentError("replay: expected replay:FOLDER or replay:session:TAG")
    try:
        return Replay(_folder(Path(argument).expanduser()))
    except OSError as error:
        raise AgentError(f"replay: cannot read {error.filename}: {error.strerror}") from error
    except RuntimeError:  # the folder of a user who is none
        raise AgentError(f"replay: {argument!r} is no folder") from None


def earlier_session(argument: str | None) -> str | None:
    """The tag in `session:TAG`, see `autoresearch.agents`."""
    if argument and argument.startswith(SESSION):
        return argument.removeprefix(SESSION)
    return None


class Item(Protocol):
    """One change to propose. `apply` edits a worktree, or returns why it cannot."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    def apply(self, worktree: Path) -> str | None: ...


class Replay:
    name = "replay"
    wants_briefing = False

    def __init__(self, items: Sequence[Item]) -> None:
        self._left = list(items)
        self._resumed = False

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        if not self._resumed:
            measured = _measured(turn.history)
            self._left = [item for item in self._left if item.name not in measured]
            self._resumed = True
        if not self._left:
            return None
        item = self._left.pop(0)
        if (problem := item.apply(turn.worktree)) is not None:
            return Failure("does not apply", f"{item.name}: {problem}")
        return Proposal(item.description, notes=NOTE + item.name)


def _measured(history: History) -> set[str]:
    running = history.in_flight()  # first: what ends meanwhile is in both, not in none
    experiments = [*history.finished(), *running]
    return {e.notes.removeprefix(NOTE) for e in experiments if e.notes.startswith(NOTE)}


# --------------------------------------------------------------------------------------------
# Patches


@dataclass(frozen=True, slots=True)
class Patch:
    name: str
    data: bytes

    @property
    def description(self) -> str:
        return _subject(self.data) or PurePosixPath(self.name).stem

    def apply(self, worktree: Path) -> str | None:
        """With git's own machinery, all of it or nothing. Every line of context must be there."""
        root = worktree.resolve()
        try:
            done = subprocess.run(
                ["git", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn", "-"],
                cwd=root,
                input=self.data,
                capture_output=True,
                env=_environment(root),
                timeout=GIT_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError as error:
            raise AgentError("replay: patches need the program git, which is not there") from error
        except subprocess.TimeoutExpired:
            return f"git apply took longer than {GIT_TIMEOUT_S:.0f} s"
        if done.returncode != 0:
            return done.stderr.decode(errors="replace").strip() or "git apply failed"
        return None


def _environment(root: Path) -> dict[str, str]:
    """No configuration but ours, and no repository: inside one that begins further up, `git apply`
    takes paths to be relative to it and silently skips what lies outside."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CEILING_DIRECTORIES": str(root.parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
    }


def _subject(data: bytes) -> str:
    """The subject of a `git format-patch` mail, else the first telling line above the diff."""
    begins = DIFF_BEGINS.search(data)
    head = data[: begins.start()] if begins else data
    subject = BytesHeaderParser(policy=email.policy.default).parsebytes(head)["subject"]
    if subject:
        return " ".join(PATCH_TAG.sub("", str(subject)).split())
    lines = (line.strip() for line in head.decode(errors="replace").splitlines())
    return next((line for line in lines if line and not BOILERPLATE.match(line)), "")


# --------------------------------------------------------------------------------------------
# Whole files


@dataclass(frozen=True, slots=True)
class Files:
    name: str
    description: str
    contents: Mapping[str, bytes | None]

    def apply(self, worktree: Path) -> str | None:
        root = worktree.resolve()
        for path, content in self.contents.items():
            target = worktree / path
            try:
                if target.is_symlink() or not target.parent.resolve().is_relative_to(root):
                    return f"{path}: a link is in the way"
                if content is None:
                    target.unlink(missing_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            except (OSError, RuntimeError) as error:  # a folder is there, or a file in its place
                return f"{path}: {getattr(error, 'strerror', None) or error}"
        return None


def _given(source: str, proposals: object) -> list[Item]:
    if not isinstance(proposals, list | tuple) or not all(map(_is_change, proposals)):
        raise AgentError("replay: `proposals` should be a list of (description, {path: bytes})")
    items: list[Item] = []
    for number, (description, contents) in enumerate(proposals, start=1):
        for path in contents:
            _check_inside(path)
        items.append(Files(f"{source} {number}", description, contents))
    return items


def _is_change(given: object) -> bool:
    match given:
        case (str(), Mapping() as contents):
            return all(
                isinstance(path, str) and isinstance(content, bytes | None)
                for path, content in contents.items()
            )
    return False


def _check_inside(path: str) -> None:
    parts = PurePosixPath(path).parts
    outside = ".." in parts or PurePosixPath(path).is_absolute()
    if not parts or outside or "\0" in path or not _has_bytes(path):
        raise AgentError(f"replay: {path!r} lies outside the worktree")


def _has_bytes(path: str) -> bool:
    """Whether the system can name it: a half of a pair it cannot."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _folder(folder: Path) -> list[Item]:
    if not folder.is_dir():
        raise AgentError(f"replay: {str(folder)!r} is no folder")
    items: list[Item] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            items.append(_snapshot(entry))
        elif entry.suffix in SUFFIXES:
            items.append(Patch(entry.name, entry.read_bytes()))
    if not items:
        raise AgentError(f"replay: {str(folder)!r} holds no *.patch, no *.diff and no subfolder")
    return items


def _snapshot(folder: Path) -> Files:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.is_dir())
    contents: dict[str, bytes | None] = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if path != folder / DESCRIPTION
    }
    note = folder / DESCRIPTION
    text = note.read_text(encoding="utf-8", errors="replace").strip() if note.is_file() else ""
    return Files(folder.name, text.splitlines()[0] if text else folder.name, contents)
