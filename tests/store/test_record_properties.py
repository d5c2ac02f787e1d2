"""What programs print, results.tsv, and changes that are to be made again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.tables import read_table

from autoresearch.agents import replay
from autoresearch.errors import AgentError, NotOursError
from autoresearch.files import tail
from autoresearch.formatting import escape_unstorable
from autoresearch.measure.output import LARGEST, Reading, read_log, whole_lines
from autoresearch.protocols import Proposal
from autoresearch.records import Experiment, Metric, Role, Run, Status, Verdict
from autoresearch.store.ledger import Ledger
from autoresearch.store.results import OURS, ResultsFile, check_ours, header, row

quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# ---- what a program prints ---------------------------------------------------------------------

WORDS = st.one_of(
    st.floats().map(repr),
    st.sampled_from(
        ["1", "-1e3", "nan", "inf", "-Infinity", "1e999", "0x10", "1,5", "9" * 400, "٣"]
    ),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=4),
)
NAMES = st.one_of(
    st.sampled_from(["loss", "val_bpb", "a.b", "µs", "Größe", "a-b", "", "METRIC", "x=1", "ä b"]),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=3),
)
SPACES = st.sampled_from(["", " ", "  ", "\t", "\xa0", "\u3000", "\x1f"])
PRINTED = st.one_of(
    st.builds("{}METRIC{}{}={}{}".format, SPACES, SPACES, NAMES, WORDS, SPACES),
    st.builds("{}{}:{}{}{}".format, SPACES, NAMES, SPACES, WORDS, SPACES),
    st.sampled_from(["---", " --- ", "----", "--", "", "METRIC loss=1 2", "loss: 1 2", "\ufffd"]),
    st.text(max_size=12),
)
LOGS = st.builds(
    lambda lines, newline: newline.join(lines),
    st.lists(PRINTED, max_size=10),
    st.sampled_from(["\n", "\n", "\r\n", "\r"]),
)


def is_name(text: str) -> bool:
    return text != "" and all(c.isalnum() or c in "_.µ" for c in text)


def said(line: str, summary: bool) -> tuple[str, str] | None:
    """(name, word) of a line, read by hand."""
    if line.startswith("METRIC") and line[6:7].isspace():
        name, equals, word = line[6:].lstrip().partition("=")
        if equals and is_name(name) and word[:1].strip() and len(word.split()) == 1:
            return name, word.split()[0]
    if summary:
        name, colon, rest = line.partition(":")
        if colon and is_name(name) and rest[:1].isspace() and len(rest.split()) == 1:
            return name, rest.split()[0]
    return None


@settings(max_examples=400, deadline=None)
@given(LOGS)
@example("METRIC a=1\nMETRIC a=nan")
@example("a: 1\n---\nb: 2")
def test_a_log_says_what_its_grammar_says(text: str) -> None:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    rules = [at for at, line in enumerate(lines) if line.strip() == "---"]
    last: dict[str, str] = {}
    for at, line in enumerate(lines):
        if found := said(line, summary=not rules or at > rules[-1]):
            last[found[0]] = found[1]
    reading = read_log(text)
    assert reading.numbers.keys() | reading.faulty.keys() == last.keys()
    assert not reading.numbers.keys() & reading.faulty.keys()
    for name, value in reading.numbers.items():
        assert math.isfinite(value)
        assert value == float(last[name])
    for name, word in reading.faulty.items():
        assert word == last[name]
        with pytest.raises((ValueError, AssertionError)):
            assert abs(float(word)) <= LARGEST
            assert word.isascii() and "_" not in word


@quick
@given(st.lists(PRINTED, min_size=1, max_size=8), st.integers(1, 200))
@example(["xMETRIC loss=1", "end"], 17)
@example(["METRIC loss=1", "METRIC loss=2"], 14)
def test_a_line_whose_beginning_is_cut_off_says_nothing(
    tmp_path: Path, lines: list[str], size: int
) -> None:
    data = "\n".join(lines).encode(errors="replace") + b"\n"
    (tmp_path / "log").write_bytes(data)
    whole = data[-size:]
    if len(data) > size and data[-size - 1 : -size] != b"\n":
        whole = whole.partition(b"\n")[2]
    assert whole_lines(tmp_path / "log", size) == whole.decode(errors="replace")
    assert tail(tmp_path / "log", size) == data[-size:].decode(errors="replace")
    assert isinstance(read_log(whole_lines(tmp_path / "log", size)), Reading)


# ---- results.tsv -------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=15),
    st.sampled_from(
        ["", '"quoted', "a\tb", "a\nb", "\r\n", "\x1b[31mred", "\u2028", "\ud800", "\x85", " x "]
    ),
)
AMOUNTS = st.none() | st.integers(0, 2**63 - 1)
EXPERIMENTS = st.builds(
    Experiment,
    number=st.integers(0, 10**6),
    base=st.just(0),
    commit=st.text("0123456789abcdef", min_size=40, max_size=40),
    agent=TEXTS,
    description=TEXTS,
    status=st.sampled_from(Status),
    reason=st.none() | TEXTS,
    metric=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    peak_memory_bytes=AMOUNTS,
    tokens=AMOUNTS,
    usd=st.none() | st.floats(0, 1e9),
)
RUNS = st.lists(
    st.builds(
        Run,
        id=st.integers(1, 99),
        experiment=st.just(1),
        attempt=st.just(0),
        role=st.sampled_from(Role),
        index=st.just(0),
        commit=st.just("c"),
        seed=st.just(1),
        finished=st.booleans(),
        cpu_s=st.none() | st.floats(0, 1e9),
    ),
    max_size=4,
)


def same(cell: str, text: str) -> bool:
    """A cell holds the text, but for what breaks a table: its letters and digits are all there."""
    plain = [c for c in text if c.isascii() and c.isalnum()]
    return "\x1b" in text or [c for c in cell if c.isascii() and c.isalnum()] == plain


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(EXPERIMENTS, RUNS), max_size=4), st.sampled_from(["loss", "µs", "a.b"]))
def test_rows_come_back(done: list[tuple[Experiment, list[Run]]], metric: str) -> None:
    text = header(metric) + "".join(row(one, runs) for one, runs in done)
    read = read_table(text.encode().decode())
    assert len(read) == len(done)
    for found, (one, _) in zip(read, done, strict=True):
        assert found.keys() == {"commit", metric, "memory_gb", "status", "description", *OURS}
        assert found["commit"] == one.commit[:7]
        assert found["status"] == one.status
        assert found["experiment"] == str(one.number)
        assert same(found["description"], one.description)
        assert same(found["reason"], one.reason or "")
        assert same(found["agent"], one.agent)
        if one.status is not Status.CRASH and one.metric is not None:
            assert float(found[metric]) == pytest.approx(one.metric, abs=1e-6)
        assert found["tokens"] == ("" if one.tokens is None else str(one.tokens))
        assert not any(c in cell for cell in found.values() for c in "\t\n\r")


HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
TABLES = st.one_of(
    st.text(max_size=40),
    st.builds(
        lambda names, cells, newline: newline.join([names, *cells]),
        st.sampled_from(
            [HEADER, HEADER + "\treason", "\ufeff" + HEADER, HEADER + "\t\t", "commit\tx", "", " "]
        ),
        st.lists(
            st.lists(TEXTS | st.text("\t", max_size=3), max_size=7).map("\t".join), max_size=4
        ),
        st.sampled_from(["\n", "\r\n"]),
    ),
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Path, bytes]]:
    """A ledger of two sessions, and the file of the second."""
    folder = tmp_path_factory.mktemp("task") / ".autoresearch"
    folder.mkdir()
    ledger = Ledger(folder / "ledger.sqlite")
    path = folder.parent / "results.tsv"
    for tag in ("a", "b"):
        session = ledger.create_session(
            tag,
            base_commit="c" * 40,
            metric=Metric("loss"),
            level="default",
            budget_s=None,
            budget_clock="wall",
            limits={},
            fingerprint={},
            now=0.0,
        )
        results = ResultsFile(path, ledger, session)
        results.prepare()
        for number, words in enumerate(["baseline", "größer, \t besser", "", '"quoted"']):
            ledger.begin(
                session,
                base=0,
                commit=f"{number}" * 40,
                tree=f"t{number}",
                agent="tuner",
                proposal=Proposal(f"{tag} {words}"),
                now=0.0,
            )
            verdict = Verdict(
                Status.DISCARD if number else Status.KEEP, "worse" if number else None, 1.5
            )
            results.append(ledger.finish(session, number, verdict, peak_memory_bytes=None, now=1.0))
    yield ledger, path, path.read_bytes()
    ledger.close()


@quick
@given(
    st.one_of(
        st.binary(max_size=80),
        TABLES.map(lambda text: text.encode(errors="surrogatepass")),
        st.sampled_from([HEADER.encode(), HEADER.encode() + b"\n", b"\0" * 500, b"\xff\n"]),
    )
)
def test_any_file_is_ours_or_not_ours(kept: tuple[Ledger, Path, bytes], data: bytes) -> None:
    ledger, path, _ = kept
    path.write_bytes(data)
    try:
        check_ours(path, ledger)
    except NotOursError as error:
        assert str(path) in str(error)
        assert data
    assert path.read_bytes() == data


@quick
@given(st.integers(0, 10**6), st.text("ab\t\n é", min_size=1, max_size=3).map(str.encode))
def test_what_a_kill_or_a_hand_leaves_of_our_file(
    kept: tuple[Ledger, Path, bytes], place: int, more: bytes
) -> None:
    """Cut off anywhere it is ours still; with something else at the end it is not."""
    ledger, path, whole = kept
    at = place % (len(whole) + 1)
    path.write_bytes(whole[:at])
    check_ours(path, ledger)
    path.write_bytes(whole + more)
    with pytest.raises(NotOursError):
        check_ours(path, ledger)
    path.write_bytes(whole[:at] + more + whole[at + len(more) :])
    try:
        check_ours(path, ledger)
    except NotOursError:
        pass
    else:  # only what the runs cost may differ
        path.unlink()


# ---- changes to be made again ------------------------------------------------------------------

HEADS = st.lists(
    st.sampled_from(
        [
            *(b"Subject: ", b"=?utf-8?q?", b"?=", b"=?", b"?", b"\n ", b"\n", b"[PATCH]", b"\xff"),
            *(b"=?x?b?!!!?=", b"=?rot13?q?abc?=", b"=?utf-8?b?////?=", b"=?ascii?q?=ff?=", b"\0"),
            *(b"=?utf-8?q?=ED=A0=80?=", b"From x\n", b"\r", b"commit 0123\n", b"diff --git ", b":"),
            *(b"=?utf-8*en?q?a?=", b"--- a/train.py\n", b"+++ b/train.py\n", b"@@ -1 +1 @@\n"),
            *(b"-A = 1\n", b"+A = 2\n", b"@@ -1,99 +1,9999999999 @@\n", b"+++ b/../out.py\n"),
            *(
                b"+++ /etc/x\n",
                b"--- /dev/null\n",
                b"new file mode 120000\n",
                b"GIT binary patch\n",
            ),
            *(b"rename from train.py\n", b"rename to ../x.py\n", b"literal 5\n", b"\x80"),
        ]
    )
    | st.binary(max_size=6),
    max_size=12,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(HEADS, st.booleans())
def test_a_patch_has_a_description(data: bytes, mail: bool) -> None:
    description = replay.Patch("a.patch", b"Subject: " * mail + data).description
    assert "\n" not in description
    escape_unstorable(description).encode()


@settings(max_examples=40, deadline=None)
@given(HEADS)
@example(
    b"diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n"
)
def test_a_patch_applies_or_says_why_not_and_stays_inside(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name).resolve() / "tree"
        tree.mkdir()
        (tree / "train.py").write_bytes(b"A = 1\n")
        problem = replay.Patch("a.patch", data).apply(tree)
        assert problem is None or problem.strip()
        if problem is not None:
            assert (tree / "train.py").read_bytes() == b"A = 1\n"
            assert names(tree) == ["train.py"]
        assert names(tree.parent) == ["tree"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


PATHS = st.one_of(
    st.sampled_from(
        [
            *(
                "train.py",
                "sub",
                "sub/x.py",
                "train.py/x",
                "link",
                "link/x",
                "loop",
                "loop/x",
                "a//b",
            ),
            *(
                "./train.py",
                "../x",
                "/etc/x",
                "",
                ".",
                "\0",
                "\ud800",
                "x" * 300,
                "a/./b",
                "new/x.py",
            ),
        ]
    ),
    st.text(max_size=5),
)
CONTENTS = st.dictionaries(PATHS, st.none() | st.binary(max_size=9), max_size=4)
ODD = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
MIXED = st.dictionaries(st.integers() | st.text(max_size=3), ODD, max_size=2)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.lists(st.tuples(st.text(max_size=5), CONTENTS), max_size=3),
        st.lists(ODD | st.tuples(ODD, ODD) | st.tuples(st.text(), MIXED), max_size=3),
        ODD,
    )
)
def test_proposals_are_made_or_refused_and_stay_inside(proposals: object) -> None:
    try:
        agent = replay.create("session:x", {"proposals": proposals}, 0)
    except AgentError as error:
        assert "replay: " in str(error)
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        tree, outside = root / "tree", root / "outside"
        outside.mkdir()
        (tree / "sub").mkdir(parents=True)
        (tree / "train.py").write_bytes(b"A = 1\n")
        (tree / "link").symlink_to(outside)
        (tree / "loop").symlink_to("loop")
        for item in agent._changes:
            problem = item.apply(tree)
            assert problem is None or problem
            assert isinstance(item.description, str)
        assert names(outside) == []
        assert names(root) == ["outside", "tree"]


@pytest.mark.parametrize("argument", ["~nobody-of-that-name/x", "\0", "x" * 5_000, "\ud800", ""])
def test_a_folder_that_is_none(argument: str) -> None:
    with pytest.raises(AgentError, match=r"is no folder|cannot read|expected replay:FOLDER"):
        replay.create(argument, {}, 0)


def test_what_lies_in_a_folder_of_changes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "description.txt").write_bytes(b"gr\xf6\xdfer\n")
    (tmp_path / "a" / "train.py").write_bytes(b"x")
    [item] = replay.create(str(tmp_path), {}, 0)._changes
    assert item.description == "gr\ufffd\ufffder"
    (tmp_path / "b.patch").symlink_to("nowhere")
    with pytest.raises(AgentError, match=r"cannot read .*b\.patch: No such file"):
        replay.create(str(tmp_path), {}, 0)
