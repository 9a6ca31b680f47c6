"""LeRobot's own Koch arms, its Dynamixel bus and the ROBOTIS SDK on the pseudo-terminal, unmodified."""

import os
from collections.abc import Iterator
from pathlib import Path

import dynamixel_sdk as sdk
import numpy as np
import pytest
from arms_on_twins import wait_for
from lerobot.motors import Motor, MotorNormMode
from lerobot.motors.dynamixel import DynamixelMotorsBus
from lerobot.robots.koch_follower import KochFollower, KochFollowerConfig
from lerobot.teleoperators.koch_leader import KochLeader, KochLeaderConfig

from lerobot_vla_plugin.arms.calibration import example_calibration, example_calibration_dir
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.dynamixel import BROADCAST_ID, Instruction, Packet
from lerobot_vla_plugin.twin.faults import Fault, FaultKind
from lerobot_vla_plugin.twin.koch import FOLLOWER_MODELS, LEADER_MODELS, make_koch_bus

FOLLOWER = example_calibration("koch_follower", "koch_follower")
LEADER = example_calibration("koch_leader", "koch_leader")
MOTORS = {
    joint: Motor(FOLLOWER[joint].id, model.name, MotorNormMode.RANGE_M100_100)
    for joint, model in FOLLOWER_MODELS.items()
}
START_TICKS = {"shoulder_pan": 2100, "shoulder_lift": 1900, "elbow_flex": 2500, "wrist_flex": 1200} | {
    "wrist_roll": 3000,
    "gripper": 2400,
}


pytestmark = pytest.mark.usefixtures("patience")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[ServoBus]:
    bus = make_koch_bus(FOLLOWER_MODELS, FOLLOWER, START_TICKS, tmp_path / "follower")
    bus.start()
    yield bus
    bus.stop()


@pytest.fixture
def leader_bus() -> Iterator[ServoBus]:
    bus = make_koch_bus(LEADER_MODELS, LEADER, START_TICKS)
    bus.start()
    yield bus
    bus.stop()


@pytest.fixture
def host(bus: ServoBus) -> Iterator[DynamixelMotorsBus]:
    host = DynamixelMotorsBus(bus.port, MOTORS)
    host.connect()
    yield host
    host.port_handler.closePort()  # also where a test left servos that do not answer


@pytest.fixture
def follower(bus: ServoBus) -> Iterator[KochFollower]:
    follower = KochFollower(
        KochFollowerConfig(port=bus.port, id="koch_follower", calibration_dir=example_calibration_dir("koch_follower"))
    )
    follower.connect(calibrate=False)
    yield follower
    if follower.is_connected:
        follower.disconnect()


def test_follower_connects_calibrated_and_under_torque(bus: ServoBus, follower: KochFollower) -> None:
    assert follower.is_calibrated
    assert all(bus.torque_enabled().values())
    assert list(bus.registers("Operating_Mode").values()) == [4, 4, 4, 4, 4, 5]
    assert set(bus.registers("Return_Delay_Time").values()) == {0}
    assert bus.registers("Position_P_Gain")["elbow_flex"] == 1500


def test_an_action_arrives_and_is_logged(bus: ServoBus, follower: KochFollower) -> None:
    action = {f"{joint}.pos": 20.0 for joint in FOLLOWER}
    follower.send_action(action)
    # LeRobot truncates to a tick: 0.15 of the gripper's percent at most.
    assert wait_for(lambda: follower.get_observation() == pytest.approx(action, abs=0.15))
    (entry,) = bus.goal_writes()
    assert set(entry.goals_ticks) == set(FOLLOWER)
    assert bus.goal_statistics().goals_in_range


def test_disconnecting_leaves_no_torque(bus: ServoBus, follower: KochFollower) -> None:
    follower.disconnect()
    assert not any(bus.torque_enabled().values())


def test_every_register_reads_the_same_through_lerobot(bus: ServoBus, host: DynamixelMotorsBus) -> None:
    for joint in ("shoulder_pan", "gripper"):
        for name, (address, length) in host.model_ctrl_table[MOTORS[joint].model].items():
            if name == "Realtime_Tick" or joint not in _registers(bus, name):
                continue
            assert host.read(name, joint, normalize=False) == _registers(bus, name)[joint], (name, address, length)


def _registers(bus: ServoBus, name: str) -> dict[str, int]:
    try:
        return bus.registers(name)
    except KeyError:  # LeRobot's table has rows that no Koch servo has
        return {}


def test_lerobot_can_calibrate_the_servos(bus: ServoBus, host: DynamixelMotorsBus) -> None:
    host.disable_torque()
    host.set_half_turn_homings()
    assert set(host.sync_read("Present_Position", normalize=False).values()) == {2047}
    assert set(bus.positions_ticks().values()) == {2047}


def test_single_and_synchronous_reads_and_writes_agree(bus: ServoBus, host: DynamixelMotorsBus) -> None:
    assert host.sync_read("Present_Position", normalize=False) == START_TICKS
    goals: dict[str, int | float] = {joint: -100 * i for i, joint in enumerate(FOLLOWER)}
    host.sync_write("Goal_Position", goals, normalize=False)
    assert {joint: host.read("Goal_Position", joint, normalize=False) for joint in FOLLOWER} == goals
    host.write("Goal_Position", "gripper", -7, normalize=False)
    assert bus.registers("Goal_Position")["gripper"] == -7
    assert host.broadcast_ping() == {motor.id: host.model_number_table[motor.model] for motor in MOTORS.values()}


def test_a_refused_write_raises_in_lerobot(host: DynamixelMotorsBus) -> None:
    host.enable_torque("gripper")
    with pytest.raises(RuntimeError, match="not available to target address"):
        host.write("Homing_Offset", "gripper", 5)
    host.disable_torque("gripper")


def test_the_sdk_reads_blocks_of_several_servos(bus: ServoBus, host: DynamixelMotorsBus) -> None:
    reader = sdk.GroupBulkRead(host.port_handler, host.packet_handler)
    reader.addParam(1, 144, 2)
    reader.addParam(6, 132, 4)
    assert reader.txRxPacket() == sdk.COMM_SUCCESS
    assert (reader.getData(1, 144, 2), reader.getData(6, 132, 4)) == (120, 2400)
    writer = sdk.GroupBulkWrite(host.port_handler, host.packet_handler)
    writer.addParam(2, 65, 1, [1])
    assert writer.txPacket() == sdk.COMM_SUCCESS
    assert wait_for(lambda: bus.registers("LED")["shoulder_lift"] == 1)


def test_the_sdk_reboots_and_clears_turns(bus: ServoBus, host: DynamixelMotorsBus) -> None:
    bus.teleport({"elbow_flex": 2000 + 4096})
    assert host.packet_handler.clearMultiTurn(host.port_handler, 3) == (sdk.COMM_SUCCESS, 0)
    assert host.read("Present_Position", "elbow_flex", normalize=False) < 2000
    host.enable_torque("gripper")
    assert host.packet_handler.reboot(host.port_handler, 6) == (sdk.COMM_SUCCESS, 0)
    assert host.ping("gripper") is None
    assert wait_for(lambda: host.ping("gripper") == 1200)
    assert not bus.torque_enabled()["gripper"]


def test_a_power_cycle_puts_a_joint_whole_turns_off_for_lerobot(bus: ServoBus, host: DynamixelMotorsBus) -> None:
    """The homing offset of the example's elbow reaches over the encoder's seam."""
    bus.inject(Fault(FaultKind.BROWN_OUT, joint="elbow_flex", delay_s=0.0, count=1))
    assert host.ping("elbow_flex") is None
    assert host.sync_read("Present_Position", normalize=False) == START_TICKS | {"elbow_flex": 2500 - 4096}
    assert bus.positions_ticks() == START_TICKS


def test_an_unplugged_koch_with_its_watchdog_armed_stops_and_refuses_goals(
    bus: ServoBus, host: DynamixelMotorsBus
) -> None:
    host.write("Profile_Velocity", "shoulder_pan", 20)
    host.enable_torque("shoulder_pan")
    host.write("Bus_Watchdog", "shoulder_pan", 3)
    host.write("Goal_Position", "shoulder_pan", 4000, normalize=False)
    bus.unplug()
    assert wait_for(lambda: bus.registers("Bus_Watchdog")["shoulder_pan"] == -1)
    stopped = bus.positions_ticks()["shoulder_pan"]
    assert 2100 < stopped < 2300
    bus.replug()
    again = DynamixelMotorsBus(bus.port, MOTORS)
    again.connect()
    with pytest.raises(RuntimeError, match="out of range"):
        again.write("Goal_Position", "shoulder_pan", 4000, normalize=False)
    assert bus.positions_ticks()["shoulder_pan"] == stopped
    again.write("Bus_Watchdog", "shoulder_pan", 0)
    again.write("Goal_Position", "shoulder_pan", 2150, normalize=False)
    assert wait_for(lambda: bus.positions_ticks()["shoulder_pan"] == 2150)
    again.disconnect()


def test_an_overloaded_servo_makes_lerobot_leave_the_others_under_torque(bus: ServoBus, follower: KochFollower) -> None:
    bus.inject(Fault(FaultKind.OVERLOAD, joint="shoulder_pan", count=1))
    follower.get_observation()
    assert follower.get_observation()  # sync_read drops the alert
    with pytest.raises(RuntimeError, match="Hardware error"):
        follower.disconnect()
    assert sum(bus.torque_enabled().values()) == 5
    follower.bus.port_handler.closePort()


def test_leader_reads_the_hand_and_its_gripper_springs_back(leader_bus: ServoBus) -> None:
    leader = KochLeader(
        KochLeaderConfig(port=leader_bus.port, id="koch_leader", calibration_dir=example_calibration_dir("koch_leader"))
    )
    leader.connect(calibrate=False)
    try:
        assert leader.is_calibrated
        assert {joint for joint, on in leader_bus.torque_enabled().items() if on} == {"gripper"}
        assert wait_for(lambda: leader.get_action()["gripper.pos"] == pytest.approx(50, abs=0.2))
        assert leader_bus.set_positions_by_hand({"gripper": 2100.0, "elbow_flex": 1500.0})
        assert leader.get_action()["gripper.pos"] == pytest.approx((2100 - 2031) / (2794 - 2031) * 100)
        assert wait_for(lambda: leader.get_action()["gripper.pos"] == pytest.approx(50, abs=0.2))
        # The file says drive_mode 1: firmware has inverted it, and LeRobot does not do it again.
        low, high = LEADER["elbow_flex"].range_min, LEADER["elbow_flex"].range_max
        assert LEADER["elbow_flex"].drive_mode == 1
        assert leader.get_action()["elbow_flex.pos"] == pytest.approx((1500 - low) / (high - low) * 200 - 100)
    finally:
        leader.disconnect()
    assert not any(leader_bus.torque_enabled().values())


def test_an_inverted_joint_counts_against_its_encoder() -> None:
    bus = make_koch_bus(LEADER_MODELS, LEADER, START_TICKS)
    drive_mode = LEADER_MODELS["elbow_flex"].registers["Drive_Mode"]
    before = bus.positions_ticks()["elbow_flex"]
    bus.handle(Packet(3, Instruction.WRITE, bytes([drive_mode.address, 0, 0])), 0.0)
    homing = LEADER["elbow_flex"].homing_offset
    assert bus.positions_ticks()["elbow_flex"] - homing == homing - before


def test_read_and_write_pairs_run_at_200_hz(bus: ServoBus, follower: KochFollower) -> None:
    for _ in range(200):
        follower.send_action(follower.get_observation())
    follower.get_observation()  # an answered read shows that the last write has arrived
    times_s = [write.time_s for write in bus.goal_writes()]
    assert len(times_s) == 200
    # A quarter of the pairs is enough to show it where other tests take the processor away from the rest.
    assert np.quantile(np.diff(times_s), 0.25) < 1 / 200


def test_garbage_on_the_wire_does_not_stop_the_bus(bus: ServoBus) -> None:
    port = os.open(bus.port, os.O_RDWR | os.O_NOCTTY)
    os.write(port, b"\xff\xff\xfd\x00\x01\x07\x00\x55" + bytes(range(256)) * 4)
    os.close(port)
    host = DynamixelMotorsBus(bus.port, MOTORS)
    host.connect()
    host.disconnect()


def test_faults_of_the_wire_reach_the_host(bus: ServoBus, host: DynamixelMotorsBus) -> None:
    bus.inject(Fault(FaultKind.CORRUPT, 0.3), Fault(FaultKind.WRONG_ID, 0.3), Fault(FaultKind.DROP, 0.3), seed=3)
    failures = 0
    for _ in range(8):
        try:
            host.sync_read("Present_Position", normalize=False)
        except ConnectionError:
            failures += 1
    assert failures > 4
    hits = bus.fault_hits()
    assert all(hits[kind] == pytest.approx(0.3 * 48, abs=10) for kind in hits)


def test_a_broadcast_reply_of_nobody_is_no_trouble(bus: ServoBus) -> None:
    bus.inject(Fault(FaultKind.MOTOR_GONE))
    port = os.open(bus.port, os.O_RDWR | os.O_NOCTTY)
    for _ in range(2):
        os.write(port, Packet(BROADCAST_ID, Instruction.PING).to_bytes())
    assert wait_for(lambda: bus.fault_hits()[FaultKind.MOTOR_GONE] == 6)
    os.close(port)
