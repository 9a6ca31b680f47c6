"""LeRobot calibration files: one JSON object a robot, one entry a joint; and where LeRobot keeps them."""

import hashlib
import importlib.resources
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

from lerobot_vla_plugin.arms.legacy_calibration import LegacyCalibration, is_legacy
from lerobot_vla_plugin.arms.robot_types import device_type

_SHIPPED_PACKAGE = "lerobot_vla_plugin.calibration_files"
_SOURCE_FOLDER = Path(__file__).resolve().parents[2] / "calibration"


class CalibrationLike(Protocol):
    """What LeRobot's `MotorCalibration` and `JointCalibration` have in common."""

    @property
    def id(self) -> int: ...
    @property
    def drive_mode(self) -> int: ...
    @property
    def homing_offset(self) -> int: ...
    @property
    def range_min(self) -> int: ...
    @property
    def range_max(self) -> int: ...


@dataclass(frozen=True, slots=True)
class JointCalibration:
    """Calibration of one joint, with LeRobot's field names.

    Attributes:
        id: Servo id on the bus, in [0, 253].
        drive_mode: 1 where the joint turns the other way round, else 0.
        homing_offset: Shift between the encoder and the position that the servo reports, in [ticks].
        range_min: Lowest position that the joint reaches, in [ticks].
        range_max: Highest position that the joint reaches, in [ticks].

    Raises:
        ValueError: A field is no integer, or lies outside its domain.
    """

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{field.name} must be an integer, got {value!r}")
        if not 0 <= self.id <= 253:
            raise ValueError(f"id must lie in 0..253, got {self.id}")
        if self.drive_mode not in (0, 1):
            raise ValueError(f"drive_mode must be 0 or 1, got {self.drive_mode}")
        if self.range_min >= self.range_max:
            raise ValueError(
                f"range_min must be below range_max, got {self.range_min} and {self.range_max} [ticks]; calibrate "
                "again and move this joint from one end to the other"
            )


def calibration_from_lerobot(calibration: Mapping[str, CalibrationLike]) -> dict[str, JointCalibration]:
    """The same calibration as our type.

    Args:
        calibration: Joint name -> LeRobot's `MotorCalibration`, e.g. the `calibration` of a bus.

    Raises:
        ValueError: A field lies outside its domain; the message names the joint.
    """
    names = [field.name for field in fields(JointCalibration)]
    return {joint: _make_joint(joint, {name: getattr(c, name) for name in names}) for joint, c in calibration.items()}


def fingerprint(calibration: Mapping[str, JointCalibration]) -> str:
    """Short name of a calibration: equal for equal calibrations, whatever the order of their joints.

    Args:
        calibration: Joint name -> calibration.

    Returns:
        16 hexadecimal digits.
    """
    content = json.dumps({name: asdict(joint) for name, joint in calibration.items()}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def load_calibration(path: Path | str) -> dict[str, JointCalibration]:
    """Read a LeRobot calibration file, today's or one of before June 2025.

    Args:
        path: The JSON file.

    Returns:
        Joint name -> calibration, in the order of the file.

    Raises:
        FileNotFoundError: No such file; the message names the files beside it.
        ValueError: The file is no LeRobot calibration, or an old one that does not hold all that a calibration
            needs today; the message names the file and the joint.
    """
    path = Path(path)
    if not path.is_file():
        present = sorted(p.name for p in path.parent.glob("*.json"))
        raise FileNotFoundError(f"no calibration file {path}; {path.parent} holds {present or 'no JSON file'}")
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    try:
        return _from_legacy(LegacyCalibration(entries)) if is_legacy(entries) else parse_calibration(entries)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse_calibration(entries: object) -> dict[str, JointCalibration]:
    """Check the parsed JSON of a calibration file of today.

    Args:
        entries: What should be an object of joints.

    Raises:
        ValueError: It is no LeRobot calibration; the message names the joint.
    """
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"expected a JSON object of joints, got {type(entries).__name__}")
    calibration = {name: _parse_joint(name, entry) for name, entry in entries.items()}
    ids = {name: joint.id for name, joint in calibration.items()}
    if len(set(ids.values())) != len(ids):
        raise ValueError(f"two joints share a servo id, got {ids}; lerobot-setup-motors gives each servo its own")
    return calibration


def _from_legacy(legacy: LegacyCalibration) -> dict[str, JointCalibration]:
    # Homing registers held 0 then, and mirroring was the software's: the servos counted encoder ticks upwards. Only
    # a gripper that opens downwards needs a flag, which buses that mirror in software honour in [0, 100]; servos
    # that mirror in firmware had no linear grippers.
    ranges, ids = legacy.ranges_ticks(), legacy.ids()
    return {
        joint.name: _make_joint(
            joint.name,
            {
                "id": ids[joint.name],
                "drive_mode": int(joint.linear and joint.start_ticks > joint.end_ticks),
                "homing_offset": 0,
                "range_min": ranges[joint.name][0],
                "range_max": ranges[joint.name][1],
            },
        )
        for joint in legacy.joints
    }


def _parse_joint(name: str, entry: object) -> JointCalibration:
    expected = {field.name for field in fields(JointCalibration)}
    if not isinstance(entry, dict) or set(entry) != expected:
        got = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f"joint {name!r} expected the fields {sorted(expected)}, got {got}")
    return _make_joint(name, entry)


def _make_joint(name: str, values: dict) -> JointCalibration:
    try:
        return JointCalibration(**values)
    except ValueError as error:
        raise ValueError(f"joint {name!r}: {error}") from error


def save_calibration(calibration: Mapping[str, JointCalibration], path: Path | str) -> None:
    """Write a calibration file that LeRobot reads; folders are created.

    Args:
        calibration: Joint name -> calibration.
        path: The JSON file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: asdict(joint) for name, joint in calibration.items()}, indent=4) + "\n")


def example_calibration_dir(robot_name: str) -> Path:
    """Folder of the calibration files that ship with this package, for LeRobot's `calibration_dir`.

    Args:
        robot_name: LeRobot's name of the device, e.g. "so_follower" (SO-100 and SO-101) or "so_leader".

    Raises:
        FileNotFoundError: None ships for this robot; the message lists those that do.
    """
    root = _shipped_root()
    folder = root / robot_name
    if not folder.is_dir():
        present = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        raise FileNotFoundError(f"no example calibration for {robot_name!r} in {root}; there are {present}")
    return folder


def _shipped_root() -> Path:
    # An editable install or a source checkout has the files beside the package instead of inside it.
    try:
        root = Path(str(importlib.resources.files(_SHIPPED_PACKAGE)))
    except ModuleNotFoundError:
        return _SOURCE_FOLDER
    return root if root.is_dir() else _SOURCE_FOLDER


def example_calibration(robot_name: str, robot_id: str) -> dict[str, JointCalibration]:
    """One of the calibrations that ship with this package.

    Args:
        robot_name: As in `example_calibration_dir`.
        robot_id: Stem of the file, LeRobot's `--robot.id`.

    Raises:
        FileNotFoundError: There is no such file; the message lists what exists.
    """
    return load_calibration(example_calibration_dir(robot_name) / f"{robot_id}.json")


def find_calibration(robot_type: str, robot_id: str, calibration_dir: Path | str | None = None) -> Path:
    """Find a calibration file where LeRobot looks for it, or where earlier releases put it.

    Args:
        robot_type: Any name that the arm has had, e.g. "so101_follower", "so_follower" or "koch_vla_leader".
        robot_id: LeRobot's `--robot.id` or `--teleop.id`.
        calibration_dir: LeRobot's option of that name: the folder that holds the file itself.

    Returns:
        The first file found: today's folder goes before earlier ones.

    Raises:
        ValueError: The robot type is unknown.
        FileNotFoundError: There is no such file; the message lists those that exist.
    """
    folders = [Path(calibration_dir)] if calibration_dir else _calibration_folders(robot_type)
    for folder in folders:
        if (folder / f"{robot_id}.json").is_file():
            return folder / f"{robot_id}.json"
    present = [str(path) for folder in folders for path in sorted(folder.glob("*.json"))]
    raise FileNotFoundError(
        f"no calibration {robot_id}.json of {robot_type!r} in {[str(folder) for folder in folders]}; there are "
        f"{present or 'no calibrations'}. Pass the id of one of these, or run lerobot-calibrate"
    )


def _calibration_folders(robot_type: str) -> list[Path]:
    device = device_type(robot_type)
    return [_lerobot_calibration_root() / device.folder / name for name in device.names]


def _lerobot_calibration_root() -> Path:
    # As lerobot.utils.constants and huggingface_hub.constants have it; importing them would cost half a second.
    home = os.getenv("HF_HOME", os.path.join(os.getenv("XDG_CACHE_HOME", "~/.cache"), "huggingface"))
    lerobot_home = os.getenv("HF_LEROBOT_HOME", os.path.join(os.path.expandvars(home), "lerobot"))
    return Path(os.getenv("HF_LEROBOT_CALIBRATION", os.path.join(lerobot_home, "calibration"))).expanduser()
