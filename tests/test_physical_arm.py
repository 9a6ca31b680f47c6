"""`lerobot-eval` on a physical arm that a person judges; the arm is emulated, the person a thread at a terminal."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import JOINTS
from lerobot.envs.utils import NEW_ROLLOUT_OPTION
from lerobot.robots import make_robot_from_config
from lerobot.robots.so_follower import SO101FollowerConfig

from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.arms.config_followers import SO101VLAFollowerConfig
from lerobot_vla_plugin.envs.config_physical_arm import PhysicalArmConfig
from lerobot_vla_plugin.envs.episode import Ending
from lerobot_vla_plugin.envs.episode_report import EpisodeReport, read_episodes
from lerobot_vla_plugin.envs.evaluated_arm import EvaluatedArm
from lerobot_vla_plugin.envs.keys import Keys
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.directory import DirectoryInUseError
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig

TASK = "Touch the red cube."
BEGIN = {NEW_ROLLOUT_OPTION: True}


@pytest.fixture(scope="module")
def twin(tmp_path_factory) -> Iterator[SO101Twin]:
    with SO101Twin(TwinConfig(directory=tmp_path_factory.mktemp("twin"), cameras=CameraConfig(fps=30))) as twin:
        yield twin


@pytest.fixture
def moved(twin):
    before = len(twin.follower.goal_writes())
    return lambda: len(twin.follower.goal_writes()) > before


def camera_options(twin, *names: str) -> dict:
    """A second is spent on each when the arm is connected."""
    from lerobot.cameras.zmq import ZMQCameraConfig

    given = {"server_address": "127.0.0.1", "port": twin.camera_port, "width": 128, "height": 96, "fps": 30}
    return {name: ZMQCameraConfig(camera_name=name, **given) for name in names}


def robot_config(twin, kind=SO101VLAFollowerConfig, **changes):
    folder = example_calibration_dir("so_follower")
    given = {"port": str(twin.follower_port), "id": "so101_follower", "calibration_dir": folder}
    return kind(**{**given, "cameras": camera_options(twin, "front"), **changes})


@pytest.fixture
def make(twin, terminal, tmp_path):
    """Makes the environment of options, as `lerobot-eval` does; closed afterwards."""
    made = []

    def make(**options):
        given = {"robot": robot_config(twin), "task": TASK, "fps": 10, "report_dir": tmp_path / "report"}
        config = PhysicalArmConfig(**{**given, **options})
        vector = config.create_envs(1, use_async_envs=True)["physical_arm"][0]
        made.append(vector)
        return config, vector

    yield make
    for vector in made:
        vector.close()


def hold(observation) -> np.ndarray:
    return observation["agent_pos"]


def test_a_person_judges_an_attempt_and_the_report_says_all_of_it(make, typist, twin, tmp_path):
    _, vector = make(robot=robot_config(twin, cameras=camera_options(twin, "front", "wrist")))
    observation, _ = vector.reset(seed=[5], options=BEGIN)
    assert observation["pixels"]["wrist"].shape == (1, 96, 128, 3)
    assert observation["pixels"]["wrist"].dtype == np.uint8
    assert vector.call("task_description") == vector.call("task") == (TASK,)
    assert vector.call("_max_episode_steps") == (200,)
    done, steps = False, 0
    while not done:
        observation, reward, terminated, truncated, info = vector.step(hold(observation))
        steps += 1
        done = bool(terminated[0] or truncated[0])
        assert info["is_success"].tolist() == [done]
        assert reward[0] == float(done)
    assert terminated[0]
    assert not truncated[0]
    assert vector.envs[0].render().shape == (96, 256, 3)
    [episode] = read_episodes(tmp_path / "report")
    assert (episode.ending, episode.steps, episode.seed, episode.instruction) == (Ending.SUCCESS, steps, 5, TASK)
    assert episode.jerk is not None or steps < 4
    assert episode.control_rate is None or 7 < episode.control_rate.median_hz < 12
    pictures = sorted(path.name for path in (tmp_path / "report" / "episode_0").iterdir())
    assert {f"front_{step:05d}.jpg" for step in (0, steps)} <= set(pictures)
    vector.close()
    assert not twin.torque_enabled()


def test_other_keys(make, typist, tmp_path):
    _, vector = make()
    for typist.key in "fx":
        observation, _ = vector.reset(options=BEGIN)
        terminated = [False]
        while not terminated[0]:
            observation, _, terminated, _, info = vector.step(hold(observation))
        assert not info["is_success"][0]
    endings = [episode.ending for episode in read_episodes(tmp_path / "report")]
    assert endings == [Ending.FAILURE, Ending.DISCARDED]


def test_time_is_up(make, typist, tmp_path):
    _, vector = make(episode_time_s=0.8)
    typist.key = " "
    observation, _ = vector.reset(options=BEGIN)
    began_s = time.monotonic()
    for step in range(8):
        observation, _, terminated, truncated, info = vector.step(hold(observation))
        assert (bool(truncated[0]), bool(terminated[0])) == (step == 7, False)
        assert not info["is_success"][0]
    assert time.monotonic() - began_s > 0.7
    [episode] = read_episodes(tmp_path / "report")
    assert (episode.ending, episode.steps) == (Ending.TIME, 8)


def test_q_stops_everything(make, typist, twin, tmp_path):
    _, vector = make()
    vector.reset(options=BEGIN)
    typist.key = "q"
    with pytest.raises(SystemExit) as end:  # noqa: PT012
        for _ in range(100):
            vector.step(np.zeros((1, 6), np.float32) + hold(vector.envs[0]._seen))
    assert end.value.code == 0
    vector.close()
    assert not twin.torque_enabled()
    assert [episode.ending for episode in read_episodes(tmp_path / "report")] == [Ending.INTERRUPTED]


def test_only_a_new_rollout_moves_the_arm(make, typist, twin, moved):
    _, vector = make(start_pose={"shoulder_pan": 20.0})
    with pytest.raises(RuntimeError, match="moves only on a reset with options"):
        vector.reset()
    assert not twin.torque_enabled()
    assert not moved()
    vector.reset(options=BEGIN)
    writes = len(twin.follower.goal_writes())
    vector.reset()
    assert len(twin.follower.goal_writes()) == writes


def test_the_start_pose_is_reached_at_the_speed_that_was_asked_for(make, typist, twin, tmp_path):
    _, vector = make(start_pose={"shoulder_pan": 0.0}, start_speed_deg_s=100.0)
    vector.reset(options=BEGIN)
    vector.close()
    since_s = time.monotonic()
    pose, folder = {"shoulder_pan": 20.0}, tmp_path / "again"
    _, vector = make(start_pose=pose, start_speed_deg_s=20.0, fps=30, report_dir=folder)
    observation, _ = vector.reset(options=BEGIN)
    assert observation["agent_pos"][0][JOINTS.index("shoulder_pan")] == pytest.approx(20.0, abs=3.0)
    moves = [write for write in twin.follower.goal_writes() if write.time_s >= since_s and len(write.goals_ticks) == 6]
    pans = np.array([[write.time_s, write.goals_ticks["shoulder_pan"] * 360 / 4096] for write in moves])
    way_deg, took_s = np.ptp(pans[:, 1]), np.ptp(pans[:, 0])
    assert way_deg == pytest.approx(20.0, abs=3.0)
    assert way_deg / took_s < 24.0


def test_what_the_guard_did_and_how_regular_the_loop_was_are_in_the_report(make, typist, tmp_path):
    _, vector = make(episode_time_s=1.5, fps=20)
    typist.key = " "
    observation, _ = vector.reset(options=BEGIN)
    away = hold(observation) + np.array([[60, 0, 0, 0, 0, 0]], np.float32)
    for _ in range(30):
        vector.step(away)
    [episode] = read_episodes(tmp_path / "report")
    assert episode.interventions["slow start"] >= 5
    assert episode.control_rate is not None
    assert episode.control_rate.median_hz == pytest.approx(20, rel=0.15)
    assert episode.jerk is not None
    assert episode.jerk.commanded > 0
    assert episode.jerk.measured > 0


def test_lerobot_s_own_arm_is_driven_too(make, typist, twin, patience, tmp_path):
    _, vector = make(robot=robot_config(twin, SO101FollowerConfig))
    observation, _ = vector.reset(options=BEGIN)
    done = False
    while not done:
        observation, _, terminated, _, _ = vector.step(hold(observation))
        done = bool(terminated[0])
    vector.close()
    assert not twin.torque_enabled()
    assert read_episodes(tmp_path / "report")[0].interventions == {}


@pytest.mark.parametrize("use_degrees", [True, False])
def test_jerk_is_in_degrees_whatever_the_arm_s_unit_is(twin, use_degrees):
    arm = EvaluatedArm(make_robot_from_config(robot_config(twin, use_degrees=use_degrees)))
    low, high = (dict.fromkeys(JOINTS, 2048) | {"gripper": ticks} for ticks in (2048, 2100))
    high |= {"elbow_flex": 2048 + 512}
    convert = arm.robot.bus.converter.dict_to_units
    values = np.array([[convert(ticks)[joint] for joint in JOINTS] for ticks in (low, high)])
    turned_deg = np.diff(arm.body_deg(values, arm.action_keys), axis=0)[0]
    a_turn_ticks = 4095  # in LeRobot's degrees
    np.testing.assert_allclose(turned_deg, [0, 0, 512 * 360 / a_turn_ticks, 0, 0], atol=1e-9)


class Camera:
    """What a robot says of a camera whose size or kind is not fit."""

    def __init__(self, shape: tuple) -> None:
        self.action_features = {"elbow.pos": float}
        self.observation_features = {"elbow.pos": float, "front": shape}


@pytest.mark.parametrize(
    ("shape", "message"), [((None, None, 3), "give width and height"), ((96, 128, 1), "leave use_depth out")]
)
def test_cameras_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        EvaluatedArm(Camera(shape))


# Refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"robot": None}, r"--env\.robot\.type=so101_vla_follower"),
        ({"task": None}, r"--env\.task="),
        ({"start_pose": {"elbow": 1.0}}, r"names \['elbow'\], the arm's joints are \['shoulder_pan'"),
        ({"scene": "pick-lift"}, r"--env\.scene need a twin: --env\.twin="),
        ({"twin": Path("x"), "task": None}, r"--env\.scene=pick-lift"),
        ({"twin": Path("x"), "scene": "pick-lift"}, r"leave --env\.task out"),
        ({"fps": 0}, r"--env\.fps must be above 0"),
        ({"episode_time_s": float("nan")}, r"--env\.episode_time_s must be above 0"),
    ],
)
def test_options_that_do_not_fit(options, message, make, twin, moved):
    with pytest.raises(ValueError, match=message):
        make(**options)
    assert not moved()


def test_without_a_terminal(make, monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(ValueError, match=r"expected a terminal at standard input.*--env\.twin="):
            make()


def test_a_report_in_use(make, tmp_path):
    with EpisodeReport(tmp_path / "report"), pytest.raises(DirectoryInUseError, match=r"--env\.report_dir"):
        make()


def test_features_come_from_the_options_alone(make, twin):
    cameras = camera_options(twin, "front", "wrist")
    config, _ = make(robot=robot_config(twin, port="/dev/no_such_port", cameras=cameras))
    assert {key: feature.shape for key, feature in config.features.items()} == {
        "action": (6,),
        "agent_pos": (6,),
        "observation.images.front": (96, 128, 3),
        "observation.images.wrist": (96, 128, 3),
    }
    assert config.features_map["agent_pos"] == "observation.state"
    assert config.features_map["observation.images.wrist"] == "observation.images.wrist"


def test_keys_leave_the_terminal_as_it_was(terminal):
    import termios

    before = termios.tcgetattr(sys.stdin)
    keys = Keys()
    keys.open()
    assert keys.pressed() is None
    os.write(terminal, b"ab")
    time.sleep(0.05)
    assert [keys.pressed(), keys.pressed(), keys.pressed()] == ["a", "b", None]
    keys.close()
    assert termios.tcgetattr(sys.stdin) == before
