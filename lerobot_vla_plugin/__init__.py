"""VLA policies and guarded arms for SO-101 and Koch as a LeRobot plugin.

Importing this package registers its policies, processor steps, types of devices and of cameras, and environments with
LeRobot. No model code and none of the device classes is imported here.
"""

from . import configuration_vla, processor_vla
from .arms import config_followers, config_leaders, config_step_camera
from .envs import config_physical_arm, config_so101_twin

__all__ = [
    "config_followers",
    "config_leaders",
    "config_physical_arm",
    "config_so101_twin",
    "config_step_camera",
    "configuration_vla",
    "processor_vla",
]
