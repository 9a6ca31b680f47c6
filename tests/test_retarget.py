"""`lerobot-vla retarget`: what it is told, what it refuses, and what it says of losses."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import JOINTS
from tick_dataset import ACTION_TICKS, IN_PERCENT, NAMES, SO101, converter, digests, frames, load, run_retarget

from lerobot_vla_plugin.arms.annotation import ANNOTATION_FILE, read_annotation, write_annotation
from lerobot_vla_plugin.arms.calibration import JointCalibration, save_calibration


def recalibrated(shift_ticks: int) -> dict[str, JointCalibration]:
    """The same arm calibrated anew: ranges move with the offsets and are a little narrower.

    Not those of the gripper, and the wrist keeps its whole turn.
    """
    return {
        name: joint
        if name == "wrist_roll"
        else replace(
            joint,
            homing_offset=joint.homing_offset + shift_ticks,
            range_min=joint.range_min - shift_ticks + 30 * (name != "gripper"),
            range_max=joint.range_max - shift_ticks - 10 * (name != "gripper"),
        )
        for name, joint in SO101.items()
    }


def beyond(joint: str) -> int:
    """Recorded actions that the narrower range leaves out; at least both ends."""
    ticks = ACTION_TICKS[:, NAMES.index(f"{joint}.pos")]
    return int(((ticks < SO101[joint].range_min + 30) | (ticks > SO101[joint].range_max - 10)).sum())


def test_the_pose_is_kept_on_the_same_arm(recorded, tmp_path):
    """Feetech: encoder = present + homing offset, so a later calibration reads another number in the same pose."""
    save_calibration(recalibrated(25), tmp_path / "later.json")
    assert run_retarget(recorded, tmp_path / "new", f"--calibration={tmp_path / 'later.json'}") == 0
    annotation = read_annotation(tmp_path / "new")
    assert (annotation.robot_id, annotation.joint_unit) == ("later", "degrees")
    ticks = converter(annotation).to_exact_ticks(frames(tmp_path / "new", "action")) if annotation else None
    np.testing.assert_allclose(ticks, ACTION_TICKS - 25 * (np.array(NAMES) != "wrist_roll.pos"), atol=0.01)


def test_what_degrees_express_beyond_the_range_is_kept_and_told(recorded, tmp_path, capsys):
    save_calibration(recalibrated(25), tmp_path / "later.json")
    assert run_retarget(recorded, tmp_path / "new", f"--calibration={tmp_path / 'later.json'}") == 0
    said = capsys.readouterr().out
    for joint in JOINTS:
        told = f"note: {joint} of action: {beyond(joint)} of 24 frames lie beyond the calibrated range" in said
        assert told == (joint not in ("wrist_roll", "gripper"))


def test_what_percent_cannot_express_is_refused_or_allowed(recorded, tmp_path, capsys):
    save_calibration(recalibrated(25), tmp_path / "later.json")
    arguments = [recorded, tmp_path / "new", f"--calibration={tmp_path / 'later.json'}", "--joint-unit=percent"]
    assert run_retarget(*arguments) == 2
    said = capsys.readouterr().err
    assert f"elbow_flex of action: {beyond('elbow_flex')} of 24 frames become the end of the calibrated range" in said
    assert "--allow-clamping" in said
    assert not (tmp_path / "new").exists()
    assert run_retarget(*arguments, "--allow-clamping") == 0
    percent = frames(tmp_path / "new", "action")
    assert percent.max() == 100
    assert percent[:, 1:].min() == -100


def test_the_share_of_the_range_is_kept_on_another_arm(recorded, in_percent, tmp_path):
    other = {name: replace(joint, range_max=joint.range_min + 2000) for name, joint in SO101.items()}
    save_calibration(other, tmp_path / "other.json")
    options = ["--other-arm", f"--calibration={tmp_path / 'other.json'}"]
    assert run_retarget(in_percent, tmp_path / "percent", *options) == 0
    np.testing.assert_allclose(frames(tmp_path / "percent", "action"), frames(in_percent, "action"), atol=1e-4)
    assert run_retarget(recorded, tmp_path / "degrees", *options) == 0
    share = frames(in_percent, "action")[:, 1:] / 100
    np.testing.assert_allclose(frames(tmp_path / "degrees", "action")[:, 1:], share * 1000 * 360 / 4095, atol=1e-3)


def test_values_at_an_end_of_the_scale_are_told(in_percent, tmp_path, capsys):
    assert run_retarget(in_percent, tmp_path / "back", "--joint-unit=degrees") == 0
    said = capsys.readouterr().out
    assert "elbow_flex of action: 2 of 24 frames were recorded at an end of the scale" in said
    assert "gripper" not in said


def test_unit_and_calibration_can_be_said(copy, tmp_path, in_percent):
    (copy / ANNOTATION_FILE).unlink()
    save_calibration(SO101, tmp_path / "calibrations" / "mine.json")
    options = ["--source-unit=degrees", "--source-calibration=mine", f"--calibration-dir={tmp_path / 'calibrations'}"]
    assert run_retarget(copy, tmp_path / "new", *options, "--joint-unit=percent") == 0
    np.testing.assert_array_equal(frames(tmp_path / "new", "action"), frames(in_percent, "action"))
    assert read_annotation(tmp_path / "new") == replace(IN_PERCENT, robot_id="mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "already is in degrees under calibration"),
        (["--joint-unit=degrees"], "already is in degrees under calibration"),
        (["--joint-unit=percent", "--source-unit=degrees"], "leave --source-unit and --source-calibration out"),
        (["--calibration=nowhere"], "no calibration nowhere.json"),
    ],
)
def test_what_makes_no_sense_is_refused(recorded, tmp_path, capsys, options, message):
    assert run_retarget(recorded, tmp_path / "new", f"--calibration-dir={tmp_path}", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_of_unknown_unit_is_refused(copy, capsys):
    (copy / ANNOTATION_FILE).unlink()
    assert run_retarget(copy, copy.with_name("new"), "--joint-unit=percent") == 2
    assert f"lerobot-vla annotate {copy} --robot.type=... --robot.id=..." in capsys.readouterr().err


def test_a_unit_that_the_frames_contradict_is_refused(copy, capsys):
    write_annotation(copy, IN_PERCENT, overwrite=True)
    assert run_retarget(copy, copy.with_name("new"), "--joint-unit=degrees") == 2
    assert "is not in percent" in capsys.readouterr().err


def test_a_calibration_of_other_joints_is_refused(recorded, tmp_path, capsys):
    save_calibration({name: joint for name, joint in SO101.items() if name != "gripper"}, tmp_path / "five.json")
    assert run_retarget(recorded, tmp_path / "new", f"--calibration={tmp_path / 'five.json'}") == 2
    assert "the calibration has ['elbow_flex', 'shoulder_lift'" in capsys.readouterr().err


def test_a_calibration_of_before_june_2025_is_refused(recorded, tmp_path, capsys):
    legacy = {
        "homing_offset": [0] * 6,
        "drive_mode": [0] * 6,
        "start_pos": [1000] * 6,
        "end_pos": [3000] * 6,
        "calib_mode": ["DEGREE"] * 5 + ["LINEAR"],
        "motor_names": JOINTS,
    }
    (tmp_path / "old.json").write_text(json.dumps(legacy))
    assert run_retarget(recorded, tmp_path / "new", f"--calibration={tmp_path / 'old.json'}") == 2
    assert "old.json" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_exists_or_lies_inside_is_refused(copy, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert run_retarget(copy, tmp_path / "there", "--joint-unit=percent") == 2
    assert "exists; name a new folder" in capsys.readouterr().err
    before = digests(copy)
    assert run_retarget(copy, copy / "new", "--joint-unit=percent") == 2
    assert "lies inside the data set" in capsys.readouterr().err
    assert digests(copy) == before


def test_a_value_that_is_not_finite_is_refused(copy, capsys):
    path = sorted(copy.glob("data/*/*.parquet"))[0]
    table = pq.read_table(path)
    rows = table["action"].to_pylist()
    rows[1][2] = float("nan")
    field = table.schema.field("action")
    column = table.schema.get_field_index("action")
    pq.write_table(table.set_column(column, field, pa.array(rows, type=field.type)), path)
    assert run_retarget(copy, copy.with_name("new"), "--joint-unit=percent") == 2
    assert "action is not finite in 1 frames, first in row 1" in capsys.readouterr().err


def test_help_says_what_it_is_for(capsys):
    with pytest.raises(SystemExit) as stop:
        run_retarget("--help")
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "The data set itself is not touched" in said
    assert "--other-arm" in said


def test_statistics_of_relative_actions_are_not_lost_in_silence(copy, capsys):
    from lerobot.datasets.dataset_tools import recompute_stats

    recompute_stats(load(copy), relative_action=True, chunk_size=4)
    assert run_retarget(copy, copy.with_name("new"), "--joint-unit=percent") == 0
    assert "did not hold the statistics of the recorded action" in capsys.readouterr().out
