"""Torque off when the process is told to end, or ends by an exception that nobody catches.

LeRobot switches the torque off in `finally` blocks. SIGTERM and SIGHUP run none of them, and some of its commands
connect an arm before the block begins.
"""

import atexit
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet

logger = logging.getLogger(__name__)

_SIGNAL_NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Releasable(Protocol):
    """An arm whose motors can be switched off."""

    def release_torque(self, reason: str) -> None:
        """Switch the torque off on every motor that still listens; never raises."""
        ...


type Handler = Callable[[int, FrameType | None], Any]

# Weak, so that an arm that nobody holds any more can still disconnect itself when it is collected.
_protected: "WeakSet[Releasable]" = WeakSet()


class _ReleaseAndPassOn:
    """Handler of one signal: torque off at once, then what would have happened without it.

    Args:
        previous: The handler that was there before.
    """

    def __init__(self, previous: Handler | int) -> None:
        self.previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _release_all(signal.Signals(number).name)
        if callable(self.previous):
            self.previous(number, frame)
            return
        # A second signal ends the process at once, as it would without us: the torque is off, somebody is in a hurry.
        signal.signal(number, signal.SIG_DFL)
        # The default ends the process without `finally` blocks, which is where LeRobot saves recorded data.
        raise SystemExit(128 + number)


def protect(arm: Releasable) -> None:
    """Release an arm's torque at the end of the process and at SIGTERM and SIGHUP.

    Signals are only caught where Python lets them: in the main thread. Ignored ones (`nohup`) stay ignored.

    Args:
        arm: The arm, until `unprotect`.
    """
    _protected.add(arm)
    if threading.current_thread() is not threading.main_thread():
        logger.warning("%s connects outside the main thread: SIGTERM and SIGHUP will not release its torque", arm)
        return
    for number in _signal_numbers():
        previous = signal.getsignal(number)
        # None is a handler that was not installed by Python, and that could not be called.
        if previous is None or previous is signal.SIG_IGN or isinstance(previous, _ReleaseAndPassOn):
            continue
        signal.signal(number, _ReleaseAndPassOn(previous))


def unprotect(arm: Releasable) -> None:
    """Forget an arm; with the last one, the signals get their previous handlers back.

    Args:
        arm: The arm; nothing happens where it is not protected.
    """
    _protected.discard(arm)
    if _protected or threading.current_thread() is not threading.main_thread():
        return
    for number in _signal_numbers():
        handler = signal.getsignal(number)
        # Where somebody took the signal over since then, ours stays behind theirs, with nothing to release.
        if isinstance(handler, _ReleaseAndPassOn):
            signal.signal(number, handler.previous)


def _signal_numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in _SIGNAL_NAMES if hasattr(signal, name)]


@atexit.register
def _release_at_exit() -> None:
    _release_all("the process ends without a disconnect")


def _release_all(reason: str) -> None:
    for arm in list(_protected):
        arm.release_torque(reason)


def _leave_to_the_parent() -> None:
    """A forked child (a picture writer, say) has the arm's open port, but the arm is not its own to switch off."""
    for arm in list(_protected):
        unprotect(arm)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_leave_to_the_parent)
