"""What all servos in a world with physics have in common: the world turns them, their registers set a motor."""

from abc import abstractmethod
from dataclasses import dataclass

from lerobot_vla_plugin.twin.base_servo import BaseServo


@dataclass(frozen=True, slots=True)
class Drive:
    """What the registers of a servo make of its motor.

    Attributes:
        goal_ticks: Where to, as the servo counts, in [ticks].
        p_gain: Its P gain, as in the register.
        d_gain: Its D gain, likewise.
        largest_duty: Limit of the duty, in [0, 1]; 0 where the motor does not drive.
        dead_zone_ticks: Errors that it ignores, in [ticks].
    """

    goal_ticks: int
    p_gain: int
    d_gain: int
    largest_duty: float
    dead_zone_ticks: int


class Driven(BaseServo):
    """A servo that stands where the world says. The world's encoder counts on beyond a turn."""

    _duty = 0.0

    # What the world asks and tells -------------------------------------------------------------------------

    @abstractmethod
    def drive(self) -> Drive:
        """What the motor is set to now."""

    @abstractmethod
    def encoder_at(self, position_ticks: float) -> float:
        """Where the encoder stands at a position, as the servo is calibrated now.

        Args:
            position_ticks: The position, in [ticks] of the calibration.
        """

    @abstractmethod
    def unfold(self, encoder_ticks: int, position_ticks: int) -> int:
        """A position as the servo counts, on the scale of the world's encoder.

        Args:
            encoder_ticks: Where that encoder stands now, in [ticks].
            position_ticks: The position, in [ticks].
        """

    @abstractmethod
    def turn(self, encoder_ticks: int, speed_ticks_s: float, duty: float) -> None:
        """Stand where the world says.

        Args:
            encoder_ticks: Where the world's encoder stands, in whole [ticks].
            speed_ticks_s: How fast it turns, in [ticks/s].
            duty: What the motor gives, in [-1, 1].
        """

    def aim(self) -> None:
        """Make the position the goal, from inside."""
        self.set_register("Goal_Position", round(self._position()))

    # What a servo does by itself ---------------------------------------------------------------------------

    def _move(self, elapsed_s: float) -> None:
        """Nothing: the world moves it."""

    def teleport(self, position_ticks: int, time_s: float) -> None:
        """Refused: the servo stands where the world says.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("the world turns this servo; lay a new scene to have the arm stand somewhere else")

    def set_position_by_hand(self, position_ticks: float, time_s: float) -> bool:
        """Nobody's hand is in the world: false."""
        return False
