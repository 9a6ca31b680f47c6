"""From where things stand to a motion: waypoints of the jaws, and a smooth curve of all joints through them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.twin.arm_model import PAN_AXIS_M, ArmModel
from lerobot_vla_plugin.twin.kinematics import Kinematics, azimuth_rad
from lerobot_vla_plugin.twin.scenes import CUBE_HALF_M, CubePose, Goal, Layout
from lerobot_vla_plugin.twin.so101_model import SO101

_ABOVE_TABLE_M = 0.006  # of fingertips around a cube
_HOVER_M, _LIFT_M, _CARRY_M = 0.065, 0.08, 0.075
# Wide enough to show how one comes back from beside the way: a policy never stands exactly on it.
_JITTER_M = np.array([0.018, 0.018, 0.012])
_JITTER_RAD = 0.25
_SWING_RAD_S = 1.2
# Best direction of the jaws for a grasp, as seen from the arm: the moving one stands beside it, not below it.
_BEST_YAW_RAD = np.pi / 2
_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Where the jaws shall be.

    Attributes:
        position_m: Middle between them, shape (3,), in [m].
        yaw_rad: Direction in which they close, in [rad].
        jaw_rad: Angle of the gripper joint, in [rad].
        duration_s: Time to get there from the waypoint before, in [s].
    """

    position_m: NDArray[np.float64]
    yaw_rad: float
    jaw_rad: float
    duration_s: float


class GraspPlan:
    """A motion of all joints through waypoints, without overshoot.

    Args:
        start_rad: Posture at the beginning, shape (6,), in [rad].
        waypoints: Where the jaws go from there.
        kinematics: The arm.

    Attributes:
        duration_s: How long it takes, in [s].

    Raises:
        UnreachableError: The arm cannot reach a waypoint.
    """

    def __init__(self, start_rad: ArrayLike, waypoints: Sequence[Waypoint], kinematics: Kinematics) -> None:
        from scipy.interpolate import PchipInterpolator

        postures_rad, arm_rad = [np.asarray(start_rad, dtype=np.float64)], None
        for waypoint in waypoints:
            # From the posture before: neighbouring waypoints get neighbouring postures.
            arm_rad = kinematics.solve(waypoint.position_m, waypoint.yaw_rad, arm_rad)
            postures_rad.append(np.append(arm_rad, waypoint.jaw_rad))
        times_s = np.cumsum([0.0, *(waypoint.duration_s for waypoint in waypoints)])
        self._curve = PchipInterpolator(times_s, np.array(postures_rad))
        self.duration_s = float(times_s[-1])

    def posture_rad(self, time_s: float) -> NDArray[np.float64]:
        """Posture at a moment, shape (6,), in [rad]; after the end, the last one.

        Args:
            time_s: Since the beginning, in [s].
        """
        return self._curve(min(time_s, self.duration_s))

    def speed_rad_s(self, time_s: float) -> NDArray[np.float64]:
        """Speed of the joints at a moment, shape (6,), in [rad/s].

        Args:
            time_s: Since the beginning, in [s].
        """
        return self._curve(time_s, 1) if time_s < self.duration_s else np.zeros(6)


def plan_waypoints(layout: Layout, color: str, rng: np.random.Generator, arm: ArmModel = SO101) -> list[Waypoint]:
    """What a person would do with a cube, no two times quite alike.

    Args:
        layout: The scene, which says what is to be done and where things stand.
        color: The cube to do it to.
        rng: Draws the little differences.
        arm: The arm that does it.
    """
    cube = layout.cubes[color]
    yaw_rad = choose_yaw(cube, arm)
    if layout.task.goal is Goal.TOUCHED:
        return list(_touch(cube, yaw_rad, arm, rng))
    waypoints = list(_pick(cube, yaw_rad, arm, rng))
    if layout.task.goal is Goal.PLACED:
        waypoints += _place(waypoints[-1], layout.bin_m, waypoints[0].jaw_rad, arm, rng)
    else:
        grasped = waypoints[-1]
        waypoints.append(Waypoint(_above(cube, grasp_height_m(arm) + _LIFT_M), yaw_rad, grasped.jaw_rad, 0.6))
    return waypoints


def choose_yaw(cube: CubePose, arm: ArmModel) -> float:
    """Direction in which to close the jaws around a cube, in [rad].

    Across the direction of the arm, however the cube is turned, where the jaws open wide enough to take it so.
    Who turned the wrist to the cube's faces instead taught policies what they could hardly see: at 128 pixels, from a
    hundred scenes, they came down turned by 20 degrees (one deviation).

    Args:
        cube: Where the cube stands.
        arm: The arm that grasps it.
    """
    best_rad = azimuth_rad((cube.x_m, cube.y_m)) + _BEST_YAW_RAD
    if not arm.aligns_jaws:
        return best_rad
    # Of the cube's four faces the one that is the least off.
    return best_rad + (cube.yaw_rad - best_rad + np.pi / 4) % (np.pi / 2) - np.pi / 4


def _touch(cube: CubePose, yaw_rad: float, arm: ArmModel, rng: np.random.Generator) -> Iterator[Waypoint]:
    # The closed fingertips meet at the fixed finger's face, half a cube beside the middle of the open jaws.
    aside_m = CUBE_HALF_M * _direction(yaw_rad)
    top = _above(cube, 2 * CUBE_HALF_M + arm.fingertip_half_length_m) + aside_m
    yield Waypoint(top + 0.05 * _UP + _jitter(rng), yaw_rad, arm.closed_rad, _varied(1.3, rng))
    yield Waypoint(top + 0.01 * _UP, yaw_rad, arm.closed_rad, _varied(0.5, rng))
    yield Waypoint(top - arm.press_m * _UP, yaw_rad, arm.closed_rad, _varied(0.4, rng))
    yield Waypoint(top - arm.press_m * _UP, yaw_rad, arm.closed_rad, 0.5)


def _pick(cube: CubePose, yaw_rad: float, arm: ArmModel, rng: np.random.Generator) -> Iterator[Waypoint]:
    grasp = _above(cube, grasp_height_m(arm))
    beside = grasp - arm.clearance_m * _direction(yaw_rad)
    nearly = grasp - 0.3 * arm.clearance_m * _direction(yaw_rad)
    jitter_m, open_rad = _jitter(rng), float(rng.uniform(*arm.open_rad))
    hover = _HOVER_M * _UP + jitter_m
    hover_yaw_rad = yaw_rad + _JITTER_RAD * float(rng.uniform(-1, 1))
    yield Waypoint(beside + hover, hover_yaw_rad, open_rad, _varied(1.3, rng))
    for share in (0.66, 0.33, 0.0):
        yield Waypoint(beside + share * hover, yaw_rad, open_rad, _varied(0.22, rng))
    # Without a pause: who learns to wait beside a cube waits for ever.
    yield Waypoint(nearly, yaw_rad, arm.closed_rad, _varied(0.5, rng))
    yield Waypoint(nearly, yaw_rad, arm.closed_rad, 0.15)
    for share in (0.33, 0.66, 1.0):
        yield Waypoint(grasp + share * _CARRY_M * _UP, yaw_rad, arm.closed_rad, _varied(0.25, rng))


def _place(
    grasped: Waypoint, bin_m: tuple[float, float], open_rad: float, arm: ArmModel, rng: np.random.Generator
) -> Iterator[Waypoint]:
    start_m, end_m = grasped.position_m, np.array([*bin_m, grasp_height_m(arm) + _CARRY_M])
    start_rad, end_rad = azimuth_rad(start_m), azimuth_rad(end_m)
    roll_rad, closed_rad = grasped.yaw_rad - start_rad, grasped.jaw_rad
    duration_s = max(0.22, abs(end_rad - start_rad) / 4 / _SWING_RAD_S)
    for share in (0.25, 0.5, 0.75, 1.0):  # round the pan axis, as a straight line may lead too close to the base
        position_m, azimuth = _swing(start_m, end_m, share)
        yield Waypoint(position_m, azimuth + roll_rad, closed_rad, _varied(duration_s, rng))
    # From up there, where jaws never close: policies that learnt from low releases opened jaws that had begun to close
    # around a cube.
    yield Waypoint(end_m, end_rad + roll_rad, open_rad, _varied(0.35, rng))
    yield Waypoint(end_m, end_rad + roll_rad, open_rad, 0.5)  # until it has come to rest


def _swing(start_m: NDArray, end_m: NDArray, share: float) -> tuple[NDArray[np.float64], float]:
    """A point of the way between two points round the pan axis, and its azimuth in [rad]."""
    from_m, to_m = (np.hypot(point[0] - PAN_AXIS_M, point[1]) for point in (start_m, end_m))
    azimuth = azimuth_rad(start_m) + share * (azimuth_rad(end_m) - azimuth_rad(start_m))
    distance_m, height_m = from_m + share * (to_m - from_m), start_m[2] + share * (end_m[2] - start_m[2])
    return np.array([PAN_AXIS_M, 0, height_m]) + distance_m * _direction(azimuth), azimuth


def grasp_height_m(arm: ArmModel) -> float:
    """Middle of the fingertips around a cube on the table, in [m].

    Args:
        arm: The arm.
    """
    return _ABOVE_TABLE_M + arm.fingertip_half_length_m


def _above(cube: CubePose, height_m: float) -> NDArray[np.float64]:
    return np.array([cube.x_m, cube.y_m, height_m])


def _direction(yaw_rad: float) -> NDArray[np.float64]:
    return np.array([np.cos(yaw_rad), np.sin(yaw_rad), 0.0])


def _jitter(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(-1, 1, 3) * _JITTER_M


def _varied(duration_s: float, rng: np.random.Generator) -> float:
    return duration_s * float(rng.uniform(0.9, 1.15))
