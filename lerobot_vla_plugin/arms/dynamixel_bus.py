"""LeRobot's Dynamixel bus (Koch) that retries, checks and reports, counts turns, and arms the servos' watchdog."""

import logging
import time
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

from lerobot.motors.dynamixel import DynamixelMotorsBus
from lerobot.motors.motors_bus import Motor, MotorCalibration, Value, get_address

from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN
from lerobot_vla_plugin.arms.reliable_bus import GOAL, TORQUE, ReliableBus
from lerobot_vla_plugin.arms.serial_faults import DYNAMIXEL_FAULTS, ServoFault, faults_in
from lerobot_vla_plugin.arms.serial_frames import DynamixelFrames, Reply

logger = logging.getLogger(__name__)

# As long as a servo can count, or nearly: a policy that thinks for a second on a slow computer is no lost cable.
WATCHDOG_S = 2.5
_WATCHDOG = "Bus_Watchdog"
_WATCHDOG_UNIT_S = 0.02
_LONGEST_WATCHDOG_UNITS = 127
_TRIPPED = 0xFF  # -1: the servo has stopped and accepts no goal until 0 is written
_ALERT = 0x80


class ReliableDynamixelBus(ReliableBus, DynamixelMotorsBus):
    """`DynamixelMotorsBus` with the guarantees of `ReliableBus`, whole turns folded away, and a watchdog.

    A servo in extended-position mode starts after power-on within the first turn, wherever its calibrated range
    lies. At the first reading after connecting, and whenever a servo has started anew, whole turns are chosen that
    bring the joint into its range, or next to it; readings and goals carry them from then on.
    """

    _position_wraps = False

    def __init__(
        self, port: str, motors: dict[str, Motor], calibration: dict[str, MotorCalibration] | None = None
    ) -> None:
        super().__init__(port, motors, calibration)
        import dynamixel_sdk

        self._make_reliable(dynamixel_sdk, DynamixelFrames())
        self._turns_ticks: dict[str, int] = {}
        self._watchdog_s: float | None = None
        self._fed_s = float("-inf")

    # Turns -------------------------------------------------------------------------------------------------

    def _fold(self, ticks: dict[str, int], jumped: Sequence[str]) -> dict[str, int]:
        for name, position_ticks in ticks.items():
            if name in jumped or name not in self._turns_ticks:
                self._turns_ticks[name] = _whole_turns_ticks(position_ticks, self.calibration.get(name))
        return {name: position_ticks + self._turns_ticks[name] for name, position_ticks in ticks.items()}

    def _forget_positions(self, names: Sequence[str]) -> None:
        super()._forget_positions(names)
        for name in names:
            self._turns_ticks.pop(name, None)

    def _turns_of(self, servo_id: int) -> int:
        name = self._id_to_name(servo_id)
        if name not in self._turns_ticks:
            self.read_positions_ticks([name])
        return self._turns_ticks[name]

    def _encode_sign(self, data_name: str, ids_values: dict[int, int]) -> dict[int, int]:
        if data_name == GOAL:
            ids_values = {id_: value - self._turns_of(id_) for id_, value in ids_values.items()}
        return super()._encode_sign(data_name, ids_values)

    def _decode_sign(self, data_name: str, ids_values: dict[int, int]) -> dict[int, int]:
        decoded = super()._decode_sign(data_name, ids_values)
        if data_name == GOAL:
            return {id_: value + self._turns_of(id_) for id_, value in decoded.items()}
        return decoded

    # Watchdog ----------------------------------------------------------------------------------------------

    def arm_watchdog(self, seconds: float = WATCHDOG_S) -> None:
        """Let every servo stop by itself where it hears nothing for a while, as after an unplug.

        It stays armed over `disable_torque` and `enable_torque`. A servo that has stopped keeps its old goal and
        refuses new ones, and would set off for the old one if it were simply released. So after a pause its torque
        goes off, it is released, its goal is set to where it stands, and torque comes back: it sags for some
        milliseconds rather than moving anywhere. The next goal write does that by itself.

        A process that is killed leaves the servos stopped; LeRobot's own bus does not release them, ours and a
        power cycle do.

        Args:
            seconds: Longest silence, 0.02 to 2.54 in [s]. It must exceed the longest pause of retries, 0.5 s.

        Raises:
            ValueError: The servo cannot count that long.
            ConnectionError: A motor failed.
        """
        units = round(seconds / _WATCHDOG_UNIT_S)
        if not 1 <= units <= _LONGEST_WATCHDOG_UNITS:
            longest_s = _LONGEST_WATCHDOG_UNITS * _WATCHDOG_UNIT_S
            raise ValueError(f"a watchdog counts {_WATCHDOG_UNIT_S} to {longest_s} s, got {seconds}")
        self._watchdog_s = units * _WATCHDOG_UNIT_S
        self._set_watchdogs(list(self.motors), self._watchdog_s)

    def disarm_watchdog(self) -> None:
        """Switch the watchdog off on every servo. One that has stopped under torque sets off for its old goal.

        Raises:
            ConnectionError: A motor failed.
        """
        self._watchdog_s = None
        self._set_watchdogs(list(self.motors), 0)

    def sync_write(
        self, data_name: str, values: Value | dict[str, Value], *, normalize: bool = True, num_retry: int = 0
    ) -> None:
        """As LeRobot's; before a goal, servos that the watchdog has stopped are released."""
        if data_name == GOAL:
            self._release_after_pause()
        super().sync_write(data_name, values, normalize=normalize, num_retry=num_retry)

    def _prepare_torque(self, names: list[str]) -> None:
        for name in self._stopped(names):
            self.write(TORQUE, name, 0)
            self.write(_WATCHDOG, name, 0)

    def _torque_on(self, names: list[str], num_retry: int) -> None:
        super()._torque_on(names, num_retry)
        if self._watchdog_s is not None:
            self._set_watchdogs(names, self._watchdog_s)

    def _torque_off(self, name: str, num_retry: int) -> None:
        super()._torque_off(name, num_retry)
        if self._watchdog_s is not None:  # other programs are to find a servo that obeys
            self.write(_WATCHDOG, name, 0, num_retry=num_retry)

    def _release_after_pause(self) -> None:
        if self._watchdog_s is None or time.monotonic() - self._fed_s < self._watchdog_s / 2:
            return
        stopped = [name for name in self._stopped(list(self.motors)) if name in self._energised]
        if stopped:
            logger.info("the bus watchdog stopped %s in a pause; they hold where they stand and go on now", stopped)
            self.enable_torque(stopped)

    def _stopped(self, names: list[str]) -> list[str]:
        states = self.sync_read(_WATCHDOG, names, normalize=False)
        return [name for name, state in states.items() if state == _TRIPPED]

    def _set_watchdogs(self, names: Sequence[str], seconds: float) -> None:
        for name in names:
            self.write(_WATCHDOG, name, round(seconds / _WATCHDOG_UNIT_S))

    # The wire ----------------------------------------------------------------------------------------------

    def _sync_read(self, addr: int, length: int, motor_ids: list[int], **kwargs: Any) -> tuple[dict[int, int], int]:
        before_s = time.monotonic()
        result = super()._sync_read(addr, length, motor_ids, **kwargs)
        self._note_fed(motor_ids, before_s)
        return result

    def _sync_write(self, addr: int, length: int, ids_values: dict[int, int], *args: Any, **kwargs: Any) -> int:
        before_s = time.monotonic()
        result = super()._sync_write(addr, length, ids_values, *args, **kwargs)
        self._note_fed(ids_values, before_s)
        return result

    def _note_fed(self, ids: Collection[int], time_s: float) -> None:
        # Only what addresses all of them counts: a servo need not be fed by what it hears others being told.
        if len(ids) == len(self.motors):
            self._fed_s = time_s

    def _send_sync_read(self, address: int, length: int, ids: list[int]) -> int:
        fast = False  # one long packet from all servos; firmware before 2020 does not know it
        return self._sdk.syncReadTx(self.port_handler, address, length, ids, len(ids), fast)

    def _faults_of(self, reply: Reply) -> tuple[ServoFault, ...]:
        if not reply.error & _ALERT:
            return ()
        status, comm, _ = self._read(*self._hardware_error_register, reply.id, raise_on_error=False)
        known = faults_in(status, DYNAMIXEL_FAULTS) if self._is_comm_success(comm) else ()
        return known or (ServoFault("a hardware error", "it did not say which; switch the arm's power off and on"),)

    @cached_property
    def _hardware_error_register(self) -> tuple[int, int]:
        return get_address(self.model_ctrl_table, self.models[0], "Hardware_Error_Status")


def _whole_turns_ticks(position_ticks: int, joint: MotorCalibration | None) -> int:
    """Whole turns, in [ticks], to add so that a joint stands in its range, or as near to its middle as can be."""
    if joint is None or joint.range_min <= position_ticks <= joint.range_max:
        return 0
    middle = (joint.range_min + joint.range_max) / 2
    return round((middle - position_ticks) / TICKS_PER_TURN) * TICKS_PER_TURN
