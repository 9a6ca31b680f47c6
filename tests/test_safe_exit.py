"""However a process ends, no servo keeps its torque, and what would have happened without us still happens."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from arms_on_twins import ArmOnTwin, wait_for

import lerobot_vla_plugin
from lerobot_vla_plugin.arms.followers import SO101VLAFollower

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has neither SIGHUP nor the twin")
SIGNALS = [signal.SIGTERM, signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
# Imports once for all; skips the package's own __init__, which registers policies: seconds that no arm needs.
FRESH_PROCESSES = """
import os, sys, types
package = types.ModuleType("lerobot_vla_plugin")
package.__path__ = [{package!r}]
sys.modules["lerobot_vla_plugin"] = package
from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.arms.config_followers import SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.followers import SO101VLAFollower

def run(port, crash):
    folder = example_calibration_dir("so_follower")
    follower = SO101VLAFollower(SO101VLAFollowerConfig(port=port, id="so101_follower", calibration_dir=folder))
    follower.connect()
    if crash:
        raise ValueError("outside any try")
    try:
        print("running", os.getpid(), flush=True)
        while True:
            follower.send_action(follower.get_observation())
    finally:
        print("saved", os.getpid(), flush=True)

for port in {ports!r}:
    if os.fork() == 0:
        run(port, crash=port == {ports!r}[-1])
        raise SystemExit
for _ in {ports!r}:
    pid, status = os.wait()
    print("ended", pid, os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture
def arm() -> Iterator[ArmOnTwin]:
    with ArmOnTwin() as arm:
        yield arm


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def test_signals_and_exceptions_in_a_fresh_process_leave_no_torque() -> None:
    with ArmOnTwin() as terminated, ArmOnTwin() as hung_up, ArmOnTwin() as crashed:
        arms = [terminated, hung_up, crashed]
        package = str(Path(lerobot_vla_plugin.__file__).parent)
        code = FRESH_PROCESSES.format(package=package, ports=[arm.port for arm in arms])
        words = [sys.executable, "-c", code]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
            lines, unused = [], list(SIGNALS)
            assert parent.stdout is not None
            assert parent.stderr is not None
            for line in parent.stdout:
                lines.append(line.split())
                if lines[-1][0] == "running":
                    os.kill(int(lines[-1][1]), unused.pop())
            log = parent.stderr.read()
        assert sorted(line[2] for line in lines if line[0] == "ended") == ["1", "129", "143"], log
        assert sorted(line[1] for line in lines if line[0] == "saved") == sorted(
            line[1] for line in lines if line[0] == "running"
        )
        assert "SIGTERM" in log
        assert "outside any try" in log
        for arm in arms:
            assert not arm.has_torque()


@pytest.mark.parametrize("number", SIGNALS)
def test_the_previous_handler_is_called_after_the_torque_is_off(arm: ArmOnTwin, number: signal.Signals) -> None:
    seen = []
    before = signal.signal(number, lambda *arguments: seen.append((arguments[0], arm.has_torque())))
    previous = signal.getsignal(number)
    follower = arm.device()
    follower.connect()
    assert arm.has_torque() == list(arm.middle)
    os.kill(os.getpid(), number)
    assert seen == [(number, [])]
    with pytest.raises(RuntimeError, match=rf"{number.name}.*connect\(\) again"):
        follower.send_action(follower.get_observation())
    follower.disconnect()
    assert signal.getsignal(number) is previous
    signal.signal(number, before)


def test_where_there_was_no_handler_finally_blocks_run_and_a_second_signal_ends_the_process(arm: ArmOnTwin) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    follower = arm.device()
    follower.connect()
    with pytest.raises(SystemExit) as end:
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.code == 143
    assert not arm.has_torque()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    follower.disconnect()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _read_for_ever(follower: SO101VLAFollower) -> None:
    while True:
        follower.get_observation()


def test_a_signal_in_the_middle_of_a_transaction_releases_the_torque(arm: ArmOnTwin) -> None:
    """The handler runs between two instructions of whatever the main thread does with the bus."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    follower = arm.device()
    for delay_s in (0.02, 0.0203, 0.0207, 0.0211, 0.0216):
        follower.connect()
        timer = threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        with pytest.raises(SystemExit):
            _read_for_ever(follower)
        assert not arm.has_torque()
        follower.disconnect()


def test_an_ignored_signal_stays_ignored(arm: ArmOnTwin) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    follower = arm.device()
    follower.connect()
    os.kill(os.getpid(), signal.SIGHUP)
    assert arm.has_torque() == list(arm.middle)
    follower.disconnect()
    signal.signal(signal.SIGHUP, before)


def test_handlers_stay_until_the_last_arm_has_gone(arm: ArmOnTwin) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ArmOnTwin("koch", "leader") as leader_arm:
        follower, leader = arm.device(), leader_arm.device()
        leader.connect()
        follower.connect()
        follower.disconnect()
        assert signal.getsignal(signal.SIGTERM) is not before
        leader.disconnect()
    assert signal.getsignal(signal.SIGTERM) is before


def test_whoever_takes_a_signal_over_meanwhile_keeps_it(arm: ArmOnTwin) -> None:
    calls = []
    original = signal.signal(signal.SIGTERM, lambda *_: calls.append("original"))
    follower = arm.device()
    follower.connect()
    ours: Any = signal.getsignal(signal.SIGTERM)

    def taken(*arguments: Any) -> None:
        calls.append("taken")
        ours(*arguments)

    signal.signal(signal.SIGTERM, taken)
    follower.disconnect()
    assert signal.getsignal(signal.SIGTERM) is taken
    follower.connect()
    os.kill(os.getpid(), signal.SIGTERM)
    assert calls == ["taken", "original"]
    assert not arm.has_torque()
    follower.disconnect()
    signal.signal(signal.SIGTERM, original)


def test_an_arm_in_another_thread_works_and_says_what_it_lacks(arm: ArmOnTwin, caplog) -> None:
    follower = arm.device()
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: (follower.connect(), follower.disconnect()))
    thread.start()
    thread.join()
    assert "outside the main thread" in caplog.text
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # the twin's thread; the child only waits
def test_a_forked_child_leaves_the_arm_alone(arm: ArmOnTwin) -> None:
    """LeRobot's picture writers are forked processes, ended by SIGTERM while the arm goes on."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    follower = arm.device()
    follower.connect()
    ready, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, b"x")
        signal.pause()
        os._exit(0)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert arm.has_torque() == list(arm.middle)
    follower.disconnect()
    os.close(ready)
    os.close(write_end)


def test_an_arm_that_nobody_holds_disconnects_itself(arm: ArmOnTwin) -> None:
    follower = arm.device()
    follower.connect()
    del follower
    assert wait_for(lambda: not arm.has_torque())
