"""`lerobot-vla retarget`: a copy of a data set with its joint values in another unit or under another calibration."""

import argparse
import sys
from pathlib import Path

from .arms.annotation import ANNOTATION_FILE, JOINT_UNITS, ArmAnnotation, read_annotation
from .arms.arm_facts import canonical_robot_type
from .arms.calibration import find_calibration
from .joint_dataset import find_dataset, foreign_statistics, joint_features, read_info, read_vectors
from .recorded_arm import check_joint_names, check_joint_unit, check_robot_type, follower, load_recorded_calibration
from .retarget_dataset import write_retargeted
from .retarget_vectors import JointLoss, retarget_vectors

# One frame in a hundred of one joint: a stray reading beyond the calibrated end is common, a clipped motion is not.
_LARGEST_CLAMPED_SHARE = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.allow_abbrev = False
    parser.formatter_class = argparse.HelpFormatter
    parser.epilog = (
        "The unit and calibration of the recording come from the data set's meta/arm.json, which `lerobot-vla "
        "annotate` writes, or from --source-unit and --source-calibration. Joints, their statistics and meta/arm.json "
        "are written anew; pictures, videos, tasks and all else are copied. The data set itself is not touched."
    )
    parser.add_argument("dataset", help="folder of the data set, or its repo id under LeRobot's home")
    parser.add_argument("output", type=Path, help="folder to write; must not exist yet")
    parser.add_argument("--root", type=Path, help="the data set's folder, as in LeRobot's --dataset.root")
    parser.add_argument("--joint-unit", choices=JOINT_UNITS, help="unit to write; as recorded if left out")
    parser.add_argument(
        "--calibration",
        metavar="FILE_OR_ID",
        help="calibration to write for; as recorded if left out",
    )
    arm = parser.add_mutually_exclusive_group()
    arm.add_argument(
        "--same-arm",
        action="store_true",
        help="the calibrations are of one arm: keep the pose that it stood in, through the encoders (default)",
    )
    arm.add_argument(
        "--other-arm",
        action="store_true",
        help="the calibrations are of two arms of one kind: keep the share of each joint's range",
    )
    parser.add_argument("--source-unit", choices=JOINT_UNITS, help="unit of the recording")
    parser.add_argument("--source-calibration", metavar="FILE_OR_ID", help="calibration of the recording")
    parser.add_argument(
        "--calibration-dir", type=Path, help="folder of the calibrations; LeRobot's own folders if left out"
    )
    parser.add_argument(
        "--allow-clamping",
        action="store_true",
        help=f"write even if more than {_LARGEST_CLAMPED_SHARE:.0%}% of a joint's frames become the end of its range",
    )


def run(args: argparse.Namespace) -> int:
    """Retarget and say what was lost and what to do next; 0 done, 2 could not."""
    try:
        root = find_dataset(args.dataset, args.root)
        source = _source(root, args)
        target = _target(source, args)
        remarks = retarget(
            root, args.output, source, target, same_arm=not args.other_arm, allow_clamping=args.allow_clamping
        )
    except (ValueError, OSError) as error:
        print(f"lerobot-vla retarget: {error}", file=sys.stderr)
        return 2
    print(f"Wrote {args.output}: {target.joint_unit}, calibration {target.fingerprint}. Train on it with:")
    print(f"  lerobot-train --dataset.repo_id=local/{args.output.name} --dataset.root={args.output} ...")
    for remark in remarks:
        print(f"  note: {remark}")
    return 0


def retarget(
    root: Path,
    output: Path,
    source: ArmAnnotation,
    target: ArmAnnotation,
    *,
    same_arm: bool = True,
    allow_clamping: bool = False,
) -> list[str]:
    """Write a copy of a data set with its joint values expressed otherwise.

    Args:
        root: Folder of the data set.
        output: Folder to write.
        source: What the data set's values mean.
        target: What the new data set's values shall mean.
        same_arm: Keep the pose, through the encoders; else keep the share of each joint's range.
        allow_clamping: Write however many values the target cannot express.

    Returns:
        What a person should look at.

    Raises:
        FileExistsError: `output` exists.
        ValueError: It cannot be known what the values mean, or too many of them would be lost.
    """
    if output.exists():
        raise FileExistsError(f"{output} exists; name a new folder")
    if (source.joint_unit, source.fingerprint) == (target.joint_unit, target.fingerprint):
        raise ValueError(f"the data set already is in {source.joint_unit} under calibration {source.fingerprint}")
    info = read_info(root)
    features = joint_features(info)
    for arm in (source, target):
        check_robot_type(info, arm.robot_type)
        check_joint_names(features, arm.calibration)
    vectors = read_vectors(root, features)
    check_joint_unit(vectors, features, source.joint_unit)
    retargeted, losses = retarget_vectors(vectors, features, source, target, same_arm=same_arm)
    clamped = [loss for loss in losses if loss.clamped > _LARGEST_CLAMPED_SHARE * loss.frames]
    if clamped and not allow_clamping:
        raise ValueError(
            f"{target.joint_unit} under calibration {target.fingerprint} cannot express these values:\n"
            + "".join(f"  {_describe(loss)}\n" for loss in clamped)
            + "If the calibrations are the right ones, add --allow-clamping"
        )
    write_retargeted(root, output, retargeted, target)
    return [*map(_describe, losses), *map(_describe_statistics, foreign_statistics(root, vectors))]


def _source(root: Path, args: argparse.Namespace) -> ArmAnnotation:
    """What the recorded values mean.

    Raises:
        ValueError: The data set does not say so and the options neither, or both say it.
    """
    annotation = read_annotation(root)
    options = (args.source_unit, args.source_calibration)
    if annotation and any(options):
        raise ValueError(
            f"{root / ANNOTATION_FILE} says what was recorded: leave --source-unit and --source-calibration out, or "
            "correct it with `lerobot-vla annotate ... --overwrite`"
        )
    if annotation:
        return annotation
    robot_type = read_info(root).robot_type
    if not all(options) or robot_type is None:
        raise ValueError(
            f"{root} does not say in which unit and under which calibration it was recorded. Annotate it: "
            f"lerobot-vla annotate {args.dataset} --robot.type=... --robot.id=..."
        )
    device = follower(canonical_robot_type(robot_type))
    return _arm(device.name, args.source_unit, args.source_calibration, args.calibration_dir)


def _target(source: ArmAnnotation, args: argparse.Namespace) -> ArmAnnotation:
    unit = args.joint_unit or source.joint_unit
    if args.calibration is None:
        return ArmAnnotation(source.robot_type, source.robot_id, unit, source.calibration)
    return _arm(source.robot_type, unit, args.calibration, args.calibration_dir)


def _arm(robot_type: str, joint_unit: str, file_or_id: str, calibration_dir: Path | None) -> ArmAnnotation:
    path = Path(file_or_id)
    if not path.is_file():
        path = find_calibration(robot_type, file_or_id, calibration_dir)
    return ArmAnnotation(robot_type, path.stem, joint_unit, load_recorded_calibration(path))


def _describe(loss: JointLoss) -> str:
    parts = {
        "become the end of the calibrated range": loss.clamped,
        "lie beyond the calibrated range, where the arm will stop short of them": loss.beyond,
        "were recorded at an end of the scale, which may hide what lay beyond": loss.at_ends,
    }
    told = "; ".join(f"{count} of {loss.frames} frames {what}" for what, count in parts.items() if count)
    return f"{loss.joint} of {loss.feature}: {told}"


def _describe_statistics(key: str) -> str:
    return (
        f"meta/stats.json did not hold the statistics of the recorded {key} (LeRobot's relative actions are like "
        "that); now it holds those of the frames. `lerobot-edit-dataset --operation.type=recompute_stats` writes others"
    )
