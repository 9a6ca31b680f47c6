"""`lerobot-vla check --robot.type=... --robot.port=...`: a connected arm, servo by servo, and what is wrong with it."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .arms.calibration import JointCalibration, calibration_from_lerobot, find_calibration
from .arms.calibration_checks import CalibrationProblem
from .arms.config_followers import KochVLAFollowerConfig, SO101VLAFollowerConfig
from .arms.config_leaders import KochVLALeaderConfig, SO101VLALeaderConfig
from .arms.health import ServoHealth, differences, examine_arm, read_eeprom
from .arms.joints import NormMode
from .arms.reliable_bus import ReliableBus
from .arms.robot_types import device_type

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
    """Look at the arm and print what was found.

    Args:
        args: Options of `lerobot-vla check` that name an arm.

    Returns:
        0 fine, 1 problems found, 2 could not run.
    """
    try:
        device = _make_device(args)
        device.bus.connect(handshake=False)
    except (ValueError, OSError) as error:
        print(f"lerobot-vla check: {error}", file=sys.stderr)
        return _COULD_NOT_RUN
    try:
        return _check(device, args)
    except ConnectionError as error:
        print(f"lerobot-vla check: {error}", file=sys.stderr)
        return _COULD_NOT_RUN
    finally:
        # Whoever holds the arm under torque goes on holding it; what this command moves it has released itself.
        device.bus.disconnect(disable_torque=False)


def _make_device(args: argparse.Namespace) -> Any:
    """The follower or leader object of this package, whose port is not yet open."""
    if args.port is None:
        raise ValueError("expected --robot.port, e.g. /dev/ttyACM0; `lerobot-find-port` finds it")
    config_class = _CONFIGS[device_type(args.device_type).name]
    config = config_class(port=args.port, id=args.id, calibration_dir=args.calibration_dir)
    # Imported here because the device classes bring LeRobot's, and those a servo SDK.
    from .arms import followers, leaders

    name = config_class.__name__.removesuffix("Config")
    return getattr(followers if name.endswith("Follower") else leaders, name)(config)


def _check(device: Any, args: argparse.Namespace) -> int:
    calibration = calibration_from_lerobot(device.calibration)
    degrees = device.bus.motors["shoulder_pan"].norm_mode.value == NormMode.DEGREES
    servos, problems = examine_arm(device.bus, calibration, device.name, degrees=degrees)
    if args.id is not None and not calibration:
        problems.append(_no_file(device, args.id))
    if args.json:
        print(json.dumps({"servos": list(map(asdict, servos)), "problems": list(map(asdict, problems))}, indent=2))
    else:
        print(describe(servos, problems))
    if args.write_calibration:
        problems += _write_calibration(device.bus, calibration, servos)
    if args.move:
        problems += _move(device.bus, servos)
    return _PROBLEMS_FOUND if problems or any(servo.problems for servo in servos) else _FINE


def _no_file(device: Any, device_id: str) -> CalibrationProblem:
    message = f"LeRobot looks for {device.calibration_fpath}, which does not exist"
    try:
        older = find_calibration(device.name, device_id)
    except FileNotFoundError as error:
        return CalibrationProblem("arm", message, str(error))
    return CalibrationProblem("arm", message, f"{older} may be its calibration from an earlier release: copy it there")


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
    lines += ["", f"{len(found)} problem{'s' * (len(found) != 1)} found{':' if found else ': the arm is fine.'}"]
    for number, problem in enumerate(found, start=1):
        lines += [f"{number}. {problem.joint}: {problem.message}", f"   remedy: {problem.remedy}"]
    return "\n".join(lines)


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
