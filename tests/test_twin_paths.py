"""The same demonstration over the serial protocol and computed: same joints, same pictures."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

from lerobot.robots import make_robot_from_config
from lerobot.teleoperators import make_teleoperator_from_config

from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.arms.config_followers import KochVLAFollowerConfig, SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.config_leaders import KochVLALeaderConfig, SO101VLALeaderConfig
from lerobot_vla_plugin.arms.config_step_camera import StepCameraConfig
from lerobot_vla_plugin.demonstrations import Demonstrator, Frame
from lerobot_vla_plugin.envs.simulated_arm import SimulatedArm, SimulatedLeader
from lerobot_vla_plugin.envs.simulated_cameras import SimulatedCameras
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.arm_twin import ArmTwin
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.control import TwinControl
from lerobot_vla_plugin.twin.koch import KochTwin
from lerobot_vla_plugin.twin.so101 import SO101Twin
from lerobot_vla_plugin.twin.stage import CAMERAS
from lerobot_vla_plugin.twin.twin_config import TwinConfig
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

WIDTH, HEIGHT, FPS, FRAMES = 48, 32, 10, 45
TASK, SEED = "pick-lift", 7


DEVICES: dict[type[ArmTwin], tuple] = {
    SO101Twin: (SO101VLAFollowerConfig, SO101VLALeaderConfig),
    KochTwin: (KochVLAFollowerConfig, KochVLALeaderConfig),
}


@pytest.fixture(scope="module", params=DEVICES)
def twin_class(request) -> type[ArmTwin]:
    return request.param


@pytest.fixture(scope="module")
def computed(twin_class: type[ArmTwin]) -> list[Frame]:
    world, degrees = World(twin_class.kind.model), twin_class.kind.use_degrees
    arm, cameras = SimulatedArm(world, use_degrees=degrees), SimulatedCameras(world, WIDTH, HEIGHT)
    leader = SimulatedLeader(arm, use_degrees=degrees)
    frames = Demonstrator(arm, leader, cameras, FPS).demonstrate(TASK, SEED).frames
    cameras.close()
    return frames[:FRAMES]


@pytest.fixture(scope="module")
def over_the_wire(twin_class: type[ArmTwin], tmp_path_factory) -> list[Frame]:
    """What LeRobot's loop gets of arms and cameras, with time that passes when it asks for it."""
    directory = tmp_path_factory.mktemp("twin")
    config = TwinConfig(cameras=CameraConfig(WIDTH, HEIGHT), directory=directory, task="pick-place", lock_step=True)
    with twin_class(config) as twin, TwinControl(directory) as control:
        robot, leader = _devices(twin, control)
        try:
            scene = control.reset(TASK, SEED)
            robot.guard.forget()
            return list(_record(robot, leader, control, scene.step))
        finally:
            leader.disconnect()
            robot.disconnect()


def _devices(twin: ArmTwin, control: TwinControl):
    size = {"width": WIDTH, "height": HEIGHT, "fps": FPS}
    cameras = {
        name: StepCameraConfig(server_address="127.0.0.1", port=twin.camera_port, camera_name=name, **size)
        for name in CAMERAS
    }
    follower_config, leader_config = DEVICES[type(twin)]
    kind = twin.kind
    robot = make_robot_from_config(
        follower_config(
            port=str(twin.follower_port),
            id=f"{kind.name}_follower",
            calibration_dir=example_calibration_dir(f"{kind.calibration_name}_follower"),
            cameras=cameras,
        )
    )
    robot.clock = lambda: control.step / control.facts.steps_per_s
    leader = make_teleoperator_from_config(
        leader_config(
            port=str(twin.leader_port),
            id=f"{kind.name}_leader",
            calibration_dir=example_calibration_dir(f"{kind.calibration_name}_leader"),
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
