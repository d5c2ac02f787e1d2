"""Constants in languages other than Python: which are found, and that an edit changes no more."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.constants import between

from autoresearch.agents.tuning import trees
from autoresearch.agents.tuning.constants import Constant, SourceError, Value
from autoresearch.agents.tuning.sources import edit, find, find_missing_parsers
from autoresearch.agents.tuning.space import take_apart

C = b"""\
#include <math.h>
#define BLOCK 64 // in [16, 256]
#define ETA 0.1f /* in [0.01, 1] */
#define BELOW (-3)
// in [1, 2]
#define FIXED_SIZE 8 // fixed
#ifndef TILE
#define TILE 8
#endif
#ifdef FAST
#define TWICE 1
#else
#define TWICE 2
#endif
#define SQUARE(x) ((x) * (x))
#define NAME "x"
#define OCTAL 010
static const unsigned long LIMIT = 0x40UL, CELLS = 1u << 12;
const float betas[2] = {0.8f, .95};
const int table[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
bool fast = true;
const char *mode = "row"; /* one of: row, column */
int rebound = 5, seed = 3;
enum { WIDTH = 4, /* in [1, 8] */ CODE = 7 };
struct config settings = {.depth = 4, .rate = 1e-3};
int main(void) { const int local = 4; rebound = 6; return local; }
"""
CUDA = b"""\
constexpr int BLOCK{256};  // in [32, 1024]
namespace n { constexpr int CELLS = 1'000; }
struct Config { int depth = 4; static constexpr double rate = -.5; };
struct State { int count = 5; };
template <int UNROLL = 4> __global__ void k(float *a, int n) { const int local = 3; a[0] = n; }
void launch(float *p) { k<4><<<BLOCK, 128>>>(p, 7); }
"""
RUST = """\
const BLOCK: usize = 64; // in [16, 256]
pub static ETA: f32 = 0.1f32;
const WHOLE: f64 = 1f64;
const BETAS: [f64; 2] = [0.9, -0.95];
static mut COUNTER: u32 = 7; // größer
struct Config { rate: f64 }
impl Config { const WIDTH: i32 = 1_000; }
impl Default for Config { fn default() -> Self { Config { rate: 0.1, depth: 4_u32 } } }
fn main() { let step = 0.25; unsafe { COUNTER += 1; } }
""".encode()
GO = b"""\
package main

const Block = 64 // in [16, 256]
const (
	Eta  = 0.1
	A, B = 1, 2
	Bits = 1 << 10
)

var Betas = []float64{0.9, 0.95}
var Counter = 7
var width = flag.Int("width", 128, "how wide")

func main() {
	step := 0.25
	cfg := Config{
		Rate: -1e-3,
		Mode: "row", // one of: row, column
	}
	Counter++
}
"""
JAVASCRIPT = b"""\
const BLOCK = 64; // in [16, 256]
export const CONFIG = { rate: 1e-3, "two-words": { betas: [0.9, 0.95] }, fast: true };
const DATA = { weight: 3 };
let counter = 7;
const mode = 'row'; // one of: row, column
const CELLS = 2 ** 10, BIG = 10n;
function f(width = 3) { counter += 1; }
"""
TOML = b"""\
title = "x"
version = 3
[optim]
name = 'adam' # one of: adam, sgd
rate = 1e-3 # in [1e-4, 1e-2]
betas = [0.9, 0.95]
schedule.steps = 30
table = { fast = true, size = 0x10 }
day = 1979-05-27
[[layers]]
width = 64
[[layers]]
width = 32
"""
YAML = """\
# größer
optim: &optim
  rate: 1.0e-3  # in [1e-4, 1e-2]
  betas: [0.9, -0.95]
  name: adam  # one of: adam, sgd
  "fast": True
  octal: 012
  text: 1_000
  tagged: !!str 3
  seed: 4
layers:
  - width: 64
  - width: 32
sizes:
  - 16
  - 8
other: *optim
---
second: 0.5
""".encode()
JSON = b"""\
{"rate": 1e-3, "optim": {"betas": [0.9, -0.95], "fast": true, "none": null},
 "name": "adam", "layers": [{"width": 64}, {"width": 32}]}
"""
MAKEFILE = b"""\
CC ?= gcc
CFLAGS = -O2 -funroll-loops -fno-inline -Wall -fPIC \\
  -falign-loops=32 --param max-unroll-times=8  # in [4, 64]
ARCH := -march=native  # one of: native, x86-64-v3
LDFLAGS += -flto
LDFLAGS += -fno-lto
BLOCK := 64  # in [16, 256]
DEFINES = -DBLOCK=$(BLOCK) -DTILE=8 -DSEED=3
BOTH = -O1 -O3
all: kernel
kernel: kernel.c
	$(CC) -O3 $(CFLAGS) -o kernel kernel.c
"""
FLAGS = b"""\
# the kernel's flags
-O2
-funroll-loops      # fixed
-fno-tree-vectorize
-mavx2 -m64
-finline-limit=100  # in [50, 400]
-march=native       # one of: -march=native, -march=haswell
-fomit-frame-pointer  # one of: -fomit-frame-pointer, -pg
-C opt-level=3  # in [0, 3]
"""

Values = dict[str, Value]

FOUND: list[tuple[str, bytes, Values]] = [
    (
        "kernel.c",
        C,
        {
            "BLOCK": 64,
            "ETA": 0.1,
            "BELOW": -3,
            "TILE": 8,
            "LIMIT": 64,
            "CELLS": 12,
            "betas[0]": 0.8,
            "betas[1]": 0.95,
            "fast": True,
            "mode": "row",
            "WIDTH": 4,
            "settings.depth": 4,
            "settings.rate": 1e-3,
        },
    ),
    (
        "kernel.cu",
        CUDA,
        {"BLOCK": 256, "CELLS": 1000, "Config.depth": 4, "Config.rate": -0.5, "UNROLL": 4},
    ),
    (
        "inner.cpp",
        b"int f() { const int unroll = 4 /* in [1, 8] */; int sum = 0; return sum; }",
        {"f.unroll": 4},
    ),
    (
        "main.rs",
        RUST,
        {
            "BLOCK": 64,
            "ETA": 0.1,
            "WHOLE": 1.0,
            "BETAS[0]": 0.9,
            "BETAS[1]": -0.95,
            "Config.WIDTH": 1000,
            "Config.rate": 0.1,
            "Config.depth": 4,
        },
    ),
    (
        "main.go",
        GO,
        {
            "Block": 64,
            "Eta": 0.1,
            "Bits": 10,
            "Betas[0]": 0.9,
            "Betas[1]": 0.95,
            "-width": 128,
            "Config.Rate": -1e-3,
            "Config.Mode": "row",
        },
    ),
    (
        "main.js",
        JAVASCRIPT,
        {
            "BLOCK": 64,
            "CONFIG.rate": 1e-3,
            "CONFIG.fast": True,
            "mode": "row",
            "CONFIG.two-words.betas[0]": 0.9,
            "CONFIG.two-words.betas[1]": 0.95,
            "CELLS": 10,
            "BIG": 10,
        },
    ),
    (
        "settings.toml",
        TOML,
        {
            "optim.name": "adam",
            "optim.rate": 1e-3,
            "optim.betas[0]": 0.9,
            "optim.betas[1]": 0.95,
            "optim.schedule.steps": 30,
            "optim.table.fast": True,
            "optim.table.size": 16,
            "layers[0].width": 64,
            "layers[1].width": 32,
        },
    ),
    (
        "settings.yaml",
        YAML,
        {
            "optim.rate": 1e-3,
            "optim.betas[0]": 0.9,
            "optim.betas[1]": -0.95,
            "optim.name": "adam",
            "optim.fast": True,
            "layers[0].width": 64,
            "layers[1].width": 32,
            "sizes[0]": 16,
            "sizes[1]": 8,
            "[1].second": 0.5,
        },
    ),
    (
        "settings.json",
        JSON,
        {
            "rate": 1e-3,
            "optim.betas[0]": 0.9,
            "optim.betas[1]": -0.95,
            "optim.fast": True,
            "layers[0].width": 64,
            "layers[1].width": 32,
        },
    ),
    (
        "Makefile",
        MAKEFILE,
        {
            "CFLAGS -O": "2",
            "CFLAGS -funroll-loops": True,
            "CFLAGS -finline": False,
            "CFLAGS -falign-loops": 32,
            "CFLAGS max-unroll-times": 8,
            "ARCH -march": "native",
            "BLOCK": 64,
            "DEFINES -DTILE": 8,
        },
    ),
    (
        "kernel.flags",
        FLAGS,
        {
            "-O": "2",
            "-ftree-vectorize": False,
            "-mavx2": True,
            "-finline-limit": 100,
            "-march": "-march=native",
            "-fomit-frame-pointer|-pg": "-fomit-frame-pointer",
            "opt-level": 3,
        },
    ),
]
FILES = pytest.mark.parametrize(("path", "source", "expected"), FOUND, ids=[f[0] for f in FOUND])


def by_name(path: str, source: bytes) -> dict[str, Constant]:
    return {constant.name: constant for constant in find(path, source)}


@FILES
def test_what_is_a_constant(path: str, source: bytes, expected: Values) -> None:
    assert {name: c.value for name, c in by_name(path, source).items()} == expected


@FILES
def test_an_edit_changes_the_constants_alone(path: str, source: bytes, expected: Values) -> None:
    constants = find(path, source)
    for position in (0.0, 0.37, 0.7, 1.0):
        changes = {constant.name: constant.at(position) for constant in constants}
        after = edit(path, source, changes)
        assert {name: c.value for name, c in by_name(path, after).items()} == changes
        assert between(after, find(path, after)) == between(source, constants)
    assert edit(path, source, {c.name: c.value for c in constants}) == source
    with_windows_lines = source.replace(b"\n", b"\r\n")
    assert [c.value for c in find(path, with_windows_lines)] == [c.value for c in constants]


@pytest.mark.parametrize(
    ("path", "name", "low", "high"),
    [
        ("kernel.c", "BLOCK", 16, 256),
        ("kernel.c", "ETA", 0.01, 1),
        ("kernel.c", "BELOW", -7, -1),  # the comment on the line below is not its own
        ("kernel.c", "WIDTH", 1, 8),
        ("kernel.cu", "BLOCK", 32, 1024),
        ("main.rs", "BLOCK", 16, 256),
        ("main.go", "Block", 16, 256),
        ("main.js", "BLOCK", 16, 256),
        ("settings.toml", "optim.rate", 1e-4, 1e-2),
        ("settings.yaml", "optim.rate", 1e-4, 1e-2),
        ("Makefile", "BLOCK", 16, 256),
        ("Makefile", "CFLAGS -falign-loops", 4, 64),
        ("kernel.flags", "-finline-limit", 50, 400),
        ("kernel.flags", "opt-level", 0, 3),
    ],
)
def test_comments_limit_the_values(path: str, name: str, low: float, high: float) -> None:
    source = next(source for known, source, _ in FOUND if known == path)
    constant = by_name(path, source)[name]
    assert (constant.low, constant.high) == (low, high)


@pytest.mark.parametrize(
    ("path", "old", "changes", "new"),
    [
        ("a.c", b"#define X 0.1f // y", {"X": 0.25}, b"#define X 0.25f // y"),
        ("a.c", b"#define X (1u << 4)", {"X": 6}, b"#define X (1u << 6)"),
        ("a.c", b"long x = 0x10UL;", {"x": 12}, b"long x = 12UL;"),
        ("a.c", b"float x = 1.f;", {"x": 0.5}, b"float x = 0.5f;"),
        ("a.rs", b"const X: f32 = 1f32;", {"X": 0.5}, b"const X: f32 = 0.5f32;"),
        ("a.rs", b"const X: usize = 4_usize;", {"X": 8}, b"const X: usize = 8_usize;"),
        ("a.js", b"const x = 'a'; // one of: a, b", {"x": "b"}, b"const x = 'b'; // one of: a, b"),
        ("a.json", b'{"x": false}', {"x": True}, b'{"x": true}'),
        ("a.yaml", b"x: FALSE", {"x": True}, b"x: TRUE"),
        ("a.yaml", b"x: 1e-3", {"x": 2e-5}, b"x: 2.0e-5"),  # PyYAML reads 2e-5 as text
        ("a.yaml", b"x: 0.001", {"x": 1.5e-5}, b"x: 1.5e-05"),
        ("a.yaml", b"x: 1.0e+6", {"x": 2e7}, b"x: 2.0e+7"),
        ("a.yaml", b"x: a # one of: a, b", {"x": "b"}, b"x: b # one of: a, b"),
        ("a.flags", b"-fno-inline", {"-finline": True}, b"-finline"),
        ("a.flags", b"-O2", {"-O": "3"}, b"-O3"),
        ("a.mk", b"F=-mavx2", {"F -mavx2": False}, b"F=-mno-avx2"),
    ],
)
def test_values_are_written_as_the_language_writes_them(
    path: str, old: bytes, changes: Values, new: bytes
) -> None:
    assert edit(path, old + b"\n", changes) == new + b"\n"


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("a.toml", b"x = 1\ny = [1,\n", "line"),
        ("a.json", b'{"x": 1,\n "y": }', "line 2: it does not parse as json"),
        ("a.yaml", b"x: [1\ny: 2\n", "it does not parse as yaml"),
        ("a.c", b"int x = 1;\n// \xff\n", "line 2: not UTF-8"),
        ("a.flags", b"-O2 # \xff", "not UTF-8"),
        ("a.go", b"package a\nconst X = 1 // in [6, 1]\n", "X, line 2: 'in [6, 1]' should be"),
        ("a.yaml", b"x: a # one of: a, on", "x, line 1: 'on' needs quotes in YAML"),
        ("a.js", b"let x = 'a' // one of: a, it's", "cannot be written without an escape"),
        ("a.flags", b"-march=native # one of: native, a b", "'a b' is no flag"),
    ],
)
def test_what_cannot_be_edited_safely_says_why(path: str, source: bytes, message: str) -> None:
    with pytest.raises(SourceError) as error:
        find(path, source)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("a.c", b"int x = 5; void f() { x++; }"),
        ("a.c", b"int x = 5; void f() { g(&x); }"),
        ("a.c", b"#define x 5\n#undef x\n"),
        ("a.c", b"int x = f(5);"),
        ("a.c", b"int x = 5 +;"),
        ("a.c", b"long x = 0x1p3;"),
        ("a.c", b"void f() { for (int i = 5; i < 9; i++) g(i); }"),
        ("a.c", "#define x \u0663\n".encode()),
        ("a.mk", b"x = 5\nx = $(shell nproc)\n"),
    ],
)
def test_a_name_that_is_bound_again_or_does_not_parse_is_no_constant(
    path: str, source: bytes
) -> None:
    assert find(path, source) == []


def test_an_unknown_language_has_no_constants() -> None:
    assert find("notes.txt", b"x = 5") == find("model.bin", b"\xff") == []


def test_a_missing_parser_leaves_the_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_nothing(name: str) -> None:
        raise ImportError(f"no {name}", name=name)

    monkeypatch.setattr(trees, "import_module", import_nothing)
    trees._make_parser.cache_clear()
    files = {"missing.rs": b"const MISSING: i32 = 5;", "train.py": b"LR = 0.1"}
    assert list(take_apart(files, "train.py").constants) == ["LR"]
    assert find_missing_parsers(files) == [
        "missing.rs: the package tree_sitter_rust is not installed: "
        "`pip install 'autoresearch[languages]'`"
    ]
    trees._make_parser.cache_clear()


def test_gcc_reads_what_was_edited(tmp_path: Path) -> None:
    changes: Values = {"BLOCK": 32, "ETA": 0.5, "CELLS": 10, "betas[1]": 0.5, "mode": "column"}
    program = edit("kernel.c", C.replace(b"#include <math.h>", b"#include <stdbool.h>"), changes)
    declared = b"struct config { int depth; double rate; };\n" + program
    (tmp_path / "kernel.c").write_bytes(declared)
    built = subprocess.run(
        ["gcc", "-fsyntax-only", "-xc", "-"], input=declared, capture_output=True, check=False
    )
    assert built.returncode == 0, built.stderr.decode()


def test_toml_and_json_are_read_back() -> None:
    toml = edit("a.toml", TOML, {"optim.rate": 5e-4, "optim.name": "sgd", "optim.betas[0]": 0.5})
    optim = tomllib.loads(toml.decode())["optim"]
    assert (optim["rate"], optim["name"], optim["betas"]) == (5e-4, "sgd", [0.5, 0.95])
    after = json.loads(edit("a.json", JSON, {"rate": 2.5e-5, "layers[1].width": 48}))
    assert (after["rate"], after["layers"]) == (2.5e-5, [{"width": 64}, {"width": 48}])


# ---- any source ----------------------------------------------------------------------------------

PIECES = {
    "a.c": [
        "#define A 5",
        "int b = 3;",
        "float c[] = {1, .5f};",
        "/*",
        "*/",
        '"',
        "{",
        "}",
        "b=1;",
    ],
    "a.rs": ["const A: i32 = 5;", "let b = 2;", "fn f() {", "}", "/* x", "*/", "'", "A = 3;"],
    "a.go": ["const A = 5", "var b = 3", "func f() {", "}", "b++", "`", "const (", ")"],
    "a.js": ["const a = 5", "let b = {c: 3}", "`", "${", "}", "function f() {", "b = 1"],
    "a.toml": ["a = 5", "[b]", "c = [1, 2]", '"""', "[[d]]", "e = {f = 1}", "a.g = true"],
    "a.yaml": ["a: 5", "b:", "  c: [1, 2]", "- d: 1", "  - 2", "e: |", "---", "f: *x", "{g: 1}"],
    "a.json": ['{"a": 5}', "{", "}", '"b": [1, 2],', "[", "]", "// in [1, 9]"],
    "Makefile": ["A = -O2", "B += -fno-inline \\", "  -DX=3", "all:", "\techo", "ifdef A", "endif"],
    "a.flags": ["-O2", "-fx=3 -mavx", "--param", "a=5", "\\", "# one of: 3, 5", "-O3 # fixed"],
}
COMMENTS = ["", "  // in [1, 9]", "  # in [1, 9]", "  # one of: 5, 7", "  /* fixed */", " ü", "\t"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_source_is_edited_in_place_or_refused(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(PIECES)))
    line = st.builds(str.__add__, st.sampled_from(PIECES[path]), st.sampled_from(COMMENTS))
    lines = data.draw(st.lists(line, max_size=6))
    source = data.draw(st.sampled_from(["\n", "\r\n"])).join(lines).encode()
    try:
        constants = find(path, source)
    except SourceError as error:
        assert str(error)
        return
    drawn = {c.name: c.at(data.draw(st.floats(0, 1))) for c in constants}
    # In a function, -1, 0, 1 and switches are taken for no setting.
    changes = {k: v for k, v in drawn.items() if isinstance(v, str) or v not in (-1, 0, 1)}
    after = edit(path, source, changes)
    wanted = {c.name: c.value for c in constants} | changes
    assert {name: c.value for name, c in by_name(path, after).items()} == wanted
    assert between(after, find(path, after)) == between(source, constants)
