"""Our own model of the Koch: joints and motors as its calibration and its servos' manual say, fingers that hold."""

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("mink")

from lerobot_vla_plugin.arms.calibration import example_calibration
from lerobot_vla_plugin.twin.hand import perform
from lerobot_vla_plugin.twin.joint_map import JointMap
from lerobot_vla_plugin.twin.kinematics import Kinematics
from lerobot_vla_plugin.twin.koch_model import FINGER_FACE_M, FINGER_TIP_M, KOCH, PARALLEL_JAW_RAD
from lerobot_vla_plugin.twin.motors import TICK_RAD
from lerobot_vla_plugin.twin.rendering import open_renderer
from lerobot_vla_plugin.twin.scenes import CUBE_HALF_M, TASKS, draw_layout
from lerobot_vla_plugin.twin.world import World

LAYOUT = draw_layout("pick-lift", 0)


@pytest.fixture(scope="module")
def world() -> World:
    return World(KOCH, visual=False)


@pytest.fixture(scope="module")
def kinematics() -> Kinematics:
    return Kinematics(KOCH)


@pytest.mark.parametrize("task", TASKS)
def test_the_person_solves_the_task_with_the_named_cube(world: World, kinematics: Kinematics, task: str) -> None:
    for seed in (0, 1, 4):  # near and far, and either color
        world.reset(draw_layout(task, seed))
        verdict = perform(world, kinematics, np.random.default_rng(seed))
        assert verdict.success, (seed, verdict.done)
        assert verdict.taken == world.layout.color


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_person_rarely_fails(world: World, kinematics: Kinematics, task: str) -> None:
    successes = 0
    for seed in range(100):
        world.reset(draw_layout(task, seed))
        successes += perform(world, kinematics, np.random.default_rng(seed)).success
    assert successes >= 95


def test_a_held_cube_stays_where_it_is_while_it_is_waved_about(world: World, kinematics: Kinematics) -> None:
    world.reset(draw_layout("pick-lift", 3))
    assert perform(world, kinematics, np.random.default_rng(3)).success
    color, goal_rad = world.layout.color, world.motors.goal_rad.copy()
    before = _in_gripper_m(world, world.cube_m(color))
    for tick in range(5 * 30):
        world.motors.goal_rad = goal_rad + 0.35 * np.sin(np.pi * tick / 30) * np.eye(6)[0]
        world.step(10)
    assert np.linalg.norm(_in_gripper_m(world, world.cube_m(color)) - before) < 0.004


def test_a_tick_is_a_tick_of_the_servos(world: World) -> None:
    """So the stops of the joints are as far apart as the calibration's ends, and angles of 0 lie in their middle."""
    calibration = example_calibration("koch_follower", "koch_follower")
    joint_map = JointMap(calibration, world.joint_limits_rad[-1], inverts_in_software=False)
    np.testing.assert_allclose(joint_map.ticks_per_rad, 1 / TICK_RAD, rtol=0.002)
    for index, joint in enumerate(("shoulder_lift", "elbow_flex", "wrist_flex"), start=1):
        ends_rad = joint_map.to_rad([[c.range_min for c in calibration.values()]] * 6)[0, index]
        assert ends_rad == pytest.approx(world.joint_limits_rad[index, 0], abs=0.01), joint


def test_fingertips_are_parallel_and_level_around_a_cube(world: World) -> None:
    world.reset(LAYOUT, np.array([*KOCH.start_rad[:5], PARALLEL_JAW_RAD]))
    rotation = world.data.body("gripper").xmat.reshape(3, 3)
    lowest_m, inner_m = [], []
    for name, side in (("fixed_tip", 1), ("moving_tip", -1)):
        tip = world.data.geom(name)
        axes = rotation.T @ tip.xmat.reshape(3, 3)
        np.testing.assert_allclose(axes, np.eye(3), atol=1e-6)
        centre, half = _in_gripper_m(world, tip.xpos), world.model.geom(name).size
        lowest_m.append(centre[2] - half[2])
        inner_m.append(centre[0] + side * half[0])
    assert lowest_m == pytest.approx([FINGER_TIP_M] * 2, abs=1e-6)
    assert inner_m == pytest.approx([FINGER_FACE_M, FINGER_FACE_M + 2 * CUBE_HALF_M], abs=1e-6)


def test_motors_give_what_the_manual_says() -> None:
    motors = KOCH.motors
    np.testing.assert_allclose(
        motors.stall_nm / motors.back_emf_nm_s, np.array([61, 61, 103, 103, 103, 103]) * np.pi / 30
    )
    # Full duty, 885 steps of PWM, at an error in ticks of 885 x 128 / P gain.
    ticks = motors.stall_nm / motors.gain_nm_rad / TICK_RAD
    np.testing.assert_allclose(ticks, 885 * 128 / np.array([640, 640, 1500, 400, 400, 400]))


def test_it_holds_its_start_posture_with_little_of_its_strength(world: World) -> None:
    world.reset(LAYOUT)
    world.step(600)
    assert np.abs(world.joints_rad - KOCH.start_rad).max() < 0.1
    assert np.abs(world.joint_speeds_rad_s).max() < 0.1
    assert (np.abs(world.torques_nm) < 0.3 * KOCH.motors.stall_nm).all()


def test_pictures_show_a_koch(world: World) -> None:
    pictures = []
    for arm in (world, World()):
        arm.reset(LAYOUT)
        renderer = open_renderer(arm, 64, 48, "drawing")
        pictures.append(renderer.render("front").astype(int))
        renderer.close()
    koch, so101 = pictures
    changed = np.abs(koch - so101).max(axis=2) > 30
    assert 0.02 < changed.mean() < 0.3  # the arm, and neither the cubes nor the table


def _in_gripper_m(world: World, place_m: np.ndarray) -> np.ndarray:
    gripper = world.data.body("gripper")
    return (place_m - gripper.xpos) @ gripper.xmat.reshape(3, 3)
