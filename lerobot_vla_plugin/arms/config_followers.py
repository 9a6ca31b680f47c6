"""Options of the guarded followers: LeRobot's, the guard's limits, and whether to wait for an unplugged arm.

LeRobot finds the device class in the module of this name without `config_`.
"""

from dataclasses import dataclass, field

from lerobot.robots import RobotConfig
from lerobot.robots.koch_follower import KochFollowerConfig
from lerobot.robots.so_follower import SO101FollowerConfig

from lerobot_vla_plugin.arms.guard import GuardConfig


@dataclass(kw_only=True)
class FollowerOptions:
    """What both followers have beside LeRobot's options.

    Attributes:
        guard: Limits of what is sent to the servos, e.g. `--robot.guard.max_speed_deg_s=120`.
        reconnect: Whether an arm whose port is lost is waited for, and then goes on from where it stands. Settings
            that a servo forgets without power (a Koch's gains) are not written again.

    Raises:
        ValueError: LeRobot's `max_relative_target` is set.
    """

    guard: GuardConfig = field(default_factory=GuardConfig)
    reconnect: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_relative_target is not None:
            raise ValueError(
                f"max_relative_target={self.max_relative_target} is LeRobot's limit, which counts in the joint's unit "
                "and costs a reading an action; this arm has a guard in degrees instead: set guard.max_step_deg or "
                "guard.max_speed_deg_s, or use LeRobot's own type"
            )


@RobotConfig.register_subclass("so101_vla_follower")
@dataclass
class SO101VLAFollowerConfig(FollowerOptions, SO101FollowerConfig):
    """`--robot.type=so101_vla_follower`: an SO-100 or SO-101 with a guard."""


@RobotConfig.register_subclass("koch_vla_follower")
@dataclass
class KochVLAFollowerConfig(FollowerOptions, KochFollowerConfig):
    """`--robot.type=koch_vla_follower`: a Koch v1.0 or v1.1 with a guard."""
