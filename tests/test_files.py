"""Folders are removed whatever is in them."""

from __future__ import annotations

from pathlib import Path

from autoresearch.files import remove_tree


def test_remove_tree_whatever_its_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "closed").mkdir(parents=True)
    (folder / "closed" / "file").write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("x")
    (folder / "link").symlink_to(outside)
    (folder / "closed").chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    assert (outside / "mine").exists()
    remove_tree(folder)
