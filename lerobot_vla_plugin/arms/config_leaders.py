"""Options of the leaders: LeRobot's, and whether to wait for an unplugged arm."""

from dataclasses import dataclass

from lerobot.teleoperators import TeleoperatorConfig
from lerobot.teleoperators.koch_leader import KochLeaderConfig
from lerobot.teleoperators.so_leader import SO101LeaderConfig


@dataclass(kw_only=True)
class LeaderOptions:
    """What both leaders have beside LeRobot's options.

    Attributes:
        reconnect: Whether an arm whose port is lost is waited for.
    """

    reconnect: bool = False


@TeleoperatorConfig.register_subclass("so101_vla_leader")
@dataclass
class SO101VLALeaderConfig(LeaderOptions, SO101LeaderConfig):
    """`--teleop.type=so101_vla_leader`: an SO-100 or SO-101 leader whose readings are verified."""


@TeleoperatorConfig.register_subclass("koch_vla_leader")
@dataclass
class KochVLALeaderConfig(LeaderOptions, KochLeaderConfig):
    """`--teleop.type=koch_vla_leader`: a Koch leader whose readings are verified."""
