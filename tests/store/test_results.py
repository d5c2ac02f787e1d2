"""results.tsv and other published files against a real ledger."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.fabricated import ACCURACY, FabricatedSession
from support.tables import read_table

from autoresearch.errors import NotOursError, StorageError
from autoresearch.records import Experiment, Role, Run, Status
from autoresearch.store.ledger import Ledger
from autoresearch.store.published import publish
from autoresearch.store.results import ResultsFile, check_ours, header, row, table


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "tiny_gpt" / "results.tsv"


GOLDEN = (
    "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    "\texperiment\treason\truns\tcpu_s\tagent\ttokens\tusd\n"
    "0000000\t0.997900\t44.0\tkeep\tbaseline\t0\t\t1\t300.5\tbaseline\t\t\n"
    "0000001\t0.993200\t44.2\tkeep\tincrease LR to 0.04\t1\t\t1\t300.5\tclaude\t1200\t0.0300\n"
    "0000002\t1.005000\t44.0\tdiscard\tswitch to GeLU\t2\tworse\t1\t300.5\tclaude\t\t\n"
    "0000003\t0.000000\t0.0\tcrash\tdouble model width\t3\tOOM\t1\t300.5\tclaude\t\t\n"
)


def test_rows_are_those_of_the_original_with_ours_after_them() -> None:
    gib = 2**30
    rows = [
        (Status.KEEP, 0.9979, 44.0, "baseline", None),
        (Status.KEEP, 0.9932, 44.2, "increase LR to 0.04", None),
        (Status.DISCARD, 1.005, 44.0, "switch to GeLU", "worse"),
        (Status.CRASH, None, 44.0, "double model width", "OOM"),
    ]
    lines = [header("val_bpb")]
    for number, (status, metric, memory, description, reason) in enumerate(rows):
        experiment = Experiment(
            number=number,
            base=0,
            commit=f"{number:07x}abcdef",
            agent="claude" if number else "baseline",
            description=description,
            status=status,
            reason=reason,
            metric=metric,
            peak_memory_bytes=int(memory * gib),
            tokens=1200 if number == 1 else None,
            usd=0.03 if number == 1 else None,
        )
        run = Run(1, number, 0, Role.SCREEN, 0, "c", 1, finished=True, cpu_s=300.5)
        later = replace(run, role=Role.TOPUP)
        lines.append(row(experiment, [run, later]))
    assert "".join(lines) == GOLDEN


def test_a_description_stays_on_its_line_and_in_its_column() -> None:
    def cell(description: str) -> str:
        experiment = Experiment(1, 0, "a" * 40, "tuner", description, status=Status.DISCARD)
        line = row(experiment, [])
        assert line.count("\t") == 11 and line.count("\n") == 1 and len(line.splitlines()) == 1
        return line.split("\t")[4]

    assert cell("a\tb\nc\r\nd") == "a b c  d"
    assert cell("größer · 学習率 🚀") == "größer · 学習率 🚀"
    assert cell("\x1b[31mred\x1b[0m\x00 \u2028x") == "red   x"
    # pandas, with which the original reads the file, takes a leading quote for a quotation.
    assert cell('"muon" for all') == "'muon' for all"
    assert cell("") == ""


def test_the_file_grows_with_the_session(ledger: Ledger, results: Path) -> None:
    session = FabricatedSession(ledger)
    file = ResultsFile(results, ledger, session.record)
    file.prepare()
    assert not results.exists()  # no experiment is finished yet
    file.append(session.baseline())
    assert results.read_text().startswith(header("val_bpb"))
    for gain in (-0.01, 0.03, 0.001):
        file.append(session.change(gain))
    file.append(session.crash())
    assert results.read_text() == table(ledger, session.record)
    first = results.read_text().split("\n")[1].split("\t")
    assert first[3:6] == ["keep", "baseline", "0"]
    # Later runs of a kept commit change no line that is already there.
    session.verify()
    assert results.read_text() == table(ledger, session.record)


def test_an_appended_line_is_never_written_twice_nor_left_out(
    ledger: Ledger, results: Path
) -> None:
    session = FabricatedSession(ledger)
    file = ResultsFile(results, ledger, session.record)
    baseline = session.baseline()
    file.prepare()
    file.append(baseline)
    assert results.read_text() == table(ledger, session.record)
    session.change(-0.01)
    file.append(session.change(-0.01))  # the file missed the experiment before
    assert results.read_text() == table(ledger, session.record)
    results.unlink()
    file.append(session.change(-0.01))
    assert results.read_text() == table(ledger, session.record)


def test_a_torn_file_of_ours_is_mended(ledger: Ledger, results: Path) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    session.change(0.03, "größere Lernrate für die Matrizen")
    file = ResultsFile(results, ledger, session.record)
    whole = table(ledger, session.record).encode()
    for length in [*range(0, len(whole), 3), len(whole)]:
        results.write_bytes(whole[:length])
        file.prepare()
        assert results.read_bytes() == whole, length
    assert [path.name for path in results.parent.iterdir()] == [".autoresearch", results.name]


@pytest.mark.parametrize(
    "content",
    [
        b"my notes\n",
        b"commit\tval_bpb\tmemory_gb\tstatus\tdescription\nabc1234\t0.99\t44.0\tkeep\tbaseline\n",
        b"commit\tval_bpb\tmemory_gb\tstatus\tdescr\xff\n",
        b"\x89PNG\r\n",
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(
    ledger: Ledger, results: Path, content: bytes
) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    results.write_bytes(content)
    with pytest.raises(NotOursError):
        check_ours(results, ledger)
    with pytest.raises(NotOursError, match=r"mv results\.tsv results-old\.tsv"):
        ResultsFile(results, ledger, session.record).prepare()
    assert results.read_bytes() == content


def test_a_line_added_or_edited_by_hand_is_not_ours(ledger: Ledger, results: Path) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    whole = table(ledger, session.record)
    for edited in (whole + "a note\n", whole + "a", whole.replace("baseline", "Baseline", 1)):
        results.write_text(edited)
        with pytest.raises(NotOursError):
            ResultsFile(results, ledger, session.record).prepare()


def test_the_file_of_another_session_of_ours_gives_way(ledger: Ledger, results: Path) -> None:
    first = FabricatedSession(ledger, "nov22")
    first.baseline()
    first.change(-0.01)
    ResultsFile(results, ledger, first.record).prepare()
    second = FabricatedSession(ledger, "nov23", ACCURACY)
    ResultsFile(results, ledger, second.record).prepare()
    assert results.read_text() == header("accuracy")
    results.write_text("commit\tval_bpb\tmemory_gb\tstatus\tdescription\n")  # nothing to lose
    ResultsFile(results, ledger, first.record).prepare()
    assert results.read_text() == table(ledger, first.record)


def test_links_and_folders_are_not_ours(ledger: Ledger, results: Path) -> None:
    session = FabricatedSession(ledger)
    results.symlink_to(results.with_name("elsewhere"))
    with pytest.raises(NotOursError):
        ResultsFile(results, ledger, session.record).prepare()
    results.unlink()
    results.mkdir()
    with pytest.raises(NotOursError):
        ResultsFile(results, ledger, session.record).prepare()


def test_a_disk_that_refuses_is_a_storage_error(ledger: Ledger, tmp_path: Path) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    with pytest.raises(StorageError, match="gone"):
        ResultsFile(tmp_path / "gone" / "results.tsv", ledger, session.record).prepare()


def test_the_table_has_a_row_for_each_experiment(ledger: Ledger) -> None:
    session = FabricatedSession(ledger).plausible(30)
    rows = read_table(table(ledger, session.record))
    assert len(rows) == 31 and rows[0]["description"] == "baseline"
    assert [row["experiment"] for row in rows[:3]] == ["0", "1", "2"]


def test_a_published_file_is_replaced_only_while_it_is_ours(ledger: Ledger, results: Path) -> None:
    path = results.with_name("progress.png")
    publish(ledger, path, b"one")
    publish(ledger, path, b"two")
    publish(ledger, path, b"two")
    assert path.read_bytes() == b"two"
    path.write_bytes(b"edited by hand")
    with pytest.raises(NotOursError, match=r"progress\.png"):
        publish(ledger, path, b"three")
    assert path.read_bytes() == b"edited by hand"
    path.write_bytes(b"")  # left by a power cut
    publish(ledger, path, b"three")
    assert path.read_bytes() == b"three"
    assert sorted(p.name for p in path.parent.iterdir()) == [".autoresearch", "progress.png"]


def test_appending_a_line_costs_the_same_at_two_thousand_experiments(
    ledger: Ledger, results: Path
) -> None:
    session = FabricatedSession(ledger).plausible(2000, keep_share=0.05)
    file = ResultsFile(results, ledger, session.record)
    file.prepare()
    costs = []
    for _ in range(5):
        experiment = session.change(-0.01)
        start = time.thread_time()
        file.append(experiment)
        costs.append(time.thread_time() - start)
    assert min(costs) < 0.002, f"append took {1000 * min(costs):.1f} ms of CPU"
    assert results.read_text() == table(ledger, session.record)


def test_a_small_metric_keeps_its_digits() -> None:
    """`%.6f` of 1e-9 is 0.000000, which the original's format means as a crash."""
    done = Experiment(1, 0, "c" * 40, "tuner", "x", status=Status.KEEP, metric=1.25e-9)
    assert row(done, ()).split("\t")[1] == "1.25e-09"
    assert row(replace(done, metric=0.9979), ()).split("\t")[1] == "0.997900"
