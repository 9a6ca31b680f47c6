"""The scripted person: touches a cube with the leader; the cube then jumps, and so on.

Where the cube stands decides all joints of the posture that touches it, so a policy that sees the cube can
predict the motion, and one that does not see it cannot.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.twin.scene import CUBE_HALF_M, Scene

TASK = "Touch the red cube."
TOUCH_RADIUS_M = 0.025
TOUCH_DWELL_S = 0.3
TIMEOUT_S = 6.0
_TIP_HEIGHT_M = 2 * CUBE_HALF_M + 0.003
_TIP_PITCH_DEG = -65.0  # jaws point steeply down, so that the cube is seen before the gripper is above it
_REACH_M = (0.22, 0.33)  # distance of the tip from the origin, straight ahead
_PAN_DEG = (-40.0, 40.0)
_GRIPPER_PERCENT = (15.0, 50.0)  # opens with the reach
_CLOSEST_JUMP_M = 0.06
_REACH_TIME_S = (0.8, 1.5)
_PEAK_SPEED_DEG_S = 100.0
REST_JOINTS = np.array([0.0, -20.0, 20.0, 65.0, 0.0, 15.0])


class TouchTask:
    """Where the cube stands, and when it jumps: after the tip touched it for a moment, or after a timeout.

    Args:
        scene: Arm whose reach decides where cubes may stand; its pose is changed while cubes are chosen.
        seed: Seed of the sequence of places.
        time_s: When the first cube appears, in [s].

    Attributes:
        cube_m: Centre of the cube, shape (3,), in [m].
        goal_joints: Posture that touches it, shape (6,): angles in [deg], gripper in [0, 100].
        touches: Number of cubes touched.
        timeouts: Number of cubes that were not touched in time.
    """

    def __init__(self, scene: Scene, seed: int, time_s: float) -> None:
        self._scene = scene
        self._rng = np.random.default_rng(seed)
        self._reaches_m, self._postures_deg = solve_reach_postures(scene)
        self.touches = self.timeouts = 0
        self.cube_m = np.full(3, np.inf)
        self._jump(time_s)

    def update(self, time_s: float, tip_m: ArrayLike) -> bool:
        """Tell the task where the follower's tip is.

        Args:
            time_s: Now, in [s].
            tip_m: Tip of the follower, shape (3,), in [m].

        Returns:
            Whether the cube jumped.
        """
        if np.linalg.norm(np.asarray(tip_m) - self._touch_m) > TOUCH_RADIUS_M:
            self._touched_since_s = None
        elif self._touched_since_s is None:
            self._touched_since_s = time_s
        if self._touched_since_s is not None and time_s - self._touched_since_s >= TOUCH_DWELL_S:
            self.touches += 1
        elif time_s - self._appeared_s >= TIMEOUT_S:
            self.timeouts += 1
        else:
            return False
        self._jump(time_s)
        return True

    def _jump(self, time_s: float) -> None:
        before = self.cube_m
        while True:
            self.goal_joints = self._draw_posture()
            self._scene.place(self.goal_joints)
            self._touch_m = self._scene.tip_m
            self.cube_m = np.array([*self._touch_m[:2], CUBE_HALF_M])
            if np.linalg.norm(self.cube_m - before) >= _CLOSEST_JUMP_M:
                break
        self._appeared_s = time_s
        self._touched_since_s: float | None = None

    def _draw_posture(self) -> NDArray[np.float64]:
        reach_m, pan_deg = self._rng.uniform(*_REACH_M), self._rng.uniform(*_PAN_DEG)
        lifted = [np.interp(reach_m, self._reaches_m, column) for column in self._postures_deg.T]
        gripper = np.interp(reach_m, _REACH_M, _GRIPPER_PERCENT)
        return np.array([pan_deg, *lifted, 0.0, gripper])


class Operator:
    """Moves from posture to posture like a hand: one smooth reach whenever the goal changes.

    Args:
        time_s: When the person takes the leader in hand, in [s].
    """

    def __init__(self, time_s: float) -> None:
        self._start = self._goal = REST_JOINTS
        self._start_s, self._duration_s = time_s, _REACH_TIME_S[0]

    def joints(self, time_s: float, goal_joints: NDArray[np.float64]) -> NDArray[np.float64]:
        """Posture of the leader at a moment; moments must not run backwards.

        Args:
            time_s: Now, in [s].
            goal_joints: Posture that the person wants, shape (6,): angles in [deg], gripper in [0, 100].

        Returns:
            Posture of the same shape.
        """
        if not np.array_equal(goal_joints, self._goal):
            self._start, self._goal = self._reach(time_s), goal_joints.copy()
            # 1.875 is the ratio of peak to mean speed of a minimum-jerk motion.
            needed_s = 1.875 * np.abs(self._goal - self._start).max() / _PEAK_SPEED_DEG_S
            self._start_s, self._duration_s = time_s, float(np.clip(needed_s, *_REACH_TIME_S))
        return self._reach(time_s)

    def _reach(self, time_s: float) -> NDArray[np.float64]:
        share = minimum_jerk((time_s - self._start_s) / self._duration_s)
        return self._start + share * (self._goal - self._start)


def minimum_jerk(share_of_time: float) -> float:
    """Share of the way after a share of the time, of the point-to-point motion with the least jerk.

    Flash and Hogan, 1985, equation for rest-to-rest motion.

    Args:
        share_of_time: In [0, 1]; clamped to it.
    """
    t = min(max(share_of_time, 0.0), 1.0)
    return t**3 * (10 - 15 * t + 6 * t**2)


def solve_reach_postures(scene: Scene, count: int = 12) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Postures that hold the tip just above a cube, straight ahead, from near to far.

    Args:
        scene: The arm; its pose is changed.
        count: Number of distances.

    Returns:
        Distances of the tip, shape (count,), in [m]; lift, elbow and wrist, shape (count, 3), in [deg].

    Raises:
        RuntimeError: The arm cannot reach one of the places, which no SO-101 model should cause.
    """
    reaches_m = np.linspace(*_REACH_M, count, dtype=np.float64)
    postures, posture = [], REST_JOINTS[1:4].copy()
    for reach_m in reaches_m:
        posture = _solve_posture(scene, posture, np.array([reach_m, _TIP_HEIGHT_M, np.deg2rad(_TIP_PITCH_DEG)]))
        postures.append(posture)
    return reaches_m, np.array(postures)


def _solve_posture(scene: Scene, guess_deg: NDArray, wanted: NDArray) -> NDArray[np.float64]:
    """Newton's method with finite differences on (distance [m], height [m], pitch [rad]) of the tip."""
    posture: NDArray = guess_deg.copy()
    for _ in range(30):
        error = wanted - _tip_in_plane(scene, posture)
        if np.abs(error).max() < 1e-6:
            return posture
        step_deg = 1e-3
        jacobian = [
            (_tip_in_plane(scene, posture + step_deg * axis) - _tip_in_plane(scene, posture)) / step_deg
            for axis in np.eye(3)
        ]
        posture = posture + np.clip(np.linalg.solve(np.array(jacobian).T, error), -10, 10)
    raise RuntimeError(f"the arm cannot hold its tip at (distance, height, pitch) = {wanted}")


def _tip_in_plane(scene: Scene, posture_deg: NDArray) -> NDArray[np.float64]:
    scene.place([0.0, *posture_deg, 0.0, 0.0])
    x, _, z = scene.tip_m
    return np.array([x, z, np.arcsin(scene.tip_direction[2])])
