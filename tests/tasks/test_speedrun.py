"""The task speedrun on a small generated text: training to a loss, and the guard."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.bench import bench
from support.commands import call
from support.sessions import commit_all
from support.tiny_gpt import run_python, write_corpus

pytest.importorskip("torch", reason="speedrun trains with torch: pip install torch")
pytest.importorskip("tokenizers", reason="speedrun needs tokenizers: pip install tokenizers")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task at a size that trains in a second."""
    folder = tmp_path_factory.mktemp("speedrun")
    root = folder / "task"
    assert call(folder, "new", "speedrun", root).returncode == 0
    done = run_python(root, "prepare.py", "--corpus", str(write_corpus(folder / "corpus.txt")))
    assert done.returncode == 0, done.stderr
    set_knobs(root, DEPTH=1, WIDTH=32, STOP_LOSS=5.3)
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "task", symlinks=True)


def set_knobs(root: Path, **knobs: object) -> None:
    text = (root / "train.py").read_text()
    for name, value in knobs.items():
        text, count = re.subn(rf"^{name} = [^ ]+", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    (root / "train.py").write_text(text)


def test_a_training_ends_below_its_loss(root: Path) -> None:
    first, again = (run_python(root, "train.py", SEED="3").stdout for _ in range(2))
    assert first == again  # the seed decides all
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", first)]
    assert losses[0] > 5.3 > losses[-1]
    steps = int(re.findall(r"steps: +(\d+)", first)[0])
    assert steps > 2 and (root / "model.pt").exists()


def test_a_training_that_stops_too_soon_is_refused(root: Path) -> None:
    file = root / "autoresearch.toml"
    file.write_text(file.read_text().replace("<= 1.80", "<= 0.5"))
    commit_all(root)
    with bench(root, metric__relative=False) as made:
        run = made.measure()
    assert run.reason is not None and run.reason.startswith("guard failed: val_bpb")
