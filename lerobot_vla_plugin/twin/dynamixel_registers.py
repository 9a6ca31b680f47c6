"""Control tables of the Koch's servos as data; names as LeRobot has them.

Source: ROBOTIS e-manual, control tables of XL430-W250, XL330-M288 and XL330-M077. Indirect addresses are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from lerobot_vla_plugin.twin.dynamixel import StatusError

# 0.229 turns a minute, 4096 ticks a turn.
VELOCITY_UNIT_TICKS_S = 0.229 * 4096 / 60
BUS_WATCHDOG_UNIT_S = 0.02
LAST_ADDRESS = 147
_TURNS_LIMIT_TICKS = 1_048_575  # 256 turns
_GAIN_LIMIT = 16_383


class Area(Enum):
    """Where a register lives: EEPROM survives a power cycle and is locked under torque, RAM does neither."""

    EEPROM = "eeprom"
    RAM = "ram"


@dataclass(frozen=True, slots=True)
class Register:
    """One row of a control table.

    Attributes:
        address: Address of the lowest byte.
        length: Number of bytes: 1, 2 or 4.
        area: Memory it lives in.
        writable: Whether the host may write it.
        default: Value from the factory.
        low: Lowest value that a write may have.
        high: Highest value that a write may have.
        signed: Whether it holds two's complement.
        limit: Register that holds the largest magnitude that a write may have, None for none.
    """

    address: int
    length: int
    area: Area
    writable: bool = True
    default: int = 0
    low: int = 0
    high: int = 255
    signed: bool = False
    limit: str | None = None

    def encode(self, value: int) -> bytes:
        """Bytes of a value in the memory."""
        return value.to_bytes(self.length, "little", signed=self.signed)

    def decode(self, data: bytes | bytearray) -> int:
        """Value of the bytes in the memory."""
        return int.from_bytes(data, "little", signed=self.signed)


@dataclass(frozen=True)
class Model:
    """One model of servo.

    Attributes:
        name: LeRobot's name of it.
        registers: Register name -> row.
        operating_modes: Values that Operating_Mode takes.
    """

    name: str
    registers: Mapping[str, Register]
    operating_modes: frozenset[int]

    def decode_write(self, address: int, data: bytes) -> tuple[dict[str, int], StatusError]:
        """Registers that a write covers, whole and side by side, and why it is refused if it does not.

        Args:
            address: First address.
            data: The bytes.

        Returns:
            Register name -> value up to the first fault; NONE, or the fault.
        """
        names = self._names_by_address
        values, end = {}, address + len(data)
        at = address
        while at < end:
            if at not in names:
                return values, StatusError.ACCESS
            row = self.registers[names[at]]
            if at + row.length > end:
                return values, StatusError.DATA_LENGTH
            values[names[at]] = row.decode(data[at - address : at - address + row.length])
            at += row.length
        return values, StatusError.NONE

    @cached_property
    def _names_by_address(self) -> dict[int, str]:
        return {row.address: name for name, row in self.registers.items()}


def _eeprom(address: int, length: int, default: int, low: int, high: int) -> Register:
    return Register(address, length, Area.EEPROM, True, default, low, high, signed=low < 0)


def _ram(address: int, length: int, default: int, low: int, high: int, limit: str | None = None) -> Register:
    return Register(address, length, Area.RAM, True, default, low, high, low < 0, limit)


def _fixed(address: int, length: int, area: Area = Area.RAM, default: int = 0, *, signed: bool = False) -> Register:
    return Register(address, length, area, False, default, signed=signed)


_XL330_M288_REGISTERS: dict[str, Register] = {
    "Model_Number": _fixed(0, 2, Area.EEPROM, 1200),
    "Model_Information": _fixed(2, 4, Area.EEPROM),
    "Firmware_Version": _fixed(6, 1, Area.EEPROM, 52),
    "ID": _eeprom(7, 1, 1, 0, 252),
    "Baud_Rate": _eeprom(8, 1, 1, 0, 6),
    "Return_Delay_Time": _eeprom(9, 1, 250, 0, 254),
    # Time-based profiles and torque on by goal, bits 2 and 3, are not emulated and therefore refused.
    "Drive_Mode": _eeprom(10, 1, 0, 0, 1),
    "Operating_Mode": _eeprom(11, 1, 3, 0, 16),
    "Secondary_ID": _eeprom(12, 1, 255, 0, 255),
    "Protocol_Type": _eeprom(13, 1, 2, 2, 2),
    "Homing_Offset": _eeprom(20, 4, 0, -1_044_479, 1_044_479),
    "Moving_Threshold": _eeprom(24, 4, 10, 0, 1023),
    "Temperature_Limit": _eeprom(31, 1, 70, 0, 100),
    "Max_Voltage_Limit": _eeprom(32, 2, 70, 31, 70),
    "Min_Voltage_Limit": _eeprom(34, 2, 35, 31, 70),
    "PWM_Limit": _eeprom(36, 2, 885, 0, 885),
    "Current_Limit": _eeprom(38, 2, 1750, 0, 1750),
    "Velocity_Limit": _eeprom(44, 4, 445, 0, 2047),
    "Max_Position_Limit": _eeprom(48, 4, 4095, 0, 4095),
    "Min_Position_Limit": _eeprom(52, 4, 0, 0, 4095),
    "Startup_Configuration": _eeprom(60, 1, 0, 0, 3),
    "PWM_Slope": _eeprom(62, 1, 140, 1, 255),
    "Shutdown": _eeprom(63, 1, 53, 0, 63),
    "Torque_Enable": _ram(64, 1, 0, 0, 1),
    "LED": _ram(65, 1, 0, 0, 1),
    "Status_Return_Level": _ram(68, 1, 2, 0, 2),
    "Registered_Instruction": _fixed(69, 1),
    "Hardware_Error_Status": _fixed(70, 1),
    "Velocity_I_Gain": _ram(76, 2, 1600, 0, _GAIN_LIMIT),
    "Velocity_P_Gain": _ram(78, 2, 180, 0, _GAIN_LIMIT),
    "Position_D_Gain": _ram(80, 2, 0, 0, _GAIN_LIMIT),
    "Position_I_Gain": _ram(82, 2, 0, 0, _GAIN_LIMIT),
    "Position_P_Gain": _ram(84, 2, 400, 0, _GAIN_LIMIT),
    "Feedforward_2nd_Gain": _ram(88, 2, 0, 0, _GAIN_LIMIT),
    "Feedforward_1st_Gain": _ram(90, 2, 0, 0, _GAIN_LIMIT),
    "Bus_Watchdog": Register(98, 1, Area.RAM, low=0, high=127, signed=True),  # -1 reports that it has expired
    "Goal_PWM": _ram(100, 2, 885, -885, 885, "PWM_Limit"),
    "Goal_Current": _ram(102, 2, 1750, -1750, 1750, "Current_Limit"),
    "Goal_Velocity": _ram(104, 4, 0, -2047, 2047, "Velocity_Limit"),
    "Profile_Acceleration": _ram(108, 4, 0, 0, 32_767),
    "Profile_Velocity": _ram(112, 4, 0, 0, 32_767),
    "Goal_Position": _ram(116, 4, 0, -_TURNS_LIMIT_TICKS, _TURNS_LIMIT_TICKS),
    "Realtime_Tick": _fixed(120, 2),
    "Moving": _fixed(122, 1),
    "Moving_Status": _fixed(123, 1),
    "Present_PWM": _fixed(124, 2, signed=True),
    "Present_Current": _fixed(126, 2, signed=True),
    "Present_Velocity": _fixed(128, 4, signed=True),
    "Present_Position": _fixed(132, 4, signed=True),
    "Velocity_Trajectory": _fixed(136, 4, signed=True),
    "Position_Trajectory": _fixed(140, 4, signed=True),
    "Present_Input_Voltage": _fixed(144, 2, default=50),
    "Present_Temperature": _fixed(146, 1, default=30),
    "Backup_Ready": _fixed(147, 1),
}


def _variant(model_number: int, without: tuple[str, ...] = (), **defaults: int) -> dict[str, Register]:
    rows = {name: row for name, row in _XL330_M288_REGISTERS.items() if name not in without}
    for name, default in {"Model_Number": model_number, **defaults}.items():
        rows[name] = replace(rows[name], default=default)
    return rows


_XL330_M077_REGISTERS = _variant(
    1190, Velocity_Limit=1620, Velocity_I_Gain=400, Velocity_P_Gain=40, Position_I_Gain=400
)
_XL430_W250_REGISTERS = _variant(
    1060,
    without=("Current_Limit", "Goal_Current", "Present_Current", "PWM_Slope"),
    Velocity_I_Gain=1000,
    Velocity_P_Gain=100,
    Position_D_Gain=4000,
    Position_P_Gain=640,
    Shutdown=52,
    Present_Input_Voltage=120,
) | {
    "Baud_Rate": _eeprom(8, 1, 1, 0, 7),
    "Temperature_Limit": _eeprom(31, 1, 72, 0, 100),
    "Max_Voltage_Limit": _eeprom(32, 2, 140, 60, 140),
    "Min_Voltage_Limit": _eeprom(34, 2, 60, 60, 140),
    "Velocity_Limit": _eeprom(44, 4, 265, 0, 1023),
    "Goal_Velocity": _ram(104, 4, 0, -1023, 1023, "Velocity_Limit"),
    "Present_Load": _fixed(126, 2, signed=True),
}

_XL330_MODES = frozenset({0, 1, 3, 4, 5, 16})
XL330_M077 = Model("xl330-m077", _XL330_M077_REGISTERS, _XL330_MODES)
XL330_M288 = Model("xl330-m288", _XL330_M288_REGISTERS, _XL330_MODES)
XL430_W250 = Model("xl430-w250", _XL430_W250_REGISTERS, frozenset({1, 3, 4, 16}))
