"""`lerobot-vla check --robot.type=... --robot.port=...`: a connected arm, servo by servo, and what is wrong with it."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from draccus.utils import DraccusException

from .arms.calibration import JointCalibration, calibration_from_lerobot, find_calibration
from .arms.calibration_checks import CalibrationProblem, check_calibration, check_pair
from .arms.config_followers import KochVLAFollowerConfig, SO101VLAFollowerConfig
from .arms.config_leaders import KochVLALeaderConfig, SO101VLALeaderConfig
from .arms.health import ServoHealth, differences, examine_arm, read_eeprom
from .arms.joints import NormMode
from .arms.reliable_bus import ReliableBus
from .arms.robot_types import device_type
from .arms.serial_exchange import ServoRefusedError

_FINE, _PROBLEMS_FOUND, _COULD_NOT_RUN = 0, 1, 2
_CONFIGS = {
    "so_follower": SO101VLAFollowerConfig,
    "koch_follower": KochVLAFollowerConfig,
    "so_leader": SO101VLALeaderConfig,
    "koch_leader": KochVLALeaderConfig,
}
_NUDGE_TICKS = 34  # three degrees: seen by eye, harmless
_NUDGE_S = 1.0
_ARRIVED_TICKS = 12  # friction and the servo's dead band


def run(args: argparse.Namespace) -> int:
    """Look at an arm, or at a follower and its leader, and print what was found.

    Args:
        args: Options of `lerobot-vla check` that name arms.

    Returns:
        0 fine, 1 problems found, 2 could not run.
    """
    try:
        if args.json and (args.write_calibration or args.move):
            raise ValueError("--json only reads; leave it out, because what is written or moved is confirmed first")
        sides = [side for side in ("robot", "teleop") if getattr(args, f"{side}_type")]
        arms = {side: _examine(_make_device(args, side), args) for side in sides}
    except (ValueError, OSError, ServoRefusedError) as error:
        print(f"lerobot-vla check: {error}", file=sys.stderr)
        return _COULD_NOT_RUN
    pair = _pair_problems(arms)
    if args.json:
        report = {side: {"servos": arm.servos, "problems": arm.problems} for side, arm in arms.items()}
        print(json.dumps({**report, "pair": pair}, indent=2, default=asdict))
    elif pair:
        print("\n".join(["", "Leader and follower:", *_list_problems(pair)]))
    found = pair or any(arm.problems or any(servo.problems for servo in arm.servos) for arm in arms.values())
    return _PROBLEMS_FOUND if found else _FINE


@dataclass
class _Arm:
    """What was found at one arm: its calibration file, its servos, and the problems of the arm as a whole."""

    calibration: dict[str, JointCalibration]
    servos: list[ServoHealth]
    problems: list[CalibrationProblem]


def _make_device(args: argparse.Namespace, side: str) -> Any:
    """The follower or leader object of this package, whose port is not yet open."""
    given = {name: getattr(args, f"{side}_{name}") for name in ("port", "id", "calibration_dir")}
    if given["port"] is None:
        raise ValueError(f"expected --{side}.port, e.g. /dev/ttyACM0; `lerobot-find-port` finds it")
    config_class = _CONFIGS[device_type(getattr(args, f"{side}_type")).name]
    # Imported here because the device classes bring LeRobot's, and those a servo SDK.
    from .arms import followers, leaders

    name = config_class.__name__.removesuffix("Config")
    device_class = getattr(followers if name.endswith("Follower") else leaders, name)
    try:
        return device_class(config_class(**given))
    except DraccusException as error:  # which LeRobot lets through
        folder = given["calibration_dir"] or "LeRobot's folder"
        raise ValueError(f"the calibration {given['id']}.json in {folder} cannot be read: {error}") from error


def _examine(device: Any, args: argparse.Namespace) -> _Arm:
    """Read one arm, print what was found, and do what was asked for."""
    device.bus.connect(handshake=False)
    try:
        calibration, problems = _read_file(device)
        servos, others = examine_arm(device.bus, calibration)
        arm = _Arm(calibration, servos, [*problems, *others])
        if not args.json:
            print(describe(arm.servos, arm.problems))
        if args.write_calibration:
            arm.problems += _write_calibration(device.bus, calibration, servos)
        if args.move:
            arm.problems += _move(device.bus, servos)
        return arm
    finally:
        # Whoever holds the arm under torque goes on holding it; what this command moves it has released itself.
        device.bus.disconnect(disable_torque=False)


def _read_file(device: Any) -> tuple[dict[str, JointCalibration], list[CalibrationProblem]]:
    """The arm's calibration file, empty where there is none that can be used, and what is wrong with it."""
    if not device.calibration:
        return {}, [] if device.id is None else [_no_file(device)]
    degrees = device.bus.motors["shoulder_pan"].norm_mode.value == NormMode.DEGREES
    problems = check_calibration(device.calibration, device.name, degrees=degrees)
    try:
        return calibration_from_lerobot(device.calibration), problems
    except ValueError as error:
        return {}, problems or [CalibrationProblem("arm", f"{device.calibration_fpath}: {error}", "calibrate again")]


def _no_file(device: Any) -> CalibrationProblem:
    message = f"LeRobot looks for {device.calibration_fpath}, which does not exist"
    try:
        older = find_calibration(device.name, device.id)
    except FileNotFoundError as error:
        return CalibrationProblem("arm", message, str(error))
    return CalibrationProblem("arm", message, f"{older} may be its calibration from an earlier release: copy it there")


def _pair_problems(arms: Mapping[str, _Arm]) -> list[CalibrationProblem]:
    if len(arms) < 2 or not all(arm.calibration for arm in arms.values()):
        return []
    return check_pair(leader=arms["teleop"].calibration, follower=arms["robot"].calibration)


def describe(servos: Sequence[ServoHealth], problems: Sequence[CalibrationProblem]) -> str:
    """What was found, as a table and a list of problems with their remedies."""
    header = (
        "joint",
        "id",
        "model",
        "firmware",
        "volts",
        "deg C",
        "torque",
        "ticks",
        "degrees",
        "percent",
        "file/EEPROM",
    )
    rows = [header, *map(_row, servos)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    found = [problem for servo in servos for problem in servo.problems] + list(problems)
    count = f"{len(found)} problem{'s' * (len(found) != 1)} found"
    return "\n".join([*lines, "", f"{count}{':' if found else ': the arm is fine.'}", *_list_problems(found)])


def _list_problems(problems: Sequence[CalibrationProblem]) -> Iterator[str]:
    for number, problem in enumerate(problems, start=1):
        yield f"{number}. {problem.joint}: {problem.message}"
        yield f"   remedy: {problem.remedy}"


def _row(servo: ServoHealth) -> tuple[str, ...]:
    torque = None if servo.torque_enabled is None else ("off", "on")[servo.torque_enabled]
    # Adding 0 makes a rounded -0.0 plain.
    numbers = ["-" if value is None else f"{round(value, 1) + 0:.1f}" for value in (servo.degrees, servo.percent)]
    volts = None if servo.voltage_v is None else f"{servo.voltage_v:.1f}"
    texts = [servo.joint, servo.id, servo.model or "no answer", servo.firmware, volts, servo.temperature_c, torque]
    return (*("-" if text is None else str(text) for text in (*texts, servo.ticks)), *numbers, servo.calibration)


def _write_calibration(
    bus: ReliableBus, calibration: Mapping[str, JointCalibration], servos: Sequence[ServoHealth]
) -> list[CalibrationProblem]:
    """Write the file into the servos that hold something else, after confirmation."""
    joints = [servo.joint for servo in servos if servo.calibration == "differs"]
    if not joints:
        print("\nNothing to write: no servo holds another calibration than the file.")
        return []
    print(f"\nThe file's homing offset and range go into the EEPROM of: {', '.join(joints)}.")
    if not _confirmed("Their torque goes off: hold the arm. Write?"):
        return []
    bus.disable_torque(joints)
    bus.write_calibration({joint: bus.calibration[joint] for joint in joints}, cache=False)
    if not bus.apply_drive_mode:
        for joint in joints:  # which LeRobot's own call leaves as it is; the other bits are not the calibration's
            others = int(bus.read("Drive_Mode", joint)) & ~1
            bus.write("Drive_Mode", joint, others | calibration[joint].drive_mode)
    left = [
        joint
        for joint in joints
        if differences(calibration[joint], read_eeprom(bus, joint), in_firmware=not bus.apply_drive_mode)
    ]
    print(f"Written. {'Run the check again.' if not left else ''}")
    return [CalibrationProblem(joint, "did not keep what was written", "replace the servo") for joint in left]


def _move(bus: ReliableBus, servos: Sequence[ServoHealth]) -> list[CalibrationProblem]:
    """Move every joint three degrees and back, after confirmation."""
    silent = [servo.joint for servo in servos if servo.ticks is None or servo.calibration != "agrees"]
    if silent:
        print(f"\nNo motion before these are mended: {', '.join(silent)}.")
        return []
    if not _confirmed("\nEvery joint moves three degrees and back, one after the other; then torque is off. Move?"):
        return []
    try:
        bus.enable_torque()
        return [problem for servo in servos if (problem := _nudge(bus, servo.joint))]
    finally:
        bus.disable_torque()


def _nudge(bus: ReliableBus, joint: str) -> CalibrationProblem | None:
    start_ticks = bus.read_positions_ticks([joint])[joint]
    middle_ticks = (bus.calibration[joint].range_min + bus.calibration[joint].range_max) // 2
    way_ticks = _NUDGE_TICKS if start_ticks < middle_ticks else -_NUDGE_TICKS
    moved_ticks = _drive(bus, joint, start_ticks + way_ticks) - start_ticks
    _drive(bus, joint, start_ticks)
    print(f"  {joint}: told to move {way_ticks:+d} ticks, moved {moved_ticks:+d}")
    if abs(moved_ticks - way_ticks) <= _ARRIVED_TICKS:
        return None
    message = f"told to move {way_ticks:+d} ticks, it moved {moved_ticks:+d}"
    return CalibrationProblem(joint, message, "free the joint; check its torque limit, its horn and its gears")


def _drive(bus: ReliableBus, joint: str, goal_ticks: int) -> int:
    """Command a goal and wait until it is reached, or for a second; returns the position in [ticks]."""
    bus.write_goals_ticks({joint: goal_ticks})
    until_s = time.monotonic() + _NUDGE_S
    while True:
        position_ticks = bus.read_positions_ticks([joint])[joint]
        if abs(position_ticks - goal_ticks) <= 1 or time.monotonic() > until_s:
            return position_ticks


def _confirmed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print("not confirmed: there is nobody to ask")
        return False
