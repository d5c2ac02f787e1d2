"""The command `init`: look at a folder, propose its task, ask what is missing, write the files."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoresearch.agents.tuning.constants import SourceError
from autoresearch.agents.tuning.sources import find_missing_parsers
from autoresearch.agents.tuning.space import take_apart
from autoresearch.cli.common import load_task, print_answer, task_path
from autoresearch.commands.readiness import check_text, list_problems
from autoresearch.errors import NotOursError, StorageError, TaskError
from autoresearch.formatting import counted, one_line
from autoresearch.interactive import instructions
from autoresearch.task.draft import TaskDraft
from autoresearch.task.layouts import Question, find_questions, propose, write_files
from autoresearch.task.layouts.folder import Folder
from autoresearch.task.model import TASK_FILE
from autoresearch.task.reading import load
from autoresearch.task.seeds import seed_patch
from autoresearch.task.values import DURATION

SHOWN_NAMES = 6  # constants, files
PROPOSED = ("command", "build", "editable", "metric", "goal", "file", "json", "inputs", "caches")
GOALS = {"lower": "minimize", "minimize": "minimize", "higher": "maximize", "maximize": "maximize"}


def init(options: argparse.Namespace) -> int:
    root = task_path(options)
    exists = (root / TASK_FILE).exists()
    if exists and not options.agent_files and not options.force:
        raise NotOursError(
            f"{root / TASK_FILE} exists: `autoresearch check` measures it, "
            "`autoresearch init --force` replaces it"
        )
    facts: dict[str, Any] = {"written": [], "left": [], "seed_patches": []}
    lines: list[str] = []
    is_new = options.force or not exists
    if is_new:
        lines += _make_task(root, options, facts)
    if options.agent_files:
        agent_files, facts["left"] = instructions.write(root)
        facts["written"] = sorted([*facts["written"], *agent_files])
    if facts["written"]:
        names = ", ".join(facts["written"])
        lines.append(f"\nwritten: {names}. Look at them, then: autoresearch check")
    lines += [f"{name} is there already, and is left as it is" for name in facts["left"]]
    if instructions.FILE in facts["left"]:
        lines.append(
            f'Unless it says so already, add to it: "For research here, read {instructions.SKILL}"'
        )
    if not (options.json and options.check):  # one JSON object, with the result of the check
        print_answer(options, facts, "\n".join(lines))
    if options.check or (is_new and not options.json and _is_check_wanted()):
        return _check(options, facts)
    return 0


def _make_task(root: Path, options: argparse.Namespace, facts: dict[str, Any]) -> list[str]:
    """Write the task's files, and put what was found into `facts`. Returns it as lines, with the
    reasons, what the tuner can do, and what has to be done first."""
    draft = _make_draft(root, options)
    facts["written"] = _write(root, write_files(root, draft))
    files = _read_editable(root)
    patches = [patch for path in files if (patch := seed_patch(root / path))]
    proposed = {name: getattr(draft, name) for name in PROPOSED if getattr(draft, name)}
    reasons = {name: draft.reasons[name] for name in proposed if name in draft.reasons}
    facts |= {"layout": draft.layout, "proposed": proposed, "reasons": reasons}
    facts["seed_patches"] = patches
    lines = [*_describe(draft), f"{'agent':<10} {_describe_tuner(files)}"]
    lines += [f"{'first':<10} {obstacle}" for obstacle in _find_obstacles(root, draft)]
    for patch in patches:
        lines += ["\nThe program sets its own seed. This patch lets it take ours:\n", patch]
    return lines


def _make_draft(root: Path, options: argparse.Namespace) -> TaskDraft:
    """The draft with the user's options, and answers on a terminal."""
    given = {
        "editable": tuple(options.editable or ()),
        "command": options.run_command,
        "metric": options.metric,
        "goal": options.goal,
        "score": options.score,
        "reads": tuple(options.reads or ()),
        "hidden": tuple(options.hidden or ()),
        "inputs": tuple(options.input or ()),
        "caches": tuple(options.cache or ()),
        "budget_s": _read_duration("--budget", options.budget),
        "timeout_s": _read_duration("--timeout", options.timeout),
    }
    draft = propose(root.resolve(), given)
    while questions := find_questions(draft):
        if options.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            break
        given |= _ask(draft, questions)
        draft = propose(root.resolve(), given)
    return draft


def _read_duration(flag: str, text: str | None) -> float | None:
    try:
        return None if text is None else float(DURATION.read(text))
    except ValueError as error:
        raise TaskError(f"{flag}: {error}") from None


def _ask(draft: TaskDraft, questions: Sequence[Question]) -> dict[str, Any]:
    """Ask on the terminal, all questions together. Raises `TaskError` when it ends."""
    shown = [*_describe(draft), "", f"{counted(len(questions), 'question')} left:"]
    shown += [f"  {number}. {question}" for number, question in enumerate(questions, 1)]
    print("\n".join(map(one_line, shown)), file=sys.stderr)
    answers: dict[str, Any] = {}
    for number, question in enumerate(questions, 1):
        while question.field not in answers:
            print(f"{number}> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                raise TaskError(f"no answer to: {question} (or say it by {question.flag})")
            if (answer := _read_answer(question.field, line.strip())) is not None:
                answers[question.field] = answer
    return answers


def _read_answer(field: str, text: str) -> Any:
    """The answer as a field of the draft; None if it is none."""
    if field == "editable":
        return tuple(re.split(r"[,\s]+", text)) if text else None
    if field == "goal":
        near = {goal for word, goal in GOALS.items() if text and word.startswith(text.lower())}
        return near.pop() if len(near) == 1 else None
    return text or None


def _describe(draft: TaskDraft) -> Iterator[str]:
    """What was found, a line each, with the reason."""
    yield f"{'found':<10} {draft.layout}"
    for name in PROPOSED:
        if value := getattr(draft, name):
            reason = draft.reasons.get(name, "")
            yield f"{name:<10} {_show(value)}" + (f"   ({reason})" if reason else "")


def _show(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return value
    more = [f"and {len(value) - SHOWN_NAMES} more"] if len(value) > SHOWN_NAMES else []
    return ", ".join([*value[:SHOWN_NAMES], *more])


def _read_editable(root: Path) -> dict[str, bytes]:
    """The editable files that exist, path -> content."""
    task = load(root)
    folder = Folder(task.root)
    return {path: (task.root / path).read_bytes() for path in folder.files if task.may_edit(path)}


def _describe_tuner(files: dict[str, bytes]) -> str:
    """What the built-in agent can do with these files, before anything is measured."""
    other = "let a model work: `autoresearch run --agent claude`"
    try:
        names = list(take_apart(files, min(files, default=None)).constants)
    except SourceError as error:
        return f"the tuner cannot read the constants ({error}): {other}"
    if not names:
        missing = "".join(f" ({problem})" for problem in find_missing_parsers(files)[:1])
        return f"the tuner sees no constants to change{missing}: {other}"
    return f"the tuner sees {counted(len(names), 'constant')}: {_show(names)}"


def _find_obstacles(root: Path, draft: TaskDraft) -> Iterator[str]:
    """What has to be done before a run can work."""
    folder = Folder(root.resolve())
    if folder.committed is None:
        yield "git init && git add . && git commit: a run is made from a commit"
        return
    words = re.findall(r"[\w./-]+", draft.command)
    named = [
        word for word in (*words, *draft.editable) if word.strip("./") and folder.lacks_commit(word)
    ]
    for name in dict.fromkeys(named):
        if not any(name == path or name.startswith(f"{path}/") for path in draft.inputs):
            yield f"git add {name} && git commit: it is here, but no run sees it before that"


def _write(root: Path, files: dict[str, str]) -> list[str]:
    try:
        for name, content in files.items():
            (root / name).write_text(content)
    except OSError as error:
        for name in files:
            (root / name).unlink(missing_ok=True)
        raise StorageError(f"cannot write {error.filename}: {error.strerror}") from error
    return list(files)


def _is_check_wanted() -> bool:
    """Ask on a terminal whether to run `check` now."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    print("\nRun it now? [Y/n] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")


def _check(options: argparse.Namespace, facts: dict[str, Any]) -> int:
    from autoresearch.cli.session import run_check

    result = run_check(load_task(options), 4, is_quiet=options.json)
    checked = asdict(result) | {"to_mend": list(list_problems(result))}
    print_answer(options, facts | {"check": checked}, check_text(result))
    return 0
