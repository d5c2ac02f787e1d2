"""The page in Chromium, with a real session underneath: `make test-web`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.commands import COMMAND, call
from support.fabricated import FabricatedSession
from support.pages import HOSTILE, PageServer, make_ledger, serve_pages

pytestmark = pytest.mark.web
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: make test-web")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1360, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium, or another in the variable CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Any, server: PageServer, path: str, **options: Any) -> Iterator[Any]:
    """A page that may not complain, ask another host or show a dialog."""
    complaints: list[str] = []
    context = browser.new_context(viewport=options.pop("viewport", DESKTOP), **options)
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("console", lambda said: said.type == "log" or complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    page.on("request", lambda sent: sent.url.startswith(server.url) or complaints.append(sent.url))
    page.goto(server.url + path)
    try:
        yield page
    finally:
        context.close()
    assert complaints == []


def start_session(root: Path, experiments: int) -> subprocess.Popen[bytes]:
    words = ["run", "--tag", "live", "--agent", "tuner", "--plain", "--experiments"]
    return subprocess.Popen(
        [*COMMAND, *words, str(experiments), str(root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def instant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task `instant`, with a session of 12 experiments that has ended."""
    root = tmp_path_factory.mktemp("browser") / "instant"
    assert call(root.parent, "new", "instant", root).returncode == 0
    assert start_session(root, 12).wait(timeout=300) == 0
    return root


@pytest.fixture(scope="module")
def server(instant: Path) -> Iterator[PageServer]:
    with serve_pages(instant) as server:
        yield server


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """Two agents, a flagged keep, and descriptions that would be scripts."""
    folder = tmp_path_factory.mktemp("large")
    ledger = make_ledger(folder / "tiny_gpt")
    night = FabricatedSession(ledger)
    night.agent, night.costs = "claude", (1200, 0.34)
    night.plausible(150)
    night.agent, night.costs = "tuner", (None, None)
    night.change(0.05, HOSTILE)
    night.crash("<img src=x onerror=alert(1)>")
    ledger.close()
    with serve_pages(folder) as server:
        yield server


SESSION, NIGHT = "/s/instant/live/", "/s/tiny_gpt/nov23/"


def count_dots(page: Any) -> int:
    return int(page.get_attribute("#chart", "data-dots") or 0)


def wait_for_rows(page: Any, cell: str, text: str) -> None:
    """Wait until every row of the table has this text in that cell."""
    page.wait_for_function(
        "([cell, text]) => [...document.querySelectorAll(`#table tbody ${cell}`)]"
        ".every(each => each.textContent.includes(text))",
        arg=[cell, text],
    )


def wait_for_dots(page: Any, count: int) -> None:
    page.wait_for_function(
        "count => Number(document.querySelector('#chart').dataset.dots) >= count", arg=count
    )


def test_dots_appear_without_reload_and_pause_pauses(browser: Any, tmp_path: Path) -> None:
    root = tmp_path / "instant"
    assert call(tmp_path, "new", "instant", root).returncode == 0
    process = start_session(root, 400)
    try:
        with serve_pages(root, token="right", has_control=True) as server:
            while not (root / ".autoresearch" / "live" / "runs" / "0001").exists():
                assert process.poll() is None
                time.sleep(0.2)
            with open_page(browser, server, f"{SESSION}?token=right") as page:
                page.evaluate("window.mark = true")
                wait_for_dots(page, 2)
                seen = count_dots(page)
                wait_for_dots(page, seen + 3)
                assert page.evaluate("window.mark")  # it is still the page that was loaded
                page.wait_for_selector(f"#table tr[data-open='{seen + 1}']")
                page.click("[data-do=pause]")
                page.wait_for_selector("#head >> text=running, asked to pause")
                page.wait_for_selector("#now >> text=paused")
                paused = count_dots(page)
                page.wait_for_timeout(1500)
                assert count_dots(page) == paused
                page.fill("#note-text", "fewer <b>layers</b>")
                page.click("#note button")
                page.wait_for_selector("#note >> text=The next briefing has the note.")
                page.click("[data-do=resume]")
                wait_for_dots(page, paused + 1)
                page.click("[data-do=end]")
                page.wait_for_selector("#head >> text=stopped: asked to end after")
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.wait()


def test_a_diff_opens_by_mouse_and_by_keyboard(browser: Any, server: PageServer) -> None:
    with open_page(browser, server, SESSION) as page:
        page.click("#table tr[data-open='3'] td.change")
        page.wait_for_selector("#drawer .patch tr.add")
        assert page.url.endswith("#3")
        page.click("#drawer a[rel=prev]")
        page.wait_for_selector("#drawer h1 >> text=#2")
        page.keyboard.press("Escape")
        assert not page.is_visible("#drawer")
        page.focus("#chart")
        page.keyboard.press("End")
        assert page.inner_text("#chart-tip").startswith("#12 ")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        page.wait_for_selector("#drawer h1 >> text=#11")
        assert page.evaluate("document.activeElement.tagName") == "H1"
        page.reload()  # the address has it
        page.wait_for_selector("#drawer h1 >> text=#11")


def test_a_dot_opens_and_a_drag_zooms(browser: Any, server: PageServer) -> None:
    with open_page(browser, server, SESSION) as page:
        wait_for_dots(page, 13)
        box = page.locator("#chart .u-over").bounding_box()
        page.mouse.move(box["x"] + 3, box["y"] + 20)
        for step in range(60):  # to where the baseline's dot is, at the left edge
            page.mouse.move(box["x"] + box["width"] * 0.04, box["y"] + step * box["height"] / 60)
            if page.inner_text("#chart-tip").startswith("#0 "):
                break
        page.mouse.down()
        page.mouse.up()
        page.wait_for_selector("#drawer h1 >> text=the baseline")
        page.keyboard.press("Escape")
        page.mouse.move(box["x"] + 200, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 500, box["y"] + 105, steps=5)
        page.mouse.up()
        page.wait_for_selector("[data-zoom=all][aria-pressed=false]")
        assert not page.is_visible("#drawer")
        page.click("[data-zoom=all]")
        page.wait_for_selector("[data-zoom=all][aria-pressed=true]")


def test_filter_search_sort_and_pages(browser: Any, large: PageServer) -> None:
    with open_page(browser, large, "/s/tiny_gpt/nov23/") as page:

        def numbers() -> list[int]:
            rows = page.locator("#table tbody tr")
            return [int(row) for row in rows.evaluate_all("all => all.map(r => r.dataset.open)")]

        page.wait_for_selector("#table tr[data-open='152']")
        page.click("[data-page='2']")
        page.wait_for_selector("#table tr[data-open='100']")
        page.select_option("[name=status]", "crash")
        wait_for_rows(page, ".pill", "crash")
        page.select_option("[name=status]", "")
        page.fill("[name=text]", "ROPE base")
        wait_for_rows(page, "td.change", "ROPE base")
        page.fill("[name=text]", "")
        page.click("#table [data-sort=gain]")
        page.wait_for_selector("#table [aria-sort=descending] [data-sort=gain]")
        assert page.evaluate("document.activeElement.dataset.sort") == "gain"
        best = numbers()[0]
        page.click("#table [data-sort=gain]")
        page.wait_for_selector("#table [aria-sort=ascending] [data-sort=gain]")
        assert numbers()[0] != best
        page.select_option("[name=agent]", "tuner")
        page.wait_for_selector("#table >> text=1–2 of 2")


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("path", ["/?all", NIGHT, f"{NIGHT}151", f"{NIGHT}compare?a=0&b=151"])
def test_no_page_is_wider_than_its_screen(
    browser: Any, large: PageServer, path: str, viewport: dict[str, int]
) -> None:
    with open_page(browser, large, path, viewport=viewport) as page:
        page.wait_for_timeout(300)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    browser: Any, large: PageServer, server: PageServer, scheme: str
) -> None:
    package = pytest.importorskip("axe_core_python", reason="needs axe-core-python")
    source = (Path(package.__file__).parent / "axe.min.js").read_text()

    def check(page: Any) -> None:
        page.evaluate(source)
        found = page.evaluate("axe.run().then(result => result.violations)")
        assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found] == []

    with open_page(browser, large, "/s/tiny_gpt/nov23/", color_scheme=scheme) as page:
        wait_for_dots(page, 150)
        check(page)
        page.goto(f"{large.url}/?all")
        check(page)
        page.goto(f"{large.url}/s/tiny_gpt/nov23/compare?a=0&b=151")
        check(page)
    with open_page(browser, server, f"{SESSION}#3", color_scheme=scheme) as page:
        page.wait_for_selector("#drawer .patch tr.add")
        check(page)


def test_the_theme_follows_the_system_and_the_button(browser: Any, server: PageServer) -> None:
    def get_ground(page: Any) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    with open_page(browser, server, SESSION, color_scheme="dark") as page:
        dark = get_ground(page)
        page.click("#theme")
        light = get_ground(page)
        assert light != dark
        page.reload()
        assert get_ground(page) == light
    with open_page(browser, server, SESSION, color_scheme="light") as page:
        assert get_ground(page) == light


def test_foreign_text_is_shown_as_text(browser: Any, large: PageServer) -> None:
    with open_page(browser, large, "/s/tiny_gpt/nov23/#151") as page:
        page.wait_for_selector("#drawer h1 >> text=<script>alert(1)</script>")
        assert page.locator("#drawer script").count() == 0
        page.keyboard.press("Escape")
        page.click("#table tr[data-open='152'] td.change")
        page.wait_for_selector("#drawer >> text=onerror=alert(1)")
        assert page.locator("img").count() == 0
        assert not re.search("\x1b", page.inner_text("body"))
