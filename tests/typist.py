"""A person at the terminal of a test: a thread that types, over and over, what starts and judges an attempt."""

import os
import threading


class Typist:
    """Types a space, which starts an attempt, then the key that judges it; again and again while it is entered.

    Args:
        terminal: The person's side of a pseudo-terminal.

    Attributes:
        key: The key that judges.
    """

    def __init__(self, terminal: int) -> None:
        self.key = "s"
        self._terminal, self._stop = terminal, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            os.write(self._terminal, b" ")
            if self._stop.wait(0.2):
                return
            os.write(self._terminal, self.key.encode())

    def __enter__(self) -> "Typist":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
