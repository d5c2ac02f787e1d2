"""Objects survive the user's `git gc`, other threads and our own packs."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
from support.repositories import open_repository
from support.sessions import git

from autoresearch.git import objects


def test_commits_are_packed_and_survive_git_gc(repo: Path) -> None:
    repository = open_repository(repo)
    head = repository.head()
    commits = []
    for number in range(70):
        commits.append(repository.commit(head, {"src/a.py": f"A = {number}\n".encode()}, "x\n"))
        repository.refs.keep("t", number, commits[-1])
        repository.tidy(0)
    assert len(list((repo / ".git" / "objects").glob("??/*"))) < 60
    git(repo, "-c", "gc.auto=0", "gc", "--prune=now", "-q")
    git(repo, "fsck", "--strict")
    for number, commit in enumerate(commits):
        assert git(repo, "rev-parse", f"refs/autoresearch/t/{number}") == commit
        assert repository.editable_files(commit)["src/a.py"] == f"A = {number}\n".encode()


def test_threads_commit_while_the_user_repacks(repo: Path) -> None:
    repository = open_repository(repo)
    head = repository.head()
    failures: list[BaseException] = []

    def work(slot: int) -> None:
        try:
            for number in range(30):
                data = f"A = {slot * 1000 + number}\n".encode()
                commit = repository.commit(head, {"src/a.py": data}, "x\n")
                repository.refs.keep("t", slot * 1000 + number, commit)
                assert repository.editable_files(commit)["src/a.py"] == data
                repository.tidy(0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(3)]
    for thread in threads:
        thread.start()
    git(repo, "repack", "-adq")
    for thread in threads:
        thread.join()
    assert failures == []
    git(repo, "fsck", "--strict")


@pytest.mark.parametrize("named", [False, True])
def test_objects_that_git_gc_deleted_return(repo: Path, tmp_path: Path, named: bool) -> None:
    """A `git gc --prune=now` sees the refs as they were when it began: a commit made meanwhile is
    garbage to it, whether it has got its ref by now or not."""
    repository = open_repository(repo)
    files = {"src/a.py": b"A = 5\n", "src/deep/down.py": b"new\n"}
    commit = repository.commit(repository.head(), files, "x\n")
    if named:
        repository.refs.keep("t", 1, commit)
        git(repo, "update-ref", "-d", "refs/autoresearch/t/1")  # which the collector saw not yet
    git(repo, "prune", "--expire=now")
    git(repo, "gc", "-q", "--prune=now")
    if named:
        path = repo / ".git" / "refs" / "autoresearch" / "t" / "1"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{commit}\n")
    assert repository.changed_lines(repository.head(), commit) == (2, 1)
    repository.refs.keep("t", 1, commit)
    repository.trees.materialize(commit, tmp_path / "tree")
    assert (tmp_path / "tree" / "src" / "deep" / "down.py").read_bytes() == b"new\n"
    repository.tidy(0)
    git(repo, "fsck", "--strict")
    assert git(repo, "show", f"{commit}:src/a.py") == "A = 5"


def test_commits_survive_repeated_git_gc(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits, moves and packs while the user collects garbage again and again."""
    monkeypatch.setattr(objects, "PACK_EVERY", 7)
    repository = open_repository(repo)
    head, done = repository.head(), threading.Event()

    def collect() -> None:
        while not done.is_set():
            command = ["git", "gc", "-q", "--prune=now"]
            subprocess.run(command, cwd=repo, capture_output=True, check=False)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for number in range(25):
            data = f"A = {number}\n".encode()
            commit = repository.commit(head, {"src/a.py": data}, "x\n")
            repository.refs.keep("t", number, commit)
            onto = repository.commit(head, {"src/b.py": data}, "y\n")
            repository.refs.keep("t", 100 + number, onto)
            moved = repository.rebase(head, commit, onto)
            assert moved is not None
            with repository.refs.keep_moving("t", number, moved):
                repository.refs.keep("t", number, moved)
            assert repository.editable_files(moved)["src/a.py"] == data
            repository.tidy(0)
    finally:
        done.set()
        collector.join()
    repository.pack()
    git(repo, "fsck", "--strict")
    for number in range(25):
        assert git(repo, "show", f"refs/autoresearch/t/{number}:src/a.py") == f"A = {number}"
