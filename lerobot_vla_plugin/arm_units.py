"""Units of a recorded arm: what the numbers of a LeRobot data set mean, and their conversion to degrees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .arms.calibration import JointCalibration
from .arms.joints import JointConverter, NormMode, joint_modes


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
        return "deg" if self._modes([joint])[joint] is NormMode.DEGREES or joint in self.calibration else "%"

    def convert(self, values: NDArray, joints: Sequence[str]) -> NDArray:
        """Convert recorded units to degrees where that is possible.

        Args:
            values: Joint positions in the data set's units, (..., j).
            joints: Names of the last axis.

        Returns:
            The same shape, in the units that `unit` names.
        """
        converted = np.array(values, dtype=np.float64)
        percent = {name: mode for name, mode in self._modes(joints).items() if mode is not NormMode.DEGREES}
        modes = {name: mode for name, mode in percent.items() if name in self.calibration}
        if not modes:
            return converted
        columns = [list(joints).index(name) for name in modes]
        ticks = self._converter(modes).to_exact_ticks(converted[..., columns])
        degrees = dict.fromkeys(modes, NormMode.DEGREES)
        converted[..., columns] = self._converter(degrees).to_units(ticks)
        return converted

    def _modes(self, joints: Sequence[str]) -> dict[str, NormMode]:
        return joint_modes(joints, degrees=self.use_degrees)

    def _converter(self, modes: Mapping[str, NormMode]) -> JointConverter:
        # Mirroring cannot be seen in a Koch follower's file: LeRobot's calibration never inverts its servos.
        return JointConverter(self.calibration, modes, inverts_in_software=True)
