"""Tags, branches, and locks on a session's refs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.repositories import open_repository
from support.sessions import git

from autoresearch.errors import (
    NotOursError,
)


@pytest.mark.parametrize(
    "tag", ["", "a b", "a/b", "..", "a..b", ".a", "-a", "a.lock", "ä", "x" * 65]
)
def test_invalid_tags_are_refused(repo: Path, tag: str) -> None:
    with pytest.raises(NotOursError, match="cannot be a tag"):
        open_repository(repo).refs.check_tag(tag)


def test_a_taken_branch_is_refused(repo: Path) -> None:
    repository = open_repository(repo)
    repository.refs.check_tag("nov23")
    repository.refs.check_branch("nov23")
    git(repo, "branch", "autoresearch/nov23")
    with pytest.raises(NotOursError, match="'autoresearch/nov23' exists"):
        repository.refs.check_branch("nov23")
    git(repo, "branch", "-D", "autoresearch/nov23")
    git(repo, "branch", "autoresearch")
    with pytest.raises(NotOursError, match="'autoresearch' exists"):
        repository.refs.check_branch("nov23")


def test_ref_locks_left_by_a_kill_are_removed(repo: Path) -> None:
    repository = open_repository(repo)
    head = repository.head()
    repository.refs.keep("t", 1, head)
    repository.refs.move_best("t", head, [head])
    refs = repo / ".git" / "refs"
    commit = repository.commit(head, {"src/a.py": b"A = 2\n"}, "x\n")
    for name in ("autoresearch/t/1", "autoresearch/t/best", "heads/autoresearch/t"):
        (refs / f"{name}.lock").touch()
    repository.refs.break_locks("t")
    repository.refs.keep("t", 1, commit)
    assert repository.refs.move_best("t", commit, [head]) is None
    assert repository.refs.get("refs/heads/autoresearch/t") == commit
