"""An STS3215 in a world with physics: its registers set a motor, and the world turns its horn."""

from dataclasses import dataclass

from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN
from lerobot_vla_plugin.twin.servo import Servo

_SETTINGS = slice(0, 56)  # below the registers that report: all that the motor depends on, but for Status
_STATUS_ADDRESS = 65


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


class DrivenServo(Servo):
    """A servo in position mode that stands where the world says.

    Not modelled: the registers Acceleration, Goal_Velocity and Goal_Time, the I term, Minimum_Startup_Force, and a trip
    of the overload protection by itself.
    """

    _duty = 0.0
    _drive: tuple[bytes, Drive] | None = None

    # What the world asks and tells -------------------------------------------------------------------------

    def drive(self) -> Drive:
        """What the motor is set to now."""
        key = bytes(self._memory[_SETTINGS]) + self._memory[_STATUS_ADDRESS : _STATUS_ADDRESS + 1]
        if self._drive is None or self._drive[0] != key:
            self._drive = key, self._read_drive()
        return self._drive[1]

    def encoder_at(self, position_ticks: float) -> float:
        """Where the encoder stands at a position, as the servo is calibrated now.

        Args:
            position_ticks: The position, in [ticks] of the calibration.
        """
        return position_ticks + self._offset()

    def unfold(self, encoder_ticks: int, position_ticks: int) -> int:
        """A position as the servo counts, on the scale of an encoder that counts on beyond a turn.

        Args:
            encoder_ticks: Where that encoder stands now, in [ticks].
            position_ticks: The position, in [ticks].
        """
        counted = encoder_ticks - self._offset()
        return encoder_ticks - counted % TICKS_PER_TURN + position_ticks

    def turn(self, encoder_ticks: int, speed_ticks_s: float, duty: float) -> None:
        """Stand where the world says.

        Args:
            encoder_ticks: Where the encoder stands, in whole [ticks]; beyond a turn it counts from the beginning.
            speed_ticks_s: How fast it turns, in [ticks/s].
            duty: What the motor gives, in [-1, 1].
        """
        self._encoder_ticks = float(encoder_ticks % TICKS_PER_TURN)
        self._speed_ticks_s, self._duty = speed_ticks_s, duty

    def aim(self, position_ticks: int) -> None:
        """Make a position the goal, from inside.

        Args:
            position_ticks: The position, in [ticks] as the servo counts.
        """
        self.set_register("Goal_Position", position_ticks)

    # What a servo does by itself ---------------------------------------------------------------------------

    def advance(self, time_s: float) -> None:
        """Let time pass, in which it does not move by itself.

        Args:
            time_s: The moment, in [s].
        """
        self._time_s = time_s if self._time_s is None else max(time_s, self._time_s)

    def teleport(self, position_ticks: int, time_s: float) -> None:
        """Refused: the servo stands where the world says.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("the world turns this servo; lay a new scene to have the arm stand somewhere else")

    def set_position_by_hand(self, position_ticks: float, time_s: float) -> bool:
        """Nobody's hand is in the world: false."""
        return False

    def _read_drive(self) -> Drive:
        drives = self.torque_enabled and self._drives()
        limit = min(self.register("Torque_Limit"), self.register("Max_Torque_Limit"), 1000) / 1000
        return Drive(
            goal_ticks=self.goal_ticks,
            p_gain=self.register("P_Coefficient"),
            d_gain=self.register("D_Coefficient"),
            largest_duty=limit if drives else 0.0,
            dead_zone_ticks=max(self.register("CW_Dead_Zone"), self.register("CCW_Dead_Zone")),
        )

    def _load_permille(self) -> int:
        return round(self._duty * 1000)
