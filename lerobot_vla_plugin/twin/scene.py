"""The scene around the SO-101: arm on a table, one coloured cube, two cameras; MuJoCo's kinematics only."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerobot_vla_plugin.twin.arm_model import JOINTS, require_mujoco
from lerobot_vla_plugin.twin.so101_model import SO101, load_arm
from lerobot_vla_plugin.twin.stage import CAMERAS, CameraPose, View, camera_pose, furnish

__all__ = ["CAMERAS", "CUBE_HALF_M", "CUBE_RGB", "JOINTS", "CameraPose", "Scene"]

CUBE_HALF_M = 0.02
CUBE_RGB = (0.9, 0.05, 0.05)
_FRONT = View(eye_m=(0.66, -0.12, 0.44), target_m=(0.19, 0.0, 0.07), fovy_deg=42)


class Scene:
    """Poses of the arm, the cube and the cameras.

    Args:
        visual: Whether the arm gets its (thinned) meshes; without them only poses can be asked for.

    Attributes:
        model: MuJoCo's model.
        data: MuJoCo's state; changed by the methods.

    Raises:
        ModuleNotFoundError: MuJoCo or the arm's model is not installed.
    """

    def __init__(self, *, visual: bool = True) -> None:
        require_mujoco()
        import mujoco

        self._mujoco = mujoco
        self.model = _build_spec(visual).compile()
        self.data = mujoco.MjData(self.model)
        self._joint_limits_rad = np.array([self.model.joint(name).range for name in JOINTS])
        self._joint_addresses = [self.model.joint(name).qposadr[0] for name in JOINTS]
        self._tip = self.model.site("gripperframe").id
        self._cube = self.model.body("cube").mocapid[0]
        self.place(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 50.0]), np.array([0.25, 0.0, CUBE_HALF_M]))

    def place(self, joints: ArrayLike, cube_m: ArrayLike | None = None) -> None:
        """Put the arm and the cube somewhere.

        Args:
            joints: Shape (6,) in the order of `JOINTS`: five angles in [deg], the gripper in [0, 100].
            cube_m: Centre of the cube, shape (3,), in [m]; None leaves it where it is.

        Raises:
            ValueError: A shape differs, or a number is not finite.
        """
        joints = np.asarray(joints, dtype=np.float64)
        if joints.shape != (len(JOINTS),) or not np.all(np.isfinite(joints)):
            raise ValueError(f"expected 6 finite joints {JOINTS}, got {joints}")
        low, high = self._joint_limits_rad[-1]
        angles_rad = np.deg2rad(joints)
        angles_rad[-1] = low + joints[-1] / 100 * (high - low)
        self.data.qpos[self._joint_addresses] = angles_rad
        if cube_m is not None:
            self.data.mocap_pos[self._cube] = cube_m
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_camlight(self.model, self.data)

    @property
    def tip_m(self) -> NDArray[np.float64]:
        """Tip of the fixed jaw, shape (3,), in [m]; x points away from the base, z up from the table."""
        return self.data.site_xpos[self._tip].copy()

    @property
    def tip_direction(self) -> NDArray[np.float64]:
        """Unit vector along which the jaws point, shape (3,)."""
        return self.data.site_xmat[self._tip].reshape(3, 3)[:, 0].copy()

    @property
    def cube_m(self) -> NDArray[np.float64]:
        """Centre of the cube, shape (3,), in [m]."""
        return self.data.mocap_pos[self._cube].copy()

    def camera(self, name: str) -> CameraPose:
        """Where a camera is now.

        Args:
            name: One of `CAMERAS`.

        Raises:
            KeyError: There is no such camera; the message lists those there are.
        """
        return camera_pose(self.model, self.data, name)


def _build_spec(visual: bool):
    import mujoco

    spec = load_arm(visual=visual)
    furnish(spec, _FRONT, SO101.wrist_view)
    cube = spec.worldbody.add_body(name="cube", mocap=True)
    cube.add_geom(name="cube", type=mujoco.mjtGeom.mjGEOM_BOX, size=[CUBE_HALF_M] * 3, rgba=[*CUBE_RGB, 1])
    return spec
