"""What a checkpoint was trained on, and whether an arm is that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lerobot_vla_plugin.arms.arm_facts import DEGREES, PERCENT, ArmFacts, calibrated_ranges_deg, is_body_joint

UNKNOWN = "unknown"
# What `--policy.contract_overrides` takes.
OVERRIDES = ("robot_type", "joints", "unit", "cameras", "fps")

# LeRobot clips percent readings at 100; float32 and a policy's own overshoot may lie a little beyond.
PERCENT_LIMIT = 100.5


@dataclass
class ArmContract:
    """What a checkpoint was trained on, saved in its `config.json`. What nobody knows is empty, None or "unknown".

    Attributes:
        robot_type: LeRobot's present name of the arm, e.g. "so_follower".
        joint_names: Names of the action's joints, in the order of the training data.
        joint_unit: "degrees", "percent" or "unknown", of the body joints; a gripper is in 0..100 either way.
        fps: Rate of the training data, in [Hz].
        cameras: Name -> [height, width] in [pixels], by the policy's own names.
        calibration_fingerprint: Of the arm that recorded the data.
        ranges_deg: Joint -> how far it could turn under that calibration, in [deg].
        spans: Joint -> [lowest, highest] action of the training data, in the data's unit: what the post-processor
            clamps to. A recorded span, not the calibrated one, because nothing beyond it was ever shown to be safe.
    """

    robot_type: str = UNKNOWN
    joint_names: list[str] = field(default_factory=list)
    joint_unit: str = UNKNOWN
    fps: float | None = None
    cameras: dict[str, list[int]] = field(default_factory=dict)
    calibration_fingerprint: str | None = None
    ranges_deg: dict[str, float] = field(default_factory=dict)
    spans: dict[str, list[float]] = field(default_factory=dict)


class Verdict(StrEnum):
    """How a term of the contract stands."""

    FITS = "fits"
    DIFFERS = "DIFFERS"
    LATER = "to be seen"
    UNCHECKED = "NOT CHECKED"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One term of the contract held against an arm.

    Attributes:
        term: What was looked at; one of `OVERRIDES`, or "calibration".
        verdict: How it stands; LATER where only the policy's calls and batches show it.
        message: Both sides, and the remedy where they differ.
    """

    term: str
    verdict: Verdict
    message: str

    def __str__(self) -> str:
        return f"{self.term}: {self.verdict}: {self.message}"


def compare(contract: ArmContract, facts: ArmFacts, *, unit_needed: bool, with_cameras: bool) -> list[Finding]:
    """Hold an arm against a contract, term by term.

    Args:
        contract: What the checkpoint was trained on.
        facts: What the arm shows.
        unit_needed: An unknown unit of the checkpoint is a difference, not merely unchecked.
        with_cameras: Look at the cameras too; a batch shows them better, because they may have been renamed.
    """
    later = Finding("cameras", Verdict.LATER, "names and sizes are compared in every batch")
    return [
        _check_robot_type(contract, facts),
        _check_joints(contract, facts),
        _check_unit(contract, facts, unit_needed),
        _check_calibration(contract, facts),
        _check_cameras(contract, facts) if with_cameras else later,
        _expect_rate(contract, facts),
    ]


def _check_robot_type(contract: ArmContract, facts: ArmFacts) -> Finding:
    return _finding(
        "robot_type",
        unknown=contract.robot_type == UNKNOWN and "the checkpoint does not say which arm it was trained on",
        differs=contract.robot_type != facts.robot_type
        and f"trained on {contract.robot_type}, this is {facts.robot_type}; use the arm that the data came from",
        fits=facts.robot_type,
    )


def _check_joints(contract: ArmContract, facts: ArmFacts) -> Finding:
    swapped = sorted(contract.joint_names) == sorted(facts.joint_names)
    what = "the same joints in another order" if swapped else "other joints"
    return _finding(
        "joints",
        unknown=not contract.joint_names and "the checkpoint does not say which joints it was trained on",
        differs=contract.joint_names != facts.joint_names
        and f"{what}: trained on {contract.joint_names}, the arm takes {facts.joint_names}, and LeRobot matches them "
        "by position; train on data recorded with this arm",
        fits=", ".join(facts.joint_names),
    )


_UNIT_REMEDIES = {
    (PERCENT, DEGREES): "run the arm with --robot.use_degrees=false",
    (DEGREES, PERCENT): "run the arm with --robot.use_degrees=true",
}


def _check_unit(contract: ArmContract, facts: ArmFacts, needed: bool) -> Finding:
    trained, shown = contract.joint_unit, facts.joint_unit
    ask = (
        "the checkpoint does not say whether it was trained in degrees or percent: say --policy.joint_unit=degrees or "
        "--policy.joint_unit=percent (or annotate the data set with `lerobot-vla annotate` and train again)"
    )
    if trained == UNKNOWN:
        return Finding("unit", Verdict.DIFFERS if needed else Verdict.UNCHECKED, ask)
    return _finding(
        "unit",
        unknown=shown is None and f"the arm does not show its unit; it must be {trained}",
        differs=trained != shown
        and f"trained in {trained}, the arm is set to {shown}; {_UNIT_REMEDIES.get((trained, str(shown)))}, or convert "
        "the data with `lerobot-vla retarget` and train again",
        fits=str(shown),
    )


def _check_calibration(contract: ArmContract, facts: ArmFacts) -> Finding:
    """Another calibration is never refused: every arm of a kind has its own, and LeRobot's units are relative to it."""
    trained, shown = contract.calibration_fingerprint, facts.calibration_fingerprint
    if trained is None or shown is None:
        side = "checkpoint" if trained is None else "arm"
        return Finding("calibration", Verdict.UNCHECKED, f"the {side} does not say which one it has")
    if trained == shown:
        return Finding("calibration", Verdict.FITS, shown)
    ranges = calibrated_ranges_deg(facts.calibration)
    changed = [
        f"{name} turns {ranges[name]:.0f} deg here, {then:.0f} there"
        for name, then in contract.ranges_deg.items()
        if abs(ranges.get(name, then) - then) > 1
    ]
    meaning = {
        PERCENT: "so the same percent is another angle where the ranges differ",
        DEGREES: "so 0 degrees, the middle of a joint's range, may lie elsewhere",
    }.get(contract.joint_unit, "so the same number may be another angle")
    return Finding(
        "calibration",
        Verdict.WARNING,
        f"trained with {trained}, this arm has {shown}, {meaning} ({'; '.join(changed) or 'the ranges are the same'}). "
        "Another arm of the same kind is fine; if it is the same arm calibrated anew, `lerobot-vla retarget` converts "
        "the data",
    )


def _check_cameras(contract: ArmContract, facts: ArmFacts) -> Finding:
    trained = {name: tuple(size) for name, size in contract.cameras.items()}
    absent = [name for name in trained if name not in facts.cameras]
    other_size = [name for name, size in trained.items() if facts.cameras.get(name) not in (None, size)]
    return _finding(
        "cameras",
        unknown=not trained and "the checkpoint does not say which cameras it was trained on",
        differs=bool(absent or other_size)
        and f"trained on {_sizes(trained)}, the arm has {_sizes(facts.cameras)}; name and set the cameras as they were "
        "in the training data (--rename_map cannot be seen here: override this if you give it)",
        fits=_sizes(trained),
    )


def _expect_rate(contract: ArmContract, facts: ArmFacts) -> Finding:
    if contract.fps is None:
        return Finding("fps", Verdict.UNCHECKED, "the checkpoint does not say at which rate it was trained")
    if facts.rate_hz is not None:
        other = f"trained at {contract.fps:g} actions a second, not {facts.rate_hz:g}; say --env.fps={contract.fps:g}"
        return _finding("fps", unknown=False, differs=facts.rate_hz != contract.fps and other, fits=f"{contract.fps:g}")
    return Finding("fps", Verdict.LATER, f"--fps={contract.fps:g} is expected, and measured from the first actions on")


def _sizes(cameras: Mapping[str, tuple[int, ...] | None]) -> str:
    shown = (f"{name} {size[1]}x{size[0]}" if size else name for name, size in cameras.items())
    return ", ".join(shown) or "none"


def _finding(term: str, *, unknown: str | bool, differs: str | bool, fits: str) -> Finding:
    """The first that applies; False means that it does not."""
    if unknown:
        return Finding(term, Verdict.UNCHECKED, str(unknown))
    return Finding(term, Verdict.DIFFERS, str(differs)) if differs else Finding(term, Verdict.FITS, fits)


def contradiction_of_percent(spans: Mapping[str, list[float]]) -> str | None:
    """Why these joint values cannot be percent; None if they can.

    Args:
        spans: Joint -> [lowest, highest].
    """
    for joint, (low, high) in spans.items():
        if is_body_joint(joint) and max(-low, high) > PERCENT_LIMIT:
            return f"{joint} runs from {low:.1f} to {high:.1f}, percent never leaves -100..100"
    return None
