"""Runs a Python program in a fork as a fresh interpreter would: `python FILE`, `python -m MODULE`.

A fork inherits what its parent's imports have left. That is wanted for the modules themselves. This
file puts back the rest: the environment, `sys`, the standard streams, random states, and what the
standard library remembers of a process.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import os
import runpy
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn, TextIO

COERCED = ("LC_CTYPE",)  # the interpreter sets it if the locale is C
UNWRITTEN = 120  # the interpreter's exit code if its last output cannot be written


class Program:
    """A program and its arguments, for this process."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        path: Sequence[str],
        pristine: Mapping[str, Any],
    ) -> None:
        """`argv` is the interpreter's name, then FILE or `-m MODULE`, then the arguments. `path` is
        sys.path without the program's own folder. `pristine` are a new program's globals."""
        self.argv = list(argv)
        self.env = dict(env)
        self.path = list(path)
        self.pristine = dict(pristine)
        self.inherited = dict(sys.modules)
        self.is_module = argv[1] == "-m"
        self.folder = str(Path.cwd()) if self.is_module else _folder_of(argv[1])

    def enter(self) -> None:
        """Make this process a fresh one for the program, in its working folder."""
        coerced = {name: os.environ[name] for name in COERCED if name in os.environ}
        os.environ.clear()
        os.environ.update(self.env)
        for name in coerced.keys() - self.env.keys():
            os.environ[name] = coerced[name]
        sys.orig_argv = self.argv
        sys.argv = self.argv[1:]
        path = [p for p in self.path if p.endswith(".zip") or os.path.exists(p)]  # noqa: PTH110
        sys.path[:] = path if sys.flags.safe_path else [self.folder, *path]
        _open_streams()
        _reset_libraries()
        importlib.invalidate_caches()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        gc.enable()

    def run(self) -> NoReturn:
        """Run it, and end this process as the interpreter ends its own."""
        code, error = 0, None
        try:
            if self.is_module:
                self._make_main()
                sys.argv = ["-m", *self.argv[3:]]
                runpy._run_module_as_main(self.argv[2])  # type: ignore[attr-defined]
            else:
                self._run_file(self.argv[1])
        except SystemExit as end:
            code = _exit_code(end)
        except BaseException as failure:
            error = failure
        if error is not None:
            code = _report(error)
        code = self._finalize() or code
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code & 0xFF)

    def _finalize(self) -> int:
        """Do what the interpreter does at its end, for all that this process has made. The modules
        that it has inherited stay: to remove them takes 0.3 s for PyTorch. Returns an exit code if
        the output cannot be written, else 0."""
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        _flush()
        inherited = set(map(id, self.inherited.values()))
        names = [
            name
            for name, module in list(sys.modules.items())
            if isinstance(module, ModuleType) and id(module) not in inherited
        ]
        own = [weakref.ref(sys.modules.pop(name)) for name in names]
        for text in [text for text in gc.get_objects() if isinstance(text, io.TextIOWrapper)]:
            with suppress(OSError, ValueError):
                text.flush()  # a collection may close its buffer first
        gc.collect()
        for module in filter(None, [reference() for reference in own]):
            _clear(module)
        gc.collect()
        return _flush(is_last=True)

    def _make_main(self) -> ModuleType:
        """A module for the program, with the globals that the interpreter gives it."""
        main = ModuleType("__main__")
        files = ("__file__", "__cached__") if self.is_module else ()  # `runpy` sets them
        names = {name: value for name, value in self.pristine.items() if name not in files}
        main.__dict__.update(names, __name__="__main__", __doc__=None)
        if "__annotations__" in names:
            main.__annotations__ = {}
        for name in ("__main__", "__mp_main__"):  # the latter is multiprocessing's
            if name in sys.modules:
                sys.modules[name] = main
        return main

    def _run_file(self, name: str) -> None:
        file = name if name.startswith("/") else f"{Path.cwd()}/{name}"
        try:
            with open(file, "rb") as source:  # noqa: PTH123 - as the interpreter names it
                text = source.read()
        except OSError as error:
            print(
                f"{self.argv[0]}: can't open file {file!r}: [Errno {error.errno}] {error.strerror}",
                file=sys.stderr,
            )
            raise SystemExit(2) from None
        main = self._make_main()
        main.__dict__.update(__file__=file, __loader__=SourceFileLoader("__main__", file))
        code = compile(text, file, "exec", dont_inherit=True)
        try:
            exec(code, main.__dict__)
        finally:
            _flush()


def _folder_of(file: str) -> str:
    return os.path.dirname(os.path.realpath(file))  # noqa: PTH120


def _open_streams() -> None:
    """Open the standard streams like the interpreter at its start, with the same encodings."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        old: TextIO = getattr(sys, name)
        is_buffered = descriptor == 0 or not os.environ.get("PYTHONUNBUFFERED")
        mode = "rb" if descriptor == 0 else "wb"
        buffer: Any = open(  # noqa: SIM115
            descriptor, mode, -1 if is_buffered else 0, closefd=False
        )
        raw = buffer.raw if is_buffered else buffer
        raw.name = f"<{name}>"
        stream = io.TextIOWrapper(
            buffer,
            old.encoding,
            old.errors,
            "\n",
            line_buffering=is_buffered and (descriptor == 2 or raw.isatty()),
            write_through=not is_buffered,
        )
        stream.mode = mode[0]  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _reset_libraries() -> None:
    """Forget what libraries remember of the process that imported them. `random` does so itself."""
    resets: dict[str, Callable[[Any], None]] = {
        "tempfile": _reset_tempfile,
        "multiprocessing.process": _reset_multiprocessing,
        "numpy.random": lambda module: module.seed(),  # or all runs would draw the same numbers
    }
    for name, reset in resets.items():
        if name in sys.modules:
            reset(sys.modules[name])


def _reset_tempfile(module: Any) -> None:
    module.tempdir = module._name_sequence = None


def _reset_multiprocessing(module: Any) -> None:
    module.ORIGINAL_DIR = str(Path.cwd())
    module.current_process().authkey = os.urandom(32)


def _exit_code(end: SystemExit) -> int:
    code = end.code
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


def _report(error: BaseException) -> int:
    """Print an unhandled exception as the interpreter does; the traceback begins with the program's
    own frames. Returns the exit code."""
    traceback = _strip(error)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, traceback
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(type(error), error, traceback)
    except SystemExit as end:
        return _exit_code(end)
    except BaseException as failure:
        print("Error in sys.excepthook:", file=sys.stderr)
        sys.__excepthook__(type(failure), failure, _strip(failure))
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, traceback)
    return 1


def _strip(error: BaseException) -> TracebackType | None:
    """Remove this file's frames from the beginning of an error's traceback, and return that."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    return traceback


def _flush(*, is_last: bool = False) -> int:
    """Write what is in the buffers. Returns an exit code if that fails, else 0."""
    code = 0
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError) as error:
            if stream is sys.stdout and is_last:
                code = UNWRITTEN
                text = f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}\n"
                with suppress(OSError):
                    os.write(2, text.encode(errors="replace"))
    return code


def _clear(module: Any) -> None:
    """Let a module's globals end, in the interpreter's order: names with one underscore first."""
    names = getattr(module, "__dict__", {})
    for first in (True, False):
        for name in list(names):
            is_private = name.startswith("_") and not name.startswith("__")
            if is_private == first and name != "__builtins__":
                names[name] = None
