"""LeRobot's calibration files of before June 2025: parallel arrays instead of one object a joint.

The software of that time left the servos' own homing register at 0 and did everything else itself. It read a DEGREE
joint as `(±ticks + homing_offset) * 180 / 2048`, minus where drive_mode is 1, and a LINEAR joint as its share of the
way from start_pos to end_pos, in [0, 100]. `start_pos` and `end_pos` of a DEGREE joint are two poses in which the
arm was held, not the ends of its range.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.arms.robot_types import JOINT_NAMES

_ARRAYS = ("homing_offset", "drive_mode", "start_pos", "end_pos", "calib_mode", "motor_names")
_RANGES = ("range_min", "range_max")
_HALF_TURN_TICKS = 2048
# The zero pose reads about 0: offsets were rounded to a quarter of a turn, which leaves an eighth, and hands shake.
_LARGEST_ZERO_POSE_DEG = 90.0


def current_joint_name(name: str) -> str:
    """Today's name of a joint.

    Args:
        name: As in a data set or a calibration file, e.g. "main_shoulder_pan" or "shoulder_pan.pos".
    """
    return name.removesuffix(".pos").removeprefix("main_")


def is_legacy(entries: object) -> bool:
    """Whether parsed JSON is a calibration file of before June 2025."""
    return isinstance(entries, dict) and "motor_names" in entries


@dataclass(frozen=True, slots=True)
class LegacyJoint:
    """One column of the arrays.

    Attributes:
        name: Today's name of the joint.
        homing_offset: Shift that the software added, in [ticks].
        drive_mode: 1 where the software negated the ticks first; without effect on a linear joint.
        start_ticks: The zero pose, or the position that reads 0 % on a linear joint, in [ticks].
        end_ticks: The rotated pose, or the position that reads 100 % on a linear joint, in [ticks].
        linear: Whether the joint reads in [0, 100] instead of in degrees.
        range_ticks: Lowest and highest position, in [ticks], where the file stores them: LeRobot's own did not.
    """

    name: str
    homing_offset: int
    drive_mode: int
    start_ticks: int
    end_ticks: int
    linear: bool
    range_ticks: tuple[int, int] | None

    def to_units(self, ticks: NDArray[np.float64]) -> NDArray[np.float64]:
        """What LeRobot of before June 2025 read, in [deg] or [0, 100].

        Args:
            ticks: Encoder positions, any shape, in [ticks].
        """
        if self.linear:
            return (ticks - self.start_ticks) / (self.end_ticks - self.start_ticks) * 100
        return (self._sign * ticks + self.homing_offset) * 180 / _HALF_TURN_TICKS

    def to_ticks(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Inverse of `to_units`, not rounded.

        Args:
            values: Recorded values, any shape, in [deg] or [0, 100].
        """
        if self.linear:
            return values / 100 * (self.end_ticks - self.start_ticks) + self.start_ticks
        return self._sign * (values * _HALF_TURN_TICKS / 180 - self.homing_offset)

    @property
    def _sign(self) -> int:
        return -1 if self.drive_mode else 1


class LegacyCalibration:
    """What LeRobot of before June 2025 knew about one arm.

    Args:
        entries: The parsed JSON file.

    Attributes:
        joints: One a motor, in the order of the file.

    Raises:
        ValueError: An array is missing, has another length or holds something unexpected.
    """

    def __init__(self, entries: Mapping[str, Any]) -> None:
        arrays = (*_ARRAYS, *(name for name in _RANGES if name in entries))
        missing = [name for name in arrays if not isinstance(entries.get(name), list)]
        if missing:
            raise ValueError(f"expected the arrays {list(arrays)}, {missing} are missing; got {sorted(entries)}")
        count = len(entries["motor_names"])
        wrong = {name: len(entries[name]) for name in arrays if len(entries[name]) != count}
        if wrong or count == 0:
            raise ValueError(f"expected one value a motor in each array, {count} motors in motor_names; got {wrong}")
        self.joints = tuple(_parse_joint(entries, index) for index in range(count))
        if len(set(self.names)) != count:
            raise ValueError(f"expected different motor names, got {self.names}")

    @property
    def names(self) -> tuple[str, ...]:
        """Today's joint names, in the order of the file."""
        return tuple(joint.name for joint in self.joints)

    def to_encoder_ticks(self, values: ArrayLike) -> NDArray[np.float64]:
        """Convert what was recorded with this calibration to encoder positions.

        Args:
            values: Recorded values, (..., j), in [deg] or [0, 100], joints in the order of `names`.

        Returns:
            Encoder positions, (..., j), in [ticks], not rounded; possibly whole turns off.

        Raises:
            ValueError: A value is not finite, or the file was not written by the software whose formula this is.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self.joints):
            raise ValueError(f"expected {len(self.joints)} joints {self.names} on the last axis, got {values.shape}")
        columns = [_checked_ticks(joint, values[..., index]) for index, joint in enumerate(self.joints)]
        return np.stack(columns, axis=-1)

    def ranges_ticks(self) -> dict[str, tuple[int, int]]:
        """Range of motion of each joint, lowest and highest position, in [ticks].

        Raises:
            ValueError: The file does not tell, or contradicts itself; the message names the joints.
        """
        unknown = [joint.name for joint in self.joints if joint.range_ticks is None and not joint.linear]
        if unknown:
            raise ValueError(
                f"this calibration of before June 2025 stores no range of motion of {unknown}: start_pos and end_pos "
                "are two poses, not the ends. Calibrate the arm again with lerobot-calibrate; what was recorded with "
                "the old file can still be converted"
            )
        return {joint.name: _range_ticks(joint) for joint in self.joints}

    def ids(self) -> dict[str, int]:
        """Servo ids, which the file does not store: LeRobot's configurations numbered the joints in order.

        Raises:
            ValueError: The joints are not those of an SO-100/101 or Koch arm.
        """
        if set(self.names) != set(JOINT_NAMES):
            raise ValueError(
                f"a calibration of before June 2025 stores no servo ids; they are known for the joints "
                f"{JOINT_NAMES}, got {self.names}"
            )
        return {name: JOINT_NAMES.index(name) + 1 for name in self.names}


def load_legacy_calibration(path: Path | str) -> LegacyCalibration:
    """Read a calibration file of before June 2025.

    Args:
        path: The JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is something else, or broken; the message names it.
    """
    path = Path(path)
    try:
        entries = json.loads(path.read_text())
        if not is_legacy(entries):
            raise ValueError("expected the arrays of a calibration of before June 2025, there is no 'motor_names'")
        return LegacyCalibration(entries)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parse_joint(entries: Mapping[str, Any], index: int) -> LegacyJoint:
    name, mode = entries["motor_names"][index], entries["calib_mode"][index]
    values = {array: entries[array][index] for array in (*_ARRAYS[:4], *_RANGES) if array in entries}
    wrong = {array: value for array, value in values.items() if not isinstance(value, int) or isinstance(value, bool)}
    if not isinstance(name, str) or mode not in ("DEGREE", "LINEAR") or wrong or values["drive_mode"] not in (0, 1):
        raise ValueError(
            f"motor {index}: expected a name, calib_mode DEGREE or LINEAR, drive_mode 0 or 1 and integers, "
            f"got {name!r}, {mode!r}, {values}"
        )
    if mode == "LINEAR" and values["start_pos"] == values["end_pos"]:
        raise ValueError(f"{name}: start_pos and end_pos are both {values['start_pos']} [ticks]: an empty range")
    both_ends = all(end in values for end in _RANGES)
    return LegacyJoint(
        name=current_joint_name(name),
        homing_offset=values["homing_offset"],
        drive_mode=values["drive_mode"],
        start_ticks=values["start_pos"],
        end_ticks=values["end_pos"],
        linear=mode == "LINEAR",
        range_ticks=(values["range_min"], values["range_max"]) if both_ends else None,
    )


def _checked_ticks(joint: LegacyJoint, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise ValueError(f"{joint.name}: expected finite values, got {values}")
    if not joint.linear:
        _check_formula(joint)
    return joint.to_ticks(values)


def _check_formula(joint: LegacyJoint) -> None:
    # A few calibrations hold measured ends in start_pos and end_pos; then 0 lies between the two.
    ends_deg = joint.to_units(np.array([joint.start_ticks, joint.end_ticks], dtype=np.float64))
    if ends_deg.min() > _LARGEST_ZERO_POSE_DEG or ends_deg.max() < -_LARGEST_ZERO_POSE_DEG:
        raise ValueError(
            f"{joint.name}: the poses of this file read {ends_deg.round(1).tolist()} [deg] by LeRobot's formula of "
            "before June 2025, which puts the first one near 0. Another program wrote the file, so what degrees "
            "recorded with it mean cannot be known"
        )


def _range_ticks(joint: LegacyJoint) -> tuple[int, int]:
    low, high = sorted((joint.start_ticks, joint.end_ticks))
    if joint.range_ticks is None:
        return low, high
    range_min, range_max = joint.range_ticks
    fits = (range_min, range_max) == (low, high) if joint.linear else range_min <= joint.start_ticks <= range_max
    if range_min >= range_max or not fits:
        raise ValueError(
            f"{joint.name}: range_min {range_min} and range_max {range_max} do not agree with start_pos "
            f"{joint.start_ticks} and end_pos {joint.end_ticks} [ticks]: they were counted differently, and the file "
            "does not say how. Calibrate the arm again with lerobot-calibrate"
        )
    return range_min, range_max
