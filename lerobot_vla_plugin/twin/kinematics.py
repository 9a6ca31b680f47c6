"""Inverse kinematics of an arm with mink: joint angles that hold the jaws around a point, pointing down.

Five joints cannot give six numbers. The position comes first, then the direction in which the jaws close; how far the
gripper tilts is left to the arm.
"""

from importlib.util import find_spec

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.twin.arm_model import JOINTS, PAN_AXIS_M, ArmModel
from lerobot_vla_plugin.twin.scenes import AZIMUTH_DEG, CUBE_HALF_M, REACH_M
from lerobot_vla_plugin.twin.so101_model import SO101

LARGEST_RESIDUAL_M = 1e-3
_POSITION_COST, _JAW_COST, _TILT_COST = 1.0, 0.05, 0.004
_ITERATIONS, _SMALLEST_STEP_RAD = 40, 1e-4


class UnreachableError(ValueError):
    """No posture of the arm holds the jaws there."""


class Kinematics:
    """An arm without a world.

    Args:
        arm: The arm.

    Attributes:
        arm: The arm.

    Raises:
        ModuleNotFoundError: MuJoCo, mink or the arm's model is not installed.
    """

    def __init__(self, arm: ArmModel = SO101) -> None:
        if find_spec("mink") is None:
            raise ModuleNotFoundError("the scripted person needs mink: pip install 'lerobot_policy_vla_plugin[twin]'")
        self.arm = arm
        spec = arm.load(visual=False)
        # Middle of a held cube when the fixed finger lies at its side.
        grasp_m = (arm.finger_face_m + CUBE_HALF_M, 0.0, arm.finger_tip_m + arm.fingertip_half_length_m)
        spec.body("gripper").add_site(name="grasp", pos=grasp_m)
        import mink
        import mujoco

        self._mink, self._mujoco = mink, mujoco
        self._configuration = mink.Configuration(spec.compile())
        self._limits = [mink.ConfigurationLimit(self._configuration.model)]
        self._task = mink.FrameTask(
            "grasp",
            "site",
            position_cost=_POSITION_COST,
            orientation_cost=[_TILT_COST, _TILT_COST, _JAW_COST],
            lm_damping=1e-6,
        )
        self._still = mujoco.MjData(self._configuration.model)

    def solve(self, position_m: ArrayLike, yaw_rad: float, guess_rad: ArrayLike | None = None) -> NDArray[np.float64]:
        """Joint angles that bring the middle between the jaws to a point.

        Args:
            position_m: The point, shape (3,), in [m].
            yaw_rad: Direction about the vertical in which the fixed finger looks at the moving one, in [rad].
            guess_rad: Where the search starts, shape (5,), in [rad]; None starts from an arm that points there.

        Returns:
            Angles of all joints but the gripper, shape (5,), in [rad].

        Raises:
            UnreachableError: The best posture is more than a millimetre away.
        """
        position_m = np.asarray(position_m, dtype=np.float64)
        if guess_rad is None:
            guess_rad = first_guess(self.arm, position_m, yaw_rad)
        self._search(position_m, yaw_rad, guess_rad)
        residual_m = float(np.linalg.norm(self._grasp_m() - position_m))
        if not residual_m <= LARGEST_RESIDUAL_M:
            raise UnreachableError(
                f"expected a point that the jaws reach, got {position_m.round(4)} m: the search ends "
                f"{residual_m * 1e3:.1f} mm away, {LARGEST_RESIDUAL_M * 1e3:g} mm are allowed; on the table all points "
                f"{REACH_M} m from the pan axis at x = {PAN_AXIS_M:.3f} m, within {AZIMUTH_DEG} deg, are in reach"
            )
        return self._configuration.q[: len(JOINTS) - 1].copy()

    def grasp_m(self, joints_rad: ArrayLike) -> NDArray[np.float64]:
        """Middle between the jaws in a posture.

        Args:
            joints_rad: Angles of all joints but the gripper, shape (5,), in [rad].

        Returns:
            The point, shape (3,), in [m].
        """
        self._configuration.update(np.append(joints_rad, 0.0))
        return self._grasp_m()

    def gravity_nm(self, joints_rad: ArrayLike) -> NDArray[np.float64]:
        """Torques that hold the arm still.

        Args:
            joints_rad: Joint angles, shape (6,), in [rad].

        Returns:
            Torques, shape (6,), in [N m].
        """
        self._still.qpos[:] = joints_rad
        self._mujoco.mj_fwdPosition(self._configuration.model, self._still)
        self._mujoco.mj_fwdVelocity(self._configuration.model, self._still)
        return self._still.qfrc_bias.copy()

    def _search(self, position_m: NDArray[np.float64], yaw_rad: float, guess_rad: ArrayLike) -> None:
        self._configuration.update(np.append(guess_rad, 0.0))
        self._task.set_target(self._downwards(position_m, yaw_rad))
        for _ in range(_ITERATIONS):
            step_rad = self._mink.solve_ik(
                self._configuration,
                [self._task],
                dt=1.0,
                solver="daqp",
                damping=self.arm.search_damping,
                limits=self._limits,
            )
            self._configuration.integrate_inplace(step_rad, 1.0)
            if np.abs(step_rad).max() < _SMALLEST_STEP_RAD:
                return

    def _downwards(self, position_m: NDArray[np.float64], yaw_rad: float):
        x, z = np.array([np.cos(yaw_rad), np.sin(yaw_rad), 0.0]), np.array([0.0, 0.0, 1.0])
        rotation = self._mink.SO3.from_matrix(np.column_stack([x, np.cross(z, x), z]))
        return self._mink.SE3.from_rotation_and_translation(rotation, position_m)

    def _grasp_m(self) -> NDArray[np.float64]:
        return self._configuration.data.site("grasp").xpos.copy()


def first_guess(arm: ArmModel, position_m: NDArray[np.float64], yaw_rad: float) -> NDArray[np.float64]:
    """An arm that points to a place: the wrist's roll is nearly the jaws' yaw less the azimuth.

    Args:
        arm: The arm.
        position_m: The place, shape (3,), in [m].
        yaw_rad: Direction in which the jaws close, in [rad].

    Returns:
        Angles of all joints but the gripper, shape (5,), in [rad].
    """
    azimuth = azimuth_rad(position_m)
    roll_rad = yaw_rad - azimuth + arm.roll_ahead_rad
    return np.array([-azimuth, *arm.bend_rad, np.remainder(roll_rad + np.pi, 2 * np.pi) - np.pi])


def azimuth_rad(position_m: ArrayLike) -> float:
    """Direction of a place as seen from the axis about which the arm pans, in [rad].

    Args:
        position_m: The place, shape (2,) or (3,), in [m].
    """
    x, y = np.asarray(position_m)[:2]
    return float(np.arctan2(y, x - PAN_AXIS_M))
