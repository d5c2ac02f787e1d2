"""Folders are removed whatever is in them."""

from __future__ import annotations

from pathlib import Path

from autoresearch.files import copy_file, remove_tree


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


def test_a_copy_has_the_same_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        for place in (0, 50_000_000, 3_000_000_000):
            file.seek(place)
            file.write(b"some data" * 200_000)
        file.truncate(6_000_000_000)
    copy_file(source, target)
    assert target.stat().st_size == 6_000_000_000
    assert target.stat().st_blocks * 512 < 50_000_000
    with target.open("rb") as file:
        for place in (0, 50_000_000, 3_000_000_000):
            file.seek(place)
            assert file.read(2_000_000) == b"some data" * 200_000 + bytes(200_000)
    for content in (b"", b"full" * 600_000):
        source.write_bytes(content)
        copy_file(source, target)
        assert target.read_bytes() == content
