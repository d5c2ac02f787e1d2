"""The published improvements that gpt brings as patches: each applies, in any order, and runs."""

import ast
import re
import shutil

import pytest
from support.tiny_gpt import GPT, import_modules, run_python, write_corpus

from autoresearch.agents import replay

torch = pytest.importorskip("torch", reason="gpt trains with torch: pip install torch")
pytest.importorskip("tokenizers", reason="gpt needs tokenizers: pip install tokenizers")

FILES = sorted((GPT / "published").glob("*.patch"))
HUNK = re.compile(r"^@@ -(\d+)\S* \S+ @@\n((?:[ +-].*\n)*)", re.MULTILINE)


@pytest.fixture
def changes():
    found = replay.create(str(GPT / "published"), {}, 1)._changes
    assert [change.name for change in found] == [file.name for file in FILES]
    return found


def test_each_has_a_subject_and_a_source(changes):
    assert len(changes) >= 25
    assert len({change.description for change in changes}) == len(changes)
    for file, change in zip(FILES, changes, strict=True):
        assert len(change.description) > 10
        assert re.search(r"^Source: .{20,}$", file.read_text(), re.MULTILINE), file.name


def test_all_apply_one_after_the_other(changes, tmp_path):
    shutil.copy(GPT / "train.py", tmp_path)
    for change in changes:
        before = (tmp_path / "train.py").read_text()
        assert change.apply(tmp_path) is None, change.name
        assert (tmp_path / "train.py").read_text() != before
        ast.parse((tmp_path / "train.py").read_text())


def hunks(file, source):
    """(the lines of train.py that are changed, those that have to be as they are), by number. An
    insertion changes the place between two lines, at a half."""
    changed, needed = set(), set()
    for start, body in HUNK.findall(file.read_text()):
        line = int(start)
        for text in body.splitlines():
            if text.startswith("+"):
                changed.add(line - 0.5)
                continue
            assert source[line - 1] == text[1:], f"{file.name}, line {line}"
            (changed if text.startswith("-") else needed).add(line)
            line += 1
    return changed, needed | changed


def test_each_applies_whatever_else_was_kept():
    """Its lines are there, and no other patch changes a line that it needs."""
    source = (GPT / "train.py").read_text().splitlines()
    found = {file.name: hunks(file, source) for file in FILES}
    assert all(changed for changed, _ in found.values())
    for name, (changed, _) in found.items():
        for other, (_, needed) in found.items():
            assert name == other or not changed & needed, f"{name} and {other} collide"


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    folder = shutil.copytree(GPT, root / "task", ignore=shutil.ignore_patterns("__pycache__"))
    done = run_python(folder, "prepare.py", "--corpus", str(write_corpus(root / "corpus.txt")))
    assert done.returncode == 0, done.stderr
    return folder


class Steps:
    def __init__(self, steps):
        self.steps, self.asked = steps, 0

    def progress(self):
        self.asked += 1
        return self.asked / self.steps

    def elapsed(self):
        return 1.0


def train_at_toy_size(task, patches):
    """Train for three steps and load the model again. Returns the weights."""
    shutil.copy(GPT / "train.py", task)
    for change in patches:
        assert change.apply(task) is None
    with import_modules(task, ("toy",)) as modules:
        text = modules.toy.set_values((task / "train.py").read_text(), modules.toy.KNOBS)
        (task / "train.py").write_text(text)
    torch.manual_seed(1)
    torch.set_num_threads(1)
    with import_modules(task, ("prepare", "train")) as code:
        trainer = code.train.Trainer(code.prepare.load_meta()["vocab_size"], "cpu")
        trainer.warm_up()
        loader = code.prepare.make_loader(trainer.rows, code.train.SEQ_LEN, 1, "cpu", Steps(1))
        trainer.train(loader, Steps(3))
        weights = trainer.model.state_dict()
        saved = {"vocab_size": len(trainer.model.embedding), "weights": weights}
        torch.save(saved, task / "model.pt")
        model, context = code.train.load_model(task / "model.pt", "cpu")
        idx = torch.randint(200, (2, context))
        other = torch.cat((idx[:, :40], (idx[:, 40:] + 1) % 200), dim=1)
        with torch.inference_mode():
            logits, other_logits = model(idx), model(other)
    assert logits.isfinite().all()
    assert torch.allclose(logits[:, :40], other_logits[:, :40], atol=1e-4)  # causal
    return torch.cat([tensor.flatten().float() for tensor in weights.values()])


def test_all_together_train_at_toy_size(task, changes):
    assert train_at_toy_size(task, changes).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(FILES)), ids=[file.stem for file in FILES])
def test_each_trains_at_toy_size(task, changes, number):
    assert train_at_toy_size(task, [changes[number]]).isfinite().all()
