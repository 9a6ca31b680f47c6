"""One XL430 or XL330: its control table, and where its horn stands. Behaviour after the ROBOTIS e-manual, X series."""

import math

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN
from lerobot_vla_plugin.twin.base_servo import BaseServo
from lerobot_vla_plugin.twin.dynamixel import ALERT, StatusError
from lerobot_vla_plugin.twin.dynamixel_registers import (
    BUS_WATCHDOG_UNIT_S,
    LAST_ADDRESS,
    VELOCITY_UNIT_TICKS_S,
    Area,
    Model,
)

POSITION_MODE, EXTENDED_POSITION_MODE, CURRENT_POSITION_MODE = 3, 4, 5
WATCHDOG_EXPIRED = -1
VOLTAGE_ERROR, OVERLOAD_ERROR = 0x01, 0x20  # bits of Hardware_Error_Status and of Shutdown
_INVERTED = 0x01  # bit of Drive_Mode
_LARGEST_SINGLE_TURN_OFFSET_TICKS = 1024
_FIRST_PRESENT_ADDRESS = 120
_HAND_HOLDS_S = 0.05
POSITION_MODES = (POSITION_MODE, EXTENDED_POSITION_MODE, CURRENT_POSITION_MODE)
_GOALS = ("Goal_PWM", "Goal_Current", "Goal_Velocity", "Goal_Position")
_RESET_BY_MODE = ("Gain", "Profile_", "Goal_PWM", "Goal_Current")


class DynamixelServo(BaseServo):
    """A servo in one of the three position modes that moves at its speed limit straight towards its goal.

    It counts turns and loses the count whenever it starts anew: what it reports is then off by whole turns, while
    `position_ticks` stays in the frame of the calibration. At the beginning both agree. In current-based position
    mode a hand is stronger than the motor, as on the gripper of a leader. Other modes do not move.

    Args:
        model: Which servo it is.
        calibration: Id, drive mode, homing offset and limits that its EEPROM already holds.
        position_ticks: Where it stands, in [ticks].
    """

    def __init__(self, model: Model, calibration: JointCalibration, position_ticks: int) -> None:
        super().__init__(model.registers, LAST_ADDRESS + 1)
        self._model = model
        for name, row in model.registers.items():
            self.set_register(name, row.default)
        self.set_register("ID", calibration.id)
        self.set_register("Drive_Mode", calibration.drive_mode)
        self.set_register("Operating_Mode", EXTENDED_POSITION_MODE)  # as LeRobot's calibration leaves it
        self.set_register("Homing_Offset", calibration.homing_offset)
        self.set_register("Min_Position_Limit", calibration.range_min)
        self.set_register("Max_Position_Limit", calibration.range_max)
        self._lost_ticks = 0.0
        self._heard_s = -math.inf
        self._start()
        self._stand_at(position_ticks)
        self.set_register("Goal_Position", position_ticks)
        self._refresh_present()

    # What the bus does -------------------------------------------------------------------------------------

    def hear(self, time_s: float) -> None:
        """Notice an instruction on the bus, to whomever it is: the bus watchdog starts anew."""
        self.advance(time_s)
        self._heard_s = max(self._heard_s, time_s)

    def status(self, error: StatusError) -> int:
        """Error byte of a reply: the error with the alert bit where the hardware has one.

        Args:
            error: How the instruction went.
        """
        return error | ALERT if self.register("Hardware_Error_Status") else error

    def read(self, address: int, length: int, time_s: float) -> bytes | None:
        """Bytes of the memory as they are at a moment, zeros in its gaps; None beyond its end.

        Args:
            address: First address.
            length: Number of bytes.
            time_s: The moment, in [s].
        """
        self.advance(time_s)
        if address + length > len(self._memory):
            return None
        if address + length > _FIRST_PRESENT_ADDRESS:
            self._refresh_present()
        return bytes(self._memory[address : address + length])

    def write(self, address: int, data: bytes, time_s: float) -> StatusError:
        """Write whole registers that stand side by side, all of them or, with an error, none.

        Args:
            address: First address.
            data: The bytes.
            time_s: The moment, in [s].
        """
        self.advance(time_s)
        values, error = self._model.decode_write(address, data)
        refusals = (self._refusal(name, value) for name, value in values.items())
        refusal = error or next((why for why in refusals if why), StatusError.NONE)
        if not refusal:
            for name, value in values.items():
                self._store(name, value)
        return refusal

    def write_later(self, address: int, data: bytes) -> None:
        """Keep a write until `act`; a second one replaces the first.

        Args:
            address: First address.
            data: The bytes.
        """
        self._registered = (address, data)
        self.set_register("Registered_Instruction", 1)

    def act(self, time_s: float) -> StatusError:
        """Carry out the write that `write_later` kept, at a moment in [s]."""
        if self._registered is None:
            return StatusError.INSTRUCTION
        address, data = self._registered
        self._registered = None
        self.set_register("Registered_Instruction", 0)
        return self.write(address, data, time_s)

    def clear_turns(self, time_s: float) -> StatusError:
        """Reset the position to one turn, if the horn stands still; it stays where it is.

        Args:
            time_s: The moment, in [s].
        """
        self.advance(time_s)
        if self._velocity():
            return StatusError.RESULT_FAIL
        self._forget_turns()
        self.set_register("Goal_Position", round(self._position()))
        return StatusError.NONE

    # What a fault does to it -------------------------------------------------------------------------------

    def power_cycle(self) -> None:
        """Switch off and on: RAM falls back, turns are forgotten, the goal is where it stands."""
        for name, row in self._model.registers.items():
            if row.area is Area.RAM:
                self.set_register(name, row.default)
        self._forget_turns()
        self._start()
        self.set_register("Goal_Position", round(self._position()))

    def overload(self) -> None:
        """Trip the overload protection: without torque until it is rebooted."""
        self._fail(OVERLOAD_ERROR)

    def brown_out(self) -> None:
        """Start anew after the supply sagged, with the voltage error; an XL330 needs a reboot then."""
        self.power_cycle()
        self._fail(VOLTAGE_ERROR)

    def _fail(self, error_bit: int) -> None:
        self.set_register("Hardware_Error_Status", self.register("Hardware_Error_Status") | error_bit)
        if self._is_shut_down():
            self.set_register("Torque_Enable", 0)

    def _is_shut_down(self) -> int:
        return self.register("Hardware_Error_Status") & self.register("Shutdown")

    def _start(self) -> None:
        self._registered: tuple[int, bytes] | None = None
        self._speed_ticks_s = 0.0
        self._stopped = False  # by the watchdog, until a new goal
        self._held_until_s = -math.inf

    # Where it stands ---------------------------------------------------------------------------------------

    @property
    def position_ticks(self) -> int:
        """Where the horn stands, in [ticks] of the calibration; what it reports may be whole turns off."""
        return round(self._position() + self._lost_ticks)

    @property
    def goal_ticks(self) -> int:
        """Position that the servo aims for, as it counts; kept inside the position limits in position mode only."""
        return self._inside_limits(self.register("Goal_Position"))

    def _inside_limits(self, goal_ticks: int) -> int:
        if self.register("Operating_Mode") != POSITION_MODE:
            return goal_ticks
        return min(max(goal_ticks, self.register("Min_Position_Limit")), self.register("Max_Position_Limit"))

    def advance(self, time_s: float) -> None:
        """As for any servo, up to where the bus watchdog stops it."""
        watchdog = self.register("Bus_Watchdog")
        expires_s = self._heard_s + watchdog * BUS_WATCHDOG_UNIT_S
        if watchdog > 0 and self.torque_enabled and expires_s < time_s:
            super().advance(expires_s)
            self.set_register("Bus_Watchdog", WATCHDOG_EXPIRED)
            self._stopped = True
        super().advance(time_s)

    def teleport(self, position_ticks: int, time_s: float) -> None:
        """As for any servo, in [ticks] of the calibration; the goal is what the servo counts there."""
        super().teleport(round(position_ticks - self._lost_ticks), time_s)

    def set_position_by_hand(self, position_ticks: float, time_s: float) -> bool:
        """As for any servo, in [ticks] of the calibration; in current-based position mode also against the motor."""
        self.advance(time_s)
        yields = self.register("Operating_Mode") == CURRENT_POSITION_MODE
        if self.stuck or (self.torque_enabled and not yields):
            return False
        self._stand_at(position_ticks - self._lost_ticks)
        self._held_until_s = time_s + _HAND_HOLDS_S
        return True

    # Writes ------------------------------------------------------------------------------------------------

    def _refusal(self, name: str, value: int) -> StatusError:
        """Why a value cannot be written, NONE where it can."""
        row = self._model.registers[name]
        if not row.writable or (row.area is Area.EEPROM and self.torque_enabled):
            return StatusError.ACCESS
        unknown_mode = name == "Operating_Mode" and value not in self._model.operating_modes
        expired = name in _GOALS and self.register("Bus_Watchdog") == WATCHDOG_EXPIRED
        if not row.low <= value <= row.high or unknown_mode or expired:
            return StatusError.DATA_RANGE
        if row.limit is not None and abs(value) > self.register(row.limit):
            return StatusError.DATA_LIMIT
        if name == "Goal_Position" and self._inside_limits(value) != value:
            return StatusError.DATA_LIMIT
        if name == "Torque_Enable" and value and self._is_shut_down():
            return StatusError.RESULT_FAIL
        return StatusError.NONE

    def _store(self, name: str, value: int) -> None:
        before = self.register(name)
        self.set_register(name, value)
        if name == "Goal_Position":
            self.goal_writes += 1
        if name in _GOALS:
            self._stopped = False
        elif name == "Operating_Mode" and value != before:
            self._change_mode()
        elif name == "Torque_Enable" and value and self.register("Operating_Mode") == POSITION_MODE:
            self._forget_turns()
        elif name == "Bus_Watchdog" and self._time_s is not None:
            self._heard_s = self._time_s
        elif name == "Homing_Offset" and value != before:
            self._lost_ticks = 0.0  # a new calibration begins with the turns as they are counted now

    def _change_mode(self) -> None:
        for name, row in self._model.registers.items():
            if row.area is Area.RAM and any(part in name for part in _RESET_BY_MODE):
                self.set_register(name, row.default)
        if self.register("Operating_Mode") == POSITION_MODE:
            self._forget_turns()

    def _drives(self) -> bool:
        held = self._time_s is not None and self._time_s < self._held_until_s
        return self.register("Operating_Mode") in POSITION_MODES and not self._stopped and not held

    def _speed_limit_ticks_s(self) -> float:
        limit, asked = self.register("Velocity_Limit"), self.register("Profile_Velocity")
        return (min(asked, limit) if asked else limit) * VELOCITY_UNIT_TICKS_S

    def _direction(self) -> int:
        return -1 if self.register("Drive_Mode") & _INVERTED else 1

    def _offset(self) -> int:
        offset = self.register("Homing_Offset")
        single_turn = self.register("Operating_Mode") == POSITION_MODE
        return 0 if single_turn and abs(offset) > _LARGEST_SINGLE_TURN_OFFSET_TICKS else offset

    def _position(self) -> float:
        return self._direction() * self._encoder_ticks + self._offset()

    def _stand_at(self, position_ticks: float) -> None:
        exact_ticks = round(position_ticks * 1024) / 1024  # sums of binary fractions stay exact
        self._encoder_ticks = self._direction() * (exact_ticks - self._offset())

    def _forget_turns(self) -> None:
        counted = self._direction() * self._encoder_ticks
        self._lost_ticks += counted - counted % TICKS_PER_TURN
        self._encoder_ticks = self._direction() * (counted % TICKS_PER_TURN)

    def _velocity(self) -> int:
        """Speed in units of the registers."""
        return round(self._speed_ticks_s / VELOCITY_UNIT_TICKS_S)

    def _refresh_present(self) -> None:
        self.set_register("Present_Position", round(self._position()))
        self.set_register("Present_Velocity", self._velocity())
        self.set_register("Moving", int(abs(self._velocity()) > self.register("Moving_Threshold")))
        self.set_register("Realtime_Tick", int((self._time_s or 0.0) * 1000) % 32_768)
        # The further behind its goal, the harder it drives: one unit of current, or of load, a tick.
        lag = self.goal_ticks - self._position() if self.torque_enabled and self._drives() else 0.0
        if self.has_register("Present_Current"):
            largest = abs(self.register("Goal_Current"))
            self.set_register("Present_Current", round(min(max(lag, -largest), largest)))
        else:
            self.set_register("Present_Load", round(min(max(lag, -1000), 1000)))
