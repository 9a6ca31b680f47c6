"""Whether an arm can be the one that recorded a data set: its type, joints, unit and calibration."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lerobot.datasets.utils import DatasetInfo
from numpy.typing import NDArray

from .arms.arm_facts import PERCENT, canonical_robot_type, is_body_joint
from .arms.calibration import JointCalibration, load_calibration
from .arms.contract_terms import contradiction_of_percent
from .arms.legacy_calibration import is_legacy
from .arms.robot_types import DeviceType, device_type
from .joint_dataset import JointFeature


def follower(type_name: str) -> DeviceType:
    """Look up the arm that `--robot.type` names.

    Args:
        type_name: Any name that the arm has had, e.g. "so101_follower".

    Raises:
        ValueError: The name is unknown, or a leader's.
    """
    device = device_type(type_name)
    if device.folder != "robots":
        raise ValueError(f"{type_name} is a leader, but data sets are in the follower's units; pass the follower")
    return device


def default_use_degrees(device: DeviceType) -> bool:
    """LeRobot's default of `--robot.use_degrees` for a follower; this package's types have the same."""
    from lerobot.robots.koch_follower import KochFollowerConfig
    from lerobot.robots.so_follower import SOFollowerRobotConfig

    return {"so_follower": SOFollowerRobotConfig, "koch_follower": KochFollowerConfig}[device.name].use_degrees


def load_recorded_calibration(path: Path) -> dict[str, JointCalibration]:
    """Read a calibration that a data set of today's format can have been recorded with.

    Args:
        path: LeRobot's JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no calibration, or one of before June 2025, under which degrees meant something else.
    """
    calibration = load_calibration(path)
    if is_legacy(json.loads(path.read_text())):
        raise ValueError(
            f"{path} is of before June 2025. Joints were not called .pos then, and their degrees were others; name the "
            "file that lerobot-calibrate wrote since"
        )
    return calibration


def check_robot_type(info: DatasetInfo, robot_type: str) -> None:
    """Refuse an arm that is not the data set's; where the data set names none, nothing can be said.

    Args:
        info: The data set's metadata.
        robot_type: Any name that the arm has had.

    Raises:
        ValueError: The data set was recorded with another arm.
    """
    if info.robot_type and canonical_robot_type(info.robot_type) != canonical_robot_type(robot_type):
        raise ValueError(
            f"the data set was recorded with {info.robot_type}, not with {robot_type}; pass the arm that recorded it"
        )


def check_joint_names(features: Iterable[JointFeature], calibrated: Iterable[str]) -> None:
    """Refuse a calibration of other joints than the recorded ones; their order is the data set's own affair.

    Args:
        features: Features with joints.
        calibrated: Joint names of the calibration.

    Raises:
        ValueError: The names differ.
    """
    expected = sorted(calibrated)
    for feature in features:
        if sorted(feature.columns) != expected:
            raise ValueError(
                f"{feature.key} has the joints {sorted(feature.columns)}, the calibration has {expected}; "
                "name the calibration of the arm that was recorded"
            )


def check_joint_unit(vectors: Mapping[str, NDArray], features: Iterable[JointFeature], joint_unit: str) -> None:
    """Refuse a unit that the recorded values contradict.

    Args:
        vectors: Key -> recorded vectors, shape (frames, width).
        features: Features with joints.
        joint_unit: "degrees" or "percent".

    Raises:
        ValueError: A body joint leaves -100..100, so it is not in percent.
    """
    if joint_unit != PERCENT:
        return
    for feature in features:
        columns = {joint: vectors[feature.key][:, column] for joint, column in feature.columns.items()}
        reason = contradiction_of_percent({joint: [float(v.min()), float(v.max())] for joint, v in columns.items()})
        if reason:
            raise ValueError(f"{feature.key} is not in percent: {reason}. It was recorded in degrees")


def looks_like_percent(vectors: Mapping[str, NDArray], features: Iterable[JointFeature]) -> bool:
    """Whether body joints reach exactly 100 and never go beyond: clamped percent do so, degrees by chance at most.

    Args:
        vectors: Key -> recorded vectors, shape (frames, width).
        features: Features with joints.
    """
    return max((abs(values).max() for values in _body_joints(vectors, features)), default=0) == 100


def _body_joints(vectors: Mapping[str, NDArray], features: Iterable[JointFeature]) -> Iterator[NDArray]:
    for feature in features:
        for joint, column in feature.columns.items():
            if is_body_joint(joint):
                yield vectors[feature.key][:, column]
