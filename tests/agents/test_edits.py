"""Edits by search and replace: what is read from an answer, applied exactly or refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoresearch.agents.support import edits
from autoresearch.agents.support.edits import Answer, BadEdit, Block, apply, parse

PROGRAM = b"import math\n\nLR = 0.1  # rate\nDEPTH = 2\nprint(LR)\n"
FILES = {"train.py": PROGRAM}
BOTH = {**FILES, "src/net.py": b"WIDTH = 8\n"}


def block(search: str, fresh: str, path: str = "train.py") -> str:
    return f"{path}\n<<<<<<< SEARCH\n{search}\n=======\n{fresh}\n>>>>>>> REPLACE\n"


def edit(answer: str, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    return apply(files, parse(answer).blocks)


def test_the_answer_as_it_is_asked_for() -> None:
    head = "DESCRIPTION: a larger rate\nHYPOTHESIS: it is too small\nNOTES: then try 0.4\n\n"
    answer = parse(head + block("LR = 0.1  # rate", "LR = 0.2  # rate"))
    assert answer == Answer(
        "a larger rate",
        "it is too small",
        "then try 0.4",
        (Block(1, "train.py", ("LR = 0.1  # rate",), ("LR = 0.2  # rate",)),),
    )
    assert apply(FILES, answer.blocks) == {"train.py": PROGRAM.replace(b"LR = 0.1", b"LR = 0.2")}


@pytest.mark.parametrize(
    "head",
    [
        "train.py\n```python\n",
        "```python\ntrain.py\n",
        "```\n",
        "**`train.py`**\n\n```python\n",
        "### File: ./train.py\n~~~\n",
        "Now I edit `train.py`:\n",
        "Here is the edit.\n",
        "",
    ],
)
def test_what_stands_around_a_block(head: str) -> None:
    """Fences and prose do not matter; without a path the only file is meant."""
    bare = block("DEPTH = 2", "DEPTH = 3").removeprefix("train.py\n")
    assert edit(f"{head}{bare}```\nDone.\n") == {"train.py": PROGRAM.replace(b"H = 2", b"H = 3")}


def test_an_answer_with_crlf() -> None:
    answer = block("LR = 0.1  # rate\nDEPTH = 2", "LR = 0.2\nDEPTH = 3").replace("\n", "\r\n")
    assert edit(answer) == {"train.py": b"import math\n\nLR = 0.2\nDEPTH = 3\nprint(LR)\n"}


def test_a_file_with_crlf_keeps_it() -> None:
    files = {"train.py": b"A = 1\r\nB = 2\r\nC = 3"}
    answer = block("A = 1\nB = 2", "A = 2\nA = 3\nB = 2")
    assert edit(answer, files) == {"train.py": b"A = 2\r\nA = 3\r\nB = 2\r\nC = 3"}
    assert edit(block("C = 3", "C = 4\nD = 5"), files)["train.py"].endswith(b"\r\nC = 4\r\nD = 5")


def test_bytes_that_are_no_text_stay() -> None:
    files = {"train.py": b"\xff\xfe\nA = 1\n\x0c\n\x00"}
    assert edit(block("A = 1", "A = 2"), files) == {"train.py": b"\xff\xfe\nA = 2\n\x0c\n\x00"}


def test_lines_are_deleted_and_inserted() -> None:
    text = f"{block('DEPTH = 2', '')[:-17]}".replace("=======\n\n", "=======\n")
    gone = text + ">>>>>>> REPLACE\n"
    assert edit(gone) == {"train.py": PROGRAM.replace(b"DEPTH = 2\n", b"")}
    more = block("import math", "import math\nimport os")
    assert edit(more) == {"train.py": PROGRAM.replace(b"math\n", b"math\nimport os\n")}


def test_several_blocks_and_files() -> None:
    answer = (
        block("LR = 0.1  # rate", "LR = 0.3")
        + block("DEPTH = 2", "DEPTH = 4", "and then")  # no path: the file before it
        + block("WIDTH = 8", "WIDTH = 16", "src/net.py")
    )
    assert edit(answer, BOTH) == {
        "train.py": PROGRAM.replace(b"LR = 0.1  # rate\nDEPTH = 2", b"LR = 0.3\nDEPTH = 4"),
        "src/net.py": b"WIDTH = 16\n",
    }


def test_thoughts_are_no_answer() -> None:
    thought = f"<think>\nfirst {block('import math', 'import os')}</think>\n"
    assert edit(thought + block("DEPTH = 2", "DEPTH = 9"))["train.py"].startswith(b"import math")


def test_without_a_description_the_prose_is_one() -> None:
    answer = parse("I raise the rate.\n\n```python\n" + block("DEPTH = 2", "DEPTH = 3"))
    assert answer.description.strip() == "I raise the rate."


def test_no_difference_is_no_change() -> None:
    assert edit(block("DEPTH = 2", "DEPTH = 2")) == {}


HEAD, DIVIDER, TAIL = "<<<<<<< SEARCH\n", "=======\n", ">>>>>>> REPLACE\n"
TWICE = {"train.py": b"A = 1\nB = 1\nA = 1\n"}


@pytest.mark.parametrize(
    ("answer", "files", "why"),
    [
        ("", FILES, "the answer is empty"),
        (" \n", FILES, "the answer is empty"),
        ("I would rather not.", FILES, "no SEARCH/REPLACE block; it begins: I would rather"),
        ("x" * 1_000_001, FILES, "1,000,001 characters"),
        ("\ud800", FILES, "half of one"),
        (HEAD + "DEPTH = 2\n", FILES, "block 1 is not ended"),
        (HEAD + "DEPTH = 2\n" + DIVIDER + "DEPTH = 3\n", FILES, "block 1 is not ended"),
        (HEAD + "DEPTH = 2\n" + TAIL, FILES, "block 1 has no line ======="),
        (HEAD + "a\n" + DIVIDER + "b\n" + DIVIDER + "c\n" + TAIL, FILES, "two lines ======="),
        (HEAD + "a\n" + DIVIDER + "b\n" + HEAD, FILES, "block 1 is not ended"),
        (TAIL, FILES, "ends no block"),
        (block("", "x"), FILES, r"block 1 \(train.py\): its search is empty"),
        (block(" ", "x"), FILES, "its search is empty"),
        (block("LR = 0.1", "LR = 0.2"), FILES, r"'LR = 0.1' is nearest to line 3, 'LR = 0.1  #"),
        (block("DEPTH = 2\nprint(lr)", ""), FILES, r"after 1 .* 'print\(lr\)', but line 5 is 'pri"),
        (block("print(LR)\nmore", ""), FILES, "after 1 of its lines comes 'more', but the file en"),
        (block("zzzzzzzz", ""), FILES, "no line is like 'zzzzzzzz'"),
        (block("DEPTH = 2 ", ""), FILES, "'DEPTH = 2 ' is nearest to line 4"),
        (block("A = 1", "A = 2"), TWICE, "2 times in the file, from lines 1, 3; add lines"),
        (block("a", "b", "prepare.py"), FILES, "'prepare.py' is no file that may be edited; edit"),
        (block("a", "b", "../x.py"), FILES, "'../x.py' leads outside the program's folder"),
        (block("a", "b", "/etc/passwd"), FILES, "'/etc/passwd' leads outside"),
        (
            block("a", "b", "some words"),
            BOTH,
            "the line above it names no file; editable: train.py",
        ),
        (block("a", "b"), {}, "'train.py' is no file that may be edited; editable: none"),
        (
            block("DEPTH = 2", "D = 3") * 2,
            FILES,
            r"block 2 \(train.py\): .* lines of block 1 again",
        ),
        (block("DEPTH = 2", "x\n" * 2000), FILES, "2,002 lines; at most 2,000"),
        (block(PROGRAM.decode()[:-1], ""), FILES, "train.py: nothing would be left"),
        (block("DEPTH = 2", "D = 3") + block("no", "yes"), FILES, "block 2 .*not in the file"),
    ],
)
def test_what_is_refused(answer: str, files: dict[str, bytes], why: str) -> None:
    with pytest.raises(BadEdit, match=why):
        edit(answer, files)


def test_a_message_is_short_whatever_the_lines_are() -> None:
    files = {"train.py": b"y" * 100_000 + b"\n" + b"x" * 100_000 + b"\n"}
    with pytest.raises(BadEdit) as refused:
        edit(block("x" * 99_999, ""), files)
    assert len(str(refused.value)) < 400


MARKS = [
    HEAD,
    DIVIDER,
    TAIL,
    "train.py\n",
    "```\n",
    "<think>",
    "</think>",
    "DESCRIPTION: d\n",
    "../",
]
LINES = ["A\n", "A", "B\n", "A\nB\n", "\n", "\r\n", "\r"]
ODD = ["é", "\x0c", "\x85", "\u2028", "\0", "\ud800"]
PIECES = st.sampled_from([*MARKS, *LINES, *ODD])
ANSWERS = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=25).map("".join)
CONTENTS = st.lists(
    st.sampled_from(
        [b"A\n", b"B\n", b"\n", b"\r\n", b"A\r\n", b"\r", b"A", b"\xff", b"\0", b"\x0c"]
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=400)
@given(ANSWERS, CONTENTS)
@example(block("A", "B"), b"A")
@example(block("A", "B"), b"")
def test_whatever_comes_in_only_a_refusal_comes_out(answer: str, content: bytes) -> None:
    files = {"train.py": content, "other.py": b"A\n"}
    try:
        edited = edit(answer, files)
    except BadEdit as why:
        assert str(why)
        return
    assert all(path in files and data != files[path] for path, data in edited.items())


LINE = st.sampled_from(["A", "B", "C = 1", "", "é", "x\x0cy", "\u2028"])


@settings(max_examples=400)
@given(
    before=st.lists(LINE, max_size=6),
    search=st.lists(LINE, min_size=1, max_size=3),
    after=st.lists(LINE, max_size=6),
    fresh=st.lists(LINE, max_size=3),
    end=st.sampled_from(["\n", "\r\n"]),
    ended=st.booleans(),
)
def test_nothing_outside_the_block_changes(
    before: list[str], search: list[str], after: list[str], fresh: list[str], end: str, ended: bool
) -> None:
    lines = [*before, *search, *after]
    end = end if ended or len(lines) > 1 else "\n"  # what has no end of a line has no kind of it
    data = (end.join(lines) + end * ended).encode()
    at = [i for i in range(len(lines)) if lines[i : i + len(search)] == search]
    one = Block(1, "train.py", tuple(search), tuple(fresh))
    if len(at) > 1 or not any(line.strip() for line in search) or (not ended and lines[-1] == ""):
        return
    try:
        [edited] = apply({"train.py": data}, [one]).values()
    except (BadEdit, ValueError):  # nothing left of it, or nothing changed
        kept = [*before, *fresh, *after]
        assert kept == lines or not "".join(kept).strip()
        return
    expected = [*before, *fresh, *after]
    if after or ended:
        assert edited == "".join(f"{line}{end}" for line in expected).encode().removesuffix(
            b"" if ended else end.encode()
        )
    else:  # the last line had no end, so the one that takes its place has none
        head = "".join(f"{line}{end}" for line in before)
        assert edited == (head + end.join(fresh)).encode()


def test_the_format_that_is_asked_for_can_be_read() -> None:
    asked = edits.FORMAT.format(example="train.py", editable="train.py")
    answer = parse(asked)
    assert [one.label for one in answer.blocks] == ["train.py"]
    assert answer.description.startswith("one line: what you change")
