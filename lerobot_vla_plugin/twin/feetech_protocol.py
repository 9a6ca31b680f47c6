"""What a chain of Feetech servos does at an instruction, and what it replies."""

from collections.abc import Mapping

from lerobot_vla_plugin.twin.feetech import BROADCAST_ID, Instruction, Packet, PacketParser
from lerobot_vla_plugin.twin.servo import Servo

_RETURN_DELAY_UNIT_S = 2e-6
_LONGEST_READ = 244  # what fits into one packet


class FeetechProtocol:
    """The servos' side of the STS protocol."""

    def new_parser(self) -> PacketParser:
        """Parser of what the host sends."""
        return PacketParser()

    def return_delay_s(self, servo: Servo) -> float:
        """Pause of a servo before it replies, in [s].

        Args:
            servo: The servo.
        """
        return servo.register("Return_Delay_Time") * _RETURN_DELAY_UNIT_S

    def handle(self, servos: Mapping[int, Servo], packet: Packet, time_s: float) -> list[Packet]:
        """What the servos do at an instruction, and what they reply, in order. Malformed ones are ignored.

        Args:
            servos: Id -> servo that listens.
            packet: The instruction.
            time_s: When its last byte arrives, in [s].
        """
        try:
            instruction = Instruction(packet.code)
        except ValueError:
            return []
        if instruction is Instruction.SYNC_READ:
            return _sync_read(servos, packet.parameters, time_s)
        if instruction is Instruction.SYNC_WRITE:
            _sync_write(servos, packet.parameters, time_s)
            return []
        addressed = [servo for id_, servo in servos.items() if packet.id in (id_, BROADCAST_ID)]
        replies = [_single(servo, instruction, packet.parameters, time_s) for servo in addressed]
        # All servos would talk at once after a broadcast; only the answers to a broadcast ping are staggered.
        silent = packet.id == BROADCAST_ID and instruction is not Instruction.PING
        return [] if silent else [reply for reply in replies if reply is not None]


def _single(servo: Servo, instruction: Instruction, parameters: bytes, time_s: float) -> Packet | None:
    servo_id, data, answers_always = servo.id, b"", False
    if instruction is Instruction.PING:
        answers_always = True
    elif instruction is Instruction.READ and len(parameters) == 2 and parameters[1] <= _LONGEST_READ:
        data, answers_always = servo.read(parameters[0], parameters[1], time_s), True
    elif instruction is Instruction.WRITE and len(parameters) >= 2:
        servo.write(parameters[0], parameters[1:], time_s)
    elif instruction is Instruction.REG_WRITE and len(parameters) >= 2:
        servo.write_later(parameters[0], parameters[1:])
    elif instruction is Instruction.ACTION:
        servo.act(time_s)
    else:
        return None
    if not answers_always and servo.register("Response_Status_Level") == 0:
        return None
    return Packet(servo_id, servo.error, data)


def _sync_read(servos: Mapping[int, Servo], parameters: bytes, time_s: float) -> list[Packet]:
    if len(parameters) < 3 or parameters[1] > _LONGEST_READ:
        return []
    address, length = parameters[0], parameters[1]
    asked = [servos[id_] for id_ in parameters[2:] if id_ in servos]
    return [Packet(servo.id, servo.error, servo.read(address, length, time_s)) for servo in asked]


def _sync_write(servos: Mapping[int, Servo], parameters: bytes, time_s: float) -> None:
    if len(parameters) < 2:
        return
    address, length, blocks = parameters[0], parameters[1], parameters[2:]
    for start in range(0, len(blocks) - length, length + 1):
        if blocks[start] in servos:
            servos[blocks[start]].write(address, blocks[start + 1 : start + 1 + length], time_s)
