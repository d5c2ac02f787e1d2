"""The pictures of the web page in README and docs, of a real session.

    python scripts/screenshots.py                     # a session of the task `instant`, made now
    python scripts/screenshots.py TASK_FOLDER TAG     # one that is there

Needs playwright and the system's chromium, as `make test-web` does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from autoresearch.store.paths import make_module_command

DOCS = Path(__file__).parent.parent / "docs"
COMMAND = make_module_command("autoresearch")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
EXPERIMENTS = 60
DESKTOP, PHONE = {"width": 1280, "height": 980}, {"width": 390, "height": 844}


def main() -> None:
    if len(sys.argv) == 3:
        take(Path(sys.argv[1]).resolve(), sys.argv[2])
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder) / "instant"
        subprocess.run([*COMMAND, "new", "instant", root], check=True)
        words = ["run", "--tag", "night", "--agent", "tuner", "--plain"]
        subprocess.run([*COMMAND, *words, "--experiments", str(EXPERIMENTS), root], check=True)
        take(root, "night")


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """The address of the page of a task, until the block ends."""
    command = [*COMMAND, "watch", str(root), "--json", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()


def take(root: Path, tag: str) -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium here; CHROMIUM names another browser")
    with serve(root) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        address = f"{url}s/{root.name}/{tag}/"
        shoot(browser, address, "watch.png", DESKTOP, "light")
        shoot(
            browser, address + find_best(browser, address), "watch-experiment.png", DESKTOP, "dark"
        )
        shoot(browser, address, "watch-phone.png", PHONE, "light")
        browser.close()


def find_best(browser: Browser, address: str) -> str:
    """The incumbent's part of the address."""
    page = browser.new_page()
    page.goto(address)
    number = re.sub(r"\D", "", page.inner_text("#head .change a"))
    page.close()
    return f"#{number}"


def shoot(browser: Browser, address: str, name: str, size: dict[str, int], scheme: str) -> None:
    page = browser.new_page(
        viewport={"width": size["width"], "height": size["height"]},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=2 if size is PHONE else 1.5,
    )
    page.goto(address)
    page.wait_for_function("() => Number(document.querySelector('#chart').dataset.dots) > 0")
    if "#" in address:
        page.wait_for_selector("#drawer .patch")
    page.wait_for_timeout(500)
    page.screenshot(path=DOCS / name)
    page.close()


if __name__ == "__main__":
    main()
