"""An XL430 or XL330 in a world with physics: its registers set a motor, and the world turns its horn."""

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.twin.driven import Drive, Driven
from lerobot_vla_plugin.twin.dynamixel_registers import Model
from lerobot_vla_plugin.twin.dynamixel_servo import CURRENT_POSITION_MODE, POSITION_MODES, DynamixelServo

_FULL_PWM = 885
_STALL_MA = 1470  # e-manual, XL330-M288 at 5 V; the XL430 measures no current


class DrivenDynamixelServo(Driven, DynamixelServo):
    """A servo in one of the three position modes that stands where the world says.

    In current-based position mode Goal_Current limits the duty, in proportion to the current at a standstill. Not
    modelled: profiles (LeRobot sets none), the I term, feedforward, and shutting down by itself.
    """

    _stopped_ticks = 0

    def __init__(self, model: Model, calibration: JointCalibration, position_ticks: int) -> None:
        super().__init__(model, calibration, position_ticks)
        self._world_ticks = round(self._encoder_ticks)  # the world counts all turns, the servo may forget some

    def drive(self) -> Drive:
        """What the motor is set to now; one that the watchdog has stopped holds where it was."""
        return Drive(
            goal_ticks=self._stopped_ticks if self._stopped else self.goal_ticks,
            p_gain=self.register("Position_P_Gain"),
            d_gain=self.register("Position_D_Gain"),
            largest_duty=self._largest_duty() if self.torque_enabled else 0.0,
            dead_zone_ticks=0,
        )

    def encoder_at(self, position_ticks: float) -> float:
        """Where the encoder stands at a position in [ticks] of the calibration."""
        return self._direction() * (position_ticks - self._offset())

    def unfold(self, encoder_ticks: int, position_ticks: int) -> int:
        """A position in [ticks], as far from the world's encoder as it is from where the servo counts that it is."""
        return encoder_ticks + self._direction() * (position_ticks - round(self._position()))

    def turn(self, encoder_ticks: int, speed_ticks_s: float, duty: float) -> None:
        """Stand where the world says."""
        self._encoder_ticks += encoder_ticks - self._world_ticks
        self._world_ticks = encoder_ticks
        self._speed_ticks_s, self._duty = self._direction() * speed_ticks_s, self._direction() * duty

    def advance(self, time_s: float) -> None:
        """As for any Dynamixel; the watchdog stops it where it is."""
        was_stopped = self._stopped
        super().advance(time_s)
        if self._stopped and not was_stopped:
            self._stopped_ticks = round(self._position())

    def _largest_duty(self) -> float:
        mode = self.register("Operating_Mode")
        if mode not in POSITION_MODES:
            return 0.0
        duty = min(self.register("Goal_PWM"), self.register("PWM_Limit")) / _FULL_PWM
        if mode == CURRENT_POSITION_MODE:
            duty = min(duty, self.register("Goal_Current") / _STALL_MA)
        return max(duty, 0.0)

    def _refresh_present(self) -> None:
        super()._refresh_present()
        self.set_register("Present_PWM", round(self._duty * _FULL_PWM))
        if self.has_register("Present_Current"):
            self.set_register("Present_Current", round(self._duty * _STALL_MA))
        else:
            self.set_register("Present_Load", round(self._duty * 1000))
