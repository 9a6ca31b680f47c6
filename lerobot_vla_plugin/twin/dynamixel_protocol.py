"""What a chain of Dynamixel servos does at an instruction, and what it replies."""

from collections.abc import Mapping

from lerobot_vla_plugin.twin.dynamixel import BROADCAST_ID, Instruction, Packet, PacketParser, StatusError
from lerobot_vla_plugin.twin.dynamixel_servo import DynamixelServo

_RETURN_DELAY_UNIT_S = 2e-6
_REBOOT_S = 0.2
_CLEAR_TURNS = b"\x01\x44\x58\x4c\x22"


class DynamixelProtocol:
    """The servos' side of protocol 2.0."""

    def new_parser(self) -> PacketParser:
        """Parser of what the host sends."""
        return PacketParser()

    def return_delay_s(self, servo: DynamixelServo) -> float:
        """Pause of a servo before it replies, in [s].

        Args:
            servo: The servo.
        """
        return servo.register("Return_Delay_Time") * _RETURN_DELAY_UNIT_S

    def handle(self, servos: Mapping[int, DynamixelServo], packet: Packet, time_s: float) -> list[Packet]:
        """What the servos do at an instruction, and what they reply, in order.

        Args:
            servos: Id -> servo that listens.
            packet: The instruction.
            time_s: When its last byte arrives, in [s].
        """
        if packet.code == Instruction.STATUS:
            return []
        if packet.damaged:
            return [_status(servos[packet.id], StatusError.CRC)] if packet.id in servos else []
        for servo in servos.values():
            servo.hear(time_s)
        if packet.code in (Instruction.SYNC_READ, Instruction.BULK_READ):
            blocks = _sync_read_blocks if packet.code == Instruction.SYNC_READ else _bulk_read_blocks
            asked = [(servos[id_], where) for id_, where in blocks(packet.parameters) if id_ in servos]
            return [reply for servo, where in asked if (reply := _read(servo, where, time_s)) is not None]
        if packet.code in (Instruction.SYNC_WRITE, Instruction.BULK_WRITE):
            blocks = _sync_write_blocks if packet.code == Instruction.SYNC_WRITE else _bulk_write_blocks
            for id_, address, data in blocks(packet.parameters):
                if id_ in servos:
                    servos[id_].write(address, data, time_s)
            return []
        addressed = [servo for id_, servo in servos.items() if packet.id in (id_, BROADCAST_ID)]
        replies = [_single(servo, packet, time_s) for servo in addressed]
        # All servos would talk at once after a broadcast; only the answers to a broadcast ping are staggered.
        silent = packet.id == BROADCAST_ID and packet.code != Instruction.PING
        return [] if silent else [reply for reply in replies if reply is not None]


def _single(servo: DynamixelServo, packet: Packet, time_s: float) -> Packet | None:
    servo_id, level = servo.id, servo.register("Status_Return_Level")
    if packet.code == Instruction.PING:
        model, firmware = servo.register("Model_Number"), servo.register("Firmware_Version")
        return _status(servo, StatusError.NONE, model.to_bytes(2, "little") + bytes([firmware]))
    if packet.code == Instruction.READ:
        return _read(servo, packet.parameters, time_s)
    error = _act(servo, packet.code, packet.parameters, time_s)
    # A write may have changed the id; the answer still comes from the old one.
    return Packet(servo_id, Instruction.STATUS, bytes([servo.status(error)])) if level == 2 else None


def _act(servo: DynamixelServo, code: int, parameters: bytes, time_s: float) -> StatusError:
    if code in (Instruction.WRITE, Instruction.REG_WRITE):
        if len(parameters) < 3:
            return StatusError.DATA_LENGTH
        address, data = _word(parameters, 0), parameters[2:]
        if code == Instruction.WRITE:
            return servo.write(address, data, time_s)
        servo.write_later(address, data)
        return StatusError.NONE
    if code == Instruction.ACTION:
        return servo.act(time_s)
    if code == Instruction.REBOOT:
        servo.power_cycle()
        servo.silent_until_s = time_s + _REBOOT_S
        return StatusError.NONE
    if code == Instruction.CLEAR and parameters == _CLEAR_TURNS:
        return servo.clear_turns(time_s)
    return StatusError.INSTRUCTION


def _read(servo: DynamixelServo, where: bytes, time_s: float) -> Packet | None:
    """Reply to a read of an address and a length, two bytes each."""
    if servo.register("Status_Return_Level") == 0:
        return None
    if len(where) != 4:
        return _status(servo, StatusError.DATA_LENGTH)
    data = servo.read(_word(where, 0), _word(where, 2), time_s)
    return _status(servo, StatusError.ACCESS) if data is None else _status(servo, StatusError.NONE, data)


def _status(servo: DynamixelServo, error: StatusError, data: bytes = b"") -> Packet:
    return Packet(servo.id, Instruction.STATUS, bytes([servo.status(error)]) + data)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


# Blocks of an instruction to many: id and where to read, or id, address and data. Incomplete ones are left out.


def _sync_read_blocks(parameters: bytes) -> list[tuple[int, bytes]]:
    return [(id_, parameters[:4]) for id_ in parameters[4:]]


def _bulk_read_blocks(parameters: bytes) -> list[tuple[int, bytes]]:
    return [(parameters[at], parameters[at + 1 : at + 5]) for at in range(0, len(parameters) - 4, 5)]


def _sync_write_blocks(parameters: bytes) -> list[tuple[int, int, bytes]]:
    if len(parameters) < 4:
        return []
    address, length = _word(parameters, 0), _word(parameters, 2)
    starts = range(4, len(parameters) - length, length + 1)
    return [(parameters[at], address, parameters[at + 1 : at + 1 + length]) for at in starts]


def _bulk_write_blocks(parameters: bytes) -> list[tuple[int, int, bytes]]:
    blocks, at = [], 0
    while at + 5 <= len(parameters):
        length = _word(parameters, at + 3)
        data = parameters[at + 5 : at + 5 + length]
        if len(data) == length:
            blocks.append((parameters[at], _word(parameters, at + 1), data))
        at += 5 + length
    return blocks
