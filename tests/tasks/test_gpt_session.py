"""The task gpt at toy size through the whole harness, and on two processes. Minutes of CPU time:
all but the first in `make test-slow`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.sessions import ScriptedAgent, git, night, run_session
from support.tiny_gpt import run_python, write_corpus

from autoresearch.agents import tuner
from autoresearch.commands.fsck import audit
from autoresearch.sandbox.run_policy import why_unconfined
from autoresearch.task.reading import load

torch = pytest.importorskip("torch", reason="gpt trains with torch: pip install torch")
pytest.importorskip("tokenizers", reason="gpt needs tokenizers: pip install tokenizers")

pytestmark = pytest.mark.timeout(900)

TORCHRUN = "-m torch.distributed.run --standalone --nproc_per_node=2 train.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A new task gpt at toy size, as a user makes one."""
    root = tmp_path / "task"
    new = [sys.executable, "-m", "autoresearch", "new", "gpt", str(root)]
    subprocess.run(new, check=True, capture_output=True)
    assert not [path for path in root.iterdir() if path.is_symlink()]
    corpus = write_corpus(tmp_path / "corpus.txt")
    for command in (["toy.py"], ["prepare.py", "--corpus", str(corpus)]):
        done = run_python(root, *command)
        assert done.returncode == 0, done.stderr
    git(root, "commit", "-qam", "toy size")
    return root


def test_a_session_by_the_tuner(root: Path) -> None:
    task = load(root)
    assert task.run.preload == ("torch", "numpy")
    settings = {"limits__experiments": 1, "judge__baseline_runs": 2}
    found = run_session(root, tuner.create(None, {}, 1), **settings)
    assert len(found.verdicts) == 1
    for run in found.runs[:2]:
        assert run.reason is None and run.metric is not None and 0 < run.metric < 8
        assert run.numbers["num_steps"] >= 1
        assert run.numbers["peak_vram_mb"] > 10  # from the scorer, for the guard
        assert run.numbers["checked_windows"] > 0
    assert audit(task) == []


@pytest.mark.slow
def test_a_bound_on_the_memory_that_a_run_claims(root: Path) -> None:
    file = root / "autoresearch.toml"
    file.write_text(file.read_text().replace("<= 76000", "<= 10"))
    done = subprocess.run(
        [sys.executable, "-m", "autoresearch", "check"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "peak_vram_mb" in done.stdout + done.stderr


def weights(folder: Path) -> torch.Tensor:
    saved = torch.load(folder / "model.pt")["weights"]
    return torch.cat([tensor.flatten() for tensor in saved.values()])


@pytest.mark.slow
def test_two_processes_train_one_model(root: Path) -> None:
    """With gloo. All processes stop after the same step, and each sees other windows."""
    env = {"BUDGET": "2", "BUDGET_CLOCK": "cpu", "SEED": "3"}
    done = run_python(root, *TORCHRUN.split(), **env)
    assert done.returncode == 0, done.stderr
    assert "device cpu x 2" in done.stdout and done.stdout.count("---\n") == 1
    assert int(re.findall(r"num_steps: +(\d+)", done.stdout)[0]) >= 1
    assert weights(root).isfinite().all()
    scored = run_python(root, "score.py")
    assert scored.returncode == 0, scored.stderr


TWO_STEPS = """
import os, sys
import torch
import prepare, train


class Steps:
    asked = 0

    def progress(self):
        self.asked += 1
        return self.asked / 2

    def elapsed(self):
        return 1.0


train.join("cpu")
torch.manual_seed(5)
trainer = train.Trainer(prepare.load_meta()["vocab_size"], "cpu")
processes = (train.RANK, train.WORLD)
loader = prepare.make_loader(trainer.rows, train.SEQ_LEN, 5, "cpu", Steps(), *processes)
trainer.train(loader, Steps())
weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
torch.save({"weights": {"all": weights}}, f"{sys.argv[1]}-{train.RANK}.pt")
if train.WORLD > 1:
    train.dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(root: Path) -> None:
    """On the same tokens: one process takes its rows in two parts, two processes take one each."""
    (root / "steps.py").write_text(TWO_STEPS)
    assert run_python(root, "steps.py", "one").returncode == 0
    command = TORCHRUN.replace("train.py", "steps.py two").split()
    done = run_python(root, *command)
    assert done.returncode == 0, done.stderr
    one, first, second = (
        torch.load(root / f"{name}.pt")["weights"]["all"] for name in ("one-0", "two-0", "two-1")
    )
    assert torch.equal(first, second)
    # AdamW's first step goes by the sign of each gradient, so rounding shows where it is near 0
    assert (first - one).abs().median() < 1e-6


@pytest.mark.slow
def test_a_session_whose_runs_are_two_processes_each(root: Path) -> None:
    file = root / "autoresearch.toml"
    text = file.read_text().replace("python train.py", f"python {TORCHRUN}")
    text = text.replace('preload = ["torch", "numpy"]\n', "", 1).replace('"90s"', '"200s"')
    file.write_text(text.replace("slots = 1", "slots = 1\nnetwork = true"))
    found = run_session(root, tuner.create(None, {}, 1), limits__experiments=1)
    assert [run.reason for run in found.runs[:3]] == [None] * 3
    assert all(run.numbers["num_steps"] >= 1 for run in found.runs[:3])
    assert audit(load(root)) == []
    assert night(root).record.tag == "t"


KERNELS = """
import sys
from pathlib import Path
import torch
import precompile
from torch._dynamo.utils import counters
if sys.argv[1] == "use":
    assert precompile.use(Path("compiled/kernels.bin"))
f = torch.compile(lambda x: (x.sin() * 3).relu().sum())
f(torch.ones(100))
hits = counters["inductor"]["fxgraph_cache_hit"]
assert hits == (sys.argv[1] == "use"), dict(counters["inductor"])
if sys.argv[1] == "save":
    assert precompile.save(Path("compiled/kernels.bin")) > 100
"""


@pytest.mark.slow
def test_kernels_that_one_process_compiled_are_found_by_another(root: Path, tmp_path: Path) -> None:
    """With a cache folder of its own each, as runs have: on the CPU, by its compiler."""
    (root / "kernels.py").write_text(KERNELS)
    for how in ("save", "use"):
        folder = tmp_path / how
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "kernels.py", how],
            cwd=root,
            env=os.environ | {"TMPDIR": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


PROBE = """
from pathlib import Path
for file in ("compiled/kernels.bin", "compiled/other"):
    try:
        Path(file).write_bytes(b"poison")
        raise SystemExit(f"error: could write {file}")
    except OSError:
        pass
print("loss:", len(Path("compiled/kernels.bin").read_bytes()))
"""


@pytest.mark.slow
def test_a_run_reads_the_kernels_and_cannot_write_them(root: Path) -> None:
    task = load(root)
    if why_unconfined(task) is not None:
        pytest.skip("nothing confines runs here")
    (root / "compiled/kernels.bin").write_bytes(b"kernels")
    (root / "train.py").write_text(PROBE)
    git(root, "commit", "-qam", "probe")
    file = root / "autoresearch.toml"
    text = re.sub(r"(?s)\[(score|holdout|guards)\].*?(?=\n\[)", "", file.read_text())
    text = text.replace('"val_bpb"', '"loss"').replace('budget = "3s"\nbudget_clock = "cpu"\n', "")
    file.write_text(re.sub(r"allowance.*\n", "", text))
    found = run_session(root, ScriptedAgent())
    assert [run.metric for run in found.runs[:2]] == [7.0, 7.0], found.lines
    assert (root / "compiled/kernels.bin").read_bytes() == b"kernels"
    assert [path.name for path in (root / "compiled").iterdir()] == ["kernels.bin"]


COMPILED = """
import functools
import torch
import torch._dynamo
import prepare, train

torch.set_num_threads(1)
vocab_size = prepare.load_meta()["vocab_size"]


class Clock:
    def elapsed(self):
        return 0.0


def steps(compiler, dtype):
    train.pick_compiler = lambda device: (compiler, dtype)
    torch.manual_seed(1)
    trainer = train.Trainer(vocab_size, "cpu")
    trainer.warm_up()
    torch._dynamo.config.error_on_recompile = True
    loader = prepare.make_loader(trainer.rows, train.SEQ_LEN, 1, "cpu", Clock())
    for step in range(3):
        for _ in range(trainer.micro_steps):
            loss = trainer.backward(*next(loader))
        trainer.update(0.5 + 0.1 * step, 0.1 * step, 0.9 + 0.01 * step)
    torch._dynamo.config.error_on_recompile = False
    torch._dynamo.reset()
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    return loss.item()


eager = steps(lambda function, **options: function, torch.float32)
compiler = functools.partial(torch.compile, backend="aot_eager")
compiled = steps(compiler, torch.float32)
half = steps(compiler, torch.bfloat16)
print(eager, compiled, half)
assert abs(eager - compiled) < 0.005 and abs(eager - half) < 0.1
"""


@pytest.mark.slow
def test_what_is_compiled_does_the_same_and_is_compiled_once(root: Path) -> None:
    """In float32 and in bfloat16, as far as a compiler goes before it makes kernels, which takes
    minutes on a CPU. Other rates compile nothing again: the warm-up has compiled everything."""
    (root / "compiled.py").write_text(COMPILED)
    done = run_python(root, "compiled.py")
    assert done.returncode == 0, done.stderr
