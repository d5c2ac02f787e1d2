"""Nothing passes from one run to the next: every kind of object that a run can name is written in
one confined process and looked for in the next.

What `docs/threat-model.md` says is open is not here: declared caches, the free space of the disk,
and the numbers of processes.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from autoresearch.protocols import Confinement
from autoresearch.sandbox import landlock, namespaces, seccomp
from autoresearch.sandbox.landlock import Ruleset

pytestmark = pytest.mark.skipif(
    landlock.abi() == 0 or not seccomp.is_available(),
    reason="this kernel has no Landlock or seccomp",
)
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/sys", sys.prefix, sys.base_prefix)
IS_ROOT = os.geteuid() == 0
X86 = os.uname().machine == "x86_64"
ADD_KEY, KEYCTL = (248, 250) if X86 else (217, 219)
SHMGET, SEMGET, MSGGET = (29, 64, 68) if X86 else (194, 190, 186)
MQ_OPEN = 240 if X86 else 180
USER_KEYRING, SEARCH, UNLINK = -4, 10, 9
KEY = 0x5EC4E7  # of objects of System V

CHANNELS = {
    # what is written, and how it is seen; FILE is a file of the user's that both may read
    "content": ("open(FILE, 'a').write('x')", "os.stat(FILE).st_size == 1"),
    "a new file": ("open(FOLDER + '/new', 'w')", "os.path.exists(FOLDER + '/new')"),
    "/tmp": ("open('/tmp/autoresearch-mark', 'w')", "os.path.exists('/tmp/autoresearch-mark')"),
    "/dev/shm": (
        "open('/dev/shm/autoresearch-mark', 'w')",
        "os.path.exists('/dev/shm/autoresearch-mark')",
    ),
    "mode": ("os.chmod(FILE, 0o640)", "os.stat(FILE).st_mode & 0o777 == 0o640"),
    "mode by descriptor": (
        "os.fchmod(os.open(FILE + '2', os.O_RDONLY), 0o640)",
        "os.stat(FILE + '2').st_mode & 0o777 == 0o640",
    ),
    "mode of a folder": ("os.chmod(FOLDER, 0o750)", "os.stat(FOLDER).st_mode & 0o777 == 0o750"),
    "time of change": ("os.utime(FILE, (5, 7))", "os.stat(FILE).st_mtime == 7"),
    "time of access": (
        "os.utime(FILE + '2', (5, os.stat(FILE + '2').st_mtime))",
        "os.stat(FILE + '2').st_atime == 5",
    ),
    "time of reading": ("open(FILE + '3').read()", "os.stat(FILE + '3').st_atime != 1"),
    "attribute": ("os.setxattr(FILE, 'user.mark', b'x')", "'user.mark' in os.listxattr(FILE)"),
    "attribute by descriptor": (
        "os.setxattr(os.open(FILE + '2', os.O_RDONLY), 'user.mark', b'x')",
        "'user.mark' in os.listxattr(FILE + '2')",
    ),
    "attribute removed": (
        "os.removexattr(FILE + '3', 'user.given')",
        "'user.given' not in os.listxattr(FILE + '3')",
    ),
    "flag": (  # nodump, as by chattr
        "fcntl.ioctl(os.open(FILE, os.O_RDONLY), 0x40086602, struct.pack('L', 0x40))",
        "fcntl.ioctl(os.open(FILE, os.O_RDONLY), 0x80086601, bytes(8))[0] & 0x40 != 0",
    ),
    "System V memory": (f"call({SHMGET}, {KEY}, 64, 0o1600)", f"call({SHMGET}, {KEY}, 64, 0) >= 0"),
    "System V semaphores": (
        f"call({SEMGET}, {KEY}, 1, 0o1600)",
        f"call({SEMGET}, {KEY}, 1, 0) >= 0",
    ),
    "System V messages": (f"call({MSGGET}, {KEY}, 0o1600)", f"call({MSGGET}, {KEY}, 0) >= 0"),
    "message queue": (
        f"call({MQ_OPEN}, b'autoresearch', os.O_CREAT | os.O_RDWR, 0o600, None)",
        f"call({MQ_OPEN}, b'autoresearch', os.O_RDONLY, 0, None) >= 0",
    ),
    "keyring": (
        f"call({ADD_KEY}, b'user', b'autoresearch', b'x', 1, {USER_KEYRING})",
        f"call({KEYCTL}, {SEARCH}, {USER_KEYRING}, b'user', b'autoresearch', 0) >= 0",
    ),
    "cores of the warden": (
        "os.sched_setaffinity(os.getppid(), [min(os.sched_getaffinity(0))])",
        "len(os.sched_getaffinity(os.getppid())) == 1",
    ),
    "priority of the warden": (
        "os.setpriority(os.PRIO_PROCESS, os.getppid(), 7)",
        "os.getpriority(os.PRIO_PROCESS, os.getppid()) == 7",
    ),
    "scheduler of the warden": (
        "os.sched_setscheduler(os.getppid(), os.SCHED_BATCH, os.sched_param(0))",
        "os.sched_getscheduler(os.getppid()) == os.SCHED_BATCH",
    ),
    "how soon the warden is killed": (
        "open(f'/proc/{os.getppid()}/oom_score_adj', 'w').write('7')",
        "open(f'/proc/{os.getppid()}/oom_score_adj').read().strip() == '7'",
    ),
}
if IS_ROOT:
    CHANNELS["owner"] = ("os.chown(FILE, 65534, -1)", "os.stat(FILE).st_uid == 65534")
    CHANNELS["flag that keeps a file"] = (  # append only, as by chattr +a
        "fcntl.ioctl(os.open(FILE + '3', os.O_RDONLY), 0x40086602, struct.pack('L', 0x20))",
        "fcntl.ioctl(os.open(FILE + '3', os.O_RDONLY), 0x80086601, bytes(8))[0] & 0x20 != 0",
    )

PRELUDE = """
import ctypes, fcntl, json, os, struct, sys
FOLDER = sys.argv[1]
FILE = FOLDER + '/file'
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if (result := libc.syscall(*arguments)) < 0: raise OSError(ctypes.get_errno(), 'refused')
    return result
results = {}
for name, line in json.loads(sys.argv[2]).items():
    try:
        results[name] = EXECUTE(line, globals())
    except OSError as error:
        results[name] = None
print(json.dumps(results))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "of-the-user"
    folder.mkdir()
    for name in ("file", "file2", "file3"):
        (folder / name).touch()
    os.setxattr(folder / "file3", "user.given", b"x")
    os.utime(folder / "file3", (1, 1))
    yield folder
    for name in ("/tmp/autoresearch-mark", "/dev/shm/autoresearch-mark"):
        Path(name).unlink(missing_ok=True)
    subprocess.run(["chattr", "-a", folder / "file3"], check=False, capture_output=True)


def pass_on(folder: Path, confine: bool) -> dict[str, bool]:
    """Write all channels in one process, and say which of them the next one sees."""

    def execute(column: int, function: str, own: Path) -> str:
        own.mkdir()
        lines = json.dumps({name: channel[column] for name, channel in CHANNELS.items()})
        program = PRELUDE.replace("EXECUTE", function)
        confinement = Confinement((*SYSTEM, str(folder)), (str(own), "/dev/shm"), network=False)
        with Ruleset(confinement) if confine else nullcontext() as ruleset:
            return subprocess.run(
                [sys.executable, "-S", "-E", "-c", program, str(folder), lines],
                preexec_fn=ruleset.apply if ruleset else None,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                cwd=own,
            ).stdout

    execute(0, "exec", folder.parent / "first")
    return json.loads(execute(1, "eval", folder.parent / "second"))


def seen(folder: Path, confine: bool) -> set[str]:
    """In a process of its own, whose priority and cores the programs would change."""
    result, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            names = [name for name, is_seen in pass_on(folder, confine).items() if is_seen]
            os.write(end, json.dumps(names).encode())
        finally:
            os._exit(0)
    os.close(end)
    with os.fdopen(result) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return set(json.loads(text))


def test_the_channels_are_real(folder: Path) -> None:
    """Without a sandbox each of them works: the other tests would show if one were open."""
    try:
        assert seen(folder, confine=False) == CHANNELS.keys()
    finally:
        libc = landlock.LIBC
        for get, control, size in (
            (SHMGET, 31 if X86 else 195, [64]),
            (MSGGET, 71 if X86 else 187, []),
        ):
            libc.syscall(control, libc.syscall(get, KEY, *size, 0), 0, None)
        libc.syscall(66 if X86 else 191, libc.syscall(SEMGET, KEY, 1, 0), 0, 0)
        libc.syscall(241 if X86 else 181, b"autoresearch")
        key = libc.syscall(KEYCTL, SEARCH, USER_KEYRING, b"user", b"autoresearch", 0)
        libc.syscall(KEYCTL, UNLINK, key, USER_KEYRING)


@pytest.mark.skipif(not namespaces.is_available(), reason="this system allows no namespaces")
def test_nothing_passes_where_there_are_namespaces(folder: Path) -> None:
    assert seen(folder, confine=True) == set()


def test_less_passes_where_there_are_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """seccomp refuses what changes attributes; `/dev/shm` is shared and reading sets a time, as
    `autoresearch check` says."""

    def isolate(*_: object) -> None:
        raise namespaces.Unavailable(errno.EPERM, "none here")

    monkeypatch.setattr(namespaces, "isolate", isolate)
    assert seen(folder, confine=True) == {"/dev/shm", "time of reading"}
