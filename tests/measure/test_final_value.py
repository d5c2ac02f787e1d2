"""The metric in a log: each case is the output of a real program, with the value that is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.measure.final_value import (
    FinalValue,
    find_final_value,
    find_nearest_line,
    propose_pattern,
)


def read(folder: Path, text: str, name: str = "loss", pattern: str | None = None) -> FinalValue:
    (folder / "log").write_bytes(text.encode())
    return find_final_value(folder / "log", name, pattern)


@pytest.mark.parametrize(
    "text",
    [
        "loss: 0.5137\n",
        "loss:\t0.5137",
        "METRIC loss=0.5137\n",
        "METRIC loss = 0.5137\n",
        "   loss: 0.5137\n",
        "\x1b[1;32mloss\x1b[0m: \x1b[31m0.5137\x1b[0m\n",
        "loss: 3.0\nloss: 0.5137\n",
        "loss: 3.0\n---\nloss: 0.5137\n",
        "loss: 3.0\n---\nMETRIC loss=0.5137\nloss: 0.5137\n",
        "loss: 0.5137\r\n",
        "  0%|   | 0/9\r 50%|#  | 5/9\rloss: 0.5137\n",
        "loss: tensor(0.5137)\n",
        "loss: tensor(0.5137, device='cuda:0', grad_fn=<NllLossBackward0>)\n",
        "loss: np.float64(0.5137)\n",
        "loss: 5.137e-1\n",
        "step 1 | loss: 3.2 | lr 0.1\nstep 2 | loss: 2.1\nloss: 0.5137\n",
        "loss: 0.5137\ntrain_loss: 0.4\nval/loss: 0.3\nloss-rate: 2\n",
        "loss: 0.5137\nsaved the model with the lowest loss so far: done\n",
        "loss: 0.5137\nWarning: x\n  loss = criterion(output, target)\n",
        "loss: nan\nloss: 0.5137\n",
        "METRIC loss=0.5137\nthe model said: METRIC loss=0, loss: 0\n",
        "loss: 0.5137\n" + "a warning that goes on and on\n" * 70_000,  # 2 MB
    ],
)
def test_the_value_that_is_right(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text).value == 0.5137


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("loss: 3.0\nloss: 0.5137 (best at epoch 7)\n", "loss: 0.5137 (best at epoch 7)"),
        ("loss: 0.5137\nMETRIC loss=0.7\n", "METRIC loss=0.7"),
        ("loss: 0.5137\nloss:\n", "loss:"),
        ("loss: 0.5137\n2026-11-28 04:16:26,621 INFO loss: 0.5137\n", "INFO loss: 0.5137"),
        ("loss: 3\nloss=0.5137\n", "loss=0.5137"),
        ("METRIC loss=3\nMETRIC loss=0.5137 best\n", "METRIC loss=0.5137 best"),
        ('loss: 3\n{"loss": 0.5137}\n', '{"loss": 0.5137}'),
        ("loss: 3\ntrain loss 0.5137\n", "train loss 0.5137"),
        ("loss: 3\n│ loss │ 0.5137 │\n", "│ loss │ 0.5137 │"),
        ("loss: 3\n| loss | 0.5137 |\n", "| loss | 0.5137 |"),
        ("loss: 3\nloss -> 0.5137\n", "loss -> 0.5137"),
        ("loss: 3\nthe final loss is 0.5137\n", "loss is 0.5137"),
        ("loss: 3\nloss: 0.5137 ms\n", "0.5137 ms"),
        ("loss: 3\nloss: 51.37%\n", "51.37%"),
        ("loss: 3\nloss: 1,234\n", "1,234"),  # 1234 or 1.234
        ("loss: 3\nloss: 0x10\n", "0x10"),
        ("loss: 3\nloss: 1_000\n", "1_000"),
        ("loss: 3\nloss: \u0661\u0662\n", "\u0661\u0662"),
        ("loss: 3\nloss: tensor([1.0, 2.0])\n", "tensor([1.0, 2.0])"),
        ("loss: 3\nLoss: 0.5137\n", "Loss: 0.5137"),
    ],
)
def test_a_line_that_is_not_clear_is_quoted_and_no_earlier_value_counts(
    tmp_path: Path, text: str, quoted: str
) -> None:
    found = read(tmp_path, text)
    assert found.value is None and found.reason and quoted in found.reason


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "None", "1e400", "best"])
def test_what_is_no_finite_number(tmp_path: Path, word: str) -> None:
    found = read(tmp_path, f"loss: 3\nloss: {word}\n")
    assert found.value is None and found.reason == f"metric is {word!r}, not a finite number"


@pytest.mark.parametrize(
    "text",
    ["Loss: 9\nloss: 3\n", "METRIC loss=3\nLoss: 9\n", "loss: 3\nLoss: lower is better\n"],
)
def test_another_case_that_leaves_no_doubt(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text).value == 3


def test_thousands(tmp_path: Path) -> None:
    assert read(tmp_path, "loss: 489,882.45\n").value == 489882.45


@pytest.mark.parametrize(
    "name", ["val/loss", "tok/s", "achieved tok/s", "acc@1", "a-b", "f1.macro", "µs"]
)
def test_names(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, f"x: 1\n{name}: 49.2\nother {name}x: 3\n", name).value == 49.2


def test_a_form_feed_begins_no_line(tmp_path: Path) -> None:
    assert read(tmp_path, "said: \x0cMETRIC loss=0\u2028METRIC loss=0\x85loss: 0\n").value is None
    assert read(tmp_path, "loss: 0.7\nsaid: 'a\x0closs: 0'\n").value is None  # unclear: refused


def test_a_carriage_return_in_a_quoted_text_begins_no_line(tmp_path: Path) -> None:
    quoted = "\rMETRIC loss=0"
    (tmp_path / "log").write_bytes(f"METRIC loss=0.7\nthe model said: {quoted}\n".encode())
    assert find_final_value(tmp_path / "log", "loss").value == 0  # its own progress bar
    assert find_final_value(tmp_path / "log", "loss", may_quote=True).value == 0.7
    pattern = r"^METRIC loss=(.+)"
    assert find_final_value(tmp_path / "log", "loss", pattern, may_quote=True).value == 0.7
    (tmp_path / "log").write_bytes(b"METRIC loss=0.7\r\nloss: 0.7\r\n")
    assert find_final_value(tmp_path / "log", "loss", may_quote=True).value == 0.7


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["9" * 3_000_000, "x" * 3_000_000 + "9", "9" * 3_000_000 + "x"])
def test_a_number_of_any_length_is_refused_at_once(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, f"loss: 3\nloss: {text}\n")
    assert found.value is None and found.reason and found.reason.startswith("metric unclear")


def test_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "").reason == read(tmp_path, "Loss: 3\n").reason == "no metric"
    assert find_final_value(tmp_path / "none", "loss").reason == "no metric"
    assert find_nearest_line(tmp_path / "log", "loss") == "Loss: 3"


@pytest.mark.parametrize(
    "line",
    [
        "loss: 0.5137 (best at epoch 7)",
        "2026-11-28 04:16:26,621 INFO loss: 0.5137",
        '{"epoch": 3, "loss": 0.5137}',
        "train loss 0.5137",
        "| loss | 0.5137 |",
        "the final loss is 0.5137",
        "loss: 0.5137 ms",
        "loss=0.5137",
    ],
)
def test_a_proposed_pattern_reads_its_line(tmp_path: Path, line: str) -> None:
    pattern = propose_pattern(line, "loss")
    assert pattern is not None
    assert read(tmp_path, f"loss: 3\n{line}\n", pattern=pattern).value == 0.5137


def test_a_pattern(tmp_path: Path) -> None:
    assert read(tmp_path, "best 1 at 7\nbest 2 at 9\n", pattern=r"^best (\S+) at").value == 2
    assert read(tmp_path, "best x at 7\n", pattern=r"^best (\S+) at").value is None
    assert read(tmp_path, "\n", pattern=r"^best (\S+) at").reason == (
        "no metric: the pattern matches nothing"
    )
