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


def _holds(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or any((folder / name).glob("*.py"))
