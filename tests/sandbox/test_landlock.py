"""What a confined child can still touch, tried by real processes against the real kernel."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import tty
from collections.abc import Callable
from pathlib import Path

import pytest
from support.sessions import alive, wait_until

from autoresearch.protocols import Confinement
from autoresearch.sandbox import landlock, namespaces, seccomp
from autoresearch.sandbox.installed import subtract
from autoresearch.sandbox.landlock import Ruleset, describe

ABI = landlock.abi()
pytestmark = pytest.mark.skipif(ABI == 0, reason="this kernel has no Landlock")
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", sys.prefix, sys.base_prefix)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="what only root could do")

Try = Callable[..., str]


@pytest.fixture(autouse=True)
def no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Landlock and seccomp alone, as where the system allows no namespaces."""

    def isolate(*_: object) -> None:
        raise namespaces.Unavailable(errno.EPERM, "none here")

    monkeypatch.setattr(namespaces, "isolate", isolate)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A folder that a child may write; beside it `outside` with a file `secret`."""
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    return tmp_path / "inside"


@pytest.fixture
def attempt(inside: Path) -> Try:
    """Execute a line of Python in a confined child, in `inside`: "ok", or the error's name."""

    def attempt(line: str, **confinement: object) -> str:
        given: dict[str, object] = {"read": SYSTEM, "write": (str(inside),)} | confinement
        program = (
            "import ctypes, errno, os, signal, socket, subprocess, sys\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "def call(*numbers):\n"
            "    if libc.syscall(*numbers) < 0: raise OSError(ctypes.get_errno(), '')\n"
            f"try:\n    {line}\n    print('ok')\n"
            "except OSError as error:\n    print(errno.errorcode[error.errno])\n"
        )
        with Ruleset(Confinement(**given)) as ruleset:  # type: ignore[arg-type]
            done = subprocess.run(
                [sys.executable, "-S", "-E", "-c", program],
                cwd=inside,
                preexec_fn=ruleset.apply,
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return attempt


def test_what_is_allowed_works(attempt: Try) -> None:
    for line in (
        "open('new', 'w').write('x'); os.rename('new', 'old'); os.truncate('old', 0)",
        "os.mkdir('a'); os.mkdir('b'); open('a/x', 'w'); os.rename('a/x', 'b/x')",
        "os.symlink('x', 'link'); os.mkfifo('pipe'); os.unlink('link')",
        "subprocess.run(['true'], check=True)",
        "os.listdir('/etc')",
        "os.stat('../outside/secret')",  # names and sizes of files are not hidden
    ):
        assert attempt(line) == "ok", line


@pytest.mark.parametrize(
    "line",
    [
        "open('../outside/secret')",
        "os.listdir('../outside')",
        "open('../outside/secret', 'a')",
        "open('../outside/new', 'w')",
        "os.mkdir('../outside/new')",
        "os.unlink('../outside/secret')",
        "os.truncate('../outside/secret', 0)",
        "os.symlink('../outside/secret', 'link'); open('link')",
        "open('/etc/autoresearch-was-here', 'w')",
        "open('/dev/null')",
        "open('x', 'w'); os.rename('x', '../outside/x')",
    ],
)
def test_what_is_not_allowed_is_refused(attempt: Try, inside: Path, line: str) -> None:
    assert attempt(line) in ("EACCES", "EXDEV")
    assert [path.name for path in (inside.parent / "outside").iterdir()] == ["secret"]
    assert (inside.parent / "outside" / "secret").read_text() == "secret"


def test_a_hard_link_leads_nowhere(attempt: Try) -> None:
    assert attempt("os.link('../outside/secret', 'link')") in ("EACCES", "EXDEV")


def test_a_program_outside_is_not_executed(attempt: Try, inside: Path) -> None:
    program = inside.parent / "outside" / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert attempt(f"subprocess.run([{str(program)!r}])") == "EACCES"
    assert attempt(f"subprocess.run([{str(program)!r}])", read=(*SYSTEM, str(program))) == "ok"


def test_a_single_file_may_be_granted(attempt: Try, inside: Path) -> None:
    secret = str(inside.parent / "outside" / "secret")
    assert attempt("open('../outside/secret')", read=(*SYSTEM, secret)) == "ok"
    assert attempt("open('../outside/secret', 'a')", read=(*SYSTEM, secret)) == "EACCES"
    assert attempt("open('../outside/secret', 'w').write('x')", write=(secret,)) == "ok"
    assert attempt("os.unlink('../outside/secret')", write=(secret,)) == "EACCES"
    assert attempt("os.listdir('../outside')", write=(secret,)) == "EACCES"


def test_a_path_that_is_not_there_is_skipped(attempt: Try, inside: Path) -> None:
    missing = (str(inside / "no" / "such"), str(inside.parent / "outside" / "secret" / "below"))
    assert attempt("os.listdir('/etc')", read=(*SYSTEM, *missing)) == "ok"


def test_what_a_child_starts_is_confined_too(attempt: Try) -> None:
    assert attempt("subprocess.run(['cat', '../outside/secret'], check=False)") == "ok"
    line = "assert subprocess.run(['setsid', 'cat', '../outside/secret']).returncode == 1"
    assert attempt(line) == "ok"


def test_the_parent_stays_free(attempt: Try, inside: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert attempt("open('../outside/secret')") == "EACCES"
    assert (inside.parent / "outside" / "secret").read_text() == "secret"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(ABI < 6, reason="needs Landlock's ABI 6")
def test_no_signal_leaves(attempt: Try) -> None:
    assert attempt(f"os.kill({os.getpid()}, 0)") == "EPERM"
    assert attempt("os.kill(os.getppid(), signal.SIGCONT)") == "EPERM"
    own = "one = subprocess.Popen(['sleep', '60']); one.kill(); assert one.wait() == -9"
    assert attempt(own) == "ok"


def test_other_processes_keep_their_secrets(attempt: Try, inside: Path) -> None:
    with (inside.parent / "outside" / "secret").open() as secret:
        fd = secret.fileno()
        assert attempt(f"open('/proc/{os.getpid()}/fd/{fd}')") == "EACCES"
    for name in ("environ", "maps", "mem"):
        assert attempt(f"open('/proc/{os.getpid()}/{name}')") == "EACCES"
    assert attempt(f"open('/proc/{os.getpid()}/cwd/x')") == "EACCES"
    assert attempt("open('/proc/self/environ')") == "ok"


needs_seccomp = pytest.mark.skipif(not seccomp.is_available(), reason="needs seccomp")


@pytest.mark.skipif(ABI < landlock.NET_ABI, reason="needs Landlock's ABI 4")
@pytest.mark.parametrize("filtered", [True, False])
def test_tcp_is_denied_when_asked(
    attempt: Try, monkeypatch: pytest.MonkeyPatch, filtered: bool
) -> None:
    """By Landlock alone where there is no seccomp."""
    if not filtered:
        monkeypatch.setattr(seccomp, "is_available", lambda: False)
    assert "TCP" in (landlock.describe_network_denial() or "")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"socket.create_connection({server.getsockname()!r})"
        assert attempt(connect) == "ok"
        assert attempt(connect, network=True) == "ok"
        assert attempt(connect, network=False) == "EACCES"
    assert attempt("socket.create_server(('127.0.0.1', 0))", network=False) == "EACCES"


@needs_seccomp
@pytest.mark.parametrize(
    "line",
    [
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_INET6, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "socket.socket(socket.AF_VSOCK)",
        "call(425, 8, ctypes.create_string_buffer(120))",  # io_uring_setup, which makes sockets
        "call(0x40000000 | 41, 2, 1, 0)",  # by x86_64's other interface
    ],
)
def test_without_network_there_is_no_socket_that_leads_out(attempt: Try, line: str) -> None:
    assert attempt(line, network=False) == "EACCES"


@needs_seccomp
def test_without_network_processes_still_talk_to_each_other(attempt: Try) -> None:
    for line in (
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'",
        "s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen(); "
        "socket.socket(socket.AF_UNIX).connect('s')",
    ):
        assert attempt(line, network=False) == "ok", line


@needs_seccomp
@pytest.mark.parametrize("has_namespaces", [False, True])
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a compiler")
def test_a_program_of_32_bits_finds_no_way_around(
    attempt: Try, inside: Path, monkeypatch: pytest.MonkeyPatch, has_namespaces: bool
) -> None:
    """Its calls have other numbers: it can make none."""
    if has_namespaces:  # the filter for that case, which allows more
        monkeypatch.setattr(namespaces, "isolate", lambda *_: None)
    (inside / "x.c").write_text(
        "int main(void) { int r; char a[64] = {2, 0, 0, 0, 1};\n"
        '__asm__ volatile("int $0x80" : "=a"(r) : "a"(359), "b"(2), "c"(2), "d"(0)); '
        "return r < 0 ? -r : 0; }\n"
    )
    built = subprocess.run(["gcc", "x.c", "-o", "x"], cwd=inside, capture_output=True, check=False)
    if built.returncode != 0 or subprocess.run(["./x"], cwd=inside, check=False).returncode != 0:
        pytest.skip("this kernel runs no calls of 32 bits")
    line = "print(subprocess.run(['./x']).returncode)"
    for network in (None, False):
        assert attempt(line, network=network).split() == [str(errno.EACCES), "ok"]


@needs_seccomp
@pytest.mark.parametrize("has_namespaces", [False, True])
def test_nothing_is_typed_into_the_terminal(
    monkeypatch: pytest.MonkeyPatch, has_namespaces: bool
) -> None:
    """What a process puts into its terminal's input is read by the user's shell, which nothing
    confines. TIOCLINUX does it on a console; its other uses are refused as well."""
    if has_namespaces:
        monkeypatch.undo()  # of `no_namespaces`
    unconfined, typed = _type_into_terminal()
    assert (unconfined, typed) in (("ok", "x"), ("EIO", "")), "EIO: this kernel lets nobody"
    confinement = Confinement(read=SYSTEM, write=("/dev/tty", "/dev/ptmx", "/dev/pts"))
    with Ruleset(confinement) as ruleset:
        assert _type_into_terminal(ruleset.apply) == ("EPERM", "")
        assert _type_into_terminal(ruleset.apply, termios.TIOCLINUX) == ("EPERM", "")


def _type_into_terminal(
    confine: Callable[[], None] = lambda: None, command: int = termios.TIOCSTI
) -> tuple[str, str]:
    """Let a child put an "x" into the input of its controlling terminal. Returns "ok" or the
    error's name, and what can be read there afterwards."""
    master, terminal = pty.openpty()

    def prepare() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        confine()

    program = (
        "import errno, fcntl, sys\n"
        f"try:\n    fcntl.ioctl(0, {command}, b'x')\n    print('ok')\n"
        "except OSError as error:\n    print(errno.errorcode[error.errno])\n"
    )
    tty.setraw(terminal)
    command_line = [sys.executable, "-S", "-E", "-c", program]
    try:
        done = subprocess.run(
            command_line, stdin=terminal, stdout=subprocess.PIPE, preexec_fn=prepare, check=True
        )
        is_typed = select.select([terminal], [], [], 0)[0]
        return done.stdout.decode().strip(), os.read(terminal, 9).decode() if is_typed else ""
    finally:
        os.close(master)
        os.close(terminal)


@pytest.mark.skipif(not namespaces.is_available(), reason="needs namespaces")
def test_an_agent_has_terminals_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # of `no_namespaces`
    program = (
        "import errno, os, pty, sys\n"
        "mine, terminal = pty.openpty()\n"
        "os.write(terminal, b'x')\n"
        "print(os.read(mine, 1).decode(), os.ttyname(terminal))\n"
        "os.close(terminal), os.close(mine)\n"
        "try:\n    os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)\n"
        "except OSError as error:\n    print(errno.errorcode[error.errno])\n"
    )
    master, terminal = pty.openpty()
    command_line = [sys.executable, "-S", "-E", "-c", program, os.ttyname(terminal)]
    confinement = Confinement(read=SYSTEM, write=("/dev/tty", "/dev/ptmx", "/dev/pts"))
    try:
        with Ruleset(confinement) as ruleset:
            done = subprocess.run(
                command_line, stdout=subprocess.PIPE, preexec_fn=ruleset.apply, check=True
            )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.stdout.decode().splitlines() == ["x /dev/pts/0", "ENOENT"]


@needs_seccomp
@pytest.mark.parametrize("network", [None, False])
def test_the_limits_of_others_stay_as_they_are(attempt: Try, network: bool | None) -> None:
    set_it = "import resource; resource.prlimit({}, resource.RLIMIT_CPU, (50, 50))"
    before = resource.getrlimit(resource.RLIMIT_CPU)
    assert attempt(set_it.format("os.getppid()"), network=network) == "EACCES"
    assert resource.getrlimit(resource.RLIMIT_CPU) == before
    assert attempt(set_it.format(0), network=network) == "ok"
    asked = "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU)"
    assert attempt(asked, network=network) == "ok"


@pytest.mark.skipif(ABI < 6, reason="needs Landlock's ABI 6")
def test_abstract_sockets_of_others_belong_to_the_network(attempt: Try) -> None:
    name = f"\0autoresearch-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        connect = f"socket.socket(socket.AF_UNIX).connect({name!r})"
        assert attempt(connect) == "ok"
        assert attempt(connect, network=False) == "EPERM"


@root_only
def test_root_is_no_exception(attempt: Try) -> None:
    assert attempt("os.mknod('disk', 0o60600, os.makedev(1, 0))") in ("EPERM", "EACCES")
    assert attempt("os.mknod('null', 0o20600, os.makedev(1, 3))") in ("EPERM", "EACCES")
    assert attempt("open('/proc/sys/kernel/core_pattern', 'w')") == "EACCES"
    mount = "assert subprocess.run(['mount', '-t', 'tmpfs', 'x', '.']).returncode"
    assert attempt(mount) == "ok"
    read = "print(next(line for line in open('/proc/self/status') if line[:6] == 'CapEff'))"
    raise_it = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))"
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))"
    both = f"import resource; {limit}\n    try: {raise_it}\n    except ValueError: pass"
    assert attempt(both + "\n    else: raise OSError(errno.EBADF, '')") == "ok"
    left = int(attempt(read).split()[1], 16)
    assert left and not any(left >> capability & 1 for capability in landlock.DROPPED)


@root_only
@needs_seccomp
def test_root_changes_no_network_interface(attempt: Try) -> None:
    """A socket of AF_UNIX takes the commands for them, too. It sets again what is set already."""
    prelude = "import fcntl, struct; s = socket.socket(socket.AF_UNIX); "
    line = "r = fcntl.ioctl(s, {}, b'lo'.ljust(40, bytes(1))); fcntl.ioctl(s, {}, r)"
    for get, change in ((0x8942, 0x8943), (0x8913, 0x8914), (0x8921, 0x8922)):  # queue, flags, MTU
        assert attempt(prelude + line.format(get, change), network=False) == "EPERM"


@pytest.mark.parametrize("version", range(1, ABI + 1))
def test_each_version_of_the_interface(
    attempt: Try, inside: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """An older kernel enforces what its version knows, and `describe` says what is missing."""
    monkeypatch.setattr(landlock, "abi", lambda: version)
    monkeypatch.setattr(seccomp, "is_available", lambda: False)
    assert attempt("open('../outside/secret')") == "EACCES"
    assert attempt("open('new', 'w').write('x')") == "ok"
    moved = attempt("os.makedirs('a'); os.rename('new', 'a/new')")
    assert moved == ("EXDEV" if version == 1 else "ok")
    truncated = attempt("os.truncate('../outside/secret', 6)")
    assert truncated == ("ok" if version < 3 else "EACCES")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"socket.create_connection({server.getsockname()!r})"
        assert attempt(connect, network=False) == ("ok" if version < 4 else "EACCES")
    assert attempt(f"os.kill({os.getpid()}, 0)") == ("ok" if version < 6 else "EPERM")

    said = describe()
    assert any("truncated" in words for words in said.holds) == (version >= 3)
    assert any("signal" in words for words in said.holds) == (version >= 6)
    assert any("signal" in words for words in said.lacks) == (version < 6)
    assert any("move files" in words for words in said.lacks) == (version == 1)


def test_without_landlock_nothing_is_confined_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    with pytest.raises(OSError, match="has no Landlock"):
        Ruleset(Confinement())
    assert describe().holds == ()
    assert landlock.describe_network_denial() is None
    assert "no Landlock" in describe().lacks[0]


def test_a_rule_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(OSError, match="Landlock") as raised:
        Ruleset(Confinement(read=("/proc/self/ns/net",)))  # no file system of the kernel's own
    assert raised.value.filename == "/proc/self/ns/net"


def test_a_child_that_cannot_be_confined_is_not_started(tmp_path: Path) -> None:
    """The kernel stacks sixteen of them."""

    def confine_too_often() -> None:
        for _ in range(17):
            ruleset.apply()

    ruleset = Ruleset(Confinement(read=("/",), write=(str(tmp_path),)))
    with ruleset, pytest.raises(subprocess.SubprocessError):
        subprocess.run(["touch", "begun"], preexec_fn=confine_too_often, cwd=tmp_path)
    assert not (tmp_path / "begun").exists()


def test_it_travels_as_json() -> None:
    confinement = Confinement(("/usr",), ("/tmp/x", "/tmp/y"), network=False)
    assert Confinement.from_json(json.loads(json.dumps(confinement.to_json()))) == confinement


def test_a_folder_without_what_is_private_in_it(tmp_path: Path) -> None:
    for name in ("a/b/private", "a/b/open", "a/c", "d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    private = [tmp_path / "a" / "b" / "private"]
    assert subtract(tmp_path / "d", private) == [tmp_path / "d"]
    assert subtract(tmp_path / "a", private) == [tmp_path / "a/b/open", tmp_path / "a/c"]
    assert subtract(private[0] / "below", private) == []


def test_the_parents_death_still_kills(tmp_path: Path) -> None:
    """As runs and turns rely on (`PR_SET_PDEATHSIG`, set before it is confined)."""
    script = (
        "import os, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from autoresearch.protocols import Confinement, RunSpec\n"
        "from autoresearch.runners.warden.launch import ColdLauncher\n"
        "folder = Path(sys.argv[1])\n"
        "command = ('sh', '-c', 'echo $$ > pid; exec sleep 600')\n"
        "confinement = Confinement(('/',), (sys.argv[1],))\n"
        "spec = RunSpec(command, folder, folder / 'log', folder / 'outcome.json',"
        " {'PATH': os.environ['PATH']}, 600.0, confinement=confinement)\n"
        "started = ColdLauncher().start(spec, spec.log.open('wb'))\n"
        "while not os.path.exists('pid') or not open('pid').read(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())), 60)


# ---- processes in /proc: what CUDA needs ---------------------------------------------------------

SHMGET, ADD_KEY = (29, 248) if os.uname().machine == "x86_64" else (194, 217)
COMM = "open('/proc/self/task/%d/comm' % os.getpid(), 'w').write('x')"
CHILDS = "subprocess.run(['sh', '-c', 'echo x > /proc/$$/comm'], check=True)"


@pytest.mark.parametrize("line", [COMM, CHILDS])
def test_threads_get_names_where_that_is_allowed(
    attempt: Try, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a child's too: a run may start its program by a script."""
    assert attempt(COMM) == "EACCES"
    monkeypatch.undo()  # root without namespaces could change the kernel's settings: not confined
    assert attempt(line, proc=True) == "ok"
    assert attempt(COMM) in ("EACCES", "EROFS")


@root_only
@pytest.mark.parametrize(
    "line",
    [
        "open('/proc/sys/kernel/core_pattern', 'w')",
        "open('/proc/sys/kernel/hostname', 'w')",
        "open('/proc/%d/mem' % os.getppid(), 'r+b')",
    ],
)
def test_the_kernels_settings_stay_closed(
    attempt: Try, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    before = os.statvfs("/proc/sys").f_flag
    assert attempt(line, proc=True) in ("EROFS", "EACCES", "EPERM")
    assert os.statvfs("/proc/sys").f_flag == before  # the mounts are the child's alone


@pytest.mark.parametrize(
    "line",
    [
        f"call({SHMGET}, 0x5245, 4096, 0o1666)",
        f"call({ADD_KEY}, b'user', b'k', b'v', 1, -4)",
    ],
)
def test_nothing_is_left_in_the_kernel_for_who_comes_later(attempt: Try, line: str) -> None:
    assert attempt(line, network=False) == "EACCES"
    assert attempt("subprocess.run(['true'], check=True)", network=False) == "ok"


@needs_seccomp
@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("os.chmod('x', 0o111)", "EPERM"),
        ("os.fchmod(os.open('x', os.O_RDONLY), 0o311)", "EPERM"),
        ("call(452, -100, b'x', 0o111, 0)", "EPERM"),  # fchmodat2
        ("os.open('y', os.O_CREAT | os.O_WRONLY, 0o111)", "EPERM"),
        ("os.open('.', os.O_TMPFILE | os.O_WRONLY, 0o111)", "EPERM"),
        ("call(437, -100, b'x', bytes(24), 24)", "ENOSYS"),  # openat2
        ("os.mknod('y', 0o100111)", "EPERM"),
        ("os.chmod('x', 0o4755)", "EPERM"),
        ("os.setxattr('x', 'user.x', b'x')", "ENOTSUP"),
        ("[os.chmod('x', mode) for mode in (0o755, 0o644, 0o200, 0)]; os.umask(0o77)", "ok"),
        (
            "call(257 if os.uname().machine == 'x86_64' else 56, -100, b'x', 0, 0o111)",
            "ok",
        ),  # openat
    ],
)
def test_no_program_is_made_that_its_owner_may_not_read(
    attempt: Try, inside: Path, line: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would not count its time, nor its children's. Nor one that others run as its
    owner."""
    monkeypatch.undo()
    (inside / "x").touch()
    allowed = {answer} if namespaces.is_available() or answer != "ENOTSUP" else {"EPERM"}
    assert attempt(line) in allowed


@needs_seccomp
@pytest.mark.parametrize("has_namespaces", [False, True])
def test_a_umask_fails_never_and_hides_no_program(
    attempt: Try, inside: Path, monkeypatch: pytest.MonkeyPatch, has_namespaces: bool
) -> None:
    """Libraries learn the umask by setting it for a moment, to 0o666 for instance."""
    if has_namespaces:  # the filter for that case, which allows chmod
        monkeypatch.setattr(namespaces, "isolate", lambda *_: None)
    line = (
        "os.umask(0o22)\n"
        "    for mask in (0o22, 0o77, 0o777, 0o666, 0o477):\n"
        "        os.umask(mask)\n"
        "        os.close(os.open(f'made{mask:o}', os.O_CREAT | os.O_WRONLY, 0o777))\n"
        "        was = os.umask(0o22)\n"
        "        print(f'{mask:o} {was:o}')\n"
        "    was = os.umask(0o666); os.umask(was)\n"
        "    open('after', 'w').write('works'); print(open('after').read())"
    )
    told = attempt(line).splitlines()
    assert told == ["22 22", "77 77", "777 777", "666 22", "477 22", "works", "ok"]
    modes = {path.name: path.stat().st_mode & 0o777 for path in inside.glob("made*")}
    usual = {"made22": 0o755, "made77": 0o700, "made777": 0}
    assert modes == usual | {"made666": 0o755, "made477": 0o755}  # not 0o111 and 0o300


@needs_seccomp
@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("import fcntl; fcntl.fcntl(open('x', 'w'), fcntl.F_SETLEASE, fcntl.F_WRLCK)", "EPERM"),
        ("call(103 if os.uname().machine == 'x86_64' else 116, 3, bytes(9), 9)", "EPERM"),  # syslog
        ("call(435, bytes(88), 88)", "ENOSYS"),  # clone3
    ],
)
def test_what_would_hinder_the_warden_or_stay(
    attempt: Try, line: str, answer: str, network: bool
) -> None:
    assert attempt(line, network=network) == answer


@pytest.mark.skipif(not seccomp.is_available(), reason="needs seccomp")
@pytest.mark.parametrize("network", [False, True])
def test_no_file_system_is_reached_that_is_mounted_nowhere(attempt: Try, network: bool) -> None:
    """As root, the modes and attributes in a control group's could be changed, and stay so."""
    for number in (428, 430, 432, 433, 467):  # open_tree, fsopen, fsmount, fspick, open_tree_attr
        line = f"call(272, 0x10020000); call({number}, 0, 0, 0, 0, 0)"
        line = line if os.uname().machine == "x86_64" else line.partition("; ")[2]
        assert attempt(line, network=network) == "EPERM"
