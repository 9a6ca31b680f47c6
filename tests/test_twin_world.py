"""The world: deterministic, restorable, and cubes that hold, slip and fall as they should."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("mink")

from lerobot_vla_plugin.twin.grasp_plan import choose_yaw
from lerobot_vla_plugin.twin.hand import perform
from lerobot_vla_plugin.twin.kinematics import Kinematics
from lerobot_vla_plugin.twin.scenes import CUBE_HALF_M, draw_layout
from lerobot_vla_plugin.twin.so101_model import FINGER_FACE_M, FINGER_TIP_M, PARALLEL_JAW_RAD, SO101
from lerobot_vla_plugin.twin.world import World

REST_MM = 0.1  # how deep a cube sinks into the table


@pytest.fixture(scope="module")
def world() -> World:
    return World(visual=False)


@pytest.fixture(scope="module")
def kinematics() -> Kinematics:
    return Kinematics()


@pytest.fixture(scope="module")
def holding(world: World, kinematics: Kinematics):
    """A cube in the air, held at its faces, as `perform` left it."""
    layout = draw_layout("pick-lift", 3)
    cube = layout.cubes[layout.color]
    # One that is held at its edges turns in the jaws.
    cube = replace(cube, yaw_rad=choose_yaw(cube, SO101))
    world.reset(replace(layout, cubes={**layout.cubes, layout.color: cube}))
    assert perform(world, kinematics, np.random.default_rng(3)).success
    return world.save()


def _in_gripper_m(world: World, color: str) -> np.ndarray:
    gripper = world.data.body("gripper")
    return (world.cube_m(color) - gripper.xpos) @ gripper.xmat.reshape(3, 3)


def _run(world: World, seed: int) -> np.ndarray:
    world.reset(draw_layout("pick-place", seed))
    rng, states = np.random.default_rng(seed), []
    for _ in range(20):
        world.motors.goal_rad = SO101.start_rad + rng.uniform(-0.5, 0.5, 6)
        world.step(10)
        states.append(world.save().physics)
    return np.array(states)


def test_a_seed_gives_the_same_states_bit_by_bit(world: World) -> None:
    first = _run(world, 1)
    np.testing.assert_array_equal(_run(world, 1), first)
    np.testing.assert_array_equal(_run(World(visual=False), 1), first)
    assert not np.array_equal(_run(world, 2), first)


def test_meshes_do_not_change_the_motion(world: World) -> None:
    np.testing.assert_array_equal(_run(World(visual=True), 1), _run(world, 1))


def test_ten_steps_are_ten_times_one_step(world: World) -> None:
    _run(world, 1)
    state = world.save()
    world.step(10)
    at_once = world.save().physics
    world.restore(state)
    for _ in range(10):
        world.step()
    np.testing.assert_array_equal(world.save().physics, at_once)
    assert world.steps == state.steps + 10


def test_another_world_goes_on_from_a_saved_state(world: World, holding) -> None:
    states = []
    for each in (world, World(visual=False)):
        each.restore(holding)
        assert each.layout is holding.layout
        assert each.fingered() == {holding.layout.color}
        each.motors.goal_rad[0] += 0.3
        each.step(100)
        states.append(each.save().physics)
    np.testing.assert_array_equal(*states)


def test_a_held_cube_stays_where_it_is(world: World, holding) -> None:
    """At rest for 5 s, then waved about for 5 s by pan and roll."""
    world.restore(holding)
    color, goal = holding.layout.color, holding.goal_rad
    before = _in_gripper_m(world, color)
    world.step(5 * 300)
    assert np.linalg.norm(_in_gripper_m(world, color) - before) < 0.001
    for tick in range(5 * 30):
        world.motors.goal_rad = goal.copy()
        world.motors.goal_rad[0] += 0.35 * np.sin(2 * np.pi * 0.5 * tick / 30)
        world.motors.goal_rad[4] += 0.5 * np.sin(2 * np.pi * 0.3 * tick / 30)
        world.step(10)
    assert np.linalg.norm(_in_gripper_m(world, color) - before) < 0.004
    assert world.fingered() == {color}


def test_a_released_cube_falls(world: World, holding) -> None:
    world.restore(holding)
    color = holding.layout.color
    assert world.cube_m(color)[2] > CUBE_HALF_M + 0.05
    world.motors.goal_rad[-1] = 0.8
    world.step(300)
    assert world.cube_m(color)[2] == pytest.approx(CUBE_HALF_M, abs=REST_MM * 1e-3)
    assert world.cube_speed_m_s(color) < 0.01
    assert world.fingered() == set()


def test_without_torque_the_arm_sinks_and_the_cube_is_lost(world: World, holding) -> None:
    world.restore(holding)
    world.motors.torque_enabled[:] = False
    world.step(600)
    assert world.cube_m(holding.layout.color)[2] < CUBE_HALF_M + 0.02


def test_cubes_rest_on_the_table_and_stay(world: World) -> None:
    layout = draw_layout("reach-touch", 5)
    world.reset(layout)
    world.step(600)
    for color, pose in layout.cubes.items():
        np.testing.assert_allclose(world.cube_m(color), [pose.x_m, pose.y_m, CUBE_HALF_M], atol=REST_MM * 1e-3)
        assert np.cos(world.cube_yaw_rad(color) - pose.yaw_rad) == pytest.approx(1)


def test_a_layout_needs_no_new_model(world: World) -> None:
    """Colors, light and places change in the model and the state that are there."""
    model, data = world.model, world.data
    seen = []
    for seed in (1, 2):
        layout = draw_layout("pick-place", seed)
        world.reset(layout)
        assert world.model is model
        assert world.data is data
        np.testing.assert_allclose(data.body("bin").xpos[:2], layout.bin_m)
        np.testing.assert_allclose(model.geom("red").rgba[:3], layout.look.cube_rgb["red"], rtol=1e-6)
        np.testing.assert_allclose(model.light_diffuse[0], layout.look.light, rtol=1e-6)
        seen.append((model.geom("table").rgba.copy(), model.light_dir[0].copy(), model.geom("blue").rgba.copy()))
    assert all(not np.allclose(a, b) for a, b in zip(*seen, strict=True))


def test_the_bin_is_there_only_where_it_is_needed(world: World) -> None:
    world.reset(draw_layout("pick-lift", 1))
    assert np.linalg.norm(world.data.body("bin").xpos) > 2


def _fingertip(world: World, name: str, jaw_rad: float) -> tuple[np.ndarray, np.ndarray]:
    """Axes and centre of a fingertip's box as the gripper sees them."""
    world.reset(draw_layout("pick-lift", 1), np.array([*SO101.start_rad[:5], jaw_rad]))
    gripper, tip = world.data.body("gripper"), world.data.geom(name)
    rotation = gripper.xmat.reshape(3, 3)
    return rotation.T @ tip.xmat.reshape(3, 3), (tip.xpos - gripper.xpos) @ rotation


def test_fingertips_are_parallel_at_one_angle_and_level_around_a_cube(world: World) -> None:
    axes, _ = _fingertip(world, "moving_tip", PARALLEL_JAW_RAD)
    np.testing.assert_allclose(np.abs(axes).max(axis=1), 1, atol=0.001)  # each along one of the gripper's
    lowest_m, inner_m = [], []
    for name, side in (("fixed_tip", 1), ("moving_tip", -1)):
        axes, centre = _fingertip(world, name, 0.3)
        reach = np.abs(axes) @ world.model.geom(name).size
        lowest_m.append(centre[2] - reach[2])
        inner_m.append(centre[0] + side * reach[0])
    assert lowest_m == pytest.approx([FINGER_TIP_M] * 2, abs=0.0013)
    assert inner_m[0] == pytest.approx(FINGER_FACE_M, abs=1e-6)
    assert inner_m[1] - inner_m[0] == pytest.approx(2 * CUBE_HALF_M, abs=0.003)


@pytest.mark.parametrize("posture", [[0.0] * 5, [np.nan] * 6, [9.0] * 6])
def test_postures_that_are_none_are_refused(world: World, posture: list[float]) -> None:
    with pytest.raises(ValueError, match="expected angles of"):
        world.reset(draw_layout("pick-lift", 1), posture)


def test_a_posture_at_its_limits_is_taken(world: World) -> None:
    world.reset(replace(draw_layout("pick-lift", 1), color="blue"), world.joint_limits_rad[:, 0])
    assert world.layout.color == "blue"


def test_goals_that_are_none_are_refused(world: World) -> None:
    world.reset(draw_layout("pick-lift", 1))
    world.motors.goal_rad[0] = np.nan
    with pytest.raises(ValueError, match="expected finite goals"):
        world.step()
    assert world.steps == 0


def test_a_world_that_breaks_down_says_so_and_can_be_restored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log where it runs
    world.reset(draw_layout("pick-lift", 1))
    state = world.save()
    world.data.qvel[:] = np.inf
    with pytest.raises(FloatingPointError, match="restore"):
        world.step(10)
    world.restore(state)
    world.step(10)
    assert world.steps == 10
