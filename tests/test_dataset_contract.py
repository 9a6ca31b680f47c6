"""The contract of a data set: facts of LeRobot's metadata, and a unit that is said, annotated, proven or unknown."""

import logging
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lerobot.datasets import LeRobotDatasetMetadata
from test_contract import JOINTS, make_contract

from lerobot_vla_plugin.arms.annotation import ArmAnnotation, write_annotation
from lerobot_vla_plugin.arms.calibration import example_calibration
from lerobot_vla_plugin.arms.contract_terms import contradiction_of_percent
from lerobot_vla_plugin.arms.dataset_contract import write_contract


@pytest.fixture
def meta(dataset_root, tmp_path):
    """Metadata of a data set whose positions could be degrees or percent; without pictures, on a copy of its own."""
    shutil.copytree(dataset_root / "meta", tmp_path / "small" / "meta")
    return LeRobotDatasetMetadata("tests/small", root=tmp_path / "small")


def annotate(meta, joint_unit: str, robot_type: str = "so_follower") -> None:
    calibration = example_calibration("so_follower", "so101_follower")
    write_annotation(meta.root, ArmAnnotation(robot_type, "so101_follower", joint_unit, calibration))


def test_what_lerobot_stores(meta):
    contract = write_contract(meta, {"front": (48, 64)})
    assert (contract.robot_type, contract.joint_names, contract.fps) == ("so_follower", JOINTS, 10)
    assert contract.cameras == {"front": [48, 64]}
    for index, joint in enumerate(JOINTS):
        assert contract.spans[joint] == [meta.stats["action"][name][index] for name in ("min", "max")]


def test_an_unknown_unit_is_said_loudly_with_both_remedies(meta, caplog):
    assert write_contract(meta, {}).joint_unit == "unknown"
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "--policy.joint_unit=degrees" in record.getMessage()
    assert "lerobot-vla annotate" in record.getMessage()


@pytest.mark.parametrize("key", ["action", "observation.state"])
@pytest.mark.parametrize(("bound", "value"), [("max", 101), ("min", -101)])
def test_a_body_joint_beyond_100_decides(meta, key, bound, value):
    meta.stats[key][bound][0] = value
    assert write_contract(meta, {}).joint_unit == "degrees"
    with pytest.raises(ValueError, match=r"said to be percent, but shoulder_pan\.pos runs from"):
        write_contract(meta, {}, "percent")
    assert write_contract(meta, {}, "percent", unit_overridden=True).joint_unit == "percent"


@pytest.mark.parametrize(("names", "expected"), [(None, []), ({"motors": JOINTS}, JOINTS)])
def test_older_data_sets_name_their_joints_otherwise(meta, names, expected):
    meta.features["action"]["names"] = names
    contract = write_contract(meta, {})
    assert contract.joint_names == list(contract.spans) == expected


def test_a_gripper_decides_nothing(meta):
    meta.stats["action"]["max"][5] = 120
    assert write_contract(meta, {}).joint_unit == "unknown"


def test_annotation_gives_unit_and_calibration(meta):
    annotate(meta, "percent")
    contract = write_contract(meta, {})
    assert contract.joint_unit == "percent"
    assert contract.calibration_fingerprint == make_contract().calibration_fingerprint
    joint = example_calibration("so_follower", "so101_follower")["elbow_flex"]
    expected_deg = (joint.range_max - joint.range_min) * 360 / 4095
    assert contract.ranges_deg["elbow_flex"] == pytest.approx(expected_deg)


def test_what_is_said_against_the_annotation_is_refused(meta):
    annotate(meta, "percent")
    assert write_contract(meta, {}, "percent").joint_unit == "percent"
    with pytest.raises(ValueError, match=r"joint_unit=degrees, but the data set's meta/arm\.json says percent"):
        write_contract(meta, {}, "degrees")


def test_an_annotation_of_another_arm_is_refused(meta):
    annotate(meta, "percent", robot_type="koch_follower")
    with pytest.raises(ValueError, match=r"recorded with so_follower, its meta/arm\.json says koch_follower"):
        write_contract(meta, {})


def test_a_resumed_training_keeps_what_was_said_and_other_data_forget_it(meta):
    first = write_contract(meta, {}, "percent")
    assert write_contract(meta, {}, previous=first).joint_unit == "percent"
    meta.stats["action"]["max"][0] += 1
    assert write_contract(meta, {}, previous=first).joint_unit == "unknown"


@given(st.lists(st.floats(-400, 400), min_size=2, max_size=2).map(sorted))
def test_percent_is_contradicted_exactly_beyond_its_range(span):
    contradicted = contradiction_of_percent({"elbow_flex.pos": span}) is not None
    assert contradicted == any(abs(value) > 100.5 for value in span)
    assert contradiction_of_percent({"gripper.pos": span, "left_gripper.pos": span, "x.vel": span}) is None
