"""Programs that a build tool makes and starts: Cargo, CMake, Make, npm, and their benchmarks.

A layout is an entry of `TOOLS`. Its commands hold names that `find` takes from the tool's own file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from autoresearch.task.draft import TaskDraft
from autoresearch.task.layouts.folder import Folder
from autoresearch.task.layouts.printed import find_printed
from autoresearch.task.layouts.python import is_certain

C_SOURCES = ("*.c", "*.cc", "*.cpp", "*.cxx", "src/**/*.c", "src/**/*.cc", "src/**/*.cpp")
C_HEADERS = ("*.h", "*.hpp", "src/**/*.h", "include/**/*.h")
TARGETS = ("bench", "benchmark", "perf", "eval", "evaluate", "train", "run")
SCRIPTS = ("bench", "benchmark", "perf", "bench:ci", "eval", "start")

Names = Mapping[str, str]


class Tool(NamedTuple):
    layout: str
    marker: str  # the file that tells the tool
    find: Callable[[Folder, str], list[Names]]  # (folder, the marker's text) -> names of each
    command: str
    sources: tuple[str, ...]  # globs of what may be edited
    build: str | None = None
    metric: str = ""  # of structured output; else it is looked for in the sources
    goal: str = ""
    json: str | None = None
    file: str | None = None


def _find_criterion(folder: Folder, text: str) -> list[Names]:
    """The functions of the only benchmark of a crate that uses Criterion."""
    benches = re.findall(r"\[\[bench\]\][^\[]*?name\s*=\s*\"([\w-]+)\"", text)
    if "criterion" not in text or len(benches) != 1:
        return []
    source = "\n".join(folder.read(path) for path in folder.find("benches/*.rs"))
    functions = dict.fromkeys(re.findall(r"bench_function\(\s*\"([^\"/]+)\"", source))
    return [{"bench": benches[0], "name": function} for function in functions]


def _find_cargo(folder: Folder, text: str) -> list[Names]:
    name = re.search(r"\[package\][^\[]*?name\s*=\s*\"([\w-]+)\"", text)
    return [{"program": name[1]}] if name and folder.has("src/main.rs") else []


def _find_cmake(folder: Folder, text: str) -> list[Names]:
    programs = re.findall(r"add_executable\(\s*([\w.+-]+)", text)
    likely = [name for name in programs if name in TARGETS or "bench" in name] or programs
    return [{"program": likely[0]}] if len(likely) == 1 else []


def _find_make(folder: Folder, text: str) -> list[Names]:
    built = {path.rpartition("/")[2].partition(".")[0] for path in folder.find(*C_SOURCES)}
    targets = set(re.findall(r"^([\w.-]+)\s*:(?!=)", text, re.MULTILINE)) - built
    target = next((name for name in TARGETS if name in targets), None)
    return [{"target": target}] if target else []


def _find_npm(folder: Folder, text: str) -> list[Names]:
    try:
        document: Any = json.loads(text)
        scripts = document["scripts"]
        name = next(name for name in SCRIPTS if isinstance(scripts.get(name), str))
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError, StopIteration):
        return []
    return [{"script": name}]


def _find_pytest_benchmark(folder: Folder, text: str) -> list[Names]:
    """The tests that take the fixture `benchmark`."""
    globs = ("test*.py", "bench*.py", "tests/**/*.py", "bench*/**/*.py")
    return [
        {"name": name, "path": path}
        for path in folder.find(*globs)
        for name in re.findall(r"^def (test_\w+)\([^)]*\bbenchmark\b", folder.read(path), re.M)
    ]


def _find_hyperfine(folder: Folder, text: str) -> list[Names]:
    """A script that calls hyperfine without a file of its own for the result."""
    for path in folder.find("*.sh", "bench*/*.sh", "scripts/*.sh"):
        for call in re.findall(r"^\s*(hyperfine\b[^|&;\\]*)$", folder.read(path), re.MULTILINE):
            if "--export-json" not in call:
                return [{"call": call.strip(), "path": path}]
    return []


RUST = ("src/**/*.rs",)
JS = ("*.js", "*.mjs", "*.ts", "src/**/*.js", "src/**/*.ts", "lib/**/*.js")
TOOLS = (
    Tool(
        "pytest-benchmark", "", _find_pytest_benchmark,
        "{python} -m pytest {path} -q -k {name} --benchmark-json=benchmark.json",
        (), metric="median_s", goal="minimize",
        json="benchmarks[name={name}].stats.median", file="benchmark.json",
    ),
    Tool(
        "hyperfine", "", _find_hyperfine, "{call} --export-json hyperfine.json",
        (*RUST, *C_SOURCES, *JS, "*.py", "src/**/*.py"), metric="median_s", goal="minimize",
        json="results[0].median", file="hyperfine.json",
    ),
    Tool(
        "Criterion.rs", "Cargo.toml", _find_criterion,
        "cargo bench --offline --bench {bench}", RUST,
        build="cargo bench --offline --no-run --bench {bench}", metric="median_ns", goal="minimize",
        json="median.point_estimate", file="target/criterion/{name}/new/estimates.json",
    ),
    Tool(
        "Cargo", "Cargo.toml", _find_cargo, "./target/release/{program}", RUST,
        build="cargo build --offline --release",
    ),
    Tool(
        "CMake", "CMakeLists.txt", _find_cmake, "./build/{program}", (*C_SOURCES, *C_HEADERS),
        build="cmake -S . -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build",
    ),
    Tool("Make", "Makefile", _find_make, "make -s {target}", (*C_SOURCES, *C_HEADERS)),
    Tool("npm", "package.json", _find_npm, "npm run --silent {script}", JS),
)  # fmt: skip


def recognise(folder: Folder) -> TaskDraft | None:
    for tool in TOOLS:
        if tool.marker and not folder.has(tool.marker):
            continue
        found = tool.find(folder, folder.read(tool.marker) if tool.marker else "")
        wanted = [names for names in found if names.get("name") == folder.wanted.get("metric")]
        if len(found) == 1 or wanted:
            return _draft(folder, tool, (wanted or found)[0])
        if found:
            names = [names["name"] for names in found]
            draft = _draft(folder, tool, found[0])
            return replace(draft, metric="", choices={"metric": names})
    return None


def _draft(folder: Folder, tool: Tool, names: Names) -> TaskDraft:
    from autoresearch.task.layouts.python import find_interpreter, list_imported

    python = find_interpreter(folder)

    def fill(text: str | None) -> str | None:
        return text and text.format(python=python.command, **names)

    if tool.sources:
        editable = folder.find_editable(*tool.sources)
    else:
        editable = list_imported(folder, names["path"])
    judges = [path for path in folder.find(*tool.sources) if path not in editable]
    numbers = [] if tool.metric else find_printed(folder, [*judges, *editable, *_scripts(folder)])
    metric = tool.metric or (numbers[0].name if numbers and is_certain(numbers) else "")
    origin = ", ".join(names.values())
    reasons = {
        "command": f"from {tool.marker or names.get('path', '')} ({origin})",
        "editable": "the sources, without tests and benchmarks",
    }
    if numbers:
        reasons["metric"] = f"printed by {numbers[0].where}"
    elif tool.metric:
        reasons["metric"] = f"the median time, in the file that {tool.layout} writes"
        reasons["goal"] = "a time"
    return TaskDraft(
        layout=tool.layout,
        editable=tuple(editable),
        command=fill(tool.command) or "",
        build=fill(tool.build),
        metric=metric,
        goal=tool.goal,
        json=fill(tool.json),
        file=fill(tool.file),
        inputs=python.inputs if "{python}" in tool.command else _find_modules(folder),
        reasons=reasons,
        choices={"metric": [number.name for number in numbers]},
    )


def _scripts(folder: Folder) -> list[str]:
    return folder.find("*.sh", "bench*/*", "scripts/*")[:50]


def _find_modules(folder: Folder) -> tuple[str, ...]:
    """npm's packages, which git does not have."""
    return ("node_modules",) if folder.has("node_modules") else ()
