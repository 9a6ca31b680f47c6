"""LeRobot calibration files: one JSON object a robot, one entry a joint."""

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_SHIPPED_PACKAGE = "lerobot_vla_plugin.calibration_files"
_SOURCE_FOLDER = Path(__file__).resolve().parents[2] / "calibration"


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
            raise ValueError(f"range_min must be below range_max, got {self.range_min} and {self.range_max} [ticks]")


def load_calibration(path: Path | str) -> dict[str, JointCalibration]:
    """Read a LeRobot calibration file.

    Args:
        path: The JSON file.

    Returns:
        Joint name -> calibration, in the order of the file.

    Raises:
        FileNotFoundError: No such file; the message names the files beside it.
        ValueError: The file is no LeRobot calibration; the message names the file and the joint.
    """
    path = Path(path)
    if not path.is_file():
        present = sorted(p.name for p in path.parent.glob("*.json"))
        raise FileNotFoundError(f"no calibration file {path}; {path.parent} holds {present or 'no JSON file'}")
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{path}: expected a JSON object of joints, got {type(entries).__name__}")
    if "motor_names" in entries:
        raise ValueError(f"{path} is a calibration of before June 2025 (arrays); expected one object a joint")
    calibration = {name: _parse_joint(path, name, entry) for name, entry in entries.items()}
    ids = [joint.id for joint in calibration.values()]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{path}: two joints share a servo id, got {ids}")
    return calibration


def _parse_joint(path: Path, name: str, entry: object) -> JointCalibration:
    expected = {field.name for field in fields(JointCalibration)}
    if not isinstance(entry, dict) or set(entry) != expected:
        got = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f"{path}: joint {name!r} expected the fields {sorted(expected)}, got {got}")
    try:
        return JointCalibration(**entry)
    except ValueError as error:
        raise ValueError(f"{path}: joint {name!r}: {error}") from error


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
