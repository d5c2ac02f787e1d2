"""A Python program: a script, a package with `__main__`, or a script that benchmarks a module."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from autoresearch.task.draft import TaskDraft
from autoresearch.task.layouts.folder import Folder, has_tool
from autoresearch.task.layouts.printed import PrintedNumber, find_printed

USUAL_NAMES = ("train.py", "main.py", "run.py", "simulate.py", "solve.py", "optimize.py")
BENCHMARKS = ("bench*.py", "*_bench.py", "*benchmark*.py", "bench*/*.py", "scripts/bench*.py")
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*[\w.]+)[ \t]+import|import[ \t]+([\w.]+))", re.MULTILINE
)
ENVIRONMENTS = (".venv", "venv", "env")

CACHES = (  # what a source imports or calls, the folder, the program that fills it
    (r"\b(?:transformers|datasets|huggingface_hub|kernels)\b", "~/.cache/huggingface"),
    (r"\b(?:torch\.hub|torchvision)\b", "~/.cache/torch"),
    (r"\b(?:keras|tensorflow)\b", "~/.keras"),
    (r"\bnltk\b", "~/nltk_data"),
    (r"\bfetch_(?:openml|california|20news|covtype|lfw)", "~/scikit_learn_data"),
)


class Interpreter(NamedTuple):
    """How this folder's Python is called."""

    command: str
    reason: str
    inputs: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()


def recognise(folder: Folder) -> TaskDraft | None:
    programs = _list_programs(folder)
    if not programs:
        return None
    program, choices = _choose(folder, programs)
    if program is None:
        return TaskDraft(layout="Python scripts", choices={"editable": choices})
    return draft(folder, program)


def draft(folder: Folder, program: str) -> TaskDraft:
    """The task of one program: a script, or the `__main__.py` of a package."""
    python = find_interpreter(folder)
    text = folder.read(program)
    reasons = {"command": f"{program} is the program; {python.reason}"}
    if program.endswith("/__main__.py"):
        package = program.removesuffix("/__main__.py")
        name = package.removeprefix("src/").replace("/", ".")
        path = "PYTHONPATH=src " if package.startswith("src/") else ""
        command, editable = f"{path}{python.command} -m {name}", [f"{package}/**/*.py"]
        reasons["editable"] = "the package, without its tests"
        own = folder.find(*editable)
    else:
        command, own = f"{python.command} {program}", [program]
        imported = list_imported(folder, program)
        is_benchmark = bool(folder.find(*BENCHMARKS) and program in folder.find(*BENCHMARKS))
        editable = imported if is_benchmark else [program]
        reasons["editable"] = "what the benchmark imports" if is_benchmark else "the program"
        own += imported
    numbers = find_printed(folder, [program, *own])
    metric = numbers[0].name if numbers and is_certain(numbers) else ""
    if metric:
        reasons["metric"] = f"printed by {numbers[0].where}{_list_others(numbers)}"
    inputs = [*python.inputs, *_find_inputs(folder, text)]
    return TaskDraft(
        layout="a Python package" if program.endswith("/__main__.py") else "a Python script",
        editable=tuple(editable),
        command=command,
        metric=metric,
        inputs=tuple(inputs),
        caches=(*python.caches, *find_caches(folder, [program, *own])),
        reasons=reasons
        | {"inputs": "read by the program, and not in git", "caches": "written by what it imports"},
        choices={"metric": [number.name for number in numbers]},
    )


def is_certain(numbers: list[PrintedNumber]) -> bool:
    """Whether the first is alone at its rank, or named in a way that tells what it is."""
    first = numbers[0]
    return first.is_marked or len(numbers) == 1 or not first.rank[1]


def _list_others(numbers: list[PrintedNumber]) -> str:
    others = ", ".join(number.name for number in numbers[1:4])
    return f" (it prints {others} too)" if others else ""


def find_interpreter(folder: Folder) -> Interpreter:
    plain = "python" if has_tool("python") or not has_tool("python3") else "python3"
    if folder.has("uv.lock") and has_tool("uv"):
        return Interpreter("uv run python", "uv.lock", caches=("~/.cache/uv",))
    if folder.has("poetry.lock") and has_tool("poetry"):
        return Interpreter("poetry run python", "poetry.lock")
    for name in ENVIRONMENTS:
        if folder.has(f"{name}/pyvenv.cfg") and folder.has(f"{name}/bin/python"):
            if os.environ.get("VIRTUAL_ENV") == str((folder.root / name).absolute()):
                return Interpreter(plain, f"{name} is active")
            return Interpreter(f"{name}/bin/python", f"{name} is its environment", (name,))
    if os.environ.get("CONDA_PREFIX") and folder.has("environment.yml"):
        return Interpreter(plain, "the active conda environment")
    return Interpreter(plain, "the python on PATH" if plain == "python" else "no `python` on PATH")


def list_imported(folder: Folder, program: str) -> list[str]:
    """The folder's own modules that a program imports, as files or as globs of packages."""
    base = program.rpartition("/")[0]
    found: dict[str, None] = {}
    for match in IMPORT.finditer(folder.read(program)):
        name = (match[1] or match[2]).lstrip(".").replace(".", "/")
        for place in filter(None, dict.fromkeys(f"{p}{name}" for p in (f"{base}/", "", "src/"))):
            place = place.lstrip("/")
            if f"{place}.py" in folder.files:
                found[f"{place}.py"] = None
            elif f"{place}/__init__.py" in folder.files:
                found[f"{place}/**/*.py"] = None
    return [path for path in found if "*" in path or folder.find_editable(path)]


def find_caches(folder: Folder, globs: Iterable[str]) -> Iterator[str]:
    """The caches that exist and that the sources' libraries write."""
    text = "\n".join(folder.read(path) for path in folder.find(*globs)[:50])
    for pattern, cache in CACHES:
        if re.search(pattern, text) and Path(cache).expanduser().is_dir():
            yield cache


def _list_programs(folder: Folder) -> list[str]:
    """Scripts at the top, packages with `__main__`, benchmarks; the likeliest first."""
    scripts = folder.find_editable("*.py")
    packages = folder.find("*/__main__.py", "src/*/__main__.py")
    scripts.sort(key=lambda path: USUAL_NAMES.index(path) if path in USUAL_NAMES else 99)
    return [*scripts, *packages, *folder.find(*BENCHMARKS)]


def _choose(folder: Folder, programs: list[str]) -> tuple[str | None, list[str]]:
    """The program, or None and those between which the user has to choose."""
    if len(programs) == 1:
        return programs[0], []
    if programs[0] == USUAL_NAMES[0]:
        return programs[0], []
    printing = [path for path in programs if _prints_metric(folder, path)]
    if len(printing) == 1:
        return printing[0], []
    started = [path for path in printing if _is_started(folder, path)]
    if len(started) == 1:
        return started[0], []
    return None, printing or programs


def _prints_metric(folder: Folder, program: str) -> bool:
    numbers = find_printed(folder, [program])
    return bool(numbers) and (numbers[0].is_marked or not numbers[0].rank[1])


def _is_started(folder: Folder, program: str) -> bool:
    return program.endswith("__main__.py") or "__main__" in folder.read(program)


def _find_inputs(folder: Folder, text: str) -> Iterator[str]:
    """Paths in the program's texts that exist and that git does not have: their first part."""
    words = re.findall(r"""["']((?:\./)?[\w.-]+(?:/[\w./-]*)?)["']""", text)
    names = (word.removeprefix("./").split("/")[0] for word in words)
    for name in dict.fromkeys(names):
        is_name = re.fullmatch(r"\w[\w.-]*", name) and not name.endswith(".py")
        if is_name and folder.lacks_commit(name):
            yield name
