"""The task gpt at toy size, on the CPU: data, training, score. What needs a GPU is in
test_gpu.py."""

import contextlib
import gc
import io
import math
import re
import shutil
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from support.tiny_gpt import GPT, import_modules, run_python, write_corpus

torch = pytest.importorskip("torch", reason="gpt trains with torch: pip install torch")
pytest.importorskip("tokenizers", reason="gpt needs tokenizers: pip install tokenizers")

MODULES = ("corpus", "device", "prepare", "precompile", "toy", "train", "score")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A copy of the task at toy size, with data/ made from a generated text."""
    root = tmp_path_factory.mktemp("gpt")
    folder = shutil.copytree(GPT, root / "task", ignore=shutil.ignore_patterns("__pycache__"))
    write_corpus(root / "corpus.txt")
    for command in (["toy.py"], ["prepare.py", "--corpus", str(root / "corpus.txt")]):
        done = run_python(folder, *command)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def code(task):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two add numbers in another order
    with import_modules(task, MODULES) as modules:
        yield modules
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def training(code, task, tmp_path_factory):
    """(a folder with a model that was trained for one second, the output). In this process, which
    saves an import of torch; test_gpt_session.py has the processes."""
    folder = shutil.copytree(task, tmp_path_factory.mktemp("trained") / "task")
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.chdir(folder)
        for name, value in (("BUDGET", "1"), ("BUDGET_CLOCK", "cpu"), ("SEED", "7")):
            patch.setenv(f"AUTORESEARCH_{name}", value)
        code.train.main()
    gc.enable()
    gc.unfreeze()
    return folder, output.getvalue()


class Steps:
    """A budget of a fixed number of steps, so that two trainings can be compared exactly."""

    def __init__(self, steps):
        self.steps, self.asked = steps, 0

    def progress(self):
        self.asked += 1
        return self.asked / self.steps

    def elapsed(self):
        return 1.0


def make_trainer(code, seed=1):
    torch.manual_seed(seed)
    return code.train.Trainer(code.prepare.load_meta()["vocab_size"], "cpu")


def weights_after(code, seed, steps=3):
    trainer, budget = make_trainer(code, seed), Steps(steps)
    loader = code.prepare.make_loader(trainer.rows, code.train.SEQ_LEN, seed, "cpu", budget)
    assert trainer.train(loader, budget) == steps
    return flat(trainer.model.parameters())


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


# ------------------------------------------------------------------------------------------- a run


def test_a_run_says_what_it_uses_and_keeps_to_its_budget(training):
    _, output = training
    progress, block = output.split("---\n")
    first, *lines = progress.splitlines()
    assert first == "device cpu x 1, attention sdpa, seed 7"
    for line in lines:
        assert re.fullmatch(r"step \d{5} \| loss \d+\.\d{4} \| \d+\.\d% \| \d+\.\dk tok/s", line)
    numbers = {name: float(value) for name, value in re.findall(r"(\w+): +([\d.]+)", block)}
    assert numbers["training_seconds"] == pytest.approx(1.0, abs=0.5)
    assert numbers["num_steps"] >= 1 and numbers["depth"] == 2 and numbers["peak_vram_mb"] > 0


def test_the_model_is_scored_by_the_scorer_of_tiny_gpt(code, training, monkeypatch, capsys):
    """In this process too."""
    folder, _ = training
    model, context = code.train.load_model(folder / "model.pt", "cpu")
    assert (context, model.dtype) == (64, torch.float32)

    class InProcess:
        def __init__(self, vocab_size):
            self.asked = []

        def context(self):
            return context

        def ask(self, idx):
            self.asked.append(torch.from_numpy(idx.astype(np.int64)))

        def answer(self, rows, length):
            with torch.inference_mode():
                return model(self.asked[-1]).numpy()

        def close(self):
            pass

    monkeypatch.setattr(code.score, "ROOT", folder)
    monkeypatch.setattr(code.score, "Model", InProcess)
    monkeypatch.setattr(sys, "argv", ["score.py"])
    code.score.main()
    output = capsys.readouterr().out
    found = re.search(r"val_bpb: +([\d.]+)\nchecked_windows: +\d+\npeak_vram_mb: +([\d.]+)", output)
    tokens = torch.from_numpy(code.prepare.load_tokens("val"))
    starts = code.score.window_starts(len(tokens) - 1, context)
    nats, predicted = 0.0, 0
    for start in starts:  # the score by another way: windows, of the last only what is new
        with torch.inference_mode():
            log_p = model(tokens[None, start : start + context])[0].double().log_softmax(-1)
        new = max(0, predicted - start)
        targets = tokens[start + 1 + new : start + 1 + context]
        nats -= log_p[new:].gather(1, targets[:, None]).sum().item()
        predicted = start + context
    text = (folder / "val/text.txt").read_bytes()  # its first token is BOS, which has no bytes
    assert float(found[1]) == pytest.approx(nats / math.log(2) / len(text), abs=1e-5)
    assert float(found[2]) > 0


@pytest.mark.parametrize("claim", ["", "[]", "{}", '{"peak_vram_mb": NaN}', '{"peak_vram_mb": -1}'])
def test_a_claim_of_the_run_that_is_no_number_is_refused(code, tmp_path, monkeypatch, claim):
    monkeypatch.setattr(code.score, "ROOT", tmp_path)
    assert code.score.read_claim("peak_vram_mb") is None
    (tmp_path / "run.json").write_text(claim)
    with pytest.raises(SystemExit, match="no number peak_vram_mb"):
        code.score.read_claim("peak_vram_mb")


def test_the_same_seed_and_steps_give_the_same_weights(code):
    first = weights_after(code, 1, steps=2)
    assert torch.equal(first, weights_after(code, 1, steps=2))
    assert not torch.equal(first, weights_after(code, 2, steps=2))


def test_warming_up_learns_nothing(code):
    trainer = make_trainer(code)
    before = flat(trainer.model.parameters()).clone()
    trainer.warm_up()
    assert torch.equal(flat(trainer.model.parameters()), before)
    for optimizer in trainer.optimizers:
        means = optimizer.mean if isinstance(optimizer.mean, list) else [optimizer.mean]
        assert not flat(means).any()
        assert getattr(optimizer, "steps", 0) == 0


def test_a_step_in_parts_has_the_same_gradients(code, monkeypatch):
    idx = torch.randint(200, (16, 65), generator=torch.Generator().manual_seed(0))
    gradients = {}
    for rows in (8, 16):
        monkeypatch.setattr(code.train, "DEVICE_BATCH", rows)
        trainer = make_trainer(code)
        assert trainer.micro_steps == 16 // rows
        for part in idx.split(rows):
            trainer.backward(part[:, :-1], part[:, 1:])
        gradients[rows] = flat(p.grad for p in trainer.model.parameters())
    assert gradients[8].norm() > 0.1
    assert torch.allclose(gradients[8], gradients[16], atol=1e-5)


def test_a_diverging_run_stops_with_a_message(code, monkeypatch):
    monkeypatch.setattr(code.train, "INIT_SCALE", 1e30)
    with pytest.raises(SystemExit, match=r"^error: diverged: the loss is"):
        weights_after(code, seed=1, steps=9)


def test_too_little_memory_is_a_crash_with_a_hint(code, monkeypatch):
    def allocate(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")

    monkeypatch.setattr(code.train.Trainer, "warm_up", allocate)
    monkeypatch.setenv("AUTORESEARCH_BUDGET_CLOCK", "cpu")
    with pytest.raises(SystemExit, match=r"(?s)out of memory: CUDA.* 8.00 GiB.*Halve DEVICE_BATCH"):
        code.train.main()


def test_full_size_on_a_cpu_is_refused_with_a_way_out(code, monkeypatch):
    code.train.check_device("cpu")
    monkeypatch.setattr(code.train, "TOTAL_BATCH", 2**19)
    with pytest.raises(SystemExit, match=r"no GPU .*`python toy\.py`"):
        code.train.check_device("cpu")


def test_a_batch_that_does_not_divide_is_named(code, monkeypatch):
    monkeypatch.setattr(code.train, "DEVICE_BATCH", 5)
    with pytest.raises(SystemExit, match="no multiple of DEVICE_BATCH x SEQ_LEN x GPUs"):
        make_trainer(code)


@pytest.mark.slow
def test_at_full_size_it_has_fifty_million_parameters():
    with import_modules(GPT, ("train",)) as modules:
        model = modules.train.GPT(8192, None, torch.bfloat16)
    assert sum(p.numel() for p in model.parameters()) == 50_332_176
    assert modules.train.window_sizes() == [1024, 1024, 1024, 2048] * 2


# ---------------------------------------------------------------------------------------- attention


def naive_attention(q, k, v, window):
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.size(-1))
    for i in range(q.size(1)):
        for j in range(q.size(1)):
            if not 0 <= i - j <= window:
                scores[:, :, i, j] = -torch.inf
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("name", "window"),
    [("sdpa", 32), ("sdpa", 64), pytest.param("flex", 32, marks=pytest.mark.slow)],
)
def test_a_token_sees_itself_and_the_window_before_it(code, monkeypatch, name, window):
    monkeypatch.setattr(code.train, "ATTENTION", name)
    found, attend = code.train.pick_attention("cpu")
    assert found == name
    q, k, v = torch.randn(3, 2, 64, 2, 16).unbind()
    expected = naive_attention(q, k, v, window)
    assert torch.allclose(attend(q, k, v, window), expected, atol=1e-5)


@pytest.mark.parametrize("package", ["flash_attn_interface", "flash_attn"])
@pytest.mark.parametrize("statistics", [False, True])
def test_a_flash_attention_package_is_used_if_it_is_there(code, monkeypatch, package, statistics):
    calls = []

    def flash_attn_func(q, k, v, causal, window_size):
        calls.append((causal, window_size))
        return (q, "statistics") if statistics else q

    for name in ("flash_attn_interface", "flash_attn"):
        monkeypatch.setitem(sys.modules, name, None)
    module = ModuleType(package)
    module.flash_attn_func = flash_attn_func
    monkeypatch.setitem(sys.modules, package, module)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    name, attend = code.train.pick_attention("cuda")
    x = torch.zeros(1, 8, 2, 4)
    assert name == package and attend(x, x, x, 5) is x
    assert calls == [(True, (5, 0))]


def test_flash_attention_3_is_not_for_other_gpus(code, monkeypatch):
    module = ModuleType("flash_attn_interface")
    module.flash_attn_func = print
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(code.train, "ATTENTION", "flash")
    with pytest.raises(SystemExit, match="neither flash_attn_interface nor flash_attn"):
        code.train.pick_attention("cuda")


def test_the_model_is_causal(code):
    model = make_trainer(code).model
    with torch.no_grad():  # the initial matrices of zeros would hide the output of attention
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        idx = torch.randint(200, (2, 64))
        other = idx.clone()
        other[:, 40:] = (other[:, 40:] + 1) % 200
        logits, other_logits = model(idx), model(other)
    assert torch.allclose(logits[:, :40], other_logits[:, :40], atol=1e-4)
    assert not torch.allclose(logits[:, 40:], other_logits[:, 40:], atol=1e-2)


# ---------------------------------------------------------------------------------------- optimizer


def test_orthogonalized_matrices_have_singular_values_near_1(code):
    for shape in ((3, 32, 64), (3, 64, 32)):
        values = torch.linalg.svdvals(code.train.orthogonalize(torch.randn(shape)))
        assert values.min() > 0.6 and values.max() < 1.3


def test_evened_out_rows_have_like_sizes_and_the_whole_keeps_its_own(code):
    update = torch.randn(1, 64, 32) * torch.linspace(0.1, 2, 64)[:, None]
    square = update.square().mean(dim=-1, keepdim=True)
    even = code.train.even_out(update, square, torch.tensor(0.95))
    assert even.norm().item() == pytest.approx(update.norm().item(), rel=1e-4)
    sizes = even.norm(dim=-1)
    assert sizes.max() / sizes.min() == pytest.approx(1, abs=1e-3)


def test_adamw_is_pytorchs(code):
    torch.manual_seed(3)
    p, theirs = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    ours = code.train.AdamW([p], 0.1, code.train.adamw_step, decay=0.01)
    reference = torch.optim.AdamW([theirs], 0.1, (0.8, 0.95), eps=1e-10, weight_decay=0.01)
    for _ in range(4):
        p.grad = theirs.grad = torch.randn(5)
        with torch.no_grad():
            ours.step(1.0, 0.0, 0.0)
        reference.step()
    assert torch.allclose(p, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.0), (0.05, 0.5), (0.3, 1.0), (0.75, 0.55), (1.0, 0.1)]
)
def test_the_learning_rate_rises_and_falls(code, monkeypatch, progress, expected):
    monkeypatch.setattr(code.train, "WARMUP", 0.1)
    monkeypatch.setattr(code.train, "FINAL_LR", 0.1)
    assert code.train.learning_rate(progress) == pytest.approx(expected)


# --------------------------------------------------------------------------------------------- data


def test_bytes_are_true_bytes(code, task):
    """The original decodes each token and counts three bytes for half a character."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(task / "data/tokenizer.json"))
    tokenizer.encode_special_tokens = True
    token_bytes = code.prepare.load_token_bytes()
    for text in ("plain", "é ü 你好 🙂", "<|bos|> is text here", "a\r\n\tb  c"):
        ids = tokenizer.encode(text).ids
        assert token_bytes[ids].sum() == len(text.encode())
        assert tokenizer.decode(ids) == text
    halves = [i for i in tokenizer.encode("你").ids if tokenizer.decode([i]) == "�"]
    assert halves and (token_bytes[halves] == 1).all()
    assert token_bytes[tokenizer.token_to_id("<|bos|>")] == 0


def test_the_split_is_the_originals(code):
    tokenizer = code.prepare.train_tokenizer(["words"])
    parts = tokenizer.pre_tokenizer.pre_tokenize_str("It's 2026, don't PANIC!!\n\n  x")
    words = [word.replace("Ġ", " ").replace("Ċ", "\n") for word, _ in parts]
    expected = ["It", "'s", " ", "20", "26", ",", " don", "'t", " PANIC", "!!\n\n", " ", " x"]
    assert words == expected


def test_no_batch_before_the_clock_runs(code):
    with pytest.raises((AttributeError, AssertionError)):
        next(code.prepare.make_loader(2, 16, 1, "cpu", None))


def test_processes_get_other_windows_and_an_epoch_shows_no_token_twice(code, monkeypatch):
    tokens = np.arange(4000, dtype=np.uint16)
    monkeypatch.setattr(code.prepare.np, "memmap", lambda *a, **k: tokens)
    seen = []
    for rank in range(2):
        loader = code.prepare.make_loader(3, 50, 5, "cpu", Steps(1), rank, 2)
        for _ in range(12):
            inputs, targets = next(loader)
            assert inputs.shape == (3, 50) and torch.equal(inputs + 1, targets)
            seen.append(inputs.flatten())
    seen = torch.cat(seen)
    assert len(seen.unique()) == len(seen)


def test_too_little_text_for_a_batch_is_named(code):
    with pytest.raises(SystemExit, match=r"too few for a batch of 4096 x 2048"):
        next(code.prepare.make_loader(4096, 2048, 1, "cpu", Steps(1)))


def write_shards(folder, numbers, sizes=400):
    parquet = pytest.importorskip("pyarrow.parquet", reason="shards need pyarrow")
    import pyarrow

    folder.mkdir()
    for number in numbers:
        texts = [
            f"Document {i} of shard {number}. <|bos|> Café {i * 7919}.\n" * 3 for i in range(sizes)
        ]
        table = pyarrow.table({"text": texts})
        parquet.write_table(table, folder / f"shard_{number:05d}.parquet", row_group_size=100)
    return folder


@pytest.fixture
def empty(code, tmp_path, monkeypatch):
    """A folder for prepare.py to write to."""
    monkeypatch.setattr(code.prepare, "ROOT", tmp_path)
    monkeypatch.setattr(code.prepare, "HELD_OUT_BYTES", 10_000)
    return tmp_path


def prepare(code, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, options)])
    code.prepare.main()


def test_shards_become_documents_and_the_last_one_is_held_out(code, empty, monkeypatch, capsys):
    shards = write_shards(empty / "shards", [0, 1, 2, 6542])
    prepare(code, monkeypatch, "--shards", 2, "--from", shards)
    meta = code.prepare.load_meta("data", "val", "holdout")
    assert meta["corpus"]["shards"] == 2
    bos = 0
    tokens = np.fromfile(empty / "data/train.bin", dtype=np.uint16)
    assert (tokens == bos).sum() == 800 and tokens[0] == bos
    val, holdout = ((empty / part / "text.txt").read_text() for part in ("val", "holdout"))
    assert val.startswith("Document 0 of shard 6542.") and 10_000 <= len(val.encode()) < 11_000
    assert holdout.startswith(f"Document {val.count('Café') // 3} of shard 6542.")
    assert meta["parts"]["val"]["bytes"] == len(val.encode())
    capsys.readouterr()
    prepare(code, monkeypatch, "--shards", 2, "--from", shards)
    assert "nothing to do" in capsys.readouterr().out
    prepare(code, monkeypatch, "--shards", 1, "--from", shards)
    assert code.prepare.load_meta()["corpus"]["shards"] == 1


def test_missing_and_damaged_shards_are_named(code, empty, monkeypatch):
    shards = write_shards(empty / "shards", [0, 6542])
    with pytest.raises(SystemExit, match=r"1 of 3 shards are not in .*, shard_00001.parquet first"):
        prepare(code, monkeypatch, "--shards", 2, "--from", shards)
    with pytest.raises(SystemExit, match=r"--shards 6543; accepted: 1 to 6542"):
        prepare(code, monkeypatch, "--shards", 6543, "--from", shards)
    (shards / "shard_00000.parquet").write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(SystemExit, match=r"shard_00000.parquet cannot be read as a shard"):
        prepare(code, monkeypatch, "--shards", 1, "--from", shards)


@pytest.mark.parametrize("damage", ["missing", "altered", "shorter", "stale"])
def test_training_without_valid_data_says_to_prepare(code, task, tmp_path, monkeypatch, damage):
    root = shutil.copytree(task, tmp_path / "task")
    monkeypatch.setattr(code.prepare, "ROOT", root)
    code.prepare.load_meta("data", "val", "holdout")
    if damage == "missing":
        (root / "data/train.bin").unlink()
    elif damage == "altered":
        (root / "data/tokenizer.json").write_bytes(bytes(100))
    elif damage == "shorter":
        monkeypatch.setattr(code.prepare, "HASHED_BYTES", 1000)
        (root / "data/train.bin").write_bytes(bytes(2000))
    else:
        monkeypatch.setattr(code.prepare, "VOCAB_SIZE", 999)
    with pytest.raises(SystemExit, match=r"run `python prepare.py` first"):
        code.prepare.load_meta()


# ------------------------------------------------------------------------------------- toy, kernels


def test_the_toy_refuses_a_program_whose_knobs_it_does_not_find(code):
    with pytest.raises(SystemExit, match="0 lines set DEPTH"):
        code.toy.set_values("WIDTH = 3\n", {"DEPTH": "2"})
    text = code.toy.set_values("DEPTH = 2**3 + 1  # blocks; in [1, 2]\n", {"DEPTH": "4"})
    assert text == "DEPTH = 4  # blocks; in [1, 2]\n"


def test_kernels_are_used_only_on_the_machine_they_are_for(code, tmp_path, monkeypatch):
    kernels = code.precompile
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU A")
    used = []
    monkeypatch.setattr(kernels, "use", lambda file: used.append(file) or True)
    assert not kernels.load_kernels("cuda")
    (tmp_path / "machine.json").write_text(kernels.json.dumps(kernels.describe_machine()))
    assert kernels.load_kernels("cuda") and not kernels.load_kernels("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU B")
    assert not kernels.load_kernels("cuda")
    assert used == [tmp_path / "kernels.bin"]


def test_a_clock_of_the_processes_is_the_first_ones(code, monkeypatch):
    assert code.train.agree(1.5, 0.5) == (1.5, 0.5)
    monkeypatch.setattr(code.train, "WORLD", 2)
    monkeypatch.setattr(
        code.train,
        "dist",
        SimpleNamespace(
            broadcast_object_list=lambda numbers, src: numbers.__setitem__(slice(None), [9.0, 0.9])
        ),
    )
    assert code.train.agree(1.5, 0.5) == [9.0, 0.9]
