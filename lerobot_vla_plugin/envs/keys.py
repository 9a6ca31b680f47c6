"""Single key presses of the person at the terminal, read while an arm moves."""

import atexit
import os
import select
import sys
from typing import TextIO


class Keys:
    """The keyboard of a terminal; from `open` to `close` a key counts without Enter and is not echoed.

    Ctrl-C still interrupts. Whatever ends the process but SIGKILL, the terminal is as it was afterwards.

    Args:
        stream: The terminal; standard input if None.

    Raises:
        ValueError: It is no terminal, or the system has none whose keys can be read so (Windows).
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdin if stream is None else stream
        self._before: list | None = None
        try:
            import termios
        except ImportError as error:
            raise ValueError("expected a terminal whose keys can be read, as Linux and macOS have") from error
        self._termios = termios
        if not self._stream.isatty():
            raise ValueError(
                "expected a terminal at standard input, because a person judges every episode by a key; run "
                "lerobot-eval in a terminal (not with nohup, in a pipe, or as a job), or let a twin judge: "
                "--env.twin=... --env.scene=..."
            )

    def open(self) -> None:
        """Let single keys count; does nothing where they do already."""
        if self._before is not None:
            return
        import tty

        self._before = self._termios.tcgetattr(self._stream)
        tty.setcbreak(self._stream)
        atexit.register(self.close)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._before is None:
            return
        atexit.unregister(self.close)
        self._termios.tcsetattr(self._stream, self._termios.TCSADRAIN, self._before)
        self._before = None

    def forget(self) -> None:
        """Drop what was pressed up to now."""
        self._termios.tcflush(self._stream, self._termios.TCIFLUSH)

    def pressed(self) -> str | None:
        """The oldest key that was pressed and not asked for yet; None without waiting where there is none."""
        ready, _, _ = select.select([self._stream], [], [], 0)
        # Not through the stream, whose buffer `select` cannot see.
        return os.read(self._stream.fileno(), 1).decode(errors="replace") if ready else None
