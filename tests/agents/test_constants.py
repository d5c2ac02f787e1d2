from __future__ import annotations

import ast
import keyword

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.constants import between, edit, find

from autoresearch.agents.tuning.constants import Constant, SourceError


def constant(source: str | bytes, name: str | None = None) -> Constant:
    found = {c.name: c for c in find(source)}
    return found[name] if name else next(iter(found.values()))


def names(source: str | bytes) -> list[str]:
    return [c.name for c in find(source)]


ORIGINAL = b"""\
ASPECT_RATIO = 64       # model_dim = depth * ASPECT_RATIO
HEAD_DIM = 128          # target head dimension for attention
WINDOW_PATTERN = "SSSL" # sliding window pattern: L=full, S=half context
TOTAL_BATCH_SIZE = 2**19 # ~524K tokens per optimizer step
EMBEDDING_LR = 0.6      # learning rate for token embeddings (Adam)
ADAM_BETAS = (0.8, 0.95) # Adam beta1, beta2
WARMUP_RATIO = 0.0      # fraction of time budget for LR warmup
torch.manual_seed(42)
step = 0
while step < 3:
    step += 1
"""


def test_the_constants_of_the_original():
    assert {c.name: c.value for c in find(ORIGINAL)} == {
        "ASPECT_RATIO": 64,
        "HEAD_DIM": 128,
        "TOTAL_BATCH_SIZE": 19,
        "EMBEDDING_LR": 0.6,
        "ADAM_BETAS[0]": 0.8,
        "ADAM_BETAS[1]": 0.95,
        "WARMUP_RATIO": 0.0,
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("A = 1", ["A"]),
        ("A: int = 1", ["A"]),
        ("a = -1.5", ["a"]),
        ("A = True", ["A"]),
        ("A = (3)", ["A"]),
        ("A = 1; B = 2", ["A", "B"]),
        ("A = [1, -2.5]", ["A[0]", "A[1]"]),
        ("A = (1, 'x')", []),
        ("A = (1, 2, 3, 4, 5, 6, 7, 8, 9)", []),
        ("A = 'x'", []),
        ("A = 'x'  # one of: x, y", ["A"]),
        ("A = 1  # fixed", []),
        ("A = 1  # the harness's budget; fixed", []),
        ("A = 1  # a fixed-size batch", ["A"]),
        ("A = '# fixed'", []),
        ("A = (1, 2)  # fixed", []),
        ("A = [\n  1,  # fixed\n  2,\n]", ["A[1]"]),
        ("A = None", []),
        ("A = 1j", []),
        ("A = 1e999", []),
        ("A = 3 * 4", []),
        ("A = B = 1", []),
        ("A, B = 1, 2", []),
        ("A = 1\nA = 2", []),
        ("A = 1\nA += 1", []),
        ("A = 1\nfor A in x: pass", []),
        ("A = 1\nif x:\n    A = 2", []),
        ("A = 1\ndef f():\n    A = 2", ["A"]),
        ("A = 1\ndef f():\n    global A\n    A = 2", []),
        ("A = [1, 2]\nA[0] = 3", []),
        ("A = 1\nimport A", []),
        ("A = 1\ndef A(): pass", []),
        ("A = 1\nwith x as A: pass", []),
        ("A = 1\ntry: pass\nexcept E as A: pass", []),
        ("A = 1\n(A := 2)", []),
        ("A = 1\ndel A", []),
        ("SEED = 1\nmy_seed_2 = 3", []),
        ("if x:\n    A = 1", []),
        ("class C:\n    A = 1", []),
        ("def f(A=1): pass", []),
        ("", []),
    ],
)
def test_what_is_a_constant(source: str, expected: list[str]):
    assert names(source) == expected


@pytest.mark.parametrize(
    ("source", "low", "high", "log"),
    [
        ("X = 0.4", 0.1, 1.6, True),
        ("LR = 1e-4", 2.5e-5, 4e-4, True),
        ("X = 0.0", 0.0, 0.1, False),
        ("WARMUP_RATIO = 0.0", 0.0, 0.5, False),
        ("DROPOUT = 0.4", 0.1, 1.0, True),
        ("X = -2.0", -8.0, -0.5, True),
        ("N = 1", 1, 3, True),
        ("N = 12", 3, 24, True),
        ("N = -12", -24, -3, True),
        ("N = 0", 0, 4, False),
        ("N = 2**19", 17, 21, False),
        ("N = 2  # layers; in [1, 6]", 1, 6, False),
        ("N = 2  # in [1, 16]", 1, 16, True),
        ("X = 0.5  # in [0.4, 0.8]", 0.4, 0.8, False),
        ("LR = 0.5  # in [0.4, 0.8]", 0.4, 0.8, True),
        ("X = 0.01  # in [1e-3, 1e-1] or so", 1e-3, 1e-1, True),
        ("X = 0.1  # in[-.5,.5]", -0.5, 0.5, False),
    ],
)
def test_ranges(source: str, low: float, high: float, log: bool):
    found = constant(source)
    assert (found.low, found.high, found.log) == (low, high, log)


@pytest.mark.parametrize("source", ["X = 0.9", "X = 0.999", "MOMENTUM = 0.6", "BETAS = (0.8,)"])
def test_a_beta_is_searched_by_its_distance_from_one(source: str):
    found = constant(source)
    assert found.kind == "beta"
    assert isinstance(found.value, float)
    away = 1 - found.value
    assert 1 - found.high == pytest.approx(away / 4)
    assert 1 - found.low == pytest.approx(min(1, away * 4))
    assert all(found.at(u / 50) < 1 for u in range(51))  # type: ignore[operator]


def test_choices():
    assert constant("A = 'x'  # one of: x, y-z, 'w' (see notes)").choices == ("x", "y-z", "w")
    assert constant("A = 'x'  # kind; one of: y; more").choices == ("x", "y")
    assert constant("A = 3  # one of: 1, 2, 4").choices == (1, 2, 3, 4)
    assert constant("A = 2.0  # one of: 1e-3, 2.0").choices == (1e-3, 2.0)
    assert constant("A = True").choices == (False, True)
    assert constant("A = 2  # one of: 1, 2").ordered
    assert not constant("A = True").ordered
    assert not constant("A = 'x'  # one of: x, y").ordered


def test_ints_move_in_the_authors_granularity():
    assert [constant(f"N = {n}").step for n in (7, 12, 64, 100, 768, 2048)] == [1, 1, 8, 4, 64, 256]
    assert constant("N = 768").at(0.61) % 64 == 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("A = 1\nB = (", "line 2"),
        (b"A = '\xff'", "encoding"),
        (b"A = '\0'", "null"),
        ("# coding: nonsense\nA = 1", "nonsense"),
        ("A = 1  # in [6, 1]", "A, line 1: 'in [6, 1]' should be in [low, high]"),
        ("A = 1  # one of: 1, two", "A, line 1: 'two' is not a number"),
    ],
)
def test_unreadable_sources_say_why(source: str | bytes, message: str):
    with pytest.raises(SourceError) as error:
        find(source)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("0.02", 0.035, "0.035"),
        ("1e-4", 3.2e-4, "3.2e-4"),
        ("1E-4", 1e-3, "1E-3"),
        ("1.0e-04", 2e-4, "2e-4"),
        ("0.5", 2.0, "2.0"),
        ("1_000_000", 2000000, "2000000"),
        ("3", 4.0, "4"),
        ("0x10", 12, "12"),
        ("2**19", 18, "2**18"),
        ("-0.5", -0.25, "-0.25"),
        ("- 0.5", 0.25, "0.25"),
        ("2.0", 3, "3.0"),
        ("True", False, "False"),
        ("1_000.0", 1000.0, "1_000.0"),
    ],
)
def test_numbers_keep_the_authors_style(old: str, value: float, new: str):
    assert edit(f"X = {old}  # é\n".encode(), {"X": value}) == f"X = {new}  # é\n".encode()


def test_strings_keep_their_quotes():
    source = b"A = \"x\" # one of: x, y\nB = 'x'  # one of: x, it's\n"
    assert edit(source, {"A": "y"}) == source.replace(b'"x"', b'"y"')
    assert edit(source, {"B": "it's"}) == source.replace(b"'x'", b'"it\'s"')


def test_an_unknown_name_is_refused():
    with pytest.raises(SourceError, match="no such constant: B"):
        edit(b"A = 1", {"B": 2})


@pytest.mark.parametrize(
    "source",
    [
        b"\xef\xbb\xbfA = 1\r\nB = 2 # \xc3\xa9\r\n",
        "é = 'ü'; A = 1 # ä\n\x0cB = 2\n".encode(),
        "# -*- coding: latin-1 -*-\né = 'ü'; A = 1 # ä\nB = 2\n".encode("latin-1"),
        b"A = 1\rB = 2\r",
        b"s = '''\n\x0c\xe2\x80\xa8'''; A = 1\nB = (\n  2)",
        b'x = "\\\r\n"; A = 1\r\nB = 2',
    ],
)
def test_bytes_around_the_literals_stay(source: bytes):
    changed = edit(source, {"A": 7, "B": 89})
    assert changed == source.replace(b"A = 1", b"A = 7").replace(b" 2", b" 89")
    assert {c.name: c.value for c in find(changed)} == {"A": 7, "B": 89}


# --------------------------------------------------------------------------------------------
# Any program

text = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False, width=32)
literals = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    floats.map(repr),
    st.sampled_from(["1e-4", "2**12", "1_000", "True", "3.", ".5", "5E+3", "- 1"]),
    st.lists(floats.map(repr), min_size=1, max_size=3).map(lambda xs: f"[{', '.join(xs)}]"),
)
identifiers = st.from_regex(r"[A-Za-zéß]{1,6}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and "seed" not in name.lower()
)


def _statement(name: str, literal: str, before: str, comment: str) -> str:
    return f"_ = {before!r}; {name} = {literal}  # {comment}"


programs = st.builds(
    lambda lines, newline, bom, end: (
        bom + newline.join(lines).encode() + (newline.encode() if end else b"")
    ),
    st.lists(st.builds(_statement, identifiers, literals, text, text), min_size=1, max_size=5),
    st.sampled_from(["\n", "\r\n", "\r", "\n\x0c\n", "\n\n# ü\n"]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.booleans(),
)


@settings(deadline=None)
@given(programs, st.data())
def test_edit_changes_the_values_and_nothing_else(source: bytes, data: st.DataObject):
    try:
        before = find(source)
    except SourceError:
        return  # a comment happened to say `in [1, 0]`
    chosen = data.draw(st.lists(st.sampled_from(before), unique=True)) if before else []
    changes = {c.name: c.at(data.draw(st.floats(0, 1))) for c in chosen}
    after = edit(source, changes)
    expected = {c.name: changes.get(c.name, c.value) for c in before}
    assert {c.name: c.value for c in find(after)} == expected
    assert between(after, find(after)) == between(source, before)


@settings(deadline=None)
@given(literals, st.floats(0, 1))
def test_proposals_are_in_range_readable_and_stable(literal: str, position: float):
    for found in find(f"X = {literal}"):
        value = found.at(position)
        assert found.rounded(value) == value
        assert found.choices or found.low <= value <= found.high  # type: ignore[operator]
        assert type(value) is type(found.value)


@settings(deadline=None)
@given(floats)
def test_any_float_survives(value: float):
    for old in ("1.5", "1e-4"):
        text = edit(f"X = {old}".encode(), {"X": value}).decode()
        assert ast.literal_eval(text.removeprefix("X = ")) == value


DECLARED = b"""\
import argparse
from dataclasses import dataclass, field

TYPE_CHECKING = False
DEBUG = False
__debugging__ = True
FLOPS = {"H100": 989e12}
CONFIG = {"optim": {"lr": 3e-4, "betas": (0.9, 0.95)}, "depth": 4, "name": "x", "seed": 3}


@dataclass
class Shape:
    layers: int = 12  # in [2, 24]
    bias: bool = True
    decay: float = field(default=0.1)
    seed: int = 4
    _verbose: bool = False


class Rows:
    size = 3


def main(rounds=10):
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3, help="rate")
    parser.add_argument("-b", "--batch-size", default=32)
    parser.add_argument("--seed", default=1)
    parser.add_argument("--debug", default=False)
"""
INNER = b"""\
def fit(rounds=10, *, width=3, debug=False):
    step = 0.25
    index = 0
    count = 5
    count += 1
    options = dict(rate=.1)
    for _ in range(7):
        size = 1  # in [1, 9]
    is_fast = True


class Model:
    def __init__(self, hidden=64):
        self.depth = 3
"""


def test_declared_settings_are_constants() -> None:
    found = {constant.name: constant.value for constant in find(DECLARED)}
    assert found == {
        "CONFIG[optim][lr]": 3e-4,
        "CONFIG[optim][betas][0]": 0.9,
        "CONFIG[optim][betas][1]": 0.95,
        "CONFIG[depth]": 4,
        "Shape.layers": 12,
        "Shape.bias": True,
        "Shape.decay": 0.1,
        "--lr": 1e-3,
        "--batch-size": 32,
    }
    by_name = {constant.name: constant for constant in find(DECLARED)}
    assert (by_name["Shape.layers"].low, by_name["Shape.layers"].high) == (2, 24)
    assert by_name["CONFIG[optim][betas][0]"].kind == "beta" and by_name["--lr"].log


def test_declared_settings_are_edited_in_place() -> None:
    after = edit(DECLARED, {"--lr": 0.02, "CONFIG[depth]": 6, "Shape.bias": False})
    expected = DECLARED.replace(b"default=1e-3", b"default=2e-2").replace(
        b'"depth": 4', b'"depth": 6'
    )
    assert after == expected.replace(b"bias: bool = True", b"bias: bool = False")


def test_constants_in_functions_count_where_nothing_is_declared() -> None:
    found = {constant.name: constant.value for constant in find(INNER)}
    assert found == {
        "fit.rounds": 10,
        "fit.width": 3,
        "fit.step": 0.25,
        "fit.options[rate]": 0.1,
        "fit.size": 1,
        "Model.__init__.hidden": 64,
    }
    assert edit(INNER, {"fit.options[rate]": 0.2}) == INNER.replace(b"rate=.1", b"rate=0.2")
    assert [constant.name for constant in find(b"LR = 0.1\n" + INNER)] == ["LR"]


def test_a_long_chain_of_branches_is_read() -> None:
    chain = "".join(f"    elif x == {number}:\n        y{number} = 5\n" for number in range(300))
    source = f"def f(x):\n    if x < 0:\n        y = 5\n{chain}"
    assert len(find(source)) == 301
