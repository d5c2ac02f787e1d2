"""The folders above a script from which it imports: a sub-folder of a repository often uses the
packages beside it, as `projects/adder/adder.py` does `mingpt/`.

Python itself finds them only if they are installed or on PYTHONPATH, which leads to the checkout.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from autoresearch.files import read_text

CUSTOMIZING = ("sitecustomize", "usercustomize")  # Python imports them at its start
IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+([A-Za-z_]\w*)", re.MULTILINE)


def find_import_folders(
    scripts: Iterable[Path], top: Path, sites: Iterable[Path]
) -> Iterator[Path]:
    """Folders above the scripts, up to `top`, that hold a module that a script imports. A module
    that is installed in one of the `sites`, or lies beside the script, is left as it is."""
    installed = list(sites)
    for script in scripts:
        names = set(IMPORT.findall(read_text(script))) - sys.stdlib_module_names
        known = (script.parent, *installed)
        names = {name for name in names if not any(_holds(folder, name) for folder in known)}
        for folder in script.parent.parents:
            if folder.is_relative_to(top) and any(_holds(folder, name) for name in names):
                yield folder


def find_shadows(
    files: Iterable[str], folders: Iterable[str], sites: Iterable[Path]
) -> Iterator[str]:
    """Those of the `files` that a program which imports from `folders` would find in the place of
    the standard library or of what is installed in one of the `sites`. All are relative paths."""
    prefixes = {"" if folder == "." else f"{folder}/" for folder in folders}
    installed = list(sites)
    for file in files:
        names = {
            file.removeprefix(prefix).partition("/")[0].partition(".")[0]
            for prefix in prefixes
            if file.startswith(prefix) and file.endswith(".py")
        }
        if names & {*sys.stdlib_module_names, *CUSTOMIZING} or any(
            (site / name).is_dir() or any(site.glob(f"{name}.*"))
            for site in installed
            for name in names
        ):
            yield file


def _holds(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or any((folder / name).glob("*.py"))
