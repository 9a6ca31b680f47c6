"""Faults of a servo bus, dealt out to the replies that the host waits for.

A fault of the wire spoils the bytes of one reply. A fault of a servo strikes it at the moment of a reply and
lasts: what it means is said at each kind. Replies of a sync read count one by one.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from lerobot_vla_plugin.twin.base_servo import BaseServo


class FaultKind(StrEnum):
    """What goes wrong.

    DROP: the reply does not come; the wire is busy for as long as it would be.
    CORRUPT: one byte of the reply, any of them, has another value.
    GARBLE: the last three bytes are random: of a Feetech position the value and the check sum, which lets 1 in 256
        through.
    WRONG_ID: the reply is valid, but carries the id of another servo on the bus.
    TRUNCATE: the reply ends early.
    LATE: the servo hesitates; in a sync read those behind wait for it, as each counts the replies before its
        own. The bus serves other instructions meanwhile, so that the late bytes may come between the replies to a
        later one, though never inside a frame.
    DUPLICATE: the reply comes twice.
    NOISE: random bytes before or after the reply.
    STUCK: the joint is jammed from now on. The servo reports, truly, where it stands, and no error.
    OVERLOAD: the servo's overload protection trips: it drives no more, and says so in every reply.
    BROWN_OUT: the supply sags: this reply is lost, the servo starts anew without torque, is silent for a moment,
        and then answers with the voltage error.
    MOTOR_GONE: its plug is out: it neither holds nor acts nor answers.
    UNPLUG: the serial port vanishes; the servos keep their power.
    """

    DROP = "drop"
    CORRUPT = "corrupt"
    GARBLE = "garble"
    WRONG_ID = "wrong_id"
    TRUNCATE = "truncate"
    LATE = "late"
    DUPLICATE = "duplicate"
    NOISE = "noise"
    STUCK = "stuck"
    OVERLOAD = "overload"
    BROWN_OUT = "brown_out"
    MOTOR_GONE = "motor_gone"
    UNPLUG = "unplug"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and how often it strikes.

    Attributes:
        kind: What goes wrong.
        rate: Share of the replies that it hits, in [0, 1].
        joint: The only joint that it hits; None for any.
        delay_s: How late a LATE reply is, or how long a servo is silent after a BROWN_OUT, in [s].
        count: Number of hits after which it ends; None for no end.

    Raises:
        ValueError: The rate is no share, or the delay or the count is negative.
    """

    kind: FaultKind
    rate: float = 1.0
    joint: str | None = None
    delay_s: float = 0.1
    count: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate must lie in 0..1, got {self.rate}")
        if self.delay_s < 0 or (self.count is not None and self.count < 0):
            raise ValueError(f"delay_s and count must not be negative, got {self.delay_s} and {self.count}")


class AnyPacket(Protocol):
    """A packet of either protocol: a dataclass with the id of its servo."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def id(self) -> int: ...
    def to_bytes(self) -> bytes: ...


class FaultDealer:
    """Decides which faults hit a reply. The same seed and the same replies give the same faults.

    Args:
        faults: What may go wrong; every one draws for itself.
        seed: Seed of all draws.

    Attributes:
        hits: Kind -> replies hit so far.
    """

    def __init__(self, faults: Sequence[Fault] = (), seed: int = 0) -> None:
        self._sources = [(fault, random.Random(f"{seed} {i}")) for i, fault in enumerate(faults)]
        self._left = [fault.count for fault in faults]
        self._bytes = random.Random(f"{seed} bytes")
        self.hits = Counter(dict.fromkeys((fault.kind for fault in faults), 0))

    def deal(self, joint: str | None) -> Iterator[Fault]:
        """Faults that hit the next reply.

        Args:
            joint: Whose reply it is; None for one that several servos make together.
        """
        for i, (fault, source) in enumerate(self._sources):
            if fault.joint not in (None, joint) or self._left[i] == 0 or source.random() >= fault.rate:
                continue
            if (left := self._left[i]) is not None:
                self._left[i] = left - 1
            self.hits[fault.kind] += 1
            yield fault

    def spoil(self, reply: AnyPacket, kinds: Sequence[FaultKind], other_ids: Sequence[int]) -> bytes:
        """Bytes of a reply after the faults of the wire.

        Args:
            reply: The reply as the servo sends it.
            kinds: Faults that hit it; those of a servo change nothing here.
            other_ids: Ids that a WRONG_ID may show.
        """
        if FaultKind.WRONG_ID in kinds:
            reply = replace(reply, id=self._bytes.choice(other_ids))
        data = reply.to_bytes()
        for kind in kinds:
            data = self._spoil_bytes(data, kind)
        return data

    def _spoil_bytes(self, data: bytes, kind: FaultKind) -> bytes:
        if kind is FaultKind.CORRUPT and data:
            at = self._bytes.randrange(len(data))
            return data[:at] + bytes([data[at] ^ self._bytes.randint(1, 255)]) + data[at + 1 :]
        if kind is FaultKind.GARBLE:
            return data[:-3] + self._bytes.randbytes(3)
        if kind is FaultKind.TRUNCATE:
            return data[: self._bytes.randrange(1, max(len(data), 2))]
        if kind is FaultKind.DUPLICATE:
            return data * 2
        if kind is FaultKind.NOISE:
            noise = self._bytes.randbytes(self._bytes.randint(1, 8))
            return noise + data if self._bytes.random() < 0.5 else data + noise
        if kind in (FaultKind.DROP, FaultKind.BROWN_OUT, FaultKind.MOTOR_GONE, FaultKind.UNPLUG):
            return b""
        return data


def strike(servo: BaseServo, fault: Fault, time_s: float) -> None:
    """Let a fault of a servo happen; does nothing for a fault of the wire.

    Args:
        servo: The servo.
        fault: What goes wrong.
        time_s: When, in [s].
    """
    if fault.kind is FaultKind.STUCK:
        servo.stuck = True
    elif fault.kind is FaultKind.OVERLOAD:
        servo.overload()
    elif fault.kind is FaultKind.BROWN_OUT:
        servo.brown_out()
        servo.silent_until_s = time_s + fault.delay_s
    elif fault.kind is FaultKind.MOTOR_GONE:
        servo.power_cycle()
        servo.silent_until_s = float("inf")


def mend(servo: BaseServo) -> None:
    """Free a jammed joint, and put the plug of a servo back that was out.

    Args:
        servo: The servo.
    """
    servo.stuck = False
    if servo.silent_until_s == float("inf"):
        servo.power_cycle()  # it comes up where its horn stands now, which need not be where it stood
    servo.silent_until_s = float("-inf")
