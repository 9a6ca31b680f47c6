"""MuJoCo model of the world: an arm with its motors, two cubes, a bin and the table, tuned so that grasps hold."""

import numpy as np

from lerobot_vla_plugin.twin.arm_model import JOINTS, ArmModel, make_graspable, meet_everything
from lerobot_vla_plugin.twin.scenes import BIN_HALF_M, BIN_HEIGHT_M, COLORS, CUBE_HALF_M, CUBE_KG
from lerobot_vla_plugin.twin.stage import View, furnish

STEPS_PER_S = 300
# Nearer than the kinematic scene's camera: the part of the table that the arm can reach fills the picture.
_FRONT = View(eye_m=(0.56, 0.0, 0.40), target_m=(0.19, 0.0, 0.02), fovy_deg=45)
_TABLE_FRICTION = (1.0, 0.005, 0.0001)
_BIN_RGB = (0.25, 0.2, 0.15)
_BIN_WALL_M = 0.002  # half of a wall's thickness


def build_world_model(arm: ArmModel, *, visual: bool):
    """Compile the world.

    Args:
        arm: The arm that stands in it.
        visual: Whether the arm gets its meshes.

    Returns:
        A `mujoco.MjModel` with joints, actuators (torques in [N m]) and cubes by name, the arm's joints first.

    Raises:
        ModuleNotFoundError: MuJoCo or the arm's model is not installed.
    """
    spec = arm.load(visual=visual)
    arm.add_contact_shapes(spec)
    furnish(spec, _FRONT, arm.wrist_view)
    table = spec.geom("table")
    table.friction = _TABLE_FRICTION
    meet_everything(table)
    _replace_actuators(spec)
    for name, rgb in COLORS.items():
        _add_cube(spec.worldbody, name, rgb)
    _add_bin(spec.worldbody)
    _set_solver(spec.option)
    model = spec.compile()
    # In the compiled model: the damping of a spec's joint has had one and three entries in releases of MuJoCo.
    dofs = [model.joint(name).dofadr[0] for name in JOINTS]
    model.dof_damping[dofs] = arm.motors.back_emf_nm_s
    model.dof_frictionloss[dofs] = arm.motors.friction_nm
    model.dof_armature[dofs] = arm.motors.armature_kg_m2
    return model


def _replace_actuators(spec) -> None:
    """Torque at each joint instead of the model's position servos: `motors` is the servo."""
    import mujoco

    for actuator in list(spec.actuators):
        spec.delete(actuator)
    for name in JOINTS:
        spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)


def _add_cube(world, name: str, rgb: tuple[float, ...]) -> None:
    import mujoco

    body = world.add_body(name=name, pos=[0.2, 0.0, CUBE_HALF_M])
    body.add_freejoint(name=name)
    cube = body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=[CUBE_HALF_M] * 3, rgba=[*rgb, 1])
    cube.mass = CUBE_KG
    make_graspable(cube)
    meet_everything(cube)


def _add_bin(world) -> None:
    """An open box that stands where it is put, as a mocap body: nothing moves it."""
    import mujoco

    body = world.add_body(name="bin", mocap=True)
    half, wall, height = BIN_HALF_M, _BIN_WALL_M, BIN_HEIGHT_M / 2
    boxes = [((0.0, 0.0, wall), (half, half, wall))]
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        size = (wall if x else half + 2 * wall, wall if y else half + 2 * wall, height)
        boxes.append(((x * (half + wall), y * (half + wall), height), size))
    for number, (centre, size) in enumerate(boxes):
        geom = body.add_geom(name=f"bin{number}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre, size=size)
        geom.rgba = np.array([*_BIN_RGB, 1])
        meet_everything(geom)


def _set_solver(option) -> None:
    """Settings under which a held cube neither creeps out nor is thrown out.

    A pyramidal friction cone drops it, and fewer iterations eject it.
    """
    import mujoco

    option.timestep = 1 / STEPS_PER_S
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.iterations, option.ls_iterations = 100, 50
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 5.0
