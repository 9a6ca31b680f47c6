"""What a LeRobot robot object shows of itself without being asked to move: type, joints, unit, calibration, cameras.

Nothing here touches a serial port, so that an arm can be looked at before its torque is on.
"""

import gc
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lerobot_vla_plugin.arms.calibration import JointCalibration, calibration_from_lerobot, fingerprint
from lerobot_vla_plugin.arms.joints import NormMode, is_gripper, ticks_to_degrees
from lerobot_vla_plugin.arms.robot_types import device_type

if TYPE_CHECKING:
    from lerobot.robots import Robot

DEGREES, PERCENT = "degrees", "percent"

_UNITS = {NormMode.DEGREES: DEGREES, NormMode.PERCENT: PERCENT}


def canonical_robot_type(name: str) -> str:
    """LeRobot's present name of an arm, e.g. "so_follower" for "so101_follower"; a name of no known arm stays."""
    pair = "bi_" if name.startswith("bi_") else ""
    try:
        return pair + device_type(name.removeprefix(pair)).name
    except ValueError:
        return name


def is_body_joint(joint: str) -> bool:
    """Whether a joint's position is in the arm's unit: neither a gripper nor a velocity of a mobile base.

    Args:
        joint: Name with or without LeRobot's ".pos".
    """
    return not is_gripper(joint.removesuffix(".pos")) and not joint.endswith(".vel")


@dataclass(frozen=True)
class ArmFacts:
    """What can be seen of an arm; empty or None where it does not show.

    Attributes:
        description: Name of the robot object, for messages.
        robot_type: LeRobot's present name of the arm.
        joint_names: Keys of an action, in the robot's order.
        joint_unit: "degrees" or "percent", of the body joints.
        calibration: Joint name, without ".pos" -> calibration.
        cameras: Name -> (height, width) in [pixels]; None where the camera decides when it is opened.
        rate_hz: Actions a second, in [Hz]; None where that shows only once it is run.
    """

    description: str
    robot_type: str
    joint_names: list[str]
    joint_unit: str | None = None
    calibration: Mapping[str, JointCalibration] = field(default_factory=dict)
    cameras: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)
    rate_hz: float | None = None

    @property
    def calibration_fingerprint(self) -> str | None:
        """Fingerprint of the calibration."""
        return fingerprint(self.calibration) if self.calibration else None


class SimulatedRobot:
    """Stands for an arm that is computed, where arms are held against what a policy was trained on.

    Args:
        facts: What a robot object would show.

    Attributes:
        facts: As given.
        is_connected: Until its owner sets it to false.
    """

    def __init__(self, facts: ArmFacts) -> None:
        self.facts, self.is_connected = facts, True


def arm_facts(robot: "Robot | SimulatedRobot") -> ArmFacts:
    """Look at a robot object of LeRobot's or a plugin's, connected or not, or at a `SimulatedRobot`."""
    if isinstance(robot, SimulatedRobot):
        return robot.facts
    pictures = {name: shape for name, shape in robot.observation_features.items() if isinstance(shape, tuple)}
    return ArmFacts(
        description=str(robot),
        robot_type=canonical_robot_type(robot.name),
        joint_names=[name for name in robot.action_features if name.endswith((".pos", ".vel"))],
        joint_unit=_joint_unit(robot),
        calibration=calibration_from_lerobot(robot.calibration),
        cameras={name: None if None in shape else (shape[0], shape[1]) for name, shape in pictures.items()},
    )


def calibrated_ranges_deg(calibration: Mapping[str, JointCalibration]) -> dict[str, float]:
    """How far each joint can turn, in [deg]."""
    return {
        name: float(ticks_to_degrees(joint.range_max, joint) - ticks_to_degrees(joint.range_min, joint))
        for name, joint in calibration.items()
    }


def connected_robots() -> list["Robot"]:
    """The robots of this process that are connected, found without their help; arms of a bimanual robot count as it.

    LeRobot hands its robot to no policy, and its own followers announce themselves nowhere. Only `type` is looked at:
    asking every object of a process for its class would run code of lazy proxies.
    """
    robots = sys.modules.get("lerobot.robots")
    if robots is None:
        return []
    kinds = set(_subclasses(robots.Robot))
    found = [candidate for candidate in gc.get_objects() if type(candidate) in kinds]
    parts = {id(part) for robot in found for part in _parts(robot)}
    return [robot for robot in found if id(robot) not in parts and robot.is_connected]


def _subclasses(kind: type) -> Iterator[type]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _parts(robot: "Robot") -> list[Any]:
    """The arms that a bimanual robot is made of."""
    from lerobot.robots import Robot

    return [part for part in vars(robot).values() if isinstance(part, Robot)]


def _joint_unit(robot: "Robot") -> str | None:
    buses = [getattr(part, "bus", None) for part in (robot, *_parts(robot))]
    motors = {name: motor for bus in buses for name, motor in getattr(bus, "motors", {}).items()}
    units = {_UNITS.get(NormMode(motor.norm_mode.value)) for name, motor in motors.items() if is_body_joint(name)}
    return units.pop() if len(units) == 1 else None
