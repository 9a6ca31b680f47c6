"""Status packets of both servo families, taken apart; whatever is not exactly the reply awaited is an error."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

_FEETECH_HEADER = b"\xff\xff"
_DYNAMIXEL_HEADER = b"\xff\xff\xfd\x00"
_DYNAMIXEL_STATUS = 0x55
_DYNAMIXEL_ALERT = 0x80  # the hardware has a problem; the instruction was carried out all the same
_DYNAMIXEL_CRC_ERROR = 3
# Protocol 2.0 e-manual, "Error" of the status packet.
_DYNAMIXEL_REFUSALS = {
    1: "it failed to carry out the instruction (after a hardware error it takes no torque until it is rebooted)",
    2: "it does not know the instruction",
    4: "the value is out of range, or its bus watchdog has stopped it",
    5: "the value has another length than the register",
    6: "the value is beyond a limit",
    7: "the register may not be written (EEPROM while torque is on?) or read",
}


class Flaw(StrEnum):
    """Why a reply cannot be used; the values are fields of `BusStatistics`."""

    TIMEOUT = "timeouts"
    CORRUPT = "corrupt"
    FOREIGN = "foreign"
    SHORT = "short"
    SURPLUS = "surplus"
    UNSENT = "unsent"


class BadReplyError(Exception):
    """A reply that must not be believed.

    Attributes:
        flaw: What is wrong with it.
        servo_id: Servo whose reply was awaited.
    """

    def __init__(self, flaw: Flaw, servo_id: int) -> None:
        super().__init__(flaw)
        self.flaw = flaw
        self.servo_id = servo_id


@dataclass(frozen=True, slots=True)
class Reply:
    """One status packet.

    Attributes:
        id: The servo that sent it.
        error: Its error byte.
        data: Its parameters.
    """

    id: int
    error: int
    data: bytes


class Frames(Protocol):
    """How a servo family frames a status packet.

    Attributes:
        head_bytes: Bytes from the start up to and including the length.
        smallest_bytes: Bytes of a packet without parameters.
    """

    head_bytes: ClassVar[int]
    smallest_bytes: ClassVar[int]

    def size(self, head: bytes) -> int | None:
        """Bytes of the packet that starts so; None where no packet starts so."""
        ...

    def decode(self, frame: bytes) -> Reply | None:
        """The packet, or None where its check fails."""
        ...

    def refusal(self, error: int) -> str | None:
        """Why the servo did not do what it was told; None if it did."""
        ...


class FeetechFrames:
    """FF FF id length error parameters... sum; `length` counts from the error on."""

    head_bytes: ClassVar[int] = 4
    smallest_bytes: ClassVar[int] = 6

    def size(self, head: bytes) -> int | None:
        """As in `Frames`."""
        return head[3] + 4 if head.startswith(_FEETECH_HEADER) and head[3] >= 2 else None

    def decode(self, frame: bytes) -> Reply | None:
        """As in `Frames`. The 8-bit sum notices every single wrong byte, and 255 of 256 cases of noise."""
        if sum(frame[2:]) & 0xFF != 0xFF:  # the sum byte is the inverse of the rest
            return None
        return Reply(frame[2], frame[4], frame[5:-1])

    def refusal(self, error: int) -> str | None:
        """Never: Feetech's error bits all concern the state of the servo."""
        return None


class DynamixelFrames:
    """FF FF FD 00 id length(2) 55 error parameters... crc(2), with FF FF FD stuffed to FF FF FD FD inside."""

    head_bytes: ClassVar[int] = 7
    smallest_bytes: ClassVar[int] = 11

    def size(self, head: bytes) -> int | None:
        """As in `Frames`."""
        length = int.from_bytes(head[5:7], "little")
        return length + 7 if head.startswith(_DYNAMIXEL_HEADER) and length >= 4 else None

    def decode(self, frame: bytes) -> Reply | None:
        """As in `Frames`. A servo that received a damaged instruction counts as a damaged reply, to be asked again."""
        if _crc(frame[:-2]) != int.from_bytes(frame[-2:], "little"):
            return None
        if frame[7] != _DYNAMIXEL_STATUS or frame[8] & ~_DYNAMIXEL_ALERT == _DYNAMIXEL_CRC_ERROR:
            return None
        body = frame[8:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
        return Reply(frame[4], body[0], body[1:])

    def refusal(self, error: int) -> str | None:
        """As in `Frames`."""
        code = error & ~_DYNAMIXEL_ALERT
        return _DYNAMIXEL_REFUSALS.get(code, f"unknown error code {code}") if code else None


def _crc_of_byte(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1) ^ (0x8005 if crc & 0x8000 else 0)
    return crc & 0xFFFF


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]


def _crc(data: bytes) -> int:
    """CRC-16 of protocol 2.0; the SDK's own makes its table anew for every packet."""
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFF00) ^ _CRC_TABLE[crc >> 8 ^ byte]
    return crc
