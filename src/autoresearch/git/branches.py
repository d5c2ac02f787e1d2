"""Branches for the user: commits in the user's name, and a branch that points at them.

A branch is written only where none is, or where the caller says which commit of ours it is at. The
user's checkout, index and HEAD are never touched, and no hook or signature of theirs is made.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass

import pygit2

from autoresearch.errors import NotOursError, WorkspaceError
from autoresearch.git.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Identity:
    """A person as git names them."""

    name: str
    email: str


class UserBranches:
    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._repo = objects.repo

    def identity(self) -> Identity:
        """The user's git identity. Raises `WorkspaceError` if git knows none."""
        found = {}
        for part in ("name", "email"):
            found[part] = os.environ.get(f"GIT_AUTHOR_{part.upper()}", "")
            with self._objects.guard(), suppress(KeyError):
                found[part] = found[part] or self._repo.config[f"user.{part}"] or ""
        missing = [f"user.{part}" for part, value in found.items() if not value.strip()]
        if missing:
            raise WorkspaceError(
                f"git does not know whose commits these are: {' and '.join(missing)} missing. "
                f'Set each, as in: git config {missing[0]} "..."'
            )
        return Identity(**found)

    def commit(self, tree: str, parent: str, message: str, author: Identity, at: float) -> str:
        """Make a commit that no ref names yet, dated `at` (Unix time). The same arguments give the
        same commit."""
        offset_minutes = time.localtime(at).tm_gmtoff // 60
        signature = pygit2.Signature(author.name, author.email, int(at), offset_minutes)
        oid = pygit2.Oid(hex=tree)
        return self._objects.run(
            lambda: self._objects.create_commit(oid, parent, message, signature)
        )

    def check_name(self, name: str) -> None:
        """Raise `NotOursError` if no branch can have this name, or if another branch is in its
        way."""
        if name.startswith("-") or not pygit2.reference_is_valid_name(f"refs/heads/{name}"):
            raise NotOursError(f"{name!r} cannot be a branch: choose another --branch")
        with self._objects.guard():
            for other in self._repo.branches.local:
                if name.startswith(f"{other}/") or other.startswith(f"{name}/"):
                    raise NotOursError(
                        f"branch {name!r} cannot be made beside branch {other!r}: git keeps both "
                        "as files, and one would have to be a folder. Choose another --branch"
                    )

    def is_checked_out(self, name: str) -> bool:
        with self._objects.guard():
            branch = self._repo.branches.local.get(name)
            return branch is not None and branch.is_checked_out()

    def set(self, name: str, commit: str, old: str | None) -> None:
        """Point the branch at a commit. Raises `NotOursError` unless it is at `old`; None: unless
        there is none."""
        ref, oid = f"refs/heads/{name}", pygit2.Oid(hex=commit)
        with self._objects.guard():
            present = self._repo.references.get(ref)
            if (None if present is None else str(present.target)) != old:
                raise NotOursError(f"branch {name} moved meanwhile, and was left alone")
            self._objects.retry(
                lambda: self._repo.references.create(ref, oid, force=old is not None)
            )
