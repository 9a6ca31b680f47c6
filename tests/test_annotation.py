"""meta/arm.json: what is written is read back, and what was changed is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_vla_plugin.arms.annotation import ANNOTATION_FILE, ArmAnnotation, read_annotation, write_annotation
from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration

SO101 = example_calibration("so_follower", "so101_follower")
ANNOTATION = ArmAnnotation("so_follower", "so101_follower", "degrees", SO101)


@st.composite
def joint_calibrations(draw) -> JointCalibration:
    low, high = sorted(draw(st.lists(st.integers(0, 4095), min_size=2, max_size=2, unique=True)))
    return JointCalibration(
        id=draw(st.integers(0, 253)),
        drive_mode=draw(st.integers(0, 1)),
        homing_offset=draw(st.integers(-2047, 2047)),
        range_min=low,
        range_max=high,
    )


annotations = st.builds(
    ArmAnnotation,
    robot_type=st.text(min_size=1),
    robot_id=st.text(min_size=1),
    joint_unit=st.sampled_from(["degrees", "percent"]),
    calibration=st.dictionaries(st.text(), joint_calibrations(), min_size=1, max_size=7).filter(
        lambda joints: len({joint.id for joint in joints.values()}) == len(joints)
    ),
)


@pytest.fixture
def folder(tmp_path) -> Path:
    """As much of a data set as an annotation needs."""
    (tmp_path / "meta").mkdir()
    return tmp_path


@given(annotation=annotations)
def test_what_is_written_is_read_back(tmp_path_factory, annotation):
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "meta").mkdir()
    write_annotation(folder, annotation)
    assert read_annotation(folder) == annotation
    assert read_annotation(folder).fingerprint == annotation.fingerprint


def test_a_data_set_without_annotation_has_none(folder):
    assert read_annotation(folder) is None


@given(data=st.data())
def test_any_changed_number_is_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("changed")
    (folder / "meta").mkdir()
    path = write_annotation(folder, ANNOTATION)
    entries = json.loads(path.read_text())
    joint = entries["calibration"][data.draw(st.sampled_from(sorted(SO101)))]
    field = data.draw(st.sampled_from(sorted(joint)))
    joint[field] += data.draw(st.integers(-3000, 3000).filter(bool))
    path.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"arm\.json"):
        read_annotation(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "expected version 1, got 2; upgrade"),
        ({"version": None}, "expected version 1, got None"),
        ({"joint_unit": "radians"}, "joint_unit must be one of .*degrees.*percent.*, got 'radians'"),
        ({"robot_type": ""}, "robot_type must be a name"),
        ({"robot_id": 7}, "robot_id must be a name, got 7"),
        ({"calibration": {}}, "expected a JSON object of joints"),
        ({"calibration": {"gripper": {"id": 6}}}, "'gripper' expected the fields"),
        ({"fingerprint": "0" * 16}, "the calibration was changed"),
        ({"owner": "me"}, "expected the fields"),
    ],
)
def test_a_damaged_file_is_refused_with_a_remedy(folder, change, message):
    path = write_annotation(folder, ANNOTATION)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=rf"arm\.json: .*{message}.*--overwrite"):
        read_annotation(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"version": 1}'])
def test_what_is_no_annotation_is_refused(folder, content):
    (folder / ANNOTATION_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"arm\.json"):
        read_annotation(folder)


def test_another_annotation_is_replaced_only_on_request(folder):
    path = write_annotation(folder, ANNOTATION)
    assert write_annotation(folder, ANNOTATION) == path
    other = replace(ANNOTATION, joint_unit="percent")
    with pytest.raises(FileExistsError, match=r"joint_unit=degrees.*joint_unit=percent.*--overwrite"):
        write_annotation(folder, other)
    assert read_annotation(folder) == ANNOTATION
    write_annotation(folder, other, overwrite=True)
    assert read_annotation(folder) == other


def test_a_damaged_annotation_is_replaced_only_on_request(folder):
    (folder / ANNOTATION_FILE).write_text("{")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_annotation(folder, ANNOTATION)
    write_annotation(folder, ANNOTATION, overwrite=True)
    assert read_annotation(folder) == ANNOTATION


def test_a_failed_write_leaves_what_was_there(folder, monkeypatch):
    write_annotation(folder, ANNOTATION)

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_annotation(folder, replace(ANNOTATION, robot_id="other"), overwrite=True)
    assert read_annotation(folder) == ANNOTATION
    assert [path.name for path in (folder / "meta").iterdir()] == ["arm.json"]


def test_only_a_data_set_is_annotated(tmp_path):
    with pytest.raises(FileNotFoundError, match="no LeRobot data set"):
        write_annotation(tmp_path, ANNOTATION)
