"""Units in which the errors of a decoded chunk are told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arms.annotation import ANNOTATION_FILE, ArmAnnotation, read_annotation
from .arms.arm_facts import DEGREES
from .arms.joints import JointConverter, NormMode, joint_modes
from .recorded_arm import load_recorded_calibration


@dataclass(frozen=True)
class ErrorUnit:
    """A unit of errors.

    Attributes:
        name: Its name.
        per_robot_unit: How many of it are one robot unit of each joint, (j,).
        digits: Decimal places worth showing.
    """

    name: str
    per_robot_unit: NDArray[np.float64]
    digits: int = 2


def recorded_annotation(source: Path, calibration: Path | None, joint_unit: str | None) -> ArmAnnotation | None:
    """What the values of a recording mean, from its annotation or from the options; None where neither says it.

    Args:
        source: Folder of the data set, or a parquet file.
        calibration: LeRobot's calibration file of the arm that was recorded.
        joint_unit: "degrees" or "percent".

    Raises:
        FileNotFoundError: There is no such calibration.
        ValueError: Annotation and options both say it, or the options only half of it.
    """
    annotation = read_annotation(source) if source.is_dir() else None
    if annotation and (calibration or joint_unit):
        raise ValueError(f"{source / ANNOTATION_FILE} says what was recorded: leave --calibration and --joint-unit out")
    if annotation or not (calibration or joint_unit):
        return annotation
    if not calibration or not joint_unit:
        raise ValueError("--calibration and --joint-unit tell the errors in degrees and ticks only together")
    # The type of the arm only tells which way a joint counts, and errors have no direction.
    return ArmAnnotation("unknown", calibration.stem, joint_unit, load_recorded_calibration(calibration))


def error_units(joint_names: Sequence[str], annotation: ArmAnnotation | None) -> list[ErrorUnit]:
    """Units for the errors of these joints: the data's own, and degrees and ticks where a calibration tells them.

    Args:
        joint_names: Joints, without LeRobot's ".pos".
        annotation: What the recorded values mean.

    Raises:
        ValueError: A joint has no calibration.
    """
    ones = np.ones(len(joint_names))
    if annotation is None:
        return [ErrorUnit("as recorded", ones)]
    in_degrees = annotation.joint_unit == DEGREES
    ticks = _ticks_per_unit(annotation, joint_modes(joint_names, degrees=in_degrees))
    degrees = ticks / _ticks_per_unit(annotation, dict.fromkeys(joint_names, NormMode.DEGREES))
    return [
        ErrorUnit("deg, gripper %" if in_degrees else "%", ones),
        ErrorUnit("deg", degrees),
        ErrorUnit("ticks", ticks, digits=1),
    ]


def _ticks_per_unit(annotation: ArmAnnotation, modes: dict[str, NormMode]) -> NDArray[np.float64]:
    converter = JointConverter(annotation.calibration, modes, inverts_in_software=True)
    ones = np.ones(len(modes))
    return np.abs(converter.to_exact_ticks(2 * ones) - converter.to_exact_ticks(ones))
