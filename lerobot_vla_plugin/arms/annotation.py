"""`meta/arm.json`: which arm, joint unit and calibration a data set was recorded with; LeRobot stores none of them."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lerobot_vla_plugin.arms.arm_facts import DEGREES, PERCENT
from lerobot_vla_plugin.arms.calibration import JointCalibration, fingerprint, parse_calibration

ANNOTATION_FILE = Path("meta/arm.json")
JOINT_UNITS = (DEGREES, PERCENT)
_VERSION = 1
_FIELDS = {"version", "robot_type", "robot_id", "joint_unit", "fingerprint", "calibration"}


@dataclass(frozen=True)
class ArmAnnotation:
    """What LeRobot leaves out of a data set's metadata.

    Attributes:
        robot_type: LeRobot's name of the arm, as in the data set's `meta/info.json`, e.g. "so_follower".
        robot_id: LeRobot's `--robot.id`, the stem of the calibration file.
        joint_unit: "degrees" or "percent", of the body joints; a gripper is in 0..100 either way.
        calibration: Joint name -> calibration of the arm that was recorded.

    Raises:
        ValueError: A field is empty or unknown.
    """

    robot_type: str
    robot_id: str
    joint_unit: str
    calibration: Mapping[str, JointCalibration]

    def __post_init__(self) -> None:
        for name in ("robot_type", "robot_id"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ValueError(f"{name} must be a name, got {value!r}")
        if self.joint_unit not in JOINT_UNITS:
            raise ValueError(f"joint_unit must be one of {list(JOINT_UNITS)}, got {self.joint_unit!r}")
        if not self.calibration:
            raise ValueError("calibration must hold at least one joint, got none")

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the calibration, 16 hexadecimal digits."""
        return fingerprint(self.calibration)


def read_annotation(dataset_root: Path | str) -> ArmAnnotation | None:
    """Read a data set's annotation.

    Args:
        dataset_root: The data set's folder.

    Returns:
        The annotation, or None where the data set has none.

    Raises:
        ValueError: The file is damaged, was changed by hand, or was written by a newer version.
    """
    path = Path(dataset_root) / ANNOTATION_FILE
    if not path.exists():
        return None
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}. Write it anew with `lerobot-vla annotate ... --overwrite`") from error


def write_annotation(dataset_root: Path | str, annotation: ArmAnnotation, *, overwrite: bool = False) -> Path:
    """Write a data set's annotation in one step: a reader sees the old file or the new one, never a part.

    Args:
        dataset_root: The data set's folder.
        annotation: What to write.
        overwrite: Replace a different annotation.

    Returns:
        The file.

    Raises:
        FileNotFoundError: `dataset_root` is no data set.
        FileExistsError: There is a different annotation, or a damaged one, and `overwrite` is off.
    """
    path = Path(dataset_root) / ANNOTATION_FILE
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{dataset_root} is no LeRobot data set: it has no folder {path.parent.name}")
    if not overwrite:
        _refuse_other(path, annotation)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(_serialize(annotation), encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _refuse_other(path: Path, annotation: ArmAnnotation) -> None:
    try:
        present = read_annotation(path.parents[1])
    except ValueError as error:
        raise FileExistsError(str(error)) from error
    if present not in (None, annotation):
        raise FileExistsError(
            f"{path} already says robot_type={present.robot_type}, robot_id={present.robot_id}, "
            f"joint_unit={present.joint_unit}, calibration {present.fingerprint}; to write "
            f"robot_type={annotation.robot_type}, robot_id={annotation.robot_id}, "
            f"joint_unit={annotation.joint_unit}, calibration {annotation.fingerprint} instead, add --overwrite"
        )


def _serialize(annotation: ArmAnnotation) -> str:
    entries = {
        "version": _VERSION,
        "robot_type": annotation.robot_type,
        "robot_id": annotation.robot_id,
        "joint_unit": annotation.joint_unit,
        "fingerprint": annotation.fingerprint,
        "calibration": {name: asdict(joint) for name, joint in annotation.calibration.items()},
    }
    return json.dumps(entries, indent=4, ensure_ascii=False) + "\n"


def _parse(entries: object) -> ArmAnnotation:
    if not isinstance(entries, dict):
        raise ValueError(f"expected a JSON object, got {type(entries).__name__}")
    # Before the fields: another version may have other fields.
    if entries.get("version") != _VERSION:
        raise ValueError(f"expected version {_VERSION}, got {entries.get('version')!r}; upgrade lerobot-vla-plugin")
    if set(entries) != _FIELDS:
        raise ValueError(f"expected the fields {sorted(_FIELDS)}, got {sorted(entries)}")
    annotation = ArmAnnotation(
        robot_type=entries["robot_type"],
        robot_id=entries["robot_id"],
        joint_unit=entries["joint_unit"],
        calibration=parse_calibration(entries["calibration"]),
    )
    if annotation.fingerprint != entries["fingerprint"]:
        raise ValueError(
            f"the calibration was changed: its fingerprint is {annotation.fingerprint}, "
            f"the file was written with {entries['fingerprint']!r}"
        )
    return annotation
