"""The contract of a data set, written when training starts: LeRobot's metadata, and what it leaves out."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lerobot_vla_plugin.arms.annotation import ArmAnnotation, read_annotation
from lerobot_vla_plugin.arms.arm_facts import DEGREES, PERCENT, calibrated_ranges_deg, canonical_robot_type
from lerobot_vla_plugin.arms.contract_terms import UNKNOWN, ArmContract, contradiction_of_percent

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

logger = logging.getLogger(__name__)


def write_contract(
    meta: "LeRobotDatasetMetadata",
    cameras: Mapping[str, Sequence[int]],
    joint_unit: str | None = None,
    previous: ArmContract | None = None,
    *,
    unit_overridden: bool = False,
) -> ArmContract:
    """Write down what a policy is about to be trained on.

    Args:
        meta: The data set's metadata.
        cameras: The policy's cameras, name -> [height, width] in [pixels].
        joint_unit: The unit as given on the command line.
        previous: The contract so far, of the same data (a resumed training) or other data (fine-tuning).
        unit_overridden: Believe that values beyond 100 are percent: recorded actions of a policy may overshoot.

    Raises:
        ValueError: What was said, the annotation and the statistics contradict each other.
    """
    names = feature_joint_names(meta.features.get("action", {}))
    stats = meta.stats or {}
    spans = _spans(names, stats.get("action", {}))
    annotation = read_annotation(meta.root)
    robot_type = canonical_robot_type(meta.robot_type or UNKNOWN)
    _check_annotated_arm(annotation, robot_type)
    contract = ArmContract(
        robot_type=robot_type,
        joint_names=names,
        joint_unit=_annotated_or_said(annotation, joint_unit),
        fps=float(meta.fps),
        cameras={name: [int(length) for length in size] for name, size in cameras.items()},
        calibration_fingerprint=annotation.fingerprint if annotation else None,
        ranges_deg=calibrated_ranges_deg(annotation.calibration) if annotation else {},
        spans=spans,
    )
    if contract.joint_unit == UNKNOWN and previous is not None and previous.spans == spans != {}:
        contract.joint_unit = previous.joint_unit  # the very same numbers: a resumed training
    state = meta.features.get("observation.state", {})
    state_spans = _spans(feature_joint_names(state), stats.get("observation.state", {}))
    _settle_unit(contract, [spans, state_spans], unit_overridden)
    _announce(contract, meta.repo_id)
    return contract


def feature_joint_names(feature: Mapping[str, Any]) -> list[str]:
    """Names of a feature's joints; LeRobot's older data sets group them in a dictionary. Empty if there are none."""
    names = feature.get("names") or []
    return [name for group in names.values() for name in group] if isinstance(names, dict) else list(names)


def _spans(names: Sequence[str], stats: Mapping[str, Any]) -> dict[str, list[float]]:
    """[lowest, highest] of each joint; empty where the data set does not name them or has no such statistics."""
    lows, highs = (stats.get(bound, []) for bound in ("min", "max"))
    if not len(names) == len(lows) == len(highs):
        return {}
    return {name: [float(low), float(high)] for name, low, high in zip(names, lows, highs, strict=True)}


def _check_annotated_arm(annotation: ArmAnnotation | None, robot_type: str) -> None:
    if annotation is None or robot_type == UNKNOWN or canonical_robot_type(annotation.robot_type) == robot_type:
        return
    raise ValueError(
        f"the data set was recorded with {robot_type}, its meta/arm.json says {annotation.robot_type}; "
        "write it anew with `lerobot-vla annotate ... --overwrite`"
    )


def _annotated_or_said(annotation: ArmAnnotation | None, said: str | None) -> str:
    if annotation and said and annotation.joint_unit != said:
        raise ValueError(
            f"--policy.joint_unit={said}, but the data set's meta/arm.json says {annotation.joint_unit}; leave the "
            "option out, or correct the file with `lerobot-vla annotate ... --overwrite`"
        )
    return annotation.joint_unit if annotation else said or UNKNOWN


def _settle_unit(contract: ArmContract, all_spans: Sequence[Mapping[str, list[float]]], unit_overridden: bool) -> None:
    """Infer an unknown unit where the statistics decide it, and refuse one that they contradict."""
    contradictions = [reason for spans in all_spans if (reason := contradiction_of_percent(spans))]
    if contract.joint_unit == PERCENT and contradictions:
        if not unit_overridden:
            raise ValueError(
                f"the joint unit is said to be percent, but {contradictions[0]}: the data set is in degrees. Say "
                "--policy.joint_unit=degrees, or correct meta/arm.json with `lerobot-vla annotate ... --overwrite`. If "
                """a policy that overshot was recorded: --policy.contract_overrides='["unit"]'"""
            )
        logger.warning("Joint unit: percent, though %s [overridden]", contradictions[0])
    if contract.joint_unit == UNKNOWN and contradictions:
        logger.info("Joint unit: degrees, because %s", contradictions[0])
        contract.joint_unit = DEGREES


def _announce(contract: ArmContract, dataset: str) -> None:
    if contract.joint_unit != UNKNOWN:
        logger.info("Contract of this training: %s", contract)
        return
    logger.warning(
        "The joint unit of %s is UNKNOWN: LeRobot does not store it, and the recorded positions could be degrees or "
        "percent. The checkpoint will ask for it before it drives an arm. Say --policy.joint_unit=degrees or "
        "--policy.joint_unit=percent now, or annotate the data set: lerobot-vla annotate <dataset> --robot.type=... "
        "--robot.id=...",
        dataset,
    )
