"""The scripted person solves the tasks, with the cube that is named; the judge says what was done to which."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("mink")

from lerobot_vla_plugin.twin.grasp_plan import GraspPlan, choose_yaw, plan_waypoints
from lerobot_vla_plugin.twin.hand import perform
from lerobot_vla_plugin.twin.judge import Judge, Verdict
from lerobot_vla_plugin.twin.kinematics import Kinematics, azimuth_rad
from lerobot_vla_plugin.twin.koch_model import KOCH
from lerobot_vla_plugin.twin.scenes import CUBE_HALF_M, TASKS, CubePose, Goal, draw_layout
from lerobot_vla_plugin.twin.so101_model import SO101
from lerobot_vla_plugin.twin.world import World

OTHER = {"red": "blue", "blue": "red"}


@pytest.fixture(scope="module")
def world() -> World:
    return World(visual=False)


@pytest.fixture(scope="module")
def kinematics() -> Kinematics:
    return Kinematics()


def _perform(world: World, kinematics: Kinematics, task: str, seed: int, color: str | None = None) -> Verdict:
    world.reset(draw_layout(task, seed))
    return perform(world, kinematics, np.random.default_rng(seed), color)


@pytest.mark.parametrize("task", TASKS)
def test_the_person_solves_the_task_with_the_named_cube(world: World, kinematics: Kinematics, task: str) -> None:
    colors = set()
    for seed in (2, 3, 6, 9):
        verdict = _perform(world, kinematics, task, seed)
        assert verdict.success, (task, seed, verdict.done)
        assert verdict.taken == verdict.layout.color == world.layout.color
        assert world.time_s < TASKS[task].time_limit_s
        colors.add(verdict.taken)
    assert colors == {"red", "blue"}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_person_rarely_fails(world: World, kinematics: Kinematics, task: str) -> None:
    successes = [_perform(world, kinematics, task, seed).success for seed in range(100)]
    assert sum(successes) >= 95


@pytest.mark.parametrize("task", TASKS)
def test_the_wrong_cube_is_no_success(world: World, kinematics: Kinematics, task: str) -> None:
    layout = draw_layout(task, 1)
    verdict = _perform(world, kinematics, task, 1, OTHER[layout.color])
    assert verdict.taken == OTHER[layout.color]
    assert verdict.done[layout.task.goal] == (OTHER[layout.color],)
    assert not verdict.success


def test_both_cubes_are_no_success() -> None:
    layout = draw_layout("pick-lift", 1, "red")
    for done, success in ((("red",), True), (("red", "blue"), False), (("blue", "red"), False), ((), False)):
        verdict = Verdict(layout, dict.fromkeys(Goal, done))
        assert verdict.success == success
        assert verdict.taken == (done[0] if done else None)


def test_a_whole_attempt_is_the_same_bit_by_bit(world: World, kinematics: Kinematics) -> None:
    states = []
    for person in (kinematics, Kinematics()):
        _perform(world, person, "pick-place", 2)
        states.append(world.save().physics)
    np.testing.assert_array_equal(*states)


def _set_cube(world: World, color: str, position_m: list[float]) -> None:
    start = world.model.joint(color).qposadr[0]
    world.data.qpos[start : start + 3] = position_m
    world.data.qvel[:] = 0


def test_a_cube_in_the_bin_counts_once_it_rests_there(world: World) -> None:
    world.reset(draw_layout("pick-place", 1, "blue"))
    judge = Judge(world.layout)
    _set_cube(world, "blue", [*world.layout.bin_m, 0.1])
    while world.time_s < 0.15:
        world.step(10)
        assert judge.look(world).done[Goal.PLACED] == ()  # still falling
    while world.time_s < 1.5:
        world.step(10)
        verdict = judge.look(world)
    assert verdict.success
    assert verdict.done == {Goal.TOUCHED: (), Goal.LIFTED: (), Goal.PLACED: ("blue",)}


def test_a_cube_beside_the_bin_or_thrown_up_does_not_count(world: World) -> None:
    world.reset(draw_layout("pick-place", 1, "blue"))
    judge = Judge(world.layout)
    x_m, y_m = world.layout.bin_m
    _set_cube(world, "blue", [x_m + 0.08, y_m, CUBE_HALF_M])
    _set_cube(world, "red", [0.5, 0.4, 0.5])
    for _ in range(60):
        world.step(10)
        assert not any(judge.look(world).done.values())


def test_there_is_no_bin_to_count_where_no_task_needs_it(world: World) -> None:
    world.reset(draw_layout("pick-lift", 1, "blue"))
    judge = Judge(world.layout)
    _set_cube(world, "blue", [*world.layout.bin_m, CUBE_HALF_M])
    for _ in range(30):
        world.step(10)
        verdict = judge.look(world)
    assert verdict.done[Goal.PLACED] == ()


# The plan --------------------------------------------------------------------------------------------------


def test_a_plan_starts_where_the_arm_is_and_keeps_inside_its_joints(world: World, kinematics: Kinematics) -> None:
    low, high = world.joint_limits_rad.T
    for seed in range(5):
        rng, layout = np.random.default_rng(seed), draw_layout("pick-place", seed)
        plan = GraspPlan(SO101.start_rad, plan_waypoints(layout, layout.color, rng), kinematics)
        track = np.array([plan.posture_rad(time) for time in np.arange(0, plan.duration_s + 1, 1 / 30)])
        np.testing.assert_array_equal(track[0], SO101.start_rad)
        np.testing.assert_array_equal(track[-1], plan.posture_rad(plan.duration_s))
        assert np.all((track >= low) & (track <= high))
        assert np.abs(np.diff(track, axis=0)).max() * 30 < 5.0  # slower than the motors turn without load


def test_speed_is_the_slope_of_the_posture(kinematics: Kinematics) -> None:
    layout = draw_layout("pick-lift", 0)
    plan = GraspPlan(SO101.start_rad, plan_waypoints(layout, "red", np.random.default_rng(0)), kinematics)
    for time_s in (0.4, 1.7, 2.6):
        slope = (plan.posture_rad(time_s + 1e-6) - plan.posture_rad(time_s - 1e-6)) / 2e-6
        np.testing.assert_allclose(plan.speed_rad_s(time_s), slope, atol=1e-5)
    assert not plan.speed_rad_s(plan.duration_s + 1).any()


def test_jaws_that_are_not_wide_close_on_faces_with_the_wrist_near_a_quarter_turn() -> None:
    for yaw_rad in np.linspace(-np.pi, np.pi, 17):
        cube = CubePose(0.2, 0.08, float(yaw_rad))
        chosen = choose_yaw(cube, KOCH)
        assert np.cos(4 * (chosen - yaw_rad)) == pytest.approx(1)  # a multiple of a quarter turn away
        off_best = chosen - azimuth_rad([0.2, 0.08]) - np.pi / 2
        assert np.cos(off_best) >= np.cos(np.pi / 4) - 1e-9


@pytest.mark.parametrize("turn_deg", [0, 20, 45, 70])
def test_wide_jaws_take_a_cube_however_it_is_turned(world: World, kinematics: Kinematics, turn_deg: float) -> None:
    layout = draw_layout("pick-lift", 2)
    cube = layout.cubes[layout.color]
    across_rad = choose_yaw(cube, SO101)
    turned = replace(cube, yaw_rad=across_rad + np.deg2rad(turn_deg))
    assert choose_yaw(turned, SO101) == across_rad
    world.reset(replace(layout, cubes={**layout.cubes, layout.color: turned}))
    assert perform(world, kinematics, np.random.default_rng(0)).success


def test_jaws_open_over_the_bin_higher_than_they_ever_close(kinematics: Kinematics) -> None:
    for seed in range(3):
        layout = draw_layout("pick-place", seed)
        waypoints = plan_waypoints(layout, layout.color, np.random.default_rng(seed))
        jaws_rad = np.array([waypoint.jaw_rad for waypoint in waypoints])
        heights_m = np.array([waypoint.position_m[2] for waypoint in waypoints])
        closes, opens = (np.flatnonzero(sign * np.diff(jaws_rad) > 0.1) + 1 for sign in (-1, 1))
        assert len(closes) == len(opens) == 1
        assert heights_m[opens[0]] - heights_m[closes[0]] > 0.07
