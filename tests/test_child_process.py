"""Sub-processes: what is printed, what is logged, and that nothing outlives them."""

import os
import shlex
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lerobot_vla_plugin.child_process import LeRobotCommand, StepFailedError, run_command, start, stop_politely

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups")


@dataclass(frozen=True)
class PythonCommand:
    """Some Python source in place of a LeRobot command."""

    source: str
    name: str = "python"
    environment: dict = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-c", self.source]


def wait_for(condition, timeout_s: float = 10.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a process that nobody waited for is dead, too
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_the_printed_command_can_be_pasted():
    command = LeRobotCommand("lerobot-record", ["--a=b c", "--cameras={x: {y: 1}}"], {"V": "1 2"})
    words = shlex.split(str(command).replace("\\\n", ""))  # a shell joins such lines
    assert words == ["V=1 2", "lerobot-record", *command.options]
    assert command.argv == [sys.executable, "-m", "lerobot.scripts.lerobot_record", *command.options]


def test_lines_of_both_streams_and_of_progress_bars(tmp_path):
    lines: list[str] = []
    source = "import os, sys; print('one', flush=True); sys.stderr.write('a\\rb\\rc\\n'); print(os.environ['V'])"
    run_command(PythonCommand(source, environment={"V": "last"}), tmp_path / "logs" / "x.log", lines.append)
    assert lines[0] == "one"
    assert sorted(lines) == ["a", "b", "c", "last", "one"]
    assert (tmp_path / "logs" / "x.log").read_text().splitlines() == lines


def test_a_quiet_command_still_ticks(tmp_path):
    ticks: list[float] = []
    run_command(PythonCommand("import time; time.sleep(1)"), tmp_path / "x.log", on_tick=lambda: ticks.append(0.0))
    assert len(ticks) >= 3


def test_a_failure_says_why(tmp_path):
    source = "import sys; [print('line', i) for i in range(50)]; sys.exit('the port is not there')"
    with pytest.raises(StepFailedError) as caught:
        run_command(PythonCommand(source), tmp_path / "x.log")
    message = str(caught.value)
    assert "exit code 1" in message
    assert "the port is not there" in message
    assert "line 49" in message
    assert "line 10\n" not in message
    assert str(tmp_path / "x.log") in message


def test_interrupt_comes_first(tmp_path):
    """LeRobot's commands switch the torque off in the `finally` that an interrupt reaches, and SIGTERM does not."""
    torque = tmp_path / "torque"
    source = (
        f"import pathlib, time; torque = pathlib.Path({str(torque)!r})\n"
        "try:\n    torque.write_text('on'); time.sleep(60)\nfinally:\n    time.sleep(0.3); torque.write_text('off')\n"
    )
    process = start(PythonCommand(source))
    assert wait_for(lambda: torque.exists() and torque.read_text() == "on")
    stop_politely(process)
    assert torque.read_text() == "off"
    assert process.returncode is not None


def test_a_stubborn_child_and_its_children_are_killed(tmp_path):
    pid_file = tmp_path / "pid"
    source = (
        "import signal, subprocess, sys, time, pathlib\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid)); time.sleep(60)\n"
    )
    process = start(PythonCommand(source))
    assert wait_for(lambda: pid_file.exists() and pid_file.read_text())
    stop_politely(process, grace_s=0.2)
    assert process.returncode == -signal.SIGKILL
    assert wait_for(lambda: not is_alive(int(pid_file.read_text())))


def test_what_a_failed_command_leaves_behind_is_killed(tmp_path):
    pid_file = tmp_path / "pid"
    source = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], stdout=subprocess.DEVNULL,"
        " stderr=subprocess.DEVNULL)\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid)); sys.exit(3)\n"
    )
    with pytest.raises(StepFailedError, match="exit code 3"):
        run_command(PythonCommand(source), tmp_path / "x.log")
    assert wait_for(lambda: not is_alive(int(pid_file.read_text())))


def test_ctrl_c_in_the_parent_ends_the_child(tmp_path):
    pid_file = tmp_path / "pid"
    source = (
        "import os, pathlib, time\n"
        f"try:\n    pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)\n"
        "finally:\n    print('torque off')\n"
    )

    def interrupt() -> None:
        assert wait_for(lambda: pid_file.exists() and pid_file.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_command(PythonCommand(source), tmp_path / "x.log")
    thread.join()
    assert "torque off" in (tmp_path / "x.log").read_text()
    assert not is_alive(int(pid_file.read_text()))
