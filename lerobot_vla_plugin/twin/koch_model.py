"""A Koch v1.1 follower as a MuJoCo spec: a simple model of our own, of boxes.

Distances between the joints are those of the arm's published CAD, as `low_cost_robot.urdf` (github.com,
AlexanderKoch-Koch/low_cost_robot) and MuJoCo Menagerie's `low_cost_robot_arm` have them, rounded. Sizes and masses of
servos are from the ROBOTIS e-manual. Masses of printed parts, friction, inertia of gears, and how the fingers are
shaped are estimates; the signs of the angles are the SO-101's.
"""

from dataclasses import dataclass

import numpy as np

from lerobot_vla_plugin.twin.arm_model import (
    PAN_AXIS_M,
    PRINTED_RGB,
    SEEN_GROUP,
    SERVO_RGB,
    ArmModel,
    add_contact_box,
    make_graspable,
    require_mujoco,
)
from lerobot_vla_plugin.twin.motors import TICK_RAD, ArmMotors
from lerobot_vla_plugin.twin.scenes import CUBE_HALF_M
from lerobot_vla_plugin.twin.stage import View

_Triple = tuple[float, float, float]

# In the axes of the body "gripper".
FINGER_FACE_M = -0.0085
FINGER_TIP_M = -0.070
FINGERTIP_HALF_LENGTH_M = 0.010
PARALLEL_JAW_RAD = 0.64  # where the moving finger's face is parallel to the fixed one's, a cube's width away
_PIVOT_M = (0.0075, 0.0, -0.0132)  # of the moving finger
_FINGER_HALF_M = (0.0035, 0.0055)  # half of its thickness and of its width

_XL430_KG, _XL430_HALF_M = 0.0572, np.array([0.017, 0.01425, 0.02325])
_XL330_KG, _XL330_HALF_M = 0.018, np.array([0.013, 0.010, 0.017])


@dataclass(frozen=True)
class _Link:
    """A body and the joint with which it hangs on the one before it.

    Attributes:
        name: Name of the body.
        joint: Name of the joint.
        pivot_m: Where the joint is, in the axes of the body before it.
        axis: About which it turns; all axes are the world's while all angles are 0, but for those of the gripper.
        range_rad: Its stops.
    """

    name: str
    joint: str
    pivot_m: _Triple
    axis: _Triple
    range_rad: tuple[float, float]


# At angles of 0 the upper arm stands upright, and the forearm and the gripper point away from the base. The stops of
# lift, elbow, wrist and gripper are as far apart as the ends of the calibration that this package ships.
_LINKS = (
    _Link("shoulder", "shoulder_pan", (0.0, 0.0, 0.0409), (0.0, 0.0, -1.0), (-2.2, 2.2)),
    _Link("upper_arm", "shoulder_lift", (0.0, 0.0, 0.0154), (0.0, 1.0, 0.0), (-1.79, 1.79)),
    _Link("lower_arm", "elbow_flex", (0.0148, 0.0, 0.1083), (0.0, 1.0, 0.0), (-1.83, 1.83)),
    _Link("wrist", "wrist_flex", (0.1005, 0.0, 0.0027), (0.0, 1.0, 0.0), (-1.72, 1.72)),
    _Link("gripper", "wrist_roll", (0.045, 0.0, 0.0), (0.0, 0.0, 1.0), (-np.pi, np.pi)),
    _Link("moving_jaw", "gripper", _PIVOT_M, (0.0, -1.0, 0.0), (-0.2, 1.85)),
)
# The gripper's x looks to the left of the arm, its z back to the base: the jaws close sideways.
_GRIPPER_XY_AXES = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def load_koch(*, visual: bool):
    """The arm alone, on nothing, without shapes for contacts.

    Args:
        visual: Makes no difference: the boxes that are drawn give it its inertia, too.

    Returns:
        A `mujoco.MjSpec`.

    Raises:
        ModuleNotFoundError: MuJoCo is not installed.
    """
    require_mujoco()
    import mujoco

    spec = mujoco.MjSpec()
    spec.modelname = "koch"
    spec.compiler.degree = False
    body = spec.worldbody.add_body(name="base", pos=[PAN_AXIS_M, 0, 0])
    _add_base(body)
    for link in _LINKS:
        body = body.add_body(name=link.name, pos=link.pivot_m)
        body.add_joint(name=link.joint, axis=link.axis, range=link.range_rad, limited=True)
    gripper = spec.body("gripper")
    gripper.alt.type, gripper.alt.xyaxes = mujoco.mjtOrientation.mjORIENTATION_XYAXES, _GRIPPER_XY_AXES
    _add_arm(spec)
    _add_hand(spec)
    return spec


def _add_base(body) -> None:
    _add_printed(body, (-0.02, 0.0, 0.004), (0.05, 0.04, 0.004), 0.04)
    _add_servo(body, (0.0, 0.0, 0.022), _XL430_HALF_M[[2, 1, 0]], _XL430_KG)


def _add_arm(spec) -> None:
    """Every servo lies at the axis that it turns; printed parts lead from one to the next."""
    _add_servo(spec.body("shoulder"), (0.0, 0.0, 0.0154), _XL430_HALF_M[[0, 2, 1]], _XL430_KG)
    _add_printed(spec.body("shoulder"), (0.0, 0.0, 0.0), (0.018, 0.03, 0.003), 0.012)
    upper, lower, wrist = spec.body("upper_arm"), spec.body("lower_arm"), spec.body("wrist")
    for side in (-1, 1):
        _add_printed(upper, (0.002, side * 0.026, 0.047), (0.011, 0.0025, 0.058), 0.011)
        _add_printed(lower, (0.05, side * 0.016, 0.001), (0.055, 0.002, 0.009), 0.009)
    _add_printed(upper, (0.002, 0.0, 0.06), (0.009, 0.024, 0.003), 0.006)
    _add_servo(upper, (0.0148, 0.0, 0.1083), _XL330_HALF_M[[0, 2, 1]], _XL330_KG)
    _add_servo(lower, (0.0925, 0.0, 0.0027), _XL330_HALF_M[[2, 1, 0]], _XL330_KG)
    _add_servo(wrist, (0.03, 0.0, 0.0), _XL330_HALF_M[[2, 1, 0]], _XL330_KG)
    _add_printed(wrist, (0.008, 0.0, 0.0), (0.008, 0.015, 0.008), 0.005)


def _add_hand(spec) -> None:
    gripper, jaw = spec.body("gripper"), spec.body("moving_jaw")
    thickness_m, width_m = _FINGER_HALF_M
    _add_printed(gripper, (-0.004, 0.0, -0.004), (0.018, 0.012, 0.003), 0.004)
    _add_servo(gripper, (0.0, 0.0, -0.0145), _XL330_HALF_M[[2, 0, 1]], _XL330_KG)
    finger_half_m = (0.0 - 0.007 - FINGER_TIP_M) / 2
    finger_m = (FINGER_FACE_M - thickness_m, 0.0, FINGER_TIP_M + finger_half_m)
    _add_printed(gripper, finger_m, (thickness_m, width_m, finger_half_m), 0.008)
    # The moving finger is bent: from its pivot outwards, past the edge of a cube, and down beside it.
    shank = _add_printed(jaw, *_in_jaw((0.022, 0.0, -0.026), (0.019, width_m, thickness_m)), 0.005)
    shank.quat = _jaw_quat(np.deg2rad(35.0))
    blade = _add_printed(jaw, *_in_jaw((_moving_x_m(), 0.0, -0.053), (thickness_m, width_m, 0.017)), 0.006)
    blade.quat = _jaw_quat()


def add_contact_shapes(spec) -> None:
    """Add the boxes with which the arm touches things: fingers, palm, wrist and lower arm.

    Args:
        spec: Spec of `load_koch`; changed.
    """
    gripper, jaw = spec.body("gripper"), spec.body("moving_jaw")
    thickness_m, width_m = _FINGER_HALF_M
    tip_m, middle_m = FINGERTIP_HALF_LENGTH_M, 0.009
    tip_z_m = FINGER_TIP_M + tip_m
    middle_z_m, back_m = tip_z_m + tip_m + middle_m, 0.001  # the tips alone touch what is held
    x_m = FINGER_FACE_M - thickness_m
    tip_half_m, middle_half_m = [thickness_m, width_m, tip_m], [thickness_m, width_m, middle_m]
    fingers = [
        add_contact_box(gripper, "fixed_tip", [x_m, 0.0, tip_z_m], tip_half_m),
        add_contact_box(gripper, "fixed_middle", [x_m - back_m, 0.0, middle_z_m], middle_half_m),
        add_contact_box(jaw, "moving_tip", *_in_jaw((_moving_x_m(), 0.0, tip_z_m), tip_half_m)),
        add_contact_box(jaw, "moving_middle", *_in_jaw((_moving_x_m() + back_m, 0.0, middle_z_m), middle_half_m)),
    ]
    for finger in fingers[2:]:
        finger.quat = _jaw_quat()
    for finger in fingers:
        make_graspable(finger)
    add_contact_box(gripper, "palm", [0.0, 0.0, -0.013], [0.019, 0.014, 0.012])
    add_contact_box(spec.body("wrist"), "wrist_box", [0.022, 0.0, 0.0], [0.02, 0.015, 0.014])
    add_contact_box(spec.body("lower_arm"), "lower_arm_box", [0.045, 0.0, 0.002], [0.045, 0.018, 0.014])


def _moving_x_m() -> float:
    """Middle of the moving finger when it holds a cube, along x of the gripper."""
    return FINGER_FACE_M + 2 * CUBE_HALF_M + _FINGER_HALF_M[0]


def _in_jaw(centre_m: _Triple, half_m) -> tuple[list[float], list[float]]:
    """Place and half size of a box of the jaw, from its place in the gripper's axes at `PARALLEL_JAW_RAD`."""
    x_m, y_m, z_m = np.subtract(centre_m, _PIVOT_M).tolist()
    cos, sin = np.cos(PARALLEL_JAW_RAD), np.sin(PARALLEL_JAW_RAD)
    return [cos * x_m + sin * z_m, y_m, cos * z_m - sin * x_m], list(half_m)


def _jaw_quat(turn_rad: float = 0.0) -> list[float]:
    """Orientation of a box of the jaw: along the gripper's axes at `PARALLEL_JAW_RAD`, or turned from there."""
    half_rad = (PARALLEL_JAW_RAD + turn_rad) / 2
    return [np.cos(half_rad), 0.0, np.sin(half_rad), 0.0]


def _add_printed(body, centre_m, half_m, mass_kg: float):
    return _add_seen(body, centre_m, half_m, mass_kg, PRINTED_RGB)


def _add_servo(body, centre_m, half_m, mass_kg: float):
    return _add_seen(body, centre_m, half_m, mass_kg, SERVO_RGB)


def _add_seen(body, centre_m, half_m, mass_kg: float, rgb: _Triple):
    """A box that is drawn and has mass, and touches nothing."""
    import mujoco

    geom = body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre_m, size=half_m, rgba=[*rgb, 1])
    geom.mass, geom.group, geom.contype, geom.conaffinity = mass_kg, SEEN_GROUP, 0, 0
    return geom


def _of(xl430: float, xl330: float) -> np.ndarray:
    """A number for each servo of a follower: LeRobot's `KochFollower` names their models."""
    return np.array([xl430, xl430, xl330, xl330, xl330, xl330])


# ROBOTIS e-manual: torque and speed of the XL430-W250 at 12 V and of the XL330-M288 at 5 V.
_STALL_NM = _of(1.5, 0.52)
_NO_LOAD_RAD_S = _of(61, 103) * (2 * np.pi / 60)
_P_UNITS, _D_UNITS, _FULL_PWM = 128, 16, 885  # e-manual: Position PID Gain(80, 82, 84) and Goal PWM(100)
_CONTROL_S = 0.001  # of the D term, estimated: the manual does not say how often it is computed

_MOTORS = ArmMotors(
    stall_nm=_STALL_NM,
    no_load_rad_s=_NO_LOAD_RAD_S,
    p_nm_rad=_STALL_NM / (_P_UNITS * _FULL_PWM * TICK_RAD),
    d_nm_s=_STALL_NM * _CONTROL_S / (_D_UNITS * _FULL_PWM * TICK_RAD),
    p_gain=np.array([640.0, 640.0, 1500.0, 400.0, 400.0, 400.0]),  # of the factory, and LeRobot's of the elbow
    d_gain=np.array([4000.0, 4000.0, 600.0, 0.0, 0.0, 0.0]),
    largest_duty=_of(1.0, 1.0),  # LeRobot lets the gripper have more current than it takes at a standstill
    dead_zone_ticks=_of(0.0, 0.0),
    friction_nm=_of(0.04, 0.02),
    armature_kg_m2=_of(0.013, 0.0025),
)

KOCH = ArmModel(
    name="koch",
    load=load_koch,
    add_contact_shapes=add_contact_shapes,
    motors=_MOTORS,
    start_rad=np.array([*np.deg2rad([0.0, -60.0, 50.0, 60.0, 0.0]), 0.05]),
    bend_rad=np.deg2rad([20.0, -20.0, 60.0]),
    search_damping=1e-5,
    roll_ahead_rad=-np.pi / 2,
    finger_face_m=FINGER_FACE_M,
    finger_tip_m=FINGER_TIP_M,
    fingertip_half_length_m=FINGERTIP_HALF_LENGTH_M,
    closed_rad=-0.12,
    open_rad=(0.95, 1.1),
    clearance_m=0.012,
    aligns_jaws=True,
    press_m=0.008,
    # Above the gripper when it points away from the base, as it does far out, where it cannot point down.
    wrist_view=View(eye_m=(0.0, -0.06, 0.01), target_m=(0.0, -0.02, -0.09), fovy_deg=75),
)
