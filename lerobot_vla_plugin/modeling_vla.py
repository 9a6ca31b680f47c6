"""Where LeRobot's factory looks for the policies of `configuration_vla`: it goes by the names of module and class."""

from .policy_fast import VLAFastPolicy
from .policy_flow import VLAFlowPolicy

__all__ = ["VLAFastPolicy", "VLAFlowPolicy"]
