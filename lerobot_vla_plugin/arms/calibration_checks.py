"""Checks of a calibration that say what is wrong, in numbers, and what to do about it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lerobot_vla_plugin.arms.calibration import CalibrationLike
from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN, is_gripper
from lerobot_vla_plugin.arms.robot_types import JOINT_NAMES, DeviceType, device_type

_HIGHEST_TICK = TICKS_PER_TURN - 1
# No joint of these arms turns 330 degrees between its end stops; a gripper opens 60 to 130 degrees, and nothing
# else moves less. Two arms of one kind measured by hand differ by up to 23 degrees.
_WIDEST_RANGE_TICKS = 3750
_SMALLEST_RANGE_TICKS = 400
_LARGEST_DIFFERENCE_TICKS = 300
_RECALIBRATE = "run lerobot-calibrate again"


@dataclass(frozen=True, slots=True)
class CalibrationProblem:
    """Something that will go wrong with this calibration.

    Attributes:
        joint: Name of the joint.
        message: What is wrong, with the numbers.
        remedy: What to do.
    """

    joint: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.joint}: {self.message}; {self.remedy}"


def check_calibration(
    calibration: Mapping[str, CalibrationLike], robot_name: str, *, degrees: bool = True
) -> list[CalibrationProblem]:
    """Look for everything in one arm's calibration that cannot work.

    Args:
        calibration: Joint name -> calibration; LeRobot's own type too, which does not refuse impossible values.
        robot_name: Any name of the arm, e.g. "so_follower" or "koch_leader".
        degrees: Whether the arm's joints are read in degrees, LeRobot's default on SO-100 and SO-101.

    Returns:
        Problems in the order of the joints; empty if there are none.

    Raises:
        ValueError: The robot name is unknown.
    """
    device = device_type(robot_name)
    problems = [*_check_names(calibration), *_check_ids(calibration)]
    for name, joint in calibration.items():
        for check in _JOINT_CHECKS:
            problems.extend(check(name, joint, device))
        if degrees:
            problems.extend(_check_mirrored_degrees(name, joint, device))
    order = list(calibration)
    return sorted(problems, key=lambda problem: order.index(problem.joint) if problem.joint in order else len(order))


def check_pair(
    leader: Mapping[str, CalibrationLike], follower: Mapping[str, CalibrationLike]
) -> list[CalibrationProblem]:
    """Look for joints in which a follower would not stand as its leader does.

    In percent the leader's ends are the follower's ends, in degrees the middles of the two ranges are one pose:
    either way, arms of one kind must have been moved through the same angle. Grippers differ by design.

    Args:
        leader: Joint name -> calibration.
        follower: Joint name -> calibration of an arm of the same kind.

    Returns:
        Problems; empty if there are none.
    """
    problems = []
    for name, joint in leader.items():
        if name in follower and not is_gripper(name):
            problems.extend(_check_same_width(name, _width(joint), _width(follower[name])))
    for name in sorted(leader.keys() ^ follower.keys()):
        missing = "follower" if name in leader else "leader"
        problems.append(CalibrationProblem(name, f"the {missing} has no such joint", "choose arms of one kind"))
    return problems


def _check_same_width(name: str, leader_ticks: int, follower_ticks: int) -> Iterator[CalibrationProblem]:
    difference_ticks = abs(leader_ticks - follower_ticks)
    if difference_ticks > _LARGEST_DIFFERENCE_TICKS:
        narrow = "leader" if leader_ticks < follower_ticks else "follower"
        yield CalibrationProblem(
            name,
            f"the leader's range is {leader_ticks} ticks ({_degrees(leader_ticks):.0f} deg), the follower's "
            f"{follower_ticks} ({_degrees(follower_ticks):.0f} deg): at 100 % the two stand up to "
            f"{_degrees(difference_ticks):.0f} deg apart, at 0 deg {_degrees(difference_ticks) / 2:.0f}",
            f"{_RECALIBRATE} for the {narrow} and move this joint all the way to both ends",
        )


def _check_names(calibration: Mapping[str, CalibrationLike]) -> Iterator[CalibrationProblem]:
    for name in JOINT_NAMES:
        if name not in calibration:
            yield CalibrationProblem(name, f"not calibrated; there are {list(calibration)}", _RECALIBRATE)
    for name in calibration:
        if name not in JOINT_NAMES:
            yield CalibrationProblem(name, f"no joint of this arm, which has {list(JOINT_NAMES)}", "remove it")


def _check_ids(calibration: Mapping[str, CalibrationLike]) -> Iterator[CalibrationProblem]:
    uses = Counter(joint.id for joint in calibration.values())
    for name, joint in calibration.items():
        if uses[joint.id] > 1:
            others = [other for other, theirs in calibration.items() if theirs.id == joint.id and other != name]
            yield CalibrationProblem(
                name,
                f"servo id {joint.id} also belongs to {others}",
                "give each servo its own id with lerobot-setup-motors, then correct the file",
            )


def _check_range(name: str, joint: CalibrationLike, device: DeviceType) -> Iterator[CalibrationProblem]:
    if joint.range_min >= joint.range_max:
        state = "empty" if joint.range_min == joint.range_max else "reversed"
        yield CalibrationProblem(
            name,
            f"the range {joint.range_min}..{joint.range_max} [ticks] is {state}",
            f"{_RECALIBRATE} and move this joint from one end to the other",
        )
    elif _width(joint) < _SMALLEST_RANGE_TICKS:
        yield CalibrationProblem(
            name,
            f"the range {joint.range_min}..{joint.range_max} [ticks] is suspiciously small: {_width(joint)} ticks, "
            f"{_degrees(_width(joint)):.0f} deg, and all of [{0 if is_gripper(name) else -100}, 100] lies in it",
            f"{_RECALIBRATE} and {'open and close the gripper fully' if is_gripper(name) else 'move it to both ends'}",
        )


def _check_seam(name: str, joint: CalibrationLike, device: DeviceType) -> Iterator[CalibrationProblem]:
    span = f"the range {joint.range_min}..{joint.range_max} [ticks]"
    if joint.range_min < 0 or joint.range_max > _HIGHEST_TICK:
        yield CalibrationProblem(
            name,
            f"{span} crosses the encoder's seam: the servo's limits hold 0..{_HIGHEST_TICK}",
            f"{_RECALIBRATE} with this joint in the middle of its range when it asks for the middle",
        )
    elif name not in device.full_turn_joints and _width(joint) > _WIDEST_RANGE_TICKS:
        yield CalibrationProblem(
            name,
            f"{span} is {_degrees(_width(joint)):.0f} deg, more than this joint can turn: the encoder jumped between "
            f"0 and {_HIGHEST_TICK} while it was measured",
            f"{_RECALIBRATE} with this joint in the middle of its range when it asks for the middle",
        )


def _check_power_cycle(name: str, joint: CalibrationLike, device: DeviceType) -> Iterator[CalibrationProblem]:
    # A multi-turn servo starts in the turn 0..4095 of its own encoder, and present = encoder + offset.
    multi_turn = not device.servos.inverts_in_software and name not in device.full_turn_joints
    seam_ticks = joint.range_min + 1 + (joint.homing_offset - joint.range_min - 1) % TICKS_PER_TURN
    if multi_turn and seam_ticks <= joint.range_max:
        yield CalibrationProblem(
            name,
            f"the encoder starts anew at {seam_ticks}, inside the range {joint.range_min}..{joint.range_max} [ticks]: "
            f"switched on beyond it, the joint reads a whole turn ({TICKS_PER_TURN} ticks) off",
            "use koch_vla_follower or koch_vla_leader, which fold that turn back, or turn the servo's horn by 180 deg "
            f"and {_RECALIBRATE}",
        )


def _check_offset(name: str, joint: CalibrationLike, device: DeviceType) -> Iterator[CalibrationProblem]:
    largest = device.servos.largest_offset_ticks
    if abs(joint.homing_offset) > largest:
        yield CalibrationProblem(
            name,
            f"homing_offset {joint.homing_offset} does not fit: a {device.servos.name} holds -{largest}..{largest}",
            f"{_RECALIBRATE}; if it fails again, turn the servo's horn by a quarter of a turn first",
        )


def _check_drive_mode(name: str, joint: CalibrationLike, device: DeviceType) -> Iterator[CalibrationProblem]:
    if joint.drive_mode not in (0, 1):
        yield CalibrationProblem(name, f"expected drive_mode 0 or 1, got {joint.drive_mode}", _RECALIBRATE)
    elif joint.drive_mode == 1 and device.servos.inverts_in_software:
        yield CalibrationProblem(
            name,
            f"drive_mode is 1, but a {device.servos.name} has no drive mode: LeRobot only mirrors the joint in percent",
            f"{_RECALIBRATE}, which writes 0",
        )
    elif joint.drive_mode != (name in device.inverted_joints):
        yield CalibrationProblem(
            name,
            f"drive_mode is {joint.drive_mode}, but LeRobot's calibration of a {device.name} writes "
            f"{1 - joint.drive_mode}: leader and follower would turn this joint in opposite directions",
            f"{_RECALIBRATE}, which sets the servo's own drive mode",
        )


def _check_mirrored_degrees(name: str, joint: CalibrationLike, device: DeviceType) -> Iterator[CalibrationProblem]:
    if joint.drive_mode == 1 and device.servos.inverts_in_software and not is_gripper(name):
        yield CalibrationProblem(
            name,
            "drive_mode 1 does nothing in degrees: the joint turns the other way round than in percent",
            f"use percent (use_degrees=false), or {_RECALIBRATE}",
        )


_JOINT_CHECKS: tuple[Callable[[str, CalibrationLike, DeviceType], Iterator[CalibrationProblem]], ...] = (
    _check_range,
    _check_seam,
    _check_power_cycle,
    _check_offset,
    _check_drive_mode,
)


def _width(joint: CalibrationLike) -> int:
    return joint.range_max - joint.range_min


def _degrees(ticks: int) -> float:
    return ticks * 360 / _HIGHEST_TICK
