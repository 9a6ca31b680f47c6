"""The motor law against numbers worked out by hand, alone and in the world."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

from lerobot_vla_plugin.twin.motors import PLAY_RAD, TICK_RAD, Motors, follow_with_play, seen_error
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.so101_model import SO101
from lerobot_vla_plugin.twin.world import World

SIX = np.ones(6)
STILL = np.zeros(6)
SETTINGS = SO101.motors.settings()


@pytest.fixture(scope="module")
def world() -> World:
    return World(visual=False)


def _torque(error_ticks: float, speed_rad_s: float = 0.0) -> np.ndarray:
    motors = Motors(SO101.motors)
    motors.goal_rad = SIX * error_ticks * TICK_RAD
    return motors.torque_nm(SIX * speed_rad_s)


def test_one_tick_is_inside_the_dead_zone_and_two_are_not() -> None:
    for ticks in (-1.4, -1, 0, 0.6, 1, 1.49):
        assert not _torque(ticks).any(), ticks
    # 2 ticks are 2 x 2 pi / 4096 = 0.003068 rad, times 5.05 N m/rad.
    np.testing.assert_allclose(_torque(2), 0.015493, rtol=1e-4)
    np.testing.assert_allclose(_torque(-2), -0.015493, rtol=1e-4)


def test_the_encoder_counts_whole_ticks() -> None:
    assert seen_error(SIX * 10.4 * TICK_RAD, SIX * 0.4 * TICK_RAD, SETTINGS) == pytest.approx(10 * TICK_RAD)
    assert seen_error(SIX * 10.4 * TICK_RAD, -SIX * 0.6 * TICK_RAD, SETTINGS) == pytest.approx(11 * TICK_RAD)


def test_the_stall_torque_is_the_limit_and_half_of_it_in_the_gripper() -> None:
    np.testing.assert_allclose(_torque(2000), [1.9] * 5 + [0.95])
    np.testing.assert_allclose(_torque(-2000), [-1.9] * 5 + [-0.95])
    # Full duty 1.9 / 5.05 = 0.3762 rad, 245.3 ticks, away from the goal.
    assert _torque(245)[0] < 1.9
    assert _torque(246)[0] == 1.9


def test_speed_brakes() -> None:
    # 100 ticks: 0.7747 N m; 2 rad/s x 0.3 N m s/rad less.
    np.testing.assert_allclose(_torque(100, speed_rad_s=2.0), 0.77466 - 0.6, rtol=1e-4)


def test_a_motor_without_torque_gives_none() -> None:
    motors = Motors(SO101.motors)
    motors.goal_rad = SIX.copy()
    motors.torque_enabled[2] = False
    assert np.flatnonzero(motors.torque_nm(STILL) == 0).tolist() == [2]


def test_the_encoder_stays_until_the_play_is_used_up() -> None:
    there = np.linspace(0, 3 * PLAY_RAD, 50)
    encoder = np.zeros(1)
    track = []
    for link in (*there, *there[::-1]):
        encoder = follow_with_play(encoder, np.array([link]))
        assert abs(encoder[0] - link) <= PLAY_RAD + 1e-12
        track.append(encoder[0])
    assert track[49] == pytest.approx(2 * PLAY_RAD)  # it lags by the play on the way out ...
    assert track[-1] == pytest.approx(PLAY_RAD)  # ... and on the way back: a loop of hysteresis
    assert np.rad2deg(PLAY_RAD) == pytest.approx(0.25)  # 2.8 ticks


def test_no_load_speed(world: World) -> None:
    """Half a turn of the pan, whose axis is vertical: gravity does not help.

    At full duty torque and friction balance at (1.9 - 0.052) / (1.9 / 5.45) = 5.301 rad/s, which the D term lowers once
    the goal is near; here it is 10 rad away, so that 5.05 x 10 - 0.3 x 5.3 is far above the stall torque.
    """
    world.reset(draw_layout("pick-lift", 0), np.array([-1.5, *SO101.start_rad[1:]]))
    world.motors.goal_rad[0] += 10.0
    world.step(170)
    assert world.data.qpos[0] < 1.5  # not yet at its stop
    assert world.data.qvel[0] == pytest.approx(5.301, rel=0.025)
    assert world.data.qvel[0] < 5.301


def test_stall_holds_a_weight_and_no_more(world: World) -> None:
    """Against a torque from outside on the pan: friction and stall hold 1.9 + 0.052 N m and give way to more."""
    for outside_nm, gives_way in ((1.9, False), (2.0, True)):
        world.reset(draw_layout("pick-lift", 0))
        world.data.qfrc_applied[0] = -outside_nm
        world.motors.goal_rad[0] = 1.5
        world.step(150)
        assert (world.data.qpos[0] < -0.02) == gives_way, outside_nm


def test_a_servo_rests_within_dead_zone_friction_and_play(world: World) -> None:
    """From either side it stops short by less than friction / gain + dead zone, 0.59 + 0.09 deg."""
    for start_rad in (-0.3, 0.3):
        world.reset(draw_layout("pick-lift", 0), np.array([start_rad, *SO101.start_rad[1:]]))
        world.motors.goal_rad[0] = 0.0
        world.step(600)
        assert abs(world.joints_rad[0]) < np.deg2rad(0.75)
        assert abs(world.joints_rad[0] - world.data.qpos[0]) <= PLAY_RAD + 1e-9
