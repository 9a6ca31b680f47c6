"""`lerobot-vla annotate`: write down which arm, unit and calibration a data set was recorded with."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lerobot.datasets.utils import DatasetInfo
from numpy.typing import NDArray

from .arms.annotation import ANNOTATION_FILE, ArmAnnotation, write_annotation
from .arms.arm_facts import DEGREES, PERCENT
from .arms.calibration import find_calibration
from .arms.calibration_checks import check_calibration
from .joint_dataset import JointFeature, find_dataset, joint_features, read_info, read_vectors
from .recorded_arm import (
    check_joint_names,
    check_joint_unit,
    check_robot_type,
    default_use_degrees,
    follower,
    load_recorded_calibration,
    looks_like_percent,
)
from .retarget_vectors import out_of_range

_BOOLEANS = {"true": True, "false": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options, spelled as those of the `lerobot-record` that recorded the data set."""
    parser.allow_abbrev = False
    parser.formatter_class = argparse.HelpFormatter
    parser.epilog = (
        "Writes meta/arm.json into the data set. Training with this plugin keeps it in the checkpoint, so that no arm "
        "set to another unit is driven with it, and `lerobot-vla retarget` reads it. No arm needs to be connected."
    )
    parser.add_argument("dataset", help="folder of the data set, or its repo id under LeRobot's home")
    parser.add_argument("--root", type=Path, help="the data set's folder, as in LeRobot's --dataset.root")
    parser.add_argument("--robot.type", dest="robot_type", required=True, help="e.g. so101_follower or koch_follower")
    parser.add_argument("--robot.id", dest="robot_id", required=True, help="names the calibration file")
    parser.add_argument(
        "--robot.calibration_dir",
        dest="calibration_dir",
        type=Path,
        help="folder of the calibration file; LeRobot's own folders if left out",
    )
    parser.add_argument(
        "--robot.use_degrees",
        dest="use_degrees",
        choices=_BOOLEANS,
        help="whether the data set was recorded in degrees, not percent; LeRobot's default of the robot type if left "
        "out: true for so101_follower, false for koch_follower",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an annotation that says something else")


def run(args: argparse.Namespace) -> int:
    """Annotate and say what to do next; 0 done, 2 could not."""
    try:
        annotation, path = _annotation(args)
        dataset = find_dataset(args.dataset, args.root)
        remarks = annotate(dataset, annotation, unit_was_said=bool(args.use_degrees), overwrite=args.overwrite)
    except (ValueError, OSError) as error:
        print(f"lerobot-vla annotate: {error}", file=sys.stderr)
        return 2
    print(
        f"Wrote {dataset / ANNOTATION_FILE}: {annotation.robot_type}, {annotation.joint_unit}, "
        f"calibration {annotation.fingerprint} from {path}"
    )
    for remark in remarks:
        print(f"  note: {remark}")
    return 0


def _annotation(args: argparse.Namespace) -> tuple[ArmAnnotation, Path]:
    device = follower(args.robot_type)
    path = find_calibration(device.name, args.robot_id, args.calibration_dir)
    degrees = _BOOLEANS[args.use_degrees] if args.use_degrees else default_use_degrees(device)
    unit = DEGREES if degrees else PERCENT
    return ArmAnnotation(device.name, args.robot_id, unit, load_recorded_calibration(path)), path


def annotate(
    dataset: Path, annotation: ArmAnnotation, *, unit_was_said: bool = True, overwrite: bool = False
) -> list[str]:
    """Write a data set's annotation, unless the data set contradicts it.

    Args:
        dataset: The data set's folder.
        annotation: What to write.
        unit_was_said: Whether a person vouches for the unit; else it is today's default, which has changed before.
        overwrite: Replace a different annotation.

    Returns:
        What a person should look at.

    Raises:
        FileNotFoundError: The data set is incomplete.
        FileExistsError: There is a different annotation, and `overwrite` is off.
        ValueError: The data set was recorded with another arm, other joints or, as it seems, another unit.
    """
    info = read_info(dataset)
    features = joint_features(info)
    check_robot_type(info, annotation.robot_type)
    check_joint_names(features, annotation.calibration)
    vectors = read_vectors(dataset, features)
    check_joint_unit(vectors, features, annotation.joint_unit)
    in_degrees = annotation.joint_unit == DEGREES
    if in_degrees and not unit_was_said and looks_like_percent(vectors, features):
        raise ValueError(
            "the joints reach exactly 100 and never go beyond, as percent do; LeRobot recorded percent by default "
            "before 0.4.4. Say --robot.use_degrees=false, or --robot.use_degrees=true if you know better"
        )
    problems = check_calibration(annotation.calibration, annotation.robot_type, degrees=in_degrees)
    write_annotation(dataset, annotation, overwrite=overwrite)
    return [*map(str, problems), *_excursions(vectors, features, annotation), *_unchecked(info, unit_was_said)]


def _unchecked(info: DatasetInfo, unit_was_said: bool) -> Iterator[str]:
    if info.robot_type is None:
        yield "the data set does not name its arm: whether it was this one cannot be checked"
    if not unit_was_said:
        yield "the unit is LeRobot's default today; if it was another one, say --robot.use_degrees=... --overwrite"


def _excursions(
    vectors: Mapping[str, NDArray], features: list[JointFeature], annotation: ArmAnnotation
) -> Iterator[str]:
    """Joints that were outside the range that the calibration says they have."""
    for feature in features:
        outside = out_of_range(vectors[feature.key], feature, annotation).sum(axis=0)
        for count, (joint, column) in zip(outside, feature.columns.items(), strict=True):
            if count:
                values = vectors[feature.key][:, column]
                yield (
                    f"{joint} of {feature.key} runs from {values.min():.1f} to {values.max():.1f} deg and is outside "
                    f"its calibrated range in {count} of {len(values)} frames; if these are many, the data set was "
                    "recorded with another calibration, or in percent"
                )
