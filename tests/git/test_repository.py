"""Open the user's repository, make commits in it, compare them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.repositories import open_repository
from support.sessions import commit_all, git, make_task, workspace_of

from autoresearch.errors import (
    StorageError,
    WorkspaceError,
)


def test_a_folder_outside_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"is not in a git repository: run `git init"):
        open_repository(tmp_path)


def test_a_repository_without_commits_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(WorkspaceError, match="has no commits: commit the code first"):
        open_repository(tmp_path)


def test_a_bare_repository_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare")
    with pytest.raises(WorkspaceError, match="bare"):
        open_repository(tmp_path)


def test_a_damaged_repository_raises_a_workspace_error(repo: Path) -> None:
    for file in (repo / ".git" / "objects").glob("??/*"):
        file.chmod(0o644)
        file.write_bytes(b"")
    with pytest.raises(WorkspaceError, match="git:"):
        open_repository(repo).check_editable()


def test_commit_changes_adds_and_deletes_files(repo: Path) -> None:
    repository = open_repository(repo)
    head = repository.head()
    commit = repository.commit(
        head,
        {"src/a.py": b"A = 2\n", "src/b.py": None, "new/deep/c.py": b"C\n"},
        "subject\n\nbody\n",
    )
    assert git(repo, "diff", "--name-status", head, commit).split("\n") == [
        "A\tnew/deep/c.py",
        "M\tsrc/a.py",
        "D\tsrc/b.py",
    ]
    assert git(repo, "log", "-1", "--format=%s|%an", commit) == "subject|autoresearch"
    assert repository.head() == head
    assert repository.changed_lines(head, commit) == (2, 2)
    assert "+A = 2" in repository.diff(head, commit)
    assert repository.editable_files(commit)["src/a.py"] == b"A = 2\n"
    assert "src/b.py" not in repository.editable_files(commit)
    git(repo, "fsck", "--strict")


def test_commit_keeps_the_executable_bit(tmp_path: Path) -> None:
    root = make_task(tmp_path / "repo")
    (root / "prog.py").chmod(0o755)
    commit_all(root)
    repository = open_repository(root)
    commit = repository.commit(repository.head(), {"prog.py": b"#\n"}, "x\n")
    assert git(root, "ls-tree", commit, "prog.py").startswith("100755")


def test_rebase_moves_a_change_or_reports_a_conflict(repo: Path) -> None:
    repository = open_repository(repo)
    head = repository.head()
    one = repository.commit(head, {"src/a.py": b"A = 2\n"}, "one\n")
    two = repository.commit(head, {"src/b.py": b"B = 2\n"}, "two\n")
    other = repository.commit(head, {"src/a.py": b"A = 3\n"}, "other\n")
    moved = repository.rebase(head, two, one)
    assert moved is not None
    assert git(repo, "log", "--format=%s", f"{head}..{moved}") == "two\none"
    assert git(repo, "diff", "--name-only", one, moved) == "src/b.py"
    assert repository.rebase(head, other, one) is None


def test_lines_beside_each_other_are_merged(repo: Path) -> None:
    (repo / "src" / "a.py").write_text("A = 1\nB = 1\nC = 1\n")
    commit_all(repo)
    repository = open_repository(repo)
    head = repository.head()
    one = repository.commit(head, {"src/a.py": b"A = 2\nB = 1\nC = 1\n"}, "one\n")
    two = repository.commit(head, {"src/a.py": b"A = 1\nB = 2\nC = 1\n"}, "two\n")
    tree = repository.merge_tree(head, two, one)
    moved = repository.rebase(head, two, one)
    assert tree is not None and moved is not None and tree == repository.tree_id(moved)
    assert git(repo, "show", f"{tree}:src/a.py") == "A = 2\nB = 2\nC = 1"
    for text in (b"A = 3\nB = 1\nC = 1\n", b"B = 1\nC = 1\n", b"new\nA = 3\nB = 1\nC = 1\n"):
        other = repository.commit(head, {"src/a.py": text}, "other\n")
        assert repository.merge_tree(head, other, one) is None
    gone = repository.commit(head, {"src/a.py": None}, "gone\n")
    assert repository.merge_tree(head, gone, one) is None


def test_exclude_keeps_existing_lines(repo: Path) -> None:
    exclude = repo / ".git" / "info" / "exclude"
    exclude.write_text("mine")
    repository = open_repository(repo)
    repository.exclude(".autoresearch/", "results.tsv")
    repository.exclude(".autoresearch/", "results.tsv")
    assert exclude.read_text() == "mine\n/.autoresearch/\n/results.tsv\n"
    (repo / "results.tsv").touch()
    assert git(repo, "status", "--porcelain") == ""


def test_a_full_disk_raises_a_storage_error(full_disk: Path) -> None:
    root = make_task(full_disk / "repo")
    repository = workspace_of(root)
    head = repository.head()
    with (full_disk / "filler").open("wb") as filler, pytest.raises(OSError):
        while True:
            filler.write(os.urandom(1 << 16))
            filler.flush()
    with pytest.raises(StorageError, match="is full"):
        for number in range(100):
            repository.commit(head, {"prog.py": os.urandom(5000).hex().encode()}, f"{number}\n")
    with pytest.raises(StorageError, match=r"cannot write .*No space left"):
        for number in range(100):
            repository.trees.materialize(head, root / f"tree{number}")
