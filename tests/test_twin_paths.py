"""The same demonstration over the serial protocol and computed: same joints, same pictures."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

from lerobot.robots import make_robot_from_config
from lerobot.teleoperators import make_teleoperator_from_config

from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.arms.config_followers import SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.config_leaders import SO101VLALeaderConfig
from lerobot_vla_plugin.arms.config_step_camera import StepCameraConfig
from lerobot_vla_plugin.demonstrations import Demonstrator, Frame
from lerobot_vla_plugin.envs.simulated_arm import SimulatedArm, SimulatedLeader
from lerobot_vla_plugin.envs.simulated_cameras import SimulatedCameras
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.control import TwinControl
from lerobot_vla_plugin.twin.so101 import SO101Twin
from lerobot_vla_plugin.twin.stage import CAMERAS
from lerobot_vla_plugin.twin.twin_config import TwinConfig
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

WIDTH, HEIGHT, FPS, FRAMES = 48, 32, 10, 45
TASK, SEED = "pick-lift", 7


@pytest.fixture(scope="module")
def computed() -> list[Frame]:
    world = World()
    arm, cameras = SimulatedArm(world), SimulatedCameras(world, WIDTH, HEIGHT)
    frames = Demonstrator(arm, SimulatedLeader(arm), cameras, FPS).demonstrate(TASK, SEED).frames
    cameras.close()
    return frames[:FRAMES]


@pytest.fixture(scope="module")
def over_the_wire(tmp_path_factory) -> list[Frame]:
    """What LeRobot's loop gets of arms and cameras, with time that passes when it asks for it."""
    directory = tmp_path_factory.mktemp("twin")
    config = TwinConfig(cameras=CameraConfig(WIDTH, HEIGHT), directory=directory, task="pick-place", lock_step=True)
    with SO101Twin(config) as twin, TwinControl(directory) as control:
        robot, leader = _devices(twin, control)
        try:
            scene = control.reset(TASK, SEED)
            robot.guard.forget()
            return list(_record(robot, leader, control, scene.step))
        finally:
            leader.disconnect()
            robot.disconnect()


def _devices(twin: SO101Twin, control: TwinControl):
    size = {"width": WIDTH, "height": HEIGHT, "fps": FPS}
    cameras = {
        name: StepCameraConfig(server_address="127.0.0.1", port=twin.camera_port, camera_name=name, **size)
        for name in CAMERAS
    }
    robot = make_robot_from_config(
        SO101VLAFollowerConfig(
            port=str(twin.follower_port),
            id="so101_follower",
            calibration_dir=example_calibration_dir("so_follower"),
            cameras=cameras,
        )
    )
    robot.clock = lambda: control.step / control.facts.steps_per_s
    leader = make_teleoperator_from_config(
        SO101VLALeaderConfig(
            port=str(twin.leader_port), id="so101_leader", calibration_dir=example_calibration_dir("so_leader")
        )
    )
    leader.connect()
    robot.connect()
    return robot, leader


def _record(robot, leader, control: TwinControl, step: int):
    for _ in range(FRAMES):
        for camera in robot.cameras.values():
            camera.await_step(step)
        observation = robot.get_observation()
        sent = robot.send_action(leader.get_action())
        yield Frame(
            np.array([observation[f"{joint}.pos"] for joint in JOINTS]),
            {name: observation[name] for name in CAMERAS},
            np.array([sent[f"{joint}.pos"] for joint in JOINTS]),
        )
        robot.bus.sync_read("Present_Position")  # a reply says that the goals before it have arrived
        step = control.advance(STEPS_PER_S // FPS)


def test_joints_and_actions_are_the_same_to_the_last_bit(computed, over_the_wire):
    for name in ("state", "action"):
        expected, found = (np.array([getattr(frame, name) for frame in path]) for path in (computed, over_the_wire))
        np.testing.assert_array_equal(found, expected)


def test_pictures_are_the_same(computed, over_the_wire):
    for number, (frame, expected) in enumerate(zip(over_the_wire, computed, strict=True)):
        for camera, picture in expected.pictures.items():
            np.testing.assert_array_equal(frame.pictures[camera], picture, err_msg=f"{camera} {number}")
