"""A Koch v1.1 without hardware. Without a task, the pictures show an SO-101 that follows the Koch's joints."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.twin.arm_twin import ArmKind, ArmTwin
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.driven_dynamixel import DrivenDynamixelServo
from lerobot_vla_plugin.twin.dynamixel_protocol import DynamixelProtocol
from lerobot_vla_plugin.twin.dynamixel_registers import XL330_M077, XL330_M288, XL430_W250, Model
from lerobot_vla_plugin.twin.dynamixel_servo import DynamixelServo
from lerobot_vla_plugin.twin.koch_model import KOCH
from lerobot_vla_plugin.twin.scene import JOINTS

# LeRobot's koch_follower.py and koch_leader.py.
FOLLOWER_MODELS: dict[str, Model] = dict(zip(JOINTS, (XL430_W250, XL430_W250, *[XL330_M288] * 4), strict=True))
LEADER_MODELS: dict[str, Model] = dict.fromkeys(JOINTS, XL330_M077)


def make_koch_bus(
    models: Mapping[str, Model],
    calibration: Mapping[str, JointCalibration],
    positions_ticks: Mapping[str, int],
    link: Path | None = None,
    clock: Callable[[], float] | None = None,
    *,
    servo: type[DynamixelServo] = DynamixelServo,
) -> ServoBus:
    """Bus of a Koch arm.

    Args:
        models: Joint -> model of servo: `FOLLOWER_MODELS` or `LEADER_MODELS`.
        calibration: Joint -> calibration, as the servos hold it.
        positions_ticks: Joint -> where it stands, in [ticks].
        link: Stable name of the port, None for none; its last part is the name of the bus.
        clock: As for `ServoBus`.
        servo: Kind of servo: `DrivenDynamixelServo` for an arm in a world with physics.
    """
    servos = {joint: servo(models[joint], c, positions_ticks[joint]) for joint, c in calibration.items()}
    return ServoBus(servos, link.name if link else "koch", link, DynamixelProtocol(), clock)


class KochTwin(ArmTwin):
    """Leader and follower of a Koch; see `ArmTwin`. LeRobot's default unit between the two is percent."""

    kind: ClassVar[ArmKind] = ArmKind(
        name="koch",
        calibration_name="koch",
        use_degrees=False,
        inverts_in_software=False,
        make_follower_bus=partial(make_koch_bus, FOLLOWER_MODELS),
        make_leader_bus=partial(make_koch_bus, LEADER_MODELS),
        make_driven_bus=partial(make_koch_bus, FOLLOWER_MODELS, servo=DrivenDynamixelServo),
        model=KOCH,
    )
