"""Units of a recorded arm: what the numbers of a LeRobot data set mean, and their conversion to degrees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .arms.calibration import JointCalibration
from .arms.joints import percent_to_degrees


@dataclass(frozen=True)
class ArmUnits:
    """How the joint values of a data set become degrees; a LeRobot data set stores neither unit nor calibration.

    Attributes:
        use_degrees: LeRobot's option of that name: joints but the gripper are in [deg], not in [-100, 100].
        calibration: Joint name -> calibration of the follower. Without one, percent stay percent.
    """

    use_degrees: bool = True
    calibration: Mapping[str, JointCalibration] = field(default_factory=dict)

    def unit(self, joint: str) -> str:
        """Unit after `convert`: "deg" or "%".

        Args:
            joint: Name without LeRobot's ".pos".
        """
        return "deg" if self._recorded_in_degrees(joint) or joint in self.calibration else "%"

    def convert(self, values: NDArray, joints: Sequence[str]) -> NDArray:
        """Convert recorded units to degrees where that is possible.

        Args:
            values: Joint positions in the data set's units, (..., j).
            joints: Names of the last axis.

        Returns:
            The same shape, in the units that `unit` names.
        """
        converted = np.array(values, dtype=np.float64)
        for index, joint in enumerate(joints):
            if joint in self.calibration and not self._recorded_in_degrees(joint):
                column = converted[..., index]
                gripper = _is_gripper(joint)
                converted[..., index] = percent_to_degrees(column, self.calibration[joint], gripper=gripper)
        return converted

    def _recorded_in_degrees(self, joint: str) -> bool:
        return self.use_degrees and not _is_gripper(joint)


def _is_gripper(joint: str) -> bool:
    return joint.endswith("gripper")
