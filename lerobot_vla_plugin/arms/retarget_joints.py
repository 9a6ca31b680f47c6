"""Joint values recorded under one calibration or unit, expressed under another.

"The same position" has two meanings. On the same arm, calibrated anew or read in another unit, it is the pose that
the arm stood in: `retarget_same_arm`. On another arm of the same kind, whose servos are mounted a little differently,
it is the share of the joint's calibrated range: `retarget_same_kind`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN, JointConverter, NormMode, joint_modes
from lerobot_vla_plugin.arms.legacy_calibration import LegacyCalibration
from lerobot_vla_plugin.arms.robot_types import ServoFamily, servo_family


class JointSpace:
    """What the joint values of one arm mean.

    Args:
        calibration: Joint name -> calibration; may hold more joints than `modes`.
        modes: Joint name -> unit, in the order of the last axis of values.
        servos: Make of the arm's servos.

    Attributes:
        converter: Values <-> present positions.
        servos: As given.
        range_min_ticks: Lowest positions, (j,), in [ticks].
        range_max_ticks: Highest positions, (j,), in [ticks].
        homing_offset_ticks: Homing offsets, (j,), in [ticks].
        drive_mode: 1 where a joint turns the other way round, (j,).

    Raises:
        ValueError: A joint has no calibration.
    """

    def __init__(
        self, calibration: Mapping[str, JointCalibration], modes: Mapping[str, NormMode], servos: ServoFamily
    ) -> None:
        self.converter = JointConverter(calibration, modes, inverts_in_software=servos.inverts_in_software)
        self.servos = servos
        joints = [calibration[name] for name in modes]
        self.range_min_ticks = np.array([joint.range_min for joint in joints])
        self.range_max_ticks = np.array([joint.range_max for joint in joints])
        self.homing_offset_ticks = np.array([joint.homing_offset for joint in joints])
        self.drive_mode = np.array([joint.drive_mode for joint in joints])

    @property
    def names(self) -> tuple[str, ...]:
        """Joint names, in the order of the last axis of values."""
        return self.converter.names

    @property
    def inverted_in_software(self) -> NDArray[np.bool_]:
        """Joints, (j,), whose percent fall while their ticks rise."""
        return self.servos.inverts_in_software & (self.drive_mode == 1)

    @property
    def inverted_in_firmware(self) -> NDArray[np.bool_]:
        """Joints, (j,), whose servo counts backwards."""
        return (not self.servos.inverts_in_software) & (self.drive_mode == 1)

    def to_encoder_ticks(self, values: ArrayLike) -> NDArray[np.float64]:
        """Convert joint values to encoder positions, which no calibration moves.

        Args:
            values: Joint values, (..., j), in each joint's unit.

        Returns:
            Encoder positions, (..., j), in [ticks], not rounded; those of a servo that counts backwards are negated.

        Raises:
            ValueError: A value is not finite.
        """
        return self.converter.to_exact_ticks(values) - self.servos.homing_sign * self.homing_offset_ticks


@dataclass(frozen=True)
class Retargeted:
    """Joint values of the new arm or unit.

    Attributes:
        values: (..., j). Percent are clamped to their domain as in LeRobot, degrees are not.
        out_of_range: (..., j), True where the position lies outside the target's calibrated range: percent cannot
            express it, and in degrees the guard and the servo will stop short of it.
    """

    values: NDArray[np.float64]
    out_of_range: NDArray[np.bool_]


def joint_space(robot_type: str, calibration: Mapping[str, JointCalibration], *, degrees: bool) -> JointSpace:
    """What LeRobot's values of an arm mean.

    Args:
        robot_type: Any name of the arm, e.g. "so_follower".
        calibration: Joint name -> calibration, in the order of the joints.
        degrees: LeRobot's option `use_degrees`.

    Raises:
        ValueError: The robot type is unknown.
    """
    return JointSpace(calibration, joint_modes(calibration, degrees=degrees), servo_family(robot_type))


def retarget_same_arm(values: ArrayLike, source: JointSpace | LegacyCalibration, target: JointSpace) -> Retargeted:
    """Keep the pose: express values under a later calibration, or another unit, of the same arm.

    The way leads through the encoder, which no calibration moves: present positions are corrected by the difference
    of the homing offsets and folded into the turn around the middle of the target's range. A motion across the
    target's encoder seam therefore jumps by a turn, as the recalibrated servo's own reading would. Percent were
    clamped when they were recorded: what lay outside the source's range is lost and reads as the end of that range.

    Args:
        values: Recorded joint values, (..., j), in the units of `source`.
        source: What the values mean; a calibration of before June 2025 counts encoder ticks.
        target: What the results shall mean; the same joints in the same order.

    Raises:
        ValueError: A value is not finite, the joints differ, or a joint's direction was changed in the servo.
    """
    _check_same_joints(source.names, target)
    _check_same_direction(source, target)
    encoder_ticks = source.to_encoder_ticks(values)
    ticks = encoder_ticks + target.servos.homing_sign * target.homing_offset_ticks
    middle_ticks = (target.range_min_ticks + target.range_max_ticks) / 2
    return _express(ticks + TICKS_PER_TURN * np.rint((middle_ticks - ticks) / TICKS_PER_TURN), target)


def retarget_same_kind(values: ArrayLike, source: JointSpace, target: JointSpace) -> Retargeted:
    """Keep the share of the calibrated range: express values of one arm on another of the same kind.

    That is how LeRobot's leaders drive their followers in percent: percent stay as they are, and degrees stretch
    with the range. Percent were clamped when they were recorded: what lay outside the range is lost.

    Args:
        values: Recorded joint values, (..., j), in the units of `source`.
        source: What the values mean.
        target: What the results shall mean; the same joints in the same order.

    Raises:
        ValueError: A value is not finite, or the joints or servos differ.
    """
    _check_same_joints(source.names, target)
    _check_same_servos(source, target)
    ticks = source.converter.to_exact_ticks(values)
    share = (ticks - source.range_min_ticks) / (source.range_max_ticks - source.range_min_ticks)
    share = np.where(source.inverted_in_software != target.inverted_in_software, 1 - share, share)
    return _express(target.range_min_ticks + share * (target.range_max_ticks - target.range_min_ticks), target)


def _express(ticks: NDArray[np.float64], target: JointSpace) -> Retargeted:
    # What rounds to a tick of the range can be commanded.
    out_of_range = (ticks < target.range_min_ticks - 0.5) | (ticks > target.range_max_ticks + 0.5)
    return Retargeted(target.converter.to_units(ticks), out_of_range)


def _check_same_joints(names: tuple[str, ...], target: JointSpace) -> None:
    if names != target.names:
        raise ValueError(f"expected the same joints in the same order, got {names} and {target.names}")


def _check_same_servos(source: JointSpace, target: JointSpace) -> None:
    if source.servos != target.servos:
        raise ValueError(f"arms of different kinds: {source.servos.name} and {target.servos.name} servos")


def _check_same_direction(source: JointSpace | LegacyCalibration, target: JointSpace) -> None:
    if isinstance(source, LegacyCalibration):
        # The software mirrored joints itself then, on both makes; servos counted forwards.
        before = np.zeros(len(source.names), dtype=np.bool_)
    else:
        _check_same_servos(source, target)
        before = source.inverted_in_firmware
    turned = [
        name for name, changed in zip(target.names, before != target.inverted_in_firmware, strict=True) if changed
    ]
    if turned:
        raise ValueError(
            f"{turned}: the servo's drive_mode was changed in between, and where a {target.servos.name} begins to "
            "count backwards is not documented. Calibrate with the old drive_mode, or keep the share of the range "
            "instead of the pose"
        )
