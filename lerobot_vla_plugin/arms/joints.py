"""Joint units as pure functions: encoder ticks <-> degrees <-> percent, and the servos' signed registers.

Reading gives what LeRobot reads. Commanding gives LeRobot's value before it is truncated to an integer, but
rounded to the nearest tick and kept inside the calibrated range in every mode.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.arms.calibration import JointCalibration

TICKS_PER_TURN = 4096
# LeRobot divides by the highest tick, not by the number of ticks; its data sets are recorded that way.
_DEGREES_PER_TICK = 360 / (TICKS_PER_TURN - 1)


def ticks_to_degrees(ticks: ArrayLike, joint: JointCalibration) -> NDArray:
    """Convert encoder ticks to LeRobot's joint angle; neither clamped nor mirrored by `drive_mode`.

    Args:
        ticks: Present positions, any shape, in [ticks].
        joint: Calibrated range of the joint.

    Returns:
        Angles of the same shape in [deg], 0 in the middle of the range.
    """
    return (np.asarray(ticks, dtype=np.float64) - _middle_ticks(joint)) * _DEGREES_PER_TICK


def degrees_to_ticks(degrees: ArrayLike, joint: JointCalibration) -> NDArray[np.int64]:
    """Convert joint angles to the encoder ticks to command.

    Args:
        degrees: Angles, any shape, in [deg].
        joint: Calibrated range of the joint.

    Returns:
        Goal positions of the same shape in [ticks], inside `range_min`..`range_max`.

    Raises:
        ValueError: An angle is not finite.
    """
    return _to_goal(_finite(degrees, "degrees") / _DEGREES_PER_TICK + _middle_ticks(joint), joint)


def ticks_to_percent(ticks: ArrayLike, joint: JointCalibration, *, gripper: bool = False) -> NDArray:
    """Convert encoder ticks to LeRobot's share of the calibrated range.

    Args:
        ticks: Present positions, any shape, in [ticks]; clamped to the calibrated range.
        joint: Calibrated range of the joint.
        gripper: Whether the joint is a gripper, which runs from 0 to 100.

    Returns:
        Positions of the same shape in [-100, 100], or [0, 100] for a gripper.
    """
    low, high = joint.range_min, joint.range_max
    share = (np.clip(np.asarray(ticks, dtype=np.float64), low, high) - low) / (high - low)
    if gripper:
        return 100 - share * 100 if joint.drive_mode else share * 100
    percent = share * 200 - 100
    return -percent if joint.drive_mode else percent


def percent_to_ticks(percent: ArrayLike, joint: JointCalibration, *, gripper: bool = False) -> NDArray[np.int64]:
    """Convert shares of the calibrated range to the encoder ticks to command.

    Args:
        percent: Positions, any shape, in [-100, 100], or [0, 100] for a gripper; clamped to that.
        joint: Calibrated range of the joint.
        gripper: Whether the joint is a gripper.

    Returns:
        Goal positions of the same shape in [ticks], inside `range_min`..`range_max`.

    Raises:
        ValueError: A position is not finite.
    """
    return _to_goal(_percent_to_exact_ticks(percent, joint, gripper), joint)


def percent_to_degrees(percent: ArrayLike, joint: JointCalibration, *, gripper: bool = False) -> NDArray:
    """Convert shares of the calibrated range to joint angles, without rounding to ticks.

    Args:
        percent: Positions, any shape, in [-100, 100], or [0, 100] for a gripper; clamped to that.
        joint: Calibrated range of the joint.
        gripper: Whether the joint is a gripper.

    Returns:
        Angles of the same shape in [deg].

    Raises:
        ValueError: A position is not finite.
    """
    return ticks_to_degrees(_percent_to_exact_ticks(percent, joint, gripper), joint)


def degrees_to_percent(degrees: ArrayLike, joint: JointCalibration, *, gripper: bool = False) -> NDArray:
    """Convert joint angles to shares of the calibrated range, without rounding to ticks.

    Args:
        degrees: Angles, any shape, in [deg]; clamped to the calibrated range.
        joint: Calibrated range of the joint.
        gripper: Whether the joint is a gripper.

    Returns:
        Positions of the same shape in [-100, 100], or [0, 100] for a gripper.

    Raises:
        ValueError: An angle is not finite.
    """
    exact_ticks = _finite(degrees, "degrees") / _DEGREES_PER_TICK + _middle_ticks(joint)
    return ticks_to_percent(exact_ticks, joint, gripper=gripper)


def encode_sign_magnitude[T: (int, NDArray[np.int64])](values: T, sign_bit: int) -> T:
    """Encode signed integers as a servo register with a sign bit above the magnitude.

    Args:
        values: An integer, or integers of any shape.
        sign_bit: Index of the sign bit, 0 being the lowest bit.

    Raises:
        ValueError: A magnitude needs more than `sign_bit` bits.
    """
    values = _integers(values)
    largest = (1 << sign_bit) - 1
    magnitude = abs(values)
    fits = magnitude <= largest
    if not (fits if isinstance(fits, bool) else np.all(fits)):
        raise ValueError(f"expected magnitudes up to {largest} (sign bit {sign_bit}), got {values}")
    return magnitude + (values < 0) * (1 << sign_bit)


def decode_sign_magnitude[T: (int, NDArray[np.int64])](encoded: T, sign_bit: int) -> T:
    """Decode registers that `encode_sign_magnitude` wrote; bits above the sign bit are ignored.

    Args:
        encoded: A non-negative integer, or such integers of any shape.
        sign_bit: Index of the sign bit.
    """
    encoded = _integers(encoded)
    return (encoded & ((1 << sign_bit) - 1)) * (1 - 2 * ((encoded >> sign_bit) & 1))


def _integers[T: (int, NDArray[np.int64])](values: T) -> T:
    # Plain integers stay plain: a servo decodes a dozen of them a packet, and numpy costs 20 times more.
    return values if isinstance(values, int) else np.asarray(values, dtype=np.int64)


def _middle_ticks(joint: JointCalibration) -> float:
    return (joint.range_min + joint.range_max) / 2


def _finite(values: ArrayLike, unit: str) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"expected finite {unit}, got {values}")
    return values


def _percent_to_exact_ticks(percent: ArrayLike, joint: JointCalibration, gripper: bool) -> NDArray[np.float64]:
    percent = _finite(percent, "percent")
    if joint.drive_mode:
        percent = 100 - percent if gripper else -percent
    share = np.clip(percent, 0, 100) / 100 if gripper else (np.clip(percent, -100, 100) + 100) / 200
    return share * (joint.range_max - joint.range_min) + joint.range_min


def _to_goal(exact_ticks: NDArray[np.float64], joint: JointCalibration) -> NDArray[np.int64]:
    return np.clip(np.rint(exact_ticks), joint.range_min, joint.range_max).astype(np.int64)
