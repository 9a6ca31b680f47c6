"""The folder with the stable names of a twin's ports; one twin a folder, as one evaluation a report."""

import os
import tempfile
from pathlib import Path
from typing import IO


class DirectoryInUseError(RuntimeError):
    """Another process holds the directory."""


def default_directory() -> Path:
    """Folder of the twin's stable port names, one a user."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"lerobot-vla-twin-{user}"


def lock_directory(directory: Path, holder: str = "a twin", option: str = "--directory") -> IO[str]:
    """Take a directory; the system gives the lock back when the process dies, whatever kills it.

    Args:
        directory: The directory, which is made where it does not exist.
        holder: What takes it, for messages.
        option: The option by which the user named it, for messages.

    Returns:
        An open file; closing it gives the lock back.

    Raises:
        DirectoryInUseError: Another process holds it.
        OSError: The system has no such locks (Windows).
    """
    try:
        import fcntl
    except ImportError as error:
        raise OSError(
            f"{holder} needs pseudo-terminals and locks of files, which Windows lacks; use Linux or macOS"
        ) from error
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (directory / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read().strip()
        lock.close()
        raise DirectoryInUseError(
            f"{holder} runs already in {directory} (process {pid}); stop it with `kill {pid}`, "
            f"or give this one another {option}"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
