"""An STS3215 in a world with physics: its registers set a motor, and the world turns its horn."""

from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN
from lerobot_vla_plugin.twin.driven import Drive, Driven
from lerobot_vla_plugin.twin.servo import Servo

_SETTINGS = slice(0, 56)  # below the registers that report: all that the motor depends on, but for Status
_STATUS_ADDRESS = 65


class DrivenServo(Driven, Servo):
    """A servo in position mode that stands where the world says.

    Not modelled: the registers Acceleration, Goal_Velocity and Goal_Time, the I term, Minimum_Startup_Force, and a trip
    of the overload protection by itself.
    """

    _drive: tuple[bytes, Drive] | None = None

    def drive(self) -> Drive:
        """What the motor is set to now."""
        key = bytes(self._memory[_SETTINGS]) + self._memory[_STATUS_ADDRESS : _STATUS_ADDRESS + 1]
        if self._drive is None or self._drive[0] != key:
            self._drive = key, self._read_drive()
        return self._drive[1]

    def encoder_at(self, position_ticks: float) -> float:
        """Where the encoder stands at a position in [ticks]."""
        return position_ticks + self._offset()

    def unfold(self, encoder_ticks: int, position_ticks: int) -> int:
        """A position in [ticks], in the turn in which the world's encoder stands."""
        counted = encoder_ticks - self._offset()
        return encoder_ticks - counted % TICKS_PER_TURN + position_ticks

    def turn(self, encoder_ticks: int, speed_ticks_s: float, duty: float) -> None:
        """Stand where the world says; beyond a turn it counts from the beginning."""
        self._encoder_ticks = float(encoder_ticks % TICKS_PER_TURN)
        self._speed_ticks_s, self._duty = speed_ticks_s, duty

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
