"""The replay: proposes given changes again, in order, one per turn, and then stops.

    replay:FOLDER         every `*.patch` and `*.diff` in the folder (unified, with a/ and b/), and
                          every subfolder: files that replace those at the same path, and perhaps a
                          `description.txt`; all sorted by name
    replay:session:TAG    the changes of an earlier session; the caller passes them as the option
                          `proposals`: (description, {path: content, or None to delete})

A change that was measured in this session is not tried again. The notes of a proposal name it.
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

from autoresearch.errors import AgentError
from autoresearch.protocols import Failure, History, Proposal, Turn
from autoresearch.task.values import Kind

SUFFIXES = (".patch", ".diff")
DESCRIPTION = "description.txt"
NOTE = "replay: "
SESSION = "session:"  # begins an argument that names an earlier session
GIT_TIMEOUT_S = 60.0

DIFF_START = re.compile(rb"^(diff |--- |Index: |GIT binary patch)", re.MULTILINE)
BOILERPLATE = re.compile(r"(commit [0-9a-f]+\b|From |From:|Author:|Date:|Merge:|---)")
PATCH_TAG = re.compile(r"^\s*(\[[^]]*\]\s*)+")
STRICT_TEXT = {"type": "str", "strict": True}
CONTENT = {"type": "nullable", "schema": {"type": "bytes", "strict": True}}
CONTENTS = {"type": "dict", "keys_schema": STRICT_TEXT, "values_schema": CONTENT}
PROPOSAL = {"type": "tuple", "items_schema": [STRICT_TEXT, CONTENTS]}
PROPOSALS = Kind(
    "a list of (description, {path: bytes})", {"type": "list", "items_schema": PROPOSAL}
)


def create(argument: str | None, options: Mapping[str, object], seed: int) -> Replay:
    """Read the changes from a folder, or from the option `proposals`. The seed has no effect."""
    if unknown := sorted(set(options) - {"proposals"}):
        raise AgentError(f"replay: unknown option {unknown[0]!r}; accepted: proposals")
    if "proposals" in options:
        return Replay(_read_proposals(argument or "proposals", options["proposals"]))
    if not argument or earlier_session(argument) is not None:
        raise AgentError("replay: expected replay:FOLDER or replay:session:TAG")
    try:
        return Replay(_read_folder(Path(argument).expanduser()))
    except OSError as error:
        raise AgentError(f"replay: cannot read {error.filename}: {error.strerror}") from error
    except RuntimeError:  # the home folder of an unknown user
        raise AgentError(f"replay: {argument!r} is no folder") from None


def earlier_session(argument: str | None) -> str | None:
    """Return the tag in `session:TAG`, see `autoresearch.agents`."""
    is_session = argument is not None and argument.startswith(SESSION)
    return argument.removeprefix(SESSION) if argument and is_session else None


class Replay:
    name = "replay"
    wants_briefing = False
    fixed = True

    def __init__(self, changes: Sequence[Patch | Files]) -> None:
        self._changes = list(changes)
        self._has_resumed = False

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        if not self._has_resumed:
            measured = _measured_names(turn.history)
            self._changes = [change for change in self._changes if change.name not in measured]
            self._has_resumed = True
        if not self._changes:
            return None
        change = self._changes.pop(0)
        if (problem := change.apply(turn.worktree)) is not None:
            return Failure("does not apply", f"{change.name}: {problem}")
        return Proposal(change.description, notes=NOTE + change.name)


def _measured_names(history: History) -> set[str]:
    running = history.in_flight()  # read first: an experiment that finishes now is then in both
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
        """Apply all of the patch or nothing, or return why it does not apply. Every line of context
        must match."""
        root = worktree.resolve()
        # No configuration of the user's, and no repository: inside one that begins further up, `git
        # apply` takes paths to be relative to it and silently skips those outside.
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_CEILING_DIRECTORIES": str(root.parent),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C",
        }
        try:
            git = subprocess.run(
                ["git", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn", "-"],
                cwd=root,
                input=self.data,
                capture_output=True,
                env=env,
                timeout=GIT_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError as error:
            raise AgentError("replay: patches need the program git, which is not there") from error
        except subprocess.TimeoutExpired:
            return f"git apply took longer than {GIT_TIMEOUT_S:.0f} s"
        if git.returncode == 0:
            return None
        return git.stderr.decode(errors="replace").strip() or "git apply failed"


def _subject(data: bytes) -> str:
    """Return the subject of a `git format-patch` mail, else the first line of text above the
    diff."""
    start = DIFF_START.search(data)
    head = data[: start.start()] if start else data
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
        """Replace the files, or return why one cannot be replaced."""
        root = worktree.resolve()
        for path, content in self.contents.items():
            target = worktree / path
            try:
                if target.is_symlink() or not target.parent.resolve().is_relative_to(root):
                    return f"{path}: a link is in the way"
                if content is None:
                    target.unlink(missing_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
            except (OSError, RuntimeError) as error:  # a folder is there, or a file in its place
                return f"{path}: {getattr(error, 'strerror', None) or error}"
        return None


def _read_proposals(source: str, proposals: object) -> list[Patch | Files]:
    try:
        read = PROPOSALS.read(proposals)
        paths = [path for _, contents in read for path in contents]
        for path in paths:
            os.fsencode(path)  # half of a surrogate pair is no name of a file
    except ValueError:
        raise AgentError(f"replay: `proposals` should be {PROPOSALS.accepts}") from None
    for path in paths:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise AgentError(f"replay: {path!r} lies outside the worktree")
    return [
        Files(f"{source} {number}", description, contents)
        for number, (description, contents) in enumerate(read, start=1)
    ]


def _read_folder(folder: Path) -> list[Patch | Files]:
    if not folder.is_dir():
        raise AgentError(f"replay: {str(folder)!r} is no folder")
    changes: list[Patch | Files] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            changes.append(_read_files(entry))
        elif entry.suffix in SUFFIXES:
            changes.append(Patch(entry.name, entry.read_bytes()))
    if not changes:
        raise AgentError(f"replay: {str(folder)!r} holds no *.patch, no *.diff and no subfolder")
    return changes


def _read_files(folder: Path) -> Files:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.is_dir())
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    text = contents.pop(DESCRIPTION, b"").decode(errors="replace").strip()
    return Files(folder.name, text.splitlines()[0] if text else folder.name, contents)
