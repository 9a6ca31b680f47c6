"""Servos on a pseudo-terminal: a serial port that LeRobot opens as if a bus of servos hung on it."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from lerobot_vla_plugin.twin.base_servo import BaseServo
from lerobot_vla_plugin.twin.faults import AnyPacket, Fault, FaultDealer, FaultKind, mend, strike
from lerobot_vla_plugin.twin.feetech_protocol import FeetechProtocol
from lerobot_vla_plugin.twin.goal_log import GoalStatistics, GoalWrite, summarize_goals
from lerobot_vla_plugin.twin.port import PseudoPort

BAUD_RATE_HZ = 1_000_000
_BYTE_S = 10 / BAUD_RATE_HZ  # start bit, 8 bits, stop bit
_HIGHEST_ID = 253
_FEETECH = FeetechProtocol()
_GOAL_LOG_ENTRIES = 100_000  # 55 minutes at 30 Hz


class ServoProtocol(Protocol):
    """The servos' side of a serial protocol; servos and packets are those of one make."""

    def new_parser(self) -> Any: ...
    def return_delay_s(self, servo: Any) -> float: ...
    def handle(self, servos: Mapping[int, Any], packet: Any, time_s: float) -> Sequence[AnyPacket]: ...


class ServoBus:
    """Servos on a pseudo-terminal, served by a thread of its own at the speed of the wire.

    Args:
        servos: Joint name -> servo; ids must differ.
        name: Name of the bus, for the thread and for messages.
        link: Stable name of the port, a symbolic link that is there while the port is; None for none.
        protocol: What the servos speak.
        clock: The servos' time, in [s], where it is not that of the wire: simulated, it may stand still.

    Attributes:
        name: As given.
        port: Path of the serial port, once the bus runs; another one after every start.
        heard_s, goal_s: When the last instruction and the last goal came, in monotonic time, in [s].

    Raises:
        ValueError: Two servos share an id.
    """

    def __init__(
        self,
        servos: Mapping[str, BaseServo],
        name: str,
        link: Path | None = None,
        protocol: ServoProtocol = _FEETECH,
        clock: Callable[[], float] | None = None,
    ) -> None:
        ids = [servo.id for servo in servos.values()]
        if len(set(ids)) != len(ids):
            raise ValueError(f"servos on bus {name!r} must have different ids, got {ids}")
        self.name = name
        self._link = link
        self._servos = dict(servos)
        self._protocol = protocol
        self._clock = clock
        self.heard_s = self.goal_s = -math.inf
        self._lock = threading.Lock()
        self._goal_log: deque[GoalWrite] = deque(maxlen=_GOAL_LOG_ENTRIES)
        self._faults = FaultDealer()
        self._thread: threading.Thread | None = None
        self._wire_free_s = 0.0

    # Life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the port and serve it.

        Raises:
            OSError: The system has no pseudo-terminals (Windows), or none is left.
            RuntimeError: The bus runs already.
        """
        if self._thread is not None:
            raise RuntimeError(f"bus {self.name!r} runs already on {self.port}")
        self._port = PseudoPort(self._link)
        self.port = self._port.path
        self._thread = threading.Thread(target=self._serve, name=f"twin-bus-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port; does nothing where the bus does not run."""
        if self._thread is None:
            return
        self._port.wake()
        self._thread.join()
        self._thread = None
        self._port.close()

    # Faults ------------------------------------------------------------------------------------------------

    def inject(self, *faults: Fault, seed: int = 0) -> None:
        """Let replies go wrong from now on; what was injected before ends as by `clear_faults`.

        Args:
            faults: What goes wrong; independent of one another.
            seed: The same seed and the same replies give the same faults.

        Raises:
            ValueError: A fault names a joint that this bus does not have.
        """
        unknown = {fault.joint for fault in faults} - set(self._servos) - {None}
        if unknown:
            raise ValueError(
                f"bus {self.name!r} has no joints {sorted(map(str, unknown))}; it has {list(self._servos)}"
            )
        self.clear_faults()
        with self._lock:
            self._faults = FaultDealer(faults, seed)

    def clear_faults(self) -> None:
        """End all faults: jammed joints turn, plugs are back in.

        What a servo reports stays until the host deals with it, and what an unplugged port needs is `replug`.
        """
        with self._lock:
            self._faults = FaultDealer()
            for servo in self._servos.values():
                mend(servo)

    def fault_hits(self) -> dict[FaultKind, int]:
        """Kind -> replies that it hit since the last `inject`."""
        with self._lock:
            return dict(self._faults.hits)

    def unplug(self) -> None:
        """Let the port and its stable name vanish. The servos keep their power and do what they were told."""
        self.stop()

    def replug(self) -> None:
        """Plug in again after `unplug` or a fault of that kind: a new port under the same stable name."""
        self.stop()
        self.start()

    def teleport(self, positions_ticks: Mapping[str, int]) -> None:
        """Make joints stand somewhere else at once, with or without torque, and stay there.

        Args:
            positions_ticks: Joint -> position and goal, in [ticks]. Under torque a goal outside the position
                limits of its servo ends at the limit.
        """
        with self._lock:
            for name, position_ticks in positions_ticks.items():
                self._servos[name].teleport(position_ticks, self._now_s())

    # What the world around the arm sees and does ----------------------------------------------------

    def positions_ticks(self) -> dict[str, int]:
        """Joint -> where it stands now, in [ticks] of its calibration.

        A Dynamixel that lost its turns stands there too, but reports whole turns more or less.
        """
        return self._of_all(lambda servo: servo.position_ticks)

    def torque_enabled(self) -> dict[str, bool]:
        """Joint -> whether its servo is under torque."""
        return self._of_all(lambda servo: servo.torque_enabled)

    def registers(self, name: str) -> dict[str, int]:
        """Joint -> value of one register, for the joints whose model of servo has it.

        Args:
            name: A name of the servos' register table.

        Raises:
            KeyError: No servo has such a register.
        """
        values = self._of_all(lambda servo: servo.register(name) if servo.has_register(name) else None)
        known = {joint: value for joint, value in values.items() if value is not None}
        if not known:
            raise KeyError(f"no servo on bus {self.name!r} has a register {name!r}")
        return known

    def set_register(self, joint: str, name: str, value: int) -> None:
        """Set a register of one servo from inside, where neither access rights nor side effects apply.

        Args:
            joint: Its joint.
            name: A name of its register table.
            value: The value, not encoded.
        """
        with self._lock:
            self._servos[joint].set_register(name, value)

    def set_positions_by_hand(self, positions_ticks: Mapping[str, float]) -> bool:
        """Move joints by hand.

        Args:
            positions_ticks: Joint -> where to, in [ticks].

        Returns:
            Whether all of them moved; those under torque do not.
        """
        now = self._now_s()
        with self._lock:
            moved = [self._servos[name].set_position_by_hand(p, now) for name, p in positions_ticks.items()]
        return all(moved)

    def goal_writes(self) -> list[GoalWrite]:
        """The latest goal writes, oldest first; at most 100,000."""
        with self._lock:
            return list(self._goal_log)

    def goal_statistics(self, since_s: float = -math.inf, until_s: float = math.inf) -> GoalStatistics:
        """Rate, pauses and range of the goal writes.

        Args:
            since_s: Earliest write that counts, on the clock of the bus, in [s].
            until_s: Latest write that counts, in [s].
        """
        log = [write for write in self.goal_writes() if since_s <= write.time_s <= until_s]
        lows, highs = self.registers("Min_Position_Limit"), self.registers("Max_Position_Limit")
        return summarize_goals(log, {joint: (lows[joint], highs[joint]) for joint in lows})

    @contextmanager
    def servos(self) -> Iterator[Mapping[str, Any]]:
        """Joint -> servo, while the bus waits: for the world that turns them."""
        with self._lock:
            yield self._servos

    def _now_s(self) -> float:
        return self._clock() if self._clock else time.monotonic()

    def _of_all[T](self, look: Callable[[BaseServo], T]) -> dict[str, T]:
        now = self._now_s()
        with self._lock:
            for servo in self._servos.values():
                servo.advance(now)
            return {name: look(servo) for name, servo in self._servos.items()}

    # The wire ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        parser = self._protocol.new_parser()
        while (data := self._port.receive()) is not None:
            self._wire_free_s = max(time.monotonic(), self._wire_free_s) + len(data) * _BYTE_S
            if not all(self._answer(packet) for packet in parser.feed(data)):
                break
        self._port.vanish()

    def _answer(self, packet: AnyPacket) -> bool:
        """Let the servos act, and send their replies when the wire has had its time; false where the plug is out."""
        self.heard_s = self._wire_free_s
        received_s, late_s = self._clock() if self._clock else self._wire_free_s, 0.0
        sent: dict[float, bytes] = {}
        with self._lock:
            names = {servo.id: name for name, servo in self._servos.items()}
            for reply in self.handle(packet, received_s):
                name, frame = names.get(reply.id), reply.to_bytes()
                faults = list(self._faults.deal(name))
                late_s += sum(fault.delay_s for fault in faults if fault.kind is FaultKind.LATE)
                delay_s = self._protocol.return_delay_s(self._servos[name]) if name else 0.0
                self._wire_free_s += delay_s + len(frame) * _BYTE_S
                received = self._suffer(name, reply, faults, received_s) if faults else frame
                sent[late_s] = sent.get(late_s, b"") + received
                if any(fault.kind is FaultKind.UNPLUG for fault in faults):
                    return False
        for lateness_s, data in sent.items():
            if data:
                self._port.send(data, self._wire_free_s + lateness_s)
        return True

    def _suffer(self, name: str | None, reply: AnyPacket, faults: Sequence[Fault], time_s: float) -> bytes:
        """Strike the servo, and return what is left of its reply."""
        if name is not None:
            for fault in faults:
                strike(self._servos[name], fault, time_s)
        others = [servo.id for servo in self._servos.values() if servo.id != reply.id]
        return self._faults.spoil(reply, [fault.kind for fault in faults], others)

    def handle(self, packet: AnyPacket, time_s: float) -> Sequence[AnyPacket]:
        """What the servos do at an instruction, and what they reply, in order. Malformed ones are ignored.

        Args:
            packet: The instruction.
            time_s: When its last byte arrives, in [s].
        """
        before = {name: servo.goal_writes for name, servo in self._servos.items()}
        listening = {
            servo.id: servo
            for servo in self._servos.values()
            if servo.id <= _HIGHEST_ID and servo.silent_until_s <= time_s
        }
        replies = self._protocol.handle(listening, packet, time_s)
        wrote = {n: s.register("Goal_Position") for n, s in self._servos.items() if s.goal_writes != before[n]}
        if wrote:
            self._goal_log.append(GoalWrite(time_s, wrote))
            self.goal_s = self.heard_s
        return replies
