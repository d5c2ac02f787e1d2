"""The commands that make a task: new, init."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from autoresearch.cli.common import print_answer, task_path
from autoresearch.errors import NotOursError, StorageError, TaskError
from autoresearch.files import remove_tree
from autoresearch.interactive import instructions
from autoresearch.plugins import TASKS
from autoresearch.task.directions import UnknownDirection
from autoresearch.task.layouts import scaffold
from autoresearch.task.model import TASK_FILE
from autoresearch.task.reading import load
from autoresearch.task.seeds import seed_patch


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


def init(options: argparse.Namespace) -> int:
    root = task_path(options)
    written, left, patches = list[str](), list[str](), list[str]()
    exists = (root / TASK_FILE).exists()
    if exists and not options.agent_files and not options.force:
        raise NotOursError(
            f"{root / TASK_FILE} exists: `autoresearch check` measures it, "
            "`autoresearch init --force` replaces it"
        )
    if options.force or not exists:
        written = _write_task(root, options)
        editable = [root / name for name in load(root).editable if (root / name).is_file()]
        patches = [patch for patch in map(seed_patch, editable) if patch]
    if options.agent_files:
        agent_files, left = instructions.write(root)
        written = sorted([*written, *agent_files])
    lines = []
    if written:
        lines.append(f"written: {', '.join(written)}. Look at them, then: autoresearch check")
    lines += [f"{name} is there already, and is left as it is" for name in left]
    if instructions.FILE in left:
        lines.append(
            f'Unless it says so already, add to it: "For research here, read {instructions.SKILL}"'
        )
    for patch in patches:
        lines.append("\nThe program sets its own seed. To measure the noise, let it take ours:\n")
        lines.append(patch)
    facts = {"written": written, "left": left, "seed_patches": patches}
    print_answer(options, facts, "\n".join(lines))
    return 0


def _scaffold(root: Path, options: argparse.Namespace) -> dict[str, str]:
    return scaffold(
        root,
        editable=options.editable,
        command=options.run_command,
        metric=options.metric,
        goal=options.goal,
    )


def _ask_goal(metric: str) -> str:
    """Ask on the terminal which way the metric is better. Raises `UnknownDirection` at its end."""
    while True:
        print(f"Is a lower or a higher {metric} better? [lower/higher] ", end="", file=sys.stderr)
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer:
            raise UnknownDirection(metric)
        for goal, words in (("minimize", "lower minimize"), ("maximize", "higher maximize")):
            if any(word.startswith(answer.strip().lower() or "?") for word in words.split()):
                return goal


def _write_task(root: Path, options: argparse.Namespace) -> list[str]:
    try:
        files = _scaffold(root, options)
    except UnknownDirection as unknown:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        options.goal = _ask_goal(unknown.metric)
        files = _scaffold(root, options)
    try:
        for name, content in files.items():
            (root / name).write_text(content)
    except OSError as error:
        for name in files:
            (root / name).unlink(missing_ok=True)
        raise StorageError(f"cannot write {error.filename}: {error.strerror}") from error
    return list(files)
