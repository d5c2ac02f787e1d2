"""Is the page of `watch` quick with 10,000 experiments? First paint, interactions and the server's
memory, in the system's chromium.

    python benchmarks/web.py | tee benchmarks/results/web.txt
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
from playwright.sync_api import Page, sync_playwright

from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import make_module_command

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.fabricated import FabricatedSession

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
REPEATS = 9
# From an act to the frame after its effect. The page forbids `eval`, so both are written in.
MEASURE = """() => new Promise(resolve => {{
  const start = performance.now();
  const check = () => ({done})
    ? requestAnimationFrame(() => resolve(performance.now() - start))
    : requestAnimationFrame(check);
  {act};
  requestAnimationFrame(check);
}})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=10_000)
    parser.add_argument("--work", type=Path, help="an empty folder, or the one of an earlier call")
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium here; CHROMIUM names another browser")
    with tempfile.TemporaryDirectory() as folder:
        root = (options.work or Path(folder)) / "tiny_gpt"
        if not root.exists():
            (root / ".autoresearch").mkdir(parents=True)
            ledger = Ledger(root / ".autoresearch" / "ledger.sqlite")
            FabricatedSession(ledger).plausible(options.experiments, keep_share=0.01)
            ledger.close()
        command = [*make_module_command("autoresearch"), "watch", str(root), "--json", "--port=0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                url = json.loads(process.stdout.readline())["url"]
                with sync_playwright() as playwright:
                    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                    page = browser.new_page(viewport={"width": 1360, "height": 900})
                    print_results(page, f"{url}s/tiny_gpt/nov23/", process.pid, options.experiments)
                    browser.close()
            finally:
                process.terminate()


def print_results(page: Page, address: str, server: int, experiments: int) -> None:
    paints, charts = [], []
    for _ in range(REPEATS):
        page.goto(address)
        page.wait_for_function(
            f"() => Number(document.querySelector('#chart').dataset.dots) > {experiments}"
        )
        charts.append(page.evaluate("performance.now()"))
        paints.append(
            page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        )

    def measure(act: str, done: str) -> float:
        return float(page.evaluate(MEASURE.format(act=act, done=done)))

    rows = "document.querySelector('#table tbody tr')?.dataset.open"
    search = "document.querySelector('[name=text]')"

    def fill(text: str) -> str:
        told = "dispatchEvent(new Event('input', {bubbles: true}))"
        return f"{search}.value = '{text}'; {search}.{told}"

    zoomed = "document.querySelector('[data-zoom=\"{}\"]').getAttribute('aria-pressed') === 'true'"
    click = "document.querySelector('{}').click()"

    def sort() -> float:
        first = page.evaluate(rows)
        return measure(click.format('[data-sort="gain"]'), f"{rows} !== '{first}'")

    kinds: list[tuple[str, Callable[[int], float]]] = [
        ("sort by gain", lambda i: sort()),
        ("search in all of them", lambda i: measure(fill(f"#{i + 1}"), f"{rows} === '{i + 1}'")),
        ("zoom to the last 200", lambda i: zoom(measure, click, zoomed, "200")),
        ("zoom out to all dots", lambda i: zoom(measure, click, zoomed, "all")),
        ("open an experiment", lambda i: open_one(page, measure, click)),
    ]
    print(
        f"{experiments:,} experiments; {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, chromium "
        f"{page.context.browser.version if page.context.browser else ''}; medians of {REPEATS}; "
        f"load of the machine meanwhile {os.getloadavg()[0]:.1f}\n"
    )
    print("| | | aim |\n|---|--:|--:|")
    print(f"| first paint | {statistics.median(paints[1:]):.0f} ms | 1,000 |")
    print(f"| first paint, of a server just started | {paints[0]:.0f} ms | 1,000 |")
    print(f"| all dots drawn | {statistics.median(charts[1:]):.0f} ms | |")
    for name, act in kinds:
        times = sorted(act(i) for i in range(REPEATS))
        print(f"| {name} | {statistics.median(times):.0f} ms | 100 |")
    memory = psutil.Process(server).memory_info().rss / 1e6
    print(f"| memory of the server | {memory:.0f} MB | 150 |")


def zoom(measure: Callable[[str, str], float], click: str, zoomed: str, kind: str) -> float:
    other = "all" if kind == "200" else "200"
    measure(click.format(f'[data-zoom="{other}"]'), zoomed.format(other))
    return measure(click.format(f'[data-zoom="{kind}"]'), zoomed.format(kind))


def open_one(page: Page, measure: Callable[[str, str], float], click: str) -> float:
    number = page.evaluate("document.querySelector('#table tbody tr').dataset.open")
    title = f"document.querySelector('#drawer h1')?.textContent.startsWith('#{number} ')"
    took = measure(click.format(f'tr[data-open="{number}"] a'), title)
    page.keyboard.press("Escape")
    page.evaluate("document.querySelector('#drawer-body').textContent = ''")
    return took


if __name__ == "__main__":
    main()
