"""An SO-101 without hardware."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.twin.arm_twin import ArmKind, ArmTwin, TwinConfig
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.driven_servo import DrivenServo
from lerobot_vla_plugin.twin.servo import Servo
from lerobot_vla_plugin.twin.so101_model import SO101

__all__ = ["FOLLOWER_ID", "LEADER_ID", "SO101Twin", "TwinConfig", "make_so101_bus"]

FOLLOWER_ID = "so101_follower"
LEADER_ID = "so101_leader"


def make_so101_bus(
    calibration: Mapping[str, JointCalibration],
    positions_ticks: Mapping[str, int],
    link: Path | None = None,
    clock: Callable[[], float] | None = None,
    *,
    servo: type[Servo] = Servo,
) -> ServoBus:
    """Bus of an SO-101, follower or leader: STS3215 servos.

    Args:
        calibration: Joint -> calibration, as the servos hold it.
        positions_ticks: Joint -> where it stands, in [ticks].
        link: Stable name of the port, None for none; its last part is the name of the bus.
        clock: As for `ServoBus`.
        servo: Kind of servo: `DrivenServo` for an arm in a world with physics.
    """
    servos = {joint: servo(c, positions_ticks[joint]) for joint, c in calibration.items()}
    return ServoBus(servos, link.name if link else "so101", link, clock=clock)


class SO101Twin(ArmTwin):
    """Leader and follower of an SO-101; see `ArmTwin`."""

    kind: ClassVar[ArmKind] = ArmKind(
        name="so101",
        calibration_name="so",
        use_degrees=True,
        inverts_in_software=True,
        make_follower_bus=make_so101_bus,
        make_leader_bus=make_so101_bus,
        make_driven_bus=partial(make_so101_bus, servo=DrivenServo),
        model=SO101,
    )
