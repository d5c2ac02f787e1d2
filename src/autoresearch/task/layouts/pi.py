"""The layout of pi-autoresearch: a prompt with the objective, and a script that measures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from autoresearch.errors import TaskError
from autoresearch.task.draft import TaskDraft
from autoresearch.task.files import exists, read_text
from autoresearch.task.layouts.folder import Folder

FILES = (  # objective, command, checks, configuration; first of 1.6 and later
    (".auto/prompt.md", ".auto/measure.sh", ".auto/checks.sh", ".auto/config.json"),
    ("autoresearch.md", "autoresearch.sh", "autoresearch.checks.sh", "autoresearch.config.json"),
)


def recognise(folder: Folder) -> TaskDraft | None:
    """Return the task, or None for another folder. Raises `TaskError` if it is incomplete."""
    root = folder.root
    for prompt, measure, checks, config in FILES:
        if exists(root / prompt) and exists(root / measure):
            sections = _sections(read_text(root / prompt))
            metric, goal = _primary(root / prompt, sections.get("metrics", ""))
            return TaskDraft(
                layout="pi-autoresearch",
                objective=prompt,
                editable=_scope(root, prompt, sections),
                command=f"bash {measure}",
                metric=metric,
                goal=goal,
                checks=f"bash {checks}" if exists(root / checks) else None,
                experiments=_iterations(root / config),
                reasons=dict.fromkeys(("command", "editable", "metric"), f"as {prompt} says"),
            )
    return None


def _sections(text: str) -> dict[str, str]:
    """Return title in lower case -> text, for every `## Title`."""
    pieces = re.split(r"^##[ \t]+(.+?)[ \t#]*$", text, flags=re.MULTILINE)
    titles = [title.lower() for title in pieces[1::2]]
    return dict(
        reversed(list(zip(titles, pieces[2::2], strict=True)))
    )  # the first of a title counts


def _primary(file: Path, metrics: str) -> tuple[str, str]:
    """Read name and goal from `- **Primary**: name (unit, lower is better) - prose`."""
    primary = re.search(
        r"\*\*Primary(?::\*\*|\*\*\s*:)\s*[`*]*([\w.µ]+)(.*(?:\n(?!\s*[-*]).+)*)", metrics
    )
    direction = primary and re.search(r"(?i)\b(lower|higher)\W+is\W+better", primary[2])
    if not primary or not direction:
        missing = "direction" if primary else "primary metric"
        raise TaskError(
            f"{file}: no {missing} in the section `## Metrics`; "
            "accepted: `- **Primary**: name (unit, lower is better)`, or higher"
        )
    return primary[1], "minimize" if direction[1].lower() == "lower" else "maximize"


def _scope(root: Path, prompt: str, sections: dict[str, str]) -> tuple[str, ...]:
    """Return globs: Files in Scope without Off Limits, prose and the session's own files."""
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
    """Yield the paths at the start of bullets or of rows of a table; prose has none."""
    for line in section.splitlines():
        rest = re.sub(r"^\s*(?:[-*+|]|\d+[.)])?\s*\**", "", line)
        quoted = re.match(r"(?:`[^`]+`\**(?:\s*(?:,|and|&|\+)\s*)?)+", rest)
        words = re.findall(r"`([^`]+)`", quoted[0]) if quoted else rest.split()[:1]
        for word in (word.rstrip(":,") for word in words):
            if re.fullmatch(r"[\w@+*?./-]+", word) and (quoted or re.search("[./]", word)):
                is_path = word.endswith("/") or re.search(r"\*|\w\.\w+$", word)
                if is_path or exists(root / word):
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
