"""LeRobot's SO-101 and Koch leaders with verified readings and a safe end."""

from lerobot.lerobot_types import RobotAction
from lerobot.teleoperators.koch_leader import KochLeader
from lerobot.teleoperators.so_leader import SO101Leader
from lerobot.utils.decorators import check_if_not_connected

from lerobot_vla_plugin.arms.config_leaders import KochVLALeaderConfig, SO101VLALeaderConfig
from lerobot_vla_plugin.arms.dynamixel_bus import ReliableDynamixelBus
from lerobot_vla_plugin.arms.feetech_bus import ReliableFeetechBus
from lerobot_vla_plugin.arms.safe_connection import SafeConnection


class VerifiedLeader(SafeConnection):
    """What both leaders add to LeRobot's."""

    @check_if_not_connected
    def get_action(self) -> RobotAction:
        """Read the joints, verified.

        Raises:
            ConnectionError: A motor does not answer, or the port is lost.
        """
        return self._reconnecting(super().get_action)

    def _after_reopening(self) -> None:
        # A Koch leader's gripper springs back to a goal, which is now where it stood.
        self.configure()


class SO101VLALeader(VerifiedLeader, SO101Leader):
    """An SO-100 or SO-101 leader."""

    config_class = SO101VLALeaderConfig
    bus_class = ReliableFeetechBus


class KochVLALeader(VerifiedLeader, KochLeader):
    """A Koch leader; its gripper is under torque, as a trigger that springs back."""

    config_class = KochVLALeaderConfig
    bus_class = ReliableDynamixelBus
