"""Feetech's frames as our bus takes them apart, and LeRobot's SO-101 arm driven through it."""

import pytest
from buses_on_twins import connected, host, so101_servos
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.arms.feetech_bus import ReliableFeetechBus
from lerobot_vla_plugin.arms.serial_frames import FeetechFrames, Reply
from lerobot_vla_plugin.twin.faults import Fault, FaultKind
from lerobot_vla_plugin.twin.feetech import Packet

FRAMES = FeetechFrames()
PACKETS = st.builds(Packet, st.integers(0, 253), st.integers(0, 0x7F), st.binary(max_size=40))


@given(PACKETS)
def test_a_frame_is_taken_apart_as_it_was_sent(packet: Packet) -> None:
    frame = packet.to_bytes()
    assert FRAMES.size(frame[: FRAMES.head_bytes]) == len(frame)
    assert FRAMES.decode(frame) == Reply(packet.id, packet.code, packet.parameters)


@given(PACKETS, st.data())
def test_no_single_wrong_byte_passes(packet: Packet, data: st.DataObject) -> None:
    frame = bytearray(packet.to_bytes())
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    same_size = FRAMES.size(bytes(frame[: FRAMES.head_bytes])) == len(frame)
    assert not same_size or FRAMES.decode(bytes(frame)) is None


@given(st.binary(min_size=4, max_size=4))
def test_any_head_has_a_possible_size_or_none(head: bytes) -> None:
    size = FRAMES.size(head)
    assert size is None or FRAMES.smallest_bytes <= size <= 259


def test_it_is_lerobots_bus_and_connects_as_one() -> None:
    with connected(ReliableFeetechBus, so101_servos()) as bus:
        assert isinstance(bus, FeetechMotorsBus)
        assert bus.is_calibrated
        assert bus.statistics.retries == 0
        lerobots = host(FeetechMotorsBus, bus.port)
        lerobots.connect()
        assert bus.sync_read("Present_Position") == lerobots.sync_read("Present_Position")
        assert bus.read("Present_Position", "gripper") == lerobots.read("Present_Position", "gripper")
        lerobots.disconnect()


def test_lerobots_own_arm_runs_on_it_through_bad_replies() -> None:
    servos = so101_servos()
    servos.start()
    folder = example_calibration_dir("so_follower")
    arm = SO101Follower(SO101FollowerConfig(port=servos.port, id="so101_follower", calibration_dir=folder))
    arm.bus = ReliableFeetechBus(servos.port, arm.bus.motors, arm.calibration)
    servos.inject(Fault(FaultKind.CORRUPT, rate=0.02), Fault(FaultKind.DROP, rate=0.01))
    arm.connect(calibrate=False)
    assert all(servos.torque_enabled().values())
    for _ in range(20):
        assert arm.send_action(arm.get_observation())
    arm.disconnect()
    assert not any(servos.torque_enabled().values())
    assert arm.bus.statistics.retries > 0
    servos.stop()


def test_every_error_bit_of_a_sync_read_is_named() -> None:
    servos = so101_servos()
    with connected(ReliableFeetechBus, servos) as bus:
        servos.inject(Fault(FaultKind.BROWN_OUT, joint="wrist_flex", count=1, delay_s=0.02))
        bus.read_positions_ticks()
        assert [fault.name for fault in bus.servo_errors["wrist_flex"]] == ["voltage"]
        assert bus.statistics.timeouts > 0
        bus.enable_torque()
        bus.read_positions_ticks()
        assert bus.servo_errors == {}


def test_a_bus_without_an_sdk_port_says_what_is_missing() -> None:
    with pytest.raises(ConnectionError, match="correct port"):
        host(ReliableFeetechBus, "/dev/no_such_port").connect()
