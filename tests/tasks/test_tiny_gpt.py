"""The task tiny_gpt on a small generated text: data, clock, training and score."""

import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.tiny_gpt import TASK, import_modules, write_corpus
from support.tiny_gpt import run_python as run

torch = pytest.importorskip("torch", reason="tiny_gpt trains with torch: pip install torch")
pytest.importorskip("tokenizers", reason="tiny_gpt needs tokenizers: pip install tokenizers")

import torchgen  # noqa: E402 - only with torch
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

MODULES = ("corpus", "device", "prepare", "train", "score")
KEYS = [
    "training_seconds",
    "total_seconds",
    "peak_vram_mb",
    "mfu_percent",
    "total_tokens_M",
    "num_steps",
    "num_params_M",
    "depth",
]


def copy_task(folder):
    folder.mkdir()
    for file in TASK.glob("*.py"):
        shutil.copy(file, folder)
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
def training(task, tmp_path_factory):
    """(a copy of the task with a model that was trained for two seconds, the output)."""
    folder = shutil.copytree(task, tmp_path_factory.mktemp("trained") / "task")
    done = run(folder, "train.py", BUDGET="2", BUDGET_CLOCK="cpu", SEED="7")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def trained(training):
    return training[0]


def compute_bits_per_byte(code, model_file, part):
    """Compute the score without score.py, as an independent check."""
    model, context = code.train.load_model(model_file, "cpu")
    tokens = torch.from_numpy(code.prepare.load_tokens(part))
    nats, at = 0.0, 0
    with torch.inference_mode():
        while at < len(tokens) - 1:
            start = min(at, len(tokens) - 1 - context)
            log_p = model(tokens[None, start : start + context])[0].double().log_softmax(-1)
            for i in range(at - start, context):
                nats -= log_p[i, tokens[start + i + 1]].item()
            at = start + context
    token_bytes = code.prepare.load_token_bytes()[tokens[1:].numpy()]
    return nats / math.log(2) / int(token_bytes.sum())


@pytest.fixture(scope="module")
def code(task):
    """The copy's modules. One thread, because two add numbers in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with import_modules(task, MODULES) as modules:
        yield modules
    torch.set_num_threads(threads)


@pytest.fixture
def model(code):
    torch.manual_seed(0)
    model = code.train.GPT(code.prepare.load_meta()["vocab_size"])
    with torch.no_grad():  # the initial matrices of zeros would hide the output of attention
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


def test_a_run_prints_the_summary_and_keeps_to_its_budget_of_cpu_seconds(training):
    _, output = training
    progress, block = output.split("---\n")
    pairs = dict(re.fullmatch(r"(\w+): +([\d.]+)", line).groups() for line in block.splitlines())
    assert list(pairs) == KEYS
    assert all(re.match(r"\w+:\s+\S", line[:19]) for line in block.splitlines())
    assert float(pairs["training_seconds"]) == pytest.approx(2.0, rel=0.15)
    assert float(pairs["total_seconds"]) > float(pairs["training_seconds"])
    lines = progress.splitlines()
    assert 1 <= len(lines) <= 20
    for line in lines:
        assert re.fullmatch(r"step \d{5} \| loss \d+\.\d{4} \| \d+\.\d% \| \d+\.\dk tok/s", line)


def read_score(output):
    """(val_bpb, checked windows) in the output of score.py."""
    block = re.search(r"---\nval_bpb: +(\d+\.\d{6})\nchecked_windows: +(\d+)\n$", output)
    assert block, output
    return float(block[1]), int(block[2])


def test_a_model_is_scored(code, trained):
    done = run(trained, "score.py")
    assert done.returncode == 0, done.stderr
    bpb, checked = read_score(done.stdout)
    assert 0 < bpb < 8 and checked > 0
    expected = compute_bits_per_byte(code, trained / "model.pt", "val")
    assert bpb == pytest.approx(expected, abs=1e-5)
    assert not list(trained.glob("model-*"))


def test_a_model_is_scored_on_the_holdout(code, trained, monkeypatch, capsys):
    """The model answers in this process, which saves two imports of torch."""
    model, context = code.train.load_model(trained / "model.pt", "cpu")

    def logits(idx):
        with torch.inference_mode():
            return model(torch.from_numpy(idx.astype(np.int64))).numpy()

    monkeypatch.setattr(code.score, "ROOT", trained)
    monkeypatch.setattr(code.score, "Model", lambda vocab_size: InProcess(context, logits))
    monkeypatch.setattr(sys, "argv", ["score.py", "holdout"])
    code.score.main()
    bpb, checked = read_score(capsys.readouterr().out)
    expected = compute_bits_per_byte(code, trained / "model.pt", "holdout")
    assert bpb == pytest.approx(expected, abs=1e-5) and checked > 0


def test_scoring_without_a_model_says_what_to_do(task):
    done = run(task, "score.py")
    assert done.returncode == 1
    assert done.stderr == "error: there is no model.pt: run `python train.py` first\n"


@pytest.fixture
def copy(code, task, tmp_path, monkeypatch):
    """A copy of the task with a file model.pt that is no model, for score.py to use."""
    folder = shutil.copytree(task, tmp_path / "task")
    (folder / "model.pt").write_bytes(b"not a model")
    monkeypatch.setattr(code.score, "ROOT", folder)
    return folder


@contextmanager
def start_model(code):
    model = code.score.Model(300)
    try:
        yield model
    finally:
        model.close()
        model.process.stdout.close()
        model.errors.close()


def test_a_model_that_cannot_be_loaded_is_reported_with_its_traceback(code, copy, capsys):
    with (
        start_model(code) as model,
        pytest.raises(SystemExit, match=r"^error: the model could not be loaded \(exit code 1\)$"),
    ):
        model.context()
    output = capsys.readouterr().out
    assert re.search(r"^\| .*\w+Error: ", output, re.MULTILINE), output


def test_a_model_that_answers_nonsense_and_waits_is_ended(code, copy):
    (copy / "serve.py").write_text("import sys\nprint('x' * 200, flush=True)\nsys.stdin.read()\n")
    with (
        start_model(code) as model,
        pytest.raises(SystemExit, match=r"^error: the model could not be loaded"),
    ):
        model.context()
    assert model.process.returncode is not None


def test_a_diverging_run_stops_with_a_message(code, monkeypatch):
    monkeypatch.setattr(code.train, "INIT_SCALE", 1e30)
    with pytest.raises(SystemExit, match=r"^error: diverged: the loss is"):
        weights_after(code, seed=1, steps=100)


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
    train = np.arange(len(code.prepare.load_tokens("train")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code.prepare, "load_tokens", lambda part: train)
        loader = code.prepare.make_loader(4, 100, 0, "cpu")
        epoch = torch.cat([next(loader)[0].flatten() for _ in range(len(train) // 400 - 1)])
    assert len(epoch.unique()) == len(epoch)


# ------------------------------------------------------------------------------------------ metric


class InProcess:
    """A model that answers score.py's questions without a process of its own."""

    def __init__(self, context, logits):
        self._context, self._logits, self.asked = context, logits, []

    def context(self):
        return self._context

    def ask(self, idx):
        assert idx.shape[1] == self._context
        self.asked.append(idx)

    def answer(self, rows, length):
        return self._logits(self.asked[-1])

    def close(self):
        pass


def score(code, context, *logits):
    """(val_bpb, checked windows) of one model in both processes, or of one model in each."""
    models = [InProcess(context, answer) for answer in (logits * 2)[:2]]
    return code.score.bits_per_byte(tuple(models), code.prepare.load_tokens("val"))


@pytest.mark.parametrize("context", [1, 50, 128, 1024])
def test_bits_per_byte_of_a_uniform_model_by_hand(code, task, context):
    meta = json.loads((task / "data" / "meta.json").read_text())
    vocab_size, val = meta["vocab_size"], meta["parts"]["val"]
    first = code.prepare.load_token_bytes()[code.prepare.load_tokens("val")[0]]
    by_hand = math.log2(vocab_size) * (val["tokens"] - 1) / (val["bytes"] - first)

    def uniform(idx):
        return np.zeros((*idx.shape, vocab_size), dtype=np.float32)

    assert score(code, context, uniform)[0] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("context", [1, 7, 128, 1000])
def test_every_token_is_predicted_once(code, context):
    tokens = code.prepare.load_tokens("val")
    starts = code.score.window_starts(len(tokens) - 1, context)
    predicted = []
    for window, start in enumerate(starts):
        assert start + context < len(tokens)
        new = window * context - start
        predicted += range(start + new + 1, start + context + 1)
    assert predicted == list(range(1, len(tokens)))


def test_the_held_out_parts_are_contiguous_and_train_has_neither(code, tmp_path):
    text = write_corpus(tmp_path / "text.txt").read_text(encoding="utf-8")
    parts = code.prepare.split(text)
    rest = text
    for name in ("val", "holdout"):
        part = parts[name]
        assert text.count(part) == 1 and part not in parts["train"]
        assert 0.04 < len(part) / len(text) < 0.07
        rest = rest.replace(part, "")
    assert parts["train"] == rest


def test_the_model_is_causal(model):
    idx = torch.randint(200, (2, 64))
    other = idx.clone()
    other[:, 40:] = (other[:, 40:] + 1) % 200
    with torch.no_grad():
        logits, other_logits = model(idx), model(other)
    assert torch.allclose(logits[:, :40], other_logits[:, :40], atol=1e-5)
    assert not torch.allclose(logits[:, 40:], other_logits[:, 40:], atol=1e-2)


def test_no_process_gets_a_window_twice_and_checks_look_like_text(code):
    tokens = code.prepare.load_tokens("val")
    lists = code.score.questions(tokens, 64, np.random.default_rng(0))
    pairs = set(itertools.pairwise(tokens))
    for questions in lists:
        windows = [question.window for question in questions]
        assert len(set(windows)) == len(windows)
        assert sum(question.cut is not None for question in questions) >= 16
    checks = [question for question in itertools.chain(*lists) if question.cut is not None]
    natural = [(q.idx[q.cut - 1], q.idx[q.cut]) in pairs for q in checks]
    assert sum(natural) > 0.7 * len(checks)  # not all: the generated text has few repetitions
    starts = code.score.window_starts(len(tokens) - 1, 64)
    for question in checks:
        start = starts[question.window]
        assert (question.idx[: question.cut] == tokens[start : start + question.cut]).all()
        assert question.idx[question.cut] != tokens[start + question.cut]


def peeking(idx, vocab_size, share=1.0):
    """Predict the next token by looking at it, in a share of the windows."""
    logits = np.zeros((*idx.shape, vocab_size), dtype=np.float32)
    rows = [row for row in range(len(idx)) if idx[row].sum() % 100 < 100 * share]
    for row in rows:
        logits[row, np.arange(idx.shape[1] - 1), idx[row, 1:]] = 5
    return logits


@pytest.mark.parametrize("context", [64, 400])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_model_that_sees_the_future_is_refused(code, task, share, context):
    vocab_size = code.prepare.load_meta()["vocab_size"]
    with pytest.raises(SystemExit, match="sees the future"):
        score(code, context, lambda idx: peeking(idx, vocab_size, share))


@pytest.mark.parametrize("value", [-math.inf, -3e38])
def test_numbers_out_of_range_hide_nothing(code, task, value):
    """An extreme logit of a token that never occurs does not prevent the comparison of others."""
    vocab_size = code.prepare.load_meta()["vocab_size"]

    def logits(idx):
        answer = peeking(idx, vocab_size)
        answer[..., 0] = value
        return answer

    with pytest.raises(SystemExit, match=r"sees the future|not finite"):
        score(code, 64, logits)


def test_a_model_that_remembers_the_windows_it_was_asked_is_refused(code):
    """No process gets a window twice. A model whose answers depend on earlier questions differs
    between the processes, because they get other windows."""
    vocab_size = code.prepare.load_meta()["vocab_size"]

    def remembering():
        seen = np.zeros(vocab_size, dtype=np.float32)

        def logits(idx):
            np.add.at(seen, idx.ravel(), 1)
            return np.broadcast_to(np.log1p(seen), (*idx.shape, vocab_size)).astype(np.float32)

        return logits

    with pytest.raises(SystemExit, match="remembers what it was asked"):
        score(code, 64, remembering(), remembering())


@pytest.mark.parametrize(
    ("value", "message"),
    [(math.nan, "not finite"), (math.inf, "not finite"), (-math.inf, "not finite")],
)
def test_answers_that_are_no_distribution_are_refused(code, value, message):
    vocab_size = code.prepare.load_meta()["vocab_size"]

    def broken(idx):
        logits = np.zeros((*idx.shape, vocab_size), dtype=np.float32)
        logits[..., 1:] = value  # of all tokens but the first
        return logits

    with (
        np.errstate(invalid="ignore"),
        pytest.raises(SystemExit, match=message),
    ):
        score(code, 64, broken)


def test_a_quote_of_the_text_in_the_program_is_refused(code, task):
    text = (task / "val" / "text.txt").read_bytes()
    source = (task / "train.py").read_bytes()
    code.score.refuse_text_in_the_source(source, text)
    for at in (0, 1000, 1013):
        with pytest.raises(SystemExit, match="holds a part of the text"):
            code.score.refuse_text_in_the_source(source + text[at : at + 60], text)
    with pytest.raises(SystemExit, match="accepted: up to 100,000"):
        code.score.refuse_text_in_the_source(source + b"#" * 100_000, text)


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
    ids=["blank", "too small", "not UTF-8", "missing"],  # pytest puts it into the environment
)
def test_an_unsuitable_corpus_is_refused(code, tmp_path, monkeypatch, content, message):
    corpus = tmp_path / "corpus.txt"
    if content is not None:
        corpus.write_bytes(content)
    monkeypatch.setattr(code.prepare, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare.py", "--corpus", str(corpus)])
    with pytest.raises(SystemExit, match=rf"^error: .*{message}"):
        code.prepare.main()
    assert not (tmp_path / "data").exists()


def test_a_failed_download_says_what_to_do(code, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="ERROR: no route to host\n")
    monkeypatch.setattr(code.prepare.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(SystemExit, match=r"(?s)no route to host.*--corpus PATH"):
        code.prepare.fetch_king_james()


@pytest.mark.parametrize("damage", ["missing", "altered", "stale"])
def test_training_without_valid_data_says_to_prepare(code, task, tmp_path, monkeypatch, damage):
    root = shutil.copytree(task, tmp_path / "task")
    monkeypatch.setattr(code.prepare, "ROOT", root)
    code.prepare.load_meta("data", "val", "holdout")
    if damage == "missing":
        (root / "data/train.bin").unlink()
    elif damage == "altered":
        (root / "data/tokenizer.json").write_bytes(bytes(100))
    else:
        monkeypatch.setattr(code.prepare, "VOCAB_SIZE", 999)
    with pytest.raises(SystemExit, match=r"run `python prepare.py` first"):
        code.prepare.load_meta()


@pytest.mark.parametrize("part", ["val", "holdout"])
def test_altered_held_out_text_is_not_scored_on(trained, tmp_path, part):
    root = shutil.copytree(trained, tmp_path / "task")
    (root / part / "tokens.bin").write_bytes(bytes(100_000))
    done = run(root, "score.py", *([part] if part == "holdout" else []))
    assert done.returncode == 1
    assert f"error: {part}/tokens.bin is not the file that prepare.py wrote" in done.stderr
    assert "val_bpb" not in done.stdout


@pytest.mark.parametrize("budget", ["soon", "0", "-1", "nan", "inf"])
def test_a_budget_that_is_no_number_of_seconds_is_refused(code, monkeypatch, budget):
    monkeypatch.setenv("AUTORESEARCH_BUDGET", budget)
    with pytest.raises(SystemExit, match="positive number of seconds"):
        code.device.Budget("cpu", 10.0)


def test_a_cpu_budget_is_trained_on_the_cpu(code, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("AUTORESEARCH_BUDGET_CLOCK", "cpu")
    assert code.device.pick_device() == "cpu"
    monkeypatch.setenv("AUTORESEARCH_BUDGET_CLOCK", "wall")
    assert code.device.pick_device() == "cuda"


# ------------------------------------------------------------------------------------- Apple's MPS


class Calls(TorchDispatchMode):
    """Records the operators that are called, and the types of the tensors they take and return."""

    def __init__(self):
        super().__init__()
        self.operators, self.types = set(), set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        returned = operator(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, returned)) if torch.is_tensor(x)]
        self.operators.add(str(operator).removeprefix("aten.").removesuffix(".default"))
        self.types |= {x.dtype for x in tensors}
        return returned


def kernels_on_mps():
    """Return operator -> whether PyTorch has it on MPS, from the table PyTorch is built from."""
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    entries = re.findall(r"(?ms)^- func: ([\w.]+)\((.*?)(?=^- func: |\Z)", table.read_text())
    kernels = {
        name: bool(re.search(r"\bMPS\b|\bComposite\w+:", entry)) or "dispatch:" not in entry
        for name, entry in entries
    }
    delegates = {
        name: delegate[1]
        for name, entry in entries
        if (delegate := re.search(r"structured_delegate: ([\w.]+)", entry))
    }
    return kernels | {name: kernels[delegate] for name, delegate in delegates.items()}


def test_all_that_training_and_scoring_call_exists_on_mps(code, monkeypatch):
    """The tests run on no Mac. MPS lacks float64 and some operators."""
    # MPS uses the composite attention; the CPU would use a kernel of its own
    monkeypatch.setattr(code.train.F, "scaled_dot_product_attention", plain_attention)
    model = code.train.GPT(code.prepare.load_meta()["vocab_size"])
    budget = SimpleNamespace(progress=iter([0.0, 0.5, 1.0]).__next__, elapsed=lambda: 1.0)
    idx = torch.zeros(2, 16, dtype=torch.long)
    with Calls() as calls:
        code.train.train(model, budget, 1, "cpu")
        with torch.inference_mode():
            model(idx).float()
        torch.ones(4, 4) @ torch.ones(4, 4)  # for mfu_percent
    on_mps = kernels_on_mps()
    assert {"mm", "embedding_dense_backward", "_foreach_addcdiv_.Scalar"} <= calls.operators
    assert [name for name in sorted(calls.operators) if not on_mps[name]] == []
    assert calls.types & {torch.float64, torch.complex128} == set()
    assert not on_mps["_fused_rms_norm_backward"], (
        "the table lists every operator, so it shows nothing"
    )


def plain_attention(q, k, v, is_causal):
    with sdpa_kernel(SDPBackend.MATH):
        return ATTENTION(q, k, v, is_causal=is_causal)


ATTENTION = torch.nn.functional.scaled_dot_product_attention
