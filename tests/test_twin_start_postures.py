"""Postures in which demonstrations begin: anywhere above the table, and the task is done from there."""

import numpy as np
import pytest

from lerobot_vla_plugin.twin.arm_models import ARM_MODELS
from lerobot_vla_plugin.twin.hand import Attempt
from lerobot_vla_plugin.twin.judge import Judge
from lerobot_vla_plugin.twin.kinematics import Kinematics
from lerobot_vla_plugin.twin.scenes import CUBE_HALF_M, draw_layout
from lerobot_vla_plugin.twin.start_postures import SHARE_ELSEWHERE, draw_start
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S


@pytest.fixture(scope="module", params=list(ARM_MODELS))
def arm(request):
    return ARM_MODELS[request.param]


@pytest.fixture(scope="module")
def kinematics(arm):
    return Kinematics(arm)


@pytest.fixture(scope="module")
def postures_rad(kinematics):
    return np.array([draw_start(kinematics, np.random.default_rng(seed)) for seed in range(60)])


def test_a_share_begins_where_evaluations_do(arm, postures_rad):
    elsewhere = np.abs(postures_rad - arm.start_rad).max(axis=1) > 1e-9
    assert elsewhere.mean() == pytest.approx(SHARE_ELSEWHERE, abs=0.15)


def test_jaws_are_above_cubes_and_bin_and_everywhere(kinematics, arm, postures_rad):
    elsewhere = [posture for posture in postures_rad if np.abs(posture - arm.start_rad).max() > 1e-9]
    places_m = np.array([kinematics.grasp_m(posture[:-1]) for posture in elsewhere])
    assert places_m[:, 2].min() > 4 * CUBE_HALF_M
    assert np.ptp(places_m, axis=0)[:2] == pytest.approx([0.2, 0.35], abs=0.1)
    assert np.ptp(np.array(elsewhere)[:, -1]) > 0.3


def test_a_seed_decides(kinematics):
    one, two = (draw_start(kinematics, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_the_person_does_the_task_from_there(arm, kinematics):
    world = World(arm, visual=False)
    for seed in range(4):
        posture_rad = draw_start(kinematics, np.random.default_rng((seed, 2)))
        layout = draw_layout("pick-lift", seed)
        world.reset(layout, np.clip(posture_rad, *world.joint_limits_rad.T))
        attempt, judge = Attempt(world, kinematics, np.random.default_rng(seed)), Judge(layout)
        while world.time_s < attempt.duration_s:
            world.motors.goal_rad = attempt.goal_rad(world.time_s, world.joints_rad)
            world.step(STEPS_PER_S // 10)
            verdict = judge.look(world)
        assert verdict.success, seed
