"""Between the ticks of a calibrated arm and the angles of the simulated one.

The middle of a calibrated range is an angle of 0 of the model, as in LeRobot's degrees; the calibrated ends of the
gripper are the model's stops.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.joints import JointConverter, joint_modes
from lerobot_vla_plugin.twin.arm_model import JOINTS


class JointMap:
    """Straight lines from angles to ticks, one a joint, which also hold beyond the calibrated range.

    Args:
        calibration: Joint -> calibration.
        jaw_limits_rad: Angles of the gripper, closed and open, in [rad].
        inverts_in_software: As in `JointConverter`.

    Attributes:
        ticks_per_rad: Slope of each line, shape (6,); negative where the motor turns the other way.
        ticks_at_zero_rad: Position at an angle of 0, shape (6,), in [ticks].
    """

    def __init__(
        self,
        calibration: Mapping[str, JointCalibration],
        jaw_limits_rad: ArrayLike,
        *,
        inverts_in_software: bool,
    ) -> None:
        modes = joint_modes(JOINTS, degrees=True)
        converter = JointConverter(calibration, modes, inverts_in_software=inverts_in_software)
        closed_rad, open_rad = np.asarray(jaw_limits_rad, dtype=np.float64)
        at_zero = converter.to_exact_ticks([0.0] * len(JOINTS))
        # A degree of the joints; of the gripper all of its travel.
        at_one = converter.to_exact_ticks([1.0] * (len(JOINTS) - 1) + [100.0])
        step_rad = np.array([np.deg2rad(1.0)] * (len(JOINTS) - 1) + [open_rad - closed_rad])
        self.ticks_per_rad = (at_one - at_zero) / step_rad
        self.ticks_at_zero_rad = at_zero
        self.ticks_at_zero_rad[-1] -= self.ticks_per_rad[-1] * closed_rad

    def to_exact_ticks(self, joints_rad: ArrayLike) -> NDArray[np.float64]:
        """Ticks of angles.

        Args:
            joints_rad: Angles of the model, shape (..., 6), in [rad].

        Returns:
            Positions of that shape, in [ticks], neither rounded nor clamped.
        """
        return self.ticks_at_zero_rad + self.ticks_per_rad * np.asarray(joints_rad, dtype=np.float64)

    def to_rad(self, ticks: ArrayLike) -> NDArray[np.float64]:
        """Angles of ticks, the inverse of `to_exact_ticks`.

        Args:
            ticks: Positions, shape (..., 6), in [ticks].

        Returns:
            Angles of the model of that shape, in [rad].
        """
        return (np.asarray(ticks, dtype=np.float64) - self.ticks_at_zero_rad) / self.ticks_per_rad
