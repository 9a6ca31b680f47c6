"""The twin with tasks as a whole, in real time: cameras, control, and the commands that it prints."""

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from arms_on_twins import wait_for

pytest.importorskip("mujoco")
pytest.importorskip("mink")

import draccus
from lerobot.cameras.zmq import ZMQCamera, ZMQCameraConfig
from lerobot.envs import EnvConfig
from lerobot.robots import RobotConfig
from lerobot.scripts.lerobot_record import RecordConfig

from lerobot_vla_plugin.arms.config_step_camera import StepCameraConfig
from lerobot_vla_plugin.envs.config_physical_arm import PhysicalArmConfig
from lerobot_vla_plugin.twin import command
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.control import TwinControl, TwinError
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig

CAMERAS = CameraConfig(renderer="drawing")


@dataclass
class Eval:
    """What matters here of `lerobot-eval`'s options."""

    env: EnvConfig


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SO101Twin]:
    config = TwinConfig(cameras=CAMERAS, directory=tmp_path_factory.mktemp("t"), task="pick-place", color="blue")
    with SO101Twin(config) as twin:
        yield twin


def _reds_and_blues(picture: np.ndarray) -> tuple[int, int]:
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return int(((red > 90) & (red > 2 * blue)).sum()), int(((blue > 90) & (blue > 2 * red) & (blue > 2 * green)).sum())


def test_the_cameras_show_both_cubes_and_the_next_scene(twin: SO101Twin) -> None:
    camera = ZMQCamera(ZMQCameraConfig("127.0.0.1", twin.camera_port, "front", fps=20, width=128, height=96))
    camera.connect()
    try:
        before = camera.read().astype(int)
        assert min(_reds_and_blues(before)) > 20
        with TwinControl(twin.config.directory) as control:
            control.reset("pick-lift", 77)
            changed = wait_for(lambda: np.abs(camera.read() - before).mean() > 3, 5)
            assert changed
            assert min(_reds_and_blues(camera.read())) > 20
    finally:
        camera.disconnect()


def test_in_real_time_the_clock_on_the_wall_counts_and_cannot_be_pushed(twin: SO101Twin) -> None:
    with TwinControl(twin.config.directory) as control:
        assert not control.facts.lock_step
        control.reset("pick-place", 1)
        time.sleep(0.5)
        assert 0.2 < control.verdict().seconds < 5
        with pytest.raises(TwinError, match="runs in real time; start it with --lock-step"):
            control.advance(10)


def test_an_arm_that_was_left_alone_is_put_back_for_the_next_scene(twin: SO101Twin) -> None:
    with TwinControl(twin.config.directory) as control:
        control.reset("pick-place", 1)
        assert wait_for(lambda: abs(twin.follower_joints()[1] + 60) > 5, 5)  # it falls: no motor is on
    assert wait_for(lambda: abs(twin.follower_joints()[1] + 60) < 0.2, 5)


def test_the_commands_are_what_lerobot_parses(twin: SO101Twin) -> None:
    text = command.describe(twin)
    assert "keep --dataset.episode_time_s and reset_time_s" in text
    pasted = shlex.split(text.replace("\\\n", " "))
    commands = {words[0]: words[1:] for words in command.lerobot_commands(twin)}
    assert set(commands["lerobot-record"]) <= set(pasted)
    record = draccus.parse(RecordConfig, args=commands["lerobot-record"])
    assert record.dataset.single_task == "Put the blue cube into the bin."
    assert (record.dataset.episode_time_s, record.dataset.reset_time_s) == (8, 5)
    options = [word for word in commands["lerobot-eval"] if word.startswith("--env.")]
    env = draccus.parse(Eval, args=options).env
    assert isinstance(env, PhysicalArmConfig)
    assert (env.twin, env.scene, env.color) == (twin.config.directory, "pick-place", "blue")


def test_in_lock_step_the_cameras_wait_for_steps_and_only_an_evaluation_is_offered(tmp_path: Path) -> None:
    config = TwinConfig(cameras=CAMERAS, directory=tmp_path, task="reach-touch", lock_step=True)
    with SO101Twin(config) as twin:
        ((name, *words),) = command.lerobot_commands(twin)
        assert name == "lerobot-eval"
        env = draccus.parse(Eval, args=[word for word in words if word.startswith("--env.")]).env
        assert isinstance(env.robot, RobotConfig)
        assert {type(camera) for camera in env.robot.cameras.values()} == {StepCameraConfig}
        assert "until a client" in command.describe(twin)
        assert twin.summary() == "the task was done in 0 of 1 attempts"


def test_without_a_color_a_recording_is_warned_of_its_one_instruction(tmp_path: Path) -> None:
    twin = SO101Twin(TwinConfig(cameras=CAMERAS, directory=tmp_path, task="pick-lift"))
    assert "start with --color" in command._describe_task(twin)
