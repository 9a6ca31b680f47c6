"""Options of the camera of a twin in lock-step.

LeRobot finds the device class in the module of this name without `config_`.
"""

from dataclasses import dataclass

from lerobot.cameras.configs import CameraConfig
from lerobot.cameras.zmq import ZMQCameraConfig


@CameraConfig.register_subclass("step_zmq")
@dataclass
class StepCameraConfig(ZMQCameraConfig):
    """`{type: step_zmq, ...}`: LeRobot's ZMQ camera, for pictures that carry the step of the world they show."""
