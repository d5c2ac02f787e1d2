"""When two programs are the same."""

from __future__ import annotations

import pytest

from autoresearch.measure.known import digest

SOURCE = b"""\
import os

LR = 0.001
NAME = "a#b"

def step(x):
    '''Doubles.'''
    return (x +
            x)
"""


def is_same(new: bytes, old: bytes = SOURCE, path: str = "train.py") -> bool:
    return digest({path: new}) == digest({path: old})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"0.001", b"1e-3  # in [1e-5, 1e-1]"),
        (b'"a#b"', b"'a#b'"),
        (b"(x +\n            x)", b"x + x"),
        (b"\n\ndef", b"\n# a remark\n\n\ndef"),
        (b"import os", b"import os;"),
        (b"\n", b"\r\n"),
        (b"import os", b"\xef\xbb\xbfimport os"),
    ],
)
def test_comments_and_formatting_make_no_other_program(before: bytes, after: bytes) -> None:
    count = -1 if before == b"\n" else 1
    assert is_same(SOURCE.replace(before, after, count))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"0.001", b"0.0011"),
        (b"0.001", b"-0.001"),
        (b"= 0.001", b"= 1"),
        (b"a#b", b"a#c"),
        (b"Doubles.", b"Twice."),  # __doc__ is data
        (b"x +", b"x -"),
        (b"LR", b"RATE"),
        (b"    return", b"    if x:\n        return"),
        (b"import os", b"import os  # type: ignore \xff"),  # does not parse: the bytes count
    ],
)
def test_anything_else_does(before: bytes, after: bytes) -> None:
    assert not is_same(SOURCE.replace(before, after))


def test_whole_numbers_and_floats_and_truths_differ() -> None:
    assert len({digest({"a.py": b"A = " + value}) for value in (b"1", b"1.0", b"True")}) == 3


def test_other_files_count_by_content() -> None:
    assert not is_same(SOURCE + b"# remark\n", path="train.sh")
    assert is_same(SOURCE, path="train.sh")


def test_comments_that_a_build_reads_count() -> None:
    cython = b"# cython: boundscheck=True\n" + SOURCE
    assert not is_same(cython.replace(b"True", b"False"), cython)


def test_paths_and_places_count() -> None:
    assert digest({"a.py": b"A = 1", "b.py": b""}) != digest({"a.py": b"", "b.py": b"A = 1"})


@pytest.mark.parametrize("source", [b"def f(:", b"A = 1\0", b"x = " + b"(" * 5000, b"-" * 50000])
def test_what_does_not_parse_counts_by_content(source: bytes) -> None:
    assert is_same(source, source)
    assert not is_same(source + b" ", source)


@pytest.mark.filterwarnings("error")
def test_warnings_of_the_parser_are_nobodys_business() -> None:
    assert is_same(b"A = '\\d'  # a\n", b"A = '\\d'\n")
