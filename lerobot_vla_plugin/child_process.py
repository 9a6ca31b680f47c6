"""LeRobot's commands as sub-processes: printed so that they can be copied, watched line by line, ended politely."""

import contextlib
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

# LeRobot switches the torque off where it handles an interrupt; returning to the first posture takes it 3 s.
POLITE_STOP_S = 12.0
_TERMINATE_S = 3.0
_TICK_S = 0.25
_TAIL_LINES = 15
_LINE_END = re.compile(rb"[\r\n]+")  # progress bars end their lines with a carriage return


class StepFailedError(RuntimeError):
    """A command ended with an exit code other than 0."""


@dataclass(frozen=True, slots=True)
class LeRobotCommand:
    """One of LeRobot's own commands, or `lerobot-vla`.

    Attributes:
        name: Such as "lerobot-record".
        options: Its options.
        environment: Variables set for it beside the inherited ones.
    """

    name: str
    options: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The command as one would type it in a shell, one option a line."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " \\\n    ".join([" ".join([*variables, self.name]), *map(shlex.quote, self.options)])

    @property
    def argv(self) -> list[str]:
        """The command for this very Python, wherever its scripts lie."""
        module = (
            "lerobot_vla_cli.main" if self.name == "lerobot-vla" else f"lerobot.scripts.{self.name.replace('-', '_')}"
        )
        return [sys.executable, "-m", module, *self.options]


def run_command(
    command: LeRobotCommand,
    log_path: Path,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
) -> None:
    """Run a command to its end, with its output in a file.

    Args:
        command: What to run.
        log_path: File for everything it prints; folders are created.
        on_line: Called with each line, in the order they are printed.
        on_tick: Called at least four times a second.

    Raises:
        StepFailedError: The exit code is not 0; the message holds the last lines.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    process = start(command)
    # A thread, because select knows no pipes on Windows, and so that the log also holds what the command says when it
    # is interrupted.
    reader = threading.Thread(target=_read_lines, args=(process.stdout, log_path, arrived.put), daemon=True)
    reader.start()
    try:
        for line in _until_end(arrived, on_tick):
            if line.strip():
                tail.append(line)
            on_line(line)
        exit_code = process.wait()
    finally:
        stop_politely(process)
        reader.join(_TERMINATE_S)  # a process that left the group may hold the pipe open
    if exit_code != 0:
        raise StepFailedError(
            f"{command.name} ended with exit code {exit_code}. Its last lines:\n\n"
            + "\n".join(f"    {line}" for line in tail)
            + f"\n\nEverything it printed is in {log_path}"
        )


def stop_politely(process: subprocess.Popen, grace_s: float = POLITE_STOP_S) -> None:
    """End a process and all that it started; does nothing where nothing is left.

    An interrupt comes first, as LeRobot's commands then switch the arm's torque off; SIGTERM would leave it on.

    Args:
        process: Started by `start`, leader of a process group of its own.
        grace_s: How long it may take to end after the interrupt, in [s].
    """
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TERMINATE_S)
    finally:  # a second Ctrl-C ends the waiting, not the killing
        _kill_group(process)


def start(command: LeRobotCommand) -> subprocess.Popen:
    """Start a command in a process group of its own.

    Args:
        command: What to run.
    """
    # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then ends the child in order.
    return subprocess.Popen(
        command.argv,
        env={**os.environ, **command.environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _kill_group(process: subprocess.Popen) -> None:
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # a new session's group has the id of its first process
    elif process.poll() is None:
        process.kill()
    process.wait()


def _until_end(arrived: "queue.SimpleQueue[str | None]", on_tick: Callable[[], None]) -> Iterator[str]:
    while True:
        on_tick()
        try:
            line = arrived.get(timeout=_TICK_S)
        except queue.Empty:
            continue
        if line is None:
            return
        yield line


def _read_lines(stream: IO[bytes], log_path: Path, put: Callable[[str | None], None]) -> None:
    """Hand over the lines of a pipe as they come, and None at its end; all of them go to the log as well."""
    rest = b""
    with log_path.open("w", encoding="utf-8") as log:
        while data := os.read(stream.fileno(), 65536):
            *lines, rest = _LINE_END.split(rest + data)
            for line in lines:
                _hand_over(line, log, put)
        if rest:
            _hand_over(rest, log, put)
    stream.close()
    put(None)


def _hand_over(line: bytes, log: IO[str], put: Callable[[str | None], None]) -> None:
    text = line.decode(errors="replace")
    print(text, file=log, flush=True)
    put(text)
