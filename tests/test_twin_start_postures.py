"""Postures in which demonstrations begin: anywhere above the table, and the task is done from there."""

import numpy as np
import pytest

from lerobot_vla_plugin.twin.arm_models import ARM_MODELS
from lerobot_vla_plugin.twin.hand import Attempt
from lerobot_vla_plugin.twin.judge import Judge
from lerobot_vla_plugin.twin.kinematics import Kinematics
from lerobot_vla_plugin.twin.scenes import CUBE_HALF_M, draw_layout
from lerobot_vla_plugin.twin.start_postures import SHARE_ANYWHERE, SHARE_AT_CUBE, draw_start
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S


@pytest.fixture(scope="module", params=list(ARM_MODELS))
def arm(request):
    return ARM_MODELS[request.param]


@pytest.fixture(scope="module")
def kinematics(arm):
    return Kinematics(arm)


@pytest.fixture(scope="module")
def starts(arm, kinematics):
    """Scenes, postures, and where the jaws are then: of demonstrations that begin elsewhere than evaluations."""
    drawn = [
        (layout, draw_start(kinematics, layout, np.random.default_rng(seed)))
        for seed in range(80)
        for layout in [draw_layout("pick-place", seed)]
    ]
    return [
        (layout, posture_rad, kinematics.grasp_m(posture_rad[:-1]))
        for layout, posture_rad in drawn
        if np.abs(posture_rad - arm.start_rad).max() > 1e-9
    ]


def test_a_share_begins_where_evaluations_do(starts):
    assert len(starts) / 80 == pytest.approx(SHARE_ANYWHERE + SHARE_AT_CUBE, abs=0.15)


def test_jaws_are_above_cubes_and_bin_and_everywhere(arm, starts):
    places_m = np.array([place_m for *_, place_m in starts])
    assert places_m[:, 2].min() > 2 * CUBE_HALF_M + arm.fingertip_half_length_m
    assert np.ptp(places_m, axis=0)[:2] == pytest.approx([0.2, 0.35], abs=0.1)
    assert np.ptp([posture_rad[-1] for _, posture_rad, _ in starts]) > 0.3


def test_a_good_part_is_close_to_the_named_cube(starts):
    asides_m = []
    for layout, _, place_m in starts:
        cube = layout.cubes[layout.color]
        asides_m.append(np.abs(place_m[:2] - [cube.x_m, cube.y_m]).max())
    assert 0.25 < np.mean(np.array(asides_m) < 0.031) < 0.75


def test_a_seed_decides(kinematics):
    one, two = (draw_start(kinematics, draw_layout("pick-lift", 3), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_the_person_does_the_task_from_there(arm, kinematics):
    world = World(arm, visual=False)
    for seed in range(4):
        layout = draw_layout("pick-lift", seed)
        posture_rad = draw_start(kinematics, layout, np.random.default_rng((seed, 2)))
        world.reset(layout, np.clip(posture_rad, *world.joint_limits_rad.T))
        attempt, judge = Attempt(world, kinematics, np.random.default_rng(seed)), Judge(layout)
        while world.time_s < attempt.duration_s:
            world.motors.goal_rad = attempt.goal_rad(world.time_s, world.joints_rad)
            world.step(STEPS_PER_S // 10)
            verdict = judge.look(world)
        assert verdict.success, seed
