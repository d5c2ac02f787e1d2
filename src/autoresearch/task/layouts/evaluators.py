"""The layouts of evolving agents: a frozen evaluator scores one program between markers.

OpenEvolve and SkyDiscover call `evaluate(program_path)`, which returns metrics, or an object that
has them; ShinkaEvolve starts a script that writes them into a file. In all three a higher
`combined_score` is better.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from autoresearch.task.draft import TaskDraft
from autoresearch.task.layouts.folder import Folder
from autoresearch.task.layouts.python import find_caches, find_interpreter

SCORE = "combined_score"


class Layout(NamedTuple):
    name: str
    evaluator: str
    program: str  # a glob
    sign: str  # a regular expression that the evaluator's text has
    command: str  # with {python}, {module}, {program}, {evaluator}, {metric}
    json: str | None = None
    file: str | None = None


CALL = (
    "{python} -c \"import sys; sys.path[:0] = ['.', {folder!r}]; import {module}; "
    "result = {module}.evaluate({program!r}); metrics = getattr(result, 'metrics', result); "
    "print('METRIC {metric}=%r' % float(metrics[{metric!r}]))\""
)
START = "{python} {evaluator} --program_path {program} --results_dir results"

LAYOUTS = (
    Layout(
        "ShinkaEvolve", "evaluate.py", "initial.*", "results_dir", START, SCORE,
        "results/metrics.json",
    ),
    Layout("OpenEvolve", "evaluator.py", "initial_program.*", r"def evaluate\(", CALL),
    Layout("SkyDiscover", "evaluator/evaluator.py", "initial_program.*", r"def evaluate\(", CALL),
)  # fmt: skip


def recognise(folder: Folder) -> TaskDraft | None:
    for layout in LAYOUTS:
        programs = folder.find(layout.program)
        text = folder.read(layout.evaluator)
        if programs and re.search(layout.sign, text):
            return _draft(folder, layout, programs, text)
    return None


def _draft(folder: Folder, layout: Layout, programs: list[str], text: str) -> TaskDraft:
    python = find_interpreter(folder)
    metrics = list(dict.fromkeys(re.findall(r"""["'](\w+)["']\s*:""", text)))
    metric = SCORE if layout.file or SCORE in text else ""
    program = programs[0] if len(programs) == 1 else ""
    command = layout.command.format(
        python=python.command,
        module=layout.evaluator.rpartition("/")[2].removesuffix(".py"),
        folder=layout.evaluator.rpartition("/")[0] or ".",
        evaluator=layout.evaluator,
        program=program,
        metric=metric or "{metric}",
    )
    return TaskDraft(
        layout=layout.name,
        editable=(program,) if program else (),
        command=command if program else "",
        metric=metric,
        goal="maximize",
        json=layout.json,
        file=layout.file,
        inputs=python.inputs,
        caches=tuple(find_caches(folder, [layout.evaluator, *programs])),
        reasons={
            "command": f"{layout.evaluator} scores the program, and is frozen",
            "editable": f"the program that {layout.name} changes",
            "metric": f"{layout.name}'s own score",
            "goal": f"{layout.name} keeps the higher score",
        },
        choices={"editable": programs, "metric": metrics},
    )
