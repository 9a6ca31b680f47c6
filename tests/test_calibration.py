"""Calibration files: what LeRobot writes can be read, what it would choke on is named."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import draccus
import pytest
from lerobot.motors import MotorCalibration

from lerobot_vla_plugin.arms.calibration import (
    JointCalibration,
    example_calibration,
    example_calibration_dir,
    load_calibration,
    save_calibration,
)

SHIPPED = [("so_follower", "so101_follower"), ("so_leader", "so101_leader")]
JOINT = JointCalibration(1, 0, -100, 500, 3500)


@pytest.mark.parametrize(("robot_name", "robot_id"), SHIPPED)
def test_shipped_files_are_what_lerobot_reads(robot_name: str, robot_id: str) -> None:
    ours = example_calibration(robot_name, robot_id)
    path = example_calibration_dir(robot_name) / f"{robot_id}.json"
    with path.open() as file, draccus.config_type("json"):
        theirs = draccus.load(dict[str, MotorCalibration], file)
    assert {name: asdict(joint) for name, joint in ours.items()} == {
        name: vars(joint) for name, joint in theirs.items()
    }


@pytest.mark.parametrize(("robot_name", "robot_id"), SHIPPED)
def test_shipped_files_fit_the_servo(robot_name: str, robot_id: str) -> None:
    calibration = example_calibration(robot_name, robot_id)
    assert [joint.id for joint in calibration.values()] == [1, 2, 3, 4, 5, 6]
    assert all(0 < abs(joint.homing_offset) <= 2047 for joint in calibration.values())
    assert all(0 <= joint.range_min < joint.range_max <= 4095 for joint in calibration.values())
    assert (calibration["wrist_roll"].range_min, calibration["wrist_roll"].range_max) == (0, 4095)


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    calibration = {"a": JOINT, "b": replace(JOINT, id=2, drive_mode=1)}
    save_calibration(calibration, tmp_path / "new" / "arm.json")
    assert load_calibration(tmp_path / "new" / "arm.json") == calibration


def test_a_missing_file_names_those_beside_it(tmp_path: Path) -> None:
    save_calibration({"a": JOINT}, tmp_path / "here.json")
    with pytest.raises(FileNotFoundError, match=r"here\.json"):
        load_calibration(tmp_path / "there.json")
    with pytest.raises(FileNotFoundError, match="so_follower"):
        example_calibration_dir("so_nobody")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"motor_names": []}', "before June 2025"),
        (json.dumps({"elbow": {"id": 1}}), "'elbow' expected the fields"),
        (json.dumps({"elbow": asdict(JOINT) | {"range_min": 3500}}), "'elbow': range_min must be below"),
        (json.dumps({"elbow": asdict(JOINT) | {"homing_offset": 1.5}}), "homing_offset must be an integer"),
        (json.dumps({"elbow": asdict(JOINT) | {"drive_mode": 2}}), "drive_mode must be 0 or 1"),
        (json.dumps({"a": asdict(JOINT), "b": asdict(JOINT)}), "share a servo id"),
    ],
)
def test_broken_files_are_named_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "arm.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_calibration(path)
    assert str(path) in str(caught.value)
