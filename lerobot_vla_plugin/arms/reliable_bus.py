"""What LeRobot's two servo buses lack: believable positions, exact ticks, torque that begins and ends safely."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from lerobot.motors.motors_bus import MotorCalibration, NameOrID, Value

from lerobot_vla_plugin.arms.calibration import calibration_from_lerobot
from lerobot_vla_plugin.arms.checked_bus import CheckedBus
from lerobot_vla_plugin.arms.joints import JointConverter, NormMode
from lerobot_vla_plugin.arms.serial_frames import Frames
from lerobot_vla_plugin.arms.serial_positions import PositionFilter

logger = logging.getLogger(__name__)

POSITION = "Present_Position"
GOAL = "Goal_Position"
TORQUE = "Torque_Enable"
# Writing these moves the zero of the position, or folds it anew.
_MOVE_THE_ZERO = frozenset({"Homing_Offset", "Drive_Mode", "Operating_Mode", "Phase"})


class ReliableBus(CheckedBus):
    """Mixin before `FeetechMotorsBus` or `DynamixelMotorsBus`; same constructor and methods.

    Every operation is retried at least `RETRIES` times. `num_retry` of LeRobot's calls can only raise that. A
    failure is a ConnectionError naming servo, flaw and remedy; fault bits in a reply are no failure: they are
    logged with their remedy and kept in `servo_errors`. What the wire cannot tell is listed in `serial_exchange`
    and `serial_positions`.
    """

    _position_wraps: bool
    _calibration: dict[str, MotorCalibration]
    _converter: JointConverter | None = None

    def _make_reliable(self, sdk: Any, frames: Frames) -> None:
        """Replace what the SDK does badly; the last step of a constructor."""
        self._use_checked_exchange(sdk, frames)
        self._positions = PositionFilter(wraps=self._position_wraps, on_contradiction=self._doubt)
        self._energised: list[str] = []

    # Units -------------------------------------------------------------------------------------------------

    @property
    def calibration(self) -> dict[str, MotorCalibration]:  # type: ignore[override]
        """LeRobot's calibration of the arm; replace it rather than change it in place."""
        return self._calibration

    @calibration.setter
    def calibration(self, calibration: dict[str, MotorCalibration]) -> None:
        self._calibration = calibration
        self._converter = None

    @property
    def converter(self) -> JointConverter:
        """Conversion between ticks and LeRobot's units.

        Raises:
            RuntimeError: The bus has no calibration.
            ValueError: The calibration is invalid or lacks a joint.
        """
        if self._converter is None:
            if not self.calibration:
                raise RuntimeError(f"the bus on {self.port} has no calibration; run lerobot-calibrate")
            modes = {name: NormMode(motor.norm_mode.value) for name, motor in self.motors.items()}
            calibration = calibration_from_lerobot(cast(Any, self.calibration))
            self._converter = JointConverter(calibration, modes, inverts_in_software=self.apply_drive_mode)
        return self._converter

    def _normalize(self, ids_values: dict[int, int]) -> dict[int, float]:
        units = self.converter.dict_to_units({self._id_to_name(id_): value for id_, value in ids_values.items()})
        return {self.motors[name].id: value for name, value in units.items()}

    def _unnormalize(self, ids_values: dict[int, float]) -> dict[int, int]:
        ticks = self.converter.dict_to_ticks({self._id_to_name(id_): value for id_, value in ids_values.items()})
        return {self.motors[name].id: value for name, value in ticks.items()}

    # Positions and goals -----------------------------------------------------------------------------------

    def read_positions_ticks(self, names: Sequence[str] | None = None, *, num_retry: int = 0) -> dict[str, int]:
        """Present positions, read until they can be believed.

        Args:
            names: Joints; None for all.
            num_retry: As for LeRobot's `sync_read`.

        Returns:
            Joint -> position in [ticks].

        Raises:
            ConnectionError: The servos did not answer, or contradict themselves.
        """
        names = list(self.motors) if names is None else list(names)

        def ask() -> dict[str, int]:
            positions = super(ReliableBus, self).sync_read(POSITION, names, normalize=False, num_retry=num_retry)
            return cast(dict[str, int], positions)

        believed = self._positions.read(names, ask)
        return self._fold(believed.ticks, believed.jumped)

    def write_goals_ticks(self, goals_ticks: Mapping[str, int]) -> None:
        """Send goal positions; no servo acknowledges them, and a lost one is replaced by the next.

        Args:
            goals_ticks: Joint -> goal in [ticks], not clamped here.

        Raises:
            ConnectionError: The port is gone.
        """
        self.sync_write(GOAL, dict(goals_ticks), normalize=False)

    def sync_read(
        self,
        data_name: str,
        motors: NameOrID | Sequence[NameOrID] | None = None,
        *,
        normalize: bool = True,
        num_retry: int = 0,
    ) -> dict[str, Value]:
        """As LeRobot's; positions are checked for plausibility."""
        if data_name != POSITION:
            return super().sync_read(data_name, motors, normalize=normalize, num_retry=num_retry)
        ticks = self.read_positions_ticks(self._get_motors_list(motors), num_retry=num_retry)
        return cast(dict[str, Value], self.converter.dict_to_units(ticks) if normalize else ticks)

    def read(self, data_name: str, motor: str, *, normalize: bool = True, num_retry: int = 0) -> Value:
        """As LeRobot's; positions are checked for plausibility."""
        if data_name != POSITION:
            return super().read(data_name, motor, normalize=normalize, num_retry=num_retry)
        return self.sync_read(POSITION, motor, normalize=normalize, num_retry=num_retry)[motor]

    def write(self, data_name: str, motor: str, value: Value, *, normalize: bool = True, num_retry: int = 0) -> None:
        """As LeRobot's."""
        super().write(data_name, motor, value, normalize=normalize, num_retry=num_retry)
        if data_name in _MOVE_THE_ZERO:
            self._forget_positions([motor])

    def _fold(self, ticks: dict[str, int], jumped: Sequence[str]) -> dict[str, int]:
        """Positions in the calibrated turn; `jumped` are the joints that may have lost count of their turns."""
        return ticks

    def _forget_positions(self, names: Sequence[str]) -> None:
        self._positions.forget(names)

    def _doubt(self) -> None:
        self.statistics.implausible += 1
        self._exchange.distrust()

    # Torque ------------------------------------------------------------------------------------------------

    def enable_torque(self, motors: NameOrID | Sequence[NameOrID] | None = None, num_retry: int = 0) -> None:
        """Torque on, with every goal set to where the joint stands, so that nothing moves.

        Args:
            motors: As for LeRobot's.
            num_retry: As for LeRobot's.

        Raises:
            ConnectionError: A motor failed; torque is then off again on all that were asked for.
            ServoRefusedError: Likewise, where a servo does not accept goal or torque.
        """
        names = self._get_motors_list(motors)
        try:
            self._prepare_torque(names)
            self._positions.forget(names)  # two readings must agree
            positions = self.read_positions_ticks(names, num_retry=num_retry)
            for name, position_ticks in positions.items():
                self._warn_if_outside(name, position_ticks)
                self.write(GOAL, name, position_ticks, normalize=False, num_retry=num_retry)
            self._energised += [name for name in names if name not in self._energised]
            self._torque_on(names, num_retry)
        except BaseException as error:
            self._torque_off_after(error, names)
            raise

    def _prepare_torque(self, names: list[str]) -> None:
        """Whatever servos need before they accept a goal."""

    def _torque_on(self, names: list[str], num_retry: int) -> None:
        super().enable_torque(names, num_retry)

    def disable_torque(self, motors: NameOrID | Sequence[NameOrID] | None = None, num_retry: int = 0) -> None:
        """Torque off on every motor, whatever happens to the others; each is read back.

        Args:
            motors: As for LeRobot's.
            num_retry: As for LeRobot's.

        Raises:
            ConnectionError: Some motors could not be switched off for certain; it names them.
        """
        names = self._get_motors_list(motors)
        failed: dict[str, Exception] = {}
        self._try_all_at_once(names)
        for name in names:
            try:
                self._torque_off(name, num_retry)
                self._energised = [other for other in self._energised if other != name]
            except (ConnectionError, RuntimeError) as error:
                failed[name] = error
        if failed:
            reasons = "; ".join(f"{name}: {error}" for name, error in failed.items())
            raise ConnectionError(
                f"torque may still be on at {list(failed)} ({reasons}); switch off the arm's power before touching it"
            )

    def _torque_off(self, name: str, num_retry: int) -> None:
        super().disable_torque([name], num_retry)
        if self.read(TORQUE, name, normalize=False, num_retry=num_retry) != 0:
            raise ConnectionError("it still reports torque after it was switched off")

    def _try_all_at_once(self, names: Sequence[str]) -> None:
        """One packet to all, so that none holds on while a dead one is waited for; the acknowledged write follows."""
        try:
            self.sync_write(TORQUE, dict.fromkeys(names, 0), normalize=False)
        except ConnectionError as error:
            logger.debug("torque off in one packet failed: %s", error)

    @contextmanager
    def torque_disabled(self, motors: NameOrID | Sequence[NameOrID] | None = None) -> Iterator[None]:  # type: ignore[override]
        """Torque off for the block, and on behind it; after an exception it stays off, unlike LeRobot's."""
        self.disable_torque(motors)
        yield
        self.enable_torque(motors)

    def _torque_off_after(self, error: BaseException, names: Sequence[str]) -> None:
        try:
            self.disable_torque(names)
        except ConnectionError as second:
            error.add_note(str(second))

    def _warn_if_outside(self, name: str, position_ticks: int) -> None:
        joint = self.calibration.get(name)
        if joint is not None and not joint.range_min <= position_ticks <= joint.range_max:
            logger.warning(
                "%s stands at %d, outside its calibrated range %d..%d [ticks]: with torque on it moves to the nearest "
                "limit; switch off, move it inside by hand, and calibrate anew if it was inside",
                name, position_ticks, joint.range_min, joint.range_max,
            )  # fmt: skip

    # Life --------------------------------------------------------------------------------------------------

    def _connect(self, handshake: bool = True) -> None:
        self._forget_positions(list(self.motors))
        super()._connect(handshake)

    def disconnect(self, disable_torque: bool = True) -> None:
        """Torque off, unless told otherwise, and close the port; it closes even where a motor fails.

        Raises:
            ConnectionError: As for `disable_torque`.
            DeviceNotConnectedError: The port is not open.
        """
        try:
            if disable_torque and self.is_connected:
                self.disable_torque()
        finally:
            super().disconnect(disable_torque=False)

    def reopen(self) -> None:
        """Open the port again after an unplug; torque comes back, with goal = present, where we had it on.

        Raises:
            ConnectionError: The port is not there (yet), or a motor fails.
            RuntimeError: Other motors hang on this port than before.
        """
        self.port_handler.closePort()
        self.connect()
        if self._energised:
            self.enable_torque(list(self._energised))
