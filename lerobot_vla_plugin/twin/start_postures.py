"""Where the arm stands when a demonstration begins: not always in the same place.

Demonstrations that all begin in one posture teach a policy to go on as it began: where the arm is says where it is
going (causal confusion, arXiv 1905.11979). And they show nothing of what lies beside the way: a policy that came down a
little beside its cube stood there for ever. So a person is told to begin anywhere, and often close to the cube.
"""

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.grasp_plan import choose_yaw, grasp_height_m
from lerobot_vla_plugin.twin.kinematics import Kinematics, UnreachableError
from lerobot_vla_plugin.twin.scenes import AZIMUTH_DEG, PAN_AXIS_M, REACH_M, Layout

# Shares of the demonstrations; the others begin where evaluations do.
SHARE_ANYWHERE, SHARE_AT_CUBE = 0.4, 0.35
_HEIGHT_M = (0.075, 0.16)  # of the middle between the jaws, anywhere above the table
_YAW_RAD = 0.8  # to either side of jaws that close across the direction of the arm
_ASIDE_M = 0.03  # of the cube, along and across
_ABOVE_GRASP_M = (0.035, 0.085)  # fingertips clear cubes and bin
_OFF_YAW_RAD = 0.6  # to either side of jaws that would grasp the cube
_TRIES = 20


def draw_start(kinematics: Kinematics, layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
    """A posture to begin a demonstration in.

    Args:
        kinematics: The arm.
        layout: The scene.
        rng: Draws it.

    Returns:
        Joint angles, shape (6,), in [rad]: those in which scenes begin, or with jaws that look down at any place of the
        table, or close to the named cube.
    """
    arm, kind = kinematics.arm, rng.uniform()
    if kind >= SHARE_ANYWHERE + SHARE_AT_CUBE:
        return arm.start_rad
    jaw_rad = rng.uniform(arm.closed_rad, arm.open_rad[1])
    for _ in range(_TRIES):
        place_m, yaw_rad = _anywhere(rng) if kind < SHARE_ANYWHERE else _at_cube(kinematics, layout, rng)
        try:
            return np.append(kinematics.solve(place_m, yaw_rad), jaw_rad)
        except UnreachableError:  # high and far, or too close to the base
            continue
    return arm.start_rad


def _anywhere(rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    azimuth_rad, reach_m = np.deg2rad(rng.uniform(*AZIMUTH_DEG)), rng.uniform(*REACH_M)
    aside_m = reach_m * np.array([np.cos(azimuth_rad), np.sin(azimuth_rad)])
    place_m = np.array([PAN_AXIS_M + aside_m[0], aside_m[1], rng.uniform(*_HEIGHT_M)])
    return place_m, azimuth_rad + np.pi / 2 + rng.uniform(-_YAW_RAD, _YAW_RAD)


def _at_cube(kinematics: Kinematics, layout: Layout, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    cube = layout.cubes[layout.color]
    aside_m = rng.uniform(-_ASIDE_M, _ASIDE_M, 2)
    height_m = grasp_height_m(kinematics.arm) + rng.uniform(*_ABOVE_GRASP_M)
    place_m = np.array([cube.x_m + aside_m[0], cube.y_m + aside_m[1], height_m])
    return place_m, choose_yaw(cube, kinematics.arm) + rng.uniform(-_OFF_YAW_RAD, _OFF_YAW_RAD)
