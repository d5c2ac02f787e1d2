"""Nights of other programs are told of everywhere as imported, and measured nowhere."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.commands import Done, call
from support.pages import serve_pages
from support.sessions import ScriptedAgent, change, git, run_session

from autoresearch.store.imported import read_nights

ORIGINAL = """\
commit\tscore\tmemory_gb\tstatus\tdescription
a1b2c3d\t0.997900\t44.0\tkeep\tbaseline
b2c3d4e\t0.993200\t44.2\tkeep\tincrease LR to 0.04
c3d4e5f\t1.005000\t44.0\tdiscard\tswitch to GeLU activation
d4e5f6a\t0.000000\t0.0\tcrash\tdouble model width (OOM)
e5f6a7b\t0.991000\t44.0\tdiscard\tGeLU <b>again</b>
"""
"""The example of the original's program.md, with a metric of the tests' task, and one row more."""


def run_import(root: Path, text: str, *words: str, name: str = "old.tsv") -> Done:
    file = root.parent / name
    file.write_text(text)
    return call(root, "import", file, *words)


def write_pi(*entries: dict[str, Any]) -> str:
    config = {"type": "config", "name": "x", "metricName": "score", "bestDirection": "lower"}
    return "".join(json.dumps(entry) + "\n" for entry in (config, *entries))


def make_entry(run: int, metric: float, status: str = "keep", **more: Any) -> dict[str, Any]:
    entry = {"run": run, "commit": "abcdef1", "metric": metric, "metrics": {}, "status": status}
    return entry | {"description": f"idea {run}", "timestamp": 1, "segment": 0} | more


def test_a_results_file_of_the_original_shows_everywhere(root: Path) -> None:
    done = run_import(root, ORIGINAL, "--tag", "mar08")
    assert (done.returncode, done.stderr) == (0, "")
    told = "4 experiments, 1 keep, best score 0.9932 reported; imported, not measured here"
    assert done.stdout == f"mar08: {told}\n"
    assert git(root, "status", "--porcelain") == ""

    log = call(root, "log", "--tag", "mar08")
    assert "mar08, from old.tsv" in log.stdout and log.stdout.count("imported") == 6
    assert re.search(r"3  d4e5f6a +-  crash +imported +double model width \(OOM\)", log.stdout)

    night = run_session(root, ScriptedAgent(change("lower", VALUE=9.0)))
    assert night.experiments[0].metric == pytest.approx(10.0, abs=0.1)  # measured, not imported
    status = call(root, "status")
    assert f"imported   mar08: {told}" in status.stdout
    assert json.loads(call(root, "status", "--json").stdout)["imported"] == [f"mar08: {told}"]
    briefing = call(root, "brief").stdout
    assert "- mar08 (imported, not measured here): kept, +0.0047: increase LR to 0.04" in briefing
    assert "(imported, not measured here): not kept, +0.0022: GeLU <b>again</b>" in briefing
    assert "(imported, not measured here): crashed 1 time" in briefing

    with serve_pages(root) as page:
        assert "imported, not measured here" in page.get("/").text
        shown = page.get(f"/imported/{root.name}/mar08")
        assert shown.status == 200 and "imported, not measured here" in shown.text
        assert "GeLU &lt;b&gt;again&lt;/b&gt;" in shown.text
        assert "0.9932" in html.unescape(shown.text)
        assert page.get(f"/imported/{root.name}/other").status == 404


def test_a_discard_without_a_metric_is_no_record(root: Path) -> None:
    """0.000000 would be the best metric of all."""
    text = ORIGINAL.replace("1.005000", "0.000000").replace("\n", "\r\n")
    assert run_import(root, text).returncode == 0
    [night] = read_nights(root)
    assert [row.metric for row in night.experiments] == [0.9979, 0.9932, None, None, 0.991]


def test_a_log_of_pi_becomes_a_night_for_each_configuration(root: Path) -> None:
    first = write_pi(
        {"type": "hook", "stage": "before"},
        make_entry(1, 9.0),
        make_entry(2, 8.0, "checks_failed", asi={"why": "wrong"}),
        make_entry(3, 0, "crash"),
    )
    done = run_import(root, first + write_pi(make_entry(4, 5.0), make_entry(5, 4.0)))
    assert done.returncode == 0, done.stderr
    nights = read_nights(root)
    assert [night.tag for night in nights] == ["imported", "imported-2"]
    assert [(str(row.status), row.reason, row.metric) for row in nights[0].experiments] == [
        ("keep", "", 9.0),
        ("discard", "checks failed", 8.0),
        ("crash", "", None),
    ]
    assert nights[1].best == 4.0
    again = run_import(root, first + write_pi(make_entry(4, 5.0), make_entry(5, 4.0)))
    assert again.returncode == 2 and "was imported already, as imported" in again.stderr


def test_the_log_of_a_pi_session(root: Path) -> None:
    state = {
        "metricName": "score",
        "bestDirection": "lower",
        "results": [make_entry(1, 9.0), make_entry(2, 8.5), make_entry(3, 2.0, segment=1)],
    }
    result = {"role": "toolResult", "toolName": "log_experiment", "details": {"state": state}}
    entries = ({"type": "session", "version": 3}, {"type": "message", "message": {"role": "user"}})
    lines = [json.dumps(entry) for entry in (*entries, {"type": "message", "message": result})]
    assert run_import(root, "\n".join(lines), "--tag", "pi").returncode == 0
    assert [(night.tag, night.best) for night in read_nights(root)] == [("pi", 8.5), ("pi-2", 2.0)]


def test_our_own_exports_and_results_can_be_imported(root: Path) -> None:
    night = run_session(root, ScriptedAgent(change("=lower", VALUE=9.0)))
    other = root.parent / "other"
    (root / "results.tsv").rename(other.with_suffix(".tsv"))
    assert call(root, "import", other.with_suffix(".tsv"), "--tag", "ours").returncode == 0
    assert call(root, "export", "pi", "--to", other).returncode == 0
    assert call(root, "import", other / "autoresearch.jsonl", "--tag", "pi").returncode == 0
    ours, pi = read_nights(root)
    assert ours.best == pytest.approx(night.experiments[1].metric, abs=1e-6)
    assert pi.best == night.experiments[1].metric


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: found ''; accepted: commit, score, memory_gb, status, description"),
        (ORIGINAL.replace("score", "val_bpb"), "line 1: found 'commit\\tval_bpb"),
        (ORIGINAL.splitlines()[0], "no experiment in it"),
        (ORIGINAL.replace("keep\tinc", "kept\tinc"), "line 3: status: found 'kept'; accepted: k"),
        (ORIGINAL.replace("0.993200", "n/a"), "line 3: metric: found 'n/a'; accepted: a finite"),
        (ORIGINAL.replace("0.993200", "inf"), "line 3: metric: found 'inf'; accepted: a finite"),
        (ORIGINAL.replace("LR to", "LR\tto"), "line 3: found 6 cells in"),
        (ORIGINAL.replace("c3d4e5f", "see log"), "line 4: commit: found 'see log'; accepted: 4 to"),
        (write_pi(make_entry(1, 9.0)) + "{,}\n", "line 3: found no JSON"),
        (ORIGINAL.replace("0.993200", "1_0"), "line 3: metric: found '1_0'; accepted: a finite"),
        (write_pi(make_entry(1, 10**400)), "line 2: metric: found"),
        (write_pi(make_entry(1, "9")), "line 2: metric: found '9'; accepted: a finite"),
        (write_pi(make_entry(1, 9.0, "won")), "line 2: status: found 'won'; accepted: keep, disc"),
        (write_pi({"type": "keep"}), "line 2: found an entry of type 'keep'; accepted: config, ho"),
        (write_pi().replace("lower", "higher"), "line 1: found bestDirection 'higher'; accepted: "),
        (json.dumps(make_entry(1, 9.0)), "line 1: an experiment before the configuration"),
        ('{"type": "session"}', "without a result of the tool log_experiment"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(
    root: Path, text: str, problem: str
) -> None:
    done = run_import(root, text)
    assert done.returncode == 2 and problem.replace("'", '"') in done.stderr.replace("'", '"')
    assert not (root / ".autoresearch").exists()


def test_an_imported_night_is_no_session(root: Path) -> None:
    assert run_import(root, ORIGINAL, "--tag", "t").returncode == 0
    assert run_import(root, ORIGINAL + "\n", "--tag", "t").returncode == 2
    for words in (("status",), ("verify",), ("finish",), ("export", "csv"), ("report",)):
        done = call(root, *words, "--tag", "t")
        assert done.returncode == 2 and "was imported, not measured here" in done.stderr
    done = call(root, "run", "--tag", "t", "--experiments", 1)
    assert done.returncode == 2 and "is an imported night: choose another --tag" in done.stderr
