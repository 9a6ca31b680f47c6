"""Scene after scene in real time: what a recording of fixed episodes gets, and what the arm does when nobody has it."""

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("mink")

from lerobot_vla_plugin.arms.calibration import example_calibration
from lerobot_vla_plugin.arms.joints import JointConverter, joint_modes
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.rounds import RESET_S, Rounds
from lerobot_vla_plugin.twin.scenes import TASKS
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig
from lerobot_vla_plugin.twin.so101_model import SO101
from lerobot_vla_plugin.twin.task_life import TaskLife
from lerobot_vla_plugin.twin.workplace import Workplace
from lerobot_vla_plugin.twin.world import World

TASK = "pick-lift"
EPISODE_S = TASKS[TASK].episode_s
TICK_S, PERIOD_S = 0.01, 1 / 15
MODES = joint_modes(JOINTS, degrees=True)


def _converter(role: str) -> JointConverter:
    return JointConverter(example_calibration(f"so_{role}", f"so101_{role}"), MODES, inverts_in_software=True)


class Twin:
    """A twin that runs by the test's clock, and the host at its ports: no threads, no ports."""

    def __init__(self, world: World) -> None:
        self.twin = SO101Twin(TwinConfig(task=TASK, seed=10))
        life = self.twin.task_life
        assert isinstance(life, TaskLife)
        self.world = world
        self.place = Workplace(world, self.twin._make_arm(world), self.twin.leader, self.twin._leader_ticks)
        self.place.lay(TASK, 10)
        self.rounds = Rounds(self.place, (TASK, 10, None))
        self.now_s, self.goal_s, self.read_s = 100.0, float("-inf"), float("-inf")
        self._leader, self._follower = _converter("leader"), _converter("follower")

    def switch(self, on: bool) -> None:
        for joint in JOINTS:
            self.twin.follower.set_register(joint, "Torque_Enable", on)
            self.twin.follower.set_register(joint, "P_Coefficient", 16)

    def pass_time(self, seconds: float, *, led: bool = False, goal_rad: np.ndarray | None = None) -> Iterator[None]:
        """Let time pass; a host brings the follower where the leader is, or to a goal, or does nothing."""
        until_s, next_s = self.now_s + seconds, self.now_s
        while self.now_s < until_s:
            self.now_s += TICK_S
            if (led or goal_rad is not None) and self.now_s >= next_s:
                next_s += PERIOD_S
                self._send(led, goal_rad)
                yield
            torque = any(self.twin.follower.torque_enabled().values())
            if self.rounds.update(self.now_s, goal_s=self.goal_s, read_s=self.read_s, torque=torque):
                self.place.run(round(300 * TICK_S))

    def _send(self, led: bool, goal_rad: np.ndarray | None) -> None:
        if led:
            self.read_s = self.now_s
            ticks = self._follower.to_ticks(self._leader.to_units(list(self.twin.leader.positions_ticks().values())))
        else:
            ticks = np.rint(self.twin._make_arm(self.world).to_ticks(goal_rad)).astype(int)
        for joint, goal in zip(JOINTS, ticks.tolist(), strict=True):
            self.twin.follower.set_register(joint, "Goal_Position", goal)
        self.goal_s = self.now_s

    def run(self, *arguments, **options) -> None:
        for _ in self.pass_time(*arguments, **options):
            pass

    @property
    def seed(self) -> int:
        return self.place.picture()["seed"]


@pytest.fixture(scope="module")
def world() -> World:
    return World(visual=False)


@pytest.fixture
def twin(world: World) -> Twin:
    return Twin(world)


def _off_start(twin: Twin) -> float:
    return np.abs(twin.world.joints_rad - SO101.start_rad).max()


@pytest.mark.parametrize("saving_s", [1.0, 0.0])
def test_every_episode_of_a_recording_holds_one_whole_attempt(twin: Twin, saving_s: float) -> None:
    twin.switch(True)
    seeds = []
    for _ in range(3):
        scenes, off_start = set(), []
        for _ in twin.pass_time(EPISODE_S, led=True):
            scenes.add(twin.seed)
            off_start.append(_off_start(twin))
        assert twin.place.verdict.success
        assert len(scenes) == 1  # no scene is laid within
        assert off_start[0] < 0.06  # it begins at the start posture,
        assert off_start[-1] == pytest.approx(max(off_start[-15:]), abs=0.02)  # and does not show the way back
        seeds += scenes
        twin.run(RESET_S, led=True)
        twin.run(saving_s)
    assert seeds == [10, 11, 12]
    assert (twin.place.attempts, twin.place.successes) == (3, 3)


def test_nobody_begins_before_goals_come(twin: Twin) -> None:
    leader = twin.twin.leader.positions_ticks()
    twin.run(5.0)  # an arm without torque is held where it is to start, though nothing holds it up
    assert _off_start(twin) < 1e-9
    twin.switch(True)
    twin.run(5.0)
    assert twin.place.attempts == 0
    assert _off_start(twin) < 0.1  # it sags, as nobody makes up for its weight
    assert np.abs(np.subtract(*(list(t.values()) for t in (leader, twin.twin.leader.positions_ticks())))).max() < 100


def test_an_arm_that_is_let_go_falls_and_is_put_back_with_the_next_scene(twin: Twin) -> None:
    twin.switch(True)
    twin.run(2.0, led=True)
    height_m = twin.world.data.body("gripper").xpos[2]
    twin.switch(False)
    twin.run(0.9)
    assert twin.world.data.body("gripper").xpos[2] < height_m
    assert twin.seed == 10
    twin.run(0.5)
    assert twin.seed == 11
    assert _off_start(twin) < 1e-9
    assert twin.twin.follower.registers("Goal_Position") == twin.twin.follower.positions_ticks()


def test_a_policy_has_the_time_limit_and_the_next_scene_is_laid_around_its_arm(twin: Twin) -> None:
    twin.switch(True)
    goal_rad = SO101.start_rad + np.array([0.5, 0.2, -0.2, 0, 0, 0])
    twin.run(TASKS[TASK].time_limit_s - 0.5, goal_rad=goal_rad)
    assert (twin.seed, twin.place.attempts) == (10, 1)
    before_rad = twin.world.joints_rad
    twin.run(1.0, goal_rad=goal_rad)
    assert (twin.seed, twin.place.attempts) == (11, 2)
    np.testing.assert_allclose(twin.world.joints_rad, before_rad, atol=0.01)


def test_a_person_waits_for_an_arm_that_does_not_come_along(twin: Twin) -> None:
    twin.switch(True)
    twin.run(0.5, led=True)  # on the way to the cube, and fast
    before = twin.twin.leader.positions_ticks()
    twin.place.run(300, person_waits=True)
    moved = np.subtract(*(list(t.values()) for t in (before, twin.twin.leader.positions_ticks())))
    assert np.abs(moved).max() <= 1
    twin.place.run(60)
    moved = np.subtract(*(list(t.values()) for t in (before, twin.twin.leader.positions_ticks())))
    assert np.abs(moved).max() > 20
