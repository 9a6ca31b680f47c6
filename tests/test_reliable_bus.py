"""Both servo families against emulated servos: exact units, and torque that begins and ends as it must."""

import logging
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from buses_on_twins import ARMS, Pair, connected_pair, host, middle_of
from lerobot.motors import MotorCalibration
from lerobot.utils.errors import DeviceNotConnectedError

from lerobot_vla_plugin.twin.faults import Fault, FaultKind


@pytest.fixture(params=ARMS)
def arm(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pair(arm: str) -> Iterator[Pair]:
    with connected_pair(arm) as pair:
        yield pair


# Units -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [True, False])
def test_units_read_as_in_lerobot_and_command_every_tick_exactly(arm: str, degrees: bool) -> None:
    _, ours, theirs, calibration = ARMS[arm]
    bus, lerobots = host(ours, "none", degrees=degrees), host(theirs, "none", degrees=degrees)
    for joint in calibration.values():
        for ticks in range(joint.range_min, joint.range_max + 1):
            units = bus._normalize({joint.id: ticks})
            assert units == lerobots._normalize({joint.id: ticks})
            assert bus._unnormalize({joint.id: float(np.float32(units[joint.id]))}) == {joint.id: ticks}


def test_a_new_calibration_is_used_at_once(arm: str) -> None:
    bus = host(ARMS[arm][1], "none")
    before = bus._normalize({2: 2000})
    bus.calibration = {n: MotorCalibration(c.id, 0, 0, 0, 2000) for n, c in bus.calibration.items()}
    assert bus._normalize({2: 2000}) != before
    bus.calibration = {}
    with pytest.raises(RuntimeError, match="no calibration"):
        bus._normalize({2: 2000})


def test_goals_arrive_tick_by_tick_and_no_number_but_a_finite_one_is_a_goal(pair: Pair) -> None:
    goals = {name: position + 3 for name, position in pair.middle.items()}
    pair.bus.write_goals_ticks(goals)
    assert pair.bus.sync_read("Goal_Position", normalize=False) == goals
    pair.bus.sync_write("Goal_Position", pair.bus.sync_read("Present_Position"))
    assert pair.bus.sync_read("Goal_Position", normalize=False) == pair.middle
    for nonsense in (float("nan"), float("inf")):
        with pytest.raises((ValueError, OverflowError)):
            pair.bus.sync_write("Goal_Position", {"elbow_flex": nonsense})
    assert pair.servos.registers("Goal_Position") == pair.middle


def test_a_joint_that_was_moved_at_once_is_doubted_and_then_believed(pair: Pair) -> None:
    assert pair.bus.read_positions_ticks() == pair.middle
    moved = {**pair.middle, "elbow_flex": pair.middle["elbow_flex"] + 900}
    pair.servos.teleport(moved)
    assert pair.bus.read_positions_ticks() == moved
    assert pair.bus.statistics.implausible == 1


def test_a_lost_reply_hides_no_servo_from_a_broadcast_ping(pair: Pair) -> None:
    pair.servos.inject(Fault(FaultKind.DROP, joint="elbow_flex", count=1))
    found = pair.bus.broadcast_ping()
    assert found == {pair.bus.motors[n].id: pair.bus.ping(n) for n in pair.bus.motors}


def test_calibrating_survives_bad_replies(pair: Pair) -> None:
    pair.bus.disable_torque()
    pair.servos.inject(Fault(FaultKind.CORRUPT, rate=0.1), Fault(FaultKind.DROP, rate=0.05))
    calibration = pair.bus.read_calibration()
    pair.bus.set_half_turn_homings()
    assert set(pair.bus.read_positions_ticks().values()) == {2047}
    pair.bus.write_calibration(calibration)
    assert pair.bus.is_calibrated
    assert pair.bus.statistics.failures == 0


# Torque ----------------------------------------------------------------------------------------------------


def test_a_stale_goal_does_not_move_the_arm(pair: Pair) -> None:
    pair.bus.disable_torque()
    pair.bus.write_goals_ticks({name: position + 300 for name, position in pair.middle.items()})
    pair.bus.enable_torque()
    assert all(pair.servos.torque_enabled().values())
    assert pair.servos.registers("Goal_Position") == pair.middle
    assert pair.servos.positions_ticks() == pair.middle


def test_a_joint_outside_its_range_is_said_before_torque(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    outside = pair.bus.calibration["elbow_flex"].range_max + 50
    pair.servos.teleport({"elbow_flex": outside})
    with caplog.at_level(logging.WARNING):
        pair.bus.enable_torque("elbow_flex")
    assert f"elbow_flex stands at {outside}" in caplog.text


def test_torque_that_cannot_come_on_everywhere_stays_off(pair: Pair) -> None:
    pair.bus.read_positions_ticks()
    pair.servos.inject(Fault(FaultKind.MOTOR_GONE, joint="wrist_roll", count=1))
    with pytest.raises(ConnectionError, match="wrist_roll") as raised:
        pair.bus.enable_torque()
    assert not any(pair.servos.torque_enabled().values())
    assert "torque may still be on at ['wrist_roll']" in "".join(raised.value.__notes__)


def test_a_dead_motor_keeps_no_other_under_torque_and_no_port_open(pair: Pair) -> None:
    pair.bus.enable_torque()
    pair.servos.inject(Fault(FaultKind.DROP, joint="shoulder_pan"))
    with pytest.raises(ConnectionError, match=r"still be on at \['shoulder_pan'\]"):
        pair.bus.disconnect()
    assert not any(pair.servos.torque_enabled().values())  # the packet to all reached the mute one, too
    assert not pair.bus.is_connected


def test_disconnecting_through_bad_replies_ends_all_torque(pair: Pair) -> None:
    pair.bus.enable_torque()
    pair.servos.inject(Fault(FaultKind.CORRUPT, rate=0.2), Fault(FaultKind.DROP, rate=0.1))
    pair.bus.disconnect()
    assert not any(pair.servos.torque_enabled().values())
    with pytest.raises(DeviceNotConnectedError):
        pair.bus.disconnect()


def test_an_exception_while_torque_is_disabled_leaves_it_off(pair: Pair) -> None:
    pair.bus.enable_torque()
    with pytest.raises(KeyError), pair.bus.torque_disabled():
        raise KeyError
    assert not any(pair.servos.torque_enabled().values())
    with pair.bus.torque_disabled():
        assert not any(pair.servos.torque_enabled().values())
    assert all(pair.servos.torque_enabled().values())


def test_a_signal_handler_ends_torque_in_the_middle_of_a_reading(pair: Pair) -> None:
    pair.bus.enable_torque()
    pair.servos.inject(Fault(FaultKind.LATE, joint="elbow_flex", delay_s=0.045, count=1))
    handled: list[bool] = []

    def handle(*_: object) -> None:
        pair.bus.disable_torque()
        handled.append(any(pair.servos.torque_enabled().values()))

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        positions = pair.bus.read_positions_ticks()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert handled == [False]
    assert positions == pair.middle


# Faults of the servos and of the cable -----------------------------------------------------------------------


def test_a_failed_handshake_leaves_no_open_port(arm: str) -> None:
    make_servos, bus_type, _, calibration = ARMS[arm]
    servos = make_servos()
    servos.start()
    bus = host(bus_type, servos.port)
    servos.inject(Fault(FaultKind.MOTOR_GONE, joint="shoulder_pan", count=1))
    with pytest.raises(RuntimeError, match="Missing motor IDs"):
        bus.connect()
    assert not bus.is_connected
    servos.clear_faults()
    bus.connect()
    assert bus.read_positions_ticks() == middle_of(calibration)
    bus.disconnect()
    servos.stop()


def test_an_overload_is_reported_once_and_torque_goes_off_in_spite_of_it(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.bus.enable_torque()
    pair.servos.inject(Fault(FaultKind.OVERLOAD, joint="gripper", count=1))
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            pair.bus.read_positions_ticks()
        assert [fault.name for fault in pair.bus.servo_errors["gripper"]] == ["overload"]
        assert set(pair.bus.servo_errors) == {"gripper"}
        pair.bus.disable_torque()
    reports = [r for r in caplog.records if r.name.endswith("serial_faults") and r.levelno == logging.ERROR]
    assert len(reports) == 1
    assert "gripper: its servo reports overload: the joint is blocked" in reports[0].getMessage()
    assert not any(pair.servos.torque_enabled().values())


def test_an_unplugged_arm_is_an_error_at_once_and_can_be_reopened(arm: str, tmp_path) -> None:
    make_servos, bus_type, _, calibration = ARMS[arm]
    servos = make_servos(tmp_path / "arm")
    servos.start()
    bus = host(bus_type, str(tmp_path / "arm"))
    bus.connect()
    bus.enable_torque()
    servos.unplug()
    started_s = time.monotonic()
    with pytest.raises(ConnectionError, match="plug the arm in again"):
        bus.read_positions_ticks()
    assert time.monotonic() - started_s < 0.2
    with pytest.raises(ConnectionError):
        bus.reopen()
    moved = {name: position + 40 for name, position in middle_of(calibration).items()}
    servos.teleport(moved)
    servos.replug()
    bus.reopen()
    assert bus.read_positions_ticks() == moved
    assert all(servos.torque_enabled().values())
    assert servos.registers("Goal_Position") == moved
    servos.unplug()
    with pytest.raises(ConnectionError, match="switch off the arm's power"):
        bus.disconnect()
    assert not bus.is_connected
