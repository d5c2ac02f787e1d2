"""The metric in JSON: printed as the last document, or in a file that the run wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bench import bench
from support.sessions import TASK, make_task

from autoresearch.measure import json_value
from autoresearch.measure.benchmark_formats import propose_paths
from autoresearch.measure.final_value import FinalValue
from autoresearch.measure.json_value import LARGEST_FILE, find_file_value, find_json_value
from autoresearch.task.json_path import parse_path

SAMPLES = Path(__file__).parent / "samples"


def printed(folder: Path, text: str, path: str = "loss") -> FinalValue:
    (folder / "log").write_text(text, errors="surrogatepass")
    return find_json_value(folder / "log", path)


def written(folder: Path, text: str, path: str = "loss") -> FinalValue:
    (folder / "out.json").write_text(text)
    return find_file_value(folder / "out.json", "out.json", path)


@pytest.mark.parametrize(
    ("sample", "path", "value"),
    [
        ("pytest_benchmark", "benchmarks[name=test_sum].stats.rounds", 3),
        ("pytest_benchmark", 'benchmarks[name="test_sort[100]"].stats.iterations', 1),
        ("hyperfine", "results[0].median", 0.016336062),
        ("hyperfine", "results[command=true].times[-1]", 0.000782427),
        ("hyperfine", 'results[command="sleep 0.01"].mean', 0.017600954),
        ("google_benchmark", "benchmarks[name=BM_Copy/64/min_time:0.020].cpu_time", 35.0543570606),
        ("google_benchmark", "benchmarks[aggregate_name=median].real_time", 7.73511430015),
        ("criterion", "median.point_estimate", 409.2216837),
    ],
)
def test_real_benchmarks(sample: str, path: str, value: float) -> None:
    file = SAMPLES / f"{sample}.json"
    assert find_file_value(file, file.name, path).value == pytest.approx(value, rel=1e-9)
    assert find_json_value(file, path).value == pytest.approx(value, rel=1e-9)  # as printed


@pytest.mark.parametrize(
    "sample", ["pytest_benchmark", "hyperfine", "google_benchmark", "criterion"]
)
def test_a_known_format_is_proposed_a_path(sample: str) -> None:
    file = SAMPLES / f"{sample}.json"
    paths = propose_paths(json.loads(file.read_text(), parse_float=str))
    assert paths
    for path in paths:
        assert find_file_value(file, file.name, path.text).value is not None
    reason = find_file_value(file, file.name, "median_time").reason
    assert reason is not None and f"json = '{paths[0].text}'" in reason


def test_the_units_of_the_formats() -> None:
    units = {
        path.format: path.unit
        for file in SAMPLES.iterdir()
        for path in propose_paths(json.loads(file.read_text(), parse_float=str))
    }
    ns = {"Criterion.rs": "ns", "Google Benchmark": "ns"}
    assert units == ns | {"pytest-benchmark": "s", "hyperfine": "s"}


def test_a_benchmark_that_failed_has_no_time() -> None:
    """Google Benchmark writes `real_time` 0 for it: the best time there can be."""
    file = SAMPLES / "google_benchmark.json"
    final = find_file_value(file, "out.json", "benchmarks[name=BM_Fails].real_time")
    assert final.reason is not None and "failed: no data" in final.reason


@pytest.mark.parametrize(
    "text",
    [
        '{"loss": 0.5137}',
        '  {"loss": 0.5137}  \n',
        'starting\n{"loss": 3}\n{"loss": 0.5137}\nWARNING: done\n',
        '{\n "a": [{"loss": 2}],\n "loss": 0.5137\n}\n',
        '{"loss": 0.5137}\n[INFO] saved\n[1, 2]\n[\n{"loss": 9}\n]\n',
        '[2026-11-28] start\n{"loss": 0.5137}',
        'x {"loss": 4}\n{"loss": 0.5137}',
        '{"loss": 0.5137}\r\n',
    ],
)
def test_the_last_document_that_is_printed(tmp_path: Path, text: str) -> None:
    assert printed(tmp_path, text) == FinalValue(0.5137, None, "loss = 0.5137")


def test_a_document_that_is_a_list(tmp_path: Path) -> None:
    assert printed(tmp_path, '{"n": 1}\n[{"loss": 0.5}]\n', "[0].loss").value == 0.5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "printed no JSON object that begins a line"),
        ('loss {"loss": 3}', "printed no JSON object that begins a line"),
        ('{"loss": 3}\n{"loss": 0.5,}\n', "cannot be read: '{\"loss\": 0.5,}'"),
        ('{"loss": 3}\n{"loss": 0.5} x\n', "cannot be read"),
        ('{"loss": 3}\n{"loss":\n', "cannot be read"),
        ("{\"loss\": 3}\n{'loss': 0.5}\n", "cannot be read"),
        ('{"a": [1,\n{"loss": 0.5}', "cannot be read"),
        ('{"loss": 0.5, "loss": 0.4}', "the key 'loss' more than once"),
        ('{"loss": NaN}', "is NaN, not a finite number"),
        ('{"loss": -Infinity}', "is -Infinity, not a finite number"),
        ('{"loss": 1e999}', "is 1e999, not a finite number"),
        ('{"loss": 1e101}', "not a finite number"),
        ('{"loss": %s}' % ("9" * 200), "not a finite number"),
        ('{"loss": null}', "loss in the last JSON document is null, not a number"),
        ('{"loss": "0.5"}', "is the text '0.5', not a number"),
        ('{"loss": true}', "is true, not a number"),
        ('{"loss": [0.5]}', "is a list of 1, not a number"),
        ('{"loss": {"value": 1}}', "is an object with value, not a number"),
        ('{"Loss": 1, "lr": 2}', "no key 'loss'; it has Loss, lr; did you mean 'Loss'?"),
        ("{}", "no key 'loss'; it has no keys"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, why: str) -> None:
    final = printed(tmp_path, text)
    assert final.value is None and final.reason is not None
    assert final.reason.startswith("no metric: ") and why in final.reason


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a[3]", "a in out.json is a list of 2, which has no '[3]'"),
        ("a[0].b.c", "a[0].b in out.json is the number 1, which has no '.c'"),
        ("a[name=z]", "has 0 items with name=z; there are x, y"),
        ("n[name=z]", "n in out.json is null, not a list"),
        ("twice[name=x].v", "has 2 items with name=x"),
        ("d.k", "d in out.json has the key 'k' more than once"),
    ],
)
def test_where_a_path_ends(tmp_path: Path, path: str, why: str) -> None:
    items = '[{"name": "x", "v": 1}, {"name": "x", "v": 2}]'
    text = '{"a": [{"b": 1, "name": "x"}, {"name": "y"}], "n": null, "d": {"k": 1, "k": 1}, '
    final = written(tmp_path, f'{text} "twice": {items}}}', path)
    assert final.value is None and final.reason is not None and why in final.reason


@pytest.mark.parametrize(
    "path", ["", ".a", "a..b", "a.", "a[", "a[x]", 'a"b"', "[0]b", "a]", "a[0"]
)
def test_a_path_that_cannot_be_read(path: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read|empty"):
        parse_path(path)


def test_a_file(tmp_path: Path) -> None:
    assert written(tmp_path, '\ufeff {"loss": 0.5}\n').value == 0.5
    assert "goes on after" in (written(tmp_path, '{"loss": 1}\n{"loss": 2}').reason or "")
    assert "no JSON document" in (written(tmp_path, "loss: 3").reason or "")
    assert "wrote no file x" in (find_file_value(tmp_path / "x", "x", "loss").reason or "")
    (tmp_path / "link").symlink_to(tmp_path / "out.json")
    assert "wrote no file x" in (find_file_value(tmp_path / "link", "x", "loss").reason or "")
    with (tmp_path / "out.json").open("w") as file:
        file.truncate(LARGEST_FILE + 1)
    final = find_file_value(tmp_path / "out.json", "out.json", "loss")
    assert "16,000,001 bytes; the most is 16,000,000" in (final.reason or "")


MILLION = 1_000_000
HOSTILE: dict[str, Callable[[], str]] = {
    "deep lists": lambda: "[" * MILLION,
    "lines of lists": lambda: "[\n" * MILLION,
    "deep objects": lambda: '{"a":' * MILLION,
    "lines of objects": lambda: '{"a":\n' * MILLION,
    "open lists above a long one": lambda: "[\n" * 900 + "1,\n" * 100_000,
    "open strings": lambda: '{"\n' * 30_000,
    "spaces": lambda: (" " * 1_000 + "\n") * 2_000 + " " * MILLION,
    "log lines": lambda: "[INFO] a step\n" * 30_000,
    "keys": lambda: "{" + ", ".join(f'"{n}": 1' for n in range(50_000)) + "}",
    "a repeated key": lambda: "{" + '"a": 1, ' * 50_000 + '"a": 1}',
    "digits": lambda: '{"loss": ' + "9" * MILLION + "}",
    "a failing item in each line": lambda: "{\n" + '{"a": 1},\n' * 50_000,
    "half an emoji": lambda: '{"\\ud83d": "\\ud83d"}',
}


def test_a_log_full_of_what_begins_like_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_value, "MOST_BROKEN", 100)
    assert printed(tmp_path, "[x]\n" * 100 + '{"loss": 1}\n').value == 1
    assert "name that in [metric] file" in (printed(tmp_path, "[x]\n" * 101).reason or "")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_output_takes_linear_time(tmp_path: Path, name: str) -> None:
    began = time.process_time()
    final = printed(tmp_path, HOSTILE[name]())
    assert final.value is None and len(final.reason or "") < 600
    assert time.process_time() - began < 3


# ---- in real runs --------------------------------------------------------------------------------

SOURCE = '[metric]\nname = "score"\njson = "results[0].mean"\nfile = "out/now.json"\n'
WRITES = """\
import json, os
os.makedirs("out", exist_ok=True)
json.dump({"results": [{"mean": 0.25}]}, open("out/now.json", "w"))
print("score: 7")
"""
NOT_WRITTEN = "no metric: it wrote no file out/now.json"
STALE = {"out/now.json": '{"results": [{"mean": 0.25}]}'}


def task(folder: Path, program: str, **files: str) -> Path:
    toml = TASK.replace('[metric]\nname = "score"\n', SOURCE)
    assert toml != TASK
    return make_task(folder / "task", program, toml, files)


def test_a_run_writes_its_metric(tmp_path: Path) -> None:
    with bench(task(tmp_path, WRITES, **STALE)) as made:  # the same content as in the commit
        assert (made.measure().metric, made.measure().reason) == (0.25, None)


@pytest.mark.parametrize(
    "program",
    [
        "print('score: 7')\n",
        "import os; os.rmdir('out'); os.symlink('/etc', 'out'); print('score: 7')\n",
        "import os; os.symlink('../prog.py', 'out/now.json')\n",
        "import os; os.mkfifo('out/now.json')\n",
    ],
)
def test_the_commits_copy_is_never_read(tmp_path: Path, program: str) -> None:
    with bench(task(tmp_path, program, **STALE)) as made:
        run = made.measure()
        assert (run.metric, run.reason) == (None, NOT_WRITTEN)


def test_with_a_scorer_its_file_decides(tmp_path: Path) -> None:
    scorer = WRITES.replace("0.25", "float(open('model').read())")
    program = WRITES.replace("0.25", "99") + "open('model', 'w').write('0.5')\n"
    settings = {"score__command": "python -S -E score.py", "score__reads": ["model"]}
    for text, ends in [(scorer, (0.5, None)), ("print('score: 3')\n", (None, NOT_WRITTEN))]:
        root = task(tmp_path / str(ends[0]), program, **{"score.py": text}, **STALE)
        with bench(root, **settings) as made:
            run = made.measure()
            assert (run.metric, run.reason) == ends
