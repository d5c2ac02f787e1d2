"""The pages show what `status`, `show` and the report show, as text, whatever state a session is
in."""

from __future__ import annotations

import html
import json
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from support.commands import COMMAND, call
from support.fabricated import FabricatedSession
from support.pages import HOSTILE, Answer, PageServer, make_ledger, serve_pages
from support.sessions import ScriptedAgent, Step, change, run_session, wait_until

from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import Role
from autoresearch.report import text
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.requests import END_ASKED, Requests
from autoresearch.web.model import LOOK_S, Selection, SessionModel, select
from autoresearch.web.places import Place, find_places


def read(page: str) -> str:
    """A page's text, as a person sees it."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks in a folder: a session with keeps, one that has just begun, and one whose first run
    crashed."""
    top = tmp_path_factory.mktemp("tasks")
    ledger = make_ledger(top / "tiny_gpt")
    FabricatedSession(ledger).plausible(120).verify()
    begun = FabricatedSession(ledger, "begun")
    begun.open("baseline")
    crashed = FabricatedSession(ledger, "crashed")
    crashed.open("baseline")
    crashed.end(crashed.open_run(0, Role.BASELINE, 0), None, "exit code 1")
    ledger.close()
    hostile = make_ledger(top / "hostile")
    night = FabricatedSession(hostile, "night")
    night.baseline()
    night.change(0.05, HOSTILE)
    night.crash("</script><img src=x onerror=alert(1)>")
    hostile.close()
    return top


@pytest.fixture(scope="module")
def page(places: Path) -> Iterator[PageServer]:
    with serve_pages(places) as server:
        yield server


def test_the_headline_has_the_words_of_status(page: PageServer, places: Path) -> None:
    model = SessionModel(Place("tiny_gpt", places / "tiny_gpt"), "nov23")
    shown = read(page.get("/s/tiny_gpt/nov23/").text)
    summary = model.summary
    model.close()
    assert summary.verification is not None and summary.checks is not None
    for label, line in text.list_facts(summary):
        if line and label not in ("best", "checks"):
            assert " ".join(line.split()) in shown, label
    for word in summary.checks.words:
        assert word in shown
    assert summary.numbers.value(summary.incumbent.score) in shown  # type: ignore[union-attr]
    assert text.describe_spent(summary) in shown


def test_the_chart_has_every_experiment(page: PageServer) -> None:
    chart = json.loads(page.get("/s/tiny_gpt/nov23/chart").text)
    assert chart["dots"]["number"] == list(range(121))
    keeps = [at for at, status in enumerate(chart["dots"]["status"]) if status == 1]
    assert [keep["place"] for keep in chart["keeps"]] == keeps
    assert [step[0] for step in chart["steps"]] == keeps
    dots = zip(chart["dots"]["metric"], chart["dots"]["status"], strict=True)
    assert all(value is None for value, status in dots if status == 2)
    later = json.loads(page.get("/s/tiny_gpt/nov23/chart?after=100").text)
    assert later["dots"]["number"] == list(range(101, 121))


def test_the_table_filters_and_sorts(page: PageServer, places: Path) -> None:
    keeps = page.get("/s/tiny_gpt/nov23/table?status=keep&sort=gain").text
    numbers = [int(number) for number in re.findall(r'<tr data-open="(\d+)"', keeps)]
    model = SessionModel(Place("tiny_gpt", places / "tiny_gpt"), "nov23")
    known = {keep.number: keep.gain for keep in model.summary.recent if keep.status == "keep"}
    model.close()
    assert set(numbers) == set(known)
    gains = [known[number] for number in numbers if known[number] is not None]
    assert gains == sorted(gains, reverse=True)
    assert numbers[-1] == 0  # the baseline gained nothing
    assert "Nothing matches" in page.get("/s/tiny_gpt/nov23/table?text=no+such+words").text
    first = page.get("/s/tiny_gpt/nov23/table?order=up").text
    assert "1–50 of 121" in read(first)
    assert "101–121 of 121" in read(page.get("/s/tiny_gpt/nov23/table?page=99").text)
    assert page.get("/s/tiny_gpt/nov23/table?page=x").status == 400


def test_a_selection_searches_text_number_and_reason(ledger: Ledger) -> None:
    rows = FabricatedSession(ledger).plausible(60).summary(whole=True).recent
    assert all(
        "rope" in row.description.lower() for row in select(rows, Selection(text="ROPE")).rows
    )
    assert 7 in [row.number for row in select(rows, Selection(text="#7")).rows]
    worse = select(rows, Selection(text="worse", sort="metric", is_ascending=True)).rows
    assert worse and all(row.reason == "worse" for row in worse)
    assert select(rows, Selection(agent="nobody")).matching == 0


@pytest.mark.parametrize(
    ("tag", "words"), [("begun", "no baseline yet"), ("crashed", "no baseline yet")]
)
def test_a_session_without_a_baseline_has_a_page(page: PageServer, tag: str, words: str) -> None:
    answer = page.get(f"/s/tiny_gpt/{tag}/")
    assert answer.status == 200
    assert words in answer.text
    assert page.get(f"/s/tiny_gpt/{tag}/0").status == 200
    assert json.loads(page.get(f"/s/tiny_gpt/{tag}/chart").text)["frame"] == [None, None]


@pytest.mark.parametrize("path", ["", "1", "2", "table", "compare?a=0&b=1", "panels"])
def test_foreign_text_stays_text(page: PageServer, path: str) -> None:
    shown = page.get(f"/s/hostile/night/{path}").text
    assert "<script>alert" not in shown and "<img" not in shown
    assert "\x1b" not in shown
    if path == "1":
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert len(shown) < 100_000
    assert page.get("/s/hostile/night/chart").headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/s/nowhere/x/", 404, "no task 'nowhere' here; there are: hostile, tiny_gpt"),
        ("/s/tiny_gpt/x/", 404, "no session 'x'"),
        ("/s/tiny_gpt/nov23/900", 404, "has no experiment 900; it has 0 to 120"),
        ("/s/tiny_gpt/nov23/compare?a=1&b=zwei", 400, "b is 'zwei'; accepted: a whole number"),
        ("/s/tiny_gpt/nov23/1/log/99999", 404, "has no finished run 99999"),
        ("/nowhere", 404, "Not Found"),
    ],
)
def test_what_is_not_there_is_said(page: PageServer, path: str, status: int, words: str) -> None:
    answer = page.get(path)
    assert answer.status == status
    assert words in read(answer.text)
    assert "Traceback" not in answer.text


def test_a_missing_repository_costs_only_the_diff(page: PageServer) -> None:
    shown = read(page.get("/s/tiny_gpt/nov23/3").text)
    assert "The change cannot be shown: " in shown
    assert "Runs against the incumbent's" in shown


def test_the_overview_shows_all_and_says_what_cannot_be_read(tmp_path: Path) -> None:
    FabricatedSession(good := make_ledger(tmp_path / "good")).baseline()
    good.close()
    make_ledger(tmp_path / "newer").close()
    with sqlite3.connect(tmp_path / "newer" / ".autoresearch" / "ledger.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with serve_pages(tmp_path) as page:
        shown = read(page.get("/").text)
        assert "none yet, lower is better" in shown
        assert "was written by a newer autoresearch" in shown
        shutil.rmtree(tmp_path / "good")
        assert "No session was started here yet" in read(page.get("/").text)
        deadline = time.monotonic() + 10 * LOOK_S  # a page looks at most so often
        while (gone := page.get("/s/good/nov23/")).status != 404:
            assert time.monotonic() < deadline
        assert "was" in gone.text and "moved or deleted" in read(gone.text)


def test_places_are_found_below_a_folder(tmp_path: Path) -> None:
    for name in ("a/task", "b/task", "node_modules/x"):
        make_ledger(tmp_path / name).close()
    found = find_places([tmp_path, tmp_path / "a" / "task"])
    assert [(place.name, place.root.parent.name) for place in found] == [
        ("task", "a"),
        ("task-2", "b"),
    ]
    assert [place.name for place in find_places([tmp_path / "empty one!"])] == ["empty-one"]


def test_a_model_extends_what_it_has_read(ledger: Ledger) -> None:
    night = FabricatedSession(ledger, "night")
    night.plausible(30)
    model = SessionModel(Place("tiny_gpt", ledger.path.parent.parent), "night")
    model._whole_cost = 1e9  # no second whole summary
    version = model.version
    night.change(0.03)
    night.change(-0.1)
    model._looked = 0.0
    assert model.look() == version + 1
    extended, whole = model.summary, night.summary(whole=True)
    model.close()
    assert [row.number for row in extended.recent] == [row.number for row in whole.recent]
    assert extended.keeps == whole.keeps
    for _ in range(15):  # more than a summary that is not whole has
        night.change(-0.1)
    model._looked = 0.0
    assert len(model.summary.recent) == 48
    model.close()


def test_a_real_session_has_its_diff_and_its_log(root: Path) -> None:
    def script(turn: Turn) -> Proposal:
        change(VALUE=5.0)(turn)
        return Proposal("better", "because <b>it</b> is", "a note")

    run_session(root, ScriptedAgent(script))
    with serve_pages(root) as page:
        shown = page.get("/s/task/t/1").text
        assert '<tr class="add">' in shown and "because &lt;b&gt;it&lt;/b&gt; is" in shown
        assert "measured again" in shown and "More of it, as text" in shown
        log = page.get(re.findall(r'href="(/s/task/t/1/log/\d+)"', shown)[0])
        assert "score: " in log.text and log.headers["content-type"].startswith("text/plain")
        assert "#0 and #1" in read(page.get("/s/task/t/compare?a=0&b=1").text)


def test_the_stream_tells_what_is_new(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "task")
    night = FabricatedSession(ledger, "t")
    night.baseline()

    def get_news(lines: Iterator[str]) -> dict[str, str]:
        news = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
        assert isinstance(news, dict)
        return news

    with serve_pages(tmp_path / "task") as page, page.stream("/s/task/t/events") as lines:
        first = get_news(lines)
        assert "0 experiments: 0 keeps" in first["head"]
        night.change(0.05)
        later: dict[str, str] = {}
        while "1 experiment: 1 keep" not in later.get("head", ""):
            later = get_news(lines)
        assert later["version"] > first["version"]
        assert json.loads(page.get("/s/task/t/chart?after=0").text)["dots"]["number"] == [1]
        ledger.close()
        shutil.rmtree(tmp_path / "task")
        while "moved or deleted" not in later.get("trouble", ""):
            later = get_news(lines)


def test_the_page_steers_a_session(root: Path) -> None:
    """Pause, a note, resume, stop after this one: by the page, on a real session."""
    gates = [threading.Event(), threading.Event()]

    def wait_for(gate: threading.Event, **constants: float) -> Step:
        def step(turn: Turn) -> Proposal | Failure | None:
            assert gate.wait(30)
            return change(**constants)(turn)

        return step

    agent = ScriptedAgent(wait_for(gates[0], VALUE=5.0), wait_for(gates[1], VALUE=4.0))
    with (
        serve_pages(root, token="right", has_control=True) as page,
        ThreadPoolExecutor() as pool,
    ):

        def ask(action: str, body: str = "") -> Answer:
            return page.post(f"/s/task/t/control/{action}", body, Authorization="Bearer right")

        def get_state() -> str:
            return read(page.get("/s/task/t/", Authorization="Bearer right").text)

        night = pool.submit(run_session, root, agent, verified=True)
        try:
            wait_until(lambda: agent.turns, 60)
            assert page.post("/s/task/t/control/pause").status == 401
            assert "pauses after" in ask("pause").text
            gates[0].set()
            wait_until(lambda: "running, asked to pause" in get_state())
            wait_until(lambda: "paused; `autoresearch resume` goes on" in get_state(), 60)
            assert len(agent.turns) == 1
            assert "has the note" in ask("note", "try <b>less</b>").text
            assert ask("note", " ").status == 409
            assert ask("note", "x" * 20_000).status == 413
            assert ask("jump").status == 404
            assert "goes on" in ask("resume").text
            wait_until(lambda: len(agent.turns) == 2, 60)
            assert "ends after" in ask("end").text
        finally:
            for gate in gates:
                gate.set()
            Requests(SessionPaths(root, "t")).end()
        assert night.result(60).reason == END_ASKED
        with closing(Ledger(SessionPaths(root, "t").ledger, readonly=True)) as ledger:
            record = ledger.session("t")
            [note] = queries.list_notes(ledger, record)
            assert (note.agent, note.text) == ("user", "try <b>less</b>")
            assert ledger.runs_of(record, record.base_commit, (Role.VERIFY_BASELINE,))
        assert ask("pause").status == 409  # it is not running


def test_without_control_nothing_can_be_steered(page: PageServer) -> None:
    assert page.post("/s/tiny_gpt/nov23/control/pause").status in (404, 405)
    assert "Leave the note" not in page.get("/s/tiny_gpt/nov23/").text


def test_the_command_takes_the_next_port(root: Path) -> None:
    run_session(root, ScriptedAgent())
    with serve_pages(root) as taken:
        process = subprocess.Popen(
            [*COMMAND, "watch", str(root), "--json", "--port", str(taken.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())
        assert address["notes"] == [f"port {taken.port} is in use: this is {address['port']}"]
        assert PageServer(address["port"], taken.rules).get("/s/task/t/").status == 200
        process.terminate()
        assert process.wait(timeout=10) == 0
        process.stdout.close()


def test_a_folder_without_a_task_is_refused(tmp_path: Path) -> None:
    done = call(tmp_path, "watch")
    assert done.returncode == 2 and "no task here" in done.stderr
    refused = call(tmp_path, "watch", "--host", "no.such.host.invalid")
    assert refused.returncode == 2
