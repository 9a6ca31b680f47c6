"""How our followers connect and disconnect: nothing moves, and no motor keeps its torque whatever fails."""

import threading
import time
from typing import Any

import pytest
from arms_on_twins import FIRST_STEP_TICKS, LEROBOTS, ArmOnTwin, wait_for
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from lerobot_vla_plugin.arms.contract import ContractMismatchError
from lerobot_vla_plugin.twin.faults import Fault, FaultKind

# Start ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patience")
def test_connecting_with_a_stale_goal_moves_nothing(arm: ArmOnTwin) -> None:
    lerobots = arm.device(LEROBOTS)
    lerobots.connect()
    lerobots.bus.sync_write("Goal_Position", {"elbow_flex": 1500}, normalize=False)
    assert wait_for(lambda: arm.bus.positions_ticks()["elbow_flex"] == 1500)
    lerobots.disconnect()
    assert arm.bus.set_positions_by_hand({"elbow_flex": 2315})
    follower = arm.device()
    follower.connect()
    assert arm.has_torque() == list(arm.middle)
    follower.get_observation()
    time.sleep(0.05)
    assert arm.bus.positions_ticks() == arm.moved("elbow_flex", 2315 - arm.middle["elbow_flex"])
    follower.disconnect()


def test_a_contract_that_does_not_fit_stops_before_the_port_is_opened(arm: ArmOnTwin, monkeypatch) -> None:
    def refuse(robot: Any) -> None:
        raise ContractMismatchError("trained in percent")

    monkeypatch.setattr("lerobot_vla_plugin.arms.followers.check_robot", refuse)
    follower = arm.device()
    monkeypatch.setattr(follower.bus.port_handler, "openPort", lambda: pytest.fail("the port was opened"))
    with pytest.raises(ContractMismatchError):
        follower.connect()
    assert not follower.is_connected


class _Camera:
    """What connecting and disconnecting need of a camera; one that does not work fails at both."""

    def __init__(self, *, works: bool, connected: bool = False) -> None:
        self.is_connected = connected
        self._works = works

    def connect(self) -> None:
        if not self._works:
            raise ConnectionError("no camera")
        self.is_connected = True

    def disconnect(self) -> None:
        self.is_connected = False
        if not self._works:
            raise RuntimeError("camera thread hangs")


def test_a_camera_that_fails_leaves_no_torque_and_nothing_open(arm: ArmOnTwin) -> None:
    follower = arm.device()
    follower.cameras = {"front": _Camera(works=True), "wrist": _Camera(works=False)}
    with pytest.raises(ConnectionError, match="no camera"):
        follower.connect()
    assert not arm.has_torque()
    assert not follower.is_connected
    assert not follower.bus.is_connected
    assert not follower.cameras["front"].is_connected


def test_an_interrupt_right_after_the_torque_is_on_switches_it_off(arm: ArmOnTwin, monkeypatch) -> None:
    follower = arm.device()
    enable_torque, seen = follower.bus.enable_torque, []

    def interrupted(*arguments) -> None:
        enable_torque(*arguments)
        seen.append(arm.has_torque())
        raise KeyboardInterrupt

    monkeypatch.setattr(follower.bus, "enable_torque", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follower.connect()
    assert seen == [list(arm.middle)]
    assert not arm.has_torque()
    assert not follower.bus.is_connected


def test_a_motor_that_is_missing_at_the_start_leaves_the_others_without_torque(arm: ArmOnTwin) -> None:
    follower = arm.device(disable_torque_on_disconnect=False)
    follower.connect()
    follower.disconnect()
    assert arm.has_torque() == list(arm.middle)
    arm.bus.inject(Fault(FaultKind.MOTOR_GONE, joint="wrist_flex", count=1))
    with pytest.raises((ConnectionError, RuntimeError)):
        follower.connect()
    assert set(arm.has_torque()) <= {"wrist_flex"}
    assert not follower.bus.is_connected


def test_a_second_connect_is_refused_and_harms_nothing(arm: ArmOnTwin, follower: Any) -> None:
    with pytest.raises(DeviceAlreadyConnectedError):
        follower.connect()
    assert arm.has_torque() == list(arm.middle)
    follower.get_observation()


def test_another_program_at_the_port_is_refused_and_harms_nothing(arm: ArmOnTwin, follower: Any) -> None:
    with pytest.raises(ConnectionError) as refusal:
        arm.device().connect()
    assert "another program drives an arm at" in str(refusal.value.__cause__)
    assert arm.has_torque() == list(arm.middle)
    follower.send_action(arm.action(arm.middle))
    follower.disconnect()
    with arm.connected():
        assert arm.has_torque() == list(arm.middle)


def test_an_arm_without_calibration_connects_to_be_calibrated_and_takes_no_action(arm: ArmOnTwin, tmp_path) -> None:
    follower = arm.device(calibration_dir=tmp_path)
    follower.connect(calibrate=False)
    for use in (follower.get_observation, lambda: follower.send_action(arm.action(arm.middle))):
        with pytest.raises(RuntimeError, match="lerobot-calibrate"):
            use()
    follower.disconnect()
    assert not arm.has_torque()


def test_a_signal_while_the_torque_is_switched_on_ends_the_connection(arm: ArmOnTwin, monkeypatch) -> None:
    """Where a handler of somebody else catches the signal, as LeRobot's rollout does, the program goes on."""
    follower = arm.device()
    enable_torque = follower.bus.enable_torque

    def interrupted(*arguments: Any) -> None:
        follower.release_torque("SIGTERM")
        enable_torque(*arguments)

    monkeypatch.setattr(follower.bus, "enable_torque", interrupted)
    with pytest.raises(RuntimeError, match="SIGTERM"):
        follower.connect()
    assert not arm.has_torque()
    assert not follower.is_connected


def test_a_goal_that_a_signal_overtakes_does_not_bring_the_torque_back(
    arm: ArmOnTwin, follower: Any, monkeypatch
) -> None:
    write_goals_ticks, enable_torque = follower.bus.write_goals_ticks, follower.bus.enable_torque

    def overtaken(goals_ticks: dict[str, int]) -> None:
        follower.release_torque("SIGTERM")
        write_goals_ticks(goals_ticks)
        enable_torque()  # as some servos do by themselves

    monkeypatch.setattr(follower.bus, "write_goals_ticks", overtaken)
    with pytest.raises(RuntimeError, match="SIGTERM"):
        follower.send_action(arm.action(arm.middle))
    assert not arm.has_torque()


def test_the_watchdog_of_a_koch_is_armed_while_it_is_connected() -> None:
    with ArmOnTwin("koch") as arm:
        follower = arm.device()
        follower.connect()
        assert all(0 < units < 128 for units in arm.bus.registers("Bus_Watchdog").values())
        follower.disconnect()
        assert set(arm.bus.registers("Bus_Watchdog").values()) == {0}


# End -----------------------------------------------------------------------------------------------------


def test_a_dead_motor_does_not_keep_the_others_under_torque(arm: ArmOnTwin, follower: Any) -> None:
    arm.bus.inject(Fault(FaultKind.MOTOR_GONE, joint="shoulder_pan", count=1))
    with pytest.raises(ConnectionError, match="shoulder_pan"):
        follower.disconnect()
    assert set(arm.has_torque()) <= {"shoulder_pan"}
    assert not follower.bus.is_connected
    assert not follower.is_connected


def test_cameras_and_port_are_closed_whatever_else_fails(arm: ArmOnTwin, follower: Any) -> None:
    follower.cameras = {name: _Camera(works=name == "front", connected=True) for name in ("front", "wrist")}
    arm.bus.inject(Fault(FaultKind.MOTOR_GONE, joint="gripper", count=1))
    with pytest.raises(RuntimeError, match="camera thread hangs") as failure:
        follower.disconnect()
    assert "gripper" in str(failure.value.__context__)
    assert not any(camera.is_connected for camera in follower.cameras.values())
    assert not follower.bus.is_connected


def test_torque_stays_on_where_the_options_say_so(arm: ArmOnTwin) -> None:
    follower = arm.device(disable_torque_on_disconnect=False)
    follower.connect()
    follower.disconnect()
    assert arm.has_torque() == list(arm.middle)
    with pytest.raises(DeviceNotConnectedError):
        follower.disconnect()


def test_the_summary_of_the_guard_is_said_in_the_end(arm: ArmOnTwin, follower: Any, caplog) -> None:
    caplog.set_level("INFO")
    follower.send_action(arm.action(arm.moved("wrist_roll", 1000)))
    follower.disconnect()
    assert "the guard sent 1 actions and intervened: wrist_roll slow start 1 times (up to 86.4 deg)" in caplog.text


def test_what_went_wrong_on_the_bus_is_said_in_the_end(arm: ArmOnTwin, follower: Any, caplog) -> None:
    caplog.set_level("INFO")
    arm.bus.inject(Fault(FaultKind.DROP, count=1))
    follower.get_observation()
    follower.disconnect()
    assert "questions on the servo bus: 1 " in caplog.text
    assert "1 retries" in caplog.text


# The cable -----------------------------------------------------------------------------------------------


def test_an_unplugged_arm_is_an_error_and_still_counts_as_connected(arm: ArmOnTwin, follower: Any) -> None:
    arm.bus.unplug()
    with pytest.raises(ConnectionError, match="is gone"):
        follower.get_observation()
    assert follower.is_connected
    with pytest.raises(ConnectionError, match="the torque may still be on; switch off"):
        follower.disconnect()
    assert not follower.is_connected
    assert not follower.bus.is_connected


def test_an_arm_that_is_back_when_it_is_disconnected_loses_its_torque(arm: ArmOnTwin, follower: Any) -> None:
    arm.bus.replug()
    assert arm.has_torque() == list(arm.middle)
    follower.disconnect()
    assert not arm.has_torque()


@pytest.mark.parametrize("noticed_by", ["get_observation", "send_action"])
def test_an_arm_that_is_plugged_in_again_goes_on_from_where_it_stands(arm: ArmOnTwin, noticed_by: str) -> None:
    with arm.connected(reconnect=True) as follower:
        follower.send_action(arm.action(arm.middle))
        arm.goals_ticks(1)
        arm.bus.unplug()
        pushed = arm.moved("elbow_flex", 500)
        arm.bus.teleport(pushed)
        threading.Timer(0.15, arm.bus.start).start()
        if noticed_by == "get_observation":
            assert follower.get_observation() == arm.action(pushed)
        follower.send_action(arm.action(arm.middle))
        assert 0 < pushed["elbow_flex"] - arm.goals_ticks(2)["elbow_flex"] <= FIRST_STEP_TICKS
        assert arm.has_torque() == list(arm.middle)
    assert not arm.has_torque()


def test_an_arm_that_stays_away_is_an_error_in_the_end(arm: ArmOnTwin, monkeypatch) -> None:
    monkeypatch.setattr("lerobot_vla_plugin.arms.safe_connection.RECONNECT_S", 0.2)
    follower = arm.device(reconnect=True)
    follower.connect()
    arm.bus.unplug()
    started_s = time.monotonic()
    with pytest.raises(ConnectionError, match="port"):
        follower.get_observation()
    assert 0.2 < time.monotonic() - started_s < 1
    with pytest.raises(ConnectionError, match="may still be on"):
        follower.disconnect()


def test_a_dead_motor_is_an_error_at_once_even_where_a_port_would_be_waited_for(arm: ArmOnTwin) -> None:
    follower = arm.device(reconnect=True)
    follower.connect()
    arm.bus.inject(Fault(FaultKind.MOTOR_GONE, joint="wrist_flex", count=1))
    started_s = time.monotonic()
    with pytest.raises(ConnectionError, match="wrist_flex"):
        follower.get_observation()
    assert time.monotonic() - started_s < 2
    arm.bus.clear_faults()
    follower.disconnect()
    assert not arm.has_torque()
