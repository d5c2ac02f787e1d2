"""The layout shows the architecture: a small core, and tests that mirror the packages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

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


CORE = sorted((PACKAGES / "core").glob("*.py"))
CORE_LINES = 2400  # what is read in an afternoon
ABOVE_CORE = {
    "agents",
    "briefing",
    "cli",
    "commands",
    "interactive",
    "report",
    "runners",
    "testing",
    "web",
}
PLATFORM = {"ctypes", "fcntl", "psutil", "resource", "landlock", "seccomp", "nested", "installed"}


def test_the_core_is_read_in_an_afternoon() -> None:
    assert sum(len(path.read_text().splitlines()) for path in CORE) <= CORE_LINES


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_imports_no_view_no_agent_no_runner_and_no_platform_code(path: Path) -> None:
    """Wherever the import is: at the top, in a function, or for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            assert not PLATFORM.intersection(parts), name
            assert parts[0] != "autoresearch" or not ABOVE_CORE.intersection(parts[1:2]), name
