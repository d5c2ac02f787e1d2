"""Folders of other tools that are tasks already, and the files `autoresearch init` writes.

A layout is recognised by writing the task file it amounts to and parsing that; so what runs
without a task file is exactly what `init` would have written down.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import re
import shutil
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.errors import TaskError
from autoresearch.records import Goal
from autoresearch.task.model import TASK_FILE, Task, exists, parse, parse_duration, read_text
from autoresearch.task.values import DURATION

LOOKED_FOR = (
    "the original's train.py with prepare.py, and pi-autoresearch's autoresearch.md with "
    "autoresearch.sh or .auto/prompt.md with .auto/measure.sh"
)

ORIGINAL_OBJECTIVE = """\
Lower val_bpb, the validation bits per byte, of the model that train.py trains within a fixed time.
Anything in train.py may change: architecture, optimizer, hyperparameters, batch size, model size.
prepare.py holds the data, the tokenizer and the evaluation, and is frozen. Simpler is better: an
improvement that adds ugly complexity is worth less than one that removes code.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder says about itself: the blanks of a task file."""

    layout: str
    objective: str  # a path, or the text itself
    editable: tuple[str, ...]
    command: str
    metric: str
    goal: str
    budget_s: float | None = None
    timeout_s: float = 600.0  # wall; ten minutes both in the original and in pi-autoresearch
    caches: tuple[str, ...] = ()
    checks: str | None = None
    experiments: int | None = None


def recognise(root: Path) -> Task | None:
    """The task of a folder that has no task file, or None; `TaskError` where one is incomplete."""
    found = _original(root) or _pi(root)
    return _check(root, found) if found else None


def scaffold(
    root: Path,
    editable: Sequence[str] | None = None,
    command: str | None = None,
    metric: str | None = None,
    goal: str | None = None,
) -> dict[str, str]:
    """The files that make `root` a task, path -> text; what is not given is looked up there.

    Raises `TaskError` where a blank can neither be filled nor guessed, or is filled with what is no
    task. Writes nothing.
    """
    found = _original(root) or (None if editable or metric else _pi(root))
    found = found or _plain(root, editable, command, metric, goal)
    found = replace(
        found,
        editable=tuple(editable or found.editable),
        command=command or found.command,
        metric=metric or found.metric,
        goal=goal or (_direction(metric) if metric else found.goal),
    )
    files = {}
    if found.layout != "pi-autoresearch":
        if not exists(root / "program.md"):
            files["program.md"] = _program(found)
        found = replace(found, objective="program.md")
    _check(root, found if exists(root / found.objective) else replace(found, objective="yours"))
    return {TASK_FILE: _task_file(found), **files}


def _check(root: Path, found: Found) -> Task:
    try:
        return parse(_task_file(found), root, layout=found.layout)
    except TaskError as error:
        raise TaskError(f"{root}, read as the layout {found.layout}:\n{error}") from None


# --------------------------------------------------------------------------------------------
# karpathy/autoresearch


def _original(root: Path) -> Found | None:
    if not (exists(root / "train.py") and exists(root / "prepare.py")):
        return None
    train, prepare = read_text(root / "train.py"), read_text(root / "prepare.py")
    if "val_bpb" not in train:
        return None
    uv = exists(root / "uv.lock") and shutil.which("uv") is not None
    budget = re.search(r"^TIME_BUDGET\s*=\s*([\d.]+)", prepare, re.MULTILINE | re.ASCII)
    budget_s = _seconds(root / "prepare.py", budget[1]) if budget else 300.0
    caches = ["~/.cache/autoresearch"]  # prepare.py puts data and tokenizer there
    caches += ["~/.cache/uv"] if uv else []
    caches += ["~/.cache/huggingface"] if re.search(r"^from kernels ", train, re.MULTILINE) else []
    return Found(
        layout="original",
        objective="program.md" if exists(root / "program.md") else ORIGINAL_OBJECTIVE,
        editable=("train.py",),
        command="uv run train.py" if uv else "python train.py",
        metric="val_bpb",
        goal="minimize",
        budget_s=budget_s,
        timeout_s=2 * budget_s,  # the original's program.md: 5 minutes, killed after 10
        caches=tuple(caches),
    )


def _seconds(file: Path, number: str) -> float:
    try:
        return parse_duration(float(number))
    except ValueError as why:
        raise TaskError(
            f"{file}: TIME_BUDGET = {number[:40]} ({why}); accepted: {DURATION.accepts}"
        ) from None


# --------------------------------------------------------------------------------------------
# pi-autoresearch

PI_FILES = (  # objective, command, checks, configuration; since 1.6, and before
    (".auto/prompt.md", ".auto/measure.sh", ".auto/checks.sh", ".auto/config.json"),
    ("autoresearch.md", "autoresearch.sh", "autoresearch.checks.sh", "autoresearch.config.json"),
)


def _pi(root: Path) -> Found | None:
    for prompt, measure, checks, config in PI_FILES:
        if exists(root / prompt) and exists(root / measure):
            sections = _sections(read_text(root / prompt))
            metric, goal = _primary(root / prompt, sections.get("metrics", ""))
            return Found(
                layout="pi-autoresearch",
                objective=prompt,
                editable=_scope(root, prompt, sections),
                command=f"bash {measure}",
                metric=metric,
                goal=goal,
                checks=f"bash {checks}" if exists(root / checks) else None,
                experiments=_iterations(root / config),
            )
    return None


def _sections(text: str) -> dict[str, str]:
    """Title in lower case -> text, for every `## Title`."""
    pieces = re.split(r"^##[ \t]+(.+?)[ \t#]*$", text, flags=re.MULTILINE)
    titles = [title.lower() for title in pieces[1::2]]
    return dict(reversed(list(zip(titles, pieces[2::2], strict=True))))  # the first one counts


def _primary(file: Path, metrics: str) -> tuple[str, str]:
    """Name and goal from `- **Primary**: name (unit, lower is better) - prose`."""
    found = re.search(
        r"\*\*Primary(?::\*\*|\*\*\s*:)\s*[`*]*([\w.µ]+)(.*(?:\n(?!\s*[-*]).+)*)", metrics
    )
    direction = found and re.search(r"\b(lower|higher)\W+is\W+better", found[2], re.IGNORECASE)
    if not found or not direction:
        what = "no direction in" if found else "no primary metric in"
        raise TaskError(
            f"{file}: {what} the section `## Metrics`; "
            "accepted: `- **Primary**: name (unit, lower is better)`, or higher"
        )
    return found[1], "minimize" if direction[1].lower() == "lower" else "maximize"


def _scope(root: Path, prompt: str, sections: dict[str, str]) -> tuple[str, ...]:
    """Files in Scope, less what is Off Limits; neither prose nor the session's own files."""
    own = re.compile(r"(\./)?(\.auto(/|$)|autoresearch\.)")
    paths = list(_paths(root, sections.get("files in scope", "")))
    scope = [path for path in dict.fromkeys(paths) if not own.match(path)]
    if not scope:
        raise TaskError(
            f"{root / prompt}: no file in the section `## Files in Scope`; "
            "accepted: bullets that start with a path, such as: - `src/parser.py` - the parser"
        )
    limits = dict.fromkeys(_paths(root, sections.get("off limits", "")))
    outside = re.compile(r"/|\.\.(/|$)")
    frozen = [p for p in limits if p not in scope and not own.match(p) and not outside.match(p)]
    return (*scope, *(f"!{path}" for path in frozen))


def _paths(root: Path, section: str) -> Iterator[str]:
    """The paths that bullets (or rows of a table) start with; a bullet of prose has none."""
    for line in section.splitlines():
        rest = re.sub(r"^\s*(?:[-*+|]|\d+[.)])?\s*\**", "", line)
        quoted = re.match(r"(?:`[^`]+`\**(?:\s*(?:,|and|&|\+)\s*)?)+", rest)
        words = re.findall(r"`([^`]+)`", quoted[0]) if quoted else rest.split()[:1]
        for word in (word.rstrip(":,") for word in words):
            if re.fullmatch(r"[\w@+*?./-]+", word) and (quoted or re.search("[./]", word)):
                named = word.endswith("/") or re.search(r"\*|\w\.\w+$", word)
                if named or exists(root / word):
                    yield word


def _iterations(config: Path) -> int | None:
    if not exists(config):
        return None
    try:
        settings = json.loads(read_text(config))
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{config}: not valid JSON: {error}") from None
    if not isinstance(settings, dict):
        raise TaskError(f"{config}: accepted: an object")
    if settings.get("workingDir") not in (None, "", "."):
        raise TaskError(f"{config}: workingDir is not supported; start in that folder")
    most = settings.get("maxIterations")
    if not isinstance(most, int) or isinstance(most, bool):
        return None
    return most if most > 0 else None  # there, 0 means unlimited


# --------------------------------------------------------------------------------------------
# Any other folder

HIGHER_IS_BETTER = r"acc|score|reward|return|f1|auc|bleu|precision|recall|per_s|throughput|speedup"


def _plain(
    root: Path,
    editable: Sequence[str] | None,
    command: str | None,
    metric: str | None,
    goal: str | None,
) -> Found:
    files = tuple(editable or _candidates(root))
    if not files:
        raise TaskError(
            f"{root}: which file may be edited? Say `autoresearch init --editable FILE`"
        )
    if not command and not files[0].endswith(".py"):
        raise TaskError(f"{root}: how is it run? Say `autoresearch init --command '...'`")
    name = metric or _printed(root / files[0])
    if not name:
        raise TaskError(
            f"{root}: {files[0]} prints no `name: number` that looks like a metric. "
            "Which is it? Say `autoresearch init --metric NAME`"
        )
    return Found(
        layout=TASK_FILE,
        objective="program.md",
        editable=files,
        command=command or f"python {files[0]}",
        metric=name,
        goal=goal or _direction(name),
    )


def _direction(metric: str) -> str:
    return "maximize" if re.search(HIGHER_IS_BETTER, metric) else "minimize"


def _candidates(root: Path) -> list[str]:
    programs = sorted(path.name for path in root.glob("*.py"))
    return ["train.py"] if "train.py" in programs else programs if len(programs) == 1 else []


def _printed(program: Path) -> str | None:
    """The metric a program seems to print: `METRIC name=...` first, else the likeliest name."""
    if not exists(program):
        return None
    text = read_text(program)
    if stated := re.search(r"\bMETRIC ([\w.µ]+)=", text):
        return stated[1]
    names = re.findall(r"""["']([A-Za-z_][\w.]*):\s*[{%]""", text)
    likely = rf"^(val|test|eval)_|loss|err|{HIGHER_IS_BETTER}"
    ranked = sorted((n for n in names if re.search(likely, n)), key=lambda n: n[:4] != "val_")
    return ranked[0] if ranked else None


# --------------------------------------------------------------------------------------------
# Writing


def _task_file(found: Found) -> str:
    limit = "" if found.experiments else "# "
    lines = {
        f"objective = {_toml(found.objective)}": "for the agent: a file, or the text itself",
        f"editable = {_toml(found.editable)}": "what the agent may edit; all else is frozen",
        "\n[run]": "",
        f"command = {_toml(found.command)}": "prints the metric",
        _budget(found): "told to it as AUTORESEARCH_BUDGET, beside AUTORESEARCH_SEED",
        'budget_clock = "wall"': 'or "cpu": of all its processes together',
        f'timeout = "{_duration(found.timeout_s)}"': "killed after this, whatever it does",
        '# inputs = ["data/"]': "untracked files it reads",
        (f"caches = {_toml(found.caches)}" if found.caches else '# caches = ["~/.cache/x"]'): (
            "folders outside that it may write"
        ),
        "\n[metric]": "",
        f"name = {_toml(found.metric)}": "as printed: `name: number` or `METRIC name=number`",
        f"goal = {_toml(found.goal)}": " or ".join(goal.value for goal in Goal),
        "\n# [guards]": "",
        '# peak_vram_mb = "<= 60000"': "another number it prints, and its bound",
        f"\n{'' if found.checks else '# '}[guards.commands]": "",
        (f"checks = {_toml(found.checks)}" if found.checks else '# tests = "pytest -q"'): (
            "must succeed before a change is kept"
        ),
        f"\n{limit}[limits]": "without them, it runs until Ctrl-C",
        f"{limit}experiments = {found.experiments or 100}": "",
        '# until = "07:00"': "",
    }
    return "".join(
        f"{line:<35} {note and f'# {note}'}".rstrip() + "\n" for line, note in lines.items()
    )


def _budget(found: Found) -> str:
    return f'budget = "{_duration(found.budget_s)}"' if found.budget_s else '# budget = "5m"'


def _program(found: Found) -> str:
    if found.layout == "original":
        return ORIGINAL_OBJECTIVE
    better = "Lower" if found.goal == "minimize" else "Raise"
    return f"""\
# Objective

{better} `{found.metric}` of `{found.command}`.

## What may change

{", ".join(found.editable)}: anything, as long as it still prints `{found.metric}`.

## What matters besides the number

Simpler is better. Of two changes that gain the same, the one that removes code wins.

## Ideas to start from

- (yours: what you would try first, what you know does not work)
"""


def _toml(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[{', '.join(_toml(item) for item in value)}]"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


# --------------------------------------------------------------------------------------------
# A program that ignores the seed

SEEDERS = {"manual_seed", "manual_seed_all", "seed", "set_seed", "seed_everything", "seed_all"}
SEEDERS |= {"default_rng", "PRNGKey", "RandomState", "Random"}
SEED_NAMES = {"seed", "random_seed", "random_state", "rng_seed"}


def seed_patch(path: Path) -> str | None:
    """A unified diff after which the program at `path` takes its seed from AUTORESEARCH_SEED.

    Every `SEED = 1337`, `seed=0` and `manual_seed(42)` keeps its number as the default. None where
    there is no such number, the program reads the variable already, or it is not Python.
    """
    try:
        before = read_text(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
            tree = ast.parse(before)
        spots = sorted(_seeds(before), reverse=True)
    except (TaskError, SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return None
    if "AUTORESEARCH_SEED" in before or not spots:
        return None
    lines = list(io.StringIO(before))  # lines as the tokenizer counts them
    for row, start, end in spots:
        line = lines[row]
        seed = f'int(os.environ.get("AUTORESEARCH_SEED", {line[start:end]}))'
        lines[row] = line[:start] + seed + line[end:]
    if not _imports_os(tree):
        lines.insert(_first_line(tree, lines), "import os\n")
    name = path.name if path.is_absolute() else path.as_posix()
    diff = difflib.unified_diff(list(io.StringIO(before)), lines, f"a/{name}", f"b/{name}", n=3)
    return "".join(d if d.endswith("\n") else f"{d}\n\\ No newline at end of file\n" for d in diff)


def _seeds(source: str) -> Iterator[tuple[int, int, int]]:
    """(line from 0, first column, end column) of every number that is a seed."""
    skip = (tokenize.NL, tokenize.COMMENT)
    tokens = [
        t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in skip
    ]
    for name, mark, number, after in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
        if not number.string.isdigit():
            continue
        called = mark.string == "(" and name.string in SEEDERS and after.string in (")", ",")
        bound = mark.string == "=" and name.string.lower() in SEED_NAMES
        typed = (
            mark.string == "="
            and name.string == "int"
            and re.match(r"\s*(?i:seed|random_seed|rng_seed)\s*:\s*int\s*=", number.line)
        )
        option = (
            mark.string == "=" and name.string == "default" and re.search(r"--seed\b", number.line)
        )
        if called or bound or typed or option:
            yield number.start[0] - 1, number.start[1], number.end[1]


def _imports_os(tree: ast.Module) -> bool:
    names = [name for node in tree.body if isinstance(node, ast.Import) for name in node.names]
    return any(name.name.split(".")[0] == "os" and not name.asname for name in names)


def _first_line(tree: ast.Module, lines: Sequence[str]) -> int:
    """Where an import may go: after the docstring, the `__future__` and the comments there."""
    line = 0
    for node in tree.body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not (docstring or future):
            break
        line = node.end_lineno or 0
    while line < len(lines) and (not lines[line].strip() or lines[line].startswith("#")):
        line += 1
    return line
