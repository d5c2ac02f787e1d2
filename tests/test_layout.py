"""The layout shows the architecture: tests mirror the packages, and each has its folder."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
PACKAGES = TESTS.parent / "src" / "autoresearch"
NO_PACKAGE = {"support", "faults"}  # what several tests share; faults of everything together


def folders(place: Path) -> set[str]:
    """The folders of `place` that hold Python files, at whatever depth."""
    return {path.name for path in place.iterdir() if path.is_dir() and any(path.rglob("*.py"))}


def test_every_package_has_a_folder_of_tests() -> None:
    missing = {name for name in folders(PACKAGES) if not any((TESTS / name).rglob("test_*.py"))}
    assert not missing


def test_every_folder_of_tests_has_a_package() -> None:
    assert folders(TESTS) - folders(PACKAGES) == NO_PACKAGE
