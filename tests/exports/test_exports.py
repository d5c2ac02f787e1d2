"""A real session in every format, read back by the reader of each library."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.commands import call, start_process
from support.sessions import (
    PROGRAM,
    TASK,
    Night,
    ScriptedAgent,
    alive,
    change,
    make_task,
    rewrite,
    run_session,
    task_of,
    wait_until,
)

from autoresearch import agents, exports
from autoresearch.commands import export as export_command
from autoresearch.errors import ExportError
from autoresearch.files import read_text
from autoresearch.plugins import EXPORTS
from autoresearch.protocols import Proposal, Turn
from autoresearch.store.paths import SessionPaths

LOSSES = (4.0, 3.0, 2.5)
TRAINING = PROGRAM.replace(
    'print("---")', f'for step, loss in enumerate({LOSSES}): print("step:", step, "loss:", loss)'
)
GUARDED = f"{TASK}[guards]\nscore = '>= 1'\n"
NAMES = ("csv", "mlflow", "parquet", "pi", "tensorboard", "trackio", "wandb")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A session with a baseline, a keep, a discard, a crash, and a refusal by a guard."""
    root = make_task(tmp_path_factory.mktemp("exports") / "task", TRAINING, GUARDED)
    agent = ScriptedAgent(
        change("=HYPERLINK(1)\x1b[31m\ttwo | words", VALUE=5.0),
        change("worse", VALUE=9.0),
        rewrite("raise SystemExit(3)", "broken"),
        change("too good", VALUE=0.5),
    )
    return run_session(root, agent)


def export(night: Night, name: str, folder: Path) -> Path:
    """Export with the command, in a process of its own: libraries leave their marks on theirs."""
    process = start_process(night.root, "export", name, "--to", folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"written: 5 experiments to {folder}" in out
    return folder


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_csv_has_every_experiment_run_and_curve(night: Night, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = call(night.root, "export", "csv", "--to", folder)
    assert (done.returncode, done.stderr) == (0, "")
    experiments = read_csv(folder / "experiments.csv")
    assert [(row["status"], row["reason"]) for row in experiments] == [
        ("keep", ""),
        *[(status, reason or "") for status, reason in night.verdicts],
    ]
    keep = experiments[1]
    assert keep["description"] == "'=HYPERLINK(1) two | words"  # no formula, no escape
    assert keep["commit"] == night.experiments[1].commit and keep["agent"] == "scripted"
    assert float(keep["metric"]) == night.experiments[1].metric
    assert experiments[3]["metric"] == "" and experiments[3]["usd"] == ""
    decided = night.runs_of(1, "screen", "candidate", "control", "remeasure")
    assert int(keep["runs"]) == len(decided)
    assert float(keep["cpu_s"]) == pytest.approx(sum(run.cpu_s or 0 for run in decided))
    results = {row[5]: row for row in night.results[1:]}  # the same numbers as in results.tsv
    assert all(results[row["number"]][7] == row["runs"] for row in experiments)

    runs = [row for row in read_csv(folder / "runs.csv") if row["experiment"] == "1"]
    assert [row["run"] for row in runs] == [run.name for run in decided]
    labels = {row["label"] for row in runs}
    assert {"run1", "incumbent1", "incumbent3"} <= labels
    for row in runs:
        is_own = row["commit"] == night.experiments[1].commit
        assert row["label"].startswith("run" if is_own else "incumbent")

    points = [row for row in read_csv(folder / "curves.csv") if row["run"] == runs[0]["run"]]
    assert [(row["name"], row["by"], float(row["at"])) for row in points] == [
        ("loss", "step", float(step)) for step in range(3)
    ]
    assert tuple(float(row["value"]) for row in points) == LOSSES


def test_the_runs_before_a_rebase_are_runs_of_the_change(night: Night) -> None:
    """They measured another commit than the experiment's last one."""
    rebased = dataclasses.replace(night.experiments[1], commit="f" * 40)
    rows = export_command._describe(rebased, night.runs_of(1), night.paths, "score").runs
    assert {row.label.startswith("incumbent") for row in rows} == {False, True}
    for row in rows:
        assert row.label.startswith("incumbent") == (row.role == "control")


def test_parquet_has_the_rows_of_csv_with_types(night: Night, tmp_path: Path) -> None:
    from pyarrow import parquet

    tables, texts = tmp_path / "tables", tmp_path / "texts"
    assert call(night.root, "export", "parquet", "--to", tables).returncode == 0
    assert call(night.root, "export", "csv", "--to", texts).returncode == 0
    for name in exports.TABLES:
        table = parquet.read_table(tables / f"{name}.parquet")
        rows = [[_shown(value) for value in row.values()] for row in table.to_pylist()]
        expected = [list(row.values()) for row in read_csv(texts / f"{name}.csv")]
        assert rows == [[cell.removeprefix("'") for cell in row] for row in expected]
        assert len(rows) > 4
    schema = parquet.read_schema(tables / "experiments.parquet")
    assert str(schema.field("metric").type) == "double"
    assert str(schema.field("tokens").type) == "int64"
    assert schema.metadata[b"metric"] == b"score" and schema.metadata[b"goal"] == b"minimize"


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def test_pi_reads_its_log(night: Night, tmp_path: Path) -> None:
    """By the rules of pi-autoresearch: a configuration begins a segment, a number in `run` makes an
    experiment, its status is one of four."""
    done = call(night.root, "export", "pi", "--to", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["experiments"] == 5
    lines = (tmp_path / "out" / "autoresearch.jsonl").read_text().splitlines()
    config, *entries = map(json.loads, lines)
    assert config == {
        "type": "config",
        "name": "task t",
        "metricName": "score",
        "metricUnit": "",
        "bestDirection": "lower",
    }
    assert [entry["run"] for entry in entries] == [1, 2, 3, 4, 5]
    statuses = [entry["status"] for entry in entries]
    assert statuses == ["keep", "keep", "discard", "crash", "checks_failed"]
    assert entries[3]["metric"] == 0 and entries[1]["metric"] == night.experiments[1].metric
    assert all(re.fullmatch("[0-9a-f]{7}", entry["commit"]) for entry in entries)
    assert all(a["timestamp"] <= b["timestamp"] for a, b in pairwise(entries))
    assert entries[4]["asi"]["reason"].startswith("guard failed: score")


def test_an_export_replaces_only_an_export(night: Night, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert call(night.root, "export", "csv", "--to", folder).returncode == 0
    (folder / "experiments.csv").write_text("stale")
    assert call(night.root, "export", "csv", "--to", folder).returncode == 0
    assert len(read_csv(folder / "experiments.csv")) == 5
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.csv").write_text("mine")
    for place in (mine, mine / "thesis.csv"):
        done = call(night.root, "export", "csv", "--to", place)
        assert done.returncode == 2 and "accepted is a new or empty folder" in done.stderr
    assert (mine / "thesis.csv").read_text() == "mine"


def test_a_format_that_is_not_there_is_refused_before_anything_is_measured(root: Path) -> None:
    done = call(root, "run", "--export", "cvs", "--plain")
    assert done.returncode == 2 and "Did you mean 'csv'?" in done.stderr
    assert not (root / ".autoresearch").exists()


def test_a_missing_library_is_named_with_its_extra(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = call(night.root, "export", "mlflow")
    assert done.returncode == 2
    assert "needs the library mlflow" in done.stderr
    assert "pip install 'autoresearch[mlflow]'" in done.stderr


def test_the_format_of_the_docs_is_a_format(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "exports.md"
    [module] = [block for block in page.read_text().split("```") if "def create" in block]
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "lines.py").write_text(module.removeprefix("text"))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert call(night.root, "export", "mypkg.lines", "--to", tmp_path / "out").returncode == 0
    lines = (tmp_path / "out" / "lines.txt").read_text().splitlines()
    assert lines[1] == f"1 keep {night.experiments[1].metric}" and len(lines) == 5


def test_every_format_is_tested_and_its_library_is_an_extra() -> None:
    import tomllib

    assert tuple(EXPORTS.ours()) == NAMES
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    for name in NAMES:
        assert not hasattr(EXPORTS.load(name), "REQUIRES") or name in extras


# --------------------------------------------------------------------------------------------
# While a session works


BROKEN = """\
class Broken:
    def add(self, done): raise RuntimeError('no more room')
    def close(self): pass
def create(session, folder): return Broken()
"""


def test_a_session_is_exported_while_it_works_and_hears_once_of_what_fails(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # for the process that exports
    monkeypatch.setattr(export_command, "PATIENCE_S", 0.0)
    task = root / "autoresearch.toml"
    formats = '[export]\nformats = ["csv", "mine.broken"]\n'
    task.write_text(f"{task.read_text()}{formats}")
    folder = root / ".autoresearch" / "t" / "exports"
    live = folder / "csv" / "experiments.csv"

    def look(turn: Turn) -> Proposal:
        wait_until(lambda: live.exists() and live.read_text().count("\n") == 2, 60.0)  # baseline
        wait_until(lambda: "no more room" in read_text(folder / "mine.broken.log"), 60.0)
        paths = SessionPaths(root, "t")
        with pytest.raises(ExportError, match=r"is being written .*`--to FOLDER`"):
            export_command.export_session(paths, "csv", folder / "csv")
        assert export_command.export_session(paths, "csv", tmp_path / "so far") == 1
        return change(VALUE=9.0)(turn)

    agent = ScriptedAgent(look, change(VALUE=8.0), change(VALUE=7.0))
    monkeypatch.setattr(agents, "load", lambda *_, **__: agent)
    done = call(root, "run", "--tag", "t", "--plain")
    assert done.returncode == 0, done.stderr
    [warning] = re.findall(r"warning: (\[export\].*)", done.stdout)
    assert "RuntimeError: no more room" in warning
    assert "to make it again: autoresearch export mine.broken --tag t" in warning
    assert "no more room" in (root / "report.md").read_text()
    at_once = live.read_text()
    assert at_once.count("\n") == 5
    assert call(root, "export", "csv").returncode == 0  # afterwards: the same
    assert live.read_text() == at_once


STUCK = """\
import subprocess, time
class Stuck:
    def __init__(self, folder):
        child = subprocess.Popen(["sleep", "300"])
        (folder / "pid").write_text(f"{child.pid}\\n")
    def add(self, done): pass
    def close(self): time.sleep(300)
def create(session, folder): return Stuck(folder)
"""


def test_an_export_that_hangs_ends_with_its_children(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stuck.py").write_text(STUCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(export_command, "LAST_S", 0.5)
    warnings: list[str] = []
    task = task_of(night.root, export__formats=["mine.stuck"])
    parts = {"paths": night.paths, "record": night.record, "listeners": []}
    session: Any = SimpleNamespace(task=task, warn=warnings.append, **parts)
    file = night.paths.exports / "mine.stuck" / "pid"
    with export_command.exporting(session):
        wait_until(lambda: read_text(file).endswith("\n"), 60.0)
    assert not alive(int(file.read_text()))
    [warning] = warnings
    assert warning.startswith("[export] mine.stuck: it was not done")


# --------------------------------------------------------------------------------------------
# With the libraries themselves: `make test-exports`


def needs(library: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        find_spec(library) is None, reason=f"{library} is not installed: `make test-exports`"
    )


def read_with(code: str, folder: Path) -> Any:
    """What a library's own reader finds, in a process of its own. `code` prints JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, folder],
        env=os.environ | {"TRACKIO_DIR": str(folder), "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


MLFLOW = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
[experiment] = client.search_experiments(filter_string="name != 'Default'")
runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
print(json.dumps([experiment.name, [
    [run.info.run_name, run.info.status, run.data.tags, run.data.metrics,
     [[p.step, p.value] for p in client.get_metric_history(run.info.run_id, "run1/loss")]]
    for run in runs]]))
"""


@pytest.mark.exports
@needs("mlflow")
def test_mlflow_reads_its_store(night: Night, tmp_path: Path) -> None:
    name, runs = read_with(MLFLOW, export(night, "mlflow", tmp_path / "out"))
    assert name == "task t"
    assert [run[1] for run in runs] == ["FINISHED", "FINISHED", "FINISHED", "FAILED", "FINISHED"]
    title, _, tags, metrics, curve = runs[1]
    assert title == "0001 =HYPERLINK(1) two | words"
    assert (tags["status"], tags["agent"], tags["number"]) == ("keep", "scripted", "1")
    assert tags["commit"] == night.experiments[1].commit
    assert metrics["score"] == night.experiments[1].metric
    assert metrics["runs"] == 10 and metrics["cpu_s"] > 0
    assert [tuple(point) for point in curve] == list(enumerate(LOSSES))
    assert runs[4][2]["reason"].startswith("guard failed")


WANDB = """
import glob, json, struct, sys
from wandb.proto.wandb_internal_pb2 import Record

def read_records(file):  # LevelDB's log: blocks of 32 kB, after a header of 7 bytes
    data, at, record = open(file, "rb").read(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(record)
            record = b""

runs = []
for file in sorted(glob.glob(f"{sys.argv[1]}/wandb/offline-run-*/*.wandb")):
    run = {"history": [], "summary": {}}
    for record in read_records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run |= {"name": record.run.display_name, "id": record.run.run_id,
                    "group": record.run.run_group}
            run["config"] = {i.key: json.loads(i.value_json) for i in record.run.config.update}
        if kind == "history":
            run["history"].append({"/".join(i.nested_key) or i.key: json.loads(i.value_json)
                                   for i in record.history.item})
        if kind == "summary":
            run["summary"] |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json)
                               for i in record.summary.update}
        if kind == "exit":
            run["exit"] = record.exit.exit_code
    runs.append(run)
print(json.dumps(sorted(runs, key=lambda run: run["id"])))
"""


@pytest.mark.exports
@needs("wandb")
def test_weights_and_biases_reads_its_files(night: Night, tmp_path: Path) -> None:
    runs = read_with(WANDB, export(night, "wandb", tmp_path / "out"))
    assert [run["exit"] for run in runs] == [0, 0, 0, 1, 0]
    keep = runs[1]
    assert keep["name"] == "0001 =HYPERLINK(1) two | words" and keep["group"] == "t"
    assert keep["config"]["status"] == "keep" and keep["config"]["agent"] == "scripted"
    assert keep["config"]["commit"] == night.experiments[1].commit
    assert keep["summary"]["score"] == night.experiments[1].metric
    curve = [(row["run1/step"], row["run1/loss"]) for row in keep["history"] if "run1/loss" in row]
    assert curve == list(enumerate(LOSSES))
    again = read_with(WANDB, export(night, "wandb", tmp_path / "again"))
    assert [run["id"] for run in again] == [run["id"] for run in runs]  # a sync finds them again


TENSORBOARD = """
import json, sys
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
events = EventMultiplexer().AddRunsFromDirectory(sys.argv[1]).Reload()
print(json.dumps([
    {tag: [[e.step, e.value] for e in events.Scalars(run, tag)]
     for tag in events.Runs()[run]["scalars"]} for run in ("session", "0001")
] + [[e.tensor_proto.string_val[0].decode()
      for e in events.Tensors("session", "experiment/text_summary")]]))
"""


@pytest.mark.exports
@needs("tensorboardX")
def test_tensorboard_reads_its_events(night: Night, tmp_path: Path) -> None:
    session, keep, texts = read_with(TENSORBOARD, export(night, "tensorboard", tmp_path / "out"))
    metric = night.experiments[1].metric
    assert [step for step, _ in session["score/all"]] == [0, 1, 2, 4]  # number 3 crashed
    assert session["score/keep"][1] == [1, pytest.approx(metric)]
    assert session["cost/runs"][1] == [1, 10]
    assert [tuple(point) for point in keep["run1/loss"]] == list(enumerate(LOSSES))
    assert "| status | keep |" in texts[1] and "two \\| words |" in texts[1]


TRACKIO = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage
[project] = SQLiteStorage.get_projects()
runs = sorted(SQLiteStorage.get_runs(project))
print(json.dumps([project, {run: [SQLiteStorage.get_run_config(project, run),
                                  SQLiteStorage.get_logs(project, run)] for run in runs}]))
"""


@pytest.mark.exports
@needs("trackio")
def test_trackio_reads_its_store(night: Night, tmp_path: Path) -> None:
    project, runs = read_with(TRACKIO, export(night, "trackio", tmp_path / "out"))
    assert project == "task-t" and len(runs) == 5
    config, logs = runs["0001 =HYPERLINK(1) two | words"]
    assert config["status"] == "keep" and config["commit"] == night.experiments[1].commit
    assert [log["score"] for log in logs if "score" in log] == [night.experiments[1].metric]
    curve = [(log["step"], log["run1/loss"]) for log in logs if "run1/loss" in log]
    assert curve == list(enumerate(LOSSES))
