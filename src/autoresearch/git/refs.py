"""The refs and the branch of a session `tag`, all derived from the ledger:

refs/autoresearch/<tag>/<number>         every experiment's commit, so that no record loses its code
refs/autoresearch/<tag>/<number>.moving  its next commit, while it is rebased onto an incumbent
refs/autoresearch/<tag>/<best>-without-<number>...   that commit without some of its changes
refs/autoresearch/<tag>/scratch-<number>             what a scratch run measured
refs/autoresearch/<tag>/best             the incumbent
refs/heads/autoresearch/<tag>            the same, unless it is checked out or moved by the user
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pygit2

from autoresearch.errors import NotOursError
from autoresearch.git.objects import ObjectStore

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
VARIANT = re.compile(r"\d+-without(?:-\d+)+")
SCRATCH = re.compile(r"scratch-\d+")
MOVING = ".moving"
REF_TRIES = 20
RETRY_S = 0.1


class SessionRefs:
    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._repo = objects.repo

    def branch_name(self, tag: str) -> str:
        return f"autoresearch/{tag}"

    def check_tag(self, tag: str) -> None:
        """Raises `NotOursError` for a tag that cannot be part of a branch's name and a folder's."""
        if not TAG.fullmatch(tag) or not pygit2.reference_is_valid_name(f"refs/heads/{tag}"):
            raise NotOursError(f"{tag!r} cannot be a tag: letters, digits, '.', '_' and '-' can")

    def check_branch(self, tag: str) -> None:
        """Raises `NotOursError` if the branch of a new session exists already."""
        own = self.branch_name(tag)
        with self._objects.guard():
            for name in self._repo.branches.local:
                if name in (own, "autoresearch") or name.startswith(f"{own}/"):
                    raise NotOursError(
                        f"a branch {name!r} exists and was made by no session recorded here: "
                        "choose another --tag, or rename that branch"
                    )

    def all(self, tag: str) -> dict[str, str]:
        """All refs of a session but its branch: name -> commit."""
        prefix = f"refs/autoresearch/{tag}/"
        with self._objects.guard():
            names = [name for name in self._repo.references if name.startswith(prefix)]
            return {name: str(self._repo.references[name].target) for name in names}

    def get(self, name: str) -> str | None:
        """The commit that a ref names; None if there is no such ref."""
        with self._objects.guard():
            ref = self._repo.references.get(name)
            return None if ref is None else str(ref.target)

    def keep(self, tag: str, number: int, commit: str) -> None:
        """Name an experiment's commit, so that git does not collect it as garbage."""
        self._set(f"refs/autoresearch/{tag}/{number}", commit)

    def keep_variant(self, tag: str, best: int, without: Iterable[int], commit: str) -> None:
        """Name the commit of the experiment `best` without some of its changes."""
        self._set(self._variant(tag, best, without), commit)

    def get_variant(self, tag: str, best: int, without: Iterable[int]) -> str | None:
        """That commit; None if there was none yet."""
        return self.get(self._variant(tag, best, without))

    def _variant(self, tag: str, best: int, without: Iterable[int]) -> str:
        numbers = "-".join(map(str, sorted(without)))
        return f"refs/autoresearch/{tag}/{best}-without-{numbers}"

    def keep_scratch(self, tag: str, number: int, commit: str) -> None:
        """Name what a scratch run measures."""
        self._set(self.name_scratch(tag, number), commit)

    def name_scratch(self, tag: str, number: int) -> str:
        return f"refs/autoresearch/{tag}/scratch-{number}"

    @contextmanager
    def keep_moving(self, tag: str, number: int, commit: str) -> Iterator[None]:
        """Name an experiment's next commit as well, while it moves from one to the other."""
        name = f"refs/autoresearch/{tag}/{number}{MOVING}"
        self._set(name, commit)
        yield
        self.drop(name)

    def leftovers(self, tag: str, experiments: int) -> list[str]:
        """Refs that a kill left: of an experiment that was being rebased, or of one that did not
        reach the ledger."""
        following = f"refs/autoresearch/{tag}/{experiments}"
        return [name for name in self.all(tag) if name == following or name.endswith(MOVING)]

    def move_best(self, tag: str, commit: str, ours: Iterable[str]) -> str | None:
        """Point `best` and the branch at the incumbent. Returns why the branch was left alone, None
        if it was not: it is checked out, or at a commit that is not among `ours`."""
        self._set(f"refs/autoresearch/{tag}/best", commit)
        reason = self.why_branch_stays(tag, commit, ours)
        if reason is None:
            self._set(f"refs/heads/{self.branch_name(tag)}", commit)
        return reason

    def why_branch_stays(self, tag: str, commit: str, ours: Iterable[str]) -> str | None:
        """Why the branch must not move to `commit`; None if it may, or is there already."""
        with self._objects.guard():
            branch = self._repo.branches.local.get(self.branch_name(tag))
            if branch is None or str(branch.target) == commit:
                return None
            if branch.is_checked_out():
                reason = "is checked out, so it was not moved"
            elif str(branch.target) not in ours:
                reason = "was moved by somebody else, so it was left alone"
            else:
                return None
        best = f"the best commit is refs/autoresearch/{tag}/best"
        return f"branch {self.branch_name(tag)} {reason}; {best}"

    def is_branch_checked_out(self, tag: str) -> bool:
        with self._objects.guard():
            branch = self._repo.branches.local.get(self.branch_name(tag))
            return branch is not None and branch.is_checked_out()

    def _set(self, name: str, commit: str) -> None:
        def create() -> None:
            self._repo.references.create(name, pygit2.Oid(hex=commit), force=True)

        with self._objects.guard():
            if self.get(name) != commit:
                self._retry(create)

    def drop(self, name: str) -> None:
        """Remove a ref of ours. If the user's git keeps it locked, the next start removes it."""
        with self._objects.guard(), suppress(KeyError, pygit2.GitError, OSError):
            self._retry(lambda: self._repo.references.delete(name))

    def _retry(self, act: Callable[[], object]) -> None:
        """Repeat `act` while the user's git locks the refs, or deletes their commits."""
        for tries_left in reversed(range(REF_TRIES)):
            try:
                act()
                return
            except (pygit2.GitError, OSError):
                if not tries_left:
                    raise
                time.sleep(RETRY_S)
                self._repo.free()  # close packs that are gone
                self._objects.write_again()

    def locks(self, tag: str) -> list[Path]:
        """The lock files on this session's refs."""
        refs = self._objects.git_folder / "refs"
        branch = refs / "heads" / f"{self.branch_name(tag)}.lock"
        locks = sorted((refs / "autoresearch" / tag).glob("*.lock"))
        return [*locks, branch] if branch.exists() else locks

    def break_locks(self, tag: str) -> None:
        """Remove the lock files that a kill left. Only the session's owner writes these refs."""
        for lock in self.locks(tag):
            lock.unlink(missing_ok=True)
