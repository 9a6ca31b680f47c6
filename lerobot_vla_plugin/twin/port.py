"""A pseudo-terminal as a serial port that can vanish, with a stable name beside it."""

import heapq
import itertools
import os
import select
import time
from pathlib import Path


class PseudoPort:
    """Device side of a serial port: takes what the host sends, and sends when the moment has come.

    Args:
        link: Stable name of the port, a symbolic link; None for none.

    Attributes:
        path: Path of the terminal; it differs from one opening to the next.

    Raises:
        OSError: The system has no pseudo-terminals (Windows), or none is left.
    """

    def __init__(self, link: Path | None) -> None:
        self._link = link
        self._master, self._slave = _open_raw_pty()
        self._wake_read, self._wake_write = os.pipe()
        self._outbox: list[tuple[float, int, bytes]] = []
        self._count = itertools.count()
        self.path = os.ttyname(self._slave)
        if link is not None:
            link.unlink(missing_ok=True)  # left behind by a twin that was killed
            link.symlink_to(self.path)

    def receive(self) -> bytes | None:
        """Wait for bytes from the host, and send meanwhile what falls due; None once `wake` was called."""
        while True:
            self._send_due()
            wait_s = max(0.0, self._outbox[0][0] - time.monotonic()) if self._outbox else None
            ready, _, _ = select.select([self._master, self._wake_read], [], [], wait_s)
            if self._wake_read in ready:
                return None
            if self._master in ready:
                return os.read(self._master, 4096)

    def send(self, data: bytes, due_s: float) -> None:
        """Send bytes at a moment, in one piece.

        Args:
            data: The bytes.
            due_s: When the last of them has arrived, in [s].
        """
        heapq.heappush(self._outbox, (due_s, next(self._count), data))

    def wake(self) -> None:
        """End `receive`, from any thread."""
        os.write(self._wake_write, b"x")

    def vanish(self) -> None:
        """Remove terminal and stable name; a host that has it open reads its end or an error."""
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)

    def close(self) -> None:
        """Give back what is left after `vanish`; nothing may be called afterwards."""
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _send_due(self) -> None:
        while self._outbox and self._outbox[0][0] <= time.monotonic():
            _, _, data = heapq.heappop(self._outbox)
            try:
                os.write(self._master, data)
            except BlockingIOError:  # nobody reads: lost, as on a wire that nobody listens to
                continue


def _open_raw_pty() -> tuple[int, int]:
    """Master and slave descriptors of a new pseudo-terminal without echo.

    The slave descriptor must stay open: without any, the master raises EIO when the host closes the port.
    """
    try:
        import pty
        import tty
    except ImportError as error:
        raise OSError("the twin needs pseudo-terminals, which Windows lacks; use Linux or macOS") from error
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, slave
