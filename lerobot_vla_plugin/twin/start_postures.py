"""Where the arm stands when a demonstration begins: not always in the same place.

Demonstrations that all begin in one posture teach a policy to go on as it began: where the arm is says where it is
going (causal confusion, arXiv 1905.11979), and there is nothing to learn from about places beside the way, from where a
policy that missed its cube has to try again. So a person is told to begin anywhere.
"""

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.kinematics import Kinematics, UnreachableError
from lerobot_vla_plugin.twin.scenes import AZIMUTH_DEG, PAN_AXIS_M, REACH_M

SHARE_ELSEWHERE = 0.75  # of demonstrations; the others begin where evaluations do
_HEIGHT_M = (0.075, 0.16)  # of the middle between the jaws: above cubes and bin
_YAW_RAD = 0.8  # to either side of jaws that close across the direction of the arm
_TRIES = 20


def draw_start(kinematics: Kinematics, rng: np.random.Generator) -> NDArray[np.float64]:
    """A posture to begin a demonstration in.

    Args:
        kinematics: The arm.
        rng: Draws it.

    Returns:
        Joint angles, shape (6,), in [rad]: those in which scenes begin, or with jaws that look down at any place above
        the table.
    """
    arm = kinematics.arm
    if rng.uniform() >= SHARE_ELSEWHERE:
        return arm.start_rad
    jaw_rad = rng.uniform(arm.closed_rad, arm.open_rad[1])
    for _ in range(_TRIES):
        azimuth_rad, reach_m = np.deg2rad(rng.uniform(*AZIMUTH_DEG)), rng.uniform(*REACH_M)
        place_m = (
            PAN_AXIS_M + reach_m * np.cos(azimuth_rad),
            reach_m * np.sin(azimuth_rad),
            rng.uniform(*_HEIGHT_M),
        )
        yaw_rad = azimuth_rad + np.pi / 2 + rng.uniform(-_YAW_RAD, _YAW_RAD)
        try:
            return np.append(kinematics.solve(place_m, yaw_rad), jaw_rad)
        except UnreachableError:  # high and far
            continue
    return arm.start_rad
