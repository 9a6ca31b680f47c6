"""The folder with the stable names of a twin's ports; one twin a folder."""

import os
import tempfile
from pathlib import Path
from typing import IO


class TwinAlreadyRunningError(RuntimeError):
    """Another twin holds the directory."""


def default_directory() -> Path:
    """Folder of the twin's stable port names, one a user."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"lerobot-vla-twin-{user}"


def lock_directory(directory: Path) -> IO[str]:
    """Take a directory; the system gives the lock back when the process dies, whatever kills it.

    Args:
        directory: The directory, which is made where it does not exist.

    Returns:
        An open file; closing it gives the lock back.

    Raises:
        TwinAlreadyRunningError: Another twin holds it.
        OSError: The system has no such locks (Windows).
    """
    try:
        import fcntl
    except ImportError as error:
        raise OSError("the twin needs pseudo-terminals, which Windows lacks; use Linux or macOS") from error
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (directory / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read().strip()
        lock.close()
        raise TwinAlreadyRunningError(
            f"a twin runs already in {directory} (process {pid}); stop it with `kill {pid}`, "
            "or give this one another --directory"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
