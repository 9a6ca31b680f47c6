"""Feetech's serial protocol (STS series): packets <-> bytes, and the STS3215's registers as data.

Frame: FF FF id length code parameters... checksum. `length` counts code, parameters and checksum; the
checksum is the inverted low byte of the sum from id to the last parameter. Words are little-endian.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

from lerobot_vla_plugin.arms.joints import decode_sign_magnitude, encode_sign_magnitude

BROADCAST_ID = 0xFE
HEADER = b"\xff\xff"
_SHORTEST = 6  # header, id, length, code, checksum
_LONGEST = 250  # what Feetech's SDK sends and accepts at most


class Instruction(IntEnum):
    """Code of a packet to a servo."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class StatusError(IntFlag):
    """Code of a packet from a servo: the faults that it reports."""

    NONE = 0
    VOLTAGE = 1
    ANGLE = 2
    OVERHEAT = 4
    OVERCURRENT = 8
    OVERLOAD = 32


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet in either direction; both have the same frame.

    Attributes:
        id: The servo addressed or answering, or `BROADCAST_ID`.
        code: An `Instruction` to the servo, `StatusError` bits from it.
        parameters: Bytes after the code.
    """

    id: int
    code: int
    parameters: bytes = b""

    def to_bytes(self) -> bytes:
        """The packet as it goes over the wire.

        Raises:
            ValueError: A field does not fit its byte, or the packet is longer than the protocol allows.
        """
        length = len(self.parameters) + 2
        if length + 4 > _LONGEST or not 0 <= self.id <= BROADCAST_ID or not 0 <= self.code <= 0xFF:
            raise ValueError(f"expected an id up to 254, a one-byte code and up to 244 parameters, got {self}")
        body = bytes([self.id, length, self.code]) + self.parameters
        return HEADER + body + bytes([checksum(body)])


def checksum(body: bytes) -> int:
    """Checksum over the bytes from the id to the last parameter."""
    return ~sum(body) & 0xFF


class PacketParser:
    """Finds the packets in a stream of bytes that comes in pieces.

    Whatever does not parse is skipped byte by byte, so that a packet behind garbage is still found. The
    result depends on the bytes only, not on how they were cut into pieces.
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """Take in bytes and return the packets that they complete; never raises on any bytes.

        Args:
            data: The next bytes of the stream, any number.
        """
        self._pending += data
        packets = []
        while self._find_header():
            length = self._pending[3]
            size = length + 4
            if not _SHORTEST <= size <= _LONGEST:
                del self._pending[0]
                continue
            if len(self._pending) < size:
                break
            body, received = bytes(self._pending[2 : size - 1]), self._pending[size - 1]
            if checksum(body) != received:
                del self._pending[0]
                continue
            packets.append(Packet(body[0], body[2], body[3:]))
            del self._pending[:size]
        return packets

    def _find_header(self) -> bool:
        """Drop bytes up to the next plausible header; true where id and length behind it have arrived."""
        while True:
            start = self._pending.find(HEADER)
            if start < 0:
                # The last byte may be the first half of a header.
                del self._pending[: -1 if self._pending.endswith(b"\xff") else None]
                return False
            del self._pending[:start]
            if len(self._pending) < 4:
                return False
            if self._pending[2] != 0xFF:
                return True
            del self._pending[0]  # FF FF FF: the header starts one later, as no servo has id 255


class Area(Enum):
    """Where a register lives: EEPROM survives a power cycle, SRAM does not, FACTORY is tuning memory."""

    EEPROM = "eeprom"
    SRAM = "sram"
    FACTORY = "factory"


@dataclass(frozen=True, slots=True)
class Register:
    """One row of the register table.

    Attributes:
        address: Address of the lowest byte.
        length: Number of bytes, 1 or 2.
        area: Memory it lives in.
        writable: Whether the host may write it.
        sign_bit: Index of the sign bit of a sign-magnitude register, None for an unsigned one.
        default: Value from the factory, before it is encoded.
    """

    address: int
    length: int
    area: Area
    writable: bool = True
    sign_bit: int | None = None
    default: int = 0

    def encode(self, value: int) -> bytes:
        """Bytes of a value in the memory."""
        raw = value if self.sign_bit is None else encode_sign_magnitude(value, self.sign_bit)
        return raw.to_bytes(self.length, "little")

    def decode(self, data: bytes | bytearray) -> int:
        """Value of the bytes in the memory."""
        raw = int.from_bytes(data, "little")
        return raw if self.sign_bit is None else decode_sign_magnitude(raw, self.sign_bit)


_E, _S, _F = Area.EEPROM, Area.SRAM, Area.FACTORY

# Feetech's STS3215 memory table; names as LeRobot has them.
STS3215_REGISTERS: dict[str, Register] = {
    "Firmware_Major_Version": Register(0, 1, _E, writable=False, default=3),
    "Firmware_Minor_Version": Register(1, 1, _E, writable=False, default=10),
    "Model_Number": Register(3, 2, _E, writable=False, default=777),
    "ID": Register(5, 1, _E, default=1),
    "Baud_Rate": Register(6, 1, _E, default=0),
    "Return_Delay_Time": Register(7, 1, _E, default=250),
    "Response_Status_Level": Register(8, 1, _E, default=1),
    "Min_Position_Limit": Register(9, 2, _E, default=0),
    "Max_Position_Limit": Register(11, 2, _E, default=4095),
    "Max_Temperature_Limit": Register(13, 1, _E, default=70),
    "Max_Voltage_Limit": Register(14, 1, _E, default=80),
    "Min_Voltage_Limit": Register(15, 1, _E, default=40),
    "Max_Torque_Limit": Register(16, 2, _E, default=1000),
    "Phase": Register(18, 1, _E, default=12),
    "Unloading_Condition": Register(19, 1, _E, default=44),
    "LED_Alarm_Condition": Register(20, 1, _E, default=47),
    "P_Coefficient": Register(21, 1, _E, default=32),
    "D_Coefficient": Register(22, 1, _E, default=32),
    "I_Coefficient": Register(23, 1, _E, default=0),
    "Minimum_Startup_Force": Register(24, 2, _E, default=16),
    "CW_Dead_Zone": Register(26, 1, _E, default=1),
    "CCW_Dead_Zone": Register(27, 1, _E, default=1),
    "Protection_Current": Register(28, 2, _E, default=500),
    "Angular_Resolution": Register(30, 1, _E, default=1),
    "Homing_Offset": Register(31, 2, _E, sign_bit=11),
    "Operating_Mode": Register(33, 1, _E),
    "Protective_Torque": Register(34, 1, _E, default=20),
    "Protection_Time": Register(35, 1, _E, default=200),
    "Overload_Torque": Register(36, 1, _E, default=80),
    "Velocity_closed_loop_P_proportional_coefficient": Register(37, 1, _E, default=10),
    "Over_Current_Protection_Time": Register(38, 1, _E, default=200),
    "Velocity_closed_loop_I_integral_coefficient": Register(39, 1, _E, default=10),
    "Torque_Enable": Register(40, 1, _S),
    "Acceleration": Register(41, 1, _S),
    "Goal_Position": Register(42, 2, _S, sign_bit=15),
    "Goal_Time": Register(44, 2, _S),
    "Goal_Velocity": Register(46, 2, _S, sign_bit=15),
    "Torque_Limit": Register(48, 2, _S, default=1000),
    "Lock": Register(55, 1, _S, default=1),
    "Present_Position": Register(56, 2, _S, writable=False, sign_bit=15),
    "Present_Velocity": Register(58, 2, _S, writable=False, sign_bit=15),
    "Present_Load": Register(60, 2, _S, writable=False, sign_bit=10),
    "Present_Voltage": Register(62, 1, _S, writable=False, default=74),
    "Present_Temperature": Register(63, 1, _S, writable=False, default=30),
    "Status": Register(65, 1, _S, writable=False),
    "Moving": Register(66, 1, _S, writable=False),
    "Present_Current": Register(69, 2, _S, writable=False),
    "Goal_Position_2": Register(71, 2, _S, writable=False),
    "Moving_Velocity_Threshold": Register(80, 1, _F, default=50),
    "DTs": Register(81, 1, _F, default=20),
    "Velocity_Unit_factor": Register(82, 1, _F, default=1),
    "Hts": Register(83, 1, _F, default=0),
    "Maximum_Velocity_Limit": Register(84, 1, _F, default=68),
    "Maximum_Acceleration": Register(85, 1, _F, default=254),
    "Acceleration_Multiplier": Register(86, 1, _F, default=1),
}
