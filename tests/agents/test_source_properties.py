"""Any editable file is edited in place, or is refused with the reason."""

from __future__ import annotations

import ast
import math
import warnings

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.constants import between, edit, find

from autoresearch.agents.tuning.constants import Constant, SourceError, Value

NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),  # nan and inf are names there
    st.integers(0, 2**600).map(str),
    st.sampled_from(
        [
            *("0.9999999999999999", "0.99999999", "1e308", "-1e308", "1e-320", "5e-324", "-0.0"),
            *("0x_ff", "1_0", "0b1", "1e999", "2**19", "2**9999999999", f"{10**400}", "9" * 5000),
            *("10**300", "2**0", "- 5", "-(5)", "True", "None", "'relu'", '"""x"""', "b'1'"),
            *("(1, 2)", "[0.9, -1e301]", "(1,)", "[]", "(True, 1)", f"{10**200}**1"),
        ]
    ),
)
WORDS = st.one_of(
    NUMBERS,
    st.sampled_from(
        ["1__0", "1_", "٣", "+3", ".5", "1e9999", "nan", "relu", "", "'x'", "x; fixed", "ü", "\\"]
    ),
)
COMMENTS = st.one_of(
    st.just(""),
    st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]), max_size=15),
    st.builds("in [{}, {}]".format, WORDS, WORDS),
    st.builds("one of: {}, {} (or so)".format, WORDS, WORDS),
    st.just("fixed"),
)
STATEMENTS = st.one_of(
    st.builds(
        "{}{} = {}  # {}".format,
        st.sampled_from(["", "", "x = 'é'; ", "\x0c"]),
        st.sampled_from(["A", "B: float", "LR", "BETA", "ratio", "C", "D", "é", "SEED", "__x__"]),
        NUMBERS,
        COMMENTS,
    ),
    st.sampled_from(
        [
            *("def f():\n    global A", "for A in x: pass", "import A.b", "B += 1", "del C"),
            *("x = (\n", ")", "'''", "\\", "if x:\n    A = 1", "A = (  # in [1, 2]\n  3,\n)"),
            *(
                "s = '\\d'",
                "match A:\n    case {'x': 1, **LR}: pass",
                "try:\n  x\nexcept* E as D: x",
            ),
            *("lambda A: (A := 1)", "class C: A = 1", "x = " + "+".join(["1"] * 1200), "\ufeff"),
            *(
                "x = " + "[" * 100 + "]" * 100,
                "x = " + "-" * 3000 + "1",
                "\t x",
                "async def A(): 1",
            ),
        ]
    ),
    st.text(max_size=15),
)
COOKIES = st.sampled_from(
    [
        *("", "", "", "", "# coding: latin-1", "# coding: utf-7", "# coding: rot13"),
        *("# coding: unicode_escape", "# coding: iso2022_jp", "# coding: utf-16", "# coding: hex"),
        *("#!/usr/bin/python\n# vim: set fileencoding=shift_jis :", "# coding: idna"),
        *("# coding: cp437", "# coding: x"),
    ]
)
SOURCES = st.builds(
    lambda cookie, lines, newline, bom, encoding: (
        bom + newline.join([cookie, *lines]).encode(encoding, errors="replace")
    ),
    COOKIES,
    st.lists(STATEMENTS, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff"]),
    st.sampled_from(["utf-8", "utf-8", "latin-1", "utf-16", "utf-7"]),
)


def literal(source: bytes, constant: Constant) -> Value | None:
    """Return the value that Python reads at the constant's place."""
    start, end = constant.span
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value: Value = ast.literal_eval(source[start:end].decode("latin-1").strip())
    return value


def check_values(constant: Constant) -> None:
    """Check that each value is in range, finite, readable, and the same when rounded again."""
    for step in range(9):
        value = constant.at(step / 8)
        assert 0.0 <= constant.position(value) <= 1.0
        assert constant.rounded(value) == value
        if constant.choices:
            assert value in constant.choices
            continue
        assert not isinstance(value, str)
        assert math.isfinite(value)
        assert constant.low <= value <= constant.high
        assert isinstance(value, int) == isinstance(constant.value, int)
        effective = constant.effective(value)
        assert effective is not None
        assert math.isfinite(effective)
    assert constant.shown(constant.value)


def check(source: bytes, positions: list[float]) -> None:
    try:
        constants = find(source)
    except SourceError as error:
        assert str(error)
        return
    assert edit(source, {}) == source
    assert edit(source, {c.name: c.value for c in constants}) == source
    spans = [c.span for c in constants]
    assert spans == sorted(spans)
    for constant in constants:
        assert 0 <= constant.span[0] < constant.span[1] <= len(source)
        if not isinstance(constant.value, str):
            assert literal(source, constant) == constant.value
        check_values(constant)
    changes = {c.name: c.at(p) for c, p in zip(constants, positions, strict=False)}
    after = edit(source, changes)
    again = find(after)
    assert [c.name for c in again] == [c.name for c in constants]
    assert {c.name: c.value for c in again} == {
        c.name: changes.get(c.name, c.value) for c in constants
    }
    assert between(after, again) == between(source, constants)


@settings(max_examples=400, deadline=None)
@given(SOURCES, st.lists(st.floats(0, 1), max_size=6))
@example(b"x = " + b"+".join([b"1"] * 1500) + b"\nLR = 0.1", [0.7])
@example(b"# coding: unicode_escape\ns = '\\x41\\x41'; LR = 11111111111111111111", [0.7])
@example(b"# coding: utf-7\ns = '+AOk-'; LR = 1", [0.7])
@example(b"BETA = 0.99999999999  # in [0.9999999999999, 0.99999999999999]", [0.5])
@example(b"LR = 1e-310  # in [1e-310, 1e-305]", [0.5])
@example(b"X = 0.5  # in [-1e308, 1e308]", [0.5])
@example(b"N = 1  # in [0.2, 0.4]", [0.5])
@example(b"N = 2**3  # in [1, 99999999999]", [1.0])
@example(b"A = 1  # one of: 1, 1e999", [1.0])
def test_any_source_is_edited_in_place_or_refused(source: bytes, positions: list[float]) -> None:
    check(source, positions)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40))
@example("A = '\ud800'")
def test_any_bytes_and_any_text_are_read_or_refused(source: bytes | str) -> None:
    try:
        constants = find(source)
    except SourceError as error:
        assert str(error)
    else:
        assert isinstance(constants, list)


@settings(max_examples=300, deadline=None)
@given(NUMBERS, COMMENTS)
def test_one_constant(number: str, comment: str) -> None:
    check(f"LR = {number}  # {comment}\n".encode(errors="replace"), [0.3])
