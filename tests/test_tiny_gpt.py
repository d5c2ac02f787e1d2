"""The task tiny_gpt on a small generated text: its data, its clock, its metric, its training."""

import importlib
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="tiny_gpt trains with torch: pip install torch")
pytest.importorskip("tokenizers", reason="tiny_gpt needs tokenizers: pip install tokenizers")

TASK = Path(__file__).parents[1] / "src" / "autoresearch" / "tasks" / "tiny_gpt"
KEYS = [
    "val_bpb",
    "training_seconds",
    "total_seconds",
    "peak_vram_mb",
    "mfu_percent",
    "total_tokens_M",
    "num_steps",
    "num_params_M",
    "depth",
]


def write_corpus(path, size=300_000):
    rng = random.Random(0)
    syllables = ["ka", "to", "mi", "ré", "shu", "lo", "an", "ber", "ost", "ü"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(800)]
    lines, written = [], 0
    while written < size:
        lines.append(" ".join(rng.choices(words, k=rng.randint(5, 20))) + ".\n")
        written += len(lines[-1].encode())
    path.write_text("".join(lines), encoding="utf-8")
    return path


def run(folder, *command, **env):
    """`python COMMAND` in `folder`, without the tester's own AUTORESEARCH_ settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AUTORESEARCH_")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=kept | {f"AUTORESEARCH_{k}": v for k, v in env.items()},
        capture_output=True,
        text=True,
        timeout=120,
    )


def copy_task(folder):
    folder.mkdir()
    for name in ("prepare.py", "train.py"):
        shutil.copy(TASK / name, folder)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A copy of the task with data/ made from the generated text."""
    root = tmp_path_factory.mktemp("tiny_gpt")
    folder = copy_task(root / "task")
    done = run(folder, "prepare.py", "--corpus", str(write_corpus(root / "corpus.txt")))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def code(task):
    """The copy's modules, imported. Two threads would add differently from one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(task))
        for name in ("prepare", "train"):
            patch.delitem(sys.modules, name, raising=False)
        yield SimpleNamespace(
            prepare=importlib.import_module("prepare"), train=importlib.import_module("train")
        )
        for name in ("prepare", "train"):
            sys.modules.pop(name, None)
    torch.set_num_threads(threads)


@pytest.fixture
def model(code):
    torch.manual_seed(0)
    model = code.train.GPT(code.prepare.load_meta()["vocab_size"])
    with torch.no_grad():  # the zero matrices of the start would hide what attention passes on
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


class Steps:
    """A budget of a fixed number of steps, so that two trainings can be compared exactly."""

    def __init__(self, steps):
        self.steps, self.asked = steps, -1

    def progress(self):
        self.asked += 1
        return self.asked / self.steps

    def elapsed(self):
        return 1.0


def weights_after(code, seed, steps=6):
    torch.manual_seed(seed)
    model = code.train.GPT(code.prepare.load_meta()["vocab_size"])
    assert code.train.train(model, Steps(steps), seed, "cpu") == steps
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# ------------------------------------------------------------------------------------------- a run


def test_a_run_prints_the_summary_and_keeps_to_its_budget_of_cpu_seconds(task):
    done = run(task, "train.py", BUDGET="2", BUDGET_CLOCK="cpu", SEED="7")
    assert done.returncode == 0, done.stderr
    progress, block = done.stdout.split("---\n")
    pairs = dict(re.fullmatch(r"(\w+): +([\d.]+)", line).groups() for line in block.splitlines())
    assert list(pairs) == KEYS
    assert all(re.match(r"\w+:\s+\S", line[:19]) for line in block.splitlines())
    assert re.fullmatch(r"\d+\.\d{6}", pairs["val_bpb"])
    assert 0 < float(pairs["val_bpb"]) < 8
    assert float(pairs["training_seconds"]) == pytest.approx(2.0, rel=0.15)
    assert float(pairs["total_seconds"]) > float(pairs["training_seconds"])
    lines = progress.splitlines()
    assert 1 <= len(lines) <= 20
    for line in lines:
        assert re.fullmatch(r"step \d{5} \| loss \d+\.\d{4} \| \d+\.\d% \| \d+\.\dk tok/s", line)


def test_a_diverging_run_stops_with_a_message(task, tmp_path):
    folder = shutil.copytree(task, tmp_path / "task")
    source = (folder / "train.py").read_text()
    assert "\nINIT_SCALE = 1.0" in source
    (folder / "train.py").write_text(source.replace("\nINIT_SCALE = 1.0", "\nINIT_SCALE = 1e30"))
    done = run(folder, "train.py", BUDGET="20", BUDGET_CLOCK="cpu")
    assert done.returncode == 1
    assert "diverged" in done.stderr
    assert "---" not in done.stdout


def test_heads_that_do_not_divide_the_width_are_named(code, monkeypatch):
    monkeypatch.setattr(code.train, "HEADS", 3)
    with pytest.raises(AssertionError, match="WIDTH = 64 does not divide into HEADS = 3"):
        code.train.GPT(300)


# ------------------------------------------------------------------------------------------- seeds


def test_the_same_seed_and_steps_give_the_same_weights(code):
    assert torch.equal(weights_after(code, seed=1), weights_after(code, seed=1))


def test_another_seed_changes_the_weights_and_the_order_of_the_data(code):
    assert not torch.equal(
        weights_after(code, seed=1, steps=1), weights_after(code, seed=2, steps=1)
    )
    first, second = (next(code.prepare.make_loader(4, 32, seed, "cpu"))[0] for seed in (1, 2))
    assert not torch.equal(first, second)


def test_targets_are_the_inputs_one_token_on(code):
    inputs, targets = next(code.prepare.make_loader(4, 32, 0, "cpu"))
    assert inputs.shape == targets.shape == (4, 32)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_an_epoch_shows_no_token_twice(code):
    train = code.prepare.load_tokens("train")
    train[:] = torch.arange(len(train))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code.prepare, "load_tokens", lambda part: train)
        loader = code.prepare.make_loader(4, 100, 0, "cpu")
        epoch = torch.cat([next(loader)[0].flatten() for _ in range(len(train) // 400 - 1)])
    assert len(epoch.unique()) == len(epoch)


# ------------------------------------------------------------------------------------------ metric


@pytest.mark.parametrize("context", [1, 50, 128, 1024])
def test_bits_per_byte_of_a_uniform_model_by_hand(code, task, context):
    meta = json.loads((task / "data" / "meta.json").read_text())
    vocab_size, val = meta["vocab_size"], meta["files"]["val.bin"]
    first = code.prepare.load_token_bytes()[code.prepare.load_tokens("val")[0]]
    by_hand = math.log2(vocab_size) * (val["tokens"] - 1) / (val["bytes"] - first)

    def uniform(idx):
        assert idx.size(1) <= context
        return torch.zeros(*idx.shape, vocab_size)

    assert code.prepare.evaluate_bpb(uniform, context, "cpu") == pytest.approx(by_hand, rel=1e-5)


def test_val_is_a_contiguous_part_that_train_does_not_contain(code, tmp_path):
    text = write_corpus(tmp_path / "text.txt").read_text(encoding="utf-8")
    train, val = code.prepare.split(text)
    at = text.index(val)
    assert train == text[:at] + text[at + len(val) :]
    assert val not in train
    assert 0.04 < len(val) / len(text) < 0.07


def test_the_model_is_causal(model):
    idx = torch.randint(200, (2, 64))
    other = idx.clone()
    other[:, 40:] = (other[:, 40:] + 1) % 200
    with torch.no_grad():
        one, two = model(idx), model(other)
    assert torch.allclose(one[:, :40], two[:, :40], atol=1e-5)
    assert not torch.allclose(one[:, 40:], two[:, 40:], atol=1e-2)


def test_a_model_that_sees_the_future_is_refused(code, model, monkeypatch):
    attention = code.train.F.scaled_dot_product_attention
    monkeypatch.setattr(
        code.train.F, "scaled_dot_product_attention", lambda q, k, v, is_causal: attention(q, k, v)
    )
    with pytest.raises(SystemExit, match="sees the future"):
        code.prepare.evaluate_bpb(model, 128, "cpu")


# ---------------------------------------------------------------------------------- data and errors


def test_preparing_again_does_nothing(task):
    before = (task / "data" / "meta.json").stat().st_mtime_ns
    done = run(task, "prepare.py")
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert (task / "data" / "meta.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n", "is empty"),
        (b"too little\n" * 100, "too small: 1,100 bytes"),
        (b"caf\xe9 " * 40_000, r"not UTF-8 \(byte 3\)"),
        (None, "cannot read"),
    ],
)
def test_a_corpus_that_will_not_do_is_named(tmp_path, content, message):
    folder = copy_task(tmp_path / "task")
    corpus = tmp_path / "corpus.txt"
    if content is not None:
        corpus.write_bytes(content)
    done = run(folder, "prepare.py", "--corpus", str(corpus))
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "data").exists()


def test_a_failed_download_says_what_to_do(code, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="ERROR: no route to host\n")
    monkeypatch.setattr(code.prepare.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(SystemExit, match=r"(?s)no route to host.*--corpus PATH"):
        code.prepare.fetch_king_james()


@pytest.mark.parametrize("damage", ["missing", "altered", "stale"])
def test_training_without_valid_data_says_to_prepare(code, task, tmp_path, monkeypatch, damage):
    data = shutil.copytree(task / "data", tmp_path / "data")
    monkeypatch.setattr(code.prepare, "DATA_DIR", data)
    if damage == "missing":
        (data / "train.bin").unlink()
    elif damage == "altered":
        (data / "val.bin").write_bytes(bytes(100))
    else:
        monkeypatch.setattr(code.prepare, "VOCAB_SIZE", 999)
    with pytest.raises(SystemExit, match=r"run `python prepare.py` first"):
        code.prepare.load_meta()


@pytest.mark.parametrize("budget", ["soon", "0", "-1", "nan", "inf"])
def test_a_budget_that_is_no_number_of_seconds_is_refused(code, monkeypatch, budget):
    monkeypatch.setenv("AUTORESEARCH_BUDGET", budget)
    with pytest.raises(SystemExit, match="positive number of seconds"):
        code.prepare.Budget("cpu")


def test_a_cpu_budget_is_trained_on_the_cpu(code, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("AUTORESEARCH_BUDGET_CLOCK", "cpu")
    assert code.prepare.pick_device() == "cpu"
    monkeypatch.setenv("AUTORESEARCH_BUDGET_CLOCK", "wall")
    assert code.prepare.pick_device() == "cuda"
