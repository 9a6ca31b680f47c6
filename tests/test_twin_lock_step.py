"""In lock-step a seed decides every reading over the serial ports, however long the host takes in between."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("mink")

from lerobot.robots import make_robot_from_config
from lerobot.robots.so_follower import SO101FollowerConfig
from lerobot.teleoperators import make_teleoperator_from_config
from lerobot.teleoperators.so_leader import SO101LeaderConfig

from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.arms.config_followers import SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.config_leaders import SO101VLALeaderConfig
from lerobot_vla_plugin.twin.arm_twin import ArmTwin
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.control import TwinControl
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig

pytestmark = pytest.mark.usefixtures("patience")

STEPS, PERIODS = 10, 40


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SO101Twin]:
    cameras = CameraConfig(width=32, height=24, renderer="drawing")
    config = TwinConfig(cameras=cameras, directory=tmp_path_factory.mktemp("t"), task="pick-lift", lock_step=True)
    with SO101Twin(config) as twin:
        yield twin


@pytest.fixture
def control(twin: SO101Twin) -> Iterator[TwinControl]:
    with TwinControl(twin.config.directory) as control:
        yield control


@pytest.fixture(params=["lerobot's", "ours"])
def devices(twin: SO101Twin, control: TwinControl, request: pytest.FixtureRequest):
    """Follower and leader, connected."""
    ours = request.param == "ours"
    folder = example_calibration_dir
    follower, leader = {"port": str(twin.follower_port)}, {"port": str(twin.leader_port)}
    follower |= {"id": "so101_follower", "calibration_dir": folder("so_follower")}
    leader |= {"id": "so101_leader", "calibration_dir": folder("so_leader")}
    robot = make_robot_from_config((SO101VLAFollowerConfig if ours else SO101FollowerConfig)(**follower))
    teleop = make_teleoperator_from_config((SO101VLALeaderConfig if ours else SO101LeaderConfig)(**leader))
    robot.clock = lambda: control.step / control.facts.steps_per_s
    teleop.connect()
    robot.connect()
    yield robot, teleop
    robot.disconnect()
    teleop.disconnect()


def _lead(twin: ArmTwin, control: TwinControl, devices, seed: int, dawdle: Callable[[], None]) -> list:
    """What LeRobot reads of leader and follower, and where everything is, period by period."""
    robot, teleop = devices
    control.reset("pick-lift", seed)
    if hasattr(robot, "guard"):
        robot.guard.forget()
    track = []
    for _ in range(PERIODS):
        observation, action = robot.get_observation(), teleop.get_action()
        dawdle()
        robot.send_action(action)
        velocities = robot.bus.sync_read("Present_Velocity", normalize=False)
        dawdle()
        control.advance(STEPS)
        where = twin.follower.positions_ticks(), twin.task_life.workplace.picture()["qpos"]
        track.append((observation, action, velocities, *where))
    return track


def test_a_seed_gives_the_same_readings_and_states_however_long_the_host_takes(twin, control, devices) -> None:
    rng = np.random.default_rng(0)
    first = _lead(twin, control, devices, 3, lambda: None)
    other = _lead(twin, control, devices, 4, lambda: None)
    late = _lead(twin, control, devices, 3, lambda: time.sleep(rng.exponential(0.004)))
    assert late == first
    assert other != first
    moved = np.ptp([list(action.values()) for _, action, *_ in first], axis=0)
    assert moved.max() > 20  # the person led


def test_time_stands_still_between_requests(twin: SO101Twin, control: TwinControl) -> None:
    control.reset("pick-lift", 0)
    before = twin.task_life.workplace.picture(), twin.leader.positions_ticks()
    time.sleep(0.2)
    assert (twin.task_life.workplace.picture(), twin.leader.positions_ticks()) == before


@pytest.mark.parametrize("task", ["reach-touch", "pick-place"])
def test_the_person_does_the_task_through_the_leader_at_a_slow_rate(twin, control, devices, task: str) -> None:
    robot, teleop = devices
    control.reset(task, 5)
    if hasattr(robot, "guard"):
        robot.guard.forget()
    verdict = control.verdict()
    while not verdict.success and verdict.seconds < 8:
        robot.send_action(teleop.get_action())
        robot.bus.sync_read("Present_Position")
        control.advance(30)
        verdict = control.verdict()
    assert verdict.success, verdict
