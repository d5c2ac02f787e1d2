"""The documents say what the program does: commands, keys, links and numbers are checked."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch import agents
from autoresearch.cli.parser import make_parser
from autoresearch.task import reading

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "docs.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def blocks(language: str) -> list[tuple[Path, str]]:
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [(page, block) for page in PAGES for block in fence.findall(page.read_text())]


def test_shell_blocks_call_what_exists() -> None:
    """Every `autoresearch` command line parses, every make target and script is there, in the
    repository or in a ready task."""
    tasks = ROOT / "src" / "autoresearch" / "tasks"
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    found = 0
    for page, block in blocks("sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["autoresearch"]:
                make_parser().parse_args(words[1:])
                found += 1
            elif words[:1] == ["make"]:
                assert words[1] in targets, f"{page.name}: {line}"
            elif words[:1] == ["python"]:
                there = [(ROOT / words[1]).exists(), *tasks.glob(f"*/{words[1]}")]
                assert any(there), f"{page.name}: {line}"
    assert found >= 6


def test_inline_commands_exist() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for command in re.findall(r"`python ((?:benchmarks|scripts)/\w+\.py)", text):
            assert (ROOT / command).exists(), f"{page.name} names {command}"
        for name in re.findall(r"`autoresearch (\w+)", text):
            assert f"autoresearch {name}" in (ROOT / "docs" / "commands.md").read_text()


def test_toml_blocks_are_task_files(tmp_path: Path) -> None:
    (tmp_path / "program.md").write_text("Lower the loss.")
    for folder in ("data", "compiled", "val", "validation", "holdout"):
        (tmp_path / folder).mkdir()
    for page, block in blocks("toml"):
        parsed = reading.parse(block, tmp_path, page)
        assert parsed.metric.name in ("val_bpb", "sort_seconds", "time")


def test_the_readmes_agent_is_an_agent(tmp_path: Path) -> None:
    from autoresearch.protocols import Proposal, Turn

    [block] = [block for _, block in blocks("python") if "def create" in block]
    space: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), space)
    agent = space["create"](None, {}, 0)  # type: ignore[operator]
    (tmp_path / "train.py").write_text("LR = 0.1\n")
    turn = Turn(tmp_path, ("train.py",), None, "")  # type: ignore[arg-type]
    assert agent.propose(turn) == Proposal("LR 0.1 -> 0.05")
    assert agent.propose(turn) is None


def test_the_map_names_every_module() -> None:
    text = (ROOT / "README.md").read_text()
    package = ROOT / "src" / "autoresearch"
    for path in package.iterdir():
        if path.suffix == ".py" and path.stem not in ("__init__", "__main__"):
            assert path.name in text, f"the README's map lacks {path.name}"
        elif path.is_dir() and path.name != "__pycache__":
            assert f"{path.name}/" in text
    for name in re.findall(r"^ {6}(\w+\.py)", text, re.MULTILINE):
        assert (package / name).exists()


def test_agents_named_in_the_docs_exist() -> None:
    assert set(agents.names()) >= {"tuner", "replay"}


def test_tests_named_in_the_docs_exist() -> None:
    """A claim of the docs is shown by the test that is named beside it."""
    ours = list((ROOT / "tests").rglob("*.py"))
    there = {file.name for file in ours}
    for file in ours:
        there |= set(re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`(test_\w+(?:\.py)?)`", page.read_text()))
        assert named <= there, f"{page.name} names {named - there}"


def test_no_machine_or_registry_is_named() -> None:
    """Nothing in the repository depends on where it was made."""
    words = ["py" + "pi.org", "python" + "hosted", "npm" + "js.org"]
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        data = (ROOT / name).read_bytes()
        assert not any(word.encode() in data for word in words), name
