"""LeRobot's own bus and arms on the pseudo-terminal, unmodified."""

import os
import time
from collections.abc import Iterator

import pytest
from arms_on_twins import wait_for
from lerobot.motors import Motor, MotorNormMode
from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
from lerobot.teleoperators.so_leader import SO101Leader, SO101LeaderConfig

from lerobot_vla_plugin.arms.calibration import example_calibration, example_calibration_dir
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.feetech import BROADCAST_ID, STS3215_REGISTERS, Instruction, Packet
from lerobot_vla_plugin.twin.servo import Servo

CALIBRATION = example_calibration("so_follower", "so101_follower")
GOAL = STS3215_REGISTERS["Goal_Position"].address
PRESENT = STS3215_REGISTERS["Present_Position"].address

pytestmark = pytest.mark.usefixtures("patience")


def _bus(name: str = "so_follower", position_ticks: int = 2100) -> ServoBus:
    calibration = example_calibration(name, name.replace("so_", "so101_"))
    return ServoBus({joint: Servo(c, position_ticks) for joint, c in calibration.items()}, name)


@pytest.fixture
def bus() -> Iterator[ServoBus]:
    bus = _bus()
    bus.start()
    yield bus
    bus.stop()


@pytest.fixture
def follower(bus: ServoBus) -> Iterator[SO101Follower]:
    follower = SO101Follower(
        SO101FollowerConfig(port=bus.port, id="so101_follower", calibration_dir=example_calibration_dir("so_follower"))
    )
    follower.connect()
    yield follower
    if follower.is_connected:
        follower.disconnect()


def test_follower_connects_without_asking_for_a_calibration(bus: ServoBus, follower: SO101Follower) -> None:
    assert follower.is_calibrated
    assert all(bus.torque_enabled().values())
    assert set(bus.registers("Lock").values()) == {1}


def test_everything_that_lerobot_configures_reaches_the_registers(bus: ServoBus, follower: SO101Follower) -> None:
    expected = {
        "Return_Delay_Time": 0,
        "Maximum_Acceleration": 254,
        "Acceleration": 254,
        "Operating_Mode": 0,
        "P_Coefficient": follower.config.position_p_coefficient,
        "I_Coefficient": follower.config.position_i_coefficient,
        "D_Coefficient": follower.config.position_d_coefficient,
    }
    for name, value in expected.items():
        assert set(bus.registers(name).values()) == {value}, name
    assert bus.registers("Max_Torque_Limit")["gripper"] == 500
    assert bus.registers("Protection_Current")["gripper"] == 250
    assert bus.registers("Overload_Torque")["gripper"] == 25


def test_every_register_reads_the_same_through_lerobot(bus: ServoBus, follower: SO101Follower) -> None:
    for name in STS3215_REGISTERS:
        lerobots_name = "Acceleration_Multiplier " if name == "Acceleration_Multiplier" else name
        for joint, value in bus.registers(name).items():
            if joint in ("shoulder_pan", "gripper"):
                assert follower.bus.read(lerobots_name, joint, normalize=False) == value, name


def test_an_action_arrives_and_is_logged(bus: ServoBus, follower: SO101Follower) -> None:
    action = {f"{joint}.pos": 10.0 for joint in CALIBRATION}
    follower.send_action(action)
    assert wait_for(
        lambda: follower.get_observation() == pytest.approx(action, abs=0.1)
    )  # LeRobot truncates to a tick, 0.088 degrees
    (entry,) = bus.goal_writes()
    assert set(entry.goals_ticks) == set(CALIBRATION)
    assert bus.goal_statistics().goals_in_range


def test_goals_outside_the_range_are_seen_in_the_statistics(bus: ServoBus, follower: SO101Follower) -> None:
    follower.bus.sync_write("Goal_Position", {"shoulder_pan": 10}, normalize=False)
    assert wait_for(lambda: len(bus.goal_writes()) == 1)
    statistics = bus.goal_statistics()
    assert not statistics.goals_in_range
    assert statistics.out_of_range == ("shoulder_pan",)
    assert statistics.spans_ticks == {"shoulder_pan": (10, 10)}


def test_the_statistics_are_those_of_the_time_asked_for() -> None:
    bus = _bus()
    sent = {time_s: 2000 + int(time_s) for time_s in (1.0, 2.0, 4.0, 9.0)}
    for time_s, goal in sent.items():
        bus.handle(Packet(4, Instruction.WRITE, bytes([GOAL]) + goal.to_bytes(2, "little")), time_s)
    statistics = bus.goal_statistics(since_s=1.5, until_s=9.0)
    assert (statistics.writes, statistics.ticks_written) == (3, 3)
    assert (statistics.rate_hz, statistics.longest_pause_s) == (2 / 7, 5.0)
    assert statistics.spans_ticks == {"wrist_flex": (2002, 2009)}
    assert bus.goal_statistics(until_s=0.0).writes == 0


def test_read_and_write_pairs_run_at_200_hz(bus: ServoBus, follower: SO101Follower) -> None:
    for _ in range(200):
        follower.send_action(follower.get_observation())
    follower.get_observation()  # nobody answers a sync write: an answered read shows that the last one has arrived
    statistics = bus.goal_statistics()
    assert statistics.writes == 200
    assert statistics.rate_hz > 200


def test_replies_take_the_time_of_the_wire(bus: ServoBus, follower: SO101Follower) -> None:
    started = time.perf_counter()
    for _ in range(20):
        follower.bus.sync_read("Present_Position")
    # 14 bytes to the servos and 6 times 8 back, 10 bits each, 1 Mbit/s.
    assert (time.perf_counter() - started) / 20 > 62 * 10e-6


def test_disconnecting_leaves_no_torque(bus: ServoBus, follower: SO101Follower) -> None:
    follower.disconnect()
    assert not any(bus.torque_enabled().values())


def test_the_port_can_be_opened_again_and_again(bus: ServoBus) -> None:
    for _ in range(3):
        host = FeetechMotorsBus(bus.port, {"gripper": Motor(6, "sts3215", MotorNormMode.RANGE_0_100)})
        host.connect()
        assert host.ping("gripper") == 777
        host.disconnect()


def test_leader_connects_and_reads_what_the_hand_does() -> None:
    bus = _bus("so_leader")
    bus.start()
    leader = SO101Leader(
        SO101LeaderConfig(port=bus.port, id="so101_leader", calibration_dir=example_calibration_dir("so_leader"))
    )
    leader.connect()
    try:
        assert bus.set_positions_by_hand({"elbow_flex": 1500.0})
        assert leader.bus.sync_read("Present_Position", normalize=False)["elbow_flex"] == 1500
        leader.enable_torque()
        assert not bus.set_positions_by_hand({"elbow_flex": 2500.0})
    finally:
        leader.disconnect()
        bus.stop()


def test_lerobot_can_calibrate_the_servos(bus: ServoBus) -> None:
    motors = {name: Motor(c.id, "sts3215", MotorNormMode.DEGREES) for name, c in CALIBRATION.items()}
    host = FeetechMotorsBus(bus.port, motors)
    host.connect()
    host.disable_torque()
    host.set_half_turn_homings()
    assert set(host.sync_read("Present_Position", normalize=False).values()) == {2047}
    assert set(bus.positions_ticks().values()) == {2047}
    host.disconnect()


def test_broadcast_ping_finds_all_servos(bus: ServoBus) -> None:
    host = FeetechMotorsBus(bus.port, {"gripper": Motor(6, "sts3215", MotorNormMode.RANGE_0_100)})
    host.connect()
    assert host.broadcast_ping() == dict.fromkeys(range(1, 7), 777)
    host.disconnect()


def test_sync_read_answers_in_the_order_asked_and_leaves_out_absent_servos() -> None:
    request = Packet(BROADCAST_ID, Instruction.SYNC_READ, bytes([PRESENT, 2, 5, 77, 2, 6]))
    assert [reply.id for reply in _bus().handle(request, 0.0)] == [5, 2, 6]


def test_reg_write_waits_for_the_action() -> None:
    bus = _bus()
    data = bytes([GOAL]) + (2222).to_bytes(2, "little")
    assert bus.handle(Packet(4, Instruction.REG_WRITE, data), 0.0) == [Packet(4, 0)]
    assert bus.registers("Goal_Position")["wrist_flex"] == 2100
    assert bus.handle(Packet(BROADCAST_ID, Instruction.ACTION), 0.0) == []
    assert bus.registers("Goal_Position")["wrist_flex"] == 2222
    assert [dict(entry.goals_ticks) for entry in bus.goal_writes()] == [{"wrist_flex": 2222}]


def test_a_servo_told_to_keep_silent_answers_only_reads_and_pings() -> None:
    bus = _bus()
    level = STS3215_REGISTERS["Response_Status_Level"].address
    assert bus.handle(Packet(1, Instruction.WRITE, bytes([level, 0])), 0.0) == []
    assert bus.handle(Packet(1, Instruction.PING), 0.0) == [Packet(1, 0)]
    assert len(bus.handle(Packet(1, Instruction.READ, bytes([PRESENT, 2])), 0.0)) == 1


@pytest.mark.parametrize("instruction", list(range(256)))
def test_no_malformed_instruction_stops_the_bus(instruction: int) -> None:
    bus = _bus()
    for parameters in (b"", b"\x05", b"\x05\xff", b"\x00\xff\x01\x02", bytes([5, 1, 1, 255]), bytes(range(240))):
        for servo_id in (1, 255, BROADCAST_ID):
            for reply in bus.handle(Packet(servo_id, instruction, parameters), 0.0):
                reply.to_bytes()


def test_garbage_on_the_wire_does_not_stop_the_bus(bus: ServoBus) -> None:
    port = os.open(bus.port, os.O_RDWR | os.O_NOCTTY)
    os.write(port, b"\xff\xff\x01\xfa" + bytes(range(256)) * 4)
    os.close(port)
    host = FeetechMotorsBus(bus.port, {"gripper": Motor(6, "sts3215", MotorNormMode.RANGE_0_100)})
    host.connect()
    assert host.ping("gripper") == 777
    host.disconnect()


def test_two_servos_of_one_id_are_refused() -> None:
    servo = Servo(CALIBRATION["gripper"], 2000)
    with pytest.raises(ValueError, match="different ids"):
        ServoBus({"a": servo, "b": servo}, "double")


def test_starting_twice_is_refused_and_stopping_twice_is_not(bus: ServoBus) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        bus.start()
    bus.stop()
    bus.stop()
