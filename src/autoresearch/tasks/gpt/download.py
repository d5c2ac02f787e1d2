"""
Download large files: resumable, several at a time, checked, with progress. Frozen.

A file arrives as NAME.part and gets its name when it is whole. A broken connection is continued
where it broke, by a Range request, and so is a download that was stopped. What a file should hold
is told by the server's `X-Linked-ETag` (Hugging Face: the SHA-256 of a large file), or by a file
SHA256SUMS beside it on a mirror. Without either, its length is checked.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from corpus import fail

CONNECTIONS = 4
TIMEOUT_S = 30.0
ATTEMPTS = 6  # in a row that bring nothing
WAIT_S = 1.0  # before the second attempt; twice as long before each further one
BLOCK = 1 << 20
DIGEST = re.compile(r"[0-9a-f]{64}")
FAILURES = (OSError, http.client.HTTPException)  # URLError and timeouts are OSErrors


class Mismatch(Exception):
    """The server has another file than the one that was begun, or than it says."""


def fetch_all(source: str, names: Sequence[str], folder: Path) -> None:
    """Download the files `names` from the address `source` into `folder`. Those that are there are
    left as they are. Ends the program if one cannot be had."""
    missing = [name for name in names if not (folder / name).exists()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    sums = read_sums(source)
    progress = Progress(len(missing))
    stopping = threading.Event()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        jobs = [
            threads.submit(
                fetch, f"{source}/{name}", folder / name, sums.get(name), progress, stopping
            )
            for name in missing
        ]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            stopping.set()
            for job in jobs:
                job.cancel()
            raise
        finally:
            progress.finish()


def fetch(
    url: str,
    target: Path,
    digest: str | None,
    progress: Progress,
    stopping: threading.Event,
) -> None:
    """Download one file. Ends the program after ATTEMPTS that brought nothing."""
    part = target.with_name(f"{target.name}.part")
    failed = 0
    while True:
        before = size_of(part)
        try:
            told = receive(url, part, progress, stopping)
            check(part, digest or told)
            part.replace(target)
            progress.done()
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403, 404, 410):
                fail(f"{url}: {error.code} {error.reason}")
            reason = f"{error.code} {error.reason}"
        except Mismatch as mismatch:
            part.unlink(missing_ok=True)
            reason = str(mismatch)
        except FAILURES as error:
            reason = str(error) or type(error).__name__
        failed = failed + 1 if size_of(part) <= before else 0
        if failed >= ATTEMPTS or stopping.is_set():
            fail(
                f"{url}: {reason}\nCall this again to go on where it stopped. "
                "Or name a mirror or a folder: --from ADDRESS-OR-FOLDER"
            )
        if failed:
            wait_s = WAIT_S * 2 ** (failed - 1)
            progress.say(f"{target.name}: {reason}; again in {wait_s:.0f} s")
            stopping.wait(wait_s)


def receive(url: str, part: Path, progress: Progress, stopping: threading.Event) -> str | None:
    """Append to `part` what is missing. Returns the file's SHA-256, if the server tells it. Raises
    `Mismatch`, or one of FAILURES if less came than was announced."""
    begun, tag_file = size_of(part), part.with_suffix(".tag")
    tag = tag_file.read_text() if begun and tag_file.is_file() else ""
    headers = {"User-Agent": "autoresearch", "Accept-Encoding": "identity"}
    if begun:
        headers |= {"Range": f"bytes={begun}-"} | ({"If-Range": tag} if tag else {})
    redirects = Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing is missing, or the file has become shorter
            total = total_of(error.headers.get("Content-Range"))
            if total == begun:
                return redirects.digest(error.headers)
            raise Mismatch(f"{begun:,} bytes were there already, of {total}") from error
        raise
    with response:
        if begun and response.status != 206:
            begun = 0  # it sends the whole file
        elif begun and not starts_at(response.headers.get("Content-Range"), begun):
            raise Mismatch(f"asked for the bytes from {begun:,} on, and got others")
        length = response.headers.get("Content-Length")
        progress.expect(part, begun, begun + int(length) if length else None)
        if strong := strong_tag(response.headers.get("ETag")):
            tag_file.write_text(strong)
        else:
            tag_file.unlink(missing_ok=True)
        with part.open("r+b" if begun else "wb") as file:
            file.seek(begun)
            while block := response.read(BLOCK):
                file.write(block)
                progress.add(part, len(block))
                if stopping.is_set():
                    raise OSError("stopped")
        if length and size_of(part) != begun + int(length):
            raise OSError(f"the connection broke after {size_of(part):,} bytes")
    tag_file.unlink(missing_ok=True)
    return redirects.digest(response.headers)


def check(part: Path, digest: str | None) -> None:
    if digest is not None and (found := hash_file(part)) != digest:
        raise Mismatch(f"its SHA-256 is {found}, expected {digest}")


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def starts_at(content_range: str | None, begun: int) -> bool:
    return bool(re.match(rf"bytes {begun}-", content_range or ""))


def total_of(content_range: str | None) -> int | None:
    found = re.search(r"/(\d+)$", content_range or "")
    return int(found[1]) if found else None


def strong_tag(tag: str | None) -> str | None:
    """An ETag that If-Range accepts: not a weak one."""
    return tag if tag and not tag.startswith("W/") else None


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and remembers the digest that a server tells before it redirects."""

    def __init__(self) -> None:
        self.found: str | None = None

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str):  # type: ignore[no-untyped-def]
        self.digest(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def digest(self, headers: Any) -> str | None:
        found = DIGEST.fullmatch((headers.get("X-Linked-ETag") or "").strip('"'))
        self.found = found[0] if found else self.found
        return self.found


def read_sums(source: str) -> dict[str, str]:
    """Return the SHA-256 of files by name, from a mirror's SHA256SUMS; empty if it has none."""
    try:
        with urllib.request.urlopen(f"{source}/SHA256SUMS", timeout=TIMEOUT_S) as response:
            text = response.read(10_000_000).decode(errors="replace")
    except urllib.error.HTTPError as error:
        error.close()
        return {}
    except FAILURES:
        return {}
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    return {
        pair[1].strip().lstrip("*"): pair[0]
        for pair in pairs
        if len(pair) == 2 and DIGEST.fullmatch(pair[0])
    }


class Progress:
    """How much of several files is there, on one line of a terminal, or as a line now and then."""

    def __init__(self, files: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.files, self.finished, self.received = files, 0, 0
        self.sizes: dict[Path, list[int | None]] = {}  # [there, in all]
        self.clock, self.start, self.shown = clock, clock(), -1e9
        self.is_terminal = sys.stdout.isatty()
        self.lock = threading.Lock()

    def expect(self, part: Path, there: int, total: int | None) -> None:
        with self.lock:
            self.sizes[part] = [there, total]

    def add(self, part: Path, count: int) -> None:
        with self.lock:
            self.received += count
            self.sizes[part][0] = (self.sizes[part][0] or 0) + count
            if self.clock() - self.shown > (0.2 if self.is_terminal else 10):
                self.show()

    def done(self) -> None:
        with self.lock:
            self.finished += 1
            self.show()

    def say(self, text: str) -> None:
        with self.lock:
            print(f"\r{text}\033[K" if self.is_terminal else text, flush=True)

    def show(self) -> None:
        self.shown = self.clock()
        there = sum(size[0] or 0 for size in self.sizes.values())
        speed = self.received / max(self.shown - self.start, 1e-3)
        line = f"download   {self.finished} of {self.files} files, {there / 1e6:,.0f} MB"
        line += f", {speed / 1e6:.1f} MB/s"
        print(f"\r{line}\033[K" if self.is_terminal else line, end="", flush=True)
        if not self.is_terminal:
            print(flush=True)

    def finish(self) -> None:
        if self.is_terminal:
            print()
