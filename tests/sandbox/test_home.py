"""A run's own home folder: what of the user's is in it, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.sessions import ScriptedAgent, linux_only, make_task, run_session

from autoresearch.sandbox import landlock
from autoresearch.sandbox.home import make_home, make_links

pytestmark = [
    linux_only,
    pytest.mark.skipif(landlock.abi() == 0, reason="nothing is confined without Landlock"),
]

PUBLIC = (
    *(".rustup/toolchains/stable/bin/rustc", ".rustup/settings.toml", ".cargo/registry/src/crate"),
    *(".nvm/versions/node/v20/bin/node", "go/pkg/mod/m", ".local/share/uv/python/cp/bin/python"),
    *(".cache/huggingface/hub/model", ".cache/matplotlib/fontlist-v1.json", ".cache/mine/x"),
)
SECRET = (
    *(".cargo/credentials.toml", ".cargo/config.toml", ".npmrc", ".netrc", ".gitconfig"),
    *(".cache/huggingface/token", ".ssh/id", ".local/share/keyring", ".cache/other/x"),
)
PROGRAM = """\
import os, pathlib, sys
home, real = pathlib.Path.home(), pathlib.Path(sys.argv[1])
assert home != real and home.is_relative_to(os.environ["TMPDIR"])
for name in {public!r}:
    assert (home / name).read_text() == "token = 1", name
for name in {secret!r}:
    assert not os.path.lexists(home / name), name
    try:
        print((real / name).read_text())
    except PermissionError:
        pass
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text("a setting of this run's")
    assert not os.path.lexists(home / "left")
(home / "left").touch()
(home / ".cache/mine/y").write_text("declared")
for name in (".rustup/toolchains/new", ".cargo/registry/src/new", ".cache/huggingface/hub/new"):
    try:
        (home / name).touch()
    except OSError:
        continue
    raise SystemExit(name + " was written")
print("score:", int(os.environ["AUTORESEARCH_SEED"]))
"""


def test_toolchains_are_in_a_runs_home_and_secrets_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for name in (*PUBLIC, *SECRET):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("token = 1")
    (home / ".rustup/settings.toml").write_text("version = 1")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.delenv("CARGO_HOME", raising=False)
    monkeypatch.delenv("RUSTUP_HOME", raising=False)
    public = [name for name in PUBLIC if name != ".rustup/settings.toml"]
    text = PROGRAM.format(public=public, secret=SECRET)
    root = make_task(
        tmp_path / "task",
        text,
        'editable = ["prog.py"]\nobjective = "x"\n[metric]\nname = "score"\ngoal = "minimize"\n'
        f'[run]\ncommand = "python -S -E prog.py {home}"\ncaches = ["~/.cache/mine"]\n',
    )
    night = run_session(root, ScriptedAgent())
    assert all(run.metric is not None for run in night.runs)
    assert (home / ".cache/mine/y").exists()
    assert not (home / "left").exists()


def test_a_toolchain_elsewhere_has_its_usual_place(tmp_path: Path) -> None:
    (tmp_path / "rust" / "toolchains").mkdir(parents=True)
    links = make_links([], {"RUSTUP_HOME": str(tmp_path / "rust")})
    assert links[".rustup/toolchains"] == str(tmp_path / "rust" / "toolchains")


def test_a_cache_folder_elsewhere_has_its_usual_place(tmp_path: Path) -> None:
    granted = [tmp_path / "xdg" / "torch", tmp_path / "xdg" / "torch" / "hub"]
    granted[1].mkdir(parents=True)
    links = make_links(granted, {"XDG_CACHE_HOME": str(tmp_path / "xdg")})
    assert links[".cache/torch"] == str(granted[0])
    assert ".cache/torch/hub" not in links
    make_home(tmp_path / "made", links)
    make_home(tmp_path / "made", links)
    assert (tmp_path / "made" / ".cache" / "torch" / "hub").is_dir()
