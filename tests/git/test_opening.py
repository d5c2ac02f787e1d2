"""Repositories that libgit2 alone refuses, or reads otherwise than git does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.repositories import open_repository
from support.sessions import git

from autoresearch.errors import DirtyError, WorkspaceError


def can_use(root: Path) -> bool:
    """Whether a session's start and a run's tree work in this repository."""
    repository = open_repository(root)
    repository.check_editable()
    repository.trees.materialize(repository.head(), root.parent / "tree")
    return (root.parent / "tree" / "prog.py").read_text() == (root / "prog.py").read_text()


def extend(root: Path, name: str, value: str) -> None:
    git(root, "config", "core.repositoryformatversion", "1")
    git(root, "config", f"extensions.{name}", value)


def test_a_split_index_is_not_read(repo: Path) -> None:
    git(repo, "update-index", "--split-index")
    assert can_use(repo)


def test_a_sparse_index_is_not_read(repo: Path) -> None:
    git(repo, "sparse-checkout", "init", "--cone", "--sparse-index")
    assert not (repo / "src").exists()
    repository = open_repository(repo, ("prog.py", "src/a.py"))
    assert repository.check_editable() == ["prog.py", "src/a.py", "src/b.py"]
    (repo / "prog.py").unlink()
    with pytest.raises(DirtyError, match=r"prog\.py has uncommitted changes"):
        repository.check_editable()


def test_an_edit_that_the_index_hides_is_seen(repo: Path) -> None:
    git(repo, "update-index", "--assume-unchanged", "prog.py")
    with (repo / "prog.py").open("a") as file:
        file.write("# more\n")
    with pytest.raises(DirtyError):
        open_repository(repo).check_editable()


def test_a_mode_that_is_not_committed_is_seen(repo: Path) -> None:
    (repo / "prog.py").chmod(0o755)
    with pytest.raises(DirtyError):
        open_repository(repo).check_editable()
    git(repo, "config", "core.filemode", "false")
    open_repository(repo).check_editable()


def test_line_ends_that_a_filter_makes_are_no_change(repo: Path) -> None:
    git(repo, "config", "core.autocrlf", "true")
    text = (repo / "prog.py").read_bytes()
    (repo / "prog.py").write_bytes(text.replace(b"\n", b"\r\n"))
    open_repository(repo).check_editable()


@pytest.mark.parametrize(
    ("name", "value"),
    [("partialClone", "origin"), ("worktreeConfig", "true"), ("relativeWorktrees", "true")],
)
def test_extensions_that_change_nothing_we_read(repo: Path, name: str, value: str) -> None:
    extend(repo, name, value)
    assert can_use(repo)


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [
        ("refStorage", "reftable", "git refs migrate --ref-format=files"),
        ("somethingNew", "true", r"extensions\.somethingnew.*git clone \. \.\./copy"),
    ],
)
def test_other_extensions_are_named(repo: Path, name: str, value: str, command: str) -> None:
    extend(repo, name, value)
    with pytest.raises(WorkspaceError, match=command):
        open_repository(repo)


def test_the_command_for_sha256_makes_a_copy_that_works(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    git(tmp_path, "init", "-q", "--object-format=sha256", str(root))
    (root / "prog.py").write_text("print('score: 1')\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    with pytest.raises(WorkspaceError, match="SHA-256") as refusal:
        open_repository(root)
    command = str(refusal.value).split("`")[1]
    subprocess.run(command, shell=True, cwd=root, check=True, capture_output=True)
    assert can_use(tmp_path / "copy")


def test_a_partial_clone_works_or_names_the_command_that_completes_it(repo: Path) -> None:
    git(repo, "config", "uploadpack.allowFilter", "true")
    clone = repo.parent / "clone"
    git(repo, "clone", "-q", "--filter=blob:none", "--sparse", repo.as_uri(), str(clone))
    with pytest.raises(WorkspaceError, match="is a partial clone") as refusal:
        can_use(clone)
    command = str(refusal.value).split("`")[1]
    subprocess.run(command, shell=True, check=True, capture_output=True)
    (clone.parent / "tree").rename(clone.parent / "half")
    assert can_use(clone)


def test_whom_git_trusts_is_trusted(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every way that git knows, such as settings given by the environment."""
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "true")  # git's own tests use it
    with pytest.raises(WorkspaceError, match=f"git config --global --add safe.directory {repo}"):
        open_repository(repo)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(repo))
    open_repository(repo)
    monkeypatch.delenv("GIT_CONFIG_COUNT")
    settings = repo.parent / "settings"
    settings.write_text(f"[safe]\n\tdirectory = {repo}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    open_repository(repo)
