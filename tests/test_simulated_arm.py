"""The simulated arm gives what LeRobot would read over the wire, and takes what it would send."""

from dataclasses import replace

import numpy as np
import pytest

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.guard import FIRST_STEP_S
from lerobot_vla_plugin.arms.guard_report import InterventionKind
from lerobot_vla_plugin.envs.simulated_arm import SimulatedArm, SimulatedLeader, steps_of_frame
from lerobot_vla_plugin.twin.koch_model import KOCH
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.so101_model import SO101
from lerobot_vla_plugin.twin.world import World

TICK_DEG = 360 / 4095  # LeRobot's


@pytest.fixture(scope="module", params=[SO101, KOCH], ids=["so101", "koch"])
def world(request) -> World:
    return World(request.param, visual=False)


@pytest.fixture(params=[True, False], ids=["degrees", "percent"])
def arm(world, request) -> SimulatedArm:
    arm = SimulatedArm(world, use_degrees=request.param)
    arm.start(draw_layout("pick-lift", 0))
    return arm


def test_it_stands_where_the_world_started(arm):
    expected_ticks = arm.ticks.to_exact_ticks(arm.world.arm.start_rad)
    np.testing.assert_allclose(arm.converter.to_exact_ticks(arm.read()), expected_ticks, atol=0.5 + 1e-6)


def test_degrees_are_the_angles_of_the_world(world):
    arm = SimulatedArm(world)
    arm.start(draw_layout("pick-lift", 0))
    np.testing.assert_allclose(arm.read()[:5], np.rad2deg(world.arm.start_rad[:5]), atol=TICK_DEG)


def test_every_reading_is_a_whole_tick(arm):
    arm.send(arm.read() + 10)
    for _ in range(5):
        arm.advance(7)
        exact_ticks = arm.converter.to_exact_ticks(arm.read())
        np.testing.assert_allclose(exact_ticks, np.rint(exact_ticks), atol=1e-6)


def test_a_small_action_is_sent_to_the_tick_and_the_arm_goes_there(arm):
    target_ticks = arm.converter.to_ticks(arm.read()) + np.array([9, 9, -9, -9, 9, 9])
    for _ in range(20):
        sent = arm.send(arm.converter.to_units(target_ticks))
        arm.advance(30)
    np.testing.assert_array_equal(arm.converter.to_ticks(sent), target_ticks)
    np.testing.assert_allclose(arm.ticks.to_exact_ticks(arm.world.motors.goal_rad), target_ticks, atol=1e-6)
    assert np.all(np.abs(arm.world.motors.goal_rad - arm.world.joints_rad) < 0.08)  # it sags under its weight


def test_the_guard_starts_slowly_in_every_episode_and_counts(world):
    arm = SimulatedArm(world)
    for _ in range(2):
        arm.start(draw_layout("pick-lift", 0))
        before = arm.read()
        sent = arm.send(before + np.array([30, 0, 0, 0, 0, 0]))
        assert sent[0] - before[0] == pytest.approx(45 * FIRST_STEP_S, abs=2 * TICK_DEG)
        assert arm.guard.report.count(InterventionKind.START) == 1


def test_an_action_that_is_none_is_refused_and_the_goals_stand(arm):
    goal_rad = arm.world.motors.goal_rad.copy()
    with pytest.raises(ValueError, match="action refused"):
        arm.send(np.full(6, np.nan))
    with pytest.raises(ValueError, match=r"expected an action of the joints .* got shape \(5,\)"):
        arm.send(np.zeros(5))
    np.testing.assert_array_equal(arm.world.motors.goal_rad, goal_rad)


def test_another_calibration_reads_other_ticks_and_moves_the_same(world):
    shifted = {
        name: JointCalibration(joint.id, 0, 0, joint.range_min + 50, joint.range_max + 50)
        for name, joint in SimulatedArm(world).calibration.items()
        if name != "wrist_roll"
    } | {"wrist_roll": JointCalibration(5, 0, 0, 0, 4095)}
    readings = []
    for calibration in (None, shifted):
        arm = SimulatedArm(world, calibration)
        arm.start(draw_layout("pick-lift", 0))
        for _ in range(5):
            arm.send(arm.read() + 3)
            arm.advance(30)
        readings.append(arm.read())
    np.testing.assert_allclose(*readings, atol=2 * TICK_DEG)


def test_a_dynamixel_that_counts_backwards_moves_the_same_arm_the_same_way():
    """Its firmware inverts what it is told and what it says: only the encoder, and how it rounds, is another."""
    world, ends = World(KOCH, visual=False), []
    shipped = SimulatedArm(world).calibration
    for drive_mode in (0, 1):
        arm = SimulatedArm(world, {joint: replace(c, drive_mode=drive_mode) for joint, c in shipped.items()})
        arm.start(draw_layout("pick-lift", 0))
        reading = arm.read()
        for _ in range(5):
            arm.send(reading + 3)
            arm.advance(30)
        ends.append(world.joints_rad)
    np.testing.assert_allclose(*ends, atol=0.003)
    assert np.abs(ends[0] - KOCH.start_rad).min() > 0.01


@pytest.mark.parametrize("use_degrees", [True, False])
def test_a_leader_brings_its_follower_where_the_person_wants_it(world, use_degrees):
    arm = SimulatedArm(world, use_degrees=use_degrees)
    leader = SimulatedLeader(arm, use_degrees=use_degrees)
    goal_rad = world.arm.start_rad + np.array([0.01, 0.02, -0.03, -0.04, 0.05, 0.1])
    goal_ticks = arm.converter.to_ticks(leader.read(goal_rad))
    np.testing.assert_allclose(arm.ticks.to_rad(goal_ticks), goal_rad, atol=np.deg2rad(0.2))


def test_time_passes_in_the_same_steps_whatever_their_number(world):
    states = []
    for steps in ([30], [1] * 30, [7, 23]):
        arm = SimulatedArm(world)
        arm.start(draw_layout("pick-lift", 3))
        arm.send(arm.read() + 5)
        for count in steps:
            arm.advance(count)
        states.append(world.save().physics)
    np.testing.assert_array_equal(states[0], states[1])
    np.testing.assert_array_equal(states[0], states[2])


def test_a_frame_is_a_whole_number_of_steps():
    assert steps_of_frame(10) * 10 == steps_of_frame(30) * 30 == 300
    with pytest.raises(ValueError, match=r"fps must be one of \[5, 6, 10, .* 300\], .* got 7"):
        steps_of_frame(7)
