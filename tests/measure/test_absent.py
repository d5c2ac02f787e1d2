"""What the checkout has and a run has not is named before it is missed."""

from __future__ import annotations

from pathlib import Path

from support.sessions import commit_all, git

from autoresearch.git.repository import Repository
from autoresearch.measure.absent import list_absent_files
from autoresearch.task.reading import load

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def look(root: Path) -> list[str]:
    commit_all(root)
    task = load(root)
    return list_absent_files(task, Repository(task.root, task.editable, task.may_edit))


def test_pointers_of_git_lfs(root: Path) -> None:
    (root / "data").mkdir()
    (root / "data" / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    for name in ("a.bin", "b.bin", "c.txt"):
        (root / "data" / name).write_text(POINTER)
    (root / "data" / "small.bin").write_text("committed before Git LFS was set up")
    (sentence,) = look(root)
    assert sentence.startswith("data/a.bin and 1 more: Git LFS keeps the content")


def test_a_submodule_that_is_no_input(root: Path) -> None:
    (root / ".gitmodules").write_text('[submodule "lib"]\n\tpath = vendor/lib\n\turl = ../lib\n')
    (root / "vendor" / "lib").mkdir(parents=True)
    (root / "vendor" / "lib" / "x.py").touch()
    head = git(root, "rev-parse", "HEAD")
    (root / ".gitignore").write_text("vendor/\n")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{head},vendor/lib")
    (sentence,) = look(root)
    assert sentence.startswith("vendor/lib: a run has no files of submodules")
    file = root / "autoresearch.toml"
    file.write_text(file.read_text().replace("[run]\n", '[run]\ninputs = ["vendor/lib/"]\n'))
    assert look(root) == []
