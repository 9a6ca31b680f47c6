"""VLA policies and guarded arms for SO-101 and Koch as a LeRobot plugin.

Importing this package registers its policies, processor steps, device types and environments with LeRobot. No model
code, none of the device classes and no environment is imported here.
"""

from . import configuration_vla, processor_vla
from .arms import config_followers, config_leaders
from .envs import config_physical_arm, config_so101_twin

__all__ = [
    "config_followers",
    "config_leaders",
    "config_physical_arm",
    "config_so101_twin",
    "configuration_vla",
    "processor_vla",
]
