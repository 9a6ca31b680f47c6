"""Dynamixel protocol 2.0: packets <-> bytes.

Frame: FF FF FD 00 id length(2) instruction parameters... CRC(2), words little-endian. `length` counts everything
behind it. Where FF FF FD occurs behind the length, an FD is stuffed in, which length and CRC include. A packet from
a servo has the instruction STATUS and an error byte before its data. Source: ROBOTIS e-manual, "Protocol 2.0".
"""

from dataclasses import dataclass
from enum import IntEnum

BROADCAST_ID = 0xFE
HIGHEST_ID = 0xFC
HEADER = b"\xff\xff\xfd"
ALERT = 0x80  # bit of the error byte: Hardware_Error_Status is not 0
_START = HEADER + b"\x00"
_STUFFED = HEADER + b"\xfd"
_BODY = 7  # index of the instruction
_SHORTEST = 10
_LONGEST = 1024  # what the ROBOTIS SDK sends and accepts at most


class Instruction(IntEnum):
    """Kind of a packet."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    REBOOT = 0x08
    CLEAR = 0x10
    STATUS = 0x55
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83
    BULK_READ = 0x92
    BULK_WRITE = 0x93


class StatusError(IntEnum):
    """Why a servo did not do what an instruction said; lower seven bits of the error byte."""

    NONE = 0
    RESULT_FAIL = 1
    INSTRUCTION = 2
    CRC = 3
    DATA_RANGE = 4
    DATA_LENGTH = 5
    DATA_LIMIT = 6
    ACCESS = 7


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet in either direction.

    Attributes:
        id: The servo addressed or answering, or `BROADCAST_ID`.
        code: An `Instruction`; STATUS from a servo.
        parameters: Bytes after the instruction, without stuffing; from a servo the error byte and its data.
        damaged: Whether it was received with a wrong CRC; such a packet cannot be sent.
    """

    id: int
    code: int
    parameters: bytes = b""
    damaged: bool = False

    def to_bytes(self) -> bytes:
        """The packet as it goes over the wire.

        Raises:
            ValueError: A field does not fit, the packet is longer than the protocol allows, or it is damaged.
        """
        if self.damaged or not (0 <= self.id <= HIGHEST_ID or self.id == BROADCAST_ID) or not 0 <= self.code <= 0xFF:
            raise ValueError(f"expected an id up to 252 or 254, a one-byte code and no damage, got {self}")
        body = (bytes([self.code]) + self.parameters).replace(HEADER, _STUFFED)
        frame = _START + bytes([self.id]) + (len(body) + 2).to_bytes(2, "little") + body
        if len(frame) + 2 > _LONGEST:
            raise ValueError(f"expected at most {_LONGEST} bytes, got {len(frame) + 2}")
        return frame + crc16(frame).to_bytes(2, "little")


def crc16(data: bytes) -> int:
    """CRC-16 with polynomial 0x8005, from 0, not reflected ("CRC-16/BUYPASS"), as the protocol uses it."""
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC_TABLE[crc >> 8 ^ byte]
    return crc


def _crc_of_byte(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


_CRC_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


class PacketParser:
    """Finds the packets in a stream of bytes that comes in pieces.

    What cannot be a frame is skipped byte by byte, so that a packet behind garbage is still found. A whole frame
    with a wrong CRC comes out as damaged, and the search goes on inside it. The result depends on the bytes only,
    not on how they were cut into pieces.
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
            size = _BODY + int.from_bytes(self._pending[5:7], "little")
            if not _SHORTEST <= size <= _LONGEST:
                del self._pending[0]
                continue
            if len(self._pending) < size:
                break
            frame = bytes(self._pending[:size])
            damaged = crc16(frame[:-2]) != int.from_bytes(frame[-2:], "little")
            body = frame[_BODY:-2].replace(_STUFFED, HEADER)
            packets.append(Packet(frame[4], body[0], body[1:], damaged))
            del self._pending[: 1 if damaged else size]
        return packets

    def _find_header(self) -> bool:
        """Drop bytes up to the next plausible header; true where id and length behind it have arrived."""
        while True:
            start = self._pending.find(HEADER)
            if start < 0:
                # The last two bytes may be the beginning of a header.
                del self._pending[: max(len(self._pending) - 2, 0)]
                return False
            del self._pending[:start]
            if len(self._pending) < _BODY:
                return False
            if self._pending[3] == 0 and (self._pending[4] <= HIGHEST_ID or self._pending[4] == BROADCAST_ID):
                return True
            del self._pending[0]
