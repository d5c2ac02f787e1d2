"""What a command imports: start time is mostly imports."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.sessions import ScriptedAgent, change, run_session

from autoresearch.cli.parser import make_parser

WEB = {"starlette", "uvicorn", "jinja2", "pygments"}
NEVER = {"matplotlib", "optuna", "rich", "openai", "mcp", "torch", "pydantic"} | WEB
NOT_TO_LOOK = NEVER | {"psutil", "asyncio", "tomllib", "concurrent.futures"}


def list_modules(statement: str) -> set[str]:
    """The modules in a fresh process after the statement."""
    code = f"import sys\ntry:\n    {statement}\nexcept SystemExit as end:\n    assert not end.code"
    listing = "\nprint('MODULES', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code + listing], capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_the_entry_point_imports_little() -> None:
    modules = list_modules("import autoresearch.cli.main")
    assert not modules & (NOT_TO_LOOK | {"pygit2", "subprocess"})
    assert {name for name in modules if name.startswith("autoresearch.cli.")} == {
        "autoresearch.cli.main",
        "autoresearch.cli.common",
        "autoresearch.cli.parser",
    }


@pytest.mark.parametrize("words", [["status"], ["log"], ["show", "1"]], ids=lambda words: words[0])
def test_commands_that_look_import_little(root: Path, words: list[str]) -> None:
    run_session(root, ScriptedAgent(change(VALUE=5.0)))
    argv = [*words, str(root)]
    modules = list_modules(f"from autoresearch.cli.main import main; main({argv!r})")
    assert "autoresearch.cli.look" in modules
    assert not modules & NOT_TO_LOOK
    assert words[0] == "show" or "pygit2" not in modules


def test_every_command_exists() -> None:
    [commands] = [
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    for name, command in commands.choices.items():
        module, _, function = command.get_default("command").partition(".")
        found = getattr(importlib.import_module(f"autoresearch.cli.{module}"), function)
        assert callable(found), name
