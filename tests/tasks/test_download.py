"""gpt's download.py against a real server on this machine, which breaks off, lies and redirects."""

import hashlib
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.tiny_gpt import GPT, import_modules

DATA = random.Random(7).randbytes(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
NAME = "shard_00000.parquet"


class Server(ThreadingHTTPServer):
    """Serves DATA under every name, in the ways that its attributes say."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.cut_after = []  # bytes of the next answers, then the connection breaks
        self.ranges = True
        self.tag = '"one"'
        self.linked_tag = None
        self.redirects = False
        self.sums = None
        self.status = None
        self.asked = []  # (path, Range)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        if self.path.endswith("SHA256SUMS"):
            return self.answer(200 if server.sums else 404, (server.sums or "").encode())
        server.asked.append((self.path, self.headers.get("Range")))
        if server.status:
            return self.answer(server.status, b"")
        if server.redirects and not self.path.startswith("/moved"):
            headers = {"Location": f"{server.address}/moved{self.path}"}
            return self.answer(302, b"", headers | {"X-Linked-ETag": f'"{server.linked_tag}"'})
        begin = self.headers.get("Range", "bytes=0-")[6:-1]
        same = self.headers.get("If-Range") in (None, server.tag)
        begun = int(begin) if server.ranges and same else 0
        total = len(server.data)
        if begun >= total:
            return self.answer(416, b"", {"Content-Range": f"bytes */{total}"})
        headers = {"ETag": server.tag} if server.tag else {}
        if begun:
            headers["Content-Range"] = f"bytes {begun}-{total - 1}/{total}"
        return self.answer(206 if begun else 200, server.data[begun:], headers)

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.server.cut_after.pop(0) if body and self.server.cut_after else None
        self.wfile.write(body[:cut])
        self.close_connection = True


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def download():
    with import_modules(GPT, ["corpus", "download"]) as modules, pytest.MonkeyPatch.context() as p:
        p.setattr(modules.download, "WAIT_S", 0.001)
        yield modules.download


def fetch(download, server, folder, names=(NAME,)):
    download.fetch_all(server.address, names, folder)
    return (folder / names[0]).read_bytes()


def ranges(server):
    return [begin for _, begin in server.asked]


def test_a_file_arrives_and_is_not_fetched_again(download, server, tmp_path):
    assert fetch(download, server, tmp_path / "new") == DATA
    assert fetch(download, server, tmp_path / "new") == DATA
    assert ranges(server) == [None]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [NAME]


def test_a_broken_connection_is_continued_where_it_broke(download, server, tmp_path):
    server.cut_after = [100_000, 50_000, 0]
    assert fetch(download, server, tmp_path) == DATA
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_stopped_download_goes_on_with_the_next_call(download, server, tmp_path):
    server.cut_after = [70_000] + [0] * 20
    with pytest.raises(SystemExit, match=r"(?s)broke after 70,000 bytes.*go on where it stopped"):
        fetch(download, server, tmp_path)
    assert not (tmp_path / NAME).exists()
    server.cut_after = []
    assert fetch(download, server, tmp_path) == DATA
    assert ranges(server)[-1] == "bytes=70000-"


def test_a_server_without_ranges_starts_over(download, server, tmp_path):
    server.ranges, server.cut_after = False, [100_000]
    assert fetch(download, server, tmp_path) == DATA


def test_a_file_that_has_changed_meanwhile_is_fetched_anew(download, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    (tmp_path / "shard_00000.parquet.tag").write_text('"old"')
    assert fetch(download, server, tmp_path) == DATA


def test_whole_but_not_yet_renamed(download, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(DATA)
    assert fetch(download, server, tmp_path) == DATA
    (tmp_path / NAME).unlink()
    (tmp_path / f"{NAME}.part").write_bytes(DATA + b"more")
    assert fetch(download, server, tmp_path) == DATA


@pytest.mark.parametrize("how", ["sums", "redirect"])
def test_other_bytes_than_announced_are_refused(download, server, tmp_path, how):
    if how == "sums":
        server.sums = f"{DIGEST}  {NAME}\n"
    else:
        server.redirects, server.linked_tag = True, DIGEST
    assert fetch(download, server, tmp_path) == DATA
    (tmp_path / NAME).unlink()
    server.data = DATA[:-1] + b"?"
    with pytest.raises(SystemExit, match=rf"its SHA-256 is \w+, expected {DIGEST}"):
        fetch(download, server, tmp_path)
    assert not list(tmp_path.iterdir())


def test_half_a_file_of_other_bytes_is_replaced(download, server, tmp_path):
    server.sums, server.tag = f"{DIGEST} *{NAME}\n", None
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    assert fetch(download, server, tmp_path) == DATA
    assert ranges(server) == ["bytes=1000-", None]


def test_a_missing_file_is_an_error_at_once(download, server, tmp_path):
    server.status = 404
    with pytest.raises(SystemExit, match=r"shard_00000.parquet: 404"):
        fetch(download, server, tmp_path)
    assert len(server.asked) == 1


def test_a_server_that_is_ill_for_a_while(download, server, tmp_path, capsys):
    server.status = 503
    with pytest.raises(SystemExit, match="503"):
        fetch(download, server, tmp_path)
    assert len(server.asked) == download.ATTEMPTS
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{NAME}: 503 Service Unavailable; again in 0 s"] * (download.ATTEMPTS - 1)


def test_several_at_a_time(download, server, tmp_path, capsys):
    names = [f"shard_{number:05d}.parquet" for number in range(9)]
    fetch(download, server, tmp_path, names)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert "9 of 9 files, 3 MB" in capsys.readouterr().out
