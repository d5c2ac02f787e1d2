"""A patch as coloured lines."""

from __future__ import annotations

from autoresearch.web.diff import read_patch

PATCH = '''\
diff --git a/train.py b/train.py
index 1..2 100644
--- a/train.py
+++ b/train.py
@@ -1,4 +1,4 @@ def f():
 """Many
-lines."""
+lines <b>."""
 LR = 0.1  # a rate
-x = 1
+if x:\x1b[31m
'''


def test_lines_have_kinds_numbers_and_colours() -> None:
    lines = read_patch(PATCH).lines
    assert [line.kind for line in lines] == [
        "file",
        "hunk",
        "same",
        "del",
        "add",
        "same",
        "del",
        "add",
    ]
    assert [(line.old, line.new) for line in lines[2:]] == [
        (1, 1),
        (2, None),
        (None, 2),
        (3, 3),
        (4, None),
        (None, 4),
    ]
    assert lines[0].words == [("", "train.py")]
    # A string of several lines is one, on both sides.
    assert {css for css, word in lines[4].words if word} == {"s"}
    assert ("m", "0.1") in lines[5].words and ("c", "# a rate") in lines[5].words
    assert ("k", "if") in lines[7].words
    assert not any("\x1b" in word for line in lines for _, word in line.words)


def test_every_character_of_the_code_is_there() -> None:
    lines = read_patch(PATCH).lines
    shown = ["".join(word for _, word in line.words) for line in lines[2:7]]
    assert shown == ['"""Many', 'lines."""', 'lines <b>."""', "LR = 0.1  # a rate", "x = 1"]


def test_large_binary_and_odd_patches_are_shown() -> None:
    large = PATCH + "+y = 1\n" * 100_000
    assert read_patch(large).left_out > 1000
    binary = "diff --git a/m.pt b/m.pt\nindex 1..2\nBinary files a/m.pt and b/m.pt differ\n"
    assert [line.kind for line in read_patch(binary).lines] == ["file"]
    new = """diff --git a/a.txt b/a.txt
new file mode 100644
--- /dev/null
+++ b/a.txt
@@ -0,0 +1 @@
+hi
\\ No newline at end of file
"""
    assert [line.kind for line in read_patch(new).lines] == ["file", "hunk", "add", "hunk"]
    assert read_patch("").lines == []
