"""VLA policies for SO-101 and Koch arms as a LeRobot plugin.

Importing this package registers its policies and processor steps with LeRobot. No model code is imported here.
"""

from . import configuration_vla, processor_vla

__all__ = ["configuration_vla", "processor_vla"]
