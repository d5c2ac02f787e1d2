"""The folder in which an agent in a terminal edits. It begins with the incumbent's files.

`.autoresearch/<tag>/work.json` beside it records the commit that the folder was made from. Without
that record nobody can say which commit an edit belongs to, so a lost record means a new folder.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from autoresearch.core.session import Session
from autoresearch.core.turns import TurnTaker
from autoresearch.errors import Refused, TaskError
from autoresearch.files import files_below, replace_file
from autoresearch.git.edits import Files
from autoresearch.records import Experiment
from autoresearch.store import values


@dataclass(frozen=True, slots=True)
class FolderState:
    """The content of work.json. Hashes are of the editable files in the folder."""

    base: str | None = None  # the commit it was made from; None: unknown
    brought: str | None = None  # hash when it was made
    taken: str | None = None  # hash when the open try was copied out of it
    commit: str | None = None  # of that try
    origin: int | None = None  # the older keep that it was set to; `base` is its commit


class WorkFolder:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._repository = session.repository

    @property
    def path(self) -> Path:
        """Raises `TaskError` if it is a link, which would lead us elsewhere."""
        path = self._session.paths.work
        if path.is_symlink():
            raise TaskError(f"{path} is a link now: put the folder back, or remove the link")
        return path

    @property
    def state(self) -> FolderState:
        return values.read(self._session.paths.work_state, FolderState) or FolderState()

    def save(self, state: FolderState) -> None:
        replace_file(self._session.paths.work_state, json.dumps(asdict(state)).encode())

    def update(self) -> None:
        """Make the folder if it is missing. Bring it to the incumbent if it was not edited, and was
        not set to an older keep."""
        state = self.state
        is_stale = state.base != self._incumbent() and self.is_unedited()
        if (is_stale and state.origin is None) or not self.path.exists():
            self.restore()

    def leave_origin(self) -> None:
        """Let `update` bring a folder without edits from an older keep to the incumbent."""
        if self.state.origin is not None and self.is_unedited():
            self.save(replace(self.state, origin=None))

    def is_unedited(self) -> bool:
        return self.state.brought == self.hash()

    def _incumbent(self) -> str:
        return self._session.ledger.incumbent(self._session.record).commit

    def restore(self) -> None:
        """Make the folder hold the incumbent's files, in place, as a repository of one commit."""
        self._hold(self._incumbent())

    def branch(self, keep: Experiment) -> Callable[[], None]:
        """Make the folder hold an older keep's files, with the edit that the folder has on top of
        them. Returns a function that undoes it. Raises `Refused` if the edit does not fit, and
        leaves the folder as it is."""
        self.update()
        before = self.state
        if before.origin == keep.number:
            return lambda: None
        base, changes = self.read_edit()
        edited, commit = base, keep.commit
        if changes:
            edited = self._repository.commit(base, changes, "edit\n")
            merged = self._repository.rebase(base, edited, keep.commit)
            if merged is None:
                why = f"the folder's edit does not fit onto experiment {keep.number}"
                raise Refused("conflict", f"{why}: the folder is as it was")
            commit = merged
        self._hold(keep.commit, commit)
        if keep.commit != self._incumbent():
            self.save(replace(self.state, origin=keep.number))

        def undo() -> None:
            self._hold(before.base or base, edited)
            self.save(before)

        return undo

    def _hold(self, base: str, edited: str | None = None) -> None:
        """Make the folder hold a commit's files, in a repository whose one commit has those of
        `base`."""
        folder, trees = self.path, self._repository.trees
        manifest, own = trees.manifest(base), trees.manifest(edited or base)
        for each in (manifest, own):
            self._session.executor.commands.hide(each, folder)
        trees.restore(own, folder)
        trees.make_repository(folder, manifest)
        # The commit's files, not the folder's: an edit made meanwhile must count as one.
        files = self._repository.editable_files(base).items()
        brought = _hash((path, data) for path, data in files if not manifest[path].is_link)
        self.save(FolderState(base, brought=brought))

    def read_edit(self) -> tuple[str, Files]:
        """The commit that the folder is an edit of, and the edit. Raises `Refused` for one that the
        harness does not run, and `TaskError` as `find_base`."""
        base = self.find_base()
        manifest = self._repository.trees.manifest(base)
        self._session.executor.commands.hide(manifest, self.path)
        try:
            return base, TurnTaker(self._session).collect(self.path, manifest)
        except Refused as refusal:
            if refusal.reason != "no change":
                raise
            return base, {}

    def begin_try(self) -> str:
        """Record the state of the files before they are copied out. Returns the commit that the
        folder is an edit of. Raises `TaskError` if that is unknown. See `refuse_try`.

        After `branch` that is the incumbent: what the folder holds is tried as a whole."""
        origin, base = self.state.origin, self.find_base()
        self.save(FolderState(base, taken=self.hash(), origin=origin))
        return base if origin is None else self._incumbent()

    def find_base(self) -> str:
        """The commit that the folder is an edit of. Raises `TaskError` if that is unknown."""
        state = self.state
        if state.base is None or not self._session.paths.work.is_dir():
            raise TaskError(
                f"{self._session.paths.work} is gone, or nobody knows what it was made from: save "
                f"your edit, remove it, and `autoresearch start --tag {self._session.record.tag}` "
                "makes it again"
            )
        if state.origin is not None:  # the edit may resemble the incumbent, but began elsewhere
            return state.base
        # After a try during which the folder was edited, it is an edit of that try's commit, or of
        # that try's base if the agent began there again. An agent can also take the incumbent.
        bases = [commit for commit in (state.commit, state.base) if commit is not None]
        return min((*bases, self._incumbent()), key=self._count_changed_lines)

    def refuse_try(self, before: FolderState) -> None:
        """Record that nothing was copied out. `before` is the state before `begin_try`: it knows
        all commits that the folder may be an edit of."""
        self.save(replace(before, taken=None))

    def end_try(self, commit: str) -> bool:
        """Bring the folder to the incumbent after the try of `commit`, unless it was edited since
        the try was copied out of it. Returns whether it was edited."""
        state = self.state
        if state.taken is None:  # it was brought to the incumbent already
            return False
        if state.taken == self.hash():
            self.restore()
            return False
        self.save(replace(state, taken=None, commit=state.commit or commit, origin=None))
        return True

    def hash(self) -> str:
        """SHA-256 of the editable files."""
        return _hash(self._read_files())

    def _count_changed_lines(self, commit: str) -> int:
        """Lines of editable files that are only in the folder or only in the commit."""
        lines = Counter[tuple[str, bytes]]()
        for path, data in self._repository.editable_files(commit).items():
            lines.update((path, line) for line in data.splitlines())
        for path, data in self._read_files():
            lines.subtract((path, line) for line in data.splitlines())
        return sum(map(abs, lines.values()))

    def _read_files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the editable files that are regular files."""
        for path, entry in files_below(self.path):
            if self._repository.edits.is_editable(path) and entry.is_file(follow_symlinks=False):
                yield path, Path(entry.path).read_bytes()


def _hash(files: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for path, data in sorted(files):
        digest.update(f"{path}\0{len(data)}\0".encode(errors="surrogateescape") + data)
    return digest.hexdigest()
