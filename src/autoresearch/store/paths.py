"""Where everything lies: all paths of a session.

.autoresearch/                  beside the task file, kept out of git by .git/info/exclude
  ledger.sqlite                 all sessions
  imported.json                 nights of other programs
  <tag>/lock                    held while a process owns the session; its pid is in it
  <tag>/session.log             what a detached session prints
  <tag>/runs/<experiment>/<run> a run's log, result and artefacts
  <tag>/target/package/         cargo looks for a workspace in the folders above a crate, up to a
                                folder of this name: without it, it would find the user's
    trees/                      pristine trees of the runs under way
    builds/                     what `[run] build` made, by content
    setup/                      the tree in which the task's `setup` worked, which stays
    turns/                      worktrees of the agent's turns under way
  <tag>/exports/<format>/       the session in a format of another tool
  <tag>/work/                   the folder of an agent that calls the harness itself
  <tag>/work.json               the state of that folder
  <tag>/try.json                the report on its latest try

A session also has one folder among the system's temporary files: `SessionPaths.temporary`.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from autoresearch.errors import StorageError

STATE = ".autoresearch"
PUBLIC = ("results.tsv", "progress.png", "report.md", "report.html")
OURS = (f"{STATE}/", *PUBLIC)
"""Our files in the task's folder, as patterns for git's exclude file."""


class SessionPaths:
    def __init__(self, root: Path, tag: str) -> None:
        """`root` is the task's folder."""
        self.root = root
        self.tag = tag
        self.ledger = ledger_path(root)
        self.results = root / "results.tsv"
        self.picture = root / "progress.png"
        self.report = root / "report.md"
        self.html = root / "report.html"
        self.folder = root / STATE / tag
        self.lock = self.folder / "lock"
        self.log = self.folder / "session.log"
        self.runs = self.folder / "runs"
        package = self.folder / "target" / "package"
        self.trees = package / "trees"
        self.builds = package / "builds"
        self.setup = package / "setup"
        self.turns = package / "turns"
        self.exports = self.folder / "exports"
        self.work = self.folder / "work"
        self.work_state = self.folder / "work.json"
        self.latest_try = self.folder / "try.json"

    @property
    def temporary(self) -> Path:
        """Temporary folders of the runs under way. Programs make sockets there, whose paths may
        have 103 bytes on macOS, where 49 are in the name of the user's own temporary folder."""
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        folder = tempfile.gettempdir()
        if sys.platform == "darwin" and folder.startswith("/var/folders/"):
            folder = "/tmp"
        return Path(folder, f"autoresearch-{name}")


def make_module_command(name: str, *arguments: str) -> list[str]:
    """The command that starts a module of ours as a process. It imports nothing from the folder in
    which it is started."""
    return [sys.executable, "-P", "-m", name, *arguments]


def enclosing(path: Path) -> SessionPaths | None:
    """The session in whose working folder `path` is; None if it is in none."""
    for folder in (path, *path.parents):
        if folder.name == "work" and folder.parent.parent.name == STATE:
            return SessionPaths(folder.parent.parent.parent, folder.parent.name)
    return None


def ledger_path(root: Path) -> Path:
    """The ledger of a task's folder. Raises `StorageError` if the record would lie elsewhere."""
    folder = root / STATE
    if folder.is_symlink():
        raise StorageError(
            f"{folder} is a link to {folder.readlink()}: the record must lie in the task's folder. "
            "Remove the link"
        )
    return folder / "ledger.sqlite"
