"""What all servos have in common: registers by name, a horn that moves to its goal, and faults that strike it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol


class RegisterRow(Protocol):
    """One row of a register table: where a value lies in the memory, and how it is encoded there."""

    @property
    def address(self) -> int: ...
    @property
    def length(self) -> int: ...
    def encode(self, value: int) -> bytes: ...
    def decode(self, data: bytes | bytearray) -> int: ...


class BaseServo(ABC):
    """Memory, motion and faults of one servo. Time is passed in, so every run is the same.

    Args:
        table: Register name -> row.
        memory_bytes: Size of the memory.

    Attributes:
        goal_writes: Number of writes to Goal_Position since power-on.
        stuck: Whether the joint is jammed: neither motor nor hand turn it.
        silent_until_s: Moment up to which it neither acts nor answers, in [s].
    """

    def __init__(self, table: Mapping[str, RegisterRow], memory_bytes: int) -> None:
        self._table = table
        self._memory = bytearray(memory_bytes)
        self._time_s: float | None = None
        self._speed_ticks_s = 0.0
        self.goal_writes = 0
        self.stuck = False
        self.silent_until_s = float("-inf")

    # Registers by name -------------------------------------------------------------------------------------

    def register(self, name: str) -> int:
        """Value of a register, decoded.

        Args:
            name: A name of the register table.
        """
        row = self._table[name]
        return row.decode(self._memory[row.address : row.address + row.length])

    def set_register(self, name: str, value: int) -> None:
        """Set a register from inside the servo, where neither access rights nor side effects apply.

        Args:
            name: A name of the register table.
            value: The value, not encoded.
        """
        row = self._table[name]
        self._memory[row.address : row.address + row.length] = row.encode(value)

    def has_register(self, name: str) -> bool:
        """Whether this model has a register of that name."""
        return name in self._table

    @property
    def id(self) -> int:
        """Id that the servo answers to."""
        return self.register("ID")

    @property
    def torque_enabled(self) -> bool:
        """Whether the motor holds its position."""
        return self.register("Torque_Enable") == 1

    # Where it stands ---------------------------------------------------------------------------------------

    def advance(self, time_s: float) -> None:
        """Let the servo move up to a moment. A moment before the last one changes nothing.

        Args:
            time_s: The moment, in [s].
        """
        elapsed_s = 0.0 if self._time_s is None else time_s - self._time_s
        if elapsed_s < 0:
            return
        self._time_s = time_s
        if elapsed_s > 0:
            self._move(elapsed_s)

    def _move(self, elapsed_s: float) -> None:
        """Move towards the goal for a time in [s]."""
        if self.stuck or not self.torque_enabled or not self._drives():
            self._speed_ticks_s = 0.0
            return
        before = self._position()
        reach = self._speed_limit_ticks_s() * elapsed_s
        step = min(max(self.goal_ticks - before, -reach), reach)
        self._stand_at(before + step)
        self._speed_ticks_s = step / elapsed_s

    def teleport(self, position_ticks: int, time_s: float) -> None:
        """Stand somewhere else at once, with or without torque, and stay there: the goal is the same.

        Args:
            position_ticks: Where to, in [ticks]; a jammed joint stays where it is.
            time_s: The moment, in [s].
        """
        self.advance(time_s)
        if not self.stuck:
            self._stand_at(position_ticks)
        self._speed_ticks_s = 0.0
        self.set_register("Goal_Position", round(self._position()))

    @property
    @abstractmethod
    def position_ticks(self) -> int:
        """Where the horn stands, in [ticks] of the calibration."""

    @property
    @abstractmethod
    def goal_ticks(self) -> int:
        """Position that the servo aims for, as it counts, in [ticks]."""

    @abstractmethod
    def set_position_by_hand(self, position_ticks: float, time_s: float) -> bool:
        """Turn the horn by hand.

        Args:
            position_ticks: Where to, in [ticks].
            time_s: The moment, in [s].

        Returns:
            Whether it moved; a servo under torque does not.
        """

    # What a fault does to it -------------------------------------------------------------------------------

    @abstractmethod
    def power_cycle(self) -> None:
        """Switch off and on: what is not kept falls back, and the goal is where it stands."""

    @abstractmethod
    def overload(self) -> None:
        """Trip the overload protection."""

    @abstractmethod
    def brown_out(self) -> None:
        """Start anew after the supply sagged, and report the voltage error."""

    @abstractmethod
    def _drives(self) -> bool: ...

    @abstractmethod
    def _position(self) -> float: ...

    @abstractmethod
    def _stand_at(self, position_ticks: float) -> None: ...

    @abstractmethod
    def _speed_limit_ticks_s(self) -> float: ...
