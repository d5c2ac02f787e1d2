"""Any text in task files, layouts and agents' names is a task, or a `TaskError` with the reason."""

from __future__ import annotations

import json
import math
import re
import subprocess
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from support.sessions import git

from autoresearch import agents
from autoresearch.errors import AgentError, TaskError
from autoresearch.task import draft, layouts, values
from autoresearch.task.globs import matches
from autoresearch.task.layouts import scaffold
from autoresearch.task.model import TASK_FILE, Task
from autoresearch.task.reading import KEYS, load, override, parse, parse_draft
from autoresearch.task.seeds import seed_patch
from autoresearch.task.values import PORTFOLIO, Kind

SMALL = """\
objective = "Go."
editable = ["train.py"]
[run]
command = "python train.py"
[metric]
name = "val_bpb"
goal = "minimize"
[score]
command = "python score.py"
[holdout]
command = "python score.py --sealed"
hidden = ["sealed"]
"""
KINDS = sorted({key.kind for keys in KEYS.values() for key in keys.values()}, key=str)
quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

HOSTILE = [
    *("", " ", "\0", "\ud800", "~", "~/x", "~nobody/x", "/", "//", "..", "a/../b", "!", "!!x", "*"),
    *(
        "**/**",
        "[",
        "tuner:",
        "tuner: x",
        ":",
        "NAME:",
        "1h",
        "1h1",
        "0s",
        "9" * 400 + "h",
        "1e9GB",
    ),
    *("<= ", "<= nan", "== 1e400", "24:00", "7:00", "١:٠٠", "minimize", "a\nb", "a\u2028b", "a b"),
    *("'", '"', "$(", "x=1", "x" * 5000, "loop/x", "train.py", ".git/x", "é" * 300),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(2**63), 2**63, 0, 1, 2]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(HOSTILE),
    st.times(),
    st.dates(),
    st.datetimes(),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(HOSTILE) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("task")
    (root / "train.py").write_text("print('val_bpb: 1')\n")
    (root / "score.py").write_text("print('val_bpb: 1')\n")
    (root / "sealed").mkdir()
    (root / "loop").symlink_to("loop")
    (root / ".autoresearch").symlink_to(".autoresearch")
    return root


# ---- globs ---------------------------------------------------------------------------------------


@settings(max_examples=1000, deadline=None)
@given(st.text("ab/*?\n", max_size=9), st.text("ab/\n", max_size=12))
@example("a**/b", "aab")
@example("**a*b", "a/ab")
def test_a_glob_matches_like_a_regular_expression(glob: str, path: str) -> None:
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    below = "" if re.search(r"[*?][^/]*\Z", glob) else "(?:/.*)?"
    pattern = "".join(wild.get(piece, re.escape(piece)) for piece in pieces) + below
    assert matches(glob, path) == bool(re.fullmatch(pattern, path, re.DOTALL))


# ---- single values -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.accepts[:20])
@settings(max_examples=60, deadline=None)
@given(ANYTHING)
def test_a_value_is_read_or_refused(kind: Kind, value: object) -> None:
    try:
        kind.read(value)
    except ValueError as error:
        assert str(error)
    shown = values.show(value)
    assert 0 < len(shown) <= 60


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=12)
    | st.lists(st.sampled_from(["tuner", ":", " ", "a b", "\n", "\0", "-"]), max_size=5).map(
        "".join
    )
)
def test_a_name_of_an_agent(spec: str) -> None:
    """The command line parses every name that a task file accepts."""
    try:
        name, argument = agents.parse(spec)
    except AgentError as error:
        assert repr(spec) in str(error)
        return
    assert name == name.strip() != ""
    assert argument is None or argument == argument.strip() != ""
    try:
        accepted = PORTFOLIO.read(spec)
    except ValueError:
        return
    assert accepted == ((spec, 1.0),)
    rejoined = name if argument is None else f"{name}:{argument}"
    assert agents.parse(rejoined) == (name, argument)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["tuner", "claude", "command:x y", "a b", ""]) | st.text(max_size=4),
        ANYTHING,
    )
    | st.lists(st.sampled_from(["tuner", "claude", "pi:x", "", "1"]) | ANYTHING, max_size=4)
)
def test_a_portfolio_has_names_and_weights(given: object) -> None:
    try:
        read = PORTFOLIO.read(given)
    except ValueError as error:
        assert str(error)
        return
    assert isinstance(given, dict | list)
    assert [name for name, _ in read] == list(given)
    assert all(0 < weight < math.inf for _, weight in read)


AGENTS = agents.names()


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=10))
def test_no_agent_of_an_odd_name(name: str) -> None:
    assume(name.replace("-", "_") not in AGENTS)
    with pytest.raises(AgentError, match="There are: "):
        agents.load(name)


# ---- whole files -------------------------------------------------------------------------------

TABLES = [*KEYS, "guards", "guards.commands", "agent.tuner", "runner.x", "nonsense"]
SETTINGS = [
    f"{table}.{key}".removeprefix(".")
    for table in TABLES
    for key in (*KEYS.get(table, ()), "odd", "read", "write", "env", "name", "")
]


@quick
@given(st.dictionaries(st.sampled_from(SETTINGS), ANYTHING, max_size=3))
@example({"agent.read": ["/\ud800"]})
@example({"agent.tuner.read": ["/\ud800"]})
@example({"agent.read": [(1, 2), {(1, 2): 3}]})
def test_any_setting_is_accepted_or_refused_by_its_name(
    folder: Path, given: dict[str, object]
) -> None:
    task = parse(SMALL, folder)
    try:
        changed = override(task, **given)
    except TaskError as error:
        parts = {part for name in given for part in name.split(".")}
        assert any(f"{part}:" in str(error) for part in parts), error
        return
    assert changed.run.timeout_s >= (changed.run.budget_s or 0)
    assert override(changed) == changed


def toml(value: object) -> str:
    """Write any value as TOML, even an invalid one."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{draft.toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str):
        return draft.toml(value)
    if isinstance(value, int) and abs(value) >= 10**4000:
        return hex(value)
    return str(value)


PAIRS = st.tuples(st.sampled_from([s for s in SETTINGS if s]), ANYTHING)


@quick
@given(st.lists(PAIRS, max_size=4), st.booleans())
def test_any_document_is_a_task_or_a_task_error(
    folder: Path, pairs: list[tuple[str, object]], small: bool
) -> None:
    tables: dict[str, list[str]] = {}
    for dotted, value in pairs:
        table, _, key = dotted.rpartition(".")
        tables.setdefault(table, []).append(f"{draft.toml(key)} = {toml(value)}")
    text = "\n".join(tables.pop("", []))
    text += "\n" + SMALL if small else "\n"
    for table, lines in tables.items():
        text += f"\n[{table}]\n" * (not small or table not in KEYS) + "\n".join(lines)
    source = folder / "task.toml"
    try:
        task = parse(text, folder, source)
    except TaskError as error:
        for line in str(error).splitlines()[:1]:
            assert line.startswith(str(source)) or "not valid TOML" in line
        return
    assert task.editable
    assert math.isfinite(task.run.timeout_s)


@quick
@given(st.sampled_from(sorted(set(KEYS) - {""})), st.data())
def test_a_refusal_names_the_value_and_the_accepted_values(
    folder: Path, table: str, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(KEYS[table])))
    value = data.draw(ANYTHING)
    kind = KEYS[table][key].kind
    assume(value is not None)
    try:
        kind.read(value)
    except ValueError:
        pass
    else:
        return
    with pytest.raises(TaskError) as refused:
        override(parse(SMALL, folder), **{f"{table}.{key}": value})
    message = str(refused.value)
    assert f"[{table}] {key}: found {values.show(value)}" in message
    assert f"accepted: {kind.accepts}" in message


@quick
@given(st.binary(max_size=60) | st.sampled_from([b"\xff", b"\xef\xbb\xbf", b"a = " + b"[" * 5000]))
def test_any_bytes_in_a_task_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / TASK_FILE).write_bytes(data)
    with pytest.raises(TaskError) as error:
        load(tmp_path)
    assert str(tmp_path / TASK_FILE) in str(error.value)


def test_links_in_a_circle(folder: Path) -> None:
    for name in ("read", "write"):
        with pytest.raises(TaskError, match=rf"\[agent\] {name}: .* does not exist"):
            override(parse(SMALL, folder), **{f"agent.{name}": [f"{folder}/loop/x"]})
    with pytest.raises(TaskError, match=r"\[score\] hidden: .* is not in"):
        override(parse(SMALL, folder), **{"score.hidden": ["loop"]})


# ---- layouts -----------------------------------------------------------------------------------

LINES = st.one_of(
    st.sampled_from(
        [
            *("# Objective", "## Metrics", "## Files in Scope", "## Off Limits", "## How to Run"),
            *("- **Primary**: loss (s, lower is better)", "- **Primary:** `µs` higher is better"),
            *("- **Primary**: x", "- `train.py` - the file", "- ../x.py", "- /etc/passwd.txt"),
            *(
                "- `src/`",
                "- `a`, `b.py` and `*.py`",
                "| `x.py` | y |",
                "1. train.py: all",
                "- !.py",
            ),
            *(
                "- autoresearch.md",
                "- ~/x.py",
                "val_bpb",
                "## ",
                "##\tMetrics ##",
                "- -x.py",
                "- ..",
            ),
            *("TIME_BUDGET = 300", "TIME_BUDGET = 0", "TIME_BUDGET = 0.00000000001", "seed = 1337"),
            *("TIME_BUDGET = 1.2.3", f"TIME_BUDGET = {'9' * 400}", "TIME_BUDGET = ٣", "import os"),
            *("TIME_BUDGET = 90.5", "TIME_BUDGET = .", 'print(f"loss: {x}")', "METRIC a.b=1"),
            *('print("METRIC µ=" + str(x))', "torch.manual_seed(42)", '"""', "x = (", "s = '\\d'"),
            *("from __future__ import annotations", "x = " + "-" * 3000 + "1", "from kernels x"),
        ]
    ),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
)
TEXTS = st.lists(LINES, max_size=9).map("\n".join)
CONFIGS = st.one_of(
    st.none(),
    st.text(max_size=10),
    ANYTHING.map(lambda value: json.dumps(value, default=str)),
    st.sampled_from([True, 0, -1, 3, 2**70, 1.5, "5", None]).map(
        lambda most: json.dumps({"maxIterations": most})
    ),
    st.sampled_from(["[" * 5000, '{"workingDir": "x"}', '{"workingDir": []}', "9" * 5000]),
)
FILES = [
    *("train.py", "prepare.py", "autoresearch.md", "autoresearch.sh", ".auto/prompt.md"),
    *(".auto/measure.sh", "autoresearch.checks.sh", ".auto/checks.sh", "solver.py", "program.md"),
]


@settings(max_examples=250, deadline=None)
@given(
    st.dictionaries(st.sampled_from(FILES), TEXTS, max_size=5),
    CONFIGS,
    st.sampled_from([None, None, "loss", "a b", "\0", "", "µs"]),
    st.sampled_from([None, None, "make", "'", " "]),
    st.sampled_from([None, None, ["src/"], ["../x"], [""], ["train.py", "!x"]]),
    st.sampled_from([None, None, "maximize", "lower"]),
)
@example({"train.py": "val_bpb", "prepare.py": "TIME_BUDGET = 0"}, None, None, None, None, None)
@example({"solver.py": 'print(f"loss: {x}")'}, None, "a b", None, None, None)
def test_any_folder_is_a_task_or_a_task_error(
    files: dict[str, str],
    config: str | None,
    metric: str | None,
    command: str | None,
    editable: list[str] | None,
    goal: str | None,
) -> None:
    """`init` writes files that the next command can read, or nothing."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        if config is not None:
            files = {**files, "autoresearch.config.json": config, ".auto/config.json": config}
        for path, text in files.items():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(text, encoding="utf-8", errors="replace", newline="")
        recognised: Task | None = None
        try:
            if (draft := layouts.recognise(root)) is not None:
                recognised = parse_draft(draft, root)
        except TaskError as error:
            assert str(root) in str(error)
        try:
            new_files = scaffold(root, editable=editable, command=command, metric=metric, goal=goal)
        except TaskError as error:
            assert str(root) in str(error)
            return
        for path, text in new_files.items():
            assert not (root / path).exists()
            (root / path).write_text(text)
        task = load(root)
        if recognised and not (editable or command or metric or goal):
            assert (task.metric, task.run, task.editable, task.limits, task.guards) == (
                recognised.metric,
                recognised.run,
                recognised.editable,
                recognised.limits,
                recognised.guards,
            )


SEEDED = st.sampled_from(
    [
        *("SEED = 1337", "torch.manual_seed(42)", "rng = default_rng(0)", "def f(seed=3): pass"),
        *("seed: int = 5", "x = 1; seed = 2  # é", "\x0cseed = 1", "p.add(\n'--seed', default=7)"),
        *('"""Doc."""', "from __future__ import annotations", "import os", "import os.path as p"),
        *(
            "s = '\\d'",
            "# a comment",
            "",
            "if True:\n    seed = 9",
            "random.seed(0); x = 1",
            "x = (",
        ),
        *(
            "'''\nseed = 1\n'''",
            "seed = 0x10",
            "seed = \\\n 5",
            "import numpy",
            "seed = 1 if x else 2",
        ),
    ]
)


@settings(max_examples=30, deadline=None)
@given(st.lists(SEEDED, min_size=1, max_size=6), st.booleans())
def test_the_patch_for_a_seed_applies_and_leaves_a_program(lines: list[str], ended: bool) -> None:
    text = "\n".join(lines) + "\n" * ended
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "prog.py").write_text(text)
        patch = seed_patch(root / "prog.py")
        if patch is None or not compiles(text):
            return
        git(root, "init", "-q")
        subprocess.run(["git", "apply", "-"], cwd=root, input=patch.encode(), check=True)
        after = (root / "prog.py").read_text()
    assert compiles(after)
    assert "AUTORESEARCH_SEED" in after


def compiles(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "prog.py", "exec")
    except SyntaxError:
        return False
    return True
