"""The command `new`: a copy of a ready task."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

from autoresearch.cli.common import print_answer
from autoresearch.errors import NotOursError, StorageError, TaskError
from autoresearch.files import remove_tree
from autoresearch.plugins import TASKS


def new(options: argparse.Namespace) -> int:
    source = TASKS.folder(options.name)
    folder = Path(options.folder or options.name)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise NotOursError(f"{folder} exists and is not empty: choose another folder")
    existed = folder.exists()
    mode = folder.stat().st_mode if existed else None
    try:
        _copy_task(source, folder)
    except BaseException:
        for path in folder.iterdir() if existed else [folder]:
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)
        raise
    finally:
        if mode is not None:
            folder.chmod(mode)  # the copy has given it the mode of our own folder
    prepare = ["python prepare.py"] if (folder / "prepare.py").exists() else []
    steps = [f"cd {folder}", *prepare, "autoresearch check", "autoresearch run"]
    lines = [f"{folder} has its own repository now. Next:\n", *(f"    {step}" for step in steps)]
    print_answer(options, {"folder": str(folder.resolve()), "next": steps}, "\n".join(lines))
    return 0


def _copy_task(source: Path, folder: Path) -> None:
    ignored = shutil.ignore_patterns("data", "__pycache__", ".autoresearch")
    try:
        shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error}") from error
    git = ["git", "-c", "user.name=autoresearch", "-c", "user.email=autoresearch@localhost"]
    git += ["-c", "commit.gpgsign=false"]
    subject = f"Start from autoresearch's {source.name}"
    for arguments in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        ["commit", "--quiet", "--no-verify", f"--message={subject}"],
    ):
        try:
            subprocess.run([*git, *arguments], cwd=folder, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise TaskError(f"git {arguments[0]} failed in {folder}: {error}") from error
