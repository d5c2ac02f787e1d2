"""Read files of a task's folder. Nothing about their content is taken for granted."""

from __future__ import annotations

from pathlib import Path

from autoresearch.errors import TaskError

MAX_FILE_BYTES = 1_000_000  # a task file or an objective beyond this is a mistake


def read_text(path: Path) -> str:
    """Read a small UTF-8 file. Raises `TaskError` if it is no such file."""
    try:
        if not path.is_file():
            raise TaskError(f"{path}: not a regular file")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise TaskError(f"{path}: {size} bytes; at most {MAX_FILE_BYTES} are accepted")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None


def exists(path: Path) -> bool:
    """Whether `path` exists. False if it is too long for the system or in an unreadable folder."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
