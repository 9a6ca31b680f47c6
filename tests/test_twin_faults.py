"""Injected faults: each does to the bytes and to the servo what it says, as often as it says, and nothing else."""

import os
import select
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot.motors import Motor, MotorNormMode
from lerobot.motors.feetech import FeetechMotorsBus
from serial import SerialException

from lerobot_vla_plugin.arms.calibration import example_calibration
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.faults import Fault, FaultDealer, FaultKind
from lerobot_vla_plugin.twin.feetech import (
    BROADCAST_ID,
    STS3215_REGISTERS,
    Instruction,
    Packet,
    PacketParser,
    StatusError,
)
from lerobot_vla_plugin.twin.servo import Servo

CALIBRATION = example_calibration("so_follower", "so101_follower")
JOINTS = list(CALIBRATION)
POSITION = STS3215_REGISTERS["Present_Position"].address
SYNC_READ = Packet(BROADCAST_ID, Instruction.SYNC_READ, bytes([POSITION, 2, 1, 2, 3, 4, 5, 6]))
PING = Packet(2, Instruction.PING)
REPLY = Packet(3, 0, b"\x34\x08")


class Host:
    """The other end of the port, byte by byte."""

    def __init__(self, port: str) -> None:
        self.descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY)

    def ask(self, packet: Packet, wait_s: float = 0.02) -> bytes:
        """All that comes back until the line is silent for a while."""
        os.write(self.descriptor, packet.to_bytes())
        return self.listen(wait_s)

    def listen(self, wait_s: float) -> bytes:
        data = b""
        while select.select([self.descriptor], [], [], wait_s)[0]:
            data += os.read(self.descriptor, 4096)
        return data


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[ServoBus]:
    bus = ServoBus({joint: Servo(c, 2100) for joint, c in CALIBRATION.items()}, "arm", tmp_path / "arm")
    bus.start()
    yield bus
    bus.stop()


@pytest.fixture
def host(bus: ServoBus) -> Iterator[Host]:
    host = Host(bus.port)
    yield host
    os.close(host.descriptor)


def _ids(data: bytes) -> list[int]:
    return [packet.id for packet in PacketParser().feed(data)]


def _write(bus: ServoBus, servo_id: int, name: str, value: int) -> None:
    row = STS3215_REGISTERS[name]
    parameters = bytes([row.address]) + value.to_bytes(row.length, "little")
    bus.handle(Packet(servo_id, Instruction.WRITE, parameters), time.monotonic())


def _spoilt(kind: FaultKind, seed: int) -> bytes:
    return FaultDealer(seed=seed).spoil(REPLY, [kind], [1, 2, 5])


@given(st.integers(0, 10_000))
def test_each_fault_of_the_wire_changes_the_bytes_as_it_says(seed: int) -> None:
    sent = REPLY.to_bytes()
    corrupt = _spoilt(FaultKind.CORRUPT, seed)
    assert len(corrupt) == len(sent)
    assert sum(a != b for a, b in zip(corrupt, sent, strict=True)) == 1
    garbled = _spoilt(FaultKind.GARBLE, seed)
    assert garbled[:-3] == sent[:-3]
    assert len(garbled) == len(sent)
    assert _spoilt(FaultKind.DROP, seed) == b""
    assert _spoilt(FaultKind.DUPLICATE, seed) == sent * 2
    assert _spoilt(FaultKind.LATE, seed) == sent
    cut = _spoilt(FaultKind.TRUNCATE, seed)
    assert sent.startswith(cut)
    assert 0 < len(cut) < len(sent)
    noisy = _spoilt(FaultKind.NOISE, seed)
    assert noisy != sent
    assert noisy.startswith(sent) or noisy.endswith(sent)
    (foreign,) = PacketParser().feed(_spoilt(FaultKind.WRONG_ID, seed))
    assert foreign.id in (1, 2, 5)
    assert foreign.parameters == REPLY.parameters


def test_every_byte_of_a_frame_can_be_corrupted() -> None:
    sent = REPLY.to_bytes()
    spoilt = [_spoilt(FaultKind.CORRUPT, seed) for seed in range(200)]
    assert {next(i for i in range(len(sent)) if data[i] != sent[i]) for data in spoilt} == set(range(len(sent)))


@settings(max_examples=20)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_the_rate_is_the_share_of_replies_and_the_seed_decides_which(rate: float, seed: int) -> None:
    def deal(*others: Fault) -> list[bool]:
        dealer = FaultDealer([Fault(FaultKind.DROP, rate), *others], seed)
        return [any(fault.kind is FaultKind.DROP for fault in dealer.deal("gripper")) for _ in range(2000)]

    hits = deal()
    assert sum(hits) / len(hits) == pytest.approx(rate, abs=0.06)
    assert deal(Fault(FaultKind.NOISE, 0.5)) == hits  # another fault does not shift its draws


def test_a_fault_keeps_to_its_joint_and_its_count() -> None:
    dealer = FaultDealer([Fault(FaultKind.NOISE, joint="gripper", count=2)])
    hits = [(joint, list(dealer.deal(joint))) for joint in ["elbow_flex", "gripper", None, "gripper", "gripper"]]
    assert [bool(faults) for _, faults in hits] == [False, True, False, True, False]
    assert dealer.hits == {FaultKind.NOISE: 2}


@pytest.mark.parametrize("arguments", [{"rate": 1.01}, {"rate": -0.1}, {"delay_s": -1.0}, {"count": -1}])
def test_senseless_faults_are_refused(arguments: dict[str, Any], bus: ServoBus) -> None:
    with pytest.raises(ValueError, match="must"):
        Fault(FaultKind.DROP, **arguments)
    with pytest.raises(ValueError, match=r"no joints \['hand'\]; it has"):
        bus.inject(Fault(FaultKind.DROP, joint="hand"))


def test_in_a_sync_read_each_reply_counts_and_the_others_come(bus: ServoBus, host: Host) -> None:
    bus.inject(Fault(FaultKind.DROP, joint="elbow_flex"))
    assert _ids(host.ask(SYNC_READ)) == [1, 2, 4, 5, 6]
    assert bus.fault_hits() == {FaultKind.DROP: 1}
    bus.clear_faults()
    assert _ids(host.ask(SYNC_READ)) == [1, 2, 3, 4, 5, 6]
    assert bus.fault_hits() == {}


def test_a_late_reply_holds_up_those_behind_it_and_nothing_else(bus: ServoBus, host: Host) -> None:
    bus.inject(Fault(FaultKind.LATE, joint="elbow_flex", delay_s=0.15))
    assert _ids(host.ask(SYNC_READ)) == [1, 2]
    assert _ids(host.ask(PING)) == [2]  # the bus serves meanwhile
    assert _ids(host.listen(0.3)) == [3, 4, 5, 6]


def test_late_bytes_fall_into_a_later_transaction_of_lerobots_bus(bus: ServoBus) -> None:
    motors = {joint: Motor(c.id, "sts3215", MotorNormMode.DEGREES) for joint, c in CALIBRATION.items()}
    lerobot = FeetechMotorsBus(bus.port, motors)
    lerobot.connect(handshake=False)  # which asks once, and takes a servo that a busy computer delays for an absent one
    bus.inject(Fault(FaultKind.LATE, joint="shoulder_pan", delay_s=0.06, count=1))
    with pytest.raises(ConnectionError):
        lerobot.sync_read("Present_Position", normalize=False)
    time.sleep(0.1)
    bus.teleport(dict.fromkeys(JOINTS, 2500))
    assert set(lerobot.sync_read("Present_Position", normalize=False).values()) == {2100}  # one cycle old
    lerobot.disconnect()


def test_a_jammed_joint_stands_still_reports_it_and_no_error(bus: ServoBus, host: Host) -> None:
    _write(bus, 4, "Torque_Enable", 1)
    bus.inject(Fault(FaultKind.STUCK, joint="wrist_flex", count=1))
    host.ask(Packet(4, Instruction.PING))
    _write(bus, 4, "Goal_Position", 2600)
    time.sleep(0.05)
    assert bus.positions_ticks()["wrist_flex"] == 2100
    bus.teleport({"wrist_flex": 2300})
    assert bus.positions_ticks()["wrist_flex"] == 2100
    assert bus.registers("Status")["wrist_flex"] == 0
    bus.clear_faults()
    bus.teleport({"wrist_flex": 2300})
    assert bus.positions_ticks()["wrist_flex"] == 2300


def test_an_overloaded_servo_says_so_and_drives_no_more_until_its_torque_is_switched(bus: ServoBus, host: Host) -> None:
    _write(bus, 2, "Torque_Enable", 1)
    bus.inject(Fault(FaultKind.OVERLOAD, joint="shoulder_lift", count=1))
    host.ask(PING)
    _write(bus, 2, "Goal_Position", 2300)
    time.sleep(0.05)
    assert bus.positions_ticks()["shoulder_lift"] == 2100
    (reply,) = PacketParser().feed(host.ask(PING))
    assert StatusError(reply.code) == StatusError.OVERLOAD
    _write(bus, 2, "Torque_Enable", 1)
    time.sleep(0.1)
    assert bus.positions_ticks()["shoulder_lift"] == 2300
    assert bus.registers("Status")["shoulder_lift"] == 0


def test_a_brown_out_forgets_and_is_silent_for_a_moment(bus: ServoBus, host: Host) -> None:
    for servo_id in (2, 3):
        _write(bus, servo_id, "Torque_Enable", 1)
    bus.inject(Fault(FaultKind.BROWN_OUT, joint="shoulder_lift", delay_s=0.1, count=1))
    assert _ids(host.ask(SYNC_READ)) == [1, 3, 4, 5, 6]
    assert host.ask(PING) == b""
    torque = bus.torque_enabled()
    assert (torque["shoulder_lift"], torque["elbow_flex"]) == (False, True)
    host.listen(0.1)
    (reply,) = PacketParser().feed(host.ask(PING))
    assert StatusError(reply.code) == StatusError.VOLTAGE


def test_a_motor_that_is_gone_neither_answers_nor_acts(bus: ServoBus, host: Host) -> None:
    _write(bus, 2, "Torque_Enable", 1)
    bus.inject(Fault(FaultKind.MOTOR_GONE, joint="shoulder_lift"))
    assert _ids(host.ask(SYNC_READ)) == [1, 3, 4, 5, 6]
    _write(bus, 2, "Torque_Enable", 1)
    assert not bus.torque_enabled()["shoulder_lift"]
    assert host.ask(PING) == b""
    bus.clear_faults()
    assert _ids(host.ask(SYNC_READ)) == [1, 2, 3, 4, 5, 6]


def _lerobot_bus(port: str) -> FeetechMotorsBus:
    bus = FeetechMotorsBus(port, {"gripper": Motor(6, "sts3215", MotorNormMode.RANGE_0_100)})
    bus.connect()
    return bus


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("injected", [False, True])
def test_an_unplugged_port_fails_at_the_host_and_comes_back_under_its_name(
    bus: ServoBus, tmp_path: Path, injected: bool
) -> None:
    name = tmp_path / "arm"
    lerobot = _lerobot_bus(str(name))
    lerobot.write("Torque_Enable", "gripper", 1)
    if injected:
        bus.inject(Fault(FaultKind.UNPLUG, count=1))
    else:
        bus.unplug()
    with pytest.raises((SerialException, OSError, termios.error)):  # which one: depends on where it was
        lerobot.ping("gripper", raise_on_error=True)
    assert not name.is_symlink()
    assert bus.torque_enabled()["gripper"]  # the servos keep their power
    bus.clear_faults()
    bus.replug()
    again = _lerobot_bus(str(name))
    assert again.ping("gripper") == 777
    again.disconnect()
    assert not bus.torque_enabled()["gripper"]


def test_teleport_moves_under_torque_and_without_and_stays(bus: ServoBus) -> None:
    _write(bus, 1, "Torque_Enable", 1)
    goals = {"shoulder_pan": 2345, "elbow_flex": 1234}
    bus.teleport(goals)
    time.sleep(0.05)
    assert {name: bus.positions_ticks()[name] for name in goals} == goals
    assert {name: bus.registers("Goal_Position")[name] for name in goals} == goals
