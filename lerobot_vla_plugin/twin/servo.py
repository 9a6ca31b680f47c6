"""One STS3215: its memory, and where its horn stands. Time is passed in, so every run is the same."""

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN
from lerobot_vla_plugin.twin.base_servo import BaseServo
from lerobot_vla_plugin.twin.feetech import STS3215_REGISTERS, Area, StatusError

# STS3215 at 7.4 V without load: about 50 turns a minute.
NO_LOAD_SPEED_TICKS_S = 3400.0
_MEMORY_BYTES = 256
_CENTRE_COMMAND = 128  # written to Torque_Enable: make the present position the middle of the turn
_CENTRE_TICKS = 2048
_LARGEST_OFFSET_TICKS = 2047  # 11 bits of magnitude
_MULTI_TURN_FEEDBACK = 0x10  # bit of Phase: report positions beyond one turn
_POSITION_MODE = 0

_WRITABLE = frozenset(
    address
    for register in STS3215_REGISTERS.values()
    if register.writable
    for address in range(register.address, register.address + register.length)
)
_KEPT = frozenset(
    address
    for register in STS3215_REGISTERS.values()
    if register.area is not Area.SRAM
    for address in range(register.address, register.address + register.length)
)
_GOAL_ADDRESS = STS3215_REGISTERS["Goal_Position"].address
_TORQUE_ADDRESS = STS3215_REGISTERS["Torque_Enable"].address
_PRESENT_ADDRESSES = range(STS3215_REGISTERS["Present_Position"].address, 73)


class Servo(BaseServo):
    """A servo in position mode that moves at its speed limit straight towards its goal.

    Positions without further word are those that the servo reports: encoder minus homing offset.

    Args:
        calibration: Id, homing offset and limits that its EEPROM already holds.
        position_ticks: Where it stands at power-on, in [ticks].
    """

    def __init__(self, calibration: JointCalibration, position_ticks: int) -> None:
        super().__init__(STS3215_REGISTERS, _MEMORY_BYTES)
        for name, register in STS3215_REGISTERS.items():
            self.set_register(name, register.default)
        self.set_register("ID", calibration.id)
        self.set_register("Homing_Offset", calibration.homing_offset)
        self.set_register("Min_Position_Limit", calibration.range_min)
        self.set_register("Max_Position_Limit", calibration.range_max)
        self._kept = {address: self._memory[address] for address in _KEPT}
        self._encoder_ticks = float((position_ticks + calibration.homing_offset) % TICKS_PER_TURN)
        self._registered: tuple[int, bytes] | None = None
        self.power_cycle()

    @property
    def error(self) -> StatusError:
        """Faults that every reply carries."""
        return StatusError(self.register("Status"))

    # What the bus does -------------------------------------------------------------------------------------

    def read(self, address: int, length: int, time_s: float) -> bytes:
        """Bytes of the memory as they are at a moment; zeros beyond its end.

        Args:
            address: First address.
            length: Number of bytes.
            time_s: The moment, in [s].
        """
        self.advance(time_s)
        if address < _PRESENT_ADDRESSES.stop and address + length > _PRESENT_ADDRESSES.start:
            self._refresh_present()
        return bytes(self._memory[address : address + length]).ljust(length, b"\0")

    def write(self, address: int, data: bytes, time_s: float) -> None:
        """Write bytes to the memory; those that are read-only or do not exist stay as they are.

        Args:
            address: First address.
            data: The bytes.
            time_s: The moment, in [s].
        """
        self.advance(time_s)
        torque_before = self._memory[_TORQUE_ADDRESS]
        if address <= _TORQUE_ADDRESS < address + len(data):
            self.set_register("Status", 0)  # a trip is over once the torque is switched anew
        locked = self.register("Lock") != 0
        for at, byte in enumerate(data, start=address):
            if at in _WRITABLE:
                self._memory[at] = byte
                if at in _KEPT and not locked:
                    self._kept[at] = byte
        if address <= _GOAL_ADDRESS < address + len(data):
            self.goal_writes += 1
        if self._memory[_TORQUE_ADDRESS] == _CENTRE_COMMAND:
            self._memory[_TORQUE_ADDRESS] = torque_before
            self._centre_here()

    def write_later(self, address: int, data: bytes) -> None:
        """Keep a write until `act`; a second one replaces the first.

        Args:
            address: First address.
            data: The bytes.
        """
        self._registered = (address, data)

    def act(self, time_s: float) -> bool:
        """Carry out the write that `write_later` kept; false if there is none.

        Args:
            time_s: The moment, in [s].
        """
        if self._registered is None:
            return False
        address, data = self._registered
        self._registered = None
        self.write(address, data, time_s)
        return True

    def power_cycle(self) -> None:
        """Switch off and on: SRAM falls back, writes under Lock are lost, the goal is where it stands."""
        for name, row in STS3215_REGISTERS.items():
            if row.area is Area.SRAM:
                self.set_register(name, row.default)
        for address, byte in self._kept.items():
            self._memory[address] = byte
        self._registered = None
        self._speed_ticks_s = 0.0
        self.set_register("Goal_Position", self.position_ticks)
        self._refresh_present()

    def overload(self) -> None:
        """Trip the overload protection: it drives no more until its torque is switched anew."""
        self.set_register("Status", StatusError.OVERLOAD)

    def brown_out(self) -> None:
        """Start anew after the supply sagged, with the voltage error until its torque is switched."""
        self.power_cycle()
        self.set_register("Status", StatusError.VOLTAGE)

    # Where it stands ---------------------------------------------------------------------------------------

    @property
    def position_ticks(self) -> int:
        """Position as the servo reports it: encoder minus homing offset, folded into one turn."""
        ticks = round(self._position())
        if self.register("Phase") & _MULTI_TURN_FEEDBACK:
            return ticks
        return ticks % TICKS_PER_TURN

    @property
    def goal_ticks(self) -> int:
        """Position that the servo aims for: the goal register inside the position limits."""
        low, high = self.register("Min_Position_Limit"), self.register("Max_Position_Limit")
        if low == high == 0:  # Feetech's way to switch the limits off
            low, high = 0, TICKS_PER_TURN - 1
        return min(max(self.register("Goal_Position"), low), high)

    def set_position_by_hand(self, position_ticks: float, time_s: float) -> bool:
        """Turn the horn by hand.

        Args:
            position_ticks: Where to, in [ticks]; kept inside one turn.
            time_s: The moment, in [s].

        Returns:
            Whether it moved; a servo under torque does not.
        """
        self.advance(time_s)
        if self.torque_enabled or self.stuck:
            return False
        self._stand_at(min(max(position_ticks, 0.0), TICKS_PER_TURN - 1.0))
        return True

    def _drives(self) -> bool:
        return StatusError.OVERLOAD not in self.error and self.register("Operating_Mode") == _POSITION_MODE

    def _position(self) -> float:
        return (self._encoder_ticks - self._offset()) % TICKS_PER_TURN

    def _stand_at(self, position_ticks: float) -> None:
        # A binary fraction keeps sums exact: a rounding error below 0 would come out as almost a full turn.
        exact_ticks = round(position_ticks * 1024) / 1024
        self._encoder_ticks = (exact_ticks + self._offset()) % TICKS_PER_TURN

    def _offset(self) -> int:
        return self.register("Homing_Offset")

    def _speed_limit_ticks_s(self) -> float:
        asked = abs(self.register("Goal_Velocity"))
        return min(asked, NO_LOAD_SPEED_TICKS_S) if asked else NO_LOAD_SPEED_TICKS_S

    def _centre_here(self) -> None:
        offset = round(self._encoder_ticks) - _CENTRE_TICKS
        self.set_register("Homing_Offset", min(max(offset, -_LARGEST_OFFSET_TICKS), _LARGEST_OFFSET_TICKS))
        row = STS3215_REGISTERS["Homing_Offset"]
        for address in range(row.address, row.address + row.length):
            self._kept[address] = self._memory[address]

    def _refresh_present(self) -> None:
        self.set_register("Present_Position", self.position_ticks)
        self.set_register("Present_Velocity", round(self._speed_ticks_s))
        self.set_register("Goal_Position_2", max(self.register("Goal_Position"), 0))
        self.set_register("Present_Load", self._load_permille())
        self.set_register("Moving", int(abs(self._speed_ticks_s) >= 1))

    def _load_permille(self) -> int:
        """The motor's duty: the further behind its goal, the harder it drives."""
        lag = self.goal_ticks - self._position() if self.torque_enabled else 0.0
        return round(min(max(lag, -1000), 1000))
