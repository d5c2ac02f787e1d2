"""The task's `setup` command, which runs once a session, in a tree of its own that stays."""

from __future__ import annotations

from autoresearch.errors import BaselineError
from autoresearch.files import clear_path
from autoresearch.measure.diagnosis import explain_failure
from autoresearch.measure.execution import CommandExecutor, check_settled
from autoresearch.measure.output import describe_end
from autoresearch.sandbox.run_policy import Purpose


def find_setup(commands: CommandExecutor) -> str | None:
    """The command that is still to be run; None if there is none, or it is done."""
    is_done = (commands.paths.folder / "setup.done").exists()
    return None if is_done else commands.task.run.setup


def run_setup(commands: CommandExecutor, command: str, commit: str) -> None:
    """Raises `BaselineError` if it fails, and `Interrupted` if it was abandoned or lost."""
    paths = commands.paths
    done, log = paths.folder / "setup.done", paths.folder / "setup.log"
    spec = commands.spec(
        command, paths.setup, log, done.with_suffix(".json"), 0, purpose=Purpose.SETUP
    )
    outcome = commands.execute(spec, commands.tree(commit))
    if outcome.stopped or outcome.exit_code != 0:
        clear_path(paths.setup)
        check_settled(outcome)
        raise BaselineError(
            f"[run] setup failed: {outcome.stopped or f'exit code {outcome.exit_code}'}\n"
            f"{describe_end(log)}{explain_failure(commands, log)}"
        )
    done.touch()
