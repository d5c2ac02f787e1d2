"""The command that looks whether everything agrees with the ledger."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from autoresearch.commands.fsck import Finding, audit, repair
from autoresearch.store.paths import enclosing
from autoresearch.task.reading import load

DISAGREES = 1  # exit code


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    one = add("fsck", fsck, "does everything agree with the ledger? 0 yes, 1 no")
    one.add_argument("--tag", help="which session (all of them)")
    one.add_argument(
        "--repair", action="store_true", help="make again what follows from the ledger"
    )


def fsck(options: argparse.Namespace) -> int:
    here = enclosing(Path(options.task).absolute())
    task = load(here.root if here else Path(options.task))
    mended = repair(task, options.tag) if options.repair else []
    left = audit(task, options.tag)
    if options.json:
        shown = {"findings": _json(left), "repaired": _json(mended)}
        print(json.dumps(shown))
    else:
        print(text(left, mended))
    return DISAGREES if left else 0


def text(left: Sequence[Finding], mended: Sequence[Finding] = ()) -> str:
    """What was mended, what does not agree, and what to do about it, for people."""
    lines = [f"repaired: {_line(one)}" for one in mended]
    lines += [_line(one) + (" [repairable]" if one.repairable else "") for one in left]
    if not left:
        lines.append("everything agrees with the ledger")
    elif any(one.repairable for one in left):
        lines.append("`autoresearch fsck --repair` makes again what is marked repairable")
    if any(not one.repairable for one in left):
        lines.append("What is not marked cannot be made from the ledger: docs/faults.md")
    return "\n".join(lines)


def _line(one: Finding) -> str:
    return f"{one.what}: {one.where}: {one.detail}"


def _json(findings: Sequence[Finding]) -> list[dict[str, object]]:
    return [asdict(one) for one in findings]
