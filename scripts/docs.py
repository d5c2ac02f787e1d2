"""Fills the generated parts of README.md and docs/: what code or a measurement already says is not
written twice.

    python scripts/docs.py            # write
    python scripts/docs.py --check    # exit with 1 if something is out of date (tests do this)

A part lies between `<!-- NAME: ... -->` and `<!-- end -->`; the names are the functions in PARTS.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path

from autoresearch.agents import llm
from autoresearch.cli.parser import make_parser
from autoresearch.core.events import Event
from autoresearch.task import reading
from autoresearch.task.tables import keys_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PART = re.compile(r"(<!-- (\w+): [^>]* -->\n).*?(<!-- end -->)", re.DOTALL)


def commands() -> str:
    """Every command with its arguments, as the parser knows them."""
    top = make_parser()
    [subparsers] = [one for one in top._actions if isinstance(one, argparse._SubParsersAction)]
    shown = []
    for name, one in subparsers.choices.items():
        actions = [action for action in one._actions if action.dest != "help"]
        given = [action for action in actions if not action.option_strings]
        words = [f"[{a.metavar}]" if a.nargs == "?" else str(a.metavar) for a in given]
        options = " [OPTIONS]" if len(actions) > len(given) else ""
        shown += [f"## `autoresearch {' '.join([name, *words])}{options}`", ""]
        shown += [
            f"{str(one.description)[0].upper()}{str(one.description)[1:]}.",
            "",
            "| | |",
            "|---|---|",
        ]
        shown += [f"| {spelled(action)} | {action.help} |" for action in actions]
        if one.epilog:
            examples = [line.strip() for line in str(one.epilog).splitlines()[1:]]
            shown += ["", "```sh", *examples, "```"]
        shown.append("")
    return "\n".join(shown)


def spelled(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar}`"
    value = action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else "")
    takes = "" if action.nargs == 0 else f" {value or action.dest.upper()}"
    return f"`{', '.join(action.option_strings)}{takes}`"


def events() -> str:
    """Every kind of event with its fields."""
    lines = ["| `event` | meaning | fields |", "|---|---|---|"]
    # A class with slots is made twice, and the first one may still be listed.
    for kind in {kind.kind(): kind for kind in Event.__subclasses__()}.values():
        names = ", ".join(f"`{field.name}`" for field in fields(kind)) or "none"
        lines.append(f"| `{kind.kind()}` | {' '.join(str(kind.__doc__).split())} | {names} |")
    return "\n".join(lines) + "\n"


def keys() -> str:
    """Every key of the task file, as the validation knows it."""
    lines = ["| key | accepted | default |", "|---|---|---|"]
    for table, known in reading.KEYS.items():
        for name, key in known.items():
            where = f"`[{table}]` `{name}`" if table else f"`{name}`"
            default = "needed" if key.default is MISSING else default_text(key.default)
            lines.append(
                f"| {where} | {key.kind.accepts.replace('|', chr(92) + '|')} | {default} |"
            )
    lines.append(
        '| `[guards]` `NAME` | `"<= 60000"` (<=, <, >=, >, ==), or a list of such | none |'
    )
    lines.append("| `[guards.commands]` `NAME` | a command that must exit with 0 | none |")
    return "\n".join(lines) + "\n"


def llm_keys() -> str:
    """Every key of `[agent.llm]`, as the agent knows it."""
    keys = keys_of(llm.Settings)
    lines = [f"| `{name}` | {key.kind.accepts} |" for name, key in keys.items()]
    return "\n".join(["| key | accepted |", "|---|---|", *lines]) + "\n"


def default_text(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        first = value[0]
        value = first[0] if isinstance(first, tuple) else list(value)  # an agent has a weight
    return f"`{json.dumps(value)}`" if isinstance(value, (str, bool, list)) else f"{value:,}"


def measured(name: str) -> Callable[[], str]:
    """What a benchmark printed."""
    return lambda: f"```text\n{(RESULTS / f'{name}.txt').read_text().strip()}\n```\n"


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "events": events,
    "keys": keys,
    "llm_keys": llm_keys,
    **{path.stem: measured(path.stem) for path in RESULTS.glob("*.txt")},
}


def fill(text: str) -> str:
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}{part[3]}", text)


def main() -> None:
    check = "--check" in sys.argv[1:]
    stale = []
    for page in PAGES:
        text = page.read_text()
        if fill(text) != text:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(fill(text))
    if check and stale:
        sys.exit(f"out of date: {', '.join(map(str, stale))}; run python scripts/docs.py")


if __name__ == "__main__":
    main()
