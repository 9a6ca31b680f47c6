"""Recorded joint vectors expressed in another unit or under another calibration, and what is lost on the way."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arms.annotation import ArmAnnotation
from .arms.arm_facts import DEGREES
from .arms.joints import NormMode, joint_modes
from .arms.retarget_joints import JointSpace, joint_space, retarget_same_arm, retarget_same_kind
from .joint_dataset import JointFeature

_DOMAINS = {NormMode.PERCENT: (-100, 100), NormMode.GRIPPER: (0, 100)}


@dataclass(frozen=True)
class JointLoss:
    """Frames of one joint that do not come through unharmed.

    Attributes:
        feature: The feature's key, e.g. "action".
        joint: Name of the joint.
        frames: Frames in all.
        clamped: Frames outside the target's range whose unit cannot say so: they become the end of the range.
        beyond: Frames outside the target's range that degrees express all the same; the arm will stop short of them.
        at_ends: Frames that were recorded at an end of the scale, where percent hide what lay beyond.
    """

    feature: str
    joint: str
    frames: int
    clamped: int
    beyond: int
    at_ends: int


def retarget_vectors(
    vectors: Mapping[str, NDArray],
    features: Iterable[JointFeature],
    source: ArmAnnotation,
    target: ArmAnnotation,
    *,
    same_arm: bool,
) -> tuple[dict[str, NDArray], list[JointLoss]]:
    """Express all joint values of a data set in the target's unit and under its calibration.

    A joint whose unit and calibration stay the same keeps its values bit for bit, and so does what is no joint.

    Args:
        vectors: Key -> recorded vectors, shape (frames, width), finite.
        features: The joints in them.
        source: What the values mean.
        target: What the results shall mean.
        same_arm: Keep the pose, through the encoder; else keep the share of the range.

    Returns:
        Key -> new vectors of the same shapes and precision; and the joints with losses.

    Raises:
        ValueError: The arms are of different kinds, or a servo's direction was changed between the calibrations.
    """
    # With one calibration both ways lead to the same ticks, but the encoder's way folds them into one turn.
    convert = retarget_same_arm if same_arm and source.fingerprint != target.fingerprint else retarget_same_kind
    retargeted, losses = dict(vectors), []
    for feature in features:
        names, columns = list(feature.columns), list(feature.columns.values())
        recorded = vectors[feature.key][:, columns].astype(np.float64)
        result = convert(recorded, _space(source, names), _space(target, names))
        changed = np.array([_meaning(source, name) != _meaning(target, name) for name in names])
        retargeted[feature.key] = vectors[feature.key].copy()
        retargeted[feature.key][:, columns] = np.where(changed, result.values, recorded)
        out_of_range = result.out_of_range & changed
        at_ends = _at_ends(recorded, source, names) & changed
        losses.extend(_losses(feature.key, names, out_of_range, at_ends, target))
    return retargeted, losses


def out_of_range(vectors: NDArray, feature: JointFeature, arm: ArmAnnotation) -> NDArray[np.bool_]:
    """Where recorded values lie outside the calibrated range; percent cannot.

    Args:
        vectors: Recorded vectors, shape (frames, width).
        feature: The joints in them.
        arm: What the values mean.

    Returns:
        Shape (frames, joints), in the order of `feature.columns`.
    """
    space = _space(arm, list(feature.columns))
    return retarget_same_kind(vectors[:, list(feature.columns.values())], space, space).out_of_range


def _space(arm: ArmAnnotation, names: list[str]) -> JointSpace:
    ordered = {name: arm.calibration[name] for name in names}
    return joint_space(arm.robot_type, ordered, degrees=arm.joint_unit == DEGREES)


def _meaning(arm: ArmAnnotation, joint: str) -> tuple:
    return arm.calibration[joint], _mode(arm, joint)


def _mode(arm: ArmAnnotation, joint: str) -> NormMode:
    return joint_modes([joint], degrees=arm.joint_unit == DEGREES)[joint]


def _at_ends(values: NDArray, arm: ArmAnnotation, names: list[str]) -> NDArray[np.bool_]:
    low, high = np.transpose([_DOMAINS.get(_mode(arm, name), (-np.inf, np.inf)) for name in names])
    return (values <= low) | (values >= high)


def _losses(
    key: str, names: list[str], out_of_range: NDArray[np.bool_], at_ends: NDArray[np.bool_], target: ArmAnnotation
) -> Iterator[JointLoss]:
    for index, name in enumerate(names):
        outside, ends = int(out_of_range[:, index].sum()), int(at_ends[:, index].sum())
        in_degrees = _mode(target, name) is NormMode.DEGREES
        if outside or ends:
            frames = len(out_of_range)
            yield JointLoss(key, name, frames, 0 if in_degrees else outside, outside if in_degrees else 0, ends)
