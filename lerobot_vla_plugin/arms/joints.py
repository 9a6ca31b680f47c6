"""Joint units as pure functions: encoder ticks <-> degrees <-> percent, and the servos' signed registers.

Reading gives what LeRobot reads. Commanding gives LeRobot's value before it is truncated to an integer, but
rounded to the nearest tick (halves to even) and kept inside the calibrated range in every mode.
"""

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.arms.calibration import CalibrationLike

TICKS_PER_TURN = 4096
# LeRobot divides by the highest tick, not by the number of ticks; its data sets are recorded that way.
_HIGHEST_TICK = TICKS_PER_TURN - 1


class NormMode(StrEnum):
    """Unit of a joint; the values are those of LeRobot's `MotorNormMode`."""

    PERCENT = "range_m100_100"
    GRIPPER = "range_0_100"
    DEGREES = "degrees"


def is_gripper(joint: str) -> bool:
    """Whether LeRobot reads this joint in [0, 100]; bimanual arms have a prefix before "gripper"."""
    return joint.endswith("gripper")


def joint_modes(names: Iterable[str], *, degrees: bool) -> dict[str, NormMode]:
    """Unit of each joint of an arm.

    Args:
        names: Joint names without LeRobot's ".pos".
        degrees: LeRobot's option `use_degrees`; it does not concern the gripper.
    """
    body = NormMode.DEGREES if degrees else NormMode.PERCENT
    return {name: NormMode.GRIPPER if is_gripper(name) else body for name in names}


class JointConverter:
    """Conversion of all joints of one arm, in LeRobot's units.

    Args:
        calibration: Joint name -> calibration; may hold more joints than `modes`.
        modes: Joint name -> unit; its order is that of the last axis of arrays.
        inverts_in_software: LeRobot's `apply_drive_mode`: whether the bus mirrors joints with `drive_mode` 1 in
            percent and gripper mode. Feetech: yes. Dynamixel: no, the servo's firmware has done it already.

    Raises:
        ValueError: A joint has no calibration.
    """

    def __init__(
        self,
        calibration: Mapping[str, CalibrationLike],
        modes: Mapping[str, NormMode],
        *,
        inverts_in_software: bool,
    ) -> None:
        missing = [name for name in modes if name not in calibration]
        if missing:
            raise ValueError(f"no calibration for {missing}; there is one for {list(calibration)}")
        self.names = tuple(modes)
        self._scales = {
            name: _JointScale(name, calibration[name], NormMode(mode), inverts_in_software)
            for name, mode in modes.items()
        }

    def to_ticks(self, values: ArrayLike) -> NDArray[np.int64]:
        """Convert joint values to the positions to command.

        Args:
            values: Joint values, (..., j), in each joint's unit.

        Returns:
            Goal positions, (..., j), in [ticks], inside the calibrated ranges.

        Raises:
            ValueError: A value is not finite, or the last axis has another length.
        """
        columns = self._columns(values)
        goals = [scale.to_goal_ticks(column) for scale, column in zip(self._scales.values(), columns, strict=True)]
        return np.stack(goals, axis=-1)

    def to_exact_ticks(self, values: ArrayLike) -> NDArray[np.float64]:
        """Convert joint values to positions that are neither rounded nor, in degrees, clamped.

        Args:
            values: Joint values, (..., j), in each joint's unit; percent are clamped to their domain.

        Returns:
            Positions, (..., j), in [ticks]: LeRobot's value before truncation.

        Raises:
            ValueError: As for `to_ticks`.
        """
        columns = self._columns(values)
        exact = [scale.to_exact_ticks(column) for scale, column in zip(self._scales.values(), columns, strict=True)]
        return np.stack(exact, axis=-1)

    def to_units(self, ticks: ArrayLike) -> NDArray[np.float64]:
        """Convert positions to LeRobot's reading.

        Args:
            ticks: Present positions, (..., j), in [ticks].

        Returns:
            Joint values, (..., j). Percent are clamped to the calibrated range as in LeRobot, degrees are not.

        Raises:
            ValueError: The last axis has another length.
        """
        columns = self._columns(ticks)
        units = [scale.to_units(column) for scale, column in zip(self._scales.values(), columns, strict=True)]
        return np.stack(units, axis=-1)

    def dict_to_ticks(self, values: Mapping[str, float]) -> dict[str, int]:
        """`to_ticks` for one action.

        Args:
            values: Joint name -> value; any subset of the joints.

        Raises:
            ValueError: A value is not finite, or a joint is unknown.
        """
        try:
            return {name: self._scales[name].to_goal_tick(float(value)) for name, value in values.items()}
        except KeyError as error:
            raise self._unknown_joint(error) from error

    def dict_to_units(self, ticks: Mapping[str, int]) -> dict[str, float]:
        """`to_units` for one observation.

        Args:
            ticks: Joint name -> present position in [ticks]; any subset of the joints.

        Raises:
            ValueError: A joint is unknown.
        """
        try:
            return {name: self._scales[name].to_units(float(position)) for name, position in ticks.items()}
        except KeyError as error:
            raise self._unknown_joint(error) from error

    def _columns(self, values: ArrayLike) -> NDArray[np.float64]:
        values = np.asarray(values, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self.names):
            raise ValueError(f"expected {len(self.names)} joints {self.names} on the last axis, got {values.shape}")
        return np.moveaxis(values, -1, 0)

    def _unknown_joint(self, error: KeyError) -> ValueError:
        return ValueError(f"unknown joint {error}; there are {self.names}")


class _JointScale:
    """One joint's formulas, the same for a number and for an array: they cannot drift apart."""

    __slots__ = ("_high", "_low", "_middle", "_mirrors", "_mode", "_name", "_width")

    def __init__(self, name: str, joint: CalibrationLike, mode: NormMode, inverts_in_software: bool) -> None:
        self._name = name
        self._mode = mode
        self._low = joint.range_min
        self._high = joint.range_max
        self._width = joint.range_max - joint.range_min
        self._middle = (joint.range_min + joint.range_max) / 2
        self._mirrors = inverts_in_software and joint.drive_mode == 1

    def to_units[T: (float, NDArray[np.float64])](self, ticks: T) -> T:
        if self._mode is NormMode.DEGREES:
            return (ticks - self._middle) * 360 / _HIGHEST_TICK
        share = (_clip(ticks, self._low, self._high) - self._low) / self._width
        if self._mode is NormMode.GRIPPER:
            return 100 - share * 100 if self._mirrors else share * 100
        percent = share * 200 - 100
        return -percent if self._mirrors else percent

    def to_exact_ticks[T: (float, NDArray[np.float64])](self, units: T) -> T:
        """Positions in the unit of the mode -> [ticks], not rounded, of any shape; ValueError if one is not finite."""
        if not (math.isfinite(units) if isinstance(units, float) else np.isfinite(units).all()):
            raise ValueError(f"{self._name}: expected finite values in {self._mode}, got {units}")
        if self._mode is NormMode.DEGREES:
            return units * _HIGHEST_TICK / 360 + self._middle
        if self._mode is NormMode.GRIPPER:
            share = _clip(100 - units if self._mirrors else units, 0, 100) / 100
        else:
            share = (_clip(-units if self._mirrors else units, -100, 100) + 100) / 200
        return share * self._width + self._low

    def to_goal_tick(self, units: float) -> int:
        return round(_clip(self.to_exact_ticks(units), self._low, self._high))

    def to_goal_ticks(self, units: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.rint(_clip(self.to_exact_ticks(units), self._low, self._high)).astype(np.int64)


def _clip[T: (float, NDArray[np.float64])](values: T, low: int, high: int) -> T:
    # Written out for numbers: numpy takes 20 times, min and max 3 times as long.
    if isinstance(values, float):
        return low if values < low else high if values > high else values
    return np.clip(values, low, high)


def ticks_to_degrees(ticks: ArrayLike, joint: CalibrationLike) -> NDArray[np.float64]:
    """Angles of one joint in [deg], 0 in the middle of its range; neither clamped nor mirrored."""
    return _feetech_scale(joint, NormMode.DEGREES).to_units(np.asarray(ticks, dtype=np.float64))


def degrees_to_ticks(degrees: ArrayLike, joint: CalibrationLike) -> NDArray[np.int64]:
    """Goal positions of one joint in [ticks]; raises ValueError for an angle that is not finite."""
    return _feetech_scale(joint, NormMode.DEGREES).to_goal_ticks(np.asarray(degrees, dtype=np.float64))


def ticks_to_percent(ticks: ArrayLike, joint: CalibrationLike, *, gripper: bool = False) -> NDArray[np.float64]:
    """Positions of one Feetech joint in [-100, 100], or [0, 100] for a gripper; clamped to its range."""
    return _feetech_scale(joint, _percent_mode(gripper)).to_units(np.asarray(ticks, dtype=np.float64))


def percent_to_ticks(percent: ArrayLike, joint: CalibrationLike, *, gripper: bool = False) -> NDArray[np.int64]:
    """Goal positions of one Feetech joint in [ticks]; raises ValueError for a value that is not finite."""
    return _feetech_scale(joint, _percent_mode(gripper)).to_goal_ticks(np.asarray(percent, dtype=np.float64))


def _feetech_scale(joint: CalibrationLike, mode: NormMode) -> _JointScale:
    return _JointScale(f"servo {joint.id}", joint, mode, inverts_in_software=True)


def _percent_mode(gripper: bool) -> NormMode:
    return NormMode.GRIPPER if gripper else NormMode.PERCENT


def encode_sign_magnitude[T: (int, NDArray[np.int64])](values: T, sign_bit: int) -> T:
    """Encode signed integers as a Feetech register with a sign bit above the magnitude.

    Args:
        values: An integer, or integers of any shape.
        sign_bit: Index of the sign bit, 0 being the lowest bit.

    Raises:
        ValueError: A magnitude needs more than `sign_bit` bits.
    """
    values = _integers(values)
    largest = (1 << sign_bit) - 1
    if not _all(abs(values) <= largest):
        raise ValueError(f"expected magnitudes up to {largest} (sign bit {sign_bit}), got {values}")
    return abs(values) + (values < 0) * (1 << sign_bit)


def decode_sign_magnitude[T: (int, NDArray[np.int64])](encoded: T, sign_bit: int) -> T:
    """Decode registers that `encode_sign_magnitude` wrote; bits above the sign bit are ignored.

    Args:
        encoded: A non-negative integer, or such integers of any shape.
        sign_bit: Index of the sign bit.
    """
    encoded = _integers(encoded)
    return (encoded & ((1 << sign_bit) - 1)) * (1 - 2 * ((encoded >> sign_bit) & 1))


def encode_twos_complement[T: (int, NDArray[np.int64])](values: T, n_bytes: int) -> T:
    """Encode signed integers as a Dynamixel register.

    Args:
        values: An integer, or integers of any shape.
        n_bytes: Length of the register, 1 to 4.

    Raises:
        ValueError: A value does not fit.
    """
    values = _integers(values)
    half = 1 << (8 * n_bytes - 1)
    if not _all((-half <= values) & (values < half)):
        raise ValueError(f"expected values in {-half}..{half - 1} ({n_bytes} bytes), got {values}")
    return values & (2 * half - 1)


def decode_twos_complement[T: (int, NDArray[np.int64])](encoded: T, n_bytes: int) -> T:
    """Decode registers that `encode_twos_complement` wrote.

    Args:
        encoded: A non-negative integer, or such integers of any shape.
        n_bytes: Length of the register, 1 to 4.
    """
    encoded = _integers(encoded)
    half = 1 << (8 * n_bytes - 1)
    return (encoded & (half - 1)) - (encoded & half)


def _all(condition: bool | NDArray[np.bool_]) -> bool:
    return condition if isinstance(condition, bool) else bool(condition.all())


def _integers[T: (int, NDArray[np.int64])](values: T) -> T:
    # Plain integers stay plain: a servo decodes a dozen of them a packet, and numpy costs 20 times more.
    return values if isinstance(values, int) else np.asarray(values, dtype=np.int64)
