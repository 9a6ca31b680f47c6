"""Units of a recorded arm: what the numbers of a LeRobot data set mean, and their conversion to degrees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arms.annotation import ArmAnnotation, read_annotation
from .arms.arm_facts import DEGREES, calibrated_ranges_deg
from .arms.contract_terms import UNKNOWN, ArmContract
from .arms.joints import NormMode, joint_modes

DEG, PERCENT_SIGN, AS_RECORDED = "deg", "%", "as recorded"
# What the whole calibrated range is, and the value in its middle.
_SPANS = {NormMode.PERCENT: (200.0, 0.0), NormMode.GRIPPER: (100.0, 50.0)}


@dataclass(frozen=True)
class ArmUnits:
    """How the joint values of a data set become degrees; a LeRobot data set stores neither unit nor calibration.

    Attributes:
        joint_unit: "degrees", "percent" or "unknown", of the body joints; a gripper is in 0..100 either way.
        ranges_deg: Joint -> how far it turns between the ends of its calibrated range, in [deg]. Percent of a joint
            without one stay percent.
    """

    joint_unit: str = UNKNOWN
    ranges_deg: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_annotation(cls, annotation: ArmAnnotation) -> "ArmUnits":
        """Units of the arm that `meta/arm.json` describes.

        Args:
            annotation: Of the data set.
        """
        return cls(annotation.joint_unit, calibrated_ranges_deg(annotation.calibration))

    def unit(self, joint: str) -> str:
        """Unit after `convert`: "deg", "%", or "as recorded" where nobody knows.

        Args:
            joint: Name without LeRobot's ".pos".
        """
        if self.joint_unit == UNKNOWN:
            return AS_RECORDED
        return DEG if self._mode(joint) is NormMode.DEGREES or joint in self.ranges_deg else PERCENT_SIGN

    def convert(self, values: NDArray, joints: Sequence[str]) -> NDArray[np.float64]:
        """Convert recorded units to degrees where that is possible.

        Percent become degrees from the middle of the range, in the direction in which the percent grow.

        Args:
            values: Joint positions in the data set's units, (..., j).
            joints: Names of the last axis.

        Returns:
            The same shape, in the units that `unit` names.
        """
        converted = np.array(values, dtype=np.float64)
        if self.joint_unit == UNKNOWN:
            return converted
        for column, joint in enumerate(joints):
            if joint in self.ranges_deg and (mode := self._mode(joint)) is not NormMode.DEGREES:
                span, middle = _SPANS[mode]
                converted[..., column] = (converted[..., column] - middle) / span * self.ranges_deg[joint]
        return converted

    def _mode(self, joint: str) -> NormMode:
        return joint_modes([joint], degrees=self.joint_unit == DEGREES)[joint]


def recorded_units(dataset_root: Path, contract: ArmContract | None) -> ArmUnits:
    """Units of a data set: as its annotation says, else as the checkpoint's contract does.

    Args:
        dataset_root: The data set's folder.
        contract: Of the checkpoint; None if it has none.

    Raises:
        ValueError: The annotation is damaged, or says another unit than the checkpoint was trained in.
    """
    trained = contract or ArmContract()
    annotation = read_annotation(dataset_root)
    if annotation is None:
        return ArmUnits(trained.joint_unit, trained.ranges_deg)
    if trained.joint_unit not in (UNKNOWN, annotation.joint_unit):
        raise ValueError(
            f"the checkpoint was trained in {trained.joint_unit}, {dataset_root} was recorded in "
            f"{annotation.joint_unit}; convert it with `lerobot-vla retarget`, or name data like those of the training"
        )
    return ArmUnits.of_annotation(annotation)
