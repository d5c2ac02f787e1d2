"""Who may read the page, and what a page may do in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pages import PageServer, make_ledger, serve_pages

from autoresearch.web.security import HEADERS, Rules


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places") / "task"
    make_ledger(folder).close()
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[PageServer]:
    with serve_pages(folder) as server:
        yield server


@pytest.fixture(scope="module")
def locked(folder: Path) -> Iterator[PageServer]:
    with serve_pages(folder, token="right", is_loopback=False) as server:
        yield server


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "[", "a@127.0.0.1", ""],
)
def test_a_foreign_name_reads_nothing(page: PageServer, host: str) -> None:
    """DNS rebinding: the attacker's name resolves to this machine."""
    answer = page.get("/", Host=host.format(port=page.port))
    assert answer.status in (400, 421)
    assert "task" not in answer.text


@pytest.mark.parametrize("host", ["localhost:9999", "127.0.0.1:{port}", "LOCALHOST", "[::1]:80"])
def test_names_of_this_machine_are_served(page: PageServer, host: str) -> None:
    assert page.get("/", Host=host.format(port=page.port)).status == 200


def test_a_numeric_address_is_served_beyond_the_loopback_alone() -> None:
    assert Rules("t", False, 80).is_own_name("192.0.2.7:80")
    assert not Rules("t", True, 80).is_own_name("192.0.2.7:80")
    assert Rules("t", False, 80, frozenset({"box.lan"})).is_own_name("box.lan")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
        {"X_Autoresearch": ""},
    ],
    ids=str,
)
def test_another_site_cannot_post(page: PageServer, headers: dict[str, str]) -> None:
    if "X_Autoresearch" in headers:
        answer = page.ask("POST", "/", {"Origin": page.url})
    else:
        answer = page.post("/", **headers)
    assert answer.status == 403


def test_another_site_cannot_embed_but_may_link(page: PageServer) -> None:
    assert page.get("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403
    assert page.get("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
    assert page.ask("PUT", "/", {}).status == 403


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/s/task/t/events", "/nowhere"])
def test_nothing_without_the_token(locked: PageServer, path: str) -> None:
    assert locked.get(path).status == 401
    assert locked.get(f"{path}?token=wrong").status == 401
    assert locked.get(path, Cookie=f"{locked.rules.cookie}=wrong").status == 401
    assert locked.get(path, Authorization="Bearer wrong").status == 401


def test_the_token_becomes_a_cookie(locked: PageServer) -> None:
    answer = locked.get("/?all=1&token=right")
    assert (answer.status, answer.headers["location"]) == (303, "/?all=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert locked.get("/", Cookie=cookie.partition(";")[0]).status == 200
    assert locked.get("/", Authorization="Bearer right").status == 200
    # A path that begins with two slashes would lead the browser, and nothing else, elsewhere.
    assert locked.get("//evil.example/?token=right").headers["location"] == "/evil.example/"


def test_every_answer_forbids_scripts_of_others(page: PageServer) -> None:
    for path in ("/", "/static/app.js", "/nowhere"):
        answer = page.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy
    assert page.get("/", Host="evil.example").headers["content-security-policy"] == policy


def test_files_outside_static_are_not_served(page: PageServer) -> None:
    assert page.get("/static/../app.py").status == 404
    assert page.get("/static/%2e%2e/app.py").status == 404
