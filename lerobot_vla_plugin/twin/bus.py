"""Servos on a pseudo-terminal: a serial port that LeRobot opens as if a bus of servos hung on it."""

import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lerobot_vla_plugin.twin.feetech import (
    BROADCAST_ID,
    Instruction,
    Packet,
    PacketParser,
)
from lerobot_vla_plugin.twin.servo import Servo

BAUD_RATE_HZ = 1_000_000
_BYTE_S = 10 / BAUD_RATE_HZ  # start bit, 8 bits, stop bit
_RETURN_DELAY_UNIT_S = 2e-6
_GOAL_LOG_ENTRIES = 100_000  # 55 minutes at 30 Hz
_LONGEST_READ = 244  # what fits into one packet


@dataclass(frozen=True, slots=True)
class GoalWrite:
    """One instruction that wrote goal positions.

    Attributes:
        time_s: When it took effect, on the clock of the bus.
        goals_ticks: Joint -> value of the goal register.
    """

    time_s: float
    goals_ticks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GoalStatistics:
    """What the log of goal writes says about whoever drives the arm.

    Attributes:
        writes: Number of instructions that wrote goals.
        rate_hz: Mean rate between the first and the last one; 0 for fewer than two.
        longest_pause_s: Longest time between two of them; 0 for fewer than two.
        goals_in_range: Whether every goal lay inside the position limits of its servo.
    """

    writes: int
    rate_hz: float
    longest_pause_s: float
    goals_in_range: bool


class ServoBus:
    """Feetech servos on a pseudo-terminal, served by a thread of its own at the speed of the wire.

    Args:
        servos: Joint name -> servo; ids must differ.
        name: Name of the bus, for the thread and for messages.

    Attributes:
        name: As given.
        port: Path of the serial port; only while the bus runs.

    Raises:
        ValueError: Two servos share an id.
    """

    def __init__(self, servos: Mapping[str, Servo], name: str) -> None:
        ids = [servo.id for servo in servos.values()]
        if len(set(ids)) != len(ids):
            raise ValueError(f"servos on bus {name!r} must have different ids, got {ids}")
        self.name = name
        self._servos = dict(servos)
        self._lock = threading.Lock()
        self._goal_log: deque[GoalWrite] = deque(maxlen=_GOAL_LOG_ENTRIES)
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
        self._master, self._slave = _open_raw_pty()
        self.port = os.ttyname(self._slave)
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name=f"twin-bus-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port; does nothing where the bus does not run."""
        if self._thread is None:
            return
        os.write(self._stop_write, b"x")
        self._thread.join()
        self._thread = None
        for descriptor in (self._master, self._slave, self._stop_read, self._stop_write):
            os.close(descriptor)

    # What the world around the arm sees and does ----------------------------------------------------

    def positions_ticks(self) -> dict[str, int]:
        """Joint -> position that its servo reports now, in [ticks]."""
        return self._of_all(lambda servo: servo.position_ticks)

    def torque_enabled(self) -> dict[str, bool]:
        """Joint -> whether its servo is under torque."""
        return self._of_all(lambda servo: servo.torque_enabled)

    def registers(self, name: str) -> dict[str, int]:
        """Joint -> value of one register.

        Args:
            name: A key of `STS3215_REGISTERS`.
        """
        return self._of_all(lambda servo: servo.register(name))

    def set_positions_by_hand(self, positions_ticks: Mapping[str, float]) -> bool:
        """Move joints by hand.

        Args:
            positions_ticks: Joint -> where to, in [ticks].

        Returns:
            Whether all of them moved; those under torque do not.
        """
        now = time.monotonic()
        with self._lock:
            moved = [self._servos[name].set_position_by_hand(p, now) for name, p in positions_ticks.items()]
        return all(moved)

    def goal_writes(self) -> list[GoalWrite]:
        """The latest goal writes, oldest first; at most 100,000."""
        with self._lock:
            return list(self._goal_log)

    def goal_statistics(self) -> GoalStatistics:
        """Rate, pauses and range of the goal writes since the start."""
        log = self.goal_writes()
        lows, highs = self.registers("Min_Position_Limit"), self.registers("Max_Position_Limit")
        in_range = all(lows[name] <= goal <= highs[name] for entry in log for name, goal in entry.goals_ticks.items())
        if len(log) < 2:
            return GoalStatistics(len(log), 0.0, 0.0, in_range)
        pauses = [later.time_s - earlier.time_s for earlier, later in itertools.pairwise(log)]
        return GoalStatistics(len(log), len(pauses) / sum(pauses), max(pauses), in_range)

    def _of_all[T](self, look: Callable[[Servo], T]) -> dict[str, T]:
        now = time.monotonic()
        with self._lock:
            for servo in self._servos.values():
                servo.advance(now)
            return {name: look(servo) for name, servo in self._servos.items()}

    # The wire ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        parser = PacketParser()
        while True:
            ready, _, _ = select.select([self._master, self._stop_read], [], [])
            if self._stop_read in ready:
                return
            for packet in parser.feed(os.read(self._master, 4096)):
                self._answer(packet)

    def _answer(self, packet: Packet) -> None:
        """Take the time that the wire takes, let the servos act, and send their replies."""
        received_s = max(time.monotonic(), self._wire_free_s) + len(packet.to_bytes()) * _BYTE_S
        with self._lock:
            replies = self.handle(packet, received_s)
            delays_s = [self._return_delay_s(reply.id) for reply in replies]
        data = [reply.to_bytes() for reply in replies]
        self._wire_free_s = received_s + sum(delays_s) + sum(map(len, data)) * _BYTE_S
        if data:
            time.sleep(max(0.0, self._wire_free_s - time.monotonic()))
            _write_all(self._master, b"".join(data))

    def handle(self, packet: Packet, time_s: float) -> list[Packet]:
        """What the servos do at an instruction, and what they reply, in order. Malformed ones are ignored.

        Args:
            packet: The instruction.
            time_s: When its last byte arrives, in [s].
        """
        try:
            instruction = Instruction(packet.code)
        except ValueError:
            return []
        if instruction is Instruction.SYNC_READ:
            return self._sync_read(packet.parameters, time_s)
        if instruction is Instruction.SYNC_WRITE:
            self._sync_write(packet.parameters, time_s)
            return []
        replies = [
            self._single(name, servo, instruction, packet.parameters, time_s)
            for name, servo in self._servos.items()
            if packet.id in (servo.id, BROADCAST_ID) and servo.id < BROADCAST_ID
        ]
        # All servos would talk at once after a broadcast; only the answers to a broadcast ping are staggered.
        silent = packet.id == BROADCAST_ID and instruction is not Instruction.PING
        return [] if silent else [reply for reply in replies if reply is not None]

    def _single(
        self, name: str, servo: Servo, instruction: Instruction, parameters: bytes, time_s: float
    ) -> Packet | None:
        servo_id, goal_writes = servo.id, servo.goal_writes
        data, answers_always = b"", False
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
        if servo.goal_writes != goal_writes:
            self._log_goals({name: servo}, time_s)
        if not answers_always and servo.register("Response_Status_Level") == 0:
            return None
        return Packet(servo_id, servo.error, data)

    def _sync_read(self, parameters: bytes, time_s: float) -> list[Packet]:
        if len(parameters) < 3 or parameters[1] > _LONGEST_READ:
            return []
        address, length, names = parameters[0], parameters[1], self._names_by_id()
        asked = [self._servos[names[id_]] for id_ in parameters[2:] if id_ in names]
        return [Packet(servo.id, servo.error, servo.read(address, length, time_s)) for servo in asked]

    def _sync_write(self, parameters: bytes, time_s: float) -> None:
        if len(parameters) < 2:
            return
        address, length, blocks = parameters[0], parameters[1], parameters[2:]
        names, wrote_goal = self._names_by_id(), {}
        for start in range(0, len(blocks) - length, length + 1):
            name = names.get(blocks[start])
            if name is None:
                continue
            servo = self._servos[name]
            goal_writes = servo.goal_writes
            servo.write(address, blocks[start + 1 : start + 1 + length], time_s)
            if servo.goal_writes != goal_writes:
                wrote_goal[name] = servo
        if wrote_goal:
            self._log_goals(wrote_goal, time_s)

    def _log_goals(self, servos: Mapping[str, Servo], time_s: float) -> None:
        goals = {name: servo.register("Goal_Position") for name, servo in servos.items()}
        self._goal_log.append(GoalWrite(time_s, goals))

    def _names_by_id(self) -> dict[int, str]:
        return {servo.id: name for name, servo in self._servos.items() if servo.id < BROADCAST_ID}

    def _return_delay_s(self, servo_id: int) -> float:
        name = self._names_by_id().get(servo_id)
        return self._servos[name].register("Return_Delay_Time") * _RETURN_DELAY_UNIT_S if name else 0.0


def _open_raw_pty() -> tuple[int, int]:
    """Master and slave descriptors of a new pseudo-terminal without echo.

    The slave descriptor must stay open: without any, the master raises EIO when the host closes the port.
    """
    try:
        import pty
        import tty
    except ImportError as error:
        raise OSError("the twin needs pseudo-terminals, which Windows lacks; use Linux or macOS") from error
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, slave


def _write_all(descriptor: int, data: bytes) -> None:
    """Write to the port; what does not fit is lost, as on a wire that nobody listens to."""
    try:
        os.write(descriptor, data)
    except BlockingIOError:
        return
