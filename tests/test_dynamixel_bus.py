"""Dynamixel's frames as our bus takes them apart, whole turns, the watchdog and the servos' refusals."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from buses_on_twins import KOCH, MODELS, connected, host, koch_servos, middle_of
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors import MotorCalibration
from lerobot.motors.dynamixel import DynamixelMotorsBus
from lerobot.robots.koch_follower import KochFollower, KochFollowerConfig

from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.arms.dynamixel_bus import ReliableDynamixelBus, _whole_turns_ticks
from lerobot_vla_plugin.arms.serial_exchange import ServoRefusedError
from lerobot_vla_plugin.arms.serial_frames import DynamixelFrames, Reply
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.dynamixel import Instruction, Packet
from lerobot_vla_plugin.twin.dynamixel_protocol import DynamixelProtocol
from lerobot_vla_plugin.twin.dynamixel_servo import DynamixelServo
from lerobot_vla_plugin.twin.faults import Fault, FaultKind

FRAMES = DynamixelFrames()
ERRORS = st.integers(0, 255).filter(lambda error: error & 0x7F != 3)
DATA = st.lists(st.sampled_from([b"\xff", b"\xfd", b"\xff\xff\xfd", b"\x00", b"\x17"]), max_size=12).map(b"".join)


def status(servo_id: int, error: int, data: bytes) -> Packet:
    return Packet(servo_id, Instruction.STATUS, bytes([error]) + data)


@given(st.integers(0, 252), ERRORS, DATA)
def test_a_frame_is_taken_apart_as_it_was_sent(servo_id: int, error: int, data: bytes) -> None:
    frame = status(servo_id, error, data).to_bytes()
    assert FRAMES.size(frame[: FRAMES.head_bytes]) == len(frame)
    assert FRAMES.decode(frame) == Reply(servo_id, error, data)


@given(st.integers(0, 252), ERRORS, DATA, st.data())
def test_no_single_wrong_byte_passes(servo_id: int, error: int, data: bytes, draw: st.DataObject) -> None:
    frame = bytearray(status(servo_id, error, data).to_bytes())
    frame[draw.draw(st.integers(0, len(frame) - 1))] ^= draw.draw(st.integers(1, 255))
    same_size = FRAMES.size(bytes(frame[: FRAMES.head_bytes])) == len(frame)
    assert not same_size or FRAMES.decode(bytes(frame)) is None


@pytest.fixture
def servos() -> ServoBus:
    return koch_servos()


@pytest.fixture
def bus(servos: ServoBus) -> Iterator[ReliableDynamixelBus]:
    with connected(ReliableDynamixelBus, servos) as bus:
        yield bus


def test_it_is_lerobots_bus_and_connects_as_one(bus: ReliableDynamixelBus) -> None:
    assert isinstance(bus, DynamixelMotorsBus)
    assert bus.is_calibrated
    lerobots = host(DynamixelMotorsBus, bus.port)
    lerobots.connect()
    assert bus.sync_read("Present_Position") == lerobots.sync_read("Present_Position")
    lerobots.disconnect()


def test_stuffed_replies_are_read(servos: ServoBus, bus: ReliableDynamixelBus) -> None:
    """FF FF FD in the data makes a reply longer than the bytes asked for."""
    stuffed = -131_073
    assert stuffed.to_bytes(4, "little", signed=True).startswith(b"\xff\xff\xfd")
    servos.teleport({"shoulder_pan": stuffed, "elbow_flex": stuffed})
    folded = {"shoulder_pan": stuffed + 33 * 4096, "elbow_flex": stuffed + 32 * 4096}  # 4095, and -1: just outside
    assert bus.read_positions_ticks() == {**middle_of(KOCH), **folded}
    assert bus.statistics.retries == 0


def test_lerobots_own_arm_runs_on_it_through_bad_replies(servos: ServoBus) -> None:
    servos.start()
    folder = example_calibration_dir("koch_follower")
    arm = KochFollower(KochFollowerConfig(port=servos.port, id="koch_follower", calibration_dir=folder))
    arm.bus = ReliableDynamixelBus(servos.port, arm.bus.motors, arm.calibration)
    servos.inject(Fault(FaultKind.CORRUPT, rate=0.02), Fault(FaultKind.DROP, rate=0.01))
    arm.connect(calibrate=False)
    assert all(servos.torque_enabled().values())
    for _ in range(20):
        arm.send_action(arm.get_observation())
    arm.disconnect()
    assert not any(servos.torque_enabled().values())
    servos.stop()


# Turns -----------------------------------------------------------------------------------------------------


@given(st.integers(-20_000, 20_000), st.integers(-9000, 9000), st.integers(2, 4095))
def test_a_joint_that_can_stand_in_its_range_does(position: int, low: int, width: int) -> None:
    joint = MotorCalibration(1, 0, 0, low, low + width)
    folded = position + _whole_turns_ticks(position, joint)
    assert (folded - position) % 4096 == 0
    assert (low <= folded <= low + width) == ((position - low) % 4096 <= width)
    assert abs(folded - (low + width / 2)) <= 2048


def seam_servos() -> ServoBus:
    """An elbow whose range spans the seam, and that stands beyond it."""
    calibration = {**KOCH, "elbow_flex": replace(KOCH["elbow_flex"], range_min=3000, range_max=5000)}
    positions = {**middle_of(KOCH), "elbow_flex": 4500}
    servos = {n: DynamixelServo(MODELS[n], c, positions[n]) for n, c in calibration.items()}
    return ServoBus(servos, "seam", None, DynamixelProtocol())


def restart(servos: ServoBus, joint: str) -> int:
    """Let a servo lose its power for a moment, and with it its turns; returns what it reports then."""
    servos.inject(Fault(FaultKind.MOTOR_GONE, joint=joint, count=1))
    probe = host(DynamixelMotorsBus, servos.port)
    probe.port_handler.openPort()
    assert probe.ping(joint) is None
    servos.clear_faults()
    reported_ticks = probe.read("Present_Position", joint, normalize=False)
    probe.port_handler.closePort()
    return int(reported_ticks)


def test_a_power_cycle_changes_neither_readings_nor_goals() -> None:
    servos = seam_servos()
    with connected(ReliableDynamixelBus, servos) as bus:
        elbow = replace(bus.calibration["elbow_flex"], range_min=3000, range_max=5000)
        bus.calibration = {**bus.calibration, "elbow_flex": elbow}
        assert bus.read_positions_ticks()["elbow_flex"] == 4500
        assert restart(servos, "elbow_flex") == 4500 - 4096
        assert bus.read_positions_ticks()["elbow_flex"] == 4500
        assert bus.sync_read("Present_Position", normalize=False)["elbow_flex"] == 4500
        bus.enable_torque()
        assert servos.registers("Goal_Position")["elbow_flex"] == 4500 - 4096
        bus.write_goals_ticks({"elbow_flex": 4600})
        assert bus.sync_read("Goal_Position", "elbow_flex", normalize=False) == {"elbow_flex": 4600}
        assert servos.registers("Goal_Position")["elbow_flex"] == 4600 - 4096


def test_a_joint_outside_its_range_shows_as_outside(servos: ServoBus, bus: ReliableDynamixelBus) -> None:
    outside = KOCH["elbow_flex"].range_max + 70
    servos.teleport({"elbow_flex": outside})
    assert bus.read_positions_ticks()["elbow_flex"] == outside


# Watchdog --------------------------------------------------------------------------------------------------


def wait_until_stopped(servos: ServoBus) -> None:
    until_s = time.monotonic() + 2
    while set(servos.registers("Bus_Watchdog").values()) != {-1}:
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_silent_host_stops_the_arm_and_a_pause_is_survived(servos: ServoBus, bus: ReliableDynamixelBus) -> None:
    bus.enable_torque()
    bus.arm_watchdog(0.1)
    far = {**middle_of(KOCH), "shoulder_pan": 4000, "wrist_roll": 100}
    bus.write_goals_ticks(far)
    wait_until_stopped(servos)
    stopped = servos.positions_ticks()
    assert stopped["shoulder_pan"] < 4000
    writes = len(servos.goal_writes())
    goals = {name: position + 5 for name, position in stopped.items()}
    bus.write_goals_ticks(goals)
    assert bus.sync_read("Goal_Position", normalize=False) == goals
    assert all(servos.torque_enabled().values())
    assert set(servos.registers("Bus_Watchdog").values()) == {5}
    released = [dict(write.goals_ticks) for write in servos.goal_writes()[writes:-1]]
    assert {name: goal for write in released for name, goal in write.items()} == stopped


def test_torque_off_leaves_servos_that_other_programs_can_command(servos: ServoBus, bus: ReliableDynamixelBus) -> None:
    bus.enable_torque()
    bus.arm_watchdog(0.1)
    wait_until_stopped(servos)
    bus.disable_torque()
    assert set(servos.registers("Bus_Watchdog").values()) == {0}
    bus.enable_torque()
    assert set(servos.registers("Bus_Watchdog").values()) == {5}


def test_servos_that_a_killed_process_left_stopped_are_released(servos: ServoBus, bus: ReliableDynamixelBus) -> None:
    bus.enable_torque()
    bus.arm_watchdog(0.1)
    bus.write_goals_ticks({"shoulder_pan": 3900})
    wait_until_stopped(servos)
    stopped = servos.positions_ticks()
    bus.port_handler.closePort()  # which the system does for a process that is killed
    other = host(ReliableDynamixelBus, bus.port)
    other.connect()
    other.enable_torque()
    assert servos.registers("Goal_Position") == stopped
    assert set(servos.registers("Bus_Watchdog").values()) == {0}
    other.disconnect()


@pytest.mark.parametrize("seconds", [0.0, 0.001, 2.6, 60.0])
def test_a_watchdog_that_the_servo_cannot_count_is_refused(bus: ReliableDynamixelBus, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"0\.02 to 2\.54"):
        bus.arm_watchdog(seconds)


# Errors ----------------------------------------------------------------------------------------------------


def test_a_refused_write_is_an_error_at_once(servos: ServoBus, bus: ReliableDynamixelBus) -> None:
    bus.enable_torque()
    retries = bus.statistics.retries
    with pytest.raises(ServoRefusedError, match=r"\(elbow_flex\).*EEPROM while torque is on"):
        bus.write("Homing_Offset", "elbow_flex", 100)
    assert bus.statistics.retries == retries


def test_a_brown_out_is_reported_and_a_shut_down_servo_says_so(servos: ServoBus, bus: ReliableDynamixelBus) -> None:
    bus.enable_torque()
    servos.inject(Fault(FaultKind.BROWN_OUT, joint="gripper", count=1, delay_s=0.02))
    bus.read_positions_ticks()
    assert [fault.name for fault in bus.servo_errors["gripper"]] == ["voltage"]
    with pytest.raises(ServoRefusedError, match=r"\(gripper\)"):
        bus.enable_torque()
    assert not any(servos.torque_enabled().values())
