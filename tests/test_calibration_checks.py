"""Every check finds the fault it is for, says so in numbers with a remedy, and leaves healthy arms alone."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from lerobot.motors import MotorCalibration

from lerobot_vla_plugin.arms.calibration import example_calibration, load_calibration
from lerobot_vla_plugin.arms.calibration_checks import CalibrationProblem, check_calibration, check_pair

EXAMPLES = {
    "so_follower": "so101_follower",
    "so_leader": "so101_leader",
    "koch_follower": "koch_follower",
    "koch_leader": "koch_leader",
}
REAL_FILES = sorted(Path(__file__).resolve().parents[2].glob("shared/data/calibration/*.json"))


def problems_with(
    robot_name: str, joint: str, changes: dict[str, int], *, degrees: bool = True
) -> list[CalibrationProblem]:
    """Problems of an example after a change to one joint; LeRobot's type, which takes any value."""
    ours = example_calibration(robot_name, EXAMPLES[robot_name])
    theirs = {name: MotorCalibration(**{f: getattr(ours[name], f) for f in ours[name].__slots__}) for name in ours}
    for field, value in changes.items():
        setattr(theirs[joint], field, value)
    return check_calibration(theirs, robot_name, degrees=degrees)


@pytest.mark.parametrize("robot_name", EXAMPLES)
@pytest.mark.parametrize("degrees", [True, False])
def test_shipped_calibrations_are_healthy(robot_name: str, degrees: bool) -> None:
    assert check_calibration(example_calibration(robot_name, EXAMPLES[robot_name]), robot_name, degrees=degrees) == []


@pytest.mark.parametrize("arm", ["so", "koch"])
def test_shipped_leaders_and_followers_agree(arm: str) -> None:
    leader, follower = f"{arm}_leader", f"{arm}_follower"
    pair = [example_calibration(name, EXAMPLES[name]) for name in (leader, follower)]
    assert check_pair(*pair) == []


@pytest.mark.skipif(not REAL_FILES, reason="the calibrations of real arms are not part of this project")
@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.stem)
def test_real_calibrations_are_healthy(path: Path) -> None:
    assert check_calibration(load_calibration(path), "so101_follower") == []


@pytest.mark.parametrize(
    ("robot_name", "joint", "changes", "message", "remedy"),
    [
        (
            "so_leader",
            "wrist_roll",
            {"id": 2},
            r"servo id 2 also belongs to \['shoulder_lift'\]",
            "lerobot-setup-motors",
        ),
        ("so_follower", "elbow_flex", {"range_max": 861}, r"861\.\.861 \[ticks\] is empty", "one end to the other"),
        ("so_follower", "elbow_flex", {"range_max": 500}, r"861\.\.500 \[ticks\] is reversed", "one end to the other"),
        ("so_follower", "gripper", {"range_max": 2100}, "suspiciously small: 102 ticks, 9 deg", "open and close"),
        ("koch_leader", "gripper", {"range_min": 2700}, "suspiciously small: 94 ticks, 8 deg", "open and close"),
        ("so_leader", "wrist_flex", {"range_max": 1200}, "suspiciously small: 384 ticks, 34 deg", "both ends"),
        ("so_follower", "shoulder_pan", {"range_min": 3, "range_max": 4091}, "359 deg.*jumped between 0", "middle"),
        ("so_follower", "elbow_flex", {"range_max": 4266}, r"861\.\.4266 .* crosses the encoder's seam", "middle"),
        ("koch_follower", "elbow_flex", {"range_max": 4300}, r"816\.\.4300 .* crosses", "middle"),
        (
            "koch_follower",
            "elbow_flex",
            {"homing_offset": 2047},
            r"starts anew at 2047, inside.*4096 ticks",
            "koch_vla",
        ),
        ("koch_follower", "elbow_flex", {"homing_offset": -2049}, "starts anew at 2047", "koch_vla_follower"),
        (
            "so_leader",
            "wrist_roll",
            {"homing_offset": -2048},
            r"-2048 does not fit.*-2047\.\.2047",
            "quarter of a turn",
        ),
        ("koch_follower", "gripper", {"homing_offset": -1_048_000}, r"1044479\.\.1044479", "quarter of a turn"),
        ("koch_leader", "gripper", {"drive_mode": 3}, "expected drive_mode 0 or 1, got 3", "lerobot-calibrate"),
        ("so_follower", "gripper", {"drive_mode": 1}, "STS3215 has no drive mode", "writes 0"),
        ("koch_leader", "elbow_flex", {"drive_mode": 0}, "drive_mode is 0, .* writes 1: .*opposite", "drive mode"),
        ("koch_follower", "elbow_flex", {"drive_mode": 1}, "drive_mode is 1, .* writes 0: .*opposite", "drive mode"),
    ],
)
def test_a_fault_is_found_with_its_joint_numbers_and_remedy(
    robot_name: str, joint: str, changes: dict, message: str, remedy: str
) -> None:
    found = [problem for problem in problems_with(robot_name, joint, changes) if problem.joint == joint]
    assert len(found) == 1
    assert re.search(message, found[0].message)
    assert remedy in found[0].remedy
    assert str(found[0]) == f"{joint}: {found[0].message}; {found[0].remedy}"


def test_both_users_of_an_id_are_named() -> None:
    assert [problem.joint for problem in problems_with("so_leader", "wrist_roll", {"id": 2})] == [
        "shoulder_lift",
        "wrist_roll",
    ]


def test_mirrored_feetech_joints_are_worse_in_degrees() -> None:
    assert len(problems_with("so_follower", "elbow_flex", {"drive_mode": 1}, degrees=False)) == 1
    in_degrees = problems_with("so_follower", "elbow_flex", {"drive_mode": 1}, degrees=True)
    assert ["does nothing in degrees" in problem.message for problem in in_degrees] == [False, True]


def test_whole_turns_are_expected_only_where_lerobot_writes_them() -> None:
    whole_turn = {"range_min": 0, "range_max": 4095}
    assert problems_with("koch_follower", "shoulder_pan", whole_turn) == []
    assert len(problems_with("so_follower", "shoulder_pan", whole_turn)) == 1


def test_missing_and_foreign_joints_are_named() -> None:
    calibration = example_calibration("so_follower", "so101_follower")
    calibration["elbow"] = replace(calibration.pop("elbow_flex"), id=9)
    found = {problem.joint: problem.message for problem in check_calibration(calibration, "so_follower")}
    assert found.keys() == {"elbow_flex", "elbow"}
    assert "not calibrated" in found["elbow_flex"]
    assert "no joint of this arm" in found["elbow"]


def test_an_unknown_arm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown arm 'moss'; there are .*'koch_leader'"):
        check_calibration({}, "moss")


def test_a_joint_that_was_moved_through_less_on_one_arm_is_found() -> None:
    leader = example_calibration("so_leader", "so101_leader")
    follower = example_calibration("so_follower", "so101_follower")
    narrow = replace(leader["elbow_flex"], range_max=leader["elbow_flex"].range_max - 400)
    (problem,) = check_pair(leader | {"elbow_flex": narrow}, follower)
    assert problem.joint == "elbow_flex"
    assert "1814 ticks (159 deg)" in problem.message
    assert "at 100 % the two stand up to 37 deg apart" in problem.message
    assert "for the leader" in problem.remedy
    (problem,) = check_pair(follower, leader | {"elbow_flex": narrow})
    assert "for the follower" in problem.remedy


def test_grippers_may_differ_and_joints_may_not_be_missing() -> None:
    leader = example_calibration("so_leader", "so101_leader")
    wide = leader | {"gripper": replace(leader["gripper"], range_min=0, range_max=4000)}
    assert check_pair(leader, wide) == []
    fewer = {name: joint for name, joint in leader.items() if name != "wrist_roll"}
    assert [str(problem) for problem in check_pair(leader, fewer)] == [
        "wrist_roll: the follower has no such joint; choose arms of one kind"
    ]
