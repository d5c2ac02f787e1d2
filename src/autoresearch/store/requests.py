"""What a user asks of a session that another process owns: a file in its folder for each wish.

The session looks before each experiment. A new start of the session forgets all wishes.
"""

from __future__ import annotations

from autoresearch.errors import StorageError
from autoresearch.store.paths import SessionPaths

END_ASKED = "asked to end after the experiment under way"
PAUSE_ASKED = "asked to pause"


class Requests:
    def __init__(self, paths: SessionPaths) -> None:
        self._pause = paths.folder / "pause"
        self._end = paths.folder / "end"

    @property
    def is_paused(self) -> bool:
        """Whether no further experiment is to begin until `resume`."""
        return self._pause.exists()

    @property
    def ends(self) -> bool:
        """Whether no further experiment is to begin, and the session is to end."""
        return self._end.exists()

    def pause(self) -> None:
        """Raises `StorageError`, as the other wishes do."""
        try:
            self._pause.touch()
        except OSError as error:
            raise StorageError(f"cannot write {self._pause}: {error.strerror}") from error

    def end(self) -> None:
        try:
            self._end.touch()
        except OSError as error:
            raise StorageError(f"cannot write {self._end}: {error.strerror}") from error

    def resume(self) -> None:
        """Take back a pause and an end."""
        for file in (self._pause, self._end):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"cannot remove {file}: {error.strerror}") from error

    def __str__(self) -> str:
        """For people; empty if nothing is asked."""
        return END_ASKED if self.ends else PAUSE_ASKED if self.is_paused else ""
