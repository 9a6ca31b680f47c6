"""LeRobot's SO-100/101 and Koch arms: their names over time, and what sets their servos apart."""

from dataclasses import dataclass

JOINT_NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


@dataclass(frozen=True, slots=True)
class ServoFamily:
    """What differs between the two makes of servo.

    Attributes:
        name: Make and models.
        inverts_in_software: Whether LeRobot's bus mirrors joints with `drive_mode` 1, in percent only. The other
            make does it in firmware, in every unit.
        homing_sign: present = encoder + homing_sign * homing_offset.
        largest_offset_ticks: Largest magnitude that the homing register holds, in [ticks].
        counts_turns: Whether positions go on beyond a turn, as LeRobot sets them.
    """

    name: str
    inverts_in_software: bool
    homing_sign: int
    largest_offset_ticks: int
    counts_turns: bool


# STS3215 memory table: Homing_Offset has 11 bits of magnitude. ROBOTIS e-manual, X series: Homing Offset(20).
FEETECH = ServoFamily("Feetech STS3215", True, -1, 2047, False)
DYNAMIXEL = ServoFamily("Dynamixel XL430/XL330", False, 1, 1_044_479, True)


@dataclass(frozen=True, slots=True)
class DeviceType:
    """One kind of device.

    Attributes:
        name: LeRobot's `name` of the device: its calibration folder and a data set's robot_type.
        folder: LeRobot's folder for this kind of device.
        aliases: What users write after `--robot.type=` or `--teleop.type=`, what the calibration folder was called
            before, what earlier data sets call the arm.
        servos: Make of its servos.
        full_turn_joints: Joints to which LeRobot's calibration gives the whole turn without measuring.
        inverted_joints: Joints whose servo LeRobot's calibration lets count backwards.
    """

    name: str
    folder: str
    aliases: tuple[str, ...]
    servos: ServoFamily
    full_turn_joints: tuple[str, ...]
    inverted_joints: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names, today's first."""
        return (self.name, *self.aliases)


_SO_FULL_TURN = ("wrist_roll",)
_KOCH_FULL_TURN = ("shoulder_pan", "wrist_roll")
_DEVICE_TYPES = (
    DeviceType(
        "so_follower",
        "robots",
        ("so101_follower", "so100_follower", "so101_vla_follower", "so101", "so100"),
        FEETECH,
        _SO_FULL_TURN,
    ),
    DeviceType(
        "so_leader",
        "teleoperators",
        ("so101_leader", "so100_leader", "so101_vla_leader"),
        FEETECH,
        _SO_FULL_TURN,
    ),
    DeviceType("koch_follower", "robots", ("koch_vla_follower", "koch"), DYNAMIXEL, _KOCH_FULL_TURN),
    DeviceType("koch_leader", "teleoperators", ("koch_vla_leader",), DYNAMIXEL, _KOCH_FULL_TURN, ("elbow_flex",)),
)
_BY_TYPE_NAME = {type_name: device for device in _DEVICE_TYPES for type_name in device.names}


def device_type(type_name: str) -> DeviceType:
    """Look up a device by any name it has had.

    Args:
        type_name: E.g. "so101_follower", "so_follower" or "koch_vla_leader".

    Raises:
        ValueError: The name is unknown; the message lists those that are known.
    """
    if type_name not in _BY_TYPE_NAME:
        raise ValueError(f"unknown arm {type_name!r}; there are {sorted(_BY_TYPE_NAME)}")
    return _BY_TYPE_NAME[type_name]


def servo_family(type_name: str) -> ServoFamily:
    """Make of an arm's servos; a pair of arms ("bi_so_follower") has those of one arm.

    Args:
        type_name: As for `device_type`.

    Raises:
        ValueError: As for `device_type`.
    """
    return device_type(type_name.removeprefix("bi_")).servos
